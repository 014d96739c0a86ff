//! Where the others stand, and sending again what may have been lost.
//!
//! Nothing but status is sent on a schedule. Everything else is sent once, and again to a peer
//! whose status shows twice in a row that it lacks it.

use super::fetch::Budget;
use super::{Replica, Target};
use crate::application::Application;
use crate::id::{ReplicaId, Slot, View};
use crate::message::{Message, Position, Status};
use crate::seal::Signed;

/// What is known of another replica.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    /// Its newest status, and the one before.
    status: Option<Status>,
    before: Option<Status>,
    /// The stamp of its newest fetch.
    pub(super) fetch_stamp: u64,
    pub(super) budget: Budget,
}

impl Peer {
    /// The head it reported in this view.
    pub(super) fn head_in(&self, view: View) -> Slot {
        self.status
            .filter(|status| status.entered == view)
            .map_or(Slot::GENESIS, |status| status.head.slot)
    }
}

fn lock_in(status: &Status, view: View) -> Slot {
    status.lock.filter(|(of, _)| *of == view).map_or(Slot::GENESIS, |(_, at)| at.slot)
}

impl<A: Application> Replica<A> {
    /// A number above all before it, also across restarts, as far as the clock is not set back.
    pub(super) fn next_stamp(&mut self) -> u64 {
        let wall = self.now.wall.0.saturating_mul(1000);
        self.last_stamp = wall.max(self.last_stamp + 1);
        self.last_stamp
    }

    pub(super) fn send_status_when_due(&mut self) {
        if self.status_at > self.now.instant {
            return;
        }
        self.status_at = self.now.instant.after_ms(self.setup.tuning.status_interval_ms);
        // After a restart nothing else calls for it.
        self.vote_checkpoint();
        let stamp = self.next_stamp();
        let lock = self.lock.as_ref().map(|lock| {
            (lock.commit.view, Position { slot: lock.commit.slot, hash: lock.commit.hash })
        });
        let status = self.sign(Status {
            entered: self.entered,
            head: self.history.head(),
            lock,
            stable: self.stable(),
            stamp,
        });
        // It speaks of the head and the lock: a peer that relies on it must find them again.
        self.send(Target::Others, Message::Status(status));
    }

    pub(super) fn on_status(&mut self, signed: &Signed<Status>) {
        let from = signed.by;
        let status = signed.body;
        let peer = self.peers.entry(from).or_default();
        if peer.status.is_some_and(|known| known.stamp >= status.stamp) {
            self.counters.stale_stamp += 1;
            return;
        }
        peer.before = peer.status.replace(status);
        let before = peer.before;
        if status.entered != self.entered {
            return;
        }
        self.note_divergence(from, status.head);
        if status.head.slot > self.history.head().slot {
            self.note_behind();
        }
        if let Some(before) = before {
            self.send_again(from, &before, &status);
        }
    }

    fn note_divergence(&mut self, from: ReplicaId, head: Position) {
        match self.history.hash_at(head.slot) {
            Some(own) if own != head.hash => {
                self.divergent.insert(from);
            }
            Some(_) => {
                self.divergent.remove(&from);
            }
            None => {}
        }
    }

    /// Sends what a peer's last two words show it to lack.
    fn send_again(&mut self, to: ReplicaId, before: &Status, status: &Status) {
        let view = self.entered;
        let (lock_before, lock) = (lock_in(before, view), lock_in(status, view));
        let to = Target::One(to);
        if lock_before == lock {
            let certificate =
                self.lock.clone().filter(|own| own.commit.view == view && own.commit.slot > lock);
            if let Some(certificate) = certificate {
                self.send(to, Message::Certificate(certificate));
            }
            let vote = self.commits.newest_of(self.setup.id).filter(|vote| vote.body.slot > lock);
            if let Some(vote) = vote {
                self.send(to, Message::Commit(vote));
            }
        }
        if before.stable == status.stable {
            let certificate = self.stable.clone().filter(|own| own.checkpoint.slot > status.stable);
            if let Some(certificate) = certificate {
                self.send(to, Message::Stable(certificate));
            }
            let vote = self
                .checkpoints
                .newest_of(self.setup.id)
                .filter(|vote| vote.body.slot > status.stable);
            if let Some(vote) = vote {
                self.send(to, Message::Checkpoint(vote));
            }
        }
    }
}
