//! The hash chain over slots.
//!
//! `h_n = H(h_{n-1}, D(batch_n))`, so a slot and its hash name everything before it. The chain is
//! kept from some base on; what lies below is stable and has been given up.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::codec::{Canonical, FRAME_MAX, Sink};
use crate::id::{Digest, Slot};
use crate::message::{Batch, LOCATOR_MAX, NonDeterminism, Order, Position, Results, SlotEntry};
use crate::signature::Signed;

struct Link<'a> {
    before: &'a Digest,
    batch: &'a Digest,
}

impl Canonical for Link<'_> {
    const TAG: &'static str = "history";

    fn write(&self, to: &mut impl Sink) {
        to.put_digest(self.before);
        to.put_digest(self.batch);
    }
}

/// The hash of the history that ends in `before` and goes on with a batch of this digest.
#[must_use]
pub fn extend(before: &Digest, batch: &Digest) -> Digest {
    Link { before, batch }.digest()
}

/// One slot, executed.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Of the chain up to it.
    pub hash: Digest,
    /// What it holds.
    pub batch: Arc<Batch>,
    /// The order it was accepted by; none where a certificate stood in for it.
    pub order: Option<Signed<Order>>,
    /// What came out, request by request. Empty once nobody can be waiting for it, or where it is too
    /// much to be kept: from then on the session table answers.
    pub results: Vec<Results>,
}

impl Entry {
    /// The slot as it is stored and sent.
    #[must_use]
    pub fn to_slot_entry(&self) -> SlotEntry {
        SlotEntry {
            choices: self.batch.choices,
            requests: self.batch.requests.clone(),
            order: self.order.clone(),
        }
    }
}

/// Slots whose results are kept whole while no certificate covers them...
const RESULTS_KEPT: u64 = 1024;

/// ...and the bytes of all of them, those of the newest slot excepted. Four slots full of results have
/// room, so that what is under way is not touched.
const RESULT_BYTES_KEPT: usize = 16 * FRAME_MAX;

fn size(results: &[Results]) -> usize {
    results.iter().map(Results::size).sum()
}

/// The slots above a base, in order.
#[derive(Clone, Debug)]
pub struct History {
    base: Position,
    /// Those of the slot at the base.
    base_choices: NonDeterminism,
    base_through: Sums,
    entries: VecDeque<Weighed>,
    /// The bytes of all results that are kept, and the slot below which there are none.
    result_bytes: usize,
    results_from: Slot,
}

/// A slot with the sums over all that were ever put here, up to it.
#[derive(Clone, Debug)]
struct Weighed {
    entry: Entry,
    through: Sums,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    weight: u64,
    held: u64,
}

impl History {
    /// The empty history of a cluster.
    #[must_use]
    pub fn new(genesis: Digest) -> Self {
        Self {
            base: Position { slot: Slot::GENESIS, hash: genesis },
            base_choices: NonDeterminism::default(),
            base_through: Sums::default(),
            entries: VecDeque::new(),
            result_bytes: 0,
            results_from: Slot::GENESIS,
        }
    }

    /// A history that begins after a state that was transferred.
    pub(crate) fn after(base: Position, base_choices: NonDeterminism) -> Self {
        Self { base, base_choices, results_from: base.slot, ..Self::new(base.hash) }
    }

    /// The end of what was given up: the slot before the first one kept.
    #[must_use]
    pub fn base(&self) -> Position {
        self.base
    }

    /// The end.
    #[must_use]
    pub fn head(&self) -> Position {
        match self.entries.back() {
            None => self.base,
            Some(last) => Position {
                slot: self.base.slot.plus(self.entries.len() as u64),
                hash: last.entry.hash,
            },
        }
    }

    /// What the primary chose for the last slot. Those of later ones are of no earlier time and of no lower edition.
    #[must_use]
    pub fn choices(&self) -> NonDeterminism {
        self.entries.back().map_or(self.base_choices, |last| last.entry.batch.choices)
    }

    /// What was chosen for a slot that is kept, or for the base.
    #[must_use]
    pub fn choices_at(&self, slot: Slot) -> Option<NonDeterminism> {
        if slot == self.base.slot {
            Some(self.base_choices)
        } else {
            self.entry(slot).map(|entry| entry.batch.choices)
        }
    }

    /// How many slots are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no slot is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn through(&self) -> Sums {
        self.entries.back().map_or(self.base_through, |last| last.through)
    }

    /// The sums up to a slot: up to the base where it lies below, up to the head where above.
    fn sums_at(&self, slot: Slot) -> Sums {
        match self.index(slot).map(|index| self.entries.get(index)) {
            Some(Some(weighed)) => weighed.through,
            Some(None) => self.through(),
            None => self.base_through,
        }
    }

    /// What the slots above one weigh, as far as they are kept; see [`Batch::weight`].
    #[must_use]
    pub fn weight_above(&self, slot: Slot) -> u64 {
        self.through().weight - self.sums_at(slot).weight
    }

    /// About the bytes that the requests above one [take](Batch::held_bytes), as far as they are kept.
    #[must_use]
    pub fn held_above(&self, slot: Slot) -> u64 {
        self.through().held - self.sums_at(slot).held
    }

    fn index(&self, slot: Slot) -> Option<usize> {
        let above = slot.0.checked_sub(self.base.slot.0)?.checked_sub(1)?;
        usize::try_from(above).ok()
    }

    /// A slot that is kept.
    #[must_use]
    pub fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(self.index(slot)?).map(|weighed| &weighed.entry)
    }

    fn entry_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        let index = self.index(slot)?;
        self.entries.get_mut(index).map(|weighed| &mut weighed.entry)
    }

    /// The hash at a slot that is kept, or at the base.
    #[must_use]
    pub fn hash_at(&self, slot: Slot) -> Option<Digest> {
        if slot == self.base.slot {
            Some(self.base.hash)
        } else {
            self.entry(slot).map(|entry| entry.hash)
        }
    }

    /// Whether this history goes through a position; `false` also where that is not known.
    #[must_use]
    pub fn goes_through(&self, position: Position) -> bool {
        self.hash_at(position.slot) == Some(position.hash)
    }

    /// The slots from `from` on, as far as they are kept.
    pub fn from(&self, from: Slot) -> impl Iterator<Item = (Slot, &Entry)> {
        let skip = self.index(from.max(self.base.slot.next())).unwrap_or(0);
        let first = self.base.slot.plus(skip as u64).next();
        let entries = self.entries.iter().skip(skip).map(|weighed| &weighed.entry);
        (first.0..).map(Slot).zip(entries)
    }

    /// Appends a slot, which has this [weight](Batch::weight).
    ///
    /// # Panics
    /// I6: where the entry's hash does not extend the head.
    pub(crate) fn push(&mut self, entry: Entry, weight: u64) -> Slot {
        let expected = extend(&self.head().hash, &entry.batch.digest());
        assert_eq!(entry.hash, expected, "I6: slot {} off the chain", self.head().slot.next());
        let before = self.through();
        let through = Sums {
            weight: before.weight + weight,
            held: before.held + entry.batch.held_bytes() as u64,
        };
        self.result_bytes += size(&entry.results);
        self.entries.push_back(Weighed { entry, through });
        self.head().slot
    }

    /// Takes off the slots above `slot`, lowest first.
    pub(crate) fn cut(&mut self, slot: Slot) -> Vec<Entry> {
        let keep = usize::try_from(slot.since(self.base.slot)).unwrap_or(usize::MAX);
        let cut = self.entries.split_off(keep.min(self.entries.len()));
        self.results_from = self.results_from.min(slot.next());
        let cut: Vec<Entry> = cut.into_iter().map(|weighed| weighed.entry).collect();
        self.result_bytes -= cut.iter().map(|entry| size(&entry.results)).sum::<usize>();
        cut
    }

    /// Keeps what came out of a slot, the last one, and lets go of what came out of the oldest ones where
    /// that makes it too much.
    pub(crate) fn keep_results(&mut self, slot: Slot, results: Vec<Results>) {
        self.drop_results(slot);
        let bytes = size(&results);
        let Some(entry) = self.entry_mut(slot) else { return };
        entry.results = results;
        self.result_bytes += bytes;
        while self.results_from < slot
            && (slot.since(self.results_from) >= RESULTS_KEPT
                || self.result_bytes > RESULT_BYTES_KEPT)
        {
            self.drop_results(self.results_from);
            self.results_from = self.results_from.next();
        }
    }

    /// Nobody waits for what came out of a slot.
    pub(crate) fn drop_results(&mut self, slot: Slot) {
        let Some(entry) = self.entry_mut(slot) else { return };
        let dropped = std::mem::take(&mut entry.results);
        self.result_bytes -= size(&dropped);
    }

    /// Positions from the head downwards, further and further apart, the base last: who knows
    /// another history finds in them where the two part, to within a factor of two.
    #[must_use]
    pub fn locator(&self) -> Vec<Position> {
        let head = self.head();
        let mut positions = vec![head];
        let mut step = 1;
        while let Some(slot) = head.slot.0.checked_sub(step).map(Slot)
            && slot > self.base.slot
            && positions.len() < LOCATOR_MAX - 1
        {
            positions.extend(self.hash_at(slot).map(|hash| Position { slot, hash }));
            step *= 2;
        }
        if head.slot > self.base.slot {
            positions.push(self.base);
        }
        positions
    }

    /// Gives up the slots up to `slot`, as far as they are kept.
    pub(crate) fn forget_through(&mut self, slot: Slot) {
        while self.base.slot < slot
            && let Some(Weighed { entry, through }) = self.entries.pop_front()
        {
            self.base_through = through;
            self.result_bytes -= size(&entry.results);
            self.base = Position { slot: self.base.slot.next(), hash: entry.hash };
            self.base_choices = entry.batch.choices;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::NonDeterminism;

    fn extended(history: &mut History) -> Slot {
        let batch = Batch { choices: NonDeterminism::default(), requests: Vec::new() };
        let hash = extend(&history.head().hash, &batch.digest());
        history.push(Entry { hash, batch: Arc::new(batch), order: None, results: Vec::new() }, 0)
    }

    /// The slots that have results.
    fn kept(history: &History) -> Vec<u64> {
        let with = history.from(Slot(1)).filter(|(_, entry)| !entry.results.is_empty());
        with.map(|(slot, _)| slot.0).collect()
    }

    /// As large as the results of a slot may be. The bytes are the same ones each time.
    fn full() -> Vec<Results> {
        vec![Results::Full(vec![Bytes::from(vec![0; FRAME_MAX]); 4])]
    }

    #[test]
    fn results_are_kept_of_four_full_slots_and_counted_wherever_they_go() {
        let mut history = History::new(Digest::default());
        let results = full();
        for _ in 0..10 {
            let slot = extended(&mut history);
            history.keep_results(slot, results.clone());
        }
        assert_eq!(kept(&history), [7, 8, 9, 10]);
        // What is certified, undone and given up makes room, each in its own way.
        history.drop_results(Slot(8));
        history.cut(Slot(9));
        assert_eq!((kept(&history), history.result_bytes), (vec![7, 9], 8 * FRAME_MAX));
        for _ in 0..2 {
            let slot = extended(&mut history);
            history.keep_results(slot, results.clone());
        }
        assert_eq!(kept(&history), [7, 9, 10, 11]);
        history.forget_through(Slot(10));
        assert_eq!((kept(&history), history.result_bytes), (vec![11], 4 * FRAME_MAX));
        history.cut(Slot(10));
        assert_eq!((history.result_bytes, history.head().slot), (0, Slot(10)));
        let slot = extended(&mut history);
        history.keep_results(slot, [results.clone(), results].concat());
        assert_eq!(kept(&history), [11], "the newest slot keeps its results whatever they are");
    }

    #[test]
    fn results_are_kept_of_the_newest_slots() {
        let mut history = History::new(Digest::default());
        for _ in 0..2 * RESULTS_KEPT {
            let slot = extended(&mut history);
            history.keep_results(slot, vec![Results::Full(Vec::new())]);
        }
        assert_eq!(kept(&history), (RESULTS_KEPT + 1..=2 * RESULTS_KEPT).collect::<Vec<_>>());
    }
}
