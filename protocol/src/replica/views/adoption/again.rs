//! Executing the own history again.

use super::super::branch::Side;
use super::Adopting;
use crate::application::Application;
use crate::id::Slot;
use crate::message::Position;
use crate::replica::Replica;

impl<A: Application> Replica<A> {
    /// Undoes the own history down to a slot above the stable one, or that one, and executes it again from there. It
    /// stays what it is, so the disk hears nothing of it.
    pub(in crate::replica) fn execute_again(&mut self, kept: Slot) {
        let Some(hash) = self.history.hash_at(kept) else { return };
        let requests = self.history.from(kept.next()).flat_map(|(_, entry)| &entry.batch.requests);
        let names = requests.map(|request| request.body().name()).collect();
        let end = self.put_own(Position { slot: kept, hash });
        let Some(trail) = self.branches.take(end) else { return };
        self.branches.clear();
        self.preparation = None;
        let (orphans, results, unseen, is_long) = (Vec::new(), Vec::new(), false, false);
        self.adopting = Some(Adopting { trail, kept, names, orphans, results, unseen, is_long });
        self.carry_out();
    }

    /// Puts the slots of the own history above `at` beside it, so that they can be executed anew. Answers where they
    /// end.
    pub(in crate::replica) fn put_own(&mut self, at: Position) -> Position {
        let mut previous = at.hash;
        let mut slots = Vec::new();
        for (slot, entry) in self.history.from(at.slot.next()) {
            let weight = self.weight(&entry.batch);
            let side = Side::new(previous, entry.batch.clone(), weight, entry.order.clone());
            previous = entry.hash;
            slots.push((Position { slot, hash: previous }, side));
        }
        let end = self.history.head();
        self.branches.put(end, slots);
        end
    }
}
