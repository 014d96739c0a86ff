//! The votes of the view entered: those cast here, and those heard.

use super::votes::{Heard, Votes};
use crate::id::{ReplicaId, Slot};
use crate::message::{Checkpoint, Commit};
use crate::quorum::ClusterSize;
use crate::signature::Signed;

/// Commit votes kept of each replica.
const COMMITS_KEPT: usize = 256;

/// Checkpoint votes kept of each replica.
const CHECKPOINTS_KEPT: usize = 8;

/// What this replica has voted for in the view entered, and what the others have.
#[derive(Clone, Debug)]
pub(in crate::replica) struct Ballots {
    commits: Votes<Commit>,
    checkpoints: Votes<Checkpoint>,
    /// The highest slots voted for.
    last_commit: Slot,
    last_checkpoint: Slot,
    /// Where votes were cast on a history that was given up within the view, up to it. Durable.
    floor: Slot,
}

impl Default for Ballots {
    fn default() -> Self {
        Self::recovered(Slot::GENESIS)
    }
}

impl Ballots {
    /// After a start: on a history that was given up, votes may lie up to `floor`.
    pub(in crate::replica) fn recovered(floor: Slot) -> Self {
        Self {
            commits: Votes::new(COMMITS_KEPT),
            checkpoints: Votes::new(CHECKPOINTS_KEPT),
            last_commit: floor,
            last_checkpoint: Slot::GENESIS,
            floor,
        }
    }

    /// Votes of views do not count together, and those cast in a view are of it alone.
    pub(in crate::replica) fn begin_view(&mut self) {
        *self = Self::default();
    }

    /// The own history becomes another one within the view. Which votes were cast on the one before, whose last
    /// slot this is, is not on the disk, but that none of them lies above it is. Answers with up to where they may lie.
    pub(in crate::replica) fn leave_history(&mut self, head: Slot) -> Slot {
        self.floor = self.last_commit.max(head);
        self.last_commit = self.floor;
        self.floor
    }

    /// Up to where votes may have been cast on a history that was given up within the view.
    pub(in crate::replica) fn floor(&self) -> Slot {
        self.floor
    }

    // ---- cast ----

    pub(in crate::replica) fn last_commit(&self) -> Slot {
        self.last_commit
    }

    pub(in crate::replica) fn last_checkpoint(&self) -> Slot {
        self.last_checkpoint
    }

    pub(super) fn note_commit(&mut self, slot: Slot) {
        self.last_commit = slot;
    }

    pub(in crate::replica) fn note_checkpoint(&mut self, slot: Slot) {
        self.last_checkpoint = slot;
    }

    // ---- heard ----

    pub(super) fn hear_commit(
        &mut self,
        size: ClusterSize,
        vote: &Signed<Commit>,
    ) -> Heard<Commit> {
        self.commits.hear(size, vote)
    }

    pub(in crate::replica) fn hear_checkpoint(
        &mut self,
        size: ClusterSize,
        vote: &Signed<Checkpoint>,
    ) -> Heard<Checkpoint> {
        self.checkpoints.hear(size, vote)
    }

    pub(in crate::replica) fn newest_commit_of(&self, id: ReplicaId) -> Option<Signed<Commit>> {
        self.commits.newest_of(id)
    }

    pub(in crate::replica) fn newest_checkpoint_of(
        &self,
        id: ReplicaId,
    ) -> Option<Signed<Checkpoint>> {
        self.checkpoints.newest_of(id)
    }

    /// What is certified needs no votes any more.
    pub(in crate::replica) fn forget_commits_through(&mut self, slot: Slot) {
        self.commits.forget_through(slot);
    }

    /// Nor does what is stable.
    pub(in crate::replica) fn forget_checkpoints_through(&mut self, slot: Slot) {
        self.checkpoints.forget_through(slot);
    }

    /// How many commit votes are kept.
    pub(in crate::replica) fn commits(&self) -> usize {
        self.commits.len()
    }

    /// How many checkpoint votes are kept.
    pub(in crate::replica) fn checkpoints(&self) -> usize {
        self.checkpoints.len()
    }

    /// How many were pushed out by newer ones of their sender.
    pub(super) fn dropped(&self) -> u64 {
        self.commits.dropped() + self.checkpoints.dropped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_another_history_within_the_view_the_next_vote_lies_above_all_that_may_have_been_cast()
    {
        let mut ballots = Ballots::default();
        ballots.note_commit(Slot(5));
        ballots.note_checkpoint(Slot(4));
        assert_eq!(ballots.leave_history(Slot(7)), Slot(7));
        assert_eq!((ballots.last_commit(), ballots.floor()), (Slot(7), Slot(7)));
        ballots.note_commit(Slot(9));
        assert_eq!(ballots.leave_history(Slot(8)), Slot(9));

        let again = Ballots::recovered(ballots.floor());
        assert_eq!((again.last_commit(), again.last_checkpoint()), (Slot(9), Slot::GENESIS));
        ballots.begin_view();
        assert_eq!((ballots.last_commit(), ballots.floor()), (Slot::GENESIS, Slot::GENESIS));
    }
}
