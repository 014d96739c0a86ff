//! The wait for a certificate of what was executed with strong requests in it.

use crate::id::Instant;

/// How often it may double: without a cap, in effect. Nobody can tell a partition from a liar that withholds
/// its votes.
const DOUBLINGS: u32 = 30;

#[derive(Clone, Debug, Default)]
pub(super) struct StrongWait {
    /// Since when an executed strong request has waited.
    since: Option<Instant>,
    doublings: u32,
}

impl StrongWait {
    /// A strong request was executed: it waits from now on, if none did before.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// What is left waits from now on, if anything is.
    pub(super) fn begin_anew(&mut self, is_left: bool, now: Instant) {
        self.since = is_left.then_some(now);
    }

    /// Nothing is waited for.
    pub(super) fn end(&mut self) {
        self.since = None;
    }

    /// Nobody can order anything: what waits waits from now on.
    pub(super) fn excuse(&mut self, now: Instant) {
        self.begin_anew(self.since.is_some(), now);
    }

    /// A certificate formed in a view that was not given up.
    pub(super) fn certified(&mut self) {
        self.doublings = 0;
    }

    /// When patience runs out. How long it is at first is worked out only where something waits.
    pub(super) fn at(&self, wait_ms: impl FnOnce() -> u64) -> Option<Instant> {
        let since = self.since?;
        Some(since.after_ms(wait_ms().saturating_mul(1 << self.doublings.min(DOUBLINGS))))
    }

    /// Patience has run out, and what waits goes on waiting. The next time it is longer, where enough
    /// replicas were heard to certify it.
    pub(super) fn ran_out(&mut self, are_enough: bool, now: Instant) {
        self.since = Some(now);
        if are_enough {
            self.doublings += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::default().after_ms(ms)
    }

    #[test]
    fn patience_doubles_each_time_that_enough_could_have_voted() {
        let mut wait = StrongWait::default();
        wait.begin(at(0));
        wait.begin(at(50));
        assert_eq!(wait.at(|| 100), Some(at(100)));
        wait.ran_out(false, at(100));
        assert_eq!(
            wait.at(|| 100),
            Some(at(200)),
            "in a small part of the network nobody is to blame"
        );
        wait.ran_out(true, at(200));
        assert_eq!(wait.at(|| 100), Some(at(400)));
        wait.certified();
        assert_eq!(wait.at(|| 100), Some(at(300)));
    }

    #[test]
    fn what_is_certified_is_not_waited_for_whoever_is_excused() {
        let mut wait = StrongWait::default();
        wait.begin(at(0));
        wait.begin_anew(false, at(10));
        wait.excuse(at(20));
        assert_eq!(wait.at(|| 100), None);
        wait.begin_anew(true, at(30));
        wait.excuse(at(40));
        assert_eq!(wait.at(|| 100), Some(at(140)));
    }

    #[test]
    fn another_view_does_not_make_patience_shorter() {
        let mut wait = StrongWait::default();
        wait.begin(at(0));
        wait.ran_out(true, at(100));
        wait.end();
        assert_eq!(wait.at(|| 100), None);
        wait.begin(at(200));
        assert_eq!(wait.at(|| 100), Some(at(400)));
    }
}
