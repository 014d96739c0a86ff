//! How much was answered when, and how quickly.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use elea_client::Level;
use hdrhistogram::Histogram;
use serde_json::{Value as Json, json};

/// Latencies from a microsecond to an hour, in two digits.
const LONGEST: u64 = 3_600_000_000;

struct Inner {
    /// Answers in each second since the start, weak and strong.
    seconds: Vec<[u64; 2]>,
    latencies: [Histogram<u64>; 2],
    failed: [u64; 2],
}

/// Counts answers.
pub struct Meter {
    start: Instant,
    inner: Mutex<Inner>,
}

/// 0 for weak, 1 for strong.
#[must_use]
pub fn index(level: Level) -> usize {
    usize::from(level == Level::Strong)
}

impl Default for Meter {
    fn default() -> Self {
        let histogram = || Histogram::new_with_bounds(1, LONGEST, 2).expect("sound bounds");
        Self {
            start: Instant::now(),
            inner: Mutex::new(Inner {
                seconds: Vec::new(),
                latencies: [histogram(), histogram()],
                failed: [0; 2],
            }),
        }
    }
}

impl Meter {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since it began to count.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The same in microseconds.
    #[must_use]
    pub fn micros(&self) -> u64 {
        u64::try_from(self.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Somebody who asked then was answered now.
    pub fn answered(&self, level: Level, asked: u64) {
        let now = self.micros();
        let second = usize::try_from(now / 1_000_000).unwrap_or(usize::MAX);
        let mut inner = self.inner();
        if inner.seconds.len() <= second {
            inner.seconds.resize(second + 1, [0; 2]);
        }
        inner.seconds[second][index(level)] += 1;
        inner.latencies[index(level)].saturating_record(now.saturating_sub(asked).max(1));
    }

    /// Somebody was not answered in time.
    pub fn failed(&self, level: Level) {
        self.inner().failed[index(level)] += 1;
    }

    /// Answers in all, weak and strong.
    #[must_use]
    pub fn totals(&self) -> [u64; 2] {
        let inner = self.inner();
        [0, 1].map(|level| inner.latencies[level].len())
    }

    /// Answers in each second, weak and strong.
    #[must_use]
    pub fn seconds(&self) -> Vec<[u64; 2]> {
        self.inner().seconds.clone()
    }

    /// The latencies and failures of one level.
    #[must_use]
    pub fn summary(&self, level: Level) -> Json {
        let inner = self.inner();
        let latencies = &inner.latencies[index(level)];
        json!({
            "answered": latencies.len(),
            "unanswered": inner.failed[index(level)],
            "latency_us": {
                "p50": latencies.value_at_quantile(0.5),
                "p90": latencies.value_at_quantile(0.9),
                "p99": latencies.value_at_quantile(0.99),
                "max": latencies.max(),
            },
        })
    }
}
