//! Transactions: compare, then do one list of steps or the other.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::outcome::Version;
use crate::step::Step;

/// If all comparisons hold, does the steps of `then`, otherwise those of `otherwise`.
///
/// A transaction is atomic: if one of its steps is refused, none is done and the transaction is
/// refused as a whole. A `cas` that does not match and a `get` of an absent key are no refusals.
/// Without comparisons `then` is done. Comparisons look at the state before the first step.
///
/// ```
/// use elea_kv::{Compare, Get, Incr, Put, Relation, Txn};
/// let buy = Txn::new()
///     .when(Compare::value("stock", Relation::Greater, "0"))
///     .then(Incr::new("stock", -1))
///     .then(Put::new("buyer", "ada"))
///     .otherwise(Get::new("stock"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    /// What must hold.
    pub compares: Vec<Compare>,
    /// What to do if all of it holds.
    pub then: Vec<Step>,
    /// What to do if some of it does not.
    pub otherwise: Vec<Step>,
}

impl Txn {
    /// A transaction that compares nothing and does nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// This must hold, too.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// To be done if all comparisons hold.
    #[must_use]
    pub fn then(mut self, step: impl Into<Step>) -> Self {
        self.then.push(step.into());
        self
    }

    /// To be done if some comparison does not hold.
    #[must_use]
    pub fn otherwise(mut self, step: impl Into<Step>) -> Self {
        self.otherwise.push(step.into());
        self
    }
}

/// A condition on one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// The key.
    pub key: Bytes,
    /// What must be true of it.
    pub test: Test,
}

/// What a [`Compare`] asks of its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Test {
    /// The key holds something, a plain value or a set.
    Exists,
    /// It holds nothing.
    Absent,
    /// Its value stands in this relation to the given one: as numbers where both are canonical
    /// decimals, otherwise byte by byte. The value of an absent key is not equal to any, and
    /// neither less nor greater. For a set the transaction is refused.
    Value(Relation, Bytes),
    /// Its version stands in this relation to the given one. An absent key has [`Version::NONE`].
    Version(Relation, Version),
}

/// How what the key holds, on the left, compares to what is given, on the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// They are the same.
    Equal,
    /// They are not.
    NotEqual,
    /// What the key holds comes before.
    Less,
    /// What the key holds comes after.
    Greater,
}

impl Relation {
    pub(crate) fn holds(self, ordering: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::Greater => ordering.is_gt(),
        }
    }
}

impl Compare {
    /// `key` holds something.
    pub fn exists(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), test: Test::Exists }
    }

    /// `key` holds nothing.
    pub fn absent(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), test: Test::Absent }
    }

    /// The value of `key` stands in this relation to `value`.
    pub fn value(key: impl Into<Bytes>, relation: Relation, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), test: Test::Value(relation, value.into()) }
    }

    /// The version of `key` stands in this relation to `version`.
    pub fn version(key: impl Into<Bytes>, relation: Relation, version: Version) -> Self {
        Self { key: key.into(), test: Test::Version(relation, version) }
    }
}
