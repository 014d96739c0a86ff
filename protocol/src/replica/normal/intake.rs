//! Requests, as they come from clients: what is refused, and what waits.

use std::sync::Arc;

use super::pending::Inserted;
use crate::application::Application;
use crate::id::{ClientId, Slot};
use crate::message::{Refusal, RefusalReason, SignedRequest, StableProof, ToClient};
use crate::replica::{Known, Replica};

impl<A: Application> Replica<A> {
    pub(in crate::replica) fn on_request(&mut self, request: Arc<SignedRequest>) {
        if self.answer_known(&request) {
            return;
        }
        let body = request.body();
        if let Some(reason) = self.sessions().refusal(body) {
            self.refuse(&request, reason);
            return;
        }
        if self.is_stranger(&body.client, body.strength()) {
            self.turn_away(&request, RefusalReason::UnknownClient);
            return;
        }
        if !body.wants_commit() && self.is_full() {
            self.refuse(&request, RefusalReason::HistoryFull);
            return;
        }
        let name = body.name();
        if self.takes_too_much(&name.client) {
            self.counters.over_share += 1;
            if body.wants_commit() {
                self.answer(name.client, name.session, ToClient::Busy(name));
            } else {
                self.refuse(&request, RefusalReason::HistoryFull);
            }
            return;
        }
        let forward_at = self.next_forward();
        match self.pending.insert(request, forward_at, false, &self.setup.tuning) {
            Inserted::New => {
                self.pipeline.note_came(&name, self.now.instant);
                self.advance();
            }
            Inserted::AlreadyThere => {}
            Inserted::NoRoom => {
                self.counters.busy += 1;
                self.answer(name.client, name.session, ToClient::Busy(name));
            }
        }
    }

    /// Says why a request is not taken, or does not stay. Where it is not known yet whether enough list its client, that
    /// is no reason for good: it is to be sent again.
    pub(super) fn turn_away(&mut self, request: &SignedRequest, reason: RefusalReason) {
        let body = request.body();
        let is_stranger = reason == RefusalReason::UnknownClient;
        if is_stranger && !self.is_known_to_few(&body.client, body.strength()) {
            let name = body.name();
            self.counters.busy += 1;
            self.answer(name.client, name.session, ToClient::Busy(name));
        } else {
            self.refuse(request, reason);
        }
    }

    /// What waits and cannot be ordered leaves, with a word to its client.
    pub(super) fn dismiss(&mut self, request: &SignedRequest, reason: RefusalReason) {
        if !self.see_off(request) {
            self.turn_away(request, reason);
        }
    }

    /// What waits leaves, and its client is told what is known of it; `false` where nothing is.
    pub(in crate::replica) fn see_off(&mut self, request: &SignedRequest) -> bool {
        let digest = request.digest();
        let was_orphan = self.pending.is_orphan(&digest);
        self.pending.remove(&digest);
        let known = self.sessions().known(&request.body().name());
        // Of what is forgotten it is not known which content was executed.
        let is_executed = matches!(known, Known::Kept(kept) if kept.request == digest);
        if was_orphan && !is_executed {
            self.bygone.note_lost();
        }
        self.answer_known(request)
    }

    pub(super) fn refuse(&mut self, request: &SignedRequest, reason: RefusalReason) {
        self.counters.refused_requests += 1;
        let name = request.body().name();
        let refusal = self.cast(Refusal { name, request: request.digest(), reason });
        if let Some(refusal) = refusal {
            self.answer(name.client, name.session, ToClient::Refusal(refusal));
        }
    }

    /// Whether the suffix above the stable checkpoint is as long as it may be. What others have
    /// made stable already counts as such: a replica that catches up is not to stop before it.
    pub(in crate::replica) fn is_full(&self) -> bool {
        if self.must_wait_for_state() {
            return true;
        }
        // Of the view entered: then the history that leads to it is the one that is followed here.
        let ahead = self
            .stable
            .ahead()
            .filter(|proof| proof.cover.body.view == self.entered())
            .map_or(Slot::GENESIS, StableProof::slot);
        let stable = self.stable().max(ahead);
        let slots = self.history.head().slot.since(stable);
        self.setup.tuning.rules.is_full(slots, self.history.weight_above(stable))
    }

    /// Whether this client's part of the suffix is larger than what is left of it for all others, once
    /// a quarter of it is used up. Where there are no others it is left an eighth short, so that one that
    /// comes finds room. Only what comes from the client itself is turned away for
    /// that: what another replica took in is ordered, or it would have reason to suspect the primary.
    fn takes_too_much(&mut self, client: &ClientId) -> bool {
        let most = self.setup.tuning.rules.max_speculative_bytes;
        let stable = self.stable();
        let all = self.history.weight_above(stable);
        let least = self.setup.tuning.rules.checkpoint_interval.saturating_mul(2);
        let is_short = self.history.head().slot.since(stable) < least;
        if is_short || all < most / 4 {
            return false;
        }
        let (part, whole) = self.shares.of(client, &self.history, stable);
        let alone = part == whole && !self.pending.any_of_others(client);
        // In 128 bits, since it is a product.
        let own = u128::from(all) * u128::from(part) / u128::from(whole.max(1));
        let own = u64::try_from(own).unwrap_or(u64::MAX);
        own > if alone { most / 8 * 7 } else { most.saturating_sub(all) }
    }

    /// Whether certified slots are not executed either for the time being: the own state is to be
    /// replaced, and until it is nothing becomes stable here, however far the others go.
    pub(in crate::replica) fn must_wait_for_state(&self) -> bool {
        let stable = self.stable();
        let slots = self.history.head().slot.since(stable);
        let rules = self.setup.tuning.rules.twice();
        self.is_distrusted() && rules.is_full(slots, self.history.weight_above(stable))
    }
}

/// Whether a request that is refused so can never be executed, however long it waits.
pub(super) fn is_for_good(reason: RefusalReason) -> bool {
    matches!(reason, RefusalReason::NameUsed | RefusalReason::SessionRetired)
}
