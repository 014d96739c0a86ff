//! The application that most simulated worlds replicate: small, and easy to judge.
//!
//! It keeps text under text keys. Operations and results are text, so that a trace can be read:
//!
//! - `put KEY VALUE` answers the value before, or `-`;
//! - `get KEY` answers the value, or `-`;
//! - `incr KEY BY` adds to a number (missing counts as 0) and answers the sum;
//! - `append KEY TEXT` adds to the end and answers the new length;
//! - `cas KEY OLD NEW` stores the new value if it finds the old one, and answers what it found, or
//!   `-`;
//! - `fill KEY BYTES` stores a text that weighs so many bytes, at most 4 MiB, as long as it can be undone,
//!   and answers how many;
//! - `draw KEY` stores and answers a random number, so that unequal choices of a primary show;
//! - anything else answers `?`.

use std::collections::BTreeMap;

use bytes::Bytes;
use elea_protocol::application::{
    Application, BadChunk, Context, Queried, Restore, Snapshot, rebuilt,
};
use elea_protocol::codec;
use elea_protocol::id::{Digest, Slot};
use elea_protocol::rows::{RowsView, Unreadable};
use sha2::{Digest as _, Sha256};

type Values = BTreeMap<String, String>;

/// Keys with what they held before, oldest first.
type Changes = Vec<(String, Option<String>)>;

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// Whether keys get lost.
    in_bad_memory: bool,
    values: Values,
    /// For each slot above the permanent one, oldest first, what its keys held before it.
    undo: Vec<(Slot, Changes)>,
    /// Nothing up to this one is undone.
    permanent: Slot,
    /// The same of the slot being executed.
    open: Changes,
}

impl Journal {
    /// One that loses a key in slot 5 and in every 16th slot from there on.
    #[must_use]
    pub fn in_bad_memory() -> Self {
        Self { in_bad_memory: true, ..Self::default() }
    }

    /// What is stored under `key`.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// All keys with their values.
    #[must_use]
    pub fn describe(&self) -> String {
        let pairs: Vec<String> =
            self.values.iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(" ")
    }

    /// How many slots could be undone.
    #[must_use]
    pub fn undo_depth(&self) -> usize {
        self.undo.len()
    }

    fn set(&mut self, key: &str, value: String) {
        let before = self.values.insert(key.to_owned(), value);
        self.open.push((key.to_owned(), before));
    }

    fn run(&mut self, context: &Context, operation: &str) -> Option<String> {
        let mut words = operation.splitn(3, ' ');
        let (verb, key) = (words.next()?, words.next()?);
        let before = self.value(key).map(str::to_owned);
        Some(match (verb, words.next()) {
            ("get", None) => before.unwrap_or_else(|| "-".into()),
            ("put", Some(value)) => {
                self.set(key, value.to_owned());
                before.unwrap_or_else(|| "-".into())
            }
            ("incr", Some(by)) => {
                let sum = before
                    .map_or(Some(0i64), |value| value.parse().ok())?
                    .checked_add(by.parse().ok()?)?;
                self.set(key, sum.to_string());
                sum.to_string()
            }
            ("append", Some(text)) => {
                let whole = before.unwrap_or_default() + text;
                let length = whole.len().to_string();
                self.set(key, whole);
                length
            }
            ("cas", Some(words)) => {
                let (old, new) = words.split_once(' ')?;
                if before.as_deref() == Some(old) {
                    self.set(key, new.to_owned());
                }
                before.unwrap_or_else(|| "-".into())
            }
            ("fill", Some(bytes)) => {
                let bytes = filling(bytes)?;
                self.set(key, "#".repeat(usize::try_from(bytes).ok()?));
                bytes.to_string()
            }
            ("draw", None) => {
                let [first, ..] = context.random(0);
                self.set(key, first.to_string());
                first.to_string()
            }
            _ => return None,
        })
    }
}

/// How much a `fill` stores.
fn filling(bytes: &str) -> Option<u64> {
    bytes.parse().ok().filter(|bytes| *bytes <= 4 << 20)
}

impl Application for Journal {
    type Snapshot = Frozen;
    type Restore = Thawing;

    fn weight(&self, operation: &Bytes) -> u64 {
        let text = str::from_utf8(operation).unwrap_or_default();
        let mut words = text.splitn(3, ' ');
        let verb = words.next();
        words.nth(1).filter(|_| verb == Some("fill")).and_then(filling).unwrap_or_default()
    }

    fn execute(&mut self, context: &Context, operation: &Bytes) -> Bytes {
        str::from_utf8(operation)
            .ok()
            .and_then(|text| self.run(context, text))
            .unwrap_or_else(|| "?".into())
            .into()
    }

    /// What is not `get` may change something. When a key was changed last is known as long as that can be undone.
    fn query(&self, _: u16, operations: &[Bytes]) -> Option<Queried> {
        let keys = operations.iter().map(|operation| {
            let key = str::from_utf8(operation).ok()?.strip_prefix("get ")?;
            (!key.contains(' ')).then_some(key)
        });
        let keys: Vec<&str> = keys.collect::<Option<_>>()?;
        let changed = |(_, changes): &&(Slot, Changes)| {
            changes.iter().any(|(changed, _)| keys.contains(&changed.as_str()))
        };
        let since = self.undo.iter().rev().find(changed).map_or(self.permanent, |(slot, _)| *slot);
        let result = |key: &&str| Bytes::from(self.value(key).unwrap_or("-").to_owned());
        Some(Queried { results: keys.iter().map(result).collect(), since: Some(since) })
    }

    fn end_slot(&mut self, slot: Slot) {
        self.undo.push((slot, std::mem::take(&mut self.open)));
        if self.in_bad_memory && slot.0 % 16 == 5 {
            self.values.pop_first();
        }
    }

    fn undo_to(&mut self, slot: Slot) {
        assert!(self.open.is_empty(), "undo in the middle of a slot");
        while let Some((_, changes)) = self.undo.pop_if(|(undone, _)| *undone > slot) {
            for (key, before) in changes.into_iter().rev() {
                match before {
                    Some(value) => self.values.insert(key, value),
                    None => self.values.remove(&key),
                };
            }
        }
        let at = self.undo.last().map_or(self.permanent, |(undoable, _)| *undoable);
        assert_eq!(at, slot, "only what was executed since the permanent slot can be gone back to");
    }

    fn make_permanent(&mut self, slot: Slot) {
        self.permanent = self.permanent.max(slot);
        self.undo.retain(|(undoable, _)| *undoable > slot);
    }

    fn digest(&mut self) -> Digest {
        digest(&self.values)
    }

    fn snapshot(&self) -> Frozen {
        Frozen(self.values.clone())
    }

    fn restore(&self, digest: Digest) -> Thawing {
        Thawing { digest, hashes: None, pairs: BTreeMap::new() }
    }

    fn open(&mut self, slot: Slot, digest: Digest, rows: RowsView) -> Result<(), Unreadable> {
        let restored = rebuilt(self.restore(digest), &rows)?;
        self.values = restored.pairs.into_values().collect();
        self.undo.clear();
        self.permanent = slot;
        Ok(())
    }
}

fn hash_of(key: &str, value: &str) -> Digest {
    let mut hash = Sha256::new();
    for text in [key, value] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    Digest(hash.finalize().into())
}

/// The hashes of all pairs, in the order of their keys.
fn hashes(values: &Values) -> Vec<Digest> {
    values.iter().map(|(key, value)| hash_of(key, value)).collect()
}

fn digest_of(hashes: &[Digest]) -> Digest {
    let mut hash = Sha256::new();
    hashes.iter().for_each(|pair| hash.update(pair.0));
    Digest(hash.finalize().into())
}

fn digest(values: &Values) -> Digest {
    digest_of(&hashes(values))
}

/// The state at some slot. It travels as the hashes of all pairs, and then each pair: so that even a
/// small state has chunks that come one after the other, each of which can be checked by itself.
#[derive(Clone, Debug)]
pub struct Frozen(Values);

impl Snapshot for Frozen {
    fn digest(&self) -> Digest {
        digest(&self.0)
    }

    fn chunks(&self) -> u32 {
        1 + u32::try_from(self.0.len()).expect("a small state")
    }

    fn chunk(&self, index: u32) -> Option<Bytes> {
        let chunk = match index.checked_sub(1) {
            None => codec::encode(&hashes(&self.0)),
            Some(pair) => codec::encode(&self.0.iter().nth(usize::try_from(pair).ok()?)?),
        };
        Some(chunk.expect("a small state"))
    }
}

/// A state on its way.
#[derive(Clone, Debug)]
pub struct Thawing {
    digest: Digest,
    /// The hashes of its pairs, once they are known.
    hashes: Option<Vec<Digest>>,
    /// The pairs that are here, by their chunks.
    pairs: BTreeMap<u32, (String, String)>,
}

impl Restore for Thawing {
    fn accept(&mut self, index: u32, chunk: &Bytes) -> Result<(), BadChunk> {
        let Some(place) = index.checked_sub(1) else {
            let hashes: Vec<Digest> = codec::decode(chunk).map_err(|_| BadChunk)?;
            if digest_of(&hashes) != self.digest {
                return Err(BadChunk);
            }
            self.hashes = Some(hashes);
            return Ok(());
        };
        let (key, value): (String, String) = codec::decode(chunk).map_err(|_| BadChunk)?;
        let place = usize::try_from(place).map_err(|_| BadChunk)?;
        let expected = self.hashes.as_ref().and_then(|hashes| hashes.get(place));
        if expected != Some(&hash_of(&key, &value)) {
            return Err(BadChunk);
        }
        self.pairs.insert(index, (key, value));
        Ok(())
    }

    fn missing(&self) -> Option<u32> {
        self.missing_from(0)
    }

    fn missing_from(&self, first: u32) -> Option<u32> {
        match self.chunks() {
            None => (first == 0).then_some(0),
            Some(chunks) => (first.max(1)..chunks).find(|index| !self.pairs.contains_key(index)),
        }
    }

    fn chunks(&self) -> Option<u32> {
        let pairs = self.hashes.as_ref()?.len();
        Some(1 + u32::try_from(pairs).expect("as many as there are pairs"))
    }
}

#[cfg(test)]
mod tests {
    use elea_protocol::id::{ClientId, RequestNumber, SessionId, WallTime};
    use elea_protocol::message::Level;
    use elea_protocol::rows::MemoryRows;
    use std::sync::Arc;

    use super::*;

    fn run(journal: &mut Journal, slot: u64, operation: &'static str) -> Bytes {
        let context = Context {
            slot: Slot(slot),
            index: 0,
            client: ClientId([0; 32]),
            session: SessionId(0),
            number: RequestNumber(1),
            time: WallTime(0),
            seed: [3; 16],
            level: Level::Weak,
            edition: 1,
        };
        let result = journal.execute(&context, &Bytes::from_static(operation.as_bytes()));
        journal.end_slot(Slot(slot));
        result
    }

    #[test]
    fn what_is_undone_leaves_no_trace() {
        let mut journal = Journal::default();
        assert_eq!(run(&mut journal, 1, "put x 1"), "-");
        let before = journal.digest();
        assert_eq!(run(&mut journal, 2, "incr x 41"), "42");
        assert_eq!(run(&mut journal, 3, "append x abc"), "5");
        assert_eq!(run(&mut journal, 4, "incr x 1"), "?", "not a number any more");
        assert_eq!(run(&mut journal, 5, "cas x 42abc y z"), "42abc");
        assert_eq!(run(&mut journal, 6, "cas x 42abc w"), "y z");
        assert_eq!(run(&mut journal, 7, "cas none a b"), "-");
        journal.undo_to(Slot(1));
        assert_eq!(journal.digest(), before);
        assert_eq!(journal.value("x"), Some("1"));
        assert_eq!(journal.undo_depth(), 1);
    }

    fn view(rows: &MemoryRows) -> RowsView {
        Arc::new(rows.clone())
    }

    #[test]
    fn a_snapshot_is_restored_and_a_bent_one_is_refused() {
        let mut journal = Journal::default();
        run(&mut journal, 1, "put x 1");
        run(&mut journal, 2, "put y 2");
        let frozen = journal.snapshot();
        let chunks: Vec<Bytes> = (0..frozen.chunks()).map_while(|i| frozen.chunk(i)).collect();
        assert_eq!((chunks.len(), frozen.chunk(3)), (3, None));
        let mut other = Journal::default();
        let mut restore = other.restore(frozen.digest());
        let mut rows = MemoryRows::default();
        // Pairs are none of this state before it is known what it is made of, nor in other places.
        for (index, chunk) in [(1, &chunks[1]), (0, &chunks[1]), (1, &chunks[0])] {
            assert_eq!(restore.accept(index, chunk), Err(BadChunk));
        }
        assert_eq!((restore.missing(), restore.missing_from(1)), (Some(0), None));
        for index in [0u32, 2, 1] {
            let chunk = &chunks[index as usize];
            assert_eq!(restore.accept(3 + index, chunk), Err(BadChunk));
            assert_eq!(restore.accept(index, chunk), Ok(()));
            let made = restore.rows(index, chunk);
            rows.apply(made.into_iter().map(|(key, value)| (key, Some(value))));
            // Whoever goes on from these rows lacks what is not in them, and nothing else.
            let mut again = other.restore(frozen.digest());
            assert_eq!(again.resume(&view(&rows)), Ok(()));
            assert_eq!(again.missing(), restore.missing());
            assert_eq!(again.missing_from(2), restore.missing_from(2));
        }
        assert_eq!((restore.missing(), restore.chunks()), (None, Some(3)));
        assert_eq!(other.open(Slot(1), frozen.digest(), view(&rows)), Ok(()));
        assert_eq!(other.digest(), journal.digest());
    }
}
