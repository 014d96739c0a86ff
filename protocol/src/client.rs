//! The client: one state machine for one session, [`Event`] in, [`Action`]s out.
//!
//! It has requests signed, sends them to all replicas, counts the replies that match, sends again what
//! is not answered, and follows a weak request until it is final. Whoever drives it carries out
//! the actions in their order, hands in what comes back, and between events sleeps until
//! [`Client::deadline`]. It reads no clock and knows no connections.
//!
//! # When a request is answered
//!
//! A *strong* request by a strong quorum of matching [`Committed`](ReplyKind::Committed) replies.
//! A *weak* one by a weak quorum of matching replies of one kind: speculative ones, or committed
//! ones where the request was committed before the client heard of it; it is *final* with a strong
//! quorum of matching committed ones. Replies match when they are equal in kind, view, slot, hash,
//! index and results; of each replica the newest reply of each kind counts, once.
//!
//! # What a refusal means
//!
//! A refusal describes the present state of a replica. That state may be undone, and the request
//! is on its way to other replicas as well, in another part of the network perhaps: **a request
//! that was sent may execute later, whatever was refused**. So an operation that was sent is never
//! submitted again under another name, since it might then happen twice.
//!
//! - [`WindowExceeded`](RefusalReason::WindowExceeded) and
//!   [`HistoryFull`](RefusalReason::HistoryFull) pass when something else changes: the request
//!   stays open and is sent again until its caller loses patience. With the first the session
//!   takes no new submissions; those that were never sent are handed back for another session
//!   ([`Action::SessionUnusable`]).
//! - [`SessionRetired`](RefusalReason::SessionRetired), [`NameUsed`](RefusalReason::NameUsed) and
//!   [`SessionTooFar`](RefusalReason::SessionTooFar) do not pass: the caller is told, and that
//!   the outcome is unknown.
//! - [`ResultForgotten`](RefusalReason::ResultForgotten) says that it was executed.
//!
//! Each counts when a weak quorum gives the same reason: one of them is correct.
//!
//! # When it need not be ordered
//!
//! Operations that change nothing are first [asked](Event::Ask) of as many replicas as have to agree. It is answered by
//! a quorum of replies that are of one view, have the same results, and whose slots have one in common; of each replica
//! the first reply counts. Where that does not come about, the operations are ordered like any others.
//!
//! Who asks with a [past](Ask::past) is answered by replies that agree, besides, in the hash of the history after a slot
//! that they have in common: that history includes the past, and is named with the answer. Where that does not come about
//! nothing is ordered, since no order would make it so ([`Action::NotSeen`]).
//!
//! # Before a session is used
//!
//! A cluster remembers only so many sessions of a client, and lets go of those that rested longest.
//! So it is asked first where a new session may lie, or whether one that rested is still known: an
//! [`Inquiry`].
//!
//! # Letting go
//!
//! A number, once used, must be executed: a gap would close the session's window for ever. So a
//! request whose caller has gone is sent on until it is answered, and only then forgotten.

mod inquiry;
mod outstanding;
mod queries;
mod queue;
mod refusal;
mod state;
#[cfg(test)]
mod tests;
mod words;

pub use inquiry::{Found, Inquiry};
pub use queries::{Ask, Seen};
pub use queue::{MERGED_MAX, QUEUED_BYTES_MAX, QUEUED_MAX};
pub use state::Client;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::id::{ClientId, Digest, ReplicaId, RequestName, RequestNumber, SessionId, Slot, View};
use crate::membership::Membership;
use crate::message::{
    Level, NoReply, Refusal, RefusalReason, ReplyKind, Request, SignedQueryReply, SignedReply,
    SignedRequest, ToReplica,
};
use crate::receipt::{Proven, Receipt};
use crate::seal::Verified;
use crate::signature::Signed;

/// How patient a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// After so long without an answer a request is sent again, in ms, or after as long as answers took of
    /// late; twice as long each time.
    pub first_retry_ms: u64,
    /// The longest wait between two sendings, in ms.
    pub max_retry_ms: u64,
    /// After so long with a full window the session is given up for new submissions, in ms.
    pub stall_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { first_retry_ms: 500, max_retry_ms: 8_000, stall_ms: 2_000 }
    }
}

impl Timing {
    /// The wait after this one.
    fn longer(&self, wait_ms: u64) -> u64 {
        wait_ms.saturating_mul(2).min(self.max_retry_ms.max(self.first_retry_ms)).max(1)
    }
}

/// What a session is made of.
#[derive(Clone)]
pub struct Setup {
    /// Of which cluster.
    pub membership: Arc<Membership>,
    /// Which client: its public key.
    pub client: ClientId,
    /// Which session; nobody else uses it.
    pub session: SessionId,
    /// The first number of the session that was never used.
    pub next: RequestNumber,
    /// When requests are sent again, and when the session is given up.
    pub timing: Timing,
    /// The highest number sent is always less than this above the lowest one not answered. At
    /// most the cluster's `session_window`.
    pub window: u64,
    /// While so many requests wait for their first answer, further submissions wait and are signed
    /// together, many in one request. Requests that had to be sent again do not count, and what fills a
    /// request, or is followed by something of another level, has nothing to wait for.
    pub pipeline: usize,
}

/// What the driver calls a submission, until it is done; its own choice, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Whether anybody cares when a weak answer becomes final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Nobody: the request is forgotten once it is answered.
    No,
    /// Perhaps later: it is kept until [`Event::WantFinal`] or [`Event::Cancel`].
    MayAsk,
    /// Yes: replicas are asked to say so, and [`Action::Final`] follows.
    Yes,
}

/// Operations that somebody wants executed, in this order, side by side in one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// What to call it.
    pub ticket: Ticket,
    /// How good an answer must be.
    pub level: Level,
    /// For weak ones; a strong answer is final.
    pub follow: Follow,
    /// At least one, within the bounds of a request.
    pub operations: Vec<Bytes>,
    /// Whether they must not share a request with others.
    pub alone: bool,
}

/// Everything that can happen to a client.
#[derive(Clone, Debug)]
pub enum Event {
    /// Execute these. Those that come together and want the same may share a request.
    Submit(Vec<Submission>),
    /// Find out what operations come to that change nothing.
    Ask(Ask),
    /// Tell when this weak request, submitted with [`Follow::MayAsk`], is final.
    WantFinal(Ticket),
    /// Nobody waits for this any more.
    Cancel(Ticket),
    /// A replica answered.
    Reply {
        /// On whose connection.
        from: ReplicaId,
        /// What it said.
        reply: Verified<SignedReply>,
    },
    /// A replica replied to a query.
    QueryReply {
        /// On whose connection.
        from: ReplicaId,
        /// What it said.
        reply: Verified<SignedQueryReply>,
    },
    /// A replica has no reply to a query.
    NoQueryReply {
        /// On whose connection.
        from: ReplicaId,
        /// The query's digest.
        query: Digest,
        /// Why.
        why: NoReply,
    },
    /// A replica refused.
    Refusal(Verified<Signed<Refusal>>),
    /// A replica had no room.
    Busy {
        /// On whose connection.
        from: ReplicaId,
        /// For which request.
        name: RequestName,
    },
    /// What was [to be signed](Action::Sign) is.
    Signed(Arc<SignedRequest>),
    /// The [deadline](Client::deadline) has come, or some other time.
    Tick,
}

/// The answer to a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// One for each operation.
    pub results: Vec<Bytes>,
    /// The view in which the replicas answered.
    pub view: View,
    /// The slot that holds the operations.
    pub slot: Slot,
    /// The hash of the history up to that slot.
    pub hash: Digest,
    /// The position of the submission's first operation in the slot; `(slot, index)` is its version.
    pub index: u32,
    /// Which replies answered.
    pub kind: ReplyKind,
    /// What the receipt shows.
    pub proven: Proven,
    /// The proof. It is about the whole request, in which other submissions may have a part.
    pub receipt: Arc<Receipt>,
}

/// How a weak answer compares with what became final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finality {
    /// It stands: the same results in the same place.
    Same,
    /// A merge moved it.
    Reordered {
        /// The results where it is now; equal to the first ones where only the place changed.
        results: Vec<Bytes>,
    },
}

/// Why a submission has no answer, or a weak one no final word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// As much as may wait is waiting. Never sent.
    #[error("too many submissions are waiting already")]
    QueueFull,
    /// No operations, or more than a request may carry. Never sent.
    #[error("the operations are none, or more than one request may carry")]
    OutOfBounds,
    /// The session takes no new submissions. Never sent.
    #[error("the session takes no new submissions")]
    SessionClosed,
    /// A weak quorum refuses it for a reason that does not pass. It may have been executed, or
    /// still be.
    #[error("refused: {0}")]
    Refused(RefusalReason),
    /// It was executed, but the results, being large or old, are kept nowhere any more. A merge may
    /// still move it, as with a weak answer.
    #[error("executed, but its results are no longer kept")]
    ResultForgotten,
}

/// What is known of the effect of a submission that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was never sent.
    NotExecuted,
    /// It was executed.
    Executed,
    /// It may have been executed, or still be.
    Unknown,
}

impl Failure {
    /// What this failure leaves open.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::QueueFull | Self::OutOfBounds | Self::SessionClosed => Outcome::NotExecuted,
            Self::Refused(_) => Outcome::Unknown,
            Self::ResultForgotten => Outcome::Executed,
        }
    }
}

/// Why a session takes no new submissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// A weak quorum refuses requests in it.
    #[error("{0}")]
    Refused(RefusalReason),
    /// Its window has been full for long: what it waits for may be in another part of the network,
    /// or a strong request in a part without a strong quorum.
    #[error("its requests have been waiting for too long")]
    Stalled,
}

/// What is worth verifying for a number of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaiting {
    /// Any reply.
    Any,
    /// Committed replies.
    Committed,
    /// Nothing: whatever comes is dropped.
    Nothing,
}

/// Everything a client asks of the world, in order.
#[derive(Clone, Debug)]
pub enum Action {
    /// Sign this, and hand it back with [`Event::Signed`]. One signature [may cover](SignedRequest::sign_all) what
    /// several sessions want signed at a time.
    Sign(Request),
    /// Send this.
    Send {
        /// To whom; `None`: to all.
        to: Option<ReplicaId>,
        /// What to send.
        message: ToReplica,
    },
    /// From now on these replies are of use; an aid to skip signature checks.
    Awaits {
        /// For which number of the session.
        number: RequestNumber,
        /// What is waited for from now on.
        what: Awaiting,
    },
    /// A submission is answered. [`Action::Final`] follows in the same list where the answer is
    /// final and the submission was to be followed.
    Answered {
        /// The submission.
        ticket: Ticket,
        /// With what.
        answer: Answer,
    },
    /// It is found out what was asked.
    Seen {
        /// The [`Ask`].
        ticket: Ticket,
        /// What they come to.
        seen: Seen,
    },
    /// What was asked could not be found out: this is to be submitted, in this session or another one.
    MustOrder(Submission),
    /// Of the replicas that can be heard too few include the [past](Ask::past) of an [`Ask`], and agree in a history. It may
    /// be asked again, with other random bytes.
    NotSeen {
        /// What it was called.
        ticket: Ticket,
        /// What those said that have no reply.
        without: BTreeMap<ReplicaId, NoReply>,
    },
    /// A weak submission that was to be followed is final.
    Final {
        /// The submission.
        ticket: Ticket,
        /// Compared with what it was answered.
        finality: Finality,
        /// The final answer.
        answer: Answer,
    },
    /// A submission will not be answered, or, after [`Action::Answered`], not be followed.
    Failed {
        /// The submission.
        ticket: Ticket,
        /// What went wrong.
        failure: Failure,
    },
    /// New submissions need another session. What was sent stays here and goes on. Once a session.
    SessionUnusable {
        /// What makes it unusable.
        reason: Unusable,
        /// What was never sent, in order: safe to submit elsewhere.
        unsent: Vec<Submission>,
    },
}

/// How far a submission has come; what an error about it can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Its number; `None` while it has none and was not sent.
    pub number: Option<RequestNumber>,
    /// How often it was sent.
    pub sent: u32,
    /// Replicas that replied, matching or not.
    pub answered: BTreeSet<ReplicaId>,
    /// The most replies that match.
    pub matching: usize,
    /// How many are needed.
    pub needed: usize,
    /// Replicas that refused, and why.
    pub refused: BTreeMap<ReplicaId, RefusalReason>,
    /// Replicas that had no room.
    pub busy: BTreeSet<ReplicaId>,
    /// Whether it is answered and waits to be final.
    pub is_answered: bool,
}

/// What was dropped, by reason. A correct cluster makes some of these now and then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// For requests that nobody waits for: late replies, mostly.
    pub late: u64,
    /// Of another client or session, or about a content that was not signed here.
    pub foreign: u64,
    /// On another replica's connection, or with too few or too many results.
    pub malformed: u64,
    /// Of a view below that of the same replica's last word.
    pub stale: u64,
    /// Requests sent again.
    pub resent: u64,
}
