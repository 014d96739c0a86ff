//! Proofs of misbehaviour: two statements of one replica that no correct replica makes both of.
//!
//! A proof needs no witness: whoever has the cluster file can check it.

use serde::{Deserialize, Serialize};

use crate::id::ReplicaId;
use crate::message::{Commit, OrderHeader};
use crate::seal::Signed;

/// Two statements that convict their signer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    /// Two orders for one slot of one view: an equivocating primary.
    Orders(Signed<OrderHeader>, Signed<OrderHeader>),
    /// Two votes for one slot of one view: a replica with two histories.
    Commits(Signed<Commit>, Signed<Commit>),
}

impl Evidence {
    /// Whom it convicts.
    #[must_use]
    pub fn culprit(&self) -> ReplicaId {
        match self {
            Self::Orders(first, _) => first.by,
            Self::Commits(first, _) => first.by,
        }
    }

    /// Whether the two statements contradict each other; says nothing of their signatures.
    pub(crate) fn contradicts_itself(&self) -> bool {
        match self {
            Self::Orders(a, b) => {
                a.by == b.by
                    && (a.body.view, a.body.slot) == (b.body.view, b.body.slot)
                    && a.body.hash != b.body.hash
            }
            Self::Commits(a, b) => {
                a.by == b.by
                    && (a.body.view, a.body.slot) == (b.body.view, b.body.slot)
                    && a.body.hash != b.body.hash
            }
        }
    }
}
