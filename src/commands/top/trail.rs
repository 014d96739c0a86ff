//! What one replica has shown of its history: the hashes at some of its slots, and what two such trails say of each
//! other.
//!
//! A hash names the whole history up to its slot. So two histories are one up to a slot at which both have the same
//! hash, and have parted before one at which they have not. A replica shows its head and its lock alone; those of before
//! are kept as long as it is sure that its history still goes through them.

use std::collections::BTreeMap;

use elea_protocol::id::{Digest, ReplicaId, Slot, View};
use elea_protocol::message::{NodeStatus, Position};

/// So many slots of one history are remembered.
const SHOWN_MAX: usize = 512;

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Trail {
    of: ReplicaId,
    shown: BTreeMap<Slot, Digest>,
    view: View,
    head: Position,
    /// Up to here a strong quorum has certified it: it stays.
    certified: Slot,
    /// Whose history contradicts this one, as it says.
    contradicted_by: Vec<ReplicaId>,
}

/// What two trails say of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// They are of one history, or nothing speaks against it.
    One,
    /// They are of two, which are the same up to this slot at least.
    Parted(Slot),
    /// What was shown does not say.
    Unclear,
}

impl Trail {
    /// Of a replica that says this.
    pub fn new(of: ReplicaId, said: &NodeStatus) -> Self {
        let mut trail = Self {
            of,
            shown: BTreeMap::new(),
            view: said.view,
            head: said.head,
            certified: Slot::GENESIS,
            contradicted_by: Vec::new(),
        };
        trail.note(said);
        trail
    }

    /// Its replica says this now.
    pub fn follow(&mut self, said: &NodeStatus) {
        if !self.goes_on(said) {
            let certified = self.certified;
            self.shown.retain(|slot, _| *slot <= certified);
        }
        self.note(said);
    }

    /// Whether its history cannot have lost anything of what was shown: within a view it only grows.
    fn goes_on(&self, said: &NodeStatus) -> bool {
        let fits = |at: &Position| self.shown.get(&at.slot).is_none_or(|hash| *hash == at.hash);
        let lock_fits = said.lock.is_none_or(|(_, at)| fits(&at));
        let grows = said.view == self.view && said.head.slot >= self.head.slot;
        (said.head == self.head || grows) && fits(&said.head) && lock_fits
    }

    fn note(&mut self, said: &NodeStatus) {
        let lock = said.lock.map(|(_, at)| at);
        // Those above the head are of a history that it does not have any more.
        self.shown.retain(|slot, _| *slot < said.head.slot);
        self.shown.extend(lock.iter().chain([&said.head]).map(|at| (at.slot, at.hash)));
        while self.shown.len() > SHOWN_MAX {
            self.shown.pop_first();
        }
        (self.view, self.head) = (said.view, said.head);
        self.certified = said.stable.max(lock.map_or(Slot::GENESIS, |at| at.slot));
        self.contradicted_by.clone_from(&said.divergent);
    }

    /// What this one and another one say of each other.
    pub fn relation(&self, other: &Self) -> Relation {
        if self.head == other.head {
            return Relation::One;
        }
        let both = self.shown.iter().filter_map(|(slot, hash)| {
            let same = other.shown.get(slot)? == hash;
            Some((*slot, same))
        });
        let mut alike = self.certified.min(other.certified);
        for (slot, same) in both {
            if !same {
                return Relation::Parted(alike.min(Slot(slot.0.saturating_sub(1))));
            }
            alike = alike.max(slot);
        }
        let (low, high) =
            if self.head.slot <= other.head.slot { (self, other) } else { (other, self) };
        if high.shown.get(&low.head.slot) == Some(&low.head.hash) {
            return Relation::One;
        }
        if self.contradicted_by.contains(&other.of) || other.contradicted_by.contains(&self.of) {
            return Relation::Parted(alike);
        }
        // What is certified excludes everything else, and a primary that orders two things is told of.
        match low.head.slot <= high.certified || self.view == other.view {
            true => Relation::One,
            false => Relation::Unclear,
        }
    }

    /// Up to which slot both are certainly the same, where they may have parted.
    pub fn alike(&self, other: &Self) -> Slot {
        match self.relation(other) {
            Relation::Parted(after) => after,
            Relation::One => self.head.slot.min(other.head.slot),
            Relation::Unclear => self.certified.min(other.certified),
        }
    }

    /// Its view and the end of it, the furthest being the greatest.
    pub fn reach(&self) -> (View, Slot) {
        (self.view, self.head.slot)
    }
}
