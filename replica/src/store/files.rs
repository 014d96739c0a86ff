//! The files of the store while it is open: whether they are what was written.
//!
//! A flipped bit shows when it is read, and what is read seldom may have more of them than there are
//! replicas with sound copies by then. So all tables are read again and again, and compared with
//! the checksum that fjall keeps of each file as a whole. Who does that has the list from here, and
//! leaves here what it found, for `elea status`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use elea_protocol::message::DiskHealth;
use fjall::{AbstractTree as _, Keyspace};
use rustix::fs::{Advice, fadvise};
use xxhash_rust::xxh3::Xxh3;

use super::opening::is_damage;
use super::rows;

/// So much is read at a time, in bytes.
const STEP: usize = 256 << 10;

/// Asked after each step how to go on: answers whether to.
pub(crate) type Pace<'a> = &'a mut dyn FnMut(usize) -> bool;

/// Something on the disk that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The keyspace.
    pub(crate) keyspace: String,
    /// What was found, with the file.
    pub(crate) what: String,
}

/// What is known of the files of an open store. All copies know the same.
#[derive(Clone, Default)]
pub(crate) struct Files {
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    /// By name. None once the store is closed: whoever has one keeps the database open.
    keyspaces: BTreeMap<String, Keyspace>,
    /// The first damage in each.
    damage: BTreeMap<String, String>,
    /// The rows of the state that the history begins with.
    ground: Option<String>,
    is_full: bool,
}

/// What one look at all files came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looked {
    /// At so many tables.
    Whole(u64),
    /// It was told to stop.
    Stopped,
}

impl Files {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing in here can be left half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, keyspace: &Keyspace) {
        self.known().keyspaces.insert(keyspace.name().to_string(), keyspace.clone());
    }

    /// The keyspace is gone, and with it whatever was wrong with it.
    pub(super) fn remove(&self, name: &str) {
        let mut known = self.known();
        known.keyspaces.remove(name);
        known.damage.remove(name);
    }

    pub(super) fn set_ground(&self, generation: Option<u64>) {
        self.known().ground = generation.map(rows::name);
    }

    pub(super) fn close(&self) {
        self.known().keyspaces.clear();
    }

    pub(crate) fn set_full(&self, is_full: bool) {
        self.known().is_full = is_full;
    }

    /// Notes a damage. Answers whether it is news: the first one there that is known of, and not to
    /// rows that are on their way here. If those are put in place, the next look finds it again.
    pub(crate) fn note(&self, damage: &Damage) -> bool {
        let mut known = self.known();
        let is_ground = known.ground.as_deref() == Some(&damage.keyspace);
        if Self::is_of_rows(&damage.keyspace) && !is_ground {
            return false;
        }
        let is_new = !known.damage.contains_key(&damage.keyspace);
        known.damage.entry(damage.keyspace.clone()).or_insert_with(|| damage.what.clone());
        is_new
    }

    /// Whether others can repair what is in this keyspace.
    pub(crate) fn is_of_rows(keyspace: &str) -> bool {
        rows::generation(keyspace).is_some()
    }

    pub(crate) fn health(&self) -> DiskHealth {
        let known = self.known();
        match known.damage.values().next() {
            _ if known.is_full => DiskHealth::Full,
            Some(what) => DiskHealth::Damaged(what.clone()),
            None => DiskHealth::Sound,
        }
    }

    /// Looks at all tables that there are now.
    pub(crate) fn look(&self, pace: Pace<'_>, found: &mut dyn FnMut(Damage)) -> Looked {
        let names: Vec<String> = self.known().keyspaces.keys().cloned().collect();
        let mut tables = 0;
        for name in names {
            // One by one: what is held here stays on the disk as long.
            let keyspace = self.known().keyspaces.get(&name).cloned();
            let Some(keyspace) = keyspace else { continue };
            match look_at(&keyspace, pace, found) {
                Looked::Whole(more) => tables += more,
                Looked::Stopped => return Looked::Stopped,
            }
        }
        Looked::Whole(tables)
    }
}

/// Looks at all tables of one keyspace.
pub(super) fn look_at(
    keyspace: &Keyspace,
    pace: Pace<'_>,
    found: &mut dyn FnMut(Damage),
) -> Looked {
    // As long as it is here, none of its files is removed.
    let version = keyspace.tree.current_version();
    let mut tables = 0;
    for table in version.iter_tables() {
        let sum = match file_sum(&table.path, pace) {
            Ok(Some(sum)) if sum == table.checksum().into_u128() => None,
            Ok(Some(_)) => Some(String::from("does not match its checksum")),
            Ok(None) => return Looked::Stopped,
            Err(error) if is_damage(&error) => Some(format!("cannot be read ({error})")),
            // It is not the disk that is at fault. The next look will show.
            Err(_) => continue,
        };
        tables += 1;
        if let Some(what) = sum {
            let keyspace = keyspace.name().to_string();
            let what = format!("{} of {keyspace} {what}", inner_path(&table.path).display());
            found(Damage { keyspace, what });
        }
    }
    Looked::Whole(tables)
}

/// The path within the store.
fn inner_path(path: &Path) -> PathBuf {
    let parts: Vec<_> = path.components().rev().take(4).collect();
    parts.into_iter().rev().collect()
}

/// The checksum of a file; `None` where `pace` says to stop.
fn file_sum(path: &Path, pace: Pace<'_>) -> io::Result<Option<u128>> {
    let mut file = File::open(path)?;
    // What the system has in memory says nothing about the disk. It is only advice, though, and
    // where it is not taken the file is read all the same.
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    let mut sum = Xxh3::new();
    let mut buffer = vec![0; STEP];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        sum.update(&buffer[..read]);
        if !pace(read) {
            return Ok(None);
        }
    }
    // Nor should what is read for this push out of memory what is read for clients.
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    Ok(Some(sum.digest128()))
}
