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
//! - `reported`: a client that was answered weakly is told rightly what became of it;
//! - `liveness`: healed and quiet, every request of an honest client is answered and final, and in a
//!   component with enough correct replicas it is answered before (L1 and L2);
//! - `standing`: nothing that counts towards a quorum leaves a replica before its disk says that it
//!   votes, nor after it lost its disk; in the end it follows as an observer;
//! - `pieces`: what is on disk of a state that is being fetched is not asked for again;
//! - `marks`, `records`, `restart`, `honest`: the contract between core and driver.

mod bounds;
mod completed;
mod histories;
pub mod linear;
mod outcome;
mod pieces;
pub mod standing;
mod votes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use elea_protocol::client::Ticket;
use elea_protocol::codec::Canonical as _;
use elea_protocol::evidence::Evidence;
use elea_protocol::id::{ClientId, Digest, ReplicaId, Slot, View};
use elea_protocol::membership::Membership;
use elea_protocol::message::{
    CommitCertificate, Level, Message, Past, Position, Query, QueryReply, ReplyKind,
    SignedQueryReply, SlotEntry, StableProof, ToClient,
};

pub use self::bounds::Bounds;
pub use self::completed::Completed;
pub use self::histories::{Ancestry, Histories};
pub use self::outcome::{Executed, Outcomes, Promise, reexecute};
pub use self::pieces::Pieces;
pub use self::votes::Votes;
use crate::disk::Disk;
use crate::inspect::Look;
use crate::violation::{Violation, demand};

/// All checkers of one world.
#[derive(Clone)]
pub struct Checker {
    membership: Arc<Membership>,
    /// I4, I5, I6 and what a history may hold.
    pub histories: Histories,
    /// I1, I2, I3 and I7.
    pub votes: Votes,
    /// What clients were told.
    pub outcomes: Outcomes,
    /// I10.
    pub bounds: Bounds,
    /// How good answers to queries must be, and what they must include, by their digests.
    queries: BTreeMap<Digest, (Level, Option<Past>)>,
}

/// What a client was shown that asked with a past.
#[derive(Clone, Debug)]
pub struct Glimpse {
    /// What it asked.
    pub ticket: Ticket,
    /// What it had seen before.
    pub past: Past,
    /// From which history it was answered.
    pub at: Position,
}

impl Checker {
    /// The checkers of a world of this cluster with these honest clients.
    #[must_use]
    pub fn new(
        membership: Arc<Membership>,
        honest: BTreeSet<ClientId>,
        max_sessions: u64,
        bounds: Bounds,
    ) -> Self {
        let size = membership.size();
        Self {
            histories: Histories::new(*membership.genesis(), size.replicas(), honest, max_sessions),
            votes: Votes::new(size),
            outcomes: Outcomes { promises: Vec::new(), max_sessions },
            bounds,
            queries: BTreeMap::new(),
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
                has_entered(disk, who, "orders in", header.view)?;
            }
            Message::Commit(commit) if commit.by == who => {
                let commit = commit.body;
                self.votes.commits(who, commit, Some(&self.histories))?;
                self.rests(disk, who, "commits", commit.view, (commit.slot, commit.hash))?;
            }
            Message::Checkpoint(checkpoint) if checkpoint.by == who => {
                let checkpoint = checkpoint.body;
                let at = Position { slot: checkpoint.slot, hash: checkpoint.hash };
                self.votes.checkpoints(who, checkpoint)?;
                self.rests(disk, who, "votes on", checkpoint.view, (at.slot, at.hash))?;
                self.covered(disk, who, "votes on the state at", checkpoint.view, at)?;
            }
            Message::Status(status) if status.by == who => {
                let view = status.body.entered;
                self.votes.stands(who, view)?;
                has_entered(disk, who, "stands in", view)?;
            }
            Message::Suspect(suspect) if suspect.by == who => {
                self.votes.suspects(who, suspect.body.view)?;
            }
            Message::Campaign(campaign) if campaign.change.by == who => {
                self.votes.campaigns(who, &campaign.change.body)?;
            }
            Message::NewView(new_view) if new_view.by == who => {
                let header = new_view.body.header;
                self.votes.begins(who, header)?;
                has_entered(disk, who, "begins", header.view)?;
            }
            Message::Slots(slots) => {
                slots.entries.iter().try_for_each(|entry| self.entry_leaves(who, entry))?;
            }
            Message::Branch(branch) => {
                let entries = branch.slots.iter().map(|linked| &linked.entry);
                entries.into_iter().try_for_each(|entry| self.entry_leaves(who, entry))?;
            }
            _ => {}
        }
        self.certificates(message)
    }

    /// All certificates in a message whose signatures are good.
    fn certificates(&mut self, message: &Message) -> Result<(), Violation> {
        let (mut commits, mut stable) = (Vec::new(), Vec::new());
        gather(message, &mut commits, &mut stable);
        commits
            .into_iter()
            .try_for_each(|certificate| self.votes.seen(certificate, &self.histories))?;
        stable.into_iter().try_for_each(|proof| self.votes.stable(proof, &self.histories))
    }

    /// What a correct replica says of a slot in a view rests on its disk: the view entered, and the
    /// slot. A view entered since, or a state put in place since, may have taken the slot away
    /// again: then it must have been there before.
    fn rests(
        &self,
        disk: &Disk,
        who: ReplicaId,
        does: &str,
        view: View,
        (slot, hash): (Slot, Digest),
    ) -> Result<(), Violation> {
        has_entered(disk, who, does, view)?;
        let is_there = disk.hash_at(slot) == Some(hash);
        let base = disk.base();
        let is_below = base.is_some_and(|base| {
            self.histories.extends(base, Position { slot, hash }) && slot < base.slot
        });
        let is_outdated = disk.entered() > view || slot <= disk.replaced();
        let was_there = is_outdated && disk.ever_held(&hash);
        demand(is_there || is_below || was_there, "durable", || {
            let (entered, was, replaced) = (disk.entered(), disk.ever_held(&hash), disk.replaced());
            format!(
                "{who} {does} slot {slot} ({hash:?}) in {view}, which is not on its disk (it is in \
                 {entered}; the slot was there: {was}; a state took the place of all up to {replaced})"
            )
        })
    }

    /// What a correct replica says on the strength of a certificate rests on a lock on its disk, and
    /// shows that it held it.
    fn covered(
        &mut self,
        disk: &Disk,
        who: ReplicaId,
        does: &str,
        view: View,
        at: Position,
    ) -> Result<(), Violation> {
        let rank = disk.lock().map(CommitCertificate::rank);
        demand(rank >= Some((view, at.slot)), "durable", || {
            format!(
                "{who} {does} slot {} in {view} and has no lock on disk that covers it: {rank:?}",
                at.slot
            )
        })?;
        self.votes.completed.holds(who, view, at, &self.histories)
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
        let replies = match answer {
            ToClient::Replies(replies) => replies,
            ToClient::QueryReplies(replies) => {
                return replies
                    .iter()
                    .try_for_each(|signed| self.query_reply_leaves(who, signed, disk));
            }
            _ => return Ok(()),
        };
        for signed in replies {
            let reply = &signed.reply;
            demand(signed.vote.by == who, "honest", || {
                format!("{who} sends a reply in the name of {}", signed.vote.by)
            })?;
            let at = Position { slot: reply.slot, hash: reply.hash };
            self.votes.stands(who, reply.view)?;
            self.rests(disk, who, "answers for", reply.view, (at.slot, at.hash))?;
            if reply.kind == ReplyKind::Committed {
                self.covered(disk, who, "calls final", reply.view, at)?;
            }
        }
        Ok(())
    }

    fn query_reply_leaves(
        &mut self,
        who: ReplicaId,
        signed: &SignedQueryReply,
        disk: &Disk,
    ) -> Result<(), Violation> {
        let QueryReply { view, query, from, to, positions, .. } = &signed.reply;
        demand(signed.vote.by == who && from <= to, "honest", || {
            format!("{who} replies to a query as {}, for {from} to {to}", signed.vote.by)
        })?;
        self.votes.stands(who, *view)?;
        has_entered(disk, who, "replies to a query", *view)?;
        let rank = disk.lock().map(CommitCertificate::rank);
        let asked = self.queries.get(query);
        let is_weak = asked.is_some_and(|(level, _)| *level == Level::Weak);
        if let Some((_, Some(past))) = asked {
            demand(!positions.is_empty(), "I12", || {
                format!("{who} names no history for {query:?}")
            })?;
            for at in positions {
                self.histories.includes(&who.to_string(), *at, past)?;
            }
        }
        let is_covered = *to == Slot::GENESIS || rank >= Some((*view, *to));
        demand(is_weak || is_covered, "durable", || {
            format!(
                "{who} replies for slot {to} in {view}, and has no lock on disk that covers it: {rank:?}"
            )
        })
    }

    /// A client asks this of a replica.
    pub fn query_arrives(&mut self, query: &Query) {
        self.queries.insert(query.digest(), (query.level, query.past.clone()));
    }

    /// A message of whomever reached a correct replica and its signatures are good.
    ///
    /// # Errors
    /// With it two histories of one view are certified, or one that leaves out what is complete.
    pub fn message_arrives(&mut self, message: &Message) -> Result<(), Violation> {
        if let Message::Commit(commit) = message {
            self.votes.tally(commit.by, commit.body, &self.histories)?;
        }
        self.certificates(message)
    }

    /// Something of a correct replica is on its disk.
    ///
    /// # Errors
    /// With that something is complete, and something else contradicts it.
    pub fn synced(&mut self, who: ReplicaId, disk: &Disk) -> Result<(), Violation> {
        let Some(lock) = disk.lock() else { return Ok(()) };
        let (view, at) = lock.at();
        if view != disk.entered() {
            return Ok(());
        }
        self.votes.completed.holds(who, view, at, &self.histories)
    }

    /// Looks at a correct replica after an event. Answers whether its history changed.
    ///
    /// # Errors
    /// Its history breaks a rule.
    pub fn look(&mut self, who: ReplicaId, core: &dyn Look) -> Result<bool, Violation> {
        let changed = self.histories.follow(who, core, &self.membership)?;
        let (view, slot) = core.entered();
        self.votes.entered(who, view, slot)?;
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

    /// A client was answered from a history that is to include what it saw before. Answers whether a merge has moved any of
    /// that.
    ///
    /// # Errors
    /// I12.
    pub fn glimpsed(&self, glimpse: &Glimpse) -> Result<bool, Violation> {
        let who = format!("{:?} of the client", glimpse.ticket);
        Ok(!self.histories.includes(&who, glimpse.at, &glimpse.past)?)
    }

    /// The replica lost its memory: what it holds when it starts again may be less than before, and
    /// is no less than what is on its disk.
    ///
    /// # Errors
    /// As [`Checker::synced`].
    pub fn crashed(&mut self, who: ReplicaId, disk: &Disk) -> Result<(), Violation> {
        self.histories.crashed(who, disk);
        self.votes.crashed(who, disk.entered());
        self.synced(who, disk)
    }

    /// Whether a replica that crashed has given an order, in the view that it will find itself in, that it will
    /// know nothing of.
    pub fn has_forgotten_an_order(&mut self, who: ReplicaId, disk: &Disk) -> bool {
        self.votes.has_ordered_beyond(who, disk.entered(), |hash| disk.ever_held(hash))
    }
}

fn has_entered(disk: &Disk, who: ReplicaId, does: &str, view: View) -> Result<(), Violation> {
    demand(disk.entered() >= view, "durable", || {
        format!("{who} {does} {view}, and its disk says that it is in {}", disk.entered())
    })
}

/// The certificates in a message.
fn gather<'a>(
    message: &'a Message,
    commits: &mut Vec<&'a CommitCertificate>,
    stable: &mut Vec<&'a StableProof>,
) {
    match message {
        Message::Certificate(certificate) => commits.push(certificate),
        Message::Stable(proof) => stable.push(proof),
        Message::Slots(slots) => commits.extend(&slots.certificate),
        Message::Branch(branch) => stable.extend(branch.stable.as_deref()),
        Message::Campaign(campaign) => {
            let changes = campaign.others.iter().chain([&campaign.change]);
            commits.extend(changes.filter_map(|change| change.body.lock.as_ref()));
            commits.extend(campaign.proof.as_deref().and_then(refutation));
        }
        Message::NewView(new_view) => {
            let changes = new_view.body.changes.iter();
            commits.extend(changes.filter_map(|change| change.body.lock.as_ref()));
        }
        Message::Evidence(evidence) => commits.extend(refutation(evidence)),
        Message::Order(_)
        | Message::Commit(_)
        | Message::Checkpoint(_)
        | Message::Status(_)
        | Message::Fetch(_)
        | Message::Requests(_)
        | Message::Clients(_)
        | Message::Waiting(_)
        | Message::State(_)
        | Message::Suspect(_)
        | Message::Enrol(_)
        | Message::Enrolled(_)
        | Message::Pulse(_) => {}
    }
}

fn refutation(evidence: &Evidence) -> Option<&CommitCertificate> {
    match evidence {
        Evidence::OrderRefuted(_, certificate, _) | Evidence::NewViewRefuted(_, certificate, _) => {
            Some(certificate)
        }
        Evidence::Orders(..) | Evidence::Commits(..) | Evidence::NewViews(..) => None,
    }
}

#[cfg(test)]
mod tests;
