//! A counter, a cluster of replicas of it, and a client that can also misbehave.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use elea_protocol::application::{Application, BadChunk, Context, Restore, Snapshot, rebuilt};
use elea_protocol::codec::{self, FRAME_MAX};
use elea_protocol::edition::Editions;
use elea_protocol::evidence::Evidence;
use elea_protocol::id::{ClientId, Digest, ReplicaId, RequestNumber, SessionId, Slot};
use elea_protocol::membership::Membership;
use elea_protocol::message::{
    Challenge, Farewell, Greeting, HelloBody, KnockBody, Level, NodeStatus, Origin, Reply,
    ReplyKind, Request, Results, SignedRequest, ToClient, ToReplica, Transport, WireVersions,
};
use elea_protocol::quorum::Strength;
use elea_protocol::replica::Setup;
use elea_protocol::rows::{RowsView, Unreadable};
use elea_protocol::seal::{sign_hello, sign_knock};
use elea_protocol::signature::{Ed25519, SecretKey, Signer};
use elea_protocol::tuning::Tuning;
use elea_replica::{Config, Durability, Limits, Node, RunError};
use futures::{SinkExt, StreamExt};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// Longer than any test takes on a busy machine: it ends a test that hangs, it times nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test on a runtime of its own and ends it when it hangs.
pub fn test(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, body).await.expect("it hangs") });
}

/// Adds up the bytes it is given; answers the sum.
pub struct Adder {
    sum: u64,
    /// The sum after each slot that may still be undone, and after the last permanent one.
    kept: Vec<(Slot, u64)>,
}

impl Default for Adder {
    fn default() -> Self {
        Self { sum: 0, kept: vec![(Slot::GENESIS, 0)] }
    }
}

fn digest(sum: u64) -> Digest {
    let mut digest = Digest([0; 32]);
    digest.0[..8].copy_from_slice(&sum.to_le_bytes());
    digest
}

impl Application for Adder {
    type Snapshot = Frozen;
    type Restore = Thawing;

    fn execute(&mut self, _: &Context, operation: &Bytes) -> Bytes {
        assert_ne!(&operation[..], b"panic", "as the operation asks");
        self.sum += operation.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        Bytes::copy_from_slice(&self.sum.to_le_bytes())
    }

    fn end_slot(&mut self, slot: Slot) {
        self.kept.push((slot, self.sum));
    }

    fn undo_to(&mut self, slot: Slot) {
        self.kept.retain(|(kept, _)| *kept <= slot);
        self.sum = self.kept.last().map_or(0, |(_, sum)| *sum);
    }

    fn make_permanent(&mut self, slot: Slot) {
        self.kept.retain(|(kept, _)| *kept >= slot);
    }

    fn digest(&mut self) -> Digest {
        digest(self.sum)
    }

    fn snapshot(&self) -> Frozen {
        Frozen(self.sum)
    }

    fn restore(&self, digest: Digest) -> Thawing {
        Thawing { digest, sum: None }
    }

    fn open(&mut self, slot: Slot, digest: Digest, rows: RowsView) -> Result<(), Unreadable> {
        let restored = rebuilt(self.restore(digest), &rows)?;
        self.sum = restored.sum.unwrap_or_default();
        self.kept = vec![(slot, self.sum)];
        Ok(())
    }
}

pub struct Frozen(u64);

impl Snapshot for Frozen {
    fn digest(&self) -> Digest {
        digest(self.0)
    }

    fn chunks(&self) -> u32 {
        1
    }

    fn chunk(&self, index: u32) -> Option<Bytes> {
        (index == 0).then(|| Bytes::copy_from_slice(&self.0.to_le_bytes()))
    }
}

pub struct Thawing {
    digest: Digest,
    sum: Option<u64>,
}

impl Restore for Thawing {
    fn accept(&mut self, _: u32, chunk: &Bytes) -> Result<(), BadChunk> {
        let sum = u64::from_le_bytes(chunk[..].try_into().map_err(|_| BadChunk)?);
        if digest(sum) != self.digest {
            return Err(BadChunk);
        }
        self.sum = Some(sum);
        Ok(())
    }

    fn missing(&self) -> Option<u32> {
        self.sum.is_none().then_some(0)
    }
}

/// A cluster of four and its files; its replicas run only once they are started.
pub struct Cluster {
    pub membership: Arc<Membership>,
    /// Of replicas that are started from then on.
    pub tuning: Tuning,
    /// The same: plain, so that anything can be said.
    pub transport: Transport,
    /// The same: what their programs speak and execute.
    pub wire: WireVersions,
    pub editions: Editions,
    keys: Vec<Arc<SecretKey>>,
    addresses: Vec<String>,
    listeners: Vec<Option<std::net::TcpListener>>,
    folder: TempDir,
}

/// The key of a client that the cluster lists, for numbers below 8.
pub fn client_key(number: u8) -> SecretKey {
    SecretKey::from_bytes(&[100 + number; 32])
}

pub fn client_id(number: u8) -> ClientId {
    client_key(number).public_key().into()
}

impl Cluster {
    pub fn new() -> Self {
        let keys: Vec<_> = (0..4).map(|n| Arc::new(SecretKey::from_bytes(&[n + 1; 32]))).collect();
        let replicas = keys.iter().map(|key| key.public_key()).collect();
        let clients: BTreeSet<_> = (0..8).map(client_id).collect();
        let membership =
            Membership::new("test", 1, replicas, Some(clients), Arc::new(Ed25519::default()));
        // The ports are ours from here on: no replica starts before all are known.
        let listeners: Vec<_> = keys
            .iter()
            .map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        let address =
            |listener: &std::net::TcpListener| listener.local_addr().expect("bound").to_string();
        Self {
            membership: Arc::new(membership.expect("sound")),
            tuning: Tuning::default(),
            transport: Transport::Plain,
            wire: WireVersions::OWN,
            editions: Editions::with(1..=1),
            keys,
            addresses: listeners.iter().map(address).collect(),
            listeners: listeners.into_iter().map(Some).collect(),
            folder: TempDir::new().expect("a folder"),
        }
    }

    pub fn key(&self, id: u8) -> &SecretKey {
        &self.keys[usize::from(id)]
    }

    pub fn address(&self, id: u8) -> &str {
        &self.addresses[usize::from(id)]
    }

    pub fn config(&self, id: u8) -> Config {
        Config {
            setup: Setup {
                id: ReplicaId(id),
                membership: Arc::clone(&self.membership),
                signer: Arc::clone(&self.keys[usize::from(id)]) as Arc<dyn Signer>,
                tuning: self.tuning,
                editions: self.editions,
                seed: [id; 32],
            },
            addresses: self.addresses.clone(),
            listen: self.address(id).to_owned(),
            transport: self.transport,
            data: self.folder.path().join(id.to_string()),
            mark: None,
            durability: Durability::Sync,
            limits: Limits::default(),
            wire: self.wire,
        }
    }

    /// The socket of a replica that is never started.
    pub fn listener(&mut self, id: u8) -> std::net::TcpListener {
        self.listeners[usize::from(id)].take().expect("it was not started")
    }

    /// Starts a replica, on its first socket or, when it was stopped before, on its address.
    pub async fn start_with(&mut self, id: u8, limits: Limits) -> Result<Node, RunError> {
        let config = Config { limits, ..self.config(id) };
        match self.listeners[usize::from(id)].take() {
            Some(listener) => Node::start_on(config, Adder::default(), listener).await,
            None => Node::start(config, Adder::default()).await,
        }
    }

    pub async fn start(&mut self, id: u8) -> Node {
        self.start_with(id, Limits::default()).await.expect("it starts")
    }

    pub async fn start_all(&mut self) -> Vec<Node> {
        let mut nodes = Vec::new();
        for id in 0..4 {
            nodes.push(self.start(id).await);
        }
        nodes
    }
}

/// What the first process that uses a key says of itself.
pub fn hello_body(origin: Origin, to: ReplicaId, nonce: [u8; 32]) -> HelloBody {
    let version = WireVersions::OWN.newest;
    HelloBody { origin, to, nonce, instance: 1, own_nonce: [0; 32], version }
}

/// A connection to one replica, on which anything can be sent.
pub struct Wire {
    pub frames: Framed<TcpStream, LengthDelimitedCodec>,
}

impl Wire {
    /// Connects, and says nothing.
    pub async fn silent(address: &str) -> Self {
        Self::over(TcpStream::connect(address).await.expect("somebody listens"))
    }

    /// The same on a connection made elsewhere.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket");
        let codec = LengthDelimitedCodec::builder().max_frame_length(FRAME_MAX).new_codec();
        Self { frames: Framed::new(stream, codec) }
    }

    /// Knocks at replica `id`.
    pub async fn knock(&mut self, id: u8, genesis: &Digest, origin: Origin, key: &SecretKey) {
        let body = KnockBody {
            versions: WireVersions::OWN,
            origin,
            to: ReplicaId(id),
            transport: Transport::Plain,
        };
        self.send(&ToReplica::Knock(sign_knock(key, genesis, body))).await;
    }

    /// Takes the challenge.
    pub async fn challenge(&mut self) -> Challenge {
        match self.next().await {
            Some(ToClient::Challenge(challenge)) => challenge,
            other => panic!("no challenge but {other:?}"),
        }
    }

    /// Connects, knocks as the first of the listed clients, and takes the challenge.
    pub async fn connect(cluster: &Cluster, id: u8) -> (Self, Challenge) {
        let mut wire = Self::silent(cluster.address(id)).await;
        let challenge = wire.challenged(cluster, id).await;
        (wire, challenge)
    }

    /// Knocks so on a connection on which nothing was said yet.
    pub async fn challenged(&mut self, cluster: &Cluster, id: u8) -> Challenge {
        let origin = Origin::Client(client_id(0));
        self.knock(id, cluster.membership.genesis(), origin, &client_key(0)).await;
        self.challenge().await
    }

    /// Connects and says who it is; the answer has still to be read.
    pub async fn say_hello(
        (address, id): (&str, u8),
        genesis: &Digest,
        origin: Origin,
        key: &SecretKey,
    ) -> Self {
        Self::say_hello_as((address, id), genesis, origin, key, 1).await
    }

    /// The same of one of several processes that use a key.
    pub async fn say_hello_as(
        (address, id): (&str, u8),
        genesis: &Digest,
        origin: Origin,
        key: &SecretKey,
        instance: u64,
    ) -> Self {
        let mut wire = Self::silent(address).await;
        wire.knock(id, genesis, origin, key).await;
        let challenge = wire.challenge().await;
        let (to, nonce) = (challenge.replica, challenge.nonce);
        let body = HelloBody {
            origin,
            to,
            nonce,
            instance,
            own_nonce: [7; 32],
            version: WireVersions::OWN.newest,
        };
        wire.send(&ToReplica::Hello(sign_hello(key, genesis, body))).await;
        wire
    }

    /// A connection of a listed client that was let in.
    pub async fn client(cluster: &Cluster, id: u8, number: u8) -> Self {
        let (genesis, key) = (cluster.membership.genesis(), client_key(number));
        let origin = Origin::Client(client_id(number));
        let place = (cluster.address(id), id);
        let mut wire = Self::say_hello(place, genesis, origin, &key).await;
        assert_eq!(wire.next().await, Some(ToClient::Welcome));
        wire
    }

    /// A connection that pretends, with the right key, to be replica `from`.
    pub async fn peer(cluster: &Cluster, id: u8, from: u8) -> Self {
        Self::peer_as(cluster, id, from, 1).await
    }

    /// The same of one of several processes that use its key.
    pub async fn peer_as(cluster: &Cluster, id: u8, from: u8, instance: u64) -> Self {
        let genesis = cluster.membership.genesis();
        let origin = Origin::Replica(ReplicaId(from));
        let (place, key) = ((cluster.address(id), id), cluster.key(from));
        let mut wire = Self::say_hello_as(place, genesis, origin, key, instance).await;
        let Some(ToClient::Terms(terms)) = wire.next().await else { panic!("no terms") };
        wire.send(&ToReplica::Terms(terms)).await;
        let Some(ToClient::Greeting(greeting)) = wire.next().await else {
            panic!("it was not greeted")
        };
        assert_eq!(greeting.body, Greeting { to: ReplicaId(from), nonce: [7; 32] });
        assert_eq!(greeting.by, ReplicaId(id));
        cluster.membership.open(greeting).expect("signed");
        wire
    }

    pub async fn send(&mut self, message: &ToReplica) {
        let frame = codec::encode(message).expect("small");
        self.frames.send(frame).await.expect("it is read");
    }

    /// Sends bytes as they are, without a frame around them.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        self.frames.get_mut().write_all(bytes).await.expect("they are read");
    }

    /// The next message; `None` when the connection is closed.
    pub async fn next(&mut self) -> Option<ToClient> {
        let frame = self.frames.next().await?.ok()?;
        Some(codec::decode(&frame).expect("a replica sends nothing malformed"))
    }

    /// Reads until the connection closes; the last word, if there was one.
    pub async fn farewell(&mut self) -> Option<Farewell> {
        let mut word = None;
        while let Some(message) = self.next().await {
            if let ToClient::Farewell(farewell) = message {
                word = Some(farewell);
            }
        }
        word
    }

    /// Asks which proofs of misbehaviour the replica holds.
    pub async fn evidence(&mut self) -> Vec<Evidence> {
        self.send(&ToReplica::AskEvidence).await;
        loop {
            match self.next().await {
                Some(ToClient::Evidence(evidence)) => return evidence,
                Some(_) => {}
                None => panic!("the connection closed"),
            }
        }
    }

    /// Asks how the replica is.
    pub async fn status(&mut self, nonce: u64) -> NodeStatus {
        self.send(&ToReplica::AskStatus(nonce)).await;
        loop {
            match self.next().await {
                Some(ToClient::Status(status)) if status.body.nonce == nonce => {
                    return status.body;
                }
                Some(_) => {}
                None => panic!("the connection closed"),
            }
        }
    }
}

/// Asks a replica until its status is as it should be.
pub async fn wait_for(
    cluster: &Cluster,
    id: u8,
    is_good: impl Fn(&NodeStatus) -> bool,
) -> NodeStatus {
    let mut wire = Wire::client(cluster, id, 7).await;
    let mut nonce = 0;
    loop {
        nonce += 1;
        let status = wire.status(nonce).await;
        if is_good(&status) {
            return status;
        }
    }
}

/// Replica `id` lets a client in that has done nothing wrong and answers it.
pub async fn assert_serves(cluster: &Cluster, id: u8) {
    let status = Wire::client(cluster, id, 7).await.status(42).await;
    assert_eq!(status.nonce, 42);
}

/// A signed request to add these bytes.
pub fn request(
    cluster: &Cluster,
    client: u8,
    number: u64,
    level: Level,
    add: &[u8],
) -> Arc<SignedRequest> {
    let body = Request {
        client: client_id(client),
        session: SessionId(1 << 16),
        number: RequestNumber(number),
        level,
        want_final: false,
        operations: vec![Bytes::copy_from_slice(add)],
    };
    SignedRequest::sign(&client_key(client), cluster.membership.genesis(), body)
}

/// A correct client, connected to some replicas.
pub struct Client<'a> {
    cluster: &'a Cluster,
    client: u8,
    number: u64,
    wires: Vec<futures::stream::SplitSink<Framed<TcpStream, LengthDelimitedCodec>, Bytes>>,
    replies: mpsc::UnboundedReceiver<(ReplicaId, Reply)>,
}

impl<'a> Client<'a> {
    pub async fn connect(cluster: &'a Cluster, client: u8, replicas: &[u8]) -> Self {
        let (sender, replies) = mpsc::unbounded_channel();
        let mut wires = Vec::new();
        for id in replicas {
            let (sink, mut stream) = Wire::client(cluster, *id, client).await.frames.split();
            wires.push(sink);
            let (sender, membership) = (sender.clone(), Arc::clone(&cluster.membership));
            tokio::spawn(async move {
                while let Some(Ok(frame)) = stream.next().await {
                    let Ok(ToClient::Replies(replies)) = codec::decode(&frame) else { continue };
                    for reply in replies {
                        let reply = membership.open_reply(reply).expect("signed").into_inner();
                        let _ = sender.send((reply.vote.by, reply.reply));
                    }
                }
            });
        }
        Self { cluster, client, number: 0, wires, replies }
    }

    /// Sends a request to all.
    pub async fn send(&mut self, level: Level, add: &[u8]) -> u64 {
        self.number += 1;
        let request = request(self.cluster, self.client, self.number, level, add);
        let frame = codec::encode(&ToReplica::Request(request)).expect("small");
        for wire in &mut self.wires {
            // One that was stopped is not missed.
            let _ = wire.send(frame.clone()).await;
        }
        self.number
    }

    /// Waits until a quorum has answered these requests; their results, by number.
    pub async fn answers(
        &mut self,
        numbers: RangeInclusive<u64>,
        kind: ReplyKind,
    ) -> BTreeMap<u64, u64> {
        let size = self.cluster.membership.size();
        let strength = if kind == ReplyKind::Committed { Strength::Strong } else { Strength::Weak };
        let mut votes = BTreeMap::<Reply, BTreeSet<ReplicaId>>::new();
        let mut results = BTreeMap::new();
        let awaited = numbers.clone().count();
        while results.len() < awaited {
            let (by, reply) = self.replies.recv().await.expect("replicas answer");
            if reply.kind != kind || !numbers.contains(&reply.name.number.0) {
                continue;
            }
            let voters = votes.entry(reply.clone()).or_default();
            voters.insert(by);
            if size.suffices(voters.len(), strength) {
                let Results::Full(values) = &reply.results else { panic!("forgotten") };
                let sum = u64::from_le_bytes(values[0][..].try_into().expect("a sum"));
                let known = results.insert(reply.name.number.0, sum);
                assert!(known.is_none_or(|known| known == sum), "answered twice, otherwise");
            }
        }
        results
    }
}
