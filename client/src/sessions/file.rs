//! A [`Book`] shared by the processes of one host.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use elea_protocol::id::{Digest, RequestNumber, SessionId, WallTime};
use serde::{Deserialize, Serialize};

use super::book::{Book, Leased, Parting};

/// The state file `<key>.sessions`, its lock `<key>.sessions.lock`, and one small file for each
/// session in use, `<key>.sessions.<id>`, which its holder keeps locked.
#[derive(Debug)]
pub struct SessionFile {
    state: PathBuf,
    genesis: Digest,
}

/// What is wrong with the files beside a key.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// They cannot be read or written.
    #[error("the session file {}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The key was used with another cluster.
    #[error(
        "the session file {} is of another cluster: use one key for each cluster, or another copy \
         of the key file",
        .0.display()
    )]
    OtherCluster(PathBuf),
    /// A new key's file was to be made where there is one.
    #[error("the session file {} exists already", .0.display())]
    Exists(PathBuf),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    boot: String,
    book: Book,
}

const VERSION: u32 = 1;

/// Told apart from the next run of the host by this. Where nothing can tell, every write is forced
/// to disk instead.
fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

impl SessionFile {
    fn at(key: &Path, genesis: &Digest) -> Self {
        Self { state: beside(key, "sessions"), genesis: *genesis }
    }

    /// Makes the state file of a key that was never used, in whatever place.
    ///
    /// # Errors
    /// There is one already, or it cannot be written.
    pub fn create(key: &Path, genesis: &Digest) -> Result<Self, SessionError> {
        let file = Self::at(key, genesis);
        let _lock = file.lock()?;
        if file.state.exists() {
            return Err(SessionError::Exists(file.state.clone()));
        }
        file.write(&Book::fresh(genesis))?;
        Ok(file)
    }

    /// Uses the state file beside a key. One that is missing or damaged counts as lost; see
    /// [`sessions`](super).
    ///
    /// # Errors
    /// It belongs to another cluster, or the folder cannot be written.
    pub fn open(key: &Path, genesis: &Digest) -> Result<Self, SessionError> {
        let file = Self::at(key, genesis);
        file.with(|_| ())?;
        Ok(file)
    }

    /// How many sessions the cluster may know of this key.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn live(&self) -> Result<usize, SessionError> {
        self.with(|book| book.live())
    }

    /// Whether the file was lost once and older sessions may be unknown.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn is_pinned(&self) -> Result<bool, SessionError> {
        self.with(|book| book.is_pinned())
    }

    /// An operator's word that whatever was acknowledged with this key before its file was lost is
    /// final by now, or may be dropped.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn unpin(&self) -> Result<(), SessionError> {
        self.with(Book::unpin)
    }

    /// A number that all who share this file have in common, on one host and until it boots again, and
    /// that nobody else has: that of the lock file, which is never replaced.
    pub(super) fn instance(&self) -> Result<u64, SessionError> {
        let lock = self.lock()?;
        let path = beside(&self.state, "lock");
        let metadata = lock.metadata().map_err(|error| at(&path, error))?;
        let boot = boot().unwrap_or_default();
        let numbers = [metadata.dev().to_le_bytes(), metadata.ino().to_le_bytes()];
        // FNV-1a: it is to tell apart, not to withstand anybody.
        let bytes = boot.bytes().chain(numbers.into_iter().flatten());
        Ok(bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }

    /// Does `change` to the book, under the lock, and writes it if it changed.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Book) -> T) -> Result<T, SessionError> {
        let _lock = self.lock()?;
        let (mut book, stored) = self.read()?;
        self.reap(&mut book)?;
        let result = change(&mut book);
        if stored.as_ref() != Some(&book) {
            self.write(&book)?;
        }
        Ok(result)
    }

    pub(super) fn lease(
        self: &Arc<Self>,
        now: WallTime,
        random: u16,
    ) -> Result<(Leased, FileLease), SessionError> {
        let _lock = self.lock()?;
        let (mut book, _) = self.read()?;
        self.reap(&mut book)?;
        let leased = book.lease(now, random);
        let path = self.lease_path(leased.session);
        // Locked before the book says "leased": whoever reads that finds the lock held.
        let held = self.held(&path, true)?;
        let Some(held) = held else {
            let error = io::Error::other("locked by somebody who was not given the session");
            return Err(SessionError::Io { path, error });
        };
        self.write(&book)?;
        let mut lease = FileLease { file: Arc::clone(self), session: leased.session, held, path };
        lease.note_acknowledged(RequestNumber(0))?;
        Ok((leased, lease))
    }

    /// Notices holders that were killed.
    fn reap(&self, book: &mut Book) -> Result<(), SessionError> {
        let leased: Vec<_> = book.leased().collect();
        for session in leased {
            let path = self.lease_path(session);
            let Some(mut held) = self.held(&path, true)? else { continue };
            let mut text = String::new();
            held.read_to_string(&mut text).map_err(|error| at(&path, error))?;
            // Damaged words cannot be told from large ones, so all of them may be acknowledged;
            // an empty file was never written to.
            let acknowledged = match text.trim() {
                "" => 0,
                number => number.parse().unwrap_or(u64::MAX),
            };
            book.holder_died(session, RequestNumber(acknowledged));
            let _ = fs::remove_file(&path);
        }
        Ok(())
    }

    /// Opens and locks a lease file; `None` where its holder lives.
    fn held(&self, path: &Path, create: bool) -> Result<Option<File>, SessionError> {
        let file = options().create(create).open(path).map_err(|error| at(path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(at(path, error)),
        }
    }

    fn lease_path(&self, session: SessionId) -> PathBuf {
        beside(&self.state, &format!("{:016x}", session.0))
    }

    fn lock(&self) -> Result<File, SessionError> {
        let path = beside(&self.state, "lock");
        let file = options().open(&path).map_err(|error| at(&path, error))?;
        file.lock().map_err(|error| at(&path, error))?;
        Ok(file)
    }

    /// The book, and what of it is on disk as it is.
    fn read(&self) -> Result<(Book, Option<Book>), SessionError> {
        let text = match fs::read(&self.state) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(at(&self.state, error)),
        };
        let stored: Option<Stored> = serde_json::from_slice(&text).ok();
        match stored {
            Some(Stored { book, .. }) if !book.is_of(&self.genesis) => {
                Err(SessionError::OtherCluster(self.state.clone()))
            }
            Some(Stored { version: VERSION, boot: written, book })
                if boot().unwrap_or_default() == written =>
            {
                Ok((book.clone(), Some(book)))
            }
            // The host went down: what was not forced to disk may be missing.
            Some(Stored { version: VERSION, book, .. }) => Ok((book.into_lost(), None)),
            _ => {
                if !text.is_empty() {
                    tracing::warn!(path = %self.state.display(), "the session file is damaged");
                    // Kept to be looked at; that it is lost is no reason to fail.
                    let _ = fs::rename(&self.state, beside(&self.state, "damaged"));
                }
                Ok((Book::lost(&self.genesis), None))
            }
        }
    }

    fn write(&self, book: &Book) -> Result<(), SessionError> {
        let boot = boot();
        let force = boot.is_none();
        let stored =
            Stored { version: VERSION, boot: boot.unwrap_or_default(), book: book.clone() };
        let text = serde_json::to_vec_pretty(&stored)
            .map_err(|error| at(&self.state, io::Error::other(error)))?;
        let temporary = beside(&self.state, "new");
        let _ = fs::remove_file(&temporary);
        let written = options().truncate(true).open(&temporary).and_then(|mut file| {
            file.write_all(&text)?;
            if force { file.sync_all() } else { Ok(()) }
        });
        written
            .and_then(|()| fs::rename(&temporary, &self.state))
            .map_err(|error| at(&self.state, error))
    }
}

/// How these files are opened, and made where they are not there: they are nobody else's business.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

fn at(path: &Path, error: io::Error) -> SessionError {
    SessionError::Io { path: path.to_owned(), error }
}

/// `<path>.<ending>`.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

/// A session in use by this process. Dropped without a word, it counts as its holder's death.
#[derive(Debug)]
pub(super) struct FileLease {
    file: Arc<SessionFile>,
    session: SessionId,
    held: File,
    path: PathBuf,
}

impl FileLease {
    #[cfg(test)]
    pub fn file(&self) -> Arc<SessionFile> {
        Arc::clone(&self.file)
    }

    /// See [`Lease::note_acknowledged`](super::Lease::note_acknowledged). Twenty digits always, so
    /// that one write replaces the last.
    pub fn note_acknowledged(&mut self, through: RequestNumber) -> Result<(), SessionError> {
        let text = format!("{:020}\n", through.0);
        self.held
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.held.write_all(text.as_bytes()))
            .map_err(|error| at(&self.path, error))
    }

    pub fn release(self, parting: Parting) -> Result<(), SessionError> {
        let Self { file, session, held, path } = self;
        // The state changes, and the file goes, while the session is still locked: nobody takes
        // its holder for dead in between.
        let _lock = file.lock()?;
        let (mut book, _) = file.read()?;
        book.release(session, parting);
        file.write(&book)?;
        let _ = fs::remove_file(&path);
        drop(held);
        Ok(())
    }
}
