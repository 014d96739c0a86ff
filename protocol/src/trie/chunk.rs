//! Sending a trie in chunks: what proves one, and putting them together again.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    CHUNK_WEIGHT_MAX, DEPTH_MAX, Iter, Leaf, Link, MerkleTrie, Node, Summary, WAYS, insert, nibble,
};
use crate::application::BadChunk;
use crate::id::Digest;

/// Shows that a chunk belongs to the trie with some digest, and which of its chunks it is: what
/// stands beside the path to its subtree, from the root down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof(Vec<Step>);

/// One branch on the path: the way taken, and the other children in ascending order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Step {
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

    /// The leaves of one chunk, in ascending order of their keys, with the proof of the chunk.
    /// `None` past the end.
    #[must_use]
    pub fn chunk(&self, index: u32) -> Option<(Proof, Iter<'_, V>)> {
        let mut steps = Vec::new();
        let Some(mut node) = self.root.as_deref() else {
            return (index == 0).then(|| (Proof(steps), Iter::under(None)));
        };
        if index >= self.chunks() {
            return None;
        }
        let mut before = 0;
        while let Node::Branch(branch) = node
            && node.summary().weight > CHUNK_WEIGHT_MAX
        {
            let (way, child) = branch.children().find(|(_, child)| {
                let chunks = child.summary().chunks;
                let inside = index - before < chunks;
                before += if inside { 0 } else { chunks };
                inside
            })?;
            let siblings = branch
                .children()
                .filter(|(n, _)| *n != way)
                .map(|(n, sibling)| (n, sibling.summary()))
                .collect();
            steps.push(Step { nibble: way, siblings });
            node = child;
        }
        Some((Proof(steps), Iter::under(Some(node))))
    }
}

/// A chunk that was checked: where it belongs, and what it is.
struct Checked<V> {
    subtree: Link<V>,
    /// How many chunks the whole trie has.
    chunks: u32,
}

impl Proof {
    /// Checks that exactly these leaves are chunk `index` of the trie with this digest.
    fn check<V: Clone>(
        &self,
        root: &Digest,
        index: u32,
        leaves: impl IntoIterator<Item = (Digest, Leaf<V>)>,
    ) -> Option<Checked<V>> {
        let depth = self.0.len();
        if depth > DEPTH_MAX || self.0.iter().any(|step| step.siblings.len() >= WAYS) {
            return None;
        }
        let mut subtree = None;
        let mut last = None;
        for (key, leaf) in leaves {
            let below = (0..).zip(&self.0).all(|(n, s)| nibble(&key, n) == usize::from(s.nibble));
            // The order is fixed, so that there is one right chunk and every other one is wrong.
            if !below || last.is_some_and(|last| last >= key) {
                return None;
            }
            last = Some(key);
            insert(&mut subtree, depth, key, leaf);
        }
        let mut summary = match &subtree {
            None if depth > 0 => return None,
            None => Summary::empty(),
            Some(node) => {
                let summary = node.summary();
                let whole = summary.weight <= CHUNK_WEIGHT_MAX || matches!(**node, Node::Leaf(_));
                whole.then_some(summary)?
            }
        };
        let mut before = 0u32;
        for step in self.0.iter().rev() {
            before = before.checked_add(step.chunks_before()?)?;
            summary = step.over(summary)?;
        }
        (summary.digest == *root && before == index)
            .then_some(Checked { subtree, chunks: summary.chunks })
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
}

impl<V: Clone> Assembly<V> {
    /// Starts on the trie with this digest.
    #[must_use]
    pub fn new(root: Digest) -> Self {
        Self { root, trie: MerkleTrie::new(), chunks: None, held: BTreeSet::new() }
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
        let Checked { subtree, chunks } = proof.check(&self.root, index, leaves).ok_or(BadChunk)?;
        self.chunks = Some(chunks);
        if !self.held.insert(index) {
            return Ok(false);
        }
        if let Some(node) = subtree {
            self.trie.len += Iter::under(Some(&node)).count();
            graft(&mut self.trie.root, &proof.0, node);
        }
        Ok(true)
    }

    /// The lowest chunk still missing; `None` when the trie is whole.
    #[must_use]
    pub fn missing(&self) -> Option<u32> {
        let first_gap = (0..).zip(&self.held).find(|(n, held)| n != *held).map(|(n, _)| n);
        let lowest = first_gap.or_else(|| u32::try_from(self.held.len()).ok())?;
        self.chunks.is_none_or(|chunks| lowest < chunks).then_some(lowest)
    }

    /// The trie, if it is whole.
    #[must_use]
    pub fn finish(self) -> Option<MerkleTrie<V>> {
        self.missing().is_none().then_some(self.trie)
    }
}

/// Hangs a subtree where the proof says. The branches above it are those of the whole trie, since
/// a chunk that is still missing hangs below them as well.
fn graft<V: Clone>(link: &mut Link<V>, path: &[Step], subtree: Arc<Node<V>>) {
    let Some((step, rest)) = path.split_first() else {
        *link = Some(subtree);
        return;
    };
    let node = link.get_or_insert_with(|| Arc::new(Node::Branch(super::Branch::default())));
    // A proven path and a proven leaf at its top exclude each other: both are under one digest.
    if let Node::Branch(branch) = Arc::make_mut(node) {
        graft(branch.child_mut(usize::from(step.nibble)), rest, subtree);
    }
}
