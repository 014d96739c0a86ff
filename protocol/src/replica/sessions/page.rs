//! Runs of request numbers whose results are sent together.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::id::RequestNumber;
use crate::message::OPERATIONS_MAX;
use crate::trie::CHUNK_WEIGHT_MAX;
use crate::tuning::Rules;

/// More than a part takes to be sent without its intervals and results.
pub(super) const PART_WEIGHT: usize = 64;
/// What a kept request takes without its results.
pub(super) const KEPT_WEIGHT: usize = 88;
/// What a list of results, or one of them, takes beside its bytes.
pub(super) const LENGTH_WEIGHT: usize = 8;

/// A run of request numbers whose results are one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Page(pub(super) u64);

impl Page {
    /// How many numbers a page has: as many as fit a chunk if each keeps all it may, and at least
    /// one, which fits a frame. It follows from rules that all replicas share, and so do digests.
    fn span(rules: &Rules) -> u64 {
        let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let largest = wide(KEPT_WEIGHT + LENGTH_WEIGHT * (1 + OPERATIONS_MAX))
            .saturating_add(rules.max_kept_result);
        ((CHUNK_WEIGHT_MAX - wide(PART_WEIGHT)) / largest).max(1)
    }

    /// The page of a number.
    pub(super) fn of(number: RequestNumber, rules: &Rules) -> Self {
        Self(number.0 / Self::span(rules))
    }

    /// Its numbers.
    pub(super) fn numbers(self, rules: &Rules) -> RangeInclusive<RequestNumber> {
        let span = Self::span(rules);
        let first = self.0.saturating_mul(span);
        RequestNumber(first)..=RequestNumber(first.saturating_add(span - 1))
    }
}
