//! The smallest useful application: one number, shared. Start here to replicate something else.
//!
//! An application needs five things, and each is a few lines:
//!
//! 1. **Operations**: bytes that [`Application::execute`] reads. Clients send any bytes, so
//!    reading them must not panic. Whatever it needs beside them and the state, such as time or
//!    randomness, is in the [`Context`]: the same input must give the same result everywhere.
//! 2. **Undo**: what was executed may have to be taken back. Keeping the state after each slot is
//!    the easiest way; where the state is large, keep it in persistent structures, so that the
//!    states of neighbouring slots share what they have in common.
//! 3. **A digest**: equal for equal states and no others.
//! 4. **A snapshot**, in chunks that can be checked one by one. A state that fits a frame is one
//!    chunk; [`MerkleTrie`](elea_protocol::trie::MerkleTrie) cuts larger ones. The chunks are also
//!    what is kept on disk; an application that writes only what changed has a little more to do.
//! 5. **Commands** for clients: a type for each operation, with what it answers. `src/bin/counter.rs` is a client.

use std::collections::VecDeque;

use bytes::Bytes;
use elea_protocol::application::{
    Application, BadChunk, Command, Context, Restore, Snapshot, Undecodable, rebuilt,
};
use elea_protocol::codec::{Canonical, Sink};
use elea_protocol::id::{Digest, Slot};
use elea_protocol::rows::{RowsView, Unreadable};

/// A number that all clients add to.
pub struct Counter {
    value: i64,
    /// The value after each slot that may still be undone, and after the last permanent one.
    saved: VecDeque<(Slot, i64)>,
}

/// Adds to the counter, and answers the sum. `AddToCounter(0)` reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddToCounter(pub i64);

impl Command for AddToCounter {
    /// The sum; `None`: it would not fit, and nothing was added.
    type Output = Option<i64>;

    fn encode(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_le_bytes())
    }

    fn decode(&self, result: &Bytes) -> Result<Option<i64>, Undecodable> {
        if result.is_empty() { Ok(None) } else { number(result).map(Some).ok_or(Undecodable) }
    }
}

fn number(bytes: &[u8]) -> Option<i64> {
    bytes.try_into().ok().map(i64::from_le_bytes)
}

struct CounterState(i64);

impl Canonical for CounterState {
    const TAG: &'static str = "counter-state";

    fn write(&self, to: &mut impl Sink) {
        to.put(&self.0.to_le_bytes());
    }
}

impl Counter {
    /// A counter at 0.
    #[must_use]
    pub fn new() -> Self {
        Self { value: 0, saved: [(Slot::GENESIS, 0)].into() }
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self::new()
    }
}

impl Application for Counter {
    type Snapshot = CounterSnapshot;
    type Restore = CounterRestore;

    fn execute(&mut self, _context: &Context, operation: &Bytes) -> Bytes {
        match number(operation).and_then(|by| self.value.checked_add(by)) {
            Some(sum) => {
                self.value = sum;
                Bytes::copy_from_slice(&sum.to_le_bytes())
            }
            None => Bytes::new(),
        }
    }

    fn end_slot(&mut self, slot: Slot) {
        self.saved.push_back((slot, self.value));
    }

    fn undo_to(&mut self, slot: Slot) {
        self.saved.retain(|(saved, _)| *saved <= slot);
        self.value = self.saved.back().expect("permanent slots are not undone").1;
    }

    fn make_permanent(&mut self, slot: Slot) {
        while self.saved.get(1).is_some_and(|(saved, _)| *saved <= slot) {
            self.saved.pop_front();
        }
    }

    fn digest(&mut self) -> Digest {
        CounterState(self.value).digest()
    }

    fn snapshot(&self) -> CounterSnapshot {
        CounterSnapshot(self.value)
    }

    fn restore(&self, digest: Digest) -> CounterRestore {
        CounterRestore { digest, value: None }
    }

    fn open(&mut self, slot: Slot, digest: Digest, rows: RowsView) -> Result<(), Unreadable> {
        let restored = rebuilt(self.restore(digest), &rows)?;
        self.value = restored.value.unwrap_or_default();
        self.saved = [(slot, self.value)].into();
        Ok(())
    }
}

/// The value at some slot: one chunk of 8 bytes.
pub struct CounterSnapshot(i64);

impl Snapshot for CounterSnapshot {
    fn digest(&self) -> Digest {
        CounterState(self.0).digest()
    }

    fn chunks(&self) -> u32 {
        1
    }

    fn chunk(&self, index: u32) -> Option<Bytes> {
        (index == 0).then(|| Bytes::copy_from_slice(&self.0.to_le_bytes()))
    }
}

/// The value to be, once its one chunk has come.
pub struct CounterRestore {
    digest: Digest,
    value: Option<i64>,
}

impl Restore for CounterRestore {
    fn accept(&mut self, index: u32, chunk: &Bytes) -> Result<(), BadChunk> {
        let value = number(chunk).filter(|value| CounterState(*value).digest() == self.digest);
        self.value = Some(value.filter(|_| index == 0).ok_or(BadChunk)?);
        Ok(())
    }

    fn missing(&self) -> Option<u32> {
        self.value.is_none().then_some(0)
    }
}

#[cfg(test)]
mod tests;
