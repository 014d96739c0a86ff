//! What one replica showed of itself.

use std::collections::HashMap;

use elea_fault_injection::violation::{Violation, demand};
use elea_protocol::id::{Digest, ReplicaId, Slot, View};
use elea_protocol::message::{Position, ReplyKind};

/// How far a replica was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shown {
    /// The highest view that it stood in.
    view: View,
    /// The highest slot that it answered for, in the highest view it answered in.
    answered: (View, Slot),
    /// The highest rank that a lock of it must have, for it said something that rests on one.
    lock: Option<(View, Slot)>,
}

/// See the module.
#[derive(Clone, Default)]
pub struct Remembered {
    /// The one hash that it has, or had, at a slot in a view.
    hashes: HashMap<(View, Slot), Digest>,
    /// What its status messages said, by their stamps.
    stamps: HashMap<u64, Digest>,
    now: Shown,
    /// As it was when it was last started.
    at_start: Shown,
}

impl Remembered {
    /// It was started again: whatever it says from now on rests on what it showed so far.
    pub fn starts(&mut self) {
        self.at_start = self.now;
    }

    /// In this view its history went, or goes, through here.
    ///
    /// # Errors
    /// I7: through another place of that slot.
    pub fn goes_through(
        &mut self,
        who: ReplicaId,
        view: View,
        at: Position,
    ) -> Result<(), Violation> {
        let Position { slot, hash } = at;
        let first = *self.hashes.entry((view, slot)).or_insert(hash);
        demand(first == hash, "I7", || {
            format!("{who} has two histories in {view}: {first:?} and {hash:?} at slot {slot}")
        })
    }

    /// It says of itself, and not for the second time, that it stands in a view.
    ///
    /// # Errors
    /// I7: it was in a later one before it was started.
    pub fn stands(&mut self, who: ReplicaId, view: View) -> Result<(), Violation> {
        self.speaks_of(who, view)?;
        self.now.view = self.now.view.max(view);
        Ok(())
    }

    /// It says something of a view that it need not have entered.
    ///
    /// # Errors
    /// I7: it was in a later one before it was started.
    pub fn speaks_of(&self, who: ReplicaId, view: View) -> Result<(), Violation> {
        let at_start = self.at_start.view;
        demand(at_start <= view, "I7", || {
            format!("{who} says something new of {view}, and was in {at_start} before its restart")
        })
    }

    /// It shows where it stands.
    ///
    /// # Errors
    /// I7: it forgot, since it was started, a lock or a slot that something it said rests on.
    pub fn is_at(
        &mut self,
        who: ReplicaId,
        entered: View,
        head: Position,
        lock: Option<(View, Slot)>,
    ) -> Result<(), Violation> {
        self.goes_through(who, entered, head)?;
        let Shown { answered: (view, slot), lock: needed, .. } = self.at_start;
        demand(lock >= needed, "I7", || {
            format!("{who} has the lock {lock:?} after a restart, and rested words on {needed:?}")
        })?;
        demand(entered != view || head.slot >= slot, "I7", || {
            format!(
                "{who} ends at slot {} in {view} after a restart, and answered for slot {slot}",
                head.slot
            )
        })
    }

    /// It said something that rests on a lock that covers this slot.
    pub fn rests_on_lock(&mut self, view: View, slot: Slot) {
        self.now.lock = self.now.lock.max(Some((view, slot)));
    }

    /// It answered a client.
    ///
    /// # Errors
    /// I7: as for [`Remembered::goes_through`] and [`Remembered::stands`].
    pub fn answers(
        &mut self,
        who: ReplicaId,
        kind: ReplyKind,
        view: View,
        at: Position,
    ) -> Result<(), Violation> {
        self.goes_through(who, view, at)?;
        self.stands(who, view)?;
        self.now.answered = self.now.answered.max((view, at.slot));
        if kind == ReplyKind::Committed {
            self.rests_on_lock(view, at.slot);
        }
        Ok(())
    }

    /// It sent a status with this stamp.
    ///
    /// # Errors
    /// I7: it sent another one with the same.
    pub fn stamped(&mut self, who: ReplicaId, stamp: u64, status: Digest) -> Result<(), Violation> {
        let first = *self.stamps.entry(stamp).or_insert(status);
        demand(first == status, "I7", || {
            format!("{who} stamps two different statuses with {stamp}")
        })
    }
}
