//! One request that is not done with.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::words::Words;
use super::{Answer, Finality, Follow, Submission, Ticket, Timing};
use crate::codec::Canonical as _;
use crate::id::{Digest, Instant, ReplicaId, Slot};
use crate::message::{RefusalReason, Request, Results, SignedRequest};
use crate::quorum::Tally;
use crate::receipt::{Proven, Receipt};

/// A submission's part of a request.
#[derive(Debug)]
pub(super) struct Part {
    pub ticket: Ticket,
    pub follow: Follow,
    /// The position of its first operation in the request, and how many it has.
    first: usize,
    count: usize,
}

/// What a weak request was answered, to be compared with what becomes final.
#[derive(Debug)]
pub(super) struct FirstAnswer {
    slot: Slot,
    index: u32,
    results: Vec<Bytes>,
}

/// A request from when it has a number to the last thing that anybody wants to know of it.
#[derive(Debug)]
pub(super) struct Outstanding {
    pub request: Request,
    pub digest: Digest,
    /// As it is sent; `None` while it is being signed.
    pub signed: Option<Arc<SignedRequest>>,
    /// Those who wait; a submission whose caller has gone is no longer here.
    pub parts: Vec<Part>,
    pub words: Words,
    pub refusals: Tally<RefusalReason>,
    pub busy: BTreeSet<ReplicaId>,
    /// `None` until it is answered.
    pub answered: Option<FirstAnswer>,
    /// When to send it again; `None` while nobody wants to know more.
    pub retry_at: Option<Instant>,
    pub wait_ms: u64,
    pub sent: u32,
    /// When it was sent for the first time.
    pub since: Option<Instant>,
}

impl Outstanding {
    pub fn new(request: Request, batch: &[Submission], timing: &Timing) -> Self {
        let mut first = 0;
        let parts = batch
            .iter()
            .map(|submission| {
                let count = submission.operations.len();
                let part =
                    Part { ticket: submission.ticket, follow: submission.follow, first, count };
                first += count;
                part
            })
            .collect();
        Self {
            digest: request.digest(),
            request,
            signed: None,
            parts,
            words: Words::default(),
            refusals: Tally::default(),
            busy: BTreeSet::new(),
            answered: None,
            retry_at: None,
            wait_ms: timing.first_retry_ms,
            sent: 0,
            since: None,
        }
    }

    /// How many operations the request has.
    pub fn operations(&self) -> usize {
        self.request.operations.len()
    }

    /// Whether it is sent again, with a wait that doubles, until something more is known.
    pub fn is_active(&self) -> bool {
        self.answered.is_none() || self.parts.iter().any(|part| part.follow == Follow::Yes)
    }

    /// Remembers what it was answered, for [`Outstanding::finality`].
    pub fn note_answer(&mut self, receipt: &Receipt) {
        let Results::Full(results) = &receipt.reply.results else { return };
        let (slot, index) = (receipt.reply.slot, receipt.reply.index);
        self.answered = Some(FirstAnswer { slot, index, results: results.clone() });
    }

    /// What to tell one of those who wait.
    pub fn answer(part: &Part, receipt: &Arc<Receipt>, proven: Proven) -> Answer {
        let reply = &receipt.reply;
        let results = match &reply.results {
            Results::Full(results) => {
                results.get(part.first..part.first + part.count).unwrap_or_default().to_vec()
            }
            // Receipts are made with the results in them.
            Results::Forgotten(_) => Vec::new(),
        };
        // A request has at most `OPERATIONS_MAX` operations, so the position fits; the sum is of
        // what a weak quorum signed, but is kept from wrapping all the same.
        let index = reply.index.saturating_add(u32::try_from(part.first).unwrap_or(u32::MAX));
        Answer {
            results,
            view: reply.view,
            slot: reply.slot,
            hash: reply.hash,
            index,
            kind: reply.kind,
            proven,
            receipt: Arc::clone(receipt),
        }
    }

    /// How one part of the final answer compares with what was answered first.
    pub fn finality(&self, part: &Part, last: &Answer) -> Finality {
        let same = self.answered.as_ref().is_some_and(|first| {
            let range = part.first..part.first + part.count;
            let index = first.index.saturating_add(u32::try_from(part.first).unwrap_or(u32::MAX));
            (first.slot, index) == (last.slot, last.index)
                && first.results.get(range) == Some(&last.results[..])
        });
        if same { Finality::Same } else { Finality::Reordered { results: last.results.clone() } }
    }
}
