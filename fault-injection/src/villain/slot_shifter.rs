//! True hashes beside wrong slots.

use std::collections::BTreeMap;

use elea_protocol::id::{ReplicaId, Slot};
use elea_protocol::message::{Branch, Linked, Message, Position, Status, Wanted};
use elea_protocol::replica::{Action, Event};

use super::notes::{Notes, Pace, Stamps};
use super::{Deed, EDITION, Lair, Villain, tell};
use crate::network::Party;

/// Slots in one of its answers.
const ANSWER_SLOTS: usize = 64;

/// Slots of other replicas remembered.
const LINKS_KEPT: usize = 512;

/// Says in statuses and view changes that it has the heads of others, at a slot a little lower or
/// higher than theirs, and answers for what it said, with true slots.
///
/// It attacks whoever takes a hash for the name of a slot: everything that it sends fits together, only the
/// numbers are wrong, and what is true then has the place of what is false.
#[derive(Default)]
pub struct SlotShifter {
    notes: Notes,
    stamps: Stamps,
    pace: Pace,
    /// Where each replica says that it stands.
    heard: BTreeMap<ReplicaId, Status>,
    /// Slots of other histories by their hashes.
    links: BTreeMap<elea_protocol::id::Digest, Linked>,
    asked: Vec<(ReplicaId, Position)>,
}

impl SlotShifter {
    fn shifted(lair: &mut Lair, at: Position) -> Position {
        let by = lair.rng.between(1, 4);
        let slot = if lair.rng.one_in(4) { at.slot.0 + by } else { at.slot.0.saturating_sub(by) };
        Position { slot: Slot(slot.max(1)), hash: at.hash }
    }

    /// A status for one of the others: of the view that it is in, and with the head of somebody else.
    fn status(&mut self, lair: &mut Lair, to: ReplicaId) -> Option<Status> {
        let entered = self.heard.get(&to)?.entered;
        let heads: Vec<Position> = self
            .heard
            .values()
            .map(|status| status.head)
            .chain([self.notes.head(lair)])
            .filter(|head| head.slot > Slot::GENESIS)
            .collect();
        if heads.is_empty() {
            return None;
        }
        let head = *lair.rng.pick(&heads);
        let head = Self::shifted(lair, head);
        let stamp = self.stamps.next(lair);
        let (lock, stable, convicted) = (None, Slot::GENESIS, 0);
        let (clients, wall) = (*lair.membership.client_list(), lair.now.wall);
        let (campaign, newest_edition) = (None, EDITION);
        Some(Status {
            entered,
            campaign,
            head,
            lock,
            stable,
            convicted,
            clients,
            newest_edition,
            common_edition: newest_edition,
            wall,
            stamp,
        })
    }

    fn link(&self, lair: &Lair, at: Position) -> Option<Linked> {
        let own = || {
            let slot = self.notes.known().find(|known| known.hash == at.hash)?.slot;
            self.notes.down(lair, slot, 1).pop()
        };
        let left = || {
            let left = self.notes.left().iter().find(|(known, _)| known.hash == at.hash)?;
            Some(left.1.clone())
        };
        self.links.get(&at.hash).cloned().or_else(own).or_else(left)
    }

    /// True slots from a hash downwards, whatever the slot that was asked for.
    fn answer(&self, lair: &Lair, head: Position) -> Option<Message> {
        let mut slots = Vec::new();
        let mut at = head;
        while slots.len() < ANSWER_SLOTS
            && at.slot > Slot::GENESIS
            && let Some(linked) = self.link(lair, at)
        {
            at = Position { slot: Slot(at.slot.0 - 1), hash: linked.previous };
            slots.push(linked);
        }
        let branch = Branch { head, slots, stable: None };
        (!branch.slots.is_empty()).then_some(Message::Branch(branch))
    }

    fn keep(&mut self, branch: &Branch) {
        let mut hash = branch.head.hash;
        for linked in &branch.slots {
            if self.links.len() >= LINKS_KEPT {
                self.links.pop_first();
            }
            self.links.insert(hash, linked.clone());
            hash = linked.previous;
        }
    }
}

impl Villain for SlotShifter {
    fn name(&self) -> &'static str {
        "slot-shifter"
    }

    fn hears(&mut self, _lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        if let Event::Peer { message, .. } = &event {
            match &**message {
                Message::Status(status) => drop(self.heard.insert(status.by, status.body)),
                Message::Branch(branch) => self.keep(branch),
                Message::Fetch(fetch) => {
                    if let Wanted::Branch { head, .. } = fetch.body.wanted
                        && self.asked.len() < 16
                    {
                        self.asked.push((fetch.by, head));
                    }
                }
                _ => {}
            }
        }
        to_core.push(event);
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        self.notes.take(&action);
        match action {
            Action::Send { message: Message::Status(_), .. } if !lair.rng.one_in(4) => {}
            Action::Send { to, message: Message::Campaign(mut campaign), after } => {
                let mut body = campaign.change.body.clone();
                let head = Self::shifted(lair, body.head);
                if head.slot >= body.stable {
                    body.head = head;
                }
                campaign.change = lair.sign(body);
                let message = Message::Campaign(campaign);
                deeds.push(Deed::Act(Action::Send { to, message, after }));
            }
            action => deeds.push(Deed::Act(action)),
        }
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        for (by, head) in std::mem::take(&mut self.asked) {
            let answer = self.answer(lair, head);
            answer.into_iter().for_each(|answer| tell(&[Party::Replica(by.0)], answer, deeds));
        }
        if !self.pace.is_due(lair, 20, 100) {
            return;
        }
        for to in lair.others() {
            let Party::Replica(id) = to else { continue };
            if let Some(status) = self.status(lair, ReplicaId(id)) {
                tell(&[to], Message::Status(lair.sign(status)), deeds);
            }
        }
    }
}
