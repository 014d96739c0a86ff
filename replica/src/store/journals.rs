//! Journals that another one has followed, and that are read at a start because something in them is not
//! in a file yet.
//!
//! fjall takes a damaged frame in a journal for the torn end of a write and cuts the journal off there,
//! in silence. In the last journal that shows: the number of the last group is less than the one that was
//! synced. In one before it does not, since what follows is there; but those were synced before the
//! next was begun. So it is noted how far each of them goes before fjall opens the database, and compared
//! after. What fjall has cut off once looks like any other, and may be removed soon after: so the note
//! is on disk before, in a folder with another name for each of the journals, and where one was cut off
//! that folder stays, and no start gets beyond it.
//!
//! A journal goes as far as the mark at the end of its last batch. What comes behind that is the room it
//! was given, or a write that failed; where these four bytes are damaged themselves, it looks like one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// The folder of the note.
const FOLDER: &str = "journals";

/// The file in it: lines of a journal's name and the bytes to the end of its last batch.
const NOTE: &str = "note";

/// With what a batch ends in a journal.
const BATCH_END: &[u8] = b"FJL\x03";

/// So much is read at a time.
const BLOCK: u64 = 64 << 10;

/// How far each journal but the last one goes, by its name.
#[derive(Debug, Default)]
pub(super) struct Journals {
    folder: PathBuf,
    whole: PathBuf,
    ends: BTreeMap<String, u64>,
}

impl Journals {
    /// Notes how far those of the database in `whole` go, before it is opened. `Err` is the name of
    /// one that was found cut off at an earlier start.
    pub(super) fn note(path: &Path, whole: &Path) -> io::Result<Result<Self, String>> {
        let (folder, whole) = (path.join(FOLDER), whole.to_owned());
        // A crash came between.
        let earlier = Self { ends: read(&folder)?, folder, whole };
        if let Some(journal) = earlier.first_cut()? {
            return Ok(Err(journal));
        }
        let Self { folder, whole, .. } = earlier;
        remove(&folder)?;
        let ends = ends(&whole)?;
        if !ends.is_empty() {
            fs::create_dir(&folder)?;
            for name in ends.keys() {
                // Where files can have one name only, a crash may make us miss that one was cut off.
                let _ = fs::hard_link(whole.join(name), folder.join(name));
            }
            let text: String = ends.iter().map(|(name, end)| format!("{name} {end}\n")).collect();
            let new = folder.join(format!("{NOTE}.new"));
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, folder.join(NOTE))?;
            File::open(&folder)?.sync_all()?;
            File::open(path)?.sync_all()?;
        }
        Ok(Ok(Self { folder, whole, ends }))
    }

    /// The first one that has been cut off since. Where there is none, the note goes.
    pub(super) fn compare(self) -> io::Result<Option<String>> {
        let cut = self.first_cut()?;
        if cut.is_none() {
            remove(&self.folder)?;
        }
        Ok(cut)
    }

    fn first_cut(&self) -> io::Result<Option<String>> {
        for (name, before) in &self.ends {
            let found = match end(&self.folder.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    end(&self.whole.join(name))
                }
                found => found,
            };
            match found {
                Ok(now) if now < *before => return Ok(Some(name.clone())),
                Ok(_) => {}
                // All of it is in files by now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What the note in this folder says.
fn read(folder: &Path) -> io::Result<BTreeMap<String, u64>> {
    let text = match fs::read_to_string(folder.join(NOTE)) {
        Ok(text) => text,
        // Nothing was opened after it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let lines = text.lines().filter_map(|line| {
        let (name, end) = line.split_once(' ')?;
        Some((name.to_owned(), end.parse().ok()?))
    });
    Ok(lines.collect())
}

/// How far each journal in the folder of a database but the last one goes.
fn ends(whole: &Path) -> io::Result<BTreeMap<String, u64>> {
    let mut journals = BTreeMap::new();
    for entry in fs::read_dir(whole)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let number = name.strip_suffix(".jnl").and_then(|number| number.parse::<u64>().ok());
        if let Some(number) = number {
            journals.insert(number, name);
        }
    }
    journals.pop_last();
    journals.into_values().map(|name| end(&whole.join(&name)).map(|end| (name, end))).collect()
}

/// The bytes of a journal up to the end of its last batch.
fn end(journal: &Path) -> io::Result<u64> {
    let file = File::open(journal)?;
    let mut below = file.metadata()?.len();
    // With what was read before of the block above: a mark may lie across.
    let mut block = Vec::new();
    while below > 0 {
        let begin = below.saturating_sub(BLOCK);
        let above: Vec<u8> = block.iter().take(BATCH_END.len() - 1).copied().collect();
        block.clear();
        (&file).seek(SeekFrom::Start(begin))?;
        (&file).take(below - begin).read_to_end(&mut block)?;
        block.extend(above);
        if let Some(at) = block.windows(BATCH_END.len()).rposition(|bytes| bytes == BATCH_END) {
            return Ok(begin + (at + BATCH_END.len()) as u64);
        }
        below = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_ends_with_its_last_batch_wherever_that_lies() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = folder.path().join("7.jnl");
        for (before, after) in [(0, 0), (3, 5), (BLOCK - 2, 7), (5, BLOCK - 2), (9, 3 * BLOCK - 1)]
        {
            let room = |bytes: u64| vec![0; usize::try_from(bytes).expect("small")];
            let torn = b"FJLFJ".to_vec();
            let bytes = [room(before), BATCH_END.to_vec(), torn, room(after)].concat();
            fs::write(&journal, bytes).expect("written");
            assert_eq!(end(&journal).expect("read"), before + 4, "{before} and {after}");
        }
        fs::write(&journal, vec![0; 100_000]).expect("written");
        assert_eq!(end(&journal).expect("read"), 0);
    }
}
