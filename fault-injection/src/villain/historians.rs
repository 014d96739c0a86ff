//! Villains that answer fetches, with true pieces in the wrong place.

use std::collections::VecDeque;

use bytes::Bytes;
use elea_protocol::id::{Digest, ReplicaId, Slot};
use elea_protocol::message::{
    Branch, CommitCertificate, Linked, Message, Position, SlotEntry, Slots, StableProof,
    StateChunk, StateDigests, StatePart, Wanted,
};
use elea_protocol::replica::{Action, Event};

use super::notes::{Notes, Pace};
use super::{Deed, Lair, Villain, tell};
use crate::network::Party;

/// Slots in one of its answers.
const ANSWER_SLOTS: usize = 24;

/// Questions waiting for an answer.
const QUESTIONS_MAX: usize = 16;

/// Keeps questions until there is a moment to answer them.
#[derive(Default)]
struct Questions(VecDeque<(ReplicaId, Wanted)>);

impl Questions {
    fn keep(&mut self, by: ReplicaId, wanted: &Wanted) {
        if self.0.len() < QUESTIONS_MAX {
            self.0.push_back((by, wanted.clone()));
        }
    }
}

/// Answers fetches with stale and forged history: older slots under newer numbers, slots of a
/// history that was given up, slots in the wrong order, with gaps, with the hashes of others, with
/// seeds that nobody chose, with the orders of other slots, under a certificate of long ago.
///
/// It attacks whoever fetches: every slot must be checked by its hash or its order, and a false
/// answer must not keep a true one out.
#[derive(Default)]
pub struct StaleHistorian {
    notes: Notes,
    oldest: Option<CommitCertificate>,
    questions: Questions,
}

impl StaleHistorian {
    fn slots(&self, lair: &mut Lair, from: Slot) -> Option<Message> {
        let mut entries: Vec<SlotEntry> = match lair.rng.between(0, 5) {
            0 => self.notes.entries(Slot::GENESIS.next(), ANSWER_SLOTS),
            1 => self.notes.entries(Slot(from.0.saturating_sub(1).max(1)), ANSWER_SLOTS),
            2 => self.notes.left().iter().map(|(_, linked)| linked.entry.clone()).collect(),
            _ => self.notes.entries(from, ANSWER_SLOTS),
        };
        entries.truncate(ANSWER_SLOTS);
        match lair.rng.between(0, 4) {
            0 => entries.reverse(),
            1 => entries.iter_mut().for_each(|entry| entry.choices.seed = lair.rng.bytes()),
            2 => entries.iter_mut().for_each(|entry| entry.order = None),
            3 if entries.len() > 1 => {
                let last = entries.len() - 1;
                let order = entries[last].order.clone();
                entries[0].order = order;
            }
            _ => {}
        }
        let certificate = self.oldest.clone().filter(|_| lair.rng.one_in(2));
        (!entries.is_empty()).then_some(Message::Slots(Slots { from, entries, certificate }))
    }

    fn branch(&self, lair: &mut Lair, head: Position) -> Option<Message> {
        let most = usize::try_from(head.slot.0).unwrap_or(usize::MAX).min(ANSWER_SLOTS);
        let lower = Slot(lair.rng.between(1, head.slot.0));
        let mut slots: Vec<Linked> = match lair.rng.between(0, 3) {
            0 => self.notes.left().iter().rev().map(|(_, linked)| linked.clone()).collect(),
            1 => self.notes.down(lair, lower, most),
            _ => self.notes.down(lair, head.slot, most),
        };
        slots.truncate(most);
        match lair.rng.between(0, 4) {
            0 => slots.reverse(),
            1 => slots.iter_mut().for_each(|linked| linked.previous = lair.invented()),
            2 if slots.len() > 2 => drop(slots.remove(1)),
            3 => slots.iter_mut().for_each(|linked| linked.entry.choices.seed = lair.rng.bytes()),
            _ => {}
        }
        let stable = self.notes.stable().filter(|_| lair.rng.one_in(3)).cloned().map(Box::new);
        let is_something = !slots.is_empty() || stable.is_some();
        is_something.then_some(Message::Branch(Branch { head, slots, stable }))
    }
}

impl Villain for StaleHistorian {
    fn name(&self) -> &'static str {
        "stale-historian"
    }

    fn hears(&mut self, lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        if let Event::Peer { message, .. } = &event
            && let Message::Fetch(fetch) = &**message
            && matches!(fetch.body.wanted, Wanted::Slots { .. } | Wanted::Branch { .. })
        {
            self.questions.keep(fetch.by, &fetch.body.wanted);
            // The truth comes after the lie, or not at all.
            if !lair.rng.one_in(3) {
                return;
            }
        }
        to_core.push(event);
    }

    fn does(&mut self, _lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        self.notes.take(&action);
        if self.oldest.is_none() {
            self.oldest = self.notes.lock().cloned();
        }
        deeds.push(Deed::Act(action));
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        while let Some((by, wanted)) = self.questions.0.pop_front() {
            let answer = match wanted {
                Wanted::Slots { from } => self.slots(lair, from),
                Wanted::Branch { head, .. } => self.branch(lair, head),
                Wanted::Requests { .. } | Wanted::State { .. } | Wanted::Clients => None,
            };
            answer.into_iter().for_each(|answer| tell(&[Party::Replica(by.0)], answer, deeds));
        }
    }
}

/// Offers its state where history is asked for, and answers with chunks that are random or have a
/// bit turned, too many or too few, under other digests; also to those that did not ask.
///
/// It attacks state transfer: one bad chunk must not stop it, waste it, or fill the memory.
#[derive(Default)]
pub struct JunkState {
    notes: Notes,
    offers: Vec<StableProof>,
    questions: Questions,
    pace: Pace,
}

/// Proofs of checkpoints kept, to be offered when they are old.
const OFFERS_MAX: usize = 4;

impl JunkState {
    fn invent(lair: &mut Lair, at: Position, part: StatePart) -> StateChunk {
        let noise: [u8; 256] = lair.rng.bytes();
        let length = lair.rng.index(noise.len());
        let of = *lair.rng.pick(&[0, 1, 3, 1000, u32::MAX]);
        let digests = StateDigests { application: lair.invented(), sessions: Digest([0; 32]) };
        StateChunk { at, digests, part, of, bytes: Bytes::copy_from_slice(&noise[..length]) }
    }

    fn spoil(lair: &mut Lair, mut chunk: StateChunk) -> StateChunk {
        let mut bytes = chunk.bytes.to_vec();
        match lair.rng.between(0, 3) {
            0 if !bytes.is_empty() => {
                let place = lair.rng.index(bytes.len());
                bytes[place] ^= 1 << lair.rng.between(0, 7);
            }
            1 if !bytes.is_empty() => bytes.truncate(lair.rng.index(bytes.len())),
            2 => chunk.of = chunk.of.wrapping_add(1),
            _ => chunk.digests.sessions = lair.invented(),
        }
        chunk.bytes = bytes.into();
        chunk
    }
}

impl Villain for JunkState {
    fn name(&self) -> &'static str {
        "junk-state"
    }

    fn hears(&mut self, _lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        if let Event::Peer { message, .. } = &event
            && let Message::Fetch(fetch) = &**message
        {
            self.questions.keep(fetch.by, &fetch.body.wanted);
        }
        to_core.push(event);
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        self.notes.take(&action);
        if let Some(stable) = self.notes.stable()
            && self.offers.last().is_none_or(|last| last.slot() < stable.slot())
        {
            if self.offers.len() >= OFFERS_MAX {
                self.offers.remove(1);
            }
            self.offers.push(stable.clone());
        }
        match action {
            Action::Send { to, message: Message::State(chunk), after } if !lair.rng.one_in(4) => {
                let message = Message::State(Self::spoil(lair, chunk));
                deeds.push(Deed::Act(Action::Send { to, message, after }));
            }
            action => deeds.push(Deed::Act(action)),
        }
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        while let Some((by, wanted)) = self.questions.0.pop_front() {
            let to = [Party::Replica(by.0)];
            match wanted {
                Wanted::State { at, part } => {
                    tell(&to, Message::State(Self::invent(lair, at, part)), deeds);
                }
                Wanted::Branch { head, .. } if !self.offers.is_empty() => {
                    let stable = Some(Box::new(lair.rng.pick(&self.offers).clone()));
                    tell(&to, Message::Branch(Branch { head, slots: Vec::new(), stable }), deeds);
                }
                _ => {}
            }
        }
        if !self.offers.is_empty() && self.pace.is_due(lair, 20, 200) {
            let offer = lair.rng.pick(&self.offers).clone();
            let index = u32::try_from(lair.rng.between(0, 3)).unwrap_or_default();
            let parts =
                [StatePart::Last, StatePart::Sessions(index), StatePart::Application(u32::MAX)];
            let part = *lair.rng.pick(&parts);
            let chunk = Self::invent(lair, offer.position(), part);
            let to = lair.somebody();
            tell(&[to], Message::Stable(Box::new(offer)), deeds);
            tell(&[to], Message::State(chunk), deeds);
        }
    }
}
