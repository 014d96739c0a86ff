//! Which numbers of a session were executed.

use std::collections::BTreeMap;

use crate::id::RequestNumber;

/// A set of request numbers. All up to some number are in it as a rule, so that this number is all
/// there is to keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Executed {
    /// All up to this one, and not the next.
    through: u64,
    /// Intervals above, with both ends included, ascending and apart.
    beyond: BTreeMap<u64, u64>,
}

impl Executed {
    pub fn contains(&self, number: RequestNumber) -> bool {
        self.contains_all(number, number)
    }

    /// Whether all from the first to the last are in it.
    pub fn contains_all(&self, first: RequestNumber, last: RequestNumber) -> bool {
        let beyond = || self.beyond.range(..=first.0).next_back();
        (1..=self.through).contains(&first.0) && last.0 <= self.through
            || beyond().is_some_and(|(_, end)| last.0 <= *end)
    }

    pub fn insert(&mut self, number: RequestNumber) {
        if self.contains(number) {
            return;
        }
        let (mut start, mut end) = (number.0, number.0);
        if let Some((before, before_end)) = self.beyond.range(..start).next_back()
            && before_end.saturating_add(1) == start
        {
            start = *before;
        }
        if let Some(after_end) = end.checked_add(1).and_then(|next| self.beyond.remove(&next)) {
            end = after_end;
        }
        if start == self.through.saturating_add(1) {
            self.beyond.remove(&start);
            self.through = end;
        } else {
            self.beyond.insert(start, end);
        }
    }

    /// The lowest number not executed.
    pub fn lowest_open(&self) -> RequestNumber {
        RequestNumber(self.through.saturating_add(1))
    }

    /// As intervals with both ends included, ascending and apart.
    pub fn intervals(&self) -> Vec<(u64, u64)> {
        let first = (self.through > 0).then_some((1, self.through));
        first.into_iter().chain(self.beyond.iter().map(|(start, end)| (*start, *end))).collect()
    }

    /// From what [`Executed::intervals`] gives.
    pub fn of(intervals: Vec<(u64, u64)>) -> Self {
        let mut beyond: BTreeMap<u64, u64> = intervals.into_iter().collect();
        Self { through: beyond.remove(&1).unwrap_or(0), beyond }
    }
}
