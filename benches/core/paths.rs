//! The hot paths.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use elea_kv::{Command as _, KeyValueStore, Put};
use elea_protocol::application::{Application as _, Context};
use elea_protocol::codec;
use elea_protocol::edition::Editions;
use elea_protocol::history;
use elea_protocol::id::{
    ClientId, Digest, ReplicaId, RequestNumber, SessionId, Slot, View, WallTime,
};
use elea_protocol::message::{
    Batch, Level, NonDeterminism, Reply, ReplyKind, Results, SignedRequest, SlotEntry, ToReplica,
};
use elea_protocol::replica::Record;
use elea_protocol::seal::{Verified, sign_replies};
use elea_protocol::signature::SecretKey;
use elea_replica::{Durability, Store};

use super::loopback::Loopback;

/// Something that a replica does for each request, slot or checkpoint.
pub struct Path {
    pub name: &'static str,
    /// Makes ready; what it answers does it once.
    pub start: fn() -> Box<dyn FnMut()>,
}

/// As many requests as a slot has under load.
const SLOT: u64 = 32;

pub const PATHS: &[Path] = &[
    Path { name: "codec: encode a request", start: encode },
    Path { name: "codec: decode a request", start: decode },
    Path { name: "seal: check a batch of 32 requests", start: check_together },
    Path { name: "seal: check a request that is signed alone", start: check_alone },
    Path { name: "seal: sign 32 replies", start: sign },
    Path { name: "history: hash a slot of 32 requests", start: hash },
    Path { name: "kv: put over a value", start: || put(|count| count % 1000) },
    Path { name: "kv: put a new key", start: || put(|count| count) },
    Path { name: "kv: execute and undo a slot of 32 puts", start: undo },
    Path { name: "kv: digest after 32 puts", start: digest },
    Path { name: "core: 4 replicas, a slot of 32 weak requests", start: || core(Level::Weak) },
    Path { name: "core: 4 replicas, a slot of 32 strong requests", start: || core(Level::Strong) },
    Path { name: "store: commit a slot of 32 requests", start: store },
];

/// A slot's requests, as they come: nothing about them is known yet.
fn unknown(requests: &[Arc<SignedRequest>]) -> Vec<Arc<SignedRequest>> {
    let copy = |request: &Arc<SignedRequest>| {
        let (body, path) = (request.body().clone(), request.path().clone());
        Arc::new(SignedRequest::from_parts(body, *request.signature(), path))
    };
    requests.iter().map(copy).collect()
}

fn requests(numbers: Range<u64>) -> (Loopback, Vec<Arc<SignedRequest>>) {
    let loopback = Loopback::new();
    let requests = loopback.requests(Level::Strong, numbers);
    (loopback, requests)
}

fn wire() -> ToReplica {
    let (_, requests) = requests(1..SLOT + 1);
    let [first, ..] = &requests[..] else { unreachable!("a slot has requests") };
    ToReplica::Request(Arc::clone(first))
}

fn encode() -> Box<dyn FnMut()> {
    let message = wire();
    Box::new(move || drop(black_box(codec::encode(&message).expect("it can be encoded"))))
}

fn decode() -> Box<dyn FnMut()> {
    let bytes = codec::encode(&wire()).expect("it can be encoded");
    Box::new(move || drop(black_box(codec::decode::<ToReplica>(&bytes).expect("it was encoded"))))
}

fn check_together() -> Box<dyn FnMut()> {
    let (loopback, requests) = requests(1..SLOT + 1);
    Box::new(move || {
        let membership = &loopback.membership;
        let read = |request| membership.read_request(request).expect("it is well-formed");
        let opened = membership.open_all(unknown(&requests).into_iter().map(read).collect());
        assert!(opened.iter().all(Result::is_ok), "they verify");
    })
}

fn check_alone() -> Box<dyn FnMut()> {
    let (loopback, requests) = requests(1..2);
    Box::new(move || {
        for request in unknown(&requests) {
            black_box(loopback.membership.open_request(request).expect("it verifies"));
        }
    })
}

fn sign() -> Box<dyn FnMut()> {
    let (loopback, requests) = requests(1..SLOT + 1);
    let key = SecretKey::from_bytes(&[1; 32]);
    let answer = |(index, request): (u32, &Arc<SignedRequest>)| Reply {
        kind: ReplyKind::Committed,
        view: View(0),
        slot: Slot(1),
        hash: Digest([1; 32]),
        name: request.body().name(),
        request: request.digest(),
        index,
        results: Results::Full(vec![Bytes::from_static(b"a result")]),
    };
    let replies: Vec<Reply> = (0..).zip(&requests).map(answer).collect();
    Box::new(move || {
        let genesis = loopback.membership.genesis();
        drop(black_box(sign_replies(&key, genesis, ReplicaId(0), replies.clone())));
    })
}

/// What a primary chooses for a slot.
const CHOICES: NonDeterminism =
    NonDeterminism { time: WallTime(1), seed: [1; 16], edition: Editions::with(1..=1).newest };

fn hash() -> Box<dyn FnMut()> {
    let (_, requests) = requests(1..SLOT + 1);
    let batch = Batch { choices: CHOICES, requests };
    let mut head = Digest([0; 32]);
    Box::new(move || head = history::extend(&head, &batch.digest()))
}

/// A store that executes puts, slot by slot.
struct Puts {
    kv: KeyValueStore,
    slot: Slot,
    count: u64,
    key: fn(u64) -> u64,
}

impl Puts {
    /// With 10,000 keys in it.
    fn new(key: fn(u64) -> u64) -> Self {
        let mut puts =
            Self { kv: KeyValueStore::new(), slot: Slot::GENESIS, count: 0, key: |count| count };
        puts.slot(10_000);
        puts.kv.make_permanent(puts.slot);
        puts.kv.digest();
        Self { key, ..puts }
    }

    fn slot(&mut self, puts: u32) {
        self.slot = self.slot.next();
        for index in 0..puts {
            let key = (self.key)(self.count);
            self.count += 1;
            let context = Context {
                slot: self.slot,
                index,
                client: ClientId([1; 32]),
                session: SessionId(1),
                number: RequestNumber(self.count),
                time: WallTime(1),
                seed: [0; 16],
                level: Level::Weak,
                edition: 1,
            };
            let put = Put::new(format!("key{key}"), [b'v'; 100].to_vec()).encode();
            black_box(self.kv.execute(&context, &put));
        }
        self.kv.end_slot(self.slot);
    }
}

fn put(key: fn(u64) -> u64) -> Box<dyn FnMut()> {
    let mut puts = Puts::new(key);
    Box::new(move || {
        puts.slot(1);
        puts.kv.make_permanent(puts.slot);
    })
}

fn undo() -> Box<dyn FnMut()> {
    let mut puts = Puts::new(|count| count % 1000);
    Box::new(move || {
        let before = puts.slot;
        puts.slot(32);
        puts.kv.undo_to(before);
        puts.slot = before;
    })
}

fn digest() -> Box<dyn FnMut()> {
    let mut puts = Puts::new(|count| count % 1000);
    Box::new(move || {
        puts.slot(32);
        puts.kv.make_permanent(puts.slot);
        black_box(puts.kv.digest());
    })
}

fn core(level: Level) -> Box<dyn FnMut()> {
    let mut loopback = Loopback::free();
    let mut next = 1;
    Box::new(move || {
        // The client's part is in it: a body is hashed for the tree that it signs.
        let requests: Vec<Verified<_>> = loopback.checked(level, next..next + SLOT);
        next += SLOT;
        loopback.submit(requests);
    })
}

/// With the tables behind the log, and without waiting for the disk: that is no work of the processor.
fn store() -> Box<dyn FnMut()> {
    let folder = tempfile::tempdir().expect("a folder for a store");
    let (loopback, requests) = requests(1..SLOT + 1);
    let genesis = *loopback.membership.genesis();
    let opened = Store::open(folder.path(), &genesis, ReplicaId(0), Durability::Os);
    let (mut store, _) = opened.expect("a new store");
    let batch = Batch { choices: CHOICES, requests };
    let entry = SlotEntry { choices: CHOICES, requests: batch.requests.clone(), order: None };
    let mut slot = Slot::GENESIS;
    Box::new(move || {
        let _folder = &folder;
        slot = slot.next();
        let record = Record::Slot { slot, hash: batch.digest(), entry: entry.clone() };
        store.commit(&[record]).expect("it is written");
    })
}
