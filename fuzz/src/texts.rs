//! Files, and what people write.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use elea_client::files::{key_text, load_cluster, load_key};
use elea_client::sessions::SessionFile;
use elea_kv::KeyValueStore;
use elea_protocol::address;
use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::id::Digest;
use elea_protocol::signature::SecretKey;
use elea_replica::backup;
use tempfile::TempDir;

/// The three first replicas and a client of a cluster, as `elea init` writes them.
const CLUSTER_FILE: &str = r#"name = "lab"
f = 1
clients = "open"

[[replica]]
key = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"
address = "127.0.0.1:7100"

[[replica]]
key = "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"
address = "[::1]:7101"

[[replica]]
key = "ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1"
address = "node.example.org:7102"

[[replica]]
key = "ca93ac1705187071d67b83c7ff0efe8108e8ec4530575d7726879333dbdabe7c"
address = "127.0.0.1:7103"

[tuning]
commit_interval = 8
"#;

/// A text that is one reads back as the same.
pub(crate) fn cluster_file(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match ClusterFile::parse(text) {
        Ok(file) => {
            let written = file.to_text();
            let again = ClusterFile::parse(&written).expect("what was written can be read");
            assert_eq!(again.to_text(), written);
            assert_eq!(again.membership.genesis(), file.membership.genesis());
        }
        Err(error) => {
            let lines = text.lines().count().max(1);
            assert!((1..=lines + 1).contains(&error.line), "line {} of {lines}", error.line);
            assert!(!error.message.is_empty() && !error.message.contains('\n'), "{error}");
        }
    }
}

pub(crate) fn cluster_files() -> Vec<Vec<u8>> {
    vec![CLUSTER_FILE.into()]
}

/// What passes has one form.
pub(crate) fn address(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(form) = address::check(text) {
        assert_eq!(address::check(&form).as_ref(), Ok(&form));
    }
    let _ = address::host(text);
}

pub(crate) fn addresses() -> Vec<Vec<u8>> {
    ["127.0.0.1:7100", "[::1]:7101", "[fe80::1%eth0]:80", "Node-1.example.org.:7102", "h:0", "::1"]
        .map(Vec::from)
        .into()
}

thread_local! {
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// A file that holds these bytes, in a folder of this thread that has nothing else.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| tempfile::tempdir().expect("a folder"));
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("owned");
        path
    })
}

/// A key that is read is one that is written so.
pub(crate) fn key_file(bytes: &[u8]) {
    let path = file("some.key", bytes);
    if let Ok(key) = load_key(&path) {
        let text = key_text(&key);
        let same = text.as_bytes() == bytes || text.trim_end().as_bytes() == bytes;
        assert!(same || bytes.eq_ignore_ascii_case(text.as_bytes()), "another text of one key");
    }
    let _ = load_cluster(&path);
}

pub(crate) fn key_files() -> Vec<Vec<u8>> {
    vec![key_text(&SecretKey::from_bytes(&[7; 32])).into()]
}

/// Damaged or not, sessions can be had.
pub(crate) fn session_file(bytes: &[u8]) {
    let path = file("some.key.sessions", bytes);
    if let Ok(sessions) = SessionFile::at(path, &Digest([1; 32])) {
        let _ = sessions.known().expect("it was put right when it was opened");
    }
}

pub(crate) fn session_files() -> Vec<Vec<u8>> {
    let path = file("new.sessions", b"");
    fs::remove_file(&path).expect("there");
    let sessions = SessionFile::at(path.clone(), &Digest([1; 32])).expect("a folder of one's own");
    drop(sessions);
    vec![fs::read(&path).unwrap_or_default(), b"{}".into()]
}

/// A backup that was changed in any way is none.
pub(crate) fn backup(bytes: &[u8]) {
    let path = file("some.backup", bytes);
    if let Ok(backup) = backup::examine(&path, &KeyValueStore::new()) {
        assert_eq!(backup.bytes, bytes.len() as u64);
    }
}

pub(crate) fn backups() -> Vec<Vec<u8>> {
    vec![b"elea".into()]
}
