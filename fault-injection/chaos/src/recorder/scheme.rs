//! Signatures that were found good once are not computed again.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use elea_protocol::id::Digest;
use elea_protocol::signature::{PublicKey, Scheme, Signature};

/// So many are remembered.
const KEPT: usize = 1 << 16;

type Good = (PublicKey, Digest, Signature);

/// A scheme that remembers which signatures were good.
pub struct Remembering {
    inner: Arc<dyn Scheme>,
    good: Mutex<(HashSet<Good>, VecDeque<Good>)>,
}

impl Remembering {
    /// Remembers for this scheme.
    #[must_use]
    pub fn new(inner: Arc<dyn Scheme>) -> Self {
        Self { inner, good: Mutex::default() }
    }
}

impl Scheme for Remembering {
    fn verify(&self, key: &PublicKey, digest: &Digest, signature: &Signature) -> bool {
        let this = (*key, *digest, *signature);
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if good.0.contains(&this) {
            return true;
        }
        if !self.inner.verify(key, digest, signature) {
            return false;
        }
        good.0.insert(this);
        good.1.push_back(this);
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
