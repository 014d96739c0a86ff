//! What was asked for and has not come yet, of the own history and of what waits.

use std::collections::BTreeMap;

use crate::id::{Instant, ReplicaId, Slot, View};
use crate::replica::time::{Pace, Question};

/// Filling more slots than this, a replica neither votes on each nor answers for each: its peers
/// and clients are long past them.
const FILL_QUIETLY: usize = 8;

/// So many answers in a row that give little are no chance: a large slot may have had no room in one.
const LITTLE: u32 = 2;

/// Where the asking stands.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Fetching {
    slots: Option<SlotsMissing>,
    requests: Option<RequestsMissing>,
    /// From which slot on each was asked for them last, while there is no answer.
    asked_from: BTreeMap<ReplicaId, Slot>,
    /// So many answers in a row gave little of what was asked for.
    little: u32,
    /// How often somebody was asked beside another.
    beside: usize,
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
    /// Who was asked, until there is an answer.
    asked: Option<ReplicaId>,
}

/// The order at the head was looked at for requests that are missing.
#[derive(Clone, Copy, Debug)]
struct RequestsMissing {
    /// For which slot of which view.
    of: (View, Slot),
    at: Instant,
    turn: usize,
    /// Who was asked for them, until there is an answer.
    asked: Option<ReplicaId>,
}

impl Fetching {
    // ---- slots of the own history ----

    /// Something shows that slots are missing. Mostly they are on their way.
    pub(super) fn note_behind(&mut self, now: Instant) {
        self.slots.get_or_insert(SlotsMissing { since: now, turn: None, asked: None });
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
        let SlotsMissing { since, turn, .. } = self.slots?;
        Some(since.after_ms(if turn.is_none() { grace_ms } else { wait_ms() }))
    }

    /// They are asked for, of the next one. Answers whose turn it is.
    pub(super) fn ask_for_slots(&mut self, now: Instant) -> usize {
        if let Some(asked) = self.slots.and_then(|slots| slots.asked) {
            self.pace.missed_of(asked, Question::Slots, now);
        }
        let before = self.slots.and_then(|slots| slots.turn);
        let turn = before.map_or(0, |turn| turn + 1);
        self.slots = Some(SlotsMissing { since: now, turn: Some(turn), asked: None });
        turn
    }

    /// This one is asked for those from here on.
    pub(super) fn asks_for_slots_of(&mut self, whom: ReplicaId, from: Slot, now: Instant) {
        let turn = self.slots.and_then(|slots| slots.turn).or(Some(0));
        self.slots = Some(SlotsMissing { since: now, turn, asked: Some(whom) });
        self.asks_for_slots_beside(whom, from, now);
    }

    /// So is this one, perhaps beside another.
    pub(super) fn asks_for_slots_beside(&mut self, whom: ReplicaId, from: Slot, now: Instant) {
        self.asked_from.insert(whom, from);
        self.pace.asks(whom, Question::Slots, now);
    }

    /// Who of these is to be asked beside another. Nobody who was asked less than `wait_ms` ago and has not answered.
    pub(super) fn next_beside(
        &mut self,
        others: Vec<ReplicaId>,
        wait_ms: u64,
        now: Instant,
    ) -> Option<ReplicaId> {
        self.beside = self.beside.wrapping_add(1);
        let turn = self.beside.checked_rem(others.len())?;
        let whom = others.get(turn).copied()?;
        let asked = self.pace.asked_at(whom, Question::Slots);
        asked.is_none_or(|asked| asked.after_ms(wait_ms) <= now).then_some(whom)
    }

    /// Slots came of this one, from here on. Answers whether these are what it was asked for last.
    pub(super) fn note_slots(&mut self, by: ReplicaId, from: Slot) -> bool {
        let is_answer = self.asked_from.get(&by) == Some(&from);
        if is_answer {
            self.asked_from.remove(&by);
            if let Some(slots) = &mut self.slots {
                slots.asked.take_if(|asked| *asked == by);
            }
        }
        is_answer
    }

    /// They were right: they say how long that takes. Answers how much this one was asked for, where it was asked.
    pub(super) fn measure_slots(&mut self, by: ReplicaId, now: Instant) -> Option<u32> {
        self.pace.answered(by, Question::Slots, now)
    }

    /// They were what it was asked for, and wrong.
    pub(super) fn refuse_slots(&mut self, by: ReplicaId) {
        self.pace.take_back(by, Question::Slots);
        self.pace.forget(by);
    }

    /// Slots were of use. They were as many as were asked for, or not.
    pub(super) fn note_gift(&mut self, is_much: bool) {
        self.little = if is_much { 0 } else { self.little.saturating_add(1) };
    }

    /// Whether they never are many.
    pub(super) fn is_given_little(&self) -> bool {
        self.little >= LITTLE
    }

    /// Whether somebody was asked for slots and has not answered yet.
    pub(super) fn waits_for_slots(&self) -> bool {
        self.slots.is_some_and(|slots| slots.asked.is_some())
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
        self.requests = Some(RequestsMissing { of, at: now, turn, asked: None });
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

    /// This one is asked.
    pub(super) fn asks_for_requests_of(&mut self, whom: ReplicaId, now: Instant) {
        if let Some(requests) = &mut self.requests {
            requests.asked = Some(whom);
            self.pace.asks(whom, Question::Requests, now);
        }
    }

    /// Requests came of this one, perhaps such as it passes on, while those of this order may be missing.
    pub(in crate::replica) fn note_requests(
        &mut self,
        by: ReplicaId,
        of: (View, Slot),
        now: Instant,
    ) {
        let missing = self.requests.as_mut().filter(|requests| requests.of == of);
        let asked = missing.and_then(|requests| requests.asked.take_if(|asked| *asked == by));
        if asked.is_some() {
            self.pace.answered(by, Question::Requests, now);
        }
    }

    // ---- answers ----

    /// How long they take.
    pub(in crate::replica) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// This one is asked for a branch.
    pub(in crate::replica) fn asks_for_branch_of(&mut self, whom: ReplicaId, now: Instant) {
        self.pace.asks(whom, Question::Branch, now);
    }

    /// A branch came.
    pub(in crate::replica) fn note_branch(&mut self, by: ReplicaId, now: Instant) {
        self.pace.answered(by, Question::Branch, now);
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
        fetching.asks_for_slots_of(ReplicaId(2), Slot(7), at(115));
        assert!(!fetching.note_slots(ReplicaId(3), Slot(7)));
        assert_eq!(fetching.measure_slots(ReplicaId(3), at(116)), None);
        assert!(!fetching.note_slots(ReplicaId(2), Slot(6)), "not what it was asked for");
        assert!(fetching.waits_for_slots());
        assert_eq!(fetching.slots_at(GRACE, || WAIT), Some(at(115 + WAIT)));
        let room = fetching.pace().room();
        assert!(fetching.note_slots(ReplicaId(2), Slot(7)));
        assert_eq!(fetching.measure_slots(ReplicaId(2), at(117)), Some(room));
        assert!(!fetching.waits_for_slots());
        let room = fetching.pace().room();
        assert_eq!(fetching.ask_for_slots(at(220)), 2);
        assert_eq!(fetching.pace().room(), room, "there was an answer");
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
    fn others_are_asked_beside_one_after_the_other_and_none_twice_at_once() {
        let mut fetching = Fetching::default();
        let others = || vec![ReplicaId(1), ReplicaId(2)];
        let mut ask = |ms: u64| {
            let whom = fetching.next_beside(others(), WAIT, at(ms));
            if let Some(whom) = whom {
                fetching.asks_for_slots_beside(whom, Slot(1), at(ms));
            }
            whom.map(|whom| whom.0)
        };
        let asked: Vec<_> = (0..4).map(&mut ask).collect();
        assert_eq!(asked, [Some(2), Some(1), None, None]);
        assert_eq!(
            [WAIT, WAIT + 1].map(&mut ask),
            [Some(2), Some(1)],
            "what was lost is asked for again"
        );
        assert_eq!(fetching.next_beside(Vec::new(), WAIT, at(0)), None);
    }

    #[test]
    fn an_answer_that_is_of_no_use_measures_nothing() {
        let mut fetching = Fetching::default();
        let liar = ReplicaId(1);
        for is_right in [true, false] {
            fetching.asks_for_slots_of(liar, Slot(1), at(0));
            assert!(fetching.note_slots(liar, Slot(1)));
            if is_right {
                fetching.measure_slots(liar, at(1));
            } else {
                fetching.refuse_slots(liar);
            }
            assert_eq!(fetching.pace().is_known(0), is_right);
        }
    }

    #[test]
    fn what_is_passed_on_measures_nothing() {
        let mut fetching = Fetching::default();
        let (asked, of) = (ReplicaId(1), (View(0), Slot(1)));
        fetching.look_at(of, at(0));
        fetching.ask_for_requests(false);
        fetching.asks_for_requests_of(asked, at(0));
        // It had nothing, and has something else much later.
        fetching.note_requests(asked, (View(0), Slot(7)), at(600_000));
        assert!(!fetching.pace().is_known(0));
        fetching.note_requests(ReplicaId(2), of, at(600_000));
        assert!(!fetching.pace().is_known(0));
        fetching.note_requests(asked, of, at(50));
        assert!(fetching.pace().is_known(0));
    }

    #[test]
    fn what_does_not_come_is_waited_for_longer() {
        let mut fetching = Fetching::default();
        let room = fetching.pace().room();
        fetching.note_behind(at(0));
        fetching.ask_for_slots(at(0));
        fetching.asks_for_slots_of(ReplicaId(1), Slot(1), at(0));
        assert_eq!(fetching.pace().room(), room, "nobody was asked before");
        fetching.ask_for_slots(at(WAIT));
        assert!(fetching.pace().room() < room);
        fetching.begin_filling(FILL_QUIETLY);
        assert!(!fetching.is_filling());
        fetching.begin_filling(FILL_QUIETLY + 1);
        assert!(fetching.is_filling() && fetching.end_filling() && !fetching.is_filling());
    }
}
