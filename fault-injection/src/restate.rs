//! The hashes of the specification, stated a second time.
//!
//! A checker that called the core's own functions would find every mistake in them right. This is
//! written from the specification's text with nothing but SHA-256.

use elea_protocol::id::Digest;
use elea_protocol::message::{Batch, Level, NonDeterminism, Request};
use sha2::{Digest as _, Sha256};

fn tagged(tag: &str) -> Sha256 {
    let name = format!("elea/1/hash/{tag}");
    let mut hash = Sha256::new();
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name);
    hash
}

fn finish(hash: Sha256) -> Digest {
    Digest(hash.finalize().into())
}

/// The digest of a request's content.
#[must_use]
pub fn request(request: &Request) -> Digest {
    let mut hash = tagged("request");
    hash.update(request.client.0);
    hash.update(request.session.0.to_le_bytes());
    hash.update(request.number.0.to_le_bytes());
    hash.update([u8::from(request.level == Level::Strong), u8::from(request.want_final)]);
    hash.update((request.operations.len() as u64).to_le_bytes());
    for operation in &request.operations {
        hash.update((operation.len() as u64).to_le_bytes());
        hash.update(operation);
    }
    finish(hash)
}

/// `D(batch)` from the primary's choices and the requests' digests.
#[must_use]
pub fn choices_and_requests(choices: &NonDeterminism, requests: &[Digest]) -> Digest {
    let mut hash = tagged("batch");
    hash.update(choices.time.0.to_le_bytes());
    hash.update(choices.seed);
    hash.update(choices.edition.protocol.to_le_bytes());
    hash.update(choices.edition.application.to_le_bytes());
    hash.update((requests.len() as u64).to_le_bytes());
    for request in requests {
        hash.update(request.0);
    }
    finish(hash)
}

/// `D(batch)` from the requests themselves.
#[must_use]
pub fn batch(batch: &Batch) -> Digest {
    let requests: Vec<Digest> = batch.requests.iter().map(|r| request(r.body())).collect();
    choices_and_requests(&batch.choices, &requests)
}

/// `h_n` from `h_{n-1}` and `D(batch_n)`.
#[must_use]
pub fn link(previous: &Digest, batch: &Digest) -> Digest {
    let mut hash = tagged("history");
    hash.update(previous.0);
    hash.update(batch.0);
    finish(hash)
}
