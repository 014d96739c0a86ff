//! What every decoder, and a whole cluster, must bear of arbitrary bytes: targets for a fuzzer.
//!
//! A target is a function of bytes that panics where something is wrong. `libfuzzer/` makes a program of each for
//! cargo-fuzz, which looks for bytes that lead to new code; what it found of interest is in `corpus/`, by target, and is
//! run by the tests here, as it is and a little changed. See `docs/testing.md`.

mod kv;
mod messages;
mod texts;
mod worlds;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Something that bytes are fed to.
#[derive(Clone, Copy)]
pub struct Target {
    /// As its corpus and its program are called.
    pub name: &'static str,
    /// Panics where something is wrong.
    pub run: fn(&[u8]),
    /// A few inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "to_replica", run: messages::to_replica, seeds: messages::of_replicas },
    Target { name: "to_client", run: messages::to_client, seeds: messages::of_clients },
    Target { name: "stored", run: messages::stored, seeds: messages::of_disks },
    Target { name: "receipt", run: messages::receipt, seeds: messages::receipts },
    Target { name: "cluster_file", run: texts::cluster_file, seeds: texts::cluster_files },
    Target { name: "address", run: texts::address, seeds: texts::addresses },
    Target { name: "key_file", run: texts::key_file, seeds: texts::key_files },
    Target { name: "session_file", run: texts::session_file, seeds: texts::session_files },
    Target { name: "backup", run: texts::backup, seeds: texts::backups },
    Target { name: "operations", run: kv::operations, seeds: kv::operation_lists },
    Target { name: "answer", run: kv::answer, seeds: kv::answers },
    Target { name: "world", run: worlds::world, seeds: worlds::seeds },
];

/// The target of this name.
#[must_use]
pub fn named(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}

impl Target {
    /// Where its corpus is.
    #[must_use]
    pub fn corpus(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(self.name)
    }

    /// Its corpus, by file name.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn inputs(&self) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
        let mut paths: Vec<PathBuf> = fs::read_dir(self.corpus())?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<_>>()?;
        paths.sort();
        paths.into_iter().map(|path| fs::read(&path).map(|bytes| (path, bytes))).collect()
    }

    /// Writes its seeds into its corpus.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn sow(&self) -> io::Result<()> {
        fs::create_dir_all(self.corpus())?;
        for (index, seed) in (self.seeds)().into_iter().enumerate() {
            fs::write(self.corpus().join(format!("seed-{index:02}")), seed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
