//! Adopting a history: the merge itself, in turns.
//!
//! To adopt a history is to undo the own one down to where the two part, to execute the other's
//! slots, and to put what only the own one held back to the front of what waits. Nothing that was
//! executed is lost; it is only moved.
//!
//! Histories may be long, so this takes [turns](crate::replica::time::Turn), in three parts:
//!
//! 1. **Preparing.** The slots are written aside, and it is found out which requests will be orphans.
//!    The old history goes on meanwhile; nothing of this counts yet, and it may come to nothing.
//! 2. **The change itself** is one event. The orphans are written, and then one record: the view, the entry
//!    slot, the lock and the history are the new ones from then on. It costs no more than its records.
//! 3. **Carrying it out**: undoing, then executing slot by slot. A crash anywhere in it starts from that
//!    record. Until it is done the replica knows no more of its own history than what it has executed,
//!    so nothing leaves that would rest on more: no order is made or accepted, no vote cast, no client
//!    answered, no history adopted. Requests are kept, and what peers say is heard, or comes again.
//!
//! A part of the own history may be carried out [again](Replica::execute_again), without the first two parts.

mod adopting;
mod again;
mod carrying_out;
mod change;
mod meanwhile;
mod preparation;
mod preparing;

pub(in crate::replica) use self::adopting::Adopting;
pub(in crate::replica) use self::preparation::Preparation;
use crate::application::Application;
use crate::message::Position;
use crate::replica::Replica;

/// Requests that are looked at, executed or put back in one step of a turn, beside the slot itself.
const REQUESTS_A_STEP: u64 = 16;

impl<A: Application> Replica<A> {
    /// Whether a history was adopted and is not executed to its end yet.
    #[must_use]
    pub fn is_adopting(&self) -> bool {
        self.adopting.is_under_way()
    }

    /// Whether there is long work that goes on in the next turn.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        self.is_adopting() || self.turn.waits()
    }

    /// The end of the history that counts: of the one adopted, where that is not executed yet.
    pub(in crate::replica) fn tip(&self) -> Position {
        self.adopting.end().unwrap_or_else(|| self.history.head())
    }
}
