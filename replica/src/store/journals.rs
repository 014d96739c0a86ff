//! Journals that another one has followed, and that are read at a start because something in them is not
//! in a file yet.
//!
//! fjall takes a damaged frame in a journal for the torn end of a write and cuts the journal off there,
//! in silence. In the last journal that shows: the number of the last group is less than the one that was
//! synced. In one before it does not, since what follows is there; but those were synced whole before the
//! next was begun, and their ends are never torn. So what is in them is measured before fjall opens
//! the database and again after, and what was measured is written down in between: once cut, a journal
//! looks like any other.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

/// The file with what was measured, beside the database. Lines of a journal's name and its bytes.
const MEASURED: &str = "journals";

/// So much is read at a time.
const BLOCK: u64 = 64 << 10;

/// The bytes in each journal but the last one, by its name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Journals(BTreeMap<String, u64>);

impl Journals {
    /// Measures those of the database in `whole` and writes them down in `path`, before it is opened.
    /// What was written down at an earlier start that did not come to its end counts where it is more.
    pub(super) fn measure(path: &Path, whole: &Path) -> io::Result<Self> {
        let mut found = Self::in_folder(whole)?;
        for (name, bytes) in Self::written_down(path)?.0 {
            if let Some(now) = found.0.get_mut(&name) {
                *now = bytes.max(*now);
            }
        }
        if !found.0.is_empty() {
            found.write_down(path)?;
        }
        Ok(found)
    }

    /// The first one that has become shorter. Where there is none, nothing stays written down.
    pub(super) fn compare(self, path: &Path, whole: &Path) -> io::Result<Option<String>> {
        for (name, before) in &self.0 {
            match content(&whole.join(name)) {
                Ok(now) if now < *before => return Ok(Some(name.clone())),
                Ok(_) => {}
                // All of it is in files by now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        match fs::remove_file(path.join(MEASURED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(None),
        }
    }

    fn in_folder(whole: &Path) -> io::Result<Self> {
        let mut journals = BTreeMap::new();
        for entry in fs::read_dir(whole)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let number = name.strip_suffix(".jnl").and_then(|number| number.parse::<u64>().ok());
            if let Some(number) = number {
                journals.insert(number, name);
            }
        }
        journals.pop_last();
        let measured = journals.into_values().map(|name| {
            let bytes = content(&whole.join(&name))?;
            Ok((name, bytes))
        });
        measured.collect::<io::Result<_>>().map(Self)
    }

    fn written_down(path: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(path.join(MEASURED)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        // A line that was torn is of a start that did not get as far as opening anything.
        let lines = text.lines().filter_map(|line| {
            let (name, bytes) = line.split_once(' ')?;
            Some((name.to_owned(), bytes.parse().ok()?))
        });
        Ok(Self(lines.collect()))
    }

    fn write_down(&self, path: &Path) -> io::Result<()> {
        let text: String = self.0.iter().map(|(name, bytes)| format!("{name} {bytes}\n")).collect();
        let new = path.join(format!("{MEASURED}.new"));
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path.join(MEASURED))?;
        File::open(path)?.sync_all()
    }
}

/// How many bytes there are up to the last one that is not 0: journals are made longer than what is in
/// them.
fn content(journal: &Path) -> io::Result<u64> {
    let file = File::open(journal)?;
    let mut end = file.metadata()?.len();
    let mut block = Vec::new();
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        (&file).seek(SeekFrom::Start(begin))?;
        block.clear();
        (&file).take(end - begin).read_to_end(&mut block)?;
        if let Some(last) = block.iter().rposition(|byte| *byte != 0) {
            return Ok(begin + last as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}
