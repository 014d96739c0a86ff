//! The vote for a state and the certificate that makes it stable.

use serde::{Deserialize, Serialize};

use super::{Certificate, CommitCertificate, Malformed, Position, Vote};
use crate::codec::{Canonical, Sink};
use crate::id::{Digest, Slot, View};
use crate::quorum::ClusterSize;

/// Replica to all: "in `view` I hold a commit certificate that covers `slot`, and after that slot
/// my state has this digest".
///
/// Sent for the newest checkpoint slot only. Bounds: `slot >= 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The view the voter has entered.
    pub view: View,
    /// The checkpoint slot.
    pub slot: Slot,
    /// The hash of the history up to it.
    pub hash: Digest,
    /// Over the application's state and the sessions after it.
    pub state: Digest,
}

impl Vote for Checkpoint {
    fn slot(&self) -> Slot {
        self.slot
    }

    fn check(&self) -> Result<(), Malformed> {
        Malformed::unless(self.slot > Slot::GENESIS, "a checkpoint of slot 0")
    }
}

impl Canonical for Checkpoint {
    const TAG: &'static str = "checkpoint";

    fn write(&self, to: &mut impl Sink) {
        to.put_u64(self.view.0);
        to.put_u64(self.slot.0);
        to.put_digest(&self.hash);
        to.put_digest(&self.state);
    }
}

/// `Q` replicas signed one [`Checkpoint`]: the prefix is final and the state certified.
pub type CheckpointCertificate = Certificate<Checkpoint>;

/// A stable checkpoint with a commit certificate of the same view that covers its slot.
///
/// The checkpoint certificate alone is no lock: it may lie below the slot at which its voters
/// entered the view. It always travels with a commit certificate, and that one is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StableProof {
    /// Certifies the state.
    pub checkpoint: CheckpointCertificate,
    /// Covers its slot, in the same view.
    pub cover: CommitCertificate,
}

impl StableProof {
    /// The slot.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.checkpoint.body.slot
    }

    /// The end of the prefix that is final.
    #[must_use]
    pub fn position(&self) -> Position {
        let Checkpoint { slot, hash, .. } = self.checkpoint.body;
        Position { slot, hash }
    }

    pub(crate) fn check(&self, size: ClusterSize) -> Result<(), Malformed> {
        self.checkpoint.check(size)?;
        self.cover.check(size)?;
        let checkpoint = self.checkpoint.body;
        let commit = self.cover.body;
        Malformed::unless(
            commit.view == checkpoint.view
                && (commit.slot > checkpoint.slot
                    || commit.slot == checkpoint.slot && commit.hash == checkpoint.hash),
            "a commit certificate that does not cover the checkpoint",
        )
    }
}
