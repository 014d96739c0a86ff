//! Sets: a trie of the members' hashes, of which only what changes is in memory.
//!
//! On disk are these rows, each under the hashed key of the set:
//!
//! | key | value |
//! |---|---|
//! | `s` … `r`, `s` … `t` and a path | of the [trie](elea_protocol::trie) of its members |
//! | `m` … and the hashed member | the member |

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use elea_protocol::codec::{Canonical, Sink};
use elea_protocol::id::Digest;
use elea_protocol::rows::{Changes, Row, Rows, Under, Unreadable};
use elea_protocol::trie::{Leaf, MerkleTrie};

use crate::outcome::Value;

const TRIE: u8 = b's';
const MEMBER: u8 = b'm';

/// How many parts the changes of a set have.
pub(crate) const WAYS: u8 = 16;

/// Members by their hashes. It is a trie of its own, so that adding one to many costs the same for
/// a large set as for a small one. A leaf has the member, unless that is on disk.
#[derive(Clone, Default)]
pub(crate) struct Set {
    members: MerkleTrie<Option<Bytes>>,
    size: usize,
}

struct MemberName<'a>(&'a [u8]);

impl Canonical for MemberName<'_> {
    const TAG: &'static str = "kv-member";

    fn write(&self, to: &mut impl Sink) {
        to.put_bytes(self.0);
    }
}

fn member_row(set: &Digest, member: &Digest) -> Bytes {
    [&[MEMBER], &set.0[..], &member.0[..]].concat().into()
}

/// The rows of the trie of a set with this hashed key.
fn trie_rows<'a>(rows: &'a dyn Rows, set: &Digest) -> Under<'a> {
    Under::new(rows, [&[TRIE], &set.0[..]].concat())
}

/// Rows of which each is read once, however often it is asked for.
#[derive(Debug)]
struct ReadOnce<'a> {
    rows: &'a Under<'a>,
    read: Mutex<BTreeMap<Bytes, Option<Bytes>>>,
}

impl Rows for ReadOnce<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = read.get(key) {
            return Ok(row.clone());
        }
        let row = self.rows.get(key)?;
        read.insert(Bytes::copy_from_slice(key), row.clone());
        Ok(row)
    }

    fn range<'a>(
        &'a self,
        from: &[u8],
        to: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Row, Unreadable>> + 'a> {
        self.rows.range(from, to)
    }
}

impl Set {
    /// The set that lies in these rows.
    pub(crate) fn open(rows: &dyn Rows, set: &Digest, size: u64) -> Result<Self, Unreadable> {
        let members = MerkleTrie::open(&trie_rows(rows, set))?;
        let size = usize::try_from(size).map_err(|_| Unreadable("a set too large".to_owned()))?;
        Ok(Self { members, size })
    }

    /// A set in memory.
    pub(crate) fn of(members: Vec<Bytes>) -> Self {
        let mut set = Self::default();
        for member in members {
            set.size = set.size_with(&member);
            set.members.insert(MemberName(&member).digest(), leaf(member));
        }
        set
    }

    pub(crate) fn digest(&self) -> Digest {
        self.members.digest()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The bytes of its members, and 16 more for each.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// How many members there are.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Its size with one more member like this.
    pub(crate) fn size_with(&self, member: &[u8]) -> usize {
        self.size + member.len() + Value::MEMBER_FIXED
    }

    pub(crate) fn contains(
        &self,
        rows: &dyn Rows,
        set: &Digest,
        member: &[u8],
    ) -> Result<bool, Unreadable> {
        let found = self.members.find_in(&trie_rows(rows, set), &MemberName(member).digest())?;
        Ok(found.is_some())
    }

    /// Puts in a member that is not yet there.
    pub(crate) fn insert(
        &mut self,
        rows: &dyn Rows,
        set: &Digest,
        member: Bytes,
    ) -> Result<(), Unreadable> {
        let (name, size) = (MemberName(&member).digest(), self.size_with(&member));
        self.members.insert_in(&trie_rows(rows, set), name, leaf(member))?;
        self.size = size;
        Ok(())
    }

    /// Takes a member out that is there.
    pub(crate) fn remove(
        &mut self,
        rows: &dyn Rows,
        set: &Digest,
        member: &[u8],
    ) -> Result<(), Unreadable> {
        self.members.remove_in(&trie_rows(rows, set), &MemberName(member).digest())?;
        self.size = self.size.saturating_sub(member.len() + Value::MEMBER_FIXED);
        Ok(())
    }

    /// The members in byte order.
    pub(crate) fn list(&self, rows: &dyn Rows, set: &Digest) -> Result<Vec<Bytes>, Unreadable> {
        let here = self.members.iter().filter_map(|(_, leaf)| leaf.value.clone());
        let mut list: Vec<Bytes> = here.collect();
        // Only where something is missing is the disk looked at, and then at all of the set at once.
        if list.len() < self.len() {
            let under = Under::new(rows, [&[MEMBER], &set.0[..]].concat());
            let trie = trie_rows(rows, set);
            let trie = ReadOnce { rows: &trie, read: Mutex::default() };
            for row in under.range(&[], Bound::Excluded(&[u8::MAX; 33])) {
                let (name, member) = row?;
                let name = name[..].try_into().map(Digest);
                let name = name.map_err(|_| Unreadable("a member is misplaced".to_owned()))?;
                let leaf = self.members.find_in(&trie, &name)?;
                if leaf.is_some_and(|leaf| leaf.value.is_none()) {
                    list.push(member);
                }
            }
        }
        if list.len() != self.len() {
            return Err(Unreadable("members of a set are missing".to_owned()));
        }
        list.sort_unstable();
        Ok(list)
    }

    /// A part of what becomes of the rows, which hold `stored` under this hashed key.
    pub(crate) fn changes(
        &self,
        stored: &Self,
        rows: &dyn Rows,
        set: &Digest,
        way: u8,
        changes: &mut Changes,
    ) -> Result<(), Unreadable> {
        let under = trie_rows(rows, set);
        let found = self.members.difference(&stored.members, &under, way)?;
        changes.extend(found.rows.into_iter().map(|(key, value)| (under.key(&key), value)));
        for (name, leaf) in found.put {
            changes.extend(leaf.value.map(|member| (member_row(set, &name), Some(member))));
        }
        changes.extend(found.gone.iter().map(|name| (member_row(set, name), None)));
        Ok(())
    }

    /// Lets go of what lies on disk with `stored`, an earlier version of this set.
    pub(crate) fn forget(&mut self, stored: &Self) {
        self.members.forget_below(0, &stored.members);
    }

    /// The bytes that it has in memory, but for those that were seen already.
    pub(crate) fn held(&self, seen: &mut BTreeSet<usize>) -> usize {
        self.members.held(seen, &mut |member| member.as_ref().map_or(0, |member| member.len()))
    }
}

/// The name says all there is: every leaf has the same digest.
fn leaf(member: Bytes) -> Leaf<Option<Bytes>> {
    Leaf { digest: Digest::default(), weight: 1, value: Some(member) }
}
