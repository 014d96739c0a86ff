//! Files on disk: the cluster file, key files, and writing without ever overwriting.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::id::{hex, unhex};
use elea_protocol::seal::SecretKey;
use rustix::fs::Mode;

use crate::failure::Failure;

/// No cluster file is this large; somebody named a wrong file.
const CLUSTER_FILE_MAX: u64 = 1 << 20;

/// What stands before the secret in a key file, so that a wrong file is told from a damaged one
/// and a later kind of key from this one.
const KEY_FILE_TAG: &str = "elea-key-1";

/// Reads and checks a cluster file.
pub fn load_cluster(path: &Path) -> Result<ClusterFile, Failure> {
    let shown = path.display();
    let text = read_small(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::usage(format!(
            "there is no cluster file {shown}: name it with --cluster or ELEA_CLUSTER, or make \
             one with `elea init`"
        )),
        _ => Failure::usage(format!("the cluster file {shown} cannot be read ({error})")),
    })?;
    ClusterFile::parse(&text).map_err(|bad| Failure::usage(format!("{shown}, {bad}")))
}

/// Who may read a key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone.
    Owner,
    /// Its group as well, if this user is in it.
    Group,
}

impl Readers {
    /// Whether a file of this mode and group is read by nobody else.
    fn allow(self, mode: u32, group: u32, groups: impl FnOnce() -> Vec<u32>) -> bool {
        match self {
            _ if mode & 0o077 == 0 => true,
            Self::Owner => false,
            Self::Group => mode & 0o037 == 0 && groups().contains(&group),
        }
    }
}

/// The groups of this process.
fn own_groups() -> Vec<u32> {
    let others = rustix::process::getgroups().unwrap_or_default();
    let main = rustix::process::getegid();
    others.into_iter().chain([main]).map(|group| group.as_raw()).collect()
}

/// Reads a key file. One that others may read is refused: its owner would not notice the theft.
pub fn load_key(path: &Path, readers: Readers) -> Result<SecretKey, Failure> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => Failure::usage(format!(
            "there is no key file {shown}: name it with --key or ELEA_KEY, or make one with \
             `elea init`"
        )),
        ErrorKind::PermissionDenied => Failure::usage(format!(
            "the key file {shown} may not be read by this user: run as its owner"
        )),
        _ => Failure::usage(format!("the key file {shown} cannot be read ({error})")),
    };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Failure::usage(format!("{shown} is no file: name a key file")));
    }
    // Asked of the open file and not of the path, which may be exchanged in between.
    let mode = metadata.mode() & 0o777;
    if !readers.allow(mode, metadata.gid(), own_groups) {
        return Err(Failure::usage(format!(
            "the key file {shown} may be read or changed by others (mode {mode:03o}): run `chmod 600 \
             {shown}`, and replace the key if somebody may have read it; where its group is meant to \
             read it, and is yours, say --group-key"
        )));
    }
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text).map_err(unreadable)?;
    let secret = text
        .strip_suffix('\n')
        .unwrap_or(&text)
        .strip_prefix(KEY_FILE_TAG)
        .and_then(|rest| rest.strip_prefix(' '))
        .and_then(unhex::<32>);
    secret.map(|secret| SecretKey::from_bytes(&secret)).ok_or_else(|| {
        Failure::usage(format!(
            "the key file {shown} is malformed: it must hold the one line `{KEY_FILE_TAG} ` and \
             64 hexadecimal digits, so restore it from a copy"
        ))
    })
}

/// The text of a key file.
pub fn key_text(key: &SecretKey) -> String {
    format!("{KEY_FILE_TAG} {}\n", hex(&key.to_bytes()))
}

/// From now on what this process makes is readable by its user alone, whatever the shell says: data,
/// sessions, backups and receipts hold what is stored, and logs who asked for it.
pub fn keep_private() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Writes a file that must not be there yet, durably.
pub fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        // The shell's mask must not decide it.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    let shown = path.display();
    write().map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::usage(format!(
            "{shown} is there already and is not overwritten: choose another directory"
        )),
        _ => Failure::usage(format!("{shown} cannot be written ({error})")),
    })
}

/// Writes a file anew, whole or not at all.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let write = || -> std::io::Result<()> {
        fs::write(&part, bytes)?;
        fs::rename(&part, path)
    };
    write().map_err(|error| {
        // What is left of a failed attempt is of no use; that it cannot be removed changes nothing.
        let _ = fs::remove_file(&part);
        Failure::usage(format!("{} cannot be written ({error})", path.display()))
    })
}

fn read_small(path: &Path) -> std::io::Result<String> {
    let file = File::open(path)?;
    if file.metadata()?.len() > CLUSTER_FILE_MAX {
        return Err(std::io::Error::new(ErrorKind::InvalidData, "it is larger than 1 MiB"));
    }
    let mut text = String::new();
    file.take(CLUSTER_FILE_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use elea_protocol::seal::Signer as _;

    use super::*;

    #[test]
    fn a_key_file_reads_back_and_every_other_file_is_refused_in_a_sentence() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.key");
        let key = SecretKey::from_bytes(&[7; 32]);
        write_new(&path, &key_text(&key), 0o600).expect("written");
        let mode = fs::metadata(&path).expect("there").mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(load_key(&path, Readers::Owner).expect("sound").public_key(), key.public_key());
        assert!(write_new(&path, "x", 0o600).is_err_and(|e| e.message.contains("not overwritten")));

        for mode in [0o640, 0o604, 0o620, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("owned");
            let failure = load_key(&path, Readers::Owner).expect_err("readable by others");
            assert!(failure.message.contains("chmod 600"), "{failure}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("owned");
        for text in ["", "elea-key-1", "elea-key-2 00", "elea-key-1 0g", "\u{0}"] {
            fs::write(&path, text).expect("written");
            let failure = load_key(&path, Readers::Owner).expect_err(text);
            assert!(failure.message.contains("malformed"), "{failure}");
        }
        let missing = load_key(&folder.path().join("b.key"), Readers::Owner).expect_err("missing");
        assert!(missing.message.contains("there is no key file"), "{missing}");
        assert!(load_key(folder.path(), Readers::Owner).is_err());
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
        assert!(own_groups().contains(&rustix::process::getegid().as_raw()));
    }
}
