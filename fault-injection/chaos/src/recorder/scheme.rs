//! Signatures that were found good once are not computed again.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use elea_protocol::signature::{Claim, PublicKey, Scheme};

/// So many are remembered.
const KEPT: usize = 1 << 16;

/// A scheme that remembers which signatures were good.
pub struct Remembering {
    inner: Arc<dyn Scheme>,
    good: Mutex<(HashSet<Claim>, VecDeque<Claim>)>,
}

impl Remembering {
    /// Remembers for this scheme.
    #[must_use]
    pub fn new(inner: Arc<dyn Scheme>) -> Self {
        Self { inner, good: Mutex::default() }
    }
}

impl Scheme for Remembering {
    fn verify(&self, claim: &Claim) -> bool {
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if good.0.contains(claim) {
            return true;
        }
        if !self.inner.verify(claim) {
            return false;
        }
        good.0.insert(*claim);
        good.1.push_back(*claim);
        if good.1.len() > KEPT
            && let Some(oldest) = good.1.pop_front()
        {
            good.0.remove(&oldest);
        }
        true
    }

    fn is_sound(&self, key: &PublicKey) -> bool {
        self.inner.is_sound(key)
    }
}
