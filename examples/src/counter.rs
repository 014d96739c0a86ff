//! The smallest useful application: one number, shared. Start here to replicate something else.
//!
//! Operations are bytes that clients send, so reading them must not panic; whatever else execution depends on is in the
//! [`Context`]. What was executed may be taken back: keeping the state after each slot is the easiest way. A state that is
//! small is a [`Whole`] snapshot; [`MerkleTrie`](elea_protocol::trie::MerkleTrie) cuts larger ones into chunks. A client is
//! in `src/bin/counter.rs`.

use std::collections::VecDeque;

use bytes::Bytes;
use elea_protocol::application::{
    Application, Command, Context, Snapshot, Undecodable, Whole, WholeRestore,
};
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
        bytes_of(self.0)
    }

    fn decode(&self, result: &Bytes) -> Result<Option<i64>, Undecodable> {
        if result.is_empty() { Ok(None) } else { number(result).map(Some).ok_or(Undecodable) }
    }
}

fn bytes_of(number: i64) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

fn number(bytes: &[u8]) -> Option<i64> {
    bytes.try_into().ok().map(i64::from_le_bytes)
}

impl Default for Counter {
    fn default() -> Self {
        Self { value: 0, saved: [(Slot::GENESIS, 0)].into() }
    }
}

impl Application for Counter {
    type Snapshot = Whole;
    type Restore = WholeRestore;

    fn execute(&mut self, _context: &Context, operation: &Bytes) -> Bytes {
        let sum = number(operation).and_then(|by| self.value.checked_add(by));
        self.value = sum.unwrap_or(self.value);
        sum.map(bytes_of).unwrap_or_default()
    }

    fn end_slot(&mut self, slot: Slot) {
        self.saved.push_back((slot, self.value));
    }

    fn undo_to(&mut self, slot: Slot) {
        self.saved.retain(|(saved, _)| *saved <= slot);
        self.value = self.saved.back().expect("permanent slots are not undone").1;
    }

    fn make_permanent(&mut self, slot: Slot) {
        self.saved.retain(|(saved, _)| *saved >= slot);
    }

    fn digest(&mut self) -> Digest {
        self.snapshot().digest()
    }

    fn snapshot(&self) -> Whole {
        Whole::new(bytes_of(self.value))
    }

    fn restore(&self, digest: Digest) -> WholeRestore {
        WholeRestore::new(digest)
    }

    fn open(&mut self, slot: Slot, digest: Digest, rows: RowsView) -> Result<(), Unreadable> {
        let state = number(&Whole::stored(digest, &rows)?);
        self.value = state.ok_or_else(|| Unreadable(String::from("no number")))?;
        self.saved = [(slot, self.value)].into();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
