//! What is written, what rests on it, starting from it, and what may be signed then.
//!
//! | file | what is in it |
//! |---|---|
//! | `record` | what is on disk |
//! | `outbox` | what leaves, and after which record |
//! | `start` | starting from what is on disk |
//! | `office` | what this replica is, by its disk and by what the others know of it, and what it doubts |
//! | `standing` | whether it may vote: first starts, lost disks, quarantine |

mod office;
mod outbox;
mod record;
mod standing;
mod start;

pub(super) use self::office::Office;
pub use self::office::{Doubt, Quarantine};
pub(super) use self::outbox::Outbox;
pub use self::record::{
    Adopted, Aside, EnteredView, Ground, Record, Recovered, Settled, StoredState,
};
pub use self::start::StartError;
