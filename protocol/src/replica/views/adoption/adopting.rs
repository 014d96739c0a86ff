//! A history that was adopted, or the own one, while it is not executed to its end yet.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::trail::Trail;
use super::REQUESTS_A_STEP;
use super::preparation::Found;
use crate::history::Entry;
use crate::id::{RequestName, Slot};
use crate::message::{Position, Results, SignedRequest};

/// Where the slots are that are to be executed.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum Source {
    /// Beside the own history.
    Branch(Trail),
    /// They were the own history's, and will be again: what is undone so far, the lowest last. Of some the state was
    /// taken.
    Undone { end: Position, entries: Vec<Entry>, taken: BTreeSet<Slot> },
}

#[derive(Clone, Debug)]
struct UnderWay {
    source: Source,
    /// Up to here the old history stays; what it has above is undone first.
    kept: Slot,
    /// What is to be executed; the orphans that are not among what waits yet; and what undone requests came to, as far as
    /// that is not at hand yet.
    found: Found,
    /// Whether requests were taken in unseen meanwhile, or a state came with some executed.
    unseen: bool,
    /// Whether it took more than one event.
    is_long: bool,
}

/// What is done next of it.
pub(super) enum Step {
    /// Nothing in this turn.
    Wait,
    /// Slots are undone, down to this one in the end.
    Undo(Slot),
    /// Orphans are put back among what waits.
    PutBack(Vec<Arc<SignedRequest>>),
    /// It is remembered what undone requests came to.
    Remember(Vec<(RequestName, Results)>),
    /// A slot is executed that lay beside the own history.
    Execute(Position),
    /// A slot is executed again.
    ExecuteAgain(Entry),
    /// It is executed to its end.
    End(Ended),
}

/// A history that is executed to its end.
pub(super) struct Ended {
    /// That of the slots that lay beside the own history, if they did.
    pub(super) trail: Option<Trail>,
    pub(super) unseen: bool,
    pub(super) is_long: bool,
}

/// One history at most is executed in turns at a time.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Adopting {
    under_way: Option<UnderWay>,
}

impl Adopting {
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// The end of it.
    pub(super) fn end(&self) -> Option<Position> {
        self.under_way.as_ref().map(|under_way| under_way.source.end())
    }

    /// Whether the state after this slot was taken when it was executed before.
    pub(in crate::replica) fn was_taken(&self, slot: Slot) -> bool {
        let source = self.under_way.as_ref().map(|under_way| &under_way.source);
        matches!(source, Some(Source::Undone { taken, .. }) if taken.contains(&slot))
    }

    /// Whether this request is among what is to be executed.
    pub(super) fn executes(&self, name: &RequestName) -> bool {
        self.under_way.as_ref().is_some_and(|under_way| under_way.found.names.contains_key(name))
    }

    /// Whether this request is among what is to be executed, or an orphan.
    pub(in crate::replica) fn holds(&self, name: &RequestName) -> bool {
        let is_orphan = |under_way: &UnderWay| {
            under_way.found.orphans.iter().any(|request| request.body().name() == *name)
        };
        self.executes(name) || self.under_way.as_ref().is_some_and(is_orphan)
    }

    /// Requests are taken in of which it is not known whether they are executed.
    pub(super) fn note_unseen(&mut self) {
        if let Some(under_way) = &mut self.under_way {
            under_way.unseen = true;
        }
    }

    /// A history was adopted that lay beside the own one, whose slots above `kept` are undone.
    pub(super) fn begin(&mut self, trail: Trail, kept: Slot, found: Found, unseen: bool) {
        self.start(Source::Branch(trail), kept, found, unseen);
    }

    /// The own history, which ends here, is executed again above `kept`.
    pub(super) fn begin_again(&mut self, end: Position, kept: Slot) {
        let source = Source::Undone { end, entries: Vec::new(), taken: BTreeSet::new() };
        self.start(source, kept, Found::default(), false);
    }

    /// # Panics
    /// In the middle of another one, of which something would be lost.
    fn start(&mut self, source: Source, kept: Slot, found: Found, unseen: bool) {
        assert!(!self.is_under_way(), "I5: a history is adopted in the middle of another one");
        self.under_way = Some(UnderWay { source, kept, found, unseen, is_long: false });
    }

    /// What is done next, where the history ends in `head` and there is room for so many steps; `None` where there is
    /// nothing to do.
    pub(super) fn next(&mut self, head: Slot, room: u64) -> Option<Step> {
        let under_way = self.under_way.as_mut()?;
        if room == 0 {
            under_way.is_long = true;
            return Some(Step::Wait);
        }
        let count = usize::try_from(room.saturating_mul(REQUESTS_A_STEP)).unwrap_or(usize::MAX);
        let Found { orphans, results, .. } = &mut under_way.found;
        if head > under_way.kept {
            Some(Step::Undo(under_way.kept))
        } else if !orphans.is_empty() {
            Some(Step::PutBack(take_last(orphans, count)))
        } else if !results.is_empty() {
            Some(Step::Remember(take_last(results, count)))
        } else if head < under_way.source.end().slot {
            // Slots go on one upon the other from where the old history was kept.
            under_way.kept = head.next();
            Some(under_way.source.slot(head.next()))
        } else {
            let UnderWay { source, unseen, is_long, .. } = self.under_way.take()?;
            let trail = match source {
                Source::Branch(trail) => Some(trail),
                Source::Undone { .. } => None,
            };
            Some(Step::End(Ended { trail, unseen, is_long }))
        }
    }

    /// Whether what is undone is executed again.
    pub(super) fn is_again(&self) -> bool {
        let source = self.under_way.as_ref().map(|under_way| &under_way.source);
        matches!(source, Some(Source::Undone { .. }))
    }

    /// These slots were undone, lowest first, after some of which the state was taken, and will be executed again.
    pub(super) fn keep_undone(&mut self, undone: Vec<Entry>, states: impl Iterator<Item = Slot>) {
        if let Some(UnderWay { source: Source::Undone { entries, taken, .. }, found, .. }) =
            &mut self.under_way
        {
            let requests = undone.iter().flat_map(|entry| &entry.batch.requests);
            found.names.extend(requests.map(|request| (request.body().name(), request.digest())));
            entries.extend(undone.into_iter().rev());
            taken.extend(states);
        }
    }
}

impl Source {
    fn end(&self) -> Position {
        match self {
            Self::Branch(trail) => trail.end(),
            Self::Undone { end, .. } => *end,
        }
    }

    /// The next slot of it is executed.
    fn slot(&mut self, slot: Slot) -> Step {
        match self {
            Self::Branch(trail) => {
                let hash = trail.hash_at(slot).expect("a whole path has all slots");
                Step::Execute(Position { slot, hash })
            }
            Self::Undone { entries, .. } => {
                Step::ExecuteAgain(entries.pop().expect("it was undone"))
            }
        }
    }
}

fn take_last<T>(all: &mut Vec<T>, count: usize) -> Vec<T> {
    all.split_off(all.len().saturating_sub(count))
}

#[cfg(test)]
mod tests {
    use super::super::super::trail::Takes;
    use super::*;
    use crate::id::{Digest, WallTime};
    use crate::message::{Batch, NonDeterminism};

    fn at(slot: u64) -> Position {
        Position { slot: Slot(slot), hash: Digest([u8::try_from(slot).expect("small"); 32]) }
    }

    /// Slots 4 and 5.
    fn trail() -> Trail {
        let mut trail = Trail::new(at(5), None);
        trail.push(at(4).hash, Takes::default());
        trail.push(at(3).hash, Takes::default());
        trail
    }

    fn entry(slot: u64) -> Entry {
        let choices =
            NonDeterminism { time: WallTime(slot), seed: [0; 16], ..NonDeterminism::default() };
        let batch = Arc::new(Batch { choices, requests: Vec::new() });
        Entry { hash: at(slot).hash, batch, order: None, results: Vec::new() }
    }

    #[test]
    fn what_the_old_history_has_above_is_undone_and_then_slots_are_executed_one_upon_the_other() {
        let mut adopting = Adopting::default();
        assert!(adopting.next(Slot(7), 9).is_none());
        adopting.begin(trail(), Slot(3), Found::default(), true);
        assert_eq!(adopting.end(), Some(at(5)));
        assert!(matches!(adopting.next(Slot(7), 9), Some(Step::Undo(Slot(3)))));
        assert!(matches!(adopting.next(Slot(5), 9), Some(Step::Undo(Slot(3)))));
        assert!(matches!(adopting.next(Slot(3), 9), Some(Step::Execute(next)) if next == at(4)));
        assert!(matches!(adopting.next(Slot(4), 9), Some(Step::Execute(next)) if next == at(5)));
        let Some(Step::End(ended)) = adopting.next(Slot(5), 9) else { panic!("it is at its end") };
        assert!(ended.trail.is_some() && ended.unseen && !ended.is_long);
        assert!(!adopting.is_under_way() && adopting.end().is_none());
    }

    #[test]
    fn what_was_undone_is_executed_again_lowest_first() {
        let mut adopting = Adopting::default();
        adopting.begin_again(at(7), Slot(4));
        assert!(adopting.is_again());
        adopting.keep_undone(vec![entry(6), entry(7)], [Slot(6)].into_iter());
        adopting.keep_undone(vec![entry(5)], std::iter::empty());
        assert!(adopting.was_taken(Slot(6)) && !adopting.was_taken(Slot(5)));
        for slot in 5..=7 {
            let step = adopting.next(Slot(slot - 1), 1);
            assert!(matches!(step, Some(Step::ExecuteAgain(next)) if next.hash == at(slot).hash));
        }
        assert!(matches!(adopting.next(Slot(7), 1), Some(Step::End(Ended { trail: None, .. }))));
    }

    #[test]
    fn without_room_it_waits_for_the_next_turn_and_is_long() {
        let mut adopting = Adopting::default();
        adopting.begin_again(at(4), Slot(4));
        assert!(matches!(adopting.next(Slot(4), 0), Some(Step::Wait)));
        assert!(adopting.is_under_way());
        assert!(matches!(adopting.next(Slot(4), 1), Some(Step::End(Ended { is_long: true, .. }))));
    }

    #[test]
    #[should_panic(expected = "I5: a history is adopted in the middle of another one")]
    fn nothing_is_adopted_in_the_middle_of_another_adoption() {
        let mut adopting = Adopting::default();
        adopting.begin_again(at(4), Slot(3));
        adopting.begin(trail(), Slot(3), Found::default(), false);
    }
}
