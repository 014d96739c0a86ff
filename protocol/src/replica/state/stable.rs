//! What is never undone: the stable checkpoint, what others made stable beyond it, and whether the state that it
//! certifies is the one that is here.

use crate::id::Slot;
use crate::message::StableProof;

#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Stable {
    proof: Option<StableProof>,
    /// The highest proof for a slot that is not executed yet.
    ahead: Option<StableProof>,
    /// The highest one shown for a slot of the own history that is executed, and whose state was not taken.
    passed: Option<StableProof>,
    /// Whether the own state could not be read, or is not the certified one, so that nothing may rest on it.
    is_distrusted: bool,
}

impl Stable {
    pub(in crate::replica) fn proof(&self) -> Option<&StableProof> {
        self.proof.as_ref()
    }

    pub(in crate::replica) fn slot(&self) -> Slot {
        self.proof().map_or(Slot::GENESIS, StableProof::slot)
    }

    /// A higher one.
    pub(in crate::replica) fn raise(&mut self, proof: StableProof) {
        self.passed.take_if(|passed| passed.slot() <= proof.slot());
        self.proof = Some(proof);
    }

    // ---- for slots that are not executed yet ----

    pub(in crate::replica) fn ahead(&self) -> Option<&StableProof> {
        self.ahead.as_ref()
    }

    /// `true` where it is the highest one.
    pub(super) fn note_ahead(&mut self, proof: StableProof) -> bool {
        let is_higher = self.ahead.as_ref().is_none_or(|known| known.slot() < proof.slot());
        if is_higher {
            self.ahead = Some(proof);
        }
        is_higher
    }

    /// Everything up to this slot is executed, or stands on a state.
    pub(in crate::replica) fn take_ahead_through(&mut self, slot: Slot) -> Option<StableProof> {
        self.ahead.take_if(|proof| proof.slot() <= slot)
    }

    // ---- for a slot that this replica has gone on from ----

    pub(in crate::replica) fn passed(&self) -> Option<&StableProof> {
        self.passed.as_ref()
    }

    pub(super) fn note_passed(&mut self, proof: StableProof) {
        self.passed = Some(proof);
    }

    pub(in crate::replica) fn take_passed(&mut self) -> Option<StableProof> {
        self.passed.take()
    }

    /// Whether the certified state after this slot is of use: above the own stable one, or to take its place.
    pub(super) fn lacks_state(&self, slot: Slot) -> bool {
        slot > self.slot() || (self.is_distrusted && slot == self.slot())
    }

    // ---- trust in the own state ----

    pub(super) fn is_distrusted(&self) -> bool {
        self.is_distrusted
    }

    pub(super) fn distrust(&mut self) {
        self.is_distrusted = true;
    }

    pub(super) fn trust(&mut self) {
        self.is_distrusted = false;
    }
}

#[cfg(test)]
mod tests {
    use super::super::pieces::tests::state;
    use super::*;

    fn proof(slot: u64) -> StableProof {
        state(slot).0
    }

    #[test]
    fn what_was_passed_is_of_use_until_something_as_high_is_stable() {
        let mut stable = Stable::default();
        assert_eq!(stable.slot(), Slot::GENESIS);
        stable.raise(proof(4));
        stable.note_passed(proof(6));
        stable.raise(proof(5));
        assert_eq!(stable.passed(), Some(&proof(6)));
        stable.raise(proof(6));
        assert_eq!((stable.passed(), stable.slot()), (None, Slot(6)));
    }

    #[test]
    fn a_state_is_of_use_above_the_stable_one_or_to_take_its_place() {
        let mut stable = Stable::default();
        stable.raise(proof(4));
        assert!(stable.lacks_state(Slot(5)) && !stable.lacks_state(Slot(4)));
        stable.distrust();
        assert!(stable.lacks_state(Slot(4)) && !stable.lacks_state(Slot(3)));
        stable.trust();
        assert!(!stable.lacks_state(Slot(4)));
    }

    #[test]
    fn the_highest_proof_ahead_is_taken_when_its_slot_is_executed() {
        let mut stable = Stable::default();
        assert!(stable.note_ahead(proof(8)) && !stable.note_ahead(proof(8)));
        assert!(stable.note_ahead(proof(12)) && !stable.note_ahead(proof(8)));
        assert_eq!(stable.take_ahead_through(Slot(11)), None);
        assert_eq!(stable.take_ahead_through(Slot(12)), Some(proof(12)));
        assert_eq!(stable.ahead(), None);
    }
}
