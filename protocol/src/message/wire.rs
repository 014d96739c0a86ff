//! Connections: how they open, and what goes each way.
//!
//! Whoever dials a replica knocks, and where the knock is good the connection is [encrypted](Transport). Then the
//! dialler is challenged and answers with a signature, so that a connection has an owner that limits can be held
//! against and replies sent to. Nothing that is said on it is believed for the connection's sake alone.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::position::write_lock;
use super::{
    Difference, Lent, Message, MismatchReport, NoReply, Part, Position, Query, Refusal,
    SessionReport, SignedQueryReply, SignedReply, SignedRequest, Standing, StateHead, Terms,
};
use crate::codec::{Canonical, Sink};
use crate::edition::{Edition, Editions};
use crate::evidence::Evidence;
use crate::id::{ClientId, Digest, ReplicaId, RequestName, SessionId, Slot, View};
use crate::signature::{Signature, Signed};

/// The versions of frames that a program speaks: both ends of a connection speak the newest that they have in common,
/// so that replicas can be updated one after the other. By which rules slots are executed is another matter: see
/// [`edition`](crate::edition).
///
/// What comes before that is known has one form in all versions, or nobody could be turned away with a clear word:
/// [`Knock`], [`Challenge`] and [`Farewell`], the numbers of their kinds, and the length before each frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireVersions {
    /// The oldest.
    pub lowest: u32,
    /// The newest.
    pub newest: u32,
}

impl WireVersions {
    /// Those that this crate speaks.
    pub const OWN: Self = Self { lowest: 14, newest: 14 };

    /// The newest that both have.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u32> {
        let newest = self.newest.min(other.newest);
        (newest >= self.lowest.max(other.lowest)).then_some(newest)
    }

    /// What is spoken on a connection, as TLS is told it (RFC 7301), the newest first: where nothing is in common nothing
    /// is begun.
    #[must_use]
    pub fn application_protocols(self) -> Vec<String> {
        (self.lowest..=self.newest).rev().map(application_protocol).collect()
    }

    /// Which of these TLS has agreed on.
    #[must_use]
    pub fn named(self, protocol: &[u8]) -> Option<u32> {
        (self.lowest..=self.newest).find(|one| application_protocol(*one).as_bytes() == protocol)
    }

    fn write(self, to: &mut impl Sink) {
        to.put_u64(u64::from(self.lowest));
        to.put_u64(u64::from(self.newest));
    }
}

impl std::fmt::Display for WireVersions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.lowest == self.newest {
            true => write!(f, "{}", self.newest),
            false => write!(f, "{} to {}", self.lowest, self.newest),
        }
    }
}

fn application_protocol(version: u32) -> String {
    format!("elea/{version}")
}

/// How a connection is protected, of which each side has its own setting.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// By TLS 1.3, in which both ends prove their keys (RFC 8446, RFC 7250).
    #[default]
    Encrypted,
    /// Not at all: whoever is on the path reads everything, and can break what comes in pieces. What counts is
    /// signed and cannot be changed. For tests and for networks that encrypt by themselves.
    Plain,
}

impl Transport {
    /// As it is written in settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Encrypted => "encrypted",
            Self::Plain => "plain",
        }
    }

    fn write(self, to: &mut impl Sink) {
        to.put_u8(match self {
            Self::Encrypted => 0,
            Self::Plain => 1,
        });
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Replica to whoever dialled it and knocked: "prove who you are".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// What the replica speaks.
    pub versions: WireVersions,
    /// The cluster it belongs to.
    pub genesis: Digest,
    /// Who it is.
    pub replica: ReplicaId,
    /// Random, fresh for each connection; where it is encrypted, drawn from its keys, so that both ends know it and
    /// nobody in between can have them agree on it.
    pub nonce: [u8; 32],
}

/// Who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Origin {
    /// A member.
    Replica(ReplicaId),
    /// A client, or an operator's tool that holds a client's key.
    Client(ClientId),
}

impl Origin {
    fn write(&self, to: &mut impl Sink) {
        match self {
            Self::Replica(id) => {
                to.put_u8(0);
                to.put_u8(id.0);
            }
            Self::Client(id) => {
                to.put_u8(1);
                to.put_client(id);
            }
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Replica(id) => id.fmt(f),
            Self::Client(id) => write!(f, "client {id}"),
        }
    }
}

/// What the answer to a challenge signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloBody {
    /// Who dials.
    pub origin: Origin,
    /// Who was dialled.
    pub to: ReplicaId,
    /// From the challenge; where the connection is encrypted, drawn from its keys, and said before the challenge is
    /// there.
    pub nonce: [u8; 32],
    /// Which process dials, or which host: drawn by a replica at each start, and the same for all
    /// processes that share the sessions of a client's key. Two at one time are one key in two places.
    pub instance: u64,
    /// Random, for a replica that is dialled to sign in its [`Greeting`].
    pub own_nonce: [u8; 32],
    /// The version of frames that the dialler goes on with: the newest that both speak.
    pub version: u32,
}

impl Canonical for HelloBody {
    const TAG: &'static str = "hello";

    fn write(&self, to: &mut impl Sink) {
        self.origin.write(to);
        to.put_u8(self.to.0);
        to.put(&self.nonce);
        to.put_u64(self.instance);
        to.put(&self.own_nonce);
        to.put_u64(u64::from(self.version));
    }
}

/// Replica to a replica that dialled it: "you are let in, and it is me that you have reached". Where connections are
/// plain, nothing could be believed to come from there without that: whoever dials knows an address, and an address may
/// have become somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Who dialled.
    pub to: ReplicaId,
    /// From its hello.
    pub nonce: [u8; 32],
}

impl Canonical for Greeting {
    const TAG: &'static str = "greeting";

    fn write(&self, to: &mut impl Sink) {
        to.put_u8(self.to.0);
        to.put(&self.nonce);
    }
}

/// Who dials, for this connection: the answer to a [`Challenge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What is signed.
    pub body: HelloBody,
    /// By the origin's key.
    pub signature: Signature,
}

/// What a [`Knock`] signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnockBody {
    /// What the dialler speaks.
    pub versions: WireVersions,
    /// Who dials.
    pub origin: Origin,
    /// Who is dialled.
    pub to: ReplicaId,
    /// How the dialler wants to go on.
    pub transport: Transport,
}

impl Canonical for KnockBody {
    const TAG: &'static str = "knock";

    fn write(&self, to: &mut impl Sink) {
        self.versions.write(to);
        self.origin.write(to);
        to.put_u8(self.to.0);
        self.transport.write(to);
    }
}

/// Whoever dials a replica, first of all, and never encrypted: "it is I". It arrives with the connection
/// itself, so that a replica that is being flooded with connections knows at once which of them to keep
/// for a [`Hello`], and spends no handshake on the others. It lets nobody in: it could have been said before, by
/// somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knock {
    /// What is signed.
    pub body: KnockBody,
    /// By the origin's key.
    pub signature: Signature,
}

/// What goes to a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToReplica {
    /// The answer to the challenge, from either.
    Hello(Hello),
    /// From a replica, after the other's own terms.
    Terms(Terms),
    /// From a replica.
    Peer(Message),
    /// From a client.
    Request(Arc<SignedRequest>),
    /// From a client: what became of one of its sessions?
    AskSession(SessionId),
    /// From a client: how do you do? The nonce comes back in the answer.
    AskStatus(u64),
    /// From a client: which proofs of misbehaviour do you hold?
    AskEvidence,
    /// The first frame, from either.
    Knock(Knock),
    /// From a replica: a piece of a message to a peer.
    Part(Part),
    /// From a client: what would operations come to now?
    Query(Query),
    /// From a client: which certified state can you give me, for a backup?
    AskState,
    /// From a client: this piece of the application's state after this checkpoint.
    AskPiece {
        /// The checkpoint.
        at: Position,
        /// Which piece.
        index: u32,
    },
}

/// Why a replica closes a connection.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    thiserror::Error,
)]
pub enum Farewell {
    /// The answer to the challenge does not verify or comes from nobody this cluster knows.
    #[error("the key is not known to this cluster or did not sign the challenge in time")]
    NotAdmitted,
    /// As many connections are open as the replica takes, from this origin or in all.
    #[error("too many connections")]
    TooManyConnections,
    /// Something that no correct sender sends: a frame too large, bytes that do not decode, a
    /// signature that does not verify.
    #[error("the last message was malformed or did not verify")]
    Misbehaviour,
    /// It did not read what was sent to it.
    #[error("replies were not read in time")]
    TooSlow,
    /// Other settings decide there what comes of operations.
    #[error("its settings are not the ones here")]
    SettingsDiffer,
    /// The replica is going down.
    #[error("the replica is shutting down")]
    Stopping,
    /// Two processes use the key of the replica that is told this.
    #[error("another process uses this replica's key")]
    SecondProcess,
    /// Its connections are protected in this way, and the knock asked for the other.
    #[error("its transport is {0}, and this one's is not: set both to the same")]
    OtherTransport(Transport),
}

/// What goes from a replica to whoever dialled it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToClient {
    /// The first frame; it is not encrypted where the knock was not good, and a farewell follows.
    Challenge(Challenge),
    /// To a replica whose hello was good: on which terms it may come in.
    Terms(Terms),
    /// The hello of a client was good.
    Welcome,
    /// That of a replica was.
    Greeting(Signed<Greeting>),
    /// To a replica that dialled and cannot be dialled itself: a link carries both ways.
    Peer(Message),
    /// The connection closes after this.
    Farewell(Farewell),
    /// Answers to requests.
    Replies(Vec<SignedReply>),
    /// A request will not be executed.
    Refusal(Signed<Refusal>),
    /// A request was dropped for want of room: try again later. Not signed: it promises nothing.
    Busy(RequestName),
    /// The answer to [`ToReplica::AskSession`].
    Session(Signed<SessionReport>),
    /// The answer to [`ToReplica::AskStatus`].
    Status(Box<Signed<NodeStatus>>),
    /// The answer to [`ToReplica::AskEvidence`]. Each proves itself.
    Evidence(Vec<Evidence>),
    /// Like [`ToClient::Peer`], a piece of it.
    Part(Part),
    /// Answers to queries.
    QueryReplies(Vec<SignedQueryReply>),
    /// The query of this session with this digest is not answered. Not signed: it promises nothing.
    NoQueryReply(SessionId, Digest, NoReply),
    /// The answer to [`ToReplica::AskState`]: the newest one, if there is any. It proves itself.
    State(Option<Box<StateHead>>),
    /// The answer to [`ToReplica::AskPiece`].
    Piece {
        /// The checkpoint that was asked for.
        at: Position,
        /// Which piece.
        index: u32,
        /// What becomes of the question.
        lent: Lent,
    },
}

/// How the disk of a replica is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskHealth {
    /// Nothing is known against it.
    #[default]
    Sound,
    /// It has no room: the replica writes nothing, and says nothing that would have to be written.
    Full,
    /// Something on it is not what was written, in words.
    Damaged(String),
}

impl DiskHealth {
    fn write(&self, to: &mut impl Sink) {
        match self {
            Self::Sound => to.put_u8(0),
            Self::Full => to.put_u8(1),
            Self::Damaged(what) => {
                to.put_u8(2);
                to.put_bytes(what.as_bytes());
            }
        }
    }
}

/// A replica that this one does not speak to, since its settings are others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disagreement {
    /// The other replica.
    pub replica: ReplicaId,
    /// In what they differ; `there` is its value.
    pub settings: Vec<Difference>,
}

impl Disagreement {
    fn write(&self, to: &mut impl Sink) {
        to.put_u8(self.replica.0);
        to.put_len(self.settings.len());
        for Difference { name, here, there } in &self.settings {
            to.put_bytes(name.as_bytes());
            for value in [here, there] {
                to.put_u8(u8::from(value.is_some()));
                to.put_bytes(value.as_deref().unwrap_or_default().as_bytes());
            }
        }
    }
}

/// A replica whose list of clients is another than the own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherList {
    /// The other replica.
    pub replica: ReplicaId,
    /// Clients that are listed here and not there, as far as that is known yet.
    pub not_there: Vec<ClientId>,
    /// Clients that are listed there and not here.
    pub not_here: Vec<ClientId>,
}

impl OtherList {
    fn write(&self, to: &mut impl Sink) {
        to.put_u8(self.replica.0);
        for clients in [&self.not_there, &self.not_here] {
            to.put_len(clients.len());
            clients.iter().for_each(|client| to.put_client(client));
        }
    }
}

/// How far the fetching of a state has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transferring {
    /// The slot of its checkpoint.
    pub slot: Slot,
    /// Pieces that are here.
    pub pieces: u64,
    /// All there are, where it is known yet.
    pub of: Option<u64>,
    /// The bytes of those that are here, fetched since the last start.
    pub bytes: u64,
}

impl Transferring {
    fn write(&self, to: &mut impl Sink) {
        to.put_u64(self.slot.0);
        to.put_u64(self.pieces);
        // No state has no piece, so 0 is free to say that it is not known.
        to.put_u64(self.of.unwrap_or_default());
        to.put_u64(self.bytes);
    }
}

/// How long things take at another replica, as far as one knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turnaround {
    /// At whom.
    pub of: ReplicaId,
    /// The round trip to it, in microseconds.
    pub round_trip: Option<u64>,
    /// What it says a record takes to be on its disk, in microseconds.
    pub sync: Option<u64>,
}

/// What a replica measures, and how patient that makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// What a record takes to be on its disk, as a rule, in microseconds.
    pub sync: Option<u64>,
    /// How long it would wait now for the primary to order what was passed on to all, in ms.
    pub patience: u64,
    /// What it knows of the others.
    pub others: Vec<Turnaround>,
}

impl Pace {
    fn write(&self, to: &mut impl Sink) {
        // No time is as long as the number that says that it is not known.
        let micros =
            |to: &mut _, micros: Option<u64>| Sink::put_u64(to, micros.unwrap_or(u64::MAX));
        micros(to, self.sync);
        to.put_u64(self.patience);
        to.put_len(self.others.len());
        for other in &self.others {
            to.put_u8(other.of.0);
            micros(to, other.round_trip);
            micros(to, other.sync);
        }
    }
}

/// Replica to an operator: "this is how I am". It is believed as far as the replica is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// From the question.
    pub nonce: u64,
    /// Whether it votes.
    pub standing: Standing,
    /// Whether its own state is in doubt: it neither votes nor answers clients until it has been
    /// repaired.
    pub quarantined: bool,
    /// The checkpoints whose certified state was not its own, oldest first.
    pub mismatches: Vec<MismatchReport>,
    /// The view entered.
    pub view: View,
    /// Its primary.
    pub primary: ReplicaId,
    /// The higher view asked for, if any.
    pub campaign: Option<View>,
    /// The end of the history.
    pub head: Position,
    /// The view and position of the highest commit certificate.
    pub lock: Option<(View, Position)>,
    /// The last slot that will never be undone.
    pub stable: Slot,
    /// Over the application's state and the sessions, after `head`.
    pub state: Digest,
    /// Sessions of all clients together.
    pub sessions: u64,
    /// Requests waiting to be ordered.
    pub pending: u64,
    /// Replicas whose last word contradicts this one's history.
    pub divergent: Vec<ReplicaId>,
    /// Proofs of misbehaviour held.
    pub evidence: u64,
    /// How its connections are protected.
    pub transport: Transport,
    /// How its disk is.
    pub disk: DiskHealth,
    /// How far the fetching of a state has come, while one is fetched.
    pub transfer: Option<Transferring>,
    /// How many pieces of states were refused as not the certified ones, by who sent them.
    pub refused: Vec<(ReplicaId, u64)>,
    /// Whose keys are in use in two places at once, by what this replica hears.
    pub doubled: Vec<Origin>,
    /// How far the clocks that it knows, its own among them, are ahead of the one that replicas can agree
    /// on, in ms.
    pub clocks: Vec<(ReplicaId, i64)>,
    /// From how much on that matters.
    pub clock_tolerance_ms: u64,
    /// Whom it does not speak to for their settings.
    pub disagreements: Vec<Disagreement>,
    /// Whose lists of clients are other ones.
    pub other_lists: Vec<OtherList>,
    /// By which rules the slot at the head is executed.
    pub edition: Edition,
    /// What its program can execute.
    pub editions: Editions,
    /// The newest edition that it has known all replicas to execute.
    pub common_edition: Edition,
    /// How long things take.
    pub pace: Pace,
    /// What was dropped or refused since the start, by reason.
    pub counters: Vec<(String, u64)>,
}

impl Canonical for NodeStatus {
    const TAG: &'static str = "node-status";

    fn write(&self, to: &mut impl Sink) {
        to.put_u64(self.nonce);
        to.put_u8(self.standing.number());
        to.put_u8(u8::from(self.quarantined));
        to.put_len(self.mismatches.len());
        for mismatch in &self.mismatches {
            to.put_u64(mismatch.slot.0);
            to.put_digest(&mismatch.certified);
            to.put_digest(&mismatch.own);
        }
        to.put_u64(self.view.0);
        to.put_u8(self.primary.0);
        to.put_u64(self.campaign.unwrap_or_default().0);
        self.head.write(to);
        write_lock(self.lock.as_ref(), to);
        to.put_u64(self.stable.0);
        to.put_digest(&self.state);
        to.put_u64(self.sessions);
        to.put_u64(self.pending);
        to.put_len(self.divergent.len());
        self.divergent.iter().for_each(|id| to.put_u8(id.0));
        to.put_u64(self.evidence);
        self.transport.write(to);
        self.disk.write(to);
        to.put_u8(u8::from(self.transfer.is_some()));
        if let Some(transfer) = &self.transfer {
            transfer.write(to);
        }
        to.put_len(self.refused.len());
        for (by, pieces) in &self.refused {
            to.put_u8(by.0);
            to.put_u64(*pieces);
        }
        to.put_len(self.doubled.len());
        self.doubled.iter().for_each(|origin| origin.write(to));
        to.put_len(self.clocks.len());
        for (id, ahead) in &self.clocks {
            to.put_u8(id.0);
            to.put_u64(ahead.cast_unsigned());
        }
        to.put_u64(self.clock_tolerance_ms);
        to.put_len(self.disagreements.len());
        self.disagreements.iter().for_each(|other| other.write(to));
        to.put_len(self.other_lists.len());
        self.other_lists.iter().for_each(|other| other.write(to));
        self.edition.write(to);
        self.editions.write(to);
        self.common_edition.write(to);
        self.pace.write(to);
        to.put_len(self.counters.len());
        for (name, count) in &self.counters {
            to.put_bytes(name.as_bytes());
            to.put_u64(*count);
        }
    }
}
