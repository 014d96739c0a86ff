//! Passing on what waits: how a request reaches the primary that its client did not reach, and how a
//! primary that leaves one out is found.
//!
//! A backup passes on to all what it has had for half the wait for a primary. Small requests go as they are.
//! Of large ones it says only that they wait here, and a primary that lacks one fetches it: mostly everybody has
//! it from the client already, and one client's backlog must not fill the lines between all replicas. What still
//! waits is named again, each time after twice the wait, since a word may be lost and a primary changes; then the
//! other backups fetch it, too.
//!
//! The first time starts the clock that ends in a suspicion. A primary that lacks the request needs a round
//! trip more where it is only named to it, which the measured wait has room for.
//!
//! Naming costs a liar as much as it costs the others: one list a peer is kept, what is asked for is
//! charged to the budget for answers that the peer has, and after an answer with nothing new nobody asks
//! it any more.

use std::sync::Arc;

use super::intake::is_for_good;
use super::pending::Inserted;
use crate::application::Application;
use crate::id::{Instant, ReplicaId};
use crate::message::{
    Message, Requests, SignedRequest, WAITING_MAX, Waiting, WaitingRequest, Wanted,
};
use crate::replica::time::Peer;
use crate::replica::{Known, Replica, Target};

/// The most bytes of requests passed on as they are in one message.
const FORWARD_BYTES: usize = 256 << 10;

impl<A: Application> Replica<A> {
    pub(in crate::replica) fn next_forward(&self) -> Instant {
        self.now.instant.after_ms(self.forward_wait_ms())
    }

    pub(in crate::replica) fn forward_at(&self) -> Option<Instant> {
        if self.leads() { None } else { self.pending.next_forward() }
    }

    /// A backup passes on what the primary should have ordered by now, to all: the client may
    /// have sent it to backups only, and orphans may be known to nobody else.
    pub(in crate::replica) fn forward_waiting(&mut self) {
        if self.leads() {
            return;
        }
        let (now, wait_ms) = (self.now.instant, self.forward_wait_ms());
        let (mut whole, mut named, mut bytes) = (Vec::new(), Vec::new(), 0);
        let turn = self.pending.take_forward(now, wait_ms, WAITING_MAX);
        let is_orphan = |(one, _): &&(Arc<SignedRequest>, _)| self.pending.is_orphan(&one.digest());
        let orphans = turn.iter().filter(is_orphan).count();
        self.pending.orphans_mut().count_looks(orphans);
        for (request, is_first) in turn {
            if !self.may_be_passed_on(&request) {
                continue;
            }
            let size = request.body().wire_bytes();
            if is_first && size <= self.setup.tuning.pass_on_bytes && bytes + size <= FORWARD_BYTES
            {
                bytes += size;
                whole.push(request);
            } else {
                named.push(WaitingRequest {
                    name: request.body().name(),
                    digest: request.digest(),
                    bytes: u32::try_from(size).unwrap_or(u32::MAX),
                });
            }
        }
        if whole.is_empty() && named.is_empty() {
            return;
        }
        self.counters.requests_forwarded += whole.len() as u64;
        self.counters.requests_named += named.len() as u64;
        if !whole.is_empty() {
            self.send_at_once(Target::Others, Message::Requests(Requests(whole)));
        }
        if !named.is_empty() {
            self.send_at_once(Target::Others, Message::Waiting(Waiting(named)));
        }
        self.note_forwarded();
    }

    /// Whether a request can be ordered, or will be. One that cannot leaves, and an orphan is put off.
    fn may_be_passed_on(&mut self, request: &Arc<SignedRequest>) -> bool {
        match self.not_orderable(request) {
            None => {
                self.pending.orphans_mut().unpark(&request.digest());
                true
            }
            Some(reason) if !is_for_good(reason) && self.pending.is_orphan(&request.digest()) => {
                let wait_ms = self.forward_wait_ms();
                self.pending.orphans_mut().put_off(&request.digest(), self.now.instant, wait_ms);
                true
            }
            // It could not be ordered. Its client asks again if it still wants it.
            Some(reason) => {
                self.dismiss(request, reason);
                false
            }
        }
    }

    /// Requests from a peer: passed on, or asked for.
    pub(in crate::replica) fn on_requests(&mut self, from: ReplicaId, requests: Requests) {
        let wanted = self.missing_at_head();
        let forward_at = self.next_forward();
        let mut is_news = false;
        for request in requests.0 {
            let body = request.body();
            let is_wanted = wanted.contains(&request.digest());
            if !is_wanted && !self.may_be_ordered(&body.client) {
                self.counters.strangers += 1;
                continue;
            }
            if !is_wanted && self.sessions().refusal(body).is_some() {
                // Executed, or of no use now. Its client hears of it when it asks.
                continue;
            }
            let inserted = self.pending.insert(request, forward_at, is_wanted, &self.setup.tuning);
            is_news |= inserted == Inserted::New;
            match inserted {
                Inserted::New if is_wanted => self.counters.requests_filled += 1,
                Inserted::New | Inserted::AlreadyThere => {}
                Inserted::NoRoom => self.counters.busy += 1,
            }
        }
        self.advance();
        if is_news && let Some(peer) = self.peers.get_mut(&from) {
            peer.named_mut().note_come();
            self.ask_for_waiting(from);
        }
    }

    /// What waits at a peer. The primary asks for what lacks here at once. Others do so for what is named again: the
    /// primary did not order it, and it may be that only those who hold it can suspect it for that.
    pub(in crate::replica) fn on_waiting(&mut self, from: ReplicaId, waiting: &Waiting) {
        let leads = self.leads();
        self.peers.entry(from).or_default().named_mut().name(&waiting.0, leads);
        self.ask_for_waiting(from);
    }

    /// There may be room for more: what waits at others and lacks here is asked for by whoever has to order it.
    pub(super) fn ask_for_what_waits(&mut self) {
        if self.leads() {
            for other in self.size.members() {
                self.ask_for_waiting(other);
            }
        }
    }

    /// Asks a peer for what waits there, lacks here and has room, unless it was asked just now.
    fn ask_for_waiting(&mut self, from: ReplicaId) {
        let (now, wait_ms) = (self.now.instant, self.fetch_wait_ms());
        let is_open = |peer: &&mut Peer| peer.named().may_be_asked_for(now, wait_ms);
        let Some(peer) = self.peers.get_mut(&from).filter(is_open) else { return };
        let mut named = peer.take_named();
        named.retain(|one| self.lacks(one));
        let wanted = named.due(self.leads()).filter(|one| self.has_room(one));
        let digests: Vec<_> = wanted.map(|one| one.digest).collect();
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let asks = !digests.is_empty() && peer.budget_mut().charge(now, 0);
        if asks {
            named.note_asked(now);
        }
        peer.keep_named(named);
        if !asks {
            return;
        }
        let slot = self.history.head().slot.next();
        self.ask(Some(from), Wanted::Requests { slot, digests });
    }

    fn lacks(&self, one: &WaitingRequest) -> bool {
        self.may_be_ordered(&one.name.client)
            && self.pending.get(&one.digest).is_none()
            && matches!(self.sessions().known(&one.name), Known::Open)
    }

    fn has_room(&self, one: &WaitingRequest) -> bool {
        let bytes = usize::try_from(one.bytes).unwrap_or(usize::MAX);
        self.pending.may_take(&one.name, bytes, &self.setup.tuning)
    }
}
