//! What comes out of an operation.

use std::fmt;

use bytes::Bytes;
use elea_protocol::application::Undecodable;
use elea_protocol::codec;
use elea_protocol::id::Slot;
use serde::{Deserialize, Serialize};

/// Which operation wrote something: its slot, and its index among the operations of the slot.
/// Later writes have greater versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The slot.
    pub slot: Slot,
    /// The index in it, from 0.
    pub index: u32,
}

impl Version {
    /// Before every write: comparisons take it for that of an absent key.
    pub const NONE: Self = Self { slot: Slot::GENESIS, index: 0 };
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.index)
    }
}

/// All that an operation can be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The outcome of a single step.
    Step(Outcome),
    /// The outcome of a transaction.
    Txn(TxnOutcome),
    /// Nothing was done.
    Refused(Refused),
}

/// What came out of one step, a variant for each command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The value, unless the key is absent.
    Get(Option<Found>),
    /// The version written.
    Put(Version),
    /// The version of the removal; `None`: the key was absent already.
    Delete(Option<Version>),
    /// Whether the value was as expected.
    Cas(Swap),
    /// The sum.
    Incr(Counted),
    /// The new length.
    Append(Appended),
    /// Whether the member is new.
    Add(Added),
    /// Whether the member was there.
    Remove(Removed),
    /// The members.
    Members(MemberList),
    /// A page.
    Scan(Page),
}

/// A plain value that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The value; an integer as decimal text.
    pub value: Bytes,
    /// Who wrote it.
    pub version: Version,
}

/// What became of a `cas`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Swap {
    /// The key held what was expected. The version is what was written; `None` where an absent
    /// key was to be removed, which writes nothing.
    Done(Option<Version>),
    /// The key holds this instead, or nothing. Nothing was written.
    Mismatch(Option<Found>),
}

/// What an `incr` led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The sum.
    pub value: i64,
    /// The version written.
    pub version: Version,
}

/// What an `append` led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// The bytes that the value has now.
    pub length: u64,
    /// The version written.
    pub version: Version,
}

/// What an `add` led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Whether the member is new. If it was there already, nothing was written.
    pub added: bool,
    /// The version of the set, which is the one written if the member is new.
    pub version: Version,
}

/// What a `remove` led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Whether the member was there. If it was not, nothing was written.
    pub removed: bool,
    /// The version written; if nothing was, the version of the set, if there is one.
    pub version: Option<Version>,
}

/// A set that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberList {
    /// The members in byte order.
    pub members: Vec<Bytes>,
    /// Who wrote the set last; `None`: the key is absent.
    pub version: Option<Version>,
}

/// One page of a scan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The entries, in byte order of their keys.
    pub items: Vec<Item>,
    /// The key at which the next page begins, for [`Scan::resume`](crate::Scan::resume);
    /// `None`: this is the last page.
    pub next: Option<Bytes>,
}

/// A key with what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The key.
    pub key: Bytes,
    /// What it holds.
    pub value: Value,
    /// Who wrote it last.
    pub version: Version,
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// A plain value.
    Bytes(Bytes),
    /// A plain value that was last written by `incr`.
    Integer(i64),
    /// A set, its members in byte order.
    Set(Vec<Bytes>),
}

/// What came out of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnOutcome {
    /// Whether all comparisons held, so that `then` was done, and not `otherwise`.
    pub succeeded: bool,
    /// The outcome of each step.
    pub outcomes: Vec<Outcome>,
    /// The version of everything that the transaction wrote; [`Version::NONE`] where it was read without being ordered.
    pub version: Version,
}

/// Nothing was done, for a reason that trying again does not change as long as the state is what
/// it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Refused {
    /// What stands against it.
    pub reason: Reason,
    /// Which step of the transaction, from 0, if it was one.
    pub step: Option<u32>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            Some(step) => write!(f, "step {step} of the transaction: {}", self.reason),
            None => self.reason.fmt(f),
        }
    }
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self { reason, step: None }
    }
}

/// Why an operation is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Reason {
    /// The bytes are no operation.
    #[error("the operation is malformed")]
    Malformed,
    /// Something is larger than [`Limits`](crate::Limits) allow.
    #[error("{what} would be {size}, and {most} is the most")]
    TooLarge {
        /// The thing that is too large, or the budget that is used up.
        what: Quantity,
        /// How large it is or would become.
        size: u64,
        /// How large it may be.
        most: u64,
    },
    /// A plain value is needed, but the key holds a set.
    #[error("the key holds a set, and the operation needs a plain value")]
    HoldsSet,
    /// A set is needed, but the key holds a plain value.
    #[error("the key holds a plain value, and the operation needs a set")]
    HoldsValue,
    /// The value to be incremented is no integer.
    #[error("the value is no integer of 64 bits in canonical decimal")]
    NotAnInteger,
    /// The sum does not fit.
    #[error("{value} incremented by {by} does not fit 64 bits")]
    Overflow {
        /// What the key holds.
        value: i64,
        /// What was to be added.
        by: i64,
    },
    /// With this operation the request would cost more than [`Limits`](crate::Limits) allow one
    /// request.
    #[error(
        "{what} would be {size}, and {most} is the most: ask for less at a time, in several requests"
    )]
    OverBudget {
        /// The thing that is too large, or the budget that is used up.
        what: Quantity,
        /// How much it would be.
        size: u64,
        /// How much it may be.
        most: u64,
    },
}

/// What [`Reason::TooLarge`] and [`Reason::OverBudget`] speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quantity {
    /// The bytes of a key.
    Key,
    /// The bytes of a plain value.
    Value,
    /// The bytes of a member.
    Member,
    /// The bytes of a set.
    Set,
    /// The comparisons of a transaction.
    Compares,
    /// The operations in one list of a transaction.
    Steps,
    /// The bytes of the results of a transaction.
    TxnResult,
    /// The steps of a request.
    RequestSteps,
    /// The bytes that a request reads.
    RequestRead,
    /// The bytes that a request keeps in memory.
    RequestKept,
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "the size of the key in bytes",
            Self::Value => "the size of the value in bytes",
            Self::Member => "the size of the member in bytes",
            Self::Set => "the size of the set in bytes",
            Self::Compares => "the number of comparisons",
            Self::Steps => "the number of operations in the transaction",
            Self::TxnResult => "the size of the transaction's results in bytes",
            Self::RequestSteps => "the number of steps in the request",
            Self::RequestRead => "the number of bytes that the request reads",
            Self::RequestKept => {
                "the number of bytes that the request keeps in memory until it is final"
            }
        })
    }
}

impl Answer {
    /// Reads what a replica answered to any operation.
    ///
    /// # Errors
    /// It is no answer of this application.
    pub fn decode(result: &[u8]) -> Result<Self, Undecodable> {
        codec::decode(result).map_err(|_| Undecodable)
    }

    /// The version written, or of what was read. `None` where there is none, or one for each
    /// entry.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        match self {
            Self::Step(outcome) => outcome.version(),
            Self::Txn(txn) => Some(txn.version),
            Self::Refused(_) => None,
        }
    }

    /// Whether the operation said no: it was refused, the key to be read or deleted is absent, or
    /// a comparison failed. That a member was there already, or not there, is no no.
    #[must_use]
    pub fn said_no(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Txn(txn) => !txn.succeeded,
            Self::Step(outcome) => matches!(
                outcome,
                Outcome::Get(None) | Outcome::Delete(None) | Outcome::Cas(Swap::Mismatch(_))
            ),
        }
    }
}

impl Outcome {
    /// The version written, or of what was read. `None` where there is none, or, in a page, one
    /// for each entry.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        match self {
            Self::Get(found) | Self::Cas(Swap::Mismatch(found)) => {
                found.as_ref().map(|found| found.version)
            }
            Self::Put(version) => Some(*version),
            Self::Delete(version) | Self::Cas(Swap::Done(version)) => *version,
            Self::Incr(counted) => Some(counted.version),
            Self::Append(appended) => Some(appended.version),
            Self::Add(added) => Some(added.version),
            Self::Remove(removed) => removed.version,
            Self::Members(list) => list.version,
            Self::Scan(_) => None,
        }
    }

    /// The bytes that it takes to send, at most.
    pub(crate) fn size(&self) -> usize {
        const FIXED: usize = 64;
        FIXED
            + match self {
                Self::Get(found) | Self::Cas(Swap::Mismatch(found)) => {
                    found.as_ref().map_or(0, |found| found.value.len())
                }
                Self::Members(list) => Value::members_size(&list.members),
                Self::Scan(page) => {
                    let next = page.next.as_ref().map_or(0, |next| next.len());
                    page.items.iter().map(Item::size).sum::<usize>() + next
                }
                Self::Put(_)
                | Self::Delete(_)
                | Self::Cas(Swap::Done(_))
                | Self::Incr(_)
                | Self::Append(_)
                | Self::Add(_)
                | Self::Remove(_) => 0,
            }
    }
}

impl Item {
    /// The bytes that it takes to send, at most. Part of what is hashed: see
    /// [`elea_protocol::trie`].
    pub(crate) fn size(&self) -> usize {
        item_size(self.key.len(), self.value.size())
    }
}

/// The size of an entry, given those of its key and of what it holds.
pub(crate) fn item_size(key: usize, value: usize) -> usize {
    const FIXED: usize = 32;
    FIXED + key + value
}

impl Value {
    /// What each member of a set counts beside its own bytes.
    pub(crate) const MEMBER_FIXED: usize = 16;

    pub(crate) const INTEGER_SIZE: usize = 8;

    fn members_size(members: &[Bytes]) -> usize {
        members.iter().map(|member| member.len() + Self::MEMBER_FIXED).sum()
    }

    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Integer(_) => Self::INTEGER_SIZE,
            Self::Set(members) => Self::members_size(members),
        }
    }
}
