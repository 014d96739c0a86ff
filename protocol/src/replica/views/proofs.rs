//! The proofs of misbehaviour that are kept: one a culprit convicts it for good, and more would only fill memory.

use crate::evidence::Evidence;

/// The proofs held, in the order in which they came: the first one of each culprit. Durable.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Proofs {
    all: Vec<Evidence>,
}

impl Proofs {
    /// After a start: what is on the disk.
    pub(in crate::replica) fn recovered(all: Vec<Evidence>) -> Self {
        Self { all }
    }

    /// A proof is known. `true` where it is kept, its culprit not having been convicted before.
    pub(in crate::replica) fn note(&mut self, evidence: &Evidence) -> bool {
        let culprit = evidence.culprit();
        let is_first = self.all.iter().all(|known| known.culprit() != culprit);
        if is_first {
            self.all.push(evidence.clone());
        }
        is_first
    }

    pub(in crate::replica) fn all(&self) -> &[Evidence] {
        &self.all
    }

    pub(in crate::replica) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whom there is one against: bit `i` is set for replica `i`.
    pub(in crate::replica) fn convicted(&self) -> u32 {
        self.all.iter().fold(0, |bits, evidence| bits | bit(evidence))
    }

    /// The first one that whoever holds these does not have, told by the same bits.
    pub(in crate::replica) fn first_beside(&self, convicted: u32) -> Option<&Evidence> {
        self.all.iter().find(|evidence| convicted & bit(evidence) == 0)
    }
}

fn bit(evidence: &Evidence) -> u32 {
    1 << evidence.culprit().0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Digest, ReplicaId, Slot, View};
    use crate::message::Commit;
    use crate::signature::{Signature, Signed};

    fn evidence(culprit: u8, slot: u64) -> Evidence {
        let vote = |hash: u8| Signed {
            body: Commit { view: View(1), slot: Slot(slot), hash: Digest([hash; 32]) },
            by: ReplicaId(culprit),
            signature: Signature([0; 64]),
        };
        Evidence::Commits(vote(1), vote(2))
    }

    #[test]
    fn one_proof_a_culprit_is_kept_and_it_is_the_first() {
        let mut proofs = Proofs::default();
        assert!(proofs.note(&evidence(2, 7)));
        assert!(!proofs.note(&evidence(2, 8)), "it is convicted");
        assert!(proofs.note(&evidence(0, 8)));
        assert_eq!(proofs.all(), [evidence(2, 7), evidence(0, 8)]);

        let mut again = Proofs::recovered(proofs.all().to_vec());
        assert!(!again.note(&evidence(0, 9)), "nor after a start");
        assert_eq!(again.len(), 2);
    }

    #[test]
    fn whoever_lacks_a_proof_gets_the_first_that_it_lacks() {
        let proofs = Proofs::recovered(vec![evidence(2, 7), evidence(0, 8)]);
        assert_eq!(proofs.convicted(), 0b101);
        assert_eq!(proofs.first_beside(0), Some(&evidence(2, 7)));
        assert_eq!(proofs.first_beside(0b100), Some(&evidence(0, 8)));
        assert_eq!(proofs.first_beside(0b111), None);
    }
}
