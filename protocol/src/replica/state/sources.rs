//! Whom the pieces of a state are asked of.

use std::collections::BTreeMap;

use crate::id::ReplicaId;

/// Who is not heard is asked like one who did not answer so many times.
const SILENT: u64 = 2;

/// When others have been asked so many times while it was passed over, a source has another chance.
const CHANCE_AFTER: u64 = 4;

/// The most that this grows to, where chances are in vain.
const CHANCE_AFTER_MAX: u64 = 64;

/// Who has a state, and who gives nothing.
///
/// Of those that are good the one is asked that has least to answer, so each gives as much as it can. What spoke
/// against a source may be over, or have been the own line's fault, and who was preferred to it may have become slow: so
/// those that come after the others are given a chance now and then.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    known: BTreeMap<ReplicaId, Source>,
    /// Counts through those who can be asked.
    turn: usize,
}

#[derive(Clone, Debug)]
struct Source {
    /// It showed that it has this state.
    has_it: bool,
    /// How often it did not answer, or, which counts more, sent what is not of this state.
    demerits: u64,
    /// How often others have been asked while it was passed over, and how often they are until it has a chance.
    passed_over: u64,
    chance_after: u64,
}

impl Default for Source {
    fn default() -> Self {
        Self { has_it: false, demerits: 0, passed_over: 0, chance_after: CHANCE_AFTER }
    }
}

/// Who is asked, and whether others would be better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) of: ReplicaId,
    /// It has a chance: that nothing comes of it says nothing of the line here.
    pub(super) is_chance: bool,
}

impl Sources {
    /// Another state is fetched: who gave nothing of the one before comes after the others.
    pub(super) fn of_another_state(mut self) -> Self {
        self.known.values_mut().for_each(|source| source.has_it = false);
        self
    }

    fn of(&mut self, id: ReplicaId) -> &mut Source {
        self.known.entry(id).or_default()
    }

    /// It has this state.
    pub(super) fn note(&mut self, id: ReplicaId) {
        self.of(id).has_it = true;
    }

    /// It gave a piece: what was before counts for less.
    pub(super) fn praise(&mut self, id: ReplicaId) {
        let source = self.of(id);
        source.has_it = true;
        source.demerits /= 2;
        source.chance_after = CHANCE_AFTER;
    }

    /// It did not answer, or sent what is not of this state.
    pub(super) fn blame(&mut self, id: ReplicaId, demerits: u64) {
        let source = self.of(id);
        source.demerits += demerits;
        source.has_it = false;
    }

    /// Whom to ask next: of those with the fewest demerits, who showed that they have it before the others, the one
    /// with the fewest pieces `under_way`; or one that is due for a chance, if others are at work and nobody `has_chance`.
    /// Who was not heard lately may be out of reach, or only have a slow disk.
    pub(super) fn next(
        &mut self,
        others: impl Iterator<Item = ReplicaId>,
        is_heard: impl Fn(&ReplicaId) -> bool,
        under_way: impl Fn(&ReplicaId) -> usize,
        has_chance: bool,
    ) -> Option<Choice> {
        let others: Vec<_> = others.collect();
        let rank = |id: &ReplicaId| {
            let source = self.known.get(id).cloned().unwrap_or_default();
            let silent = if is_heard(id) { 0 } else { SILENT };
            (source.demerits + silent, !source.has_it)
        };
        let best = others.iter().map(rank).min()?;
        let (first, after): (Vec<_>, Vec<_>) = others.iter().partition(|id| rank(id) == best);
        let is_at_work = others.iter().any(|id| under_way(id) > 0);
        if is_at_work
            && !has_chance
            && let Some(of) = self.chance(after, is_heard, &under_way)
        {
            return Some(Choice { of, is_chance: true });
        }
        let fewest = first.iter().map(&under_way).min()?;
        let among: Vec<_> = first.into_iter().filter(|id| under_way(id) == fewest).collect();
        let of = *among.get(self.turn % among.len().max(1))?;
        self.turn += 1;
        Some(Choice { of, is_chance: false })
    }

    /// Who is passed over once more, and is due for a chance.
    fn chance(
        &mut self,
        passed_over: Vec<ReplicaId>,
        is_heard: impl Fn(&ReplicaId) -> bool,
        under_way: impl Fn(&ReplicaId) -> usize,
    ) -> Option<ReplicaId> {
        let mut due = None;
        for id in passed_over {
            let source = self.of(id);
            source.passed_over += 1;
            if due.is_none()
                && source.passed_over >= source.chance_after
                && is_heard(&id)
                && under_way(&id) == 0
            {
                source.passed_over = 0;
                source.chance_after = (source.chance_after * 2).min(CHANCE_AFTER_MAX);
                due = Some(id);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(sources: &mut Sources, silent: Option<u8>, under_way: [usize; 3]) -> Choice {
        let of = |id: &ReplicaId| under_way[usize::from(id.0) - 1];
        let others = (1..4).map(ReplicaId);
        sources.next(others, |id| Some(id.0) != silent, of, false).expect("there are others")
    }

    fn asked(sources: &mut Sources, silent: Option<u8>) -> u8 {
        choice(sources, silent, [0; 3]).of.0
    }

    #[test]
    fn who_has_the_state_is_asked_first_and_all_of_them_in_turn() {
        let mut sources = Sources::default();
        assert_eq!([(); 4].map(|()| asked(&mut sources, None)), [1, 2, 3, 1]);
        sources.note(ReplicaId(2));
        sources.note(ReplicaId(3));
        assert_eq!([(); 4].map(|()| asked(&mut sources, None)), [2, 3, 2, 3]);
        assert_eq!(sources.next(std::iter::empty(), |_| true, |_| 0, false), None);
    }

    #[test]
    fn who_gives_nothing_comes_after_the_others_for_the_next_state_as_well() {
        let mut sources = Sources::default();
        sources.note(ReplicaId(2));
        sources.blame(ReplicaId(2), 1);
        for _ in 0..4 {
            assert_ne!(asked(&mut sources, None), 2);
        }
        let mut sources = sources.of_another_state();
        sources.note(ReplicaId(2));
        for _ in 0..4 {
            assert_ne!(asked(&mut sources, None), 2);
        }
        sources.blame(ReplicaId(1), 1);
        sources.blame(ReplicaId(3), 2);
        assert_eq!(asked(&mut sources, None), 2, "the others are no better");
    }

    #[test]
    fn silence_counts_like_answers_that_did_not_come() {
        let mut sources = Sources::default();
        sources.note(ReplicaId(2));
        for _ in 0..4 {
            assert_ne!(asked(&mut sources, Some(2)), 2);
        }
        sources.blame(ReplicaId(1), SILENT + 1);
        sources.blame(ReplicaId(3), SILENT + 1);
        assert_eq!(asked(&mut sources, Some(2)), 2);
    }

    #[test]
    fn the_one_with_least_to_answer_is_asked() {
        let mut sources = Sources::default();
        assert_eq!(choice(&mut sources, None, [1, 0, 2]).of, ReplicaId(2));
        assert_eq!(choice(&mut sources, None, [2, 2, 1]).of, ReplicaId(3));
    }

    #[test]
    fn who_comes_after_the_others_has_a_chance_now_and_then_and_ever_more_rarely_in_vain() {
        let mut sources = Sources::default();
        sources.blame(ReplicaId(1), 3);
        sources.blame(ReplicaId(2), 3);
        let mut chances = |count: usize, silent| {
            let choices = (0..count).map(|_| choice(&mut sources, silent, [0, 0, 1]));
            choices.filter(|choice| choice.is_chance).map(|choice| choice.of.0).collect::<Vec<_>>()
        };
        assert_eq!(chances(3, None), []);
        assert_eq!(chances(2, None), [1, 2]);
        assert_eq!(chances(8, None), [1, 2]);
        assert_eq!(chances(12, Some(1)), [], "who is not heard has none");
        let rare = chances(1000, None).len();
        assert!((2..=40).contains(&rare), "{rare}: in the end one in 64 each");
        let others = || (1..4).map(ReplicaId);
        let next = |sources: &mut Sources| sources.next(others(), |_| true, |_| 1, true);
        let taken = (0..1000).filter_map(|_| next(&mut sources));
        assert!(taken.into_iter().all(|choice| !choice.is_chance), "one at a time");
        let idle = (0..100).map(|_| choice(&mut sources, None, [0; 3]));
        assert!(idle.into_iter().all(|choice| choice.of.0 == 3), "nor where nobody is at work");
    }

    /// How long so many pieces take, of which four are under way, where each source takes so many milliseconds for one.
    fn takes(sources: &mut Sources, pieces: usize, each: [u64; 3]) -> u64 {
        let mut asked: Vec<(u64, ReplicaId)> = Vec::new();
        let mut now = 0;
        for _ in 0..pieces {
            while asked.len() < 4 {
                let under_way = |id: &ReplicaId| asked.iter().filter(|(_, of)| of == id).count();
                let choice = sources.next((1..4).map(ReplicaId), |_| true, under_way, false);
                let of = choice.expect("there are others").of;
                // Each gives one piece after the other.
                let begins = asked.iter().filter(|(_, by)| *by == of).map(|(at, _)| *at).max();
                asked.push((begins.unwrap_or(now) + each[usize::from(of.0) - 1], of));
            }
            let first = (0..asked.len()).min_by_key(|index| asked[*index].0).expect("four");
            let (at, of) = asked.remove(first);
            now = at;
            sources.praise(of);
        }
        now
    }

    /// Two were late while the own line was slow, and the third has become slow since.
    #[test]
    fn a_source_that_has_become_slow_does_not_keep_the_others_from_being_asked() {
        let mut sources = Sources::default();
        sources.note(ReplicaId(3));
        (0..5).for_each(|_| sources.blame(ReplicaId(1), 1));
        (0..5).for_each(|_| sources.blame(ReplicaId(2), 1));
        let took = takes(&mut sources, 400, [10, 10, 1000]);
        assert!(took < 20_000, "{took} ms: alone the two take 2 s, and the slow one 400 s");
    }

    #[test]
    fn who_gives_pieces_is_soon_as_good_as_the_others() {
        let mut sources = Sources::default();
        sources.note(ReplicaId(3));
        sources.blame(ReplicaId(1), 5);
        (0..3).for_each(|_| sources.praise(ReplicaId(1)));
        let mut all = [(); 4].map(|()| asked(&mut sources, None));
        all.sort_unstable();
        assert_eq!(all, [1, 1, 3, 3]);
    }
}
