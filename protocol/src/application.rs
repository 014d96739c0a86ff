//! What a replicated application must be able to do.
//!
//! An application is a deterministic state machine. It runs *speculatively*: a slot that was
//! executed may be undone again, as long as it is above the last slot made permanent. The
//! protocol never merges states; after a partition it undoes one side's slots and executes
//! operations anew.
//!
//! # On disk
//!
//! What is permanent lies on disk in [rows](crate::rows). A small application need not know: the
//! provided methods keep the chunks of its snapshot there, and [`Whole`] is a snapshot of one chunk. One whose state may outgrow the memory
//! writes only [what changed](Application::changes) and reads what it needs.

mod whole;

use std::ops::RangeInclusive;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

pub use whole::{Whole, WholeRestore};

use crate::id::{ClientId, Digest, RequestNumber, SessionId, Slot, WallTime};
use crate::message::Level;
use crate::rows::{Changes, Row, RowsView, Unreadable};

/// Everything an operation may depend on beside the state and its own bytes.
///
/// It is the same on every replica that executes the operation in the same history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The slot of the batch that holds the operation.
    pub slot: Slot,
    /// The position of the operation among all operations of the slot, from 0.
    pub index: u32,
    /// Who signed the request.
    pub client: ClientId,
    /// The session of the request.
    pub session: SessionId,
    /// The number of the request in its session.
    pub number: RequestNumber,
    /// The primary's wall time for the slot. It never decreases along a history.
    pub time: WallTime,
    /// The primary's random choice for the slot; see [`Context::random`].
    pub seed: [u8; 16],
    /// What the client asked for.
    pub level: Level,
    /// By which of its [editions](Application::editions) the application executes the slot. It never falls along a
    /// history.
    pub edition: u16,
}

impl Context {
    /// 32 random bytes, the same on every replica, different for every `(slot, index, draw)`.
    ///
    /// The primary chooses the seed, so do not gamble against it.
    #[must_use]
    pub fn random(&self, draw: u32) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"elea/1/random");
        hash.update(self.seed);
        hash.update(self.slot.0.to_le_bytes());
        hash.update(self.index.to_le_bytes());
        hash.update(draw.to_le_bytes());
        hash.finalize().into()
    }
}

/// A deterministic state machine that the protocol replicates.
///
/// Slots are executed in order. Between two calls of [`Application::end_slot`] all operations
/// have the same [`Context::slot`], one above the last.
///
/// # Example
///
/// A register that holds what was written last. The counter in the repository's `examples/` is the same with
/// commands for clients, and with tests.
///
/// ```
/// use bytes::Bytes;
/// use elea_protocol::application::{Application, Context, Snapshot, Whole, WholeRestore};
/// use elea_protocol::id::{Digest, Slot};
/// use elea_protocol::rows::{RowsView, Unreadable};
///
/// struct Register {
///     value: Bytes,
///     /// After each slot that may be undone, and after the last permanent one.
///     saved: Vec<(Slot, Bytes)>,
/// }
///
/// impl Application for Register {
///     type Snapshot = Whole;
///     type Restore = WholeRestore;
///
///     /// Writes the bytes, and answers those before.
///     fn execute(&mut self, _: &Context, operation: &Bytes) -> Bytes {
///         std::mem::replace(&mut self.value, operation.clone())
///     }
///     fn end_slot(&mut self, slot: Slot) {
///         self.saved.push((slot, self.value.clone()));
///     }
///     fn undo_to(&mut self, slot: Slot) {
///         self.saved.retain(|(saved, _)| *saved <= slot);
///         self.value = self.saved.last().expect("permanent slots stay").1.clone();
///     }
///     fn make_permanent(&mut self, slot: Slot) {
///         self.saved.retain(|(saved, _)| *saved >= slot);
///     }
///     fn digest(&mut self) -> Digest {
///         self.snapshot().digest()
///     }
///     fn snapshot(&self) -> Whole {
///         Whole::new(self.value.clone())
///     }
///     fn restore(&self, digest: Digest) -> WholeRestore {
///         WholeRestore::new(digest)
///     }
///     fn open(&mut self, slot: Slot, digest: Digest, rows: RowsView) -> Result<(), Unreadable> {
///         self.value = Whole::stored(digest, &rows)?;
///         self.saved = vec![(slot, self.value.clone())];
///         Ok(())
///     }
/// }
/// ```
pub trait Application: Send {
    /// See [`Application::snapshot`].
    type Snapshot: Snapshot;
    /// See [`Application::restore`].
    type Restore: Restore;

    /// Executes one operation and answers its result. Whatever the bytes are, it must not panic:
    /// they come from a client, and a malformed operation is answered with an error result.
    fn execute(&mut self, context: &Context, operation: &Bytes) -> Bytes;

    /// About the bytes that this operation may keep in memory until it can no longer be undone,
    /// beside its own and the 2 KiB that count for every operation. The bound of the speculative
    /// history and that of a slot count it, and are checked before anything is executed, also for
    /// histories that are not the own one. So it must follow from the operation's bytes alone, be the
    /// same on every replica, and be the most, whatever the state. Of the operations of one
    /// request no more than [`APPLICATION_WEIGHT_MAX`](crate::message::APPLICATION_WEIGHT_MAX) counts,
    /// so an application whose operations may come to more has to refuse what goes beyond it. It is the same in all
    /// [editions](Application::editions).
    fn weight(&self, _operation: &Bytes) -> u64 {
        0
    }

    /// What operations come to in the present state, without changing anything, if they change nothing and depend on
    /// nothing but the state, by the rules of this [edition](Application::editions): no time, no randomness, no client, no
    /// place. `None` where that is not so, or cannot be
    /// told, or is dear: then they are [executed](Application::execute), all of them as the operations of one request. It is
    /// called between slots only, by the thread that has the replica, so it must be cheap.
    fn query(&self, _edition: u16, _operations: &[Bytes]) -> Option<Queried> {
        None
    }

    /// All operations of `slot` have been executed.
    fn end_slot(&mut self, slot: Slot);

    /// Takes back everything above `slot`, which is not below the last permanent slot.
    fn undo_to(&mut self, slot: Slot);

    /// Nothing at or below `slot` will be undone: what was kept for it may go.
    fn make_permanent(&mut self, slot: Slot);

    /// The digest of the present state. Its cost grows with what changed since it was last asked
    /// for, not with the state. Two equal states have equal digests, however they came about.
    fn digest(&mut self) -> Digest;

    /// A view of the present state that later changes do not touch, made without copying it.
    fn snapshot(&self) -> Self::Snapshot;

    /// Starts to rebuild the state with the given digest, chunk by chunk. The present state stays
    /// in place.
    fn restore(&self, digest: Digest) -> Self::Restore;

    /// Puts the state that lies in these rows in place, as the permanent state of `slot`. Where it
    /// fails, the state before stays in place. [`rebuilt`] does it for who keeps chunks in the rows.
    ///
    /// # Errors
    /// The rows are damaged, or are not those of the state with this digest.
    fn open(&mut self, slot: Slot, digest: Digest, rows: RowsView) -> Result<(), Unreadable>;

    /// What is to be written, so that this snapshot's state, which is of a permanent slot, lies in
    /// the rows that were [opened](Application::open) or [stored](Application::stored) last. It comes in parts,
    /// so that nobody waits long for it: they are asked for one after the other from 0 on, perhaps
    /// with operations executed in between, and `None` comes after the last. None is larger than a chunk
    /// can be, and no two change the same row.
    ///
    /// # Errors
    /// What is there cannot be read.
    fn changes(
        &mut self,
        snapshot: &Self::Snapshot,
        part: u32,
    ) -> Result<Option<Changes>, Unreadable> {
        Ok(snapshot.chunk(part).map(|chunk| vec![(chunk_key(part), Some(chunk))]))
    }

    /// The [changes](Application::changes) asked for last are on disk, and these are the rows now.
    /// What is in memory for the state of that snapshot alone may go.
    fn stored(&mut self, _slot: Slot, _rows: RowsView) {}

    /// Why the present state, and every result since, is not to be trusted: rows could not be read.
    fn trouble(&self) -> Option<Unreadable> {
        None
    }

    /// The settings that decide what it makes of operations, with their values, and what tells it from other
    /// applications: replicas of which one differs do not speak to each other. See
    /// [`Terms`](crate::message::Terms) for the bounds.
    fn settings(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// The versions of its operations and of its state that it can execute, of which each slot
    /// [names one](Context::edition). Whatever changes the result of an operation, or the digest of a state, is a new one;
    /// replicas go over to it when all of them can execute it, so the one before has to stay for as long as there are
    /// programs that know no other.
    fn editions(&self) -> RangeInclusive<u16> {
        1..=1
    }

    /// An operation was executed anew after a merge and its result changed.
    fn reordered(&mut self, _context: &Context, _before: &Bytes, _after: &Bytes) {}
}

/// What operations come to that change nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queried {
    /// One for each operation: what [`Application::execute`] would answer.
    pub results: Vec<Bytes>,
    /// A slot, not after the last one that was executed, since which they come to the same: after it, and after each one
    /// that was executed since. There may be lower ones. `None` where that is known of the last one alone.
    pub since: Option<Slot>,
}

/// A state frozen at some slot, to be sent in chunks.
pub trait Snapshot: Send + Sync + 'static {
    /// The digest of the frozen state.
    fn digest(&self) -> Digest;

    /// How many chunks there are; at least 1.
    fn chunks(&self) -> u32;

    /// One chunk with what is needed to check it alone against the digest; `None` past the end, and
    /// where it cannot be read from disk.
    fn chunk(&self, index: u32) -> Option<Bytes>;
}

/// The key of the row in which the provided methods keep a chunk.
fn chunk_key(index: u32) -> Bytes {
    Bytes::copy_from_slice(&index.to_be_bytes())
}

/// Rebuilds a state from the chunks that lie in these rows.
///
/// # Errors
/// One is damaged or missing.
pub fn rebuilt<R: Restore>(mut restore: R, rows: &RowsView) -> Result<R, Unreadable> {
    restore.resume(rows)?;
    match restore.missing() {
        None => Ok(restore),
        Some(index) => Err(Unreadable(format!("chunk {index} is missing"))),
    }
}

/// A state being rebuilt from chunks.
pub trait Restore: Send + 'static {
    /// Checks a chunk against the digest and keeps it. Chunks come in any order, repeated or not.
    ///
    /// # Errors
    /// The chunk does not belong to the state with this digest: whoever sent it lied.
    fn accept(&mut self, index: u32, chunk: &Bytes) -> Result<(), BadChunk>;

    /// The lowest chunk still missing; `None` when the state is whole.
    fn missing(&self) -> Option<u32>;

    /// The chunks still missing from this one on, lowest first, as far as they are known yet.
    fn missing_from(&self, first: u32) -> Option<u32> {
        self.missing().filter(|index| *index >= first)
    }

    /// How many chunks there are, once that is known.
    fn chunks(&self) -> Option<u32> {
        None
    }

    /// The rows that a chunk comes to, which was just accepted. With [`Restore::rest`] they are all
    /// rows of the state.
    fn rows(&mut self, index: u32, chunk: &Bytes) -> Vec<Row> {
        vec![(chunk_key(index), chunk.clone())]
    }

    /// The rows that belong to no chunk of their own, when the state is whole.
    fn rest(&mut self) -> Vec<Row> {
        Vec::new()
    }

    /// Goes on with what was stored before a crash.
    ///
    /// # Errors
    /// A row is damaged, or none of this state.
    fn resume(&mut self, rows: &RowsView) -> Result<(), Unreadable> {
        let mut first = 0;
        // Chunks come in any order, so there may be more behind one that is missing.
        while let Some(index) = self.missing_from(first) {
            first = index + 1;
            let Some(chunk) = rows.get(&chunk_key(index))? else { continue };
            let refused = |BadChunk| Unreadable(format!("chunk {index} is of another state"));
            self.accept(index, &chunk).map_err(refused)?;
        }
        Ok(())
    }
}

/// A chunk that does not belong to the state it was offered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chunk does not match the certified digest")]
pub struct BadChunk;

/// An operation of some application, with the type of what it answers.
///
/// The client library takes anything that implements this, and so knows no application.
pub trait Command {
    /// What came out, decoded: also that the application refused, for that is an answer.
    type Output;

    /// The operation's bytes, as [`Application::execute`] takes them.
    fn encode(&self) -> Bytes;

    /// Whether it may do or return so much that it should have a request of its own, where the application
    /// limits what one request may do.
    fn is_bulk(&self) -> bool {
        false
    }

    /// Whether it changes nothing, whatever the state: then it can be a query that no slot holds, which
    /// [`Application::query`] answers.
    fn only_reads(&self) -> bool {
        false
    }

    /// Reads what [`Application::execute`] answered to this operation.
    ///
    /// # Errors
    /// No correct replica answers these bytes.
    fn decode(&self, result: &Bytes) -> Result<Self::Output, Undecodable>;
}

/// A result that the operation cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the result is none that this operation can have: do client and cluster run the same application?"
)]
pub struct Undecodable;
