//! Bytes: what travels and what is hashed.
//!
//! Two encodings with two purposes. Frames and stored records go through bincode, bounded, with
//! fixed-size integers and no trailing bytes; this is the only module that names it. What is
//! signed or hashed has canonical bytes of its own, written by hand in [`Canonical::write`], so
//! that a change of library can never change a signature.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::id::{ClientId, Digest};

/// The largest frame or record, in bytes. Every other bound on what travels lies below it.
pub const FRAME_MAX: usize = 8 << 20;

/// Bytes that are not the encoding of what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// More than [`FRAME_MAX`] bytes.
    #[error("{0} bytes are more than a frame may have ({FRAME_MAX})")]
    TooLarge(usize),
    /// They do not decode.
    #[error("malformed bytes: {0}")]
    Malformed(String),
    /// They decode, but something follows.
    #[error("{0} bytes follow the end of the message")]
    Trailing(usize),
}

fn configuration() -> impl bincode::config::Config {
    bincode::config::standard()
        .with_little_endian()
        .with_fixed_int_encoding()
        .with_limit::<FRAME_MAX>()
}

/// Encodes a message or record.
///
/// # Errors
/// The encoding has more than [`FRAME_MAX`] bytes.
pub fn encode<T: Serialize>(value: &T) -> Result<Bytes, CodecError> {
    let bytes = bincode::serde::encode_to_vec(value, configuration())
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    if bytes.len() > FRAME_MAX {
        return Err(CodecError::TooLarge(bytes.len()));
    }
    Ok(bytes.into())
}

/// Decodes what [`encode`] wrote.
///
/// # Errors
/// The bytes are too many, malformed, or followed by others.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > FRAME_MAX {
        return Err(CodecError::TooLarge(bytes.len()));
    }
    let (value, used) = bincode::serde::decode_from_slice(bytes, configuration())
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    match bytes.len() - used {
        0 => Ok(value),
        trailing => Err(CodecError::Trailing(trailing)),
    }
}

/// Where canonical bytes go: into a hash, or into a buffer to look at them.
pub trait Sink {
    /// Takes the bytes as they are.
    fn put(&mut self, bytes: &[u8]);

    /// One byte.
    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    /// Eight bytes, little-endian.
    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    /// A length, as eight bytes.
    fn put_len(&mut self, length: usize) {
        self.put_u64(u64::try_from(length).expect("a length fits 64 bits"));
    }

    /// Bytes of any length, behind their length.
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_len(bytes.len());
        self.put(bytes);
    }

    /// A digest, as it is.
    fn put_digest(&mut self, digest: &Digest) {
        self.put(&digest.0);
    }

    /// A client, as its key.
    fn put_client(&mut self, client: &ClientId) {
        self.put(&client.0);
    }
}

impl Sink for Sha256 {
    fn put(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// What can be hashed or signed: it has a domain tag of its own and exactly one byte string.
pub trait Canonical {
    /// Told apart from every other kind of thing by this; never reused, never changed.
    const TAG: &'static str;

    /// Writes the bytes. Every field is of fixed size or stands behind its length or count.
    fn write(&self, to: &mut impl Sink);

    /// The bytes alone, for test vectors.
    fn canonical_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes
    }

    /// `SHA-256("elea/1/hash/" TAG, bytes)`, the tag behind its length.
    fn digest(&self) -> Digest {
        let mut hash = begin(Self::TAG);
        self.write(&mut hash);
        Digest(hash.finalize().into())
    }

    /// What a signature covers: `SHA-256("elea/1/sign/" TAG, genesis, bytes)`.
    fn signing_digest(&self, genesis: &Digest) -> Digest {
        let mut hash = domain("elea/1/sign/", Self::TAG);
        hash.put_digest(genesis);
        self.write(&mut hash);
        Digest(hash.finalize().into())
    }
}

impl<T: Canonical> Canonical for Arc<T> {
    const TAG: &'static str = T::TAG;

    fn write(&self, to: &mut impl Sink) {
        T::write(self, to);
    }
}

/// The start of [`Canonical::digest`], for what is hashed piece by piece.
pub(crate) fn begin(tag: &str) -> Sha256 {
    domain("elea/1/hash/", tag)
}

fn domain(purpose: &str, tag: &str) -> Sha256 {
    let mut hash = Sha256::new();
    hash.put_len(purpose.len() + tag.len());
    hash.put(purpose.as_bytes());
    hash.put(tag.as_bytes());
    hash
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn trailing_truncated_and_oversized_bytes_are_refused() {
        let bytes = encode(&(7u64, vec![1u8, 2, 3])).expect("small");
        assert_eq!(decode::<(u64, Vec<u8>)>(&bytes), Ok((7, vec![1, 2, 3])));
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert_eq!(decode::<(u64, Vec<u8>)>(&longer), Err(CodecError::Trailing(1)));
        for end in 0..bytes.len() {
            assert!(decode::<(u64, Vec<u8>)>(&bytes[..end]).is_err());
        }
        assert!(matches!(decode::<u8>(&vec![0; FRAME_MAX + 1]), Err(CodecError::TooLarge(_))));
        assert!(encode(&vec![0u8; FRAME_MAX + 1]).is_err());
    }

    #[test]
    fn an_absurd_length_is_refused_without_the_memory_it_asks_for() {
        let absurd = u64::MAX.to_le_bytes();
        assert!(decode::<Vec<u64>>(&absurd).is_err());
        assert!(decode::<Bytes>(&absurd).is_err());
        assert!(decode::<Vec<Vec<u8>>>(&(FRAME_MAX as u64).to_le_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(value: (u64, Vec<Vec<u8>>, Option<[u8; 32]>)) {
            let bytes = encode(&value).expect("small");
            prop_assert_eq!(decode::<(u64, Vec<Vec<u8>>, Option<[u8; 32]>)>(&bytes), Ok(value));
        }
    }
}
