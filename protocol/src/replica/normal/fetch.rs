//! What is missing: asking for it, answering, and being answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::application::Application;
use crate::history::extend;
use crate::id::{ClientId, Digest, Instant, ReplicaId, Slot};
use crate::message::{
    Batch, Branch, CommitCertificate, Fetch, Message, Order, Requests, SLOTS_MAX, SignedRequest,
    SlotEntry, Slots, Wanted,
};
use crate::replica::{Replica, Target};
use crate::signature::Signed;

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
            return false;
        }
        !self.ahead.is_empty()
            || self.peers.values().any(|peer| peer.head_in(self.entered()) > head)
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
                let to = self.candidate(turn);
                self.counters.request_fetches += 1;
                self.ask(to, Wanted::Requests { slot, digests });
            }
        }
    }

    fn fetch_slots(&mut self) {
        let turn = self.fetching.ask_for_slots(self.now.instant);
        let to = self.candidate(turn);
        self.counters.slot_fetches += 1;
        self.ask(to, Wanted::Slots { from: self.history.head().slot.next() });
    }

    pub(in crate::replica) fn ask(&mut self, to: Option<ReplicaId>, wanted: Wanted) {
        let Some(to) = to else { return };
        let stamp = self.next_stamp();
        if !matches!(wanted, Wanted::State { .. }) {
            self.fetching.asks(to, self.now.instant);
        }
        let fetch = self.sign(Fetch { wanted, room: self.fetching.pace().room(), stamp });
        self.outbox.send(Target::One(to), Message::Fetch(fetch), self.stamps.after());
    }

    /// Whom to ask in this turn: the primary first, then everybody, those first who said that
    /// they are further.
    fn candidate(&self, turn: usize) -> Option<ReplicaId> {
        let head = self.history.head().slot;
        let mut others: Vec<ReplicaId> =
            self.size.members().filter(|id| *id != self.setup.id).collect();
        others.sort_by_key(|id| {
            let is_behind =
                self.peers.get(id).is_none_or(|peer| peer.head_in(self.entered()) <= head);
            (*id != self.primary(), is_behind)
        });
        others.get(turn % others.len().max(1)).copied()
    }

    // ---- answering ----

    pub(in crate::replica) fn on_fetch(&mut self, fetch: &Signed<Fetch>) {
        let to = fetch.by;
        let now = self.now.instant;
        let peer = self.peers.entry(to).or_default();
        if let Err(behind) = peer.budget_mut().hears(fetch.body.stamp) {
            self.counters.stale_stamp += 1;
            self.show_newest_status(to, behind);
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
        let known = before.next().since(slots.from);
        let Some(entries) = usize::try_from(known)
            .ok()
            .filter(|_| slots.from <= before.next())
            .and_then(|known| slots.entries.get(known..))
            .filter(|entries| !entries.is_empty())
        else {
            self.counters.useless_answers += 1;
            return;
        };
        self.fetching.answered(from, self.now.instant);
        let entries_first = entries.first().and_then(|entry| entry.order.clone());
        self.fetching.begin_filling(entries.len());
        self.fill(entries, slots.certificate.as_ref());
        let was_quiet = self.fetching.end_filling();
        let head = self.history.head().slot;
        if head == before {
            self.counters.useless_answers += 1;
            self.note_other_history(from, entries_first);
            self.follow_certificate(from);
            return;
        }
        self.counters.slots_filled += head.since(before);
        if was_quiet {
            self.vote_commit();
        }
        if let Some(certificate) = slots.certificate {
            self.on_certificate(from, certificate);
        }
        if self.lacks_slots() {
            // It was of use: go on with the same peer, and without waiting.
            self.fetch_slots_from(from);
        } else {
            self.fetching.note_up_to_date();
        }
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
        if let Some(ahead) = self.lock.ahead().cloned() {
            self.lock.note_candidate(from, ahead);
        }
    }

    fn fetch_slots_from(&mut self, to: ReplicaId) {
        self.counters.slot_fetches += 1;
        self.ask(Some(to), Wanted::Slots { from: self.history.head().slot.next() });
        self.fetching.ask_on_for_slots(self.now.instant);
    }

    /// Accepts slots that follow the head: under a certificate of the entered view where their
    /// chain runs into one, else by their orders, under the same rules as ever.
    fn fill(&mut self, entries: &[SlotEntry], certificate: Option<&CommitCertificate>) {
        let certified = self.certified_reach(entries, certificate);
        let first = self.history.head().slot.next();
        // What a lying primary ordered in their place must not slip in between.
        let last = first.plus(certified.len() as u64);
        self.ahead.forget_through(Slot(last.0.saturating_sub(1)));
        for (index, entry) in entries.iter().enumerate() {
            let before = self.history.head();
            if first.plus(index as u64) <= before.slot {
                // The slot before let one through that waited here.
                continue;
            }
            let batch =
                Arc::new(Batch { choices: entry.choices, requests: entry.requests.clone() });
            let hash = extend(&before.hash, &batch.digest());
            let order = entry.order.as_ref().filter(|order| {
                let header = order.body.header;
                order.by == self.primary()
                    && header.view == self.entered()
                    && header.slot == before.slot.next()
                    && header.hash == hash
                    && header.batch == batch.digest()
            });
            if let Some(expected) = certified.get(index) {
                if *expected != hash || self.must_wait_for_state() {
                    return;
                }
                self.accept(hash, batch, order.cloned());
                continue;
            }
            let Some(order) = order else { return };
            let forward_at = self.now.instant.after_ms(2 * self.forward_wait_ms());
            for request in &entry.requests {
                self.pending.insert(request.clone(), forward_at, true, &self.setup.tuning);
            }
            self.on_order(order.clone());
            // The order may have been here already, and only requests were missing.
            self.advance();
            if self.history.head().slot == before.slot {
                self.pending.drop_wanted(entry.requests.iter().map(|request| request.digest()));
                return;
            }
        }
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
