//! What a group of records comes to, worked out before anything of it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::codec::{self, Canonical as _};
use elea_protocol::id::{Digest, Slot};
use elea_protocol::message::{Position, SlotEntry, StateHead, StatePart};
use elea_protocol::replica::{Adopted, Aside, Ground, Record, Settled};
use elea_protocol::rows::Changes;
use serde::Serialize;

use super::layout::{
    ASIDE, Change, EVIDENCE, HISTORY, META, META_ENTERED, META_ERA, META_GENERATION, META_INCOMING,
    META_LIVES, META_LOCK, META_MISMATCHES, META_STABLE, META_STAMPS, META_STANDING, META_STATE,
    META_VOTED, ORPHANS, Place, PlacedHead, Present, Redo, STATE, Space, Stored, piece_key, place,
    seal, slot_key,
};
use super::{StoreError, rows};

/// The longest key that fjall takes, in bytes.
const KEY_MAX: usize = 65_535;

/// What is known of the store without reading it: enough to know what a record changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// The state that the history begins with.
    pub(super) ground: Option<Place>,
    /// How often a state has taken the place of another history. It is a part of the keys of slots,
    /// so that those of a history that is gone are told from the present ones.
    pub(super) era: u64,
    /// The highest slot stored, or the base where there is none.
    pub(super) highest: Slot,
    /// The slots aside. Hardly ever any, so that a copy costs nothing.
    pub(super) aside: BTreeMap<Digest, Arc<Aside>>,
    /// The state on its way here.
    pub(super) incoming: Option<Place>,
    /// The keys of the protocol's own pieces of states.
    pub(super) pieces: Arc<BTreeSet<[u8; 13]>>,
    /// The highest generation that ever was. No name is used twice: fjall's journals may hold rows
    /// of the one that had it first.
    pub(super) generation: u64,
}

impl Index {
    pub(super) fn base(&self) -> Slot {
        self.ground.map_or(Slot::GENESIS, |ground| ground.at.slot)
    }

    pub(super) fn present(&self) -> Present {
        let generation = |place: Place| place.generation;
        Present {
            era: self.era,
            base: self.base(),
            ground: self.ground.map(generation),
            incoming: self.incoming.map(generation),
        }
    }
}

/// What becomes of rows when the state of a checkpoint is settled: sealed, and in memory only.
#[derive(Debug)]
pub(super) struct Settling {
    at: Position,
    rows: BTreeMap<Bytes, Change>,
}

/// The rows as they are stored.
fn sealed(changes: &Changes) -> impl Iterator<Item = (Bytes, Change)> {
    let seal = |(key, value): &(Bytes, Option<Bytes>)| {
        (key.clone(), value.as_ref().map(|value| rows::seal(key, value).into()))
    };
    changes.iter().map(seal)
}

/// What one group of records comes to.
pub(super) struct Group<'a> {
    path: &'a Path,
    /// Generations whose rows were damaged and are given up.
    given_up: &'a BTreeSet<u64>,
    /// As it is after the group.
    pub(super) index: Index,
    pub(super) redo: Redo,
    /// What was told for the next settled state, and is not written yet.
    pub(super) settling: Option<Settling>,
    /// Records, by their places in the group, with the generations whose rows they complete.
    pub(super) completed: Vec<(usize, u64)>,
}

impl<'a> Group<'a> {
    pub(super) fn new(
        path: &'a Path,
        given_up: &'a BTreeSet<u64>,
        index: Index,
        settling: Option<Settling>,
    ) -> Self {
        Self { path, given_up, index, redo: Redo::default(), settling, completed: Vec::new() }
    }

    fn damaged(&self, what: impl ToString) -> StoreError {
        StoreError::Damaged { path: self.path.into(), what: what.to_string() }
    }

    fn seal<T: Serialize>(
        &self,
        keyspace: &str,
        key: &[u8],
        value: &T,
    ) -> Result<Change, StoreError> {
        let sealed = seal(keyspace, key, value).map(|sealed| Some(sealed.into()));
        sealed.map_err(|error| failed(self.path, error))
    }

    fn put<T: Serialize>(
        &mut self,
        (space, name): (Space, &str),
        key: &[u8],
        value: &T,
    ) -> Result<(), StoreError> {
        let sealed = self.seal(name, key, value)?;
        self.redo.put(space, Bytes::copy_from_slice(key), sealed);
        Ok(())
    }

    fn remove(&mut self, space: Space, key: &[u8]) {
        self.redo.put(space, Bytes::copy_from_slice(key), None);
    }

    pub(super) fn put_meta<T: Serialize>(
        &mut self,
        key: &'static [u8],
        value: &T,
    ) -> Result<(), StoreError> {
        self.put((Space::Meta, META), key, value)
    }

    pub(super) fn stage(&mut self, place: usize, record: &Record) -> Result<(), StoreError> {
        match record {
            Record::Slot { slot, hash, entry } => {
                self.truncate(Slot(slot.0.saturating_sub(1)))?;
                self.push(*slot, hash, entry)
            }
            Record::Aside(aside) => {
                let key = aside.at.hash;
                self.index.aside.insert(key, Arc::new(aside.clone()));
                self.put((Space::Aside, ASIDE), &key.0, aside)
            }
            Record::Lock(certificate) => self.put_meta(META_LOCK, certificate),
            Record::Stable(stable) => self.put_meta(META_STABLE, stable),
            Record::Adopted(adopted) => self.adopt(adopted),
            Record::Orphans { add, remove } => {
                for orphan in add {
                    self.put((Space::Orphans, ORPHANS), &orphan.digest().0, orphan)?;
                }
                remove.iter().for_each(|digest| self.remove(Space::Orphans, &digest.0));
                Ok(())
            }
            Record::Fetching(head) => self.fetch(head),
            Record::Piece { at, part, bytes } => {
                let generation = self.incoming_at(*at)?;
                self.put_piece(generation, *part, bytes)
            }
            Record::Rows { at, rows, whole } => {
                let generation = self.incoming_at(*at)?;
                for (key, value) in rows {
                    self.put_row(generation, key.clone(), Some(rows::seal(key, value).into()))?;
                }
                if *whole {
                    self.completed.push((place, generation));
                }
                Ok(())
            }
            Record::Settling { at, first, changes } => self.gather(*at, *first, changes),
            Record::Settled(settled) => {
                let generation = self.settle(settled)?;
                self.completed.push((place, generation));
                Ok(())
            }
            Record::Evidence(evidence) => {
                // Named by its content, so that the same proof is kept once.
                let bytes = codec::encode(evidence).map_err(|error| failed(self.path, error))?;
                let key = Stored { keyspace: EVIDENCE, key: &[], bytes: &bytes }.digest();
                self.put((Space::Evidence, EVIDENCE), &key.0, evidence)
            }
            Record::Standing(standing) => self.put_meta(META_STANDING, standing),
            Record::Lives(lives) => self.put_meta(META_LIVES, lives),
            Record::Mismatches(mismatches) => self.put_meta(META_MISMATCHES, mismatches),
            Record::Stamps(stamps) => self.put_meta(META_STAMPS, stamps),
        }
    }

    /// Lets go of the slots above this one.
    fn truncate(&mut self, slot: Slot) -> Result<(), StoreError> {
        let (base, highest) = (self.index.base(), self.index.highest);
        if slot < base || slot > highest {
            // A replica that goes on with a hole in its history could not start again.
            let what =
                format!("slot {slot} is to be kept, and slots {base} to {highest} are there");
            return Err(self.damaged(what));
        }
        for gone in slot.next().0..=highest.0 {
            self.remove(Space::History, &slot_key(self.index.era, Slot(gone)));
        }
        self.index.highest = slot;
        Ok(())
    }

    fn push(&mut self, slot: Slot, hash: &Digest, entry: &SlotEntry) -> Result<(), StoreError> {
        let key = slot_key(self.index.era, slot);
        self.put((Space::History, HISTORY), &key, &(hash, entry))?;
        self.index.highest = slot;
        Ok(())
    }

    fn adopt(&mut self, adopted: &Adopted) -> Result<(), StoreError> {
        match &adopted.ground {
            Ground::Common(slot) => self.truncate(*slot)?,
            Ground::State(head) => self.stand_on(head)?,
        }
        for hash in &adopted.slots {
            let known = self.index.aside.get(hash).cloned();
            let Some(aside) = known else {
                return Err(self.damaged("a slot aside that is adopted is missing"));
            };
            let Aside { at, linked } = &*aside;
            let next = self.index.highest.next();
            if at.slot != next {
                let what = format!("slot {} is to be put where slot {next} belongs", at.slot);
                return Err(self.damaged(what));
            }
            self.push(at.slot, &at.hash, &linked.entry)?;
        }
        if let Some(entered) = &adopted.entered {
            self.put_meta(META_ENTERED, entered)?;
        }
        self.put_meta(META_VOTED, &adopted.voted)?;
        match &adopted.lock {
            Some(lock) => self.put_meta(META_LOCK, lock)?,
            None => self.remove(Space::Meta, META_LOCK),
        }
        let gone = std::mem::take(&mut self.index.aside);
        gone.keys().for_each(|hash| self.remove(Space::Aside, &hash.0));
        Ok(())
    }

    // ---- states ----

    fn put_piece(
        &mut self,
        generation: u64,
        part: StatePart,
        bytes: &Bytes,
    ) -> Result<(), StoreError> {
        let Some(key) = piece_key(generation, part) else {
            return Err(self.damaged("a piece of the application's state is to be kept"));
        };
        Arc::make_mut(&mut self.index.pieces).insert(key);
        self.put((Space::State, STATE), &key, bytes)
    }

    /// Refuses what fjall could not take: once it is in the log no start would get beyond it.
    fn put_row(&mut self, generation: u64, key: Bytes, change: Change) -> Result<(), StoreError> {
        if key.is_empty() || key.len() > KEY_MAX {
            let what =
                format!("a row has a key of {} bytes, and 1 to {KEY_MAX} are possible", key.len());
            return Err(failed(self.path, what));
        }
        self.redo.put(Space::Rows(generation), key, change);
        Ok(())
    }

    fn next_generation(&mut self) -> Result<u64, StoreError> {
        self.index.generation += 1;
        let generation = self.index.generation;
        self.put_meta(META_GENERATION, &generation)?;
        Ok(generation)
    }

    /// A state is fetched from here on.
    fn fetch(&mut self, head: &StateHead) -> Result<(), StoreError> {
        let head: PlacedHead = (self.next_generation()?, head.clone());
        if let Some(before) = self.index.incoming.replace(place(&head)) {
            self.drop_state(before.generation);
        }
        self.put_meta(META_INCOMING, &head)
    }

    /// The generation of the state on its way, which must be this one.
    fn incoming_at(&self, at: Position) -> Result<u64, StoreError> {
        match self.index.incoming {
            Some(incoming) if incoming.at == at => Ok(incoming.generation),
            _ => {
                let what = format!("a piece of a state at slot {} that is not fetched", at.slot);
                Err(self.damaged(what))
            }
        }
    }

    /// Keeps a part of what the next settled state changes.
    fn gather(&mut self, at: Position, first: bool, changes: &Changes) -> Result<(), StoreError> {
        if first {
            self.settling = Some(Settling { at, rows: BTreeMap::new() });
        }
        let Some(settling) = self.settling.as_mut().filter(|settling| settling.at == at) else {
            let what = format!("a part of a state at slot {} comes before the first", at.slot);
            return Err(self.damaged(what));
        };
        settling.rows.extend(sealed(changes));
        Ok(())
    }

    /// Puts a state in the place of the slots up to it. Answers its generation.
    fn settle(&mut self, settled: &Settled) -> Result<u64, StoreError> {
        let Settled { head, pieces, changes } = settled;
        let at = head.stable.position();
        let (base, highest) = (self.index.base(), self.index.highest);
        if at.slot <= base || at.slot > highest {
            // What is stable only grows.
            let what = format!("a state at {} is of slots from {base} to {highest}", at.slot);
            return Err(self.damaged(what));
        }
        let before = self.index.ground.map(|ground| ground.generation);
        if before.is_some_and(|generation| self.given_up.contains(&generation)) {
            return Err(self.damaged("a state is to be written over one that was given up"));
        }
        let generation = match before {
            Some(generation) => generation,
            None => self.next_generation()?,
        };
        self.drop_pieces(generation);
        self.index.ground = Some(Place { generation, at });
        for (part, bytes) in pieces {
            self.put_piece(generation, *part, bytes)?;
        }
        let gathered = self.settling.take().filter(|settling| settling.at == at);
        let gathered = gathered.map(|gathered| gathered.rows).unwrap_or_default();
        for (key, change) in gathered.into_iter().chain(sealed(changes)) {
            self.put_row(generation, key, change)?;
        }
        self.put_meta(META_STATE, &(generation, head))?;
        Ok(generation)
    }

    /// Puts the state that was fetched in the place of the own history.
    fn stand_on(&mut self, head: &StateHead) -> Result<(), StoreError> {
        let (at, base) = (head.stable.position(), self.index.base());
        let generation = self.incoming_at(at)?;
        if at.slot < base {
            let what = format!("a state at slot {} is to replace that at slot {base}", at.slot);
            return Err(self.damaged(what));
        }
        let new = self.index.incoming.take();
        if let Some(old) = std::mem::replace(&mut self.index.ground, new) {
            self.drop_state(old.generation);
        }
        // Whatever the group holds so far is of the history that is gone.
        self.redo.spaces.remove(&Space::History);
        self.settling = None;
        self.index.era += 1;
        self.index.highest = at.slot;
        let era = self.index.era;
        self.put_meta(META_ERA, &era)?;
        self.put_meta(META_STATE, &(generation, head))?;
        self.remove(Space::Meta, META_INCOMING);
        self.put_meta(META_STABLE, &head.stable)
    }

    /// Lets go of a state.
    fn drop_state(&mut self, generation: u64) {
        self.redo.spaces.remove(&Space::Rows(generation));
        self.drop_pieces(generation);
    }

    /// Lets go of the protocol's own pieces of a state.
    fn drop_pieces(&mut self, generation: u64) {
        let prefix = generation.to_be_bytes();
        let pieces = Arc::make_mut(&mut self.index.pieces);
        let gone = pieces.extract_if(.., |key| key.starts_with(&prefix));
        gone.for_each(|key| self.redo.put(Space::State, Bytes::copy_from_slice(&key), None));
    }
}

/// The bytes of a record cannot be made.
fn failed(path: &Path, reason: impl ToString) -> StoreError {
    StoreError::WriteFailed { path: PathBuf::from(path), reason: reason.to_string() }
}
