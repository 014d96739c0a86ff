//! The way to a node, and where the branches on it come from.

use bytes::Bytes;

use super::{Branch, NO_STUBS, Summary, nibble};
use crate::id::Digest;
use crate::rows::Unreadable;

/// What the row of a branch begins with.
pub(super) const BRANCH: u8 = b't';

/// The way from the root to a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Path(Vec<u8>);

impl Path {
    /// The first nibbles of a key.
    pub(super) fn of(key: &Digest, depth: usize) -> Self {
        Self((0..depth).map(|at| nibble(key, at) as u8).collect())
    }

    pub(super) fn depth(&self) -> usize {
        self.0.len()
    }

    pub(super) fn nibbles(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn child(&self, nibble: u8) -> Self {
        let mut path = self.clone();
        path.0.push(nibble);
        path
    }

    pub(super) fn row(&self) -> Bytes {
        let mut key = Vec::with_capacity(1 + self.0.len());
        key.push(BRANCH);
        key.extend_from_slice(&self.0);
        key.into()
    }

    /// The lowest and the highest key below it.
    pub(super) fn bounds(&self) -> (Digest, Digest) {
        let bound = |fill: u8| {
            let nibble = |at: usize| self.0.get(at).copied().unwrap_or(fill);
            Digest(std::array::from_fn(|byte| nibble(2 * byte) << 4 | nibble(2 * byte + 1)))
        };
        (bound(0), bound(15))
    }
}

/// Where the branches of stubs come from.
pub(super) trait Loader<V> {
    /// The branch at a path, which must have this summary.
    fn load(&self, path: &Path, summary: &Summary) -> Result<Branch<V>, Unreadable>;
}

/// For tries without stubs.
pub(super) struct InMemory;

impl<V> Loader<V> for InMemory {
    fn load(&self, _: &Path, _: &Summary) -> Result<Branch<V>, Unreadable> {
        Err(Unreadable(NO_STUBS.to_owned()))
    }
}
