//! The campaign of this replica: which view it asks for, why, and since when that could have begun.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{Instant, View};

/// How often the wait for a view may double: without an end, in effect.
const DOUBLINGS: u32 = 20;

/// Why a replica asks for another view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// `f + 1` replicas suspect the primary.
    Suspected,
    /// The primary has resigned.
    Resigned,
    /// There is a proof against it.
    Proven,
    /// The own lock refutes the new view of this view.
    Refuted(View),
    /// The own lock is of a view that nobody lets this replica enter.
    LockAhead,
    /// `f + 1` others ask for it.
    Followed,
    /// The view before did not begin in time.
    Waited,
}

/// A campaign that is going on.
#[derive(Clone, Copy, Debug)]
struct Running {
    view: View,
    why: Why,
    /// Since when a weak quorum asks for this view or a later one.
    waiting: Option<Instant>,
}

/// The views that this replica asks for, and how long it has waited for them.
#[derive(Clone, Debug, Default)]
pub(super) struct Campaigning {
    running: Option<Running>,
    /// Views below the campaign for which a view change was sent since others asked for them.
    answered: BTreeSet<View>,
    /// Since when this replica, as its primary, could begin a view with a weak quorum.
    gathered: BTreeMap<View, Instant>,
    /// Since when the lock is of a view above the entered one.
    lock_ahead_since: Option<Instant>,
    /// How often the wait for a view has doubled since a certificate of the entered view formed.
    doublings: u32,
}

impl Campaigning {
    /// The view asked for, if any.
    pub(super) fn view(&self) -> Option<View> {
        self.running.map(|running| running.view)
    }

    pub(super) fn begin(&mut self, view: View, why: Why) {
        self.running = Some(Running { view, why, waiting: None });
    }

    /// The view that is left, or not entered, since the own lock refutes it: where that is why another one is
    /// asked for.
    pub(super) fn refuted(&self) -> Option<View> {
        match self.running?.why {
            Why::Refuted(view) => Some(view),
            _ => None,
        }
    }

    /// The reason has gone.
    pub(super) fn give_up(&mut self) {
        self.running = None;
    }

    /// Others ask for a view. Whether this replica is to ask for it, too, although it asks for a higher one: the
    /// lowest campaign gathers the component. It does so once, until it sends everything again.
    pub(super) fn joins(&mut self, view: View) -> bool {
        self.view().is_some_and(|own| view < own) && self.answered.insert(view)
    }

    /// What was sent may have been lost. The view to ask for again.
    pub(super) fn repeat(&mut self) -> Option<View> {
        let view = self.view()?;
        self.answered.clear();
        Some(view)
    }

    /// A view was entered, or this replica may not ask for any.
    pub(super) fn end(&mut self) {
        self.running = None;
        self.answered.clear();
        self.gathered.clear();
    }

    // ---- how long it has been waited for ----

    /// Whether a weak quorum asks for the view, or for later ones: from then on it is waited for.
    pub(super) fn note_enough(&mut self, is_enough: bool, now: Instant) {
        if let Some(running) = &mut self.running {
            running.waiting = is_enough.then(|| running.waiting.unwrap_or(now));
        }
    }

    /// Whether the lock is of a view that this replica has not entered, and does not ask for a later one.
    pub(super) fn note_lock_ahead(&mut self, is_ahead: bool, now: Instant) {
        self.lock_ahead_since = is_ahead.then(|| self.lock_ahead_since.unwrap_or(now));
    }

    /// That wait begins anew.
    pub(super) fn forget_lock_ahead(&mut self) {
        self.lock_ahead_since = None;
    }

    /// A wait for a view, after all those that were in vain.
    pub(super) fn doubled(&self, wait_ms: u64) -> u64 {
        wait_ms.saturating_mul(1 << self.doublings.min(DOUBLINGS))
    }

    /// When the view has been waited for in vain. How long that is is worked out only where one is waited for.
    pub(super) fn waited_at(&self, wait_ms: impl FnOnce() -> u64) -> Option<Instant> {
        Some(self.running?.waiting?.after_ms(wait_ms()))
    }

    /// The same for the view of the lock.
    pub(super) fn lock_ahead_at(&self, wait_ms: impl FnOnce() -> u64) -> Option<Instant> {
        Some(self.lock_ahead_since?.after_ms(wait_ms()))
    }

    /// It was in vain: the next view is waited for longer.
    pub(super) fn note_vain(&mut self) {
        self.doublings += 1;
    }

    /// A certificate of the view entered formed, so the timing is good.
    pub(super) fn certified(&mut self) {
        self.doublings = 0;
    }

    /// Since when this replica, as its primary, could begin a view with a weak quorum: since now, if it could not
    /// before.
    pub(super) fn gathered(&mut self, view: View, now: Instant) -> Instant {
        *self.gathered.entry(view).or_insert(now)
    }

    /// When a view is begun with those who ask for it, few as they are, in ms after they were enough. What is past
    /// and did not begin waits for messages, not for time.
    pub(super) fn gathered_at(&self, now: Instant, wait_ms: u64) -> Option<Instant> {
        let ends = self.gathered.values().map(|gathered| gathered.after_ms(wait_ms));
        ends.filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::default().after_ms(ms)
    }

    #[test]
    fn a_view_is_waited_for_as_long_as_enough_ask_for_it_and_longer_after_each_wait_in_vain() {
        let mut campaigning = Campaigning::default();
        let waited_at =
            |campaigning: &Campaigning| campaigning.waited_at(|| campaigning.doubled(100));
        campaigning.note_enough(true, at(0));
        assert_eq!(waited_at(&campaigning), None, "nothing is asked for");
        campaigning.begin(View(1), Why::Suspected);
        campaigning.note_enough(true, at(1));
        campaigning.note_enough(true, at(9));
        assert_eq!(waited_at(&campaigning), Some(at(101)));
        campaigning.note_enough(false, at(10));
        assert_eq!(waited_at(&campaigning), None);
        campaigning.note_vain();
        campaigning.begin(View(2), Why::Waited);
        campaigning.note_enough(true, at(20));
        assert_eq!(waited_at(&campaigning), Some(at(220)));
        campaigning.certified();
        assert_eq!(waited_at(&campaigning), Some(at(120)));
    }

    #[test]
    fn a_lower_campaign_is_joined_once_until_everything_is_sent_again() {
        let mut campaigning = Campaigning::default();
        assert!(!campaigning.joins(View(2)), "nothing is asked for");
        assert_eq!(campaigning.repeat(), None);
        campaigning.begin(View(3), Why::Followed);
        assert!(campaigning.joins(View(2)) && !campaigning.joins(View(2)));
        assert!(!campaigning.joins(View(3)) && !campaigning.joins(View(4)));
        assert_eq!(campaigning.repeat(), Some(View(3)));
        assert!(campaigning.joins(View(2)));
    }

    #[test]
    fn a_campaign_that_is_over_leaves_nothing_but_how_long_views_take() {
        let mut campaigning = Campaigning::default();
        campaigning.begin(View(5), Why::Refuted(View(4)));
        assert_eq!(campaigning.refuted(), Some(View(4)));
        assert_eq!(campaigning.gathered(View(5), at(3)), at(3));
        assert_eq!(campaigning.gathered(View(5), at(7)), at(3));
        assert_eq!(campaigning.gathered_at(at(7), 10), Some(at(13)));
        assert_eq!(campaigning.gathered_at(at(13), 10), None, "it waits for messages");
        campaigning.note_vain();
        campaigning.end();
        assert_eq!((campaigning.view(), campaigning.refuted()), (None, None));
        assert_eq!(campaigning.gathered_at(at(7), 10), None);
        campaigning.note_lock_ahead(true, at(0));
        assert_eq!(campaigning.lock_ahead_at(|| campaigning.doubled(100)), Some(at(200)));
    }
}
