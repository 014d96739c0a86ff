//! Histories that are not the own one: fetched from their end downwards, checked by their hashes.
//!
//! `(n, h_n)` names a whole history, so whoever knows the end can check each slot below it, and
//! nobody has to be believed. A branch is of use once it reaches something that is known: the own
//! history, or a state that was transferred.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::fetch::BUDGET_LEAST;
use super::record::Aside;
use super::{Replica, Target};
use crate::application::Application;
use crate::history::{Entry, extend};
use crate::id::{Digest, Instant, ReplicaId, Slot};
use crate::message::{
    ANSWER_BYTES_MAX, Batch, Branch, Linked, Message, Order, Position, SLOTS_MAX, SlotEntry, Wanted,
};
use crate::seal::Signed;

/// A slot of a history that is not the own one.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) slot: Slot,
    pub(super) previous: Digest,
    pub(super) batch: Arc<Batch>,
    pub(super) order: Option<Signed<Order>>,
    /// About what it takes in memory.
    held: usize,
}

impl Side {
    pub(super) fn new(
        slot: Slot,
        previous: Digest,
        batch: Arc<Batch>,
        order: Option<Signed<Order>>,
    ) -> Self {
        let held = batch.held_bytes();
        Self { slot, previous, batch, order, held }
    }

    fn linked(&self) -> Linked {
        let entry = SlotEntry {
            choices: self.batch.choices,
            requests: self.batch.requests.clone(),
            order: self.order.clone(),
        };
        Linked { previous: self.previous, entry }
    }

    pub(super) fn aside(&self, hash: Digest) -> Aside {
        Aside { at: Position { slot: self.slot, hash }, linked: self.linked() }
    }
}

/// Where the fetching of one branch stands.
#[derive(Clone, Debug)]
struct Asked {
    /// The end of what was asked for last.
    below: Position,
    /// When to ask somebody else.
    again: Instant,
    turn: usize,
}

/// Slots of other histories, and what is being fetched. A hash does not name its slot, so a slot is
/// known by both: what a liar says of a true hash beside a wrong slot lies beside what is true.
#[derive(Clone, Debug, Default)]
pub(super) struct Branches {
    slots: BTreeMap<Position, Side>,
    asked: BTreeMap<Position, Asked>,
}

impl Branches {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn get(&self, at: Position) -> Option<&Side> {
        self.slots.get(&at)
    }

    pub(super) fn insert(&mut self, at: Position, side: Side) {
        self.slots.insert(at, side);
    }

    /// Nothing is wanted any more.
    pub(super) fn rest(&mut self) {
        self.asked.clear();
    }

    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.asked.clear();
    }

    pub(super) fn next_fetch(&self) -> Option<Instant> {
        self.asked.values().map(|asked| asked.again).min()
    }
}

/// What a history stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Footing {
    /// The own history up to this slot.
    Common(Slot),
    /// A state that was transferred.
    State(Position),
}

impl Footing {
    pub(super) fn slot(self) -> Slot {
        match self {
            Self::Common(slot) => slot,
            Self::State(at) => at.slot,
        }
    }
}

/// A history of which everything is here.
#[derive(Clone, Debug)]
pub(super) struct Path {
    pub(super) footing: Footing,
    /// The slots above it, lowest first.
    pub(super) above: Vec<Digest>,
}

impl Path {
    /// The last slot.
    pub(super) fn top(&self) -> Slot {
        self.footing.slot().plus(self.above.len() as u64)
    }
}

/// How far a history can be followed from its end.
#[derive(Clone, Debug)]
pub(super) enum Reach {
    Whole(Path),
    /// This slot and what is below it are not here.
    Lacks(Position),
    /// It cannot be followed, or parts from the own history where nothing is undone any more.
    Never,
}

/// A history wanted by its end, and who has it.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) end: Position,
    pub(super) holders: Vec<ReplicaId>,
}

impl<A: Application> Replica<A> {
    /// How long a branch may be at most.
    fn branch_max(&self) -> usize {
        let tuning = &self.setup.tuning;
        let slots = 2 * tuning.rules.max_speculative_slots + tuning.retained_slots;
        usize::try_from(slots).unwrap_or(usize::MAX)
    }

    /// What a branch may take in memory at most, beside its uppermost slots, for which there is room
    /// however large they are: what another replica may have above its stable checkpoint and may
    /// retain below, and as much again as it may have had to undo.
    fn branch_bytes_max(&self) -> usize {
        let tuning = &self.setup.tuning;
        let suffix = usize::try_from(tuning.rules.max_speculative_bytes).unwrap_or(usize::MAX);
        suffix.saturating_mul(2).saturating_add(tuning.retained_bytes)
    }

    /// Follows a history from its end downwards.
    pub(super) fn reach(&self, end: Position) -> Reach {
        let base = self.history.base().slot;
        let (slots_max, bytes_max) = (self.branch_max(), self.branch_bytes_max());
        let uppermost = 2 * self.setup.tuning.rules.checkpoint_interval;
        let mut bytes = 0;
        let mut above = Vec::new();
        let mut at = end;
        let whole = |footing, mut above: Vec<Digest>| {
            above.reverse();
            Reach::Whole(Path { footing, above })
        };
        loop {
            if self.history.goes_through(at) {
                return whole(Footing::Common(at.slot), above);
            }
            if self.transferred() == Some(at) {
                return whole(Footing::State(at), above);
            }
            if at.slot <= base || above.len() > slots_max || bytes > bytes_max {
                return Reach::Never;
            }
            match self.branches.get(&at.hash) {
                Some(side) if side.slot == at.slot => {
                    above.push(at.hash);
                    if above.len() as u64 > uppermost {
                        bytes += side.held;
                    }
                    at = Position { slot: Slot(at.slot.0 - 1), hash: side.previous };
                }
                Some(_) => return Reach::Never,
                None => return Reach::Lacks(at),
            }
        }
    }

    /// The hash that the history with this end has at a slot, as far as it is here.
    pub(super) fn hash_below(&self, end: Position, slot: Slot) -> Option<Digest> {
        let mut at = end;
        while at.slot > slot {
            if self.history.goes_through(at) {
                return self.history.hash_at(slot);
            }
            let side = self.branches.get(&at.hash).filter(|side| side.slot == at.slot)?;
            at = Position { slot: Slot(at.slot.0 - 1), hash: side.previous };
        }
        (at.slot == slot).then_some(at.hash)
    }

    /// Whether a history goes through a position. Below what is in memory it is taken to.
    pub(super) fn passes(&self, path: &Path, position: Position) -> bool {
        let footing = path.footing.slot();
        if position.slot > footing {
            let index = usize::try_from(position.slot.since(footing)).unwrap_or(usize::MAX) - 1;
            return path.above.get(index) == Some(&position.hash);
        }
        match path.footing {
            Footing::Common(_) => {
                position.slot < self.history.base().slot || self.history.goes_through(position)
            }
            Footing::State(at) => position.slot < at.slot || position == at,
        }
    }

    /// The hash that a history has at a slot, where that is known.
    pub(super) fn hash_on(&self, path: &Path, slot: Slot) -> Option<Digest> {
        let footing = path.footing.slot();
        if slot > footing {
            let index = usize::try_from(slot.since(footing)).ok()?.checked_sub(1)?;
            return path.above.get(index).copied();
        }
        match path.footing {
            Footing::Common(_) => self.history.hash_at(slot),
            Footing::State(at) => (slot == at.slot).then_some(at.hash),
        }
    }

    /// The batch of a slot on a history, where it is known.
    pub(super) fn batch_on(&self, path: &Path, slot: Slot) -> Option<&Arc<Batch>> {
        let hash = self.hash_on(path, slot)?;
        if slot > path.footing.slot() {
            return self.branches.get(&hash).map(|side| &side.batch);
        }
        self.history.entry(slot).filter(|entry| entry.hash == hash).map(|entry| &entry.batch)
    }

    // ---- asking ----

    /// Fetches what the wishes lack, and lets go of what nobody wishes for.
    pub(super) fn fetch_branches(&mut self, wishes: &[Wish]) {
        let now = self.now.instant;
        let mut asks = Vec::new();
        let mut open = BTreeMap::new();
        for wish in wishes {
            let Reach::Lacks(below) = self.reach(wish.end) else { continue };
            let retry = now.after_ms(self.setup.tuning.fetch_retry_ms);
            let asked = match self.branches.asked.remove(&wish.end) {
                // It came nearer: go on with who helped.
                Some(asked) if asked.below != below => {
                    asks.push((self.holder(wish, asked.turn), below));
                    Asked { below, again: retry, turn: asked.turn }
                }
                Some(asked) if asked.again > now => asked,
                Some(asked) => {
                    asks.push((self.holder(wish, asked.turn + 1), below));
                    Asked { below, again: retry, turn: asked.turn + 1 }
                }
                None => {
                    asks.push((self.holder(wish, 0), below));
                    Asked { below, again: retry, turn: 0 }
                }
            };
            open.insert(wish.end, asked);
        }
        self.branches.asked = open;
        // Two wishes may lack the same.
        let mut sent = BTreeSet::new();
        for (to, below) in asks {
            let Some(to) = to.filter(|to| sent.insert((*to, below))) else { continue };
            self.counters.branch_fetches += 1;
            let known = self.history.locator();
            self.ask(Some(to), Wanted::Branch { head: below, known });
        }
        self.drop_unwanted(wishes);
    }

    fn holder(&self, wish: &Wish, turn: usize) -> Option<ReplicaId> {
        let me = self.setup.id;
        let first: BTreeSet<ReplicaId> = wish.holders.iter().copied().collect();
        let rest = self.size.members().filter(|id| !first.contains(id));
        let all: Vec<ReplicaId> =
            wish.holders.iter().copied().chain(rest).filter(|id| *id != me).collect();
        all.get(turn % all.len().max(1)).copied()
    }

    fn drop_unwanted(&mut self, wishes: &[Wish]) {
        if self.branches.slots.is_empty() {
            return;
        }
        let mut wanted = BTreeSet::new();
        let lock = self.lock.as_ref().map(|lock| lock.position());
        for end in wishes.iter().map(|wish| wish.end).chain(lock) {
            let mut at = end;
            while let Some(side) = self.branches.get(&at.hash)
                && side.slot == at.slot
                && wanted.insert(at.hash)
            {
                at = Position { slot: Slot(at.slot.0.saturating_sub(1)), hash: side.previous };
            }
        }
        self.branches.slots.retain(|hash, _| wanted.contains(hash));
    }

    // ---- answering ----

    pub(super) fn serve_branch(
        &mut self,
        to: ReplicaId,
        head: Position,
        known: &[Position],
    ) -> usize {
        let known: BTreeSet<Position> = known.iter().copied().collect();
        let base = self.history.base();
        let mut slots = Vec::new();
        let mut bytes = 0;
        let mut at = head;
        let mut stable = None;
        while !known.contains(&at) && slots.len() < SLOTS_MAX && at.slot > Slot::GENESIS {
            let linked = if at.slot > base.slot && self.history.goes_through(at) {
                let before = Slot(at.slot.0 - 1);
                let previous = self.history.hash_at(before);
                let entry = self.history.entry(at.slot).map(Entry::to_slot_entry);
                previous.zip(entry).map(|(previous, entry)| Linked { previous, entry })
            } else {
                let side = self.branches.get(&at.hash).filter(|side| side.slot == at.slot);
                side.map(Side::linked)
            };
            let Some(linked) = linked else {
                // What is below is stable here, and given up.
                stable = self.stable.clone().filter(|proof| at.slot <= proof.slot());
                break;
            };
            let size: usize =
                linked.entry.requests.iter().map(|request| request.body().wire_bytes()).sum();
            bytes += size;
            if bytes > ANSWER_BYTES_MAX && !slots.is_empty() {
                break;
            }
            at = Position { slot: Slot(at.slot.0 - 1), hash: linked.previous };
            slots.push(linked);
        }
        if slots.is_empty() && stable.is_none() {
            return BUDGET_LEAST_BYTES;
        }
        let branch = Branch { head, slots, stable: stable.map(Box::new) };
        self.send(Target::One(to), Message::Branch(branch));
        bytes
    }

    // ---- being answered ----

    pub(super) fn on_branch(&mut self, from: ReplicaId, branch: Branch) {
        let asked = self.branches.asked.values().any(|asked| asked.below == branch.head);
        let only_state = branch.slots.is_empty();
        if !(asked || only_state && self.fetching.asks_for_slots()) {
            self.counters.branches_refused += 1;
            return;
        }
        let mut at = branch.head;
        for linked in branch.slots {
            let Linked { previous, entry } = linked;
            let batch = Arc::new(Batch { choices: entry.choices, requests: entry.requests });
            let digest = batch.digest();
            if at.slot == Slot::GENESIS || extend(&previous, &digest) != at.hash {
                self.counters.branches_refused += 1;
                return;
            }
            let primaries = self.size.replicas();
            let order = entry.order.filter(|order| {
                let header = order.body.header;
                order.by == header.view.primary(primaries)
                    && (header.slot, header.hash, header.batch) == (at.slot, at.hash, digest)
            });
            if self.history.goes_through(at) {
                break;
            }
            self.counters.branch_slots += 1;
            self.branches.insert(at.hash, Side::new(at.slot, previous, batch, order));
            at = Position { slot: Slot(at.slot.0 - 1), hash: previous };
        }
        if let Some(proof) = branch.stable {
            self.consider_state(from, *proof);
        }
    }
}

const BUDGET_LEAST_BYTES: usize = BUDGET_LEAST as usize;
