//! Keys and signatures: how one is made, and checked. What that lets in is for [`crate::seal`] to say.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::de::{self, SeqAccess};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{ClientId, Digest, ReplicaId, hex};

/// An Ed25519 public key, as it stands in the cluster file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key:{}", hex(&self.0[..4]))
    }
}

impl From<ClientId> for PublicKey {
    fn from(client: ClientId) -> Self {
        Self(client.0)
    }
}

impl From<PublicKey> for ClientId {
    fn from(key: PublicKey) -> Self {
        Self(key.0)
    }
}

/// 64 bytes over a signing digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sig:{}", hex(&self.0[..4]))
    }
}

// serde knows arrays up to 32 only.
impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        for byte in &self.0 {
            tuple.serialize_element(byte)?;
        }
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Signature;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 bytes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Signature, A::Error> {
                let mut bytes = [0; 64];
                for (index, byte) in bytes.iter_mut().enumerate() {
                    *byte = seq
                        .next_element()?
                        .ok_or_else(|| de::Error::invalid_length(index, &self))?;
                }
                Ok(Signature(bytes))
            }
        }
        deserializer.deserialize_tuple(64, Visitor)
    }
}

/// Who can sign: a key pair.
pub trait Signer: Send + Sync {
    /// The public half.
    fn public_key(&self) -> PublicKey;

    /// Signs a digest made by [`Canonical::signing_digest`](crate::codec::Canonical::signing_digest).
    fn sign(&self, digest: &Digest) -> Signature;
}

/// How signatures are checked. Shipped code knows [`Ed25519`] only; the simulator has a cheaper
/// one that its villains cannot forge.
pub trait Scheme: Send + Sync {
    /// Whether `signature` is by `key` over `digest`.
    fn verify(&self, key: &PublicKey, digest: &Digest, signature: &Signature) -> bool;

    /// Whether a key may stand in a cluster at all.
    fn is_sound(&self, key: &PublicKey) -> bool;
}

/// Strict Ed25519: malleable signatures and small-order keys are refused (RFC 8032, and
/// "Taming the many EdDSAs", Chalkias et al. 2020). Batch verification is never used, since it can
/// answer differently on two replicas for one signature.
///
/// Keys are parsed once: to find the point of a key takes a tenth of a check.
#[derive(Debug, Default)]
pub struct Ed25519 {
    parsed: RwLock<BTreeMap<PublicKey, VerifyingKey>>,
}

impl Ed25519 {
    /// Keys remembered; with more, all are forgotten.
    const PARSED_MAX: usize = 4096;

    fn parse(&self, key: &PublicKey) -> Option<VerifyingKey> {
        let known = self.parsed.read().unwrap_or_else(PoisonError::into_inner).get(key).copied();
        if known.is_some() {
            return known;
        }
        let parsed = VerifyingKey::from_bytes(&key.0).ok()?;
        let mut keys = self.parsed.write().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= Self::PARSED_MAX {
            keys.clear();
        }
        keys.insert(*key, parsed);
        Some(parsed)
    }
}

impl Scheme for Ed25519 {
    fn verify(&self, key: &PublicKey, digest: &Digest, signature: &Signature) -> bool {
        self.parse(key).is_some_and(|key| {
            let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
            key.verify_strict(&digest.0, &signature).is_ok()
        })
    }

    fn is_sound(&self, key: &PublicKey) -> bool {
        self.parse(key).is_some_and(|key| !key.is_weak())
    }
}

/// An Ed25519 key pair.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key pair of these 32 secret bytes, which must come from a good source of randomness.
    #[must_use]
    pub fn from_bytes(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// The 32 secret bytes, for the key file.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({:?})", self.public_key())
    }
}

impl Signer for SecretKey {
    fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    fn sign(&self, digest: &Digest) -> Signature {
        Signature(self.0.sign(&digest.0).to_bytes())
    }
}

/// A statement with the replica that made it and its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed<T> {
    /// What is said.
    pub body: T,
    /// Who says so.
    pub by: ReplicaId,
    /// Over [`Canonical::signing_digest`](crate::codec::Canonical::signing_digest) of the body.
    pub signature: Signature,
}
