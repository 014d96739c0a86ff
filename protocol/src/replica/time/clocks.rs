//! What time it is, by the own clock and by those of the others.
//!
//! Clocks are wrong now and then: set an hour ahead, back to 1970, at half speed. Nothing here is
//! needed for safety. What it is for is that the time of a slot is one that the others can accept,
//! and that a replica whose clock is wrong keeps nobody from anything, itself included.

use crate::application::Application;
use crate::history::extend;
use crate::id::{Instant, ReplicaId, Slot, WallTime};
use crate::quorum::Strength;
use crate::replica::Replica;

/// A clock counts for so many status intervals after it was last heard of.
const HEARD_INTERVALS: u64 = 64;

/// What a replica said its wall clock shows, and when that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClockHeard {
    pub(super) wall: WallTime,
    pub(super) at: Instant,
}

impl ClockHeard {
    /// What it shows now, if it runs like the own monotonic clock. That the word took a while to come
    /// makes it no later than it is.
    fn now(&self, now: Instant) -> WallTime {
        WallTime(self.wall.0.saturating_add(now.micros_since(self.at) / 1000))
    }
}

/// The clock that replicas can agree on: of all that are known the `f + 1`-th lowest, or, of less than
/// `2f + 1`, the median, and of two in the middle the lower one.
///
/// Where at most `f` of `2f + 1` or more are wrong, it lies among the right ones. All but `f` have reached
/// it, or more than half of a few. A liar can make it too low, which only keeps time from going on.
fn agreed(mut clocks: Vec<WallTime>, faulty: usize) -> Option<WallTime> {
    clocks.sort_unstable();
    let middle = clocks.len().checked_sub(1)? / 2;
    clocks.get(faulty.min(middle)).copied()
}

impl<A: Application> Replica<A> {
    /// All clocks that are known, the own one included, as they show now.
    fn known_clocks(&self) -> Vec<(ReplicaId, WallTime)> {
        let now = self.now.instant;
        let within = HEARD_INTERVALS * self.setup.tuning.status_interval_ms;
        let others = self.peers.iter().filter_map(|(id, peer)| {
            let heard = peer.clock().filter(|heard| now <= heard.at.after_ms(within))?;
            Some((*id, heard.now(now)))
        });
        std::iter::once((self.setup.id, self.now.wall)).chain(others).collect()
    }

    /// What a weak quorum or more can agree on; `None` where fewer are heard.
    fn agreed_clock(&self) -> Option<WallTime> {
        let clocks: Vec<WallTime> = self.known_clocks().into_iter().map(|(_, at)| at).collect();
        let enough = self.size.suffices(clocks.len(), Strength::Weak);
        enough.then(|| agreed(clocks, usize::from(self.size.faulty()))).flatten()
    }

    /// How far each clock that is known is ahead of the agreed one, in ms; the own one is
    /// among them. Empty where fewer than a weak quorum are heard.
    #[must_use]
    pub fn clocks(&self) -> Vec<(ReplicaId, i64)> {
        let Some(agreed) = self.agreed_clock() else { return Vec::new() };
        let ahead = |at: WallTime| {
            let millis = i128::from(at.0) - i128::from(agreed.0);
            i64::try_from(millis).unwrap_or(if millis < 0 { i64::MIN } else { i64::MAX })
        };
        self.known_clocks().into_iter().map(|(id, at)| (id, ahead(at))).collect()
    }

    /// By how much a clock may differ from the agreed one, in ms, before that is told.
    #[must_use]
    pub fn clock_tolerance_ms(&self) -> u64 {
        self.setup.tuning.max_clock_drift_ms / 2
    }

    /// The time of the next slot, as its primary: the own clock's where the others can accept it, or
    /// what they can agree on. As long as nobody is heard it is that of the slot before.
    pub(in crate::replica) fn time_to_order(&self) -> WallTime {
        let (own, before) = (self.now.wall, self.history.choices().time);
        let time = match self.agreed_clock() {
            None if self.history.head().slot == Slot::GENESIS => own,
            None => before,
            Some(agreed) if own.0.abs_diff(agreed.0) <= self.clock_tolerance_ms() => own,
            Some(agreed) => agreed,
        };
        time.max(before)
    }

    /// How far the time of a slot may be ahead: of the own clock or of the agreed one, if that is
    /// later, so that who lags behind goes on with the others.
    pub(in crate::replica) fn clock_limit(&self) -> WallTime {
        let clock = self.agreed_clock().map_or(self.now.wall, |agreed| agreed.max(self.now.wall));
        WallTime(clock.0.saturating_add(self.setup.tuning.max_clock_drift_ms))
    }

    /// Whether the time of a slot that follows on `before` has to wait for the clock. One that keeps
    /// the time before it is as good as that: whoever stands on the one can stand on the other.
    pub(in crate::replica) fn is_early(&self, time: WallTime, before: WallTime) -> bool {
        time > before && time > self.clock_limit()
    }

    /// The highest slot that `f + 1` others say to have on this history, where each is asked for its
    /// highest one by `on_it`. A correct one of them has judged what is up to there: so it need
    /// not be judged by the own clock again.
    pub(in crate::replica) fn borne_out(
        &self,
        on_it: impl FnMut(ReplicaId) -> Option<Slot>,
    ) -> Slot {
        let others = self.size.members().filter(|id| *id != self.setup.id);
        let mut slots: Vec<Slot> = others.filter_map(on_it).collect();
        slots.sort_unstable_by(|a, b| b.cmp(a));
        slots.get(usize::from(self.size.faulty())).copied().unwrap_or(Slot::GENESIS)
    }

    /// Whether `f + 1` others have the next order in their histories, which they follow up further
    /// in the view entered.
    pub(in crate::replica) fn next_is_borne_out(&self) -> bool {
        let head = self.history.head();
        let mut hash = head.hash;
        let mut chain = Vec::new();
        for slot in (head.slot.next().0..).map(Slot) {
            let Some(ahead) = self.ahead.get(slot) else { break };
            let header = &ahead.order.body.header;
            hash = extend(&hash, &header.batch);
            if hash != header.hash {
                break;
            }
            chain.push(hash);
        }
        let through = self.borne_out(|id| {
            let at = self.peers.get(&id)?.position_in(self.entered())?;
            let index = usize::try_from(at.slot.since(head.slot)).ok()?.checked_sub(1)?;
            (chain.get(index) == Some(&at.hash)).then_some(at.slot)
        });
        through > head.slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agreed_clock_lies_among_the_right_ones_whatever_f_others_show() {
        let cases: &[(&[u64], usize, u64)] = &[
            (&[7], 0, 7),
            (&[7], 1, 7),
            (&[9, 7], 1, 7),
            (&[9, 0, 7], 1, 7),
            (&[0, 100, 101, 102], 1, 100),
            (&[100, 101, 102, 9000], 1, 101),
            (&[0, 100, 101, 102, 103, 104, 9000], 2, 101),
            (&[0, 0, 101, 102, 103, 104, 105], 2, 101),
        ];
        for (clocks, faulty, expected) in cases {
            let clocks: Vec<WallTime> = clocks.iter().copied().map(WallTime).collect();
            assert_eq!(agreed(clocks.clone(), *faulty), Some(WallTime(*expected)), "{clocks:?}");
        }
        assert_eq!(agreed(Vec::new(), 1), None);
    }
}
