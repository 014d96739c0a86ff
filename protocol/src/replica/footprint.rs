//! What a replica holds in memory: everything has a limit (I10).

use super::Replica;
use crate::application::Application;

/// How much memory each store of a replica holds, for the checks of I10.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Requests waiting to be ordered, orphans left out.
    pub pending: usize,
    /// Requests of abandoned slots that wait to be executed again.
    pub orphans: usize,
    /// Stable states kept for others.
    pub states: usize,
    /// The bytes of their operations.
    pub pending_bytes: usize,
    /// Orders that cannot be executed yet.
    pub orders_ahead: usize,
    /// Commit votes.
    pub commit_votes: usize,
    /// Checkpoint votes.
    pub checkpoint_votes: usize,
    /// Sessions of all clients.
    pub sessions: usize,
    /// Slots of the history in memory.
    pub slots: usize,
    /// State digests remembered.
    pub digests: usize,
    /// Proofs of misbehaviour.
    pub evidence: usize,
    /// Slots of other histories.
    pub branch_slots: usize,
    /// View changes of all replicas.
    pub view_changes: usize,
    /// New views above the one entered.
    pub new_views: usize,
    /// Orders and votes of a view not entered yet.
    pub of_later_views: usize,
    /// Replies to queries that wait for a certificate.
    pub queries: usize,
    /// Hashes remembered of slots that the history does not hold.
    pub bygone: usize,
    /// Results remembered of operations that were undone.
    pub undone_results: usize,
}

impl<A: Application> Replica<A> {
    /// What it holds in memory.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        Footprint {
            pending: self.pending.len(),
            pending_bytes: self.pending.bytes(),
            orders_ahead: self.ahead.len(),
            commit_votes: self.ballots.commits(),
            checkpoint_votes: self.ballots.checkpoints(),
            sessions: usize::try_from(self.sessions().len()).unwrap_or(usize::MAX),
            slots: self.history.len(),
            digests: self.states.taken_len(),
            orphans: self.pending.orphans().len(),
            states: self.states.served_len(),
            evidence: self.proofs.len(),
            branch_slots: self.branches.len(),
            view_changes: self.changing.view_changes(),
            new_views: self.changing.new_views(),
            of_later_views: self.changing.of_later_views(),
            queries: self.queries.len(),
            bygone: self.bygone.len(),
            undone_results: self.undone.len(),
        }
    }
}
