//! What a world has seen. A campaign that never saw what it is about has proved nothing.
//!
//! Names with a `core:` in front are the core's own counters, summed over correct replicas; the
//! rest is what the world saw from outside.

use std::collections::BTreeMap;

use serde::Serialize;

/// How often things happened, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Coverage(BTreeMap<String, u64>);

impl Coverage {
    /// It happened once more.
    pub fn mark(&mut self, what: &str) {
        self.add(what, 1);
    }

    /// It happened `times` more.
    pub fn add(&mut self, what: &str, times: u64) {
        match self.0.get_mut(what) {
            Some(count) => *count += times,
            None => {
                self.0.insert(what.to_owned(), times);
            }
        }
    }

    /// How often it happened.
    #[must_use]
    pub fn count(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Takes over what another world has seen.
    pub fn absorb(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            self.add(what, *times);
        }
    }

    /// All of it, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(what, times)| (what.as_str(), *times))
    }
}

/// What a campaign tells first, with the name of the count.
pub const HEADLINES: &[(&str, &str)] = &[
    ("view changes", "core:views_entered"),
    ("weak views", "core:weak_views_entered"),
    ("merges", "core:merges"),
    ("orphans re-ordered", "core:orphans_reordered"),
    ("reordered results", "core:results_reordered"),
    ("proofs", "core:proofs"),
    ("checkpoints", "core:checkpoints_stable"),
    ("state transfers", "core:state_transfers"),
    ("observers caught up", "observer caught up"),
];
