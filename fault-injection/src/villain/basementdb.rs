//! The three faults that basementdb's write-up (section 5) tries on its own replicas, by name.
//!
//! There they change the state of a running replica. Here the core is as it is, and what it says
//! and hears is as if its state had been changed so.

use elea_protocol::id::{Digest, Slot};
use elea_protocol::message::{Checkpoint, Commit, Message, Order, OrderHeader, Position, Status};
use elea_protocol::replica::{Action, Event, Record};

use super::notes::Notes;
use super::{Deed, Lair, Villain};
use crate::restate;

/// "The first test modifies the hash chain. It performs the following operations at random –
/// removing the most recent hash, inserting garbage hashes, and modifying the most recent hash."
///
/// What it orders and votes for from then on rests on the bent hash, until it is well again.
#[derive(Default)]
pub struct GarbageHash {
    notes: Notes,
    /// The hash of this slot, bent.
    bent: Option<(Slot, Digest)>,
}

impl GarbageHash {
    /// A slot was added to the chain.
    fn chain(&mut self, lair: &mut Lair, slot: Slot, own: Digest, batch: &Digest) {
        let previous = self.notes.at(lair, Slot(slot.0.saturating_sub(1))).map(|at| at.hash);
        let rested = self.bent.filter(|(bent, _)| bent.next() == slot);
        let hash = rested.map_or(own, |(_, bent)| restate::link(&bent, batch));
        self.bent = match lair.rng.between(0, 11) {
            0 => previous.map(|previous| (slot, previous)),
            1 => Some((slot, lair.invented())),
            2 => {
                let mut modified = hash;
                modified.0[lair.rng.index(32)] ^= 1;
                Some((slot, modified))
            }
            3 | 4 => None,
            _ => rested.map(|_| (slot, hash)),
        };
    }

    fn hash(&self, slot: Slot, own: Digest) -> Digest {
        self.bent.filter(|(bent, _)| *bent == slot).map_or(own, |(_, hash)| hash)
    }
}

impl Villain for GarbageHash {
    fn name(&self) -> &'static str {
        "basementdb-garbage-hash"
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        self.notes.take(&action);
        let (to, message, after) = match action {
            Action::Append { mark, record } => {
                if let Record::Slot { slot, hash, entry } = &record {
                    let requests: Vec<Digest> =
                        entry.requests.iter().map(|request| request.digest()).collect();
                    let batch = restate::choices_and_requests(&entry.choices, &requests);
                    self.chain(lair, *slot, *hash, &batch);
                }
                return deeds.push(Deed::Act(Action::Append { mark, record }));
            }
            Action::Send { to, message, after } => (to, message, after),
            action => return deeds.push(Deed::Act(action)),
        };
        let message = match message {
            Message::Order(order) if order.by == lair.id => {
                let header = order.body.header;
                let hash = self.hash(header.slot, header.hash);
                let header = OrderHeader { hash, ..header };
                Message::Order(lair.sign(Order { header, ..order.body }))
            }
            Message::Commit(commit) if commit.by == lair.id => {
                let hash = self.hash(commit.body.slot, commit.body.hash);
                Message::Commit(lair.sign(Commit { hash, ..commit.body }))
            }
            Message::Checkpoint(checkpoint) if checkpoint.by == lair.id => {
                let hash = self.hash(checkpoint.body.slot, checkpoint.body.hash);
                Message::Checkpoint(lair.sign(Checkpoint { hash, ..checkpoint.body }))
            }
            Message::Status(status) => {
                let Position { slot, hash } = status.body.head;
                let head = Position { slot, hash: self.hash(slot, hash) };
                Message::Status(lair.sign(Status { head, ..status.body }))
            }
            other => other,
        };
        deeds.push(Deed::Act(Action::Send { to, message, after }));
    }
}

/// "The second test modifies the 'pending commit' map. This map contains commit messages which have
/// been received, but not been matched with a corresponding Order Request [...] this test simulates
/// the effect of randomly dropping some commit messages."
///
/// Its core hears no vote for a slot that it has not executed, and only some of the others.
#[derive(Default)]
pub struct DropCommits {
    notes: Notes,
}

impl Villain for DropCommits {
    fn name(&self) -> &'static str {
        "basementdb-drop-commits"
    }

    fn hears(&mut self, lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        if let Event::Peer { message, .. } = &event
            && let Message::Commit(commit) = &**message
            && (commit.body.slot > self.notes.head(lair).slot || lair.rng.one_in(3))
        {
            return;
        }
        to_core.push(event);
    }

    fn does(&mut self, _lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        self.notes.take(&action);
        deeds.push(Deed::Act(action));
    }
}

/// "The third test just sets the value of n to zero. n is the highest sequence number that we
/// currently know about."
///
/// From then on it counts from there, until it is well again: slot 0 itself is malformed, and the
/// ones after it contradict those that had the numbers before.
#[derive(Default)]
pub struct NZero {
    notes: Notes,
    /// The slot that counts as 0.
    zero: Option<Slot>,
}

impl NZero {
    fn count(&self, slot: Slot) -> Slot {
        self.zero.map_or(slot, |zero| Slot(slot.since(zero)))
    }
}

impl Villain for NZero {
    fn name(&self) -> &'static str {
        "basementdb-n-zero"
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        self.notes.take(&action);
        let Action::Send { to, message, after } = action else {
            return deeds.push(Deed::Act(action));
        };
        if self.zero.is_some() {
            if lair.rng.one_in(24) {
                self.zero = None;
            }
        } else if lair.rng.one_in(12) {
            self.zero = Some(self.notes.head(lair).slot);
        }
        let message = match message {
            Message::Order(order) if order.by == lair.id => {
                let header = order.body.header;
                let header = OrderHeader { slot: self.count(header.slot), ..header };
                Message::Order(lair.sign(Order { header, ..order.body }))
            }
            Message::Commit(commit) if commit.by == lair.id => {
                let slot = self.count(commit.body.slot);
                Message::Commit(lair.sign(Commit { slot, ..commit.body }))
            }
            Message::Checkpoint(checkpoint) if checkpoint.by == lair.id => {
                let slot = self.count(checkpoint.body.slot);
                Message::Checkpoint(lair.sign(Checkpoint { slot, ..checkpoint.body }))
            }
            Message::Status(status) => {
                let Status { head, stable, .. } = status.body;
                let head = Position { slot: self.count(head.slot), ..head };
                let stable = stable.min(head.slot);
                Message::Status(lair.sign(Status { head, stable, ..status.body }))
            }
            other => other,
        };
        deeds.push(Deed::Act(Action::Send { to, message, after }));
    }
}
