//! What operations do to the state.

use std::cmp::Ordering;
use std::ops::Bound;

use bytes::Bytes;

use crate::operation::Operation;
use crate::outcome::{
    Added, Answer, Appended, Counted, MemberList, Outcome, Page, Reason, Refused, Removed, Swap,
    TxnOutcome, Version,
};
use crate::set::Set;
use crate::state::{Desk, Entry, Held, integer};
use crate::step::{Append, Cas, Scan, Step};
use crate::text::Text;
use crate::txn::{Compare, Relation, Test, Txn};

/// How many keys a scan looks at before it reads what they hold.
const KEYS_AT_A_TIME: usize = 128;

/// Executes an operation that writes as `version`. A refused one leaves the state as it was.
pub(crate) fn execute(state: &mut Desk<'_>, version: Version, operation: Operation) -> Answer {
    let limits = state.limits;
    let allowed = limits.check_operation(&operation);
    if let Err(reason) = allowed.and_then(|()| state.spent.begin(limits, &operation)) {
        return Answer::Refused(Refused::from(reason));
    }
    let answer = match operation {
        Operation::Step(step) => run(state, version, step).map(Answer::Step).map_err(Refused::from),
        Operation::Txn(txn) => transact(state, version, txn).map(Answer::Txn),
    };
    answer.unwrap_or_else(Answer::Refused)
}

fn transact(state: &mut Desk<'_>, version: Version, txn: Txn) -> Result<TxnOutcome, Refused> {
    let mut succeeded = true;
    for compare in &txn.compares {
        // All are looked at, so that whether one is refused does not hang on the others.
        succeeded &= holds(state, compare)?;
    }
    let steps = if succeeded { txn.then } else { txn.otherwise };
    let mut outcomes = Vec::with_capacity(steps.len());
    let mut size = 0;
    state.attempt(|state| {
        for (n, step) in (0..).zip(steps) {
            let outcome = run(state, version, step).and_then(|outcome| {
                size += outcome.size();
                state.limits.check_txn_result(size)?;
                Ok(outcome)
            });
            outcomes.push(outcome.map_err(|reason| Refused { reason, step: Some(n) })?);
        }
        Ok(TxnOutcome { succeeded, outcomes, version })
    })
}

fn holds(state: &mut Desk<'_>, compare: &Compare) -> Result<bool, Reason> {
    let entry = state.get(&compare.key);
    Ok(match &compare.test {
        Test::Exists => entry.is_some(),
        Test::Absent => entry.is_none(),
        Test::Version(relation, version) => {
            let held = entry.map_or(Version::NONE, |entry| entry.version);
            relation.holds(held.cmp(version))
        }
        Test::Value(relation, given) => match entry {
            None => *relation == Relation::NotEqual,
            Some(Entry { held, .. }) => relation.holds(order(state, &compare.key, &held, given)?),
        },
    })
}

/// How what a key holds stands to what is given: as integers where both are.
fn order(state: &mut Desk<'_>, key: &[u8], held: &Held, given: &[u8]) -> Result<Ordering, Reason> {
    if let Some(given) = integer(given) {
        match state.integer(key, held) {
            Ok(held) => return Ok(held.cmp(&given)),
            Err(Reason::NotAnInteger) => {}
            Err(reason) => return Err(reason),
        }
    }
    // One byte more than is given says how a longer value compares.
    Ok(state.text(key, held, given.len().saturating_add(1))?[..].cmp(given))
}

fn run(state: &mut Desk<'_>, version: Version, step: Step) -> Result<Outcome, Reason> {
    state.limits.check_step(&step)?;
    Ok(match step {
        Step::Get(get) => Outcome::Get(state.read(&get.key)?),
        Step::Put(put) => {
            state.put(put.key, Held::Text(Text::new(put.value, version)), version);
            Outcome::Put(version)
        }
        Step::Delete(delete) => {
            Outcome::Delete(state.remove(&delete.key, version).then_some(version))
        }
        Step::Cas(cas) => Outcome::Cas(swap(state, cas, version)?),
        Step::Incr(incr) => {
            let value = match state.get(&incr.key) {
                Some(entry) => state.integer(&incr.key, &entry.held)?,
                None => 0,
            };
            let by = incr.by;
            let sum = value.checked_add(by).ok_or(Reason::Overflow { value, by })?;
            state.put(incr.key, Held::Integer(sum), version);
            Outcome::Incr(Counted { value: sum, version })
        }
        Step::Append(append) => {
            let value = grown(state, &append, version)?;
            let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
            state.put(append.key, Held::Text(value), version);
            Outcome::Append(Appended { length, version })
        }
        Step::Add(add) => {
            let (set, held) = state.set(&add.key)?.unwrap_or_else(|| (Set::default(), version));
            if state.contains(&add.key, &set, &add.member) {
                return Ok(Outcome::Add(Added { added: false, version: held }));
            }
            state.limits.check_set(set.size_with(&add.member))?;
            let set = state.with_member(&add.key, set, add.member);
            state.put(add.key, Held::Set(set), version);
            Outcome::Add(Added { added: true, version })
        }
        Step::Remove(remove) => match state.set(&remove.key)? {
            None => Outcome::Remove(Removed { removed: false, version: None }),
            Some((set, held)) if !state.contains(&remove.key, &set, &remove.member) => {
                Outcome::Remove(Removed { removed: false, version: Some(held) })
            }
            Some((set, _)) => {
                let set = state.without_member(&remove.key, set, &remove.member);
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
            Some((set, held)) => {
                MemberList { members: state.members(&members.key, &set)?, version: Some(held) }
            }
        }),
        Step::Scan(scan) => Outcome::Scan(page(state, &scan)?),
    })
}

fn swap(state: &mut Desk<'_>, cas: Cas, version: Version) -> Result<Swap, Reason> {
    let found = state.read(&cas.key)?;
    if found.as_ref().map(|found| &found.value) != cas.expected.as_ref() {
        return Ok(Swap::Mismatch(found));
    }
    let written = match cas.value {
        Some(value) => {
            state.put(cas.key, Held::Text(Text::new(value, version)), version);
            true
        }
        None => state.remove(&cas.key, version),
    };
    Ok(Swap::Done(written.then_some(version)))
}

/// The value with what is to be appended.
fn grown(state: &mut Desk<'_>, append: &Append, version: Version) -> Result<Text, Reason> {
    let held = match state.get(&append.key).map(|entry| entry.held) {
        Some(Held::Text(text)) => text,
        Some(Held::Integer(value)) => Text::new(value.to_string().into(), version),
        Some(Held::Set(_)) => return Err(Reason::HoldsSet),
        None => Text::new(Default::default(), version),
    };
    state.limits.check_value(held.len().saturating_add(append.bytes.len()))?;
    Ok(held.appended(&append.bytes))
}

fn page(state: &mut Desk<'_>, scan: &Scan) -> Result<Page, Reason> {
    let page = items(state, scan)?;
    let end = match (&page.next, &scan.to) {
        (Some(next), _) => Bound::Included(&next[..]),
        (None, Some(to)) => Bound::Excluded(&to[..]),
        (None, None) => Bound::Unbounded,
    };
    state.note_stretch(&scan.from, end);
    Ok(page)
}

fn items(state: &mut Desk<'_>, scan: &Scan) -> Result<Page, Reason> {
    let (page_items, page_bytes) = (state.limits.page_items, state.limits.page_bytes);
    let limit =
        usize::try_from(scan.limit.max(1)).map_or(page_items, |limit| limit.min(page_items));
    let mut items = Vec::new();
    let mut size = 0usize;
    let mut last: Option<Bytes> = None;
    loop {
        let from = match &last {
            None => Bound::Included(&scan.from[..]),
            Some(last) => Bound::Excluded(&last[..]),
        };
        let keys = state.keys_from(from, KEYS_AT_A_TIME);
        let is_last = keys.len() < KEYS_AT_A_TIME;
        for key in &keys {
            if scan.to.as_ref().is_some_and(|to| *key >= *to) {
                return Ok(Page { items, next: None });
            }
            if items.len() == limit {
                return Ok(Page { items, next: Some(key.clone()) });
            }
            // It is there, or could not be read: then the page is of no use to anybody.
            let Some(entry) = state.get(key) else { return Ok(Page { items, next: None }) };
            size += entry.size(key);
            if size > page_bytes && !items.is_empty() {
                return Ok(Page { items, next: Some(key.clone()) });
            }
            state.spent.steps(state.limits, 1)?;
            items.extend(state.item(key, &entry)?);
        }
        last = keys.into_iter().next_back();
        if is_last || last.is_none() {
            return Ok(Page { items, next: None });
        }
    }
}
