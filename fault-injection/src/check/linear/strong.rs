//! What the simulator calls: strong operations on the Journal, and the rest of the world.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;

use super::{Contradiction, JournalModel, Model, Op, Request, Verdict, check};
use crate::violation::Violation;

type JournalOp = Op<Request, Vec<Bytes>>;

/// So many operations of one kind are shown.
const SHOWN: usize = 12;

/// Something a client asked for that is final when it is answered. See the [module](super).
#[derive(Clone, Debug)]
pub struct StrongOp {
    /// Who asked.
    pub client: u32,
    /// When it was first asked.
    pub asked: u64,
    /// When it was answered, if it was.
    pub answered: Option<u64>,
    /// What it does, in one moment.
    pub operations: Vec<Bytes>,
    /// What it answered, one for each operation. `None` where the client was not told: then it
    /// still took effect before `answered`.
    pub results: Option<Vec<Bytes>>,
    /// The slot and the position in it that the answer names. It is tried first, not believed.
    pub place: Option<(u64, u32)>,
}

/// Something else that changes the state, or may. See the [module](super).
#[derive(Clone, Debug)]
pub struct EnvironmentOp {
    /// Who asked.
    pub client: u32,
    /// When it was first asked.
    pub asked: u64,
    /// What it does, in one moment.
    pub operations: Vec<Bytes>,
    /// What it answers in the final history, where there is one. Never what a client was told
    /// before it was final.
    pub results: Option<Vec<Bytes>>,
    /// The slot and the position that it is thought to have. It is tried first, not believed.
    pub place: Option<(u64, u32)>,
}

/// How a check without a violation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decided {
    /// The strong operations are linearizable.
    Linearizable,
    /// It could not be told within the bound.
    Unknown,
}

/// Whether strong operations on a Journal are linearizable, whatever the environment did.
///
/// `bound` limits the steps of the search, below a microsecond each; each may keep some hundred
/// bytes. Three hundred operations of ten concurrent clients take some thousand steps. Where thirty
/// of them are environment without results, it can be a hundred thousand, and with a hundred of
/// them the answer may be [`Decided::Unknown`], unless results or places help. Where the whole
/// cannot be decided, or is wrong, each key is looked at alone, with the same bound, and what is
/// wrong is explained, which takes up to a second.
///
/// # Errors
/// I8: they are not.
///
/// # Panics
/// Where one was answered before it was asked.
pub fn check_strong(
    strong: &[StrongOp],
    environment: &[EnvironmentOp],
    bound: u64,
) -> Result<Decided, Violation> {
    let strong = strong.iter().map(|op| Op {
        client: op.client,
        invoked: op.asked,
        returned: op.answered,
        input: Request::parse(&op.operations),
        output: op.results.clone(),
        place: op.place,
    });
    let environment = environment.iter().map(|op| Op {
        client: op.client,
        invoked: op.asked,
        returned: None,
        input: Request::parse(&op.operations),
        output: op.results.clone(),
        place: op.place,
    });
    let ops: Vec<JournalOp> = strong.chain(environment).collect();
    let whole = match check::<JournalModel>(&ops, bound) {
        Verdict::Linearizable(_) => return Ok(Decided::Linearizable),
        Verdict::NotLinearizable(why) => Some(why),
        Verdict::Unknown => None,
    };
    // What was too much to search may still be wrong about one key.
    let what = match (on_one_key(&ops, bound), whole) {
        (Some((key, ops, why)), _) => format!("of what was done to {key}, {}", words(&ops, &why)),
        (None, Some(why)) => words(&ops, &why),
        (None, None) => return Ok(Decided::Unknown),
    };
    Err(Violation::new("I8", what))
}

/// The shortest contradiction in what was done to one key, if there is one, with that history.
///
/// What a linearizable history does to one key is linearizable, too, and most of what goes wrong
/// shows there. With fewer operations and without the other keys it is easier to explain.
fn on_one_key(ops: &[JournalOp], bound: u64) -> Option<(Arc<str>, Vec<JournalOp>, Contradiction)> {
    let keys: BTreeSet<Arc<str>> = ops.iter().flat_map(|op| op.input.keys()).collect();
    let contradictions = keys.into_iter().filter_map(|key| {
        let on_key: Vec<JournalOp> = ops.iter().filter_map(|op| project(op, &key)).collect();
        match check::<JournalModel>(&on_key, bound) {
            Verdict::NotLinearizable(why) => Some((key, on_key, why)),
            Verdict::Linearizable(_) | Verdict::Unknown => None,
        }
    });
    contradictions.min_by_key(|(_, _, why)| why.core.len())
}

/// What an operation does to one key; `None` where it does nothing to it.
fn project(op: &JournalOp, key: &Arc<str>) -> Option<JournalOp> {
    let positions = op.input.positions(key);
    let input = op.input.part(&positions);
    // Where results are missing the whole request is wrong; for one key it cannot be said how.
    let output = op.output.as_ref().and_then(|results| {
        positions.iter().map(|position| results.get(*position).cloned()).collect()
    });
    (!positions.is_empty()).then(|| Op { input, output, ..*op })
}

/// The contradiction in lines, one operation each.
fn words(ops: &[JournalOp], why: &Contradiction) -> String {
    let mut text = String::from("no order explains these answers");
    if let Some(since) = why.since {
        let _ = write!(text, ", whatever was stored at {since}");
    }
    text.push(':');
    // The one that cannot be explained is last, and must be seen.
    let hidden = why.core.len().saturating_sub(4 * SHOWN);
    if hidden > 0 {
        let _ = write!(text, "\n  ({hidden} operations)");
    }
    for index in why.core.iter().skip(hidden) {
        let _ = write!(text, "\n  {}", line(&ops[*index]));
    }
    let _ = write!(text, "\nnone has a place for: {}", line(&ops[why.blocked]));
    if !why.bystanders.is_empty() {
        let count = why.bystanders.len();
        let _ = write!(text, "\nwherever the other {count} take effect, if at all:");
        for index in why.bystanders.iter().rev().take(SHOWN) {
            let _ = write!(text, "\n  {}", line(&ops[*index]));
        }
        if count > SHOWN {
            let _ = write!(text, "\n  ({} more)", count - SHOWN);
        }
    }
    let _ = write!(text, "\nan order without it ends with:");
    let mut state = JournalModel::start();
    for (position, index) in why.order.iter().enumerate() {
        let op = &ops[*index];
        if position + SHOWN >= why.order.len() {
            let _ = write!(text, "\n  {}", line(op));
        }
        if let Some(next) = JournalModel::step(&state, &op.input, op.output.as_ref()) {
            state = next;
        }
    }
    let _ = write!(text, "\nand then {}", state.describe());
    text
}

fn line(op: &JournalOp) -> String {
    let returned = op.returned.map_or(String::new(), |returned| returned.to_string());
    let results = op.output.as_ref().map_or(String::from("not known"), |results| {
        let results: Vec<_> = results.iter().map(|r| String::from_utf8_lossy(r)).collect();
        results.join(", ")
    });
    format!("client {} at {}..{returned}: {} -> {results}", op.client, op.invoked, op.input)
}
