//! What the pure core costs: four replicas in one thread, without sockets, disk or checks of
//! signatures from outside. Signatures that replicas make themselves are real.
//!
//! `cargo bench --bench core`; figures are compared within one run only.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use elea_kv::{Command, KeyValueStore, Put};
use elea_protocol::id::{ClientId, Instant, Now, ReplicaId, RequestNumber, SessionId, WallTime};
use elea_protocol::membership::Membership;
use elea_protocol::message::{Level, Request, SignedRequest, ToClient};
use elea_protocol::replica::{Action, Event, Recovered, Replica, Setup, Target};
use elea_protocol::seal::Verified;
use elea_protocol::signature::{Ed25519, SecretKey, Signer};
use elea_protocol::tuning::Tuning;

/// Four cores; everything they send arrives at once, and every record is durable at once.
struct Loopback {
    membership: Arc<Membership>,
    replicas: Vec<Replica<KeyValueStore>>,
    queue: VecDeque<(usize, Event)>,
    now: Now,
    replies: usize,
}

impl Loopback {
    fn new() -> Self {
        let keys: Vec<SecretKey> = (1..=4).map(|n| SecretKey::from_bytes(&[n; 32])).collect();
        let public = keys.iter().map(Signer::public_key).collect();
        let membership = Membership::new("bench", 1, public, None, Arc::new(Ed25519::default()))
            .map(Arc::new)
            .expect("four sound keys");
        let mut tuning = Tuning::default();
        tuning.rules.session_window = 4096;
        let now = Now { instant: Instant(1), wall: WallTime(1) };
        let replicas = (0..)
            .zip(keys)
            .map(|(id, key)| {
                let setup = Setup {
                    id: ReplicaId(id),
                    membership: membership.clone(),
                    signer: Arc::new(key),
                    tuning,
                    seed: [id; 32],
                };
                let none = std::iter::empty::<Result<_, std::convert::Infallible>>();
                Replica::start(setup, KeyValueStore::new(), Recovered::default(), none, now)
                    .expect("an empty store is sound")
            })
            .collect();
        Self { membership, replicas, queue: VecDeque::new(), now, replies: 0 }
    }

    /// Signed and checked beforehand, as the shell's workers do.
    fn requests(&self, level: Level, count: u64) -> Vec<Verified<Arc<SignedRequest>>> {
        let key = SecretKey::from_bytes(&[9; 32]);
        let client = ClientId(key.public_key().0);
        (1..=count)
            .map(|number| {
                let body = Request {
                    client,
                    session: SessionId(1),
                    number: RequestNumber(number),
                    level,
                    want_final: false,
                    operations: vec![Put::new(format!("key{number}"), "value").encode()],
                };
                let signed = SignedRequest::sign(&key, self.membership.genesis(), body);
                self.membership.open_request(signed).expect("our own request verifies")
            })
            .collect()
    }

    fn run(&mut self) {
        let mut actions = Vec::new();
        while let Some((at, event)) = self.queue.pop_front() {
            self.now.instant.0 += 1;
            self.replicas[at].handle(self.now, event, &mut actions);
            for action in actions.drain(..) {
                match action {
                    Action::Append { mark, .. } => {
                        self.queue.push_back((at, Event::Synced(mark)));
                    }
                    Action::Send { to, message, .. } => {
                        let from = self.replicas[at].id();
                        let message = self
                            .membership
                            .open_message(message)
                            .expect("replicas send what verifies");
                        for other in 0..self.replicas.len() {
                            let hit = match to {
                                Target::Others => other != at,
                                Target::One(id) => usize::from(id.0) == other,
                            };
                            if hit {
                                let message = message.clone();
                                self.queue.push_back((other, Event::Peer { from, message }));
                            }
                        }
                    }
                    Action::Answer { message: ToClient::Replies(replies), .. } => {
                        self.replies += replies.len();
                    }
                    Action::Answer { .. } | Action::Accuse(_) => {}
                }
            }
        }
    }

    /// Every request reaches every replica; then everything happens that follows from it.
    fn submit(&mut self, requests: Vec<Verified<Arc<SignedRequest>>>) {
        let count = requests.len();
        for request in requests {
            for at in (0..self.replicas.len()).rev() {
                self.queue.push_back((at, Event::Request(request.clone())));
            }
        }
        self.run();
        assert!(self.replies >= 4 * count, "every replica answers every request");
    }
}

fn ordering(criterion: &mut Criterion) {
    for (level, name) in [(Level::Weak, "weak"), (Level::Strong, "strong")] {
        let mut group = criterion.benchmark_group(format!("four cores, {name}"));
        for count in [1, 64, 1024] {
            group.throughput(Throughput::Elements(count));
            group.bench_function(format!("{count} requests"), |bencher| {
                bencher.iter_batched(
                    || {
                        let loopback = Loopback::new();
                        let requests = loopback.requests(level, count);
                        (loopback, requests)
                    },
                    |(mut loopback, requests)| {
                        loopback.submit(requests);
                        loopback
                    },
                    BatchSize::LargeInput,
                );
            });
        }
        group.finish();
    }
}

fn signatures(criterion: &mut Criterion) {
    let loopback = Loopback::new();
    let request = loopback.requests(Level::Weak, 1).remove(0).into_inner();
    let fresh = || {
        let copy = SignedRequest::from_parts(
            request.body().clone(),
            *request.signature(),
            request.path().clone(),
        );
        Arc::new(copy)
    };
    criterion.bench_function("check a request's signature", |bencher| {
        bencher.iter_batched(
            fresh,
            |request| loopback.membership.open_request(request).expect("it verifies"),
            BatchSize::SmallInput,
        );
    });
    let key = SecretKey::from_bytes(&[9; 32]);
    let genesis = *loopback.membership.genesis();
    let body =
        Request { operations: vec![Bytes::from_static(b"operation")], ..request.body().clone() };
    criterion.bench_function("sign a request", |bencher| {
        bencher.iter(|| SignedRequest::sign(&key, &genesis, body.clone()));
    });
}

criterion_group!(benches, ordering, signatures);
criterion_main!(benches);
