//! Commit points, votes, certificates and the lock.

use super::pacing::HEAVY;
use super::votes::Heard;
use crate::application::Application;
use crate::evidence::Evidence;
use crate::id::{ReplicaId, Slot};
use crate::message::{Commit, CommitCertificate, Message, Position};
use crate::replica::views::{Footing, Path};
use crate::replica::{Record, Replica, Target};
use crate::signature::Signed;

impl<A: Application> Replica<A> {
    /// The last slot of the own history that a certificate of the entered view covers. Replies
    /// rest on this and not on an older lock: what two views say does not count together.
    pub(in crate::replica) fn certified(&self) -> Slot {
        self.lock
            .own()
            .filter(|lock| {
                self.lock.aside().is_none()
                    && lock.body.view == self.entered()
                    && (lock.body.slot < self.history.base().slot
                        || self.history.goes_through(lock.position()))
            })
            .map_or(Slot::GENESIS, |lock| lock.body.slot)
    }

    /// The own history may have come to where the lock is: from then on it counts in full.
    fn take_lock_from_aside(&mut self) {
        let lock = self.lock.aside().cloned();
        if let Some(lock) = lock.filter(|lock| self.history.goes_through(lock.position())) {
            let path = Path::own(lock.position());
            self.raise_lock(lock, &path);
        }
    }

    /// A slot was executed: vote if it is a commit point, else see to it that somebody votes soon.
    pub(super) fn after_execution(&mut self, slot: Slot, wants_commit: bool) {
        // Before the vote, which may be the last one that a certificate lacks.
        self.due.checkpoint_at(None);
        if wants_commit {
            self.note_strong();
        }
        // What takes the others some time is certified at once: the primary goes on when they have it.
        let before = Slot(slot.0.saturating_sub(1));
        let is_heavy = self.history.weight_above(before) >= HEAVY;
        if wants_commit || is_heavy || slot.0.is_multiple_of(self.setup.tuning.commit_interval) {
            if !self.fetching.is_filling() {
                self.vote_commit();
            }
        } else {
            let delay = self.setup.tuning.commit_delay_ms;
            self.due.commit_at(self.now.instant.after_ms(delay));
        }
        self.take_lock_from_aside();
        if let Some(certificate) = self.lock.take_ahead_through(slot) {
            self.on_certificate(self.setup.id, certificate);
        }
        if let Some(proof) = self.stable.take_ahead_through(slot) {
            self.on_stable(self.setup.id, proof);
        }
    }

    /// Votes at the head, unless that was done.
    pub(in crate::replica) fn vote_commit(&mut self) {
        self.due.commit_is_done();
        let Position { slot, hash } = self.history.head();
        if slot <= self.ballots.last_commit() || slot == Slot::GENESIS || !self.is_serving() {
            return;
        }
        let Some(vote) = self.cast(Commit { view: self.entered(), slot, hash }) else { return };
        self.ballots.note_commit(slot);
        self.counters.commits_cast += 1;
        // Not before the history up to it is durable: a vote that can be forgotten is a vote that
        // can be cast twice.
        self.send(Target::Others, Message::Commit(vote.clone()));
        self.hear_commit(&vote);
    }

    /// Weak requests become final soon where the network allows.
    pub(in crate::replica) fn commit_when_quiet(&mut self) {
        if self.due.is_commit_due(self.now.instant) {
            self.vote_commit();
        }
    }

    pub(in crate::replica) fn on_commit(&mut self, vote: &Signed<Commit>) {
        if vote.body.view < self.entered() {
            self.counters.stale_view += 1;
        } else if vote.body.view > self.entered() {
            self.counters.future_view += 1;
            self.keep_later_commit(vote);
        } else {
            self.hear_commit(vote);
        }
    }

    fn hear_commit(&mut self, vote: &Signed<Commit>) {
        if self.history.hash_at(vote.body.slot).is_some_and(|hash| hash != vote.body.hash) {
            self.counters.divergent_votes += 1;
            self.divergent.note(vote.by);
        }
        match self.ballots.hear_commit(self.size, vote) {
            Heard::Kept | Heard::Nothing => {}
            Heard::Contradicts(before) => {
                self.accuse(Evidence::Commits(before, vote.clone()));
            }
            Heard::Quorum(certificate) => self.on_certificate(vote.by, certificate),
        }
        self.counters.votes_dropped = self.ballots.dropped();
    }

    pub(in crate::replica) fn on_certificate(
        &mut self,
        from: ReplicaId,
        certificate: CommitCertificate,
    ) {
        let Commit { view, slot, hash } = certificate.body;
        let Some(own) = self.history.hash_at(slot) else {
            if view == self.entered() && slot > self.history.head().slot {
                // Not executed yet. A certificate whose batches are not here is no lock.
                if self.lock.note_ahead(certificate) {
                    self.note_behind();
                }
            } else if view != self.entered() {
                self.lock.note_candidate(from, certificate);
            }
            return;
        };
        if own == hash {
            if self.lock.is_below(&certificate) {
                let path = Path::own(certificate.position());
                self.raise_lock(certificate, &path);
            }
        } else {
            if view == self.entered() {
                self.counters.divergent_votes += 1;
            }
            self.lock.note_candidate(from, certificate);
        }
    }

    /// Takes a certificate as the lock. Its batches are here, on the own history or on another.
    pub(in crate::replica) fn raise_lock(&mut self, certificate: CommitCertificate, path: &Path) {
        let before = self.certified();
        let commit = certificate.body;
        if path.goes_on() || matches!(path.footing, Footing::State(_)) {
            // Of another history: it is kept in memory only. Nothing was said that rests on it,
            // and what was said rests on the one that stays on disk.
            self.counters.locks_aside += 1;
            let end = certificate.position();
            self.lock.raise_aside(certificate);
            if commit.view == self.entered() && path.footing.slot() < self.history.head().slot {
                // The own history is one that its own view's certificate contradicts.
                self.prove_divergence(end);
                if let Some(new_view) = self.view.new_view().cloned() {
                    self.prove_new_view_refuted(&new_view);
                }
            }
            self.renew_campaign();
            self.reconsider();
            return;
        }
        self.counters.certificates += 1;
        let mark = self.append(Record::Lock(certificate.clone()));
        self.lock.raise(certificate, mark);
        if commit.view == self.entered() {
            self.ballots.forget_commits_through(commit.slot);
            // The replies wait for the lock to be durable: two replicas that restart without it
            // could let another history in.
            self.answer_committed(before, commit.slot);
            self.pipeline.note_certificate(self.now.instant);
            self.note_certificate();
            self.vote_checkpoint();
            self.expect_quiet();
        }
        self.renew_campaign();
        self.reconsider();
    }
}
