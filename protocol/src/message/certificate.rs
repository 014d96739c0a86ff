//! Votes, and the certificate that a strong quorum of them makes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Malformed;
use crate::codec::Canonical;
use crate::id::{ReplicaId, Slot};
use crate::quorum::{ClusterSize, Strength};
use crate::signature::Signature;

/// What replicas vote for, each with its signature: something about one slot.
pub trait Vote: Canonical + Copy + Eq {
    /// The slot.
    fn slot(&self) -> Slot;

    /// Whether its bounds hold.
    ///
    /// # Errors
    /// One does not.
    fn check(&self) -> Result<(), Malformed>;
}

/// `Q` replicas signed one `V`. Anybody can check it, whoever passes it on. Bounds: at most one vote a
/// member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate<V> {
    /// What was voted for.
    pub body: V,
    /// The votes.
    pub votes: BTreeMap<ReplicaId, Signature>,
}

impl<V: Vote> Certificate<V> {
    pub(crate) fn check(&self, size: ClusterSize) -> Result<(), Malformed> {
        self.body.check()?;
        Malformed::unless(self.votes.keys().all(|id| size.has(*id)), "a vote of no member")?;
        Malformed::unless(size.suffices(self.votes.len(), Strength::Strong), "too few votes")
    }
}
