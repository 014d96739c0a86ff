//! How the store is laid out: the names of things, their keys, and what stands before each value.

use std::collections::BTreeMap;

use bytes::Bytes;
use elea_protocol::codec::{self, Canonical, Sink};
use elea_protocol::id::{Digest, ReplicaId, Slot};
use elea_protocol::message::StateHead;
use elea_protocol::message::{Position, StatePart};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version of what is stored. It changes when old records can no longer be read as they are.
pub(super) const FORMAT: u32 = 10;

pub(super) const HISTORY: &str = "history";
pub(super) const META: &str = "meta";
pub(super) const ASIDE: &str = "aside";
pub(super) const ORPHANS: &str = "orphans";
pub(super) const STATE: &str = "state";
pub(super) const EVIDENCE: &str = "evidence";

/// Names in `meta`, and the list of all of them.
macro_rules! meta_names {
    ($($constant:ident = $name:literal;)+) => {
        $(pub(super) const $constant: &[u8] = $name;)+

        #[cfg(test)]
        pub(super) const META_NAMES: &[&[u8]] = &[$($constant),+];
    };
}

meta_names! {
    META_FORMAT = b"format";
    META_GENESIS = b"genesis";
    META_REPLICA = b"replica";
    META_LOCK = b"lock";
    META_STABLE = b"stable";
    META_ENTERED = b"entered";
    META_STATE = b"state";
    META_INITIAL = b"initial";
    META_INCOMING = b"incoming";
    META_ERA = b"era";
    META_GENERATION = b"generation";
    META_VOTED = b"voted";
    META_GROUP = b"group";
    META_STANDING = b"standing";
    META_LIVES = b"lives";
    META_MISMATCHES = b"mismatches";
    META_STAMPS = b"stamps";
}

/// What becomes of one key: a value, or nothing.
pub(super) type Change = Option<Bytes>;

/// A keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Space {
    History,
    Meta,
    Aside,
    Orphans,
    State,
    Evidence,
    /// The application's rows of a state of this generation.
    Rows(u64),
}

/// What a group of records does to the tables. It may be done again: the outcome is the same. Of a key that is
/// changed twice only the last change is here; within a batch of fjall's both would get one sequence number,
/// and which of them stays is undefined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Redo {
    pub(super) spaces: BTreeMap<Space, BTreeMap<Bytes, Change>>,
    /// What there is when all of it is done.
    pub(super) present: Present,
    /// About how many bytes.
    pub(super) weight: usize,
}

impl Redo {
    pub(super) fn put(&mut self, space: Space, key: impl Into<Bytes>, change: Change) {
        let key = key.into();
        self.weight += key.len() + change.as_ref().map_or(0, Bytes::len);
        self.spaces.entry(space).or_default().insert(key, change);
    }

    /// What follows these.
    pub(super) fn merge(&mut self, later: Self) {
        self.weight += later.weight;
        self.present = later.present;
        for (space, changes) in later.spaces {
            self.spaces.entry(space).or_default().extend(changes);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.spaces.values().all(BTreeMap::is_empty)
    }
}

/// Which states there are, and where the history begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Present {
    pub(super) era: u64,
    /// The slot of the state that the history begins with.
    pub(super) base: Slot,
    /// The generation of that state.
    pub(super) ground: Option<u64>,
    /// That of the one on its way.
    pub(super) incoming: Option<u64>,
}

impl Present {
    pub(super) fn generations(self) -> impl Iterator<Item = u64> {
        self.ground.into_iter().chain(self.incoming)
    }
}

/// Where a state lies, and of which checkpoint it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) generation: u64,
    pub(super) at: Position,
}

/// The same with all there is to know of it, as it is stored.
pub(super) type PlacedHead = (u64, StateHead);

pub(super) fn place((generation, head): &PlacedHead) -> Place {
    Place { generation: *generation, at: head.stable.position() }
}

/// How large a memtable of this replica is, where it is `least` at least. All replicas write about as
/// much, and with equal ones all would be held up by their files at the same time: the service would be,
/// and not one of them.
pub(super) fn spread(least: u64, me: ReplicaId) -> u64 {
    // Multiples of the golden ratio lie apart, however many there are of them.
    let thousandths = u64::from(me.0) * 618 % 1000;
    least + least / 2 * thousandths / 1000
}

/// What the checksum of a value covers.
pub(super) struct Stored<'a> {
    pub(super) keyspace: &'a str,
    pub(super) key: &'a [u8],
    pub(super) bytes: &'a [u8],
}

impl Canonical for Stored<'_> {
    const TAG: &'static str = "stored";

    fn write(&self, to: &mut impl Sink) {
        to.put_bytes(self.keyspace.as_bytes());
        to.put_bytes(self.key);
        to.put_bytes(self.bytes);
    }
}

pub(super) const CHECKSUM: usize = 16;

pub(super) fn checksum(keyspace: &str, key: &[u8], bytes: &[u8]) -> [u8; CHECKSUM] {
    let Digest(digest) = Stored { keyspace, key, bytes }.digest();
    let (checksum, _) = digest.split_first_chunk().expect("a digest is longer than a checksum");
    *checksum
}

pub(super) fn seal<T: Serialize>(
    keyspace: &str,
    key: &[u8],
    value: &T,
) -> Result<Vec<u8>, codec::CodecError> {
    let bytes = codec::encode(value)?;
    let mut stored = Vec::with_capacity(CHECKSUM + bytes.len());
    stored.extend_from_slice(&checksum(keyspace, key, &bytes));
    stored.extend_from_slice(&bytes);
    Ok(stored)
}

pub(super) fn unseal<T: DeserializeOwned>(
    keyspace: &str,
    key: &[u8],
    stored: &[u8],
) -> Result<T, String> {
    let place = || format!("a value in {keyspace} at {}", elea_protocol::id::hex(key));
    let (sum, bytes) = stored
        .split_first_chunk::<CHECKSUM>()
        .ok_or_else(|| format!("{} is too short", place()))?;
    if *sum != checksum(keyspace, key, bytes) {
        return Err(format!("{} does not match its checksum", place()));
    }
    codec::decode(bytes).map_err(|error| format!("{}: {error}", place()))
}

pub(super) fn slot_key(era: u64, slot: Slot) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&era.to_be_bytes());
    key[8..].copy_from_slice(&slot.0.to_be_bytes());
    key
}

/// The era and the slot.
pub(super) fn slot_of_key(key: &[u8]) -> Option<(u64, Slot)> {
    let (era, slot) = key.split_first_chunk()?;
    let slot = slot.try_into().ok()?;
    Some((u64::from_be_bytes(*era), Slot(u64::from_be_bytes(slot))))
}

/// `None` for a part that is none of the protocol's own.
pub(super) fn piece_key(generation: u64, part: StatePart) -> Option<[u8; 13]> {
    let (tag, index) = match part {
        StatePart::Last => (0, 0),
        StatePart::Sessions(index) => (1, index),
        StatePart::Application(_) => return None,
    };
    let mut key = [0; 13];
    key[..8].copy_from_slice(&generation.to_be_bytes());
    key[8] = tag;
    key[9..].copy_from_slice(&u32::to_be_bytes(index));
    Some(key)
}

/// The generation and the part.
pub(super) fn part_of_key(key: &[u8]) -> Option<(u64, StatePart)> {
    let (generation, rest) = key.split_first_chunk()?;
    let (tag, index) = rest.split_first()?;
    let index = u32::from_be_bytes(index.try_into().ok()?);
    let part = match tag {
        0 if index == 0 => StatePart::Last,
        1 => StatePart::Sessions(index),
        _ => return None,
    };
    Some((u64::from_be_bytes(*generation), part))
}
