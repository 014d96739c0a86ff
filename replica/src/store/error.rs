//! Why a store cannot be used.

use std::io;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use elea_protocol::id::{Digest, ReplicaId};

use fjall::LsmError;
use rustix::io::Errno;

use super::layout::FORMAT;

/// What passes by itself when others have given something back, or when somebody makes room.
const SHORTAGES: [Errno; 5] =
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOSPC, Errno::DQUOT];

/// The first wait until a shortage may be over; it doubles up to the last.
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LAST_WAIT: Duration = Duration::from_millis(100);

/// Whether the system has nothing left of something that it shares out. That says nothing about what
/// is stored.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    SHORTAGES.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// The failure of the system's that is behind one of fjall's, where there is one.
pub(super) fn io_error(error: &fjall::Error) -> Option<&io::Error> {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => Some(error),
        _ => None,
    }
}

/// Reads until the system is short of nothing that it takes.
///
/// Whoever reads waits, and with it all that would rest on what is read. To give up would be no better:
/// there is nobody who could go on without it, and what is stored is sound.
pub(super) fn patiently<T>(mut read: impl FnMut() -> fjall::Result<T>) -> fjall::Result<T> {
    let mut wait = Shortage::default();
    loop {
        match read() {
            Err(error) if io_error(&error).is_some_and(is_shortage) => wait.wait(&error),
            read => return read,
        }
    }
}

/// A wait for the end of a shortage. It is said once that it began, and once that it is over.
#[derive(Default)]
pub(super) struct Shortage(Option<Duration>);

impl Shortage {
    pub(super) fn wait(&mut self, error: &fjall::Error) {
        if self.0.is_none() {
            tracing::warn!(%error, "the store waits until the system has more descriptors or memory");
        }
        let wait = self.0.unwrap_or(FIRST_WAIT);
        sleep(wait);
        self.0 = Some((wait * 2).min(LAST_WAIT));
    }
}

impl Drop for Shortage {
    fn drop(&mut self) {
        if self.0.is_some() {
            tracing::info!("the store can go on");
        }
    }
}

/// Why the store cannot be used. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be made, read or written.
    #[error(
        "the data folder {path} cannot be used ({reason}): check that it is a folder, that there is room, and that this user may write there"
    )]
    Unusable {
        /// The data folder.
        path: PathBuf,
        /// As the system says.
        reason: String,
    },
    /// Another process has it open.
    #[error(
        "the data folder {path} is in use by another process: stop that one first, or give this replica a folder of its own"
    )]
    InUse {
        /// The data folder.
        path: PathBuf,
    },
    /// It holds no data at all.
    #[error(
        "there is no replica's data in {path}: name the folder that `elea replica` was given with --data"
    )]
    Absent {
        /// The data folder.
        path: PathBuf,
    },
    /// It holds data already.
    #[error(
        "the data folder {path} holds a replica's data already and is not overwritten: name a new folder"
    )]
    Present {
        /// The data folder.
        path: PathBuf,
    },
    /// It holds data of another cluster.
    #[error(
        "the data folder {path} belongs to another cluster (genesis {found}, not {expected}): name this cluster's folder, or an empty one for a new replica"
    )]
    OtherCluster {
        /// The data folder.
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
        /// The data folder.
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
        /// The data folder.
        path: PathBuf,
        /// The format stored.
        found: u32,
    },
    /// An older version wrote it.
    #[error(
        "the data folder {path} was written by an older version (format {found}, this one needs {FORMAT}): start the replica with the version that wrote it, or begin a new cluster with empty folders"
    )]
    OlderFormat {
        /// The data folder.
        path: PathBuf,
        /// The format stored.
        found: u32,
    },
    /// What is stored is not what was written.
    #[error(
        "the store in {path} is damaged ({what}): keep the folder for inspection and replace the replica, since with an older copy it could contradict what it said"
    )]
    Damaged {
        /// The data folder.
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
        /// The data folder.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The system has nothing left of something that it shares out: descriptors, inodes, memory, room.
    /// Nothing on the disk is damaged, and what was answered is safe.
    #[error(
        "the store in {path} cannot go on, since the system is short of something ({reason}): raise the limit, or make room; nothing is damaged"
    )]
    Exhausted {
        /// The data folder.
        path: PathBuf,
        /// As the system says.
        reason: String,
    },
    /// The database writes nothing more, since something failed in it before, and it does not say what.
    #[error(
        "the store in {path} stopped writing after a failure: start the replica again, and check the disk if that does not help"
    )]
    Interrupted {
        /// The data folder.
        path: PathBuf,
    },
    /// Records could not be written. The replica stops, before it says anything that rests on them.
    #[error(
        "the store in {path} could not be written ({reason}): check the disk and its free space, then start the replica again"
    )]
    WriteFailed {
        /// The data folder.
        path: PathBuf,
        /// As the system says.
        reason: String,
    },
}
