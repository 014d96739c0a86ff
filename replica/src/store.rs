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
//! lag behind after a power cut, but never lead.
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

mod files;
mod note;
mod rows;

pub(crate) use self::files::{Damage, Files, Looked};

use self::note::Note;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use elea_protocol::codec::{self, Canonical, Sink};
use elea_protocol::id::{Digest, ReplicaId, Slot};
use elea_protocol::message::{Position, SlotEntry, Standing, StatePart};
use elea_protocol::replica::{
    Adopted, Aside, Ground, Record, Recovered, Settled, StateHead, StoredState,
};
use elea_protocol::rows::{Changes, Row, RowsView};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode};
use rustix::fs::{StatVfs, statvfs};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Durability;

/// The version of what is stored. It changes when old records can no longer be read as they are.
const FORMAT: u32 = 6;

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

/// What is written to a keyspace before it goes to a file, in bytes. fjall's default is 64 MiB, which
/// every keyspace that is written to would take in memory in time: also `meta`, of which each version
/// that is overwritten counts until then.
const MEMTABLE_BYTES: u64 = 2 << 20;

/// The same for slots: as many as are on disk before a state takes their place, twice, so that most of
/// them are gone again before they would be written to a file.
const HISTORY_MEMTABLE_BYTES: u64 = 4 << 20;

/// Blocks of files kept in memory, in bytes, over all keyspaces.
const CACHE_BYTES: u64 = 32 << 20;

/// The journals that are on disk because something in them is not in a file yet, in bytes. fjall takes
/// no less. A start reads them.
const JOURNALS_BYTES: u64 = 64 << 20;

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

/// Why the store cannot be used. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be made, read or written.
    #[error(
        "the data folder {path} cannot be used ({reason}): check that it is a folder, that there is room, and that this user may write there"
    )]
    Unusable {
        /// Which.
        path: PathBuf,
        /// As the system says.
        reason: String,
    },
    /// Another process has it open.
    #[error(
        "the data folder {path} is in use by another process: stop that one first, or give this replica a folder of its own"
    )]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// It holds no data at all.
    #[error(
        "there is no replica's data in {path}: name the folder that `elea replica` was given with --data"
    )]
    Absent {
        /// Which.
        path: PathBuf,
    },
    /// It holds data already.
    #[error(
        "the data folder {path} holds a replica's data already and is not overwritten: name a new folder"
    )]
    Present {
        /// Which.
        path: PathBuf,
    },
    /// It holds data of another cluster.
    #[error(
        "the data folder {path} belongs to another cluster (genesis {found}, not {expected}): name this cluster's folder, or an empty one for a new replica"
    )]
    OtherCluster {
        /// Which.
        path: PathBuf,
        /// The genesis digest stored.
        found: Digest,
        /// The one in the cluster file.
        expected: Digest,
    },
    /// It holds data of another replica of this cluster.
    #[error(
        "the data folder {path} belongs to replica {found}, not to {expected}: each replica needs the folder it started with"
    )]
    OtherReplica {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        found: ReplicaId,
        /// Whose it should be.
        expected: ReplicaId,
    },
    /// A newer version wrote it.
    #[error(
        "the data folder {path} was written by a newer version (format {found}, this one knows up to {FORMAT}): start the replica with that version"
    )]
    NewerFormat {
        /// Which.
        path: PathBuf,
        /// The format stored.
        found: u32,
    },
    /// An older version wrote it.
    #[error(
        "the data folder {path} was written by an older version (format {found}, this one needs {FORMAT}) and cannot be converted: start the replica with the version that wrote it, or begin a new cluster with empty folders"
    )]
    OlderFormat {
        /// Which.
        path: PathBuf,
        /// The format stored.
        found: u32,
    },
    /// What is stored is not what was written.
    #[error(
        "the store in {path} is damaged ({what}): keep the folder for inspection and replace the replica, since with an older copy it could contradict what it said"
    )]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The application's rows are not what was written. They have been given up: with the next
    /// start they are fetched from the others.
    #[error(
        "the application's rows in {path} are damaged ({what}): start the replica again, and it fetches them from the others"
    )]
    RowsDamaged {
        /// Where.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// Records could not be written. The replica stops, before it says anything that rests on them.
    #[error(
        "the store in {path} could not be written ({reason}): check the disk and its free space, then start the replica again"
    )]
    WriteFailed {
        /// Where.
        path: PathBuf,
        /// As the system says.
        reason: String,
    },
}

/// The open store. Whoever has it is the only writer.
pub(crate) struct Store {
    path: PathBuf,
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

/// What becomes of one key: a value, or nothing.
type Change = Option<Vec<u8>>;

/// The rows as they are stored.
fn sealed(changes: &Changes) -> impl Iterator<Item = (Bytes, Change)> {
    let seal = |(key, value): &(Bytes, Option<Bytes>)| {
        (key.clone(), value.as_ref().map(|value| rows::seal(key, value)))
    };
    changes.iter().map(seal)
}

/// What one group of records comes to. Within a batch of fjall's a key must not occur twice: both
/// would get one sequence number, and which of them stays is undefined.
struct Group<'a> {
    store: &'a Store,
    /// As it is after the group.
    index: Index,
    history: BTreeMap<[u8; 16], Change>,
    meta: BTreeMap<&'static [u8], Change>,
    aside: BTreeMap<Digest, Change>,
    orphans: BTreeMap<Digest, Change>,
    state: BTreeMap<[u8; 13], Change>,
    rows: BTreeMap<u64, BTreeMap<Bytes, Change>>,
    evidence: BTreeMap<Digest, Change>,
    /// What was told for the next settled state, and is not written yet.
    settling: Option<Settling>,
    /// Records, by their places in the group, with the generations whose rows they complete.
    completed: Vec<(usize, u64)>,
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
            let failed = |error: fjall::Error| StoreError::WriteFailed {
                path: path.into(),
                reason: plain(&error),
            };
            let keyspace =
                database.keyspace(&rows::name(FIRST_GENERATION), rows::options).map_err(failed)?;
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
    pub(crate) fn owner(&self) -> Result<ReplicaId, StoreError> {
        let missing = || self.damaged("it does not name its replica");
        self.read_meta(META_REPLICA)?.ok_or_else(missing)
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

    fn check_owner(&self, genesis: &Digest, me: Option<ReplicaId>) -> Result<(), StoreError> {
        let missing = |what| move || self.damaged(format!("it does not name its {what}"));
        let found: Digest = self.read_meta(META_GENESIS)?.ok_or_else(missing("cluster"))?;
        if found != *genesis {
            let (path, expected) = (self.path.clone(), *genesis);
            return Err(StoreError::OtherCluster { path, found, expected });
        }
        let found = self.owner()?;
        match me.filter(|me| found != *me) {
            Some(expected) => {
                Err(StoreError::OtherReplica { path: self.path.clone(), found, expected })
            }
            None => Ok(()),
        }
    }

    /// Nothing that was synced may be gone.
    fn check_memory(&mut self) -> Result<(), StoreError> {
        self.group = self.read_meta(META_GROUP)?.unwrap_or(0);
        let mut stored = Vec::new();
        (&self.witness).read_to_end(&mut stored).map_err(|error| self.damaged(error))?;
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
            let key = last.key().map_err(|error| self.damaged(plain(&error)))?;
            match slot_of_key(&key) {
                None => return Err(self.damaged("a slot's key is malformed")),
                // Not swept yet.
                Some((era, slot)) if (era, slot) <= (index.era, index.base()) => {}
                Some((era, slot)) if era == index.era => index.highest = slot,
                Some(_) => return Err(self.damaged("the state that slots stand on is missing")),
            }
        }
        for guard in self.aside.iter() {
            let key = guard.key().map_err(|error| self.damaged(plain(&error)))?;
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
            let opened = self.database.keyspace(&name, rows::options);
            let keyspace = opened.map_err(|error| self.damaged(plain(&error)))?;
            if present.contains(&generation) {
                self.rows.insert(generation, keyspace);
            } else {
                let dropped = self.database.delete_keyspace(keyspace);
                dropped.map_err(|error| self.damaged(plain(&error)))?;
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
        written.map_err(|error| self.failed(error))
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
        let room = |disk: StatVfs| disk.f_bavail.saturating_mul(disk.f_frsize) >= self.reserve;
        let has_room = statvfs(&self.path).map_or(true, room);
        self.files.set_full(!has_room);
        has_room
    }

    /// Finds out whether a failure is due to damaged rows. fjall writes nothing any more after it
    /// has met a damaged block, and does not say of what. Such rows are given up.
    fn blame(&mut self, error: StoreError) -> StoreError {
        if !matches!(error, StoreError::WriteFailed { .. } | StoreError::Damaged { .. }) {
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
            let (key, value) = guard.into_inner().map_err(|error| self.damaged(plain(&error)))?;
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
            let (key, value) = guard.into_inner().map_err(|error| self.damaged(plain(&error)))?;
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
        let value = keyspace.get(key).map_err(|error| self.damaged(plain(&error)))?;
        let read = |stored: fjall::Slice| unseal(name, key, &stored);
        value.map(read).transpose().map_err(|what| self.damaged(what))
    }

    fn read_meta<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.read(&self.meta, META, key)
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
            let (key, value) = guard.into_inner().map_err(|error| damaged(plain(&error)))?;
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
                let opened = self.database.keyspace(&rows::name(generation), rows::options);
                let keyspace = opened.map_err(|error| self.failed(plain(&error)))?;
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
        batch.commit().map_err(|error| self.failed(plain(&error)))?;
        self.has_garbage |= index.ground != self.index.ground;
        self.index = index;
        self.files.set_ground(self.index.ground.map(|ground| ground.generation));
        self.group = number;
        // What only the operating system has may be lost with it, by the operator's choice.
        if self.durability == Durability::Sync {
            self.bear_witness().map_err(|error| self.failed(error))?;
        }
        self.drop_rows()?;
        // A state that another one of the same group has replaced is of no interest.
        let present = completed.into_iter().filter(|(_, of)| self.rows.contains_key(of));
        let views =
            present.map(|(place, of)| Ok((place, self.view(of)?))).collect::<Result<_, _>>()?;
        self.sweep()?;
        Ok(views)
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
            dropped.map_err(|error| StoreError::WriteFailed {
                path: self.path.clone(),
                reason: plain(&error),
            })?;
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
            .map(|guard| guard.key().map_err(|error| self.damaged(plain(&error))))
            .collect::<Result<_, _>>()?;
        self.has_garbage = keys.len() == SWEPT;
        if let Some(last) = keys.last() {
            self.swept = last.to_vec();
        }
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        keys.into_iter().for_each(|key| batch.remove(&self.history, key));
        batch.commit().map_err(|error| self.failed(plain(&error)))
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

impl<'a> Group<'a> {
    fn new(store: &'a Store, settling: Option<Settling>) -> Self {
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
    fn is_empty(&self) -> bool {
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

    fn put_meta<T: Serialize>(&mut self, key: &'static [u8], value: &T) -> Result<(), StoreError> {
        let sealed = self.seal(META, key, value)?;
        self.meta.insert(key, sealed);
        Ok(())
    }

    fn stage(&mut self, place: usize, record: &Record) -> Result<(), StoreError> {
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
            let key = guard.key().map_err(|error| self.store.damaged(plain(&error)))?;
            let key = key[..].try_into();
            let key = key.map_err(|_| self.store.damaged("the key of a piece is malformed"))?;
            self.state.insert(key, None);
        }
        let staged = self.state.iter_mut().filter(|(key, _)| key.starts_with(&prefix));
        staged.for_each(|(_, change)| *change = None);
        Ok(())
    }
}

fn check_format(path: &Path, meta: &Keyspace) -> Result<(), StoreError> {
    let damaged = |what: String| StoreError::Damaged { path: path.into(), what };
    let stored = meta.get(META_FORMAT).map_err(|error| damaged(plain(&error)))?;
    let stored = stored.ok_or_else(|| damaged("it does not name its format".to_owned()))?;
    match unseal::<u32>(META, META_FORMAT, &stored).map_err(damaged)? {
        FORMAT => Ok(()),
        found if found > FORMAT => Err(StoreError::NewerFormat { path: path.into(), found }),
        found => Err(StoreError::OlderFormat { path: path.into(), found }),
    }
}

fn unusable(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unusable { path: path.into(), reason: error.to_string() }
}

/// Makes the folder and takes its lock.
fn lock(path: &Path) -> Result<File, StoreError> {
    fs::create_dir_all(path).map_err(|error| unusable(path, &error))?;
    let lock = File::create(path.join("lock")).map_err(|error| unusable(path, &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.into() }),
        Err(TryLockError::Error(error)) => Err(unusable(path, &error)),
    }
}

/// Builds a store next to where it belongs, and moves it there when it is on disk. It is empty but
/// for what `fill` puts into it: the rows of an initial state, of the generation that it answers.
fn create<E: From<StoreError>>(
    path: &Path,
    whole: &Path,
    genesis: &Digest,
    me: ReplicaId,
    fill: impl FnOnce(&Database) -> Result<Option<u64>, E>,
) -> Result<(), E> {
    let half = path.join("store.new");
    match fs::remove_dir_all(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(unusable(path, &error).into());
        }
        Ok(()) | Err(_) => {}
    }
    if let Err(error) = build(path, &half, genesis, me, fill) {
        // What is left of it is of no use; the next attempt removes it, if this does not.
        let _ = fs::remove_dir_all(&half);
        return Err(error);
    }
    let moved = fs::rename(&half, whole)
        .and_then(|()| File::open(path).and_then(|folder| folder.sync_all()));
    moved.map_err(|error| unusable(path, &error).into())
}

fn build<E: From<StoreError>>(
    path: &Path,
    half: &Path,
    genesis: &Digest,
    me: ReplicaId,
    fill: impl FnOnce(&Database) -> Result<Option<u64>, E>,
) -> Result<(), E> {
    let bad = |reason: String| StoreError::Unusable { path: path.into(), reason };
    let database = builder(half).open().map_err(|error| bad(plain(&error)))?;
    let initial = fill(&database)?;
    let found = || -> Result<(), String> {
        let open = |name| database.keyspace(name, || options(name));
        for name in [HISTORY, ASIDE, ORPHANS, STATE, EVIDENCE] {
            open(name).map_err(|error| plain(&error))?;
        }
        let meta = open(META).map_err(|error| plain(&error))?;
        let text = |error: codec::CodecError| error.to_string();
        let mut rows: Vec<(&[u8], Vec<u8>)> = vec![
            (META_FORMAT, seal(META, META_FORMAT, &FORMAT).map_err(text)?),
            (META_GENESIS, seal(META, META_GENESIS, genesis).map_err(text)?),
            (META_REPLICA, seal(META, META_REPLICA, &me).map_err(text)?),
            // Whether this is the first start is not for the disk to say.
            (META_STANDING, seal(META, META_STANDING, &Standing::New).map_err(text)?),
        ];
        if let Some(generation) = initial {
            rows.push((META_INITIAL, seal(META, META_INITIAL, &generation).map_err(text)?));
        }
        let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
        for (key, value) in rows {
            batch.insert(&meta, key, value);
        }
        batch.commit().map_err(|error| plain(&error))
    };
    found().map_err(|reason| bad(reason).into())
}

/// Tables that are kept open.
const CACHED_FILES: usize = 128;

fn builder(folder: &Path) -> fjall::DatabaseBuilder<Database> {
    // Of two workers one puts flushing before compacting, so that a long compaction does not leave
    // memtables in memory, of which there may be four of a keyspace before writes have to wait. No more
    // of them: the machine's cores are for signatures.
    Database::builder(folder)
        .worker_threads(2)
        .cache_size(CACHE_BYTES)
        .max_journaling_size(JOURNALS_BYTES)
        // By default it keeps nearly as many open as a process may have, and clients need some.
        .max_cached_files(Some(CACHED_FILES))
}

/// Of a keyspace of the protocol's own. They are stored with it when it is made.
fn options(name: &str) -> KeyspaceCreateOptions {
    let bytes = if name == HISTORY { HISTORY_MEMTABLE_BYTES } else { MEMTABLE_BYTES };
    KeyspaceCreateOptions::default().max_memtable_size(bytes)
}

fn open_database(path: &Path, whole: &Path) -> Result<Database, StoreError> {
    let damaged = |what: String| StoreError::Damaged { path: path.into(), what };
    // fjall believes the lengths in its journal, and panics on some that cannot be.
    let opened = catch_unwind(AssertUnwindSafe(|| builder(whole).open()))
        .map_err(|_| damaged("its journal cannot be read".to_owned()))?;
    opened.map_err(|error| match error {
        fjall::Error::Locked => StoreError::InUse { path: path.into() },
        fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error))
            if !is_damage(&error) =>
        {
            StoreError::Unusable { path: path.into(), reason: error.to_string() }
        }
        other => damaged(plain(&other)),
    })
}

/// Opens the database without the rows that keep it from being opened.
fn open_without_rows(
    path: &Path,
    whole: &Path,
    note: &mut Note,
    what: String,
) -> Result<Database, StoreError> {
    let tried = note.try_without(path, whole, || open_database(path, whole).ok());
    match tried.map_err(|error| unusable(path, &error))? {
        Some(database) => {
            tracing::error!(what, "the application's rows are damaged and have been given up");
            Ok(database)
        }
        None => Err(StoreError::Damaged { path: path.into(), what }),
    }
}

/// Whether the bytes are at fault and not the way to them: permissions, say, or too many open files.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    let is_of_device = error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    is_of_device || matches!(error.kind(), InvalidData | UnexpectedEof | NotFound)
}

fn open_keyspace(path: &Path, database: &Database, name: &str) -> Result<Keyspace, StoreError> {
    // A keyspace that is gone must not come back empty: the replica would break its word.
    if !database.keyspace_exists(name) {
        let what = format!("its {name} is missing");
        return Err(StoreError::Damaged { path: path.into(), what });
    }
    let opened = database.keyspace(name, || options(name));
    opened.map_err(|error| StoreError::Damaged { path: path.into(), what: plain(&error) })
}

/// fjall's errors without the frame of Rust's debug output, where there is a plain sentence.
fn plain(error: &fjall::Error) -> String {
    match error {
        fjall::Error::Io(error) => error.to_string(),
        fjall::Error::Poisoned => "an earlier write failed".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "store_damage_tests.rs"]
mod damage_tests;
