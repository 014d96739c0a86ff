//! Everything that happened in a world, as one digest and, if wanted, as lines to read.

use std::fmt;

use elea_protocol::id::hex;
use sha2::{Digest as _, Sha256};

/// See the [module](self).
pub struct Trace {
    hash: Sha256,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// A trace without lines, or with.
    #[must_use]
    pub fn new(verbose: bool) -> Self {
        Self { hash: Sha256::new(), lines: verbose.then(Vec::new) }
    }

    /// Something happened at `time`: `bytes` tell it apart from everything else.
    pub fn note(&mut self, time: u64, bytes: &[u8], line: fmt::Arguments<'_>) {
        self.hash.update(time.to_le_bytes());
        self.hash.update((bytes.len() as u64).to_le_bytes());
        self.hash.update(bytes);
        self.say(time, line);
    }

    /// A line that is not part of the digest.
    pub fn say(&mut self, time: u64, line: fmt::Arguments<'_>) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>10.3} ms  {line}", time as f64 / 1000.0));
        }
    }

    /// Over everything so far.
    #[must_use]
    pub fn digest(&self) -> String {
        hex(&self.hash.clone().finalize())
    }

    /// The lines, if they were wanted.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}
