//! The disk: what must survive a crash, in one fjall database. The only file that names fjall.
//!
//! Three keyspaces: `history` (slot, big-endian, to the slot's hash and entry), `meta` (format,
//! genesis, replica, lock, stable checkpoint) and `evidence`. A group of records is one atomic batch, so a
//! crash leaves all of it or nothing. Each value carries a checksum over its keyspace, key and bytes:
//! a value that changed, or that stands in another's place, is found when it is read.
//!
//! fjall takes a damaged frame in its journal for the torn end of a write, and drops it with all that
//! follows, in silence. A replica must not forget in silence: it would break its word. So every group
//! has a number, kept in `meta`, and the number of the last group that was synced also stands in a
//! file of its own. A store that knows less than that file is damaged. The file is not synced: it may
//! lag behind after a power cut, but never lead.
//!
//! A store is built in a folder of its own and renamed when whole, so that a crash during the very
//! first start leaves nothing that a second start would trip over.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use elea_protocol::codec::{self, Canonical, FRAME_MAX, Sink};
use elea_protocol::id::{Digest, ReplicaId, Slot};
use elea_protocol::message::{SLOTS_MAX, SlotEntry};
use elea_protocol::replica::{Record, Recovered};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Durability;

/// The version of what is stored. It changes when old records can no longer be read as they are.
const FORMAT: u32 = 1;

/// The most bytes of stored slots in one answer to a peer, so that it fits a frame with all around
/// it. The first slot is exempt: one slot always fits.
const SERVED_BYTES_MAX: usize = FRAME_MAX / 2;

const HISTORY: &str = "history";
const META: &str = "meta";
const EVIDENCE: &str = "evidence";

/// The file that names the last group synced.
const WITNESS: &str = "synced";

const META_FORMAT: &[u8] = b"format";
const META_GENESIS: &[u8] = b"genesis";
const META_REPLICA: &[u8] = b"replica";
const META_LOCK: &[u8] = b"lock";
const META_STABLE: &[u8] = b"stable";
const META_GROUP: &[u8] = b"group";

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
    evidence: Keyspace,
    durability: Durability,
    /// The highest slot stored; those above it that a record replaces need no removal.
    highest: Slot,
    /// The number of the last group written.
    group: u64,
    /// The file that names it, too.
    witness: File,
    /// Held as long as the store is open; the system lets go of it when the process dies.
    _lock: File,
}

/// Reads stored slots while the store is being written.
#[derive(Clone)]
pub(crate) struct HistoryReader {
    path: PathBuf,
    history: Keyspace,
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

/// What one group of records comes to. Within a batch of fjall's a key must not occur twice: both
/// would get one sequence number, and which of them stays is undefined.
#[derive(Default)]
struct Group {
    history: BTreeMap<[u8; 8], Option<Vec<u8>>>,
    meta: BTreeMap<&'static [u8], Vec<u8>>,
    evidence: BTreeMap<[u8; 32], Vec<u8>>,
}

impl Store {
    /// Opens the store of replica `me` in the folder `path`, and makes it on the first start.
    pub(crate) fn open(
        path: &Path,
        genesis: &Digest,
        me: ReplicaId,
        durability: Durability,
    ) -> Result<(Self, Recovered), StoreError> {
        let unusable = |error: io::Error| StoreError::Unusable {
            path: path.into(),
            reason: error.to_string(),
        };
        fs::create_dir_all(path).map_err(unusable)?;
        let lock = File::create(path.join("lock")).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path: path.into() }),
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        let whole = path.join("store");
        if !whole.try_exists().map_err(unusable)? {
            create(path, &whole, genesis, me)?;
        }
        let witness = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(WITNESS))
            .map_err(unusable)?;
        let database = open_database(path, &whole)?;
        let keyspace = |name| open_keyspace(path, &database, name);
        let (history, meta, evidence) = (keyspace(HISTORY)?, keyspace(META)?, keyspace(EVIDENCE)?);
        let mut store = Self {
            path: path.into(),
            database,
            history,
            meta,
            evidence,
            durability,
            highest: Slot::GENESIS,
            group: 0,
            witness,
            _lock: lock,
        };
        store.check_owner(genesis, me)?;
        store.check_memory()?;
        store.highest = match store.history.last_key_value() {
            None => Slot::GENESIS,
            Some(last) => {
                let key = last.key().map_err(|error| store.damaged(error))?;
                slot_of(&key).ok_or_else(|| store.damaged("a slot's key is malformed"))?
            }
        };
        let recovered = store.recovered()?;
        Ok((store, recovered))
    }

    fn check_owner(&self, genesis: &Digest, me: ReplicaId) -> Result<(), StoreError> {
        let missing = |what| move || self.damaged(format!("it does not name its {what}"));
        // First of all the format: under a newer one the rest may mean something else.
        let format: u32 = self.read_meta(META_FORMAT)?.ok_or_else(missing("format"))?;
        if format > FORMAT {
            return Err(StoreError::NewerFormat { path: self.path.clone(), found: format });
        }
        let found: Digest = self.read_meta(META_GENESIS)?.ok_or_else(missing("cluster"))?;
        if found != *genesis {
            let (path, expected) = (self.path.clone(), *genesis);
            return Err(StoreError::OtherCluster { path, found, expected });
        }
        let found: ReplicaId = self.read_meta(META_REPLICA)?.ok_or_else(missing("replica"))?;
        if found != me {
            return Err(StoreError::OtherReplica { path: self.path.clone(), found, expected: me });
        }
        Ok(())
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

    fn recovered(&self) -> Result<Recovered, StoreError> {
        let mut evidence = Vec::new();
        for guard in self.evidence.iter() {
            let (key, value) = guard.into_inner().map_err(|error| self.damaged(error))?;
            evidence.push(unseal(EVIDENCE, &key, &value).map_err(|what| self.damaged(what))?);
        }
        Ok(Recovered {
            lock: self.read_meta(META_LOCK)?,
            stable: self.read_meta(META_STABLE)?,
            evidence,
        })
    }

    fn read_meta<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        let value = self.meta.get(key).map_err(|error| self.damaged(error))?;
        let read = |stored: fjall::Slice| unseal(META, key, &stored);
        value.map(read).transpose().map_err(|what| self.damaged(what))
    }

    fn damaged(&self, what: impl ToString) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), what: what.to_string() }
    }

    /// All stored slots, from slot 1 on, in order, without a hole.
    pub(crate) fn history(
        &self,
    ) -> impl Iterator<Item = Result<(Digest, SlotEntry), StoreError>> + use<> {
        self.reader().slots_from(Slot::GENESIS.next()).map(|read| read.map(|(slot, _)| slot))
    }

    /// A reader for other threads.
    pub(crate) fn reader(&self) -> HistoryReader {
        HistoryReader { path: self.path.clone(), history: self.history.clone() }
    }

    /// Writes a group of records, all or nothing. When it returns they are on disk, or, with
    /// [`Durability::Os`], in the hands of the operating system.
    pub(crate) fn commit(&mut self, records: &[Record]) -> Result<(), StoreError> {
        let failed = |reason: String| StoreError::WriteFailed { path: self.path.clone(), reason };
        let mut highest = self.highest;
        let mut group = Group::default();
        for record in records {
            stage(record, &mut group, &mut highest).map_err(|error| failed(error.to_string()))?;
        }
        let mode = match self.durability {
            Durability::Sync => PersistMode::SyncAll,
            Durability::Os => PersistMode::Buffer,
        };
        let mut batch = self.database.batch().durability(Some(mode));
        for (key, value) in group.history {
            match value {
                Some(value) => batch.insert(&self.history, key, value),
                None => batch.remove(&self.history, key),
            }
        }
        for (key, value) in group.meta {
            batch.insert(&self.meta, key, value);
        }
        for (key, value) in group.evidence {
            batch.insert(&self.evidence, key, value);
        }
        let number = self.group + 1;
        let numbered =
            seal(META, META_GROUP, &number).map_err(|error| failed(error.to_string()))?;
        batch.insert(&self.meta, META_GROUP, numbered);
        batch.commit().map_err(|error| failed(plain(&error)))?;
        self.highest = highest;
        self.group = number;
        // What only the operating system has may be lost with it, by the operator's choice.
        if self.durability == Durability::Sync {
            self.bear_witness().map_err(|error| StoreError::WriteFailed {
                path: self.path.clone(),
                reason: error.to_string(),
            })?;
        }
        Ok(())
    }
}

fn stage(record: &Record, group: &mut Group, highest: &mut Slot) -> Result<(), codec::CodecError> {
    match record {
        Record::Slot { slot, hash, entry } => {
            for replaced in slot.next().0..=highest.0 {
                group.history.insert(replaced.to_be_bytes(), None);
            }
            let key = slot.0.to_be_bytes();
            group.history.insert(key, Some(seal(HISTORY, &key, &(hash, entry))?));
            *highest = *slot;
        }
        Record::Lock(lock) => {
            group.meta.insert(META_LOCK, seal(META, META_LOCK, lock)?);
        }
        Record::Stable(stable) => {
            group.meta.insert(META_STABLE, seal(META, META_STABLE, stable)?);
        }
        Record::Evidence(evidence) => {
            // Named by its content, so that the same proof is kept once.
            let bytes = codec::encode(evidence)?;
            let Digest(key) = Stored { keyspace: EVIDENCE, key: &[], bytes: &bytes }.digest();
            group.evidence.insert(key, seal(EVIDENCE, &key, evidence)?);
        }
    }
    Ok(())
}

impl HistoryReader {
    /// Slots from `first` on, without a hole, each with the bytes it takes.
    fn slots_from(
        &self,
        first: Slot,
    ) -> impl Iterator<Item = Result<((Digest, SlotEntry), usize), StoreError>> + use<> {
        let path = self.path.clone();
        let mut expected = first;
        self.history.range(first.0.to_be_bytes()..).map(move |guard| {
            let damaged = |what: String| StoreError::Damaged { path: path.clone(), what };
            let (key, value) = guard.into_inner().map_err(|error| damaged(plain(&error)))?;
            if slot_of(&key) != Some(expected) {
                return Err(damaged(format!("slot {expected} is missing")));
            }
            expected = expected.next();
            let slot = unseal(HISTORY, &key, &value).map_err(damaged)?;
            Ok((slot, value.len()))
        })
    }

    /// As many slots from `first` on as fit one answer to a peer; none where there are none.
    pub(crate) fn serve(&self, first: Slot) -> Result<Vec<SlotEntry>, StoreError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for read in self.slots_from(first).take(SLOTS_MAX) {
            let ((_, entry), size) = read?;
            bytes += size;
            if bytes > SERVED_BYTES_MAX && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

fn slot_of(key: &[u8]) -> Option<Slot> {
    Some(Slot(u64::from_be_bytes(key.try_into().ok()?)))
}

/// Builds an empty store next to where it belongs, and moves it there when it is on disk.
fn create(path: &Path, whole: &Path, genesis: &Digest, me: ReplicaId) -> Result<(), StoreError> {
    let unusable =
        |error: io::Error| StoreError::Unusable { path: path.into(), reason: error.to_string() };
    let half = path.join("store.new");
    match fs::remove_dir_all(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(error)),
        Ok(()) | Err(_) => {}
    }
    let fill = || -> Result<(), String> {
        let database = builder(&half).open().map_err(|error| plain(&error))?;
        let open = |name| database.keyspace(name, KeyspaceCreateOptions::default);
        open(HISTORY).and_then(|_| open(EVIDENCE)).map_err(|error| plain(&error))?;
        let meta = open(META).map_err(|error| plain(&error))?;
        let text = |error: codec::CodecError| error.to_string();
        let rows: [(&[u8], Vec<u8>); 3] = [
            (META_FORMAT, seal(META, META_FORMAT, &FORMAT).map_err(text)?),
            (META_GENESIS, seal(META, META_GENESIS, genesis).map_err(text)?),
            (META_REPLICA, seal(META, META_REPLICA, &me).map_err(text)?),
        ];
        let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
        for (key, value) in rows {
            batch.insert(&meta, key, value);
        }
        batch.commit().map_err(|error| plain(&error))
    };
    fill().map_err(|reason| StoreError::Unusable { path: path.into(), reason })?;
    fs::rename(&half, whole).map_err(unusable)?;
    File::open(path).and_then(|folder| folder.sync_all()).map_err(unusable)
}

fn builder(folder: &Path) -> fjall::DatabaseBuilder<Database> {
    // One worker flushes and compacts: the history is written in order, so there is little to do,
    // and the machine's cores are for signatures.
    Database::builder(folder).worker_threads(1)
}

fn open_database(path: &Path, whole: &Path) -> Result<Database, StoreError> {
    let damaged = |what: String| StoreError::Damaged { path: path.into(), what };
    // fjall believes the lengths in its journal, and panics on some that cannot be.
    let opened = catch_unwind(AssertUnwindSafe(|| builder(whole).open()))
        .map_err(|_| damaged("its journal cannot be read".to_owned()))?;
    opened.map_err(|error| match error {
        fjall::Error::Locked => StoreError::InUse { path: path.into() },
        fjall::Error::Io(error) if !is_damage(error.kind()) => {
            StoreError::Unusable { path: path.into(), reason: error.to_string() }
        }
        other => damaged(plain(&other)),
    })
}

/// Whether the bytes are at fault and not the way to them.
fn is_damage(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn open_keyspace(path: &Path, database: &Database, name: &str) -> Result<Keyspace, StoreError> {
    // A keyspace that is gone must not come back empty: the replica would break its word.
    if !database.keyspace_exists(name) {
        let what = format!("its {name} is missing");
        return Err(StoreError::Damaged { path: path.into(), what });
    }
    let opened = database.keyspace(name, KeyspaceCreateOptions::default);
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
