//! Disks that are slow: every sync of a process takes longer, as long as a file says.
//!
//! A process has to be made to wait from within, between its call and the kernel: there is no file system
//! here that could be made slow, and to slow down a block device takes one. So a small library stands before
//! the system's `fsync` and `fdatasync`. To take their place it must be unsafe code, which this
//! workspace has none of, so it is a page of C, compiled where it is needed by the machine's own compiler;
//! where there is none, slow disks are left out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use elea_protocol::id::ReplicaId;

const SOURCE: &str = include_str!("slow_sync.c");

/// The variable that names the file with the delay.
pub const VARIABLE: &str = "ELEA_CHAOS_SYNC";

/// The library, and the files that replicas are told by.
#[derive(Debug)]
pub struct SlowSync {
    folder: PathBuf,
}

impl SlowSync {
    /// Compiles it into this folder, which is made.
    ///
    /// # Errors
    /// There is no compiler here.
    pub fn build(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let slow = Self { folder };
        let source = slow.folder.join("slow_sync.c");
        fs::write(&source, SOURCE)?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(slow.library()).arg(&source);
        let done = compiler.arg("-ldl").stdin(Stdio::null()).output();
        let done = done.map_err(|error| io::Error::other(format!("no C compiler: {error}")))?;
        if done.status.success() {
            return Ok(slow);
        }
        let why = String::from_utf8_lossy(&done.stderr);
        Err(io::Error::other(format!("the C compiler: {}", why.trim())))
    }

    /// The one that was built into this folder, if one was.
    #[must_use]
    pub fn built_in(folder: PathBuf) -> Option<Self> {
        let slow = Self { folder };
        slow.library().exists().then_some(slow)
    }

    /// What a replica's process has to find in its environment, where nothing else is loaded.
    #[must_use]
    pub fn environment(&self, id: ReplicaId) -> [(&'static str, PathBuf); 2] {
        [(VARIABLE, self.file(id)), ("LD_PRELOAD", self.library())]
    }

    /// To be loaded by processes.
    #[must_use]
    pub fn library(&self) -> PathBuf {
        self.folder.join("slow_sync.so")
    }

    /// Says how long a replica's syncs take, for [`VARIABLE`].
    #[must_use]
    pub fn file(&self, id: ReplicaId) -> PathBuf {
        self.folder.join(format!("sync-{}", id.0))
    }

    /// From the next one on, each sync of this replica takes so much longer.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set(&self, id: ReplicaId, delay: Duration) -> io::Result<()> {
        let fresh = self.folder.join(format!("sync-{}.new", id.0));
        fs::write(&fresh, delay.as_micros().to_string())?;
        fs::rename(fresh, self.file(id))
    }

    /// How many of its syncs took longer so far.
    #[must_use]
    pub fn count(&self, id: ReplicaId) -> u64 {
        let file = format!("{}.count", self.file(id).display());
        fs::metadata(Path::new(&file)).map_or(0, |about| about.len())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// `sync FILE` calls `fsync`.
    fn sync(slow: &SlowSync, id: ReplicaId, path: &Path) -> Duration {
        let begin = Instant::now();
        let mut command = Command::new("sync");
        command.arg(path).envs(slow.environment(id));
        assert!(command.status().expect("a process").success());
        begin.elapsed()
    }

    #[test]
    fn a_sync_takes_as_long_as_the_file_says_at_that_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let library = folder.path().join("library");
        assert!(SlowSync::built_in(library.clone()).is_none());
        let slow = match SlowSync::build(library.clone()) {
            Ok(slow) => slow,
            Err(why) if why.to_string().starts_with("no C compiler") => return,
            Err(why) => panic!("{why}"),
        };
        let slow = SlowSync::built_in(library).unwrap_or(slow);
        let (one, other) = (ReplicaId(1), ReplicaId(2));
        let path = folder.path().join("file");
        fs::write(&path, "text").expect("written");
        sync(&slow, one, &path);
        assert_eq!(slow.count(one), 0, "nobody said anything");
        let delay = Duration::from_millis(150);
        slow.set(one, delay).expect("written");
        assert!(sync(&slow, one, &path) >= delay);
        sync(&slow, other, &path);
        assert_eq!((slow.count(one), slow.count(other)), (1, 0));
        slow.set(one, Duration::ZERO).expect("written");
        sync(&slow, one, &path);
        assert_eq!(slow.count(one), 1, "as before");
    }
}
