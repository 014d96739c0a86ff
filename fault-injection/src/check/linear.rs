//! I8: strong operations are linearizable. A checker that believes nothing but what clients saw.
//!
//! It looks for one order of the operations in which each takes effect between its invocation and
//! its answer, and in which a sequential model gives exactly the answers that clients got. It is
//! the search of Wing and Gong with Lowe's memory of configurations ("Testing for linearizability",
//! 2017), as in Knossos and Porcupine. It knows no slots, hashes or certificates, so it also judges
//! worlds that never agree on a final history, and it does not repeat a mistake of the checks that
//! do look at histories ([`super::Outcomes`]).
//!
//! # What is checked
//!
//! [`check_strong`] is given two kinds of operations, each of them one request or one submission,
//! whose operations take effect in one moment:
//!
//! - *strong* ones ([`StrongOp`]): everything that was final when it was answered. That is every
//!   strong request, and every weak one of which the client was told that it is final, with its
//!   final results and the time of that answer. They must take effect between the two times and
//!   answer what they answered. One that was never answered takes effect at any time after it was
//!   asked, or never.
//! - the *environment* ([`EnvironmentOp`]): everything else that may be executed, above all weak
//!   requests, and those of hostile clients. They change the state that strong operations read, so
//!   strong operations alone are no closed history. Each takes effect at most once, at any time
//!   after it was asked, or never. Without results it may answer anything.
//!
//! # What is not checked, and why
//!
//! - *Weak answers.* They are speculative: a merge may move the request and change the result, and
//!   that breaks no promise. Results of an environment operation may be given where they are those
//!   of the final history (see [`super::reexecute`]): the final history is itself an order of all
//!   operations, so this demands no more than I8 and I9 together, and it makes the search much
//!   narrower. Never give it the results of a speculative answer.
//! - *That what was acknowledged is not lost*: I5. An environment operation may vanish.
//! - *That the order is that of the slots.* Any order will do here; the one of the final history
//!   is held against real time by [`super::Outcomes`].
//!
//! The environment must be whole: leave out a request that was executed, and a correct history
//! looks broken. One too many only makes the checker more lenient.
//!
//! # What it costs
//!
//! The question is NP-complete, and what keeps it easy is that answers tell the state. So the
//! search takes a bound on its steps, and gives [`Verdict::Unknown`] where it is reached; what to
//! make of that is the caller's business. A [place](Op::place) for each operation lets a sound
//! history pass without any search. It is a guess that is checked, not believed.
//!
//! Hash tables are only looked up in, so the verdict and its explanation depend on the input alone.

mod explain;
mod journal;
mod search;
mod strong;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::hash::Hash;

pub use self::journal::{JournalModel, Operation, Request};
pub use self::strong::{Decided, EnvironmentOp, StrongOp, check_strong};

/// One operation of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op<I, O> {
    /// Who invoked it. It is for the reader alone: a client may have several operations open.
    pub client: u32,
    /// When it was invoked.
    pub invoked: u64,
    /// When it returned. Without it, it takes effect at any time after its invocation, or never.
    ///
    /// Operations that only touch in time, one returning when the other is invoked, overlap.
    pub returned: Option<u64>,
    /// What it does.
    pub input: I,
    /// What it answered; `None` where that is not known, and anything is right.
    pub output: Option<O>,
    /// Where it is thought to stand in the order. A wrong guess costs time, and nothing else.
    pub place: Option<(u64, u32)>,
}

impl<I, O> Op<I, O> {
    /// The same operation by reference.
    fn borrowed(&self) -> Op<&I, &O> {
        let Self { client, invoked, returned, place, .. } = *self;
        let (input, output) = (&self.input, self.output.as_ref());
        Op { client, invoked, returned, input, output, place }
    }
}

/// An operation of a model's history, by reference.
type Borrowed<'a, M> = Op<&'a <M as Model>::Input, &'a <M as Model>::Output>;

/// What the operations of a history do when nothing happens at the same time.
pub trait Model {
    /// The state between two operations.
    type State: Clone + Eq + Hash;
    /// What an operation asks for.
    type Input: Eq;
    /// What it answers.
    type Output: Eq;
    /// A part of the state that is independent of the others.
    type Key: Ord;

    /// The state at first.
    fn start() -> Self::State;

    /// The state of which nothing is known: it accepts what any state accepts. Contradictions that
    /// are found from it do not depend on what was before.
    fn anything() -> Self::State;

    /// The state after `input` has answered `output`; `None` where it cannot answer that.
    ///
    /// The output comes in, and not out, because a model need not know what will be answered: of a
    /// random number any is right, and the one that was answered is the one that is stored. Without
    /// an output any answer is right, and the state must then stand for all that may have become.
    fn step(
        state: &Self::State,
        input: &Self::Input,
        output: Option<&Self::Output>,
    ) -> Option<Self::State>;

    /// Whether `input` changes nothing, whatever the state. What it answers may tell more of a
    /// state than was known.
    fn only_reads(input: &Self::Input) -> bool;

    /// All keys that `input` reads or changes; `None` where that cannot be told.
    fn keys(input: &Self::Input) -> Option<Vec<Self::Key>>;
}

/// What the checker found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The history is linearizable: the operations in such an order, by index. Operations that
    /// never returned and are not in it need not have taken effect.
    Linearizable(Vec<usize>),
    /// It is not, and why.
    NotLinearizable(Contradiction),
    /// The search was given up.
    Unknown,
}

/// Why a history is not linearizable. Operations by their index in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The operation whose answer no order can explain. All that had returned before can be
    /// explained, if this one is left open.
    pub blocked: usize,
    /// Where there is one, the contradiction does not depend on what had returned before: whatever
    /// state that left, it is there.
    pub since: Option<u64>,
    /// Operations whose times and answers contradict each other, by invocation.
    pub core: Vec<usize>,
    /// The other operations that may have had to do with it: they had not returned before `since`,
    /// and were invoked before `blocked` returned. The contradiction is there even if each of them
    /// takes effect at any time after its invocation, or never, and answers anything.
    pub bystanders: Vec<usize>,
    /// The longest order that the search found, up to `blocked`, without it.
    pub order: Vec<usize>,
}

/// Whether a history is linearizable, found in at most `bound` steps of the model.
///
/// Operations that share no keys, not even over others, are searched apart: linearizability is
/// a local property, and many short searches are cheaper than a long one.
///
/// # Panics
/// Where an operation returns before it is invoked: no recorder can have seen that.
#[must_use]
pub fn check<M: Model>(ops: &[Op<M::Input, M::Output>], bound: u64) -> Verdict {
    let whole: Vec<Borrowed<'_, M>> = ops.iter().map(Op::borrowed).collect();
    for (index, op) in whole.iter().enumerate() {
        let in_order = op.returned.is_none_or(|returned| returned >= op.invoked);
        assert!(in_order, "operation {index} of the history returns before it is invoked");
    }
    if let Some(order) = guess::<M>(&whole) {
        return Verdict::Linearizable(order);
    }
    let mut steps_left = bound;
    let mut gave_up = false;
    let mut pointed: Vec<(u64, usize)> = Vec::new();
    for part in parts::<M>(&whole) {
        let own: Vec<_> = part.iter().map(|index| whole[*index]).collect();
        match search::search::<M>(&own, M::start(), &mut steps_left) {
            // A later part may hold a contradiction that is quickly found.
            search::Found::GaveUp => gave_up = true,
            search::Found::Stuck(stuck) => {
                let local = explain::explain::<M>(&own, stuck);
                let of_history = |indexes: Vec<usize>| -> Vec<usize> {
                    indexes.into_iter().map(|index| part[index]).collect()
                };
                return Verdict::NotLinearizable(Contradiction {
                    blocked: part[local.blocked],
                    since: local.since,
                    core: of_history(local.core),
                    bystanders: of_history(local.bystanders),
                    order: of_history(local.order),
                });
            }
            search::Found::Order(order) => {
                // The earliest moment at which each can take effect in this order.
                let mut moment = 0;
                for index in order {
                    moment = moment.max(own[index].invoked);
                    pointed.push((moment, part[index]));
                }
            }
        }
    }
    if gave_up {
        return Verdict::Unknown;
    }
    // Moments never decrease within a part, and a stable sort keeps the order of equal ones.
    pointed.sort_by_key(|(moment, _)| *moment);
    Verdict::Linearizable(pointed.into_iter().map(|(_, index)| index).collect())
}

/// The order of the places, if it is a linearization. What never returned and has no place is
/// taken not to have happened.
fn guess<M: Model>(ops: &[Borrowed<'_, M>]) -> Option<Vec<usize>> {
    let mut placed = Vec::new();
    for (index, op) in ops.iter().enumerate() {
        match (op.place, op.returned) {
            (Some(place), _) => placed.push((place, index)),
            (None, None) => {}
            (None, Some(_)) => return None,
        }
    }
    placed.sort_unstable();
    let mut state = M::start();
    let mut moment = 0;
    for (_, index) in &placed {
        let op = &ops[*index];
        moment = op.invoked.max(moment);
        if op.returned.is_some_and(|returned| returned < moment) {
            return None;
        }
        state = M::step(&state, op.input, op.output)?;
    }
    Some(placed.into_iter().map(|(_, index)| index).collect())
}

/// The operations in parts that have no keys in common, in the order of their first operations.
fn parts<M: Model>(ops: &[Borrowed<'_, M>]) -> Vec<Vec<usize>> {
    let mut parts: Vec<(BTreeSet<M::Key>, Vec<usize>)> = Vec::new();
    for (index, op) in ops.iter().enumerate() {
        let Some(keys) = M::keys(op.input) else { return vec![(0..ops.len()).collect()] };
        let mut own: BTreeSet<M::Key> = keys.into_iter().collect();
        let mut members = vec![index];
        // It makes one part of all those with which it shares a key.
        let mut apart = Vec::new();
        for (keys, others) in parts {
            if keys.is_disjoint(&own) {
                apart.push((keys, others));
            } else {
                own.extend(keys);
                members.extend(others);
            }
        }
        apart.push((own, members));
        parts = apart;
    }
    let mut parts: Vec<Vec<usize>> = parts.into_iter().map(|(_, members)| members).collect();
    parts.iter_mut().for_each(|members| members.sort_unstable());
    parts.sort_unstable();
    parts
}
