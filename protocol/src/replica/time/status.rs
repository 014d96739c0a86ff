//! Telling the others where this replica stands, hearing where they do, and sending again what may have been lost.
//!
//! Nothing but status is sent on a schedule. Everything else is sent once, and again to a peer
//! whose status shows twice in a row that it lacks it.

use crate::application::Application;
use crate::codec;
use crate::id::{ReplicaId, Slot, View};
use crate::message::{Checkpoint, Commit, CommitCertificate, Message, Position, Status};
use crate::replica::{Record, Replica, Target};
use crate::signature::Signed;

/// A sender that is so many stamps behind its own words, those of ten seconds, is told.
const FAR_BEHIND: u64 = 10_000_000;

/// So many status intervals is lately.
const LATELY_STATUSES: u64 = 4;

fn lock_in(status: &Status, view: View) -> Slot {
    status.lock.filter(|(of, _)| *of == view).map_or(Slot::GENESIS, |(_, at)| at.slot)
}

impl<A: Application> Replica<A> {
    /// Who was not heard for longer than this, in ms, counts as one that is not heard; and what did not come for
    /// so long, from whomever, is not waited for.
    pub(in crate::replica) fn lately_ms(&self) -> u64 {
        LATELY_STATUSES * self.setup.tuning.status_interval_ms
    }

    /// The next [stamp](super::stamps). What carries it must not leave before the record that
    /// [reserves](Record::Stamps) it is on disk.
    pub(in crate::replica) fn next_stamp(&mut self) -> u64 {
        let stamp = self.stamps.next(self.now.wall.0.saturating_mul(1000), self.now.instant);
        if let Some(reserved) = self.stamps.wanted() {
            let record = self.append(Record::Stamps(reserved));
            self.stamps.reserve(reserved, record);
        }
        stamp
    }

    pub(in crate::replica) fn send_status_when_due(&mut self) {
        if !self.due.is_status_due(self.now.instant) {
            return;
        }
        let interval = self.setup.tuning.status_interval_ms;
        self.due.status_at(self.now.instant.after_ms(interval));
        // After a restart nothing else calls for it.
        self.vote_checkpoint();
        let stamp = self.next_stamp();
        let lock = self.lock.get().map(CommitCertificate::at);
        let status = self.sign(Status {
            entered: self.entered(),
            campaign: self.campaign(),
            head: self.tip(),
            lock,
            stable: self.stable(),
            convicted: self.proofs.convicted(),
            clients: *self.setup.membership.client_list(),
            newest_edition: self.setup.editions.newest,
            common_edition: self.common_edition(),
            wall: self.now.wall,
            stamp,
        });
        // It speaks of the head and the lock: a peer that relies on it must find them again.
        self.send(Target::Others, Message::Status(status));
        self.repeat_campaign();
        self.send_pulse();
    }

    pub(in crate::replica) fn on_status(&mut self, by: ReplicaId, signed: &Signed<Status>) {
        let from = signed.by;
        let status = signed.body;
        if from == self.setup.id {
            self.hear_own_word(status.stamp);
            return;
        }
        let vouched = self.vouched_edition();
        let peer = self.peers.entry(from).or_default();
        let before = match peer.hears(signed, self.now.instant) {
            Ok(before) => before,
            Err(behind) => {
                self.counters.stale_stamp += 1;
                self.show_newest_word(from, behind);
                return;
            }
        };
        self.hear_of_list(from, status.clients);
        if by == from
            && let Some(peer) = self.peers.get_mut(&from)
        {
            peer.tells_of_editions(status.newest_edition, status.common_edition);
            self.note_editions();
        }
        if self.vouched_edition() != vouched {
            // An order may have waited for that.
            self.advance();
        }
        if status.entered < self.entered() {
            self.send_new_view(from);
        }
        if status.entered == self.entered() && !self.is_adopting() {
            self.note_divergence(from, status.head);
            if status.head.slot > self.history.head().slot {
                self.note_behind();
            }
        }
        if let Some(before) = before {
            self.send_again(from, &before, &status);
        }
        self.reconsider();
    }

    /// An own status or fetch, played back. One that is newer than all that is known of here was sent in a life
    /// before this one, whose disk is lost: to be heard again, the stamps go on from there.
    pub(in crate::replica) fn hear_own_word(&mut self, stamp: u64) {
        self.counters.stale_stamp += 1;
        self.stamps.note_used(stamp);
    }

    /// A peer is behind its own words, by so many stamps. Perhaps an old one was played back; but if it
    /// has lost its disk, and with it the stamps it used, only others can tell it. Who is little behind
    /// is past that soon.
    pub(in crate::replica) fn show_newest_word(&mut self, to: ReplicaId, behind: u64) {
        if behind < FAR_BEHIND {
            return;
        }
        let now = self.now.instant;
        let interval = self.setup.tuning.status_interval_ms;
        let Some(peer) = self.peers.get_mut(&to) else { return };
        if let Some(newest) = peer.show_newest(now, interval) {
            self.send_at_once(Target::One(to), newest);
        }
    }

    fn note_divergence(&mut self, from: ReplicaId, head: Position) {
        match self.history.hash_at(head.slot) {
            Some(own) if own != head.hash => {
                self.divergent.note(from);
                // The two may differ by their new views: with both, either has a proof.
                self.send_new_view(from);
            }
            Some(_) => self.divergent.note_together(from),
            None => {}
        }
    }

    /// Sends what a peer's word calls for, as far as its budget allows: whoever signs many words is not to
    /// get an answer to each.
    pub(in crate::replica) fn send_charged(&mut self, to: ReplicaId, message: Message) {
        let bytes = codec::encode(&message).map_or(usize::MAX, |bytes| bytes.len());
        let now = self.now.instant;
        if self.peers.entry(to).or_default().budget_mut().charge(now, bytes) {
            self.send(Target::One(to), message);
        } else {
            self.counters.answers_over_budget += 1;
        }
    }

    /// Sends what a peer's last two words show it to lack.
    fn send_again(&mut self, from: ReplicaId, before: &Status, status: &Status) {
        let view = self.entered();
        // Own votes are repeated by who may vote.
        let of_view = status.entered == view && self.may_vote() && !self.is_adopting();
        // Its head lies below all that is in memory here: whether it is on the own history is not
        // known, and no slots can show it. If the two differ by their new views, these do.
        let is_stuck = status.entered == view && before.head == status.head;
        if is_stuck && status.head.slot < self.history.base().slot {
            self.send_new_view(from);
        }
        if before.lock == status.lock {
            let rank = status.lock.map(|(view, at)| (view, at.slot));
            let certificate = self.lock.get().filter(|own| Some(own.rank()) > rank).cloned();
            if let Some(certificate) = certificate {
                self.send_charged(from, Message::Certificate(certificate));
            }
            let lock = lock_in(status, view);
            let vote =
                self.ballots.newest_commit_of(self.setup.id).filter(|vote| vote.body.slot > lock);
            // Under a certificate the history may have become another one within the view.
            let vote = vote.filter(|vote| {
                let Commit { slot, hash, .. } = vote.body;
                self.history.goes_through(Position { slot, hash })
            });
            if let Some(vote) = vote.filter(|_| of_view) {
                self.send_charged(from, Message::Commit(vote));
            }
        }
        // A proof is sent to all when it is made; who was away then gets it here, one at a time.
        let convicted = before.convicted | status.convicted;
        if let Some(evidence) = self.proofs.first_beside(convicted).cloned() {
            self.send_charged(from, Message::Evidence(Box::new(evidence)));
        }
        if before.stable == status.stable {
            let certificate = self.stable.proof().filter(|own| own.slot() > status.stable).cloned();
            if let Some(certificate) = certificate {
                self.send_charged(from, Message::Stable(Box::new(certificate)));
            }
            let vote = self
                .ballots
                .newest_checkpoint_of(self.setup.id)
                .filter(|vote| vote.body.slot > status.stable);
            let vote = vote.filter(|vote| {
                let Checkpoint { slot, hash, .. } = vote.body;
                self.history.goes_through(Position { slot, hash })
            });
            if let Some(vote) = vote.filter(|_| of_view) {
                self.send_charged(from, Message::Checkpoint(vote));
            }
        }
    }
}
