//! How late the primary of a view is with what it orders.

use crate::id::Instant;

/// A primary's lateness is judged by no fewer requests.
const JUDGED_LEAST: u32 = 16;

/// A primary that is late with most of what it orders is slower than others would be, although it is
/// never late enough with all of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Lateness {
    /// On average, in microseconds, by how many requests.
    mean: u64,
    judged: u32,
    /// Since when that is too much.
    limps_at: Option<Instant>,
}

impl Lateness {
    /// A request was ordered, so many microseconds after it was passed on to all.
    pub(super) fn note(&mut self, late: u64) {
        self.mean = self.mean - self.mean / 16 + late / 16;
        self.judged = self.judged.saturating_add(1);
    }

    /// No more than `most` microseconds are borne.
    pub(super) fn judge(&mut self, most: u64, now: Instant) {
        let is_late = self.judged >= JUDGED_LEAST && self.mean > most;
        if is_late && self.limps_at.is_none() {
            self.limps_at = Some(now);
        }
    }

    /// Since when it is too much, until that is taken.
    pub(super) fn limps_at(&self) -> Option<Instant> {
        self.limps_at
    }

    /// Whether it was too much.
    pub(super) fn take_limps(&mut self) -> bool {
        self.limps_at.take().is_some()
    }

    /// Nobody can order anything: that is not the primary's fault.
    pub(super) fn excuse(&mut self) {
        self.limps_at = None;
    }

    /// Another primary begins without a past.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(7);

    #[test]
    fn a_primary_is_judged_by_many_requests_and_by_their_mean() {
        let mut lateness = Lateness::default();
        for _ in 1..JUDGED_LEAST {
            lateness.note(32_000);
            lateness.judge(1000, NOW);
        }
        assert_eq!(lateness.limps_at(), None, "too few");
        lateness.note(0);
        lateness.judge(30_000, NOW);
        assert_eq!(lateness.limps_at(), None);
        lateness.judge(10_000, NOW);
        assert_eq!(lateness.limps_at(), Some(NOW));
    }

    #[test]
    fn who_limps_does_since_it_was_found_out_and_until_that_is_taken() {
        let mut lateness = Lateness::default();
        for _ in 0..JUDGED_LEAST {
            lateness.note(32_000);
        }
        lateness.judge(1000, NOW);
        lateness.judge(1000, Instant(8));
        assert_eq!(lateness.limps_at(), Some(NOW));
        assert!(lateness.take_limps() && !lateness.take_limps());
        lateness.judge(1000, Instant(9));
        assert_eq!(lateness.limps_at(), Some(Instant(9)));
        lateness.forget();
        lateness.judge(0, NOW);
        assert_eq!(lateness.limps_at(), None);
    }
}
