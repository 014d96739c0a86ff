//! The rows of an application's state: a keyspace for each state, read through snapshots.
//!
//! A state that takes the place of another has a keyspace of its own, named by its *generation*, and
//! the one before is dropped as a whole: nothing of it has to be read or compacted, which may be
//! damaged.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::id::ReplicaId;
use elea_protocol::rows::{Row, Rows, RowsView, Unreadable};
use fjall::compaction::Leveled;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, Readable as _, Snapshot};

use super::error::patiently;
use super::layout::{CHECKSUM, checksum, spread};
use super::opening::plain;

/// With what the names of these keyspaces begin.
const PREFIX: &str = "rows-";

/// For checksums: a row stays what it is in whichever generation it lies.
const ROWS: &str = "rows";

/// What is written to a keyspace before it goes to a file, in bytes, at least.
const MEMTABLE_BYTES: u64 = 8 << 20;

/// So many memtables that have been written, 32 MiB in all and more, are merged at a time into the level
/// below them...
const L0_TABLES: u8 = 4;

/// ...of so many tables of this size, in bytes, each level below that being ten times as large. The
/// keys are hashes, so what is merged meets all of the next level: with fjall's defaults 16 MiB would
/// meet 256, and each row of a state smaller than that would be written sixteen times.
const TABLE_BYTES: u64 = 16 << 20;

pub(super) fn name(generation: u64) -> String {
    format!("{PREFIX}{generation}")
}

/// The generation of a keyspace of this name; `None` where it is none of rows.
pub(super) fn generation(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

pub(super) fn options(me: ReplicaId) -> KeyspaceCreateOptions {
    let levels =
        Leveled::default().with_l0_threshold(L0_TABLES).with_table_target_size(TABLE_BYTES);
    KeyspaceCreateOptions::default()
        .max_memtable_size(spread(MEMTABLE_BYTES, me))
        .compaction_strategy(Arc::new(levels))
}

/// What is stored for a value.
pub(super) fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    [&checksum(ROWS, key, value)[..], value].concat()
}

fn unseal(key: &[u8], stored: &[u8]) -> Result<Bytes, Unreadable> {
    match stored.split_first_chunk::<CHECKSUM>() {
        Some((sum, value)) if *sum == checksum(ROWS, key, value) => {
            Ok(Bytes::copy_from_slice(value))
        }
        _ => {
            let place = elea_protocol::id::hex(key);
            Err(Unreadable(format!("the row at {place} does not match its checksum")))
        }
    }
}

fn unreadable(error: &fjall::Error) -> Unreadable {
    Unreadable(plain(error))
}

/// The rows of a generation, as they are now.
pub(super) fn view(database: &Database, keyspace: &Keyspace) -> RowsView {
    Arc::new(Frozen { snapshot: database.snapshot(), keyspace: keyspace.clone() })
}

/// Rows that were damaged and have been given up.
pub(super) fn lost(generation: u64) -> RowsView {
    Arc::new(Lost(generation))
}

#[derive(Debug)]
struct Lost(u64);

impl Lost {
    fn why(&self) -> Unreadable {
        Unreadable(format!("{} was damaged and has been given up", name(self.0)))
    }
}

impl Rows for Lost {
    fn get(&self, _key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        Err(self.why())
    }

    fn range<'a>(
        &'a self,
        _from: &[u8],
        _to: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Row, Unreadable>> + 'a> {
        Box::new(std::iter::once(Err(self.why())))
    }
}

struct Frozen {
    snapshot: Snapshot,
    keyspace: Keyspace,
}

impl fmt::Debug for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", &**self.keyspace.name(), self.snapshot.seqno())
    }
}

impl Rows for Frozen {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        let stored = patiently(|| self.snapshot.get(&self.keyspace, key));
        let stored = stored.map_err(|error| unreadable(&error))?;
        stored.map(|stored| unseal(key, &stored)).transpose()
    }

    fn range<'a>(
        &'a self,
        from: &[u8],
        to: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Row, Unreadable>> + 'a> {
        let from = Bound::Included(from.to_vec());
        let to = to.map(<[u8]>::to_vec);
        Box::new(Range { frozen: self, rows: None, from, to })
    }
}

/// Rows in the order of their keys. Where the system is short of something in the middle of it, it waits
/// and goes on behind the last row.
struct Range<'a> {
    frozen: &'a Frozen,
    rows: Option<fjall::Iter>,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
}

impl Range<'_> {
    fn read(&mut self) -> Option<fjall::Result<(fjall::Slice, fjall::Slice)>> {
        let Self { frozen, rows, from, to } = self;
        let begin = || frozen.snapshot.range(&frozen.keyspace, (from.clone(), to.clone()));
        rows.get_or_insert_with(begin).next().map(fjall::Guard::into_inner)
    }
}

impl Iterator for Range<'_> {
    type Item = Result<Row, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = patiently(|| {
            let read = self.read().transpose();
            if read.is_err() {
                self.rows = None;
            }
            read
        });
        match read {
            Ok(None) => None,
            Ok(Some((key, stored))) => {
                self.from = Bound::Excluded(key.to_vec());
                let value = unseal(&key, &stored);
                Some(value.map(|value| (Bytes::copy_from_slice(&key), value)))
            }
            Err(error) => {
                // Nothing follows what cannot be read.
                self.to = self.from.clone();
                Some(Err(unreadable(&error)))
            }
        }
    }
}
