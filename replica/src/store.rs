//! The disk: what must survive a crash, in one fjall database. This file and those below it are the
//! only ones that name fjall.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `history` | era and slot | the slot's hash and entry |
//! | `meta` | a name | format, genesis, replica, group, initial state; view entered, votes cast, era, state head, lock, stable checkpoint |
//! | `aside` | hash | a slot of another history |
//! | `orphans` | digest of the request | a request that waits to be in the history again |
//! | `state` | generation and part | the protocol's own pieces of the state that the history begins with, and of one on its way |
//! | `rows-N` | the application's | the application's rows of the state of generation N; see `rows` |
//! | `evidence` | digest of the proof | a proof |
//!
//! Numbers in keys are big-endian, so that their order is that of the numbers. The history begins
//! with slot 1, or with the one after the *base*, the slot of the stored state. When a state takes
//! the place of another history, which may be longer, a new *era* begins. So with another state in
//! place the old slots are out of sight at once, however many there are, and are
//! [swept](Store::sweep) a few at a time. The state itself has a *generation*: one that is fetched
//! has a new one, and lies beside the one in place until it takes its place as a whole.
//!
//! A group of records is one atomic batch, so a crash leaves all of it or nothing. Each value
//! carries a checksum over its keyspace, key and bytes: a value that changed, or that stands in
//! another's place, is found when it is read.
//!
//! fjall takes a damaged frame in its journal for the torn end of a write, and drops it with all that
//! follows, in silence. A replica must not forget in silence: it would break its word. So every group
//! has a number, kept in `meta`, and the number of the last group that was synced also stands in a
//! file of its own. A store that knows less than that file is damaged. The file is not synced: it may
//! lag behind after a power cut, but never lead. Of [journals] before the last one it is noted how far they go.
//!
//! The store of a cluster that begins with a state is [founded](Store::found) with the rows of that
//! one, as generation 1 at slot 0. Nobody has certified it: the genesis digest covers it.
//!
//! The rows of a state are the one thing in here that others can give back. Where they turn out to
//! be damaged, the store is opened without them, which a [note](note::Note) beside the database
//! makes possible, and the replica has them repaired. Any other damage is the end of the store.
//!
//! A store is built in a folder of its own and renamed when whole, so that a crash during the very
//! first start leaves nothing that a second start would trip over.

mod error;
mod files;
mod group;
mod journals;
mod note;
mod opening;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use elea_protocol::codec::{self, Canonical, Sink};
use elea_protocol::id::{Digest, ReplicaId, Slot};
use elea_protocol::message::{Position, SlotEntry, Standing, StatePart};
use elea_protocol::replica::{Record, Recovered, StateHead, StoredState};
use elea_protocol::rows::{Row, RowsView};
use fjall::{AbstractTree as _, Database, Keyspace, PersistMode};
use rustix::fs::{StatVfs, statvfs};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::error::StoreError;
use self::error::{is_shortage, patiently};
pub(crate) use self::files::{Damage, Files, Looked};
use self::group::{Change, Group};
use self::note::Note;
use self::opening::{
    check_format, create, is_damage, lock, open_database, open_keyspace, open_without_rows,
    unreadable, unusable, unwritten,
};
use crate::config::Durability;

/// The version of what is stored. It changes when old records can no longer be read as they are.
const FORMAT: u32 = 7;

const HISTORY: &str = "history";
const META: &str = "meta";
const ASIDE: &str = "aside";
const ORPHANS: &str = "orphans";
const STATE: &str = "state";
const EVIDENCE: &str = "evidence";

/// The generation of the state that a cluster begins with.
const FIRST_GENERATION: u64 = 1;

/// So many slots of an old history are removed at a time.
const SWEPT: usize = 4096;

/// What is written to a keyspace before it goes to a file, in bytes, at least: see [`spread`]. fjall's
/// default is 64 MiB, which every keyspace that is written to would take in memory in time.
const MEMTABLE_BYTES: u64 = 2 << 20;

/// The same for those that each group writes to: `meta`, of which each version that is overwritten
/// counts, and slots. To write one to a file takes a dozen syncs, and while they last no group is
/// written, so it has to be rare also where a sync takes long.
const META_MEMTABLE_BYTES: u64 = 8 << 20;
const HISTORY_MEMTABLE_BYTES: u64 = 16 << 20;

/// Blocks of files kept in memory, in bytes, over all keyspaces.
const CACHE_BYTES: u64 = 32 << 20;

/// The journals that are on disk because something in them is not in a file yet, in bytes. fjall takes
/// no less. A start reads them.
const JOURNALS_BYTES: u64 = 64 << 20;

/// So many memtables that wait to be written, or files that wait to be merged, of one keyspace hold back
/// the next group. fjall holds it back with 4 and 30.
const SEALED_MAX: usize = 3;
const RUNS_MAX: usize = 28;

/// How many more files the disk must have room for: more than one group of records may come to make.
const FILES_RESERVE: u64 = 256;

/// How often it is looked whether there are less.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How long they may stay as many before the group is written all the same.
const STANDSTILL: Duration = Duration::from_secs(5);

/// The file that names the last group synced.
const WITNESS: &str = "synced";

const META_FORMAT: &[u8] = b"format";
const META_GENESIS: &[u8] = b"genesis";
const META_REPLICA: &[u8] = b"replica";
const META_LOCK: &[u8] = b"lock";
const META_STABLE: &[u8] = b"stable";
const META_ENTERED: &[u8] = b"entered";
const META_STATE: &[u8] = b"state";
const META_INITIAL: &[u8] = b"initial";
const META_INCOMING: &[u8] = b"incoming";
const META_ERA: &[u8] = b"era";
const META_GENERATION: &[u8] = b"generation";
const META_VOTED: &[u8] = b"voted";
const META_GROUP: &[u8] = b"group";
const META_STANDING: &[u8] = b"standing";
const META_LIVES: &[u8] = b"lives";
const META_MISMATCHES: &[u8] = b"mismatches";
const META_STAMPS: &[u8] = b"stamps";

/// The open store. Whoever has it is the only writer.
pub(crate) struct Store {
    path: PathBuf,
    owner: ReplicaId,
    database: Database,
    history: Keyspace,
    meta: Keyspace,
    aside: Keyspace,
    orphans: Keyspace,
    state: Keyspace,
    evidence: Keyspace,
    /// The applications' rows by generation: of the state in place and of one on its way.
    rows: BTreeMap<u64, Keyspace>,
    /// Which folders they are in, and which of them are given up as damaged.
    note: Note,
    /// The same for whoever looks at the files.
    files: Files,
    /// How much room has to be left on the disk, in bytes.
    reserve: u64,
    /// What the next settled state changes, as far as it was told.
    settling: Option<Settling>,
    durability: Durability,
    index: Index,
    /// Whether slots are stored that a state took the place of, and up to which they are removed.
    has_garbage: bool,
    swept: Vec<u8>,
    /// The number of the last group written.
    group: u64,
    /// The file that names it, too.
    witness: File,
    /// Held as long as the store is open; the system lets go of it when the process dies.
    _lock: File,
}

/// What is known of the store without reading it: enough to know what a record removes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Index {
    /// The state that the history begins with.
    ground: Option<Place>,
    /// How often a state has taken the place of another history. It is a part of the keys of slots,
    /// so that those of a history that is gone are told from the present ones.
    era: u64,
    /// The highest slot stored, or the base where there is none.
    highest: Slot,
    /// The slots aside. Hardly ever any, so that a copy costs nothing.
    aside: BTreeSet<Digest>,
    /// The state on its way here.
    incoming: Option<Place>,
    /// The highest generation that ever was. No name is used twice: fjall's journals may hold rows
    /// of the one that had it first.
    generation: u64,
}

/// What becomes of rows when the state of a checkpoint is settled: sealed, and in memory only.
#[derive(Debug)]
struct Settling {
    at: Position,
    rows: BTreeMap<Bytes, Change>,
}

/// Where a state lies, and of which checkpoint it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    generation: u64,
    at: Position,
}

/// The same with all there is to know of it, as it is stored.
type PlacedHead = (u64, StateHead);

impl Index {
    fn base(&self) -> Slot {
        self.ground.map_or(Slot::GENESIS, |ground| ground.at.slot)
    }

    /// The generations of the states that are there.
    fn generations(&self) -> impl Iterator<Item = u64> {
        self.ground.into_iter().chain(self.incoming).map(|place| place.generation)
    }
}

/// How large a memtable of this replica is, where it is `least` at least. All replicas write about as
/// much, and with equal ones all would be held up by their files at the same time: the service would be,
/// and not one of them.
fn spread(least: u64, me: ReplicaId) -> u64 {
    // Multiples of the golden ratio lie apart, however many there are of them.
    let thousandths = u64::from(me.0) * 618 % 1000;
    least + least / 2 * thousandths / 1000
}

fn place((generation, head): &PlacedHead) -> Place {
    Place { generation: *generation, at: head.stable.position() }
}

/// What the checksum of a value covers.
struct Stored<'a> {
    keyspace: &'a str,
    key: &'a [u8],
    bytes: &'a [u8],
}

impl Canonical for Stored<'_> {
    const TAG: &'static str = "stored";

    fn write(&self, to: &mut impl Sink) {
        to.put_bytes(self.keyspace.as_bytes());
        to.put_bytes(self.key);
        to.put_bytes(self.bytes);
    }
}

const CHECKSUM: usize = 16;

fn checksum(keyspace: &str, key: &[u8], bytes: &[u8]) -> [u8; CHECKSUM] {
    let Digest(digest) = Stored { keyspace, key, bytes }.digest();
    let (checksum, _) = digest.split_first_chunk().expect("a digest is longer than a checksum");
    *checksum
}

fn seal<T: Serialize>(keyspace: &str, key: &[u8], value: &T) -> Result<Vec<u8>, codec::CodecError> {
    let bytes = codec::encode(value)?;
    let mut stored = Vec::with_capacity(CHECKSUM + bytes.len());
    stored.extend_from_slice(&checksum(keyspace, key, &bytes));
    stored.extend_from_slice(&bytes);
    Ok(stored)
}

fn unseal<T: DeserializeOwned>(keyspace: &str, key: &[u8], stored: &[u8]) -> Result<T, String> {
    let place = || format!("a value in {keyspace} at {}", elea_protocol::id::hex(key));
    let (sum, bytes) = stored
        .split_first_chunk::<CHECKSUM>()
        .ok_or_else(|| format!("{} is too short", place()))?;
    if *sum != checksum(keyspace, key, bytes) {
        return Err(format!("{} does not match its checksum", place()));
    }
    codec::decode(bytes).map_err(|error| format!("{}: {error}", place()))
}

fn slot_key(era: u64, slot: Slot) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&era.to_be_bytes());
    key[8..].copy_from_slice(&slot.0.to_be_bytes());
    key
}

/// The era and the slot.
fn slot_of_key(key: &[u8]) -> Option<(u64, Slot)> {
    let (era, slot) = key.split_first_chunk()?;
    let slot = slot.try_into().ok()?;
    Some((u64::from_be_bytes(*era), Slot(u64::from_be_bytes(slot))))
}

/// `None` for a part that is none of the protocol's own.
fn piece_key(generation: u64, part: StatePart) -> Option<[u8; 13]> {
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

fn part_of_key(key: &[u8]) -> Option<StatePart> {
    let (tag, index) = key.get(8..)?.split_first()?;
    let index = u32::from_be_bytes(index.try_into().ok()?);
    match tag {
        0 if index == 0 => Some(StatePart::Last),
        1 => Some(StatePart::Sessions(index)),
        _ => None,
    }
}

impl Store {
    /// Opens the store of replica `me` in the folder `path`, and makes it on the first start.
    pub(crate) fn open(
        path: &Path,
        genesis: &Digest,
        me: ReplicaId,
        durability: Durability,
    ) -> Result<(Self, Recovered), StoreError> {
        let lock = lock(path)?;
        let whole = path.join("store");
        if !Self::is_in(path)? {
            create::<StoreError>(path, &whole, genesis, me, |_| Ok(None))?;
        }
        Self::open_locked(path, lock, genesis, Some(me), durability)
    }

    /// Opens the store that is in the folder `path`, of whichever replica of the cluster.
    pub(crate) fn open_present(
        path: &Path,
        genesis: &Digest,
        durability: Durability,
    ) -> Result<(Self, Recovered), StoreError> {
        if !Self::is_in(path)? {
            return Err(StoreError::Absent { path: path.into() });
        }
        Self::open_locked(path, lock(path)?, genesis, None, durability)
    }

    /// Whether a store is in the folder.
    pub(crate) fn is_in(path: &Path) -> Result<bool, StoreError> {
        path.join("store").try_exists().map_err(|error| unusable(path, &error))
    }

    /// Makes the store of replica `me` of a cluster that begins with a state. `fill` hands over the
    /// application's rows of it. Where that fails, there is no store.
    pub(crate) fn found<E: From<StoreError>>(
        path: &Path,
        genesis: &Digest,
        me: ReplicaId,
        fill: impl FnOnce(&mut dyn FnMut(Vec<Row>) -> Result<(), StoreError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let _lock = lock(path)?;
        if Self::is_in(path)? {
            return Err(StoreError::Present { path: path.into() }.into());
        }
        create(path, &path.join("store"), genesis, me, |database| {
            let failed = |error: fjall::Error| unwritten(path, &error);
            let keyspace = database
                .keyspace(&rows::name(FIRST_GENERATION), || rows::options(me))
                .map_err(failed)?;
            fill(&mut |rows| {
                // What follows is synced with all before it, so this need not wait for the disk.
                let mut batch = database.batch().durability(Some(PersistMode::Buffer));
                for (key, value) in rows {
                    let sealed = rows::seal(&key, &value);
                    batch.insert(&keyspace, key.to_vec(), sealed);
                }
                batch.commit().map_err(failed)
            })?;
            Ok(Some(FIRST_GENERATION))
        })
    }

    /// Which replica it is of.
    pub(crate) fn owner(&self) -> ReplicaId {
        self.owner
    }

    fn open_locked(
        path: &Path,
        lock: File,
        genesis: &Digest,
        me: Option<ReplicaId>,
        durability: Durability,
    ) -> Result<(Self, Recovered), StoreError> {
        let whole = path.join("store");
        let witness = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(WITNESS))
            .map_err(|error| unusable(path, &error))?;
        let mut note = Note::read(path);
        // Whoever only looks at a store gives nothing of it up.
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
        let mut store = Self {
            path: path.into(),
            // It says so itself, as soon as it is read.
            owner: me.unwrap_or(ReplicaId(0)),
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
            reserve: 0,
            settling: None,
            durability,
            index: Index::default(),
            has_garbage: true,
            swept: Vec::new(),
            group: 0,
            witness,
            _lock: lock,
        };
        match store.prepare(genesis, me) {
            Ok(recovered) => Ok((store, recovered)),
            Err(error) if is_owner => Err(store.blame(error)),
            Err(error) => Err(error),
        }
    }

    fn prepare(
        &mut self,
        genesis: &Digest,
        me: Option<ReplicaId>,
    ) -> Result<Recovered, StoreError> {
        self.check_owner(genesis, me)?;
        self.check_memory()?;
        self.index = self.read_index(genesis)?;
        self.open_rows()?;
        self.show_files();
        self.sweep()?;
        self.recovered()
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

    /// Nothing that was synced may be gone.
    fn check_memory(&mut self) -> Result<(), StoreError> {
        self.group = self.read_meta(META_GROUP)?.unwrap_or(0);
        let mut stored = Vec::new();
        let read = (&self.witness).read_to_end(&mut stored);
        read.map_err(|error| match is_shortage(&error) {
            true => unusable(&self.path, &error),
            false => self.damaged(error),
        })?;
        // It is empty before the first group, and may be torn after a power cut.
        let synced = unseal::<u64>(WITNESS, &[], &stored).unwrap_or(0);
        if synced > self.group {
            let (group, lost) = (self.group, synced - self.group);
            let what = format!("its journal ends after group {group}, and {lost} more were synced");
            return Err(self.damaged(what));
        }
        Ok(())
    }

    /// Notes that this group is on disk.
    fn bear_witness(&mut self) -> io::Result<()> {
        let stored = seal(WITNESS, &[], &self.group).map_err(io::Error::other)?;
        self.witness.seek(SeekFrom::Start(0))?;
        self.witness.write_all(&stored)
    }

    fn read_index(&self, genesis: &Digest) -> Result<Index, StoreError> {
        let read = |key| self.read_meta::<PlacedHead>(key).map(|head| head.as_ref().map(place));
        let mut index =
            Index { ground: read(META_STATE)?, incoming: read(META_INCOMING)?, ..Index::default() };
        if index.ground.is_none() {
            let at = Position { slot: Slot::GENESIS, hash: *genesis };
            let initial = self.read_meta(META_INITIAL)?;
            index.ground = initial.map(|generation| Place { generation, at });
        }
        index.era = self.read_meta(META_ERA)?.unwrap_or_default();
        let highest = index.generations().max().unwrap_or_default();
        index.generation = self.read_meta::<u64>(META_GENERATION)?.unwrap_or_default().max(highest);
        index.highest = index.base();
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
        for guard in self.aside.iter() {
            let key = guard.key().map_err(|error| self.unreadable(&error))?;
            let hash = key[..].try_into().map_err(|_| self.damaged("a hash is malformed"))?;
            index.aside.insert(Digest(hash));
        }
        Ok(index)
    }

    /// Opens the rows of the states that are there, and drops what a crash has left of others.
    fn open_rows(&mut self) -> Result<(), StoreError> {
        let present: BTreeSet<u64> = self.index.generations().collect();
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
        self.files.set_ground(self.index.ground.map(|ground| ground.generation));
        for generation in &self.note.damaged {
            let keyspace = rows::name(*generation);
            let what = format!("{keyspace} was damaged and is fetched anew");
            self.files.note(&Damage { keyspace, what });
        }
    }

    /// What is known of its files.
    pub(crate) fn files(&self) -> Files {
        self.files.clone()
    }

    /// Keeps this much of the disk free: before less is left, it says that there is no room.
    pub(crate) fn keep_free(&mut self, bytes: u64) {
        self.reserve = bytes;
    }

    /// Whether the disk has room for more. Where that cannot be found out, writing will tell.
    pub(crate) fn has_room(&self) -> bool {
        let room = |disk: StatVfs| {
            let bytes = disk.f_bavail.saturating_mul(disk.f_frsize) >= self.reserve;
            // Where files are not counted, there are none of them either.
            bytes && (disk.f_files == 0 || disk.f_favail >= FILES_RESERVE)
        };
        let has_room = statvfs(&self.path).map_or(true, room);
        self.files.set_full(!has_room);
        has_room
    }

    /// Finds out whether a failure is due to damaged rows. fjall writes nothing any more after it
    /// has met a damaged block, and does not say of what. Such rows are given up.
    fn blame(&mut self, error: StoreError) -> StoreError {
        use StoreError::{Damaged, Interrupted, WriteFailed};
        if !matches!(error, WriteFailed { .. } | Damaged { .. } | Interrupted { .. }) {
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

    fn recovered(&self) -> Result<Recovered, StoreError> {
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
            standing: self.standing()?,
            lives: self.read_meta(META_LIVES)?.unwrap_or_default(),
            mismatches: self.read_meta(META_MISMATCHES)?.unwrap_or_default(),
            stamps: self.read_meta(META_STAMPS)?.unwrap_or_default(),
        })
    }

    fn standing(&self) -> Result<Standing, StoreError> {
        let standing = self.read_meta(META_STANDING)?;
        standing.ok_or_else(|| self.damaged("it does not say whether its replica votes"))
    }

    fn incoming_state(&self) -> Result<Option<StoredState>, StoreError> {
        match self.index.incoming {
            // It is fetched anew.
            Some(incoming) if self.note.damaged.contains(&incoming.generation) => Ok(None),
            _ => self.stored_state(META_INCOMING),
        }
    }

    fn stored_state(&self, key: &[u8]) -> Result<Option<StoredState>, StoreError> {
        let Some((generation, head)) = self.read_meta::<PlacedHead>(key)? else { return Ok(None) };
        let mut pieces = Vec::new();
        for guard in self.state.prefix(generation.to_be_bytes()) {
            let (key, value) = guard.into_inner().map_err(|error| self.unreadable(&error))?;
            let part = part_of_key(&key)
                .ok_or_else(|| self.damaged("the key of a piece of a state is malformed"))?;
            let bytes: Bytes = unseal(STATE, &key, &value).map_err(|what| self.damaged(what))?;
            pieces.push((part, bytes));
        }
        Ok(Some(StoredState { head, pieces, rows: self.view(generation)? }))
    }

    /// The rows of the state that the cluster begins with, as long as no other took its place.
    fn initial_rows(&self) -> Result<Option<RowsView>, StoreError> {
        let initial = self.index.ground.filter(|ground| ground.at.slot == Slot::GENESIS);
        initial.map(|ground| self.view(ground.generation)).transpose()
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

    fn damaged(&self, what: impl ToString) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), what: what.to_string() }
    }

    /// All stored slots in order, without a hole: from the one after the stored state on, or from
    /// slot 1.
    pub(crate) fn history(
        &self,
    ) -> impl Iterator<Item = Result<(Digest, SlotEntry), StoreError>> + use<> {
        let path = self.path.clone();
        let era = self.index.era;
        let mut expected = self.index.base().next();
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

    fn failed(&self, reason: impl ToString) -> StoreError {
        StoreError::WriteFailed { path: self.path.clone(), reason: reason.to_string() }
    }

    fn unwritten(&self, error: &fjall::Error) -> StoreError {
        unwritten(&self.path, error)
    }

    fn unwritten_file(&self, error: io::Error) -> StoreError {
        self.unwritten(&error.into())
    }

    /// Writes a group of records, as [`Self::write`], and finds out why it fails where it does.
    pub(crate) fn commit(
        &mut self,
        records: &[Record],
    ) -> Result<Vec<(usize, RowsView)>, StoreError> {
        self.write(records).map_err(|error| self.blame(error))
    }

    /// Writes a group of records, all or nothing. When it returns they are on disk, or, with
    /// [`Durability::Os`], in the hands of the operating system. Answers the rows of states that
    /// records of the group complete, by the places of those records in the group.
    fn write(&mut self, records: &[Record]) -> Result<Vec<(usize, RowsView)>, StoreError> {
        let settling = self.settling.take();
        let mut group = Group::new(self, settling);
        for (place, record) in records.iter().enumerate() {
            group.stage(place, record)?;
        }
        if group.is_empty() {
            self.settling = group.settling;
            return Ok(Vec::new());
        }
        let number = self.group + 1;
        group.put_meta(META_GROUP, &number)?;
        let Group {
            store: _,
            index,
            history,
            meta,
            aside,
            orphans,
            state,
            rows,
            evidence,
            settling,
            completed,
        } = group;
        let mut is_noted = true;
        self.settling = settling;
        for generation in index.generations() {
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
            let present = self.index.generations().chain(index.generations()).collect();
            self.write_note(&present)?;
        }
        let mode = match self.durability {
            Durability::Sync => PersistMode::SyncAll,
            Durability::Os => PersistMode::Buffer,
        };
        let mut batch = self.database.batch().durability(Some(mode));
        fill(&mut batch, &self.history, history);
        fill(&mut batch, &self.meta, meta);
        fill(&mut batch, &self.aside, aside.into_iter().map(|(Digest(key), to)| (key, to)));
        fill(&mut batch, &self.orphans, orphans.into_iter().map(|(Digest(key), to)| (key, to)));
        fill(&mut batch, &self.state, state);
        for (generation, changes) in rows {
            // What was staged for a state that another one of the same group replaces is not there.
            if let Some(keyspace) = self.rows.get(&generation) {
                fill(&mut batch, keyspace, changes.into_iter().map(|(key, to)| (key.to_vec(), to)));
            }
        }
        fill(&mut batch, &self.evidence, evidence.into_iter().map(|(Digest(key), to)| (key, to)));
        self.wait_for_files()?;
        batch.commit().map_err(|error| self.unwritten(&error))?;
        self.has_garbage |= index.ground != self.index.ground;
        self.index = index;
        self.files.set_ground(self.index.ground.map(|ground| ground.generation));
        self.group = number;
        // What only the operating system has may be lost with it, by the operator's choice.
        if self.durability == Durability::Sync {
            self.bear_witness().map_err(|error| self.unwritten_file(error))?;
        }
        self.drop_rows()?;
        // A state that another one of the same group has replaced is of no interest.
        let present = completed.into_iter().filter(|(_, of)| self.rows.contains_key(of));
        let views =
            present.map(|(place, of)| Ok((place, self.view(of)?))).collect::<Result<_, _>>()?;
        self.sweep()?;
        Ok(views)
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
        let present: BTreeSet<u64> = self.index.generations().collect();
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
        let end = slot_key(self.index.era, self.index.base().next());
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

impl Drop for Store {
    fn drop(&mut self) {
        // Else the list would keep the database open.
        self.files.close();
    }
}

fn fill<K: Into<fjall::Slice>>(
    batch: &mut fjall::OwnedWriteBatch,
    keyspace: &Keyspace,
    changes: impl IntoIterator<Item = (K, Change)>,
) {
    for (key, change) in changes {
        match change {
            Some(value) => batch.insert(keyspace, key, value),
            None => batch.remove(keyspace, key),
        }
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "store_damage_tests.rs"]
mod damage_tests;
