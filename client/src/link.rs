//! What connection tasks and the owners of the sessions share.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use elea_net::Dialler;
use elea_protocol::evidence::Evidence;
use elea_protocol::id::{Digest, ReplicaId, RequestName, SessionId};
use elea_protocol::message::{
    Lent, NoReply, NodeStatus, Position, Refusal, SessionReport, SignedQueryReply, SignedReply,
    StateHead,
};
use elea_protocol::seal::Verified;
use elea_protocol::signature::Signed;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, sleep};

use crate::error::ReplicaNote;

/// The most frames that wait to be sent to one replica, and the most bytes of them. Beyond that
/// the oldest go: the core sends again what is not answered.
const WAITING_FRAMES_MAX: usize = 1 << 14;
const WAITING_BYTES_MAX: usize = 32 << 20;

/// Messages of one replica that wait to be handled. A replica that floods waits for itself only.
pub(crate) const INBOUND_MAX: usize = 64;

/// Questions for its status that one replica may leave open; those before them are given up.
const STATUSES_MAX: usize = 1024;

/// A message, encoded, and the request that it is, if it is one.
#[derive(Debug)]
struct Frame {
    request: Option<RequestName>,
    bytes: Bytes,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// Requests among the frames, and those that the line is being given now.
    requests: HashSet<RequestName>,
    under_way: HashSet<RequestName>,
    /// Since when something was given to the line and nothing has come back.
    unanswered: Option<Instant>,
}

impl Waiting {
    fn pop(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.bytes.len();
        if let Some(name) = &frame.request {
            self.requests.remove(name);
        }
        Some(frame)
    }
}

/// What waits to be sent to one replica, and how the connection is.
#[derive(Debug)]
pub(crate) struct Link {
    pub id: ReplicaId,
    /// Where it is, and by which way it was reached last.
    pub dialler: Dialler,
    waiting: Mutex<Waiting>,
    more: Notify,
    note: Mutex<ReplicaNote>,
    /// Questions sent and not answered: reports beyond that are dropped unread.
    asked: Mutex<Asked>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    pub fn new(id: ReplicaId, address: String) -> Self {
        Self {
            id,
            dialler: Dialler::new(address),
            waiting: Mutex::default(),
            more: Notify::new(),
            note: Mutex::new(ReplicaNote::Connecting),
            asked: Mutex::default(),
        }
    }

    /// A question goes out, to which one report may come back.
    pub fn ask(&self, question: Question, frame: Bytes) {
        lock(&self.asked).add(question);
        self.push(None, frame);
    }

    /// Whether this was asked; each answer uses up one question.
    pub fn expects(&self, question: Question) -> bool {
        lock(&self.asked).take(question)
    }

    /// Lets a message wait for the line. A request that is sent again while it has not left yet is not
    /// sent twice: on a slow line it would only be in its own way.
    pub fn push(&self, request: Option<RequestName>, bytes: Bytes) {
        let mut waiting = lock(&self.waiting);
        if let Some(name) = request
            && (waiting.under_way.contains(&name) || !waiting.requests.insert(name))
        {
            return;
        }
        waiting.bytes += bytes.len();
        waiting.frames.push_back(Frame { request, bytes });
        while waiting.frames.len() > WAITING_FRAMES_MAX || waiting.bytes > WAITING_BYTES_MAX {
            // The oldest.
            drop(waiting.pop());
        }
        drop(waiting);
        self.more.notify_one();
    }

    pub fn try_pop(&self) -> Option<Bytes> {
        let mut waiting = lock(&self.waiting);
        let Frame { request, bytes } = waiting.pop()?;
        waiting.under_way.extend(request);
        Some(bytes)
    }

    /// A connection begins. What was taken for the one before is lost.
    pub fn begin(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.under_way.clear();
        waiting.unanswered = None;
    }

    /// What was taken is on its way.
    pub fn written(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.under_way.clear();
        waiting.unanswered.get_or_insert_with(Instant::now);
    }

    /// The replica said something.
    pub fn heard(&self) {
        lock(&self.waiting).unanswered = None;
    }

    /// Waits until the replica has said nothing for so long although it was sent something.
    pub async fn silent_for(&self, patience: Duration) {
        loop {
            let since = lock(&self.waiting).unanswered;
            let left = since.map_or(patience, |since| patience.saturating_sub(since.elapsed()));
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }

    pub async fn pop(&self) -> Bytes {
        loop {
            if let Some(frame) = self.try_pop() {
                return frame;
            }
            self.more.notified().await;
        }
    }

    pub fn set_note(&self, note: ReplicaNote) {
        *lock(&self.note) = note;
    }

    pub fn note(&self) -> ReplicaNote {
        lock(&self.note).clone()
    }
}

/// What a replica is asked for besides answers to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// How a session is.
    Session,
    /// How it is itself, with a number of our own that its answer repeats.
    Status(u64),
    /// Which proofs it holds.
    Evidence,
    /// What operations come to.
    Query,
    /// Which certified state it can give.
    State,
    /// A piece of one.
    Piece,
}

/// Questions that are open, each kind by itself: what another process with this key asked is answered
/// here, too, and must not take the place of what this one waits for.
#[derive(Debug, Default)]
struct Asked {
    sessions: usize,
    evidence: usize,
    queries: usize,
    states: usize,
    pieces: usize,
    /// The newest ones.
    statuses: VecDeque<u64>,
}

impl Asked {
    fn add(&mut self, question: Question) {
        match question {
            Question::Session => self.sessions += 1,
            Question::Evidence => self.evidence += 1,
            Question::Query => self.queries += 1,
            Question::State => self.states += 1,
            Question::Piece => self.pieces += 1,
            Question::Status(nonce) => {
                self.statuses.push_back(nonce);
                if self.statuses.len() > STATUSES_MAX {
                    self.statuses.pop_front();
                }
            }
        }
    }

    fn take(&mut self, question: Question) -> bool {
        let count = match question {
            Question::Session => &mut self.sessions,
            Question::Evidence => &mut self.evidence,
            Question::Query => &mut self.queries,
            Question::State => &mut self.states,
            Question::Piece => &mut self.pieces,
            Question::Status(nonce) => {
                let at = self.statuses.iter().position(|asked| *asked == nonce);
                return at.and_then(|at| self.statuses.remove(at)).is_some();
            }
        };
        let is_open = *count > 0;
        *count = count.saturating_sub(1);
        is_open
    }
}

/// What a replica said, verified.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Replies(Vec<Verified<SignedReply>>),
    QueryReplies(Vec<Verified<SignedQueryReply>>),
    NoQueryReply(SessionId, Digest, NoReply),
    Refusal(Verified<Signed<Refusal>>),
    Busy(RequestName),
    Session(Verified<Signed<SessionReport>>),
    Status(Box<Verified<Signed<NodeStatus>>>),
    Evidence(Vec<Verified<Evidence>>),
    State(Option<Box<Verified<StateHead>>>),
    /// It is checked by whoever puts the state together.
    Piece {
        at: Position,
        index: u32,
        lent: Lent,
    },
}

/// One message for owners; the permit, which all who hear it share, is one of [`INBOUND_MAX`] of its replica.
#[derive(Clone, Debug)]
pub(crate) struct Inbound {
    pub from: ReplicaId,
    pub said: Said,
    pub permit: Option<Arc<OwnedSemaphorePermit>>,
}

/// The links to all replicas.
pub(crate) type Links = Arc<[Arc<Link>]>;
