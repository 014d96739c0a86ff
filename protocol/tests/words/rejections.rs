//! What is not let in: the wrong signer, the wrong cluster, weak keys, broken bounds.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::codec::{Canonical, decode, encode};
use elea_protocol::id::{ClientId, Digest, ReplicaId, RequestNumber, SessionId, Slot, View};
use elea_protocol::membership::{BadMembership, Membership};
use elea_protocol::merkle;
use elea_protocol::message::{
    BATCH_REQUESTS_MAX, Branch, Checkpoint, CheckpointCertificate, Commit, CommitCertificate,
    FETCH_DIGESTS_MAX, Fetch, HelloBody, LOCATOR_MAX, Level, Linked, Message, NonDeterminism,
    OPERATIONS_MAX, Order, OrderHeader, Origin, Position, QueryReply, REQUEST_BYTES_MAX, Reply,
    ReplyKind, Request, Requests, Results, SIGNED_TOGETHER_MAX, SLOTS_MAX, SignedQueryReply,
    SignedRequest, SlotEntry, Slots, StableProof, StatePart, ToReplica, Wanted, WireVersions,
    batch_digest,
};
use elea_protocol::receipt::{BadReceipt, Proven, Receipt};
use elea_protocol::seal::{Rejection, sign_hello, sign_replies};
use elea_protocol::signature::{Ed25519, PublicKey, Signature};
use proptest::prelude::*;

use crate::members::{
    self, BAD_SIGNATURE, UNKNOWN_SIGNER, bad_votes, client_id, cluster, key, keys, request, say,
    signed, stable_proof, verdict,
};

const UNCOVERED: &str = "a commit certificate that does not cover the checkpoint";

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
    let changed = Arc::new(SignedRequest::from_parts(changed, signature, merkle::Path::lone()));
    assert_eq!(here.open_request(changed), Err(Rejection::BadSignature));
}

#[test]
fn of_requests_signed_together_each_counts_alone_and_none_for_another() {
    let here = cluster("here");
    let bodies = |count: u64| -> Vec<Request> {
        let body = |n| Request {
            session: SessionId(n / 3),
            number: RequestNumber(n % 3 + 1),
            ..request(vec![Bytes::from_static(b"x")])
        };
        (0..count).map(body).collect()
    };
    let refused = |body: &Request, signed: &SignedRequest, path: merkle::Path| {
        let other = SignedRequest::from_parts(body.clone(), *signed.signature(), path);
        here.open_request(Arc::new(other)).expect_err("nobody signed that")
    };
    for count in [1, 2, 3, 7, u64::from(SIGNED_TOGETHER_MAX)] {
        let bodies = bodies(count);
        let all = SignedRequest::sign_all(&key(9), here.genesis(), bodies.clone());
        for (body, signed) in bodies.iter().zip(&all) {
            assert_eq!(signed.body(), body);
            assert!(here.open_request(signed.clone()).is_ok());
            // Another content, another place, another tree.
            let changed = Request { level: Level::Strong, ..body.clone() };
            assert_eq!(refused(&changed, signed, signed.path().clone()), Rejection::BadSignature);
            let mut path = signed.path().clone();
            path.leaves += 1;
            let outcome = refused(body, signed, path);
            assert!(matches!(outcome, Rejection::BadSignature | Rejection::Malformed(_)));
            for other in all.iter().filter(|other| *other != signed) {
                let outcome = refused(body, signed, other.path().clone());
                assert!(matches!(outcome, Rejection::BadSignature | Rejection::Malformed(_)));
            }
        }
        let (first, last) = (&bodies[0], all.last().expect("one at least"));
        if count > 1 {
            assert_eq!(refused(first, last, last.path().clone()), Rejection::BadSignature);
            let lone = refused(first, &all[0], merkle::Path::lone());
            assert_eq!(lone, Rejection::BadSignature);
        }
    }
    let mut large = bodies(1);
    let one = SignedRequest::sign(&key(9), here.genesis(), large.remove(0));
    let path = merkle::Path { leaves: SIGNED_TOGETHER_MAX + 1, ..merkle::Path::lone() };
    assert!(matches!(refused(one.body(), &one, path), Rejection::Malformed(_)));
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
    let forged = Arc::new(SignedRequest::from_parts(body, Signature(forged), merkle::Path::lone()));
    assert_eq!(open.open_request(forged), Err(Rejection::WeakKey));
    let body = HelloBody {
        origin: Origin::Client(weak),
        to: ReplicaId(0),
        nonce: [5; 32],
        instance: 1,
        own_nonce: [6; 32],
        version: WireVersions::OWN.newest,
    };
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
    assert!(opens(Request { number: RequestNumber(u64::MAX), ..good }));
}

#[test]
fn a_statement_must_be_by_the_member_it_names() {
    let here = cluster("here");
    let good = say(&here, 1, commit(3));
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
    let certificate = |voters: &[u8]| members::certificate(&here, commit(3), voters);
    assert!(here.open_certificate(certificate(&[0, 1, 3])).is_ok());
    assert!(here.open_certificate(certificate(&[0, 1, 2, 3])).is_ok());
    assert!(matches!(here.open_certificate(certificate(&[0, 1])), Err(Rejection::Malformed(_))));
    let mut forged = certificate(&[0, 1, 3]);
    forged.body.slot = Slot(4);
    assert_eq!(here.open_certificate(forged), Err(Rejection::BadSignature));
    let mut stranger = certificate(&[0, 1]);
    stranger.votes.insert(ReplicaId(9), Signature([0; 64]));
    assert!(here.open_certificate(stranger).is_err());
    let nobody = CommitCertificate { body: commit(3), votes: BTreeMap::new() };
    assert!(here.open_certificate(nobody).is_err());
}

#[test]
fn broken_bounds_of_messages_between_replicas_are_refused() {
    let here = cluster("here");
    let by_r0 = |order: Order| Message::Order(say(&here, 0, order));
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

    let fetch = |wanted| Message::Fetch(say(&here, 0, Fetch { wanted, room: 1 << 20, stamp: 1 }));
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
fn a_forged_part_spoils_the_whole_message() {
    let here = cluster("here");
    let good = signed(request(vec![Bytes::from_static(b"x")]));
    let forged = Arc::new(SignedRequest::from_parts(
        good.body().clone(),
        Signature([1; 64]),
        merkle::Path::lone(),
    ));
    let slots = |request: &Arc<SignedRequest>, certificate| {
        let (choices, requests) = (NonDeterminism::default(), vec![request.clone()]);
        let entries = vec![SlotEntry { choices, requests, order: None }];
        Message::Slots(Slots { from: Slot(1), entries, certificate })
    };
    let checkpoint =
        Checkpoint { view: View(0), slot: Slot(3), hash: Digest([1; 32]), state: Digest([5; 32]) };
    let vote = say(&here, 1, checkpoint);
    let mut other_vote = vote.clone();
    other_vote.body.state = Digest([6; 32]);
    let certificate = members::certificate(&here, commit(3), &[0, 2, 3]);
    let mut cases = vec![
        (Message::Requests(Requests(vec![good.clone()])), "good"),
        (Message::Requests(Requests(vec![good.clone(), forged.clone()])), BAD_SIGNATURE),
        (Message::Checkpoint(vote), "good"),
        (Message::Checkpoint(other_vote), BAD_SIGNATURE),
        (Message::Certificate(certificate.clone()), "good"),
        (slots(&good, Some(certificate.clone())), "good"),
        (slots(&forged, Some(certificate.clone())), BAD_SIGNATURE),
    ];
    for (votes, expected) in bad_votes(&certificate.votes) {
        let certificate = CommitCertificate { votes, ..certificate };
        cases.push((slots(&good, Some(certificate.clone())), expected));
        cases.push((Message::Certificate(certificate), expected));
    }
    for (message, expected) in cases {
        let told = format!("{message:?}");
        assert_eq!(verdict(message), expected, "{told}");
    }
}

#[test]
fn a_hello_is_for_one_connection_to_one_replica() {
    let here = cluster("here");
    let body = HelloBody {
        origin: Origin::Client(client_id(9)),
        to: ReplicaId(1),
        nonce: [5; 32],
        instance: 1,
        own_nonce: [6; 32],
        version: WireVersions::OWN.newest,
    };
    let hello = sign_hello(&key(9), here.genesis(), body);
    assert!(here.open_hello(hello, ReplicaId(1), &[5; 32]).is_ok());
    for (me, nonce) in [(0, 5), (1, 6)] {
        let opened = here.open_hello(hello, ReplicaId(me), &[nonce; 32]);
        assert!(matches!(opened, Err(Rejection::Malformed(_))));
    }
    let forged = sign_hello(&key(8), here.genesis(), body);
    assert_eq!(here.open_hello(forged, ReplicaId(1), &[5; 32]), Err(Rejection::BadSignature));
}

#[test]
fn a_fetch_of_a_branch_or_a_state_keeps_its_bounds() {
    let here = cluster("here");
    let at = |slot| Position { slot: Slot(slot), hash: Digest([1; 32]) };
    let branch = |slot, known| Wanted::Branch { head: at(slot), known: vec![at(0); known] };
    let state = |slot, part| Wanted::State { at: at(slot), part };
    for (wanted, expected) in [
        (branch(1, 0), "good"),
        (branch(u64::MAX, LOCATOR_MAX), "good"),
        (branch(1, LOCATOR_MAX + 1), "a locator that is too long"),
        (branch(0, 0), "a fetch of slot 0"),
        (state(1, StatePart::Last), "good"),
        (state(u64::MAX, StatePart::Application(u32::MAX)), "good"),
        (state(0, StatePart::Sessions(0)), "a fetch of the state before slot 1"),
    ] {
        let mut fetch = say(&here, 0, Fetch { wanted, room: 1 << 20, stamp: 1 });
        assert_eq!(verdict(Message::Fetch(fetch.clone())), expected, "{fetch:?}");
        fetch.body.stamp = 2;
        let forged = if expected == "good" { BAD_SIGNATURE } else { expected };
        assert_eq!(verdict(Message::Fetch(fetch)), forged);
    }
}

#[test]
fn a_stable_checkpoint_travels_with_a_certificate_that_covers_it() {
    let here = cluster("here");
    let checkpoint =
        Checkpoint { view: View(2), slot: Slot(8), hash: Digest([8; 32]), state: Digest([5; 32]) };
    for (view, slot, hash, expected) in [
        (2, 8, 8, "good"),
        (2, 9, 9, "good"),
        (2, u64::MAX, 8, "good"),
        (2, 8, 9, UNCOVERED),
        (2, 7, 8, UNCOVERED),
        (1, 9, 9, UNCOVERED),
        (3, 9, 9, UNCOVERED),
        (2, 0, 8, "a commit for slot 0"),
    ] {
        let cover = Commit { view: View(view), slot: Slot(slot), hash: Digest([hash; 32]) };
        let proof = stable_proof(&here, checkpoint, cover);
        let said = verdict(Message::Stable(Box::new(proof)));
        assert_eq!(said, expected, "{cover:?}");
    }
    let cover = Commit { view: View(2), slot: Slot(9), hash: Digest([9; 32]) };
    let good = stable_proof(&here, checkpoint, cover);
    let mut cases = vec![];
    for (votes, expected) in bad_votes(&good.checkpoint.votes) {
        let checkpoint = CheckpointCertificate { votes, ..good.checkpoint.clone() };
        cases.push((StableProof { checkpoint, ..good.clone() }, expected));
    }
    for (votes, expected) in bad_votes(&good.cover.votes) {
        let cover = CommitCertificate { votes, ..good.cover.clone() };
        cases.push((StableProof { cover, ..good.clone() }, expected));
    }
    let mut other_state = good.clone();
    other_state.checkpoint.body.state = Digest([6; 32]);
    cases.push((other_state, BAD_SIGNATURE));
    let genesis = Checkpoint { slot: Slot(0), ..checkpoint };
    cases.push((stable_proof(&here, genesis, cover), "a checkpoint of slot 0"));
    for (proof, expected) in cases {
        assert_eq!(verdict(Message::Stable(Box::new(proof))), expected);
    }
}

#[test]
fn a_branch_holds_something_and_nothing_below_slot_one() {
    let here = cluster("here");
    let one = signed(request(vec![Bytes::from_static(b"x")]));
    let entry = |requests| SlotEntry { choices: NonDeterminism::default(), requests, order: None };
    let linked = |entry| Linked { previous: Digest([2; 32]), entry };
    let full = linked(entry(vec![one.clone()]));
    let branch = |slot, slots, stable| {
        let head = Position { slot: Slot(slot), hash: Digest([1; 32]) };
        Branch { head, slots, stable }
    };
    let holding = |entry| branch(1, vec![linked(entry)], None);
    let checkpoint =
        Checkpoint { view: View(2), slot: Slot(8), hash: Digest([8; 32]), state: Digest([5; 32]) };
    let cover = |slot| Commit { view: View(2), slot: Slot(slot), hash: Digest([8; 32]) };
    let stable = |slot| Some(Box::new(stable_proof(&here, checkpoint, cover(slot))));
    let forged =
        SignedRequest::from_parts(one.body().clone(), Signature([1; 64]), merkle::Path::lone());
    let of_a_stranger = SignedRequest::sign(
        &key(8),
        here.genesis(),
        Request { client: client_id(8), ..one.body().clone() },
    );
    let requests = vec![one.digest()];
    let batch = batch_digest(&NonDeterminism::default(), &requests);
    let header = OrderHeader { view: View(2), slot: Slot(1), hash: Digest([1; 32]), batch };
    let order = Order { header, choices: NonDeterminism::default(), requests };
    let ordered = |by, batch| {
        let header = OrderHeader { batch, ..header };
        let order = say(&here, by, Order { header, ..order.clone() });
        SlotEntry { order: Some(order), ..entry(vec![one.clone()]) }
    };
    let mut by_nobody = ordered(2, batch);
    by_nobody.order.iter_mut().for_each(|order| order.body.header.view = View(6));
    let most = SLOTS_MAX as u64;
    for (branch, expected) in [
        (branch(1, vec![full.clone()], None), "good"),
        (branch(most, vec![full.clone(); SLOTS_MAX], None), "good"),
        (branch(most, vec![full.clone(); SLOTS_MAX + 1], None), "too many slots"),
        (branch(most - 1, vec![full.clone(); SLOTS_MAX], None), "slots below slot 1"),
        (branch(0, vec![full.clone()], None), "slots below slot 1"),
        (branch(9, vec![], None), "a branch with nothing in it"),
        (branch(0, vec![], stable(8)), "good"),
        (branch(9, vec![full], stable(9)), "good"),
        (branch(9, vec![], stable(7)), UNCOVERED),
        (holding(entry(vec![])), "an empty slot"),
        (holding(entry(vec![one.clone(); BATCH_REQUESTS_MAX + 1])), "too many requests in a slot"),
        (holding(entry(vec![Arc::new(forged)])), BAD_SIGNATURE),
        // Whose requests are wanted is no question of what history is.
        (holding(entry(vec![of_a_stranger])), "good"),
        (holding(ordered(2, batch)), "good"),
        (holding(ordered(4, batch)), UNKNOWN_SIGNER),
        (holding(ordered(2, Digest([3; 32]))), "an order whose batch has another digest"),
        (holding(by_nobody), BAD_SIGNATURE),
    ] {
        let (slot, count) = (branch.head.slot, branch.slots.len());
        assert_eq!(verdict(Message::Branch(branch)), expected, "{count} slots below {slot}");
    }
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

#[test]
fn a_reply_to_a_query_with_any_bit_changed_is_not_let_in() {
    let here = cluster("here");
    let at = |slot| Position { slot: Slot(slot), hash: Digest([5; 32]) };
    let reply = |slot| QueryReply {
        positions: vec![at(4), at(5)],
        view: View(1),
        session: SessionId(2),
        query: Digest([3; 32]),
        from: Slot(4),
        to: Slot(slot),
        results: vec![Bytes::from_static(b"so")],
    };
    let signed = sign_replies(&key(3), here.genesis(), ReplicaId(2), vec![reply(5), reply(6)]);
    let open = |signed: SignedQueryReply| here.open_reply(signed);
    let bytes = encode(&signed[0]).expect("it is small").to_vec();
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(changed) = decode::<SignedQueryReply>(&changed) {
            assert!(open(changed).is_err(), "bit {bit}");
        }
    }
    for (wrong, what) in [
        (QueryReply { from: Slot(6), positions: Vec::new(), ..reply(5) }, "an interval of no slot"),
        (QueryReply { from: Slot(5), ..reply(5) }, "a position below the interval"),
        (QueryReply { positions: vec![at(6)], ..reply(5) }, "a position above the interval"),
        (QueryReply { positions: vec![at(5), at(4)], ..reply(5) }, "they descend"),
        (QueryReply { positions: vec![at(5), at(5)], ..reply(5) }, "one twice"),
        (QueryReply { positions: (4..37).map(at).collect(), ..reply(99) }, "too many"),
    ] {
        let wrong = sign_replies(&key(3), here.genesis(), ReplicaId(2), vec![wrong]);
        assert!(matches!(open(wrong[0].clone()), Err(Rejection::Malformed(_))), "{what}");
    }
    let positions = vec![at(0), at(u64::MAX)];
    let all = QueryReply { from: Slot(0), positions, ..reply(u64::MAX) };
    let all = sign_replies(&key(3), here.genesis(), ReplicaId(2), vec![all]);
    assert!(open(all[0].clone()).is_ok(), "there is no slot that cannot be named");
    assert!(open(signed[0].clone()).is_ok());
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
