//! Which histories there are, learnt from the orders that were heard.
//!
//! An order names its slot, the hash of the history up to it and the digest of its batch, but not
//! the hash before. That one is found: it is the one among those heard for the slot before of
//! which, with the batch, this hash comes out.

use std::collections::HashMap;

use elea_fault_injection::check::Ancestry;
use elea_protocol::history::extend;
use elea_protocol::id::{Digest, Slot};
use elea_protocol::message::{OrderHeader, Position};

/// See the module.
pub struct Lineage {
    genesis: Digest,
    /// The histories that end with a slot.
    ends: HashMap<Slot, Vec<Digest>>,
    /// The slot of a history's end, and the history before.
    links: HashMap<Digest, (Slot, Digest)>,
    /// Orders whose slot before was not heard of, by that slot.
    loose: HashMap<Slot, Vec<OrderHeader>>,
}

impl Lineage {
    /// There is the empty history alone.
    #[must_use]
    pub fn new(genesis: Digest) -> Self {
        let ends = HashMap::from([(Slot::GENESIS, vec![genesis])]);
        Self { genesis, ends, links: HashMap::new(), loose: HashMap::new() }
    }

    /// Somebody ordered this.
    pub fn ordered(&mut self, header: OrderHeader) {
        if self.links.contains_key(&header.hash) {
            return;
        }
        let Some(before) = header.slot.0.checked_sub(1).map(Slot) else { return };
        let previous = self.ends.get(&before).and_then(|ends| {
            ends.iter().find(|hash| extend(hash, &header.batch) == header.hash).copied()
        });
        match previous {
            Some(previous) => {
                self.links.insert(header.hash, (header.slot, previous));
            }
            None => {
                let loose = self.loose.entry(before).or_default();
                if !loose.contains(&header) {
                    loose.push(header);
                }
            }
        }
        self.ends_in(Position { slot: header.slot, hash: header.hash });
    }

    /// There is a history that ends so, however it came about.
    pub fn ends_in(&mut self, at: Position) {
        let ends = self.ends.entry(at.slot).or_default();
        if ends.contains(&at.hash) {
            return;
        }
        ends.push(at.hash);
        if let Some(loose) = self.loose.get_mut(&at.slot) {
            let links = &mut self.links;
            loose.retain(|header| {
                let fits = extend(&at.hash, &header.batch) == header.hash;
                if fits {
                    links.insert(header.hash, (header.slot, at.hash));
                }
                !fits
            });
            if loose.is_empty() {
                self.loose.remove(&at.slot);
            }
        }
    }

    /// The hashes of the history that ends so, as far down as it is known.
    #[must_use]
    pub fn history(&self, end: Position) -> HashMap<Slot, Digest> {
        let mut hashes = HashMap::from([(end.slot, end.hash)]);
        let mut at = end.hash;
        while let Some((slot, previous)) = self.links.get(&at) {
            hashes.insert(*slot, at);
            at = *previous;
        }
        hashes
    }

    /// How many slots of all histories have a known slot before.
    #[must_use]
    pub fn linked(&self) -> usize {
        self.links.len()
    }
}

impl Ancestry for Lineage {
    /// Everything counts as known: a hash that was voted for and of which no order was heard
    /// proves nothing, since a connection that is reset swallows what is on it.
    fn knows(&self, _hash: &Digest) -> bool {
        true
    }

    fn ancestor(&self, hash: Digest, slot: Slot) -> Option<Digest> {
        let mut at = hash;
        loop {
            if slot == Slot::GENESIS {
                return Some(self.genesis);
            }
            let (own, previous) = *self.links.get(&at)?;
            if own <= slot {
                return (own == slot).then_some(at);
            }
            at = previous;
        }
    }
}
