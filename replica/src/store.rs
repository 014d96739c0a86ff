//! The disk: what must survive a crash. This file and those below it are the only ones that name fjall.
//!
//! A group of records is written to the [log], with one sync, and is durable then. From there it goes into the
//! [tables], in one fjall database, when these can take it:
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
//! swept a few at a time. The state itself has a *generation*: one that is fetched
//! has a new one, and lies beside the one in place until it takes its place as a whole.
//!
//! What a group comes to is worked out before it is written ([`group`]): what becomes of which key. So the log holds
//! what can be done to the tables any number of times, and a group that would leave a hole is not written at all.
//! In the tables one or more groups are one atomic batch, so a crash leaves all of it or nothing, and the number of
//! the last group is in `meta`. A start takes what is in the log and not in the tables. Each value
//! carries a checksum over its keyspace, key and bytes: a value that changed, or that stands in
//! another's place, is found when it is read.
//!
//! fjall takes a damaged frame in its journal for the torn end of a write, and drops it with all that
//! follows, in silence. A replica must not forget in silence: it would break its word. So groups are numbered:
//! tables that know less than the log begins with are damaged, and a log that ends before the last group that was
//! synced is. Of [journals] before the last one it is noted how far they go.
//!
//! The store of a cluster that begins with a state is [founded](Store::found) with the rows of that
//! one, as generation 1 at slot 0. Nobody has certified it: the genesis digest covers it.
//!
//! The rows of a state are the one thing in here that others can give back. Where they turn out to
//! be damaged, the store is opened without them, which a [note](note::Note) beside the database
//! makes possible, and the replica has them repaired. Any other damage is the end of the store.
//!
//! A database is built in a folder of its own and renamed when whole, so that a crash during the very
//! first start leaves nothing that a second start would trip over.

mod applier;
mod error;
mod files;
mod group;
mod journals;
mod layout;
mod log;
mod note;
mod opening;
mod rows;
mod tables;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use elea_protocol::id::{Digest, ReplicaId};
use elea_protocol::message::SlotEntry;
use elea_protocol::replica::{Record, Recovered};
use elea_protocol::rows::{Row, RowsView};
use fjall::PersistMode;
use rustix::fs::{StatVfs, statvfs};

pub(crate) use self::applier::{Applier, ToTables};
pub use self::error::StoreError;
pub(crate) use self::files::{Damage, Files, Looked};
use self::group::{Group, Index, Settling};
use self::layout::{META_GROUP, Redo};
use self::log::Log;
use self::opening::{create, lock, unusable, unwritten};
use self::tables::Tables;
use crate::config::Durability;

/// The generation of the state that a cluster begins with.
const FIRST_GENERATION: u64 = 1;

/// How many more files the disk must have room for: more than what comes next may make.
const FILES_RESERVE: u64 = 256;

/// The open store. Whoever has it is the only writer.
pub struct Store {
    // Closed before the lock in the other part is let go.
    tables: Tables,
    writer: Writer,
}

/// The part that groups of records are written through.
pub(crate) struct Writer {
    path: PathBuf,
    log: Log,
    index: Index,
    /// What the next settled state changes, as far as it was told.
    settling: Option<Settling>,
    /// Generations whose rows were damaged and are given up.
    given_up: BTreeSet<u64>,
    files: Files,
    /// How much room has to be left on the disk, in bytes.
    reserve: u64,
    /// Held as long as the store is open; the system lets go of it when the process dies.
    _lock: Arc<File>,
}

/// A group that is in the log and not in the tables yet.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    number: u64,
    redo: Redo,
    /// Records, by their places in the group, with the generations whose rows they complete.
    completed: Vec<(usize, u64)>,
}

impl Writer {
    /// Writes a group of records, all or nothing. When it returns they are on disk, or, with
    /// [`Durability::Os`], in the hands of the operating system. `None` where there was nothing to write.
    pub(crate) fn write(&mut self, records: &[Record]) -> Result<Option<Staged>, StoreError> {
        let (index, settling) = (self.index.clone(), self.settling.take());
        let mut group = Group::new(&self.path, &self.given_up, index, settling);
        for (place, record) in records.iter().enumerate() {
            group.stage(place, record)?;
        }
        let before = self.index.present();
        if group.redo.is_empty() && group.completed.is_empty() && group.index.present() == before {
            self.settling = group.settling;
            return Ok(None);
        }
        group.put_meta(META_GROUP, &(self.log.group + 1))?;
        let Group { index, mut redo, settling, completed, .. } = group;
        redo.present = index.present();
        let number = self.log.append(&redo)?;
        (self.index, self.settling) = (index, settling);
        Ok(Some(Staged { number, redo, completed }))
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
}

impl Store {
    /// Opens the store of replica `me` in the folder `path`, and makes it on the first start.
    ///
    /// # Errors
    /// It is another one's, is open elsewhere, is damaged, or cannot be read or written.
    pub fn open(
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
        self.tables.owner
    }

    fn open_locked(
        path: &Path,
        lock: File,
        genesis: &Digest,
        me: Option<ReplicaId>,
        durability: Durability,
    ) -> Result<(Self, Recovered), StoreError> {
        let mut tables = Tables::open(path, genesis, me)?;
        let (group, owner) = (tables.group()?, tables.owner);
        // A killed process may have left some of it to the system, and from here on the log need not have it.
        tables.sync()?;
        let mut gathered = Redo::default();
        let log = Log::open(path, (genesis, owner), durability, group, |redo, is_last| {
            gathered.merge(redo);
            if is_last || gathered.weight >= applier::GATHER_BYTES {
                tables.take(std::mem::take(&mut gathered), [])?;
            }
            Ok(())
        })?;
        let read = tables.read_index(genesis).and_then(|index| Ok((index, tables.recovered()?)));
        let (index, recovered) = read.map_err(|error| tables.blame(error))?;
        let writer = Writer {
            path: path.into(),
            log,
            index,
            settling: None,
            given_up: tables.note.damaged.clone(),
            files: tables.files.clone(),
            reserve: 0,
            _lock: Arc::new(lock),
        };
        Ok((Self { tables, writer }, recovered))
    }

    /// What is known of its files.
    pub(crate) fn files(&self) -> Files {
        self.tables.files.clone()
    }

    /// Keeps this much of the disk free: before less is left, it says that there is no room.
    pub(crate) fn keep_free(&mut self, bytes: u64) {
        self.writer.reserve = bytes;
    }

    /// All stored slots in order, without a hole: from the one after the stored state on, or from
    /// slot 1.
    pub(crate) fn history(
        &self,
    ) -> impl Iterator<Item = Result<(Digest, SlotEntry), StoreError>> + use<> {
        self.tables.history()
    }

    /// Writes a group of records, all or nothing, and takes it into the tables at once. Answers the rows of
    /// states that records of the group complete, by the places of those records in the group.
    ///
    /// # Errors
    /// The group cannot be written, or does not follow from what was written before: the store is not to be used further.
    pub fn commit(&mut self, records: &[Record]) -> Result<Vec<(usize, RowsView)>, StoreError> {
        let Some(Staged { number, redo, completed }) = self.writer.write(records)? else {
            return Ok(Vec::new());
        };
        let views = self.tables.take(redo, completed.iter().map(|(_, of)| *of))?;
        self.writer.log.taken.set(number);
        let rows = completed.into_iter();
        Ok(rows.filter_map(|(place, of)| Some((place, views.get(&of)?.clone()))).collect())
    }

    /// Parts that work on their own: what writes the log, and what takes it into the tables.
    pub(crate) fn into_parts(self) -> (Writer, ToTables, Applier) {
        let Self { tables, writer } = self;
        let lock = Arc::clone(&writer._lock);
        let (to, applier) = applier::applier(tables, Arc::clone(&writer.log.taken), lock);
        (writer, to, applier)
    }
}

#[cfg(test)]
mod tests;
