//! All quorum arithmetic, in one place.
//!
//! A *weak* quorum of `f + 1` has one correct member. Two *strong* quorums of
//! `ceil((n + f + 1) / 2)` share a correct member, also where `n > 3f + 1`. Nobody outside this
//! file compares a count with either.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::ReplicaId;

/// The largest cluster: certificates carry a signature a member, and messages are all to all.
pub const REPLICAS_MAX: u8 = 31;

/// How many replicas there are and how many of them may be Byzantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterSize {
    replicas: u8,
    faulty: u8,
}

/// Why no cluster of these numbers can exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSize {
    /// `n < 3f + 1`.
    #[error("{replicas} replicas cannot stand {faulty} faulty ones: at least {} are needed", 3 * u32::from(*faulty) + 1)]
    TooFew {
        /// The `n` asked for.
        replicas: u8,
        /// The `f` asked for.
        faulty: u8,
    },
    /// `n = 0` or `n > REPLICAS_MAX`.
    #[error("a cluster has 1 to {REPLICAS_MAX} replicas, not {0}")]
    OutOfRange(u8),
}

/// How many replicas must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Strength {
    /// `f + 1`: one of them is correct. Two weak quorums need not meet, so histories may fork.
    Weak,
    /// `ceil((n + f + 1) / 2)`: any two meet in a correct replica.
    Strong,
}

impl ClusterSize {
    /// A cluster of `replicas`, of which at most `faulty` are Byzantine.
    ///
    /// # Errors
    /// Where `n < 3f + 1`, or `n` is outside `1..=REPLICAS_MAX`.
    pub fn new(replicas: u8, faulty: u8) -> Result<Self, BadSize> {
        if replicas == 0 || replicas > REPLICAS_MAX {
            return Err(BadSize::OutOfRange(replicas));
        }
        if u32::from(replicas) < 3 * u32::from(faulty) + 1 {
            return Err(BadSize::TooFew { replicas, faulty });
        }
        Ok(Self { replicas, faulty })
    }

    /// The cluster of `replicas` that stands as many faults as it can.
    ///
    /// # Errors
    /// Where `n` is outside `1..=REPLICAS_MAX`.
    pub fn most_tolerant(replicas: u8) -> Result<Self, BadSize> {
        Self::new(replicas, replicas.saturating_sub(1) / 3)
    }

    /// `n`.
    #[must_use]
    pub fn replicas(self) -> u8 {
        self.replicas
    }

    /// `f`.
    #[must_use]
    pub fn faulty(self) -> u8 {
        self.faulty
    }

    /// How many replicas make a quorum of this strength.
    ///
    /// ```
    /// use elea_protocol::quorum::{ClusterSize, Strength};
    /// let four = ClusterSize::new(4, 1)?;
    /// assert_eq!((four.quorum(Strength::Weak), four.quorum(Strength::Strong)), (2, 3));
    /// let six = ClusterSize::new(6, 1)?;
    /// assert_eq!((six.quorum(Strength::Weak), six.quorum(Strength::Strong)), (2, 4));
    /// # Ok::<(), elea_protocol::quorum::BadSize>(())
    /// ```
    #[must_use]
    pub fn quorum(self, strength: Strength) -> usize {
        let (n, f) = (usize::from(self.replicas), usize::from(self.faulty));
        match strength {
            Strength::Weak => f + 1,
            Strength::Strong => (n + f + 2) / 2,
        }
    }

    /// Whether these replicas, distinct by construction, are a quorum of this strength.
    #[must_use]
    pub fn suffices(self, count: usize, strength: Strength) -> bool {
        count >= self.quorum(strength)
    }

    /// All members, in the order of their ids.
    pub fn members(self) -> impl Iterator<Item = ReplicaId> {
        (0..self.replicas).map(ReplicaId)
    }

    /// Whether there is such a member.
    #[must_use]
    pub fn has(self, id: ReplicaId) -> bool {
        id.0 < self.replicas
    }
}

/// One word a replica: who said what, newest word first where they say it again.
///
/// A replica counts once, however often it repeats itself.
#[derive(Clone, Debug)]
pub struct Tally<T> {
    words: BTreeMap<ReplicaId, T>,
}

impl<T> Default for Tally<T> {
    fn default() -> Self {
        Self { words: BTreeMap::new() }
    }
}

impl<T> Tally<T> {
    /// Takes the newest word of a replica and gives back the one it replaces.
    pub fn hear(&mut self, from: ReplicaId, word: T) -> Option<T> {
        self.words.insert(from, word)
    }

    /// What `from` said last.
    #[must_use]
    pub fn word(&self, from: ReplicaId) -> Option<&T> {
        self.words.get(&from)
    }

    /// Everyone heard, with their words.
    pub fn iter(&self) -> impl Iterator<Item = (ReplicaId, &T)> {
        self.words.iter().map(|(id, word)| (*id, word))
    }

    /// Those whose word passes `says`, if they are a quorum.
    pub fn quorum(
        &self,
        size: ClusterSize,
        strength: Strength,
        mut says: impl FnMut(&T) -> bool,
    ) -> Option<BTreeSet<ReplicaId>> {
        let agreed: BTreeSet<_> =
            self.iter().filter(|(_, word)| says(word)).map(|(id, _)| id).collect();
        size.suffices(agreed.len(), strength).then_some(agreed)
    }

    /// How many were heard.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether nobody was heard.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Forgets everyone.
    pub fn clear(&mut self) {
        self.words.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest `q` for which any two sets of `q` out of `n` share more than `f` members,
    /// found by counting and not by a formula.
    fn dumb_strong(n: usize, f: usize) -> usize {
        (1..=n)
            .find(|q| {
                // Two sets of q overlap least when the second takes all members that the first
                // left out.
                let left_out = n - q;
                let shared = q.saturating_sub(left_out);
                shared > f
            })
            .expect("the whole cluster meets itself")
    }

    /// The smallest set that cannot be made of faulty members only.
    fn dumb_weak(n: usize, f: usize) -> usize {
        (1..=n).find(|w| (0..=f).all(|faulty| w - w.min(&faulty) > 0)).expect("n > f")
    }

    #[test]
    fn quorums_equal_a_dumb_count_for_every_cluster() {
        let mut clusters = 0;
        for n in 1..=REPLICAS_MAX {
            for f in 0..=n {
                let Ok(size) = ClusterSize::new(n, f) else {
                    assert!(usize::from(n) < 3 * usize::from(f) + 1, "n={n} f={f} refused");
                    continue;
                };
                clusters += 1;
                let (n, f) = (usize::from(n), usize::from(f));
                let (weak, strong) = (size.quorum(Strength::Weak), size.quorum(Strength::Strong));
                assert_eq!(weak, dumb_weak(n, f), "n={n} f={f}");
                assert_eq!(strong, dumb_strong(n, f), "n={n} f={f}");
                assert!(strong <= n - f, "the correct ones alone must suffice: n={n} f={f}");
                assert!(weak <= strong);
                if n == 3 * f + 1 {
                    assert_eq!(strong, 2 * f + 1);
                }
            }
        }
        assert!(clusters > 100);
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        assert_eq!(ClusterSize::new(0, 0), Err(BadSize::OutOfRange(0)));
        assert_eq!(ClusterSize::new(32, 1), Err(BadSize::OutOfRange(32)));
        assert_eq!(ClusterSize::new(3, 1), Err(BadSize::TooFew { replicas: 3, faulty: 1 }));
        assert!(ClusterSize::new(31, 10).is_ok());
        assert!(ClusterSize::new(31, 255).is_err());
        assert_eq!(ClusterSize::most_tolerant(7).map(ClusterSize::faulty), Ok(2));
    }

    #[test]
    fn a_replica_that_repeats_itself_counts_once() {
        let size = ClusterSize::new(4, 1).expect("a valid size");
        let mut tally = Tally::default();
        for _ in 0..5 {
            tally.hear(ReplicaId(1), "a");
        }
        tally.hear(ReplicaId(2), "b");
        assert_eq!(tally.quorum(size, Strength::Weak, |word| *word == "a"), None);
        tally.hear(ReplicaId(2), "a");
        assert!(tally.quorum(size, Strength::Weak, |word| *word == "a").is_some());
        assert_eq!(tally.quorum(size, Strength::Strong, |word| *word == "a"), None);
    }
}
