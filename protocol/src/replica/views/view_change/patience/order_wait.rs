//! The wait for the primary to order anything of what was passed on to all.

use crate::id::Instant;

/// Who looks at the clock so much later than it wanted to, in ms, stood still itself: what came
/// meanwhile may not be here yet.
const OVERSLEPT_MS: u64 = 100;

#[derive(Clone, Debug, Default)]
pub(super) struct OrderWait {
    /// Since when what waits has waited.
    since: Option<Instant>,
    /// Whether the present wait was made longer, since this replica itself had stood still.
    was_late: bool,
    /// Whether it was made longer, since the primary's order is here and only what it names is not.
    was_ordered: bool,
}

impl OrderWait {
    /// Something waits from now on, if nothing did before.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Nothing is waited for.
    pub(super) fn end(&mut self) {
        self.since = None;
    }

    /// Nor is any order excused from now on.
    pub(super) fn forget(&mut self) {
        self.since = None;
        self.was_ordered = false;
    }

    /// What is left waits from now on, if anything is.
    pub(super) fn begin_anew(&mut self, is_left: bool, now: Instant) {
        self.since = is_left.then_some(now);
    }

    /// Nobody can order anything: what waits waits from now on.
    pub(super) fn excuse(&mut self, now: Instant) {
        self.begin_anew(self.since.is_some(), now);
    }

    /// The primary does its work: something was executed that waited here.
    pub(super) fn progress(&mut self) {
        self.was_late = false;
    }

    /// And it was passed on to all, of which something may be left.
    pub(super) fn progress_with_forwarded(&mut self, is_left: bool, now: Instant) {
        self.was_ordered = false;
        self.begin_anew(is_left, now);
    }

    /// The primary's next order is here, and requests that it names are not: it gets the same wait once more until
    /// something is executed. A large request takes its time on the line, and a primary that names what it does
    /// not give gains no more than that.
    pub(super) fn order_lacks(&mut self, now: Instant) {
        if self.since.is_some() && !self.was_ordered {
            self.was_ordered = true;
            self.since = Some(now);
        }
    }

    /// Whether the primary, which was last heard then, was while it was waited for.
    pub(super) fn lives(&self, heard: Option<Instant>) -> bool {
        self.since.is_some_and(|since| heard >= Some(since))
    }

    /// When patience runs out. How long it is is worked out only where something waits.
    pub(super) fn at(&self, patience_ms: impl FnOnce() -> u64) -> Option<Instant> {
        Some(self.since?.after_ms(patience_ms()))
    }

    /// Whether this replica itself was late: then the primary gets a little more time, once.
    pub(super) fn overslept(&mut self, patience_ms: u64, now: Instant) -> bool {
        let at = self.at(|| patience_ms);
        if self.was_late || at.is_none_or(|at| at.after_ms(OVERSLEPT_MS) > now) {
            return false;
        }
        self.was_late = true;
        self.since = Some(Instant(now.0.saturating_sub(patience_ms / 2 * 1000)));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::default().after_ms(ms)
    }

    fn waiting_since(ms: u64) -> OrderWait {
        let mut wait = OrderWait::default();
        wait.begin(at(ms));
        wait
    }

    #[test]
    fn what_waits_has_waited_since_the_first_of_it_came() {
        let mut wait = waiting_since(10);
        wait.begin(at(20));
        assert_eq!(wait.at(|| 100), Some(at(110)));
        assert!(wait.lives(Some(at(10))) && !wait.lives(Some(at(9))) && !wait.lives(None));
        wait.excuse(at(30));
        assert_eq!(wait.at(|| 100), Some(at(130)));
        wait.progress_with_forwarded(false, at(40));
        wait.excuse(at(50));
        assert_eq!(wait.at(|| 100), None, "nothing is left");
        assert!(!wait.lives(Some(at(60))));
    }

    #[test]
    fn an_order_excuses_the_primary_once_until_something_is_executed() {
        let mut wait = waiting_since(0);
        wait.order_lacks(at(50));
        wait.order_lacks(at(90));
        assert_eq!(wait.at(|| 100), Some(at(150)));
        wait.progress_with_forwarded(true, at(100));
        wait.order_lacks(at(120));
        assert_eq!(wait.at(|| 100), Some(at(220)));
    }

    #[test]
    fn who_overslept_gives_half_a_wait_more_once_until_something_is_executed() {
        let mut wait = waiting_since(0);
        assert!(!wait.overslept(100, at(199)), "it was not so late");
        assert!(wait.overslept(100, at(200)));
        assert_eq!(wait.at(|| 100), Some(at(250)));
        assert!(!wait.overslept(100, at(900)));
        wait.progress();
        assert!(wait.overslept(100, at(900)));
    }
}
