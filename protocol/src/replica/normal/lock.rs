//! The lock: the highest commit certificate whose batches are here; and the certificates that may become it.

use std::collections::BTreeMap;

use crate::id::{ReplicaId, Slot, View};
use crate::message::CommitCertificate;

#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Lock {
    /// The highest one on the own history. Durable.
    own: Option<CommitCertificate>,
    /// A higher one, on another history. It is in memory only.
    aside: Option<CommitCertificate>,
    /// The highest certificate of the view entered for a slot that is not executed yet.
    ahead: Option<CommitCertificate>,
    /// The highest certificate shown by each replica that ranks above the lock.
    candidates: BTreeMap<ReplicaId, CommitCertificate>,
}

impl Lock {
    pub(in crate::replica) fn get(&self) -> Option<&CommitCertificate> {
        self.aside.as_ref().or(self.own.as_ref())
    }

    /// View and slot, by which locks are compared.
    pub(in crate::replica) fn rank(&self) -> Option<(View, Slot)> {
        self.get().map(CommitCertificate::rank)
    }

    /// The highest one on the own history, on which what was said rests.
    pub(in crate::replica) fn own(&self) -> Option<&CommitCertificate> {
        self.own.as_ref()
    }

    /// The lock, where it lies on another history than the own.
    pub(in crate::replica) fn aside(&self) -> Option<&CommitCertificate> {
        self.aside.as_ref()
    }

    /// Whether this certificate would be a higher one.
    pub(super) fn is_below(&self, certificate: &CommitCertificate) -> bool {
        self.rank() < Some(certificate.rank())
    }

    /// A higher certificate, on the own history. It is on disk before anything is said that rests on it.
    pub(in crate::replica) fn raise(&mut self, certificate: CommitCertificate) {
        (self.own, self.aside) = (Some(certificate), None);
    }

    /// A higher certificate, on another history.
    pub(in crate::replica) fn raise_aside(&mut self, certificate: CommitCertificate) {
        self.aside = Some(certificate);
    }

    /// The own history is another one from now on, and the highest certificate on that is this one. A lock aside
    /// `stays` where it ranks above that.
    pub(in crate::replica) fn move_to(
        &mut self,
        certificate: Option<CommitCertificate>,
        stays: bool,
    ) {
        self.own = certificate;
        let rank = self.own.as_ref().map(CommitCertificate::rank);
        self.aside.take_if(|aside| !stays || Some(aside.rank()) <= rank);
    }

    // ---- for slots that are not executed yet ----

    pub(in crate::replica) fn ahead(&self) -> Option<&CommitCertificate> {
        self.ahead.as_ref()
    }

    /// `true` where it is the highest one.
    pub(super) fn note_ahead(&mut self, certificate: CommitCertificate) -> bool {
        let is_higher =
            self.ahead.as_ref().is_none_or(|known| known.body.slot < certificate.body.slot);
        if is_higher {
            self.ahead = Some(certificate);
        }
        is_higher
    }

    /// Everything up to this slot is executed.
    pub(super) fn take_ahead_through(&mut self, slot: Slot) -> Option<CommitCertificate> {
        self.ahead.take_if(|certificate| certificate.body.slot <= slot)
    }

    /// They are of the view before.
    pub(in crate::replica) fn forget_ahead(&mut self) {
        self.ahead = None;
    }

    // ---- candidates ----

    /// A replica shows a certificate whose batches may not be here.
    pub(in crate::replica) fn note_candidate(
        &mut self,
        from: ReplicaId,
        certificate: CommitCertificate,
    ) {
        let known = self.candidates.get(&from);
        if self.is_below(&certificate)
            && known.is_none_or(|known| known.rank() < certificate.rank())
        {
            self.candidates.insert(from, certificate);
        }
    }

    pub(in crate::replica) fn candidates(&self) -> &BTreeMap<ReplicaId, CommitCertificate> {
        &self.candidates
    }

    /// Those that rank above the lock, highest first; the others are forgotten.
    pub(in crate::replica) fn highest_candidates(&mut self) -> Vec<(ReplicaId, CommitCertificate)> {
        let rank = self.rank();
        self.candidates.retain(|_, certificate| Some(certificate.rank()) > rank);
        let mut known: Vec<(ReplicaId, CommitCertificate)> =
            self.candidates.iter().map(|(from, c)| (*from, c.clone())).collect();
        known.sort_by_key(|(_, certificate)| std::cmp::Reverse(certificate.rank()));
        known
    }

    pub(in crate::replica) fn forget_candidate(&mut self, from: ReplicaId) {
        self.candidates.remove(&from);
    }
}
