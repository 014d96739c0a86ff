//! A backup of what running replicas give, piece by piece.
//!
//! Nobody is believed: the head is one that a strong quorum signed, and each piece is checked against it. What came
//! so far lies in a file beside the backup, `NAME.part`, and whoever begins again goes on with it as long as some
//! replica still gives pieces of that state. It is the backup up to where it ends, but for the number of its pieces,
//! which is known at the end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use elea_protocol::application::{Application, Restore};
use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::codec::{self, FRAME_MAX};
use elea_protocol::message::{Position, StateHead};
use sha2::{Digest as _, Sha256};

use super::{
    Backup, BackupError, Checking, Digesting, MAGIC, TEXT_MAX, Trouble, beside, check_head,
    examine, put_in_place,
};

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is of the state, and kept.
    Kept,
    /// It is not: whoever gave it has not this state.
    Wrong,
}

/// A backup that is being made. Dropping it leaves what came so far, to go on with.
pub struct Download<A: Application> {
    cluster: ClusterFile,
    head: StateHead,
    out: PathBuf,
    part: PathBuf,
    file: BufWriter<File>,
    restore: A::Restore,
    /// Pieces that are in the file, and so all before them.
    written: u32,
    /// Those that came before their turn.
    early: BTreeMap<u32, Bytes>,
    /// How long nothing had come when it was gone on with.
    rested: Duration,
}

impl<A: Application> Download<A> {
    /// Goes on with what came before for the backup `out`; `None` where there is nothing that could be gone on with.
    ///
    /// # Errors
    /// There is a backup of this name, or the file beside it cannot be used.
    pub fn resume(
        cluster: &ClusterFile,
        application: &A,
        out: &Path,
    ) -> Result<Option<Self>, BackupError> {
        let part = new_part(out)?;
        let rested = fs::metadata(&part).and_then(|data| data.modified());
        let rested = rested.ok().and_then(|last| last.elapsed().ok()).unwrap_or_default();
        let opened = match File::options().read(true).write(true).open(&part) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unwritable(out, &error)),
        };
        match Self::read(cluster, application, out, opened) {
            Ok(found) => Ok(Some(Self { rested, ..found })),
            Err(Trouble::System(error)) => Err(unwritable(out, &error)),
            // It was cut off within its beginning, or is of another cluster: of no use to anybody.
            Err(Trouble::Wrong(_)) => Ok(None),
        }
    }

    fn read(
        cluster: &ClusterFile,
        application: &A,
        out: &Path,
        mut file: File,
    ) -> Result<Self, Trouble> {
        let wrong = |what: &str| Trouble::Wrong(what.to_owned());
        let mut from = Checking { from: BufReader::new(&file), hash: Sha256::new(), bytes: 0 };
        if from.take(MAGIC.len())? != MAGIC {
            return Err(wrong("it begins otherwise"));
        }
        if from.take_part(TEXT_MAX)? != cluster.to_text().as_bytes() {
            return Err(wrong("it is of another cluster"));
        }
        let head = codec::decode(&from.take_part(FRAME_MAX)?);
        let head = head.map_err(|error| Trouble::Wrong(error.to_string()))?;
        let head = check_head(&cluster.membership, head).map_err(Trouble::Wrong)?;
        from.take_number()?;
        let mut restore = application.restore(head.digests.application);
        let (mut written, mut end) = (0, from.bytes);
        // What follows may have been cut off anywhere, or never have reached the disk.
        while let Ok(chunk) = from.take_part(FRAME_MAX)
            && restore.accept(written, &Bytes::from(chunk)).is_ok()
        {
            (written, end) = (written + 1, from.bytes);
        }
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end))?;
        Ok(Self {
            cluster: cluster.clone(),
            head,
            out: out.into(),
            part: beside(out, "part"),
            file: BufWriter::new(file),
            restore,
            written,
            early: BTreeMap::new(),
            rested: Duration::ZERO,
        })
    }

    /// Begins a backup of a state that a strong quorum certified.
    ///
    /// # Errors
    /// There is a backup of this name, the file cannot be written, or the head is none of this cluster.
    pub fn begin(
        cluster: &ClusterFile,
        application: &A,
        out: &Path,
        head: StateHead,
    ) -> Result<Self, BackupError> {
        let part = new_part(out)?;
        let head = check_head(&cluster.membership, head)
            .map_err(|what| BackupError::Invalid { path: out.into(), what })?;
        let write = || {
            let mut options = File::options();
            // It holds all keys and values.
            let file = options.read(true).write(true).create(true).truncate(true).mode(0o600);
            let mut to = Digesting { to: BufWriter::new(file.open(&part)?), hash: Sha256::new() };
            to.put(MAGIC)?;
            to.put_part(cluster.to_text().as_bytes())?;
            let encoded = codec::encode(&head);
            to.put_part(&encoded.map_err(|error| Trouble::Wrong(error.to_string()))?)?;
            to.put_number(0)?;
            Ok(to.to)
        };
        let file = write().map_err(|trouble| told(out, trouble))?;
        let restore = application.restore(head.digests.application);
        let (cluster, out) = (cluster.clone(), out.to_path_buf());
        Ok(Self {
            cluster,
            head,
            out,
            part,
            file,
            restore,
            written: 0,
            early: BTreeMap::new(),
            rested: Duration::ZERO,
        })
    }

    /// After which checkpoint the state is.
    #[must_use]
    pub fn at(&self) -> Position {
        self.head.stable.position()
    }

    /// How long nothing had come when it was gone on with; nothing where it was begun.
    #[must_use]
    pub fn rested(&self) -> Duration {
        self.rested
    }

    /// Pieces that are here, and how many there are, once that is known.
    #[must_use]
    pub fn progress(&self) -> (u32, Option<u32>) {
        (self.written, self.restore.chunks())
    }

    /// The first piece from this one on that is not here, as far as it is known which there are. None is far ahead of those that
    /// are here: what comes before its turn waits in memory.
    #[must_use]
    pub fn lacks(&self, from: u32) -> Option<u32> {
        const AHEAD: u32 = 16;
        self.restore.missing_from(from).filter(|index| *index < self.written + AHEAD)
    }

    /// Whether all is here.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.restore.missing().is_none()
    }

    /// Takes a piece that somebody gave.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn take(&mut self, index: u32, piece: &Bytes) -> Result<Taken, BackupError> {
        if index < self.written || self.early.contains_key(&index) {
            return Ok(Taken::Kept);
        }
        if self.restore.accept(index, piece).is_err() {
            return Ok(Taken::Wrong);
        }
        self.early.insert(index, piece.clone());
        while let Some(piece) = self.early.remove(&self.written) {
            let length = u32::try_from(piece.len()).unwrap_or(u32::MAX).to_le_bytes();
            let written = self.file.write_all(&length).and_then(|()| self.file.write_all(&piece));
            written.map_err(|error| unwritable(&self.out, &error))?;
            self.written += 1;
        }
        Ok(Taken::Kept)
    }

    /// Makes a backup of it, when all is here: reads all of it once more, and gives it its name.
    ///
    /// # Errors
    /// Something is missing, or the file cannot be written.
    pub fn finish(self, application: &A) -> Result<Backup, BackupError> {
        let Self { cluster, head, out, part, file, restore, written, .. } = self;
        if let Some(index) = restore.missing() {
            let what = format!("piece {index} is missing");
            return Err(BackupError::Invalid { path: out, what });
        }
        let write = || {
            let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            let head = codec::encode(&head).map_err(io::Error::other)?;
            let parts = [cluster.to_text().len(), head.len()];
            let before =
                MAGIC.len() + parts.iter().map(|part| size_of::<u32>() + part).sum::<usize>();
            file.seek(SeekFrom::Start(before as u64))?;
            file.write_all(&written.to_le_bytes())?;
            file.seek(SeekFrom::Start(0))?;
            let mut hash = Sha256::new();
            let (mut from, mut buffer) = (BufReader::new(&file), vec![0; 1 << 16]);
            loop {
                let read = from.read(&mut buffer)?;
                if read == 0 {
                    break;
                }
                hash.update(&buffer[..read]);
            }
            file.seek(SeekFrom::End(0))?;
            file.write_all(&hash.finalize())?;
            file.sync_all()
        };
        write().map_err(|error| unwritable(&out, &error))?;
        // What is read back is what was certified, or it is no backup, and nothing to go on with either.
        let backup = examine(&part, application).inspect_err(|_| drop(fs::remove_file(&part)))?;
        put_in_place(&part, &out).map_err(|error| unwritable(&out, &error))?;
        Ok(backup)
    }
}

/// Where what comes is kept, if there is no backup yet.
fn new_part(out: &Path) -> Result<PathBuf, BackupError> {
    match out.try_exists() {
        Ok(false) => Ok(beside(out, "part")),
        Ok(true) => Err(BackupError::Present(out.into())),
        Err(error) => Err(unwritable(out, &error)),
    }
}

fn unwritable(out: &Path, error: &io::Error) -> BackupError {
    BackupError::Unwritable { path: out.into(), reason: error.to_string() }
}

fn told(out: &Path, trouble: Trouble) -> BackupError {
    match trouble {
        Trouble::System(error) => unwritable(out, &error),
        Trouble::Wrong(what) => BackupError::Invalid { path: out.into(), what },
    }
}
