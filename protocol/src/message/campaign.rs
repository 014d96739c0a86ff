//! A view change, and what led to it.

use serde::{Deserialize, Serialize};

use super::view_change::distinct;
use super::{Malformed, Suspect, ViewChange};
use crate::evidence::Evidence;
use crate::quorum::ClusterSize;
use crate::signature::Signed;

/// A view change with what led to it.
///
/// None of the causes has to be believed: what proves one is in here or in the view change's lock,
/// and a receiver that takes it in is led to ask for the view itself. Causes that prove nothing
/// (a wait in vain) carry nothing, and nobody follows them. Bounds: at most one word a replica in
/// each list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign {
    /// The view change.
    pub change: Signed<ViewChange>,
    /// The suspicions known against the view entered or later ones.
    pub suspects: Vec<Signed<Suspect>>,
    /// A proof against the primary of the view entered or a later one.
    pub proof: Option<Box<Evidence>>,
    /// The newest view changes of others, without what led to them.
    pub others: Vec<Signed<ViewChange>>,
}

impl Campaign {
    pub(crate) fn check(&self, size: ClusterSize) -> Result<(), Malformed> {
        self.change.body.check(size)?;
        Malformed::unless(distinct(&self.suspects, size), "two suspicions of one replica")?;
        Malformed::unless(distinct(&self.others, size), "two view changes of one replica")?;
        self.suspects.iter().try_for_each(|suspect| suspect.body.check())?;
        self.others.iter().try_for_each(|change| change.body.check(size))
    }
}
