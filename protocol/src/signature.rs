//! Keys and signatures: how one is made, and checked. What that lets in is for [`crate::seal`] to say.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use ed25519_zebra::{VerificationKey, VerificationKeyBytes, batch};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::de::{self, SeqAccess};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

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

    /// Signs what proves in a TLS handshake that one has the key (RFC 8446, section 4.4.3). `None` where that is
    /// something else, or where the key does not do such things: its connections cannot be encrypted.
    ///
    /// One key has two uses. Neither can be made to serve the other: a digest has 32 bytes, and what is signed here
    /// begins with 64 blanks.
    fn sign_handshake(&self, transcript: &[u8]) -> Option<Signature>;
}

/// Whether connections can be encrypted with a key: not where it signs nothing for a handshake.
#[must_use]
pub fn can_prove_itself(signer: &dyn Signer) -> bool {
    signer.sign_handshake(&[HANDSHAKE_PREFIX, HANDSHAKE_PREFIX].concat()).is_some()
}

/// What every message begins with that a handshake has signed.
const HANDSHAKE_PREFIX: [u8; 64] = [b' '; 64];

/// That a key has signed a digest: what somebody says who shows a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// Whose signature it is said to be.
    pub key: PublicKey,
    /// Over what.
    pub digest: Digest,
    /// The signature.
    pub signature: Signature,
}

/// How signatures are checked. Shipped code knows [`Ed25519`] only; the simulator has a cheaper
/// one that its villains cannot forge.
pub trait Scheme: Send + Sync {
    /// Whether a claim is true. It depends on the claim alone: what one replica finds, all find.
    fn verify(&self, claim: &Claim) -> bool;

    /// Whether each of these is, in their order. Exactly what [`verify`](Scheme::verify) says of each, for less.
    fn verify_all(&self, claims: &[Claim]) -> Vec<bool> {
        claims.iter().map(|claim| self.verify(claim)).collect()
    }

    /// Whether a key may stand in a cluster at all.
    fn is_sound(&self, key: &PublicKey) -> bool;
}

/// Ed25519 as ZIP 215 defines it, with keys of small order refused.
///
/// RFC 8032 leaves open what becomes of unusual points, and implementations differ ("Taming the many EdDSAs",
/// Chalkias et al. 2020); ZIP 215 says it for each bit, and such that one check for many signatures is true
/// where, but for one chance in 2<sup>128</sup>, each alone is. So nobody can make a signature that one
/// replica accepts and another does not, whichever of them checks it alone, and whichever together with others.
///
/// Keys are parsed once: to find the point of a key takes a tenth of a check.
#[derive(Debug, Default)]
pub struct Ed25519 {
    parsed: RwLock<BTreeMap<PublicKey, VerificationKey>>,
    /// So many more are checked one by one.
    one_by_one: AtomicUsize,
}

impl Ed25519 {
    /// Keys remembered; with more, all are forgotten.
    const PARSED_MAX: usize = 4096;

    /// The most that are checked at once. More would hardly be cheaper, and cost more where one is false.
    const TOGETHER_MAX: usize = 64;

    /// After false ones, so many are checked one by one. So whoever sends false ones makes checks as expensive
    /// as they are alone, and no more than a tenth beyond that.
    const AFTER_FALSE: usize = 512;

    /// `None` where it is no point of the curve, or one of small order.
    fn parse(&self, key: &PublicKey) -> Option<VerificationKey> {
        let known = self.parsed.read().unwrap_or_else(PoisonError::into_inner).get(key).copied();
        if known.is_some() {
            return known;
        }
        if VerifyingKey::from_bytes(&key.0).ok()?.is_weak() {
            return None;
        }
        let parsed = VerificationKey::try_from(key.0).ok()?;
        let mut keys = self.parsed.write().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= Self::PARSED_MAX {
            keys.clear();
        }
        keys.insert(*key, parsed);
        Some(parsed)
    }

    /// Whether all of these are true, whose keys are sound. Draws what it needs of chance from all that it checks: so
    /// nobody can prepare for what is drawn, and nothing else is needed.
    fn are_all_true(claims: &[Claim]) -> bool {
        let mut hash = Sha256::new();
        hash.update(b"elea/1/together");
        let mut batch = batch::Verifier::new();
        for Claim { key, digest, signature } in claims {
            hash.update(key.0);
            hash.update(digest.0);
            hash.update(signature.0);
            let signature = ed25519_zebra::Signature::from_bytes(&signature.0);
            batch.queue((VerificationKeyBytes::from(key.0), signature, &digest.0));
        }
        batch.verify(StdRng::from_seed(hash.finalize().into())).is_ok()
    }

    /// Whether so many may be checked together; counts down where they may not.
    fn may_be_together(&self, count: usize) -> bool {
        let less = |left: usize| (left > 0).then(|| left.saturating_sub(count));
        self.one_by_one.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err()
    }
}

impl Scheme for Ed25519 {
    fn verify(&self, claim: &Claim) -> bool {
        self.parse(&claim.key).is_some_and(|key| {
            let signature = ed25519_zebra::Signature::from_bytes(&claim.signature.0);
            key.verify(&signature, &claim.digest.0).is_ok()
        })
    }

    fn verify_all(&self, claims: &[Claim]) -> Vec<bool> {
        let mut verdicts = Vec::with_capacity(claims.len());
        for some in claims.chunks(Self::TOGETHER_MAX) {
            let together = some.len() > 1
                && self.may_be_together(some.len())
                && some.iter().all(|claim| self.is_sound(&claim.key));
            if together && Self::are_all_true(some) {
                verdicts.extend(some.iter().map(|_| true));
                continue;
            }
            let each: Vec<bool> = some.iter().map(|claim| self.verify(claim)).collect();
            if each.contains(&false) {
                self.one_by_one.store(Self::AFTER_FALSE, Ordering::Relaxed);
            }
            verdicts.extend(each);
        }
        verdicts
    }

    fn is_sound(&self, key: &PublicKey) -> bool {
        self.parse(key).is_some()
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

    fn sign_handshake(&self, transcript: &[u8]) -> Option<Signature> {
        let is_one = transcript.starts_with(&HANDSHAKE_PREFIX);
        is_one.then(|| Signature(self.0.sign(transcript).to_bytes()))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// One key signs for the protocol and for TLS: no message of one may be a message of the other.
    #[test]
    fn what_a_handshake_has_signed_is_no_digest_and_no_digest_is_that() {
        let key = SecretKey::from_bytes(&[7; 32]);
        assert!(HANDSHAKE_PREFIX.len() > size_of::<Digest>());
        assert_eq!(key.sign_handshake(&[b' '; 32]), None, "as long as a digest");
        assert_eq!(key.sign_handshake(&[b' '; 63]), None);
        assert_eq!(key.sign_handshake(&[&[b'x'][..], &[b' '; 97]].concat()), None);
        let transcript =
            [&HANDSHAKE_PREFIX[..], b"TLS 1.3, server CertificateVerify\0", &[9; 32]].concat();
        let signed = key.sign_handshake(&transcript).expect("it is one");
        let verifying = VerifyingKey::from_bytes(&key.public_key().0).expect("sound");
        let signature = ed25519_dalek::Signature::from_bytes(&signed.0);
        assert!(verifying.verify_strict(&transcript, &signature).is_ok());
    }
}
