//! A Merkle tree over the replies of one slot, or over requests of a client: one signature for all of them.
//!
//! The tree is that of RFC 6962 without its domain bytes, which our tags replace: leaves and
//! inner nodes are hashed under different tags, so neither can stand for the other. The number of
//! leaves is part of what is signed beside the root.

use serde::{Deserialize, Serialize};

use crate::codec::{Canonical, Sink};
use crate::id::Digest;
use crate::message::Malformed;

/// The most leaves of a tree: the paths of its leaves have at most 16 digests.
pub const LEAVES_MAX: u32 = 1 << 16;

struct Node<'a>(&'a Digest, &'a Digest);

impl Canonical for Node<'_> {
    const TAG: &'static str = "merkle-node";

    fn write(&self, to: &mut impl Sink) {
        to.put_digest(self.0);
        to.put_digest(self.1);
    }
}

/// All levels of a tree, from the leaves up. A node without a sibling is its own parent.
#[derive(Clone, Debug)]
pub struct Tree {
    levels: Vec<Vec<Digest>>,
}

/// Where a leaf stands in a tree, and the siblings on its way up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Path {
    /// The leaf's position, from 0.
    pub position: u32,
    /// How many leaves the tree has.
    pub leaves: u32,
    /// From the bottom; levels on which there is no sibling have none.
    pub siblings: Vec<Digest>,
}

impl Tree {
    /// The tree over these leaves, 1 to [`LEAVES_MAX`] of them.
    ///
    /// # Panics
    /// Where there are none or too many.
    #[must_use]
    pub fn new(leaves: Vec<Digest>) -> Self {
        assert!(!leaves.is_empty() && leaves.len() <= LEAVES_MAX as usize, "1 to 65536 leaves");
        let mut levels = vec![leaves];
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            let parents = level
                .chunks(2)
                .filter_map(|pair| match pair {
                    [left, right] => Some(Node(left, right).digest()),
                    // Without a sibling it goes up as it is.
                    rest => rest.first().copied(),
                })
                .collect();
            levels.push(parents);
        }
        Self { levels }
    }

    /// The digest over all leaves.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.levels.last().and_then(|level| level.first()).copied().expect("a tree has a root")
    }

    /// The path of a leaf.
    ///
    /// # Panics
    /// Where there is no such leaf.
    #[must_use]
    pub fn path(&self, position: usize) -> Path {
        let leaves = self.levels.first().map_or(0, Vec::len);
        assert!(position < leaves, "leaf {position} of {leaves}");
        let siblings = self
            .levels
            .iter()
            .enumerate()
            .filter_map(|(height, level)| level.get((position >> height) ^ 1))
            .copied()
            .collect();
        let narrow = |n: usize| u32::try_from(n).expect("at most LEAVES_MAX leaves");
        Path { position: narrow(position), leaves: narrow(leaves), siblings }
    }
}

impl Path {
    /// That of the only leaf of a tree.
    #[must_use]
    pub fn lone() -> Self {
        Self { position: 0, leaves: 1, siblings: Vec::new() }
    }

    /// The root of the tree in which `leaf` has this path.
    ///
    /// # Errors
    /// No leaf of a tree can have it.
    pub fn root(&self, leaf: Digest) -> Result<Digest, Malformed> {
        let in_tree = self.position < self.leaves && self.leaves <= LEAVES_MAX;
        Malformed::unless(in_tree, "a leaf outside its tree")?;
        let (mut position, mut width) = (self.position, self.leaves);
        let mut siblings = self.siblings.iter();
        let mut digest = leaf;
        while width > 1 {
            if position ^ 1 < width {
                let sibling = siblings.next().ok_or(Malformed("a Merkle path too short"))?;
                digest = if position & 1 == 0 {
                    Node(&digest, sibling).digest()
                } else {
                    Node(sibling, &digest).digest()
                };
            }
            position >>= 1;
            width = width.div_ceil(2);
        }
        Malformed::unless(siblings.next().is_none(), "a Merkle path too long")?;
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: u8) -> Vec<Digest> {
        (0..count).map(|n| Digest([n; 32])).collect()
    }

    #[test]
    fn every_path_of_every_small_tree_leads_to_its_root_and_no_other_does() {
        for count in 1..=33 {
            let leaves = leaves(count);
            let tree = Tree::new(leaves.clone());
            for (position, leaf) in leaves.iter().enumerate() {
                let path = tree.path(position);
                assert_eq!(path.root(*leaf), Ok(tree.root()));
                let wrong = Digest([200; 32]);
                assert_ne!(path.root(wrong), Ok(tree.root()));
                for n in 0..path.siblings.len() {
                    let mut bad = path.clone();
                    bad.siblings[n].0[7] ^= 1;
                    assert_ne!(bad.root(*leaf), Ok(tree.root()));
                }
                let longer =
                    Path { siblings: vec![wrong; path.siblings.len() + 1], ..path.clone() };
                assert!(longer.root(*leaf).is_err());
                let outside = Path { position: path.leaves, ..path };
                assert!(outside.root(*leaf).is_err());
            }
        }
    }
}
