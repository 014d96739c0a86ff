//! What is measured again and again.

use crate::id::Instant;

/// A peak counts half after so long.
const PEAK_HALVES_MS: u64 = 4_000;

/// Beyond this nothing is believed: no round trip and no sync takes an hour.
pub(crate) const SAMPLE_MAX: u64 = 3_600_000_000;

/// A quantity that is measured again and again, in microseconds: a smoothed value and its mean
/// deviation, as TCP keeps them (RFC 6298), and the highest of late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Estimate {
    smoothed: u64,
    deviation: u64,
    peak: u64,
    peak_at: Instant,
    is_known: bool,
}

impl Estimate {
    pub(crate) fn note(&mut self, now: Instant, sample: u64) {
        let sample = sample.min(SAMPLE_MAX);
        if !self.is_known {
            (self.smoothed, self.deviation, self.is_known) = (sample, sample / 2, true);
        } else {
            let off = self.smoothed.abs_diff(sample);
            self.deviation = self.deviation - self.deviation / 4 + off / 4;
            self.smoothed = self.smoothed - self.smoothed / 8 + sample / 8;
        }
        // One stall is no trend, but where there was one there may be another.
        let halvings = now.micros_since(self.peak_at) / (PEAK_HALVES_MS * 1000);
        let left = self.peak >> halvings.min(63);
        if sample > left || halvings > 0 {
            self.peak = left.max(sample);
            self.peak_at = if self.peak > 0 { now } else { Instant::default() };
        }
    }

    /// The usual value.
    pub(crate) fn smoothed(&self) -> Option<u64> {
        self.is_known.then_some(self.smoothed)
    }

    /// What is rarely exceeded.
    pub(crate) fn upper(&self) -> Option<u64> {
        self.is_known.then(|| (self.smoothed + 4 * self.deviation).max(self.peak))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(ms * 1000)
    }

    #[test]
    fn an_estimate_follows_what_is_measured_and_forgets_a_peak() {
        let mut estimate = Estimate::default();
        assert_eq!(estimate.upper(), None);
        for ms in 0..100 {
            estimate.note(at(ms), 1_000);
        }
        assert!((900..=1_500).contains(&estimate.upper().expect("known")), "{estimate:?}");
        estimate.note(at(100), 500_000);
        for ms in 101..1_000 {
            estimate.note(at(ms), 1_000);
        }
        assert_eq!(estimate.upper(), Some(500_000), "a stall may come again");
        for ms in (1_000..60_000).step_by(250) {
            estimate.note(at(ms), 1_000);
        }
        assert!(estimate.upper() < Some(2_000), "{estimate:?}");
    }
}
