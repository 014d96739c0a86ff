//! Numbers on words that must not be played back: each is above all before it, also across restarts and wherever
//! the clock is set to. They follow the clock, so that a replica that lost its disk is heard as well.

use crate::replica::Mark;

/// So many are reserved on disk at a time: those of ten minutes.
const RESERVED: u64 = 600_000_000;

#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Stamps {
    last: u64,
    /// Up to where they may be used, and the record that says so.
    reserved: u64,
    after: Mark,
}

impl Stamps {
    /// After a start: up to here some may have been used.
    pub(in crate::replica) fn recovered(reserved: u64) -> Self {
        Self { last: reserved, reserved, after: Mark::NONE }
    }

    /// What must be on disk before a word with one of them leaves.
    pub(in crate::replica) fn after(&self) -> Mark {
        self.after
    }

    /// The next one, at this time in microseconds.
    pub(super) fn next(&mut self, wall: u64) -> u64 {
        self.last = wall.max(self.last.saturating_add(1));
        self.last
    }

    /// Up to where they are to be [reserved](Stamps::reserve), where few are left.
    pub(super) fn wanted(&self) -> Option<u64> {
        let is_short = self.reserved.saturating_sub(self.last) < RESERVED / 2;
        is_short.then(|| self.last.saturating_add(RESERVED))
    }

    pub(super) fn reserve(&mut self, reserved: u64, record: Mark) {
        (self.reserved, self.after) = (reserved, record);
    }

    /// A newer one than all that is known of here was used in a life before this one. Others after it were, too.
    pub(super) fn note_used(&mut self, stamp: u64) {
        if stamp > self.last {
            self.last = stamp.saturating_add(RESERVED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_above_all_before_it_and_reserved_before_it_is_used() {
        let mut stamps = Stamps::recovered(1_000);
        assert_eq!(stamps.next(10), 1_001, "the clock was set back");
        let reserved = stamps.wanted().expect("none are reserved");
        stamps.reserve(reserved, Mark(7));
        assert_eq!((stamps.wanted(), stamps.after()), (None, Mark(7)));
        assert_eq!(stamps.next(5_000), 5_000);
        assert_eq!(stamps.next(5_000), 5_001);
        stamps.next(reserved - RESERVED / 3);
        assert!(stamps.wanted() > Some(reserved));

        let mut again = Stamps::recovered(reserved);
        assert!(again.next(5_001) > reserved);
        again.note_used(3);
        assert_eq!(again.last, reserved + 1);
        again.note_used(2 * reserved);
        assert!(again.next(0) > 2 * reserved);
    }
}
