//! The disk: what must survive a crash, in one fjall database. The only file that names fjall.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `history` | era and slot | the slot's hash and entry |
//! | `meta` | a name | format, genesis, replica, group; view entered, votes cast, era, state head, lock, stable checkpoint |
//! | `aside` | hash | a slot of another history |
//! | `orphans` | digest of the request | a request that waits to be in the history again |
//! | `state` | checkpoint and part | a piece of the state that the history begins with, or of one on its way |
//! | `evidence` | digest of the proof | a proof |
//!
//! Numbers in keys are big-endian, so that their order is that of the numbers. The history begins
//! with slot 1, or with the one after the *base*, the slot of the stored state. When a state takes
//! the place of another history, which may be longer, a new *era* begins, named by that state's
//! slot. So with another state in place the old slots are out of sight at once, however many there
//! are, and are [swept](Store::sweep) a few at a time.
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
//! A store is built in a folder of its own and renamed when whole, so that a crash during the very
//! first start leaves nothing that a second start would trip over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use elea_protocol::codec::{self, Canonical, Sink};
use elea_protocol::id::{Digest, ReplicaId, Slot};
use elea_protocol::message::{Position, SlotEntry, Standing, StatePart};
use elea_protocol::replica::{Adopted, Aside, Ground, Record, Recovered, StateHead, StoredState};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
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

/// So many slots of an old history are removed at a time.
const SWEPT: usize = 4096;

/// The file that names the last group synced.
const WITNESS: &str = "synced";

const META_FORMAT: &[u8] = b"format";
const META_GENESIS: &[u8] = b"genesis";
const META_REPLICA: &[u8] = b"replica";
const META_LOCK: &[u8] = b"lock";
const META_STABLE: &[u8] = b"stable";
const META_ENTERED: &[u8] = b"entered";
const META_STATE: &[u8] = b"state";
const META_ERA: &[u8] = b"era";
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
    /// The checkpoint of the state that the history begins with.
    ground: Option<Position>,
    /// Where the history began when a state last took the place of another history. It is a part
    /// of the keys of slots, so that those of a history that is gone are told from the present ones.
    era: Slot,
    /// The highest slot stored, or the base where there is none.
    highest: Slot,
    /// The slots aside. Hardly ever any, so that a copy costs nothing.
    aside: BTreeSet<Digest>,
    /// The checkpoint of the state on its way here.
    incoming: Option<Position>,
}

impl Index {
    fn base(&self) -> Slot {
        self.ground.map_or(Slot::GENESIS, |at| at.slot)
    }
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

fn slot_key(base: Slot, slot: Slot) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&base.0.to_be_bytes());
    key[8..].copy_from_slice(&slot.0.to_be_bytes());
    key
}

fn slots_of_key(key: &[u8]) -> Option<(Slot, Slot)> {
    let (base, slot) = key.split_first_chunk()?;
    let slot = slot.try_into().ok()?;
    Some((Slot(u64::from_be_bytes(*base)), Slot(u64::from_be_bytes(slot))))
}

/// With what the keys of a state's pieces begin.
fn state_prefix(at: Position) -> [u8; 40] {
    let mut prefix = [0; 40];
    prefix[..8].copy_from_slice(&at.slot.0.to_be_bytes());
    prefix[8..].copy_from_slice(&at.hash.0);
    prefix
}

fn piece_key(at: Position, part: StatePart) -> [u8; 45] {
    let (tag, index) = match part {
        StatePart::Last => (0, 0),
        StatePart::Sessions(index) => (1, index),
        StatePart::Application(index) => (2, index),
    };
    let mut key = [0; 45];
    key[..40].copy_from_slice(&state_prefix(at));
    key[40] = tag;
    key[41..].copy_from_slice(&u32::to_be_bytes(index));
    key
}

fn piece_of_key(key: &[u8]) -> Option<(Position, StatePart)> {
    let (slot, rest) = key.split_first_chunk()?;
    let (hash, rest) = rest.split_first_chunk::<32>()?;
    let (tag, index) = rest.split_first()?;
    let index = u32::from_be_bytes(index.try_into().ok()?);
    let part = match tag {
        0 if index == 0 => StatePart::Last,
        1 => StatePart::Sessions(index),
        2 => StatePart::Application(index),
        _ => return None,
    };
    Some((Position { slot: Slot(u64::from_be_bytes(*slot)), hash: Digest(*hash) }, part))
}

/// What becomes of one key: a value, or nothing.
type Change = Option<Vec<u8>>;

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
    state: BTreeMap<[u8; 45], Change>,
    evidence: BTreeMap<Digest, Change>,
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
            durability,
            index: Index::default(),
            has_garbage: true,
            swept: Vec::new(),
            group: 0,
            witness,
            _lock: lock,
        };
        store.check_owner(genesis, me)?;
        store.check_memory()?;
        store.index = store.read_index()?;
        store.sweep()?;
        let recovered = store.recovered()?;
        Ok((store, recovered))
    }

    fn check_owner(&self, genesis: &Digest, me: ReplicaId) -> Result<(), StoreError> {
        let missing = |what| move || self.damaged(format!("it does not name its {what}"));
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

    fn read_index(&self) -> Result<Index, StoreError> {
        let head: Option<StateHead> = self.read_meta(META_STATE)?;
        let mut index =
            Index { ground: head.map(|head| head.stable.position()), ..Index::default() };
        index.era = self.read_meta(META_ERA)?.unwrap_or_default();
        index.highest = index.base();
        if let Some(last) = self.history.last_key_value() {
            let key = last.key().map_err(|error| self.damaged(plain(&error)))?;
            match slots_of_key(&key) {
                None => return Err(self.damaged("a slot's key is malformed")),
                // Not swept yet.
                Some((era, slot)) if (era, slot) <= (index.era, index.base()) => {}
                Some((era, slot)) if era == index.era => index.highest = slot,
                Some((era, _)) => {
                    return Err(self.damaged(format!("the state at slot {era} is missing")));
                }
            }
        }
        for guard in self.aside.iter() {
            let key = guard.key().map_err(|error| self.damaged(plain(&error)))?;
            let hash = key[..].try_into().map_err(|_| self.damaged("a hash is malformed"))?;
            index.aside.insert(Digest(hash));
        }
        for guard in self.state.iter() {
            let key = guard.key().map_err(|error| self.damaged(plain(&error)))?;
            let (at, _) = piece_of_key(&key)
                .ok_or_else(|| self.damaged("the key of a piece of a state is malformed"))?;
            if index.ground != Some(at) {
                index.incoming = Some(at);
            }
        }
        Ok(index)
    }

    fn recovered(&self) -> Result<Recovered, StoreError> {
        Ok(Recovered {
            entered: self.read_meta(META_ENTERED)?,
            state: self.stored_state()?,
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

    fn stored_state(&self) -> Result<Option<StoredState>, StoreError> {
        let Some(head) = self.read_meta::<StateHead>(META_STATE)? else { return Ok(None) };
        let mut chunks = Vec::new();
        for guard in self.state.prefix(state_prefix(head.stable.position())) {
            let (key, value) = guard.into_inner().map_err(|error| self.damaged(plain(&error)))?;
            let (_, part) = piece_of_key(&key)
                .ok_or_else(|| self.damaged("the key of a piece of a state is malformed"))?;
            let bytes: Bytes = unseal(STATE, &key, &value).map_err(|what| self.damaged(what))?;
            chunks.push((part, bytes));
        }
        Ok(Some(StoredState { head, chunks }))
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
            if slots_of_key(&key) != Some((era, expected)) {
                return Err(damaged(format!("slot {expected} is missing")));
            }
            expected = expected.next();
            unseal(HISTORY, &key, &value).map_err(damaged)
        })
    }

    fn failed(&self, reason: impl ToString) -> StoreError {
        StoreError::WriteFailed { path: self.path.clone(), reason: reason.to_string() }
    }

    /// Writes a group of records, all or nothing. When it returns they are on disk, or, with
    /// [`Durability::Os`], in the hands of the operating system.
    pub(crate) fn commit(&mut self, records: &[Record]) -> Result<(), StoreError> {
        let mut group = Group::new(self);
        records.iter().try_for_each(|record| group.stage(record))?;
        let number = self.group + 1;
        group.put_meta(META_GROUP, &number)?;
        let Group { store: _, index, history, meta, aside, orphans, state, evidence } = group;
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
        fill(&mut batch, &self.evidence, evidence.into_iter().map(|(Digest(key), to)| (key, to)));
        batch.commit().map_err(|error| self.failed(plain(&error)))?;
        self.has_garbage |= index.ground != self.index.ground;
        self.index = index;
        self.group = number;
        // What only the operating system has may be lost with it, by the operator's choice.
        if self.durability == Durability::Sync {
            self.bear_witness().map_err(|error| self.failed(error))?;
        }
        self.sweep()
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
    fn new(store: &'a Store) -> Self {
        Self {
            store,
            index: store.index.clone(),
            history: BTreeMap::new(),
            meta: BTreeMap::new(),
            aside: BTreeMap::new(),
            orphans: BTreeMap::new(),
            state: BTreeMap::new(),
            evidence: BTreeMap::new(),
        }
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

    fn stage(&mut self, record: &Record) -> Result<(), StoreError> {
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
            Record::Chunk { at, part, bytes } => {
                if self.index.ground != Some(*at) {
                    let before = self.index.incoming.replace(*at);
                    if let Some(before) = before.filter(|before| before != at) {
                        self.drop_state(before)?;
                    }
                }
                let key = piece_key(*at, *part);
                let sealed = self.seal(STATE, &key, bytes)?;
                self.state.insert(key, sealed);
                Ok(())
            }
            Record::Settled(head) => self.settle(head),
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

    /// Makes a state what the history begins with.
    fn begin_with(&mut self, head: &StateHead) -> Result<(), StoreError> {
        let (at, base) = (head.stable.position(), self.index.base());
        if at.slot <= base {
            // What is stable only grows; the slots above one base must not be those of another.
            let what = format!("a state at slot {} is to replace that at slot {base}", at.slot);
            return Err(self.store.damaged(what));
        }
        for old in [self.index.ground.replace(at), self.index.incoming.take()] {
            if let Some(old) = old.filter(|old| *old != at) {
                self.drop_state(old)?;
            }
        }
        self.put_meta(META_STATE, head)
    }

    /// Puts a state in the place of the slots up to it.
    fn settle(&mut self, head: &StateHead) -> Result<(), StoreError> {
        let (slot, highest) = (head.stable.slot(), self.index.highest);
        if slot > highest {
            let what = format!("a state at slot {slot} is of slots that end with {highest}");
            return Err(self.store.damaged(what));
        }
        self.begin_with(head)
    }

    /// Puts a state in the place of the own history.
    fn stand_on(&mut self, head: &StateHead) -> Result<(), StoreError> {
        let at = head.stable.position();
        self.begin_with(head)?;
        // Whatever the group holds so far is of the history that is gone.
        self.history.clear();
        self.index.era = at.slot;
        self.index.highest = at.slot;
        self.put_meta(META_ERA, &at.slot)?;
        self.put_meta(META_STABLE, &head.stable)
    }

    /// Lets go of the pieces of a state.
    fn drop_state(&mut self, at: Position) -> Result<(), StoreError> {
        let prefix = state_prefix(at);
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
        for name in [HISTORY, ASIDE, ORPHANS, STATE, EVIDENCE] {
            open(name).map_err(|error| plain(&error))?;
        }
        let meta = open(META).map_err(|error| plain(&error))?;
        let text = |error: codec::CodecError| error.to_string();
        let rows: [(&[u8], Vec<u8>); 4] = [
            (META_FORMAT, seal(META, META_FORMAT, &FORMAT).map_err(text)?),
            (META_GENESIS, seal(META, META_GENESIS, genesis).map_err(text)?),
            (META_REPLICA, seal(META, META_REPLICA, &me).map_err(text)?),
            // Whether this is the first start is not for the disk to say.
            (META_STANDING, seal(META, META_STANDING, &Standing::New).map_err(text)?),
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
