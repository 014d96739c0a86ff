//! Making a store, and opening what is there.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use elea_protocol::codec;
use elea_protocol::id::{Digest, ReplicaId};
use elea_protocol::message::Standing;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use xxhash_rust::xxh3::xxh3_128;

use super::StoreError;
use super::error::{io_error, is_shortage};
use super::journals::Journals;
use super::layout::{
    ASIDE, EVIDENCE, FORMAT, HISTORY, META, META_FORMAT, META_GENESIS, META_INITIAL, META_REPLICA,
    META_STANDING, ORPHANS, STATE, seal, spread, unseal,
};
use super::note::Note;
use crate::descriptors::tables_kept_open;

/// What is written to a keyspace before it goes to a file, in bytes, at least: see [`spread`]. fjall's
/// default is 64 MiB, which every keyspace that is written to would take in memory in time.
const MEMTABLE_BYTES: u64 = 2 << 20;

/// The same for those that nearly all that is written goes to: `meta`, of which each version that is overwritten
/// counts, and slots.
const META_MEMTABLE_BYTES: u64 = 8 << 20;
const HISTORY_MEMTABLE_BYTES: u64 = 16 << 20;

/// Blocks of files kept in memory, in bytes, over all keyspaces.
const CACHE_BYTES: u64 = 32 << 20;

/// The journals that are on disk because something in them is not in a file yet, in bytes. fjall takes
/// no less. A start reads them.
const JOURNALS_BYTES: u64 = 64 << 20;

/// Whether the format is one that can be read.
pub(super) fn check_format(path: &Path, meta: &Keyspace) -> Result<(), StoreError> {
    let damaged = |what: String| StoreError::Damaged { path: path.into(), what };
    let stored = meta.get(META_FORMAT).map_err(|error| unreadable(path, &error))?;
    let stored = stored.ok_or_else(|| damaged("it does not name its format".to_owned()))?;
    match unseal::<u32>(META, META_FORMAT, &stored).map_err(damaged)? {
        FORMAT => Ok(()),
        found if found > FORMAT => Err(StoreError::NewerFormat { path: path.into(), found }),
        found => Err(StoreError::OlderFormat { path: path.into(), found }),
    }
}

pub(super) fn unusable(path: &Path, error: &io::Error) -> StoreError {
    if is_shortage(error) {
        return StoreError::Exhausted { path: path.into(), reason: error.to_string() };
    }
    StoreError::Unusable { path: path.into(), reason: error.to_string() }
}

/// Makes the folder, closes it to all but its owner, and takes its lock.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    fs::create_dir_all(path).map_err(|error| unusable(path, &error))?;
    let lock = File::create(path.join("lock")).map_err(|error| unusable(path, &error))?;
    match lock.try_lock() {
        Ok(()) => {
            close_off(path);
            Ok(lock)
        }
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.into() }),
        Err(TryLockError::Error(error)) => Err(unusable(path, &error)),
    }
}

/// Takes away everybody else's access to a folder and what is in it: it holds all keys and values. What
/// the store makes later is in here, and cannot be got at, whatever the mask of the process.
///
/// A volume may belong to somebody else, who decides about it; that is no reason not to start.
fn close_off(path: &Path) {
    if let Err(error) = close_below(path, true) {
        tracing::warn!(path = %path.display(), %error, "the data folder cannot be closed to others");
    }
}

fn close_below(path: &Path, is_folder: bool) -> io::Result<()> {
    let mode = if is_folder { 0o700 } else { 0o600 };
    let closed = match fs::metadata(path)?.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => fs::set_permissions(path, Permissions::from_mode(mode)),
    };
    let below = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        let kind = entry.file_type()?;
        match kind.is_dir() || kind.is_file() {
            true => close_below(&entry.path(), kind.is_dir()),
            false => Ok(()),
        }
    };
    // One that cannot be closed keeps none of the others from it.
    let all: Vec<io::Result<()>> =
        if is_folder { fs::read_dir(path)?.map(below).collect() } else { Vec::new() };
    all.into_iter().fold(closed, |before, next| before.and(next))
}

/// Builds a store next to where it belongs, and moves it there when it is on disk. It is empty but
/// for what `fill` puts into it: the rows of an initial state, of the generation that it answers.
pub(super) fn create<E: From<StoreError>>(
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
    let failed = |error: fjall::Error| match io_error(&error) {
        Some(error) => unusable(path, error),
        None => bad(plain(&error)),
    };
    let database = builder(half).open().map_err(failed)?;
    let initial = fill(&database)?;
    let found = || -> Result<(), String> {
        let open = |name| database.keyspace(name, || options(name, me));
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

pub(super) fn builder(folder: &Path) -> fjall::DatabaseBuilder<Database> {
    // Of two workers one puts flushing before compacting, so that a long compaction does not leave
    // memtables in memory, of which there may be four of a keyspace before writes have to wait. No more
    // of them: the machine's cores are for signatures.
    Database::builder(folder)
        .worker_threads(2)
        .cache_size(CACHE_BYTES)
        .max_journaling_size(JOURNALS_BYTES)
        // By default it keeps nearly as many open as a process may have, and clients need some.
        .max_cached_files(Some(tables_kept_open()))
}

/// Of a keyspace of the protocol's own. They are stored with it when it is made.
fn options(name: &str, me: ReplicaId) -> KeyspaceCreateOptions {
    let least = match name {
        HISTORY => HISTORY_MEMTABLE_BYTES,
        META => META_MEMTABLE_BYTES,
        _ => MEMTABLE_BYTES,
    };
    KeyspaceCreateOptions::default().max_memtable_size(spread(least, me))
}

pub(super) fn open_database(path: &Path, whole: &Path) -> Result<Database, StoreError> {
    let damaged = |what: String| StoreError::Damaged { path: path.into(), what };
    let checked = check_manifests(whole).map_err(|error| unusable(path, &error))?;
    checked.map_err(damaged)?;
    let cut_off = |journal| damaged(format!("the journal {journal} is not what was written"));
    let journals = Journals::note(path, whole).map_err(|error| unusable(path, &error))?;
    let journals = journals.map_err(cut_off)?;
    // fjall believes the lengths in its journal, and panics on some that cannot be.
    let opened = catch_unwind(AssertUnwindSafe(|| builder(whole).open()))
        .map_err(|_| damaged("its journal cannot be read".to_owned()))?;
    let database = opened.map_err(|error| match error {
        fjall::Error::Locked => StoreError::InUse { path: path.into() },
        other => unreadable(path, &other),
    })?;
    match journals.compare().map_err(|error| unusable(path, &error))? {
        None => Ok(database),
        Some(journal) => Err(cut_off(journal)),
    }
}

/// The file of fjall's that names the manifest of a keyspace, and has the checksum of that.
const CURRENT: &str = "current";

/// Whether the manifests of all keyspaces are what was written. fjall has their checksums and does not
/// look at them, but believes what it reads, and a panic while it opens a keyspace cannot be caught: it
/// holds a lock then that it needs to clean up.
fn check_manifests(whole: &Path) -> io::Result<Result<(), String>> {
    let folders = match fs::read_dir(whole.join("keyspaces")) {
        Ok(folders) => folders,
        // fjall says what it lacks.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(())),
        Err(error) => return Err(error),
    };
    for folder in folders {
        let folder = folder?.path();
        let current = match fs::read(folder.join(CURRENT)) {
            Ok(current) => current,
            // One that was being made when the power went.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if !is_manifest_sound(&folder, &current)? {
            let what = format!("the manifest in {} is not what was written", folder.display());
            return Ok(Err(what));
        }
    }
    Ok(Ok(()))
}

/// `current` is a number, the checksum of the file with that number, and the kind of checksum, of which
/// there is one.
fn is_manifest_sound(folder: &Path, current: &[u8]) -> io::Result<bool> {
    let Some((number, rest)) = current.split_first_chunk() else { return Ok(false) };
    let Some((sum, [0])) = rest.split_first_chunk() else { return Ok(false) };
    match fs::read(folder.join(format!("v{}", u64::from_le_bytes(*number)))) {
        Ok(manifest) => Ok(xxh3_128(&manifest) == u128::from_le_bytes(*sum)),
        Err(error) if is_damage(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens the database without the rows that keep it from being opened.
pub(super) fn open_without_rows(
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

/// Why something in the store cannot be read: the bytes are at fault, or only the way to them.
pub(super) fn unreadable(path: &Path, error: &fjall::Error) -> StoreError {
    match io_error(error) {
        Some(error) if !is_damage(error) => unusable(path, error),
        _ => StoreError::Damaged { path: path.into(), what: plain(error) },
    }
}

/// Why something could not be written to the store.
pub(super) fn unwritten(path: &Path, error: &fjall::Error) -> StoreError {
    match (io_error(error), error) {
        (Some(error), _) if is_shortage(error) => unusable(path, error),
        (None, fjall::Error::Poisoned) => StoreError::Interrupted { path: path.into() },
        _ => StoreError::WriteFailed { path: path.into(), reason: plain(error) },
    }
}

/// Whether the bytes are at fault and not the way to them: permissions, say, or too many open files.
pub(super) fn is_damage(error: &io::Error) -> bool {
    // The input that is invalid is a place in a file, which was read from it.
    use io::ErrorKind::{InvalidData, InvalidInput, NotFound, UnexpectedEof};
    let is_of_device = error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    is_of_device || matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof | NotFound)
}

pub(super) fn open_keyspace(
    path: &Path,
    database: &Database,
    name: &str,
) -> Result<Keyspace, StoreError> {
    // A keyspace that is gone must not come back empty: the replica would break its word.
    if !database.keyspace_exists(name) {
        let what = format!("its {name} is missing");
        return Err(StoreError::Damaged { path: path.into(), what });
    }
    // It has the options that it was made with.
    let opened = database.keyspace(name, KeyspaceCreateOptions::default);
    opened.map_err(|error| unreadable(path, &error))
}

/// fjall's errors without the frame of Rust's debug output, where there is a plain sentence.
pub(super) fn plain(error: &fjall::Error) -> String {
    match error {
        fjall::Error::Io(error) => error.to_string(),
        fjall::Error::Poisoned => "an earlier write failed".to_owned(),
        other => other.to_string(),
    }
}
