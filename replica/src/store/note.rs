//! A note beside the database: where the rows of states lie, and which of them are damaged.
//!
//! The rows of a state can be fetched from the other replicas; nothing else in the store can. But
//! fjall does not open a database of which one table is damaged in the wrong place, and stops
//! writing to all of it when it meets a damaged block while it compacts. So the note says which
//! folder of fjall's holds which rows. With it a store can be opened without them.
//!
//! It is written anew as a whole, and synced before anything rests on it. Without it, or if it
//! cannot be read, the store works, but no damage to it can be repaired. It is text, a line for each
//! fact and one for their checksum, so that people can read it, too:
//!
//! ```text
//! folder 3 9
//! damaged 3
//! sum 8d7e...
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use elea_protocol::id::hex;

use super::layout::checksum;

const NAME: &str = "rows";
const NEW: &str = "rows.new";

/// What a folder is called while it is tried whether the rest is sound without it.
const ASIDE: &str = "rows-aside-";

/// For the checksum.
const PLACE: &str = "note";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// The names of fjall's folders, by the generations of the rows in them.
    folders: BTreeMap<u64, u64>,
    /// The generations whose rows are not what was written. They are gone or going.
    pub(super) damaged: BTreeSet<u64>,
}

impl Note {
    pub(super) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path.join(NAME)).unwrap_or_default();
        Self::parse(&text).unwrap_or_default()
    }

    /// `None` where this is not what was written.
    fn parse(text: &str) -> Option<Self> {
        let mut note = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["folder", generation, folder] => {
                    note.folders.insert(generation.parse().ok()?, folder.parse().ok()?);
                }
                ["damaged", generation] => {
                    note.damaged.insert(generation.parse().ok()?);
                }
                ["sum", _] => {}
                _ => return None,
            }
        }
        (note.to_string() == text).then_some(note)
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = File::create(path.join(NEW))?;
        file.write_all(self.to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(path.join(NEW), path.join(NAME))?;
        File::open(path)?.sync_all()
    }

    /// Makes the note say this and nothing else.
    pub(super) fn set(
        &mut self,
        path: &Path,
        folders: BTreeMap<u64, u64>,
        damaged: BTreeSet<u64>,
    ) -> io::Result<()> {
        let new = Self { folders, damaged };
        if new != *self {
            new.write(path)?;
            *self = new;
        }
        Ok(())
    }

    /// The rows of this generation are damaged.
    pub(super) fn condemn(&mut self, path: &Path, generation: u64) -> io::Result<()> {
        let mut damaged = self.damaged.clone();
        damaged.insert(generation);
        self.set(path, self.folders.clone(), damaged)
    }

    /// Before the database is opened: removes what is damaged, and undoes a trial that a crash
    /// interrupted.
    pub(super) fn prepare(&self, path: &Path, store: &Path) -> io::Result<()> {
        for (generation, folder) in &self.folders {
            let (place, aside) = (place(store, *folder), aside(path, *folder));
            if self.damaged.contains(generation) {
                remove(&place)?;
                remove(&aside)?;
            } else if aside.try_exists()? {
                fs::rename(aside, place)?;
            }
        }
        Ok(())
    }

    /// Finds the rows without which `open` succeeds: some, or else all of them. Answers what it gave
    /// then, or `None` when the damage is somewhere else.
    pub(super) fn try_without<T>(
        &mut self,
        path: &Path,
        store: &Path,
        mut open: impl FnMut() -> Option<T>,
    ) -> io::Result<Option<T>> {
        let sound = |(generation, _): &(u64, u64)| !self.damaged.contains(generation);
        let mut folders: Vec<(u64, u64)> =
            self.folders.iter().map(|(g, f)| (*g, *f)).filter(sound).collect();
        folders.retain(|(_, folder)| place(store, *folder).is_dir());
        let each = folders.iter().map(std::slice::from_ref);
        let all = (folders.len() > 1).then_some(folders.as_slice());
        for some in each.chain(all) {
            for (_, folder) in some {
                fs::rename(place(store, *folder), aside(path, *folder))?;
            }
            if let Some(opened) = open() {
                for (generation, _) in some {
                    self.condemn(path, *generation)?;
                }
                for (_, folder) in some {
                    remove(&aside(path, *folder))?;
                }
                return Ok(Some(opened));
            }
            for (_, folder) in some {
                fs::rename(aside(path, *folder), place(store, *folder))?;
            }
        }
        Ok(None)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folders = self.folders.iter().map(|(rows, folder)| format!("folder {rows} {folder}\n"));
        let damaged = self.damaged.iter().map(|rows| format!("damaged {rows}\n"));
        let facts: String = folders.chain(damaged).collect();
        writeln!(f, "{facts}sum {}", hex(&checksum(PLACE, &[], facts.as_bytes())))
    }
}

/// Where fjall has a keyspace.
fn place(store: &Path, folder: u64) -> PathBuf {
    store.join("keyspaces").join(folder.to_string())
}

fn aside(path: &Path, folder: u64) -> PathBuf {
    path.join(format!("{ASIDE}{folder}"))
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_and_one_that_was_changed_is_none() {
        let note = Note { folders: [(1, 9), (2, 11)].into(), damaged: [2].into() };
        let text = note.to_string();
        assert!(text.starts_with("folder 1 9\nfolder 2 11\ndamaged 2\nsum "), "{text}");
        assert_eq!(Note::parse(&text), Some(note));
        for at in 0..text.len() {
            let mut bent = text.clone().into_bytes();
            bent[at] ^= 1;
            let bent = String::from_utf8(bent).expect("ASCII");
            assert_eq!(Note::parse(&bent), None, "{bent}");
            assert_eq!(Note::parse(&text[..at]), None, "cut at {at}");
        }
        assert_eq!(Note::parse(""), None);
    }
}
