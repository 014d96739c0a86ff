//! How much a peer may still be sent in answers.

use crate::id::Instant;
use crate::message::ANSWER_BYTES_MAX;

/// Bytes that a peer may have been sent in advance of its budget.
const BUDGET_MAX: u64 = 4 * ANSWER_BYTES_MAX as u64;

/// Bytes a microsecond by which a peer's budget grows.
const BUDGET_PER_MICRO: u64 = 64;

/// What an answer costs at least: looking for nothing is work, too.
pub(in crate::replica) const BUDGET_LEAST: u64 = 1 << 12;

#[derive(Clone, Copy, Debug)]
pub(in crate::replica) struct Budget {
    bytes: u64,
    since: Instant,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: BUDGET_MAX, since: Instant::default() }
    }
}

impl Budget {
    /// Whether there is enough by now.
    pub(in crate::replica) fn refill(&mut self, now: Instant) -> bool {
        let grown = now.micros_since(self.since).saturating_mul(BUDGET_PER_MICRO);
        self.bytes = self.bytes.saturating_add(grown).min(BUDGET_MAX);
        self.since = now;
        self.bytes >= BUDGET_LEAST
    }

    /// Spends what is there; `false` where that is too little.
    pub(in crate::replica) fn charge(&mut self, now: Instant, bytes: usize) -> bool {
        let may = self.refill(now);
        if may {
            self.spend(bytes);
        }
        may
    }

    pub(in crate::replica) fn spend(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).max(BUDGET_LEAST);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_spent_its_budget_waits_until_it_has_grown_again() {
        let now = Instant(1_000_000_000);
        let mut budget = Budget::default();
        assert!(budget.charge(now, usize::MAX), "the last answer may go beyond");
        assert!(!budget.charge(now, 0));
        let enough = BUDGET_LEAST / BUDGET_PER_MICRO;
        assert!(!budget.refill(Instant(now.0 + enough - 1)));
        assert!(budget.charge(Instant(now.0 + enough), 0));
        assert!(!budget.refill(Instant(now.0 + enough)), "nothing costs less than the least");
    }
}
