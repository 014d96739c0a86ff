//! What clients are told.

use std::collections::BTreeMap;

use crate::application::Application;
use crate::id::{ClientId, ReplicaId, SessionId, Slot};
use crate::message::{
    CommitCertificate, DiskHealth, NodeStatus, Position, RefusalReason, Reply, ReplyKind,
    SessionReport, SignedRequest, ToClient,
};
use crate::replica::time::Peer;
use crate::replica::{Driver, Known, Mark, Replica};
use crate::seal::sign_replies;

impl<A: Application> Replica<A> {
    /// Answers a session when everything appended so far is on disk. What a client hears of many
    /// replicas it counts, so who may not vote is silent.
    pub(super) fn answer(&mut self, client: ClientId, session: SessionId, message: ToClient) {
        if !self.may_vote() {
            return;
        }
        let after = self.outbox.appended();
        self.outbox.answer(client, Some(session), message, after);
    }

    /// Sends replies of one slot, signed together, when everything appended so far is on disk.
    fn send_replies(&mut self, replies: Vec<Reply>) {
        if replies.is_empty() || !self.may_vote() {
            return;
        }
        let genesis = self.setup.membership.genesis();
        let signed = sign_replies(&*self.setup.signer, genesis, self.setup.id, replies);
        let mut by_session: BTreeMap<(ClientId, SessionId), Vec<_>> = BTreeMap::new();
        for reply in signed {
            let name = reply.reply.name;
            by_session.entry((name.client, name.session)).or_default().push(reply);
        }
        for ((client, session), replies) in by_session {
            self.answer(client, session, ToClient::Replies(replies));
        }
    }

    /// The replies of a slot for the requests that pass `wanted`, as far as results are at hand.
    fn replies(
        &self,
        slot: Slot,
        kind: ReplyKind,
        wanted: impl Fn(&SignedRequest) -> bool,
    ) -> Vec<Reply> {
        let Some(entry) = self.history.entry(slot) else { return Vec::new() };
        let mut index: u32 = 0;
        let mut replies = Vec::new();
        for (place, request) in entry.batch.requests.iter().enumerate() {
            let first = index;
            index += u32::try_from(request.body().operations.len()).unwrap_or(u32::MAX);
            if !wanted(request) {
                continue;
            }
            // What was too much to be kept with the slot is in the session, if it is not too large.
            let results = entry.results.get(place).cloned().or_else(|| {
                match self.sessions().known(&request.body().name()) {
                    Known::Kept(kept) if kept.at.slot == slot => Some(kept.results.clone()),
                    _ => None,
                }
            });
            if let Some(results) = results {
                replies.push(Reply {
                    kind,
                    view: self.entered(),
                    slot,
                    hash: entry.hash,
                    name: request.body().name(),
                    request: request.digest(),
                    index: first,
                    results,
                });
            }
        }
        replies
    }

    /// Answers the weak requests of a slot that was just executed.
    pub(in crate::replica) fn answer_speculatively(&mut self, slot: Slot) {
        use crate::message::Level;
        let replies = self
            .replies(slot, ReplyKind::Speculative, |request| request.body().level == Level::Weak);
        self.send_replies(replies);
    }

    /// Answers what the certificate that raised the lock from `before` to `through` covers. What
    /// is at or below the stable checkpoint was answered before, or is asked for again.
    pub(super) fn answer_committed(&mut self, before: Slot, through: Slot) {
        let mut slot = before.max(self.stable()).max(self.history.base().slot).next();
        while slot <= through {
            let replies =
                self.replies(slot, ReplyKind::Committed, |request| request.body().wants_commit());
            self.send_replies(replies);
            self.history.drop_results(slot);
            slot = slot.next();
        }
    }

    /// Answers a request that was executed before from memory: with what may be said of it in the
    /// entered view. `false` where it was not executed.
    pub(in crate::replica) fn answer_known(&mut self, request: &SignedRequest) -> bool {
        let name = request.body().name();
        let kept = match self.sessions().known(&name) {
            Known::Open => return false,
            Known::Forgotten => {
                self.refuse(request, RefusalReason::ResultForgotten);
                return true;
            }
            Known::Kept(kept) => kept,
        };
        if kept.request != request.digest() {
            self.refuse(request, RefusalReason::NameUsed);
            return true;
        }
        self.counters.answered_from_cache += 1;
        let Position { slot, hash } = kept.at;
        let kind =
            if slot <= self.certified() { ReplyKind::Committed } else { ReplyKind::Speculative };
        // A large result is not kept in the session, but until it is certified with its slot.
        let digest = kept.request;
        let whole = self
            .replies(slot, kind, |other| other.digest() == digest)
            .pop()
            .map(|reply| reply.results);
        self.send_replies(vec![Reply {
            kind,
            view: self.entered(),
            slot,
            hash,
            name,
            request: kept.request,
            index: kept.index,
            results: whole.unwrap_or_else(|| kept.results.clone()),
        }]);
        true
    }

    pub(in crate::replica) fn answer_session(&mut self, client: ClientId, session: SessionId) {
        let sessions = self.sessions();
        let executed_through = sessions.executed_through(&client, session);
        let report = self.cast(SessionReport {
            client,
            session,
            executed_through: executed_through.unwrap_or_default(),
            has_left: executed_through.is_none() && session < sessions.floor(&client),
            opening: sessions.opening(&client),
        });
        if let Some(report) = report {
            self.answer(client, session, ToClient::Session(report));
        }
    }

    pub(in crate::replica) fn answer_evidence(&mut self, client: ClientId) {
        let message = ToClient::Evidence(self.proofs.all().to_vec());
        self.outbox.answer(client, None, message, self.outbox.appended());
    }

    pub(in crate::replica) fn answer_status(
        &mut self,
        client: ClientId,
        nonce: u64,
        driver: Driver,
    ) {
        // On a full disk nothing gets durable any more, and whoever looks after it should hear that.
        let is_full = driver.disk == DiskHealth::Full;
        let after = if is_full { Mark::NONE } else { self.outbox.appended() };
        let status = self.status(nonce, driver);
        let signed = self.sign(status);
        let message = ToClient::Status(Box::new(signed));
        self.outbox.answer(client, None, message, after);
    }

    /// How it is. Nothing in it need be durable yet, so it is for its operator, who is at the same machine.
    pub fn status(&mut self, nonce: u64, driver: Driver) -> NodeStatus {
        let Driver { counters: of_driver, transport, disk, doubled, disagreements } = driver;
        let refused = |(id, peer): (&ReplicaId, &Peer)| {
            (peer.pieces_refused() > 0).then_some((*id, peer.pieces_refused()))
        };
        let lock = self.lock.get().map(CommitCertificate::at);
        let counters = self
            .counters
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| (name.to_owned(), count))
            .chain(of_driver)
            .collect();
        NodeStatus {
            nonce,
            standing: self.standing(),
            quarantined: self.in_quarantine().is_some(),
            mismatches: self.mismatch_reports(),
            view: self.entered(),
            primary: self.primary(),
            campaign: self.campaign(),
            head: self.history.head(),
            lock,
            stable: self.stable(),
            state: self.state_digest(),
            sessions: self.sessions().len(),
            pending: (self.pending.len() + self.pending.orphans().len()) as u64,
            divergent: self.divergent.to_vec(),
            evidence: self.proofs.len() as u64,
            transport,
            disk,
            transfer: self.transferring(),
            refused: self.peers.iter().filter_map(refused).collect(),
            doubled,
            clocks: self.clocks(),
            clock_tolerance_ms: self.clock_tolerance_ms(),
            disagreements,
            other_lists: self.other_lists(),
            edition: self.history.choices().edition,
            editions: self.setup.editions,
            common_edition: self.common_edition(),
            pace: self.pace(),
            counters,
        }
    }
}
