//! Tries on disk: a row for each branch, and one for the root.
//!
//! | key | value |
//! |---|---|
//! | `r` | what is at the root, and the number of leaves |
//! | `t` and the nibbles of a path | the children of the branch at the path: leaves, and the summaries of branches |
//! | `c` and a number | while a state is fetched: where a chunk that is here belongs |
//!
//! A branch that is read is checked against the summary by which its parent knows it, so what
//! comes from a damaged row is found out before it is used.
//!
//! Which rows have changed follows from the digests: where the trie that is stored and the new one
//! have the same digest under a path, they have the same rows there.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::chunk::{Assembly, Proof, graft};
use super::path::{Loader, Path};
use super::{
    Branch, CHUNK_WEIGHT_MAX, DEPTH_MAX, Iter, Leaf, LeafNode, Link, MerkleTrie, Node, Summary,
    WAYS, nibble,
};
use crate::application::BadChunk;
use crate::codec;
use crate::id::Digest;
use crate::rows::{Changes, Row, Rows, Unreadable};

/// How deep the subtrees lie whose rows are a part of the changes each: there are 256 of them.
const PART_DEPTH: usize = 2;

/// The part that is above these subtrees.
const LAST_PART: u32 = 256;

/// Branches of fewer levels than this stay in memory: a few thousand, however large the trie.
const LEVELS_KEPT: usize = 3;

const ROOT: &[u8] = b"r";
const CHUNK: u8 = b'c';

/// For tries whose branches are in these rows.
struct FromRows<'a>(&'a dyn Rows);

impl<V: Default> Loader<V> for FromRows<'_> {
    fn load(&self, path: &Path, summary: &Summary) -> Result<Branch<V>, Unreadable> {
        let wrong = |what: &str| Unreadable(format!("the branch at {path:?} {what}"));
        let row = self.0.get(&path.row())?.ok_or_else(|| wrong("is missing"))?;
        let children: Vec<(u8, StoredChild)> =
            codec::decode(&row).map_err(|_| wrong("is malformed"))?;
        let mut branch = Branch::default();
        for (nibble, child) in children {
            let link = branch.children.get_mut(usize::from(nibble));
            *link.ok_or_else(|| wrong("has too many children"))? = Some(child.node());
        }
        let children: Vec<_> = branch.children().map(|(n, child)| (n, child.summary())).collect();
        if Summary::branch(&children) != Some(*summary) {
            return Err(wrong("is another one"));
        }
        Ok(branch)
    }
}

/// A child as its parent's row has it.
#[derive(Clone, Serialize, Deserialize)]
enum StoredChild {
    Leaf { key: Digest, digest: Digest, weight: u32 },
    Branch(Summary),
}

impl StoredChild {
    fn of<V>(node: &Node<V>) -> Self {
        match node {
            Node::Leaf(LeafNode { key, leaf, .. }) => {
                Self::Leaf { key: *key, digest: leaf.digest, weight: leaf.weight }
            }
            Node::Branch(_) | Node::Stub(_) => Self::Branch(node.summary()),
        }
    }

    fn node<V: Default>(self) -> Arc<Node<V>> {
        match self {
            Self::Leaf { key, digest, weight } => {
                Node::leaf(key, Leaf { digest, weight, value: V::default() })
            }
            Self::Branch(summary) => Arc::new(Node::Stub(summary)),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct StoredRoot {
    root: Option<StoredChild>,
    len: u64,
}

/// A chunk that is on disk, while others are still to come.
#[derive(Serialize, Deserialize)]
struct StoredChunk {
    proof: Proof,
    subtree: Option<StoredChild>,
    leaves: u64,
}

fn encoded<T: Serialize>(value: &T) -> Bytes {
    codec::encode(value).expect("a row is smaller than a frame")
}

fn branch_row<V>(path: &Path, branch: &Branch<V>) -> Row {
    let children: Vec<_> =
        branch.children().map(|(n, child)| (n, StoredChild::of(child))).collect();
    (path.row(), encoded(&children))
}

fn root_row<V>(trie: &MerkleTrie<V>) -> Row {
    let root = trie.root.as_deref().map(StoredChild::of);
    (Bytes::from_static(ROOT), encoded(&StoredRoot { root, len: trie.len as u64 }))
}

/// The rows of all branches in memory, from this one down.
fn branch_rows<V>(path: &Path, node: &Node<V>, rows: &mut Vec<Row>) {
    if let Node::Branch(branch) = node {
        rows.push(branch_row(path, branch));
        for (nibble, child) in branch.children() {
            branch_rows(&path.child(nibble), child, rows);
        }
    }
}

/// The child of a node that is at this path.
fn child<V: Default>(
    path: &Path,
    node: Option<&Node<V>>,
    way: u8,
    stored: &FromRows<'_>,
) -> Result<Link<V>, Unreadable> {
    Ok(match node {
        Some(Node::Branch(branch)) => branch.children[usize::from(way)].clone(),
        Some(Node::Stub(summary)) => {
            let mut branch: Branch<V> = stored.load(path, summary)?;
            branch.children[usize::from(way)].take()
        }
        Some(Node::Leaf(_)) | None => None,
    })
}

/// What tells a trie from the one that is stored; see [`MerkleTrie::difference`].
#[derive(Debug)]
pub struct Difference<V = ()> {
    /// What becomes of the rows of the trie.
    pub rows: Changes,
    /// Leaves that are not where they were. Some of them may have been elsewhere.
    pub put: Vec<(Digest, Leaf<V>)>,
    /// Keys that are no longer there.
    pub gone: Vec<Digest>,
}

impl<V> Default for Difference<V> {
    fn default() -> Self {
        Self { rows: Changes::new(), put: Vec::new(), gone: Vec::new() }
    }
}

/// What the rows under a path have to become, above this depth, so that they are those of `new` and not
/// of `old`, and what leaves differ. Those of `old` that moved are told as gone as well.
fn compare<V: Clone + Default>(
    path: &Path,
    above: usize,
    new: Option<&Node<V>>,
    old: Option<&Node<V>>,
    stored: &FromRows<'_>,
    found: &mut Difference<V>,
) -> Result<(), Unreadable> {
    if path.depth() >= above {
        return Ok(());
    }
    if new.map(Node::summary) == old.map(Node::summary) {
        return Ok(());
    }
    let loaded;
    let old = match old {
        Some(Node::Branch(branch)) => Some(branch),
        Some(Node::Stub(summary)) => {
            loaded = stored.load(path, summary)?;
            Some(&loaded)
        }
        Some(Node::Leaf(held)) => {
            found.gone.push(held.key);
            None
        }
        None => None,
    };
    let new = match new {
        Some(Node::Branch(branch)) => Some(branch),
        Some(Node::Stub(_)) => {
            let what = format!("the branch at {path:?} is not the one that was there");
            return Err(Unreadable(what));
        }
        Some(Node::Leaf(held)) => {
            found.put.push((held.key, held.leaf.clone()));
            None
        }
        None => None,
    };
    match (new, old) {
        (Some(branch), _) => {
            let (key, value) = branch_row(path, branch);
            found.rows.push((key, Some(value)));
        }
        (None, Some(_)) => found.rows.push((path.row(), None)),
        (None, None) => return Ok(()),
    }
    for way in 0..WAYS {
        let child = |branch: Option<&Branch<V>>| branch.and_then(|b| b.children[way].clone());
        let (new, old) = (child(new), child(old));
        compare(&path.child(way as u8), above, new.as_deref(), old.as_deref(), stored, found)?;
    }
    Ok(())
}

/// The node with stubs for what it shares with `stored`; `None` where nothing changes.
///
/// Shares means: the very same node. One that became something else and then the same again could
/// be read from rows of the time between, where it was something else.
fn forgotten<V: Clone>(
    depth: usize,
    kept: usize,
    live: &Arc<Node<V>>,
    stored: Option<&Arc<Node<V>>>,
) -> Option<Arc<Node<V>>> {
    let Node::Branch(branch) = &**live else { return None };
    let stored = stored?;
    if depth >= kept && Arc::ptr_eq(live, stored) {
        return Some(Arc::new(Node::Stub(live.summary())));
    }
    let Node::Branch(below) = &**stored else { return None };
    let mut changed: Option<Branch<V>> = None;
    for (way, child) in branch.children.iter().enumerate() {
        let Some(child) = child else { continue };
        if let Some(node) = forgotten(depth + 1, kept, child, below.children[way].as_ref()) {
            // The summary stays what it is: so do those of the children.
            changed.get_or_insert_with(|| branch.clone()).children[way] = Some(node);
        }
    }
    changed.map(|branch| Arc::new(Node::Branch(branch)))
}

impl<V: Clone + Default> MerkleTrie<V> {
    /// The trie that lies in these rows. What an owner keeps with a leaf is not in them: those that
    /// are read have the default of it.
    ///
    /// # Errors
    /// There is none, or the row of its root is damaged.
    pub fn open(rows: &dyn Rows) -> Result<Self, Unreadable> {
        let row = rows.get(ROOT)?.ok_or_else(|| Unreadable("its root is missing".to_owned()))?;
        let malformed = || Unreadable("its root is malformed".to_owned());
        let StoredRoot { root, len } = codec::decode(&row).map_err(|_| malformed())?;
        let len = usize::try_from(len).map_err(|_| malformed())?;
        Ok(Self { root: root.map(StoredChild::node), len })
    }

    /// What it holds under a key. What is not in memory is in these rows.
    ///
    /// # Errors
    /// A row could not be read.
    pub fn find_in(&self, rows: &dyn Rows, key: &Digest) -> Result<Option<Leaf<V>>, Unreadable> {
        let Some(root) = &self.root else { return Ok(None) };
        let mut node = Arc::clone(root);
        for depth in 0..=DEPTH_MAX {
            let next = match &*node {
                Node::Leaf(held) => return Ok((held.key == *key).then(|| held.leaf.clone())),
                Node::Branch(branch) => branch.children[nibble(key, depth)].clone(),
                Node::Stub(summary) => {
                    let mut branch = FromRows(rows).load(&Path::of(key, depth), summary)?;
                    branch.children[nibble(key, depth)].take()
                }
            };
            let Some(next) = next else { return Ok(None) };
            node = next;
        }
        Ok(None)
    }

    /// Puts a leaf under a key, and answers the one that it replaces. What is not in memory is in
    /// these rows.
    ///
    /// # Errors
    /// A row could not be read. The trie is as it was.
    pub fn insert_in(
        &mut self,
        rows: &dyn Rows,
        key: Digest,
        leaf: Leaf<V>,
    ) -> Result<Option<Leaf<V>>, Unreadable> {
        self.insert_with(&FromRows(rows), key, leaf)
    }

    /// Removes a key, and answers its leaf. What is not in memory is in these rows.
    ///
    /// # Errors
    /// A row could not be read. The trie is as it was.
    pub fn remove_in(
        &mut self,
        rows: &dyn Rows,
        key: &Digest,
    ) -> Result<Option<Leaf<V>>, Unreadable> {
        self.remove_with(&FromRows(rows), key)
    }

    /// What tells it from `stored`, whose rows these are: a sixteenth of it, by the first nibble of the
    /// keys. The row of the root is changed with the first one, and goes where nothing is left.
    ///
    /// # Errors
    /// A row could not be read.
    pub fn difference(
        &self,
        stored: &Self,
        rows: &dyn Rows,
        way: u8,
    ) -> Result<Difference<V>, Unreadable> {
        let (mut found, from) = (Difference::default(), FromRows(rows));
        let (path, new, old) = (Path::default(), self.root.as_deref(), stored.root.as_deref());
        if new.map(Node::summary) == old.map(Node::summary) {
            return Ok(found);
        }
        if way == 0 {
            compare(&path, 1, new, old, &from, &mut found)?;
            let (key, row) = root_row(self);
            found.rows.push((key, (!self.is_empty()).then_some(row)));
        }
        let new = child(&path, new, way, &from)?;
        let old = child(&path, old, way, &from)?;
        let (path, above) = (path.child(way), DEPTH_MAX + 1);
        compare(&path, above, new.as_deref(), old.as_deref(), &from, &mut found)?;
        let mut gone = Vec::with_capacity(found.gone.len());
        for key in found.gone {
            if self.find_in(rows, &key)?.is_none() {
                gone.push(key);
            }
        }
        Ok(Difference { gone, ..found })
    }

    /// Lets go of what is unchanged since `stored`, an earlier version of this trie whose rows are on
    /// disk, but for the branches of so many levels near the root.
    pub fn forget_below(&mut self, levels: usize, stored: &Self) {
        if let Some(root) = &self.root
            && let Some(node) = forgotten(0, levels, root, stored.root.as_ref())
        {
            self.root = Some(node);
        }
    }
}

impl MerkleTrie {
    /// What becomes of the rows, which hold `stored`, so that they hold this trie: a part of it, and
    /// `None` after the last. Part 0 is of the keys whose first byte is 0, and so on; part 256 is what
    /// is above them.
    ///
    /// # Errors
    /// A row could not be read.
    pub fn changes(
        &self,
        stored: &Self,
        rows: &dyn Rows,
        part: u32,
    ) -> Result<Option<Changes>, Unreadable> {
        let (mut found, rows) = (Difference::default(), FromRows(rows));
        let (mut path, mut new, mut old) =
            (Path::default(), self.root.clone(), stored.root.clone());
        match u8::try_from(part) {
            Ok(first) => {
                for way in [first >> 4, first & 15] {
                    let summary = |node: &Link<()>| node.as_deref().map(Node::summary);
                    if summary(&new) == summary(&old) {
                        return Ok(Some(found.rows));
                    }
                    new = child(&path, new.as_deref(), way, &rows)?;
                    old = child(&path, old.as_deref(), way, &rows)?;
                    path = path.child(way);
                }
                let above = DEPTH_MAX + 1;
                compare(&path, above, new.as_deref(), old.as_deref(), &rows, &mut found)?;
            }
            Err(_) if part == LAST_PART => {
                let (new, old) = (new.as_deref(), old.as_deref());
                compare(&path, PART_DEPTH, new, old, &rows, &mut found)?;
                let (key, value) = root_row(self);
                found.rows.push((key, Some(value)));
            }
            Err(_) => return Ok(None),
        }
        Ok(Some(found.rows))
    }

    /// Lets go of what is unchanged since `stored`, an earlier version of this trie whose rows are on
    /// disk, but for the branches near the root.
    pub fn forget(&mut self, stored: &Self) {
        self.forget_below(LEVELS_KEPT, stored);
    }

    /// The proof of a chunk, and the lowest and the highest key that may be in it. `None` past the
    /// end.
    ///
    /// # Errors
    /// A row could not be read.
    pub fn chunk_in(
        &self,
        rows: &dyn Rows,
        index: u32,
    ) -> Result<Option<(Proof, Digest, Digest)>, Unreadable> {
        let located = self.locate(&FromRows(rows), index)?;
        Ok(located.map(|(proof, path)| {
            let (low, high) = path.bounds();
            (proof, low, high)
        }))
    }
}

impl<V: Clone> MerkleTrie<V> {
    /// Where a chunk is, and its proof.
    pub(super) fn locate(
        &self,
        loader: &impl Loader<V>,
        index: u32,
    ) -> Result<Option<(Proof, Path)>, Unreadable> {
        let (mut proof, mut path) = (Proof::default(), Path::default());
        let Some(root) = &self.root else { return Ok((index == 0).then_some((proof, path))) };
        let mut node = Arc::clone(root);
        if index >= self.chunks() {
            return Ok(None);
        }
        let mut before = 0;
        while path.depth() < DEPTH_MAX && node.summary().weight > CHUNK_WEIGHT_MAX {
            let loaded;
            let branch = match &*node {
                Node::Leaf(_) => break,
                Node::Branch(branch) => branch,
                Node::Stub(summary) => {
                    loaded = loader.load(&path, summary)?;
                    &loaded
                }
            };
            let Some(way) = branch.children().find_map(|(way, child)| {
                let chunks = child.summary().chunks;
                let inside = index - before < chunks;
                before += if inside { 0 } else { chunks };
                inside.then_some(way)
            }) else {
                return Ok(None);
            };
            proof.descend(way, branch);
            path = path.child(way);
            let Some(child) = branch.children[usize::from(way)].clone() else { return Ok(None) };
            node = child;
        }
        Ok(Some((proof, path)))
    }

    /// The node at a path, where it is in memory.
    pub(super) fn at(&self, path: &Path) -> Option<&Node<V>> {
        let mut node = self.root.as_deref()?;
        for nibble in path.nibbles() {
            let Node::Branch(branch) = node else { return None };
            node = branch.children[usize::from(*nibble)].as_deref()?;
        }
        Some(node)
    }
}

impl Assembly {
    /// [`Assembly::accept`] for a trie that is to lie on disk: answers the rows that this chunk
    /// comes to, if it is new, and keeps only where it belongs.
    ///
    /// # Errors
    /// As there.
    pub fn accept_rows(
        &mut self,
        index: u32,
        proof: &Proof,
        leaves: impl IntoIterator<Item = (Digest, Leaf)>,
    ) -> Result<Option<Vec<Row>>, BadChunk> {
        let Some(subtree) = self.check_new(index, proof, leaves)? else { return Ok(None) };
        let mut rows = Vec::new();
        let mut stored = StoredChunk { proof: proof.clone(), subtree: None, leaves: 0 };
        if let Some(node) = &subtree {
            stored.leaves = Iter::under(Some(node)).count() as u64;
            stored.subtree = Some(StoredChild::of(node));
            branch_rows(&proof.path(), node, &mut rows);
        }
        rows.push((chunk_key(index), encoded(&stored)));
        self.hang(stored);
        Ok(Some(rows))
    }

    /// Goes on with the chunks whose rows are stored.
    ///
    /// # Errors
    /// A row is damaged.
    pub fn resume(&mut self, rows: &dyn Rows) -> Result<(), Unreadable> {
        let end = [CHUNK + 1];
        for row in rows.range(&[CHUNK], std::ops::Bound::Excluded(end.as_slice())) {
            let (key, value) = row?;
            let wrong = || Unreadable("a chunk that was fetched is of another state".to_owned());
            let index = key.get(1..).and_then(|index| index.try_into().ok()).ok_or_else(wrong)?;
            let index = u32::from_be_bytes(index);
            let stored: StoredChunk = codec::decode(&value).map_err(|_| wrong())?;
            let summary = stored.subtree.clone().map(|child| child.node::<()>().summary());
            self.check_summary(index, &stored.proof, summary).map_err(|BadChunk| wrong())?;
            self.hang(stored);
        }
        Ok(())
    }

    /// The rows of the branches above the chunks, and of the root, when the trie is whole. With
    /// them the rows are those of the state.
    #[must_use]
    pub fn rest(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        if let Some(root) = self.trie().root.as_deref() {
            branch_rows(&Path::default(), root, &mut rows);
        }
        rows.push(root_row(self.trie()));
        rows
    }

    fn hang(&mut self, stored: StoredChunk) {
        let StoredChunk { proof, subtree, leaves } = stored;
        let trie = self.trie_mut();
        trie.len += usize::try_from(leaves).unwrap_or(usize::MAX);
        if let Some(child) = subtree {
            graft(&mut trie.root, proof.steps(), child.node());
        }
    }
}

fn chunk_key(index: u32) -> Bytes {
    [&[CHUNK][..], &index.to_be_bytes()].concat().into()
}

#[cfg(test)]
mod tests;
