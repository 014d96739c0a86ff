//! Villains that send too much, too early, or nonsense.

use bytes::Bytes;
use elea_protocol::codec::encode;
use elea_protocol::id::{Digest, Slot, View};
use elea_protocol::message::{
    Checkpoint, Commit, Fetch, Message, NonDeterminism, Position, SlotEntry, Slots, Status,
    ToReplica, Wanted,
};
use elea_protocol::replica::{Action, Event};

use super::{Deed, Lair, Villain};

/// Signs votes, heads and states for slots and views that do not exist yet.
#[derive(Default)]
pub struct FutureFlooder {
    slot: u64,
}

impl Villain for FutureFlooder {
    fn name(&self) -> &'static str {
        "future-flooder"
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        self.slot = self.slot.wrapping_add(lair.rng.between(1, 1000));
        let slot = Slot(self.slot.max(1));
        let view = View(if lair.rng.one_in(2) { 0 } else { lair.rng.between(0, 1 << 40) });
        let hash = lair.invented();
        let message = match lair.rng.between(0, 2) {
            0 => Message::Commit(lair.sign(Commit { view, slot, hash })),
            1 => {
                let state = lair.invented();
                Message::Checkpoint(lair.sign(Checkpoint { view, slot, hash, state }))
            }
            _ => {
                let stamp = lair.now.wall.0 * 1000 + lair.rng.between(0, 999);
                let head = Position { slot, hash };
                let lock = Some((view, head));
                Message::Status(lair.sign(Status {
                    entered: view,
                    head,
                    lock,
                    stable: slot,
                    stamp,
                }))
            }
        };
        let to = lair.somebody();
        deeds.push(Deed::message(to, message));
    }
}

/// Sends histories that never were, asked or not, and asks for everything all the time.
#[derive(Default)]
pub struct FalseHistorian {
    seen: Vec<std::sync::Arc<elea_protocol::message::SignedRequest>>,
    stamp: u64,
}

impl FalseHistorian {
    fn invent(&self, lair: &mut Lair, from: Slot) -> Option<Message> {
        let entries: Vec<SlotEntry> = self
            .seen
            .iter()
            .map(|request| SlotEntry {
                choices: NonDeterminism { time: lair.now.wall, seed: lair.rng.bytes() },
                requests: vec![request.clone()],
                order: None,
            })
            .collect();
        (!entries.is_empty()).then_some(Message::Slots(Slots { from, entries, certificate: None }))
    }
}

impl Villain for FalseHistorian {
    fn name(&self) -> &'static str {
        "false-historian"
    }

    fn hears(&mut self, _lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        if let Event::Request(request) = &event
            && self.seen.len() < 8
        {
            self.seen.push((**request).clone());
        }
        to_core.push(event);
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        // Whoever asks it for history gets an invented one, too.
        if let Action::Send { to: elea_protocol::replica::Target::One(id), message, .. } = &action
            && let Message::Slots(slots) = message
            && let Some(invented) = self.invent(lair, slots.from)
        {
            deeds.push(Deed::message(crate::network::Party::Replica(id.0), invented));
        }
        deeds.push(Deed::Act(action));
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        let to = lair.somebody();
        self.stamp = self.stamp.max(lair.now.wall.0 * 1000) + 1;
        let from = Slot(lair.rng.between(1, 20));
        let wanted = if lair.rng.one_in(2) {
            Wanted::Slots { from }
        } else {
            Wanted::Requests {
                slot: from,
                digests: (0..64).map(|_| Digest(lair.rng.bytes())).collect(),
            }
        };
        let fetch = lair.sign(Fetch { wanted, stamp: self.stamp });
        deeds.push(Deed::message(to, Message::Fetch(fetch)));
        if lair.rng.one_in(4)
            && let Some(invented) = self.invent(lair, from)
        {
            deeds.push(Deed::message(to, invented));
        }
    }
}

/// Sends what others said long ago, as it was.
#[derive(Default)]
pub struct Replayer {
    kept: Vec<Message>,
}

impl Villain for Replayer {
    fn name(&self) -> &'static str {
        "replayer"
    }

    fn hears(&mut self, lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        if let Event::Peer { message, .. } = &event {
            if self.kept.len() < 64 {
                self.kept.push((**message).clone());
            } else if lair.rng.one_in(8) {
                let index = lair.rng.index(self.kept.len());
                self.kept[index] = (**message).clone();
            }
        }
        to_core.push(event);
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        if !self.kept.is_empty() && lair.rng.one_in(3) {
            let message = lair.rng.pick(&self.kept).clone();
            let to = lair.somebody();
            deeds.push(Deed::message(to, message));
        }
    }
}

/// Sends bytes: random ones, true messages cut short or with a bit turned, and signatures over
/// something else.
pub struct Junk;

impl Junk {
    fn spoil(lair: &mut Lair, message: &Message) -> Option<Bytes> {
        let mut bytes = encode(&ToReplica::Peer(message.clone())).ok()?.to_vec();
        let place = lair.rng.index(bytes.len());
        match lair.rng.between(0, 2) {
            0 => bytes.truncate(place),
            1 => bytes[place] ^= 1 << lair.rng.between(0, 7),
            _ => bytes.push(0),
        }
        Some(bytes.into())
    }
}

impl Villain for Junk {
    fn name(&self) -> &'static str {
        "junk"
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        if let Action::Send { message, .. } = &action
            && let Some(bytes) = Self::spoil(lair, message)
        {
            let to = lair.somebody();
            deeds.push(Deed::Whisper { to, bytes });
        }
        deeds.push(Deed::Act(action));
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        if lair.rng.one_in(4) {
            let noise: [u8; 96] = lair.rng.bytes();
            let length = lair.rng.index(noise.len());
            let to = lair.somebody();
            deeds.push(Deed::Whisper { to, bytes: Bytes::copy_from_slice(&noise[..length]) });
        }
    }
}
