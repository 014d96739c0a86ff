//! What operations do to the state.

use bytes::Bytes;

use crate::limits::Limits;
use crate::operation::{Operation, Scan, Step};
use crate::outcome::{
    Added, Answer, Appended, Counted, MemberList, Outcome, Page, Reason, Refused, Removed, Swap,
    TxnOutcome, Version,
};
use crate::state::{Desk, Held, Set, integer};
use crate::txn::{Compare, Test, Txn};

/// Executes an operation that writes as `version`. A refused one leaves the state as it was.
pub(crate) fn execute(
    state: &mut Desk<'_>,
    limits: &Limits,
    version: Version,
    operation: Operation,
) -> Answer {
    let answer = match operation {
        Operation::Step(step) => {
            run(state, limits, version, step).map(Answer::Step).map_err(Refused::from)
        }
        Operation::Txn(txn) => transact(state, limits, version, txn).map(Answer::Txn),
    };
    answer.unwrap_or_else(Answer::Refused)
}

fn transact(
    state: &mut Desk<'_>,
    limits: &Limits,
    version: Version,
    txn: Txn,
) -> Result<TxnOutcome, Refused> {
    limits.check_txn(&txn)?;
    let mut succeeded = true;
    for compare in &txn.compares {
        // All are looked at, so that whether one is refused does not hang on the others.
        succeeded &= holds(state, compare)?;
    }
    let steps = if succeeded { txn.then } else { txn.otherwise };
    let before = state.state.clone();
    let mut outcomes = Vec::with_capacity(steps.len());
    let mut size = 0;
    for (n, step) in (0..).zip(steps) {
        let outcome = run(state, limits, version, step).and_then(|outcome| {
            size += outcome.size();
            limits.check_txn_result(size)?;
            Ok(outcome)
        });
        match outcome {
            Ok(outcome) => outcomes.push(outcome),
            Err(reason) => {
                *state.state = before;
                return Err(Refused { reason, step: Some(n) });
            }
        }
    }
    Ok(TxnOutcome { succeeded, outcomes, version })
}

fn holds(state: &Desk<'_>, compare: &Compare) -> Result<bool, Reason> {
    let entry = state.get(&compare.key);
    Ok(match &compare.test {
        Test::Exists => entry.is_some(),
        Test::Absent => entry.is_none(),
        Test::Version(relation, version) => {
            let held = entry.map_or(Version::NONE, |entry| entry.version);
            relation.holds(held.cmp(version))
        }
        Test::Value(relation, given) => match entry {
            None => *relation == crate::txn::Relation::NotEqual,
            Some(entry) => {
                let text = entry.held.text()?;
                relation.holds(match (integer(&text), integer(given)) {
                    (Some(held), Some(given)) => held.cmp(&given),
                    _ => text.cmp(given),
                })
            }
        },
    })
}

fn run(
    state: &mut Desk<'_>,
    limits: &Limits,
    version: Version,
    step: Step,
) -> Result<Outcome, Reason> {
    limits.check_step(&step)?;
    Ok(match step {
        Step::Get(get) => Outcome::Get(state.read(&get.key)?),
        Step::Put(put) => {
            state.put(put.key, Held::Bytes(put.value), version);
            Outcome::Put(version)
        }
        Step::Delete(delete) => {
            Outcome::Delete(state.remove(&delete.key, version).then_some(version))
        }
        Step::Cas(cas) => {
            let found = state.read(&cas.key)?;
            if found.as_ref().map(|found| &found.value) != cas.expected.as_ref() {
                return Ok(Outcome::Cas(Swap::Mismatch(found)));
            }
            let written = match cas.value {
                Some(value) => {
                    state.put(cas.key, Held::Bytes(value), version);
                    true
                }
                None => state.remove(&cas.key, version),
            };
            Outcome::Cas(Swap::Done(written.then_some(version)))
        }
        Step::Incr(incr) => {
            let value = state.get(&incr.key).map_or(Ok(0), |entry| entry.held.integer())?;
            let by = incr.by;
            let sum = value.checked_add(by).ok_or(Reason::Overflow { value, by })?;
            state.put(incr.key, Held::Integer(sum), version);
            Outcome::Incr(Counted { value: sum, version })
        }
        Step::Append(append) => {
            let value = append_to(state, limits, &append.key, &append.bytes)?;
            let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
            state.put(append.key, Held::Bytes(value), version);
            Outcome::Append(Appended { length, version })
        }
        Step::Add(add) => {
            let (mut set, held) = state.set(&add.key)?.unwrap_or_else(|| (Set::default(), version));
            if set.contains(&add.member) {
                return Ok(Outcome::Add(Added { added: false, version: held }));
            }
            limits.check_set(set.size_with(&add.member))?;
            set.insert(add.member);
            state.put(add.key, Held::Set(set), version);
            Outcome::Add(Added { added: true, version })
        }
        Step::Remove(remove) => match state.set(&remove.key)? {
            None => Outcome::Remove(Removed { removed: false, version: None }),
            Some((set, held)) if !set.contains(&remove.member) => {
                Outcome::Remove(Removed { removed: false, version: Some(held) })
            }
            Some((mut set, _)) => {
                set.remove(&remove.member);
                if set.is_empty() {
                    state.remove(&remove.key, version);
                } else {
                    state.put(remove.key, Held::Set(set), version);
                }
                Outcome::Remove(Removed { removed: true, version: Some(version) })
            }
        },
        Step::Members(members) => Outcome::Members(match state.set(&members.key)? {
            None => MemberList { members: Vec::new(), version: None },
            Some((set, held)) => MemberList { members: set.list(), version: Some(held) },
        }),
        Step::Scan(scan) => Outcome::Scan(page(state, limits, &scan)),
    })
}

fn append_to(
    state: &Desk<'_>,
    limits: &Limits,
    key: &[u8],
    bytes: &Bytes,
) -> Result<Bytes, Reason> {
    let held = state.get(key).map_or(Ok(Bytes::new()), |entry| entry.held.text())?;
    limits.check_value(held.len().saturating_add(bytes.len()))?;
    Ok([held.as_ref(), bytes.as_ref()].concat().into())
}

fn page(state: &Desk<'_>, limits: &Limits, scan: &Scan) -> Page {
    let limit = usize::try_from(scan.limit.max(1))
        .map_or(limits.page_items, |limit| limit.min(limits.page_items));
    let mut items = Vec::new();
    let mut size = 0usize;
    for key in state.keys_from(&scan.from) {
        if scan.to.as_ref().is_some_and(|to| key >= *to) {
            break;
        }
        if items.len() == limit {
            return Page { items, next: Some(key) };
        }
        // It is there, or could not be read: then the page is of no use to anybody.
        let Some(entry) = state.get(&key) else { break };
        size += entry.size(&key);
        if size > limits.page_bytes && !items.is_empty() {
            return Page { items, next: Some(key) };
        }
        items.push(entry.item(&key));
    }
    Page { items, next: None }
}
