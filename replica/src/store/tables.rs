//! The tables: all that is stored, in one fjall database, as far as the log has been taken into it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use elea_protocol::id::{Digest, ReplicaId, Slot};
use elea_protocol::message::{Position, SlotEntry, Standing};
use elea_protocol::replica::{Aside, Recovered, StoredState};
use elea_protocol::rows::RowsView;
use fjall::{AbstractTree as _, Database, Keyspace, PersistMode};
use serde::de::DeserializeOwned;

use super::error::{StoreError, patiently};
use super::files::{self, Damage, Files};
use super::group::Index;
use super::layout::{
    ASIDE, EVIDENCE, HISTORY, META, META_ENTERED, META_ERA, META_GENERATION, META_GENESIS,
    META_GROUP, META_INCOMING, META_INITIAL, META_LIVES, META_LOCK, META_MISMATCHES, META_REPLICA,
    META_STABLE, META_STAMPS, META_STANDING, META_STATE, META_VOTED, ORPHANS, Place, PlacedHead,
    Present, Redo, STATE, Space, part_of_key, place, slot_key, slot_of_key, unseal,
};
use super::note::Note;
use super::opening::{
    check_format, open_database, open_keyspace, open_without_rows, unreadable, unusable, unwritten,
};
use super::rows;

/// So many slots of an old history are removed at a time.
pub(super) const SWEPT: usize = 4096;

/// So many memtables that wait to be written, or files that wait to be merged, of one keyspace hold back
/// what comes next. fjall holds it back with 4 and 30.
const SEALED_MAX: usize = 3;
const RUNS_MAX: usize = 28;

/// How often it is looked whether there are less.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How long they may stay as many before what comes next is written all the same.
const STANDSTILL: Duration = Duration::from_secs(5);

/// The open database. Whoever has it is the only writer.
pub(crate) struct Tables {
    path: PathBuf,
    pub(super) owner: ReplicaId,
    /// Whether this is the owner's process. Nobody else gives anything up.
    is_owners: bool,
    pub(super) database: Database,
    pub(super) history: Keyspace,
    pub(super) meta: Keyspace,
    pub(super) aside: Keyspace,
    pub(super) orphans: Keyspace,
    pub(super) state: Keyspace,
    pub(super) evidence: Keyspace,
    /// The applications' rows by generation: of the state in place and of one on its way.
    pub(super) rows: BTreeMap<u64, Keyspace>,
    /// Which folders they are in, and which of them are given up as damaged.
    pub(super) note: Note,
    /// The same for whoever looks at the files.
    pub(super) files: Files,
    present: Present,
    /// Whether slots are stored that a state took the place of, and up to which they are removed.
    has_garbage: bool,
    swept: Vec<u8>,
}

impl Tables {
    /// Opens the tables that are in this folder, as they were when they were written last. `me` is whose they are,
    /// where that is known; whoever does not know only looks at them, and gives nothing of them up.
    pub(super) fn open(
        path: &Path,
        genesis: &Digest,
        me: Option<ReplicaId>,
    ) -> Result<Self, StoreError> {
        let whole = path.join("store");
        let mut note = Note::read(path);
        let is_owner = me.is_some();
        if is_owner {
            note.prepare(path, &whole).map_err(|error| unusable(path, &error))?;
        }
        let database = match open_database(path, &whole) {
            Err(StoreError::Damaged { what, .. }) if is_owner => {
                open_without_rows(path, &whole, &mut note, what)
            }
            other => other,
        }?;
        let keyspace = |name| open_keyspace(path, &database, name);
        // First of all the format: under another one the rest may mean something else.
        let meta = keyspace(META)?;
        check_format(path, &meta)?;
        let (history, aside, orphans) = (keyspace(HISTORY)?, keyspace(ASIDE)?, keyspace(ORPHANS)?);
        let (state, evidence) = (keyspace(STATE)?, keyspace(EVIDENCE)?);
        let mut tables = Self {
            path: path.into(),
            // They say so themselves, as soon as they are read.
            owner: me.unwrap_or(ReplicaId(0)),
            is_owners: is_owner,
            database,
            history,
            meta,
            aside,
            orphans,
            state,
            evidence,
            rows: BTreeMap::new(),
            note,
            files: Files::default(),
            present: Present::default(),
            has_garbage: true,
            swept: Vec::new(),
        };
        let prepared = tables.prepare(genesis, me);
        prepared.map_err(|error| tables.blame(error))?;
        Ok(tables)
    }

    fn prepare(&mut self, genesis: &Digest, me: Option<ReplicaId>) -> Result<(), StoreError> {
        self.check_owner(genesis, me)?;
        self.present = self.read_places(genesis)?.present();
        self.open_rows()?;
        self.show_files();
        self.sweep()
    }

    fn check_owner(&mut self, genesis: &Digest, me: Option<ReplicaId>) -> Result<(), StoreError> {
        let missing = |what| self.damaged(format!("it does not name its {what}"));
        let found: Digest = self.read_meta(META_GENESIS)?.ok_or_else(|| missing("cluster"))?;
        if found != *genesis {
            let (path, expected) = (self.path.clone(), *genesis);
            return Err(StoreError::OtherCluster { path, found, expected });
        }
        let found: ReplicaId = self.read_meta(META_REPLICA)?.ok_or_else(|| missing("replica"))?;
        if let Some(expected) = me.filter(|me| found != *me) {
            return Err(StoreError::OtherReplica { path: self.path.clone(), found, expected });
        }
        self.owner = found;
        Ok(())
    }

    /// The last group that is in them.
    pub(super) fn group(&self) -> Result<u64, StoreError> {
        Ok(self.read_meta(META_GROUP)?.unwrap_or(0))
    }

    /// What there is, as far as `meta` says it.
    fn read_places(&self, genesis: &Digest) -> Result<Index, StoreError> {
        let read = |key| self.read_meta::<PlacedHead>(key).map(|head| head.as_ref().map(place));
        let mut index =
            Index { ground: read(META_STATE)?, incoming: read(META_INCOMING)?, ..Index::default() };
        if index.ground.is_none() {
            let at = Position { slot: Slot::GENESIS, hash: *genesis };
            let initial = self.read_meta(META_INITIAL)?;
            index.ground = initial.map(|generation| Place { generation, at });
        }
        index.era = self.read_meta(META_ERA)?.unwrap_or_default();
        let highest = index.present().generations().max().unwrap_or_default();
        index.generation = self.read_meta::<u64>(META_GENERATION)?.unwrap_or_default().max(highest);
        index.highest = index.base();
        Ok(index)
    }

    pub(super) fn read_index(&self, genesis: &Digest) -> Result<Index, StoreError> {
        let mut index = self.read_places(genesis)?;
        if let Some(last) = self.history.last_key_value() {
            let key = last.key().map_err(|error| self.unreadable(&error))?;
            match slot_of_key(&key) {
                None => return Err(self.damaged("a slot's key is malformed")),
                // Not swept yet.
                Some((era, slot)) if (era, slot) <= (index.era, index.base()) => {}
                Some((era, slot)) if era == index.era => index.highest = slot,
                Some(_) => return Err(self.damaged("the state that slots stand on is missing")),
            }
        }
        for aside in self.read_all::<Aside>(&self.aside, ASIDE)? {
            index.aside.insert(aside.at.hash, Arc::new(aside));
        }
        let mut pieces = BTreeSet::new();
        for guard in self.state.iter() {
            let key = guard.key().map_err(|error| self.unreadable(&error))?;
            let key = key[..].try_into();
            pieces.insert(key.map_err(|_| self.damaged("the key of a piece is malformed"))?);
        }
        index.pieces = Arc::new(pieces);
        Ok(index)
    }

    /// Opens the rows of the states that are there, and drops what a crash has left of others.
    fn open_rows(&mut self) -> Result<(), StoreError> {
        let present: BTreeSet<u64> = self.present.generations().collect();
        for name in self.database.list_keyspace_names() {
            let Some(generation) = rows::generation(&name) else { continue };
            let opened = self.database.keyspace(&name, || rows::options(self.owner));
            let keyspace = opened.map_err(|error| self.unreadable(&error))?;
            if present.contains(&generation) {
                self.rows.insert(generation, keyspace);
            } else {
                let dropped = self.database.delete_keyspace(keyspace);
                dropped.map_err(|error| self.unreadable(&error))?;
            }
        }
        // What is gone must not come back empty. fjall removes a keyspace of which it does not find
        // the beginning.
        for generation in present.iter().filter(|generation| !self.rows.contains_key(generation)) {
            let condemned = self.note.condemn(&self.path, *generation);
            condemned.map_err(|error| unusable(&self.path, &error))?;
        }
        self.write_note(&present)
    }

    /// Notes where the rows of these generations are, and forgets those that are gone.
    fn write_note(&mut self, present: &BTreeSet<u64>) -> Result<(), StoreError> {
        let folders = self.rows.iter().map(|(generation, rows)| (*generation, rows.id())).collect();
        let damaged = self.note.damaged.intersection(present).copied().collect();
        let written = self.note.set(&self.path, folders, damaged);
        written.map_err(|error| self.unwritten_file(error))
    }

    /// Puts everything into the list of what is looked at for damage.
    fn show_files(&self) {
        let own = [&self.history, &self.meta, &self.aside, &self.orphans, &self.state];
        let all = own.into_iter().chain([&self.evidence]).chain(self.rows.values());
        all.for_each(|keyspace| self.files.add(keyspace));
        self.files.set_ground(self.present.ground);
        for generation in &self.note.damaged {
            let keyspace = rows::name(*generation);
            let what = format!("{keyspace} was damaged and is fetched anew");
            self.files.note(&Damage { keyspace, what });
        }
    }

    /// Finds out whether a failure is due to damaged rows. fjall writes nothing any more after it
    /// has met a damaged block, and does not say of what. Such rows are given up.
    pub(super) fn blame(&mut self, error: StoreError) -> StoreError {
        use StoreError::{Damaged, Interrupted, WriteFailed};
        let may_be = matches!(error, WriteFailed { .. } | Damaged { .. } | Interrupted { .. });
        if !may_be || !self.is_owners {
            return error;
        }
        let mut found = None;
        for (generation, keyspace) in &self.rows {
            let mut note = |damage: Damage| found = Some((*generation, damage.what));
            files::look_at(keyspace, &mut |_| true, &mut note);
        }
        let Some((generation, what)) = found else { return error };
        match self.note.condemn(&self.path, generation) {
            Ok(()) => StoreError::RowsDamaged { path: self.path.clone(), what },
            Err(_) => error,
        }
    }

    pub(super) fn recovered(&self) -> Result<Recovered, StoreError> {
        let standing = self.standing()?;
        Ok(Recovered {
            entered: self.read_meta(META_ENTERED)?,
            state: self.stored_state(META_STATE)?,
            initial: self.initial_rows()?,
            incoming: self.incoming_state()?,
            lock: self.read_meta(META_LOCK)?,
            voted: self.read_meta(META_VOTED)?.unwrap_or_default(),
            stable: self.read_meta(META_STABLE)?,
            orphans: self.read_all(&self.orphans, ORPHANS)?,
            evidence: self.read_all(&self.evidence, EVIDENCE)?,
            standing,
            lives: self.read_meta(META_LIVES)?.unwrap_or_default(),
            mismatches: self.read_meta(META_MISMATCHES)?.unwrap_or_default(),
            stamps: self.read_meta(META_STAMPS)?.unwrap_or_default(),
            has_run: standing != Standing::New,
        })
    }

    fn standing(&self) -> Result<Standing, StoreError> {
        let standing = self.read_meta(META_STANDING)?;
        standing.ok_or_else(|| self.damaged("it does not say whether its replica votes"))
    }

    fn incoming_state(&self) -> Result<Option<StoredState>, StoreError> {
        match self.present.incoming {
            // It is fetched anew.
            Some(incoming) if self.note.damaged.contains(&incoming) => Ok(None),
            _ => self.stored_state(META_INCOMING),
        }
    }

    fn stored_state(&self, key: &[u8]) -> Result<Option<StoredState>, StoreError> {
        let Some((generation, head)) = self.read_meta::<PlacedHead>(key)? else { return Ok(None) };
        let mut pieces = Vec::new();
        for guard in self.state.prefix(generation.to_be_bytes()) {
            let (key, value) = guard.into_inner().map_err(|error| self.unreadable(&error))?;
            let (_, part) = part_of_key(&key)
                .ok_or_else(|| self.damaged("the key of a piece of a state is malformed"))?;
            let bytes: Bytes = unseal(STATE, &key, &value).map_err(|what| self.damaged(what))?;
            pieces.push((part, bytes));
        }
        Ok(Some(StoredState { head, pieces, rows: self.view(generation)? }))
    }

    /// The rows of the state that the cluster begins with, as long as no other took its place.
    fn initial_rows(&self) -> Result<Option<RowsView>, StoreError> {
        let initial = self.present.ground.filter(|_| self.present.base == Slot::GENESIS);
        initial.map(|generation| self.view(generation)).transpose()
    }

    fn view(&self, generation: u64) -> Result<RowsView, StoreError> {
        if self.note.damaged.contains(&generation) {
            return Ok(rows::lost(generation));
        }
        let missing = || self.damaged(format!("its {} is missing", rows::name(generation)));
        let keyspace = self.rows.get(&generation).ok_or_else(missing)?;
        Ok(rows::view(&self.database, keyspace))
    }

    fn read_all<T: DeserializeOwned>(
        &self,
        keyspace: &Keyspace,
        name: &str,
    ) -> Result<Vec<T>, StoreError> {
        let read = |guard: fjall::Guard| {
            let (key, value) = guard.into_inner().map_err(|error| self.unreadable(&error))?;
            unseal(name, &key, &value).map_err(|what| self.damaged(what))
        };
        keyspace.iter().map(read).collect()
    }

    fn read<T: DeserializeOwned>(
        &self,
        keyspace: &Keyspace,
        name: &str,
        key: &[u8],
    ) -> Result<Option<T>, StoreError> {
        let value = patiently(|| keyspace.get(key)).map_err(|error| self.unreadable(&error))?;
        let read = |stored: fjall::Slice| unseal(name, key, &stored);
        value.map(read).transpose().map_err(|what| self.damaged(what))
    }

    fn read_meta<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.read(&self.meta, META, key)
    }

    fn unreadable(&self, error: &fjall::Error) -> StoreError {
        unreadable(&self.path, error)
    }

    pub(super) fn damaged(&self, what: impl ToString) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), what: what.to_string() }
    }

    /// All stored slots in order, without a hole: from the one after the stored state on, or from
    /// slot 1.
    pub(crate) fn history(
        &self,
    ) -> impl Iterator<Item = Result<(Digest, SlotEntry), StoreError>> + use<> {
        let path = self.path.clone();
        let era = self.present.era;
        let mut expected = self.present.base.next();
        self.history.range(slot_key(era, expected)..).map(move |guard| {
            let damaged = |what: String| StoreError::Damaged { path: path.clone(), what };
            let (key, value) = guard.into_inner().map_err(|error| unreadable(&path, &error))?;
            if slot_of_key(&key) != Some((era, expected)) {
                return Err(damaged(format!("slot {expected} is missing")));
            }
            expected = expected.next();
            unseal(HISTORY, &key, &value).map_err(damaged)
        })
    }

    fn unwritten(&self, error: &fjall::Error) -> StoreError {
        unwritten(&self.path, error)
    }

    fn unwritten_file(&self, error: io::Error) -> StoreError {
        self.unwritten(&error.into())
    }

    /// Waits until all that is in them is on disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.database.persist(PersistMode::SyncAll).map_err(|error| self.unwritten(&error))
    }

    /// Does what groups of the log say, all or nothing. When it returns that is on disk. Answers the rows of
    /// these generations as they are then; those that something else has replaced are left out.
    pub(super) fn take(
        &mut self,
        redo: Redo,
        wanted: impl IntoIterator<Item = u64>,
    ) -> Result<BTreeMap<u64, RowsView>, StoreError> {
        let taken = self.take_all(redo).and_then(|()| {
            let wanted = wanted.into_iter().filter(|of| self.rows.contains_key(of));
            wanted.map(|of| Ok((of, self.view(of)?))).collect()
        });
        taken.map_err(|error| self.blame(error))
    }

    fn take_all(&mut self, redo: Redo) -> Result<(), StoreError> {
        let Redo { spaces, present, weight: _ } = redo;
        let mut is_noted = true;
        for generation in present.generations() {
            let is_lost = self.note.damaged.contains(&generation);
            if !is_lost && !self.rows.contains_key(&generation) {
                let opened =
                    self.database.keyspace(&rows::name(generation), || rows::options(self.owner));
                let keyspace = opened.map_err(|error| self.unwritten(&error))?;
                self.files.add(&keyspace);
                self.rows.insert(generation, keyspace);
                is_noted = false;
            }
        }
        if !is_noted {
            // Before anything is in it.
            let all = self.present.generations().chain(present.generations()).collect();
            self.write_note(&all)?;
        }
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        for (space, changes) in spaces {
            let keyspace = match space {
                Space::History => &self.history,
                Space::Meta => &self.meta,
                Space::Aside => &self.aside,
                Space::Orphans => &self.orphans,
                Space::State => &self.state,
                Space::Evidence => &self.evidence,
                Space::Rows(generation) => match self.rows.get(&generation) {
                    Some(keyspace) => keyspace,
                    // Of a state that another one has replaced meanwhile.
                    None => continue,
                },
            };
            for (key, change) in changes {
                match change {
                    Some(value) => batch.insert(keyspace, &key[..], &value[..]),
                    None => batch.remove(keyspace, &key[..]),
                }
            }
        }
        self.wait_for_files()?;
        batch.commit().map_err(|error| self.unwritten(&error))?;
        self.has_garbage |= present != self.present;
        self.present = present;
        self.files.set_ground(present.ground);
        self.drop_rows()?;
        self.sweep()
    }

    /// Waits until what was written before is in files, as far as it has to be before more comes.
    ///
    /// fjall would wait by itself a little later, but without looking whether it still writes files:
    /// if damage or a full disk has ended that meanwhile, it waits for ever. Where nothing has moved for
    /// long and nothing has failed, it is a write that sets it going again.
    fn wait_for_files(&self) -> Result<(), StoreError> {
        let kept = [&self.history, &self.meta, &self.aside, &self.orphans, &self.state];
        let all = || kept.into_iter().chain([&self.evidence]).chain(self.rows.values());
        let counts = |keyspace: &Keyspace| {
            (keyspace.tree.sealed_memtable_count(), keyspace.tree.l0_run_count())
        };
        let (mut before, mut moved) = (Vec::new(), Instant::now());
        loop {
            let now: Vec<(usize, usize)> = all().map(counts).collect();
            if !now.iter().any(|(sealed, runs)| *sealed >= SEALED_MAX || *runs >= RUNS_MAX) {
                return Ok(());
            }
            if now != before {
                (before, moved) = (now, Instant::now());
            }
            // This says so if nothing is written any more.
            let lives = self.database.persist(PersistMode::Buffer);
            lives.map_err(|error| self.unwritten(&error))?;
            if moved.elapsed() >= STANDSTILL {
                return Ok(());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Drops the rows of states that are gone. Views of them stay what they are.
    fn drop_rows(&mut self) -> Result<(), StoreError> {
        let present: BTreeSet<u64> = self.present.generations().collect();
        let is_gone = |generation: &u64| !present.contains(generation);
        self.note.damaged.iter().filter(|generation| is_gone(generation)).for_each(|generation| {
            self.files.remove(&rows::name(*generation));
        });
        for (_, keyspace) in self.rows.extract_if(.., |generation, _| is_gone(generation)) {
            self.files.remove(keyspace.name());
            let dropped = self.database.delete_keyspace(keyspace);
            dropped.map_err(|error| unwritten(&self.path, &error))?;
        }
        // Last: with it, what is damaged is forgotten.
        self.write_note(&present)
    }

    /// Removes some of the slots that a state took the place of. None of them is looked at any more,
    /// so it matters not when they go: some with each group, so that no group waits long, and a crash
    /// in between leaves the rest to the next start.
    fn sweep(&mut self) -> Result<(), StoreError> {
        if !self.has_garbage {
            return Ok(());
        }
        let end = slot_key(self.present.era, self.present.base.next());
        // Not from the beginning: what was removed is passed over key by key until it is compacted.
        let keys = self.history.range(self.swept.as_slice()..end.as_slice()).take(SWEPT);
        let keys: Vec<_> = keys
            .map(|guard| guard.key().map_err(|error| self.unreadable(&error)))
            .collect::<Result<_, _>>()?;
        self.has_garbage = keys.len() == SWEPT;
        if let Some(last) = keys.last() {
            self.swept = last.to_vec();
        }
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        keys.into_iter().for_each(|key| batch.remove(&self.history, key));
        batch.commit().map_err(|error| self.unwritten(&error))
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        // Else the list would keep the database open.
        self.files.close();
    }
}
