//! A persistent Merkle trie: a map whose digest costs what changed, and not what it holds.
//!
//! Keys are SHA-256 values, so the trie is balanced for honest keys and at most 64 levels deep
//! for any. It has sixteen ways. The subtree under a prefix is nothing where no key has the
//! prefix, the leaf itself where one has, and a branch where two or more have: the shape, and
//! with it the digest, depends on the content and not on the order in which it came about.
//!
//! Nodes are shared. A clone costs nothing, writes copy the path from the root once a version and
//! are in place from then on, and the digest of every node is computed when it is first asked for
//! and kept until something below it changes.
//!
//! # Chunks
//!
//! A state is sent to another replica in chunks that are checked one by one. Where it is cut must
//! follow from the state alone: a receiver may take each chunk from another peer, and a client
//! that chooses its keys must not be able to make one chunk too large to be sent. Therefore each
//! leaf has a *weight*, the bytes that it takes to send it, and each branch is hashed with the
//! weight and the number of chunks of each of its children. A chunk is a subtree of at most
//! [`CHUNK_WEIGHT_MAX`] whose parent weighs more, or a single heavy leaf. The proof of a chunk is
//! what stands beside its path up to the root; it fixes the digest of the chunk, its number and
//! how many there are. See [`MerkleTrie::chunk`] and [`Assembly`].
//!
//! # On disk
//!
//! A trie need not be in memory. A branch may be a *stub*, of which only the digest, the weight and the chunks are
//! known, and which is read from a row under its path when something below it changes. See
//! [`MerkleTrie::open`], [`MerkleTrie::changes`] and [`MerkleTrie::forget`].

#![cfg_attr(
    not(test),
    expect(clippy::indexing_slicing, reason = "sixteen children, by a nibble; keys of 64 nibbles")
)]

mod chunk;
mod path;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

pub use self::chunk::{Assembly, Proof};
use self::path::{InMemory, Loader, Path};
pub use self::stored::Difference;
use crate::codec::{Canonical, Sink};
use crate::id::Digest;
use crate::rows::Unreadable;

/// The most a chunk of more than one leaf weighs. It is part of what is hashed: other replicas
/// must have the same.
pub const CHUNK_WEIGHT_MAX: u64 = 512 << 10;

/// How many nibbles a key has: no branch is deeper.
const DEPTH_MAX: usize = 64;

const WAYS: usize = 16;

/// What the trie holds under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf<V = ()> {
    /// Covers all that the owner keeps under the key: the trie hashes nothing else of it.
    pub digest: Digest,
    /// The bytes it takes to send what the owner keeps under the key, about. It must follow from
    /// what `digest` covers, for who restores a state computes it anew. At least 1.
    pub weight: u32,
    /// What the owner wants to find again when it walks the trie. The digest does not cover it.
    pub value: V,
}

/// A persistent authenticated map from hashed keys to [leaves](Leaf). See the
/// [module](self) for its shape.
pub struct MerkleTrie<V = ()> {
    root: Link<V>,
    len: usize,
}

type Link<V> = Option<Arc<Node<V>>>;

#[derive(Clone)]
enum Node<V> {
    Leaf(LeafNode<V>),
    Branch(Branch<V>),
    /// A branch that is on disk only.
    Stub(Summary),
}

#[derive(Clone)]
struct LeafNode<V> {
    key: Digest,
    leaf: Leaf<V>,
    digest: OnceLock<Digest>,
}

/// Two or more leaves lie below a branch, though perhaps all below one child.
#[derive(Clone)]
struct Branch<V> {
    children: [Link<V>; WAYS],
    summary: OnceLock<Summary>,
}

/// What a branch is told of a child, and all that its digest covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Summary {
    digest: Digest,
    weight: u64,
    chunks: u32,
}

impl Summary {
    /// The empty trie. It has one chunk, which is empty.
    fn empty() -> Self {
        Self { digest: Empty.digest(), weight: 0, chunks: 1 }
    }

    /// The branch over these children, in ascending order of their nibbles. `None` where the
    /// numbers overflow: no trie of ours has such children, but a proof may claim them.
    fn branch(children: &[(u8, Self)]) -> Option<Self> {
        let weight =
            children.iter().try_fold(0u64, |sum, (_, child)| sum.checked_add(child.weight))?;
        let parts =
            children.iter().try_fold(0u32, |sum, (_, child)| sum.checked_add(child.chunks))?;
        let chunks = if weight > CHUNK_WEIGHT_MAX { parts } else { 1 };
        Some(Self { digest: BranchOf(children).digest(), weight, chunks })
    }
}

struct Empty;

impl Canonical for Empty {
    const TAG: &'static str = "trie-empty";

    fn write(&self, _to: &mut impl Sink) {}
}

struct LeafOf<'a>(&'a Digest, &'a Digest, u32);

impl Canonical for LeafOf<'_> {
    const TAG: &'static str = "trie-leaf";

    fn write(&self, to: &mut impl Sink) {
        to.put_digest(self.0);
        to.put_digest(self.1);
        to.put_u64(u64::from(self.2));
    }
}

struct BranchOf<'a>(&'a [(u8, Summary)]);

impl Canonical for BranchOf<'_> {
    const TAG: &'static str = "trie-branch";

    fn write(&self, to: &mut impl Sink) {
        to.put_len(self.0.len());
        for (nibble, Summary { digest, weight, chunks }) in self.0 {
            to.put_u8(*nibble);
            to.put_digest(digest);
            to.put_u64(*weight);
            to.put_u64(u64::from(*chunks));
        }
    }
}

/// The nibble of a key that chooses the way at this depth.
fn nibble(key: &Digest, depth: usize) -> usize {
    let byte = key.0[depth / 2];
    usize::from(if depth.is_multiple_of(2) { byte >> 4 } else { byte & 15 })
}

impl<V> Node<V> {
    fn leaf(key: Digest, leaf: Leaf<V>) -> Arc<Self> {
        Arc::new(Self::Leaf(LeafNode { key, leaf, digest: OnceLock::new() }))
    }

    fn summary(&self) -> Summary {
        match self {
            Self::Leaf(LeafNode { key, leaf, digest }) => {
                let of = || LeafOf(key, &leaf.digest, leaf.weight).digest();
                let digest = *digest.get_or_init(of);
                Summary { digest, weight: u64::from(leaf.weight), chunks: 1 }
            }
            Self::Branch(branch) => *branch.summary.get_or_init(|| {
                let children: Vec<_> =
                    branch.children().map(|(n, child)| (n, child.summary())).collect();
                Summary::branch(&children).expect("a trie has fewer than 2^32 chunks")
            }),
            Self::Stub(summary) => *summary,
        }
    }
}

impl<V> Default for Branch<V> {
    fn default() -> Self {
        Self { children: Default::default(), summary: OnceLock::new() }
    }
}

impl<V> Branch<V> {
    fn children(&self) -> impl Iterator<Item = (u8, &Node<V>)> {
        (0u8..).zip(&self.children).filter_map(|(n, child)| Some((n, child.as_deref()?)))
    }

    /// The child, to be changed: what was computed from the children is void.
    fn child_mut(&mut self, way: usize) -> &mut Link<V> {
        self.summary.take();
        &mut self.children[way]
    }

    /// The last leaf, if nothing else is left.
    fn only_leaf(&self) -> Option<Arc<Node<V>>> {
        let mut left = self.children.iter().flatten();
        match (left.next(), left.next()) {
            (Some(only), None) if matches!(**only, Node::Leaf(_)) => Some(Arc::clone(only)),
            _ => None,
        }
    }
}

impl<V> MerkleTrie<V> {
    /// A trie that holds nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { root: None, len: 0 }
    }

    /// How many keys it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Covers all keys with the digests and weights of their leaves. Equal contents have equal
    /// digests. The cost grows with what changed since it was last asked for.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.summary().digest
    }

    /// The weight of all leaves together.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.summary().weight
    }

    fn summary(&self) -> Summary {
        self.root.as_ref().map_or_else(Summary::empty, |node| node.summary())
    }

    /// What it holds under a key. Only what is in memory is found.
    #[must_use]
    pub fn get(&self, key: &Digest) -> Option<&Leaf<V>> {
        let mut link = &self.root;
        for depth in 0..=DEPTH_MAX {
            match link.as_deref()? {
                Node::Leaf(held) => return (held.key == *key).then_some(&held.leaf),
                Node::Branch(branch) => link = &branch.children[nibble(key, depth)],
                Node::Stub(_) => return None,
            }
        }
        None
    }

    /// Whether it holds the key. Only what is in memory is found.
    #[must_use]
    pub fn contains(&self, key: &Digest) -> bool {
        self.get(key).is_some()
    }

    /// About the bytes of its nodes in memory, and of what they keep, but for nodes that were seen
    /// already: other tries share them.
    pub fn held(&self, seen: &mut BTreeSet<usize>, of: &mut dyn FnMut(&V) -> usize) -> usize {
        let mut open: Vec<_> = self.root.iter().collect();
        let mut held = 0;
        while let Some(node) = open.pop() {
            if !seen.insert(Arc::as_ptr(node) as usize) {
                continue;
            }
            held += size_of::<Node<V>>() + 2 * size_of::<usize>();
            match &**node {
                Node::Leaf(LeafNode { leaf, .. }) => held += of(&leaf.value),
                Node::Branch(branch) => open.extend(branch.children.iter().flatten()),
                Node::Stub(_) => {}
            }
        }
        held
    }

    /// All keys with their leaves, in the order of the hashed keys. Only what is in memory is found.
    pub fn iter(&self) -> Iter<'_, V> {
        Iter::under(self.root.as_deref())
    }
}

/// Why no operation on a trie in memory fails.
const NO_STUBS: &str = "a trie in memory has no stubs";

impl<V: Clone> MerkleTrie<V> {
    /// Puts a leaf under a key, and answers the one that it replaces. All of the trie is in memory.
    pub fn insert(&mut self, key: Digest, leaf: Leaf<V>) -> Option<Leaf<V>> {
        self.insert_with(&InMemory, key, leaf).expect(NO_STUBS)
    }

    /// Removes a key, and answers its leaf. All of the trie is in memory.
    pub fn remove(&mut self, key: &Digest) -> Option<Leaf<V>> {
        // A look first, so that the path is not copied for a key that is not there.
        self.get(key)?;
        self.remove_with(&InMemory, key).expect(NO_STUBS)
    }

    fn insert_with(
        &mut self,
        loader: &impl Loader<V>,
        key: Digest,
        leaf: Leaf<V>,
    ) -> Result<Option<Leaf<V>>, Unreadable> {
        let replaced = insert(&mut self.root, loader, 0, key, leaf)?;
        self.len += usize::from(replaced.is_none());
        Ok(replaced)
    }

    fn remove_with(
        &mut self,
        loader: &impl Loader<V>,
        key: &Digest,
    ) -> Result<Option<Leaf<V>>, Unreadable> {
        let removed = remove(&mut self.root, loader, 0, key)?;
        self.len -= usize::from(removed.is_some());
        Ok(removed)
    }
}

/// Puts the branch in the place of a stub.
fn load<V>(
    node: &mut Arc<Node<V>>,
    loader: &impl Loader<V>,
    depth: usize,
    key: &Digest,
) -> Result<(), Unreadable> {
    if let Node::Stub(summary) = &**node {
        *node = Arc::new(Node::Branch(loader.load(&Path::of(key, depth), summary)?));
    }
    Ok(())
}

fn insert<V: Clone>(
    link: &mut Link<V>,
    loader: &impl Loader<V>,
    depth: usize,
    key: Digest,
    leaf: Leaf<V>,
) -> Result<Option<Leaf<V>>, Unreadable> {
    let Some(node) = link else {
        *link = Some(Node::leaf(key, leaf));
        return Ok(None);
    };
    load(node, loader, depth, &key)?;
    if let Node::Leaf(held) = &**node
        && held.key != key
    {
        // Two different keys part at some depth: both move down until they do.
        let mut branch = Branch::default();
        branch.children[nibble(&held.key, depth)] = Some(Arc::clone(node));
        insert(&mut branch.children[nibble(&key, depth)], loader, depth + 1, key, leaf)?;
        *link = Some(Arc::new(Node::Branch(branch)));
        return Ok(None);
    }
    match Arc::make_mut(node) {
        Node::Leaf(held) => {
            held.digest.take();
            Ok(Some(std::mem::replace(&mut held.leaf, leaf)))
        }
        Node::Branch(branch) => {
            insert(branch.child_mut(nibble(&key, depth)), loader, depth + 1, key, leaf)
        }
        Node::Stub(_) => Err(Unreadable(NO_STUBS.to_owned())),
    }
}

fn remove<V: Clone>(
    link: &mut Link<V>,
    loader: &impl Loader<V>,
    depth: usize,
    key: &Digest,
) -> Result<Option<Leaf<V>>, Unreadable> {
    let Some(node) = link else { return Ok(None) };
    load(node, loader, depth, key)?;
    if let Node::Branch(branch) = Arc::make_mut(node) {
        let removed = remove(branch.child_mut(nibble(key, depth)), loader, depth + 1, key)?;
        // A leaf that is left alone moves up, through every level at which it is alone.
        if let Some(only) = branch.only_leaf() {
            *link = Some(only);
        }
        return Ok(removed);
    }
    if let Node::Leaf(held) = &**node
        && held.key != *key
    {
        return Ok(None);
    }
    match link.take().map(Arc::unwrap_or_clone) {
        Some(Node::Leaf(held)) => Ok(Some(held.leaf)),
        _ => Ok(None),
    }
}

impl<V> Clone for MerkleTrie<V> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), len: self.len }
    }
}

impl<V> Default for MerkleTrie<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> fmt::Debug for MerkleTrie<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MerkleTrie({} leaves, {:?})", self.len, self.digest())
    }
}

/// All leaves of a trie, by [`MerkleTrie::iter`].
pub struct Iter<'a, V> {
    /// Subtrees still to be walked, the next one last.
    open: Vec<&'a Node<V>>,
}

impl<'a, V> Iter<'a, V> {
    fn under(node: Option<&'a Node<V>>) -> Self {
        Self { open: node.into_iter().collect() }
    }
}

impl<'a, V> Iterator for Iter<'a, V> {
    type Item = (&'a Digest, &'a Leaf<V>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.open.pop()? {
                Node::Leaf(held) => return Some((&held.key, &held.leaf)),
                Node::Branch(branch) => {
                    self.open.extend(branch.children.iter().rev().flatten().map(|child| &**child));
                }
                Node::Stub(_) => {}
            }
        }
    }
}

impl<'a, V> IntoIterator for &'a MerkleTrie<V> {
    type Item = (&'a Digest, &'a Leaf<V>);
    type IntoIter = Iter<'a, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
