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

mod again;
mod carrying_out;
mod change;
mod meanwhile;
mod preparing;

use std::collections::BTreeSet;
use std::sync::Arc;

use super::path::Path;
use super::trail::Trail;
use crate::application::Application;
use crate::history::Entry;
use crate::id::{RequestName, Slot};
use crate::message::{Position, Results, SignedRequest};
use crate::replica::Replica;

/// Requests that are looked at, executed or put back in one step of a turn, beside the slot itself.
const REQUESTS_A_STEP: u64 = 16;

/// A history that is about to be adopted, as far as it is prepared.
#[derive(Clone, Debug)]
pub(in crate::replica) struct Preparation {
    path: Path,
    /// The last slot of it that is written aside.
    written: Slot,
    /// What it holds.
    names: BTreeSet<RequestName>,
    /// The last own slot that was looked through.
    looked: Slot,
    /// What only the own history holds, oldest first.
    orphans: Vec<Arc<SignedRequest>>,
    /// What the requests of the own slots came to, for comparison when they are executed anew.
    results: Vec<(RequestName, Results)>,
}

/// Where the slots are that are to be executed.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum Source {
    /// Beside the own history.
    Branch(Trail),
    /// They were the own history's, and will be again: what is undone so far, the lowest last. Of some the state was
    /// taken.
    Undone { end: Position, entries: Vec<Entry>, taken: BTreeSet<Slot> },
}

/// A history that was adopted, or the own one, and that is not executed to its end yet.
#[derive(Clone, Debug)]
pub(in crate::replica) struct Adopting {
    source: Source,
    /// Up to here the old history stays; what it has above is undone first.
    kept: Slot,
    /// What is to be executed.
    names: BTreeSet<RequestName>,
    /// Orphans that are not among what waits yet, oldest first.
    orphans: Vec<Arc<SignedRequest>>,
    /// What undone requests came to, as far as it is not at hand yet.
    results: Vec<(RequestName, Results)>,
    /// Whether requests were taken in unseen meanwhile, or a state came with some executed.
    unseen: bool,
    /// Whether it took more than one event.
    is_long: bool,
}

impl Adopting {
    /// Its end.
    pub(super) fn end(&self) -> Position {
        match &self.source {
            Source::Branch(trail) => trail.end(),
            Source::Undone { end, .. } => *end,
        }
    }

    /// Whether the state after this slot was taken when it was executed before.
    pub(in crate::replica) fn was_taken(&self, slot: Slot) -> bool {
        matches!(&self.source, Source::Undone { taken, .. } if taken.contains(&slot))
    }

    /// Whether this request is among what is to be executed, or an orphan.
    pub(in crate::replica) fn holds(&self, name: &RequestName) -> bool {
        self.names.contains(name)
            || self.orphans.iter().any(|request| request.body().name() == *name)
    }
}

impl<A: Application> Replica<A> {
    /// Whether a history was adopted and is not executed to its end yet.
    #[must_use]
    pub fn is_adopting(&self) -> bool {
        self.adopting.is_some()
    }

    /// Whether there is long work that goes on in the next turn.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        self.is_adopting() || self.turn.waits()
    }

    /// The end of the history that counts: of the one adopted, where that is not executed yet.
    pub(in crate::replica) fn tip(&self) -> Position {
        self.adopting.as_ref().map_or_else(|| self.history.head(), Adopting::end)
    }
}
