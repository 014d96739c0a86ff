//! Four replicas in one thread, without sockets and disks: what they do for requests bounds what any shell around them
//! can reach. What signatures cost is measured apart, so here they can cost nothing.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use elea_kv::{Command, KeyValueStore, Put};
use elea_protocol::edition::Editions;
use elea_protocol::id::{
    ClientId, Digest, Instant, Now, ReplicaId, RequestNumber, SessionId, WallTime,
};
use elea_protocol::membership::Membership;
use elea_protocol::message::{Level, Request, SIGNED_TOGETHER_MAX, SignedRequest, ToClient};
use elea_protocol::replica::{Action, Event, Recovered, Replica, Setup, Target};
use elea_protocol::seal::Verified;
use elea_protocol::signature::{Claim, Ed25519, PublicKey, Scheme, SecretKey, Signature, Signer};
use elea_protocol::tuning::Tuning;

/// Four cores; everything they send arrives at once, and every record is durable at once.
pub struct Loopback {
    pub membership: Arc<Membership>,
    replicas: Vec<Replica<KeyValueStore>>,
    queue: VecDeque<(usize, Event)>,
    now: Now,
    replies: usize,
}

/// Signatures that cost nothing and are all good.
struct Free(PublicKey);

impl Signer for Free {
    fn public_key(&self) -> PublicKey {
        self.0
    }

    fn sign(&self, _: &Digest) -> Signature {
        Signature([0; 64])
    }

    fn sign_handshake(&self, _: &[u8]) -> Option<Signature> {
        None
    }
}

impl Scheme for Free {
    fn verify(&self, _: &Claim) -> bool {
        true
    }

    fn is_sound(&self, _: &PublicKey) -> bool {
        true
    }
}

impl Loopback {
    /// With signatures as they are.
    pub fn new() -> Self {
        Self::with(Arc::new(Ed25519::default()), |key| Arc::new(key))
    }

    /// With signatures that cost nothing.
    pub fn free() -> Self {
        Self::with(Arc::new(Free(PublicKey([0; 32]))), |key| Arc::new(Free(key.public_key())))
    }

    fn with(scheme: Arc<dyn Scheme>, signer: fn(SecretKey) -> Arc<dyn Signer>) -> Self {
        let keys: Vec<SecretKey> = (1..=4).map(|n| SecretKey::from_bytes(&[n; 32])).collect();
        let public = keys.iter().map(SecretKey::public_key).collect();
        let membership = Membership::new("bench", 1, public, None, scheme)
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
                    signer: signer(key),
                    tuning,
                    editions: Editions::with(1..=1),
                    seed: [id; 32],
                };
                let none = std::iter::empty::<Result<_, std::convert::Infallible>>();
                Replica::start(setup, KeyValueStore::new(), Recovered::default(), none, now)
                    .expect("an empty store is sound")
            })
            .collect();
        Self { membership, replicas, queue: VecDeque::new(), now, replies: 0 }
    }

    /// Requests with these numbers, each of which puts 100 bytes under a key of its own. Up to 64 are signed together.
    pub fn requests(&self, level: Level, numbers: Range<u64>) -> Vec<Arc<SignedRequest>> {
        let key = SecretKey::from_bytes(&[9; 32]);
        let client = ClientId(key.public_key().0);
        let body = |number| Request {
            client,
            session: SessionId(1),
            number: RequestNumber(number),
            level,
            want_final: false,
            operations: vec![Put::new(format!("key{number}"), [b'v'; 100].to_vec()).encode()],
        };
        let bodies: Vec<Request> = numbers.map(body).collect();
        let together = SIGNED_TOGETHER_MAX as usize;
        let sign = |some: &[Request]| {
            SignedRequest::sign_all(&key, self.membership.genesis(), some.to_vec())
        };
        bodies.chunks(together).flat_map(sign).collect()
    }

    /// The same, checked as a replica's shell does before it asks the core.
    pub fn checked(&self, level: Level, numbers: Range<u64>) -> Vec<Verified<Arc<SignedRequest>>> {
        let open =
            |request| self.membership.open_request(request).expect("our own request verifies");
        self.requests(level, numbers).into_iter().map(open).collect()
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
    pub fn submit(&mut self, requests: Vec<Verified<Arc<SignedRequest>>>) {
        let count = requests.len();
        for request in requests {
            for at in (0..self.replicas.len()).rev() {
                self.queue.push_back((at, Event::Request(request.clone())));
            }
        }
        self.run();
        assert!(self.replies >= 4 * count, "every replica answers every request");
        self.replies = 0;
    }
}
