//! What travels and what is stored, byte by byte. A frame that is encoded otherwise needs another
//! wire version, and a record another store format: or programs misread each other and their disks.
//! A wire version that is still spoken keeps its file as `frames-N.txt`, to show that it is read.
//! Records in `frames.txt` are those of store format 10 (`replica/src/store/layout.rs`); what becomes of them on a disk is
//! golden in `replica/tests/golden/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::{env, fs};

use bytes::Bytes;
use elea_protocol::codec::{Canonical as _, CodecError, decode, encode};
use elea_protocol::edition::{Edition, Editions};
use elea_protocol::evidence::{Evidence, Fork};
use elea_protocol::history::extend;
use elea_protocol::id::{
    Digest, Life, ReplicaId, RequestName, RequestNumber, SessionId, Slot, View, WallTime, hex,
    unhex,
};
use elea_protocol::membership::Membership;
use elea_protocol::message::{
    Branch, Campaign, Challenge, Checkpoint, Clients, Commit, CommitCertificate, Difference,
    Disagreement, DiskHealth, Echo, Enrol, Enrolled, Farewell, Fetch, Greeting, HelloBody,
    KnockBody, LastSlot, Lent, Level, Linked, Message, Mismatch, MismatchReport, NewView,
    NewViewHeader, NoReply, NodeStatus, NonDeterminism, Order, OrderHeader, Origin, OtherList,
    Pace, Part, Past, Position, Pulse, Query, QueryReply, Refusal, RefusalReason, Reply, ReplyKind,
    Request, Requests, Results, SessionReport, SignedReply, SignedRequest, SlotEntry, Slots,
    StableProof, Standing, StateChunk, StateDigests, StateHead, StatePart, Status, Suspect, Terms,
    ToClient, ToReplica, Transferring, Transport, Turnaround, ViewChange, Waiting, WaitingRequest,
    Wanted, WireVersions, batch_digest, changes_digest,
};
use elea_protocol::receipt::{Proven, Receipt};
use elea_protocol::replica::{Adopted, Aside, EnteredView, Ground, Record, Settled};
use elea_protocol::seal::{sign_hello, sign_knock, sign_replies};
use elea_protocol::signature::Signed;
use expect_test::expect_file;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::members::{certificate, client_id, cluster, key, say, stable_proof};

trait Named {
    /// The enum and the kind.
    fn named(&self) -> &'static str;
}

/// Names all kinds of enums. The list is the match, so that none is left out.
macro_rules! kinds {
    ($($name:ident: $($kind:ident),+;)+) => {
        $(impl Named for $name {
            fn named(&self) -> &'static str {
                match self {
                    $(Self::$kind { .. } => concat!(stringify!($name), "::", stringify!($kind)),)+
                }
            }
        })+

        const KINDS: &[&str] = &[$($(concat!(stringify!($name), "::", stringify!($kind)),)+)+];
    };
}

kinds! {
    ToReplica: Hello, Terms, Peer, Request, AskSession, AskStatus, AskEvidence, Knock, Part, Query,
        AskState, AskPiece;
    ToClient: Challenge, Terms, Welcome, Greeting, Peer, Farewell, Replies, Refusal, Busy, Session,
        Status, Evidence, Part, QueryReplies, NoQueryReply, State, Piece;
    Message: Order, Commit, Certificate, Checkpoint, Stable, Status, Fetch, Requests, Clients,
        Slots, Branch, State, Suspect, Campaign, NewView, Evidence, Enrol, Enrolled, Pulse, Waiting;
    Record: Slot, Aside, Lock, Stable, Adopted, Orphans, Fetching, Piece, Rows, Settling, Settled,
        Evidence, Standing, Lives, Mismatches, Stamps;
    // What the kinds above are told apart by further in.
    Wanted: Requests, Slots, Branch, State, Clients;
    StatePart: Last, Sessions, Application;
    Evidence: Orders, Commits, NewViews, OrderRefuted, NewViewRefuted;
    Origin: Replica, Client;
    Transport: Encrypted, Plain;
    Level: Weak, Strong;
    Farewell: NotAdmitted, TooManyConnections, Misbehaviour, TooSlow, SettingsDiffer, Stopping,
        SecondProcess, OtherTransport;
    ReplyKind: Speculative, Committed;
    Results: Full, Forgotten;
    RefusalReason: SessionRetired, WindowExceeded, SessionTooFar, NameUsed, ResultForgotten,
        HistoryFull, UnknownClient;
    NoReply: Unable, NotYet, Unknown;
    Standing: Voter, New, Observer;
    DiskHealth: Sound, Full, Damaged;
    Lent: Piece, Later, Gone;
    Ground: Common, State;
}

/// Encoded in the same way and no kind of anything: a piece of a state, and what clients keep.
const LONE: [&str; 2] = ["LastSlot", "Receipt"];

/// The lines, and the kinds they show.
#[derive(Default)]
struct Golden {
    text: String,
    shown: BTreeSet<&'static str>,
}

impl Golden {
    /// A line for this. It shows these kinds, the outermost first, which says how to read it.
    fn line(&mut self, kinds: &[&'static str], what: &impl Serialize) {
        let bytes = encode(what).expect("it fits a frame");
        writeln!(self.text, "{} {}", kinds.join("/"), hex(&bytes)).expect("a String has room");
        self.shown.extend(kinds);
    }

    /// A line for a frame or a record. It shows these kinds that are in it, too.
    fn add<T: Named + Serialize>(&mut self, what: T, within: &[&'static str]) {
        self.line(&[&[what.named()], within].concat(), &what);
    }

    fn peer(&mut self, message: Message, within: &[&'static str]) {
        let within = [&[message.named()], within].concat();
        self.add(ToReplica::Peer(message), &within);
    }
}

// ---- what it is about ----

const VIEW: View = View(2);
const PRIMARY: u8 = 2;
const HEAD: Slot = Slot(7);
const STABLE: Slot = Slot(4);

const fn hash(n: u8) -> Digest {
    Digest([n; 32])
}

fn head() -> Position {
    // It has another history at the slot before than the one that `evidence` is about.
    Position { slot: HEAD, hash: extend(&hash(0x61), &hash(0x62)) }
}

fn forked() -> Position {
    Position { slot: Slot(6), hash: hash(0x63) }
}

fn fork() -> Fork {
    Fork { hash: hash(0x61), links: vec![hash(0x62)] }
}

fn stable() -> Position {
    Position { slot: STABLE, hash: hash(0x64) }
}

fn digests() -> StateDigests {
    StateDigests { application: hash(0x65), sessions: hash(0x66) }
}

fn choices() -> NonDeterminism {
    NonDeterminism {
        time: WallTime(1_700_000_000_000),
        seed: [0x67; 16],
        edition: Edition { protocol: 1, application: 2 },
    }
}

fn name() -> RequestName {
    RequestName { client: client_id(9), session: SessionId(0x1122_3344), number: RequestNumber(3) }
}

fn past() -> Past {
    let (mut past, RequestName { client, session, number }) = (Past::default(), name());
    past.note_read(stable());
    assert!(past.note_written(client, session, number));
    past
}

fn rows() -> Vec<(Bytes, Option<Bytes>)> {
    vec![(b("key"), Some(b("value"))), (b("gone"), None)]
}

const fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// Two requests of a client, signed together.
fn requests(of: &Membership) -> Vec<Arc<SignedRequest>> {
    let RequestName { client, session, number } = name();
    let operations = vec![b("one"), b("")];
    let first =
        Request { client, session, number, level: Level::Strong, want_final: true, operations };
    let second = Request { number: number.next(), level: Level::Weak, ..first.clone() };
    SignedRequest::sign_all(&key(9), of.genesis(), vec![first, second])
}

fn commit() -> Commit {
    Commit { view: VIEW, slot: HEAD, hash: head().hash }
}

fn lock(of: &Membership) -> CommitCertificate {
    certificate(of, commit(), &[0, 2, 3])
}

fn checkpoint() -> Checkpoint {
    Checkpoint { view: VIEW, slot: STABLE, hash: stable().hash, state: digests().digest() }
}

fn proof(of: &Membership) -> StableProof {
    stable_proof(of, checkpoint(), commit())
}

fn state_head(of: &Membership) -> StateHead {
    StateHead { stable: proof(of), digests: digests() }
}

fn order(of: &Membership) -> Signed<Order> {
    let requests: Vec<Digest> = requests(of).iter().map(|request| request.digest()).collect();
    let batch = batch_digest(&choices(), &requests);
    let header = OrderHeader { view: VIEW, slot: HEAD, hash: head().hash, batch };
    say(of, PRIMARY, Order { header, choices: choices(), requests })
}

/// With an order or, as it is after a merge, without.
fn entry(of: &Membership, has_order: bool) -> SlotEntry {
    let order = has_order.then(|| order(of));
    SlotEntry { choices: choices(), requests: requests(of), order }
}

/// Of replica 1, the primary of that view, with a lock; and of replica 3, without.
fn view_changes(of: &Membership) -> Vec<Signed<ViewChange>> {
    let change = ViewChange {
        view: View(5),
        campaign: View(6),
        entered: VIEW,
        lock: Some(lock(of)),
        stable: STABLE,
        head: head(),
        stamp: 99,
    };
    let without = ViewChange { lock: None, ..change.clone() };
    vec![say(of, 1, change), say(of, 3, without)]
}

fn new_view(of: &Membership) -> Signed<NewView> {
    let changes = view_changes(of);
    let header = NewViewHeader { view: View(5), head: head(), changes: changes_digest(&changes) };
    say(of, 1, NewView { header, changes })
}

/// Of each kind one that convicts.
fn evidence(of: &Membership) -> Vec<Evidence> {
    let header = |at: Position| {
        let batch = hash(0x71);
        say(of, PRIMARY, OrderHeader { view: VIEW, slot: at.slot, hash: at.hash, batch })
    };
    let vote = |hash| say(of, 3, Commit { hash, ..commit() });
    let begun = |head| say(of, PRIMARY, NewViewHeader { view: VIEW, head, changes: hash(0x72) });
    let other = Position { slot: HEAD, hash: hash(0x73) };
    vec![
        Evidence::Orders(header(head()), header(other)),
        Evidence::Commits(vote(head().hash), vote(other.hash)),
        Evidence::NewViews(begun(head()), begun(other)),
        Evidence::OrderRefuted(header(forked()), lock(of), fork()),
        Evidence::NewViewRefuted(begun(forked()), lock(of), fork()),
    ]
}

fn state_parts() -> [StatePart; 3] {
    [StatePart::Last, StatePart::Sessions(6), StatePart::Application(7)]
}

fn terms() -> Terms {
    Terms([("session_window".to_owned(), "128".to_owned())].into())
}

// ---- what replicas say to each other ----

fn add_ordering(golden: &mut Golden, of: &Membership) {
    golden.peer(Message::Order(order(of)), &[]);
    golden.peer(Message::Commit(say(of, 1, commit())), &[]);
    golden.peer(Message::Certificate(lock(of)), &[]);
    golden.peer(Message::Checkpoint(say(of, 3, checkpoint())), &[]);
    golden.peer(Message::Stable(Box::new(proof(of))), &[]);
    let mut status = Status {
        entered: VIEW,
        campaign: Some(View(5)),
        head: head(),
        lock: Some((VIEW, head())),
        stable: STABLE,
        convicted: 0b101,
        clients: hash(0x74),
        newest_edition: Edition { protocol: 1, application: 3 },
        common_edition: Edition { protocol: 1, application: 2 },
        wall: WallTime(1_700_000_000_001),
        stamp: 98,
    };
    golden.peer(Message::Status(say(of, 1, status)), &[]);
    (status.campaign, status.lock) = (None, None);
    golden.peer(Message::Status(say(of, 1, status)), &[]);
    let echoes = vec![Echo { of: ReplicaId(2), stamp: 97, held: 1500 }];
    golden.peer(Message::Pulse(say(of, 1, Pulse { stamp: 99, sync: 2500, echoes })), &[]);
    let waits = WaitingRequest { name: name(), digest: hash(0x75), bytes: 4096 };
    golden.peer(Message::Waiting(Waiting(vec![waits])), &[]);
    let life = Life([0x76; 16]);
    golden.peer(Message::Enrol(say(of, 3, Enrol { life })), &[]);
    golden.peer(Message::Enrolled(say(of, 1, Enrolled { replica: ReplicaId(3), life })), &[]);
}

fn add_fetching(golden: &mut Golden, of: &Membership) {
    let mut fetch = |wanted: Wanted, part: &[&'static str]| {
        let within = [&[wanted.named()], part].concat();
        let fetch = Fetch { wanted, room: 1 << 20, stamp: 99 };
        golden.peer(Message::Fetch(say(of, 1, fetch)), &within);
    };
    fetch(Wanted::Requests { slot: HEAD, digests: vec![hash(1), hash(2)] }, &[]);
    fetch(Wanted::Slots { from: HEAD }, &[]);
    fetch(Wanted::Branch { head: head(), known: vec![forked(), stable()] }, &[]);
    for part in state_parts() {
        fetch(Wanted::State { at: stable(), part }, &[part.named()]);
    }
    fetch(Wanted::Clients, &[]);

    golden.peer(Message::Requests(Requests(requests(of))), &[]);
    let mut clients = vec![client_id(8), client_id(9)];
    clients.sort_unstable();
    golden.peer(Message::Clients(Clients(clients)), &[]);
    let entries = vec![entry(of, true), entry(of, false)];
    let slots = Slots { from: HEAD, entries, certificate: Some(lock(of)) };
    golden.peer(Message::Slots(slots.clone()), &[]);
    golden.peer(Message::Slots(Slots { certificate: None, ..slots }), &[]);
    let linked = Linked { previous: hash(0x77), entry: entry(of, false) };
    let stable_proof = Some(Box::new(proof(of)));
    let branch = Branch { head: head(), slots: vec![linked], stable: stable_proof };
    golden.peer(Message::Branch(branch.clone()), &[]);
    golden.peer(Message::Branch(Branch { stable: None, ..branch }), &[]);
    for part in state_parts() {
        let (at, bytes) = (stable(), b("piece"));
        let chunk = StateChunk { at, digests: digests(), part, of: 8, bytes };
        golden.peer(Message::State(chunk), &[part.named()]);
    }
}

fn add_views(golden: &mut Golden, of: &Membership) {
    for resigns in [true, false] {
        golden.peer(Message::Suspect(say(of, PRIMARY, Suspect { view: VIEW, resigns })), &[]);
    }
    let mut changes = view_changes(of);
    let (others, change) = (changes.split_off(1), changes.remove(0));
    let suspects = vec![say(of, 3, Suspect { view: VIEW, resigns: false })];
    let proof = evidence(of).into_iter().next().map(Box::new);
    let campaign = Campaign { change, suspects, proof, others };
    golden.peer(Message::Campaign(Box::new(campaign.clone())), &[]);
    golden.peer(Message::Campaign(Box::new(Campaign { proof: None, ..campaign })), &[]);
    golden.peer(Message::NewView(new_view(of)), &[]);
    for evidence in evidence(of) {
        let kind = evidence.named();
        golden.peer(Message::Evidence(Box::new(evidence)), &[kind]);
    }
}

// ---- what else goes to a replica ----

fn add_to_replica(golden: &mut Golden, of: &Membership) {
    let (replica, client) = (Origin::Replica(ReplicaId(1)), Origin::Client(client_id(9)));
    for (origin, its_key, transport) in
        [(replica, key(2), Transport::Encrypted), (client, key(9), Transport::Plain)]
    {
        let versions = WireVersions { lowest: 12, newest: 13 };
        let knock = KnockBody { versions, origin, to: ReplicaId(3), transport };
        let knock = sign_knock(&its_key, of.genesis(), knock);
        golden.add(ToReplica::Knock(knock), &[origin.named(), transport.named()]);
        let (nonce, own_nonce) = ([0x81; 32], [0x82; 32]);
        let hello =
            HelloBody { origin, to: ReplicaId(3), nonce, instance: 7, own_nonce, version: 13 };
        let hello = sign_hello(&its_key, of.genesis(), hello);
        golden.add(ToReplica::Hello(hello), &[origin.named()]);
    }
    golden.add(ToReplica::Terms(terms()), &[]);
    golden.add(ToReplica::Part(part()), &[]);
    for request in requests(of) {
        let level = request.body().level.named();
        golden.add(ToReplica::Request(request), &[level]);
    }
    for (level, past) in [(Level::Weak, None), (Level::Strong, None), (Level::Weak, Some(past()))] {
        let (session, nonce, operations) = (name().session, [0x83; 16], vec![b("get"), b("")]);
        let query = Query { session, nonce, level, after: STABLE, past, operations };
        golden.add(ToReplica::Query(query), &[level.named()]);
    }
    golden.add(ToReplica::AskSession(name().session), &[]);
    golden.add(ToReplica::AskStatus(11), &[]);
    golden.add(ToReplica::AskEvidence, &[]);
    golden.add(ToReplica::AskState, &[]);
    golden.add(ToReplica::AskPiece { at: stable(), index: 12 }, &[]);
}

fn part() -> Part {
    Part { is_first: true, is_last: false, bytes: b("the first piece") }
}

// ---- what a replica says to whoever dialled it ----

fn add_opening(golden: &mut Golden, of: &Membership) {
    golden.add(
        ToClient::Challenge(Challenge {
            versions: WireVersions { lowest: 12, newest: 13 },
            genesis: *of.genesis(),
            replica: ReplicaId(3),
            nonce: [0x81; 32],
        }),
        &[],
    );
    let farewells = [
        Farewell::NotAdmitted,
        Farewell::TooManyConnections,
        Farewell::Misbehaviour,
        Farewell::TooSlow,
        Farewell::SettingsDiffer,
        Farewell::Stopping,
        Farewell::SecondProcess,
        Farewell::OtherTransport(Transport::Plain),
    ];
    for farewell in farewells {
        golden.add(ToClient::Farewell(farewell), &[farewell.named()]);
    }
    golden.add(ToClient::Terms(terms()), &[]);
    golden.add(ToClient::Welcome, &[]);
    let greeting = Greeting { to: ReplicaId(1), nonce: [0x82; 32] };
    golden.add(ToClient::Greeting(say(of, 3, greeting)), &[]);
    let message = Message::Commit(say(of, 1, commit()));
    let kind = message.named();
    golden.add(ToClient::Peer(message), &[kind]);
    golden.add(ToClient::Part(part()), &[]);
}

/// Three replies of a replica under one signature.
fn replies(of: &Membership, by: u8, kind: ReplyKind, results: &Results) -> Vec<SignedReply> {
    let reply = |number| Reply {
        kind,
        view: VIEW,
        slot: HEAD,
        hash: head().hash,
        name: RequestName { number: RequestNumber(number), ..name() },
        request: hash(0x91),
        index: 4,
        results: results.clone(),
    };
    let replies = vec![reply(3), reply(4), reply(5)];
    sign_replies(&key(by + 1), of.genesis(), ReplicaId(by), replies)
}

fn results() -> Results {
    Results::Full(vec![b("done"), b("")])
}

fn add_answers(golden: &mut Golden, of: &Membership) {
    for (kind, results) in [
        (ReplyKind::Speculative, results()),
        (ReplyKind::Committed, Results::Forgotten(hash(0x92))),
    ] {
        let replies = replies(of, 1, kind, &results);
        golden.add(ToClient::Replies(replies), &[kind.named(), results.named()]);
    }
    let reply = |from, positions| QueryReply {
        view: VIEW,
        session: name().session,
        query: hash(0x93),
        from,
        to: HEAD,
        positions,
        results: vec![b("so it is"), b("")],
    };
    let replies = vec![reply(STABLE, vec![stable(), head()]), reply(HEAD, Vec::new())];
    let replies = sign_replies(&key(2), of.genesis(), ReplicaId(1), replies);
    golden.add(ToClient::QueryReplies(replies), &[]);
    for why in [NoReply::Unable, NoReply::NotYet, NoReply::Unknown] {
        golden.add(ToClient::NoQueryReply(name().session, hash(0x93), why), &[why.named()]);
    }
    let reasons = [
        RefusalReason::SessionRetired,
        RefusalReason::WindowExceeded,
        RefusalReason::SessionTooFar,
        RefusalReason::NameUsed,
        RefusalReason::ResultForgotten,
        RefusalReason::HistoryFull,
        RefusalReason::UnknownClient,
    ];
    for reason in reasons {
        let refusal = Refusal { name: name(), request: hash(0x91), reason };
        golden.add(ToClient::Refusal(say(of, 1, refusal)), &[reason.named()]);
    }
    golden.add(ToClient::Busy(name()), &[]);
    let report = SessionReport {
        client: name().client,
        session: name().session,
        executed_through: RequestNumber(9),
        has_left: true,
        opening: SessionId(5),
    };
    golden.add(ToClient::Session(say(of, 1, report)), &[]);
}

fn add_told(golden: &mut Golden, of: &Membership) {
    for (standing, disk) in [
        (Standing::Voter, DiskHealth::Sound),
        (Standing::New, DiskHealth::Full),
        (Standing::Observer, DiskHealth::Damaged("a table".to_owned())),
    ] {
        let within = [standing.named(), disk.named()];
        let status = NodeStatus { standing, disk, ..node_status() };
        golden.add(ToClient::Status(Box::new(say(of, 1, status))), &within);
    }
    let pace = Pace { sync: None, patience: 160, others: Vec::new() };
    let status = NodeStatus { campaign: None, lock: None, transfer: None, pace, ..node_status() };
    golden.add(ToClient::Status(Box::new(say(of, 1, status))), &[]);

    let evidence = evidence(of);
    let kinds: Vec<&str> = evidence.iter().map(Named::named).collect();
    golden.add(ToClient::Evidence(evidence), &kinds);
    golden.add(ToClient::State(Some(Box::new(state_head(of)))), &[]);
    golden.add(ToClient::State(None), &[]);
    for lent in [Lent::Piece(b("piece")), Lent::Later, Lent::Gone] {
        let kind = lent.named();
        golden.add(ToClient::Piece { at: stable(), index: 12, lent }, &[kind]);
    }
}

fn node_status() -> NodeStatus {
    let (slot, certified, own) = (Slot(2), hash(0xa1), hash(0xa2));
    let (here, there) = (Some("1024".to_owned()), None);
    let settings = vec![Difference { name: "value_bytes".to_owned(), here, there }];
    let (not_there, not_here) = (vec![client_id(9)], vec![client_id(8)]);
    let turnaround = Turnaround { of: ReplicaId(2), round_trip: Some(700), sync: Some(2600) };
    NodeStatus {
        nonce: 11,
        standing: Standing::Voter,
        quarantined: true,
        mismatches: vec![MismatchReport { slot, certified, own }],
        view: VIEW,
        primary: ReplicaId(PRIMARY),
        campaign: Some(View(5)),
        head: head(),
        lock: Some((VIEW, head())),
        stable: STABLE,
        state: hash(0xa3),
        sessions: 4,
        pending: 5,
        divergent: vec![ReplicaId(3)],
        evidence: 6,
        transport: Transport::Plain,
        disk: DiskHealth::Sound,
        transfer: Some(Transferring { slot: Slot(9), pieces: 2, of: Some(3), bytes: 4 }),
        refused: vec![(ReplicaId(1), 7)],
        doubled: vec![Origin::Replica(ReplicaId(2)), Origin::Client(client_id(9))],
        clocks: vec![(ReplicaId(0), -3_600_000), (ReplicaId(1), 12)],
        clock_tolerance_ms: 5000,
        disagreements: vec![Disagreement { replica: ReplicaId(3), settings }],
        other_lists: vec![OtherList { replica: ReplicaId(2), not_there, not_here }],
        edition: Edition { protocol: 1, application: 2 },
        editions: Editions {
            lowest: Edition { protocol: 1, application: 1 },
            newest: Edition { protocol: 1, application: 3 },
        },
        common_edition: Edition { protocol: 1, application: 2 },
        pace: Pace { sync: Some(2500), patience: 160, others: vec![turnaround] },
        counters: vec![("busy".to_owned(), 8)],
    }
}

// ---- what is stored ----

fn add_history(golden: &mut Golden, of: &Membership) {
    for has_order in [true, false] {
        let (entry, at) = (entry(of, has_order), head());
        golden.add(Record::Slot { slot: at.slot, hash: at.hash, entry: entry.clone() }, &[]);
        let linked = Linked { previous: hash(0x77), entry };
        golden.add(Record::Aside(Aside { at, linked }), &[]);
    }
    golden.add(Record::Lock(lock(of)), &[]);
    golden.add(Record::Stable(Box::new(proof(of))), &[]);
    let entered = EnteredView { new_view: new_view(of), entry_slot: HEAD };
    for (entered, ground, lock) in [
        (Some(entered), Ground::Common(STABLE), Some(lock(of))),
        (None, Ground::State(Box::new(state_head(of))), None),
    ] {
        let (kind, slots) = (ground.named(), vec![hash(0xb1), hash(0xb2)]);
        let adopted = Adopted { entered, ground, slots, lock, voted: Slot(5) };
        golden.add(Record::Adopted(Box::new(adopted)), &[kind]);
    }
    golden.add(Record::Orphans { add: requests(of), remove: vec![hash(0xb3)] }, &[]);
}

fn add_states(golden: &mut Golden, of: &Membership) {
    golden.add(Record::Fetching(Box::new(state_head(of))), &[]);
    let at = stable();
    for part in state_parts() {
        golden.add(Record::Piece { at, part, bytes: b("piece") }, &[part.named()]);
    }
    let fetched = vec![(b("key"), b("value"))];
    golden.add(Record::Rows { at, rows: fetched, whole: true }, &[]);
    golden.add(Record::Settling { at, first: true, changes: rows() }, &[]);
    let pieces = state_parts().map(|part| (part, b("piece"))).to_vec();
    let settled = Settled { head: state_head(of), pieces, changes: rows() };
    golden.add(Record::Settled(Box::new(settled)), &[]);
    let requests = vec![hash(0xb4), hash(0xb5)];
    let last = LastSlot { previous: hash(0x77), choices: choices(), requests };
    golden.line(&["LastSlot"], &last);
}

fn add_doubts(golden: &mut Golden, of: &Membership) {
    for evidence in evidence(of) {
        let kind = evidence.named();
        golden.add(Record::Evidence(Box::new(evidence)), &[kind]);
    }
    for standing in [Standing::Voter, Standing::New, Standing::Observer] {
        golden.add(Record::Standing(standing), &[standing.named()]);
    }
    let lives = BTreeMap::from([0, 3].map(|id| (ReplicaId(id), Life([id + 1; 16]))));
    golden.add(Record::Lives(lives), &[]);
    let own = StateDigests { application: hash(0xb6), ..digests() };
    golden.add(Record::Mismatches(vec![Mismatch { certified: proof(of), own }]), &[]);
    golden.add(Record::Stamps(99), &[]);
}

fn receipt(of: &Membership) -> Receipt {
    let first = |by| replies(of, by, ReplyKind::Committed, &results()).remove(0);
    let votes = [0, 2, 3].map(|by| first(by).vote).to_vec();
    Receipt { genesis: *of.genesis(), reply: first(0).reply, votes }
}

/// All of it.
fn golden() -> Golden {
    let (of, mut golden) = (cluster("frames"), Golden::default());
    golden.text = format!("wire version {}\n", WireVersions::OWN.newest);
    add_ordering(&mut golden, &of);
    add_fetching(&mut golden, &of);
    add_views(&mut golden, &of);
    add_to_replica(&mut golden, &of);
    add_opening(&mut golden, &of);
    add_answers(&mut golden, &of);
    add_told(&mut golden, &of);
    add_history(&mut golden, &of);
    add_states(&mut golden, &of);
    add_doubts(&mut golden, &of);
    golden.line(&["Receipt"], &receipt(&of));
    golden
}

// ---- what is asked of it ----

/// Where lines have changed.
const WHAT_TO_DO: &str = "\
Where a frame is not what programs of this version send and read, raise WireVersions::OWN \
(protocol/src/message/wire.rs), and keep the old file as frames-N.txt if its version N is still \
spoken; where a record is not what they store, raise FORMAT (replica/src/store/layout.rs). \
Knock, Challenge, Farewell and Receipt are the same in all versions. \
Then write the new lines with UPDATE_EXPECT=1.";

/// What the file of a wire version holds, line by line: kinds and bytes.
fn file(version: u32) -> Vec<(String, Vec<u8>)> {
    let name = match version == WireVersions::OWN.newest {
        true => "frames.txt".to_owned(),
        false => format!("frames-{version}.txt"),
    };
    let path = format!("{}/tests/words/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("version {version} is spoken, but {path}: {error}"));
    let (first, rest) = text.split_once('\n').expect("more than a line");
    assert_eq!(first, format!("wire version {version}"), "{path}");
    let byte = |pair: &[u8]| str::from_utf8(pair).ok().and_then(unhex).map(|[byte]: [u8; 1]| byte);
    let read = |line: &str| {
        let (kinds, hex) = line.split_once(' ')?;
        let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
        Some((kinds.to_owned(), bytes?))
    };
    rest.lines().map(|line| read(line).unwrap_or_else(|| panic!("{path}: {line}"))).collect()
}

fn read_and_written<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<Bytes, CodecError> {
    encode(&decode::<T>(bytes)?)
}

#[test]
fn a_line_shows_every_kind_there_is() {
    let all: BTreeSet<&str> = KINDS.iter().copied().chain(LONE).collect();
    let shown = golden().shown;
    let missing: Vec<_> = all.difference(&shown).collect();
    assert!(missing.is_empty(), "no line shows {missing:?}");
    assert_eq!(shown, all);
}

#[test]
fn frames_and_records_are_encoded_as_their_version_says() {
    let (file, text) = (expect_file!["frames.txt"], golden().text);
    let before = file.data();
    let [old, new] = [&before, &text].map(|text| text.lines().collect::<BTreeSet<_>>());
    // The bytes of a line say little, and there are many.
    let names = |line: &&str| line.split(' ').next().unwrap_or_default().to_owned();
    let other: BTreeSet<String> = old.symmetric_difference(&new).map(names).collect();
    let is_meant = env::var_os("UPDATE_EXPECT").is_some();
    assert!(before == text || is_meant, "frames.txt has other lines: {other:?}. {WHAT_TO_DO}");
    file.assert_eq(&text);
}

#[test]
fn frames_of_all_versions_spoken_are_read_and_written_as_they_are() {
    for version in WireVersions::OWN.lowest..=WireVersions::OWN.newest {
        for (kinds, bytes) in file(version) {
            let outermost = kinds.split("::").next().expect("the first of a split");
            let again = match outermost {
                "ToReplica" => read_and_written::<ToReplica>(&bytes),
                "ToClient" => read_and_written::<ToClient>(&bytes),
                // What is stored has a version of its own, and the old files are not about that.
                "Record" if version < WireVersions::OWN.newest => continue,
                "Record" => read_and_written::<Record>(&bytes),
                "LastSlot" => read_and_written::<LastSlot>(&bytes),
                "Receipt" => read_and_written::<Receipt>(&bytes),
                other => panic!("{other} is nothing that travels or is stored"),
            };
            let again = again.unwrap_or_else(|error| panic!("{version}, {kinds}: {error}"));
            assert_eq!(hex(&again), hex(&bytes), "{version}, {kinds}");
        }
    }
}

/// Or the file would show how things look that nobody sends.
#[test]
fn what_the_file_holds_is_let_in() {
    let of = cluster("frames");
    for (kinds, bytes) in file(WireVersions::OWN.newest) {
        if kinds.starts_with("ToReplica::Peer") {
            let Ok(ToReplica::Peer(message)) = decode(&bytes) else { panic!("{kinds}") };
            of.open_message(message).unwrap_or_else(|why| panic!("{kinds}: {why}"));
        } else if kinds.starts_with("ToReplica::Request") {
            let Ok(ToReplica::Request(request)) = decode(&bytes) else { panic!("{kinds}") };
            of.open_request(request).unwrap_or_else(|why| panic!("{kinds}: {why}"));
        } else if kinds == "Receipt" {
            let receipt: Receipt = decode(&bytes).expect("a receipt");
            assert_eq!(receipt.verify(&of), Ok(Proven::Final));
        }
    }
}
