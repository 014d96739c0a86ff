//! The state: what lies on disk, what differs from it, and a Merkle trie over both for the digest.
//!
//! What differs is in persistent maps, so that a frozen state costs what is changed afterwards. It costs
//! that in whole nodes of the maps, some kilobytes for a key, so states are frozen at checkpoints
//! only, and the slots between are undone with a [log](Log), which has one entry for a key and slot at
//! most. Long values and sets are themselves made of parts, which their versions share: see
//! `text` and `set`. On disk are these rows:
//!
//! | key | value |
//! |---|---|
//! | `e` and the hashed key | the key, its version and what it holds, but for the parts in rows of their own |
//! | `v`, the hashed key, and a number | a page of a long value |
//! | `s`, `m` and the hashed key, and more | of a set |
//! | `k` and the key | nothing: the order of the keys, for scans |
//! | `r`, `t`, `c` | of the [trie](elea_protocol::trie) |
//!
//! What differs may be more than what is not yet on disk: to say of a key what is on disk already
//! does no harm.

mod desk;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::size_of;
use std::ops::Bound;

use bytes::Bytes;
use elea_protocol::codec::{self, Canonical, Sink};
use elea_protocol::id::{Digest, Slot};
use elea_protocol::rows::{Changes, MemoryRows, Rows, RowsView, Unreadable};
use elea_protocol::trie::{Leaf, MerkleTrie};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

pub(crate) use self::desk::{Desk, Since};
use crate::outcome::{Item, Value, Version, item_size};
use crate::set::{self, Set};
use crate::text::{self, Text};

const ENTRY: u8 = b'e';
const KEY: u8 = b'k';
const CHUNK: u8 = b'c';

/// The parts of the trie's changes. Those of long values and sets follow.
const TRIE_PARTS: u32 = 257;

/// A part of the changes of long values and sets ends when it has so many bytes or rows, or so many
/// keys were looked at.
const PART_BYTES: usize = 256 << 10;
const PART_ROWS: usize = 1024;
const PART_KEYS: usize = 256;

/// The longest text of an integer.
const INTEGER_TEXT: usize = 20;

/// What lies on disk.
pub(crate) struct Base {
    pub(crate) rows: RowsView,
    /// The trie of the rows.
    trie: MerkleTrie,
    /// Whether there are rows that only the fetching of the state needed.
    has_marks: bool,
    /// The first failure to read a row.
    trouble: OnceCell<Unreadable>,
}

/// What differs from what lies on disk, and the digest of all of it.
#[derive(Clone, Default)]
pub(crate) struct State {
    /// By the hashed key.
    changes: OrdMap<Digest, Change>,
    /// Keys that are there or not, since when.
    keys: OrdMap<Bytes, (Slot, bool)>,
    /// One leaf for each entry.
    trie: MerkleTrie,
}

/// What was there before a slot, or a transaction, of what it changed, so that it can be undone. Nothing
/// where it did not differ from what was on disk.
#[derive(Default)]
pub(crate) struct Log {
    changes: BTreeMap<Digest, Option<Change>>,
    keys: BTreeMap<Bytes, Option<(Slot, bool)>>,
}

/// A state on its way to the disk.
pub(crate) struct Writing {
    pub(crate) state: State,
    /// The next key whose pages or members are to be looked at, and which part of them.
    next: Option<(Digest, u8)>,
}

/// What a key holds since some slot; nothing if it was removed.
#[derive(Clone)]
struct Change {
    slot: Slot,
    key: Bytes,
    entry: Option<Entry>,
}

/// What a key holds, and which operation wrote it.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) held: Held,
    pub(crate) version: Version,
}

#[derive(Clone)]
pub(crate) enum Held {
    Text(Text),
    Integer(i64),
    /// Never empty: an empty set is an absent key.
    Set(Set),
}

/// An entry's row.
#[derive(Serialize, Deserialize)]
struct Stored {
    key: Bytes,
    version: Version,
    held: StoredHeld,
}

#[derive(Serialize, Deserialize)]
enum StoredHeld {
    Text { pages: u32, chain: Digest, rest: Bytes },
    Integer(i64),
    Set { size: u64 },
}

struct KeyName<'a>(&'a [u8]);

impl Canonical for KeyName<'_> {
    const TAG: &'static str = "kv-key";

    fn write(&self, to: &mut impl Sink) {
        to.put_bytes(self.0);
    }
}

impl Canonical for Entry {
    const TAG: &'static str = "kv-entry";

    fn write(&self, to: &mut impl Sink) {
        to.put_u64(self.version.slot.0);
        to.put_u64(u64::from(self.version.index));
        match &self.held {
            Held::Text(text) => match text.parts() {
                (0, _, rest) => {
                    to.put_u8(0);
                    to.put_bytes(rest);
                }
                (pages, chain, rest) => {
                    to.put_u8(3);
                    to.put_u64(u64::from(pages));
                    to.put_digest(&chain);
                    to.put_bytes(rest);
                }
            },
            Held::Integer(value) => {
                to.put_u8(1);
                to.put(&value.to_le_bytes());
            }
            Held::Set(set) => {
                to.put_u8(2);
                to.put_digest(&set.digest());
            }
        }
    }
}

/// The hash that stands for a key.
pub(crate) fn name(key: &[u8]) -> Digest {
    KeyName(key).digest()
}

/// The leaf of an entry. The hashed key is part of every leaf's digest, so this need not cover it.
pub(crate) fn leaf(key: &[u8], entry: &Entry) -> Leaf {
    let weight = u32::try_from(entry.size(key)).unwrap_or(u32::MAX);
    Leaf { digest: entry.digest(), weight, value: () }
}

fn entry_row(name: &Digest) -> Bytes {
    [&[ENTRY], &name.0[..]].concat().into()
}

fn key_row(key: &[u8]) -> Bytes {
    [&[KEY], key].concat().into()
}

fn encoded(stored: &Stored) -> Bytes {
    codec::encode(stored).expect("the limits keep an entry below a frame")
}

fn decoded(row: &Bytes) -> Result<Stored, Unreadable> {
    codec::decode(row).map_err(|error| Unreadable(format!("an entry is malformed: {error}")))
}

/// The rows of an entry that came from elsewhere, all of which is in memory.
pub(crate) fn rows_of(name: &Digest, key: &Bytes, entry: &Entry) -> Result<Changes, Unreadable> {
    let entry_row = (entry_row(name), Some(encoded(&entry.stored(key))));
    let mut rows = vec![entry_row, (key_row(key), Some(Bytes::new()))];
    let none = MemoryRows::none();
    for way in 0..set::WAYS {
        parts_changed(&*none, name, Some(&entry.held), None, way, &mut rows)?;
    }
    Ok(rows)
}

/// What becomes of the rows of a key's pages and members: one of sixteen parts of it.
fn parts_changed(
    rows: &dyn Rows,
    name: &Digest,
    now: Option<&Held>,
    before: Option<&StoredHeld>,
    way: u8,
    changes: &mut Changes,
) -> Result<(), Unreadable> {
    if way == 0 {
        let pages = match before {
            Some(StoredHeld::Text { pages, .. }) => *pages,
            _ => 0,
        };
        match now {
            Some(Held::Text(text)) => text.changes(name, pages, changes),
            _ => text::remove_pages(name, 0, pages, changes),
        }
    }
    let set_before = match before {
        Some(StoredHeld::Set { size }) => Set::open(rows, name, *size)?,
        _ => Set::default(),
    };
    match now {
        Some(Held::Set(set)) => set.changes(&set_before, rows, name, way, changes),
        _ => Set::default().changes(&set_before, rows, name, way, changes),
    }
}

impl Base {
    /// Nothing on disk.
    pub(crate) fn none() -> Self {
        let (rows, trie) = (MemoryRows::none(), MerkleTrie::new());
        Self { rows, trie, has_marks: false, trouble: OnceCell::new() }
    }

    /// The state that lies in these rows, which must have this digest.
    pub(crate) fn open(rows: RowsView, digest: Digest) -> Result<Self, Unreadable> {
        let trie = MerkleTrie::open(&*rows)?;
        if trie.digest() != digest {
            return Err(Unreadable("it is the state of another digest".to_owned()));
        }
        let has_marks = Self::marks(&*rows).next().transpose()?.is_some();
        Ok(Self { rows, trie, has_marks, trouble: OnceCell::new() })
    }

    fn marks(rows: &dyn Rows) -> impl Iterator<Item = Result<Bytes, Unreadable>> {
        let rows = rows.range(&[CHUNK], Bound::Excluded(&[CHUNK + 1]));
        rows.map(|row| row.map(|(key, _)| key))
    }

    pub(crate) fn trouble(&self) -> Option<&Unreadable> {
        self.trouble.get()
    }

    /// What was read, or nothing, after a note of the trouble: then nothing that is made of it will
    /// be used.
    fn hope<T: Default>(&self, read: Result<T, Unreadable>) -> T {
        read.unwrap_or_else(|why| {
            self.trouble.get_or_init(|| why);
            T::default()
        })
    }

    fn stored(&self, name: &Digest) -> Result<Option<Stored>, Unreadable> {
        self.rows.get(&entry_row(name))?.as_ref().map(decoded).transpose()
    }

    fn entry(&self, name: &Digest) -> Option<Entry> {
        let stored = self.hope(self.stored(name))?;
        self.hope(Entry::from_stored(stored, &*self.rows, name).map(|(_, entry)| Some(entry)))
    }

    /// The whole state as it is on disk.
    pub(crate) fn state(&self) -> State {
        State { trie: self.trie.clone(), ..State::default() }
    }

    /// What is to be written so that the rows are those of a state: the part of it that has this
    /// number in the trie's [changes](MerkleTrie::changes), or the next one after these.
    pub(crate) fn changes(
        &self,
        writing: &mut Writing,
        part: u32,
    ) -> Result<Option<Changes>, Unreadable> {
        let state = &writing.state;
        if part >= TRIE_PARTS {
            return self.changes_of_parts(writing);
        }
        let Some(mut changes) = state.trie.changes(&self.trie, &*self.rows, part)? else {
            return Ok(None);
        };
        if let Ok(first) = u8::try_from(part) {
            let bound = |rest| {
                let mut name = [rest; 32];
                name[0] = first;
                Digest(name)
            };
            for (name, Change { key, entry, .. }) in state.changes.range(bound(0)..=bound(255)) {
                let row = entry.as_ref().map(|entry| encoded(&entry.stored(key)));
                changes.push((entry_row(name), row));
                // A key does not come or go without a change.
                if let Some((_, is_there)) = state.keys.get(key) {
                    changes.push((key_row(key), is_there.then(Bytes::new)));
                }
            }
        } else if self.has_marks {
            for mark in Self::marks(&*self.rows) {
                changes.push((mark?, None));
            }
        }
        Ok(Some(changes))
    }

    /// The next pages and members of keys that have any, or had.
    fn changes_of_parts(&self, writing: &mut Writing) -> Result<Option<Changes>, Unreadable> {
        let Some((from, first_way)) = writing.next.take() else { return Ok(None) };
        let (mut changes, mut bytes, mut keys) = (Changes::new(), 0, 0);
        for (name, Change { entry, .. }) in writing.state.changes.range(from..) {
            let now = entry.as_ref().map(|entry| &entry.held);
            let before = self.stored(name)?.map(|stored| stored.held);
            let is_set =
                matches!(now, Some(Held::Set(_))) || matches!(before, Some(StoredHeld::Set { .. }));
            let ways = if is_set { set::WAYS } else { 1 };
            keys += 1;
            for way in if *name == from { first_way } else { 0 }..ways {
                if bytes >= PART_BYTES || changes.len() >= PART_ROWS || keys > PART_KEYS {
                    writing.next = Some((*name, way));
                    return Ok(Some(changes));
                }
                let seen = changes.len();
                parts_changed(&*self.rows, name, now, before.as_ref(), way, &mut changes)?;
                let size = |value: &Option<Bytes>| value.as_ref().map_or(0, |value| value.len());
                let new = changes[seen..].iter();
                bytes += new.map(|(key, value)| key.len() + size(value)).sum::<usize>();
            }
        }
        Ok(Some(changes))
    }

    /// The rows now are those of `state`.
    pub(crate) fn become_stored(&mut self, state: &State, rows: RowsView) {
        self.trie = state.trie.clone();
        self.trie.forget(&state.trie);
        (self.rows, self.has_marks) = (rows, false);
    }
}

impl State {
    pub(crate) fn trie(&self) -> &MerkleTrie {
        &self.trie
    }

    pub(crate) fn len(&self) -> usize {
        self.trie.len()
    }

    /// Takes back what is in the log, but for the trie.
    ///
    /// Where the log says that nothing differed from what was on disk, nothing differs from what is on
    /// disk now: the key did not change in between, or that would be in the log of an earlier slot,
    /// which is taken back after this one.
    pub(crate) fn undo(&mut self, log: Log) {
        for (name, before) in log.changes {
            match before {
                Some(change) => self.changes.insert(name, change),
                None => self.changes.remove(&name),
            };
        }
        for (key, before) in log.keys {
            match before {
                Some(since) => self.keys.insert(key, since),
                None => self.keys.remove(&key),
            };
        }
    }

    pub(crate) fn set_trie(&mut self, trie: MerkleTrie) {
        self.trie = trie;
    }

    /// How many keys differ from what is on disk.
    pub(crate) fn changed(&self) -> usize {
        self.changes.len()
    }

    /// Lets go of what lies on disk with `stored`, which was the state at `slot`.
    pub(crate) fn forget(&mut self, slot: Slot, stored: &Self) {
        self.trie.forget(&stored.trie);
        let changes = self.changes.iter().filter(|(_, change)| change.slot > slot);
        let left = |(name, change): (&Digest, &Change)| {
            let mut change = change.clone();
            let before = stored.changes.get(name).and_then(|stored| stored.entry.as_ref());
            if let Some((now, before)) = change.entry.as_mut().zip(before) {
                now.held.forget(&before.held);
            }
            (*name, change)
        };
        self.changes = changes.map(left).collect();
        let keys = self.keys.iter().filter(|(_, (since, _))| *since > slot);
        self.keys = keys.map(|(key, since)| (key.clone(), *since)).collect();
    }

    /// All entries whose hashed keys lie between these, in the order of the hashed keys.
    pub(crate) fn items_between(
        &self,
        rows: &dyn Rows,
        low: &Digest,
        high: &Digest,
    ) -> Result<Vec<Item>, Unreadable> {
        let (from, to) = (entry_row(low), entry_row(high));
        let mut stored = rows.range(&from, Bound::Included(&to)).peekable();
        let mut items = Vec::new();
        let mut changed = self.changes.range(*low..=*high).peekable();
        loop {
            let next_stored = match stored.peek() {
                None => None,
                Some(Ok((key, _))) => Some(named(key)?),
                Some(Err(why)) => return Err(why.clone()),
            };
            let next_changed = changed.peek().map(|(name, _)| **name);
            match (next_stored, next_changed) {
                (None, None) => return Ok(items),
                (Some(name), Some(changed)) if name == changed => drop(stored.next()),
                (Some(name), other) if other.is_none_or(|other| name < other) => {
                    if let Some(row) = stored.next() {
                        let (key, entry) = Entry::from_stored(decoded(&row?.1)?, rows, &name)?;
                        items.push(entry.item(&key, rows, &name)?);
                    }
                }
                _ => {
                    if let Some((name, Change { key, entry: Some(entry), .. })) = changed.next() {
                        items.push(entry.item(key, rows, name)?);
                    }
                }
            }
        }
    }

    fn held(&self, seen: &mut BTreeSet<usize>) -> usize {
        let changes = self.changes.values().map(|change| change.held(seen)).sum::<usize>();
        let keys = self.keys.keys().map(|key| key.len() + KEY_HELD).sum::<usize>();
        changes + keys + self.trie.held(seen, &mut |()| 0)
    }
}

/// What a key takes in the order of the keys, beside its bytes.
const KEY_HELD: usize = size_of::<(Bytes, Slot, bool)>();

/// The hashed key in the key of an entry's row.
fn named(key: &[u8]) -> Result<Digest, Unreadable> {
    let name = key.get(1..).and_then(|name| name.try_into().ok());
    name.map(Digest).ok_or_else(|| Unreadable("an entry is misplaced".to_owned()))
}

/// About the bytes in memory of states, of what undoes them and of tries, each counted once.
pub(crate) fn held<'a>(
    states: impl IntoIterator<Item = &'a State>,
    logs: impl IntoIterator<Item = &'a Log>,
    tries: impl IntoIterator<Item = &'a MerkleTrie>,
) -> usize {
    let mut seen = BTreeSet::new();
    let states: usize = states.into_iter().map(|state| state.held(&mut seen)).sum();
    let logs: usize = logs.into_iter().map(|log| log.held(&mut seen)).sum();
    let tries = tries.into_iter().map(|trie| trie.held(&mut seen, &mut |()| 0));
    states + logs + tries.sum::<usize>()
}

impl Log {
    /// What a transaction did is now part of what the slot did.
    pub(crate) fn absorb(&mut self, later: Self) {
        for (name, before) in later.changes {
            self.changes.entry(name).or_insert(before);
        }
        for (key, before) in later.keys {
            self.keys.entry(key).or_insert(before);
        }
    }

    /// Lets go of what has been on disk since the state of `slot` is: it does not differ from that
    /// any more.
    pub(crate) fn forget(&mut self, slot: Slot) {
        for before in self.changes.values_mut() {
            before.take_if(|change| change.slot <= slot);
        }
        for before in self.keys.values_mut() {
            before.take_if(|(since, _)| *since <= slot);
        }
    }

    fn held(&self, seen: &mut BTreeSet<usize>) -> usize {
        let empty = size_of::<(Digest, Option<Change>)>();
        let mut of = |before: &Option<Change>| before.as_ref().map_or(empty, |b| b.held(seen));
        let changes = self.changes.values().map(&mut of).sum::<usize>();
        changes + self.keys.keys().map(|key| key.len() + KEY_HELD).sum::<usize>()
    }
}

impl Change {
    fn held(&self, seen: &mut BTreeSet<usize>) -> usize {
        let own = size_of::<(Digest, Self)>() + self.key.len();
        own + match self.entry.as_ref().map(|entry| &entry.held) {
            Some(Held::Text(text)) => text.held(seen),
            Some(Held::Set(set)) => set.held(seen),
            Some(Held::Integer(_)) | None => 0,
        }
    }
}

impl Writing {
    pub(crate) fn new(state: State) -> Self {
        Self { state, next: Some((Digest::default(), 0)) }
    }
}

impl Entry {
    /// See [`Item::size`]: it is the same for the item that this entry makes.
    pub(crate) fn size(&self, key: &[u8]) -> usize {
        item_size(key.len(), self.held.size())
    }

    /// The entry that an item was made of, and its key. All of it is in memory.
    pub(crate) fn from_item(item: Item) -> Result<(Bytes, Self), Unreadable> {
        let Item { key, value, version } = item;
        match Held::from_value(value, version) {
            Some(held) => Ok((key, Self { held, version })),
            None => Err(Unreadable("an entry holds no value that there can be".to_owned())),
        }
    }

    pub(crate) fn item(
        &self,
        key: &Bytes,
        rows: &dyn Rows,
        name: &Digest,
    ) -> Result<Item, Unreadable> {
        let value = self.held.value(rows, name)?;
        Ok(Item { key: key.clone(), value, version: self.version })
    }

    fn stored(&self, key: &Bytes) -> Stored {
        let held = match &self.held {
            Held::Text(text) => {
                let (pages, chain, rest) = text.parts();
                StoredHeld::Text { pages, chain, rest: rest.clone() }
            }
            Held::Integer(value) => StoredHeld::Integer(*value),
            Held::Set(set) => StoredHeld::Set { size: set.size() as u64 },
        };
        Stored { key: key.clone(), version: self.version, held }
    }

    fn from_stored(
        stored: Stored,
        rows: &dyn Rows,
        name: &Digest,
    ) -> Result<(Bytes, Self), Unreadable> {
        let Stored { key, version, held } = stored;
        let held = match held {
            StoredHeld::Text { pages, chain, rest } => {
                Held::Text(Text::stored(version, pages, chain, rest))
            }
            StoredHeld::Integer(value) => Held::Integer(value),
            StoredHeld::Set { size } => Held::Set(Set::open(rows, name, size)?),
        };
        Ok((key, Self { held, version }))
    }
}

impl Held {
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Integer(_) => Value::INTEGER_SIZE,
            Self::Set(set) => set.size(),
        }
    }

    fn value(&self, rows: &dyn Rows, name: &Digest) -> Result<Value, Unreadable> {
        Ok(match self {
            Self::Text(text) => Value::Bytes(text.whole(rows, name)?),
            Self::Integer(value) => Value::Integer(*value),
            Self::Set(set) => Value::Set(set.list(rows, name)?),
        })
    }

    /// The other way round. `None` for a set that is empty or whose members are out of order: no
    /// entry makes such a value, so there is exactly one value for each entry.
    fn from_value(value: Value, version: Version) -> Option<Self> {
        match value {
            Value::Bytes(bytes) => Some(Self::Text(Text::new(bytes, version))),
            Value::Integer(value) => Some(Self::Integer(value)),
            Value::Set(members) => {
                let ordered = members.is_sorted_by(|a, b| a < b) && !members.is_empty();
                ordered.then(|| Self::Set(Set::of(members)))
            }
        }
    }

    /// Lets go of what lies on disk with `stored`, which the key held earlier.
    fn forget(&mut self, stored: &Self) {
        match (self, stored) {
            (Self::Text(now), Self::Text(stored)) => now.forget(stored),
            (Self::Set(now), Self::Set(stored)) => now.forget(stored),
            _ => {}
        }
    }
}

/// The integer whose canonical decimal text this is.
pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    let value: i64 = str::from_utf8(text).ok()?.parse().ok()?;
    // Of the texts that parse, only one comes out again: no plus, no leading zero, no minus zero.
    (value.to_string().as_bytes() == text).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_decimals_of_64_bits_are_integers() {
        for (text, value) in [
            ("0", 0),
            ("-1", -1),
            ("42", 42),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(integer(text.as_bytes()), Some(value));
        }
        for text in ["", "-", "+1", "01", "-0", " 1", "1 ", "1.0", "0x1", "9223372036854775808"] {
            assert_eq!(integer(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(integer(&[0xff, 0x31]), None);
    }

    #[test]
    fn an_entry_is_as_large_as_the_item_it_makes_and_the_item_encodes_to_no_more() {
        let rows = MemoryRows::none();
        let (key, none) = (Bytes::from("key"), Version::NONE);
        let name = name(&key);
        let mut set = Set::default();
        for n in 0..20u8 {
            set.insert(&*rows, &name, vec![n; usize::from(n)].into()).expect("in memory");
        }
        set.remove(&*rows, &name, &[3, 3, 3]).expect("in memory");
        let long = Text::new(vec![7; 3 * text::PAGE + 5].into(), none);
        for held in [
            Held::Text(Text::new("some".into(), none)),
            Held::Text(long),
            Held::Integer(-5),
            Held::Set(set),
        ] {
            let entry = Entry { held, version: none };
            let item = entry.item(&key, &*rows, &name).expect("in memory");
            assert_eq!(entry.size(&key), item.size());
            let encoded = codec::encode(&item).expect("small");
            assert!(encoded.len() <= item.size(), "{} > {}", encoded.len(), item.size());
            let (_, again) = Entry::from_item(item).expect("made by an entry");
            assert_eq!(again.digest(), entry.digest());
        }
    }
}
