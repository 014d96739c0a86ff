//! What requests to the [`Journal`](crate::journal::Journal) do, stated a second time.
//!
//! It is written from the description of the application and calls none of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::Model;

/// One operation on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Answers the value.
    Get(Arc<str>),
    /// Stores a value and answers the one before.
    Put(Arc<str>, Arc<str>),
    /// Adds to a number and answers the sum. `None` is no number, and never works.
    Incr(Arc<str>, Option<i64>),
    /// Adds to the end and answers the new length.
    Append(Arc<str>, Arc<str>),
    /// Stores the second text if it finds the first, and answers what it found.
    Cas(Arc<str>, Arc<str>, Arc<str>),
    /// Stores a random number and answers it.
    Draw(Arc<str>),
    /// Answers that it makes no sense.
    Nonsense,
}

impl Operation {
    fn parse(bytes: &[u8]) -> Self {
        let Ok(text) = str::from_utf8(bytes) else { return Self::Nonsense };
        let words: Vec<&str> = text.splitn(3, ' ').collect();
        match words[..] {
            ["get", key] => Self::Get(key.into()),
            ["put", key, value] => Self::Put(key.into(), value.into()),
            ["incr", key, by] => Self::Incr(key.into(), by.parse().ok()),
            ["append", key, text] => Self::Append(key.into(), text.into()),
            ["cas", key, rest] => match rest.split_once(' ') {
                Some((old, new)) => Self::Cas(key.into(), old.into(), new.into()),
                None => Self::Nonsense,
            },
            ["draw", key] => Self::Draw(key.into()),
            _ => Self::Nonsense,
        }
    }

    fn key(&self) -> Option<&Arc<str>> {
        match self {
            Self::Get(key)
            | Self::Put(key, _)
            | Self::Incr(key, _)
            | Self::Append(key, _)
            | Self::Cas(key, ..)
            | Self::Draw(key) => Some(key),
            Self::Nonsense => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get(key) => write!(f, "get {key}"),
            Self::Put(key, value) => write!(f, "put {key} {value}"),
            Self::Incr(key, Some(by)) => write!(f, "incr {key} {by}"),
            Self::Incr(key, None) => write!(f, "incr {key} by no number"),
            Self::Append(key, text) => write!(f, "append {key} {text}"),
            Self::Cas(key, old, new) => write!(f, "cas {key} {old} {new}"),
            Self::Draw(key) => write!(f, "draw {key}"),
            Self::Nonsense => write!(f, "nonsense"),
        }
    }
}

/// Operations that are executed in one moment, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request(Vec<Operation>);

impl Request {
    /// The request with these operations.
    #[must_use]
    pub fn parse(operations: &[Bytes]) -> Self {
        Self(operations.iter().map(|operation| Operation::parse(operation)).collect())
    }

    /// The keys of its operations.
    pub(super) fn keys(&self) -> impl Iterator<Item = Arc<str>> {
        self.0.iter().filter_map(Operation::key).cloned()
    }

    /// Which of its operations are on this key.
    pub(super) fn positions(&self, key: &Arc<str>) -> Vec<usize> {
        (0..self.0.len()).filter(|position| self.0[*position].key() == Some(key)).collect()
    }

    /// The request with these of its operations only.
    pub(super) fn part(&self, positions: &[usize]) -> Self {
        Self(positions.iter().map(|position| self.0[*position].clone()).collect())
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, operation) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{operation}")?;
        }
        Ok(())
    }
}

/// What is stored under a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Value {
    /// This.
    Text(Arc<str>),
    /// Something that nobody has seen: a random number was stored and its answer is not known.
    /// Whoever reads it next makes it known.
    ///
    /// It stands for any text at all. After an `append` of something, or an `incr` that did not
    /// work, it could be narrower; being too wide it may let a wrong answer pass, and never
    /// refuses a right one.
    Unseen,
    /// The same, or nothing: `-` is read of a missing key, and also of this text, so it leaves
    /// things as unknown as they were.
    Anything,
}

/// The sequential Journal. One input is a whole request, one output its results.
pub enum JournalModel {}

impl Model for JournalModel {
    type State = Values;
    type Input = Request;
    type Output = Vec<Bytes>;
    type Key = Arc<str>;

    fn start() -> Values {
        Values::default()
    }

    fn anything() -> Values {
        Values { known: BTreeMap::new(), others: Some(Value::Anything) }
    }

    fn step(state: &Values, request: &Request, results: Option<&Vec<Bytes>>) -> Option<Values> {
        if results.is_some_and(|results| results.len() != request.0.len()) {
            return None;
        }
        let mut values = state.clone();
        for (index, operation) in request.0.iter().enumerate() {
            let answer = match results {
                None => Answer::Any,
                // No operation answers what is not text.
                Some(results) => Answer::This(str::from_utf8(results.get(index)?).ok()?),
            };
            values.execute(operation, answer)?;
        }
        Some(values)
    }

    fn only_reads(request: &Request) -> bool {
        request.0.iter().all(|operation| {
            matches!(operation, Operation::Get(_) | Operation::Incr(_, None) | Operation::Nonsense)
        })
    }

    fn keys(request: &Request) -> Option<Vec<Arc<str>>> {
        Some(request.keys().collect())
    }
}

/// What an operation answered.
#[derive(Clone, Copy)]
enum Answer<'a> {
    This(&'a str),
    Any,
}

impl<'a> Answer<'a> {
    /// What is known of it.
    fn text(self) -> Option<&'a str> {
        match self {
            Self::This(text) => Some(text),
            Self::Any => None,
        }
    }

    /// `Some` where `expected` was answered, or may have been.
    fn must_be(self, expected: &str) -> Option<()> {
        self.text().is_none_or(|answer| answer == expected).then_some(())
    }
}

/// All keys with their values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Values {
    known: BTreeMap<Arc<str>, Value>,
    /// What all other keys have.
    others: Option<Value>,
}

impl Values {
    /// The keys and values in words.
    pub(super) fn describe(&self) -> String {
        let pairs: Vec<String> = self
            .known
            .iter()
            .map(|(key, value)| match value {
                Value::Text(text) => format!("{key}={text}"),
                Value::Unseen | Value::Anything => format!("{key}=(not known)"),
            })
            .collect();
        if pairs.is_empty() { "nothing is stored".into() } else { pairs.join(", ") }
    }

    fn value(&self, key: &Arc<str>) -> Option<&Value> {
        self.known.get(key).or(self.others.as_ref())
    }

    fn set(&mut self, key: &Arc<str>, value: Value) {
        self.known.insert(Arc::clone(key), value);
    }

    /// `None` where the operation cannot answer this.
    fn execute(&mut self, operation: &Operation, answer: Answer<'_>) -> Option<()> {
        match operation {
            Operation::Nonsense => answer.must_be("?"),
            Operation::Get(key) => self.read(key, answer),
            Operation::Put(key, text) => {
                self.read(key, answer)?;
                self.set(key, Value::Text(Arc::clone(text)));
                Some(())
            }
            Operation::Incr(key, by) => self.add(key, *by, answer),
            Operation::Append(key, text) => self.append(key, text, answer),
            Operation::Cas(key, old, new) => self.swap(key, old, new, answer),
            Operation::Draw(key) => {
                self.set(
                    key,
                    answer.text().map_or(Value::Unseen, |drawn| Value::Text(drawn.into())),
                );
                Some(())
            }
        }
    }

    /// Answers the value, as `get` and `put` do.
    fn read(&mut self, key: &Arc<str>, answer: Answer<'_>) -> Option<()> {
        let value = match self.value(key) {
            None => return answer.must_be("-"),
            Some(Value::Text(text)) => return answer.must_be(text),
            Some(value) => value,
        };
        let missing = (*value == Value::Anything).then_some("-");
        if let Some(seen) = answer.text().filter(|seen| Some(*seen) != missing) {
            self.set(key, Value::Text(seen.into()));
        }
        Some(())
    }

    fn add(&mut self, key: &Arc<str>, by: Option<i64>, answer: Answer<'_>) -> Option<()> {
        let Some(by) = by else { return answer.must_be("?") };
        let before = match self.value(key) {
            None => Some(0),
            Some(Value::Text(text)) => text.parse::<i64>().ok(),
            Some(Value::Unseen | Value::Anything) => {
                // That it is no number, or too large a one, tells nothing that could be kept.
                if let Some(sum) = answer.text().filter(|answer| *answer != "?") {
                    let number: i64 = sum.parse().ok()?;
                    number.checked_sub(by).filter(|_| number.to_string() == sum)?;
                    self.set(key, Value::Text(sum.into()));
                }
                return Some(());
            }
        };
        let Some(sum) = before.and_then(|before| before.checked_add(by)) else {
            return answer.must_be("?");
        };
        let sum = sum.to_string();
        answer.must_be(&sum)?;
        self.set(key, Value::Text(sum.into()));
        Some(())
    }

    /// Where neither the value nor the answer is known, what is stored may be anything that was, or
    /// the new text: what was not known stays so.
    fn swap(&mut self, key: &Arc<str>, old: &str, new: &str, answer: Answer<'_>) -> Option<()> {
        self.read(key, answer)?;
        if self.value(key).is_some_and(|value| *value == Value::Text(old.into())) {
            self.set(key, Value::Text(new.into()));
        }
        Some(())
    }

    fn append(&mut self, key: &Arc<str>, text: &str, answer: Answer<'_>) -> Option<()> {
        let before = match self.value(key) {
            None => "",
            Some(Value::Text(before)) => before,
            Some(Value::Unseen | Value::Anything) => {
                if let Some(length) = answer.text() {
                    let bytes: usize = length.parse().ok()?;
                    (bytes >= text.len() && bytes.to_string() == length).then_some(())?;
                }
                // Even of a missing key something is stored now.
                self.set(key, Value::Unseen);
                return Some(());
            }
        };
        let whole = format!("{before}{text}");
        answer.must_be(&whole.len().to_string())?;
        self.set(key, Value::Text(whole.into()));
        Some(())
    }
}
