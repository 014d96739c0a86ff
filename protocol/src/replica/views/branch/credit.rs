//! How many slots may be fetched on the word of a replica.

use crate::id::Instant;
use crate::message::SLOTS_MAX;

/// What a credit grows by in a second at least.
const CREDIT_A_SECOND: u64 = SLOTS_MAX as u64;

/// How often the growth of a credit may be halved.
const HALVINGS_MAX: u32 = 6;

/// What was fetched on the word of a replica alone, and how often that came to nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::replica) struct Credit {
    /// How many slots were, less what has grown again.
    spent: u64,
    since: Instant,
    /// How many histories in a row came to nothing.
    in_vain: u32,
}

impl Credit {
    /// Whether more may be fetched, where `most` may be in all.
    pub(super) fn is_left(&mut self, now: Instant, most: u64) -> bool {
        let a_second = (most / 16) >> self.in_vain.min(HALVINGS_MAX);
        let a_second = a_second.max(CREDIT_A_SECOND);
        let grown = now.micros_since(self.since).saturating_mul(a_second) / 1_000_000;
        if grown > 0 {
            self.spent = self.spent.saturating_sub(grown);
            self.since = now;
        }
        self.spent < most
    }

    pub(super) fn spend(&mut self, slots: u64) {
        self.spent = self.spent.saturating_add(slots);
    }

    /// A history came to something.
    pub(in crate::replica::views) fn restore(&mut self) {
        *self = Self { since: self.since, ..Self::default() };
    }

    /// A history of which something was fetched came to nothing.
    pub(super) fn note_vain(&mut self) {
        self.in_vain = self.in_vain.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = 1 << 20;

    fn at(ms: u64) -> Instant {
        Instant::default().after_ms(ms)
    }

    #[test]
    fn what_is_spent_grows_again_the_more_slowly_the_more_was_in_vain() {
        // A second after everything is spent a sixteenth is there again.
        let left_after = |in_vain: u32, ms: u64, spent: u64| {
            let mut credit = Credit::default();
            (0..in_vain).for_each(|_| credit.note_vain());
            credit.spend(MOST + spent - 1);
            credit.is_left(at(ms), MOST)
        };
        assert!(left_after(0, 1000, MOST / 16) && !left_after(0, 1000, MOST / 16 + 1));
        assert!(left_after(1, 2000, MOST / 16) && !left_after(1, 1000, MOST / 16));
        // As often as it may be halved.
        assert!(left_after(99, 64_000, MOST / 16) && !left_after(99, 63_000, MOST / 16));
    }

    #[test]
    fn a_history_that_came_to_something_makes_good_for_all() {
        let mut credit = Credit::default();
        credit.note_vain();
        credit.spend(MOST);
        assert!(!credit.is_left(at(0), MOST));
        credit.restore();
        assert!(credit.is_left(at(0), MOST));
        credit.spend(MOST + MOST / 16 - 1);
        assert!(credit.is_left(at(1000), MOST), "it grows as at first");
    }
}
