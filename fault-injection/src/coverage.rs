//! What a world has seen. A campaign that never saw what it is about has proved nothing.

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

/// What a full campaign must have seen at least once. Names with a `core:` in front are the
/// core's own counters, summed over correct replicas; the rest is what the world saw from outside.
pub const REQUIRED: &[&str] = &[
    "answer weak",
    "answer strong",
    "answer final",
    "client: busy",
    "client: new session",
    "client: resent",
    "clock beyond drift",
    "core:answered_from_cache",
    "core:certificates",
    "core:checkpoints_cast",
    "core:checkpoints_stable",
    "core:commits_cast",
    "core:contradictions",
    "core:executed_slots",
    "core:fetch_over_budget",
    "core:future_view",
    "core:order_ahead_of_clock",
    "core:order_breaks_rules",
    "core:order_not_from_primary",
    "core:order_repeated",
    "core:order_too_far",
    "core:ordered_slots",
    "core:refused_requests",
    "core:request_fetches",
    "core:requests_filled",
    "core:requests_forwarded",
    "core:slot_fetches",
    "core:slots_filled",
    "core:stale_stamp",
    "core:useless_answers",
    "crash",
    "crash with lost records",
    "cut",
    "evidence",
    "history served from disk",
    "message doubled",
    "message lost",
    "message malformed",
    "message rejected",
    "real signatures",
    "refused NameUsed",
    "refused SessionRetired",
    "refused TooManySessions",
    "refused WindowExceeded",
    "request after execution",
    "restart",
    "stopped for good",
];
