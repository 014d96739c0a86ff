//! What a request may cost, and what an operation weighs.
//!
//! Operations are cheap or dear by what the state holds, and one request has up to a thousand of them, each of
//! which may have a hundred steps. So each request has a budget, which follows from the history
//! alone: what it has spent says the same on every replica, whatever is in memory and whatever on disk.

use bytes::Bytes;
use elea_protocol::application::Context;
use elea_protocol::codec;
use elea_protocol::id::{ClientId, RequestNumber, SessionId, Slot};
use elea_protocol::message::OPERATION_WEIGHT;

use crate::limits::Limits;
use crate::operation::Operation;
use crate::outcome::{Quantity, Reason};
use crate::step::Step;
use crate::text::PAGE;

/// What counts for every write beside its bytes: the same as for an operation.
const WRITE: u64 = OPERATION_WEIGHT as u64;

/// What counts for a change of a set beside that: the branches of its trie.
const BRANCHES: u64 = 4 << 10;

/// A transaction of more steps than this has a request of its own.
const BULK_STEPS: usize = 4;

/// So many members that are read count as one step.
const MEMBERS_A_STEP: usize = 16;

/// What the operations of one request have cost so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    request: Option<(Slot, ClientId, SessionId, RequestNumber)>,
    steps: u64,
    read: u64,
    kept: u64,
}

impl Spent {
    /// The next operation is part of the same request, or of another one.
    pub(crate) fn turn_to(&mut self, context: &Context) {
        let request = Some((context.slot, context.client, context.session, context.number));
        if self.request != request {
            *self = Self { request, ..Self::default() };
        }
    }

    /// Before anything of an operation is done: what follows from its bytes.
    pub(crate) fn begin(&mut self, limits: &Limits, operation: &Operation) -> Result<(), Reason> {
        let kept = weight(operation);
        add(&mut self.kept, kept, limits.request_kept_bytes, Quantity::RequestKept)?;
        self.steps(limits, steps(operation))
    }

    pub(crate) fn steps(&mut self, limits: &Limits, steps: usize) -> Result<(), Reason> {
        add(&mut self.steps, wide(steps), limits.request_steps, Quantity::RequestSteps)
    }

    /// Before so many bytes are read.
    pub(crate) fn read(&mut self, limits: &Limits, bytes: usize) -> Result<(), Reason> {
        add(&mut self.read, wide(bytes), limits.request_read_bytes, Quantity::RequestRead)
    }

    /// Before a set is read that has so many members and so many bytes.
    pub(crate) fn members(
        &mut self,
        limits: &Limits,
        count: usize,
        bytes: usize,
    ) -> Result<(), Reason> {
        self.steps(limits, count / MEMBERS_A_STEP)?;
        self.read(limits, bytes)
    }
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn add(spent: &mut u64, more: u64, most: usize, what: Quantity) -> Result<(), Reason> {
    let (size, most) = (spent.saturating_add(more), wide(most));
    if size > most {
        return Err(Reason::OverBudget { what, size, most });
    }
    *spent = size;
    Ok(())
}

/// The most steps and comparisons that an operation does.
fn steps(operation: &Operation) -> usize {
    match operation {
        Operation::Step(_) => 1,
        Operation::Txn(txn) => txn.compares.len() + txn.then.len().max(txn.otherwise.len()),
    }
}

/// The most that a step keeps in memory until it can no longer be undone.
fn kept(step: &Step) -> u64 {
    let (bytes, more) = match step {
        Step::Get(_) | Step::Members(_) | Step::Scan(_) => return 0,
        Step::Put(put) => (put.key.len() + put.value.len(), 0),
        Step::Delete(delete) => (delete.key.len(), 0),
        Step::Cas(cas) => (cas.key.len() + cas.value.as_ref().map_or(0, |value| value.len()), 0),
        Step::Incr(incr) => (incr.key.len(), 0),
        // The end of the value is copied.
        Step::Append(append) => (append.key.len() + append.bytes.len(), PAGE as u64),
        Step::Add(add) => (add.key.len() + add.member.len(), BRANCHES),
        Step::Remove(remove) => (remove.key.len(), BRANCHES),
    };
    WRITE + wide(bytes) + more
}

/// The same of an operation, beside what counts for every operation.
fn weight(operation: &Operation) -> u64 {
    let of = |steps: &[Step]| steps.iter().map(kept).fold(0, u64::saturating_add);
    let most = match operation {
        Operation::Step(step) => kept(step),
        Operation::Txn(txn) => of(&txn.then).max(of(&txn.otherwise)),
    };
    most.saturating_sub(WRITE)
}

/// Whether others with which it shared a request might be refused for what it costs: together with
/// thirty others like it, it would go beyond the default limits.
pub(crate) fn is_bulk(operation: &Operation) -> bool {
    match operation {
        Operation::Step(step) => matches!(step, Step::Members(_) | Step::Scan(_)),
        Operation::Txn(txn) => {
            let mut all = txn.then.iter().chain(&txn.otherwise);
            steps(operation) > BULK_STEPS
                || all.any(|step| matches!(step, Step::Members(_) | Step::Scan(_)))
        }
    }
}

/// The same of an operation's bytes. What is no operation keeps nothing.
pub(crate) fn weight_of(operation: &Bytes) -> u64 {
    codec::decode(operation).map_or(0, |operation| weight(&operation))
}
