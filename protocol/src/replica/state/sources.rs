//! Whom the pieces of a state are asked of.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::ReplicaId;

/// Who is not heard is asked like one who did not answer so many times.
const SILENT: u64 = 2;

/// Who has a state, and who gives nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    /// Who showed that it has this state.
    known: BTreeSet<ReplicaId>,
    /// How often each did not answer, or, which counts more, sent what is not of this state.
    demerits: BTreeMap<ReplicaId, u64>,
    /// Counts through those who can be asked.
    turn: usize,
}

impl Sources {
    /// Another state is fetched: who gave nothing of the one before comes after the others.
    pub(super) fn of_another_state(self) -> Self {
        Self { demerits: self.demerits, ..Self::default() }
    }

    /// It has this state.
    pub(super) fn note(&mut self, id: ReplicaId) {
        self.known.insert(id);
    }

    /// It did not answer, or sent what is not of this state.
    pub(super) fn blame(&mut self, id: ReplicaId, demerits: u64) {
        *self.demerits.entry(id).or_default() += demerits;
        self.known.remove(&id);
    }

    /// Whom to ask next: those with the fewest demerits, and of them who showed that they have it. Who was not
    /// heard lately may be out of reach, or only have a slow disk.
    pub(super) fn next(
        &mut self,
        others: impl Iterator<Item = ReplicaId>,
        is_heard: impl Fn(&ReplicaId) -> bool,
    ) -> Option<ReplicaId> {
        let others: Vec<_> = others.collect();
        let demerits = |id: &ReplicaId| self.demerits.get(id).copied().unwrap_or_default();
        let rank = |id: &ReplicaId| {
            let silent = if is_heard(id) { 0 } else { SILENT };
            (demerits(id) + silent, !self.known.contains(id))
        };
        let best = others.iter().map(rank).min()?;
        let among: Vec<_> = others.iter().filter(|id| rank(id) == best).collect();
        let chosen = **among.get(self.turn % among.len().max(1))?;
        self.turn += 1;
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(sources: &mut Sources, silent: Option<u8>) -> Option<u8> {
        let others = (1..4).map(ReplicaId);
        sources.next(others, |id| Some(id.0) != silent).map(|id| id.0)
    }

    #[test]
    fn who_has_the_state_is_asked_first_and_all_of_them_in_turn() {
        let mut sources = Sources::default();
        assert_eq!([(); 4].map(|()| asked(&mut sources, None)), [1, 2, 3, 1].map(Some));
        sources.note(ReplicaId(2));
        sources.note(ReplicaId(3));
        assert_eq!([(); 4].map(|()| asked(&mut sources, None)), [2, 3, 2, 3].map(Some));
        assert_eq!(sources.next(std::iter::empty(), |_| true), None);
    }

    #[test]
    fn who_gives_nothing_comes_after_the_others_for_the_next_state_as_well() {
        let mut sources = Sources::default();
        sources.note(ReplicaId(2));
        sources.blame(ReplicaId(2), 1);
        for _ in 0..4 {
            assert_ne!(asked(&mut sources, None), Some(2));
        }
        let mut sources = sources.of_another_state();
        sources.note(ReplicaId(2));
        for _ in 0..4 {
            assert_ne!(asked(&mut sources, None), Some(2));
        }
        sources.blame(ReplicaId(1), 1);
        sources.blame(ReplicaId(3), 2);
        assert_eq!(asked(&mut sources, None), Some(2), "the others are no better");
    }

    #[test]
    fn silence_counts_like_answers_that_did_not_come() {
        let mut sources = Sources::default();
        sources.note(ReplicaId(2));
        for _ in 0..4 {
            assert_ne!(asked(&mut sources, Some(2)), Some(2));
        }
        sources.blame(ReplicaId(1), SILENT + 1);
        sources.blame(ReplicaId(3), SILENT + 1);
        assert_eq!(asked(&mut sources, Some(2)), Some(2));
    }
}
