//! The hash chain over slots.
//!
//! `h_n = H(h_{n-1}, D(batch_n))`, so a slot and its hash name everything before it. The chain is
//! kept from some base on; what lies below is stable and has been given up.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::codec::{Canonical, Sink};
use crate::id::{Digest, Slot, WallTime};
use crate::message::{Batch, LOCATOR_MAX, Order, Position, Results, SlotEntry};
use crate::seal::Signed;

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
    /// What came out, request by request. Empty once nobody can be waiting for it: from then on
    /// the session table answers.
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

/// The slots above a base, in order.
#[derive(Clone, Debug)]
pub struct History {
    base: Position,
    base_time: WallTime,
    entries: VecDeque<Entry>,
}

impl History {
    /// The empty history of a cluster.
    #[must_use]
    pub fn new(genesis: Digest) -> Self {
        Self {
            base: Position { slot: Slot::GENESIS, hash: genesis },
            base_time: WallTime::default(),
            entries: VecDeque::new(),
        }
    }

    /// A history that begins after a state that was transferred.
    pub(crate) fn after(base: Position, base_time: WallTime) -> Self {
        Self { base, base_time, entries: VecDeque::new() }
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
            Some(entry) => {
                Position { slot: self.base.slot.plus(self.entries.len() as u64), hash: entry.hash }
            }
        }
    }

    /// The time of the last slot; later ones are not earlier.
    #[must_use]
    pub fn time(&self) -> WallTime {
        self.entries.back().map_or(self.base_time, |entry| entry.batch.choices.time)
    }

    /// The time of a slot that is kept, or of the base.
    #[must_use]
    pub fn time_at(&self, slot: Slot) -> Option<WallTime> {
        if slot == self.base.slot {
            Some(self.base_time)
        } else {
            self.entry(slot).map(|entry| entry.batch.choices.time)
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

    fn index(&self, slot: Slot) -> Option<usize> {
        let above = slot.0.checked_sub(self.base.slot.0)?.checked_sub(1)?;
        usize::try_from(above).ok()
    }

    /// A slot that is kept.
    #[must_use]
    pub fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(self.index(slot)?)
    }

    pub(crate) fn entry_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        let index = self.index(slot)?;
        self.entries.get_mut(index)
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
        (first.0..).map(Slot).zip(self.entries.iter().skip(skip))
    }

    /// Appends a slot.
    ///
    /// # Panics
    /// I6: where the entry's hash does not extend the head.
    pub(crate) fn push(&mut self, entry: Entry) -> Slot {
        let expected = extend(&self.head().hash, &entry.batch.digest());
        assert_eq!(entry.hash, expected, "I6: slot {} off the chain", self.head().slot.next());
        self.entries.push_back(entry);
        self.head().slot
    }

    /// Takes off the slots above `slot`, lowest first.
    pub(crate) fn cut(&mut self, slot: Slot) -> Vec<Entry> {
        let keep = usize::try_from(slot.since(self.base.slot)).unwrap_or(usize::MAX);
        self.entries.split_off(keep.min(self.entries.len())).into()
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
            && let Some(entry) = self.entries.pop_front()
        {
            self.base = Position { slot: self.base.slot.next(), hash: entry.hash };
            self.base_time = entry.batch.choices.time;
        }
    }
}
