//! What was asked for and has not come yet, of the own history and of what waits.

use crate::id::{Instant, ReplicaId, Slot, View};
use crate::replica::time::Pace;

/// Filling more slots than this, a replica neither votes on each nor answers for each: its peers
/// and clients are long past them.
const FILL_QUIETLY: usize = 8;

/// Where the asking stands.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Fetching {
    slots: Option<SlotsMissing>,
    requests: Option<RequestsMissing>,
    filling: bool,
    /// How long answers with history take.
    pace: Pace,
}

/// Slots are known to be missing.
#[derive(Clone, Copy, Debug)]
struct SlotsMissing {
    /// Since when, or when they were asked for last. How long that is waited for is looked up each time: a line may
    /// be faster by now than it was.
    since: Instant,
    /// Whose turn it was to be asked for them; nobody's yet, at first.
    turn: Option<usize>,
}

/// The order at the head was looked at for requests that are missing.
#[derive(Clone, Copy, Debug)]
struct RequestsMissing {
    /// For which slot of which view.
    of: (View, Slot),
    at: Instant,
    turn: usize,
}

impl Fetching {
    // ---- slots of the own history ----

    /// Something shows that slots are missing. Mostly they are on their way.
    pub(super) fn note_behind(&mut self, now: Instant) {
        self.slots.get_or_insert(SlotsMissing { since: now, turn: None });
    }

    /// None are.
    pub(super) fn note_up_to_date(&mut self) {
        self.slots = None;
    }

    /// Whether some are known to be.
    pub(in crate::replica) fn asks_for_slots(&self) -> bool {
        self.slots.is_some()
    }

    /// When to ask for them: at first after `grace_ms`, and again after `wait_ms`.
    pub(super) fn slots_at(&self, grace_ms: u64, wait_ms: impl FnOnce() -> u64) -> Option<Instant> {
        let SlotsMissing { since, turn } = self.slots?;
        Some(since.after_ms(if turn.is_none() { grace_ms } else { wait_ms() }))
    }

    /// They are asked for, and whoever was asked before did not answer in time. Answers whose turn it is.
    pub(super) fn ask_for_slots(&mut self, now: Instant) -> usize {
        let before = self.slots.and_then(|slots| slots.turn);
        if before.is_some() {
            self.pace.missed();
        }
        let turn = before.map_or(0, |turn| turn + 1);
        self.slots = Some(SlotsMissing { since: now, turn: Some(turn) });
        turn
    }

    /// Whoever was of use is asked for more. Should that not come, that is a miss.
    pub(super) fn ask_on_for_slots(&mut self, now: Instant) {
        self.slots = Some(SlotsMissing { since: now, turn: Some(0) });
    }

    // ---- requests of the order at the head ----

    /// When the order of this slot was looked at last for what it lacks.
    pub(super) fn looked_at(&self, of: (View, Slot)) -> Option<Instant> {
        self.requests.filter(|requests| requests.of == of).map(|requests| requests.at)
    }

    /// It is looked at. `true` where it was before.
    pub(super) fn look_at(&mut self, of: (View, Slot), now: Instant) -> bool {
        let is_again = self.looked_at(of).is_some();
        let turn = self.requests.map_or(0, |requests| requests.turn);
        self.requests = Some(RequestsMissing { of, at: now, turn });
        is_again
    }

    /// What it lacks is asked for, perhaps again. Answers whose turn it is.
    pub(super) fn ask_for_requests(&mut self, is_again: bool) -> usize {
        if is_again {
            self.pace.missed();
        }
        let Some(requests) = &mut self.requests else { return 0 };
        // The primary has what it has ordered; the others may, and say nothing where they have not.
        requests.turn = if is_again { requests.turn + 1 } else { 0 };
        requests.turn
    }

    // ---- answers ----

    /// How long they take.
    pub(in crate::replica) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Somebody is asked.
    pub(super) fn asks(&mut self, whom: ReplicaId, now: Instant) {
        self.pace.asks(whom, now);
    }

    /// An answer came.
    pub(in crate::replica) fn answered(&mut self, by: ReplicaId, now: Instant) {
        self.pace.answered(by, now);
    }

    /// One did not come in time.
    pub(in crate::replica) fn missed(&mut self) {
        self.pace.missed();
    }

    /// So many slots have come and are executed now.
    pub(super) fn begin_filling(&mut self, slots: usize) {
        self.filling = slots > FILL_QUIETLY;
    }

    /// They are. `true` where it was a long stretch.
    pub(super) fn end_filling(&mut self) -> bool {
        std::mem::take(&mut self.filling)
    }

    /// Whether a long stretch of old slots is being executed.
    pub(in crate::replica) fn is_filling(&self) -> bool {
        self.filling
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: u64 = 10;
    const WAIT: u64 = 100;

    fn at(ms: u64) -> Instant {
        Instant::default().after_ms(ms)
    }

    #[test]
    fn slots_are_waited_for_a_little_before_anybody_is_asked() {
        let mut fetching = Fetching::default();
        assert_eq!(fetching.slots_at(GRACE, || WAIT), None);
        fetching.note_behind(at(5));
        fetching.note_behind(at(7));
        assert_eq!(fetching.slots_at(GRACE, || WAIT), Some(at(5 + GRACE)));
        assert_eq!(fetching.ask_for_slots(at(15)), 0);
        assert_eq!(fetching.slots_at(GRACE, || WAIT), Some(at(15 + WAIT)));
        assert_eq!(fetching.ask_for_slots(at(115)), 1);
        fetching.ask_on_for_slots(at(120));
        assert_eq!(fetching.ask_for_slots(at(220)), 1, "it was of use, and is no more");
        fetching.note_up_to_date();
        fetching.note_behind(at(300));
        assert_eq!(fetching.slots_at(GRACE, || WAIT), Some(at(300 + GRACE)));
    }

    #[test]
    fn the_requests_of_each_order_are_asked_of_the_primary_first() {
        let mut fetching = Fetching::default();
        let (one, next) = ((View(0), Slot(1)), (View(0), Slot(2)));
        assert_eq!(fetching.looked_at(one), None);
        assert!(!fetching.look_at(one, at(0)));
        assert_eq!(fetching.ask_for_requests(false), 0);
        assert!(fetching.look_at(one, at(100)));
        assert_eq!(fetching.ask_for_requests(true), 1);
        assert_eq!((fetching.looked_at(one), fetching.looked_at(next)), (Some(at(100)), None));
        assert!(!fetching.look_at(next, at(200)));
        assert_eq!(fetching.ask_for_requests(false), 0);
    }

    #[test]
    fn what_does_not_come_is_waited_for_longer() {
        let mut fetching = Fetching::default();
        let room = fetching.pace().room();
        fetching.note_behind(at(0));
        fetching.ask_for_slots(at(0));
        assert_eq!(fetching.pace().room(), room, "nobody was asked before");
        fetching.ask_for_slots(at(WAIT));
        assert!(fetching.pace().room() < room);
        fetching.begin_filling(FILL_QUIETLY);
        assert!(!fetching.is_filling());
        fetching.begin_filling(FILL_QUIETLY + 1);
        assert!(fetching.is_filling() && fetching.end_filling() && !fetching.is_filling());
    }
}
