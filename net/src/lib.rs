//! Sockets, as replicas and clients use them alike: how an address is [dialled](Dialler) and
//! [listened at](Listening), and how a connection is [set up](prepare) so that a dead one is noticed.
//!
//! Nothing here knows what is said on a connection. What a handshake is, its caller says.

mod dial;
mod listen;
mod patient;
mod socket;

pub use dial::{ADDRESSES_MAX, ATTEMPT_DELAY, Dialler, Failed, Resolve, SystemResolver};
pub use listen::Listening;
pub use patient::Patient;
pub use socket::{SILENCE, bear_a_slow_line, prepare};
