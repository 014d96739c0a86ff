//! New views: entering those that others begin, beginning the own ones, and keeping what comes for
//! them too early.

use super::super::entering::{Entrance, Sound};
use super::super::path::{Footing, Path, Reach};
use crate::application::Application;
use crate::id::{ReplicaId, Slot, View};
use crate::message::{
    Commit, CommitCertificate, Message, NewView, NewViewHeader, Order, Position, ViewChange,
    changes_digest,
};
use crate::quorum::Strength;
use crate::replica::time::Peer;
use crate::replica::{Replica, Target};
use crate::signature::Signed;

impl<A: Application> Replica<A> {
    /// `true` where one may be entered that is still being prepared.
    pub(super) fn enter_offered(&mut self) -> bool {
        let mut kept_out = None;
        for view in self.changing.offered.open() {
            let Some(new_view) = self.changing.offered.get(view).cloned() else { continue };
            match self.entrance(&new_view.body) {
                Entrance::Open(path) => {
                    if !self.prepare(&path) {
                        return true;
                    }
                    self.adopt(Some(new_view), &path);
                    self.reconsider();
                    return false;
                }
                Entrance::Shut => self.prove_new_view_refuted(&new_view),
                // Downwards, so the first is the highest.
                Entrance::Waits => kept_out = kept_out.or(Some(view)),
                Entrance::Barred => {
                    self.counters.new_views_refused += 1;
                    self.changing.offered.bar(view);
                }
            }
        }
        self.note_kept_out(kept_out);
        false
    }

    /// The views that this replica leads and asks for, or asked for because others do.
    pub(super) fn own_views(&self) -> Vec<View> {
        let me = self.setup.id;
        let asked = self.changing.asked.views_of(me).filter(|view| *view > self.entered());
        asked.filter(|view| view.primary(self.size.replicas()) == me).collect()
    }

    /// The view changes that count for a view.
    pub(super) fn gathered_changes(&self, view: View) -> Vec<&Signed<ViewChange>> {
        let takes_part = |by: ReplicaId| {
            // Who has entered this view or a later one takes no part any more.
            by == self.setup.id || self.peers.get(&by).and_then(Peer::entered) < Some(view)
        };
        self.changing.asked.for_view(view).filter(|change| takes_part(change.by)).collect()
    }

    /// As primary of a view asked for, begins it when enough ask for it.
    pub(super) fn begin_views(&mut self) {
        for view in self.own_views() {
            if view > self.entered() {
                self.begin_view_as_primary(view);
            }
            if self.turn.waits() {
                // One at a time: what is prepared for one would be given up for another.
                return;
            }
        }
    }

    fn begin_view_as_primary(&mut self, view: View) {
        let changes: Vec<Signed<ViewChange>> =
            self.gathered_changes(view).into_iter().cloned().collect();
        if !self.size.suffices(changes.len(), Strength::Weak) {
            return;
        }
        let now = self.now.instant;
        let gathered = self.changing.campaigning.gathered(view, now);
        let late = gathered.after_ms(self.gather_wait_ms()) <= now;
        let strong = self.size.suffices(changes.len(), Strength::Strong);
        if !strong && !late {
            return;
        }
        let mut complete = true;
        let chosen: Vec<Signed<ViewChange>> = changes
            .into_iter()
            .filter(|change| match &change.body.lock {
                None => true,
                Some(lock) => match self.reach(lock.position()) {
                    Reach::Whole(_) => true,
                    // A lock below all that is in memory is below what is stable.
                    Reach::Never => lock.body.slot <= self.history.base().slot,
                    Reach::Lacks(_) | Reach::NotYet => {
                        complete = false;
                        false
                    }
                },
            })
            .collect();
        let own = chosen.iter().find(|change| change.by == self.setup.id);
        let current = own.is_some_and(|own| own.body.lock_rank() == self.lock.rank());
        if !current || !self.size.suffices(chosen.len(), Strength::Weak) {
            return;
        }
        let base = chosen
            .iter()
            .filter_map(|change| change.body.lock.as_ref())
            .max_by_key(|lock| lock.rank())
            .cloned();
        let mut best: Option<Path> = None;
        let ends = chosen.iter().map(|change| change.body.head).chain([self.history.head()]);
        let mut ends: Vec<Position> =
            ends.chain(base.as_ref().map(|base| base.position())).collect();
        ends.sort();
        ends.dedup();
        let certified = base.as_ref().map_or(Slot::GENESIS, |base| base.body.slot);
        for end in ends {
            match self.reach(end) {
                Reach::Whole(path) => match self.may_begin_with(&path, base.as_ref()) {
                    Sound::Yes if best.as_ref().is_none_or(|best| best.top() < path.top()) => {
                        // What not all of them could follow would keep them out of this view.
                        let path = self.followed_by_all(path, certified, &chosen);
                        best = best.into_iter().chain(path).max_by_key(Path::top);
                    }
                    Sound::NotYet | Sound::Waits => complete = false,
                    Sound::Yes | Sound::No => {}
                },
                Reach::Lacks(_) | Reach::NotYet => complete = false,
                Reach::Never => {}
            }
        }
        let Some(path) = best.filter(|_| complete || late) else { return };
        self.begin_view_with(view, chosen, &path);
    }

    /// Whether a new view may begin with this history.
    fn may_begin_with(&mut self, path: &Path, base: Option<&CommitCertificate>) -> Sound {
        if base.is_some_and(|base| !self.passes(path, base.position())) {
            return Sound::No;
        }
        let on_own = match path.footing {
            Footing::Common(slot) => slot >= self.stable(),
            Footing::State(_) => true,
        };
        if !on_own {
            return Sound::No;
        }
        self.sound(path, base.map_or(Slot::GENESIS, |base| base.body.slot))
    }

    fn begin_view_with(&mut self, view: View, changes: Vec<Signed<ViewChange>>, path: &Path) {
        if !self.prepare(path) {
            return;
        }
        let head = path.end;
        let header = NewViewHeader { view, head, changes: changes_digest(&changes) };
        let Some(new_view) = self.cast(NewView { header, changes }) else { return };
        if !matches!(self.entrance(&new_view.body), Entrance::Open(open) if open == *path) {
            return;
        }
        self.adopt(Some(new_view.clone()), path);
        if self.entered() != view {
            return;
        }
        self.counters.new_views_made += 1;
        // One for a view, ever: it leaves when the view is entered on disk.
        self.send(Target::Others, Message::NewView(new_view));
        self.reconsider();
    }

    // ---- what comes too early ----

    /// An order or vote of a view that is not entered yet: likely it will be in a moment.
    pub(in crate::replica) fn keep_later_order(&mut self, order: Signed<Order>) {
        if order.by == order.body.header.view.primary(self.size.replicas()) {
            self.changing.early.keep_order(order);
        }
    }

    pub(in crate::replica) fn keep_later_commit(&mut self, vote: &Signed<Commit>) {
        self.changing.early.keep_commit(vote);
    }

    /// Takes up what came before the view was entered.
    pub(in crate::replica) fn take_later(&mut self) {
        let entered = self.entered();
        for order in self.changing.early.take_orders(entered) {
            self.on_order(order);
        }
        for vote in self.changing.early.take_commits(entered) {
            self.on_commit(&vote);
        }
    }
}
