//! The state: an ordered map for reading, and a Merkle trie over the same entries for the digest.
//!
//! Both are persistent, so that a saved version of the state costs what later versions change.

use std::ops::Bound;

use bytes::Bytes;
use elea_protocol::codec::{Canonical, Sink};
use elea_protocol::id::Digest;
use elea_protocol::trie::{Leaf, MerkleTrie};
use imbl::OrdMap;

use crate::outcome::{Found, Item, Reason, Value, Version, item_size};

/// All keys with what they hold.
#[derive(Clone, Default)]
pub(crate) struct State {
    entries: OrdMap<Bytes, Entry>,
    /// One leaf for each entry, and the key to find it by.
    trie: MerkleTrie<Bytes>,
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

/// The leaf of an entry. The hashed key is part of every leaf's digest, so this need not cover it.
pub(crate) fn leaf(key: &Bytes, entry: &Entry) -> (Digest, Leaf<Bytes>) {
    let weight = u32::try_from(entry.size(key)).unwrap_or(u32::MAX);
    (KeyName(key).digest(), Leaf { digest: entry.digest(), weight, value: key.clone() })
}

impl State {
    pub(crate) fn new(entries: OrdMap<Bytes, Entry>, trie: MerkleTrie<Bytes>) -> Self {
        Self { entries, trie }
    }

    pub(crate) fn trie(&self) -> &MerkleTrie<Bytes> {
        &self.trie
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The plain value of a key, unless it is absent.
    pub(crate) fn read(&self, key: &[u8]) -> Result<Option<Found>, Reason> {
        self.get(key)
            .map(|Entry { held, version }| Ok(Found { value: held.text()?, version: *version }))
            .transpose()
    }

    /// The set of a key; `None` where it is absent.
    pub(crate) fn set(&self, key: &[u8]) -> Result<Option<(&Set, Version)>, Reason> {
        match self.get(key) {
            None => Ok(None),
            Some(Entry { held: Held::Set(set), version }) => Ok(Some((set, *version))),
            Some(_) => Err(Reason::HoldsValue),
        }
    }

    /// All entries from a key on, in order.
    pub(crate) fn entries_from(&self, from: &[u8]) -> impl Iterator<Item = (&Bytes, &Entry)> {
        self.entries.range::<_, [u8]>((Bound::Included(from), Bound::Unbounded))
    }

    pub(crate) fn put(&mut self, key: Bytes, held: Held, version: Version) {
        let entry = Entry { held, version };
        let (name, leaf) = leaf(&key, &entry);
        self.trie.insert(name, leaf);
        self.entries.insert(key, entry);
    }

    /// Whether the key was there.
    pub(crate) fn remove(&mut self, key: &[u8]) -> bool {
        self.trie.remove(&KeyName(key).digest());
        self.entries.remove(key).is_some()
    }
}

impl Entry {
    /// See [`Item::size`]: it is the same for the item that this entry makes.
    pub(crate) fn size(&self, key: &[u8]) -> usize {
        item_size(key.len(), self.held.size())
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
            let encoded = elea_protocol::codec::encode(&item).expect("small");
            assert!(encoded.len() <= item.size(), "{} > {}", encoded.len(), item.size());
            let again = Held::from_value(item.value).expect("made by an entry");
            assert_eq!(Entry { held: again, version: Version::NONE }.digest(), entry.digest());
        }
    }
}
