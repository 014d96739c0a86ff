//! The vote for a prefix, and its certificate.

use serde::{Deserialize, Serialize};

use super::{Certificate, Malformed, Position, Vote};
use crate::codec::{Canonical, Sink};
use crate::id::{Digest, Slot, View};

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

impl Vote for Commit {
    fn slot(&self) -> Slot {
        self.slot
    }

    fn check(&self) -> Result<(), Malformed> {
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
/// slot.
pub type CommitCertificate = Certificate<Commit>;

impl CommitCertificate {
    /// How certificates rank as locks: by view, then by slot.
    #[must_use]
    pub fn rank(&self) -> (View, Slot) {
        (self.body.view, self.body.slot)
    }

    /// What it certifies, with the view it is of.
    #[must_use]
    pub fn at(&self) -> (View, Position) {
        (self.body.view, self.position())
    }

    /// The end of the prefix it certifies.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { slot: self.body.slot, hash: self.body.hash }
    }
}
