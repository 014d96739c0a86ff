//! The wait for a single request while others are ordered.

use crate::id::Instant;

/// A primary that orders a little of what waits is never out of the others' patience, and could leave out a
/// client for ever.
#[derive(Clone, Debug, Default)]
pub(super) struct FairWait {
    /// When to look whether a request has waited too long.
    at: Option<Instant>,
    /// How often patience with that has doubled.
    doublings: u32,
}

impl FairWait {
    /// How often patience has doubled.
    pub(super) fn doublings(&self) -> u32 {
        self.doublings
    }

    /// When to look.
    pub(super) fn at(&self) -> Option<Instant> {
        self.at
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| at <= now)
    }

    /// A request waits from now on.
    pub(super) fn begin(&mut self, patience_ms: u64, now: Instant) {
        self.at.get_or_insert(now.after_ms(patience_ms));
    }

    /// Nothing is waited for.
    pub(super) fn end(&mut self) {
        self.at = None;
    }

    /// Whatever was passed on is ordered: nobody is left out.
    pub(super) fn all_are_served(&mut self) {
        self.doublings = 0;
    }

    /// Looks at the request that has waited the longest, since when. `true` where that is too long.
    pub(super) fn is_too_long(
        &mut self,
        since: Option<Instant>,
        patience_ms: u64,
        now: Instant,
    ) -> bool {
        self.at = since.map(|since| since.after_ms(patience_ms));
        let is_too_long = self.is_due(now);
        if is_too_long {
            self.doublings += 1;
            self.at = None;
        }
        is_too_long
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::default().after_ms(ms)
    }

    #[test]
    fn a_request_is_looked_at_when_the_oldest_could_have_waited_too_long() {
        let mut wait = FairWait::default();
        wait.begin(100, at(0));
        wait.begin(100, at(50));
        assert_eq!(wait.at(), Some(at(100)));
        assert!(wait.is_due(at(100)) && !wait.is_due(at(99)));
        assert!(!wait.is_too_long(Some(at(30)), 100, at(100)));
        assert_eq!(wait.at(), Some(at(130)));
        assert!(!wait.is_too_long(None, 100, at(130)), "nothing waits that could be ordered");
        assert_eq!((wait.at(), wait.doublings()), (None, 0));
    }

    #[test]
    fn patience_doubles_until_nobody_is_left_out() {
        let mut wait = FairWait::default();
        assert!(wait.is_too_long(Some(at(0)), 100, at(100)));
        assert!(wait.is_too_long(Some(at(0)), 200, at(200)));
        assert_eq!((wait.at(), wait.doublings()), (None, 2));
        wait.end();
        assert_eq!(wait.doublings(), 2, "another primary does not make it fair");
        wait.all_are_served();
        assert_eq!(wait.doublings(), 0);
    }
}
