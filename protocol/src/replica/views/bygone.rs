//! Positions that the own history in memory does not hold: below it, and of histories that were abandoned.
//!
//! Whoever read a history, or wrote to it, may ask later whether the present one *includes* it: whether every request up to
//! that position is executed in it (4.12). Of what was abandoned here that is known: its requests are orphans until they are
//! executed again, so once none is left all of them are. Of what was never here nothing is known, nor after a start: this is
//! kept in memory only.

use std::collections::{BTreeMap, VecDeque};

use crate::id::{Digest, Slot};
use crate::message::Position;

/// So many hashes are remembered of slots below the history, and so many of abandoned ones; besides, those that were below a
/// history, and final in it, when a state last took its place.
const HASHES_MAX: usize = 1 << 16;

/// Since when the own history includes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::replica) enum Inclusion {
    /// After this slot, and after each later one.
    Since(Slot),
    /// Not all of it is executed yet.
    NotYet,
    /// That is not known here.
    Unknown,
}

impl Inclusion {
    /// Of both together.
    pub(in crate::replica) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Since(one), Self::Since(other)) => Self::Since(one.max(other)),
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            _ => Self::NotYet,
        }
    }
}

/// A stretch of a history that was abandoned.
#[derive(Clone, Copy, Debug)]
struct Left {
    /// The slot of the own history after which no orphan was left.
    since: Option<Slot>,
    /// Of so many of its slots the hashes are remembered.
    remembered: usize,
}

/// Final slots in a row.
#[derive(Clone, Debug, Default)]
struct Settled {
    first: Slot,
    hashes: Vec<Digest>,
    /// They are included after this slot.
    since: Slot,
}

/// The place of a slot in a row that begins with another one.
fn place(first: Slot, slot: Slot) -> Option<usize> {
    usize::try_from(slot.0.checked_sub(first.0)?).ok()
}

/// What is remembered of them.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Bygone {
    /// Of the slots right below the history's base, lowest first. They are final.
    below: VecDeque<Digest>,
    /// What was final when the last state took the place of a history.
    settled: Settled,
    /// What was abandoned, by when.
    left: BTreeMap<u64, Left>,
    /// In which of these a position was, the last time.
    positions: BTreeMap<Position, u64>,
    /// The same, the oldest first.
    oldest: VecDeque<(Position, u64)>,
    /// How many stretches were abandoned.
    count: u64,
    /// Whether orphans are waited for.
    waits: bool,
}

impl Bygone {
    pub(in crate::replica) fn len(&self) -> usize {
        self.below.len() + self.settled.hashes.len() + self.oldest.len()
    }

    /// The base of the history rises: these were the hashes at it and above, in a row.
    pub(in crate::replica) fn pass(&mut self, hashes: impl IntoIterator<Item = Digest>) {
        self.below.extend(hashes);
        let over = self.below.len().saturating_sub(HASHES_MAX);
        self.below.drain(..over);
    }

    /// The own history is abandoned above `kept`, where it has these hashes, in a row. What it included only above that is
    /// included again when all orphans are executed.
    pub(in crate::replica) fn leave(
        &mut self,
        kept: Slot,
        hashes: impl IntoIterator<Item = Digest>,
    ) {
        for left in self.left.values_mut() {
            left.since = left.since.filter(|since| *since <= kept);
        }
        self.remember(kept.next(), hashes);
        self.waits = true;
    }

    /// The whole own history is given up for a state: its base with what lies below it, and these hashes above that. What was
    /// stable is in the state, up to `stable`.
    pub(in crate::replica) fn leave_for_state(
        &mut self,
        base: Position,
        stable: Slot,
        above: Vec<Digest>,
    ) {
        let below = std::mem::take(&mut self.below);
        let first = Slot(base.slot.0.saturating_sub(below.len() as u64));
        let final_ones = usize::try_from(stable.since(base.slot)).unwrap_or(usize::MAX);
        let (final_ones, others) = above.split_at(final_ones.min(above.len()));
        let hashes = below.into_iter().chain([base.hash]).chain(final_ones.iter().copied());
        self.settled = Settled { first, hashes: hashes.collect(), since: stable };
        self.leave(stable, others.iter().copied());
    }

    fn remember(&mut self, first: Slot, hashes: impl IntoIterator<Item = Digest>) {
        self.count += 1;
        let (id, before) = (self.count, self.oldest.len());
        for (slot, hash) in (first.0..).map(Slot).zip(hashes) {
            let at = Position { slot, hash };
            self.positions.insert(at, id);
            self.oldest.push_back((at, id));
        }
        let remembered = self.oldest.len() - before;
        self.left.insert(id, Left { since: None, remembered });
        while self.oldest.len() > HASHES_MAX
            && let Some((at, of)) = self.oldest.pop_front()
        {
            if self.positions.get(&at) == Some(&of) {
                self.positions.remove(&at);
            }
            if let Some(left) = self.left.get_mut(&of) {
                left.remembered -= 1;
            }
        }
        self.left.retain(|_, left| left.remembered > 0);
    }

    /// No orphan is left, where the history ends in `head`.
    pub(in crate::replica) fn note_none_left(&mut self, head: Slot) {
        if std::mem::take(&mut self.waits) {
            for left in self.left.values_mut() {
                left.since.get_or_insert(head);
            }
        }
    }

    /// A request that was abandoned will not be executed as it was: of what waits for orphans nothing is known any more.
    pub(in crate::replica) fn note_lost(&mut self) {
        if !std::mem::take(&mut self.waits) {
            return;
        }
        self.left.retain(|_, left| left.since.is_some());
        let is_known = |id: &u64| self.left.contains_key(id);
        self.positions.retain(|_, id| is_known(id));
        self.oldest.retain(|(_, id)| is_known(id));
    }

    /// The hash of the own history after a slot below the lowest one in memory, which is that at `base`.
    pub(in crate::replica) fn hash_below(&self, base: Slot, slot: Slot) -> Option<Digest> {
        let first = Slot(base.0.checked_sub(self.below.len() as u64)?);
        self.below.get(place(first, slot)?).copied()
    }

    /// Since when the own history, whose lowest hash in memory is that at `base`, includes what ends here.
    pub(in crate::replica) fn includes(&self, base: Slot, at: Position) -> Inclusion {
        if self.hash_below(base, at.slot) == Some(at.hash) {
            return Inclusion::Since(at.slot);
        }
        let Settled { first, hashes, since } = &self.settled;
        if place(*first, at.slot).and_then(|place| hashes.get(place)) == Some(&at.hash) {
            return Inclusion::Since(*since);
        }
        match self.positions.get(&at).and_then(|id| self.left.get(id)) {
            None => Inclusion::Unknown,
            Some(Left { since: None, .. }) => Inclusion::NotYet,
            Some(Left { since: Some(since), .. }) => Inclusion::Since(*since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(branch: u8, slot: u64) -> Digest {
        let mut bytes = [branch; 32];
        bytes[..8].copy_from_slice(&slot.to_le_bytes());
        Digest(bytes)
    }

    fn hashes(branch: u8, slots: std::ops::RangeInclusive<u64>) -> Vec<Digest> {
        slots.map(|slot| hash(branch, slot)).collect()
    }

    fn at(branch: u8, slot: u64) -> Position {
        Position { slot: Slot(slot), hash: hash(branch, slot) }
    }

    #[test]
    fn what_was_abandoned_is_included_once_no_orphan_is_left_and_until_that_is_undone() {
        let mut bygone = Bygone::default();
        bygone.leave(Slot(3), hashes(1, 4..=6));
        let includes = |bygone: &Bygone, branch, slot| bygone.includes(Slot(0), at(branch, slot));
        for slot in 4..=6 {
            assert_eq!(includes(&bygone, 1, slot), Inclusion::NotYet);
        }
        for unknown in [(1, 3), (1, 7), (2, 5)] {
            assert_eq!(includes(&bygone, unknown.0, unknown.1), Inclusion::Unknown);
        }
        bygone.note_none_left(Slot(9));
        bygone.note_none_left(Slot(11));
        assert_eq!(includes(&bygone, 1, 5), Inclusion::Since(Slot(9)));
        // The history is left again, above the slot after which none was left, and then below it.
        bygone.leave(Slot(9), hashes(2, 10..=12));
        assert_eq!(includes(&bygone, 1, 5), Inclusion::Since(Slot(9)));
        assert_eq!(includes(&bygone, 2, 12), Inclusion::NotYet);
        bygone.leave(Slot(8), hashes(3, 9..=10));
        assert_eq!(includes(&bygone, 1, 5), Inclusion::NotYet);
        bygone.note_none_left(Slot(20));
        for (branch, slot) in [(1, 5), (2, 12), (3, 9)] {
            assert_eq!(includes(&bygone, branch, slot), Inclusion::Since(Slot(20)));
        }
    }

    #[test]
    fn of_an_orphan_that_was_let_go_nothing_is_claimed() {
        let mut bygone = Bygone::default();
        bygone.leave(Slot(3), hashes(1, 4..=6));
        bygone.note_none_left(Slot(8));
        bygone.leave(Slot(8), hashes(2, 9..=9));
        bygone.note_lost();
        bygone.note_none_left(Slot(12));
        assert_eq!(bygone.includes(Slot(0), at(2, 9)), Inclusion::Unknown);
        assert_eq!(bygone.includes(Slot(0), at(1, 4)), Inclusion::Since(Slot(8)));
        assert_eq!(bygone.len(), 3);
    }

    #[test]
    fn what_lies_below_the_history_is_included_since_its_own_slot() {
        let mut bygone = Bygone::default();
        bygone.pass(hashes(1, 0..=4));
        let includes = |slot| bygone.includes(Slot(5), at(1, slot));
        for slot in 0..=4 {
            assert_eq!(includes(slot), Inclusion::Since(Slot(slot)));
        }
        assert_eq!(includes(5), Inclusion::Unknown, "that one the history holds");
        assert_eq!(bygone.includes(Slot(5), at(2, 3)), Inclusion::Unknown);
    }

    #[test]
    fn a_state_includes_what_was_stable_and_the_rest_when_no_orphan_is_left() {
        let mut bygone = Bygone::default();
        bygone.pass(hashes(1, 2..=4));
        let base = at(1, 5);
        bygone.leave_for_state(base, Slot(6), hashes(1, 6..=8));
        let includes = |bygone: &Bygone, slot| bygone.includes(Slot(50), at(1, slot));
        for slot in 2..=6 {
            assert_eq!(includes(&bygone, slot), Inclusion::Since(Slot(6)));
        }
        assert_eq!(includes(&bygone, 7), Inclusion::NotYet);
        assert_eq!(includes(&bygone, 1), Inclusion::Unknown);
        bygone.note_none_left(Slot(52));
        assert_eq!(includes(&bygone, 8), Inclusion::Since(Slot(52)));
    }

    #[test]
    fn it_is_bounded_and_the_oldest_goes_first() {
        let mut bygone = Bygone::default();
        let most = u64::try_from(HASHES_MAX).expect("small");
        bygone.leave(Slot(0), hashes(1, 1..=10));
        bygone.leave(Slot(0), hashes(2, 1..=most - 4));
        assert_eq!(bygone.len(), HASHES_MAX);
        assert_eq!(bygone.includes(Slot(0), at(1, 6)), Inclusion::Unknown);
        assert_eq!(bygone.includes(Slot(0), at(1, 7)), Inclusion::NotYet);
        bygone.leave(Slot(0), hashes(3, 1..=most + 3));
        assert_eq!(bygone.len(), HASHES_MAX);
        assert_eq!(bygone.includes(Slot(0), at(3, 3)), Inclusion::Unknown);
        assert_eq!(bygone.includes(Slot(0), at(3, 4)), Inclusion::NotYet);
        bygone.pass(hashes(4, 1..=most + 1));
        assert_eq!(bygone.includes(Slot(most + 2), at(4, 1)), Inclusion::Unknown);
        assert_eq!(bygone.includes(Slot(most + 2), at(4, 2)), Inclusion::Since(Slot(2)));
    }
}
