//! A memory of signatures that were found good.
//!
//! The same signature comes often: a request from its client and again from the backup that passes
//! it on and in the slot that somebody fetched; a vote alone and again in a certificate. Only
//! good ones are remembered, each under everything it depends on, so that an answer from memory is the
//! answer a check would give.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use elea_protocol::id::Digest;
use elea_protocol::signature::{PublicKey, Scheme, Signature};

use crate::counters::{Counter, Counters};

/// Verifying threads rarely meet at one of so many locks.
const SHARDS: usize = 16;

type Known = (PublicKey, Digest, Signature);

/// Two generations: when the young one is full it becomes the old one, and the old one is
/// forgotten. What is asked for again is young again.
#[derive(Default)]
struct Shard {
    young: HashSet<Known>,
    old: HashSet<Known>,
}

/// A scheme with a memory.
pub(crate) struct VerifiedCache {
    scheme: Arc<dyn Scheme>,
    shards: Vec<Mutex<Shard>>,
    generation: usize,
    counters: Arc<Counters>,
}

impl VerifiedCache {
    /// Remembers at least half of the last `capacity` good signatures, and at most all of them.
    pub(crate) fn new(scheme: Arc<dyn Scheme>, capacity: usize, counters: Arc<Counters>) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { scheme, shards, generation: (capacity / SHARDS / 2).max(1), counters }
    }

    fn shard(&self, digest: &Digest) -> &Mutex<Shard> {
        // The digest is a hash of what was signed: its bytes spread by themselves.
        &self.shards[usize::from(digest.0[0]) % SHARDS]
    }
}

impl Shard {
    fn remember(&mut self, known: Known, generation: usize) {
        if self.young.len() >= generation {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(known);
    }
}

impl Scheme for VerifiedCache {
    fn verify(&self, key: &PublicKey, digest: &Digest, signature: &Signature) -> bool {
        let known = (*key, *digest, *signature);
        {
            let mut shard = self.shard(digest).lock().unwrap_or_else(PoisonError::into_inner);
            let is_young = shard.young.contains(&known);
            if is_young || shard.old.contains(&known) {
                if !is_young {
                    shard.remember(known, self.generation);
                }
                self.counters.count(Counter::SignaturesKnown);
                return true;
            }
        }
        // The lock is not held while the signature is checked: that takes a thousand times longer.
        self.counters.count(Counter::SignaturesChecked);
        let is_good = self.scheme.verify(key, digest, signature);
        if is_good {
            let mut shard = self.shard(digest).lock().unwrap_or_else(PoisonError::into_inner);
            shard.remember(known, self.generation);
        }
        is_good
    }

    fn is_sound(&self, key: &PublicKey) -> bool {
        self.scheme.is_sound(key)
    }
}

#[cfg(test)]
mod tests {
    use elea_protocol::signature::{Ed25519, SecretKey, Signer};

    use super::*;

    #[test]
    fn only_good_signatures_are_remembered_and_each_only_as_it_was() {
        let counters = Arc::new(Counters::default());
        let cache = VerifiedCache::new(Arc::new(Ed25519::default()), 64, Arc::clone(&counters));
        let (key, other) = (SecretKey::from_bytes(&[1; 32]), SecretKey::from_bytes(&[2; 32]));
        let digest = Digest([7; 32]);
        let good = key.sign(&digest);
        let mut bad = good;
        bad.0[3] ^= 1;
        for _ in 0..3 {
            assert!(cache.verify(&key.public_key(), &digest, &good));
            assert!(!cache.verify(&key.public_key(), &digest, &bad));
            assert!(!cache.verify(&other.public_key(), &digest, &good));
            assert!(!cache.verify(&key.public_key(), &Digest([8; 32]), &good));
        }
        assert_eq!(counters.get(Counter::SignaturesKnown), 2);
        assert_eq!(counters.get(Counter::SignaturesChecked), 10);
    }

    #[test]
    fn the_memory_is_bounded() {
        let counters = Arc::new(Counters::default());
        let cache = VerifiedCache::new(Arc::new(Ed25519::default()), 2 * SHARDS * 4, counters);
        let key = SecretKey::from_bytes(&[1; 32]);
        for n in 0..200u64 {
            let mut digest = Digest([0; 32]);
            digest.0[8..16].copy_from_slice(&n.to_le_bytes());
            assert!(cache.verify(&key.public_key(), &digest, &key.sign(&digest)));
        }
        let shard = cache.shards[0].lock().expect("no panic");
        assert!(shard.young.len() <= 4 && shard.old.len() <= 4);
    }
}
