//! What a group of records comes to, worked out before anything of it is written.

use std::collections::BTreeMap;

use bytes::Bytes;
use elea_protocol::codec::{self, Canonical as _};
use elea_protocol::id::{Digest, Slot};
use elea_protocol::message::{Position, SlotEntry, StatePart};
use elea_protocol::replica::{Adopted, Aside, Ground, Record, Settled, StateHead};
use elea_protocol::rows::Changes;
use serde::Serialize;

use super::{
    ASIDE, EVIDENCE, HISTORY, Index, META, META_ENTERED, META_ERA, META_GENERATION, META_INCOMING,
    META_LIVES, META_LOCK, META_MISMATCHES, META_STABLE, META_STAMPS, META_STANDING, META_STATE,
    META_VOTED, ORPHANS, Place, PlacedHead, STATE, Settling, Store, StoreError, Stored, piece_key,
    place, rows, seal, slot_key, unseal,
};

/// What becomes of one key: a value, or nothing.
pub(super) type Change = Option<Vec<u8>>;

/// The rows as they are stored.
pub(super) fn sealed(changes: &Changes) -> impl Iterator<Item = (Bytes, Change)> {
    let seal = |(key, value): &(Bytes, Option<Bytes>)| {
        (key.clone(), value.as_ref().map(|value| rows::seal(key, value)))
    };
    changes.iter().map(seal)
}

/// What one group of records comes to. Within a batch of fjall's a key must not occur twice: both
/// would get one sequence number, and which of them stays is undefined.
pub(super) struct Group<'a> {
    pub(super) store: &'a Store,
    /// As it is after the group.
    pub(super) index: Index,
    pub(super) history: BTreeMap<[u8; 16], Change>,
    pub(super) meta: BTreeMap<&'static [u8], Change>,
    pub(super) aside: BTreeMap<Digest, Change>,
    pub(super) orphans: BTreeMap<Digest, Change>,
    pub(super) state: BTreeMap<[u8; 13], Change>,
    pub(super) rows: BTreeMap<u64, BTreeMap<Bytes, Change>>,
    pub(super) evidence: BTreeMap<Digest, Change>,
    /// What was told for the next settled state, and is not written yet.
    pub(super) settling: Option<Settling>,
    /// Records, by their places in the group, with the generations whose rows they complete.
    pub(super) completed: Vec<(usize, u64)>,
}

impl<'a> Group<'a> {
    pub(super) fn new(store: &'a Store, settling: Option<Settling>) -> Self {
        Self {
            store,
            index: store.index.clone(),
            history: BTreeMap::new(),
            meta: BTreeMap::new(),
            aside: BTreeMap::new(),
            orphans: BTreeMap::new(),
            state: BTreeMap::new(),
            rows: BTreeMap::new(),
            evidence: BTreeMap::new(),
            settling,
            completed: Vec::new(),
        }
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.index == self.store.index
            && self.history.is_empty()
            && self.meta.is_empty()
            && self.aside.is_empty()
            && self.orphans.is_empty()
            && self.state.is_empty()
            && self.rows.is_empty()
            && self.evidence.is_empty()
            && self.completed.is_empty()
    }

    fn seal<T: Serialize>(
        &self,
        keyspace: &str,
        key: &[u8],
        value: &T,
    ) -> Result<Change, StoreError> {
        seal(keyspace, key, value).map(Some).map_err(|error| self.store.failed(error))
    }

    pub(super) fn put_meta<T: Serialize>(
        &mut self,
        key: &'static [u8],
        value: &T,
    ) -> Result<(), StoreError> {
        let sealed = self.seal(META, key, value)?;
        self.meta.insert(key, sealed);
        Ok(())
    }

    pub(super) fn stage(&mut self, place: usize, record: &Record) -> Result<(), StoreError> {
        match record {
            Record::Slot { slot, hash, entry } => {
                self.truncate(Slot(slot.0.saturating_sub(1)))?;
                self.push(*slot, hash, entry)
            }
            Record::Aside(aside) => {
                let key = aside.at.hash;
                let sealed = self.seal(ASIDE, &key.0, aside)?;
                self.aside.insert(key, sealed);
                self.index.aside.insert(key);
                Ok(())
            }
            Record::Lock(certificate) => self.put_meta(META_LOCK, certificate),
            Record::Stable(stable) => self.put_meta(META_STABLE, stable),
            Record::Adopted(adopted) => self.adopt(adopted),
            Record::Orphans { add, remove } => {
                for orphan in add {
                    let key = orphan.digest();
                    let sealed = self.seal(ORPHANS, &key.0, orphan)?;
                    self.orphans.insert(key, sealed);
                }
                self.orphans.extend(remove.iter().map(|digest| (*digest, None)));
                Ok(())
            }
            Record::Fetching(head) => self.fetch(head),
            Record::Piece { at, part, bytes } => {
                let generation = self.incoming_at(*at)?;
                self.put_piece(generation, *part, bytes)
            }
            Record::Rows { at, rows, whole } => {
                let generation = self.incoming_at(*at)?;
                let rows = rows.iter().map(|(key, value)| (key, Some(value)));
                self.change_rows(generation, rows);
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
                let bytes = codec::encode(evidence).map_err(|error| self.store.failed(error))?;
                let key = Stored { keyspace: EVIDENCE, key: &[], bytes: &bytes }.digest();
                let sealed = self.seal(EVIDENCE, &key.0, evidence)?;
                self.evidence.insert(key, sealed);
                Ok(())
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
            return Err(self.store.damaged(what));
        }
        for gone in slot.next().0..=highest.0 {
            self.history.insert(slot_key(self.index.era, Slot(gone)), None);
        }
        self.index.highest = slot;
        Ok(())
    }

    fn push(&mut self, slot: Slot, hash: &Digest, entry: &SlotEntry) -> Result<(), StoreError> {
        let key = slot_key(self.index.era, slot);
        let sealed = self.seal(HISTORY, &key, &(hash, entry))?;
        self.history.insert(key, sealed);
        self.index.highest = slot;
        Ok(())
    }

    /// A slot aside, of an earlier group or of this one.
    fn read_aside(&self, hash: &Digest) -> Result<Aside, StoreError> {
        let stored = match self.aside.get(hash) {
            None => self.store.read(&self.store.aside, ASIDE, &hash.0)?,
            Some(None) => None,
            Some(Some(stored)) => {
                let read = unseal(ASIDE, &hash.0, stored);
                Some(read.map_err(|what| self.store.damaged(what))?)
            }
        };
        stored.ok_or_else(|| self.store.damaged("a slot aside that is adopted is missing"))
    }

    fn adopt(&mut self, adopted: &Adopted) -> Result<(), StoreError> {
        match &adopted.ground {
            Ground::Common(slot) => self.truncate(*slot)?,
            Ground::State(head) => self.stand_on(head)?,
        }
        for hash in &adopted.slots {
            let Aside { at, linked } = self.read_aside(hash)?;
            let next = self.index.highest.next();
            if at.slot != next {
                let what = format!("slot {} is to be put where slot {next} belongs", at.slot);
                return Err(self.store.damaged(what));
            }
            self.push(at.slot, &at.hash, &linked.entry)?;
        }
        if let Some(entered) = &adopted.entered {
            self.put_meta(META_ENTERED, entered)?;
        }
        self.put_meta(META_VOTED, &adopted.voted)?;
        match &adopted.lock {
            Some(lock) => self.put_meta(META_LOCK, lock)?,
            None => {
                self.meta.insert(META_LOCK, None);
            }
        }
        let gone = std::mem::take(&mut self.index.aside);
        self.aside.extend(gone.into_iter().map(|hash| (hash, None)));
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
            return Err(self.store.damaged("a piece of the application's state is to be kept"));
        };
        let sealed = self.seal(STATE, &key, bytes)?;
        self.state.insert(key, sealed);
        Ok(())
    }

    fn change_rows<'b>(
        &mut self,
        generation: u64,
        changes: impl IntoIterator<Item = (&'b Bytes, Option<&'b Bytes>)>,
    ) {
        let rows = self.rows.entry(generation).or_default();
        for (key, value) in changes {
            rows.insert(key.clone(), value.map(|value| rows::seal(key, value)));
        }
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
            self.drop_state(before.generation)?;
        }
        self.put_meta(META_INCOMING, &head)
    }

    /// The generation of the state on its way, which must be this one.
    fn incoming_at(&self, at: Position) -> Result<u64, StoreError> {
        match self.index.incoming {
            Some(incoming) if incoming.at == at => Ok(incoming.generation),
            _ => {
                let what = format!("a piece of a state at slot {} that is not fetched", at.slot);
                Err(self.store.damaged(what))
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
            return Err(self.store.damaged(what));
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
            return Err(self.store.damaged(what));
        }
        let before = self.index.ground.map(|ground| ground.generation);
        if before.is_some_and(|generation| self.store.note.damaged.contains(&generation)) {
            return Err(self.store.damaged("a state is to be written over one that was given up"));
        }
        let generation = match before {
            Some(generation) => generation,
            None => self.next_generation()?,
        };
        self.drop_pieces(generation)?;
        self.index.ground = Some(Place { generation, at });
        for (part, bytes) in pieces {
            self.put_piece(generation, *part, bytes)?;
        }
        let gathered = self.settling.take().filter(|settling| settling.at == at);
        let rows = self.rows.entry(generation).or_default();
        match gathered {
            Some(gathered) if rows.is_empty() => *rows = gathered.rows,
            Some(gathered) => rows.extend(gathered.rows),
            None => {}
        }
        rows.extend(sealed(changes));
        self.put_meta(META_STATE, &(generation, head))?;
        Ok(generation)
    }

    /// Puts the state that was fetched in the place of the own history.
    fn stand_on(&mut self, head: &StateHead) -> Result<(), StoreError> {
        let (at, base) = (head.stable.position(), self.index.base());
        let generation = self.incoming_at(at)?;
        if at.slot < base {
            let what = format!("a state at slot {} is to replace that at slot {base}", at.slot);
            return Err(self.store.damaged(what));
        }
        let new = self.index.incoming.take();
        if let Some(old) = std::mem::replace(&mut self.index.ground, new) {
            self.drop_state(old.generation)?;
        }
        // Whatever the group holds so far is of the history that is gone.
        self.history.clear();
        self.settling = None;
        self.index.era += 1;
        self.index.highest = at.slot;
        let era = self.index.era;
        self.put_meta(META_ERA, &era)?;
        self.put_meta(META_STATE, &(generation, head))?;
        self.meta.insert(META_INCOMING, None);
        self.put_meta(META_STABLE, &head.stable)
    }

    /// Lets go of a state.
    fn drop_state(&mut self, generation: u64) -> Result<(), StoreError> {
        self.rows.remove(&generation);
        self.drop_pieces(generation)
    }

    /// Lets go of the protocol's own pieces of a state.
    fn drop_pieces(&mut self, generation: u64) -> Result<(), StoreError> {
        let prefix = generation.to_be_bytes();
        for guard in self.store.state.prefix(prefix) {
            let key = guard.key().map_err(|error| self.store.unreadable(&error))?;
            let key = key[..].try_into();
            let key = key.map_err(|_| self.store.damaged("the key of a piece is malformed"))?;
            self.state.insert(key, None);
        }
        let staged = self.state.iter_mut().filter(|(key, _)| key.starts_with(&prefix));
        staged.for_each(|(_, change)| *change = None);
        Ok(())
    }
}
