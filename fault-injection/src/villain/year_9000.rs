//! A primary that lives in the far future.

use std::collections::VecDeque;
use std::sync::Arc;

use elea_protocol::id::{ReplicaId, Slot, WallTime};
use elea_protocol::message::{
    Branch, Linked, Message, NewView, NewViewHeader, NonDeterminism, Order, Position,
    SignedRequest, SlotEntry, Wanted, changes_digest,
};
use elea_protocol::replica::{Action, Event, Target};
use elea_protocol::signature::Signed;

use super::equivocator::Fork;
use super::notes::{Notes, Overheard};
use super::{Deed, EDITION, Lair, Villain, tell};
use crate::network::Party;
use crate::restate;

/// The first of January of that year, in milliseconds since 1970.
const YEAR_9000: u64 = 221_845_392_000_000;

/// Slots below the invented one in an answer.
const ANSWER_SLOTS: usize = 24;

/// From some slot of its views on it orders at a time in the far future, or just beyond what clocks
/// may differ by. Where it begins a view, the history of that view ends with a slot that it makes
/// up itself, of a request that really waits, and at such a time; it answers those that fetch it.
///
/// It attacks the time rule (F5 in schedules.md): were such a slot ever final, no clock would reach
/// it, and the cluster would stand still for good.
#[derive(Default)]
pub struct Year9000 {
    notes: Notes,
    overheard: Overheard,
    fork: Option<Fork>,
    /// The slot made up last, with what is below it.
    invented: Option<(Position, Linked)>,
    questions: VecDeque<(ReplicaId, Position)>,
}

impl Year9000 {
    fn time(lair: &mut Lair) -> WallTime {
        let now = lair.now.wall.0;
        WallTime(match lair.rng.between(0, 3) {
            // Some hundred milliseconds are what worlds let clocks differ by.
            0 => now + lair.rng.between(300, 1500),
            1 => u64::MAX,
            _ => YEAR_9000,
        })
    }

    fn order(&mut self, lair: &mut Lair, own: &Order) -> Option<Signed<Order>> {
        let (view, slot) = (own.header.view, own.header.slot);
        if self.fork.as_ref().is_none_or(|fork| fork.view != view) {
            if !lair.rng.one_in(4) {
                return None;
            }
            let before = self.notes.at(lair, Slot(slot.0.saturating_sub(1)))?;
            self.fork = Some(Fork::new(view, before));
        }
        let (time, seed) = (Self::time(lair), lair.rng.bytes());
        let fork = self.fork.as_mut()?;
        Some(fork.order(lair, time, own.requests.clone(), seed))
    }

    fn invent(&mut self, lair: &mut Lair, own: &NewView) -> Option<Signed<NewView>> {
        let request: Arc<SignedRequest> = self.overheard.waiting(&self.notes)?;
        let choices =
            NonDeterminism { time: Self::time(lair), seed: lair.rng.bytes(), edition: EDITION };
        let batch = restate::choices_and_requests(&choices, &[request.digest()]);
        let NewViewHeader { view, head: below, .. } = own.header;
        let hash = restate::link(&below.hash, &batch);
        let head = Position { slot: below.slot.next(), hash };
        let entry = SlotEntry { choices, requests: vec![request], order: None };
        self.invented = Some((head, Linked { previous: below.hash, entry }));
        self.fork = Some(Fork::new(view, head));
        let changes = own.changes.clone();
        let header = NewViewHeader { view, head, changes: changes_digest(&changes) };
        Some(lair.sign(NewView { header, changes }))
    }

    fn answer(&self, lair: &Lair, asked: Position) -> Option<Branch> {
        let (head, linked) = self.invented.as_ref().filter(|(head, _)| *head == asked)?;
        let below = Slot(head.slot.0 - 1);
        let mut slots = vec![linked.clone()];
        if self.notes.at(lair, below).is_some_and(|at| at.hash == linked.previous) {
            slots.extend(self.notes.down(lair, below, ANSWER_SLOTS));
        }
        Some(Branch { head: asked, slots, stable: None })
    }
}

impl Villain for Year9000 {
    fn name(&self) -> &'static str {
        "year-9000"
    }

    fn hears(&mut self, _lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        self.overheard.take(&event);
        if let Event::Peer { message, .. } = &event
            && let Message::Fetch(fetch) = &**message
            && let Wanted::Branch { head, .. } = &fetch.body.wanted
            && self.questions.len() < 16
        {
            self.questions.push_back((fetch.by, *head));
        }
        to_core.push(event);
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        self.notes.take(&action);
        let other = match &action {
            Action::Send { to: Target::Others, message: Message::Order(own), .. } => {
                self.order(lair, &own.body).map(Message::Order)
            }
            Action::Send { to: Target::Others, message: Message::NewView(own), .. } => {
                let invented = self.invent(lair, &own.body);
                // Now and then one of them gets the true one: a proof.
                if invented.is_some() && lair.rng.one_in(4) {
                    let to = lair.somebody();
                    tell(&[to], Message::NewView(own.clone()), deeds);
                }
                invented.map(Message::NewView)
            }
            _ => None,
        };
        match other {
            Some(other) => tell(&lair.others(), other, deeds),
            None => deeds.push(Deed::Act(action)),
        }
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        while let Some((by, asked)) = self.questions.pop_front() {
            if let Some(branch) = self.answer(lair, asked) {
                tell(&[Party::Replica(by.0)], Message::Branch(branch), deeds);
            }
        }
    }
}
