//! The states that peers offer while another one is fetched.
//!
//! All that an offer proves is that a state was certified once. Who makes it may lie and not give it, and of the one
//! that is being fetched nobody who is left may have anything. So where nothing comes any more there has to be a way
//! on: to a newer state soon, and to an older one after a while, since what is here of the present one is lost with that.

use std::collections::BTreeMap;

use crate::id::{ReplicaId, Slot};
use crate::message::StableProof;

#[derive(Clone, Debug, Default)]
pub(super) struct Offers {
    /// By each peer, the one that it named last.
    by: BTreeMap<ReplicaId, StableProof>,
    /// Whose older one was chosen last.
    last: Option<ReplicaId>,
    /// The newest state of which nothing came for long: that it is newer is no reason any more to hurry to it.
    given_up: Slot,
}

impl Offers {
    /// A peer says that it has this one.
    pub(super) fn note(&mut self, from: ReplicaId, proof: StableProof) {
        self.by.insert(from, proof);
    }

    /// What to fetch in place of the state after slot `fetched`: the newest of the newer ones, or, where nothing has
    /// come for long, one that is older, or was given up before, of each peer in turn. Who offers what it does not give
    /// holds nothing up for good. Whoever is still there offers again what was not chosen.
    pub(super) fn choose(
        &mut self,
        fetched: Slot,
        is_of_use: impl Fn(Slot) -> bool,
        is_for_long: bool,
    ) -> Option<(ReplicaId, StableProof)> {
        let is_newer = |proof: &StableProof| proof.slot() > fetched.max(self.given_up);
        let newest = self.by.iter().max_by_key(|(_, proof)| proof.slot());
        let newer = newest.filter(|(_, proof)| is_newer(proof)).map(|(by, _)| *by);
        let is_another = |proof: &StableProof| {
            proof.slot() != fetched && is_of_use(proof.slot()) && !is_newer(proof)
        };
        let mut others = self.by.iter().filter(|(_, proof)| is_another(proof)).map(|(by, _)| *by);
        let first = others.clone().next();
        let in_turn = others.find(|by| self.last.is_none_or(|last| *by > last)).or(first);
        let in_turn = in_turn.filter(|_| is_for_long);
        if newer.is_none() && in_turn.is_some() {
            self.last = in_turn;
            self.given_up = self.given_up.max(fetched);
        }
        let by = newer.or(in_turn)?;
        let proof = self.by.remove(&by)?;
        self.by.clear();
        Some((by, proof))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Digest, View};
    use crate::message::{Checkpoint, CheckpointCertificate, Commit, CommitCertificate};

    fn proof(slot: u64) -> StableProof {
        let (view, slot, hash) = (View(0), Slot(slot), Digest([1; 32]));
        let checkpoint = Checkpoint { view, slot, hash, state: Digest([2; 32]) };
        let commit = Commit { view, slot, hash };
        StableProof {
            checkpoint: CheckpointCertificate { body: checkpoint, votes: BTreeMap::new() },
            cover: CommitCertificate { body: commit, votes: BTreeMap::new() },
        }
    }

    fn chosen(offers: &mut Offers, fetched: u64, is_for_long: bool) -> Option<(u8, u64)> {
        let (by, proof) = offers.choose(Slot(fetched), |slot| slot > Slot(2), is_for_long)?;
        Some((by.0, proof.slot().0))
    }

    #[test]
    fn newer_states_come_soon_and_older_ones_after_a_while() {
        let offer = |all: &[(u8, u64)]| {
            let mut offers = Offers::default();
            all.iter().for_each(|(by, slot)| offers.note(ReplicaId(*by), proof(*slot)));
            offers
        };
        let all = [(0, 9), (1, 4), (2, 8)];
        assert_eq!(chosen(&mut offer(&all), 5, false), Some((0, 9)));
        assert_eq!(chosen(&mut offer(&all), 5, true), Some((0, 9)));
        assert_eq!(chosen(&mut offer(&[(1, 4), (2, 3)]), 5, false), None);
        assert_eq!(chosen(&mut offer(&[(1, 4), (2, 3)]), 5, true), Some((1, 4)));
        // What is here already, and what would be no way on.
        assert_eq!(chosen(&mut offer(&[(0, 1), (1, 2), (2, 5)]), 5, true), None);
        // Nothing came of it before: what comes of another one is not thrown away for it.
        let mut offers = offer(&[(1, 4)]);
        assert_eq!(chosen(&mut offers, 9, true), Some((1, 4)));
        offers.note(ReplicaId(0), proof(9));
        assert_eq!(chosen(&mut offers, 4, false), None);
        assert_eq!(chosen(&mut offers, 4, true), Some((0, 9)));
        // Who has lost what it had says so.
        let mut offers = offer(&[(0, 9)]);
        offers.note(ReplicaId(0), proof(4));
        assert_eq!(chosen(&mut offers, 5, false), None);
    }

    /// Two liars hold certificates of a newer and of an older state, and give neither. Each state has its turn.
    #[test]
    fn whoever_gives_what_it_offers_has_its_turn() {
        let mut offers = Offers::default();
        let mut fetched = 9;
        let mut turns = Vec::new();
        for _ in 0..8 {
            for (by, slot) in [(0, 6), (1, 9), (2, 4), (3, 6)] {
                if slot != fetched {
                    offers.note(ReplicaId(by), proof(slot));
                }
            }
            let (by, slot) = chosen(&mut offers, fetched, true).expect("there is always one");
            turns.push(by);
            fetched = slot;
        }
        assert_eq!(turns, [0, 1, 2, 3, 1, 2, 3, 1]);
    }
}
