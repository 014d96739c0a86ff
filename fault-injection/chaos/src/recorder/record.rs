//! What was recorded.

use std::collections::BTreeMap;

use elea_fault_injection::violation::Violation;

/// What was recorded so far.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// What was heard, by kind.
    pub counts: BTreeMap<&'static str, u64>,
    /// The rules that were broken, the first ones.
    pub violations: Vec<Violation>,
    /// How many times any was.
    pub broken: u64,
    /// How often a replica was started again.
    pub restarts: u64,
    /// What replicas counted themselves, as far as they were asked before they died: the counters
    /// that tell what happened to histories and views.
    pub counted: BTreeMap<String, u64>,
}

impl Record {
    /// How often something of this kind was heard.
    #[must_use]
    pub fn count(&self, kind: &str) -> u64 {
        self.counts.get(kind).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, kind: &'static str, more: u64) {
        *self.counts.entry(kind).or_default() += more;
    }
}
