//! Identities of a simulated world.
//!
//! Ed25519 costs 40 microseconds a check, and a thousand worlds make millions of checks. Most
//! worlds therefore use [`KeyedHash`]: a signature is a hash over a secret that only its owner and
//! the scheme know. A villain holds its own [`Signer`] and nothing else, so it can no more forge
//! here than with the real thing. Some worlds use the real thing anyway.

use std::collections::BTreeMap;
use std::sync::Arc;

use elea_protocol::id::{ClientId, Digest};
use elea_protocol::signature::{Claim, Ed25519, PublicKey, Scheme, SecretKey, Signature, Signer};
use sha2::{Digest as _, Sha256};

use crate::rng::Rng;

/// Signatures that are cheap to make and check, and that nobody in the world can forge.
#[derive(Default)]
pub struct KeyedHash {
    secrets: BTreeMap<PublicKey, [u8; 32]>,
}

struct KeyedSigner {
    secret: [u8; 32],
    public: PublicKey,
}

fn keyed_signature(secret: &[u8; 32], digest: &Digest) -> Signature {
    let mut hash = Sha256::new();
    hash.update(b"simulated signature");
    hash.update(secret);
    hash.update(digest.0);
    let half: [u8; 32] = hash.finalize().into();
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&half);
    signature[32..].copy_from_slice(&half.map(|byte| !byte));
    Signature(signature)
}

impl Scheme for KeyedHash {
    fn verify(&self, Claim { key, digest, signature }: &Claim) -> bool {
        self.secrets.get(key).is_some_and(|secret| keyed_signature(secret, digest) == *signature)
    }

    fn is_sound(&self, key: &PublicKey) -> bool {
        self.secrets.contains_key(key)
    }
}

impl Signer for KeyedSigner {
    fn public_key(&self) -> PublicKey {
        self.public
    }

    fn sign(&self, digest: &Digest) -> Signature {
        keyed_signature(&self.secret, digest)
    }

    fn sign_handshake(&self, _: &[u8]) -> Option<Signature> {
        None
    }
}

/// All identities of a world and the scheme that knows them.
pub struct Keyring {
    /// Of the replicas, by id.
    pub replicas: Vec<Arc<dyn Signer>>,
    /// Of the clients.
    pub clients: Vec<Arc<dyn Signer>>,
    /// How their signatures are checked.
    pub scheme: Arc<dyn Scheme>,
}

impl Keyring {
    /// Makes identities from the world's randomness.
    #[must_use]
    pub fn new(rng: &mut Rng, replicas: usize, clients: usize, real: bool) -> Self {
        let secrets: Vec<[u8; 32]> = (0..replicas + clients).map(|_| rng.bytes()).collect();
        let mut registry = KeyedHash::default();
        let mut signers: Vec<Arc<dyn Signer>> = secrets
            .into_iter()
            .map(|secret| -> Arc<dyn Signer> {
                if real {
                    return Arc::new(SecretKey::from_bytes(&secret));
                }
                let mut hash = Sha256::new();
                hash.update(b"simulated public key");
                hash.update(secret);
                let public = PublicKey(hash.finalize().into());
                registry.secrets.insert(public, secret);
                Arc::new(KeyedSigner { secret, public })
            })
            .collect();
        let clients = signers.split_off(replicas);
        let scheme: Arc<dyn Scheme> =
            if real { Arc::new(Ed25519::default()) } else { Arc::new(registry) };
        Self { replicas: signers, clients, scheme }
    }

    /// The public halves of the replicas' keys, by id.
    #[must_use]
    pub fn replica_keys(&self) -> Vec<PublicKey> {
        self.replicas.iter().map(|signer| signer.public_key()).collect()
    }

    /// The name of a client.
    #[must_use]
    pub fn client_id(&self, index: usize) -> ClientId {
        self.clients[index].public_key().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyed_hash_is_by_one_key_over_one_digest() {
        let keys = Keyring::new(&mut Rng::new(1), 2, 0, false);
        let [one, two] = [&keys.replicas[0], &keys.replicas[1]];
        let digest = Digest([9; 32]);
        let good = Claim { key: one.public_key(), digest, signature: one.sign(&digest) };
        assert!(keys.scheme.verify(&good));
        assert!(!keys.scheme.verify(&Claim { key: two.public_key(), ..good }));
        assert!(!keys.scheme.verify(&Claim { digest: Digest([8; 32]), ..good }));
        let mut bent = good;
        bent.signature.0[63] ^= 1;
        assert!(!keys.scheme.verify(&bent));
    }
}
