//! A villain that does what bytes say, for [fuzzing](crate::fuzz).
//!
//! All others were thought of by somebody. This one says what it or others have said before, with bytes of it
//! replaced, and signed anew in its own name; when, and to whom, the script decides. So a fuzzer that learns which bytes
//! lead to new code finds its way through the rules by itself.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::codec::{decode, encode};
use elea_protocol::id::{Instant, ReplicaId};
use elea_protocol::message::{Campaign, Message};
use elea_protocol::replica::{Action, Event, Target};

use super::{Deed, Lair, Villain, tell};
use crate::network::Party;

/// Messages kept of each kind: the first ones and the newest.
const FIRST: usize = 2;
const NEWEST: usize = 6;

/// Commands carried out at one time.
const AT_ONCE: usize = 16;

/// What is to be done, read from the front. Where it ends, nothing more is.
#[derive(Clone, Debug)]
pub struct Script {
    bytes: Arc<[u8]>,
    at: usize,
}

impl Script {
    /// A script of these bytes.
    #[must_use]
    pub fn new(bytes: Arc<[u8]>) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    /// A number of two bytes.
    pub fn number(&mut self) -> Option<usize> {
        let low = self.byte()?;
        Some(usize::from(u16::from_le_bytes([low, self.byte()?])))
    }

    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let taken = self.bytes.get(self.at..self.at + count)?;
        self.at += count;
        Some(taken)
    }
}

/// What was said before, encoded.
#[derive(Default)]
struct Kept(BTreeMap<&'static str, VecDeque<Bytes>>);

impl Kept {
    fn keep(&mut self, message: &Message) {
        let Ok(bytes) = encode(message) else { return };
        let kept = self.0.entry(message.kind()).or_default();
        if kept.len() == FIRST + NEWEST {
            kept.remove(FIRST);
        }
        kept.push_back(bytes);
    }

    /// Which one a byte means: five bits for the kind, three for the age.
    fn get(&self, which: u8) -> Option<&Bytes> {
        let kinds = self.0.len().max(1);
        let kept = self.0.values().nth(usize::from(which >> 3) % kinds)?;
        kept.iter().rev().nth(usize::from(which & 7) % kept.len())
    }
}

/// Does what its script says: with bytes of what was said before replaced, signed anew in its own name.
pub struct Puppet {
    script: Script,
    kept: Kept,
    /// Not before then is the next command carried out.
    rests_until: Instant,
    /// Whom it does not hear, and whom its core does not reach: a bit for each replica.
    deaf: u8,
    mute: u8,
}

impl Puppet {
    /// One that follows this script.
    #[must_use]
    pub fn new(script: Script) -> Self {
        let (kept, rests_until) = (Kept::default(), Instant::default());
        Self { script, kept, rests_until, deaf: 0, mute: 0 }
    }

    /// Carries out the next command; `None` where there is none.
    fn follow(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) -> Option<()> {
        let command = self.script.byte()?;
        match command % 8 {
            0 => self.rests_until = lair.now.instant.after_ms(u64::from(self.script.byte()?) * 4),
            1 => self.deaf = self.script.byte()?,
            2 => self.mute = self.script.byte()?,
            3 => {
                let to = among(lair, self.script.byte()?);
                let count = usize::from(self.script.byte()?);
                let bytes = Bytes::copy_from_slice(self.script.take(count)?);
                deeds.extend(to.into_iter().map(|to| Deed::Whisper { to, bytes: bytes.clone() }));
            }
            // The rest is the number of patches.
            _ => {
                let to = among(lair, self.script.byte()?);
                let which = self.script.byte()?;
                let mut said = self.kept.get(which).map(|bytes| bytes.to_vec());
                for _ in 4..command % 8 {
                    self.patch(said.as_deref_mut().unwrap_or_default())?;
                }
                // As it would arrive. What is no message any more is bytes like others.
                let Some(said) = said else { return Some(()) };
                match decode(&said) {
                    Ok(message) if command & 0x80 == 0 => {
                        tell(&to, sign_anew(lair, message), deeds)
                    }
                    Ok(message) => tell(&to, message, deeds),
                    Err(_) => {}
                }
            }
        }
        Some(())
    }

    /// Replaces a few bytes, by some of the script or by some of another message.
    fn patch(&mut self, said: &mut [u8]) -> Option<()> {
        let (at, how) = (self.script.number()?, self.script.byte()?);
        if how & 0x80 == 0 {
            let count = usize::from(how % 9);
            let from = self.script.take(count)?;
            put(said, at, from);
        } else {
            let (which, offset) = (self.script.byte()?, self.script.number()?);
            let from = self.kept.get(which).cloned().unwrap_or_default();
            let count = usize::from(how & 0x7f).min(from.len());
            put(said, at, &from[within(&from, offset, count)]);
        }
        Some(())
    }
}

/// Where so many bytes lie from an offset on, which means one within.
fn within(bytes: &[u8], offset: usize, count: usize) -> Range<usize> {
    let from = offset % (bytes.len() - count + 1);
    from..from + count
}

fn put(to: &mut [u8], at: usize, from: &[u8]) {
    let count = from.len().min(to.len());
    let place = within(to, at, count);
    to[place].copy_from_slice(&from[..count]);
}

/// Those of the others whose bit is set.
fn among(lair: &Lair, mask: u8) -> Vec<Party> {
    let is_meant = |party: &Party| matches!(party, Party::Replica(id) if is_set(mask, *id));
    lair.others().into_iter().filter(is_meant).collect()
}

fn is_set(mask: u8, id: u8) -> bool {
    mask >> (id % 8) & 1 == 1
}

/// The same in its own name. What others signed within it stays as it is.
fn sign_anew(lair: &Lair, message: Message) -> Message {
    match message {
        Message::Order(order) => Message::Order(lair.sign(order.body)),
        Message::Commit(vote) => Message::Commit(lair.sign(vote.body)),
        Message::Checkpoint(vote) => Message::Checkpoint(lair.sign(vote.body)),
        Message::Status(status) => Message::Status(lair.sign(status.body)),
        Message::Fetch(fetch) => Message::Fetch(lair.sign(fetch.body)),
        Message::Suspect(suspect) => Message::Suspect(lair.sign(suspect.body)),
        Message::Campaign(campaign) => {
            let change = lair.sign(campaign.change.body.clone());
            Message::Campaign(Box::new(Campaign { change, ..*campaign }))
        }
        Message::NewView(new_view) => Message::NewView(lair.sign(new_view.body)),
        Message::Enrol(enrol) => Message::Enrol(lair.sign(enrol.body)),
        Message::Enrolled(word) => Message::Enrolled(lair.sign(word.body)),
        Message::Pulse(pulse) => Message::Pulse(lair.sign(pulse.body)),
        Message::Certificate(_)
        | Message::Stable(_)
        | Message::Requests(_)
        | Message::Clients(_)
        | Message::Slots(_)
        | Message::Branch(_)
        | Message::State(_)
        | Message::Evidence(_)
        | Message::Waiting(_) => message,
    }
}

impl Villain for Puppet {
    fn name(&self) -> &'static str {
        "puppet"
    }

    fn hears(&mut self, _lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        if let Event::Peer { from, message } = &event {
            self.kept.keep(message);
            if is_set(self.deaf, from.0) {
                return;
            }
        }
        to_core.push(event);
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        let Action::Send { to, message, after } = action else {
            deeds.push(Deed::Act(action));
            return;
        };
        self.kept.keep(&message);
        if self.mute == 0 {
            deeds.push(Deed::Act(Action::Send { to, message, after }));
            return;
        }
        for party in lair.meant(to) {
            let Party::Replica(id) = party else { continue };
            if !is_set(self.mute, id) {
                let to = Target::One(ReplicaId(id));
                deeds.push(Deed::Act(Action::Send { to, message: message.clone(), after }));
            }
        }
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        for _ in 0..AT_ONCE {
            if lair.now.instant < self.rests_until || self.follow(lair, deeds).is_none() {
                return;
            }
        }
    }
}
