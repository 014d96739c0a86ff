//! Backups: the state of a stable checkpoint in one file, with what certifies it.
//!
//! A backup is made of what [running replicas give](Download), whom nobody has to trust, or of the folder of a replica that is
//! not running: then the slots above the stored state
//! are executed up to the newest stable checkpoint, as at any start. From a backup begins another
//! cluster, whose genesis digest covers the state; see
//! [`Membership::initial_state`](elea_protocol::membership::Membership::initial_state).
//!
//! The file is, with lengths and numbers of four bytes, little-endian:
//!
//! | part | what |
//! |---|---|
//! | magic | `elea-backup-1` and a newline |
//! | length, text | the cluster file of the cluster it is of, without which nobody could check the certificate |
//! | length, head | the certificate, and the digests that it certifies, in the protocol's encoding |
//! | number | how many chunks follow |
//! | length, chunk | each chunk of the application's state, as replicas send it to each other |
//! | digest | SHA-256 over all before it |
//!
//! The digest at the end tells a damaged file from a whole one. It proves nothing, since whoever
//! changes the file can change it, too; what is believed is what `2f + 1` replicas signed, and each
//! chunk is checked against that. The sessions are not in it: clients begin anew.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::application::{Application, Restore, Snapshot};
use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::codec::{self, FRAME_MAX};
use elea_protocol::edition::Editions;
use elea_protocol::id::{Digest, ReplicaId, Slot};
use elea_protocol::membership::Membership;
use elea_protocol::message::{Position, StateHead};
use elea_protocol::replica::{Replica, Setup, StartError};
use elea_protocol::rows::Row;
use elea_protocol::signature::SecretKey;
use sha2::{Digest as _, Sha256};

use crate::clock::Clock;
use crate::config::Durability;
use crate::store::{Store, StoreError};

/// With what a backup begins. The number is the version of the format.
const MAGIC: &[u8] = b"elea-backup-1\n";

/// No cluster file is longer.
const TEXT_MAX: usize = 1 << 20;

/// Why there is no backup, or why nothing can be restored from one. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// The data folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is in the folder cannot be used as a state.
    #[error(
        "what {data} holds is of no use for a backup ({what}): take the folder of another replica, and start this one, so that the others repair it"
    )]
    Unsound {
        /// The data folder.
        data: PathBuf,
        /// What was found.
        what: String,
    },
    /// No state has been certified yet.
    #[error(
        "there is nothing to back up in {0} yet: no state that it holds has been certified by the replicas; that happens as soon as nothing is written for a moment, so start it again and stop it a second later"
    )]
    Nothing(PathBuf),
    /// The file cannot be written.
    #[error(
        "the backup {path} cannot be written ({reason}): check that there is room, and that this user may write there"
    )]
    Unwritable {
        /// The backup file.
        path: PathBuf,
        /// As the system says.
        reason: String,
    },
    /// There is a file of this name.
    #[error("{0} is there already and is not overwritten: choose another name for the backup")]
    Present(PathBuf),
    /// The file cannot be read.
    #[error("the backup {path} cannot be read ({reason})")]
    Unreadable {
        /// The backup file.
        path: PathBuf,
        /// As the system says.
        reason: String,
    },
    /// The file is not what replicas certified.
    #[error(
        "the backup {path} does not verify ({what}): nothing was restored; use another copy of it"
    )]
    Invalid {
        /// The backup file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// It is to be restored into the cluster that it is of.
    #[error(
        "the backup {0} is of this very cluster, which must not go back to it: make the files of a new cluster with `elea init --from`, and restore into that one"
    )]
    SameCluster(PathBuf),
    /// The new cluster was not made of a backup.
    #[error(
        "the cluster `{0}` does not begin with the state of a backup: make the files of a new cluster with `elea init --from`"
    )]
    BeginsEmpty(String),
    /// The new cluster was made of another backup.
    #[error(
        "the backup {path} holds the state {found}, and the cluster begins with {expected}: restore from the backup that its files were made with"
    )]
    OtherState {
        /// The backup.
        path: PathBuf,
        /// The digest of its state.
        found: Digest,
        /// The one in the cluster file.
        expected: Digest,
    },
}

impl BackupError {
    /// Whether somebody or something has changed the file.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Invalid { .. })
    }
}

/// A backup, all of which was checked.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The cluster that it is of, as the file says. Whose it is must be known from elsewhere: anybody
    /// can make up a cluster and certify what they like with it.
    pub cluster: ClusterFile,
    /// The slot whose state it is, and the hash of the history up to there.
    pub at: Position,
    /// The digest of the application's state.
    pub state: Digest,
    /// In how many chunks.
    pub chunks: u32,
    /// The size of the file.
    pub bytes: u64,
    /// When it is written: the last slot that its replica knew to be final, if that is a later one.
    pub final_beyond: Option<Slot>,
}

/// Writes the newest stable state that the data folder of a stopped replica holds to `out`, where no
/// file must be yet. `application` is an empty one, with the cluster's limits.
///
/// # Errors
/// See [`BackupError`]. Then there is no file.
pub fn write<A: Application>(
    cluster: &ClusterFile,
    application: A,
    data: &Path,
    out: &Path,
) -> Result<Backup, BackupError> {
    let unwritable =
        |error: &io::Error| BackupError::Unwritable { path: out.into(), reason: error.to_string() };
    if out.try_exists().map_err(|error| unwritable(&error))? {
        return Err(BackupError::Present(out.into()));
    }
    let unsound = |what: String| BackupError::Unsound { data: data.into(), what };
    let membership = &cluster.membership;
    let (store, recovered) =
        Store::open_present(data, membership.genesis(), Durability::default())?;
    if recovered.stable.is_none() {
        return Err(BackupError::Nothing(data.into()));
    }
    let setup = Setup {
        id: store.owner(),
        membership: Arc::new(membership.clone()),
        // It says nothing to anybody, so it need not be able to sign.
        signer: Arc::new(SecretKey::from_bytes(&rand::random())),
        tuning: cluster.tuning,
        editions: Editions::with(application.editions()),
        seed: rand::random(),
    };
    let replica =
        Replica::start(setup, application, recovered, store.history(), Clock::start().now());
    let replica = replica.map_err(|error| match error {
        StartError::Unreadable(error) => error.into(),
        other => unsound(other.to_string()),
    })?;
    let Some((head, snapshot)) = replica.stable_state() else {
        return Err(unsound("its state cannot be read".to_owned()));
    };
    let part = beside(out, &format!("{}.part", std::process::id()));
    let finish = || {
        write_part(&part, cluster, &head, snapshot).map_err(|trouble| match trouble {
            Trouble::System(error) => unwritable(&error),
            Trouble::Wrong(what) => unsound(what),
        })?;
        // What is read back is what was certified, or it is no backup.
        let backup = examine(&part, replica.application()).map_err(|error| match error {
            BackupError::Invalid { what, .. } => unsound(what),
            other => other,
        })?;
        put_in_place(&part, out).map_err(|error| unwritable(&error))?;
        let last = replica.lock().map_or(Slot::GENESIS, |lock| lock.body.slot);
        Ok(Backup { final_beyond: (last > backup.at.slot).then_some(last), ..backup })
    };
    finish().inspect_err(|_| {
        // What is left of a failed attempt is of no use; that it cannot be removed changes nothing.
        let _ = fs::remove_file(&part);
    })
}

/// Reads a backup and checks all of it: the digest of the file, the certificate, each chunk.
///
/// # Errors
/// See [`BackupError`].
pub fn examine<A: Application>(path: &Path, application: &A) -> Result<Backup, BackupError> {
    read(path, application, &mut |_| Ok(()))
}

/// Makes the data folder of replica `id` of a cluster that begins with the state of this backup.
///
/// # Errors
/// See [`BackupError`]. Then there is no data in the folder.
pub fn restore<A: Application>(
    from: &Path,
    cluster: &ClusterFile,
    id: ReplicaId,
    application: &A,
    data: &Path,
) -> Result<Backup, BackupError> {
    let membership = &cluster.membership;
    let backup = examine(from, application)?;
    if backup.cluster.membership.genesis() == membership.genesis() {
        return Err(BackupError::SameCluster(from.into()));
    }
    let Some(expected) = membership.initial_state().copied() else {
        return Err(BackupError::BeginsEmpty(membership.name().to_owned()));
    };
    let path = || from.to_path_buf();
    if backup.state != expected {
        return Err(BackupError::OtherState { path: path(), found: backup.state, expected });
    }
    Store::found(data, membership.genesis(), id, |keep| {
        // It is checked a second time: between the two it may have been exchanged.
        match read(from, application, keep)?.state == expected {
            true => Ok(()),
            false => Err(BackupError::Invalid {
                path: path(),
                what: "it was changed while it was read".to_owned(),
            }),
        }
    })?;
    Ok(backup)
}

/// The file beside another one, with this behind its name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{ending}"));
    path.with_file_name(name)
}

/// Gives a whole file its name, for good.
fn put_in_place(part: &Path, out: &Path) -> io::Result<()> {
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    fs::rename(part, out)?;
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// What goes wrong with a file.
enum Trouble {
    System(io::Error),
    Wrong(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Writes, and computes the digest of what was written.
struct Digesting<W> {
    to: W,
    hash: Sha256,
}

impl<W: Write> Digesting<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.to.write_all(bytes)
    }

    fn put_number(&mut self, number: u32) -> io::Result<()> {
        self.put(&number.to_le_bytes())
    }

    fn put_part(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        let length = u32::try_from(bytes.len());
        self.put_number(length.map_err(|_| Trouble::Wrong("a part is too large".to_owned()))?)?;
        Ok(self.put(bytes)?)
    }
}

fn write_part<S: Snapshot>(
    path: &Path,
    cluster: &ClusterFile,
    head: &StateHead,
    snapshot: &S,
) -> Result<(), Trouble> {
    let wrong = |what: &str| Trouble::Wrong(what.to_owned());
    // It holds all keys and values.
    let private = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let to = BufWriter::new(private);
    let mut file = Digesting { to, hash: Sha256::new() };
    file.put(MAGIC)?;
    file.put_part(cluster.to_text().as_bytes())?;
    file.put_part(&codec::encode(head).map_err(|error| Trouble::Wrong(error.to_string()))?)?;
    let chunks = snapshot.chunks();
    file.put_number(chunks)?;
    for index in 0..chunks {
        let chunk = snapshot.chunk(index).ok_or_else(|| wrong("a part of it cannot be read"))?;
        file.put_part(&chunk)?;
    }
    let Digesting { mut to, hash } = file;
    to.write_all(&hash.finalize())?;
    Ok(to.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?)
}

/// Reads, and computes the digest of what was read.
struct Checking<R> {
    from: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> Checking<R> {
    /// Exactly so many bytes. Memory grows with what is there, not with what is asked for.
    fn take(&mut self, length: usize) -> Result<Vec<u8>, Trouble> {
        let mut bytes = Vec::new();
        self.from.by_ref().take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() < length {
            return Err(Trouble::Wrong("it is cut short".to_owned()));
        }
        self.hash.update(&bytes);
        self.bytes += length as u64;
        Ok(bytes)
    }

    fn take_number(&mut self) -> Result<u32, Trouble> {
        let bytes = self.take(size_of::<u32>())?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn take_part(&mut self, most: usize) -> Result<Vec<u8>, Trouble> {
        let length = self.take_number()?;
        match usize::try_from(length).ok().filter(|length| *length <= most) {
            Some(length) => self.take(length),
            None => Err(Trouble::Wrong(format!("a part of it has {length} bytes"))),
        }
    }
}

/// Reads and checks a backup, and hands over the rows of its state.
fn read<A: Application>(
    path: &Path,
    application: &A,
    keep: &mut dyn FnMut(Vec<Row>) -> Result<(), StoreError>,
) -> Result<Backup, BackupError> {
    let from = File::open(path).map_err(|error| BackupError::Unreadable {
        path: path.into(),
        reason: error.to_string(),
    })?;
    read_from(BufReader::new(from), path, application, keep)
}

/// [`read`] of a file that is open.
fn read_from<A: Application>(
    from: impl Read,
    path: &Path,
    application: &A,
    keep: &mut dyn FnMut(Vec<Row>) -> Result<(), StoreError>,
) -> Result<Backup, BackupError> {
    let told = |trouble| match trouble {
        Trouble::System(error) => {
            BackupError::Unreadable { path: path.into(), reason: error.to_string() }
        }
        Trouble::Wrong(what) => BackupError::Invalid { path: path.into(), what },
    };
    let wrong = |what: &str| told(Trouble::Wrong(what.to_owned()));
    let mut file = Checking { from, hash: Sha256::new(), bytes: 0 };
    if file.take(MAGIC.len()).ok().as_deref() != Some(MAGIC) {
        return Err(wrong("it does not begin as one: is it what `elea backup` wrote, unchanged?"));
    }
    let text = file.take_part(TEXT_MAX).map_err(told)?;
    let text = String::from_utf8(text).map_err(|_| wrong("its cluster file is no text"))?;
    let cluster = ClusterFile::parse(&text)
        .map_err(|bad| wrong(&format!("its cluster file is malformed, {bad}")))?;
    let head = file.take_part(FRAME_MAX).map_err(told)?;
    let head: StateHead = codec::decode(&head)
        .map_err(|error| wrong(&format!("its certificate is malformed: {error}")))?;
    let StateHead { stable, digests } = check_head(&cluster.membership, head)
        .map_err(|what| wrong(&format!("its certificate: {what}")))?;
    let chunks = file.take_number().map_err(told)?;
    let mut restore = application.restore(digests.application);
    for index in 0..chunks {
        let chunk = Bytes::from(file.take_part(FRAME_MAX).map_err(told)?);
        restore
            .accept(index, &chunk)
            .map_err(|_| wrong(&format!("chunk {index} is not of the certified state")))?;
        keep(restore.rows(index, &chunk))?;
    }
    if let Some(index) = restore.missing() {
        return Err(wrong(&format!("chunk {index} is missing")));
    }
    keep(restore.rest())?;
    let expected = std::mem::take(&mut file.hash).finalize();
    if file.take(expected.len()).map_err(told)? != expected.as_slice() {
        return Err(wrong("the digest at its end is not that of what stands before it"));
    }
    let bytes = file.bytes;
    if file.take(1).is_ok() {
        return Err(wrong("something follows its end"));
    }
    let (at, state) = (stable.position(), digests.application);
    Ok(Backup { cluster, at, state, chunks, bytes, final_beyond: None })
}

/// The head, if a strong quorum of these replicas signed it.
fn check_head(membership: &Membership, head: StateHead) -> Result<StateHead, String> {
    let opened = membership.open_state_head(head).map_err(|error| error.to_string())?;
    Ok(opened.into_inner())
}

mod download;

pub use self::download::{Download, Taken};

#[cfg(test)]
mod tests;
