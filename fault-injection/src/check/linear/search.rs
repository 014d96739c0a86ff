//! The search for a linearization.
//!
//! A *configuration* is the set of operations that have taken effect, and the state they led to.
//! From each the search tries every operation that may come next: those invoked before the first
//! return that is still ahead. A configuration that was seen before is not entered again. Three
//! kinds of steps are left out, since no linearization needs them:
//!
//! - a [read](Model::only_reads) that returned and fits is taken at once, and nothing else is tried
//!   in its stead: in any linearization from here it may as well come first. (Of a write that fits
//!   and changes nothing the same is not true: later it may undo what comes between.)
//! - an operation that never returned and would change nothing is not taken: it need not happen;
//! - of operations that never returned and are alike, the one invoked first is taken first.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::rc::Rc;

use super::{Borrowed, Model, Op};

/// What came of a search.
pub(super) enum Found {
    /// A linearization.
    Order(Vec<usize>),
    /// There is none.
    Stuck(Stuck),
    /// The steps did not suffice.
    GaveUp,
}

/// How far the search came that found no linearization.
pub(super) struct Stuck {
    /// No order gets past the return of this operation.
    pub blocked: usize,
    /// The longest order up to there.
    pub order: Vec<usize>,
}

/// A step on the way, with what may follow it.
struct Frame<S> {
    /// The operation of the step; `None` at the start.
    op: Option<usize>,
    state: Rc<S>,
    /// What may come next and was not tried, last first.
    candidates: Vec<usize>,
}

/// Searches from the state `start`, and takes its steps off `steps_left`.
pub(super) fn search<M: Model>(
    ops: &[Borrowed<'_, M>],
    start: M::State,
    steps_left: &mut u64,
) -> Found {
    let mut events = Events::new(ops);
    let tries = Tries::new(ops);
    let mut taken = Set::new(ops.len());
    let mut states: HashMap<Rc<M::State>, usize> = HashMap::new();
    let mut seen: HashSet<(Set, usize)> = HashSet::new();
    let mut furthest: Option<(usize, usize)> = None;
    let mut stuck = None;
    let (candidates, mut blocked) = events.candidates(&tries, &taken);
    let mut stack = vec![Frame { op: None, state: Rc::new(start), candidates }];
    loop {
        let order = || stack.iter().filter_map(|frame| frame.op).collect::<Vec<_>>();
        // No return is ahead: whatever is left need not take effect.
        let Some(first) = blocked else { return Found::Order(order()) };
        let reached = Some((events.position(first), stack.len()));
        if reached > furthest {
            furthest = reached;
            stuck = Some(Stuck { blocked: first, order: order() });
        }
        // Takes a step, or goes back until one can be taken.
        blocked = loop {
            let Some(frame) = stack.last_mut() else {
                // The first turn of the outer loop always sets it.
                return stuck.map_or(Found::GaveUp, Found::Stuck);
            };
            let Some(next) = frame.candidates.pop() else {
                if let Some(op) = stack.pop().and_then(|frame| frame.op) {
                    events.put_back(op);
                    taken.remove(op);
                }
                continue;
            };
            let Some(left) = steps_left.checked_sub(1) else { return Found::GaveUp };
            *steps_left = left;
            let op = &ops[next];
            let Some(state) = M::step(&frame.state, op.input, op.output) else { continue };
            if state == *frame.state {
                if op.returned.is_none() {
                    continue;
                }
                if M::only_reads(op.input) {
                    frame.candidates.clear();
                }
            }
            let (state, number) = known(&mut states, state);
            taken.insert(next);
            if !seen.insert((taken.clone(), number)) {
                taken.remove(next);
                continue;
            }
            events.take_out(next);
            let (candidates, blocked) = events.candidates(&tries, &taken);
            stack.push(Frame { op: Some(next), state, candidates });
            break blocked;
        };
    }
}

/// The state as it was first seen, and its number: many configurations share few states.
fn known<S: Eq + Hash>(states: &mut HashMap<Rc<S>, usize>, state: S) -> (Rc<S>, usize) {
    if let Some((state, number)) = states.get_key_value(&state) {
        return (Rc::clone(state), *number);
    }
    let (state, number) = (Rc::new(state), states.len());
    states.insert(Rc::clone(&state), number);
    (state, number)
}

/// In which order operations are tried.
struct Tries {
    /// The rank of each operation. What returned comes before what did not, which is only taken
    /// where the answers of the others need it.
    ranks: Vec<usize>,
    /// Of each operation that never returned, the last one before it that is alike.
    twins: Vec<Option<usize>>,
}

impl Tries {
    fn new<I: Eq, O: Eq>(ops: &[Op<&I, &O>]) -> Self {
        let mut tried: Vec<usize> = (0..ops.len()).collect();
        tried.sort_by_key(|index| {
            let op = &ops[*index];
            let unplaced = op.place.is_none();
            (op.returned.is_none(), unplaced, op.place, op.returned, op.invoked, *index)
        });
        let mut ranks = vec![0; ops.len()];
        tried.iter().enumerate().for_each(|(rank, index)| ranks[*index] = rank);

        let mut unreturned: Vec<usize> =
            (0..ops.len()).filter(|index| ops[*index].returned.is_none()).collect();
        unreturned.sort_by_key(|index| ops[*index].invoked);
        let mut twins = vec![None; ops.len()];
        for (position, index) in unreturned.iter().enumerate() {
            let op = &ops[*index];
            twins[*index] = unreturned[..position].iter().rev().copied().find(|earlier| {
                ops[*earlier].input == op.input && ops[*earlier].output == op.output
            });
        }
        Self { ranks, twins }
    }
}

/// The invocations and returns of what has not taken effect, by time, as a doubly linked list.
///
/// Node `i` is the invocation of operation `i`, node `n + i` its return, and node `2n` the end and
/// the beginning.
struct Events {
    operations: usize,
    next: Vec<usize>,
    previous: Vec<usize>,
    positions: Vec<usize>,
    has_return: Vec<bool>,
}

impl Events {
    fn new<I, O>(ops: &[Op<I, O>]) -> Self {
        let operations = ops.len();
        let mut nodes = Vec::with_capacity(2 * operations);
        for (index, op) in ops.iter().enumerate() {
            nodes.push((op.invoked, index));
            nodes.extend(op.returned.map(|returned| (returned, operations + index)));
        }
        // At one time invocations come first, so that operations that touch overlap.
        nodes.sort_unstable();
        let end = 2 * operations;
        let mut events = Self {
            operations,
            next: vec![end; end + 1],
            previous: vec![end; end + 1],
            positions: vec![0; end + 1],
            has_return: ops.iter().map(|op| op.returned.is_some()).collect(),
        };
        let mut last = end;
        for (position, (_, node)) in nodes.into_iter().enumerate() {
            events.positions[node] = position;
            events.next[last] = node;
            events.previous[node] = last;
            last = node;
        }
        events.next[last] = end;
        events.previous[end] = last;
        events
    }

    /// Where the return of an operation stands among all events.
    fn position(&self, op: usize) -> usize {
        self.positions[self.operations + op]
    }

    /// The operations that may take effect next, last first, and the one whose return bounds them.
    fn candidates(&self, tries: &Tries, taken: &Set) -> (Vec<usize>, Option<usize>) {
        let mut candidates = Vec::new();
        let end = 2 * self.operations;
        let mut node = self.next[end];
        while node < self.operations {
            if tries.twins[node].is_none_or(|twin| taken.holds(twin)) {
                candidates.push(node);
            }
            node = self.next[node];
        }
        candidates.sort_unstable_by_key(|op| std::cmp::Reverse(tries.ranks[*op]));
        (candidates, (node < end).then(|| node - self.operations))
    }

    fn take_out(&mut self, op: usize) {
        self.unlink(op);
        if self.has_return[op] {
            self.unlink(self.operations + op);
        }
    }

    /// Undoes the last [`Events::take_out`] that was not undone, which must be of `op`: a node
    /// still knows its neighbours of then.
    fn put_back(&mut self, op: usize) {
        if self.has_return[op] {
            self.relink(self.operations + op);
        }
        self.relink(op);
    }

    fn unlink(&mut self, node: usize) {
        let (previous, next) = (self.previous[node], self.next[node]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    fn relink(&mut self, node: usize) {
        let (previous, next) = (self.previous[node], self.next[node]);
        self.next[previous] = node;
        self.previous[next] = node;
    }
}

/// A set of operations, one bit for each.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Set(Box<[u64]>);

impl Set {
    fn new(operations: usize) -> Self {
        Self(vec![0; operations.div_ceil(64)].into())
    }

    fn insert(&mut self, op: usize) {
        self.0[op / 64] |= 1 << (op % 64);
    }

    fn remove(&mut self, op: usize) {
        self.0[op / 64] &= !(1 << (op % 64));
    }

    fn holds(&self, op: usize) -> bool {
        self.0[op / 64] & (1 << (op % 64)) != 0
    }
}
