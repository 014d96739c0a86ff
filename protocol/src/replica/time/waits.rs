//! What is measured, and the waits that follow from it. The argument is in docs/waits.md.
//!
//! With every status goes a pulse, at once: what the sender's disk takes, and the last pulse of each
//! other replica, with how long it was held. So every replica knows the round trip to each other one
//! and what a record takes there: together its *turnaround*. What is expected of a primary is the
//! turnaround that ranks `f + 1`-th from the slowest of all replicas but it: `f` liars cannot make it
//! more than that of the slowest correct one of these.

use std::collections::{BTreeMap, VecDeque};

use super::pace::Pace;
use crate::application::Application;
use crate::estimate::{Estimate, SAMPLE_MAX};
use crate::id::{Instant, ReplicaId};
use crate::message::{self, Echo, Message, Pulse, Turnaround};
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
}
