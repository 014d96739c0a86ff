//! What is written, what rests on it, starting from it, and what may be signed then.
//!
//! | file | what is in it |
//! |---|---|
//! | `record` | what is on disk |
//! | `outbox` | what leaves, and after which record |
//! | `start` | starting from what is on disk |
//! | `standing` | whether this replica may vote: first starts, lost disks, quarantine |

mod outbox;
mod record;
mod standing;
mod start;

pub(super) use self::outbox::Outbox;
pub use self::record::{
    Adopted, Aside, EnteredView, Ground, Record, Recovered, Settled, StateHead, StoredState,
};
pub(super) use self::standing::Office;
pub use self::standing::{Doubt, Quarantine};
pub use self::start::StartError;
