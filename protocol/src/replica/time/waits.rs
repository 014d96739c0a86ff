//! What is measured, and the waits that follow from it. The argument is in docs/waits.md.
//!
//! With every status goes a pulse, at once: what the sender's disk takes, and the last pulse of each
//! other replica, with how long it was held. So every replica knows the round trip to each other one
//! and what a record takes there: together its *turnaround*. What is expected of a primary is the
//! turnaround that ranks `f + 1`-th from the slowest of all replicas but it: `f` liars cannot make it
//! more than that of the slowest correct one of these.

use std::collections::{BTreeMap, VecDeque};

use crate::application::Application;
use crate::estimate::{Estimate, SAMPLE_MAX};
use crate::id::{Instant, ReplicaId};
use crate::message::{self, ANSWER_BYTES_MAX, Echo, Message, Pulse, Turnaround};
use crate::quorum::Strength;
use crate::replica::{Mark, Replica, Target};
use crate::signature::Signed;

/// Own pulses remembered. An echo of an older one measures nothing.
const SENT_KEPT: usize = 64;

/// The waits for records to be synced are told apart by so many microseconds.
const GRAIN: u64 = 1_000;

/// What is known of another replica.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    round_trip: Estimate,
    /// What it says that its disk takes.
    sync: Option<u64>,
    /// Its newest pulse, and when that came.
    stamp: u64,
    heard: Instant,
    /// The own pulse that it echoed last.
    echoed: u64,
}

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

/// All that is measured.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Waits {
    others: BTreeMap<ReplicaId, Measured>,
    /// The own pulses that may still be echoed, and when they went out.
    sent: VecDeque<(u64, Instant)>,
    /// How long it takes until a record is on the own disk.
    sync: Estimate,
    /// Records on their way to the disk, with when they were written: the first of each millisecond.
    unsynced: VecDeque<(Mark, Instant)>,
}

impl Waits {
    pub(in crate::replica) fn appends(&mut self, mark: Mark, now: Instant) {
        let is_new = |(_, last): &(Mark, Instant)| now.micros_since(*last) >= GRAIN;
        if self.unsynced.back().is_none_or(is_new) {
            self.unsynced.push_back((mark, now));
        }
    }

    pub(in crate::replica) fn synced(&mut self, mark: Mark, now: Instant) {
        let mut oldest = None;
        while let Some((first, since)) = self.unsynced.front().copied()
            && first <= mark
        {
            oldest.get_or_insert(since);
            self.unsynced.pop_front();
        }
        if let Some(since) = oldest {
            self.sync.note(now, now.micros_since(since));
        }
    }

    /// When the newest pulse of a replica came.
    pub(in crate::replica) fn heard(&self, id: ReplicaId) -> Option<Instant> {
        self.others.get(&id).map(|known| known.heard)
    }

    /// What a record is expected to take: as long as ever, or longer than what is on its way waits
    /// already.
    fn sync_upper(&self, now: Instant) -> Option<u64> {
        let waiting = self.unsynced.front().map(|(_, since)| 2 * now.micros_since(*since));
        // What has waited for less than that tells nothing.
        let waiting = waiting.filter(|waited| *waited >= GRAIN);
        self.sync.upper().max(waiting)
    }
}

impl Measured {
    fn turnaround(&self) -> Option<u64> {
        Some(self.round_trip.upper()? + self.sync?)
    }
}

impl<A: Application> Replica<A> {
    /// Tells the others what the own disk takes, and echoes what they said last.
    pub(super) fn send_pulse(&mut self) {
        let now = self.now.instant;
        let stamp = self.next_stamp();
        let heard = |(of, known): (&ReplicaId, &Measured)| Echo {
            of: *of,
            stamp: known.stamp,
            held: now.micros_since(known.heard),
        };
        let echoes = self.waits.others.iter().map(heard).collect();
        // At least 1: 0 says that it is not known.
        let sync = self.waits.sync_upper(now).map_or(0, |sync| sync.max(1));
        let pulse = self.sign(Pulse { stamp, sync, echoes });
        self.waits.sent.push_back((stamp, now));
        if self.waits.sent.len() > SENT_KEPT {
            self.waits.sent.pop_front();
        }
        // No disk is waited for, except where a stamp could be used again after a crash.
        self.outbox.send(Target::Others, Message::Pulse(pulse), self.stamps.after());
    }

    pub(in crate::replica) fn on_pulse(&mut self, pulse: &Signed<Pulse>) {
        let (now, me) = (self.now.instant, self.setup.id);
        let Pulse { stamp, sync, echoes } = &pulse.body;
        let is_newer = |known: &Measured| known.stamp < *stamp;
        let is_new = self.waits.others.get(&pulse.by).is_none_or(is_newer);
        if pulse.by == me || !is_new {
            self.counters.stale_stamp += 1;
            return;
        }
        let sent = &self.waits.sent;
        let known = self.waits.others.entry(pulse.by).or_default();
        (known.stamp, known.heard) = (*stamp, now);
        // After a restart it has to find out anew.
        known.sync = (*sync > 0).then(|| (*sync).min(SAMPLE_MAX));
        let echo = echoes.iter().find(|echo| echo.of == me && echo.stamp > known.echoed);
        let Some(echo) = echo else { return };
        if let Some((_, since)) = sent.iter().find(|(stamp, _)| *stamp == echo.stamp) {
            known.echoed = echo.stamp;
            known.round_trip.note(now, now.micros_since(*since).saturating_sub(echo.held));
        }
    }

    /// The turnaround that may be expected of the primary, in microseconds: of all replicas but it, this
    /// one included, the one that ranks `f + 1`-th. With `f` liars among them that is at most what the
    /// slowest correct one needs. `None` while too little is known.
    pub(super) fn expected_turnaround(&self) -> Option<u64> {
        let (me, primary) = (self.setup.id, self.primary());
        let known = |id| self.waits.others.get(&id);
        let others = self.size.members().filter(|id| *id != me);
        let round_trips = others.map(|id| known(id).and_then(|other| other.round_trip.upper()));
        // As the others see it: its way to them is as long as theirs to it.
        let way = self.rank(round_trips.collect());
        let own = way.zip(self.waits.sync_upper(self.now.instant)).map(|(way, sync)| way + sync);
        let all = self
            .size
            .members()
            .filter(|id| *id != primary)
            .map(|id| if id == me { own } else { known(id).and_then(Measured::turnaround) });
        self.rank(all.collect())
    }

    fn rank(&self, values: Vec<Option<u64>>) -> Option<u64> {
        rank(values, self.size.quorum(Strength::Weak) - 1)
    }

    /// The same in ms, and no more than any wait may be: what is set by it once is waited for.
    fn expected_ms(&self) -> Option<u64> {
        let most = self.setup.tuning.request_timeout_max_ms;
        self.expected_turnaround().map(|micros| micros.div_ceil(1000).min(most))
    }

    /// How long what was passed on to all may wait for the primary to order any of it, in ms.
    pub(in crate::replica) fn order_wait_ms(&self) -> u64 {
        let tuning = &self.setup.tuning;
        let least = tuning.request_timeout_min_ms;
        match self.expected_ms() {
            // There and back, and the disk, once for what is under way and once for the next.
            Some(turnaround) => {
                least.saturating_add(turnaround * 2).min(tuning.request_timeout_max_ms)
            }
            None => tuning.request_timeout_ms,
        }
    }

    /// How long what is executed may wait for its certificate, in ms: everybody's disk is in the way,
    /// the own one, too.
    pub(in crate::replica) fn commit_wait_ms(&self) -> u64 {
        let own = self.waits.sync_upper(self.now.instant).unwrap_or_default().div_ceil(1000);
        let most = self.setup.tuning.request_timeout_max_ms;
        self.order_wait_ms().saturating_add(2 * own).min(most)
    }

    /// The first wait for a view that is asked for, in ms: four messages and three syncs.
    pub(in crate::replica) fn view_wait_ms(&self) -> u64 {
        let measured = 4 * self.expected_ms().unwrap_or_default();
        self.setup.tuning.view_change_timeout_ms.max(measured)
    }

    /// How long the primary of a new view waits for those who ask for it, in ms.
    pub(in crate::replica) fn gather_wait_ms(&self) -> u64 {
        let tuning = &self.setup.tuning;
        tuning.weak_view_delay_ms.max(self.expected_ms().unwrap_or_default())
    }

    /// How long an answer may take before somebody else is asked, in ms.
    pub(in crate::replica) fn fetch_wait_ms(&self) -> u64 {
        self.setup.tuning.fetch_retry_ms.max(self.expected_ms().unwrap_or_default())
    }

    /// The same for answers of which it is known how long they took.
    pub(in crate::replica) fn answer_wait_ms(&self, pace: &Pace) -> u64 {
        pace.wait_ms(self.fetch_wait_ms(), usize::from(self.size.faulty()))
    }

    /// The same for pieces of a state.
    pub(in crate::replica) fn piece_wait_ms(&self, pace: &Pace) -> u64 {
        pace.piece_wait_ms(self.fetch_wait_ms(), usize::from(self.size.faulty()))
    }

    /// What a record takes to be on the own disk, as a rule, in microseconds.
    #[must_use]
    pub fn sync_time(&self) -> Option<u64> {
        self.waits.sync.smoothed()
    }

    /// What is measured, for operators.
    #[must_use]
    pub fn pace(&self) -> message::Pace {
        let of = |(id, known): (&ReplicaId, &Measured)| Turnaround {
            of: *id,
            round_trip: known.round_trip.smoothed(),
            sync: known.sync,
        };
        message::Pace {
            sync: self.waits.sync.smoothed(),
            patience: self.order_patience_ms(),
            others: self.waits.others.iter().map(of).collect(),
        }
    }
}

/// The `faulty + 1`-th of those that are known, from the largest one on; `None` where more than `faulty` are not. What is
/// not known has no rank: else liars would have the next ones, and set the value.
fn rank(values: Vec<Option<u64>>, faulty: usize) -> Option<u64> {
    let count = values.len();
    let mut known: Vec<u64> = values.into_iter().flatten().collect();
    if known.len() + faulty < count {
        return None;
    }
    known.sort_unstable_by(|a, b| b.cmp(a));
    known.get(faulty).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn liars_set_no_rank_whoever_is_not_known() {
        let liar = Some(u64::MAX - 1);
        assert_eq!(rank(vec![liar, Some(3), Some(5)], 1), Some(5));
        assert_eq!(rank(vec![liar, None, Some(5)], 1), Some(5));
        assert_eq!(rank(vec![liar, liar, None, Some(4), Some(3), Some(9)], 2), Some(9));
        assert_eq!(rank(vec![liar, liar, None, None, Some(3), Some(9)], 2), Some(9));
        assert_eq!(rank(vec![liar, None, None], 1), None, "too little is known");
        assert_eq!(rank(Vec::new(), 0), None);
    }

    fn at(ms: u64) -> Instant {
        Instant(ms * 1000)
    }

    #[test]
    fn the_wait_for_the_disk_is_known_before_the_disk_is_done() {
        let mut waits = Waits::default();
        waits.appends(Mark(1), at(0));
        assert_eq!(waits.sync_upper(at(0)), None);
        assert_eq!(waits.sync_upper(at(600)), Some(1_200_000));
        waits.appends(Mark(2), at(700));
        waits.synced(Mark(1), at(1_000));
        assert_eq!(waits.sync.smoothed(), Some(1_000_000));
        waits.synced(Mark(2), at(2_000));
        assert!(waits.unsynced.is_empty());
        assert!(waits.sync_upper(at(2_000)) >= Some(1_300_000));
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
