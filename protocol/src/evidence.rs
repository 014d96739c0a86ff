//! Proofs of misbehaviour: two statements that no correct replica makes both of.
//!
//! A proof needs no witness: whoever has the cluster file can check it. That is why proofs may be
//! passed on by anybody, and why nobody can be framed.

use serde::{Deserialize, Serialize};

use crate::history::extend;
use crate::id::{Digest, ReplicaId, View};
use crate::message::{Commit, CommitCertificate, NewViewHeader, OrderHeader, Position};
use crate::signature::Signed;

/// The most slots between two statements that contradict each other.
pub const FORK_LINKS_MAX: usize = 4096;

/// Two statements that convict their signer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    /// Two orders for one slot of one view: an equivocating primary.
    Orders(Signed<OrderHeader>, Signed<OrderHeader>),
    /// Two votes for one slot of one view: a replica with two histories.
    Commits(Signed<Commit>, Signed<Commit>),
    /// Two new views for one view: an equivocating primary.
    NewViews(Signed<NewViewHeader>, Signed<NewViewHeader>),
    /// An order that a certificate of its view contradicts.
    OrderRefuted(Signed<OrderHeader>, CommitCertificate, Fork),
    /// A new view that a certificate of its view contradicts.
    NewViewRefuted(Signed<NewViewHeader>, CommitCertificate, Fork),
}

/// Shows that of two positions the higher one lies on another history than the lower one: a slot
/// has one hash in the history that ends in the higher position, and it is not that of the lower.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The hash that the history of the higher position has at the slot of the lower one.
    pub hash: Digest,
    /// The digests of the batches from there to the higher position. Bounds: at most
    /// [`FORK_LINKS_MAX`].
    pub links: Vec<Digest>,
}

impl Fork {
    fn shows(&self, one: Position, other: Position) -> bool {
        let (low, high) = if one.slot <= other.slot { (one, other) } else { (other, one) };
        self.links.len() <= FORK_LINKS_MAX
            && self.links.len() as u64 == high.slot.since(low.slot)
            && self.hash != low.hash
            && self.links.iter().fold(self.hash, |hash, batch| extend(&hash, batch)) == high.hash
    }
}

impl Evidence {
    /// Whom it convicts.
    #[must_use]
    pub fn culprit(&self) -> ReplicaId {
        match self {
            Self::Orders(first, _) | Self::OrderRefuted(first, ..) => first.by,
            Self::Commits(first, _) => first.by,
            Self::NewViews(first, _) | Self::NewViewRefuted(first, ..) => first.by,
        }
    }

    /// The view in which it happened.
    #[must_use]
    pub fn view(&self) -> View {
        match self {
            Self::Orders(first, _) | Self::OrderRefuted(first, ..) => first.body.view,
            Self::Commits(first, _) => first.body.view,
            Self::NewViews(first, _) | Self::NewViewRefuted(first, ..) => first.body.view,
        }
    }

    /// Whether it convicts a primary of what it did as one. Signing as the primary of a view that
    /// is another's proves malice, too, but no correct replica follows such a statement.
    #[must_use]
    pub fn convicts_primary(&self, replicas: u8) -> bool {
        !matches!(self, Self::Commits(..)) && self.culprit() == self.view().primary(replicas)
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Orders(..) => "two orders for one slot",
            Self::Commits(..) => "two votes for one slot",
            Self::NewViews(..) => "two new views for one view",
            Self::OrderRefuted(..) => "an order that a certificate contradicts",
            Self::NewViewRefuted(..) => "a new view that a certificate contradicts",
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
            Self::NewViews(a, b) => a.by == b.by && a.body.view == b.body.view && a.body != b.body,
            Self::OrderRefuted(order, certificate, fork) => {
                let OrderHeader { view, slot, hash, .. } = order.body;
                certificate.body.view == view
                    && fork.shows(Position { slot, hash }, certificate.position())
            }
            Self::NewViewRefuted(new_view, certificate, fork) => {
                certificate.body.view == new_view.body.view
                    && fork.shows(new_view.body.head, certificate.position())
            }
        }
    }
}
