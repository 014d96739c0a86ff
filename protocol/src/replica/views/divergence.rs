//! Two histories of one view: what one proves against whoever made the other.

use super::path::{Footing, Path, Reach};
use super::trail::Trail;
use crate::application::Application;
use crate::evidence::{Evidence, FORK_LINKS_MAX, Fork};
use crate::id::Slot;
use crate::message::{CommitCertificate, NewView, Position};
use crate::replica::Replica;
use crate::replica::normal::header_of;
use crate::signature::Signed;

impl<A: Application> Replica<A> {
    /// Makes a proof of a peer's history that parts from the own one in the view entered, where
    /// everything of it is here. The two differ by what the primary signed, or by what a
    /// certificate says against it.
    pub(in crate::replica) fn prove_divergence(&mut self, end: Position) {
        let Reach::Whole(path) = self.reach(end) else { return };
        let Footing::Common(common) = path.footing else { return };
        let at = common.next();
        let Some(theirs) = self.hash_on(&path, at) else { return };
        let Some(own) = self.history.entry(at) else { return };
        let of_this_view = |order: &Option<Signed<crate::message::Order>>| {
            order.as_ref().filter(|order| order.body.header.view == self.entered()).map(header_of)
        };
        let own_order = of_this_view(&own.order);
        let theirs = Position { slot: at, hash: theirs };
        let their_order = self.branches.get(theirs).and_then(|side| of_this_view(&side.order));
        let evidence = match (own_order, their_order) {
            (Some(own), Some(theirs)) => Some(Evidence::Orders(own, theirs)),
            (None, Some(theirs)) => {
                let certificate = self
                    .lock
                    .get()
                    .filter(|lock| self.certified() >= at && lock.body.view == self.entered());
                certificate.cloned().and_then(|certificate| {
                    let fork = self.fork_on_own(at, certificate.body.slot)?;
                    Some(Evidence::OrderRefuted(theirs, certificate, fork))
                })
            }
            (Some(own), None) => self.certificate_on(&path, at).and_then(|certificate| {
                let fork = self.fork_on(&path, at, certificate.body.slot)?;
                Some(Evidence::OrderRefuted(own, certificate, fork))
            }),
            (None, None) => None,
        };
        if let Some(evidence) = evidence {
            let word = self.branches.trail(end).and_then(Trail::word);
            if let Some(peer) = word.and_then(|id| self.peers.get_mut(&id)) {
                peer.credit_mut().restore();
            }
            self.accuse(evidence);
        }
    }

    /// A certificate of the view entered that lies on a history at or above a slot.
    fn certificate_on(&self, path: &Path, at: Slot) -> Option<CommitCertificate> {
        self.lock
            .candidates()
            .values()
            .chain(self.lock.ahead())
            .chain(self.lock.get())
            .find(|certificate| {
                certificate.body.view == self.entered()
                    && certificate.body.slot >= at
                    && self.hash_on(path, certificate.body.slot) == Some(certificate.body.hash)
            })
            .cloned()
    }

    fn fork_on_own(&self, low: Slot, high: Slot) -> Option<Fork> {
        let hash = self.history.hash_at(low).filter(|_| may_be_linked(low, high))?;
        let links = (low.0 + 1..=high.0)
            .map(|slot| Some(self.history.entry(Slot(slot))?.batch.digest()))
            .collect::<Option<Vec<_>>>()?;
        Some(Fork { hash, links })
    }

    fn fork_on(&self, path: &Path, low: Slot, high: Slot) -> Option<Fork> {
        let hash = self.hash_on(path, low).filter(|_| may_be_linked(low, high))?;
        let links = (low.0 + 1..=high.0)
            .map(|slot| Some(self.batch_on(path, Slot(slot))?.digest()))
            .collect::<Option<Vec<_>>>()?;
        Some(Fork { hash, links })
    }

    /// A certificate of a view that the new view of the same view does not go together with.
    pub(in crate::replica) fn prove_new_view_refuted(&mut self, new_view: &Signed<NewView>) {
        let view = new_view.body.header.view;
        let head = new_view.body.header.head;
        if self.proof_against(view) {
            return;
        }
        let certificates: Vec<CommitCertificate> = self
            .lock
            .candidates()
            .values()
            .chain(self.lock.get())
            .filter(|certificate| certificate.body.view == view)
            .cloned()
            .collect();
        for certificate in certificates {
            let end = certificate.position();
            // The higher of the two must be here down to the lower one.
            let (low, high) = if head.slot <= end.slot { (head, end) } else { (end, head) };
            let Reach::Whole(path) = self.reach(high) else { continue };
            if self.hash_on(&path, low.slot).is_some_and(|hash| hash != low.hash)
                && let Some(fork) = self.fork_on(&path, low.slot, high.slot)
            {
                let header = Signed {
                    body: new_view.body.header,
                    by: new_view.by,
                    signature: new_view.signature,
                };
                self.accuse(Evidence::NewViewRefuted(header, certificate, fork));
                return;
            }
        }
    }
}

/// Whether a proof may lead from one slot to another.
fn may_be_linked(low: Slot, high: Slot) -> bool {
    high.since(low) <= FORK_LINKS_MAX as u64
}
