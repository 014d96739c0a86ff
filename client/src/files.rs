//! The two files that a client needs: the cluster file, and a key of its own.
//!
//! A key file holds one line: the word `elea-key-1`, a space, and the 32 bytes of an Ed25519 secret key as 64
//! hexadecimal digits. The word tells a wrong file from a damaged one, and this kind of key from later ones.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use elea_protocol::cluster_file::{BadClusterFile, ClusterFile};
use elea_protocol::id::{hex, unhex};
use elea_protocol::signature::SecretKey;

/// No cluster file is this large; somebody named a wrong file.
const CLUSTER_FILE_MAX: u64 = 1 << 20;

/// No key file is this large.
const KEY_FILE_MAX: u64 = 4096;

const KEY_FILE_TAG: &str = "elea-key-1";

/// A file that is of no use.
#[derive(Debug)]
pub struct FileError {
    /// The path that was given.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: FileProblem,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// Nothing is there.
    #[error("is not there")]
    NotThere,
    /// This user may not read it.
    #[error("may not be read by this user")]
    NotAllowed,
    /// It cannot be read.
    #[error("cannot be read ({0})")]
    Unreadable(#[source] io::Error),
    /// It is a folder, or something else that is no file.
    #[error("is no file")]
    NoFile,
    /// A key that others may read or change: its owner would not notice the theft. Its mode.
    #[error("may be read or changed by others (mode {0:03o})")]
    OpenToOthers(u32),
    /// It is too large, or holds something else than a key.
    #[error("is malformed: it must hold the one line `{KEY_FILE_TAG} ` and 64 hexadecimal digits")]
    NotAKey,
    /// It holds something else than a cluster.
    #[error("is no cluster file: {0}")]
    NotACluster(#[source] BadClusterFile),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path.display(), self.problem)
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.problem)
    }
}

impl From<io::Error> for FileProblem {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::NotThere,
            ErrorKind::PermissionDenied => Self::NotAllowed,
            _ => Self::Unreadable(error),
        }
    }
}

/// Who may read a key file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone.
    #[default]
    Owner,
    /// Its group as well, if this user is in it.
    Group,
    /// Its owner, and a user to whom the system gave it in a folder of its own. systemd does so with credentials, by
    /// access lists, which look like a group's right to read.
    System,
}

impl Readers {
    /// Whether a file of this mode and group is read by nobody else.
    fn allow(self, mode: u32, group: u32, groups: impl FnOnce() -> Vec<u32>) -> bool {
        match self {
            _ if mode & 0o077 == 0 => true,
            Self::Owner => false,
            Self::Group => mode & 0o037 == 0 && groups().contains(&group),
            Self::System => mode & 0o037 == 0,
        }
    }
}

/// The groups of this process.
fn own_groups() -> Vec<u32> {
    let others = rustix::process::getgroups().unwrap_or_default();
    let main = rustix::process::getegid();
    others.into_iter().chain([main]).map(|group| group.as_raw()).collect()
}

/// Reads a key file that its owner alone may read.
///
/// ```no_run
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let key = elea_client::load_key("client-0.key")?;
/// # drop(key);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// There is none, others may read it as well, or it holds something else.
pub fn load_key(path: impl AsRef<Path>) -> Result<SecretKey, FileError> {
    load_key_for(path, Readers::Owner)
}

/// The same of one that these may read.
///
/// ```no_run
/// # use elea_client::files::{Readers, load_key_for};
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let key = load_key_for("/run/secrets/client.key", Readers::Group)?;
/// # drop(key);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`load_key`].
pub fn load_key_for(path: impl AsRef<Path>, readers: Readers) -> Result<SecretKey, FileError> {
    let path = path.as_ref();
    read_key(path, readers).map_err(|problem| FileError { path: path.to_owned(), problem })
}

fn read_key(path: &Path, readers: Readers) -> Result<SecretKey, FileProblem> {
    let file = File::open(path)?;
    // Asked of the open file and not of the path, which may be exchanged in between.
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(FileProblem::NoFile);
    }
    let mode = about.mode() & 0o777;
    if !readers.allow(mode, about.gid(), own_groups) {
        return Err(FileProblem::OpenToOthers(mode));
    }
    let text = read_text(file, KEY_FILE_MAX).map_err(|error| match error.kind() {
        ErrorKind::InvalidData => FileProblem::NotAKey,
        _ => error.into(),
    })?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let digits = line.strip_prefix(KEY_FILE_TAG).and_then(|rest| rest.strip_prefix(' '));
    let secret = digits.and_then(unhex::<32>).ok_or(FileProblem::NotAKey)?;
    Ok(SecretKey::from_bytes(&secret))
}

/// The text of a key file. Who writes it has to see to it that nobody else can read it.
///
/// ```
/// # use elea_client::{SecretKey, files::key_text};
/// assert!(key_text(&SecretKey::from_bytes(&[7; 32])).starts_with("elea-key-1 0707"));
/// ```
#[must_use]
pub fn key_text(key: &SecretKey) -> String {
    format!("{KEY_FILE_TAG} {}\n", hex(&key.to_bytes()))
}

/// Reads and checks a cluster file.
///
/// # Errors
/// There is none, or it holds something else: the error names the line.
pub fn load_cluster(path: impl AsRef<Path>) -> Result<ClusterFile, FileError> {
    let path = path.as_ref();
    let read = || {
        // It is public, so a pipe will do.
        let text = read_text(File::open(path)?, CLUSTER_FILE_MAX)?;
        ClusterFile::parse(&text).map_err(FileProblem::NotACluster)
    };
    read().map_err(|problem| FileError { path: path.to_owned(), problem })
}

fn read_text(file: File, most: u64) -> io::Result<String> {
    let mut text = String::new();
    let read = file.take(most + 1).read_to_string(&mut text)?;
    match read as u64 > most {
        true => {
            Err(io::Error::new(ErrorKind::InvalidData, format!("it is larger than {most} bytes")))
        }
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use elea_protocol::signature::Signer as _;

    use super::*;

    #[test]
    fn a_key_file_reads_back_and_every_other_file_is_refused_in_a_sentence() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.key");
        let key = SecretKey::from_bytes(&[7; 32]);
        fs::write(&path, key_text(&key)).expect("written");
        let set = |mode| fs::set_permissions(&path, Permissions::from_mode(mode)).expect("owned");
        for mode in [0o640, 0o604, 0o620, 0o610] {
            set(mode);
            let failure = load_key(&path).expect_err("readable by others");
            assert!(failure.to_string().contains("by others"), "{failure}");
        }
        set(0o600);
        assert_eq!(load_key(&path).expect("sound").public_key(), key.public_key());
        let long = "x".repeat(5000);
        for text in ["", "elea-key-1", "elea-key-2 00", "elea-key-1 0g", "\u{0}", &long] {
            fs::write(&path, text).expect("written");
            let failure = load_key(&path).expect_err(text);
            assert!(matches!(failure.problem, FileProblem::NotAKey), "{failure}");
        }
        fs::write(&path, [0xff; 70]).expect("written");
        assert!(matches!(load_key(&path).expect_err("no text").problem, FileProblem::NotAKey));
        let missing = load_key(folder.path().join("b.key")).expect_err("missing");
        assert!(missing.to_string().ends_with("b.key is not there"), "{missing}");
        assert!(load_key(folder.path()).is_err());
    }

    #[test]
    fn a_group_may_read_a_key_where_that_was_said_and_the_user_is_in_it() {
        let allows = |readers: Readers, mode| readers.allow(mode, 7, || vec![1, 7]);
        assert!(allows(Readers::Owner, 0o400) && allows(Readers::Group, 0o400));
        assert!(!allows(Readers::Owner, 0o440));
        assert!(allows(Readers::Group, 0o440) && allows(Readers::Group, 0o640));
        for mode in [0o660, 0o450, 0o444, 0o644, 0o404] {
            assert!(!allows(Readers::Group, mode), "{mode:o}");
        }
        assert!(!Readers::Group.allow(0o440, 8, || vec![1, 7]), "another group");
        assert!(Readers::System.allow(0o440, 8, || vec![1, 7]), "by an access list");
        assert!(!allows(Readers::System, 0o444) && !allows(Readers::System, 0o460));
        assert!(own_groups().contains(&rustix::process::getegid().as_raw()));
    }

    #[test]
    fn what_is_no_cluster_file_is_refused_with_its_line() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("cluster.toml");
        fs::write(&path, "name = 7\n").expect("written");
        let failure = load_cluster(&path).expect_err("no cluster");
        assert!(failure.to_string().contains("line 1"), "{failure}");
        fs::write(&path, " ".repeat((1 << 20) + 1)).expect("written");
        assert!(load_cluster(&path).is_err_and(|e| e.to_string().contains("larger than")));
        assert!(load_cluster(folder.path()).is_err());
    }
}
