//! Orders: made by the primary, checked by the backups, and the acceptance of a slot, which is
//! the same for both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::pacing::HEAVY;
use super::pending::Inserted;
use super::{Known, Mark, Record, Replica, Target};
use crate::application::Application;
use crate::evidence::Evidence;
use crate::history::{Entry, extend};
use crate::id::{ClientId, Digest, Instant, RequestNumber, SessionId, Slot};
use crate::message::{
    Batch, FETCH_DIGESTS_MAX, Message, NonDeterminism, Order, OrderHeader, Position, Refusal,
    RefusalReason, SignedRequest, StableProof, ToClient, batch_digest, fit_one_slot,
};
use crate::quorum::Strength;
use crate::seal::Signed;

/// An order that waits: for the slots below it, for its requests or for the clock.
#[derive(Clone, Debug)]
pub(super) struct Ahead {
    pub(super) order: Signed<Order>,
    /// When it came.
    pub(super) since: Instant,
}

/// One of the primary's own slots, until it is durable and, if somebody waits for it, certified.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnderWay {
    slot: Slot,
    mark: Mark,
    wants_commit: bool,
    /// Of its requests.
    bytes: u64,
}

/// The bytes of the primary's slots that may wait for its own disk; the last one may go beyond.
const AHEAD_OF_DISK: u64 = 2 << 20;

/// The weight of slots that are not certified; the last one may go beyond.
const AHEAD_OF_OTHERS: u64 = 8 << 20;

/// So many status intervals somebody counts who is not heard, and certificates are waited for.
pub(super) const LONE_STATUSES: u64 = 4;

/// So many requests at most are passed over for one slot, since their clients rest.
const PASSED_OVER: usize = 1024;

/// What stands between an order at the head and its acceptance.
enum Obstacle {
    /// Requests that are not here, as many as one fetch may name.
    Missing(Vec<Digest>),
    /// The own clock is not far enough.
    Early,
    /// The history may not grow.
    Full,
    /// Too few are known to list a client.
    Stranger,
    /// It does not extend the history.
    OffChain,
    /// It breaks a rule.
    Never,
}

impl<A: Application> Replica<A> {
    // ---- requests ----

    pub(super) fn on_request(&mut self, request: Arc<SignedRequest>) {
        if self.answer_known(&request) {
            return;
        }
        let body = request.body();
        if let Some(reason) = self.sessions().refusal(body) {
            self.refuse(&request, reason);
            return;
        }
        if let Some(reason) = self.refused_as_stranger(body) {
            self.refuse(&request, reason);
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
            Inserted::New => self.advance(),
            Inserted::AlreadyThere => {}
            Inserted::NoRoom => {
                self.counters.busy += 1;
                self.answer(name.client, name.session, ToClient::Busy(name));
            }
        }
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
    pub(super) fn is_full(&self) -> bool {
        if self.must_wait_for_state() {
            return true;
        }
        // Of the view entered: then the history that leads to it is the one that is followed here.
        let ahead = self
            .stable_ahead
            .as_ref()
            .filter(|proof| proof.cover.commit.view == self.entered)
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
    pub(super) fn must_wait_for_state(&self) -> bool {
        let stable = self.stable();
        let slots = self.history.head().slot.since(stable);
        let rules = self.setup.tuning.rules.twice();
        self.is_distrusted() && rules.is_full(slots, self.history.weight_above(stable))
    }

    // ---- the primary ----

    /// Orders what waits, as the primary. With nothing under way a request is ordered at once;
    /// under load slots wait for the disk and for certificates, and requests gather meanwhile.
    pub(super) fn order_pending(&mut self) {
        if !self.leads() {
            return;
        }
        self.forget_settled();
        while !self.pending.is_idle() && !self.is_full() && !self.disk_full && self.may_order() {
            let Some(batch) = self.next_batch() else {
                // What waits cannot be ordered now: looked at again after a while.
                self.last_ordered = self.now.instant;
                return;
            };
            self.order(batch);
            self.forget_settled();
        }
    }

    fn may_order(&self) -> bool {
        let tuning = &self.setup.tuning;
        let has_waited = self.now.instant >= self.last_ordered.after_ms(tuning.batch_wait_ms);
        let is_free = (self.under_way.len() as u64) < tuning.pipeline_slots;
        let waits_for_others = self.is_ahead_of_others() && self.now.instant < self.lone_at();
        (is_free || has_waited) && !self.is_ahead_of_disk() && !waits_for_others
    }

    /// Whether so much is ordered that the others are not known to have that a strong request would stand behind
    /// it for long: weak ones need nobody's votes, and a primary is faster than those that fetch from it.
    /// Without a strong quorum there are no certificates, and no strong requests.
    fn is_ahead_of_others(&self) -> bool {
        let from = self.certified().max(self.history.base().slot);
        if self.history.weight_above(from) < AHEAD_OF_OTHERS {
            return false;
        }
        let (now, within) =
            (self.now.instant, LONE_STATUSES * self.setup.tuning.status_interval_ms);
        let heard = self.peers.values().filter(|peer| peer.heard_within(now, within)).count();
        self.size.suffices(heard + 1, Strength::Strong)
    }

    /// When the primary orders although it is ahead of the others: one of them may lie.
    fn lone_at(&self) -> Instant {
        self.last_ordered.after_ms(LONE_STATUSES * self.setup.tuning.status_interval_ms)
    }

    /// Whether so much waits for the own disk that more would only stand in a queue there, before what
    /// others send meanwhile. Certificates may never come; the disk always does.
    fn is_ahead_of_disk(&self) -> bool {
        let waiting = self.under_way.iter().filter(|slot| slot.mark > self.synced);
        waiting.map(|slot| slot.bytes).sum::<u64>() >= AHEAD_OF_DISK
    }

    /// When the primary orders although its earlier slots are not settled: certificates do not
    /// form in a part without a strong quorum, and weak requests go on there.
    pub(super) fn order_at(&self) -> Option<Instant> {
        let waits =
            self.leads() && !self.pending.is_idle() && !self.is_full() && !self.is_ahead_of_disk();
        let waits = waits && !self.disk_full;
        let soon = self.last_ordered.after_ms(self.setup.tuning.batch_wait_ms);
        waits.then(|| if self.is_ahead_of_others() { self.lone_at() } else { soon })
    }

    fn forget_settled(&mut self) {
        let certified = self.certified();
        let synced = self.synced;
        self.note_heavy_certified();
        self.under_way
            .retain(|slot| slot.mark > synced || (slot.wants_commit && slot.slot > certified));
        while self.under_way.len() as u64 > self.setup.tuning.pipeline_slots
            && self.under_way.front().is_some_and(|slot| slot.mark <= synced)
        {
            self.under_way.pop_front();
        }
    }

    /// The requests that may stand in the next slot, of clients in turn and oldest first, within a
    /// session by their numbers.
    fn next_batch(&mut self) -> Option<Batch> {
        let tuning = &self.setup.tuning;
        let mut admission = self.execution.sessions().admission();
        let mut requests: Vec<Arc<SignedRequest>> = Vec::new();
        let mut refused: Vec<(Arc<SignedRequest>, RefusalReason)> = Vec::new();
        let mut parked: Vec<Digest> = Vec::new();
        let mut weight = 0;
        let mut parts: BTreeMap<ClientId, u64> = BTreeMap::new();
        let mut resting: BTreeSet<ClientId> = BTreeSet::new();
        let mut passed_over = 0;
        let weigh =
            |request: &SignedRequest| request.weight(|operation| self.execution.weight(operation));
        for (digest, request) in self.pending.in_turn(weigh) {
            let more = weigh(request);
            let full = requests.len() >= tuning.batch_requests
                || (weight + more > tuning.batch_bytes as u64 && !requests.is_empty());
            if full || passed_over > PASSED_OVER {
                break;
            }
            let client = request.body().client;
            let part = parts.get(&client).copied().unwrap_or_default() + more;
            let is_much = part >= HEAVY && !self.pending.is_orphan(&digest);
            if resting.contains(&client) || (is_much && !self.may_have_much(&client)) {
                resting.insert(client);
                passed_over += 1;
                continue;
            }
            let listed = match self.may_be_ordered(&client) {
                true => Ok(()),
                false => Err(RefusalReason::UnknownClient),
            };
            match listed.and_then(|()| admission.admit(request.body())) {
                Ok(()) => {
                    weight += more;
                    parts.insert(client, part);
                    requests.push(request.clone());
                }
                // Two contents under one name: the later one leaves when the first is executed.
                Err(RefusalReason::NameUsed)
                    if matches!(
                        self.execution.sessions().known(&request.body().name()),
                        Known::Open
                    ) => {}
                // It waits until it can be executed again.
                Err(reason) if !is_for_good(reason) && self.pending.is_orphan(&digest) => {
                    parked.push(digest);
                }
                Err(reason) => refused.push((request.clone(), reason)),
            }
        }
        self.pending.orphans_mut().count_looks(parked.len());
        parked.iter().for_each(|digest| self.pending.orphans_mut().park(digest));
        for (request, reason) in refused {
            self.pending.remove(&request.digest());
            if !self.answer_known(&request) {
                self.refuse(&request, reason);
            }
        }
        if requests.is_empty() {
            return None;
        }
        sort_within_sessions(&mut requests);
        for request in &requests {
            let weight = request.weight(|operation| self.execution.weight(operation));
            self.pending.give(&request.body().client, weight);
        }
        self.pacing.ordered(self.history.head().slot.next(), &parts, self.now.instant);
        let time = self.time_to_order();
        let choices = NonDeterminism { time, seed: self.draw_seed() };
        Some(Batch { choices, requests })
    }

    fn draw_seed(&mut self) -> [u8; 16] {
        self.seeds_drawn += 1;
        let mut hash = Sha256::new();
        hash.update(b"elea/1/seed");
        hash.update(self.setup.seed);
        hash.update(self.seeds_drawn.to_le_bytes());
        let bytes: [u8; 32] = hash.finalize().into();
        let (seed, _) = bytes.split_first_chunk().expect("32 bytes start with 16");
        *seed
    }

    fn order(&mut self, batch: Batch) {
        let requests = batch.request_digests();
        let digest = batch_digest(&batch.choices, &requests);
        let head = self.history.head();
        let header = OrderHeader {
            view: self.entered,
            slot: head.slot.next(),
            hash: extend(&head.hash, &digest),
            batch: digest,
        };
        let order = self.cast(Order { header, choices: batch.choices, requests });
        let Some(order) = order else { return };
        let wants_commit = batch.wants_commit();
        let bytes = batch.requests.iter().map(|request| request.body().wire_bytes() as u64).sum();
        self.counters.ordered_slots += 1;
        self.last_ordered = self.now.instant;
        self.accept(header.hash, Arc::new(batch), Some(order.clone()), |replica| {
            // The order must not leave before it is durable: after a crash another one of the
            // same slot would convict us.
            replica.send(Target::Others, Message::Order(order));
        });
        let (slot, mark) = (header.slot, self.appended);
        self.under_way.push_back(UnderWay { slot, mark, wants_commit, bytes });
    }

    // ---- the backups ----

    pub(super) fn on_order(&mut self, order: Signed<Order>) {
        let header = order.body.header;
        if header.view < self.entered {
            self.counters.stale_view += 1;
            return;
        }
        if header.view > self.entered {
            self.counters.future_view += 1;
            self.keep_later_order(order);
            return;
        }
        if order.by != self.primary() || self.is_primary() {
            self.counters.order_not_from_primary += 1;
            return;
        }
        let known = if header.slot <= self.history.head().slot {
            self.history.entry(header.slot).and_then(|entry| entry.order.as_ref())
        } else {
            self.ahead.get(&header.slot).map(|ahead| &ahead.order)
        };
        if let Some(known) = known {
            if known.body.header.view == header.view && known.body.header.hash != header.hash {
                let (known, new) = (header_of(known), header_of(&order));
                self.accuse(Evidence::Orders(known, new));
            } else {
                self.counters.order_repeated += 1;
            }
            return;
        }
        if header.slot <= self.history.head().slot {
            self.counters.order_repeated += 1;
            return;
        }
        if header.slot.since(self.history.head().slot) > self.setup.tuning.orders_ahead {
            self.counters.order_too_far += 1;
            self.note_behind();
            return;
        }
        self.ahead.insert(header.slot, Ahead { order, since: self.now.instant });
        self.advance();
    }

    /// Accepts orders as long as the next one is there and right.
    pub(super) fn advance(&mut self) {
        if !self.is_serving() {
            return;
        }
        while let Some(ahead) = self.ahead.get(&self.history.head().slot.next()) {
            match self.check(&ahead.order.body) {
                Ok(requests) => {
                    let order = ahead.order.clone();
                    let batch = Batch { choices: order.body.choices, requests };
                    let hash = order.body.header.hash;
                    self.accept(hash, Arc::new(batch), Some(order), |_| ());
                }
                Err(Obstacle::Missing(_)) => {
                    self.note_order_lacks();
                    break;
                }
                Err(Obstacle::Full) => break,
                Err(Obstacle::Early) => {
                    self.counters.order_ahead_of_clock += 1;
                    break;
                }
                Err(Obstacle::Stranger) => {
                    self.counters.order_of_stranger += 1;
                    break;
                }
                Err(obstacle @ (Obstacle::OffChain | Obstacle::Never)) => {
                    match obstacle {
                        Obstacle::OffChain => {
                            self.counters.order_off_chain += 1;
                            // Others may have followed it.
                            self.divergent.insert(self.primary());
                        }
                        _ => self.counters.order_breaks_rules += 1,
                    }
                    // Not kept: the slot stays open for an order that is right.
                    let slot = self.history.head().slot.next();
                    if let Some(wrong) = self.ahead.remove(&slot) {
                        self.pending.drop_wanted(wrong.order.body.requests);
                    }
                    break;
                }
            }
        }
    }

    /// The rules for an order at the head. Answers the requests it names.
    fn check(&self, order: &Order) -> Result<Vec<Arc<SignedRequest>>, Obstacle> {
        let head = self.history.head();
        if extend(&head.hash, &order.header.batch) != order.header.hash {
            return Err(Obstacle::OffChain);
        }
        if order.choices.time < self.history.time() {
            return Err(Obstacle::Never);
        }
        let before = self.history.time();
        if self.is_early(order.choices.time, before) && !self.next_is_borne_out() {
            return Err(Obstacle::Early);
        }
        if self.is_full() {
            return Err(Obstacle::Full);
        }
        let mut requests = Vec::with_capacity(order.requests.len());
        let mut missing = Vec::new();
        for digest in &order.requests {
            match self.pending.get(digest) {
                Some(request) => requests.push(request.clone()),
                None => missing.push(*digest),
            }
        }
        // Before what is missing: what an order names is fetched whatever the limits, and must not be
        // more than one slot may hold.
        if !self.fit_one_slot(&requests) {
            return Err(Obstacle::Never);
        }
        if !missing.is_empty() {
            missing.truncate(FETCH_DIGESTS_MAX);
            return Err(Obstacle::Missing(missing));
        }
        let mut admission = self.sessions().admission();
        let admitted = requests.iter().all(|request| admission.admit(request.body()).is_ok());
        if !admitted {
            return Err(Obstacle::Never);
        }
        if !self.admits_all(&requests) && !self.next_is_borne_out() {
            return Err(Obstacle::Stranger);
        }
        Ok(requests)
    }

    /// Whether all of these are of clients that are admitted.
    pub(super) fn admits_all(&self, requests: &[Arc<SignedRequest>]) -> bool {
        requests.iter().all(|request| self.is_admitted(&request.body().client))
    }

    /// Why a request that waits cannot be ordered now, if it cannot.
    pub(super) fn not_orderable(&self, request: &SignedRequest) -> Option<RefusalReason> {
        let body = request.body();
        let is_stranger = !self.may_be_ordered(&body.client);
        self.sessions()
            .refusal(body)
            .or_else(|| is_stranger.then_some(RefusalReason::UnknownClient))
    }

    /// When the own clock allows the next order, where it is only that which it waits for.
    pub(super) fn clock_allows_at(&self) -> Option<Instant> {
        let next = self.ahead.get(&self.history.head().slot.next())?;
        let time = next.order.body.choices.time;
        let early = time.0.saturating_sub(self.clock_limit().0);
        // Looked at once a second at least: a clock may be set.
        let waits = self.is_early(time, self.history.time());
        waits.then(|| self.now.instant.after_ms(early.min(1000)))
    }

    /// The requests that the order at the head lacks.
    pub(super) fn missing_at_head(&self) -> Vec<Digest> {
        let Some(ahead) = self.ahead.get(&self.history.head().slot.next()) else {
            return Vec::new();
        };
        match self.check(&ahead.order.body) {
            Err(Obstacle::Missing(digests)) => digests,
            Ok(_)
            | Err(
                Obstacle::Early
                | Obstacle::Full
                | Obstacle::Stranger
                | Obstacle::OffChain
                | Obstacle::Never,
            ) => Vec::new(),
        }
    }

    // ---- acceptance ----

    /// Makes a batch the next slot: records it, executes it, answers, votes. `recorded` runs
    /// right after the record is appended, so that what it sends waits for nothing later.
    pub(super) fn accept(
        &mut self,
        hash: Digest,
        batch: Arc<Batch>,
        order: Option<Signed<Order>>,
        recorded: impl FnOnce(&mut Self),
    ) {
        let entry = Entry { hash, batch: batch.clone(), order, results: Vec::new() };
        let stored = entry.to_slot_entry();
        let slot = self.push(entry);
        self.append(Record::Slot { slot, hash, entry: stored });
        recorded(self);
        self.execute(slot, hash, &batch);
        if !self.fetching.is_filling() {
            self.answer_speculatively(slot);
        }
        self.after_execution(slot, batch.wants_commit());
        self.ahead = self.ahead.split_off(&slot.next());
    }

    /// Appends a slot to the history, with what it weighs.
    pub(super) fn push(&mut self, entry: Entry) -> Slot {
        let weight = self.weight(&entry.batch);
        self.history.push(entry, weight)
    }

    /// What a slot weighs, on whatever history it is. It follows from the batch alone.
    pub(super) fn weight(&self, batch: &Batch) -> u64 {
        batch.weight(|operation| self.execution.weight(operation))
    }

    pub(super) fn fit_one_slot(&self, requests: &[Arc<SignedRequest>]) -> bool {
        fit_one_slot(requests, |operation| self.execution.weight(operation))
    }

    /// Executes a slot that was just pushed; also at the start, for those from disk.
    pub(super) fn execute(&mut self, slot: Slot, hash: Digest, batch: &Batch) {
        let at = Position { slot, hash };
        let results = self.execution.execute(at, batch, &mut self.undone);
        self.counters.results_reordered = self.undone.changed;
        self.counters.sessions_left = self.execution.sessions_left();
        self.counters.executed_slots += 1;
        self.counters.executed_requests += batch.requests.len() as u64;
        self.history.keep_results(slot, results);
        if slot.0.is_multiple_of(self.setup.tuning.rules.checkpoint_interval) {
            self.take_checkpoint(at);
        }
        self.note_trouble();
        let digests = batch.requests.iter().map(|request| request.digest());
        let waited: Vec<Digest> =
            digests.filter(|digest| self.pending.get(digest).is_some()).collect();
        let progress = !waited.is_empty();
        for digest in waited {
            self.note_lateness(self.pending.forwarded_at(&digest));
        }
        let mut was_forwarded =
            batch.requests.iter().any(|request| self.pending.is_forwarded(&request.digest()));
        for request in &batch.requests {
            let name = request.body().name();
            was_forwarded |= self.pending.note_served(&name, self.now.instant);
            for other in self.pending.remove_name(&name, &request.digest()) {
                self.refuse(&other, RefusalReason::NameUsed);
            }
        }
        if progress {
            self.note_progress(was_forwarded);
        }
        let names = batch.requests.iter().map(|request| request.body().name());
        let sessions = self.execution.sessions();
        self.pending.look_again(names, |request| sessions.refusal(request).is_some());
        self.settle_orphans();
        self.ask_for_what_waits();
    }

    /// Orphans that left `pending` are in the history again, or can never be.
    pub(super) fn settle_orphans(&mut self) {
        self.counters.orphan_looks = self.pending.orphans().looks();
        let remove = self.pending.orphans_mut().take_settled();
        if !remove.is_empty() {
            self.counters.orphans_reordered += remove.len() as u64;
            self.append(Record::Orphans { add: Vec::new(), remove });
        }
    }
}

/// Whether a request that is refused so can never be executed, however long it waits.
pub(super) fn is_for_good(reason: RefusalReason) -> bool {
    matches!(reason, RefusalReason::NameUsed | RefusalReason::SessionRetired)
}

pub(super) fn header_of(order: &Signed<Order>) -> Signed<OrderHeader> {
    Signed { body: order.body.header, by: order.by, signature: order.signature }
}

/// Puts the requests of each session into the order of their numbers, in the places that the
/// session has.
fn sort_within_sessions(requests: &mut [Arc<SignedRequest>]) {
    let mut places: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (place, request) in requests.iter().enumerate() {
        let body = request.body();
        places.entry((body.client, body.session)).or_default().push(place);
    }
    let number = |request: &Arc<SignedRequest>| -> (SessionId, RequestNumber) {
        (request.body().session, request.body().number)
    };
    for places in places.into_values().filter(|places| places.len() > 1) {
        let mut of_session: Vec<_> = places.iter().map(|place| requests[*place].clone()).collect();
        if of_session.is_sorted_by_key(number) {
            continue;
        }
        of_session.sort_by_key(number);
        for (place, request) in places.into_iter().zip(of_session) {
            requests[place] = request;
        }
    }
}
