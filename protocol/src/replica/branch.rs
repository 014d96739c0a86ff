//! Histories that are not the own one: fetched from their end downwards, checked by their hashes.
//!
//! `(n, h_n)` names a whole history, so whoever knows the end can check each slot below it, and
//! nobody has to be believed. A branch is of use once it reaches something that is known: the own
//! history, or a state that was transferred.
//!
//! Each history that is wanted has a [`Trail`]: how far it has been followed, what its slots take, and
//! how far they were looked through. So no event walks a history again, and what an event costs does not
//! depend on how long the histories are that happen to be here. A slot goes when the last trail
//! through it goes. Both take [turns](super::turns).
//!
//! What is wanted on the word of one replica alone, and proved by nothing, may be invented. So each
//! replica has a [`Credit`] of slots that may be fetched on its word. It has room for the longest history
//! that an honest one can show, and then grows slowly, the more slowly the more was fetched in vain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::fetch::BUDGET_LEAST;
use super::record::Aside;
use super::trail::{Takes, Trail};
use super::{Replica, Target};
use crate::application::Application;
use crate::history::{Entry, extend};
use crate::id::{Digest, Instant, ReplicaId, Slot};
use crate::message::{
    Batch, Branch, CommitCertificate, Linked, Message, Order, Position, SLOTS_MAX, SlotEntry,
    Wanted,
};
use crate::seal::Signed;

/// So many slots are followed, or let go, in one step of a turn.
const FOLLOWED_A_STEP: u64 = 16;

/// The least credit that a replica may have, and what it grows by in a second at least.
const CREDIT_LEAST: u64 = 16 * SLOTS_MAX as u64;
const CREDIT_A_SECOND: u64 = SLOTS_MAX as u64;

/// How often the growth of a credit may be halved.
const HALVINGS_MAX: u32 = 6;

/// How many slots may be fetched on the word of a replica.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Credit {
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
pub(super) struct Side {
    pub(super) previous: Digest,
    pub(super) batch: Arc<Batch>,
    pub(super) order: Option<Signed<Order>>,
    takes: Takes,
    /// How many trails go through it.
    trails: u32,
}

impl Side {
    pub(super) fn new(
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
pub(super) struct Branches {
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
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is nothing to look after.
    pub(super) fn is_empty(&self) -> bool {
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
    pub(super) fn put(&mut self, end: Position, slots: Vec<(Position, Side)>) {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) footing: Footing,
    pub(super) end: Position,
}

impl Path {
    /// The own history up to a slot.
    pub(super) fn own(end: Position) -> Self {
        Self { footing: Footing::Common(end.slot), end }
    }

    /// The last slot.
    pub(super) fn top(&self) -> Slot {
        self.end.slot
    }

    /// Whether it has slots above what it stands on.
    pub(super) fn goes_on(&self) -> bool {
        self.top() > self.footing.slot()
    }
}

/// How far a history can be followed from its end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reach {
    Whole(Path),
    /// This slot and what is below it are not here.
    Lacks(Position),
    /// It was not followed to its end yet.
    NotYet,
    /// It cannot be followed, or parts from the own history where nothing is undone any more.
    Never,
}

/// A history wanted by its end, and who has it.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) end: Position,
    pub(super) holders: Vec<ReplicaId>,
    /// On whose word alone it is wanted: nothing proves that there is such a history.
    pub(super) word: Option<ReplicaId>,
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

    /// How far a history can be followed from its end, as far as it has been.
    pub(super) fn reach(&self, end: Position) -> Reach {
        let base = self.history.base().slot;
        if self.history.goes_through(end) {
            return Reach::Whole(Path::own(end));
        }
        if self.transferred() == Some(end) {
            return Reach::Whole(Path { footing: Footing::State(end), end });
        }
        if end.slot <= base {
            return Reach::Never;
        }
        let Some(trail) = self.branches.trail(end) else { return Reach::Lacks(end) };
        let footing = self.footing(trail);
        let bottom = footing.map_or(trail.below().slot, Footing::slot);
        if self.is_too_long(trail, bottom) {
            return Reach::Never;
        }
        match footing {
            Some(footing) => Reach::Whole(Path { footing, end }),
            None if bottom <= base => Reach::Never,
            None if self.branches.get(trail.below()).is_some() => Reach::NotYet,
            None => Reach::Lacks(trail.below()),
        }
    }

    /// The highest position of a trail that is known here.
    fn footing(&self, trail: &Trail) -> Option<Footing> {
        let (base, head) = (self.history.base().slot, self.history.head().slot);
        let common = trail.common(base, head, |at| self.history.goes_through(at));
        let state = self.transferred().filter(|at| trail.hash_at(at.slot) == Some(at.hash));
        match (common, state) {
            (Some(slot), Some(at)) if at.slot > slot => Some(Footing::State(at)),
            (Some(slot), _) => Some(Footing::Common(slot)),
            (None, at) => at.map(Footing::State),
        }
    }

    /// Whether a history is longer, or larger, above this slot than it may be.
    fn is_too_long(&self, trail: &Trail, bottom: Slot) -> bool {
        let end = trail.end().slot;
        let uppermost = 2 * self.setup.tuning.rules.checkpoint_interval;
        let counted = Slot(end.0.saturating_sub(uppermost));
        end.since(bottom) > self.branch_max() as u64 + 1
            || trail.takes(bottom, counted).held > self.branch_bytes_max() as u64
    }

    /// Follows a trail over the slots that are here, by at least so many.
    fn follow(&mut self, trail: &mut Trail, at_least: u64) {
        let first = trail.len();
        let base = self.history.base().slot;
        loop {
            let (at, gone) = (trail.below(), trail.len() - first);
            if self.history.goes_through(at) {
                return;
            }
            let is_there = self.transferred() == Some(at)
                || at.slot <= base
                || self.is_too_long(trail, at.slot);
            if is_there && gone >= at_least {
                return;
            }
            if at.slot == Slot::GENESIS {
                return;
            }
            let Some(side) = self.branches.slots.get_mut(&at) else { return };
            if gone >= at_least && gone.is_multiple_of(FOLLOWED_A_STEP) && !self.turn.take() {
                return;
            }
            side.trails += 1;
            trail.push(side.previous, side.takes);
        }
    }

    /// Follows what is wanted, as far as there is room in this turn.
    pub(super) fn follow_trails(&mut self) {
        let ends: Vec<Position> = self.branches.trails.keys().copied().collect();
        for end in ends {
            let Some(mut trail) = self.branches.take(end) else { continue };
            self.follow(&mut trail, 0);
            self.branches.put_back(trail);
        }
    }

    /// Lets go of the slots that no trail goes through any more.
    pub(super) fn let_go(&mut self) {
        while let Some(mut trail) = self.branches.leaving.pop() {
            while let Some(at) = trail.pop() {
                if let Some(side) = self.branches.slots.get_mut(&at) {
                    side.trails = side.trails.saturating_sub(1);
                    if side.trails == 0 {
                        self.branches.slots.remove(&at);
                    }
                }
                if trail.len().is_multiple_of(FOLLOWED_A_STEP) && !self.turn.take() {
                    self.branches.leaving.push(trail);
                    return;
                }
            }
        }
    }

    /// The hash that the history with this end has at a slot, as far as it is here.
    pub(super) fn hash_below(&self, end: Position, slot: Slot) -> Option<Digest> {
        if self.history.goes_through(end) {
            return self.history.hash_at(slot).filter(|_| slot <= end.slot);
        }
        let trail = self.branches.trail(end)?;
        trail.hash_at(slot).or_else(|| {
            let footing = self.footing(trail)?;
            let is_own = matches!(footing, Footing::Common(_)) && slot <= footing.slot();
            self.history.hash_at(slot).filter(|_| is_own)
        })
    }

    /// Whether a history goes through a position. Below what is in memory it is taken to.
    pub(super) fn passes(&self, path: &Path, position: Position) -> bool {
        if position.slot > path.footing.slot() {
            return self.hash_on(path, position.slot) == Some(position.hash);
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
        if slot > path.top() {
            return None;
        }
        if slot > path.footing.slot() {
            return self.branches.trail(path.end)?.hash_at(slot);
        }
        match path.footing {
            Footing::Common(_) => self.history.hash_at(slot),
            Footing::State(at) => (slot == at.slot).then_some(at.hash),
        }
    }

    /// A slot of a history above what it stands on.
    pub(super) fn side_on(&self, path: &Path, slot: Slot) -> Option<(Position, &Side)> {
        let hash = self.hash_on(path, slot).filter(|_| slot > path.footing.slot())?;
        let at = Position { slot, hash };
        self.branches.get(at).map(|side| (at, side))
    }

    /// The batch of a slot on a history, where it is known.
    pub(super) fn batch_on(&self, path: &Path, slot: Slot) -> Option<&Arc<Batch>> {
        if slot > path.footing.slot() {
            return self.side_on(path, slot).map(|(_, side)| &side.batch);
        }
        let hash = self.hash_on(path, slot)?;
        self.history.entry(slot).filter(|entry| entry.hash == hash).map(|entry| &entry.batch)
    }

    /// What the slots of a history above `from` up to `to` [weigh](crate::message::Batch::weight).
    pub(super) fn weight_on(&self, path: &Path, from: Slot, to: Slot) -> u64 {
        let footing = path.footing.slot();
        let own = match path.footing {
            Footing::Common(_) if from < footing => {
                let above = self.history.weight_above(to.min(footing));
                self.history.weight_above(from).saturating_sub(above)
            }
            Footing::Common(_) | Footing::State(_) => 0,
        };
        let trail = self.branches.trail(path.end);
        own + trail.map_or(0, |trail| trail.takes(from.max(footing), to).weight)
    }

    // ---- asking ----

    /// How many slots may be fetched on the word of one replica at once.
    fn credit_max(&self) -> u64 {
        (2 * self.branch_max() as u64).max(CREDIT_LEAST)
    }

    /// When somebody else is asked for what does not come.
    pub(super) fn branch_fetch_at(&self) -> Option<Instant> {
        let wait = self.answer_wait_ms(&self.fetching.pace);
        self.branches.oldest_asked().map(|since| since.after_ms(wait))
    }

    /// Fetches what the wishes lack, and lets go of what nobody wishes for.
    pub(super) fn fetch_branches(&mut self, wishes: &[Wish]) {
        let now = self.now.instant;
        self.keep_trails(wishes);
        let most = self.credit_max();
        let wait = self.answer_wait_ms(&self.fetching.pace);
        let mut asks = Vec::new();
        let mut open = BTreeMap::new();
        let mut is_late = false;
        for wish in wishes {
            let Reach::Lacks(below) = self.reach(wish.end) else { continue };
            let known = self.branches.asked.remove(&wish.end);
            let credit = wish.word.map(|id| &mut self.peers.entry(id).or_default().credit);
            if credit.is_some_and(|credit| !credit.is_left(now, most)) {
                // What it said before came to nothing. It is asked for again when there is credit.
                let is_new = known.as_ref().is_none_or(|asked| asked.below.is_some());
                self.counters.branches_over_credit += u64::from(is_new);
                let turn = known.map_or(0, |asked| asked.turn);
                open.insert(wish.end, Asked { below: None, since: now, turn });
                continue;
            }
            let turn = match known {
                // It came nearer: go on with who helped.
                Some(asked) if asked.below != Some(below) => asked.turn,
                Some(asked) if asked.since.after_ms(wait) > now => {
                    open.insert(wish.end, asked);
                    continue;
                }
                Some(asked) => {
                    is_late |= asked.below.is_some();
                    asked.turn + 1
                }
                None => 0,
            };
            asks.push((self.holder(wish, turn), below));
            open.insert(wish.end, Asked { below: Some(below), since: now, turn });
        }
        self.branches.asked = open;
        if is_late {
            self.fetching.pace.missed();
        }
        // Two wishes may lack the same.
        let mut sent = BTreeSet::new();
        for (to, below) in asks {
            let Some(to) = to.filter(|to| sent.insert((*to, below))) else { continue };
            self.counters.branch_fetches += 1;
            let known = self.history.locator();
            self.ask(Some(to), Wanted::Branch { head: below, known });
        }
    }

    /// Every wish has a trail, and what nobody wishes for goes. The longest of what goes rests for a
    /// while: a head moves on, and who wishes for the next one finds below it what is here already.
    fn keep_trails(&mut self, wishes: &[Wish]) {
        let lock = self.lock.aside().map(CommitCertificate::position);
        let wanted: BTreeSet<Position> =
            wishes.iter().map(|wish| wish.end).chain(lock).chain(self.prepared_end()).collect();
        let gone = self.branches.trails.extract_if(.., |end, _| !wanted.contains(end));
        let gone: Vec<Trail> = gone.map(|(_, trail)| trail).collect();
        for trail in gone {
            let word = trail.word.filter(|_| trail.len() > 0);
            if let Some(peer) = word.and_then(|id| self.peers.get_mut(&id)) {
                peer.credit.note_vain();
            }
            let resting = self.branches.resting.take();
            let is_longer = resting.as_ref().is_none_or(|resting| resting.len() < trail.len());
            let (stays, goes) =
                if is_longer { (Some(trail), resting) } else { (resting, Some(trail)) };
            self.branches.resting = stays;
            self.branches.leaving.extend(goes);
        }
        for wish in wishes {
            if let Some(trail) = self.branches.trails.get_mut(&wish.end) {
                trail.word = wish.word;
            }
            if self.branches.trail(wish.end).is_none()
                && let Reach::Lacks(_) = self.reach(wish.end)
            {
                let mut trail = Trail::new(wish.end, wish.word);
                self.follow(&mut trail, 0);
                self.branches.put_back(trail);
            }
        }
        let lacks = |trail: &Trail| match self.reach(trail.end()) {
            Reach::Lacks(_) | Reach::NotYet => true,
            Reach::Whole(_) | Reach::Never => false,
        };
        if !self.branches.trails.values().any(lacks) {
            self.branches.leaving.extend(self.branches.resting.take());
        }
        self.let_go();
    }

    fn holder(&self, wish: &Wish, turn: usize) -> Option<ReplicaId> {
        let me = self.setup.id;
        let first: BTreeSet<ReplicaId> = wish.holders.iter().copied().collect();
        let rest = self.size.members().filter(|id| !first.contains(id));
        let all: Vec<ReplicaId> =
            wish.holders.iter().copied().chain(rest).filter(|id| *id != me).collect();
        all.get(turn % all.len().max(1)).copied()
    }

    // ---- answering ----

    pub(super) fn serve_branch(
        &mut self,
        to: ReplicaId,
        head: Position,
        known: &[Position],
        room: usize,
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
                self.branches.get(at).map(Side::linked)
            };
            let Some(linked) = linked else {
                // What is below is stable here, and given up.
                stable = self.stable.proof().filter(|proof| at.slot <= proof.slot()).cloned();
                break;
            };
            let size: usize =
                linked.entry.requests.iter().map(|request| request.body().wire_bytes()).sum();
            bytes += size;
            if bytes > room && !slots.is_empty() {
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
        let head = branch.head;
        let is_asked = self.branches.asked.values().any(|asked| asked.below == Some(head))
            && self.branches.trails.values().any(|trail| trail.below() == head);
        // Who is asked for slots or for a state may have given them up.
        let is_instead = branch.slots.is_empty()
            && (self.fetching.asks_for_slots() || self.arriving.is_under_way());
        if !(is_asked || is_instead) {
            self.counters.branches_refused += 1;
            return;
        }
        self.fetching.pace.answered(from, self.now.instant);
        let mut at = head;
        let mut is_whole = true;
        for linked in branch.slots {
            let Linked { previous, entry } = linked;
            let batch = Arc::new(Batch { choices: entry.choices, requests: entry.requests });
            let digest = batch.digest();
            if at.slot == Slot::GENESIS || extend(&previous, &digest) != at.hash {
                self.counters.branches_refused += 1;
                is_whole = false;
                break;
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
            let weight = self.weight(&batch);
            self.branches.insert(at, Side::new(previous, batch, weight, order));
            at = Position { slot: Slot(at.slot.0 - 1), hash: previous };
        }
        self.follow_answer(head, head.slot.since(at.slot));
        if let Some(proof) = branch.stable.filter(|_| is_whole) {
            self.consider_state(from, *proof);
        }
    }

    /// So many slots have come below a position: whoever waits for them goes on over them.
    fn follow_answer(&mut self, head: Position, count: u64) {
        let waits = |(_, trail): &(&Position, &Trail)| trail.below() == head;
        let ends: Vec<Position> =
            self.branches.trails.iter().filter(waits).map(|(end, _)| *end).collect();
        for end in ends {
            let Some(mut trail) = self.branches.take(end) else { continue };
            self.follow(&mut trail, count);
            if let Some(peer) = trail.word.and_then(|id| self.peers.get_mut(&id)) {
                peer.credit.spend(count);
            }
            self.branches.put_back(trail);
        }
    }
}

const BUDGET_LEAST_BYTES: usize = BUDGET_LEAST as usize;
