//! Time: when a primary is suspected, and when a wait for another view was in vain.

mod fair_wait;
mod growth;
mod lateness;
mod order_wait;
mod strong_wait;

use self::fair_wait::FairWait;
use self::growth::Growth;
use self::lateness::Lateness;
use self::order_wait::OrderWait;
use self::strong_wait::StrongWait;
use super::campaigning::Why;
use crate::application::Application;
use crate::id::{Instant, View};
use crate::message::{Message, Suspect};
use crate::quorum::Strength;
use crate::replica::{Replica, Target};
use crate::signature::Signed;

/// How often patience may double.
const DOUBLINGS_MAX: u32 = 6;

/// How many times longer than for anything at all to be ordered the wait for one request is.
const FAIRNESS: u64 = 8;

/// A doubling of patience is taken back when for so many times the wait nobody was suspected.
const REGAINED_AFTER: u64 = 16;

/// All that a primary is waited for, and how long it has been.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience {
    order: OrderWait,
    fair: FairWait,
    strong: StrongWait,
    lateness: Lateness,
    growth: Growth,
}

impl Patience {
    /// A view was entered: its primary owes nothing yet.
    pub(super) fn begin_view(&mut self) {
        self.order.end();
        self.fair.end();
        self.strong.end();
    }

    /// Nobody is to blame for what was not ordered until now.
    fn forget(&mut self) {
        self.order.forget();
        self.fair.end();
        self.lateness.forget();
    }

    /// Nobody can order anything: that is not the primary's fault.
    fn excuse(&mut self, now: Instant) {
        self.order.excuse(now);
        self.strong.excuse(now);
        self.fair.end();
        self.lateness.excuse();
    }
}

impl<A: Application> Replica<A> {
    /// A request that was passed on to all waits from now on, if none did before.
    pub(in crate::replica) fn note_forwarded(&mut self) {
        if self.pending.any_forwarded() {
            let (now, patience_ms) = (self.now.instant, self.fair_patience());
            self.changing.patience.order.begin(now);
            self.changing.patience.fair.begin(patience_ms, now);
        }
    }

    /// Every wait begins anew.
    pub(in crate::replica) fn forget_patience(&mut self) {
        self.changing.patience.forget();
        self.changing.campaigning.forget_lock_ahead();
        self.pending.forget_forwards(self.next_forward());
        self.note_strong_slots();
    }

    /// The primary had a request executed that waited here: it does its work.
    pub(in crate::replica) fn note_progress(&mut self, was_forwarded: bool) {
        let (now, is_left) = (self.now.instant, self.pending.any_forwarded());
        let regained_ms = REGAINED_AFTER * self.order_patience_ms();
        let patience = &mut self.changing.patience;
        patience.growth.shrink(regained_ms, now);
        patience.order.progress();
        if was_forwarded {
            patience.order.progress_with_forwarded(is_left, now);
        }
        if !is_left {
            patience.fair.all_are_served();
        }
    }

    /// The primary's next order is here, and requests that it names are not.
    pub(in crate::replica) fn note_order_lacks(&mut self) {
        self.changing.patience.order.order_lacks(self.now.instant);
    }

    /// The view is left since others suspect its primary: what was too short for them would soon be
    /// for this replica, too, and one of them after the other would find that out by a view of its own.
    pub(in crate::replica) fn note_suspicion_of_others(&mut self) {
        if !self.has_suspected() {
            self.lose_some_patience();
        }
    }

    /// A primary is suspected: the wait for the next one is longer.
    fn lose_some_patience(&mut self) {
        let heard = self.waits.heard(self.primary());
        let patience = &mut self.changing.patience;
        patience.growth.grow(patience.order.lives(heard), self.now.instant);
    }

    /// A request that waited here was executed, so long after it was passed on to all, if it was.
    pub(in crate::replica) fn note_lateness(&mut self, forwarded: Option<Instant>) {
        if self.fetching.is_filling() || self.fetching.asks_for_slots() {
            // Who is behind itself cannot tell.
            return;
        }
        let now = self.now.instant;
        let late = forwarded.map_or(0, |since| now.micros_since(since));
        self.changing.patience.lateness.note(late);
        if !self.is_primary() {
            let most = self.lateness_max();
            self.changing.patience.lateness.judge(most, now);
        }
    }

    /// A slot with a strong request was executed.
    pub(in crate::replica) fn note_strong(&mut self) {
        self.changing.patience.strong.begin(self.now.instant);
    }

    /// What waits for a certificate after the history or the certified part of it changed.
    pub(in crate::replica) fn note_strong_slots(&mut self) {
        let from = self.certified().max(self.stable()).next();
        let waits = self.history.from(from).any(|(_, entry)| entry.batch.wants_commit());
        self.changing.patience.strong.begin_anew(waits, self.now.instant);
    }

    /// A certificate of the entered view formed: the primary and the timing are good. One that
    /// comes only after this replica has given the view up says nothing of the kind: a liar could
    /// show one at the end of each view.
    pub(in crate::replica) fn note_certificate(&mut self) {
        if !self.has_suspected() {
            self.changing.campaigning.certified();
            self.changing.patience.strong.certified();
            self.changing.kept_out.certified();
        }
        self.note_strong_slots();
    }

    fn patience(&self, doublings: u32) -> u64 {
        let most = self.setup.tuning.request_timeout_max_ms;
        (self.order_wait_ms() << doublings.min(DOUBLINGS_MAX)).min(most)
    }

    /// How long what was passed on may wait for any of it to be ordered, in ms, after all the times
    /// that this was too short.
    pub(in crate::replica) fn order_patience_ms(&self) -> u64 {
        self.patience(self.changing.patience.growth.doublings())
    }

    /// How long a request may wait until it is passed on to all, in ms.
    pub(in crate::replica) fn forward_wait_ms(&self) -> u64 {
        self.order_wait_ms() / 2
    }

    /// How late a primary may be on average with what was passed on to all, in microseconds.
    fn lateness_max(&self) -> u64 {
        self.order_patience_ms() * 1000 / 2
    }

    /// How long one request may wait while others are ordered, in ms.
    fn fair_patience(&self) -> u64 {
        FAIRNESS * self.patience(self.changing.patience.fair.doublings())
    }

    /// Suspects a primary that has left out a request for too long.
    fn lose_patience_with_favours(&mut self) {
        let now = self.now.instant;
        if self.is_primary() || !self.changing.patience.fair.is_due(now) {
            return;
        }
        let oldest = self
            .pending
            .forwarded_since()
            .filter(|(_, request)| self.not_orderable(request).is_none())
            .map(|(since, _)| since)
            .min();
        let patience_ms = self.fair_patience();
        if self.changing.patience.fair.is_too_long(oldest, patience_ms, now) {
            self.suspect();
        }
    }

    fn order_patience_at(&self) -> Option<Instant> {
        self.changing.patience.order.at(|| self.order_patience_ms())
    }

    fn strong_patience_at(&self) -> Option<Instant> {
        self.changing.patience.strong.at(|| self.commit_wait_ms())
    }

    /// Suspects the primary if patience has run out.
    fn lose_patience(&mut self) {
        let now = self.now.instant;
        if self.has_suspected() {
            return;
        }
        if self.is_full() {
            self.changing.patience.excuse(now);
            return;
        }
        if self.overslept() {
            return;
        }
        if self.changing.patience.lateness.take_limps() && !self.is_primary() {
            self.counters.limping_primaries += 1;
            self.lose_some_patience();
            self.suspect();
            return;
        }
        if self.order_patience_at().is_some_and(|at| at <= now) && !self.is_primary() {
            // What nobody may order now is nobody's fault either.
            let orderable =
                self.pending.forwarded().any(|request| self.not_orderable(request).is_none());
            if orderable {
                self.lose_some_patience();
                self.suspect();
                return;
            }
            let is_left = self.pending.any_forwarded();
            self.changing.patience.order.begin_anew(is_left, now);
        }
        self.lose_patience_with_favours();
        if self.has_suspected() {
            return;
        }
        if self.strong_patience_at().is_some_and(|at| at <= now) {
            // Since then somebody who is cut off has fallen silent, and a status, which waits for its
            // sender's disk, has come.
            let within = (self.commit_wait_ms() / 2).max(2 * self.setup.tuning.status_interval_ms);
            let heard = self.peers.values().filter(|peer| peer.heard_within(now, within)).count();
            let are_enough = self.size.suffices(heard + 1, Strength::Strong);
            self.changing.patience.strong.ran_out(are_enough, now);
            if are_enough {
                self.suspect();
            }
        }
    }

    /// Whether this replica itself was late: then the primary gets a little more time.
    fn overslept(&mut self) -> bool {
        let patience_ms = self.order_patience_ms();
        !self.is_primary() && self.changing.patience.order.overslept(patience_ms, self.now.instant)
    }

    fn has_suspected(&self) -> bool {
        self.has_said(Suspect::of(self.entered()))
    }

    /// Whether this replica has said this, or more.
    pub(super) fn has_said(&self, suspect: Suspect) -> bool {
        self.changing.suspicions.says(self.setup.id, suspect)
    }

    fn suspect(&mut self) {
        self.suspect_through(self.entered());
    }

    /// Suspects a view, and with it all before it.
    pub(super) fn suspect_through(&mut self, view: View) {
        self.counters.suspicions += 1;
        self.say_suspect(Suspect::of(view));
    }

    pub(super) fn say_suspect(&mut self, suspect: Suspect) {
        let Some(suspect) = self.cast(suspect) else { return };
        self.changing.suspicions.say(suspect.clone());
        self.send_suspect(suspect);
        self.reconsider();
    }

    /// It rests on nothing but the right to vote: also a full disk, or a slow one, must not hold it back.
    pub(super) fn send_suspect(&mut self, suspect: Signed<Suspect>) {
        self.outbox.send(Target::Others, Message::Suspect(suspect), self.votes_after());
    }

    /// How long a view that is asked for is waited for, in ms, after all the waits that were in vain.
    fn wait_ms(&self) -> u64 {
        let doubled = self.changing.campaigning.doubled(self.view_wait_ms());
        doubled.min(self.setup.tuning.view_change_timeout_max_ms)
    }

    fn waited_at(&self) -> Option<Instant> {
        self.changing.campaigning.waited_at(|| self.wait_ms())
    }

    fn lock_ahead_at(&self) -> Option<Instant> {
        self.changing.campaigning.lock_ahead_at(|| self.wait_ms())
    }

    fn gathered_at(&self) -> Option<Instant> {
        self.changing.campaigning.gathered_at(self.now.instant, self.gather_wait_ms())
    }

    /// The next time at which something here is due.
    pub(in crate::replica) fn change_at(&self) -> Option<Instant> {
        if !self.may_vote() {
            return None;
        }
        let patience = if self.has_suspected() {
            [None; 4]
        } else {
            let of_orders = self.order_patience_at().filter(|_| !self.is_primary());
            let Patience { fair, lateness, .. } = &self.changing.patience;
            let of_fairness = fair.at().filter(|_| !self.is_primary());
            [of_orders, of_fairness, self.strong_patience_at(), lateness.limps_at()]
        };
        patience
            .into_iter()
            .chain([
                self.resignation().map(|_| self.now.instant),
                self.waited_at(),
                self.lock_ahead_at(),
                self.gathered_at(),
                self.kept_out_due(),
            ])
            .flatten()
            .min()
    }

    /// What time alone brings about.
    pub(in crate::replica) fn tend_patience(&mut self) {
        if !self.may_vote() {
            return;
        }
        self.resign();
        self.tend_kept_out();
        self.lose_patience();
        let now = self.now.instant;
        if self.waited_at().is_some_and(|at| at <= now)
            && let Some(view) = self.changing.campaign()
        {
            self.changing.campaigning.note_vain();
            let view = view.next().max(self.lock_view().map_or(View::ZERO, View::next));
            self.campaign_for(view, Why::Waited);
            self.reconsider();
        }
        if self.lock_ahead_at().is_some_and(|at| at <= now)
            && let Some(view) = self.lock_view()
        {
            self.changing.campaigning.note_vain();
            self.changing.campaigning.forget_lock_ahead();
            self.campaign_for(view.next(), Why::LockAhead);
            self.reconsider();
        }
    }
}
