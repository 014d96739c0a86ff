//! What is not let in: the wrong signer, the wrong cluster, weak keys, broken bounds.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::codec::{Canonical, decode, encode};
use elea_protocol::evidence::Evidence;
use elea_protocol::id::{ClientId, Digest, ReplicaId, RequestNumber, SessionId, Slot, View};
use elea_protocol::membership::{BadMembership, Membership};
use elea_protocol::message::{
    BATCH_REQUESTS_MAX, Commit, CommitCertificate, FETCH_DIGESTS_MAX, Fetch, HelloBody, Level,
    Message, NonDeterminism, OPERATIONS_MAX, Order, OrderHeader, Origin, Position,
    REQUEST_BYTES_MAX, Reply, ReplyKind, Request, Requests, Results, SLOTS_MAX, SignedRequest,
    SlotEntry, Slots, Status, ToReplica, Wanted, batch_digest,
};
use elea_protocol::receipt::{BadReceipt, Proven, Receipt};
use elea_protocol::seal::{
    Ed25519, PublicKey, Rejection, SecretKey, Signature, Signer, sign, sign_hello, sign_replies,
};
use proptest::prelude::*;

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes(&[n; 32])
}

fn client_id(n: u8) -> ClientId {
    key(n).public_key().into()
}

fn keys() -> Vec<PublicKey> {
    (1..=4).map(|n| key(n).public_key()).collect()
}

/// Four replicas with keys 1 to 4; client 9 may speak.
fn cluster(name: &str) -> Membership {
    let clients = Some([client_id(9)].into());
    Membership::new(name, 1, keys(), clients, Arc::new(Ed25519::default()))
        .expect("four sound keys")
}

fn request(operations: Vec<Bytes>) -> Request {
    Request {
        client: client_id(9),
        session: SessionId(7),
        number: RequestNumber(1),
        floor: SessionId(7),
        level: Level::Weak,
        want_final: false,
        operations,
    }
}

fn signed(body: Request) -> Arc<SignedRequest> {
    SignedRequest::sign(&key(9), cluster("here").genesis(), body)
}

fn commit(slot: u64) -> Commit {
    Commit { view: View(0), slot: Slot(slot), hash: Digest([1; 32]) }
}

fn malformed(message: Message) -> bool {
    matches!(cluster("here").open_message(message), Err(Rejection::Malformed(_)))
}

#[test]
fn a_request_must_be_signed_by_a_client_of_this_cluster() {
    let here = cluster("here");
    let body = request(vec![Bytes::from_static(b"x")]);
    assert!(here.open_request(signed(body.clone())).is_ok());
    let elsewhere = SignedRequest::sign(&key(9), cluster("elsewhere").genesis(), body.clone());
    assert_eq!(here.open_request(elsewhere), Err(Rejection::BadSignature));
    let by_another = SignedRequest::sign(&key(8), here.genesis(), body.clone());
    assert_eq!(here.open_request(by_another), Err(Rejection::BadSignature));
    let unlisted = Request { client: client_id(8), ..body.clone() };
    let unlisted = SignedRequest::sign(&key(8), here.genesis(), unlisted);
    assert_eq!(here.open_request(unlisted), Err(Rejection::UnknownSigner));
    let changed = Request { level: Level::Strong, ..body.clone() };
    let signature = *signed(body).signature();
    let changed = Arc::new(SignedRequest::from_parts(changed, signature));
    assert_eq!(here.open_request(changed), Err(Rejection::BadSignature));
}

#[test]
fn a_weak_key_is_refused_wherever_a_key_is_loaded() {
    // The neutral element: under it any signature of a certain form verifies for any message.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut replicas = keys();
    replicas[2] = PublicKey(neutral);
    let refused = Membership::new("here", 1, replicas, None, Arc::new(Ed25519::default())).err();
    assert_eq!(refused, Some(BadMembership::WeakReplicaKey(ReplicaId(2))));
    let weak = ClientId(neutral);
    let refused =
        Membership::new("here", 1, keys(), Some([weak].into()), Arc::new(Ed25519::default())).err();
    assert_eq!(refused, Some(BadMembership::WeakClientKey(weak)));
    let open = Membership::new("here", 1, keys(), None, Arc::new(Ed25519::default()))
        .expect("four sound keys");
    let body = Request { client: weak, ..request(vec![Bytes::from_static(b"x")]) };
    let mut forged = [0; 64];
    forged[0] = 1;
    let forged = Arc::new(SignedRequest::from_parts(body, Signature(forged)));
    assert_eq!(open.open_request(forged), Err(Rejection::WeakKey));
    let body = HelloBody { origin: Origin::Client(weak), to: ReplicaId(0), nonce: [5; 32] };
    let hello = sign_hello(&key(9), open.genesis(), body);
    assert_eq!(open.open_hello(hello, ReplicaId(0), &[5; 32]), Err(Rejection::WeakKey));
}

#[test]
fn memberships_that_cannot_be_are_refused() {
    let new = |name: &str, f, keys| {
        Membership::new(name, f, keys, None, Arc::new(Ed25519::default())).err()
    };
    assert_eq!(new("", 1, keys()), Some(BadMembership::Name(0)));
    assert_eq!(new(&"x".repeat(129), 1, keys()), Some(BadMembership::Name(129)));
    assert!(matches!(new("here", 2, keys()), Some(BadMembership::Size(_))));
    assert!(matches!(new("here", 0, vec![]), Some(BadMembership::Size(_))));
    let mut shared = keys();
    shared[3] = shared[1];
    let refused = new("here", 1, shared);
    assert_eq!(refused, Some(BadMembership::SharedKey(ReplicaId(1), ReplicaId(3))));
}

#[test]
fn the_bounds_of_a_request_hold_at_their_edges() {
    let here = cluster("here");
    let opens = |body: Request| here.open_request(signed(body)).is_ok();
    let operation = Bytes::from_static(b"x");
    assert!(!opens(request(vec![])));
    assert!(opens(request(vec![operation.clone(); OPERATIONS_MAX])));
    assert!(!opens(request(vec![operation.clone(); OPERATIONS_MAX + 1])));
    assert!(opens(request(vec![Bytes::from(vec![0; REQUEST_BYTES_MAX])])));
    assert!(!opens(request(vec![Bytes::from(vec![0; REQUEST_BYTES_MAX + 1])])));
    let good = request(vec![operation]);
    assert!(!opens(Request { number: RequestNumber(0), ..good.clone() }));
    assert!(opens(Request { number: RequestNumber(u64::MAX), ..good.clone() }));
    assert!(!opens(Request { floor: SessionId(8), ..good }));
}

#[test]
fn a_statement_must_be_by_the_member_it_names() {
    let here = cluster("here");
    let good = sign(&key(2), here.genesis(), ReplicaId(1), commit(3)).into_inner();
    assert!(here.open_message(Message::Commit(good.clone())).is_ok());
    for (by, rejection) in [(0, Rejection::BadSignature), (4, Rejection::UnknownSigner)] {
        let mut other = good.clone();
        other.by = ReplicaId(by);
        assert_eq!(here.open_message(Message::Commit(other)), Err(rejection));
    }
    let elsewhere = cluster("elsewhere");
    assert!(elsewhere.open_message(Message::Commit(good.clone())).is_err());
    // A vote for a prefix is no statement of another kind about the same fields.
    let header = OrderHeader {
        view: View(0),
        slot: Slot(3),
        hash: Digest([1; 32]),
        batch: Digest::default(),
    };
    assert_ne!(header.signing_digest(here.genesis()), good.body.signing_digest(here.genesis()));
}

#[test]
fn a_certificate_needs_a_strong_quorum_of_good_votes() {
    let here = cluster("here");
    let certificate = |signers: &[u8]| {
        let vote = |n: &u8| {
            let signed = sign(&key(n + 1), here.genesis(), ReplicaId(*n), commit(3)).into_inner();
            (ReplicaId(*n), signed.signature)
        };
        CommitCertificate { commit: commit(3), votes: signers.iter().map(vote).collect() }
    };
    assert!(here.open_certificate(certificate(&[0, 1, 3])).is_ok());
    assert!(here.open_certificate(certificate(&[0, 1, 2, 3])).is_ok());
    assert!(matches!(here.open_certificate(certificate(&[0, 1])), Err(Rejection::Malformed(_))));
    let mut forged = certificate(&[0, 1, 3]);
    forged.commit.slot = Slot(4);
    assert_eq!(here.open_certificate(forged), Err(Rejection::BadSignature));
    let mut stranger = certificate(&[0, 1]);
    stranger.votes.insert(ReplicaId(9), Signature([0; 64]));
    assert!(here.open_certificate(stranger).is_err());
    let nobody = CommitCertificate { commit: commit(3), votes: BTreeMap::new() };
    assert!(here.open_certificate(nobody).is_err());
}

#[test]
fn broken_bounds_of_messages_between_replicas_are_refused() {
    let here = cluster("here");
    let by_r0 = |order: Order| {
        Message::Order(sign(&key(1), here.genesis(), ReplicaId(0), order).into_inner())
    };
    let order = |slot, count: usize| {
        let requests = vec![Digest([3; 32]); count];
        let choices = NonDeterminism::default();
        let batch = batch_digest(&choices, &requests);
        let header = OrderHeader { view: View(0), slot: Slot(slot), hash: Digest([1; 32]), batch };
        Order { header, choices, requests }
    };
    assert!(here.open_message(by_r0(order(1, 1))).is_ok());
    assert!(here.open_message(by_r0(order(1, BATCH_REQUESTS_MAX))).is_ok());
    assert!(malformed(by_r0(order(1, BATCH_REQUESTS_MAX + 1))));
    assert!(malformed(by_r0(order(0, 1))));
    assert!(malformed(by_r0(order(1, 0))));
    let mut other_choices = order(1, 1);
    other_choices.choices.seed = [1; 16];
    assert!(malformed(by_r0(other_choices)));

    let status = |stable, lock| {
        let head = Position { slot: Slot(5), hash: Digest([1; 32]) };
        let body = Status { entered: View(0), head, lock, stable: Slot(stable), stamp: 1 };
        Message::Status(sign(&key(1), here.genesis(), ReplicaId(0), body).into_inner())
    };
    assert!(here.open_message(status(5, None)).is_ok());
    assert!(malformed(status(6, None)));
    let at = Position { slot: Slot(5), hash: Digest([1; 32]) };
    assert!(malformed(status(5, Some((View(1), at)))));

    let fetch = |wanted| {
        let body = Fetch { wanted, stamp: 1 };
        Message::Fetch(sign(&key(1), here.genesis(), ReplicaId(0), body).into_inner())
    };
    let digests = |count| Wanted::Requests { slot: Slot(1), digests: vec![Digest([3; 32]); count] };
    assert!(here.open_message(fetch(digests(FETCH_DIGESTS_MAX))).is_ok());
    assert!(malformed(fetch(digests(FETCH_DIGESTS_MAX + 1))));
    assert!(malformed(fetch(digests(0))));
    assert!(malformed(fetch(Wanted::Slots { from: Slot(0) })));
    assert!(malformed(fetch(Wanted::Requests { slot: Slot(0), digests: vec![Digest([3; 32])] })));

    let one = signed(request(vec![Bytes::from_static(b"x")]));
    assert!(malformed(Message::Requests(Requests(vec![]))));
    assert!(malformed(Message::Requests(Requests(vec![one.clone(); FETCH_DIGESTS_MAX + 1]))));
    let large = signed(request(vec![Bytes::from(vec![0; REQUEST_BYTES_MAX])]));
    assert!(here.open_message(Message::Requests(Requests(vec![large.clone()]))).is_ok());
    assert!(malformed(Message::Requests(Requests(vec![large; 3]))));
    let entry = |requests| SlotEntry { choices: NonDeterminism::default(), requests, order: None };
    let slots = |from, entries| Message::Slots(Slots { from, entries, certificate: None });
    assert!(here.open_message(slots(Slot(1), vec![entry(vec![one.clone()])])).is_ok());
    assert!(malformed(slots(Slot(0), vec![entry(vec![one.clone()])])));
    assert!(malformed(slots(Slot(1), vec![])));
    assert!(malformed(slots(Slot(1), vec![entry(vec![])])));
    assert!(malformed(slots(Slot(1), vec![entry(vec![one]); SLOTS_MAX + 1])));
}

#[test]
fn evidence_needs_two_good_signatures_and_a_contradiction() {
    let here = cluster("here");
    let vote = |hash, by: u8| {
        let body = Commit { hash: Digest([hash; 32]), ..commit(3) };
        sign(&key(by + 1), here.genesis(), ReplicaId(by), body).into_inner()
    };
    assert!(here.open_evidence(Evidence::Commits(vote(1, 2), vote(2, 2))).is_ok());
    assert!(here.open_evidence(Evidence::Commits(vote(1, 2), vote(1, 2))).is_err());
    assert!(here.open_evidence(Evidence::Commits(vote(1, 2), vote(2, 1))).is_err());
    let mut forged = vote(2, 2);
    forged.signature = vote(1, 2).signature;
    assert!(here.open_evidence(Evidence::Commits(vote(1, 2), forged)).is_err());
}

fn receipt(kind: ReplyKind, voters: &[u8]) -> Receipt {
    let here = cluster("here");
    let reply = Reply {
        kind,
        view: View(0),
        slot: Slot(3),
        hash: Digest([1; 32]),
        name: request(vec![]).name(),
        request: Digest([2; 32]),
        index: 0,
        results: Results::Full(vec![Bytes::from_static(b"result")]),
    };
    let other = Reply { index: 5, ..reply.clone() };
    let vote = |n: &u8| {
        let replies = vec![other.clone(), reply.clone()];
        let signed = sign_replies(&key(n + 1), here.genesis(), ReplicaId(*n), replies);
        signed.into_iter().next_back().expect("two replies").vote
    };
    Receipt { genesis: *here.genesis(), votes: voters.iter().map(vote).collect(), reply }
}

#[test]
fn a_receipt_proves_what_its_votes_say_and_no_more() {
    let here = cluster("here");
    let verify = |kind, voters: &[u8]| receipt(kind, voters).verify(&here);
    assert_eq!(verify(ReplyKind::Speculative, &[0, 2]), Ok(Proven::Executed));
    assert_eq!(verify(ReplyKind::Speculative, &[0, 1, 2, 3]), Ok(Proven::Executed));
    assert_eq!(verify(ReplyKind::Committed, &[0, 2]), Ok(Proven::Executed));
    assert_eq!(verify(ReplyKind::Committed, &[0, 2, 3]), Ok(Proven::Final));
    assert_eq!(verify(ReplyKind::Committed, &[2]), Err(BadReceipt::TooFew(1)));
    assert_eq!(verify(ReplyKind::Speculative, &[]), Err(BadReceipt::TooFew(0)));
    assert_eq!(verify(ReplyKind::Committed, &[2, 2, 3]), Err(BadReceipt::Unordered));
    let good = receipt(ReplyKind::Committed, &[0, 1, 2]);
    assert!(matches!(good.verify(&cluster("elsewhere")), Err(BadReceipt::OtherCluster(_))));
    let promoted = Receipt {
        reply: Reply { kind: ReplyKind::Committed, ..good.reply.clone() },
        ..receipt(ReplyKind::Speculative, &[0, 1, 2])
    };
    assert!(matches!(promoted.verify(&here), Err(BadReceipt::BadVote(_, _))));
}

#[test]
fn a_receipt_with_any_bit_changed_does_not_verify() {
    let here = cluster("here");
    let good = receipt(ReplyKind::Committed, &[0, 1, 3]);
    let bytes = encode(&good).expect("a receipt is small").to_vec();
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(receipt) = decode::<Receipt>(&changed) {
            assert!(receipt.verify(&here).is_err(), "bit {bit}");
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic_and_hardly_ever_decode(
        bytes in prop::collection::vec(any::<u8>(), 0..600)
    ) {
        if let Ok(ToReplica::Peer(message)) = decode::<ToReplica>(&bytes) {
            prop_assert!(cluster("here").open_message(message).is_err());
        }
    }
}
