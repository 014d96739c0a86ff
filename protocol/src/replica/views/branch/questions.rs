//! What was asked for of other histories and has not come yet.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::Instant;
use crate::message::Position;

/// What was asked for of one history, by its end.
#[derive(Clone, Copy, Debug)]
struct Question {
    /// The end of what was asked for last; nothing where there is no credit for it.
    below: Option<Position>,
    /// When. How long that is waited for before somebody else is asked is looked up each time.
    since: Instant,
    /// Counts through those who can be asked.
    turn: usize,
}

/// Whose turn it is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) count: usize,
    /// Whether the one before did not answer in time.
    pub(super) is_again: bool,
}

/// One question for each history that is being fetched.
#[derive(Clone, Debug, Default)]
pub(super) struct Questions {
    by_end: BTreeMap<Position, Question>,
}

impl Questions {
    /// A history lacks this position and what is below it. Answers whose turn it is to be asked for that; nobody's where
    /// what was asked for may still come.
    pub(super) fn ask(
        &mut self,
        end: Position,
        below: Position,
        now: Instant,
        wait_ms: u64,
    ) -> Option<Turn> {
        let turn = match self.by_end.get(&end) {
            // It came nearer: go on with who helped.
            Some(known) if known.below != Some(below) => {
                Turn { count: known.turn, is_again: false }
            }
            Some(known) if known.since.after_ms(wait_ms) > now => return None,
            Some(known) => Turn { count: known.turn + 1, is_again: true },
            None => Turn { count: 0, is_again: false },
        };
        let question = Question { below: Some(below), since: now, turn: turn.count };
        self.by_end.insert(end, question);
        Some(turn)
    }

    /// There is no credit for a history. It is asked for again when there is. `true` where there was until now.
    pub(super) fn put_off(&mut self, end: Position, now: Instant) -> bool {
        let known = self.by_end.get(&end);
        let is_new = known.is_none_or(|known| known.below.is_some());
        let turn = known.map_or(0, |known| known.turn);
        self.by_end.insert(end, Question { below: None, since: now, turn });
        is_new
    }

    /// Only these histories lack something.
    pub(super) fn retain(&mut self, ends: &BTreeSet<Position>) {
        self.by_end.retain(|end, _| ends.contains(end));
    }

    /// Nothing is wanted any more.
    pub(super) fn clear(&mut self) {
        self.by_end.clear();
    }

    /// Whether this position and what is below it was asked for.
    pub(super) fn is_asked(&self, below: Position) -> bool {
        self.by_end.values().any(|question| question.below == Some(below))
    }

    /// When that was asked for which is waited for longest.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.by_end.values().map(|question| question.since).min()
    }

    /// How often in a row somebody was asked for the next slots of a history and did not answer.
    pub(super) fn in_vain(&self, end: Position) -> usize {
        self.by_end.get(&end).map_or(0, |question| question.turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Digest, Slot};

    const WAIT: u64 = 100;

    fn at(ms: u64) -> Instant {
        Instant::default().after_ms(ms)
    }

    fn position(slot: u64) -> Position {
        Position { slot: Slot(slot), hash: Digest([9; 32]) }
    }

    fn ask(questions: &mut Questions, below: u64, ms: u64) -> Option<(usize, bool)> {
        let turn = questions.ask(position(20), position(below), at(ms), WAIT);
        turn.map(|turn| (turn.count, turn.is_again))
    }

    #[test]
    fn who_does_not_answer_in_time_makes_room_and_who_helps_is_asked_on() {
        let mut questions = Questions::default();
        assert_eq!(ask(&mut questions, 20, 0), Some((0, false)));
        assert_eq!(ask(&mut questions, 20, WAIT - 1), None);
        assert_eq!(ask(&mut questions, 20, WAIT), Some((1, true)));
        assert_eq!(ask(&mut questions, 12, WAIT + 1), Some((1, false)), "it helped");
        assert_eq!(questions.oldest(), Some(at(WAIT + 1)));
        assert_eq!(questions.in_vain(position(20)), 1);
        assert!(questions.is_asked(position(12)) && !questions.is_asked(position(20)));
    }

    #[test]
    fn without_credit_nobody_is_asked_and_with_it_the_one_whose_turn_it_was() {
        let mut questions = Questions::default();
        assert_eq!(ask(&mut questions, 20, 0), Some((0, false)));
        assert_eq!(ask(&mut questions, 20, WAIT), Some((1, true)));
        assert!(questions.put_off(position(20), at(WAIT)));
        assert!(!questions.put_off(position(20), at(WAIT + 1)), "it is counted once");
        assert!(!questions.is_asked(position(20)));
        assert_eq!(ask(&mut questions, 20, WAIT + 2), Some((1, false)));
    }

    #[test]
    fn a_history_that_lacks_nothing_begins_anew_when_it_does() {
        let mut questions = Questions::default();
        ask(&mut questions, 20, 0);
        questions.retain(&BTreeSet::from([position(20)]));
        assert_eq!(ask(&mut questions, 20, WAIT), Some((1, true)));
        questions.retain(&BTreeSet::new());
        assert_eq!((questions.oldest(), questions.in_vain(position(20))), (None, 0));
    }
}
