//! Sockets, as replicas and clients use them alike: how an address is [dialled](Dialler) and
//! [listened at](Listening), how a connection is [set up](prepare) so that a dead one is noticed,
//! and how it is [encrypted](Identity) between two keys.
//!
//! Nothing here knows what is said on a connection.

mod connection;
mod dial;
mod listen;
mod patient;
mod secure;
mod socket;

pub use connection::{BINDING, Connection, ReadHalf, WriteHalf};
pub use dial::{ADDRESSES_MAX, ATTEMPT_DELAY, Dialler, Failed, Resolve, SystemResolver};
pub use listen::Listening;
pub use patient::Patient;
pub use secure::{Expecting, Identity, Key, SecureError};
pub use socket::{SILENCE, bear_a_slow_line, prepare};
