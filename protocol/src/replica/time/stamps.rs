//! Numbers on words that must not be played back: each is above all before it, also across restarts and wherever
//! the clock is set to. They follow the clock, so that a replica that lost its disk is heard as well, and grow as time
//! goes by where they are ahead of it, so that who is a little behind its own is past them soon.

use crate::id::Instant;
use crate::replica::Mark;

/// So many are reserved on disk at a time: those of ten minutes.
const RESERVED: u64 = 600_000_000;

#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Stamps {
    last: u64,
    /// When that one was used; never yet, at first.
    at: Option<Instant>,
    /// Up to where they may be used, and the record that says so.
    reserved: u64,
    after: Mark,
}

impl Stamps {
    /// After a start: up to here some may have been used.
    pub(in crate::replica) fn recovered(reserved: u64) -> Self {
        Self { last: reserved, at: None, reserved, after: Mark::NONE }
    }

    /// What must be on disk before a word with one of them leaves.
    pub(in crate::replica) fn after(&self) -> Mark {
        self.after
    }

    /// The next one, at this time in microseconds by the clock on the wall.
    pub(super) fn next(&mut self, wall: u64, now: Instant) -> u64 {
        let passed = self.at.map_or(0, |at| now.micros_since(at)).max(1);
        self.last = wall.max(self.last.saturating_add(passed));
        self.at = Some(now);
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
        let at = Instant::default();
        assert_eq!(stamps.next(10, at), 1_001, "the clock was set back");
        let reserved = stamps.wanted().expect("none are reserved");
        stamps.reserve(reserved, Mark(7));
        assert_eq!((stamps.wanted(), stamps.after()), (None, Mark(7)));
        assert_eq!(stamps.next(5_000, at), 5_000);
        assert_eq!(stamps.next(5_000, at), 5_001);
        assert_eq!(stamps.next(10, at.after_ms(7)), 12_001, "it stands, and time goes by");
        stamps.next(reserved - RESERVED / 3, at);
        assert!(stamps.wanted() > Some(reserved));

        let mut again = Stamps::recovered(reserved);
        assert_eq!(again.next(5_001, at.after_ms(60_000)), reserved + 1);
        again.note_used(3);
        assert_eq!(again.last, reserved + 1);
        again.note_used(2 * reserved);
        assert!(again.next(0, at) > 2 * reserved);
    }
}
