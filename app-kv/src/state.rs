//! The state: what lies on disk, what differs from it, and a Merkle trie over both for the digest.
//!
//! What differs is in persistent maps, so that a frozen state costs what is changed afterwards. It costs
//! that in whole nodes of the maps, some kilobytes for a key, so states are frozen at checkpoints
//! only, and the slots between are undone with a [log](Log). On disk are these rows:
//!
//! | key | value |
//! |---|---|
//! | `e` and the hashed key | the key, what it holds and its version, as an [`Item`] |
//! | `k` and the key | nothing: the order of the keys, for scans |
//! | `r`, `t`, `c` | of the [trie](elea_protocol::trie) |
//!
//! What differs may be more than what is not yet on disk: to say of a key what is on disk already
//! does no harm.

use std::cell::OnceCell;
use std::ops::Bound;

use bytes::Bytes;
use elea_protocol::codec::{self, Canonical, Sink};
use elea_protocol::id::{Digest, Slot};
use elea_protocol::rows::{Changes, MemoryRows, Rows, RowsView, Unreadable};
use elea_protocol::trie::{Leaf, MerkleTrie};
use imbl::OrdMap;

use crate::outcome::{Found, Item, Reason, Value, Version, item_size};

const ENTRY: u8 = b'e';
const KEY: u8 = b'k';
const CHUNK: u8 = b'c';

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

/// What a slot put in the place of what, so that it can be undone: the oldest first.
#[derive(Default)]
pub(crate) struct Log {
    changes: Vec<(Digest, Option<Change>)>,
    keys: Vec<(Bytes, Option<(Slot, bool)>)>,
}

/// What a key holds since some slot; nothing if it was removed.
#[derive(Clone)]
struct Change {
    slot: Slot,
    key: Bytes,
    entry: Option<Entry>,
}

/// The state as an operation sees it.
pub(crate) struct Desk<'a> {
    pub(crate) base: &'a Base,
    pub(crate) state: &'a mut State,
    pub(crate) log: &'a mut Log,
}

/// What a key holds, and which operation wrote it.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) held: Held,
    pub(crate) version: Version,
}

#[derive(Clone)]
pub(crate) enum Held {
    Bytes(Bytes),
    Integer(i64),
    /// Never empty: an empty set is an absent key.
    Set(Set),
}

/// Members by their hash. It is a trie of its own, so that adding one to many costs the same for
/// a large set as for a small one.
#[derive(Clone, Default)]
pub(crate) struct Set {
    members: MerkleTrie<Bytes>,
    size: usize,
}

struct KeyName<'a>(&'a [u8]);

impl Canonical for KeyName<'_> {
    const TAG: &'static str = "kv-key";

    fn write(&self, to: &mut impl Sink) {
        to.put_bytes(self.0);
    }
}

struct MemberName<'a>(&'a [u8]);

impl Canonical for MemberName<'_> {
    const TAG: &'static str = "kv-member";

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
            Held::Bytes(bytes) => {
                to.put_u8(0);
                to.put_bytes(bytes);
            }
            Held::Integer(value) => {
                to.put_u8(1);
                to.put(&value.to_le_bytes());
            }
            Held::Set(set) => {
                to.put_u8(2);
                to.put_digest(&set.members.digest());
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

fn encoded(item: &Item) -> Bytes {
    codec::encode(item).expect("the limits keep an item below a frame")
}

fn decoded(row: &Bytes) -> Result<Item, Unreadable> {
    codec::decode(row).map_err(|error| Unreadable(format!("an entry is malformed: {error}")))
}

/// The rows of an entry that came from elsewhere.
pub(crate) fn rows_of(name: &Digest, item: &Item) -> [(Bytes, Bytes); 2] {
    [(entry_row(name), encoded(item)), (key_row(&item.key), Bytes::new())]
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

    fn entry(&self, name: &Digest) -> Option<Entry> {
        let row = self.hope(self.rows.get(&entry_row(name)))?;
        self.hope(decoded(&row).and_then(Entry::from_item).map(|(_, entry)| Some(entry)))
    }

    /// The whole state as it is on disk.
    pub(crate) fn state(&self) -> State {
        State { trie: self.trie.clone(), ..State::default() }
    }

    /// What is to be written so that the rows are those of `state`: the part of it that has this
    /// number in the trie's [changes](MerkleTrie::changes).
    pub(crate) fn changes(&self, state: &State, part: u32) -> Result<Option<Changes>, Unreadable> {
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
                let item = entry.as_ref().map(|entry| encoded(&entry.item(key)));
                changes.push((entry_row(name), item));
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
        for (name, before) in log.changes.into_iter().rev() {
            match before {
                Some(change) => self.changes.insert(name, change),
                None => self.changes.remove(&name),
            };
        }
        for (key, before) in log.keys.into_iter().rev() {
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
        self.changes = changes.map(|(name, change)| (*name, change.clone())).collect();
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
                Some(Ok((key, _))) => Some(key.slice(1..)),
                Some(Err(why)) => return Err(why.clone()),
            };
            let next_changed = changed.peek().map(|(name, _)| &name.0[..]);
            match (next_stored, next_changed) {
                (None, None) => return Ok(items),
                (Some(name), Some(changed)) if *name == *changed => drop(stored.next()),
                (Some(name), other) if other.is_none_or(|other| *name < *other) => {
                    if let Some(row) = stored.next() {
                        items.push(decoded(&row?.1)?);
                    }
                }
                _ => {
                    if let Some((_, Change { key, entry: Some(entry), .. })) = changed.next() {
                        items.push(entry.item(key));
                    }
                }
            }
        }
    }
}

impl Desk<'_> {
    pub(crate) fn get(&self, key: &[u8]) -> Option<Entry> {
        let name = name(key);
        match self.state.changes.get(&name) {
            Some(change) => change.entry.clone(),
            None => self.base.entry(&name),
        }
    }

    /// The plain value of a key, unless it is absent.
    pub(crate) fn read(&self, key: &[u8]) -> Result<Option<Found>, Reason> {
        self.get(key)
            .map(|Entry { held, version }| Ok(Found { value: held.text()?, version }))
            .transpose()
    }

    /// The set of a key; `None` where it is absent.
    pub(crate) fn set(&self, key: &[u8]) -> Result<Option<(Set, Version)>, Reason> {
        match self.get(key) {
            None => Ok(None),
            Some(Entry { held: Held::Set(set), version }) => Ok(Some((set, version))),
            Some(_) => Err(Reason::HoldsValue),
        }
    }

    /// All keys from one on, in order.
    pub(crate) fn keys_from(&self, from: &[u8]) -> impl Iterator<Item = Bytes> {
        let end = [KEY + 1];
        let rows = self.base.rows.range(&key_row(from), Bound::Excluded(&end));
        let mut stored = rows.peekable();
        let changed = self.state.keys.range::<_, [u8]>((Bound::Included(from), Bound::Unbounded));
        let mut changed = changed.peekable();
        std::iter::from_fn(move || {
            loop {
                let next_stored = match stored.peek() {
                    None => None,
                    Some(Ok((key, _))) => Some(key.slice(1..)),
                    Some(Err(why)) => {
                        self.base.hope::<()>(Err(why.clone()));
                        return None;
                    }
                };
                let next_changed = changed.peek().map(|(key, _)| *key);
                match (next_stored, next_changed) {
                    (None, None) => return None,
                    (Some(key), Some(changed)) if key == *changed => drop(stored.next()),
                    (Some(key), other) if other.is_none_or(|other| key < *other) => {
                        stored.next();
                        return Some(key);
                    }
                    _ => {
                        if let Some((key, (_, true))) = changed.next() {
                            return Some(key.clone());
                        }
                    }
                }
            }
        })
    }

    pub(crate) fn put(&mut self, key: Bytes, held: Held, version: Version) {
        let entry = Entry { held, version };
        let (name, leaf) = (name(&key), leaf(&key, &entry));
        let replaced = self.state.trie.insert_in(&*self.base.rows, name, leaf);
        let slot = version.slot;
        if self.base.hope(replaced).is_none() {
            self.note_key(key.clone(), slot, true);
        }
        self.note(name, Change { slot, key, entry: Some(entry) });
    }

    fn note(&mut self, name: Digest, change: Change) {
        let before = self.state.changes.insert(name, change);
        self.log.changes.push((name, before));
    }

    fn note_key(&mut self, key: Bytes, slot: Slot, is_there: bool) {
        let before = self.state.keys.insert(key.clone(), (slot, is_there));
        self.log.keys.push((key, before));
    }

    /// Whether the key was there.
    pub(crate) fn remove(&mut self, key: &[u8], version: Version) -> bool {
        let name = name(key);
        let removed = self.state.trie.remove_in(&*self.base.rows, &name);
        let was_there = self.base.hope(removed).is_some();
        if was_there {
            let (key, slot) = (Bytes::copy_from_slice(key), version.slot);
            self.note_key(key.clone(), slot, false);
            self.note(name, Change { slot, key, entry: None });
        }
        was_there
    }
}

impl Entry {
    /// See [`Item::size`]: it is the same for the item that this entry makes.
    pub(crate) fn size(&self, key: &[u8]) -> usize {
        item_size(key.len(), self.held.size())
    }

    /// The entry that an item was made of, and its key.
    pub(crate) fn from_item(item: Item) -> Result<(Bytes, Self), Unreadable> {
        let Item { key, value, version } = item;
        match Held::from_value(value) {
            Some(held) => Ok((key, Self { held, version })),
            None => Err(Unreadable("an entry holds no value that there can be".to_owned())),
        }
    }

    pub(crate) fn item(&self, key: &Bytes) -> Item {
        Item { key: key.clone(), value: self.held.value(), version: self.version }
    }
}

impl Held {
    /// The plain value that it is.
    pub(crate) fn text(&self) -> Result<Bytes, Reason> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::Integer(value) => Ok(value.to_string().into()),
            Self::Set(_) => Err(Reason::HoldsSet),
        }
    }

    /// The integer that it is.
    pub(crate) fn integer(&self) -> Result<i64, Reason> {
        match self {
            Self::Bytes(bytes) => integer(bytes).ok_or(Reason::NotAnInteger),
            Self::Integer(value) => Ok(*value),
            Self::Set(_) => Err(Reason::HoldsSet),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Integer(_) => Value::INTEGER_SIZE,
            Self::Set(set) => set.size,
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Bytes(bytes) => Value::Bytes(bytes.clone()),
            Self::Integer(value) => Value::Integer(*value),
            Self::Set(set) => Value::Set(set.list()),
        }
    }

    /// The other way round. `None` for a set that is empty or whose members are out of order: no
    /// entry makes such a value, so there is exactly one value for each entry.
    pub(crate) fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Bytes(bytes) => Some(Self::Bytes(bytes)),
            Value::Integer(value) => Some(Self::Integer(value)),
            Value::Set(members) => {
                let ordered = members.is_sorted_by(|a, b| a < b) && !members.is_empty();
                ordered.then(|| {
                    let mut set = Set::default();
                    members.into_iter().for_each(|member| set.insert(member));
                    Self::Set(set)
                })
            }
        }
    }
}

impl Set {
    pub(crate) fn contains(&self, member: &[u8]) -> bool {
        self.members.contains(&MemberName(member).digest())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Its size with one more member like this.
    pub(crate) fn size_with(&self, member: &[u8]) -> usize {
        self.size + member.len() + Value::MEMBER_FIXED
    }

    /// Puts in a member that is not yet there.
    pub(crate) fn insert(&mut self, member: Bytes) {
        self.size = self.size_with(&member);
        let name = MemberName(&member).digest();
        // The name says all there is: every leaf has the same digest.
        self.members.insert(name, Leaf { digest: Digest::default(), weight: 1, value: member });
    }

    /// Takes a member out that is there.
    pub(crate) fn remove(&mut self, member: &[u8]) {
        self.size -= member.len() + Value::MEMBER_FIXED;
        self.members.remove(&MemberName(member).digest());
    }

    /// The members in byte order.
    pub(crate) fn list(&self) -> Vec<Bytes> {
        let mut list: Vec<_> = self.members.iter().map(|(_, leaf)| leaf.value.clone()).collect();
        list.sort_unstable();
        list
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
        let mut set = Set::default();
        for n in 0..20u8 {
            set.insert(vec![n; usize::from(n)].into());
        }
        set.remove(&[3, 3, 3]);
        for held in [Held::Bytes("some".into()), Held::Integer(-5), Held::Set(set)] {
            let entry = Entry { held, version: Version::NONE };
            let key = Bytes::from("key");
            let item = entry.item(&key);
            assert_eq!(entry.size(&key), item.size());
            let encoded = codec::encode(&item).expect("small");
            assert!(encoded.len() <= item.size(), "{} > {}", encoded.len(), item.size());
            let again = Held::from_value(item.value).expect("made by an entry");
            assert_eq!(Entry { held: again, version: Version::NONE }.digest(), entry.digest());
        }
    }
}
