//! A memory of signatures that were found good.
//!
//! The same signature comes often: a request from its client and again from the backup that passes
//! it on and in the slot that somebody fetched; a vote alone and again in a certificate. Only
//! good ones are remembered, each under everything it depends on, so that an answer from memory is the
//! answer a check would give.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use elea_protocol::signature::{Claim, PublicKey, Scheme};

use crate::counters::{Counter, Counters};

/// Verifying threads rarely meet at one of so many locks.
const SHARDS: usize = 16;

/// Two generations: when the young one is full it becomes the old one, and the old one is
/// forgotten. What is asked for again is young again.
#[derive(Default)]
struct Shard {
    young: HashSet<Claim>,
    old: HashSet<Claim>,
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

    fn shard(&self, claim: &Claim) -> MutexGuard<'_, Shard> {
        // The digest is a hash of what was signed: its bytes spread by themselves.
        let shard = &self.shards[usize::from(claim.digest.0[0]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_known(&self, claim: &Claim) -> bool {
        self.shard(claim).recall(claim, self.generation)
    }

    fn remember(&self, claim: &Claim) {
        self.shard(claim).remember(*claim, self.generation);
    }
}

impl Shard {
    fn recall(&mut self, claim: &Claim, generation: usize) -> bool {
        if self.young.contains(claim) {
            return true;
        }
        let is_old = self.old.contains(claim);
        if is_old {
            self.remember(*claim, generation);
        }
        is_old
    }

    fn remember(&mut self, claim: Claim, generation: usize) {
        if self.young.len() >= generation {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(claim);
    }
}

impl Scheme for VerifiedCache {
    fn verify(&self, claim: &Claim) -> bool {
        self.verify_all(&[*claim]) == [true]
    }

    fn verify_all(&self, claims: &[Claim]) -> Vec<bool> {
        let known: Vec<bool> = claims.iter().map(|claim| self.is_known(claim)).collect();
        let unknown = claims.iter().zip(&known).filter(|(_, is_known)| !**is_known);
        // What many requests were signed with is the claim of each of them.
        let unknown: Vec<Claim> =
            unknown.map(|(claim, _)| *claim).collect::<BTreeSet<_>>().into_iter().collect();
        let (new, all) = (unknown.len() as u64, claims.len() as u64);
        self.counters.add(Counter::SignaturesKnown, all - new);
        if unknown.is_empty() {
            return known;
        }
        self.counters.add(Counter::SignaturesChecked, new);
        self.counters.count(Counter::SignatureChecks);
        // No lock is held meanwhile: that takes a thousand times longer.
        let verdicts = self.scheme.verify_all(&unknown);
        let found: BTreeMap<Claim, bool> = unknown.into_iter().zip(verdicts).collect();
        found.iter().filter(|(_, is_good)| **is_good).for_each(|(claim, _)| self.remember(claim));
        let verdict =
            |(claim, is_known): (&Claim, bool)| is_known || found.get(claim) == Some(&true);
        claims.iter().zip(known).map(verdict).collect()
    }

    fn is_sound(&self, key: &PublicKey) -> bool {
        self.scheme.is_sound(key)
    }
}

#[cfg(test)]
mod tests {
    use elea_protocol::id::Digest;
    use elea_protocol::signature::{Ed25519, SecretKey, Signer};

    use super::*;

    #[test]
    fn only_good_signatures_are_remembered_and_each_only_as_it_was() {
        let counters = Arc::new(Counters::default());
        let cache = VerifiedCache::new(Arc::new(Ed25519::default()), 64, Arc::clone(&counters));
        let (key, other) = (SecretKey::from_bytes(&[1; 32]), SecretKey::from_bytes(&[2; 32]));
        let digest = Digest([7; 32]);
        let good = Claim { key: key.public_key(), digest, signature: key.sign(&digest) };
        let mut bad = [good; 3];
        bad[0].signature.0[3] ^= 1;
        bad[1].key = other.public_key();
        bad[2].digest = Digest([8; 32]);
        for _ in 0..3 {
            assert!(cache.verify(&good));
            assert!(bad.iter().all(|bad| !cache.verify(bad)));
        }
        assert_eq!(counters.get(Counter::SignaturesKnown), 2);
        assert_eq!(counters.get(Counter::SignaturesChecked), 10);
    }

    #[test]
    fn of_many_only_those_that_are_new_are_checked_and_each_has_its_own_verdict() {
        let counters = Arc::new(Counters::default());
        let cache = VerifiedCache::new(Arc::new(Ed25519::default()), 1024, Arc::clone(&counters));
        let key = SecretKey::from_bytes(&[1; 32]);
        let claim = |byte| {
            let digest = Digest([byte; 32]);
            Claim { key: key.public_key(), digest, signature: key.sign(&digest) }
        };
        let mut all: Vec<Claim> = (0..20).map(claim).collect();
        assert!(cache.verify(&all[4]) && cache.verify(&all[9]));
        all[7].digest = Digest([99; 32]);
        let right: Vec<bool> = (0..20).map(|index| index != 7).collect();
        assert_eq!(cache.verify_all(&all), right);
        let checked = || counters.get(Counter::SignaturesChecked);
        assert_eq!((checked(), counters.get(Counter::SignaturesKnown)), (20, 2));
        assert_eq!(cache.verify_all(&all), right);
        assert_eq!(checked(), 21, "the false one again");
    }

    #[test]
    fn what_is_claimed_many_times_at_once_is_checked_once() {
        let counters = Arc::new(Counters::default());
        let cache = VerifiedCache::new(Arc::new(Ed25519::default()), 1024, Arc::clone(&counters));
        let key = SecretKey::from_bytes(&[1; 32]);
        let digest = Digest([7; 32]);
        let good = Claim { key: key.public_key(), digest, signature: key.sign(&digest) };
        // Of the same signature, over something else.
        let bad = Claim { digest: Digest([8; 32]), ..good };
        let right = vec![true, false, true, true, false];
        assert_eq!(cache.verify_all(&[good, bad, good, good, bad]), right);
        assert_eq!(counters.get(Counter::SignaturesChecked), 2);
        assert_eq!(cache.verify_all(&[good, bad, good, good, bad]), right);
        assert_eq!(counters.get(Counter::SignaturesChecked), 3, "the false one again, once");
    }

    #[test]
    fn the_memory_is_bounded() {
        let counters = Arc::new(Counters::default());
        let cache = VerifiedCache::new(Arc::new(Ed25519::default()), 2 * SHARDS * 4, counters);
        let key = SecretKey::from_bytes(&[1; 32]);
        for n in 0..200u64 {
            let mut digest = Digest([0; 32]);
            digest.0[8..16].copy_from_slice(&n.to_le_bytes());
            let claim = Claim { key: key.public_key(), digest, signature: key.sign(&digest) };
            assert!(cache.verify(&claim));
        }
        let shard = cache.shards[0].lock().expect("no panic");
        assert!(shard.young.len() <= 4 && shard.old.len() <= 4);
    }
}
