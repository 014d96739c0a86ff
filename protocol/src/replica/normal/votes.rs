//! Votes of one kind, of all replicas, bounded for each.

use std::collections::BTreeMap;

use crate::id::{ReplicaId, Slot};
use crate::message::{Certificate, Vote};
use crate::quorum::{ClusterSize, Strength};
use crate::signature::{Signature, Signed};

/// What a new vote changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard<V> {
    /// It is kept, and the quorum is not there.
    Kept,
    /// It was known, or its slot lies below those of interest.
    Nothing,
    /// Its replica said something else of the same slot before; the new word is not kept.
    Contradicts(Signed<V>),
    /// With it a strong quorum agrees.
    Quorum(Certificate<V>),
}

/// The newest votes of every replica above some slot, at most `kept` of each.
///
/// They are kept for each sender apart, so that nobody's flood pushes out another's votes, and by
/// slot, so that a fast voter's newest word does not hide the one that a quorum is waiting for.
#[derive(Clone, Debug)]
pub(crate) struct Votes<V> {
    by_sender: BTreeMap<ReplicaId, BTreeMap<Slot, (V, Signature)>>,
    above: Slot,
    kept: usize,
    dropped: u64,
}

impl<V: Vote> Votes<V> {
    pub(crate) fn new(kept: usize) -> Self {
        Self { by_sender: BTreeMap::new(), above: Slot::GENESIS, kept, dropped: 0 }
    }

    /// Takes a vote that is verified and of the view entered.
    pub(crate) fn hear(&mut self, size: ClusterSize, vote: &Signed<V>) -> Heard<V> {
        let slot = vote.body.slot();
        if slot <= self.above {
            return Heard::Nothing;
        }
        let of_sender = self.by_sender.entry(vote.by).or_default();
        match of_sender.get(&slot) {
            Some((before, _)) if *before == vote.body => return Heard::Nothing,
            Some((before, signature)) => {
                let before = Signed { body: *before, by: vote.by, signature: *signature };
                return Heard::Contradicts(before);
            }
            None => {}
        }
        of_sender.insert(slot, (vote.body, vote.signature));
        if of_sender.len() > self.kept {
            of_sender.pop_first();
            self.dropped += 1;
        }
        let votes: BTreeMap<ReplicaId, Signature> = self
            .by_sender
            .iter()
            .filter_map(|(id, votes)| {
                let (body, signature) = votes.get(&slot)?;
                (*body == vote.body).then_some((*id, *signature))
            })
            .collect();
        if size.suffices(votes.len(), Strength::Strong) {
            Heard::Quorum(Certificate { body: vote.body, votes })
        } else {
            Heard::Kept
        }
    }

    /// The newest vote of a replica.
    pub(crate) fn newest_of(&self, id: ReplicaId) -> Option<Signed<V>> {
        let (_, (body, signature)) = self.by_sender.get(&id)?.last_key_value()?;
        Some(Signed { body: *body, by: id, signature: *signature })
    }

    /// Votes up to `slot` are of no interest any more.
    pub(crate) fn forget_through(&mut self, slot: Slot) {
        self.above = self.above.max(slot);
        for votes in self.by_sender.values_mut() {
            *votes = votes.split_off(&self.above.next());
        }
    }

    /// How many votes are kept.
    pub(crate) fn len(&self) -> usize {
        self.by_sender.values().map(BTreeMap::len).sum()
    }

    /// How many were pushed out by newer ones of their sender.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Digest, View};
    use crate::message::Commit;

    fn vote(by: u8, slot: u64, hash: u8) -> Signed<Commit> {
        let body = Commit { view: View(0), slot: Slot(slot), hash: Digest([hash; 32]) };
        Signed { body, by: ReplicaId(by), signature: Signature([by; 64]) }
    }

    fn four() -> ClusterSize {
        ClusterSize::new(4, 1).expect("a valid size")
    }

    #[test]
    fn a_quorum_needs_three_voices_for_one_history() {
        let mut votes = Votes::new(8);
        assert_eq!(votes.hear(four(), &vote(0, 5, 1)), Heard::Kept);
        assert_eq!(votes.hear(four(), &vote(0, 5, 1)), Heard::Nothing);
        assert_eq!(votes.hear(four(), &vote(1, 5, 2)), Heard::Kept);
        assert_eq!(votes.hear(four(), &vote(2, 5, 1)), Heard::Kept);
        let Heard::Quorum(agreed) = votes.hear(four(), &vote(3, 5, 1)) else { panic!() };
        assert!(agreed.votes.keys().eq([ReplicaId(0), ReplicaId(2), ReplicaId(3)].iter()));
    }

    #[test]
    fn a_second_word_is_a_contradiction_and_does_not_count() {
        let mut votes = Votes::new(8);
        votes.hear(four(), &vote(0, 5, 1));
        votes.hear(four(), &vote(1, 5, 1));
        votes.hear(four(), &vote(2, 5, 2));
        assert_eq!(votes.hear(four(), &vote(2, 5, 1)), Heard::Contradicts(vote(2, 5, 2)));
        assert_eq!(votes.newest_of(ReplicaId(2)), Some(vote(2, 5, 2)));
    }

    #[test]
    fn a_flood_pushes_out_only_the_floods_own_votes() {
        let mut votes = Votes::new(4);
        votes.hear(four(), &vote(0, 1, 1));
        for slot in 1..=100 {
            votes.hear(four(), &vote(3, slot, 1));
        }
        assert_eq!((votes.len(), votes.dropped()), (5, 96));
        votes.hear(four(), &vote(1, 1, 1));
        let quorum = votes.hear(four(), &vote(2, 1, 1));
        assert!(matches!(quorum, Heard::Quorum(_)), "the others' votes are still there");
        votes.forget_through(Slot(99));
        assert_eq!(votes.len(), 1);
        assert_eq!(votes.hear(four(), &vote(2, 99, 1)), Heard::Nothing);
    }
}
