//! Putting a state that is here whole in its place.

use crate::application::Application;
use crate::message::Position;
use crate::replica::Replica;
use crate::replica::views::{Footing, Path, Reach, Side};

impl<A: Application> Replica<A> {
    /// The checkpoint of a state that is here whole and not in place yet.
    pub(in crate::replica) fn transferred(&self) -> Option<Position> {
        self.arriving.ready().map(|whole| whole.proof.position())
    }

    /// Puts a state in place without a change of view, where it is of the own history or of the view
    /// entered. Where the certificate is, no other history of this view can be certified, so that
    /// the own votes on another one, if there were any, come to nothing.
    pub(super) fn install_in_view(&mut self) {
        let Some(proof) = self.arriving.ready().map(|whole| whole.proof.clone()) else {
            return;
        };
        let of_view = proof.cover.body.view == self.entered();
        let at = proof.position();
        if self.history.goes_through(at) {
            // The own state is not the certified one, but the history is: it is executed anew. The
            // history stays what it is, so it matters not of which view the certificate is.
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
            let path = Path { footing: Footing::State(at), end };
            // It is repaired now, however long that takes: until it is, this replica is of no use.
            let left = self.turn.lend(u64::MAX);
            let is_prepared = self.prepare(&path);
            self.turn.lend(left);
            if is_prepared {
                self.adopt(None, &path);
            }
            return;
        }
        if !of_view {
            return;
        }
        // The lock may be a later one of this view: then the history leads up to it.
        let cover = &proof.cover;
        let lock = self.lock.get().filter(|lock| lock.rank() > cover.rank());
        if lock.is_some_and(|lock| lock.body.view != self.entered()) {
            return;
        }
        let end = lock.unwrap_or(cover).position();
        if let Reach::Whole(path) = self.reach(end)
            && path.footing == Footing::State(at)
            && self.passes(&path, cover.position())
            && self.executes_along(&path)
            && self.prepare(&path)
        {
            self.adopt(None, &path);
        }
    }
}
