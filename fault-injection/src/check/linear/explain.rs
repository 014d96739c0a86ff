//! From "there is no order" to a few operations that a reader can follow.
//!
//! Leaving operations out of a history proves nothing: a read is not wrong because the write it
//! saw was left out. What can be done is to *ask for less*, so that every order that was allowed
//! before still is:
//!
//! - forget the past: what had returned before some time goes, and in its stead nothing is assumed
//!   of the state then;
//! - loosen an operation: it may take effect at any time after its invocation, or never, and
//!   answer anything.
//!
//! What still contradicts itself rests on what is left alone.

use super::search::{Found, Stuck, search};
use super::{Borrowed, Contradiction, Model, Op};

/// Steps for each attempt to ask for less. The search grows with what is loose; where an attempt
/// takes longer, it counts as failed.
const STEPS_PER_ATTEMPT: u64 = 20_000;

/// Steps for all attempts.
const STEPS: u64 = 500_000;

/// A small reason why the search got stuck.
pub(super) fn explain<M: Model>(ops: &[Borrowed<'_, M>], stuck: Stuck) -> Contradiction {
    let Stuck { blocked, order } = stuck;
    let mut excerpt = Excerpt::<M>::until(ops, blocked);
    let mut steps_left = STEPS;

    // The later the past ends, the less there is to loosen.
    let mut times: Vec<u64> = excerpt.ops.iter().map(|(_, op)| op.invoked).collect();
    times.sort_unstable();
    times.dedup();
    let (mut proven, mut refuted) = (0, times.len());
    while refuted - proven > 1 {
        let middle = proven + (refuted - proven) / 2;
        let attempt = excerpt.since(times[middle]);
        if attempt.is_contradictory(&mut steps_left) {
            proven = middle;
        } else {
            refuted = middle;
        }
    }
    if proven > 0 {
        excerpt = excerpt.since(times[proven]);
    }

    // Chunks get smaller, so that most operations go in few attempts.
    let mut size = excerpt.ops.len().div_ceil(2);
    while size > 0 {
        for start in (0..excerpt.ops.len()).step_by(size) {
            let mut attempt = excerpt.clone();
            let mut changes = false;
            for (index, op) in attempt.ops.iter_mut().skip(start).take(size) {
                if *index != blocked && !is_loose(op) {
                    loosen(op);
                    changes = true;
                }
            }
            if changes && attempt.is_contradictory(&mut steps_left) {
                excerpt = attempt;
            }
        }
        size /= 2;
    }
    let (mut core, mut bystanders) = (Vec::new(), Vec::new());
    for (index, op) in excerpt.ops {
        if is_loose(&op) { bystanders.push(index) } else { core.push(index) }
    }
    Contradiction { blocked, since: excerpt.since, core, bystanders, order }
}

/// A part of a history that asks for no more than the whole.
struct Excerpt<'a, M: Model> {
    since: Option<u64>,
    /// The operations with their indexes, by invocation.
    ops: Vec<(usize, Borrowed<'a, M>)>,
}

impl<M: Model> Clone for Excerpt<'_, M> {
    fn clone(&self) -> Self {
        Self { since: self.since, ops: self.ops.clone() }
    }
}

impl<'a, M: Model> Excerpt<'a, M> {
    /// Up to the return of `blocked`. The search got no further than that, so it never tried what
    /// was invoked later, and what returned later need not have returned.
    fn until(ops: &[Borrowed<'a, M>], blocked: usize) -> Self {
        let until = ops[blocked].returned;
        let mut within: Vec<_> =
            ops.iter().copied().enumerate().filter(|(_, op)| Some(op.invoked) <= until).collect();
        for (_, op) in &mut within {
            op.returned = op.returned.filter(|returned| Some(*returned) <= until);
        }
        within.sort_by_key(|(_, op)| op.invoked);
        Self { since: None, ops: within }
    }

    /// Without what had returned before. What was open then may have taken effect before, in a
    /// state that is forgotten, so nothing is asked of it.
    fn since(&self, time: u64) -> Self {
        let mut ops = self.ops.clone();
        ops.retain(|(_, op)| op.returned.is_none_or(|returned| returned >= time));
        ops.iter_mut().filter(|(_, op)| op.invoked < time).for_each(|(_, op)| loosen(op));
        Self { since: Some(time), ops }
    }

    /// Whether there is provably no order of it.
    fn is_contradictory(&self, steps_left: &mut u64) -> bool {
        let ops: Vec<_> = self.ops.iter().map(|(_, op)| *op).collect();
        let start = if self.since.is_some() { M::anything() } else { M::start() };
        let allowed = STEPS_PER_ATTEMPT.min(*steps_left);
        let mut left = allowed;
        let found = search::<M>(&ops, start, &mut left);
        *steps_left -= allowed - left;
        matches!(found, Found::Stuck(_))
    }
}

fn loosen<I, O>(op: &mut Op<I, O>) {
    op.returned = None;
    op.output = None;
}

fn is_loose<I, O>(op: &Op<I, O>) -> bool {
    op.returned.is_none() && op.output.is_none()
}
