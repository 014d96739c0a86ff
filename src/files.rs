//! Files on disk: the cluster file, key files, and writing without ever overwriting.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use elea_client::files::FileProblem;
pub use elea_client::files::{Readers, key_text};
use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::signature::SecretKey;
use rustix::fs::Mode;

use crate::failure::Failure;

/// Reads and checks a cluster file.
pub fn load_cluster(path: &Path) -> Result<ClusterFile, Failure> {
    let shown = path.display();
    elea_client::files::load_cluster(path).map_err(|error| {
        Failure::usage(match error.problem {
            FileProblem::NotThere => format!(
                "there is no cluster file {shown}: name it with --cluster or ELEA_CLUSTER, or make \
                 one with `elea init`"
            ),
            FileProblem::NotACluster(bad) => format!("{shown}, {bad}"),
            other => format!("the cluster file {shown} {other}"),
        })
    })
}

/// Who may read this key. Of what systemd hands over as a credential nobody else can, whatever its mode says.
pub fn readers(key: &Path, group_key: bool) -> Readers {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty());
    match folder {
        Some(folder) if key.starts_with(&folder) => Readers::System,
        _ if group_key => Readers::Group,
        _ => Readers::Owner,
    }
}

/// Reads a key file. One that others may read is refused: its owner would not notice the theft.
pub fn load_key(path: &Path, readers: Readers) -> Result<SecretKey, Failure> {
    let shown = path.display();
    elea_client::files::load_key_for(path, readers).map_err(|error| {
        let what = error.problem.to_string();
        Failure::usage(match error.problem {
            FileProblem::NotThere => format!(
                "there is no key file {shown}: name it with --key or ELEA_KEY, or make one with \
                 `elea init`"
            ),
            FileProblem::NotAllowed => format!("the key file {shown} {what}: run as its owner"),
            FileProblem::NoFile => format!("{shown} {what}: name a key file"),
            FileProblem::OpenToOthers(_) => format!(
                "the key file {shown} {what}: run `chmod 600 {shown}`, and replace the key if \
                 somebody may have read it; where its group is meant to read it, and is yours, say \
                 --group-key"
            ),
            FileProblem::NotAKey => {
                format!("the key file {shown} {what}, so restore it from a copy")
            }
            FileProblem::Unreadable(_) | FileProblem::NotACluster(_) => {
                format!("the key file {shown} {what}")
            }
        })
    })
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use elea_protocol::signature::Signer as _;

    use super::*;

    #[test]
    fn a_new_file_has_the_mode_that_was_said_and_what_is_wrong_is_told_with_what_to_do() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.key");
        let key = SecretKey::from_bytes(&[7; 32]);
        write_new(&path, &key_text(&key), 0o600).expect("written");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        assert_eq!(load_key(&path, Readers::Owner).expect("sound").public_key(), key.public_key());
        assert!(write_new(&path, "x", 0o600).is_err_and(|e| e.message.contains("not overwritten")));

        let says = |what: &str| {
            let failure = load_key(&path, Readers::Owner).expect_err(what);
            assert!(failure.message.contains(what), "{failure}");
        };
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("owned");
        says("chmod 600");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("owned");
        fs::write(&path, "elea-key-2 00").expect("written");
        says("malformed");
        fs::remove_file(&path).expect("there");
        says("there is no key file");
        assert!(load_cluster(&path).is_err_and(|e| e.message.contains("there is no cluster file")));
    }
}
