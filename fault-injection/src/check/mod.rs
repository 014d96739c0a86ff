//! The checkers, run after every step.
//!
//! They are told what left each correct replica and look at the replica that the step touched,
//! and only at what changed in it. They hold plain data and call none of the core's logic, so each
//! can be fed a violation in a test of its own. Rules by their number in the specification, and
//! these of the harness:
//!
//! - `durable`: what leaves a replica rests on what is on its disk, whatever mark it named;
//! - `orders`: a slot in a correct history was ordered by the primary of the order's view;
//! - `requests`: what a correct history holds was signed by its clients, and is never empty;
//! - `time`: time never decreases along a history;
//! - `state`: equal histories give equal states;
//! - `weak` and `strong`: an answer is what a quorum with a correct member can vouch for;
//! - `liveness`: healed and quiet, every request of an honest client is answered;
//! - `marks`, `records`, `restart`, `honest`: the contract between core and driver.

mod bounds;
mod histories;
mod outcome;
mod votes;

use std::sync::Arc;

use elea_protocol::id::{Digest, ReplicaId};
use elea_protocol::membership::Membership;
use elea_protocol::message::{Message, ReplyKind, SlotEntry, ToClient};

pub use self::bounds::Bounds;
pub use self::histories::{Histories, Look};
pub use self::outcome::{Executed, Outcomes, Promise, reexecute};
pub use self::votes::Votes;
use crate::disk::Disk;
use crate::violation::{Violation, demand};

/// All checkers of one world.
pub struct Checker {
    membership: Arc<Membership>,
    /// I4, I6 and what a history may hold.
    pub histories: Histories,
    /// I1, I3 and I7.
    pub votes: Votes,
    /// What clients were told.
    pub outcomes: Outcomes,
    /// I10.
    pub bounds: Bounds,
}

impl Checker {
    /// The checkers of a world of this cluster.
    #[must_use]
    pub fn new(membership: Arc<Membership>, bounds: Bounds) -> Self {
        let size = membership.size();
        Self {
            histories: Histories::new(*membership.genesis(), size.replicas()),
            votes: Votes::new(size),
            outcomes: Outcomes::default(),
            bounds,
            membership,
        }
    }

    /// A message leaves a correct replica.
    ///
    /// # Errors
    /// It contradicts what the replica said before, or rests on what is not on its disk.
    pub fn message_leaves(
        &mut self,
        who: ReplicaId,
        message: &Message,
        disk: &Disk,
    ) -> Result<(), Violation> {
        match message {
            Message::Order(order) if order.by == who => {
                let header = &order.body.header;
                self.votes.orders(who, header.view, header.slot, header.hash)?;
                on_disk(disk, who, "orders", header.slot, header.hash)?;
            }
            Message::Commit(commit) if commit.by == who => {
                let commit = commit.body;
                self.votes.commits(who, commit, Some(&self.histories))?;
                on_disk(disk, who, "commits", commit.slot, commit.hash)?;
            }
            Message::Checkpoint(checkpoint) if checkpoint.by == who => {
                let checkpoint = checkpoint.body;
                self.votes.checkpoints(who, checkpoint)?;
                on_disk(disk, who, "votes on", checkpoint.slot, checkpoint.hash)?;
                let covered = disk.lock().is_some_and(|lock| {
                    lock.commit.view == checkpoint.view && lock.commit.slot >= checkpoint.slot
                });
                demand(covered, "durable", || {
                    format!(
                        "{who} votes on the state at {} and has no lock on disk that covers it",
                        checkpoint.slot
                    )
                })?;
            }
            Message::Status(status) if status.by == who => {
                self.votes.stands(who, status.body.entered)?;
            }
            Message::Certificate(certificate) => {
                self.votes.seen(certificate, &self.histories)?;
            }
            Message::Stable(certificate) => self.votes.stable(certificate.checkpoint)?,
            Message::Slots(slots) => {
                slots.entries.iter().try_for_each(|entry| self.entry_leaves(who, entry))?;
                slots
                    .certificate
                    .iter()
                    .try_for_each(|certificate| self.votes.seen(certificate, &self.histories))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn entry_leaves(&mut self, who: ReplicaId, entry: &SlotEntry) -> Result<(), Violation> {
        match &entry.order {
            Some(order) if order.by == who => {
                let header = &order.body.header;
                self.votes.orders(who, header.view, header.slot, header.hash)
            }
            _ => Ok(()),
        }
    }

    /// Words to a client leave a correct replica.
    ///
    /// # Errors
    /// As [`Checker::message_leaves`].
    pub fn answer_leaves(
        &mut self,
        who: ReplicaId,
        answer: &ToClient,
        disk: &Disk,
    ) -> Result<(), Violation> {
        let ToClient::Replies(replies) = answer else { return Ok(()) };
        for signed in replies {
            let reply = &signed.reply;
            demand(signed.vote.by == who, "honest", || {
                format!("{who} sends a reply in the name of {}", signed.vote.by)
            })?;
            on_disk(disk, who, "answers for", reply.slot, reply.hash)?;
            let covered = disk.lock().is_some_and(|lock| {
                lock.commit.view == reply.view && lock.commit.slot >= reply.slot
            });
            demand(reply.kind == ReplyKind::Speculative || covered, "durable", || {
                format!("{who} calls slot {} final without a lock on disk", reply.slot)
            })?;
        }
        Ok(())
    }

    /// A message of whomever reached a correct replica and its signatures are good.
    ///
    /// # Errors
    /// With it two histories of one view are certified.
    pub fn message_arrives(&mut self, message: &Message) -> Result<(), Violation> {
        match message {
            Message::Commit(commit) => self.votes.tally(commit.by, commit.body, &self.histories),
            Message::Certificate(certificate) => self.votes.seen(certificate, &self.histories),
            Message::Slots(slots) => slots
                .certificate
                .iter()
                .try_for_each(|certificate| self.votes.seen(certificate, &self.histories)),
            Message::Stable(certificate) => self.votes.stable(certificate.checkpoint),
            _ => Ok(()),
        }
    }

    /// Looks at a correct replica after an event. Answers whether its history changed.
    ///
    /// # Errors
    /// Its history breaks a rule.
    pub fn look(&mut self, who: ReplicaId, core: &dyn Look) -> Result<bool, Violation> {
        let changed = self.histories.follow(who, core, &self.membership)?;
        if let Some(commit) = core.lock() {
            self.votes.lock(who, commit, &self.histories)?;
        }
        self.bounds.check(who, &core.footprint())?;
        Ok(changed)
    }

    /// A client was answered.
    ///
    /// # Errors
    /// `weak` or `strong`: no correct replica ever had the history that the answer names, or not
    /// the request in it.
    pub fn promised(&mut self, promise: Promise) -> Result<(), Violation> {
        let rule = if promise.kind == ReplyKind::Committed { "strong" } else { "weak" };
        let held = self.histories.batch_at(&promise.hash).is_some_and(|(slot, batch)| {
            slot == promise.slot
                && batch.requests.iter().any(|request| request.body().name() == promise.name)
        });
        demand(held, rule, || {
            format!(
                "{:?} was answered for slot {} {:?}, which no correct replica ever had so",
                promise.name, promise.slot, promise.hash
            )
        })?;
        self.outcomes.promises.push(promise);
        Ok(())
    }

    /// The replica was restarted: what it holds in memory may be less than before.
    pub fn restarted(&mut self, who: ReplicaId) {
        self.votes.restarted(who);
    }
}

fn on_disk(
    disk: &Disk,
    who: ReplicaId,
    does: &str,
    slot: elea_protocol::id::Slot,
    hash: Digest,
) -> Result<(), Violation> {
    demand(disk.hash_at(slot) == Some(hash), "durable", || {
        format!("{who} {does} slot {slot} ({hash:?}), which is not on its disk")
    })
}
