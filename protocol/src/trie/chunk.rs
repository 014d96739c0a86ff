//! Sending a trie in chunks: what proves one, and putting them together again.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::path::{InMemory, Path};
use super::{
    Branch, CHUNK_WEIGHT_MAX, DEPTH_MAX, Iter, Leaf, Link, MerkleTrie, NO_STUBS, Node, Summary,
    WAYS, insert, nibble,
};
use crate::application::BadChunk;
use crate::id::Digest;

/// Shows that a chunk belongs to the trie with some digest, and which of its chunks it is: what
/// stands beside the path to its subtree, from the root down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof(Vec<Step>);

/// One branch on the path: the way taken, and the other children in ascending order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Step {
    nibble: u8,
    siblings: Vec<(u8, Summary)>,
}

impl Step {
    /// The branch that has this child at its place. `None` where there is no such branch, or
    /// where it would be part of a chunk, so that the child is not a chunk of its own.
    fn over(&self, child: Summary) -> Option<Summary> {
        let at = self.siblings.partition_point(|(n, _)| *n < self.nibble);
        let mut children = self.siblings.clone();
        children.insert(at, (self.nibble, child));
        let ascending = children.is_sorted_by(|(a, _), (b, _)| a < b);
        let in_range = children.last().is_some_and(|(n, _)| usize::from(*n) < WAYS);
        let branch = (ascending && in_range).then(|| Summary::branch(&children))??;
        (branch.weight > CHUNK_WEIGHT_MAX).then_some(branch)
    }

    /// How many chunks come before those of the way taken.
    fn chunks_before(&self) -> Option<u32> {
        let before = self.siblings.iter().take_while(|(n, _)| *n < self.nibble);
        before.map(|(_, sibling)| sibling.chunks).try_fold(0, u32::checked_add)
    }
}

impl<V> MerkleTrie<V> {
    /// How many chunks the trie is sent in; at least 1.
    #[must_use]
    pub fn chunks(&self) -> u32 {
        self.summary().chunks
    }
}

impl<V: Clone> MerkleTrie<V> {
    /// The leaves of one chunk, in ascending order of their keys, with the proof of the chunk.
    /// `None` past the end. All of the trie is in memory.
    #[must_use]
    pub fn chunk(&self, index: u32) -> Option<(Proof, Iter<'_, V>)> {
        let (proof, path) = self.locate(&InMemory, index).expect(NO_STUBS)?;
        Some((proof, Iter::under(self.at(&path))))
    }
}

/// A chunk that was checked: where it belongs, and what it is.
struct Checked<V> {
    subtree: Link<V>,
    /// How many chunks the whole trie has.
    chunks: u32,
}

impl Proof {
    /// One level further down: this way, beside the other children.
    pub(super) fn descend<V>(&mut self, way: u8, branch: &Branch<V>) {
        let others = branch.children().filter(|(n, _)| *n != way);
        let siblings = others.map(|(n, sibling)| (n, sibling.summary())).collect();
        self.0.push(Step { nibble: way, siblings });
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Where the chunk's subtree is.
    pub(super) fn path(&self) -> Path {
        self.0.iter().fold(Path::default(), |path, step| path.child(step.nibble))
    }

    fn is_bounded(&self) -> bool {
        self.0.len() <= DEPTH_MAX && self.0.iter().all(|step| step.siblings.len() < WAYS)
    }

    /// Checks that exactly these leaves are chunk `index` of the trie with this digest.
    fn check<V: Clone>(
        &self,
        root: &Digest,
        index: u32,
        leaves: impl IntoIterator<Item = (Digest, Leaf<V>)>,
    ) -> Option<Checked<V>> {
        if !self.is_bounded() {
            return None;
        }
        let depth = self.0.len();
        let mut subtree = None;
        let mut last = None;
        for (key, leaf) in leaves {
            let below = (0..).zip(&self.0).all(|(n, s)| nibble(&key, n) == usize::from(s.nibble));
            // The order is fixed, so that there is one right chunk and every other one is wrong.
            if !below || last.is_some_and(|last| last >= key) {
                return None;
            }
            last = Some(key);
            insert(&mut subtree, &InMemory, depth, key, leaf).expect(NO_STUBS);
        }
        let whole = |node: &Arc<Node<V>>| {
            node.summary().weight <= CHUNK_WEIGHT_MAX || matches!(**node, Node::Leaf(_))
        };
        if subtree.as_ref().is_some_and(|node| !whole(node)) {
            return None;
        }
        let chunks = self.check_summary(root, index, subtree.as_ref().map(|n| n.summary()))?;
        Some(Checked { subtree, chunks })
    }

    /// Checks that what has this summary, or nothing, is chunk `index` of the trie with this
    /// digest. Answers how many chunks there are.
    fn check_summary(&self, root: &Digest, index: u32, subtree: Option<Summary>) -> Option<u32> {
        let mut summary = match subtree {
            None if !self.0.is_empty() => return None,
            None => Summary::empty(),
            Some(summary) => summary,
        };
        let mut before = 0u32;
        for step in self.0.iter().rev() {
            before = before.checked_add(step.chunks_before()?)?;
            summary = step.over(summary)?;
        }
        (summary.digest == *root && before == index).then_some(summary.chunks)
    }
}

/// A trie being put together from its chunks, in any order, each checked against the digest.
#[derive(Clone, Debug)]
pub struct Assembly<V = ()> {
    root: Digest,
    trie: MerkleTrie<V>,
    /// How many there are, once a chunk has shown it.
    chunks: Option<u32>,
    held: BTreeSet<u32>,
    /// All below this one are held.
    lowest: u32,
}

impl<V: Clone> Assembly<V> {
    /// Starts on the trie with this digest.
    #[must_use]
    pub fn new(root: Digest) -> Self {
        Self { root, trie: MerkleTrie::new(), chunks: None, held: BTreeSet::new(), lowest: 0 }
    }

    /// Checks that exactly these leaves, in ascending order of their keys, are chunk `index`, and
    /// keeps them. The answer is whether they are new.
    ///
    /// # Errors
    /// They are not that chunk of the trie with this digest.
    pub fn accept(
        &mut self,
        index: u32,
        proof: &Proof,
        leaves: impl IntoIterator<Item = (Digest, Leaf<V>)>,
    ) -> Result<bool, BadChunk> {
        let Some(subtree) = self.check_new(index, proof, leaves)? else { return Ok(false) };
        if let Some(node) = subtree {
            self.trie.len += Iter::under(Some(&node)).count();
            graft(&mut self.trie.root, &proof.0, node);
        }
        Ok(true)
    }

    /// The subtree that a chunk comes to, if it is a new one.
    pub(super) fn check_new(
        &mut self,
        index: u32,
        proof: &Proof,
        leaves: impl IntoIterator<Item = (Digest, Leaf<V>)>,
    ) -> Result<Option<Link<V>>, BadChunk> {
        let Checked { subtree, chunks } = proof.check(&self.root, index, leaves).ok_or(BadChunk)?;
        Ok(self.note(index, chunks).then_some(subtree))
    }

    /// Notes a chunk of which only the summary is known.
    pub(super) fn check_summary(
        &mut self,
        index: u32,
        proof: &Proof,
        subtree: Option<Summary>,
    ) -> Result<(), BadChunk> {
        let is_new = proof.is_bounded() && !self.held.contains(&index);
        let chunks = is_new.then(|| proof.check_summary(&self.root, index, subtree)).flatten();
        self.note(index, chunks.ok_or(BadChunk)?);
        Ok(())
    }

    fn note(&mut self, index: u32, chunks: u32) -> bool {
        self.chunks = Some(chunks);
        let is_new = self.held.insert(index);
        while self.held.contains(&self.lowest) {
            self.lowest += 1;
        }
        is_new
    }

    /// The lowest chunk still missing; `None` when the trie is whole.
    #[must_use]
    pub fn missing(&self) -> Option<u32> {
        self.missing_from(0)
    }

    /// The lowest chunk still missing among those from `first` on, as far as it is known that they
    /// exist.
    #[must_use]
    pub fn missing_from(&self, first: u32) -> Option<u32> {
        let chunks = self.chunks.unwrap_or(1);
        (first.max(self.lowest)..chunks).find(|index| !self.held.contains(index))
    }

    /// How many chunks there are, once one has shown it.
    #[must_use]
    pub fn chunks(&self) -> Option<u32> {
        self.chunks
    }

    /// The trie, if it is whole.
    #[must_use]
    pub fn finish(self) -> Option<MerkleTrie<V>> {
        self.missing().is_none().then_some(self.trie)
    }

    pub(super) fn trie(&self) -> &MerkleTrie<V> {
        &self.trie
    }

    pub(super) fn trie_mut(&mut self) -> &mut MerkleTrie<V> {
        &mut self.trie
    }
}

/// Hangs a subtree where the proof says. The branches above it are those of the whole trie, since
/// a chunk that is still missing hangs below them as well.
pub(super) fn graft<V: Clone>(link: &mut Link<V>, path: &[Step], subtree: Arc<Node<V>>) {
    let Some((step, rest)) = path.split_first() else {
        *link = Some(subtree);
        return;
    };
    let node = link.get_or_insert_with(|| Arc::new(Node::Branch(Branch::default())));
    // A proven path and a proven leaf at its top exclude each other: both are under one digest.
    if let Node::Branch(branch) = Arc::make_mut(node) {
        graft(branch.child_mut(usize::from(step.nibble)), rest, subtree);
    }
}
