//! What travels and what is stored.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use elea_fault_injection::rng::Rng;
use elea_protocol::codec::{self, Canonical, encode};
use elea_protocol::edition::Editions;
use elea_protocol::evidence::Evidence;
use elea_protocol::id::{
    ClientId, Digest, ReplicaId, RequestName, RequestNumber, SessionId, Slot, View, WallTime,
};
use elea_protocol::membership::Membership;
use elea_protocol::message::{
    Campaign, Certificate, Checkpoint, Commit, CommitCertificate, Fetch, Level, Message, NewView,
    NewViewHeader, NonDeterminism, Order, OrderHeader, Parts, Past, Position, Query, QueryReply,
    Reply, ReplyKind, Request, Results, SignedQueryReply, SignedRequest, SlotEntry, Slots,
    StableProof, StateChunk, StateDigests, StatePart, Status, Suspect, ToClient, ToReplica,
    ViewChange, Wanted, changes_digest,
};
use elea_protocol::receipt::Receipt;
use elea_protocol::replica::Record;
use elea_protocol::seal::{sign, sign_replies};
use elea_protocol::signature::{Claim, PublicKey, Scheme, SecretKey, Signature, Signed};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Takes every signature for right: what lies behind their check is looked at, too.
struct Gullible;

impl Scheme for Gullible {
    fn verify(&self, _: &Claim) -> bool {
        true
    }

    fn is_sound(&self, _: &PublicKey) -> bool {
        true
    }
}

fn cluster() -> Membership {
    let keys = (0..4).map(|id| PublicKey([id; 32])).collect();
    Membership::new("fuzzed", 1, keys, None, Arc::new(Gullible)).expect("a sound cluster")
}

/// What can be read can be written, and reads as the same.
fn reads<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let value = codec::decode::<T>(bytes).ok()?;
    let again = encode(&value).expect("what was read fits a frame");
    assert_eq!(codec::decode::<T>(&again).as_ref(), Ok(&value));
    Some(value)
}

fn open(cluster: &Membership, message: Message) {
    let kind = message.kind();
    if let Ok(open) = cluster.open_message(message) {
        assert_eq!(open.kind(), kind);
    }
}

/// What comes in at a replica.
pub(crate) fn to_replica(bytes: &[u8]) {
    let cluster = cluster();
    match reads(bytes) {
        Some(ToReplica::Peer(message)) => open(&cluster, message),
        Some(ToReplica::Request(request)) => drop(cluster.open_request(request)),
        Some(ToReplica::Hello(hello)) => {
            let nonce = hello.body.nonce;
            let _ = cluster.open_hello(hello, ReplicaId(0), &nonce);
        }
        Some(ToReplica::Knock(knock)) => drop(cluster.open_knock(knock, ReplicaId(0))),
        Some(ToReplica::Terms(terms)) => drop(terms.check()),
        Some(ToReplica::Part(part)) => drop(Parts::default().push(&part)),
        Some(ToReplica::Query(query)) => drop(query.check()),
        Some(
            ToReplica::AskSession(_)
            | ToReplica::AskStatus(_)
            | ToReplica::AskEvidence
            | ToReplica::AskState
            | ToReplica::AskPiece { .. },
        )
        | None => {}
    }
}

/// What a replica sends to whoever dialled it.
pub(crate) fn to_client(bytes: &[u8]) {
    let cluster = cluster();
    match reads(bytes) {
        Some(ToClient::Peer(message)) => open(&cluster, message),
        Some(ToClient::Replies(replies)) => {
            replies.into_iter().for_each(|reply| drop(cluster.open_reply(reply)));
        }
        Some(ToClient::QueryReplies(replies)) => replies.into_iter().for_each(|reply| {
            drop(cluster.open_reply(reply));
        }),
        Some(ToClient::Terms(terms)) => drop(terms.check()),
        Some(ToClient::Greeting(greeting)) => drop(cluster.open(greeting)),
        Some(ToClient::Refusal(refusal)) => drop(cluster.open(refusal)),
        Some(ToClient::Session(report)) => drop(cluster.open(report)),
        Some(ToClient::Status(status)) => drop(cluster.open(*status)),
        Some(ToClient::Evidence(all)) => {
            all.into_iter().for_each(|evidence| drop(cluster.open_evidence(evidence)));
        }
        Some(ToClient::Part(part)) => drop(Parts::default().push(&part)),
        Some(ToClient::State(Some(head))) => drop(cluster.open_state_head(*head)),
        Some(
            ToClient::Challenge(_)
            | ToClient::Welcome
            | ToClient::Farewell(_)
            | ToClient::Busy(_)
            | ToClient::NoQueryReply(..)
            | ToClient::State(None)
            | ToClient::Piece { .. },
        )
        | None => {}
    }
}

/// Records and their parts.
pub(crate) fn stored(bytes: &[u8]) {
    let _ = reads::<Record>(bytes);
    let _ = reads::<SlotEntry>(bytes);
    if let Some(proof) = reads::<StableProof>(bytes) {
        let _ = cluster().open_stable(proof);
    }
    if let Some(certificate) = reads::<CommitCertificate>(bytes) {
        let _ = cluster().open_certificate(certificate);
    }
    if let Some(evidence) = reads::<Evidence>(bytes) {
        let _ = cluster().open_evidence(evidence);
    }
}

/// A receipt of whoever shows one.
pub(crate) fn receipt(bytes: &[u8]) {
    let Some(mut receipt) = reads::<Receipt>(bytes) else { return };
    let cluster = cluster();
    let _ = receipt.verify(&cluster);
    receipt.genesis = *cluster.genesis();
    let _ = receipt.verify(&cluster);
}

// ---- to begin with ----

/// Says some of everything.
struct Speaker {
    cluster: Membership,
    key: SecretKey,
    rng: Rng,
}

impl Speaker {
    fn new() -> Self {
        Self { cluster: cluster(), key: SecretKey::from_bytes(&[1; 32]), rng: Rng::new(1) }
    }

    fn sign<T: Canonical>(&self, body: T) -> Signed<T> {
        sign(&self.key, self.cluster.genesis(), ReplicaId(1), body).into_inner()
    }

    fn hash(&mut self) -> Digest {
        Digest(self.rng.bytes())
    }

    fn request(&self) -> Arc<SignedRequest> {
        let body = Request {
            client: ClientId([5; 32]),
            session: SessionId(1),
            number: RequestNumber(1),
            level: Level::Weak,
            want_final: true,
            operations: vec![Bytes::from_static(b"put k v")],
        };
        let next = Request { number: body.number.next(), ..body.clone() };
        SignedRequest::sign_all(&self.key, self.cluster.genesis(), vec![body, next]).remove(0)
    }

    fn certificate<V>(&self, body: V) -> Certificate<V> {
        let votes: BTreeMap<_, _> = (0..3).map(|id| (ReplicaId(id), Signature([id; 64]))).collect();
        Certificate { body, votes }
    }

    fn proof(&mut self) -> StableProof {
        let (view, slot, hash, state) = (View(1), Slot(8), self.hash(), self.hash());
        let checkpoint = self.certificate(Checkpoint { view, slot, hash, state });
        StableProof { checkpoint, cover: self.certificate(Commit { view, slot, hash }) }
    }

    fn messages(&mut self) -> Vec<Message> {
        let (view, slot, hash) = (View(1), Slot(9), self.hash());
        let head = Position { slot, hash };
        let choices =
            NonDeterminism { time: WallTime(7), seed: [3; 16], ..NonDeterminism::default() };
        let request = self.request();
        let batch = self.hash();
        let header = OrderHeader { view, slot, hash, batch };
        let order = Order { header, choices, requests: vec![request.digest()] };
        let order = self.sign(order);
        let lock = self.certificate(Commit { view, slot, hash });
        let change = self.sign(ViewChange {
            view: View(2),
            campaign: View(2),
            entered: view,
            lock: Some(lock.clone()),
            stable: Slot(8),
            head,
            stamp: 4,
        });
        let changes = vec![change.clone()];
        let (digest, state) = (changes_digest(&changes), self.hash());
        let new_view = NewViewHeader { view: View(2), head, changes: digest };
        let entry = SlotEntry { choices, requests: vec![request], order: Some(order.clone()) };
        let slots = Slots { from: slot, entries: vec![entry], certificate: Some(lock.clone()) };
        let status = Status {
            entered: view,
            campaign: None,
            head,
            lock: Some((view, head)),
            stable: Slot(8),
            convicted: 0,
            clients: self.hash(),
            newest_edition: Editions::with(1..=1).newest,
            common_edition: Editions::with(1..=1).newest,
            wall: WallTime(9),
            stamp: 5,
        };
        let other = OrderHeader { hash: self.hash(), ..header };
        let evidence = Evidence::Orders(self.sign(header), self.sign(other));
        let digests = StateDigests { application: self.hash(), sessions: self.hash() };
        vec![
            Message::Order(order),
            Message::Commit(self.sign(Commit { view, slot, hash })),
            Message::Certificate(lock),
            Message::Checkpoint(self.sign(Checkpoint { view, slot, hash, state })),
            Message::Stable(Box::new(self.proof())),
            Message::Status(self.sign(status)),
            Message::Fetch(self.sign(Fetch {
                wanted: Wanted::Slots { from: slot },
                room: 1 << 16,
                stamp: 6,
            })),
            Message::Slots(slots),
            Message::State(StateChunk {
                at: head,
                digests,
                part: StatePart::Application(0),
                of: 2,
                bytes: Bytes::from_static(b"piece"),
            }),
            Message::Suspect(self.sign(Suspect::of(view))),
            Message::Campaign(Box::new(Campaign {
                change,
                suspects: vec![self.sign(Suspect::of(view))],
                proof: None,
                others: Vec::new(),
            })),
            Message::NewView(self.sign(NewView { header: new_view, changes })),
            Message::Evidence(Box::new(evidence)),
        ]
    }

    fn replies(&mut self) -> Vec<elea_protocol::message::SignedReply> {
        let reply = |number| Reply {
            kind: ReplyKind::Committed,
            view: View(1),
            slot: Slot(9),
            hash: Digest([4; 32]),
            name: RequestName {
                client: ClientId([5; 32]),
                session: SessionId(1),
                number: RequestNumber(number),
            },
            request: Digest([6; 32]),
            index: 0,
            results: Results::Full(vec![Bytes::from_static(b"done")]),
        };
        let replies = vec![reply(1), reply(2), reply(3)];
        sign_replies(&self.key, self.cluster.genesis(), ReplicaId(1), replies)
    }

    fn query_replies(&self) -> Vec<SignedQueryReply> {
        let reply = |number: u8| QueryReply {
            view: View(2),
            session: SessionId(1),
            query: Digest([number; 32]),
            from: Slot(3),
            to: Slot(5),
            positions: vec![Position { slot: Slot(4), hash: Digest([number; 32]) }],
            results: vec![Bytes::from_static(b"so it is")],
        };
        let replies = vec![reply(1), reply(2)];
        sign_replies(&self.key, self.cluster.genesis(), ReplicaId(1), replies)
    }
}

fn all_encoded<T: Serialize>(values: impl IntoIterator<Item = T>) -> Vec<Vec<u8>> {
    values.into_iter().map(|value| encode(&value).expect("small").to_vec()).collect()
}

pub(crate) fn of_replicas() -> Vec<Vec<u8>> {
    let mut speaker = Speaker::new();
    let messages = speaker.messages().into_iter().map(ToReplica::Peer);
    let mut seeds = all_encoded(messages);
    let mut past = Past::default();
    past.note_read(Position { slot: Slot(3), hash: Digest([3; 32]) });
    assert!(past.note_written(ClientId([1; 32]), SessionId(1), RequestNumber(2)));
    let query = Query {
        session: SessionId(1),
        nonce: [9; 16],
        level: Level::Strong,
        after: Slot(3),
        past: Some(past),
        operations: vec![Bytes::from_static(b"get k")],
    };
    let of_clients =
        [ToReplica::Request(speaker.request()), ToReplica::AskStatus(3), ToReplica::Query(query)];
    seeds.extend(all_encoded(of_clients));
    seeds
}

pub(crate) fn of_clients() -> Vec<Vec<u8>> {
    let mut speaker = Speaker::new();
    let replies = speaker.replies();
    let peer = speaker.messages().into_iter().map(ToClient::Peer).take(1);
    let to_queries = ToClient::QueryReplies(speaker.query_replies());
    let words = [ToClient::Replies(replies), ToClient::Welcome, to_queries];
    all_encoded(words.into_iter().chain(peer))
}

pub(crate) fn of_disks() -> Vec<Vec<u8>> {
    let mut speaker = Speaker::new();
    let proof = speaker.proof();
    let entry = SlotEntry {
        choices: NonDeterminism { time: WallTime(7), seed: [3; 16], ..NonDeterminism::default() },
        requests: vec![speaker.request()],
        order: None,
    };
    let slot = Record::Slot { slot: Slot(1), hash: speaker.hash(), entry: entry.clone() };
    let mut seeds = all_encoded([
        Record::Stable(Box::new(proof.clone())),
        Record::Lock(proof.cover.clone()),
        slot,
    ]);
    seeds.extend(all_encoded([proof]));
    seeds.extend(all_encoded([entry]));
    seeds
}

pub(crate) fn receipts() -> Vec<Vec<u8>> {
    let mut speaker = Speaker::new();
    let signed = speaker.replies().remove(0);
    let votes = (0..3)
        .map(|by| elea_protocol::message::ReplyVote { by: ReplicaId(by), ..signed.vote.clone() });
    let genesis = *speaker.cluster.genesis();
    all_encoded([Receipt { genesis, reply: signed.reply, votes: votes.collect() }])
}
