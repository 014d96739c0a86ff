//! How large things may be.

use elea_protocol::message::APPLICATION_WEIGHT_MAX;
use serde::{Deserialize, Serialize};

use crate::operation::Operation;
use crate::outcome::{Quantity, Reason};
use crate::step::Step;
use crate::txn::Txn;

/// How large keys, values and the like may be. An operation beyond a limit is refused.
///
/// The defaults, which are given with each, are also the most: they are chosen so that every result, and every chunk of a
/// snapshot, fits a frame. All replicas of a cluster must have the same limits, for what one
/// refuses and another executes makes their states differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a key: 4 KiB.
    pub key_bytes: usize,
    /// Bytes of a plain value: 1 MiB.
    pub value_bytes: usize,
    /// Bytes of a member of a set: 4 KiB.
    pub member_bytes: usize,
    /// Bytes of a set: those of its members, and 16 more for each: 1 MiB.
    pub set_bytes: usize,
    /// Comparisons of a transaction: 128.
    pub txn_compares: usize,
    /// Operations in either list of a transaction: 128.
    pub txn_steps: usize,
    /// Bytes of all results of a transaction together, about: 2 MiB.
    pub txn_result_bytes: usize,
    /// Entries on a page of a scan: 4096. Beyond it a page ends; the scan is not refused.
    pub page_items: usize,
    /// Bytes on a page of a scan, about: 1 MiB. It holds at least one entry, whatever its size.
    pub page_bytes: usize,
    /// Steps of all operations of a request together: 8192. A comparison, an entry on a page of a scan, and sixteen
    /// members that are read count as one each.
    pub request_steps: usize,
    /// Bytes of the values and sets that all operations of a request read: 32 MiB, enough for as many reads of the
    /// largest values as a client sends together.
    pub request_read_bytes: usize,
    /// Bytes that all operations of a request may keep in memory until they are final: 3 MiB, beside 2 KiB for each
    /// operation: keys, values and members that they write, 2 KiB for each further step of a
    /// transaction that writes, and 4 KiB for each `append`, `add` and `remove`.
    pub request_kept_bytes: usize,
}

/// As much as counts towards the bound of the speculative history.
const REQUEST_KEPT_BYTES: usize = APPLICATION_WEIGHT_MAX as usize;

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes: 4 << 10,
            value_bytes: 1 << 20,
            member_bytes: 4 << 10,
            set_bytes: 1 << 20,
            txn_compares: 128,
            txn_steps: 128,
            txn_result_bytes: 2 << 20,
            page_items: 4096,
            page_bytes: 1 << 20,
            request_steps: 8192,
            request_read_bytes: 32 << 20,
            request_kept_bytes: REQUEST_KEPT_BYTES,
        }
    }
}

/// A limit that is 0 or above its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit `{name}` is {value}: it must be 1 to {most}")]
pub struct BadLimits {
    /// The field of [`Limits`].
    pub name: &'static str,
    /// What it is set to.
    pub value: usize,
    /// The most that it may be.
    pub most: usize,
}

/// What may be read without being ordered: a few keys, or a short page. A replica answers that at once, so it must be cheap.
const QUERY_STEPS: usize = 128;
const QUERY_READ_BYTES: usize = 256 << 10;

impl Limits {
    /// The same, for what is read without being ordered.
    pub(crate) fn of_query(&self) -> Self {
        Self {
            request_steps: self.request_steps.min(QUERY_STEPS),
            request_read_bytes: self.request_read_bytes.min(QUERY_READ_BYTES),
            ..self.clone()
        }
    }

    /// Whether every limit is at least 1 and not above its default.
    ///
    /// # Errors
    /// The first one that is not.
    pub fn validate(&self) -> Result<(), BadLimits> {
        self.named()
            .into_iter()
            .zip(Self::default().named())
            .map(|((name, value), (_, most))| (name, value, most))
            .find(|(_, value, most)| !(1..=*most).contains(value))
            .map_or(Ok(()), |(name, value, most)| Err(BadLimits { name, value, most }))
    }

    fn named(&self) -> [(&'static str, usize); 12] {
        [
            ("key_bytes", self.key_bytes),
            ("value_bytes", self.value_bytes),
            ("member_bytes", self.member_bytes),
            ("set_bytes", self.set_bytes),
            ("txn_compares", self.txn_compares),
            ("txn_steps", self.txn_steps),
            ("txn_result_bytes", self.txn_result_bytes),
            ("page_items", self.page_items),
            ("page_bytes", self.page_bytes),
            ("request_steps", self.request_steps),
            ("request_read_bytes", self.request_read_bytes),
            ("request_kept_bytes", self.request_kept_bytes),
        ]
    }

    /// All of them, by name: they decide results, so all replicas must have the same.
    pub(crate) fn settings(&self) -> impl Iterator<Item = (String, String)> + use<> {
        self.named().into_iter().map(|(name, value)| (name.to_owned(), value.to_string()))
    }

    /// Whether the sizes that a step names itself are within the limits. What it makes of the
    /// state is checked where it is made.
    pub(crate) fn check_step(&self, step: &Step) -> Result<(), Reason> {
        match step {
            Step::Get(get) => self.check_key(&get.key),
            Step::Put(put) => {
                self.check_key(&put.key)?;
                self.check_value(put.value.len())
            }
            Step::Delete(delete) => self.check_key(&delete.key),
            Step::Cas(cas) => {
                self.check_key(&cas.key)?;
                self.check_value(cas.value.as_ref().map_or(0, |value| value.len()))
            }
            Step::Incr(incr) => self.check_key(&incr.key),
            Step::Append(append) => self.check_key(&append.key),
            Step::Add(add) => {
                self.check_key(&add.key)?;
                at_most(Quantity::Member, add.member.len(), self.member_bytes)
            }
            Step::Remove(remove) => self.check_key(&remove.key),
            Step::Members(members) => self.check_key(&members.key),
            Step::Scan(_) => Ok(()),
        }
    }

    /// What can be said of an operation before anything is done.
    pub(crate) fn check_operation(&self, operation: &Operation) -> Result<(), Reason> {
        match operation {
            Operation::Step(step) => self.check_step(step),
            Operation::Txn(txn) => self.check_txn(txn),
        }
    }

    fn check_txn(&self, txn: &Txn) -> Result<(), Reason> {
        at_most(Quantity::Compares, txn.compares.len(), self.txn_compares)?;
        at_most(Quantity::Steps, txn.then.len(), self.txn_steps)?;
        at_most(Quantity::Steps, txn.otherwise.len(), self.txn_steps)?;
        txn.compares.iter().try_for_each(|compare| self.check_key(&compare.key))
    }

    pub(crate) fn check_key(&self, key: &[u8]) -> Result<(), Reason> {
        at_most(Quantity::Key, key.len(), self.key_bytes)
    }

    pub(crate) fn check_value(&self, size: usize) -> Result<(), Reason> {
        at_most(Quantity::Value, size, self.value_bytes)
    }

    pub(crate) fn check_set(&self, size: usize) -> Result<(), Reason> {
        at_most(Quantity::Set, size, self.set_bytes)
    }

    pub(crate) fn check_txn_result(&self, size: usize) -> Result<(), Reason> {
        at_most(Quantity::TxnResult, size, self.txn_result_bytes)
    }
}

fn at_most(what: Quantity, size: usize, most: usize) -> Result<(), Reason> {
    let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let refusal = Reason::TooLarge { what, size: wide(size), most: wide(most) };
    if size <= most { Ok(()) } else { Err(refusal) }
}
