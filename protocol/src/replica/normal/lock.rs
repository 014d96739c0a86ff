//! The lock: the highest commit certificate whose batches are here; and the certificates that may become it.

use std::collections::BTreeMap;

use crate::id::{ReplicaId, Slot, View};
use crate::message::CommitCertificate;
use crate::replica::Mark;

#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Lock {
    /// The highest one on the own history. Durable.
    own: Option<CommitCertificate>,
    /// The record that holds it.
    mark: Mark,
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

    /// The record after which the one on the own history is on disk.
    pub(in crate::replica) fn mark(&self) -> Mark {
        self.mark
    }

    /// A higher certificate, on the own history, in the record of this mark. It is on disk before anything is said that
    /// rests on it.
    pub(in crate::replica) fn raise(&mut self, certificate: CommitCertificate, mark: Mark) {
        (self.own, self.mark, self.aside) = (Some(certificate), mark, None);
    }

    /// A higher certificate, on another history.
    pub(in crate::replica) fn raise_aside(&mut self, certificate: CommitCertificate) {
        self.aside = Some(certificate);
    }

    /// The own history is another one from now on, and the highest certificate on that is this one. A lock aside
    /// `stays` where it ranks above that. The record of this mark says so.
    pub(in crate::replica) fn move_to(
        &mut self,
        certificate: Option<CommitCertificate>,
        stays: bool,
        mark: Mark,
    ) {
        (self.own, self.mark) = (certificate, mark);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Digest;
    use crate::message::Commit;

    fn certificate(view: u64, slot: u64) -> CommitCertificate {
        let hash = Digest([u8::try_from(slot).expect("small"); 32]);
        let body = Commit { view: View(view), slot: Slot(slot), hash };
        CommitCertificate { body, votes: BTreeMap::new() }
    }

    #[test]
    fn a_higher_certificate_on_another_history_is_the_lock_and_what_was_said_rests_on_the_own() {
        let mut lock = Lock::default();
        assert!(lock.get().is_none() && lock.is_below(&certificate(0, 1)));
        lock.raise(certificate(1, 3), Mark(1));
        lock.raise_aside(certificate(2, 2));
        assert_eq!(lock.rank(), Some((View(2), Slot(2))));
        assert_eq!(lock.own(), Some(&certificate(1, 3)));
        assert!(!lock.is_below(&certificate(1, 9)), "views come before slots");
        lock.raise(certificate(2, 4), Mark(1));
        assert_eq!((lock.get(), lock.aside()), (Some(&certificate(2, 4)), None));
    }

    #[test]
    fn on_another_history_a_lock_aside_stays_only_where_it_may_and_ranks_above() {
        let with_aside = || {
            let mut lock = Lock::default();
            lock.raise(certificate(1, 3), Mark(1));
            lock.raise_aside(certificate(2, 5));
            lock
        };
        let moved = |to: Option<CommitCertificate>, stays: bool| {
            let mut lock = with_aside();
            lock.move_to(to, stays, Mark(2));
            lock.rank().map(|(view, slot)| (view.0, slot.0))
        };
        assert_eq!(moved(Some(certificate(2, 4)), true), Some((2, 5)));
        assert_eq!(moved(Some(certificate(2, 4)), false), Some((2, 4)));
        assert_eq!(moved(Some(certificate(2, 5)), true), Some((2, 5)));
        assert_eq!(moved(None, true), Some((2, 5)));
        assert_eq!(moved(None, false), None);
    }

    #[test]
    fn of_each_replica_the_highest_certificate_above_the_lock_may_become_it() {
        let mut lock = Lock::default();
        lock.raise(certificate(1, 3), Mark(1));
        lock.note_candidate(ReplicaId(0), certificate(1, 2));
        lock.note_candidate(ReplicaId(1), certificate(1, 6));
        lock.note_candidate(ReplicaId(1), certificate(1, 5));
        lock.note_candidate(ReplicaId(2), certificate(2, 1));
        let slots = |lock: &mut Lock| {
            let all = lock.highest_candidates().into_iter();
            all.map(|(from, candidate)| (from.0, candidate.body.slot.0)).collect::<Vec<_>>()
        };
        assert_eq!(slots(&mut lock), [(2, 1), (1, 6)]);
        lock.raise(certificate(1, 6), Mark(1));
        assert_eq!(slots(&mut lock), [(2, 1)]);
        lock.forget_candidate(ReplicaId(2));
        assert!(lock.candidates().is_empty());
    }

    #[test]
    fn the_highest_certificate_ahead_is_taken_when_its_slot_is_executed() {
        let mut lock = Lock::default();
        assert!(lock.note_ahead(certificate(1, 5)) && lock.note_ahead(certificate(1, 7)));
        assert!(!lock.note_ahead(certificate(1, 6)));
        assert_eq!(lock.take_ahead_through(Slot(6)), None);
        assert_eq!(lock.take_ahead_through(Slot(7)), Some(certificate(1, 7)));
        assert!(lock.ahead().is_none());
    }
}
