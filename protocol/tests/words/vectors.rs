//! What is signed and hashed, byte by byte. A change in `vectors.txt` is a change of format: no
//! signature, history or receipt made before it stays valid.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::codec::{Canonical, encode};
use elea_protocol::edition::{Edition, Editions};
use elea_protocol::history::extend;
use elea_protocol::id::{
    ClientId, Digest, Life, ReplicaId, RequestName, RequestNumber, SessionId, Slot, View, WallTime,
    hex,
};
use elea_protocol::membership::Membership;
use elea_protocol::message::{
    Batch, Checkpoint, Commit, CommitCertificate, Difference, Disagreement, DiskHealth, Echo,
    Enrol, Enrolled, Fetch, Greeting, HelloBody, InTree as _, KnockBody, Level, MismatchReport,
    NewView, NewViewHeader, NodeStatus, NonDeterminism, OrderHeader, Origin, OtherList, Pace, Past,
    Position, Pulse, Query, QueryReply, Refusal, RefusalReason, Reply, ReplyKind, Request, Results,
    SessionReport, SignedRequest, Standing, StateDigests, StatePart, Status, Suspect, Transferring,
    Transport, Turnaround, ViewChange, Wanted, WireVersions, batch_digest, changes_digest,
};
use elea_protocol::seal::{sign, sign_replies};
use elea_protocol::signature::{Ed25519, PublicKey, SecretKey, Signer};
use expect_test::expect_file;

fn line<T: Canonical>(text: &mut String, what: &str, genesis: &Digest, subject: &T) {
    writeln!(text, "{what} ({})", T::TAG).unwrap();
    writeln!(text, "  bytes   {}", hex(&subject.canonical_bytes())).unwrap();
    writeln!(text, "  hashed  {}", subject.digest()).unwrap();
    writeln!(text, "  signed  {}", subject.signing_digest(genesis)).unwrap();
}

fn request() -> Request {
    Request {
        client: ClientId(SecretKey::from_bytes(&[9; 32]).public_key().0),
        session: SessionId(0x1122_3344_5566_7788),
        number: RequestNumber(3),
        level: Level::Strong,
        want_final: true,
        operations: vec![Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"three")],
    }
}

#[test]
fn what_is_signed_and_hashed_never_changes() {
    let keys: Vec<SecretKey> = (1..=4).map(|n| SecretKey::from_bytes(&[n; 32])).collect();
    let public: Vec<PublicKey> = keys.iter().map(Signer::public_key).collect();
    let membership = Membership::new("vectors", 1, public, None, Arc::new(Ed25519::default()))
        .expect("four sound keys");
    let genesis = *membership.genesis();
    let mut text = String::new();
    writeln!(text, "genesis of \"vectors\", f = 1, keys of secrets 01.. to 04..\n  {genesis}")
        .unwrap();

    let position = Position { slot: Slot(7), hash: Digest([0xaa; 32]) };
    let request = request();
    let name = RequestName { number: RequestNumber(3), ..request.name() };
    let signed_request =
        SignedRequest::sign(&SecretKey::from_bytes(&[9; 32]), &genesis, request.clone());
    line(&mut text, "request", &genesis, &request);
    writeln!(text, "  signature {}", hex(&signed_request.signature().0)).unwrap();
    writeln!(text, "  frame     {}", hex(&encode(&signed_request).unwrap())).unwrap();

    let second = Request { number: RequestNumber(4), ..request.clone() };
    let key = SecretKey::from_bytes(&[9; 32]);
    let together = SignedRequest::sign_all(&key, &genesis, vec![request.clone(), second]);
    let last = together.last().expect("two");
    writeln!(text, "that request and the next one, signed together: the second").unwrap();
    writeln!(text, "  signature {}", hex(&last.signature().0)).unwrap();
    writeln!(text, "  frame     {}", hex(&encode(last).unwrap())).unwrap();

    let choices = NonDeterminism {
        time: WallTime(1_700_000_000_000),
        seed: [7; 16],
        edition: Edition { protocol: 1, application: 2 },
    };
    let batch = Batch { choices, requests: vec![signed_request.clone()] };
    writeln!(text, "batch of that request\n  hashed  {}", batch.digest()).unwrap();
    assert_eq!(batch.digest(), batch_digest(&choices, &[signed_request.digest()]));
    writeln!(text, "history of that batch\n  hashed  {}", extend(&genesis, &batch.digest()))
        .unwrap();

    let header = OrderHeader {
        view: View(2),
        slot: Slot(7),
        hash: Digest([0xaa; 32]),
        batch: Digest([0xbb; 32]),
    };
    line(&mut text, "order", &genesis, &header);
    let commit = Commit { view: View(2), slot: Slot(7), hash: Digest([0xaa; 32]) };
    line(&mut text, "commit", &genesis, &commit);
    let signed = sign(&keys[1], &genesis, ReplicaId(1), commit).into_inner();
    writeln!(text, "  signature {}", hex(&signed.signature.0)).unwrap();
    let checkpoint = Checkpoint {
        view: View(2),
        slot: Slot(7),
        hash: Digest([0xaa; 32]),
        state: Digest([0xcc; 32]),
    };
    line(&mut text, "checkpoint", &genesis, &checkpoint);
    let mut status = Status {
        entered: View(2),
        campaign: None,
        head: position,
        lock: None,
        stable: Slot(3),
        convicted: 0b101,
        clients: Digest([0xdd; 32]),
        newest_edition: Editions::with(1..=1).newest,
        common_edition: Editions::with(1..=1).newest,
        wall: WallTime(1_700_000_000_000),
        stamp: 99,
    };
    line(&mut text, "status without a lock", &genesis, &status);
    status.lock = Some((View(1), position));
    line(&mut text, "status with a lock", &genesis, &status);
    status.campaign = Some(View(5));
    line(&mut text, "status with a campaign", &genesis, &status);
    let wanted =
        Wanted::Requests { slot: Slot(7), digests: vec![Digest([1; 32]), Digest([2; 32])] };
    line(&mut text, "fetch of requests", &genesis, &Fetch { wanted, room: 1 << 20, stamp: 99 });
    let wanted = Wanted::Slots { from: Slot(7) };
    line(&mut text, "fetch of slots", &genesis, &Fetch { wanted, room: 1 << 20, stamp: 99 });
    let known = vec![Position { slot: Slot(4), hash: Digest([3; 32]) }, position];
    let wanted = Wanted::Branch { head: position, known };
    line(&mut text, "fetch of a branch", &genesis, &Fetch { wanted, room: 1 << 20, stamp: 99 });
    for part in [StatePart::Last, StatePart::Sessions(6), StatePart::Application(7)] {
        let fetch =
            Fetch { wanted: Wanted::State { at: position, part }, room: 1 << 20, stamp: 99 };
        line(&mut text, &format!("fetch of a state, {part:?}"), &genesis, &fetch);
    }
    let digests = StateDigests { application: Digest([4; 32]), sessions: Digest([5; 32]) };
    line(&mut text, "state", &genesis, &digests);

    line(&mut text, "suspicion", &genesis, &Suspect::of(View(2)));
    let change = ViewChange {
        view: View(5),
        campaign: View(6),
        entered: View(2),
        lock: None,
        stable: Slot(3),
        head: position,
        stamp: 99,
    };
    line(&mut text, "view change without a lock", &genesis, &change);
    // Its votes are not signed with it.
    let lock = CommitCertificate { body: commit, votes: BTreeMap::new() };
    let locked = ViewChange { lock: Some(lock), ..change.clone() };
    line(&mut text, "view change with a lock", &genesis, &locked);
    let changes = vec![
        sign(&keys[1], &genesis, ReplicaId(1), change).into_inner(),
        sign(&keys[2], &genesis, ReplicaId(2), locked).into_inner(),
    ];
    writeln!(text, "these view changes\n  hashed  {}", changes_digest(&changes)).unwrap();
    let header = NewViewHeader { view: View(5), head: position, changes: changes_digest(&changes) };
    line(&mut text, "new view", &genesis, &header);
    let new_view = NewView { header, changes };
    assert_eq!(new_view.signing_digest(&genesis), header.signing_digest(&genesis));
    let refusal =
        Refusal { name, request: signed_request.digest(), reason: RefusalReason::NameUsed };
    line(&mut text, "refusal", &genesis, &refusal);
    let report = SessionReport {
        client: name.client,
        session: name.session,
        executed_through: RequestNumber(9),
        has_left: true,
        opening: SessionId(5),
    };
    line(&mut text, "session report", &genesis, &report);
    let life = Life([6; 16]);
    line(&mut text, "enrolment", &genesis, &Enrol { life });
    line(&mut text, "enrolled", &genesis, &Enrolled { replica: ReplicaId(3), life });
    let echoes = vec![Echo { of: ReplicaId(2), stamp: 98, held: 1500 }];
    line(&mut text, "pulse", &genesis, &Pulse { stamp: 99, sync: 2500, echoes });
    for origin in [Origin::Replica(ReplicaId(3)), Origin::Client(name.client)] {
        let (nonce, own_nonce) = ([0xdd; 32], [0xde; 32]);
        let hello =
            HelloBody { origin, to: ReplicaId(1), nonce, instance: 7, own_nonce, version: 13 };
        line(&mut text, "hello", &genesis, &hello);
    }
    let knock = KnockBody {
        versions: WireVersions { lowest: 12, newest: 13 },
        origin: Origin::Client(name.client),
        to: ReplicaId(1),
        transport: Transport::Plain,
    };
    line(&mut text, "knock", &genesis, &knock);
    let greeting = Greeting { to: ReplicaId(3), nonce: [0xde; 32] };
    line(&mut text, "greeting", &genesis, &greeting);
    let others = vec![Turnaround { of: ReplicaId(2), round_trip: Some(700), sync: None }];
    let pace = Pace { sync: Some(2500), patience: 160, others };
    let mut node = NodeStatus {
        nonce: 1,
        standing: Standing::New,
        quarantined: true,
        mismatches: vec![MismatchReport {
            slot: Slot(2),
            certified: Digest([0xcc; 32]),
            own: Digest([0xcd; 32]),
        }],
        view: View(2),
        primary: ReplicaId(2),
        campaign: None,
        head: position,
        lock: Some((View(2), position)),
        stable: Slot(3),
        state: Digest([0xcc; 32]),
        sessions: 4,
        pending: 5,
        divergent: vec![ReplicaId(3)],
        evidence: 1,
        transport: Transport::Plain,
        disk: DiskHealth::Damaged("a table".to_owned()),
        transfer: None,
        clocks: vec![(ReplicaId(0), -3_600_000), (ReplicaId(1), 12)],
        clock_tolerance_ms: 5000,
        disagreements: vec![Disagreement {
            replica: ReplicaId(3),
            settings: vec![Difference {
                name: "value_bytes".to_owned(),
                here: Some("1024".to_owned()),
                there: None,
            }],
        }],
        other_lists: vec![OtherList {
            replica: ReplicaId(2),
            not_there: vec![name.client],
            not_here: Vec::new(),
        }],
        edition: Edition { protocol: 1, application: 2 },
        editions: Editions::with(1..=3),
        common_edition: Edition { protocol: 1, application: 1 },
        refused: vec![(ReplicaId(1), 7)],
        doubled: vec![Origin::Replica(ReplicaId(2)), Origin::Client(name.client)],
        pace,
        counters: vec![("busy".to_owned(), 6)],
    };
    line(&mut text, "node status", &genesis, &node);
    node.campaign = Some(View(5));
    line(&mut text, "node status with a campaign", &genesis, &node);
    node.disk = DiskHealth::Full;
    node.transfer = Some(Transferring { slot: Slot(9), pieces: 2, of: Some(3), bytes: 4 });
    line(&mut text, "node status while a state is fetched", &genesis, &node);

    for kind in [ReplyKind::Speculative, ReplyKind::Committed] {
        let reply = Reply {
            kind,
            view: View(2),
            slot: Slot(7),
            hash: Digest([0xaa; 32]),
            name,
            request: signed_request.digest(),
            index: 4,
            results: Results::Full(vec![Bytes::from_static(b"ok"), Bytes::new()]),
        };
        writeln!(text, "reply, {kind:?}\n  leaf      {}", reply.leaf()).unwrap();
        let other = Reply { index: 6, ..reply.clone() };
        let third = Reply { index: 8, ..reply.clone() };
        let signed = sign_replies(&keys[1], &genesis, ReplicaId(1), vec![reply, other, third]);
        writeln!(text, "  signature {}", hex(&signed[0].vote.signature.0)).unwrap();
        for sibling in &signed[0].vote.path.siblings {
            writeln!(text, "  sibling   {sibling}").unwrap();
        }
        for reply in signed {
            membership.open_reply(reply).expect("our own replies verify");
        }
    }

    let query = Query {
        session: name.session,
        nonce: [0x5a; 16],
        level: Level::Strong,
        after: Slot(4),
        past: None,
        operations: vec![Bytes::from_static(b"get"), Bytes::new()],
    };
    line(&mut text, "query", &genesis, &query);
    let mut past = Past::default();
    past.note_read(Position { slot: Slot(4), hash: Digest([4; 32]) });
    assert!(past.note_written(name.client, name.session, name.number));
    let after = Query { past: Some(past), ..query.clone() };
    line(&mut text, "query with a past", &genesis, &after);
    let reply = QueryReply {
        view: View(2),
        session: name.session,
        query: query.digest(),
        from: Slot(5),
        to: Slot(7),
        positions: vec![Position { slot: Slot(6), hash: Digest([6; 32]) }],
        results: vec![Bytes::from_static(b"ok"), Bytes::new()],
    };
    writeln!(text, "reply to a query\n  leaf      {}", reply.leaf()).unwrap();
    let other = QueryReply { to: Slot(8), ..reply.clone() };
    let signed = sign_replies(&keys[1], &genesis, ReplicaId(1), vec![reply, other]);
    writeln!(text, "  signature {}", hex(&signed[0].vote.signature.0)).unwrap();
    for reply in signed {
        membership.open_reply(reply).expect("our own replies verify");
    }
    expect_file!["vectors.txt"].assert_eq(&text);
}

#[test]
fn no_two_kinds_of_statement_share_a_tag() {
    let mut tags = vec![
        Request::TAG,
        OrderHeader::TAG,
        Commit::TAG,
        Checkpoint::TAG,
        Status::TAG,
        Fetch::TAG,
        StateDigests::TAG,
        Suspect::TAG,
        ViewChange::TAG,
        NewViewHeader::TAG,
        Refusal::TAG,
        SessionReport::TAG,
        HelloBody::TAG,
        KnockBody::TAG,
        Greeting::TAG,
        NodeStatus::TAG,
        Enrol::TAG,
        Enrolled::TAG,
        Pulse::TAG,
        "speculative-replies",
        "committed-replies",
        "reply-leaf",
        Query::TAG,
        "query-replies",
        "query-reply-leaf",
        "merkle-node",
        "results",
        "batch",
        "history",
        "genesis",
        "trie-empty",
        "trie-leaf",
        "trie-branch",
        "session-part",
        "session-part-name",
        "view-changes",
    ];
    let count = tags.len();
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), count);
}
