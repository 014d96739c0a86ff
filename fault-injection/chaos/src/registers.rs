//! Keys that several clients read and write at once, with a record of who was told what when.
//!
//! The record is in the words of the simulator's journal, and its linearizability checker judges
//! it: `put` answers nothing here and the value before there, so its answer counts as not known;
//! everything else answers the same. A key is used for some dozens of operations and then
//! replaced by a fresh one, so that each record is short enough to be searched to the end.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use elea_fault_injection::check::linear::{Decided, EnvironmentOp, StrongOp, check_strong};
use elea_fault_injection::violation::Violation;

/// Operations on one key before it is replaced.
const USES: usize = 60;

/// Steps of a search. Records of this size take some thousands.
const BOUND: u64 = 400_000;

/// Keys in use at a time: texts and numbers, half each.
pub const KEYS: usize = 4;

/// What is done to a key, in the journal's words.
#[derive(Clone, Debug)]
pub struct Record {
    /// Who asked.
    pub client: u32,
    /// When, on a clock that all clients share.
    pub asked: u64,
    /// When the final answer came, if one did.
    pub answered: Option<u64>,
    /// What was asked for.
    pub operation: String,
    /// The final answer, where there is one to compare.
    pub result: Option<String>,
    /// The slot and position that the answer names.
    pub place: Option<(u64, u32)>,
    /// Whether it takes effect between the two times. A weak operation of which nobody was told
    /// that it is final does so at any time after it was asked for, or never.
    pub is_strong: bool,
}

/// A key in use by somebody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lease {
    /// The key.
    pub key: String,
    /// Whether it holds numbers.
    pub is_number: bool,
}

#[derive(Default)]
struct Register {
    uses: usize,
    open: usize,
    records: Vec<Record>,
}

#[derive(Default)]
struct Inner {
    generation: [u64; KEYS],
    registers: BTreeMap<String, Register>,
    tally: Tally,
}

/// How many records were judged, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Keys whose record is linearizable.
    pub linearizable: u64,
    /// Keys of which it could not be told within the bound.
    pub undecided: u64,
    /// Operations in all of them.
    pub operations: u64,
}

/// All such keys.
#[derive(Default)]
pub struct Registers(Mutex<Inner>);

impl Registers {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one of the keys in use.
    pub fn lease(&self, which: usize) -> Lease {
        let which = which % KEYS;
        let mut inner = self.inner();
        let key = format!("register/{which}/{}", inner.generation[which]);
        let register = inner.registers.entry(key.clone()).or_default();
        register.uses += 1;
        register.open += 1;
        if register.uses == USES {
            // Whoever comes next gets a fresh key, also after this record was taken away.
            inner.generation[which] += 1;
        }
        Lease { key, is_number: which % 2 == 1 }
    }

    /// Gives it back, with what was done. Where the key is used up and nobody else is at it, the
    /// record is complete and comes out.
    pub fn give_back(&self, lease: &Lease, record: Record) -> Option<Vec<Record>> {
        let mut inner = self.inner();
        let register = inner.registers.get_mut(&lease.key)?;
        register.open -= 1;
        register.records.push(record);
        if register.uses < USES || register.open > 0 {
            return None;
        }
        inner.registers.remove(&lease.key).map(|register| register.records)
    }

    /// The records of all keys that are still in use, for the end.
    #[must_use]
    pub fn rest(&self) -> Vec<Vec<Record>> {
        let registers = std::mem::take(&mut self.inner().registers);
        registers.into_values().map(|register| register.records).collect()
    }

    /// Judges the record of one key. It takes up to a second.
    ///
    /// # Errors
    /// I8: it is not linearizable.
    pub fn judge(&self, records: &[Record]) -> Result<(), Violation> {
        let decided = judge(records)?;
        let mut inner = self.inner();
        inner.tally.operations += records.len() as u64;
        match decided {
            Decided::Linearizable => inner.tally.linearizable += 1,
            Decided::Unknown => inner.tally.undecided += 1,
        }
        Ok(())
    }

    /// How many were judged.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.inner().tally
    }
}

fn judge(records: &[Record]) -> Result<Decided, Violation> {
    let text = |text: &String| vec![Bytes::from(text.clone())];
    let strong = records.iter().filter(|record| record.is_strong).map(|record| StrongOp {
        client: record.client,
        asked: record.asked,
        answered: record.answered,
        operations: text(&record.operation),
        results: record.result.as_ref().map(text),
        place: record.place,
    });
    let environment =
        records.iter().filter(|record| !record.is_strong).map(|record| EnvironmentOp {
            client: record.client,
            asked: record.asked,
            operations: text(&record.operation),
            results: None,
            place: None,
        });
    check_strong(&strong.collect::<Vec<_>>(), &environment.collect::<Vec<_>>(), BOUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(asked: u64, answered: u64, operation: &str, result: Option<&str>) -> Record {
        Record {
            client: 0,
            asked,
            answered: Some(answered),
            operation: operation.into(),
            result: result.map(Into::into),
            place: None,
            is_strong: true,
        }
    }

    #[test]
    fn a_read_that_misses_a_write_before_it_is_found() {
        let put = record(0, 1, "put k a", None);
        let seen = record(2, 3, "get k", Some("a"));
        let stale = record(4, 5, "get k", Some("-"));
        assert_eq!(judge(&[put.clone(), seen.clone()]), Ok(Decided::Linearizable));
        assert_eq!(judge(&[put, seen, stale]).expect_err("stale").rule, "I8");
    }

    #[test]
    fn a_swap_that_found_what_was_not_there_is_found() {
        let put = record(0, 1, "put k a", None);
        let swap = record(2, 3, "cas k a b", Some("a"));
        let twice = record(4, 5, "cas k a c", Some("a"));
        let failed = record(4, 5, "cas k a c", Some("b"));
        let sound = [put.clone(), swap.clone(), failed];
        assert_eq!(judge(&sound), Ok(Decided::Linearizable));
        assert_eq!(judge(&[put, swap, twice]).expect_err("swapped twice").rule, "I8");
    }

    #[test]
    fn a_key_is_judged_once_it_is_used_up_and_nobody_is_at_it() {
        let registers = Registers::default();
        let leases: Vec<Lease> = (0..USES).map(|_| registers.lease(0)).collect();
        assert_ne!(registers.lease(0).key, leases[0].key);
        for (number, lease) in leases.iter().enumerate() {
            let complete = registers.give_back(lease, record(0, 1, "get k", Some("-")));
            assert_eq!(complete.is_some(), number == USES - 1);
        }
        assert_ne!(registers.lease(0).key, leases[0].key, "nor is it used again");
        assert_eq!(registers.rest().len(), 1);
    }
}
