//! Time: when a primary is suspected, and when a wait for another view was in vain.

use super::Why;
use crate::application::Application;
use crate::id::{Instant, View};
use crate::message::{Message, Suspect};
use crate::quorum::Strength;
use crate::replica::{Replica, Target};
use crate::signature::Signed;

/// How often patience may double.
const PATIENCE_DOUBLINGS: u32 = 6;

/// How many times longer than for anything at all to be ordered the wait for one request is.
const FAIRNESS: u64 = 8;

/// A doubling of patience is taken back when for so many times the wait nobody was suspected.
const REGAINED_AFTER: u64 = 16;

/// A primary's lateness is judged by no fewer requests.
const JUDGED_LEAST: u32 = 16;

/// Who looks at the clock so much later than it wanted to, in ms, stood still itself: what came
/// meanwhile may not be here yet.
const OVERSLEPT_MS: u64 = 100;

impl<A: Application> Replica<A> {
    /// A request that was passed on to all waits from now on, if none did before.
    pub(in crate::replica) fn note_forwarded(&mut self) {
        if self.changing.waiting_since.is_none() && self.pending.any_forwarded() {
            self.changing.waiting_since = Some(self.now.instant);
        }
        if self.changing.fair_at.is_none() && self.pending.any_forwarded() {
            self.changing.fair_at = Some(self.now.instant.after_ms(self.fair_patience()));
        }
    }

    /// Every wait begins anew.
    pub(in crate::replica) fn forget_patience(&mut self) {
        self.changing.waiting_since = None;
        self.changing.was_ordered = false;
        self.changing.fair_at = None;
        self.changing.lock_ahead_since = None;
        self.forget_lateness();
        self.pending.forget_forwards(self.next_forward());
        self.note_strong_slots();
    }

    /// The primary had a request executed that waited here: it does its work.
    pub(in crate::replica) fn note_progress(&mut self, was_forwarded: bool) {
        self.regain_patience();
        self.changing.was_late = false;
        if was_forwarded {
            self.changing.was_ordered = false;
            self.changing.waiting_since = self.pending.any_forwarded().then_some(self.now.instant);
        }
        if !self.pending.any_forwarded() {
            self.changing.unfairness = 0;
        }
    }

    /// The primary's next order is here, and requests that it names are not: it gets the same wait once more until
    /// something is executed. A large request takes its time on the line, and a primary that names what it does
    /// not give gains no more than that.
    pub(in crate::replica) fn note_order_lacks(&mut self) {
        if self.changing.waiting_since.is_some() && !self.changing.was_ordered {
            self.changing.was_ordered = true;
            self.changing.waiting_since = Some(self.now.instant);
        }
    }

    /// A primary does its work. What the wait grew by for primaries that were dead is taken back at once;
    /// what it grew by for one that lived comes back slowly, or the wait would be too short again.
    fn regain_patience(&mut self) {
        let now = self.now.instant;
        let again =
            self.changing.impatient_since.after_ms(REGAINED_AFTER * self.order_patience_ms());
        if self.changing.lasting > 0 && again <= now {
            self.changing.lasting -= 1;
            self.changing.impatient_since = now;
        }
        self.changing.impatience = self.changing.impatience.min(self.changing.lasting);
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
        let changing = &mut self.changing;
        changing.impatience = (changing.impatience + 1).min(PATIENCE_DOUBLINGS);
        let lives = changing.waiting_since.is_some_and(|since| heard >= Some(since));
        if lives {
            changing.lasting = changing.impatience;
            changing.impatient_since = self.now.instant;
        }
    }

    /// A request that waited here was executed, so long after it was passed on to all, if it was. A
    /// primary that is late with most of what it orders is slower than others would be, although it is
    /// never late enough with all of it.
    pub(in crate::replica) fn note_lateness(&mut self, forwarded: Option<Instant>) {
        if self.fetching.is_filling() || self.fetching.asks_for_slots() {
            // Who is behind itself cannot tell.
            return;
        }
        let late = forwarded.map_or(0, |since| self.now.instant.micros_since(since));
        let changing = &mut self.changing;
        changing.lateness = changing.lateness - changing.lateness / 16 + late / 16;
        changing.judged = changing.judged.saturating_add(1);
        let is_late = changing.judged >= JUDGED_LEAST && changing.lateness > self.lateness_max();
        if is_late && !self.is_primary() && self.changing.limps_at.is_none() {
            self.changing.limps_at = Some(self.now.instant);
        }
    }

    /// Another primary begins without a past.
    fn forget_lateness(&mut self) {
        (self.changing.lateness, self.changing.judged, self.changing.limps_at) = (0, 0, None);
    }

    /// A slot with a strong request was executed.
    pub(in crate::replica) fn note_strong(&mut self) {
        if self.changing.strong_since.is_none() {
            self.changing.strong_since = Some(self.now.instant);
        }
    }

    /// What waits for a certificate after the history or the certified part of it changed.
    pub(in crate::replica) fn note_strong_slots(&mut self) {
        let from = self.certified().max(self.stable()).next();
        let waits = self.history.from(from).any(|(_, entry)| entry.batch.wants_commit());
        self.changing.strong_since = waits.then_some(self.now.instant);
    }

    /// A certificate of the entered view formed: the primary and the timing are good. One that
    /// comes only after this replica has given the view up says nothing of the kind: a liar could
    /// show one at the end of each view.
    pub(in crate::replica) fn note_certificate(&mut self) {
        if !self.has_suspected() {
            self.changing.waits = 0;
            self.changing.strong_impatience = 0;
            self.changing.kept_out.certified();
        }
        self.note_strong_slots();
    }

    fn patience(&self, doublings: u32) -> u64 {
        let most = self.setup.tuning.request_timeout_max_ms;
        (self.order_wait_ms() << doublings.min(PATIENCE_DOUBLINGS)).min(most)
    }

    /// How long what was passed on may wait for any of it to be ordered, in ms, after all the times
    /// that this was too short.
    pub(in crate::replica) fn order_patience_ms(&self) -> u64 {
        self.patience(self.changing.impatience)
    }

    /// How long a request may wait until it is passed on to all, in ms.
    pub(in crate::replica) fn forward_wait_ms(&self) -> u64 {
        self.order_wait_ms() / 2
    }

    /// How late a primary may be on average with what was passed on to all, in microseconds.
    fn lateness_max(&self) -> u64 {
        self.order_patience_ms() * 1000 / 2
    }

    /// How long one request may wait while others are ordered: a primary that orders a little of
    /// what waits is never out of the others' patience, and could leave out a client for ever.
    fn fair_patience(&self) -> u64 {
        FAIRNESS * self.patience(self.changing.unfairness)
    }

    /// Suspects a primary that has left out a request for too long.
    fn lose_patience_with_favours(&mut self) {
        let now = self.now.instant;
        if self.is_primary() || self.changing.fair_at.is_none_or(|at| at > now) {
            return;
        }
        let oldest = self
            .pending
            .forwarded_since()
            .filter(|(_, request)| self.not_orderable(request).is_none())
            .map(|(since, _)| since)
            .min();
        let patience = self.fair_patience();
        self.changing.fair_at = oldest.map(|since| since.after_ms(patience));
        if self.changing.fair_at.is_some_and(|at| at <= now) {
            self.changing.unfairness += 1;
            self.changing.fair_at = None;
            self.suspect();
        }
    }

    fn order_patience_at(&self) -> Option<Instant> {
        let since = self.changing.waiting_since?;
        Some(since.after_ms(self.order_patience_ms()))
    }

    fn strong_patience_at(&self) -> Option<Instant> {
        let since = self.changing.strong_since?;
        // Without a cap: nobody can tell a partition from a liar that withholds its votes.
        let doublings = self.changing.strong_impatience.min(30);
        Some(since.after_ms(self.commit_wait_ms().saturating_mul(1 << doublings)))
    }

    /// Suspects the primary if patience has run out.
    fn lose_patience(&mut self) {
        let now = self.now.instant;
        if self.has_suspected() {
            return;
        }
        if self.is_full() {
            // Nobody can order anything: that is not the primary's fault.
            self.changing.waiting_since = self.changing.waiting_since.map(|_| now);
            self.changing.strong_since = self.changing.strong_since.map(|_| now);
            self.changing.fair_at = None;
            self.changing.limps_at = None;
            return;
        }
        if self.overslept() {
            return;
        }
        if self.changing.limps_at.take().is_some() && !self.is_primary() {
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
            self.changing.waiting_since = self.pending.any_forwarded().then_some(now);
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
            self.changing.strong_since = Some(now);
            if self.size.suffices(heard + 1, Strength::Strong) {
                self.changing.strong_impatience += 1;
                self.suspect();
            }
        }
    }

    /// Whether this replica itself was late: then the primary gets a little more time, once.
    fn overslept(&mut self) -> bool {
        let now = self.now.instant;
        let late = self.order_patience_at().is_some_and(|at| at.after_ms(OVERSLEPT_MS) <= now);
        if !late || self.changing.was_late || self.is_primary() {
            return false;
        }
        self.changing.was_late = true;
        let left = self.order_patience_ms() / 2;
        self.changing.waiting_since = Some(Instant(now.0.saturating_sub(left * 1000)));
        true
    }

    fn has_suspected(&self) -> bool {
        self.has_said(Suspect::of(self.entered()))
    }

    /// Whether this replica has said this, or more.
    pub(super) fn has_said(&self, suspect: Suspect) -> bool {
        let own = self.changing.suspects.get(&self.setup.id);
        own.is_some_and(|own| own.body >= suspect)
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
        self.changing.suspects.insert(self.setup.id, suspect.clone());
        self.send_suspect(suspect);
        self.reconsider();
    }

    /// It rests on nothing but the right to vote: also a full disk, or a slow one, must not hold it back.
    pub(super) fn send_suspect(&mut self, suspect: Signed<Suspect>) {
        self.outbox.send(Target::Others, Message::Suspect(suspect), self.votes_after());
    }

    fn wait_ms(&self) -> u64 {
        let doubled = self.view_wait_ms().saturating_mul(1 << self.changing.waits.min(20));
        doubled.min(self.setup.tuning.view_change_timeout_max_ms)
    }

    fn waited_at(&self) -> Option<Instant> {
        Some(self.changing.campaign?.waiting?.after_ms(self.wait_ms()))
    }

    fn lock_ahead_at(&self) -> Option<Instant> {
        Some(self.changing.lock_ahead_since?.after_ms(self.wait_ms()))
    }

    fn gathered_at(&self) -> Option<Instant> {
        let now = self.now.instant;
        let delay = self.gather_wait_ms();
        // What is past and did not begin waits for messages, not for time.
        let ends = self.changing.gathered.values().map(|gathered| gathered.after_ms(delay));
        ends.filter(|at| *at > now).min()
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
            let of_fairness = self.changing.fair_at.filter(|_| !self.is_primary());
            [of_orders, of_fairness, self.strong_patience_at(), self.changing.limps_at]
        };
        patience
            .into_iter()
            .chain([
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
        self.tend_kept_out();
        self.lose_patience();
        let now = self.now.instant;
        if self.waited_at().is_some_and(|at| at <= now)
            && let Some(campaign) = self.changing.campaign
        {
            self.changing.waits += 1;
            let view = campaign.view.next().max(self.lock_view().map_or(View::ZERO, View::next));
            self.campaign_for(view, Why::Waited);
            self.reconsider();
        }
        if self.lock_ahead_at().is_some_and(|at| at <= now)
            && let Some(view) = self.lock_view()
        {
            self.changing.waits += 1;
            self.changing.lock_ahead_since = None;
            self.campaign_for(view.next(), Why::LockAhead);
            self.reconsider();
        }
    }
}
