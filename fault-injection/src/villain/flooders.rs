//! Villains that send too much, too early, or nonsense.

use std::collections::BTreeMap;

use bytes::Bytes;
use elea_protocol::codec::encode;
use elea_protocol::evidence::Evidence;
use elea_protocol::id::{Digest, Slot, View};
use elea_protocol::message::{
    Branch, Campaign, Checkpoint, Commit, Fetch, Linked, Message, NonDeterminism, OrderHeader,
    Position, SlotEntry, Slots, Status, Suspect, ToReplica, ViewChange, Wanted,
};
use elea_protocol::replica::{Action, Event, Target};

use super::notes::{Overheard, Pace, Stamps};
use super::{Deed, EDITION, Lair, Villain, tell};
use crate::network::Party;

/// Signs votes, heads, states, suspicions and view changes for slots and views that do not exist
/// yet, proofs against itself as the primary of such views, and branches that lead nowhere.
///
/// It attacks I10: whatever it says, what is kept of it has a bound.
#[derive(Default)]
pub struct FutureFlooder {
    slot: u64,
    overheard: Overheard,
    stamps: Stamps,
    pace: Pace,
}

impl FutureFlooder {
    fn invent(&mut self, lair: &mut Lair) -> Option<Message> {
        self.slot = self.slot.wrapping_add(lair.rng.between(1, 1000));
        let slot = Slot(self.slot.max(1));
        let highest = *lair.rng.pick(&[0, 0, 12, 1 << 40]);
        let view = View(lair.rng.between(0, highest));
        let head = Position { slot, hash: lair.invented() };
        let hash = head.hash;
        Some(match lair.rng.between(0, 8) {
            0 => Message::Commit(lair.sign(Commit { view, slot, hash })),
            1 => {
                let state = lair.invented();
                Message::Checkpoint(lair.sign(Checkpoint { view, slot, hash, state }))
            }
            2 => {
                let lock = Some((view, head));
                let (stamp, clients) = (self.stamps.next(lair), lair.invented());
                Message::Status(lair.sign(Status {
                    entered: view,
                    campaign: None,
                    head,
                    lock,
                    stable: slot,
                    convicted: 0,
                    clients,
                    newest_edition: EDITION,
                    common_edition: EDITION,
                    wall: lair.now.wall,
                    stamp,
                }))
            }
            3 => Message::Suspect(lair.sign(Suspect::of(view))),
            4 | 5 => self.campaign(lair, view, head),
            6 => {
                let view = lair.own_view_after(view, 0);
                let order = |hash| lair.sign(OrderHeader { view, slot, hash, batch: hash });
                Message::Evidence(Box::new(Evidence::Orders(order(hash), order(Digest([9; 32])))))
            }
            7 => {
                let commit = |hash| lair.sign(Commit { view, slot, hash });
                Message::Evidence(Box::new(Evidence::Commits(
                    commit(hash),
                    commit(Digest([9; 32])),
                )))
            }
            _ => {
                let request = self.overheard.all().next()?.clone();
                let choices = NonDeterminism {
                    time: lair.now.wall,
                    seed: lair.rng.bytes(),
                    edition: EDITION,
                };
                let entry = SlotEntry { choices, requests: vec![request], order: None };
                let previous = lair.invented();
                Message::Branch(Branch {
                    head,
                    slots: vec![Linked { previous, entry }],
                    stable: None,
                })
            }
        })
    }
}

impl FutureFlooder {
    fn campaign(&mut self, lair: &mut Lair, entered: View, head: Position) -> Message {
        let (view, stable) = (entered.next(), head.slot);
        let stamp = self.stamps.next(lair);
        let change = ViewChange { view, campaign: view, entered, lock: None, stable, head, stamp };
        Message::Campaign(Box::new(Campaign {
            change: lair.sign(change),
            suspects: Vec::new(),
            proof: None,
            others: Vec::new(),
        }))
    }
}

impl Villain for FutureFlooder {
    fn name(&self) -> &'static str {
        "future-flooder"
    }

    fn hears(&mut self, _lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        self.overheard.take(&event);
        to_core.push(event);
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        if !self.pace.is_due(lair, 1, 4) {
            return;
        }
        for _ in 0..lair.rng.between(1, 4) {
            let Some(message) = self.invent(lair) else { continue };
            let to = lair.somebody();
            tell(&[to], message, deeds);
        }
    }
}

/// Sends histories that never were, asked or not, and asks for everything all the time.
#[derive(Default)]
pub struct FalseHistorian {
    overheard: Overheard,
    stamps: Stamps,
    pace: Pace,
}

impl FalseHistorian {
    fn invent(&self, lair: &mut Lair, from: Slot) -> Option<Message> {
        let entries: Vec<SlotEntry> = self
            .overheard
            .all()
            .take(8)
            .map(|request| SlotEntry {
                choices: NonDeterminism {
                    time: lair.now.wall,
                    seed: lair.rng.bytes(),
                    edition: EDITION,
                },
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
        self.overheard.take(&event);
        to_core.push(event);
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        // Whoever asks it for history gets an invented one, too.
        if let Action::Send { to: Target::One(id), message: Message::Slots(slots), .. } = &action
            && let Some(invented) = self.invent(lair, slots.from)
        {
            tell(&[Party::Replica(id.0)], invented, deeds);
        }
        deeds.push(Deed::Act(action));
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        if !self.pace.is_due(lair, 1, 6) {
            return;
        }
        let to = lair.somebody();
        let from = Slot(lair.rng.between(1, 20));
        let wanted = match lair.rng.between(0, 2) {
            0 => Wanted::Slots { from },
            1 => Wanted::Requests {
                slot: from,
                digests: (0..64).map(|_| Digest(lair.rng.bytes())).collect(),
            },
            _ => {
                let mut invent = |slot| Position { slot, hash: lair.invented() };
                let known = (0..from.0).rev().map(|slot| invent(Slot(slot))).collect();
                Wanted::Branch { head: invent(from), known }
            }
        };
        let fetch = lair.sign(Fetch { wanted, room: 1 << 20, stamp: self.stamps.next(lair) });
        tell(&[to], Message::Fetch(fetch), deeds);
        if lair.rng.one_in(4)
            && let Some(invented) = self.invent(lair, from)
        {
            tell(&[to], invented, deeds);
        }
    }
}

/// Messages kept of each kind.
const KEPT_OF_A_KIND: usize = 12;

/// Sends what others and it itself said long ago, as it was. It keeps some of each kind: what is
/// said seldom, like a view change, does the most harm when it comes again.
#[derive(Default)]
pub struct Replayer {
    kept: BTreeMap<&'static str, Vec<Message>>,
}

impl Replayer {
    fn keep(&mut self, lair: &mut Lair, message: &Message) {
        let kept = self.kept.entry(message.kind()).or_default();
        if kept.len() < KEPT_OF_A_KIND {
            kept.push(message.clone());
        } else if lair.rng.one_in(16) {
            let index = lair.rng.index(kept.len());
            kept[index] = message.clone();
        }
    }
}

impl Villain for Replayer {
    fn name(&self) -> &'static str {
        "replayer"
    }

    fn hears(&mut self, lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        if let Event::Peer { message, .. } = &event {
            self.keep(lair, message);
        }
        to_core.push(event);
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        if let Action::Send { message, .. } = &action {
            self.keep(lair, message);
        }
        deeds.push(Deed::Act(action));
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        if self.kept.is_empty() || !lair.rng.one_in(3) {
            return;
        }
        let kind = lair.rng.index(self.kept.len());
        let Some(kept) = self.kept.values().nth(kind) else { return };
        let message = lair.rng.pick(kept).clone();
        let to = lair.somebody();
        tell(&[to], message, deeds);
    }
}

/// Sends bytes: random ones, true messages cut short or with a bit turned, and signatures over
/// something else.
#[derive(Default)]
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
