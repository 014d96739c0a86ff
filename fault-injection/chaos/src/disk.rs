//! Disks that are full, and disks that rot.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use elea_fault_injection::rng::Rng;
use rustix::fs::statvfs;

/// How much a small disk may hold: more than any run writes, and nothing is taken before it is.
const WHOLE: &str = "size=4g";

/// What is left of it when it is made small, in kilobytes.
const LEFT: u64 = 512;

/// A file system of its own for one replica's data, which can be made full. It takes root.
#[derive(Debug)]
pub struct SmallDisk {
    mount: PathBuf,
}

impl SmallDisk {
    /// Mounts it here.
    ///
    /// # Errors
    /// This user may not mount anything.
    pub fn mount(at: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&at)?;
        run("mount", &["-t", "tmpfs", "-o", WHOLE, "elea-chaos"], &at)?;
        Ok(Self { mount: at })
    }

    /// A folder on it.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.mount.join("data")
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }

    /// Fills it: it is made little larger than what it holds, and the rest is taken by a ballast
    /// file. So a disk of any size is full at once.
    ///
    /// # Errors
    /// It cannot be made smaller.
    pub fn fill(&self) -> io::Result<()> {
        // Files that are removed and still open take room, too, and more is written meanwhile: then it
        // does not get as small as that.
        let shrink = |left| {
            let disk = statvfs(&self.mount)?;
            let used = disk.f_blocks.saturating_sub(disk.f_bfree) * disk.f_frsize;
            run("mount", &["-o", &format!("remount,size={}k", used / 1024 + left)], &self.mount)
        };
        let mut tries = (0..8).map(|power| shrink(LEFT << power));
        tries.find(Result::is_ok).unwrap_or_else(|| shrink(LEFT << 8))?;
        let mut ballast = File::create(self.ballast())?;
        // Until there is no room for one page more.
        while ballast.write_all(&[0x55; 4096]).is_ok() {}
        Ok(())
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// It cannot be made larger.
    pub fn empty(&self) -> io::Result<()> {
        run("mount", &["-o", &format!("remount,{WHOLE}")], &self.mount)?;
        fs::remove_file(self.ballast())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: where a process still has a file there, it goes with that.
        let _ = run("umount", &["-l"], &self.mount);
    }
}

fn run(program: &str, words: &[&str], last: &Path) -> io::Result<()> {
    let mut command = Command::new(program);
    let done = command.args(words).arg(last).stdin(Stdio::null()).output()?;
    if done.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&done.stderr);
    Err(io::Error::other(format!("{program} {}: {}", words.join(" "), why.trim())))
}

/// The folders in which a replica has its application's rows, by the note beside its store.
fn folder_of_rows(data: &Path) -> Vec<PathBuf> {
    let note = fs::read_to_string(data.join("rows")).unwrap_or_default();
    let names = note.lines().filter_map(|line| line.strip_prefix("folder ")?.split(' ').nth(1));
    names.map(|name| data.join("store/keyspaces").join(name)).collect()
}

/// The tables of an application's rows with their sizes.
///
/// # Errors
/// They cannot be read.
pub fn tables_of_rows(data: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let tables = folder_of_rows(data).into_iter().map(|folder| folder.join("tables"));
    let found = tables.filter(|tables| tables.is_dir()).map(|tables| files(&tables));
    Ok(found.collect::<io::Result<Vec<_>>>()?.concat())
}

/// All files in a folder with their sizes, by name.
///
/// # Errors
/// They cannot be read.
pub fn files(folder: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let data = entry.metadata()?;
            if data.is_dir() {
                folders.push(entry.path());
            } else {
                found.push((entry.path(), data.len()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Copies a folder with all that is in it.
///
/// # Errors
/// It cannot be read or written.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for (path, _) in files(from)? {
        let name = path.strip_prefix(from).map_err(io::Error::other)?;
        let target = to.join(name);
        target.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::copy(&path, target)?;
    }
    Ok(())
}

/// A bit of a file that was turned, with what is around it.
#[derive(Clone, Debug)]
pub struct Flip {
    /// Which file.
    pub path: PathBuf,
    /// Which byte.
    pub at: u64,
    bit: u8,
    from: u64,
    around: Vec<u8>,
    is_of_rows: bool,
}

/// So many bytes on either side tell whether a file was written anew since.
const AROUND: u64 = 32;

impl Flip {
    /// Turns a random bit of one of these files of a store that nobody has open. Files with content
    /// are equally likely, whatever their size.
    ///
    /// # Errors
    /// There are none, or they cannot be written.
    pub fn random(mut files: Vec<(PathBuf, u64)>, rng: &mut Rng) -> io::Result<Self> {
        files.retain(|(_, size)| *size > 0);
        if files.is_empty() {
            return Err(io::Error::other("an empty store"));
        }
        let (path, size) = files.swap_remove(rng.index(files.len()));
        let at = rng.between(0, size - 1);
        let bit = 1 << rng.between(0, 7);
        let from = at.saturating_sub(AROUND);
        let is_of_rows = path.parent().and_then(Path::parent).is_some_and(|folder| {
            // data/store/keyspaces/N/tables/M
            let data = folder.ancestors().nth(3);
            data.is_some_and(|data| folder_of_rows(data).iter().any(|rows| rows == folder))
        });
        let mut flip = Self { path, at, bit, from, around: Vec::new(), is_of_rows };
        flip.turn()?;
        flip.around = flip.read()?;
        Ok(flip)
    }

    /// Whether it is in a table of an application's rows.
    #[must_use]
    pub fn is_of_rows(&self) -> bool {
        self.is_of_rows
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.from))?;
        let mut around = Vec::new();
        file.take(2 * AROUND).read_to_end(&mut around)?;
        Ok(around)
    }

    fn turn(&self) -> io::Result<()> {
        let mut file = File::options().read(true).write(true).open(&self.path)?;
        let mut byte = [0];
        file.seek(SeekFrom::Start(self.at))?;
        file.read_exact(&mut byte)?;
        file.seek(SeekFrom::Start(self.at))?;
        file.write_all(&[byte[0] ^ self.bit])?;
        file.sync_all()
    }

    /// Turns it back, unless the file is gone or was written anew there. Answers whether it did.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn undo(&self) -> io::Result<bool> {
        let is_there = self.path.is_file() && self.read()? == self.around;
        if is_there {
            self.turn()?;
        }
        Ok(is_there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_changes_one_bit_and_is_undone_unless_the_file_was_written_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).expect("a folder");
        let path = inner.join("table");
        let whole: Vec<u8> = (0..=255).collect();
        fs::write(&path, &whole).expect("written");
        for seed in 0..50 {
            let flip = Flip::random(files(folder.path()).expect("readable"), &mut Rng::new(seed))
                .expect("a file");
            let bent = fs::read(&path).expect("there");
            let turned = bent.iter().zip(&whole).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
            assert_eq!(turned, 1);
            assert!(flip.undo().expect("writable"));
            assert_eq!(fs::read(&path).expect("there"), whole);
            assert!(!flip.undo().expect("writable"), "it is not there any more");
            assert!(!flip.is_of_rows());
        }
    }

    #[test]
    fn a_copy_has_everything() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("a/b")).expect("folders");
        fs::write(from.join("a/b/c"), "d").expect("written");
        copy(&from, &to).expect("copied");
        assert_eq!(fs::read_to_string(to.join("a/b/c")).expect("there"), "d");
    }
}
