//! A model too dumb to be wrong: plain maps, restated from the documentation of the commands, and
//! generators for what runs on both.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use elea_kv::{
    Add, Added, Answer, Append, Appended, Cas, Compare, Counted, Delete, Found, Get, Incr, Item,
    MemberList, Members, Operation, Outcome, Page, Put, Reason, Refused, Relation, Remove, Removed,
    Scan, Step, Swap, Test, Txn, TxnOutcome, Value, Version,
};
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    Plain(Vec<u8>),
    Number(i64),
    Set(SetOf),
}

impl Kept {
    fn text(&self) -> Result<Vec<u8>, Reason> {
        match self {
            Self::Plain(text) => Ok(text.clone()),
            Self::Number(number) => Ok(format!("{number}").into_bytes()),
            Self::Set(_) => Err(Reason::HoldsSet),
        }
    }
}

type SetOf = BTreeSet<Vec<u8>>;

/// The whole state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dumb(pub BTreeMap<Vec<u8>, (Kept, Version)>);

fn number(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let number = text.parse::<i64>().ok()?;
    (format!("{number}") == text).then_some(number)
}

impl Dumb {
    pub fn execute(&mut self, at: Version, operation: &Operation) -> Answer {
        match operation {
            Operation::Step(step) => match self.step(at, step) {
                Ok(outcome) => Answer::Step(outcome),
                Err(reason) => Answer::Refused(Refused { reason, step: None }),
            },
            Operation::Txn(txn) => self.txn(at, txn),
        }
    }

    fn txn(&mut self, at: Version, txn: &Txn) -> Answer {
        let mut succeeded = true;
        for compare in &txn.compares {
            match self.compare(compare) {
                Ok(holds) => succeeded = succeeded && holds,
                Err(reason) => return Answer::Refused(Refused { reason, step: None }),
            }
        }
        let mut after = self.clone();
        let mut outcomes = Vec::new();
        for (n, step) in if succeeded { &txn.then } else { &txn.otherwise }.iter().enumerate() {
            match after.step(at, step) {
                Ok(outcome) => outcomes.push(outcome),
                Err(reason) => {
                    return Answer::Refused(Refused { reason, step: Some(n as u32) });
                }
            }
        }
        *self = after;
        Answer::Txn(TxnOutcome { succeeded, outcomes, version: at })
    }

    fn compare(&self, Compare { key, test }: &Compare) -> Result<bool, Reason> {
        let held = self.0.get(&key[..]);
        let related = |relation: &Relation, ordering: std::cmp::Ordering| match relation {
            Relation::Equal => ordering.is_eq(),
            Relation::NotEqual => !ordering.is_eq(),
            Relation::Less => ordering.is_lt(),
            Relation::Greater => ordering.is_gt(),
        };
        Ok(match test {
            Test::Exists => held.is_some(),
            Test::Absent => held.is_none(),
            Test::Version(relation, version) => {
                related(relation, held.map_or(Version::NONE, |(_, version)| *version).cmp(version))
            }
            Test::Value(relation, given) => {
                let Some((kept, _)) = held else { return Ok(*relation == Relation::NotEqual) };
                let text = kept.text()?;
                match (number(&text), number(given)) {
                    (Some(one), Some(other)) => related(relation, one.cmp(&other)),
                    _ => related(relation, text[..].cmp(&given[..])),
                }
            }
        })
    }

    fn found(&self, key: &[u8]) -> Result<Option<Found>, Reason> {
        let Some((kept, version)) = self.0.get(key) else { return Ok(None) };
        Ok(Some(Found { value: kept.text()?.into(), version: *version }))
    }

    fn set(&self, key: &[u8]) -> Result<Option<(SetOf, Version)>, Reason> {
        match self.0.get(key) {
            None => Ok(None),
            Some((Kept::Set(set), version)) => Ok(Some((set.clone(), *version))),
            Some(_) => Err(Reason::HoldsValue),
        }
    }

    fn step(&mut self, at: Version, step: &Step) -> Result<Outcome, Reason> {
        Ok(match step {
            Step::Get(Get { key }) => Outcome::Get(self.found(key)?),
            Step::Put(Put { key, value }) => {
                self.0.insert(key.to_vec(), (Kept::Plain(value.to_vec()), at));
                Outcome::Put(at)
            }
            Step::Delete(Delete { key }) => {
                Outcome::Delete(self.0.remove(&key[..]).is_some().then_some(at))
            }
            Step::Cas(Cas { key, expected, value }) => {
                let found = self.found(key)?;
                if found.as_ref().map(|found| found.value.clone()) != *expected {
                    Outcome::Cas(Swap::Mismatch(found))
                } else if let Some(value) = value {
                    self.0.insert(key.to_vec(), (Kept::Plain(value.to_vec()), at));
                    Outcome::Cas(Swap::Done(Some(at)))
                } else {
                    let was = self.0.remove(&key[..]);
                    Outcome::Cas(Swap::Done(was.map(|_| at)))
                }
            }
            Step::Incr(Incr { key, by }) => {
                let value = match self.0.get(&key[..]) {
                    None => 0,
                    Some((kept, _)) => number(&kept.text()?).ok_or(Reason::NotAnInteger)?,
                };
                let sum = i128::from(value) + i128::from(*by);
                let sum = i64::try_from(sum).map_err(|_| Reason::Overflow { value, by: *by })?;
                self.0.insert(key.to_vec(), (Kept::Number(sum), at));
                Outcome::Incr(Counted { value: sum, version: at })
            }
            Step::Append(Append { key, bytes }) => {
                let mut text = match self.0.get(&key[..]) {
                    None => Vec::new(),
                    Some((kept, _)) => kept.text()?,
                };
                text.extend_from_slice(bytes);
                let length = text.len() as u64;
                self.0.insert(key.to_vec(), (Kept::Plain(text), at));
                Outcome::Append(Appended { length, version: at })
            }
            Step::Add(Add { key, member }) => {
                let (mut set, version) = self.set(key)?.unwrap_or((BTreeSet::new(), at));
                let added = set.insert(member.to_vec());
                let version = if added { at } else { version };
                self.0.insert(key.to_vec(), (Kept::Set(set), version));
                Outcome::Add(Added { added, version })
            }
            Step::Remove(Remove { key, member }) => {
                let Some((mut set, version)) = self.set(key)? else {
                    return Ok(Outcome::Remove(Removed { removed: false, version: None }));
                };
                let removed = set.remove(&member[..]);
                let version = if removed { at } else { version };
                if set.is_empty() {
                    self.0.remove(&key[..]);
                } else {
                    self.0.insert(key.to_vec(), (Kept::Set(set), version));
                }
                Outcome::Remove(Removed { removed, version: Some(version) })
            }
            Step::Members(Members { key }) => Outcome::Members(match self.set(key)? {
                None => MemberList { members: vec![], version: None },
                Some((set, version)) => MemberList {
                    members: set.into_iter().map(Bytes::from).collect(),
                    version: Some(version),
                },
            }),
            Step::Scan(Scan { from, to, limit }) => {
                let mut items: Vec<Item> = self.items();
                items.retain(|item| item.key >= from && to.as_ref().is_none_or(|to| item.key < to));
                let limit = (*limit).clamp(1, 4096) as usize;
                let next = items.get(limit).map(|item| item.key.clone());
                items.truncate(limit);
                Outcome::Scan(Page { items, next })
            }
        })
    }

    pub fn items(&self) -> Vec<Item> {
        self.0
            .iter()
            .map(|(key, (kept, version))| Item {
                key: key.clone().into(),
                version: *version,
                value: match kept {
                    Kept::Plain(text) => Value::Bytes(text.clone().into()),
                    Kept::Number(number) => Value::Integer(*number),
                    Kept::Set(set) => Value::Set(set.iter().cloned().map(Bytes::from).collect()),
                },
            })
            .collect()
    }
}

/// Few keys, so that operations meet.
pub fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => (0u8..6).prop_map(|n| vec![b'a' + n].into()),
        1 => Just(Bytes::new()),
        1 => prop::collection::vec(prop_oneof![Just(0u8), Just(255), Just(b'a')], 0..4)
            .prop_map(Bytes::from),
    ]
}

pub fn text() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => (-20i64..20).prop_map(|n| n.to_string().into()),
        1 => prop_oneof![Just(i64::MAX), Just(i64::MIN)].prop_map(|n| n.to_string().into()),
        1 => Just(Bytes::from("007")),
        3 => prop::collection::vec(any::<u8>(), 0..5).prop_map(Bytes::from),
    ]
}

fn number_strategy() -> impl Strategy<Value = i64> {
    prop_oneof![6 => -5i64..5, 1 => Just(i64::MAX), 1 => Just(i64::MIN)]
}

pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => key().prop_map(|key| Get { key }.into()),
        3 => (key(), text()).prop_map(|(key, value)| Put { key, value }.into()),
        1 => key().prop_map(|key| Delete { key }.into()),
        2 => (key(), prop::option::of(text()), prop::option::of(text()))
            .prop_map(|(key, expected, value)| Cas { key, expected, value }.into()),
        2 => (key(), number_strategy()).prop_map(|(key, by)| Incr { key, by }.into()),
        2 => (key(), text()).prop_map(|(key, bytes)| Append { key, bytes }.into()),
        3 => (key(), key()).prop_map(|(key, member)| Add { key, member }.into()),
        2 => (key(), key()).prop_map(|(key, member)| Remove { key, member }.into()),
        1 => key().prop_map(|key| Members { key }.into()),
        1 => (key(), prop::option::of(key()), 0u32..9)
            .prop_map(|(from, to, limit)| Scan { from, to, limit }.into()),
    ]
}

fn compare() -> impl Strategy<Value = Compare> {
    let relation = prop_oneof![
        Just(Relation::Equal),
        Just(Relation::NotEqual),
        Just(Relation::Less),
        Just(Relation::Greater)
    ];
    let test = (relation, text(), 0u64..4, 0u32..4, 0u8..4).prop_map(
        |(relation, text, slot, index, kind)| match kind {
            0 => Test::Exists,
            1 => Test::Absent,
            2 => Test::Value(relation, text),
            _ => Test::Version(relation, crate::world::version(slot, index)),
        },
    );
    (key(), test).prop_map(|(key, test)| Compare { key, test })
}

pub fn operation() -> impl Strategy<Value = Operation> {
    let steps = || prop::collection::vec(step(), 0..5);
    prop_oneof![
        4 => step().prop_map(Operation::Step),
        1 => (prop::collection::vec(compare(), 0..3), steps(), steps())
            .prop_map(|(compares, then, otherwise)| Txn { compares, then, otherwise }.into()),
    ]
}
