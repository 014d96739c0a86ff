//! The vote for a prefix and the certificate that a strong quorum of votes makes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Malformed, Position};
use crate::codec::{Canonical, Sink};
use crate::id::{Digest, ReplicaId, Slot, View};
use crate::quorum::{ClusterSize, Strength};
use crate::signature::Signature;

/// Replica to all: "in `view`, my history up to `slot` hashes to `hash`".
///
/// It covers the whole prefix. A correct replica never votes below the slot at which it entered
/// the view, and never for two hashes at one `(view, slot)`. Bounds: `slot >= 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Commit {
    /// The view the voter has entered.
    pub view: View,
    /// The end of the prefix.
    pub slot: Slot,
    /// Its hash.
    pub hash: Digest,
}

impl Commit {
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        Malformed::unless(self.slot > Slot::GENESIS, "a commit for slot 0")
    }
}

impl Canonical for Commit {
    const TAG: &'static str = "commit";

    fn write(&self, to: &mut impl Sink) {
        to.put_u64(self.view.0);
        to.put_u64(self.slot.0);
        to.put_digest(&self.hash);
    }
}

/// `Q` replicas signed one [`Commit`]: no other history of this view can be certified up to its
/// slot. Anybody can check it, whoever passes it on. Bounds: at most one vote a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitCertificate {
    /// What was voted for.
    pub commit: Commit,
    /// The votes.
    pub votes: BTreeMap<ReplicaId, Signature>,
}

impl CommitCertificate {
    /// How certificates rank as locks: by view, then by slot.
    #[must_use]
    pub fn rank(&self) -> (View, Slot) {
        (self.commit.view, self.commit.slot)
    }

    /// What it certifies, with the view it is of.
    #[must_use]
    pub fn at(&self) -> (View, Position) {
        (self.commit.view, self.position())
    }

    /// The end of the prefix it certifies.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { slot: self.commit.slot, hash: self.commit.hash }
    }

    pub(crate) fn check(&self, size: ClusterSize) -> Result<(), Malformed> {
        self.commit.check()?;
        Malformed::unless(self.votes.keys().all(|id| size.has(*id)), "a vote of no member")?;
        Malformed::unless(size.suffices(self.votes.len(), Strength::Strong), "too few votes")
    }
}
