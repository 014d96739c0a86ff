//! What is missing: asking for it, answering, and being answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::application::Application;
use crate::history::extend;
use crate::id::{ClientId, Digest, Instant, ReplicaId, Slot};
use crate::message::{
    Batch, Branch, CommitCertificate, Fetch, Message, Order, Position, Requests, SLOTS_MAX,
    SignedRequest, SlotEntry, Slots, Wanted,
};
use crate::replica::{Replica, Target};
use crate::signature::Signed;

/// Whether these slots are about as many as an answer may hold for which there was so much room, in bytes.
fn is_much(slots: &[SlotEntry], room: u32) -> bool {
    let requests = slots.iter().flat_map(|slot| &slot.requests);
    let bytes: u64 = requests.map(|request| request.body().wire_bytes() as u64).sum();
    slots.len() >= SLOTS_MAX || 2 * bytes >= u64::from(room)
}

/// What it costs to look at one request of a slot, in bytes sent.
const LOOK_BYTES: usize = 64;

impl<A: Application> Replica<A> {
    // ---- asking ----

    /// Something shows that slots are missing. Mostly they are on their way.
    pub(in crate::replica) fn note_behind(&mut self) {
        self.fetching.note_behind(self.now.instant);
    }

    /// When to ask for slots; `None` while nothing is known to be missing.
    fn slots_at(&self) -> Option<Instant> {
        let wait = || self.answer_wait_ms(self.fetching.pace());
        self.fetching.slots_at(self.setup.tuning.fetch_grace_ms, wait)
    }

    fn lacks_slots(&self) -> bool {
        let head = self.history.head().slot;
        if self.lock.ahead().is_some() || self.stable.ahead().is_some() {
            // Also where the next order is here: a lying primary may have sent this replica alone
            // one that waits for ever.
            return true;
        }
        if self.ahead.get(head.next()).is_some() {
            // What follows it may show that others have it.
            return self.next_is_to_be_borne_out() && self.is_above(self.ahead.last_in_row(head));
        }
        !self.ahead.is_empty() || self.is_above(head)
    }

    pub(in crate::replica) fn fetch_at(&self) -> Option<Instant> {
        let slot = self.history.head().slot.next();
        let requests = self.ahead.get(slot).map(|next| {
            match self.fetching.looked_at((self.entered(), slot)) {
                Some(at) => at.after_ms(self.answer_wait_ms(self.fetching.pace())),
                None => next.since.after_ms(self.setup.tuning.fetch_grace_ms),
            }
        });
        [requests, self.slots_at()].into_iter().flatten().min()
    }

    pub(in crate::replica) fn fetch_missing(&mut self) {
        let now = self.now.instant;
        if !self.ahead.is_empty() && self.ahead.get(self.history.head().slot.next()).is_none() {
            self.note_behind();
        }
        if self.slots_at().is_some_and(|at| at <= now) {
            if self.lacks_slots() && !self.must_wait_for_state() {
                self.fetch_slots();
            } else {
                self.fetching.note_up_to_date();
            }
        }
        let due = self.fetch_at().is_some_and(|at| at <= now);
        if due && self.ahead.get(self.history.head().slot.next()).is_some() {
            let slot = self.history.head().slot.next();
            let is_again = self.fetching.look_at((self.entered(), slot), now);
            let digests = self.missing_at_head();
            if !digests.is_empty() {
                let turn = self.fetching.ask_for_requests(is_again);
                if let Some(to) = self.candidate(turn) {
                    self.counters.request_fetches += 1;
                    self.fetching.asks_for_requests_of(to, now);
                    self.ask(Some(to), Wanted::Requests { slot, digests });
                }
            }
        }
    }

    fn fetch_slots(&mut self) {
        let turn = self.fetching.ask_for_slots(self.now.instant);
        if let Some(to) = self.candidate(turn) {
            self.fetch_slots_from(to);
        }
    }

    fn fetch_slots_from(&mut self, to: ReplicaId) {
        let from = self.history.head().slot.next();
        self.counters.slot_fetches += 1;
        self.fetching.asks_for_slots_of(to, from, self.now.instant);
        self.ask(Some(to), Wanted::Slots { from });
    }

    /// Asks another one than this for the same slots, unless that one is asked already. Whose turn it is no peer can know or
    /// change: not by what it says of itself, and not by being silent.
    fn fetch_slots_beside(&mut self, but: ReplicaId) {
        let others = self.size.members().filter(|id| ![self.setup.id, but].contains(id));
        let wait = self.answer_wait_ms(self.fetching.pace());
        let to = self.fetching.next_beside(others.collect(), wait, self.now.instant);
        let Some(to) = to else { return };
        let from = self.history.head().slot.next();
        self.counters.slot_fetches += 1;
        self.fetching.asks_for_slots_beside(to, from, self.now.instant);
        self.ask(Some(to), Wanted::Slots { from });
    }

    pub(in crate::replica) fn ask(&mut self, to: Option<ReplicaId>, wanted: Wanted) {
        let Some(to) = to else { return };
        let stamp = self.next_stamp();
        let fetch = self.sign(Fetch { wanted, room: self.fetching.pace().room(), stamp });
        self.outbox.send(Target::One(to), Message::Fetch(fetch), self.stamps.after());
    }

    /// Whom to ask in this turn: the primary first, then everybody, those first who said that
    /// they are further. In the next round what they say has no weight.
    fn candidate(&self, turn: usize) -> Option<ReplicaId> {
        let head = self.history.head().slot;
        let mut others: Vec<ReplicaId> =
            self.size.members().filter(|id| *id != self.setup.id).collect();
        if turn < others.len() {
            others.sort_by_key(|id| {
                let is_behind =
                    self.peers.get(id).is_none_or(|peer| peer.head_in(self.entered()) <= head);
                (*id != self.primary(), is_behind)
            });
        }
        others.get(turn % others.len().max(1)).copied()
    }

    // ---- answering ----

    pub(in crate::replica) fn on_fetch(&mut self, fetch: &Signed<Fetch>) {
        let to = fetch.by;
        if to == self.setup.id {
            self.hear_own_word(fetch.body.stamp);
            return;
        }
        let now = self.now.instant;
        let peer = self.peers.entry(to).or_default();
        if let Err(behind) = peer.fetches(fetch) {
            self.counters.stale_stamp += 1;
            self.show_newest_word(to, behind);
            return;
        }
        if !peer.budget_mut().refill(now) {
            self.counters.fetch_over_budget += 1;
            return;
        }
        let room = fetch.body.answer_max();
        let spent = match &fetch.body.wanted {
            Wanted::Requests { slot, digests } => self.serve_requests(to, *slot, digests, room),
            Wanted::Slots { from } => self.serve_slots(to, *from, room),
            Wanted::Branch { head, known } => self.serve_branch(to, *head, known, room),
            Wanted::State { at, part } => self.serve_state(to, *at, *part),
            Wanted::Clients => self.serve_clients(to),
        };
        self.peers.entry(to).or_default().budget_mut().spend(spent);
    }

    fn serve_requests(
        &mut self,
        to: ReplicaId,
        slot: Slot,
        digests: &[Digest],
        room: usize,
    ) -> usize {
        if slot <= self.history.base().slot {
            return self.serve_slots(to, slot, room);
        }
        let of_slot = self.history.entry(slot).map(|entry| entry.batch.clone());
        let of_slot: BTreeMap<Digest, &Arc<SignedRequest>> = of_slot
            .iter()
            .flat_map(|batch| &batch.requests)
            .map(|request| (request.digest(), request))
            .collect();
        let mut bytes = 0;
        let mut found = Vec::new();
        for digest in digests {
            let in_slot = || of_slot.get(digest).copied();
            if let Some(request) = self.pending.get(digest).or_else(in_slot) {
                let size = request.body().wire_bytes();
                if bytes + size > room && !found.is_empty() {
                    break;
                }
                bytes += size;
                found.push(request.clone());
            }
        }
        if !found.is_empty() {
            self.send_at_once(Target::One(to), Message::Requests(Requests(found)));
        }
        // To look through a large slot is work also where little of it is asked for.
        bytes.max(of_slot.len() * LOOK_BYTES)
    }

    fn serve_clients(&mut self, to: ReplicaId) -> usize {
        let Some(clients) = self.list_to_serve() else { return 0 };
        let bytes = clients.0.len() * size_of::<ClientId>();
        self.send_at_once(Target::One(to), Message::Clients(clients));
        bytes
    }

    fn serve_slots(&mut self, to: ReplicaId, from: Slot, room: usize) -> usize {
        if from > self.history.head().slot || self.is_adopting() {
            // What is in memory then may be of the history before.
            return 0;
        }
        if from <= self.history.base().slot {
            // Given up: only the state is left of it.
            if let Some(proof) = self.stable.proof().cloned() {
                let head = proof.position();
                let branch = Branch { head, slots: Vec::new(), stable: Some(Box::new(proof)) };
                self.send(Target::One(to), Message::Branch(branch));
            }
            return 0;
        }
        let mut bytes = 0;
        let entries: Vec<SlotEntry> = self
            .history
            .from(from)
            .take(SLOTS_MAX)
            .map_while(|(slot, entry)| {
                bytes += entry.batch.size();
                (bytes <= room || slot == from).then(|| entry.to_slot_entry())
            })
            .collect();
        let certificate = self.lock.get().filter(|lock| lock.body.view == self.entered()).cloned();
        self.send(Target::One(to), Message::Slots(Slots { from, entries, certificate }));
        bytes
    }

    // ---- being answered ----

    pub(in crate::replica) fn on_slots(&mut self, from: ReplicaId, slots: Slots) {
        let before = self.history.head().slot;
        let is_answer = self.fetching.note_slots(from, slots.from);
        let known = before.next().since(slots.from);
        let Some(entries) = usize::try_from(known)
            .ok()
            .filter(|_| slots.from <= before.next())
            .and_then(|known| slots.entries.get(known..))
            .filter(|entries| !entries.is_empty())
        else {
            self.counters.useless_answers += 1;
            if is_answer {
                // Others may have given what it was asked for before it did.
                match slots.entries.first() {
                    Some(entry) if self.has_slot(slots.from, entry) => {
                        self.fetching.measure_slots(from, self.now.instant);
                    }
                    _ => self.fetching.refuse_slots(from),
                }
            }
            return;
        };
        let entries_first = entries.first().and_then(|entry| entry.order.clone());
        self.fetching.begin_filling(entries.len());
        self.fill(entries, slots.certificate.as_ref());
        let was_quiet = self.fetching.end_filling();
        let head = self.history.head().slot;
        if head == before {
            self.counters.useless_answers += 1;
            if is_answer {
                self.fetching.refuse_slots(from);
            }
            self.note_other_history(from, entries_first);
            if let Some(certificate) = slots.certificate {
                self.on_certificate(from, certificate);
            }
            self.follow_certificate(from);
            return;
        }
        let asked_for = self.fetching.measure_slots(from, self.now.instant);
        self.counters.slots_filled += head.since(before);
        if was_quiet {
            self.vote_commit();
        }
        if let Some(certificate) = slots.certificate {
            self.on_certificate(from, certificate);
        }
        let accepted = usize::try_from(head.since(before)).ok();
        let accepted = accepted.and_then(|slots| entries.get(..slots)).unwrap_or(entries);
        let is_asked = asked_for.is_some() || !self.fetching.waits_for_slots();
        self.fetching.note_gift(asked_for.is_some_and(|room| is_much(accepted, room)));
        if !self.lacks_slots() {
            self.fetching.note_up_to_date();
        } else if is_asked && !self.must_wait_for_state() {
            // It was of use: go on with the same peer, and without waiting.
            self.fetch_slots_from(from);
            // Who gives little each time, or takes long with it, might be all that is heard.
            let may_lie = !self.fetching.pace().is_known(self.size.faulty().into());
            if (may_lie || self.fetching.is_given_little()) && self.is_other_above(head, from) {
                self.fetch_slots_beside(from);
            }
        }
    }

    /// Whether this is the own slot there.
    fn has_slot(&self, slot: Slot, entry: &SlotEntry) -> bool {
        let before = slot.0.checked_sub(1).and_then(|before| self.history.hash_at(Slot(before)));
        before.is_some_and(|before| {
            let digests: Vec<_> = entry.requests.iter().map(|request| request.digest()).collect();
            let batch = crate::message::batch_digest(&entry.choices, &digests);
            self.history.hash_at(slot) == Some(extend(&before, &batch))
        })
    }

    /// Whether a peer says that it has slots above this one.
    fn is_above(&self, slot: Slot) -> bool {
        self.peers.values().any(|peer| peer.head_in(self.entered()) > slot)
    }

    /// Whether another one than this does, and was heard lately.
    fn is_other_above(&self, slot: Slot, but: ReplicaId) -> bool {
        let (view, now, lately) = (self.entered(), self.now.instant, self.lately_ms());
        self.peers.iter().any(|(id, peer)| {
            *id != but && peer.head_in(view) > slot && peer.heard_within(now, lately)
        })
    }

    /// A peer's next slot does not follow the own head although the primary of this view ordered
    /// it: one of the two follows another history.
    fn note_other_history(&mut self, from: ReplicaId, order: Option<Signed<Order>>) {
        let head = self.history.head();
        let parts = order.is_some_and(|order| {
            let header = order.body.header;
            header.view == self.entered()
                && header.slot == head.slot.next()
                && extend(&head.hash, &header.batch) != header.hash
        });
        if parts {
            self.divergent.note(from);
        }
    }

    /// What a peer has next lets itself in by no order: it is early, or of clients that too few know. Only a
    /// certificate does, and an answer does not reach as far. That one's history is followed from its end.
    fn follow_certificate(&mut self, from: ReplicaId) {
        let followed = self.lock.candidates().get(&from);
        // One after the other: the newest is another one all the time.
        if followed.is_none_or(|followed| followed.body.view != self.entered())
            && let Some(ahead) = self.lock.ahead().cloned()
        {
            self.lock.note_candidate(from, ahead);
        }
    }

    /// Accepts slots that follow the head: under a certificate of the entered view where their
    /// chain runs into one, else by their orders, under the same rules as ever.
    fn fill(&mut self, entries: &[SlotEntry], certificate: Option<&CommitCertificate>) {
        let certified = self.certified_reach(entries, certificate);
        let first = self.history.head().slot.next();
        // What a lying primary ordered in their place must not slip in between.
        let last = first.plus(certified.len() as u64);
        self.ahead.forget_through(Slot(last.0.saturating_sub(1)));
        let mut at = self.history.head();
        let mut waiting: Vec<(Slot, Digest)> = Vec::new();
        let mut kept = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let batch =
                Arc::new(Batch { choices: entry.choices, requests: entry.requests.clone() });
            let before = at;
            let hash = extend(&before.hash, &batch.digest());
            at = Position { slot: first.plus(index as u64), hash };
            let head = self.history.head();
            if at.slot <= head.slot {
                // The slot before let one through that waited here.
                if !self.history.goes_through(at) {
                    break;
                }
                continue;
            }
            let order = entry.order.as_ref().filter(|order| {
                let header = order.body.header;
                order.by == self.primary()
                    && header.view == self.entered()
                    && header.slot == at.slot
                    && header.hash == hash
                    && header.batch == batch.digest()
            });
            if let Some(expected) = certified.get(index) {
                if *expected != hash || before != head || self.must_wait_for_state() {
                    break;
                }
                if !self.executes(entry.choices.edition) {
                    self.counters.order_of_unknown_edition += 1;
                    break;
                }
                self.accept(hash, batch, order.cloned());
                continue;
            }
            let Some(order) = order else { break };
            let forward_at = self.now.instant.after_ms(2 * self.forward_wait_ms());
            for request in &entry.requests {
                self.pending.insert(request.clone(), forward_at, true, &self.setup.tuning);
                waiting.push((at.slot, request.digest()));
            }
            if self.keep_order(order.clone()) {
                kept.push(at.slot);
            }
            if before != head {
                // The one at the head is early, or of a stranger. What follows may show that others have it.
                continue;
            }
            // The order may have been here already, and only requests were missing.
            self.advance();
            let head = self.history.head().slot;
            if head < at.slot && (self.is_full() || self.ahead.get(head.next()).is_none()) {
                break;
            }
        }
        self.advance();
        let head = self.history.head().slot;
        // Without its requests an order has to be asked for anew, and with others at once rather than alone.
        for slot in kept.into_iter().filter(|slot| *slot > head.next()) {
            self.ahead.remove(slot);
        }
        let left = waiting.into_iter().filter(|(slot, _)| *slot > head);
        self.pending.drop_wanted(left.map(|(_, digest)| digest));
    }

    /// The hashes of those entries that lie under a certificate of the entered view.
    fn certified_reach(
        &self,
        entries: &[SlotEntry],
        certificate: Option<&CommitCertificate>,
    ) -> Vec<Digest> {
        let certificates: Vec<_> = [certificate, self.lock.ahead()]
            .into_iter()
            .flatten()
            .filter(|certificate| certificate.body.view == self.entered())
            .collect();
        let head = self.history.head();
        let mut hash = head.hash;
        let mut hashes = Vec::with_capacity(entries.len());
        let mut reach = 0;
        for (index, entry) in entries.iter().enumerate() {
            let digests: Vec<_> = entry.requests.iter().map(|request| request.digest()).collect();
            hash = extend(&hash, &crate::message::batch_digest(&entry.choices, &digests));
            let slot = head.slot.plus(index as u64 + 1);
            let covers = |certificate: &&CommitCertificate| {
                certificate.body.slot == slot && certificate.body.hash == hash
            };
            hashes.push(hash);
            if certificates.iter().any(covers) {
                reach = hashes.len();
            }
        }
        hashes.truncate(reach);
        hashes
    }
}
