//! What a client does for the sessions of its key, beside its own: it settles those whose holders
//! are gone, looks whether the cluster is quiet, and raises the floor.

use std::collections::BTreeMap;

use elea_protocol::client::Event;
use elea_protocol::evidence::Evidence;
use elea_protocol::id::{ReplicaId, RequestNumber, SessionId};
use elea_protocol::message::{NodeStatus, ToReplica};

use crate::live::{Live, is_quiet};
use crate::owner::{LIVE_MAX, Owner, QuietCheck, SETTLE};
use crate::sessions::Book;

impl Owner {
    pub(crate) fn on_status(&mut self, from: ReplicaId, status: NodeStatus) {
        if let Some(answers) = self.statuses.get(&status.nonce) {
            let _ = answers.send((from, status));
            return;
        }
        let n = usize::from(self.parts.membership.size().replicas());
        let Some(check) = self.quiet.as_mut().filter(|check| check.nonce == status.nonce) else {
            return;
        };
        check.statuses.insert(from, status);
        if check.statuses.len() < n {
            return;
        }
        let Some(check) = self.quiet.take() else { return };
        if is_quiet(&check.statuses.values().collect::<Vec<_>>(), n) {
            self.change_book(|book| book.note_quiet(&check.before));
            self.refresh_floor();
        }
        self.release_hold();
    }

    /// The answer has no name: it goes to all who wait for one.
    pub(crate) fn on_evidence(&mut self, from: ReplicaId, proofs: Vec<Evidence>) {
        self.proofs.retain(|answers| answers.send((from, proofs.clone())).is_ok());
    }

    fn change_book(&self, change: impl FnOnce(&mut Book)) {
        if let Err(error) = self.parts.sessions.with(change) {
            tracing::warn!(%error, "the session file could not be updated");
        }
    }

    pub(crate) fn check_quiet(&mut self, before: Vec<(SessionId, RequestNumber)>) {
        let nonce = rand::random();
        self.quiet = Some(QuietCheck { nonce, before, statuses: BTreeMap::new() });
        self.broadcast(None, &ToReplica::AskStatus(nonce));
    }

    /// Asks what became of sessions whose holders are gone.
    pub(crate) fn settle(&mut self, unsettled: Vec<(SessionId, RequestNumber)>) {
        for (session, through) in unsettled {
            let known = self.settling.done.contains(&session)
                || self.settling.cores.contains_key(&session)
                || self.live.contains_key(&session);
            if !known && through < RequestNumber(u64::MAX) {
                let core = self.core(session, through.next(), SessionId(0));
                self.settling.cores.insert(session, (core, through));
                self.handle(session, Event::Settle { ticket: SETTLE, through });
            }
        }
    }

    pub(crate) fn on_settled(&mut self, session: SessionId, through: RequestNumber) {
        if self.settling.cores.remove(&session).is_some() {
            self.settling.done.insert(session);
            self.change_book(|book| book.note_settled(session, through));
            self.refresh_floor();
            if self.settling.cores.is_empty() && self.quiet.is_none() {
                self.release_hold();
            }
        }
    }

    pub(crate) fn refresh_floor(&mut self) {
        if let Ok(floor) = self.parts.sessions.with(|book| book.floor()) {
            let sessions: Vec<_> = self.live.keys().copied().collect();
            for session in sessions {
                self.handle(session, Event::SetFloor(floor));
                if let Some(live) = self.live.get_mut(&session) {
                    live.note_floor();
                }
            }
        }
    }

    /// Settles what others left behind, raises the floor, and steps aside where the session in use
    /// holds the floor down for others.
    pub(crate) fn upkeep(&mut self) {
        let executed = self.live.values().map(Live::executed_floor).max().unwrap_or_default();
        let serving = self.serving;
        let seen = self.parts.sessions.with(|book| {
            book.note_executed(executed);
            let in_the_way = serving.is_some_and(|session| book.is_in_the_way(session));
            let unsettled: Vec<_> = book.unsettled().take(8).collect();
            (book.live(), book.is_pinned(), in_the_way, unsettled)
        });
        let Ok((live, pinned, in_the_way, unsettled)) = seen else { return };
        self.settling.done.clear();
        self.refresh_floor();
        let crowded = live * 2 >= self.parts.max_sessions;
        if pinned || crowded && !unsettled.is_empty() {
            self.check_quiet(unsettled.clone());
        }
        self.settle(unsettled);
        if in_the_way
            && live * 4 >= self.parts.max_sessions
            && self.live.len() < LIVE_MAX
            && let Some(live) = serving.and_then(|session| self.live.get_mut(&session))
        {
            live.draining = true;
            self.serving = None;
        }
    }
}
