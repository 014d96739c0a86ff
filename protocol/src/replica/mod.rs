//! The replica: one state machine, [`Event`] in, [`Action`]s out.
//!
//! The driver reads both clocks once an event, hands the event in, and carries out the actions in
//! their order. It decides nothing. What must not be forgotten goes out as [`Action::Append`] with
//! a [`Mark`]; every send names the mark it has to wait for, so no driver can let a vote out before
//! what it rests on is on disk. Between events the driver sleeps until [`Replica::deadline`].
//!
//! | file | what is in it |
//! |---|---|
//! | `ordering` | the primary's batches; a backup's checks of orders; acceptance of a slot |
//! | `execution` | application and sessions, slot by slot, with the way back |
//! | `sessions` | names, windows, floors; what makes a request execute once |
//! | `pending` | requests that wait to be ordered, and their passing on |
//! | `commit` | commit points, votes, certificates, the lock, committed replies |
//! | `checkpoint` | votes for a state, stability, what is given up |
//! | `answer` | what clients are told, from execution and from memory |
//! | `fetch` | what is missing: asking, answering, being answered |
//! | `status` | where the others stand, and sending again what may have been lost |
//! | `start` | from disk |
//! | `invariant` | what is asserted after every event |

mod answer;
mod checkpoint;
mod commit;
mod counters;
mod execution;
mod fetch;
mod invariant;
mod ordering;
mod pending;
mod sessions;
mod start;
mod status;
mod votes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::counters::Counters;
pub use self::execution::{Execution, RESULT_BYTES_MAX, SLOT_RESULT_BYTES_MAX};
use self::fetch::Fetching;
use self::ordering::{Ahead, UnderWay};
use self::pending::Pending;
pub use self::sessions::{Admission, Kept, Known, Sessions};
pub use self::start::StartError;
use self::status::Peer;
use self::votes::Votes;
use crate::application::Application;
use crate::codec::Canonical;
use crate::evidence::Evidence;
use crate::history::History;
use crate::id::{ClientId, Digest, Instant, Now, ReplicaId, SessionId, Slot, View};
use crate::membership::Membership;
use crate::message::{
    Checkpoint, CheckpointCertificate, Commit, CommitCertificate, Message, Position, SignedRequest,
    SlotEntry, ToClient,
};
use crate::quorum::ClusterSize;
use crate::seal::{Signed, Signer, Verified, sign};
use crate::tuning::Tuning;

/// A point in the sequence of durable records of one run. `Mark::NONE` is before all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(pub u64);

impl Mark {
    /// Depends on no record.
    pub const NONE: Self = Self(0);
}

/// Everything that can happen to a replica.
#[derive(Clone, Debug)]
pub enum Event {
    /// A peer sent something, on a connection that it proved to be its own.
    Peer {
        /// Whose connection it was; not who signed what the message holds.
        from: ReplicaId,
        /// What came.
        message: Verified<Message>,
    },
    /// A client sent a request.
    Request(Verified<Arc<SignedRequest>>),
    /// A client asks what became of one of its sessions.
    AskSession {
        /// Who asks; known from the connection.
        client: ClientId,
        /// Its session.
        session: SessionId,
    },
    /// A client or operator asks how the replica is.
    AskStatus {
        /// Who asks.
        client: ClientId,
        /// To be sent back.
        nonce: u64,
        /// What the driver has counted, to be told beside the core's own.
        counters: Vec<(String, u64)>,
    },
    /// Every record up to this mark is on disk.
    Synced(Mark),
    /// The [deadline](Replica::deadline) has come, or some other time.
    Tick,
}

/// Everything a replica asks of the world, in order.
#[derive(Clone, Debug)]
pub enum Action {
    /// Write this record; tell with [`Event::Synced`] when it and all before it are on disk.
    Append {
        /// One above the last.
        mark: Mark,
        /// What to write.
        record: Record,
    },
    /// Send to replicas, not before `after` is on disk.
    Send {
        /// To whom.
        to: Target,
        /// What.
        message: Message,
        /// What it rests on.
        after: Mark,
    },
    /// Send to a client, on every connection of its that used this session, or on all of them
    /// where no session is named; not before `after` is on disk.
    Answer {
        /// To whom.
        client: ClientId,
        /// For which of its sessions.
        session: Option<SessionId>,
        /// What.
        message: ToClient,
        /// What it rests on.
        after: Mark,
    },
    /// Read the history from `from` on from disk, where it is no longer in memory, and send it to
    /// `to` as [`Message::Slots`].
    ServeHistory {
        /// Who asked.
        to: ReplicaId,
        /// The first slot wanted.
        from: Slot,
    },
    /// Somebody was caught; the proof is also kept.
    Accuse(Evidence),
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every other replica.
    Others,
    /// One of them.
    One(ReplicaId),
}

/// What must be durable. Writing a record replaces what it contradicts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// This slot is now part of the history; those above it, if any are stored, no longer are.
    Slot {
        /// Which.
        slot: Slot,
        /// The hash of the chain up to it.
        hash: Digest,
        /// The batch and the order it was accepted by.
        entry: SlotEntry,
    },
    /// The lock. Replaces the one before.
    Lock(CommitCertificate),
    /// The stable checkpoint. Replaces the one before.
    Stable(CheckpointCertificate),
    /// A proof of misbehaviour. Added to the others.
    Evidence(Evidence),
}

/// What a replica finds on its disk when it starts, beside the slots themselves; empty on the
/// first start of all.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The lock stored.
    pub lock: Option<CommitCertificate>,
    /// The stable checkpoint stored.
    pub stable: Option<CheckpointCertificate>,
    /// Proofs stored.
    pub evidence: Vec<Evidence>,
}

/// What a replica is made of, beside its application.
#[derive(Clone)]
pub struct Setup {
    /// Which one it is.
    pub id: ReplicaId,
    /// Of which cluster.
    pub membership: Arc<Membership>,
    /// Its key pair.
    pub signer: Arc<dyn Signer>,
    /// Checked by the maker.
    pub tuning: Tuning,
    /// For the seeds it chooses as primary; from a good source, new at each start.
    pub seed: [u8; 32],
}

/// A replica of the application `A`.
pub struct Replica<A> {
    setup: Setup,
    size: ClusterSize,
    /// Both clocks at the event being handled.
    now: Now,
    /// The view entered, and the slot it was entered at: no vote of this view lies below.
    entered: View,
    entry_slot: Slot,
    history: History,
    execution: Execution<A>,
    lock: Option<CommitCertificate>,
    stable: Option<CheckpointCertificate>,
    pending: Pending,
    /// Orders of the entered view above the head.
    ahead: BTreeMap<Slot, Ahead>,
    commits: Votes<Commit>,
    checkpoints: Votes<Checkpoint>,
    /// The highest certificates for slots that are not executed yet.
    certified_ahead: Option<CommitCertificate>,
    stable_ahead: Option<CheckpointCertificate>,
    /// The highest slots voted for in the entered view.
    voted_commit: Slot,
    voted_checkpoint: Slot,
    /// State digests at checkpoint slots above the stable one.
    digests: BTreeMap<Slot, Digest>,
    peers: BTreeMap<ReplicaId, Peer>,
    divergent: BTreeSet<ReplicaId>,
    fetching: Fetching,
    /// The primary's slots that are not durable or not certified yet, oldest first.
    under_way: VecDeque<UnderWay>,
    last_ordered: Instant,
    /// The last record appended, and the last one known to be on disk.
    appended: Mark,
    synced: Mark,
    commit_at: Option<Instant>,
    status_at: Instant,
    last_stamp: u64,
    seeds_drawn: u64,
    evidence: Vec<Evidence>,
    counters: Counters,
    out: Vec<Action>,
}

/// How much memory each store of a replica holds, for the checks of I10.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Requests waiting to be ordered.
    pub pending: usize,
    /// The bytes of their operations.
    pub pending_bytes: usize,
    /// Orders that cannot be executed yet.
    pub orders_ahead: usize,
    /// Commit votes.
    pub commit_votes: usize,
    /// Checkpoint votes.
    pub checkpoint_votes: usize,
    /// Sessions of all clients.
    pub sessions: usize,
    /// Slots of the history in memory.
    pub slots: usize,
    /// State digests remembered.
    pub digests: usize,
    /// Proofs of misbehaviour.
    pub evidence: usize,
}

impl<A: Application> Replica<A> {
    /// Takes one event and appends what is to be done to `actions`.
    ///
    /// # Panics
    /// Where an invariant is broken: a bug of ours, never of a peer's making.
    pub fn handle(&mut self, now: Now, event: Event, actions: &mut Vec<Action>) {
        self.now = Now { instant: now.instant.max(self.now.instant), wall: now.wall };
        match event {
            Event::Peer { from, message } => self.on_message(from, message.into_inner()),
            Event::Request(request) => self.on_request(request.into_inner()),
            Event::AskSession { client, session } => self.answer_session(client, session),
            Event::AskStatus { client, nonce, counters } => {
                self.answer_status(client, nonce, counters);
            }
            Event::Synced(mark) => self.synced = self.synced.max(mark),
            Event::Tick => self.on_tick(),
        }
        self.order_pending();
        self.assert_invariants();
        actions.append(&mut self.out);
    }

    fn on_message(&mut self, from: ReplicaId, message: Message) {
        match message {
            Message::Order(order) => self.on_order(order),
            Message::Commit(commit) => self.on_commit(&commit),
            Message::Certificate(certificate) => self.on_certificate(certificate),
            Message::Checkpoint(checkpoint) => self.on_checkpoint(&checkpoint),
            Message::Stable(certificate) => self.on_stable(certificate),
            Message::Status(status) => self.on_status(&status),
            Message::Fetch(fetch) => self.on_fetch(&fetch),
            Message::Requests(requests) => self.on_requests(requests),
            Message::Slots(slots) => self.on_slots(from, slots),
        }
    }

    fn on_tick(&mut self) {
        self.advance();
        self.commit_when_quiet();
        self.forward_waiting();
        self.fetch_missing();
        self.send_status_when_due();
    }

    /// When to come back with [`Event::Tick`] if nothing else happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        [
            Some(self.status_at),
            self.commit_at,
            self.order_at(),
            self.clock_allows_at(),
            self.forward_at(),
            self.fetch_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn append(&mut self, record: Record) {
        self.appended = Mark(self.appended.0 + 1);
        self.out.push(Action::Append { mark: self.appended, record });
    }

    /// Sends when everything appended so far is on disk.
    fn send(&mut self, to: Target, message: Message) {
        let after = self.appended;
        self.out.push(Action::Send { to, message, after });
    }

    /// Sends what rests on no record.
    fn send_at_once(&mut self, to: Target, message: Message) {
        self.out.push(Action::Send { to, message, after: Mark::NONE });
    }

    fn sign<T: Canonical>(&self, body: T) -> Signed<T> {
        let genesis = self.setup.membership.genesis();
        sign(&*self.setup.signer, genesis, self.setup.id, body).into_inner()
    }

    fn primary(&self) -> ReplicaId {
        self.entered.primary(self.size.replicas())
    }

    fn is_primary(&self) -> bool {
        self.primary() == self.setup.id
    }

    /// Keeps a proof of misbehaviour and tells of it: one a culprit is enough to convict it, and
    /// more would only fill memory.
    fn accuse(&mut self, evidence: Evidence) {
        self.counters.contradictions += 1;
        let culprit = evidence.culprit();
        if self.evidence.iter().any(|known| known.culprit() == culprit) {
            return;
        }
        self.evidence.push(evidence.clone());
        self.append(Record::Evidence(evidence.clone()));
        self.out.push(Action::Accuse(evidence));
    }

    /// Which replica this is.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.setup.id
    }

    /// The view it has entered.
    #[must_use]
    pub fn entered(&self) -> View {
        self.entered
    }

    /// The end of its history.
    #[must_use]
    pub fn head(&self) -> Position {
        self.history.head()
    }

    /// The highest commit certificate whose batches it holds.
    #[must_use]
    pub fn lock(&self) -> Option<&CommitCertificate> {
        self.lock.as_ref()
    }

    /// The last slot that will never be undone.
    #[must_use]
    pub fn stable(&self) -> Slot {
        self.stable.as_ref().map_or(Slot::GENESIS, |stable| stable.checkpoint.slot)
    }

    /// The slots in memory.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The application, as it is after the head.
    #[must_use]
    pub fn application(&self) -> &A {
        self.execution.application()
    }

    /// The sessions, as they are after the head.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        self.execution.sessions()
    }

    /// Over the application's state and the sessions, after the head.
    pub fn state_digest(&mut self) -> Digest {
        self.execution.digest()
    }

    /// The proofs of misbehaviour held.
    #[must_use]
    pub fn evidence(&self) -> &[Evidence] {
        &self.evidence
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What it holds in memory.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        Footprint {
            pending: self.pending.len(),
            pending_bytes: self.pending.bytes(),
            orders_ahead: self.ahead.len(),
            commit_votes: self.commits.len(),
            checkpoint_votes: self.checkpoints.len(),
            sessions: usize::try_from(self.sessions().len()).unwrap_or(usize::MAX),
            slots: self.history.len(),
            digests: self.digests.len(),
            evidence: self.evidence.len(),
        }
    }
}
