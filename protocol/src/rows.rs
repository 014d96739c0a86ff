//! What an application keeps on disk: rows of bytes, seen as they are at one moment.
//!
//! A state need not fit into memory. Its permanent part lies in rows that the driver stores in the
//! same database as the protocol's records, and in memory is only what differs from them. The
//! application never writes: it says what has changed, the core makes that part of a record, and
//! when the record is durable the driver hands over a new view. So rows and history can never part.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

/// A row: its key and its value.
pub type Row = (Bytes, Bytes);

/// What becomes of rows: the value from now on, or nothing.
pub type Changes = Vec<(Bytes, Option<Bytes>)>;

/// The rows of one state, as they are on disk and stay as long as the view is held.
pub type RowsView = Arc<dyn Rows>;

/// A row is damaged or the disk does not answer. The state that it is part of is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored state cannot be read: {0}")]
pub struct Unreadable(pub String);

/// Rows in the order of their keys, that nobody changes.
pub trait Rows: Debug + Send + Sync {
    /// The value under a key; `None` where there is none.
    ///
    /// # Errors
    /// The row is damaged or cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable>;

    /// All rows with keys from the first bound to the second, in order. After an error comes nothing.
    fn range<'a>(
        &'a self,
        from: &[u8],
        to: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Row, Unreadable>> + 'a>;
}

/// The rows whose keys begin with something, as if they were all there are: their keys are without it.
#[derive(Debug)]
pub struct Under<'a> {
    rows: &'a dyn Rows,
    prefix: Vec<u8>,
}

impl<'a> Under<'a> {
    /// The rows under this prefix.
    #[must_use]
    pub fn new(rows: &'a dyn Rows, prefix: Vec<u8>) -> Self {
        Self { rows, prefix }
    }

    /// The whole key of a row.
    #[must_use]
    pub fn key(&self, key: &[u8]) -> Bytes {
        [&self.prefix, key].concat().into()
    }
}

impl Rows for Under<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        self.rows.get(&self.key(key))
    }

    fn range<'a>(
        &'a self,
        from: &[u8],
        to: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Row, Unreadable>> + 'a> {
        let to = to.map(|to| self.key(to));
        let to = to.as_ref().map(|to| &to[..]);
        let rows = self.rows.range(&self.key(from), to);
        let ours = rows
            .take_while(|row| row.as_ref().map_or(true, |(key, _)| key.starts_with(&self.prefix)));
        Box::new(ours.map(|row| row.map(|(key, value)| (key.slice(self.prefix.len()..), value))))
    }
}

/// Rows in memory: for tests and for simulated disks. An empty one is where every state begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryRows {
    rows: BTreeMap<Bytes, Bytes>,
    spoilt: BTreeSet<Bytes>,
}

impl MemoryRows {
    /// A view of no rows at all.
    #[must_use]
    pub fn none() -> RowsView {
        Arc::new(Self::default())
    }

    /// Makes these changes, in their order.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = (Bytes, Option<Bytes>)>) {
        for (key, value) in changes {
            self.spoilt.remove(&key);
            match value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }

    /// Damages a row: from now on it cannot be read, as if its checksum were wrong.
    pub fn spoil(&mut self, key: Bytes) {
        self.spoilt.insert(key);
    }

    fn check(&self, key: &[u8]) -> Result<(), Unreadable> {
        match self.spoilt.get(key) {
            None => Ok(()),
            Some(key) => Err(Unreadable(format!("the row at {key:?} is spoilt"))),
        }
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All rows in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.rows.iter()
    }
}

impl Rows for MemoryRows {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        self.check(key)?;
        Ok(self.rows.get(key).cloned())
    }

    fn range<'a>(
        &'a self,
        from: &[u8],
        to: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Row, Unreadable>> + 'a> {
        // A map panics on a range that ends before it begins.
        let is_empty = match to {
            Bound::Included(to) => to < from,
            Bound::Excluded(to) => to <= from,
            Bound::Unbounded => false,
        };
        if is_empty {
            return Box::new(std::iter::empty());
        }
        let rows = self.rows.range::<[u8], _>((Bound::Included(from), to));
        Box::new(rows.map(|(key, value)| {
            self.check(key)?;
            Ok((key.clone(), value.clone()))
        }))
    }
}
