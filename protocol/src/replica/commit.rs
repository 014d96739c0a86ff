//! Commit points, votes, certificates and the lock.

use super::votes::{Heard, Vote};
use super::{Record, Replica, Target};
use crate::application::Application;
use crate::evidence::Evidence;
use crate::id::{Instant, Slot};
use crate::message::{Commit, CommitCertificate, Message, Position};
use crate::seal::Signed;

/// Commit votes kept of each replica.
pub(super) const COMMITS_KEPT: usize = 256;

impl Vote for Commit {
    fn slot(&self) -> Slot {
        self.slot
    }
}

impl<A: Application> Replica<A> {
    /// The last slot of the own history that a certificate of the entered view covers. Replies
    /// rest on this and not on an older lock: what two views say does not count together.
    pub(super) fn certified(&self) -> Slot {
        self.lock
            .as_ref()
            .filter(|lock| lock.commit.view == self.entered)
            .map_or(Slot::GENESIS, |lock| lock.commit.slot)
    }

    /// A slot was executed: vote if it is a commit point, else see to it that somebody votes soon.
    pub(super) fn after_execution(&mut self, slot: Slot, wants_commit: bool) {
        if wants_commit || slot.0.is_multiple_of(self.setup.tuning.commit_interval) {
            if !self.fetching.is_filling() {
                self.vote_commit();
            }
        } else {
            let delay = self.setup.tuning.commit_delay_ms;
            self.commit_at = Some(self.now.instant.after_ms(delay));
        }
        if let Some(certificate) =
            self.certified_ahead.take_if(|certificate| certificate.commit.slot <= slot)
        {
            self.on_certificate(certificate);
        }
        if let Some(certificate) =
            self.stable_ahead.take_if(|certificate| certificate.checkpoint.slot <= slot)
        {
            self.on_stable(certificate);
        }
    }

    /// Votes at the head, unless that was done.
    pub(super) fn vote_commit(&mut self) {
        self.commit_at = None;
        let Position { slot, hash } = self.history.head();
        if slot <= self.voted_commit || slot == Slot::GENESIS {
            return;
        }
        self.voted_commit = slot;
        self.counters.commits_cast += 1;
        let vote = self.sign(Commit { view: self.entered, slot, hash });
        // Not before the history up to it is durable: a vote that can be forgotten is a vote that
        // can be cast twice.
        self.send(Target::Others, Message::Commit(vote.clone()));
        self.hear_commit(&vote);
    }

    /// Weak requests become final soon where the network allows.
    pub(super) fn commit_when_quiet(&mut self) {
        if self.commit_at.is_some_and(|at: Instant| at <= self.now.instant) {
            self.vote_commit();
        }
    }

    pub(super) fn on_commit(&mut self, vote: &Signed<Commit>) {
        if vote.body.view < self.entered {
            self.counters.stale_view += 1;
        } else if vote.body.view > self.entered {
            self.counters.future_view += 1;
        } else {
            self.hear_commit(vote);
        }
    }

    fn hear_commit(&mut self, vote: &Signed<Commit>) {
        if self.history.hash_at(vote.body.slot).is_some_and(|hash| hash != vote.body.hash) {
            self.counters.divergent_votes += 1;
            self.divergent.insert(vote.by);
        }
        match self.commits.hear(self.size, vote) {
            Heard::Kept | Heard::Nothing => {}
            Heard::Contradicts(before) => {
                self.accuse(Evidence::Commits(before, vote.clone()));
            }
            Heard::Quorum(votes) => {
                self.on_certificate(CommitCertificate { commit: vote.body, votes });
            }
        }
        self.counters.votes_dropped = self.commits.dropped() + self.checkpoints.dropped();
    }

    pub(super) fn on_certificate(&mut self, certificate: CommitCertificate) {
        let Commit { view, slot, hash } = certificate.commit;
        if view != self.entered {
            if view < self.entered {
                self.counters.stale_view += 1;
            } else {
                self.counters.future_view += 1;
            }
            return;
        }
        if slot <= self.certified() {
            return;
        }
        match self.history.hash_at(slot) {
            Some(own) if own == hash => self.raise_lock(certificate),
            Some(_) => self.counters.divergent_votes += 1,
            None => {
                // Not executed yet. A certificate whose batches are not here is no lock.
                let higher =
                    self.certified_ahead.as_ref().is_none_or(|known| known.commit.slot < slot);
                if higher {
                    self.certified_ahead = Some(certificate);
                    self.note_behind();
                }
            }
        }
    }

    fn raise_lock(&mut self, certificate: CommitCertificate) {
        let before = self.certified();
        let slot = certificate.commit.slot;
        self.counters.certificates += 1;
        self.append(Record::Lock(certificate.clone()));
        self.lock = Some(certificate);
        self.commits.forget_through(slot);
        // The replies wait for the lock to be durable: two replicas that restart without it
        // could let another history in.
        self.answer_committed(before, slot);
        self.vote_checkpoint();
    }
}
