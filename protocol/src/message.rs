//! What travels: a file for each message, or for those that belong together, and for what they are made of.
//!
//! Each type says what it asserts, who signs it, what a receiver may do with it, and its bounds.
//! Bounds are checked when a message is [opened](crate::membership::Membership::open_message),
//! before anything looks at what it says.

mod campaign;
mod certificate;
mod checkpoint;
mod commit;
mod enrol;
mod fetch;
mod malformed;
mod new_view;
mod order;
mod part;
mod past;
mod position;
mod pulse;
mod query;
mod reply;
mod request;
mod standing;
mod status;
mod suspect;
mod terms;
mod view_change;
mod waiting;
mod wire;

use serde::{Deserialize, Serialize};

pub use campaign::Campaign;
pub use certificate::{Certificate, Vote};
pub use checkpoint::{Checkpoint, CheckpointCertificate, StableProof};
pub use commit::{Commit, CommitCertificate};
pub use enrol::{Enrol, Enrolled};
pub use fetch::{
    ANSWER_BYTES_MAX, Branch, CLIENTS_MAX, Clients, FETCH_DIGESTS_MAX, Fetch, LOCATOR_MAX,
    LastSlot, Lent, Linked, Requests, SLOTS_MAX, SlotEntry, Slots, StateChunk, StateDigests,
    StateHead, StatePart, Wanted,
};
pub use malformed::Malformed;
pub use new_view::{NewView, NewViewHeader, changes_digest};
pub use order::{
    BATCH_BYTES_MAX, BATCH_REQUESTS_MAX, BATCH_WEIGHT_MAX, Batch, NonDeterminism, Order,
    OrderHeader, batch_digest, fit_one_slot,
};
pub use part::{PART_BYTES, Part, Parts, Pieces};
pub use past::{PAST_READ_MAX, PAST_WRITTEN_MAX, Past, Written};
pub use position::{Position, VIEW_MAX};
pub use pulse::{Echo, Pulse};
pub use query::{NoReply, QUERY_POSITIONS_MAX, Query, QueryReply, SignedQueryReply};
pub(crate) use reply::ResultCollector;
pub use reply::{
    InTree, Refusal, RefusalReason, Reply, ReplyKind, ReplyVote, Results, SessionReport,
    SignedReply, Voted,
};
pub use request::{
    APPLICATION_WEIGHT_MAX, Level, OPERATION_WEIGHT, OPERATIONS_MAX, REQUEST_BYTES_MAX, Request,
    SIGNED_TOGETHER_MAX, SignedRequest,
};
pub use standing::{Mismatch, MismatchReport, Standing};
pub use status::Status;
pub use suspect::Suspect;
pub use terms::{Difference, SETTING_BYTES_MAX, TERMS_MAX, Terms};
pub use view_change::ViewChange;
pub use waiting::{WAITING_MAX, Waiting, WaitingRequest};
pub use wire::{
    Challenge, Disagreement, DiskHealth, Farewell, Greeting, Hello, HelloBody, Knock, KnockBody,
    NodeStatus, Origin, OtherList, Pace, ToClient, ToReplica, Transferring, Transport, Turnaround,
    WireVersions,
};

use crate::evidence::Evidence;
use crate::signature::Signed;

/// What replicas send each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The primary's next batch.
    Order(Signed<Order>),
    /// A vote for a prefix of the history.
    Commit(Signed<Commit>),
    /// `Q` such votes.
    Certificate(CommitCertificate),
    /// A vote for a state.
    Checkpoint(Signed<Checkpoint>),
    /// `Q` such votes, and the certificate they rest on.
    Stable(Box<StableProof>),
    /// Where the sender stands.
    Status(Signed<Status>),
    /// What the sender lacks.
    Fetch(Signed<Fetch>),
    /// Requests, passed on or asked for. The clients' signatures are all they need.
    Requests(Requests),
    /// Whom the sender lists as clients, asked for. It is checked by its digest.
    Clients(Clients),
    /// A stretch of history, asked for. It is checked by chain, orders and certificate.
    Slots(Slots),
    /// The end of a history, asked for. It is checked by its hash.
    Branch(Branch),
    /// A piece of a state, asked for. It is checked against a certified digest.
    State(StateChunk),
    /// The sender has lost patience with the primary.
    Suspect(Signed<Suspect>),
    /// The sender asks for another view.
    Campaign(Box<Campaign>),
    /// Another view begins.
    NewView(Signed<NewView>),
    /// Somebody misbehaved. It proves itself.
    Evidence(Box<Evidence>),
    /// The sender does not know whether it has been here before.
    Enrol(Signed<Enrol>),
    /// Which life of the receiver the sender heard of first.
    Enrolled(Signed<Enrolled>),
    /// How long things take at the sender, and an echo.
    Pulse(Signed<Pulse>),
    /// Requests that wait at the sender, by name.
    Waiting(Waiting),
}

impl Message {
    /// The name of the kind, for logs and metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Order(_) => "order",
            Self::Commit(_) => "commit",
            Self::Certificate(_) => "certificate",
            Self::Checkpoint(_) => "checkpoint",
            Self::Stable(_) => "stable",
            Self::Status(_) => "status",
            Self::Fetch(_) => "fetch",
            Self::Requests(_) => "requests",
            Self::Clients(_) => "clients",
            Self::Slots(_) => "slots",
            Self::Branch(_) => "branch",
            Self::State(_) => "state",
            Self::Suspect(_) => "suspect",
            Self::Campaign(_) => "campaign",
            Self::NewView(_) => "new-view",
            Self::Evidence(_) => "evidence",
            Self::Enrol(_) => "enrol",
            Self::Enrolled(_) => "enrolled",
            Self::Pulse(_) => "pulse",
            Self::Waiting(_) => "waiting",
        }
    }
}
