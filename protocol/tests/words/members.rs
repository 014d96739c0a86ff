//! Four replicas, their keys, and what they sign.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::codec::{Canonical, decode, encode};
use elea_protocol::id::{ClientId, ReplicaId, RequestNumber, SessionId};
use elea_protocol::membership::Membership;
use elea_protocol::message::{
    Checkpoint, CheckpointCertificate, Commit, CommitCertificate, Level, Message, Request,
    SignedRequest, StableProof,
};
use elea_protocol::seal::sign;
use elea_protocol::signature::{Ed25519, PublicKey, SecretKey, Signature, Signed, Signer};

pub fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes(&[n; 32])
}

pub fn client_id(n: u8) -> ClientId {
    key(n).public_key().into()
}

/// Of replicas 0 to 3.
pub fn keys() -> Vec<PublicKey> {
    (1..=4).map(|n| key(n).public_key()).collect()
}

/// Four replicas with keys 1 to 4; client 9 may speak.
pub fn cluster(name: &str) -> Membership {
    let clients = Some([client_id(9)].into());
    Membership::new(name, 1, keys(), clients, Arc::new(Ed25519::default()))
        .expect("four sound keys")
}

pub fn request(operations: Vec<Bytes>) -> Request {
    Request {
        client: client_id(9),
        session: SessionId(7),
        number: RequestNumber(1),
        level: Level::Weak,
        want_final: false,
        operations,
    }
}

pub fn signed(body: Request) -> Arc<SignedRequest> {
    SignedRequest::sign(&key(9), cluster("here").genesis(), body)
}

/// Replica `by` says so. Of replicas above 3 nobody has heard.
pub fn say<T: Canonical>(in_cluster: &Membership, by: u8, body: T) -> Signed<T> {
    sign(&key(by + 1), in_cluster.genesis(), ReplicaId(by), body).into_inner()
}

pub type Votes = BTreeMap<ReplicaId, Signature>;

fn votes<T: Canonical + Copy>(in_cluster: &Membership, subject: T, voters: &[u8]) -> Votes {
    let vote = |by: &u8| (ReplicaId(*by), say(in_cluster, *by, subject).signature);
    voters.iter().map(vote).collect()
}

pub fn certificate(in_cluster: &Membership, commit: Commit, voters: &[u8]) -> CommitCertificate {
    CommitCertificate { body: commit, votes: votes(in_cluster, commit, voters) }
}

/// By replicas 0, 2 and 3.
pub fn stable_proof(in_cluster: &Membership, checkpoint: Checkpoint, cover: Commit) -> StableProof {
    let votes = votes(in_cluster, checkpoint, &[0, 2, 3]);
    StableProof {
        checkpoint: CheckpointCertificate { body: checkpoint, votes },
        cover: certificate(in_cluster, cover, &[0, 2, 3]),
    }
}

/// What can be wrong with the votes of a certificate by replicas 0, 2 and 3.
pub fn bad_votes(good: &Votes) -> [(Votes, &'static str); 3] {
    let [mut few, mut forged, mut stranger] = [good.clone(), good.clone(), good.clone()];
    few.pop_first();
    forged.insert(ReplicaId(2), good[&ReplicaId(0)]);
    stranger.insert(ReplicaId(4), good[&ReplicaId(0)]);
    [(few, "too few votes"), (forged, BAD_SIGNATURE), (stranger, "a vote of no member")]
}

pub const BAD_SIGNATURE: &str = "the signature does not verify";
pub const UNKNOWN_SIGNER: &str = "the signer is not known to this cluster";

/// What is said against a message, `good` where nothing is. It must survive its encoding.
pub fn verdict(message: Message) -> String {
    let bytes = encode(&message).expect("it fits a frame");
    assert_eq!(decode::<Message>(&bytes).as_ref(), Ok(&message));
    match cluster("here").open_message(message) {
        Ok(_) => "good".to_owned(),
        Err(rejection) => rejection.to_string().replace("malformed: ", ""),
    }
}
