//! Histories that are not the own one: fetched from their end downwards, checked by their hashes.
//!
//! `(n, h_n)` names a whole history, so whoever knows the end can check each slot below it, and
//! nobody has to be believed. A branch is of use once it reaches something that is known: the own
//! history, or a state that was transferred.
//!
//! Each history that is wanted has a [`Trail`]: how far it has been followed, what its slots take, and
//! how far they were looked through. So no event walks a history again, and what an event costs does not
//! depend on how long the histories are that happen to be here. A slot goes when the last trail
//! through it goes. Both take [turns](crate::replica::time::Turn).
//!
//! What is wanted on the word of one replica alone, and proved by nothing, may be invented. So each
//! replica has a [`Credit`] of slots that may be fetched on its word. It has room for the longest history
//! that an honest one can show, and then grows slowly, the more slowly the more was fetched in vain.

mod asking;
mod following;
mod serving;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::trail::{Takes, Trail};
use crate::id::{Digest, Instant, ReplicaId};
use crate::message::{Batch, Linked, Order, Position, SLOTS_MAX, SlotEntry};
use crate::replica::disk::Aside;
use crate::signature::Signed;

/// What a credit grows by in a second at least.
const CREDIT_A_SECOND: u64 = SLOTS_MAX as u64;

/// How often the growth of a credit may be halved.
const HALVINGS_MAX: u32 = 6;

/// How many slots may be fetched on the word of a replica.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::replica) struct Credit {
    /// How many were, less what has grown again.
    spent: u64,
    since: Instant,
    /// How many histories in a row came to nothing.
    in_vain: u32,
}

impl Credit {
    /// Whether more may be fetched, where `most` may be in all.
    fn is_left(&mut self, now: Instant, most: u64) -> bool {
        let a_second = (most / 16) >> self.in_vain.min(HALVINGS_MAX);
        let a_second = a_second.max(CREDIT_A_SECOND);
        let grown = now.micros_since(self.since).saturating_mul(a_second) / 1_000_000;
        if grown > 0 {
            self.spent = self.spent.saturating_sub(grown);
            self.since = now;
        }
        self.spent < most
    }

    fn spend(&mut self, slots: u64) {
        self.spent = self.spent.saturating_add(slots);
    }

    /// A history came to something.
    pub(super) fn restore(&mut self) {
        *self = Self { since: self.since, ..Self::default() };
    }

    fn note_vain(&mut self) {
        self.in_vain = self.in_vain.saturating_add(1);
    }
}

/// A slot of a history that is not the own one.
#[derive(Clone, Debug)]
pub(in crate::replica) struct Side {
    pub(super) previous: Digest,
    pub(super) batch: Arc<Batch>,
    pub(super) order: Option<Signed<Order>>,
    takes: Takes,
    /// How many trails go through it.
    trails: u32,
}

impl Side {
    pub(in crate::replica) fn new(
        previous: Digest,
        batch: Arc<Batch>,
        weight: u64,
        order: Option<Signed<Order>>,
    ) -> Self {
        let takes = Takes { held: batch.held_bytes() as u64, weight };
        Self { previous, batch, order, takes, trails: 0 }
    }

    fn linked(&self) -> Linked {
        let entry = SlotEntry {
            choices: self.batch.choices,
            requests: self.batch.requests.clone(),
            order: self.order.clone(),
        };
        Linked { previous: self.previous, entry }
    }

    pub(super) fn aside(&self, at: Position) -> Aside {
        Aside { at, linked: self.linked() }
    }
}

/// Where the fetching of one branch stands.
#[derive(Clone, Debug)]
struct Asked {
    /// The end of what was asked for last; nothing where there is no credit for it.
    below: Option<Position>,
    /// When. How long that is waited for before somebody else is asked is looked up each time.
    since: Instant,
    turn: usize,
}

/// Slots of other histories, and what is being fetched. A hash does not name its slot, so a slot is
/// known by both: what a liar says of a true hash beside a wrong slot lies beside what is true.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Branches {
    slots: BTreeMap<Position, Side>,
    /// The histories that are wanted, by their ends.
    trails: BTreeMap<Position, Trail>,
    /// One that is not wanted any more, where a longer one may be that goes through it.
    resting: Option<Trail>,
    /// Those whose slots are to be let go.
    leaving: Vec<Trail>,
    asked: BTreeMap<Position, Asked>,
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

    pub(super) fn get(&self, at: Position) -> Option<&Side> {
        self.slots.get(&at)
    }

    fn insert(&mut self, at: Position, side: Side) {
        match self.slots.get_mut(&at) {
            None => drop(self.slots.insert(at, side)),
            Some(known) if known.order.is_none() => known.order = side.order,
            Some(_) => {}
        }
    }

    pub(super) fn trail(&self, end: Position) -> Option<&Trail> {
        self.trails.get(&end)
    }

    /// Takes a trail out, to be put back, or [let go](Branches::leave).
    pub(super) fn take(&mut self, end: Position) -> Option<Trail> {
        self.trails.remove(&end)
    }

    pub(super) fn put_back(&mut self, trail: Trail) {
        self.trails.insert(trail.end(), trail);
    }

    /// A history with all its slots, lowest first, which are of the own one.
    pub(in crate::replica) fn put(&mut self, end: Position, slots: Vec<(Position, Side)>) {
        self.trails.remove(&end).into_iter().for_each(|trail| self.leaving.push(trail));
        let mut trail = Trail::new(end, None);
        for (at, side) in slots.into_iter().rev() {
            trail.push(side.previous, side.takes);
            self.insert(at, side);
            self.slots.entry(at).and_modify(|side| side.trails += 1);
        }
        self.trails.insert(end, trail);
    }

    /// Nobody wants this history any more.
    pub(super) fn leave(&mut self, trail: Trail) {
        self.leaving.push(trail);
    }

    /// Nothing is wanted any more. What is here goes by and by.
    pub(super) fn clear(&mut self) {
        self.leaving.extend(std::mem::take(&mut self.trails).into_values());
        self.leaving.extend(self.resting.take());
        self.asked.clear();
    }

    /// When that was asked for which is waited for longest.
    pub(super) fn oldest_asked(&self) -> Option<Instant> {
        self.asked.values().map(|asked| asked.since).min()
    }

    /// How often in a row somebody was asked for the next slots of a history and did not answer.
    pub(super) fn asked_in_vain(&self, end: Position) -> usize {
        self.asked.get(&end).map_or(0, |asked| asked.turn)
    }
}

/// A history wanted by its end, and who has it.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) end: Position,
    pub(super) holders: Vec<ReplicaId>,
    /// On whose word alone it is wanted: nothing proves that there is such a history.
    pub(super) word: Option<ReplicaId>,
}
