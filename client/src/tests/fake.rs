//! Replicas that are played: real sockets and signatures, a history that is agreed by magic.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use elea_protocol::codec::{self, Canonical as _, FRAME_MAX};
use elea_protocol::edition::{Edition, Editions};
use elea_protocol::evidence::Evidence;
use elea_protocol::id::{Digest, ReplicaId, RequestNumber, SessionId, Slot, View};
use elea_protocol::membership::Membership;
use elea_protocol::message::{
    Challenge, Commit, DiskHealth, Lent, Level, NoReply, NodeStatus, Pace, Past, Position, Query,
    QueryReply, Reply, ReplyKind, Results, SessionReport, SignedRequest, Standing, ToClient,
    ToReplica, Transport, WireVersions,
};
use elea_protocol::seal::{sign, sign_replies};
use elea_protocol::signature::{Ed25519, SecretKey, Signer};
use futures::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::Cluster;

/// How a replica behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Honest,
    /// Takes everything and answers nothing.
    Mute,
    /// Answers with a result of its own.
    Liar,
    /// Belongs to another cluster.
    Elsewhere,
    /// Sends what does not decode, once connected.
    Garbage,
    /// Announces a frame of 2 GiB.
    Oversized,
    /// Sends statuses nobody asked for, without end, and never reads.
    Flood,
    /// Signs with another key.
    Forger,
    /// Closes the connection after each answer.
    Fickle,
    /// Answers here, too, what another process with this key has asked, and before.
    Shared,
}

/// The history that all honest replicas have, and what they saw.
#[derive(Default)]
pub struct History {
    executed: BTreeMap<(SessionId, RequestNumber), Slot>,
    pub requests: u64,
    pub operations: u64,
    /// How many were accepted, by all replicas.
    pub connections: u64,
    /// Weak requests are committed, too, and moved by a merge before that.
    pub commits: bool,
    pub merges: bool,
    /// Sessions seen.
    pub sessions: BTreeSet<SessionId>,
    /// Sessions that have left.
    pub left: BTreeSet<SessionId>,
    /// In which generation new ones lie.
    pub generation: u64,
    /// Queries are not answered.
    pub all_to_be_ordered: bool,
    /// So many queries with a past are answered with `not yet`.
    pub behind: u64,
    /// The pasts that were asked with.
    pub pasts: Vec<Past>,
}

pub struct World {
    pub membership: Arc<Membership>,
    pub addresses: Vec<SocketAddr>,
    pub history: Arc<Mutex<History>>,
    /// Grows with every request that any replica took.
    pub taken: watch::Receiver<u64>,
}

struct Replica {
    id: ReplicaId,
    manner: Manner,
    key: SecretKey,
    membership: Arc<Membership>,
    history: Arc<Mutex<History>>,
    taken: Arc<watch::Sender<u64>>,
}

pub fn client_key() -> SecretKey {
    SecretKey::from_bytes(&[200; 32])
}

impl World {
    pub async fn start(manners: &[Manner]) -> Self {
        let keys = || (1..).map(|n| SecretKey::from_bytes(&[n; 32])).zip(manners);
        let public = keys().map(|(key, _)| key.public_key()).collect();
        let size = elea_protocol::quorum::ClusterSize::most_tolerant(
            u8::try_from(manners.len()).expect("few"),
        );
        let faulty = size.expect("at least one").faulty();
        // A cluster of its own for each test: clients of one process share a book for each.
        static CLUSTERS: AtomicU64 = AtomicU64::new(0);
        let name = format!("fake {}", CLUSTERS.fetch_add(1, Ordering::Relaxed));
        let membership = Membership::new(name, faulty, public, None, Arc::new(Ed25519::default()));
        let membership = Arc::new(membership.expect("sound"));
        let history = Arc::new(Mutex::new(History::default()));
        let (sender, taken) = watch::channel(0);
        let sender = Arc::new(sender);
        let mut addresses = Vec::new();
        for (id, (key, manner)) in membership.size().members().zip(keys()) {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            addresses.push(listener.local_addr().expect("an address"));
            let replica = Arc::new(Replica {
                id,
                manner: *manner,
                key,
                membership: Arc::clone(&membership),
                history: Arc::clone(&history),
                taken: Arc::clone(&sender),
            });
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let replica = Arc::clone(&replica);
                    // How it ends is the client's matter.
                    tokio::spawn(async move { replica.serve(stream).await });
                }
            });
        }
        Self { membership, addresses, history, taken }
    }

    pub fn cluster(&self) -> Cluster {
        let addresses = self.addresses.iter().map(ToString::to_string).collect();
        Cluster::new(Arc::clone(&self.membership), addresses)
    }
}

type Wire = Framed<TcpStream, LengthDelimitedCodec>;

async fn send(wire: &mut Wire, message: &ToClient) -> Option<()> {
    wire.send(codec::encode(message).ok()?).await.ok()
}

impl Replica {
    async fn serve(&self, stream: TcpStream) -> Option<()> {
        let frames = LengthDelimitedCodec::builder().max_frame_length(FRAME_MAX).new_codec();
        let mut wire = Framed::new(stream, frames);
        let mut genesis = *self.membership.genesis();
        if self.manner == Manner::Elsewhere {
            genesis.0[0] ^= 1;
        }
        let nonce = [5; 32];
        let challenge = Challenge { versions: WireVersions::OWN, genesis, replica: self.id, nonce };
        let ToReplica::Knock(knock) = codec::decode(&wire.next().await?.ok()?).ok()? else {
            return None;
        };
        send(&mut wire, &ToClient::Challenge(challenge)).await?;
        self.membership.open_knock(knock, self.id).ok()?;
        let ToReplica::Hello(hello) = codec::decode(&wire.next().await?.ok()?).ok()? else {
            return None;
        };
        self.membership.open_hello(hello, self.id, &nonce).ok()?;
        self.history.lock().expect("no panic").connections += 1;
        send(&mut wire, &ToClient::Welcome).await?;
        match self.manner {
            Manner::Garbage => wire.send(Bytes::from_static(b"\xff\xff\xff\xff!")).await.ok()?,
            Manner::Oversized => wire.get_mut().write_u32(1 << 31).await.ok()?,
            Manner::Flood => loop {
                let status = ToClient::Status(Box::new(self.status(1)));
                send(&mut wire, &status).await?;
            },
            _ => {}
        }
        while let Some(Ok(frame)) = wire.next().await {
            let message = codec::decode::<ToReplica>(&frame).expect("from a correct client");
            for answer in self.answer(message) {
                send(&mut wire, &answer).await?;
                if self.manner == Manner::Fickle {
                    return None;
                }
            }
        }
        None
    }

    fn answer(&self, message: ToReplica) -> Vec<ToClient> {
        match message {
            ToReplica::Terms(_) => panic!("a client has no terms"),
            ToReplica::Request(request) => {
                let answers = self.replies(&request);
                self.taken.send_modify(|taken| *taken += 1);
                if self.manner == Manner::Mute { Vec::new() } else { answers }
            }
            ToReplica::Query(_) if self.manner == Manner::Mute => Vec::new(),
            ToReplica::Query(query) => vec![self.query_reply(&query)],
            ToReplica::AskStatus(nonce) if self.manner == Manner::Shared => {
                let others = self.answer(ToReplica::AskSession(SessionId(7)));
                let others = others.into_iter().chain([ToClient::Evidence(self.proofs())]);
                let statuses = [nonce ^ 1, nonce].map(|nonce| Box::new(self.status(nonce)));
                others.chain(statuses.map(ToClient::Status)).collect()
            }
            ToReplica::AskStatus(nonce) => vec![ToClient::Status(Box::new(self.status(nonce)))],
            ToReplica::AskEvidence => vec![ToClient::Evidence(self.proofs())],
            ToReplica::AskState => vec![ToClient::State(None)],
            ToReplica::AskPiece { at, index } => {
                vec![ToClient::Piece { at, index, lent: Lent::Gone }]
            }
            ToReplica::AskSession(session) => {
                let history = self.history.lock().expect("no panic");
                let through = history.executed.keys().rfind(|(id, _)| *id == session);
                let through = through.map_or(RequestNumber(0), |(_, number)| *number);
                let body = SessionReport {
                    client: client_key().public_key().into(),
                    session,
                    executed_through: through,
                    has_left: history.left.contains(&session),
                    opening: SessionId::first_of(match self.manner {
                        Manner::Liar => SessionId::GENERATION_MAX,
                        _ => history.generation,
                    }),
                };
                let signed = sign(&self.key, self.membership.genesis(), self.id, body);
                vec![ToClient::Session(signed.into_inner())]
            }
            ToReplica::Knock(_) | ToReplica::Hello(_) | ToReplica::Peer(_) | ToReplica::Part(_) => {
                panic!("no client says that")
            }
        }
    }

    /// Two votes of r3 for one slot; a forger has no key to sign the second one with.
    fn proofs(&self) -> Vec<Evidence> {
        let vote = |hash, key: u8| {
            let body = Commit { view: View(0), slot: Slot(1), hash: Digest([hash; 32]) };
            let key = SecretKey::from_bytes(&[key; 32]);
            sign(&key, self.membership.genesis(), ReplicaId(3), body).into_inner()
        };
        let second = if self.manner == Manner::Forger { 99 } else { 4 };
        vec![Evidence::Commits(vote(1, 4), vote(2, second))]
    }

    fn status(&self, nonce: u64) -> elea_protocol::signature::Signed<NodeStatus> {
        let head = Position { slot: Slot(0), hash: *self.membership.genesis() };
        let body = NodeStatus {
            nonce,
            standing: Standing::Voter,
            quarantined: false,
            mismatches: Vec::new(),
            view: View(0),
            primary: ReplicaId(0),
            campaign: None,
            head,
            lock: None,
            stable: Slot(0),
            state: Digest::default(),
            sessions: 0,
            pending: 0,
            divergent: Vec::new(),
            evidence: 0,
            transport: Transport::Plain,
            disk: DiskHealth::Sound,
            transfer: None,
            clocks: Vec::new(),
            clock_tolerance_ms: 5000,
            disagreements: Vec::new(),
            other_lists: Vec::new(),
            edition: Editions::with(1..=1).newest,
            editions: Editions::with(1..=1),
            common_edition: Edition { protocol: 1, application: 1 },
            refused: Vec::new(),
            doubled: Vec::new(),
            pace: Pace::default(),
            counters: Vec::new(),
        };
        sign(&self.key, self.membership.genesis(), self.id, body).into_inner()
    }

    fn query_reply(&self, query: &Query) -> ToClient {
        let mut history = self.history.lock().expect("no panic");
        if let Some(past) = &query.past {
            history.pasts.push(past.clone());
            if history.behind > 0 {
                history.behind -= 1;
                let digest = query.digest();
                return ToClient::NoQueryReply(query.session, digest, NoReply::NotYet);
            }
        }
        if history.all_to_be_ordered {
            return ToClient::NoQueryReply(query.session, query.digest(), NoReply::Unable);
        }
        let lie = self.manner == Manner::Liar;
        let prefix = if lie { "a lie about " } else { "saw " };
        let result = |operation: &Bytes| [prefix.as_bytes(), operation].concat().into();
        let slot = Slot(history.executed.len() as u64);
        let end = Position { slot, hash: Digest([7; 32]) };
        let reply = QueryReply {
            view: View(0),
            session: query.session,
            query: query.digest(),
            from: Slot(0),
            to: Slot(history.executed.len() as u64),
            positions: query.past.iter().map(|_| end).collect(),
            results: query.operations.iter().map(result).collect(),
        };
        let other = SecretKey::from_bytes(&[99; 32]);
        let key = if self.manner == Manner::Forger { &other } else { &self.key };
        let genesis = self.membership.genesis();
        ToClient::QueryReplies(sign_replies(key, genesis, self.id, vec![reply]))
    }

    fn replies(&self, request: &Arc<SignedRequest>) -> Vec<ToClient> {
        let opened = self.membership.open_request(Arc::clone(request)).expect("signed");
        let body = opened.body();
        let mut history = self.history.lock().expect("no panic");
        let next = Slot(history.executed.len() as u64 + 1);
        let key = (body.session, body.number);
        let is_new = !history.executed.contains_key(&key);
        let slot = *history.executed.entry(key).or_insert(next);
        if is_new {
            history.requests += 1;
            history.operations += body.operations.len() as u64;
            history.sessions.insert(body.session);
        }
        let lie = self.manner == Manner::Liar;
        let result = |prefix: &str, operation: &Bytes| {
            let prefix = if lie { "a lie about " } else { prefix };
            [prefix.as_bytes(), operation].concat().into()
        };
        let reply = |kind, prefix, slot| Reply {
            kind,
            view: View(0),
            slot,
            hash: Digest([7; 32]),
            name: body.name(),
            request: request.digest(),
            index: 0,
            results: Results::Full(body.operations.iter().map(|op| result(prefix, op)).collect()),
        };
        let mut replies = Vec::new();
        if body.level == Level::Weak {
            replies.push(reply(ReplyKind::Speculative, "did ", slot));
        }
        if body.level == Level::Strong || history.commits {
            let moved = history.merges && body.level == Level::Weak;
            let (prefix, at) = if moved { ("redid ", slot.plus(9)) } else { ("did ", slot) };
            replies.push(reply(ReplyKind::Committed, prefix, at));
        }
        let other = SecretKey::from_bytes(&[99; 32]);
        let key = if self.manner == Manner::Forger { &other } else { &self.key };
        replies
            .into_iter()
            .map(|reply| {
                let genesis = self.membership.genesis();
                ToClient::Replies(sign_replies(key, genesis, self.id, vec![reply]))
            })
            .collect()
    }
}
