//! How much longer a primary is waited for than is expected of one.

use super::DOUBLINGS_MAX;
use crate::id::Instant;

/// The wait may have been too short for a reason that nobody measures, so it is longer after each suspicion.
/// What it grew by for primaries that were dead is taken back at once; what it grew by for one that lived comes
/// back slowly, or the wait would be too short again.
#[derive(Clone, Debug, Default)]
pub(super) struct Growth {
    doublings: u32,
    /// As many of these as primaries that lived are the reason of, and since when that is so.
    lasting: u32,
    since: Instant,
}

impl Growth {
    /// How often the wait has doubled.
    pub(super) fn doublings(&self) -> u32 {
        self.doublings
    }

    /// A primary is given up, which `lives` or not: the wait for the next one is longer.
    pub(super) fn grow(&mut self, lives: bool, now: Instant) {
        self.doublings = (self.doublings + 1).min(DOUBLINGS_MAX);
        if lives {
            self.lasting = self.doublings;
            self.since = now;
        }
    }

    /// A primary does its work. One doubling that lasts is taken back where that has gone well for so long.
    pub(super) fn shrink(&mut self, after_ms: u64, now: Instant) {
        if self.lasting > 0 && self.since.after_ms(after_ms) <= now {
            self.lasting -= 1;
            self.since = now;
        }
        self.doublings = self.doublings.min(self.lasting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::default().after_ms(ms)
    }

    #[test]
    fn what_dead_primaries_are_the_reason_of_is_taken_back_at_once() {
        let mut growth = Growth::default();
        for _ in 0..9 {
            growth.grow(false, at(1));
        }
        assert_eq!(growth.doublings(), DOUBLINGS_MAX);
        growth.shrink(1000, at(2));
        assert_eq!(growth.doublings(), 0);
    }

    #[test]
    fn what_one_that_lived_is_the_reason_of_comes_back_one_by_one() {
        let mut growth = Growth::default();
        growth.grow(false, at(0));
        growth.grow(true, at(5));
        growth.grow(false, at(6));
        assert_eq!(growth.doublings(), 3);
        growth.shrink(1000, at(1004));
        assert_eq!(growth.doublings(), 2, "the dead one is forgotten");
        growth.shrink(1000, at(1005));
        assert_eq!(growth.doublings(), 1);
        growth.shrink(1000, at(2004));
        assert_eq!(growth.doublings(), 1);
        growth.shrink(1000, at(2005));
        assert_eq!(growth.doublings(), 0);
    }
}
