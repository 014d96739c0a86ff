//! How long answers take of which it is not known where they come from or how large they are, and how long they are waited
//! for. The argument is in docs/waits.md.

use std::collections::BTreeMap;

use crate::estimate::Estimate;
use crate::id::{Instant, ReplicaId};
use crate::message::ANSWER_BYTES_MAX;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::replica) enum Question {
    Requests,
    Slots,
    Branch,
    State,
}

/// How long it takes between asking for something and having it, of whom it is not known where it
/// comes from or how large it is.
#[derive(Clone, Debug)]
pub(in crate::replica) struct Pace {
    /// How long it takes with each. Who takes long on purpose has a wait of its own making then, and the others theirs.
    took: BTreeMap<ReplicaId, Estimate>,
    /// Who was asked for what and has not answered yet, when for the last time, and how much there was room for then.
    asked: BTreeMap<(ReplicaId, Question), (Instant, u32)>,
    misses: u32,
    /// How much is asked for at a time.
    room: u32,
}

/// How often the wait for an answer doubles. Not more: what was lost is not to be waited for long.
const MISSES_MAX: u32 = 2;

/// So many times longer than what is usual is waited for who is slow.
const SLOWER_MAX: u64 = 4;

/// How much is asked for at a time, in bytes: at first, and at least.
const ROOM: u32 = 128 << 10;
const ROOM_MIN: u32 = 16 << 10;

impl Default for Pace {
    fn default() -> Self {
        Self { took: BTreeMap::new(), asked: BTreeMap::new(), misses: 0, room: ROOM }
    }
}

impl Pace {
    /// Somebody is asked, perhaps not for the first time.
    pub(in crate::replica) fn asks(&mut self, whom: ReplicaId, question: Question, now: Instant) {
        // The last time counts: what was lost in between says nothing of how long an answer takes.
        self.asked.insert((whom, question), (now, self.room));
    }

    /// What was asked for did not come in time: less is asked for, and it is waited for longer.
    pub(in crate::replica) fn missed(&mut self) {
        self.misses = (self.misses + 1).min(MISSES_MAX);
        self.room = (self.room / 2).max(ROOM_MIN);
    }

    /// It did not come of this one. Where that took it longer than ever, it may not come at all.
    pub(in crate::replica) fn missed_of(
        &mut self,
        whom: ReplicaId,
        question: Question,
        now: Instant,
    ) {
        self.missed();
        let silent = self.asked_at(whom, question).map_or(u64::MAX, |at| now.micros_since(at));
        if self.took.get(&whom).and_then(Estimate::upper).is_some_and(|upper| upper <= silent) {
            self.forget(whom);
        }
    }

    /// Nobody's wait is to follow from what this one took.
    pub(in crate::replica) fn forget(&mut self, whom: ReplicaId) {
        self.took.remove(&whom);
    }

    /// What came was no answer to it.
    pub(in crate::replica) fn take_back(&mut self, whom: ReplicaId, question: Question) {
        self.asked.remove(&(whom, question));
    }

    /// When this one was asked last, where it has not answered.
    pub(in crate::replica) fn asked_at(
        &self,
        whom: ReplicaId,
        question: Question,
    ) -> Option<Instant> {
        self.asked.get(&(whom, question)).map(|(since, _)| *since)
    }

    /// An answer came. Answers how much this one was asked for, where it was asked.
    pub(in crate::replica) fn answered(
        &mut self,
        by: ReplicaId,
        question: Question,
        now: Instant,
    ) -> Option<u32> {
        let (since, room) = self.asked.remove(&(by, question))?;
        self.took.entry(by).or_default().note(now, now.micros_since(since));
        if self.misses == 0 {
            let most = u32::try_from(ANSWER_BYTES_MAX).unwrap_or(u32::MAX);
            self.room = self.room.saturating_mul(2).min(most);
        }
        self.misses = 0;
        Some(room)
    }

    /// Whether so many have answered that not all of them are liars.
    pub(in crate::replica) fn is_known(&self, faulty: usize) -> bool {
        self.took.len() > faulty
    }

    /// How much to ask for.
    pub(in crate::replica) fn room(&self) -> u32 {
        self.room
    }

    /// How long to wait for an answer before somebody else is asked, but not less than `least`: as long as the slowest of
    /// those that have answered takes. Liars do not make it long: it is at most [`SLOWER_MAX`] times what is usual, and
    /// that is no more than what some correct one takes, as soon as `faulty + 1` have answered. Before that it is
    /// [`SLOWER_MAX`] times `least` at most.
    pub(super) fn wait_ms(&self, least: u64, faulty: usize) -> u64 {
        let most = if self.is_known(faulty) { u64::MAX } else { SLOWER_MAX.saturating_mul(least) };
        self.usual_wait_ms(least, faulty).min(most) << self.misses
    }

    /// The same of pieces, which are what they are, and of which is known at once whether they are right: whoever gives
    /// them is waited for, alone as well.
    pub(super) fn piece_wait_ms(&self, least: u64, faulty: usize) -> u64 {
        self.usual_wait_ms(least, faulty) << self.misses
    }

    fn usual_wait_ms(&self, least: u64, faulty: usize) -> u64 {
        let mut known: Vec<u64> = self.took.values().filter_map(Estimate::upper).collect();
        known.sort_unstable();
        // Above and below it, itself included, are `faulty + 1` where they are enough for that, so that liars move it
        // neither beyond all correct ones nor below them. Where they are few, only not beyond them.
        let rank = faulty.min(known.len().saturating_sub(faulty + 1));
        let usual = known.get(rank).copied().unwrap_or_default();
        let slowest = known.last().copied().unwrap_or_default();
        least.max(slowest.min(SLOWER_MAX.saturating_mul(usual)).div_ceil(1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(ms * 1000)
    }

    #[test]
    fn who_alone_gives_is_waited_for_no_longer_than_a_bound() {
        let liar = ReplicaId(0);
        let mut pace = Pace::default();
        for _ in 0..10 {
            pace.asks(liar, Question::Slots, at(0));
            pace.answered(liar, Question::Slots, at(3_000_000));
        }
        assert_eq!(pace.wait_ms(100, 1), SLOWER_MAX * 100);
        assert!(
            pace.piece_wait_ms(100, 1) >= 3_000_000,
            "of pieces it is known that they are right"
        );
        // Two of seven lie, and one is correct.
        pace.asks(ReplicaId(1), Question::Slots, at(0));
        pace.answered(ReplicaId(1), Question::Slots, at(3_000_000));
        assert_eq!(pace.wait_ms(100, 2), SLOWER_MAX * 100);
        pace.asks(ReplicaId(2), Question::Slots, at(0));
        pace.answered(ReplicaId(2), Question::Slots, at(100));
        let wait = pace.wait_ms(100, 2);
        assert!((SLOWER_MAX * 100..=SLOWER_MAX * 300).contains(&wait), "{wait}");
    }

    #[test]
    fn who_is_silent_is_forgotten_once_it_takes_longer_than_ever() {
        let (one, other) = (ReplicaId(1), ReplicaId(2));
        let mut pace = Pace::default();
        for id in [one, other] {
            pace.asks(id, Question::Slots, at(0));
            pace.answered(id, Question::Slots, at(5_000));
        }
        pace.asks(one, Question::Slots, at(5_000));
        pace.missed_of(one, Question::Slots, at(6_000));
        assert!(pace.is_known(1), "it takes long as a rule");
        pace.missed_of(one, Question::Slots, at(65_000));
        assert!(pace.is_known(0) && !pace.is_known(1));
    }

    #[test]
    fn an_answer_that_takes_long_is_waited_for_the_next_time() {
        let (one, other) = (ReplicaId(1), ReplicaId(2));
        let mut pace = Pace::default();
        pace.asks(one, Question::Slots, at(0));
        assert_eq!(pace.wait_ms(100, 1), 100);
        pace.missed();
        pace.asks(other, Question::Slots, at(100));
        assert_eq!((pace.wait_ms(100, 1), pace.room()), (200, ROOM / 2));
        pace.answered(one, Question::Slots, at(2_000));
        assert_eq!(pace.wait_ms(100, 1), SLOWER_MAX * 100, "one alone may lie");
        pace.answered(other, Question::Slots, at(2_100));
        assert!(pace.wait_ms(100, 1) >= 2_000);
        pace.asks(one, Question::Slots, at(2_000));
        // Who was not asked says nothing about how long it takes.
        pace.answered(ReplicaId(3), Question::Slots, at(9_000));
        assert!(pace.wait_ms(100, 1) < 7_000);
        // Nor does it keep the one who was asked from saying it.
        pace.missed();
        assert_eq!(pace.room(), ROOM / 2);
        pace.answered(one, Question::Slots, at(9_000));
        pace.asks(one, Question::Slots, at(9_000));
        pace.answered(one, Question::Slots, at(9_001));
        assert_eq!(pace.room(), ROOM);
    }

    #[test]
    fn who_is_slow_is_waited_for_up_to_a_point_and_longer_where_nobody_else_answers() {
        let (one, other) = (ReplicaId(1), ReplicaId(2));
        let mut pace = Pace::default();
        pace.asks(one, Question::Slots, at(0));
        assert_eq!(pace.answered(one, Question::Slots, at(100)), Some(ROOM));
        let usual = pace.piece_wait_ms(10, 1);
        pace.asks(other, Question::Slots, at(100));
        assert_eq!(pace.answered(other, Question::Slots, at(9_000)), Some(2 * ROOM));
        assert_eq!(
            pace.answered(other, Question::Slots, at(9_000)),
            None,
            "it was not asked again"
        );
        assert_eq!(pace.wait_ms(10, 1), SLOWER_MAX * usual);
        pace.forget(one);
        assert_eq!(pace.wait_ms(10, 1), SLOWER_MAX * 10);
        assert!(pace.piece_wait_ms(10, 1) > 9_000);
    }

    #[test]
    fn a_liar_that_answers_just_in_time_makes_nobody_wait_for_longer() {
        let liar = ReplicaId(0);
        for others in [&[ReplicaId(1)][..], &[ReplicaId(1), ReplicaId(2)]] {
            let mut pace = Pace::default();
            let mut now = 0;
            for other in others.iter().cycle().take(100) {
                pace.asks(liar, Question::Slots, at(now));
                now += pace.wait_ms(100, 1) - 1;
                pace.answered(liar, Question::Slots, at(now));
                pace.asks(*other, Question::Slots, at(now));
                now += 5;
                pace.answered(*other, Question::Slots, at(now));
            }
            assert_eq!(pace.wait_ms(100, 1), 100);
        }
    }
}
