//! A [`Book`] shared by the processes of one host.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use elea_protocol::id::{Digest, SessionId};
use serde::{Deserialize, Serialize};

use super::book::{Book, Leased, Parting};

/// The state file, `<key>.sessions` as a rule, its lock `<file>.lock`, and one empty file for each session in
/// use, `<file>.<id>`, which its holder keeps locked.
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
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// The key was used with another cluster.
    #[error(
        "the session file {} is of another cluster: use one key for each cluster, or name another \
         session file",
        .0.display()
    )]
    OtherCluster(PathBuf),
}

impl SessionError {
    /// Whether the place of the files may not be written: one of secrets, say, that is mounted
    /// read-only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Io { error, .. } => matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ),
            Self::OtherCluster(_) => false,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    boot: String,
    book: Book,
}

const VERSION: u32 = 2;

/// Told apart from the next run of the host by this. Where nothing can tell, every write is forced
/// to disk instead.
fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

impl SessionFile {
    /// Uses the state file beside a key.
    ///
    /// ```no_run
    /// # use {elea_client::{Client, Cluster, Options, load_key, sessions::SessionFile}, std::{path::Path, sync::Arc}};
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let (cluster, key) = (Cluster::load("cluster.toml")?, Path::new("client-0.key"));
    /// let sessions = SessionFile::beside(key, cluster.membership.genesis())?;
    /// let options = Options { sessions: Some(Arc::new(sessions)), ..Options::default() };
    /// let client = Client::with_options(&cluster, load_key(key)?, options).await?;
    /// # drop(client);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// It belongs to another cluster, or the folder cannot be written.
    pub fn beside(key: &Path, genesis: &Digest) -> Result<Self, SessionError> {
        Self::at(beside(key, "sessions"), genesis)
    }

    /// Uses a state file in whatever place. One that is missing or damaged begins anew; see
    /// [`sessions`](super).
    ///
    /// ```no_run
    /// # use elea_client::{Cluster, sessions::SessionFile};
    /// # fn example(cluster: &Cluster) -> Result<(), Box<dyn std::error::Error>> {
    /// let sessions = SessionFile::at("/var/lib/app/elea.sessions".into(), cluster.membership.genesis())?;
    /// # drop(sessions);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// It belongs to another cluster, or the folder cannot be written.
    pub fn at(state: PathBuf, genesis: &Digest) -> Result<Self, SessionError> {
        let file = Self { state, genesis: *genesis };
        file.with(|_| ())?;
        Ok(file)
    }

    /// How many sessions are free or in use.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn known(&self) -> Result<usize, SessionError> {
        self.with(|book| book.len())
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
    fn with<T>(&self, change: impl FnOnce(&mut Book) -> T) -> Result<T, SessionError> {
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
        choose: impl FnOnce(&mut Book) -> Option<Leased>,
    ) -> Result<Option<(Leased, FileLease)>, SessionError> {
        let _lock = self.lock()?;
        let (mut book, _) = self.read()?;
        self.reap(&mut book)?;
        let Some(leased) = choose(&mut book) else { return Ok(None) };
        let path = self.lease_path(leased.session);
        // Locked before the book says "leased": whoever reads that finds the lock held.
        let held = self.held(&path)?;
        let Some(held) = held else {
            let error = io::Error::other("locked by somebody who was not given the session");
            return Err(SessionError::Io { path, error });
        };
        self.write(&book)?;
        let session = leased.session;
        Ok(Some((leased, FileLease { file: Arc::clone(self), session, held, path })))
    }

    /// Notices holders that were killed.
    fn reap(&self, book: &mut Book) -> Result<(), SessionError> {
        let leased: Vec<_> = book.leased().collect();
        for session in leased {
            let path = self.lease_path(session);
            let Some(_held) = self.held(&path)? else { continue };
            book.give_up(session);
            let _ = fs::remove_file(&path);
        }
        Ok(())
    }

    /// Opens and locks a lease file; `None` where its holder lives.
    fn held(&self, path: &Path) -> Result<Option<File>, SessionError> {
        let file = options().open(path).map_err(|error| at(path, error))?;
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
            // The host went down, and what was not forced to disk may be missing; or another version
            // wrote it.
            Some(_) => Ok((Book::new(&self.genesis), None)),
            None => {
                if !text.is_empty() {
                    tracing::warn!(path = %self.state.display(), "the session file is damaged");
                    // Kept to be looked at; that it is lost is no reason to fail.
                    let _ = fs::rename(&self.state, beside(&self.state, "damaged"));
                }
                Ok((Book::new(&self.genesis), None))
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
