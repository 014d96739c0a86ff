//! What a client can ask for, transactions aside: each command is a small struct with a constructor, and a [`Step`] is
//! any one of them.
//!
//! New variants and fields go to the end, for replicas read the bytes of older clients.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One command: an operation, or a part of a transaction. Transactions do not nest, so that
/// decoding one does not either.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// See [`Get`].
    Get(Get),
    /// See [`Put`].
    Put(Put),
    /// See [`Delete`].
    Delete(Delete),
    /// See [`Cas`].
    Cas(Cas),
    /// See [`Incr`].
    Incr(Incr),
    /// See [`Append`].
    Append(Append),
    /// See [`Add`].
    Add(Add),
    /// See [`Remove`].
    Remove(Remove),
    /// See [`Members`].
    Members(Members),
    /// See [`Scan`].
    Scan(Scan),
}

impl Step {
    /// Whether it changes nothing, whatever the state.
    pub(crate) fn only_reads(&self) -> bool {
        match self {
            Self::Get(_) | Self::Members(_) | Self::Scan(_) => true,
            Self::Put(_)
            | Self::Delete(_)
            | Self::Cas(_)
            | Self::Incr(_)
            | Self::Append(_)
            | Self::Add(_)
            | Self::Remove(_) => false,
        }
    }
}

/// Reads a plain value. An absent key answers `None`, a set is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// The key.
    pub key: Bytes,
}

impl Get {
    /// Reads `key`.
    pub fn new(key: impl Into<Bytes>) -> Self {
        Self { key: key.into() }
    }
}

/// Sets a plain value, whatever the key held before. By default a key has up to 4 KiB and a value up to 1 MiB
/// ([`Limits`](crate::Limits)), here as everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// The key.
    pub key: Bytes,
    /// Its value from now on.
    pub value: Bytes,
}

impl Put {
    /// Sets `key` to `value`.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

/// Removes a key, whatever it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// The key.
    pub key: Bytes,
}

impl Delete {
    /// Removes `key`.
    pub fn new(key: impl Into<Bytes>) -> Self {
        Self { key: key.into() }
    }
}

/// Compares and swaps: if the key holds what was expected, it gets the new value. A set is
/// refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cas {
    /// The key.
    pub key: Bytes,
    /// What it must hold; `None`: it must be absent.
    pub expected: Option<Bytes>,
    /// Its value from then on; `None`: it is removed.
    pub value: Option<Bytes>,
}

impl Cas {
    /// Sets `key` to `value` if it holds `expected`.
    pub fn new(key: impl Into<Bytes>, expected: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), expected: Some(expected.into()), value: Some(value.into()) }
    }

    /// Sets `key` to `value` if it is absent.
    pub fn create(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), expected: None, value: Some(value.into()) }
    }

    /// Removes `key` if it holds `expected`.
    pub fn delete(key: impl Into<Bytes>, expected: impl Into<Bytes>) -> Self {
        Self { key: key.into(), expected: Some(expected.into()), value: None }
    }
}

/// Adds to an integer; an absent key counts as 0. A value that is no canonical decimal, a set and
/// an overflow are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incr {
    /// The key.
    pub key: Bytes,
    /// What to add; negative to subtract.
    pub by: i64,
}

impl Incr {
    /// Adds `by` to `key`.
    pub fn new(key: impl Into<Bytes>, by: i64) -> Self {
        Self { key: key.into(), by }
    }
}

/// Appends to a plain value; an absent key counts as empty. A set is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// The key.
    pub key: Bytes,
    /// What to append.
    pub bytes: Bytes,
}

impl Append {
    /// Appends `bytes` to `key`.
    pub fn new(key: impl Into<Bytes>, bytes: impl Into<Bytes>) -> Self {
        Self { key: key.into(), bytes: bytes.into() }
    }
}

/// Puts a member into a set; an absent key counts as an empty set. A plain value is refused. By default a member has up
/// to 4 KiB, and all of a set up to 1 MiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Add {
    /// The key.
    pub key: Bytes,
    /// The member.
    pub member: Bytes,
}

impl Add {
    /// Puts `member` into the set at `key`.
    pub fn new(key: impl Into<Bytes>, member: impl Into<Bytes>) -> Self {
        Self { key: key.into(), member: member.into() }
    }
}

/// Takes a member out of a set. The key goes with the last one. A plain value is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remove {
    /// The key.
    pub key: Bytes,
    /// The member.
    pub member: Bytes,
}

impl Remove {
    /// Takes `member` out of the set at `key`.
    pub fn new(key: impl Into<Bytes>, member: impl Into<Bytes>) -> Self {
        Self { key: key.into(), member: member.into() }
    }
}

/// Reads a set; an absent key counts as an empty one. A plain value is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// The key.
    pub key: Bytes,
}

impl Members {
    /// Reads the set at `key`.
    pub fn new(key: impl Into<Bytes>) -> Self {
        Self { key: key.into() }
    }
}

/// Reads a range of keys in byte order, one page at a time. The pages of one scan are separate
/// operations: each is a consistent view, all together are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// The first key.
    pub from: Bytes,
    /// The key before which to stop; `None`: there is no end.
    pub to: Option<Bytes>,
    /// The most entries on the page. 0 counts as 1, so that every page gets on.
    pub limit: u32,
}

impl Scan {
    /// Reads all keys.
    #[must_use]
    pub fn all() -> Self {
        Self { from: Bytes::new(), to: None, limit: u32::MAX }
    }

    /// Reads the keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let from = prefix.into();
        // The first key behind all of them: the prefix with its last byte below 255 counted up.
        let to = from.iter().rposition(|byte| *byte < u8::MAX).map(|last| {
            let mut to = from[..=last].to_vec();
            to[last] += 1;
            to.into()
        });
        Self { from, to, limit: u32::MAX }
    }

    /// Reads the keys from `from` on and before `to`.
    pub fn range(from: impl Into<Bytes>, to: impl Into<Bytes>) -> Self {
        Self { from: from.into(), to: Some(to.into()), limit: u32::MAX }
    }

    /// At most this many entries a page.
    #[must_use]
    pub fn limit(self, limit: u32) -> Self {
        Self { limit, ..self }
    }

    /// Goes on at this key, the [`next`](crate::Page::next) of the page before.
    #[must_use]
    pub fn resume(self, next: Bytes) -> Self {
        Self { from: next, ..self }
    }
}

macro_rules! steps {
    ($($command:ident)*) => {$(
        impl From<$command> for Step {
            fn from(command: $command) -> Self {
                Self::$command(command)
            }
        }
    )*};
}
steps! { Get Put Delete Cas Incr Append Add Remove Members Scan }
