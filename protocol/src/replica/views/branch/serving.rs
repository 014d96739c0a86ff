//! Slots of other histories, given and taken.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Side;
use crate::application::Application;
use crate::history::{Entry, extend};
use crate::id::{ReplicaId, Slot};
use crate::message::{Batch, Branch, Linked, Message, Position, SLOTS_MAX};
use crate::replica::normal::BUDGET_LEAST;
use crate::replica::{Replica, Target};

/// What an answer with nothing in it counts for.
const BUDGET_LEAST_BYTES: usize = BUDGET_LEAST as usize;

impl<A: Application> Replica<A> {
    pub(in crate::replica) fn serve_branch(
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

    pub(in crate::replica) fn on_branch(&mut self, from: ReplicaId, branch: Branch) {
        let mut head = branch.head;
        let is_empty = branch.slots.is_empty();
        let mut slots = branch.slots.into_iter().peekable();
        // Somebody else may have given the first of it meanwhile, and less.
        while !self.branches.wait_for(head)
            && slots.peek().is_some()
            && let Some(side) = self.branches.get(head)
        {
            head = side.before(head);
            slots.next();
        }
        // Who is asked for slots or for a state may have given them up.
        let is_instead =
            is_empty && (self.fetching.asks_for_slots() || self.arriving.is_under_way());
        if !(self.branches.wait_for(head) || is_instead) {
            self.counters.branches_refused += 1;
            return;
        }
        if !is_empty {
            self.fetching.note_branch(from, self.now.instant);
        }
        let mut at = head;
        let mut is_whole = true;
        for linked in slots {
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
        for end in self.branches.ends_above(head) {
            let Some(mut trail) = self.branches.take(end) else { continue };
            self.follow(&mut trail, count);
            if let Some(peer) = trail.word().and_then(|id| self.peers.get_mut(&id)) {
                peer.credit_mut().spend(count);
            }
            self.branches.put_back(trail);
        }
    }
}
