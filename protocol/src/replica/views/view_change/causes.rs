//! Why another view is asked for.
//!
//! A cause is looked for in what is known here, never taken from what a peer says of it.

use super::super::path::Reach;
use super::campaigning::Why;
use crate::application::Application;
use crate::id::View;
use crate::quorum::Strength;
use crate::replica::Replica;

impl<A: Application> Replica<A> {
    /// Looks for a reason to ask for another view, as long as there is one.
    pub(in crate::replica) fn reconsider(&mut self) {
        if !self.may_vote() {
            return;
        }
        if self.changing.campaigning.refuted().is_some_and(|view| !self.lock_refutes(view)) {
            // The lock that was the reason has given way to one that the view goes together with.
            self.changing.campaigning.give_up();
        }
        while let Some((view, why)) = self.cause() {
            self.campaign_for(view, why);
        }
        self.note_waiting();
        self.resign();
    }

    pub(super) fn asks_above(&self) -> View {
        self.changing.campaign().map_or(self.entered(), |view| view.max(self.entered()))
    }

    pub(super) fn lock_view(&self) -> Option<View> {
        self.lock.get().map(|lock| lock.body.view)
    }

    /// The view must be above that of the lock: it could not be entered.
    pub(super) fn may_ask_for(&self, view: View) -> bool {
        self.lock_view().is_none_or(|lock| lock < view)
    }

    fn cause(&self) -> Option<(View, Why)> {
        let above = self.asks_above();
        let next = |view: View| {
            let lock = self.lock_view().map_or(View::ZERO, View::next);
            view.next().max(lock)
        };
        let suspected = self
            .changing
            .suspicions
            .through(self.size.quorum(Strength::Weak))
            .filter(|view| *view >= self.entered())
            .map(|view| (next(view), Why::Suspected));
        let proven = self
            .changing
            .offered
            .highest_proof()
            .filter(|(view, _)| *view >= self.entered())
            .map(|(view, _)| (next(view), Why::Proven));
        let refuted = std::iter::once(self.entered())
            .chain(self.changing.offered.iter().map(|(view, _)| view))
            .filter(|view| self.lock_refutes(*view))
            .max()
            .map(|view| (next(view), Why::Refuted(view)));
        let resigned = self.resigned().map(|view| (next(view), Why::Resigned));
        [suspected, resigned, proven, refuted]
            .into_iter()
            .flatten()
            .filter(|(view, _)| *view > above)
            .max_by_key(|(view, _)| *view)
            .or_else(|| self.followed(above))
    }

    /// The smallest view above `above` that `f + 1` others ask for, or one above it.
    fn followed(&self, above: View) -> Option<(View, Why)> {
        let views: Vec<View> = self.asked_by_others().filter(|view| *view > above).collect();
        let enough = self.size.suffices(views.len(), Strength::Weak);
        let smallest = views.into_iter().min().filter(|_| enough)?;
        let lock = self.lock_view().map_or(View::ZERO, View::next);
        Some((smallest.max(lock), Why::Followed))
    }

    /// Cause 3: `base.view <= lock.view < v`, and the head does not extend the lock.
    fn lock_refutes(&self, view: View) -> bool {
        let Some(lock) = self.lock.get().filter(|lock| lock.body.view < view) else {
            return false;
        };
        let Some(new_view) = self.new_view_of(view) else { return false };
        let base = new_view.body.base().map(|base| base.body.view);
        if base > Some(lock.body.view) {
            return false;
        }
        let head = new_view.body.header.head;
        let at = lock.position();
        if at.slot > head.slot {
            return true;
        }
        match self.reach(head) {
            Reach::Whole(path) => !self.passes(&path, at),
            // Where it meets the own history is not known, or was given up. What is here of it says
            // enough if it goes down to the lock.
            Reach::Lacks(_) | Reach::NotYet | Reach::Never => {
                self.hash_below(head, at.slot).is_some_and(|hash| hash != at.hash)
            }
        }
    }
}
