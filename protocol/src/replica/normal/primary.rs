//! The primary: what goes into the next slot, and when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::intake::is_for_good;
use super::pacing::HEAVY;
use crate::application::Application;
use crate::history::extend;
use crate::id::{ClientId, Digest, Instant};
use crate::message::{
    Batch, Message, NonDeterminism, Order, OrderHeader, RefusalReason, SignedRequest, batch_digest,
};
use crate::quorum::Strength;
use crate::replica::{Known, Replica, Target};

/// The bytes of the primary's slots that may wait for its own disk; the last one may go beyond.
const AHEAD_OF_DISK: u64 = 2 << 20;

/// The weight of slots that are not certified; the last one may go beyond.
const AHEAD_OF_OTHERS: u64 = 8 << 20;

/// So many requests at most are passed over for one slot, since their clients rest.
const PASSED_OVER: usize = 1024;

impl<A: Application> Replica<A> {
    /// Orders what waits, as the primary. With nothing under way a request is ordered at once, or after
    /// a moment in which [others](super::gathering) are likely to come; under load slots wait for the disk
    /// and for certificates, and requests gather meanwhile.
    pub(in crate::replica) fn order_pending(&mut self) {
        if !self.leads() {
            return;
        }
        self.forget_done();
        while !self.pending.is_idle()
            && !self.is_full()
            && !self.outbox.is_disk_full()
            && self.may_order()
        {
            let Some(batch) = self.next_batch() else {
                // What waits cannot be ordered now: looked at again after a while.
                self.pipeline.note_looked(self.now.instant);
                return;
            };
            self.order(batch);
            self.forget_done();
        }
    }

    fn may_order(&mut self) -> bool {
        !self.is_ahead_of_disk()
            && !self.is_ahead_of_others()
            && self.executes(self.edition_to_order())
            && self.is_time_to_order()
    }

    fn is_time_to_order(&mut self) -> bool {
        let (tuning, now) = (&self.setup.tuning, self.now.instant);
        let under_way = self.pipeline.len();
        if under_way == 0 {
            let waiting = self.pending.len();
            let gathering = self.pipeline.gathering_mut();
            // Orphans have waited for long.
            return !self.pending.orphans().is_idle()
                || !gathering.goes_on(waiting, now, tuning.batch_wait_ms);
        }
        let has_waited = now >= self.pipeline.last_looked().after_ms(tuning.batch_wait_ms);
        // A slot that is full gains nothing by waiting.
        let has_whole = !self.pending.orphans().is_idle() || self.pending.fills_slot(tuning);
        (under_way < tuning.pipeline_slots && has_whole) || has_waited
    }

    /// Whether so much is ordered that the others are not known to have that a strong request would stand behind
    /// it for long: weak ones need nobody's votes, and a primary is faster than those that fetch from it.
    /// What the view began with counts for nothing: whoever entered it has that. Without a strong quorum there are no
    /// certificates, and no strong requests; nor where none has come for a while, whoever is heard.
    fn is_ahead_of_others(&self) -> bool {
        let from = self.certified().max(self.history.base().slot).max(self.entry_slot());
        let is_certified_lately = self.now.instant < self.lone_at();
        if !is_certified_lately || self.history.weight_above(from) < AHEAD_OF_OTHERS {
            return false;
        }
        let (now, within) = (self.now.instant, self.lately_ms());
        let heard = self.peers.values().filter(|peer| peer.heard_within(now, within)).count();
        self.size.suffices(heard + 1, Strength::Strong)
    }

    /// Until then certificates are waited for.
    fn lone_at(&self) -> Instant {
        self.pipeline.last_certified().after_ms(self.lately_ms().max(self.commit_wait_ms()))
    }

    /// Whether so much waits for the own disk that more would only stand in a queue there, before what
    /// others send meanwhile. Certificates may never come; the disk always does.
    fn is_ahead_of_disk(&self) -> bool {
        self.pipeline.waiting(&self.outbox) >= AHEAD_OF_DISK
    }

    /// When the primary orders although its earlier slots are not done: certificates do not
    /// form in a part without a strong quorum, and weak requests go on there. Or when requests have gathered.
    pub(in crate::replica) fn order_at(&self) -> Option<Instant> {
        let waits =
            self.leads() && !self.pending.is_idle() && !self.is_full() && !self.is_ahead_of_disk();
        let waits = waits && !self.outbox.is_disk_full();
        let wait = self.setup.tuning.batch_wait_ms;
        let gathered = self.pipeline.gathering().until();
        let soon = gathered.unwrap_or_else(|| self.pipeline.last_looked().after_ms(wait));
        waits.then(|| if self.is_ahead_of_others() { self.lone_at() } else { soon })
    }

    fn forget_done(&mut self) {
        let certified = self.certified();
        self.note_heavy_certified();
        if self.pending.is_idle() {
            self.pipeline.gathering_mut().looked();
        }
        // Where no certificates come, none is waited for.
        let is_lone = self.now.instant >= self.lone_at();
        let most = if is_lone { 0 } else { self.setup.tuning.pipeline_slots };
        self.pipeline.forget_done(certified, &self.outbox, most);
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
        self.put_off(&parked, refused);
        if requests.is_empty() {
            return None;
        }
        sort_within_sessions(&mut requests);
        for request in &requests {
            let weight = request.weight(|operation| self.execution.weight(operation));
            self.pending.give(&request.body().client, weight);
        }
        self.pipeline.pacing_mut().ordered(
            self.history.head().slot.next(),
            &parts,
            self.now.instant,
        );
        let time = self.time_to_order();
        let choices =
            NonDeterminism { time, seed: self.draw_seed(), edition: self.edition_to_order() };
        Some(Batch { choices, requests })
    }

    /// What waits and cannot be ordered: orphans that can be later, and what is refused.
    fn put_off(&mut self, parked: &[Digest], refused: Vec<(Arc<SignedRequest>, RefusalReason)>) {
        self.pending.orphans_mut().count_looks(parked.len());
        parked.iter().for_each(|digest| self.pending.orphans_mut().park(digest));
        for (request, reason) in refused {
            self.dismiss(&request, reason);
        }
    }

    fn draw_seed(&mut self) -> [u8; 16] {
        let drawn = self.pipeline.draw();
        let mut hash = Sha256::new();
        hash.update(b"elea/1/seed");
        hash.update(self.setup.seed);
        hash.update(drawn.to_le_bytes());
        let bytes: [u8; 32] = hash.finalize().into();
        let (seed, _) = bytes.split_first_chunk().expect("32 bytes start with 16");
        *seed
    }

    fn order(&mut self, batch: Batch) {
        let requests = batch.request_digests();
        let digest = batch_digest(&batch.choices, &requests);
        let head = self.history.head();
        let header = OrderHeader {
            view: self.entered(),
            slot: head.slot.next(),
            hash: extend(&head.hash, &digest),
            batch: digest,
        };
        let order = self.cast(Order { header, choices: batch.choices, requests });
        let Some(order) = order else { return };
        let wants_commit = batch.wants_commit();
        let bytes = batch.requests.iter().map(|request| request.body().wire_bytes() as u64).sum();
        self.counters.ordered_slots += 1;
        self.counters.gathered_slots += u64::from(self.pipeline.gathering().until().is_some());
        let requests = batch.requests.iter().map(|request| &**request);
        self.pipeline.gathering_mut().ordered(header.slot, requests, self.now.instant);
        self.pipeline.note_looked(self.now.instant);
        // It does not wait for the slot to be durable: after a crash nothing more is ordered in this view.
        let after = self.votes_after().max(self.view.mark());
        self.outbox.send(Target::Others, Message::Order(order.clone()), after);
        self.accept(header.hash, Arc::new(batch), Some(order));
        let (slot, mark) = (header.slot, self.outbox.appended());
        self.pipeline.note_ordered(slot, mark, wants_commit, bytes);
    }
}

/// Puts the requests of each session into the order of their numbers, in the places that the
/// session has.
fn sort_within_sessions(requests: &mut [Arc<SignedRequest>]) {
    let mut of_sessions: BTreeMap<_, VecDeque<Arc<SignedRequest>>> = BTreeMap::new();
    for request in requests.iter() {
        let body = request.body();
        of_sessions.entry((body.client, body.session)).or_default().push_back(request.clone());
    }
    for of_session in of_sessions.values_mut() {
        of_session.make_contiguous().sort_by_key(|request| request.body().number);
    }
    for request in requests {
        let body = request.body();
        let of_session = of_sessions.get_mut(&(body.client, body.session));
        if let Some(next) = of_session.and_then(VecDeque::pop_front) {
            *request = next;
        }
    }
}
