//! A primary that cannot do its work says so.
//!
//! On a full disk no slot becomes durable, so none is ordered; who was primary before it started anew may have
//! ordered what it does not know, so it orders nothing more in that view; and who is going to be stopped will
//! order nothing more at all. The others would find that out by waiting as
//! long as they wait for any primary, which is long where disks have been slow. So such a primary
//! resigns, and that word alone is a reason to leave its view: nobody but the primary can say it,
//! and a liar that does gains no more than by silence. To suspect the own view is less than that: a primary
//! whose strong requests do not commit does so, too, and it takes `f + 1` for others to follow.

use crate::application::Application;
use crate::id::View;
use crate::message::Suspect;
use crate::replica::Replica;

impl<A: Application> Replica<A> {
    pub(in crate::replica) fn on_disk_full(&mut self, is_full: bool) {
        self.outbox.note_disk_full(is_full);
        self.resign();
    }

    pub(in crate::replica) fn on_leave(&mut self) {
        self.note_leaving();
        self.resign();
    }

    /// The driver is going to stop this replica.
    pub(in crate::replica) fn note_leaving(&mut self) {
        self.changing.leaving = self.changing.leaving.or(Some(self.asks_above()));
    }

    /// Whether this replica was told that it is going to be stopped, and nobody waits for it any more: another one
    /// leads, and no view change is under way that its word may be needed for; or it leads after all have had their
    /// turn, since they leave, too, and hands over no more. A replica that cannot hand over, since too few are there,
    /// has not left, and may be stopped all the same.
    #[must_use]
    pub fn has_left(&self) -> bool {
        let leads = |view: View| view.primary(self.size.replicas()) == self.setup.id;
        let hands_over = leads(self.entered()) && self.leaves(self.entered());
        let is_awaited = hands_over || self.changing.campaign().is_some();
        self.changing.leaving.is_some() && !(self.may_vote() && is_awaited)
    }

    /// Whether this replica is about to be stopped. All of them may be: then each view is given up until each has had its
    /// turn, and the last one stays.
    fn leaves(&self, view: View) -> bool {
        self.changing
            .leaving
            .is_some_and(|since| view.0.saturating_sub(since.0) < u64::from(self.size.replicas()))
    }

    /// Gives up the view that goes on, or is asked for, where it would be this replica's and it could order nothing
    /// in it.
    pub(super) fn resign(&mut self) {
        if let Some(word) = self.resignation() {
            self.counters.resignations += 1;
            self.say_suspect(word);
        }
    }

    /// What is to be said of such a view, and was not said yet.
    pub(super) fn resignation(&self) -> Option<Suspect> {
        let view = self.may_be_given_up()?;
        let is_own = view.primary(self.size.replicas()) == self.setup.id;
        let is_forgotten = view == self.entered() && self.view.is_from_disk();
        let cannot = self.outbox.is_disk_full() || is_forgotten || self.leaves(view);
        let word = Suspect::resign(view);
        (cannot && is_own && self.may_vote() && !self.has_said(word)).then_some(word)
    }

    /// The view that goes on, or is asked for, if its primary has given it up. A later one is none of its
    /// business yet: a liar could lead everybody through all views.
    pub(super) fn resigned(&self) -> Option<View> {
        let view = self.may_be_given_up()?;
        let of_primary = self.changing.suspicions.of(view.primary(self.size.replicas()))?;
        (of_primary.body == Suspect::resign(view)).then_some(view)
    }

    /// The view that goes on, or is asked for, until all have had their turn: where all disks are full,
    /// views would follow each other as fast as messages go.
    fn may_be_given_up(&self) -> Option<View> {
        let view = self.asks_above();
        let turns = view.0.saturating_sub(self.entered().0);
        (turns < u64::from(self.size.replicas())).then_some(view)
    }
}
