//! The signed words in a message, each with who said it.

use elea_fault_injection::violation::{Violation, demand};
use elea_protocol::codec::Canonical as _;
use elea_protocol::id::ReplicaId;
use elea_protocol::message::{
    Checkpoint, Commit, CommitCertificate, Message, NewView, Order, Position, SlotEntry,
    StableProof, Status, ViewChange,
};
use elea_protocol::signature::Signed;

use super::Ear;
use super::replica::Remembered;

impl Ear {
    /// Takes in a message whose signatures are good.
    pub(super) fn listen(&mut self, who: ReplicaId, message: &Message) -> Result<(), Violation> {
        match message {
            Message::Order(order) => self.order(who, order, true),
            Message::Commit(commit) => self.commit(who, commit.by, commit.body),
            Message::Certificate(certificate) => self.certificate(who, certificate),
            Message::Checkpoint(vote) => self.checkpoint(who, vote.by, vote.body),
            Message::Stable(proof) => self.stable(who, proof),
            Message::Status(status) => self.status(who, status),
            Message::Suspect(suspect) => {
                self.record.add("suspicions", 1);
                match who == suspect.by {
                    true => self.remembered(who).speaks_of(who, suspect.body.view),
                    false => Ok(()),
                }
            }
            Message::Campaign(campaign) => {
                self.change(who, &campaign.change)?;
                campaign.others.iter().try_for_each(|change| self.change(who, change))
            }
            Message::NewView(new_view) => self.new_view(who, new_view),
            Message::Slots(slots) => {
                slots.entries.iter().try_for_each(|entry| self.entry(who, entry))?;
                slots.certificate.iter().try_for_each(|found| self.certificate(who, found))
            }
            Message::Branch(branch) => {
                branch.slots.iter().try_for_each(|linked| self.entry(who, &linked.entry))?;
                branch.stable.iter().try_for_each(|proof| self.stable(who, proof))
            }
            // Evidence never comes here: that there is any is a violation.
            Message::Fetch(_)
            | Message::Requests(_)
            | Message::Clients(_)
            | Message::Waiting(_)
            | Message::State(_)
            | Message::Enrol(_)
            | Message::Pulse(_)
            | Message::Evidence(_) => Ok(()),
            Message::Enrolled(word) => {
                let known =
                    self.lives.entry((word.by, word.body.replica)).or_insert(word.body.life);
                demand(*known == word.body.life, "enrolled", || {
                    format!("{} knows two first lives of {}", word.by, word.body.replica)
                })
            }
        }
    }

    fn remembered(&mut self, who: ReplicaId) -> &mut Remembered {
        &mut self.remembered[usize::from(who.0)]
    }

    /// A word that its author sent itself tells where the author stands. Of one that was passed on,
    /// nobody knows when it was said.
    fn stands_if_own(
        &mut self,
        from: ReplicaId,
        by: ReplicaId,
        view: elea_protocol::id::View,
    ) -> Result<(), Violation> {
        if from == by { self.remembered(by).stands(by, view) } else { Ok(()) }
    }

    fn order(
        &mut self,
        from: ReplicaId,
        order: &Signed<Order>,
        is_live: bool,
    ) -> Result<(), Violation> {
        let (by, header) = (order.by, order.body.header);
        self.lineage.ordered(header);
        let at = Position { slot: header.slot, hash: header.hash };
        self.remembered(by).goes_through(by, header.view, at)?;
        if self.votes.ordered(by, header.view, header.slot, header.hash)? {
            self.record.add("orders", 1);
            // In a stretch of history there are orders of old views, and they may be the first
            // that is heard of them.
            if is_live {
                self.stands_if_own(from, by, header.view)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, from: ReplicaId, entry: &SlotEntry) -> Result<(), Violation> {
        entry.order.iter().try_for_each(|order| self.order(from, order, false))
    }

    fn commit(&mut self, from: ReplicaId, by: ReplicaId, vote: Commit) -> Result<(), Violation> {
        let at = Position { slot: vote.slot, hash: vote.hash };
        self.remembered(by).goes_through(by, vote.view, at)?;
        if self.votes.committed(by, vote)? {
            self.record.add("commit_votes", 1);
            self.stands_if_own(from, by, vote.view)?;
        }
        self.votes.tally(by, vote, &self.lineage)
    }

    fn checkpoint(
        &mut self,
        from: ReplicaId,
        by: ReplicaId,
        vote: Checkpoint,
    ) -> Result<(), Violation> {
        let at = Position { slot: vote.slot, hash: vote.hash };
        self.remembered(by).goes_through(by, vote.view, at)?;
        self.remembered(by).rests_on_lock(vote.view, vote.slot);
        if self.votes.vouched(by, vote)? {
            self.record.add("checkpoint_votes", 1);
            self.stands_if_own(from, by, vote.view)?;
        }
        Ok(())
    }

    /// Who passes a certificate on does not say its votes: their authors did, some time.
    fn certificate(
        &mut self,
        _from: ReplicaId,
        certificate: &CommitCertificate,
    ) -> Result<(), Violation> {
        let (view, at) = certificate.at();
        for by in certificate.votes.keys() {
            self.remembered(*by).goes_through(*by, view, at)?;
            if self.votes.committed(*by, certificate.body)? {
                self.record.add("commit_votes", 1);
            }
        }
        self.record.add("certificates", 1);
        self.votes.seen(certificate, &self.lineage)
    }

    fn stable(&mut self, from: ReplicaId, proof: &StableProof) -> Result<(), Violation> {
        let vote = proof.checkpoint.body;
        for by in proof.checkpoint.votes.keys() {
            self.remembered(*by).goes_through(*by, vote.view, proof.position())?;
            self.remembered(*by).rests_on_lock(vote.view, vote.slot);
            if self.votes.vouched(*by, vote)? {
                self.record.add("checkpoint_votes", 1);
            }
        }
        self.record.add("stable_checkpoints", 1);
        self.votes.state(vote)?;
        self.certificate(from, &proof.cover)
    }

    fn status(&mut self, from: ReplicaId, status: &Signed<Status>) -> Result<(), Violation> {
        let (by, body) = (status.by, &status.body);
        self.record.add("statuses", 1);
        self.lineage.ends_in(body.head);
        self.remembered(by).stamped(by, body.stamp, body.digest())?;
        if from != by {
            return Ok(());
        }
        let lock = body.lock.map(|(view, at)| (view, at.slot));
        self.remembered(by).stands(by, body.entered)?;
        self.remembered(by).is_at(by, body.entered, body.head, lock)
    }

    fn change(&mut self, from: ReplicaId, change: &Signed<ViewChange>) -> Result<(), Violation> {
        let (by, body) = (change.by, &change.body);
        self.record.add("view_changes", 1);
        self.lineage.ends_in(body.head);
        body.lock.iter().try_for_each(|lock| self.certificate(from, lock))?;
        self.remembered(by).goes_through(by, body.entered, body.head)
    }

    fn new_view(&mut self, from: ReplicaId, new_view: &Signed<NewView>) -> Result<(), Violation> {
        let (by, header) = (new_view.by, new_view.body.header);
        self.lineage.ends_in(header.head);
        new_view.body.changes.iter().try_for_each(|change| self.change(from, change))?;
        self.remembered(by).goes_through(by, header.view, header.head)?;
        if self.votes.begun(by, header)? {
            self.record.add("new_views", 1);
            self.stands_if_own(from, by, header.view)?;
        }
        Ok(())
    }
}
