//! Submissions that wait to be signed.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Follow, Submission, Ticket};
use crate::message::{Level, OPERATIONS_MAX, REQUEST_BYTES_MAX};

/// The most submissions that wait.
pub const QUEUED_MAX: usize = 1 << 16;

/// The most operations of several submissions that go into one request. What a request returned is
/// kept whole only up to a limit, by the replicas that may have to answer anew; many small results
/// stay below it.
pub const MERGED_MAX: usize = 32;

/// The most bytes of operations that wait.
pub const QUEUED_BYTES_MAX: usize = 64 << 20;

fn bytes(operations: &[Bytes]) -> usize {
    operations.iter().map(Bytes::len).sum()
}

impl Submission {
    /// Whether it fits a request.
    pub(super) fn is_within_bounds(&self) -> bool {
        let count = self.operations.len();
        (1..=OPERATIONS_MAX).contains(&count) && bytes(&self.operations) <= REQUEST_BYTES_MAX
    }

    /// What a request must have to carry it.
    pub(super) fn terms(&self) -> (Level, bool) {
        (self.level, self.level == Level::Weak && self.follow == Follow::Yes)
    }
}

/// First in, first out, and bounded.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Submission>,
    bytes: usize,
}

impl Queue {
    /// Takes a submission, or gives it back for want of room.
    pub fn push(&mut self, submission: Submission) -> Result<(), Submission> {
        let size = bytes(&submission.operations);
        if self.waiting.len() >= QUEUED_MAX || self.bytes.saturating_add(size) > QUEUED_BYTES_MAX {
            return Err(submission);
        }
        self.bytes += size;
        self.waiting.push_back(submission);
        Ok(())
    }

    /// How many of the oldest submissions fit into one request: the first, and all right behind it that
    /// want the same, unless one of them must be alone. None overtakes another.
    fn fitting(&self) -> usize {
        let (mut count, mut size) = (0, 0);
        let Some(first) = self.waiting.front() else { return 0 };
        let fits = |next: &&Submission| {
            count += next.operations.len();
            size += bytes(&next.operations);
            let is_within = count <= MERGED_MAX && size <= REQUEST_BYTES_MAX;
            is_within && !next.alone && next.terms() == first.terms()
        };
        // The first fits by itself, whatever it is.
        if first.alone { 1 } else { self.waiting.iter().take_while(fits).count().max(1) }
    }

    /// Whether the next request is as large as it will ever be: something waits that does not fit into it,
    /// or nothing ever may.
    pub fn has_whole_batch(&self) -> bool {
        let fitting = self.fitting();
        fitting < self.waiting.len()
            || self.waiting.front().is_some_and(|first| first.alone)
            || self.waiting.iter().map(|one| one.operations.len()).sum::<usize>() >= MERGED_MAX
    }

    /// What goes into the next request.
    pub fn next_batch(&mut self) -> Vec<Submission> {
        let batch: Vec<_> = self.waiting.drain(..self.fitting()).collect();
        self.bytes -= batch.iter().map(|submission| bytes(&submission.operations)).sum::<usize>();
        batch
    }

    /// Takes a submission out again, if it is still here.
    pub fn remove(&mut self, ticket: Ticket) -> Option<Submission> {
        let at = self.waiting.iter().position(|waiting| waiting.ticket == ticket)?;
        let submission = self.waiting.remove(at)?;
        self.bytes -= bytes(&submission.operations);
        Some(submission)
    }

    pub fn holds(&self, ticket: Ticket) -> bool {
        self.waiting.iter().any(|waiting| waiting.ticket == ticket)
    }

    /// Everything, in order.
    pub fn drain(&mut self) -> Vec<Submission> {
        self.bytes = 0;
        self.waiting.drain(..).collect()
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
