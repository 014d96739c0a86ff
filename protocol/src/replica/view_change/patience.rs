//! Time: when a primary is suspected, and when a wait for another view was in vain.

use super::Why;
use crate::application::Application;
use crate::id::{Instant, View};
use crate::message::{Message, Suspect};
use crate::quorum::Strength;
use crate::replica::{Replica, Target};

/// How often patience may double.
const PATIENCE_DOUBLINGS: u32 = 6;

/// How many times longer than for anything at all to be ordered the wait for one request is.
const FAIRNESS: u64 = 8;

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
        self.changing.fair_at = None;
        self.changing.lock_ahead_since = None;
        self.pending.forget_forwards(self.next_forward());
        self.note_strong_slots();
    }

    /// The primary had a request executed that waited here: it does its work.
    pub(in crate::replica) fn note_progress(&mut self, was_forwarded: bool) {
        self.changing.impatience = 0;
        if was_forwarded {
            self.changing.waiting_since = self.pending.any_forwarded().then_some(self.now.instant);
        }
        if !self.pending.any_forwarded() {
            self.changing.unfairness = 0;
        }
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
        self.setup.tuning.request_timeout_ms << doublings.min(PATIENCE_DOUBLINGS)
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
        Some(since.after_ms(self.patience(self.changing.impatience)))
    }

    fn strong_patience_at(&self) -> Option<Instant> {
        let since = self.changing.strong_since?;
        // Without a cap: nobody can tell a partition from a liar that withholds its votes.
        let doublings = self.changing.strong_impatience.min(30);
        Some(since.after_ms(self.setup.tuning.request_timeout_ms << doublings))
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
            return;
        }
        if self.order_patience_at().is_some_and(|at| at <= now) && !self.is_primary() {
            // What nobody may order now is nobody's fault either.
            let orderable =
                self.pending.forwarded().any(|request| self.not_orderable(request).is_none());
            if orderable {
                self.changing.impatience += 1;
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
            let within =
                self.setup.tuning.request_timeout_ms.max(2 * self.setup.tuning.status_interval_ms);
            let heard = self.peers.values().filter(|peer| peer.heard_within(now, within)).count();
            self.changing.strong_since = Some(now);
            if self.size.suffices(heard + 1, Strength::Strong) {
                self.changing.strong_impatience += 1;
                self.suspect();
            }
        }
    }

    fn has_suspected(&self) -> bool {
        let own = self.changing.suspects.get(&self.setup.id);
        own.is_some_and(|suspect| suspect.body.view >= self.entered)
    }

    fn suspect(&mut self) {
        self.suspect_through(self.entered);
    }

    /// Suspects a view, and with it all before it.
    pub(super) fn suspect_through(&mut self, view: View) {
        let Some(suspect) = self.cast(Suspect { view }) else { return };
        self.counters.suspicions += 1;
        self.changing.suspects.insert(self.setup.id, suspect.clone());
        self.send(Target::Others, Message::Suspect(suspect));
        self.reconsider();
    }

    fn wait_ms(&self) -> u64 {
        let tuning = &self.setup.tuning;
        let doubled =
            tuning.view_change_timeout_ms.saturating_mul(1 << self.changing.waits.min(20));
        doubled.min(tuning.view_change_timeout_max_ms)
    }

    fn waited_at(&self) -> Option<Instant> {
        Some(self.changing.campaign?.waiting?.after_ms(self.wait_ms()))
    }

    fn lock_ahead_at(&self) -> Option<Instant> {
        Some(self.changing.lock_ahead_since?.after_ms(self.wait_ms()))
    }

    fn gathered_at(&self) -> Option<Instant> {
        let now = self.now.instant;
        let delay = self.setup.tuning.weak_view_delay_ms;
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
            [None; 3]
        } else {
            let of_orders = self.order_patience_at().filter(|_| !self.is_primary());
            let of_fairness = self.changing.fair_at.filter(|_| !self.is_primary());
            [of_orders, of_fairness, self.strong_patience_at()]
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
