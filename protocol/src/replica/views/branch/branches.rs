//! The histories that are not the own one, slot by slot, and which of the slots are still of use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::trail::{Takes, Trail};
use super::FOLLOWED_A_STEP;
use super::questions::Questions;
use crate::id::{Digest, Instant, ReplicaId, Slot};
use crate::message::{Batch, Linked, Order, Position, SlotEntry};
use crate::replica::disk::Aside;
use crate::replica::time::Turn;
use crate::signature::Signed;

/// A slot of a history that is not the own one.
#[derive(Clone, Debug)]
pub(in crate::replica) struct Side {
    previous: Digest,
    pub(in crate::replica::views) batch: Arc<Batch>,
    pub(in crate::replica::views) order: Option<Signed<Order>>,
    takes: Takes,
}

impl Side {
    pub(in crate::replica) fn new(
        previous: Digest,
        batch: Arc<Batch>,
        weight: u64,
        order: Option<Signed<Order>>,
    ) -> Self {
        let takes = Takes { held: batch.held_bytes() as u64, weight };
        Self { previous, batch, order, takes }
    }

    /// The position before this one, at which it stands.
    pub(super) fn before(&self, at: Position) -> Position {
        Position { slot: Slot(at.slot.0.saturating_sub(1)), hash: self.previous }
    }

    pub(super) fn linked(&self) -> Linked {
        let entry = SlotEntry {
            choices: self.batch.choices,
            requests: self.batch.requests.clone(),
            order: self.order.clone(),
        };
        Linked { previous: self.previous, entry }
    }

    pub(in crate::replica::views) fn aside(&self, at: Position) -> Aside {
        Aside { at, linked: self.linked() }
    }
}

/// A slot that is kept as long as trails go through it.
#[derive(Clone, Debug)]
struct Kept {
    side: Side,
    trails: u32,
}

/// Slots of other histories, and what is being fetched. A hash does not name its slot, so a slot is
/// known by both: what a liar says of a true hash beside a wrong slot lies beside what is true.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Branches {
    slots: BTreeMap<Position, Kept>,
    /// The histories that are wanted, by their ends.
    trails: BTreeMap<Position, Trail>,
    /// One that is not wanted any more, where a longer one may be that goes through it.
    resting: Option<Trail>,
    /// Those whose slots are to be let go.
    leaving: Vec<Trail>,
    questions: Questions,
}

impl Branches {
    pub(in crate::replica) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is nothing to look after.
    pub(in crate::replica) fn is_empty(&self) -> bool {
        self.slots.is_empty()
            && self.trails.is_empty()
            && self.leaving.is_empty()
            && self.resting.is_none()
    }

    // ---- slots ----

    pub(in crate::replica::views) fn get(&self, at: Position) -> Option<&Side> {
        self.slots.get(&at).map(|kept| &kept.side)
    }

    /// A slot has come.
    pub(super) fn insert(&mut self, at: Position, side: Side) {
        match self.slots.get_mut(&at) {
            None => drop(self.slots.insert(at, Kept { side, trails: 0 })),
            Some(known) if known.side.order.is_none() => known.side.order = side.order,
            Some(_) => {}
        }
    }

    /// Takes a trail on by one slot, if that is here.
    pub(super) fn lead_on(&mut self, trail: &mut Trail) {
        if let Some(Kept { side, trails }) = self.slots.get_mut(&trail.below()) {
            *trails += 1;
            trail.push(side.previous, side.takes);
        }
    }

    /// Lets go of the slots that no trail goes through any more, as far as there is room in this turn.
    pub(super) fn let_go(&mut self, turn: &mut Turn) {
        while let Some(mut trail) = self.leaving.pop() {
            while let Some(at) = trail.pop() {
                if let Some(kept) = self.slots.get_mut(&at) {
                    kept.trails = kept.trails.saturating_sub(1);
                    if kept.trails == 0 {
                        self.slots.remove(&at);
                    }
                }
                if trail.len().is_multiple_of(FOLLOWED_A_STEP) && !turn.take() {
                    self.leaving.push(trail);
                    return;
                }
            }
        }
    }

    // ---- trails ----

    pub(in crate::replica::views) fn trail(&self, end: Position) -> Option<&Trail> {
        self.trails.get(&end)
    }

    pub(super) fn trails(&self) -> impl Iterator<Item = &Trail> {
        self.trails.values()
    }

    /// The ends of all histories that are wanted.
    pub(super) fn ends(&self) -> Vec<Position> {
        self.trails.keys().copied().collect()
    }

    /// Those of the ones that go on with this position.
    pub(super) fn ends_above(&self, below: Position) -> Vec<Position> {
        let waiting = self.trails.iter().filter(|(_, trail)| trail.below() == below);
        waiting.map(|(end, _)| *end).collect()
    }

    /// Takes a trail out, to be put back, or [let go](Branches::leave).
    pub(in crate::replica::views) fn take(&mut self, end: Position) -> Option<Trail> {
        self.trails.remove(&end)
    }

    pub(in crate::replica::views) fn put_back(&mut self, trail: Trail) {
        self.trails.insert(trail.end(), trail);
    }

    /// A history with all its slots, lowest first, which are of the own one.
    pub(in crate::replica) fn put(&mut self, end: Position, slots: Vec<(Position, Side)>) {
        self.leaving.extend(self.trails.remove(&end));
        let mut trail = Trail::new(end, None);
        for (at, side) in slots.into_iter().rev() {
            self.insert(at, side);
            self.lead_on(&mut trail);
        }
        self.trails.insert(end, trail);
    }

    /// A history is wanted on this one's word alone, or on more than that.
    pub(super) fn rest_on(&mut self, end: Position, word: Option<ReplicaId>) {
        if let Some(trail) = self.trails.get_mut(&end) {
            trail.rest_on(word);
        }
    }

    /// Only these are wanted. The longest of what goes rests for a while: a head moves on, and who wishes for the
    /// next one finds below it what is here already. Answers on whose words alone those were wanted of which
    /// something had come.
    pub(super) fn retain(&mut self, wanted: &BTreeSet<Position>) -> Vec<ReplicaId> {
        let mut in_vain = Vec::new();
        for (_, trail) in self.trails.extract_if(.., |end, _| !wanted.contains(end)) {
            in_vain.extend(trail.word().filter(|_| trail.len() > 0));
            let resting = self.resting.take();
            let is_longer = resting.as_ref().is_none_or(|resting| resting.len() < trail.len());
            let (stays, goes) =
                if is_longer { (Some(trail), resting) } else { (resting, Some(trail)) };
            self.resting = stays;
            self.leaving.extend(goes);
        }
        in_vain
    }

    /// Nothing more is fetched that could go through what rests.
    pub(super) fn end_rest(&mut self) {
        self.leaving.extend(self.resting.take());
    }

    /// Nobody wants this history any more.
    pub(in crate::replica::views) fn leave(&mut self, trail: Trail) {
        self.leaving.push(trail);
    }

    /// Nothing is wanted any more. What is here goes by and by.
    pub(in crate::replica::views) fn clear(&mut self) {
        self.leaving.extend(std::mem::take(&mut self.trails).into_values());
        self.leaving.extend(self.resting.take());
        self.questions.clear();
    }

    // ---- questions ----

    pub(super) fn questions_mut(&mut self) -> &mut Questions {
        &mut self.questions
    }

    /// Whether somebody was asked for this position and what is below it, and it is still waited for.
    pub(super) fn wait_for(&self, below: Position) -> bool {
        self.questions.is_asked(below) && self.trails().any(|trail| trail.below() == below)
    }

    /// When that was asked for which is waited for longest.
    pub(super) fn oldest_asked(&self) -> Option<Instant> {
        self.questions.oldest()
    }

    /// How often in a row somebody was asked for the next slots of a history and did not answer.
    pub(in crate::replica::views) fn asked_in_vain(&self, end: Position) -> usize {
        self.questions.in_vain(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::WallTime;
    use crate::message::NonDeterminism;

    /// The hash at a slot of the history `of`. Up to slot 4 all of them are one.
    fn at(of: u8, slot: u64) -> Position {
        let of = if slot <= 4 { 0 } else { of };
        let slot_byte = u8::try_from(slot).expect("small");
        let mut hash = [of; 32];
        hash[0] = slot_byte;
        Position { slot: Slot(slot), hash: Digest(hash) }
    }

    fn side(of: u8, slot: u64) -> Side {
        let choices =
            NonDeterminism { time: WallTime(slot), seed: [0; 16], ..NonDeterminism::default() };
        let batch = Arc::new(Batch { choices, requests: Vec::new() });
        Side::new(at(of, slot - 1).hash, batch, 1, None)
    }

    /// Follows the history `of` from its end at `slot` down to slot 1.
    fn follow(branches: &mut Branches, of: u8, slot: u64) {
        let mut trail = Trail::new(at(of, slot), Some(ReplicaId(of)));
        for slot in (1..=slot).rev() {
            branches.insert(at(of, slot), side(of, slot));
            branches.lead_on(&mut trail);
        }
        assert_eq!(trail.len(), slot);
        branches.put_back(trail);
    }

    fn turn(steps: u64) -> Turn {
        let mut turn = Turn::default();
        turn.begin(steps);
        turn
    }

    #[test]
    fn a_slot_stays_as_long_as_a_trail_goes_through_it() {
        let mut branches = Branches::default();
        follow(&mut branches, 1, 6);
        follow(&mut branches, 2, 8);
        assert_eq!(branches.len(), 4 + 2 + 4);
        let first = branches.take(at(1, 6)).expect("it was put back");
        branches.leave(first);
        branches.let_go(&mut turn(9));
        assert_eq!(branches.len(), 8);
        assert!(branches.get(at(1, 5)).is_none() && branches.get(at(1, 4)).is_some());
        branches.clear();
        branches.let_go(&mut turn(9));
        assert!(branches.is_empty());
    }

    #[test]
    fn the_longest_of_what_is_not_wanted_rests_until_nothing_could_go_through_it() {
        let mut branches = Branches::default();
        (1..=3).for_each(|of| follow(&mut branches, of, 5 + u64::from(of)));
        let wanted = BTreeSet::from([at(1, 6)]);
        assert_eq!(branches.retain(&wanted), [ReplicaId(2), ReplicaId(3)]);
        branches.let_go(&mut turn(9));
        assert!(branches.get(at(2, 7)).is_none() && branches.get(at(3, 8)).is_some());
        assert_eq!(branches.ends(), [at(1, 6)]);
        branches.end_rest();
        branches.let_go(&mut turn(9));
        assert!(branches.get(at(3, 8)).is_none() && branches.get(at(1, 6)).is_some());
    }

    #[test]
    fn slots_are_let_go_in_turns() {
        let mut branches = Branches::default();
        follow(&mut branches, 1, 2 * FOLLOWED_A_STEP + 1);
        branches.clear();
        branches.let_go(&mut turn(1));
        assert_eq!(branches.len() as u64, FOLLOWED_A_STEP);
        assert!(!branches.is_empty());
        branches.let_go(&mut turn(9));
        assert!(branches.is_empty());
    }
}
