//! What can go wrong, and what to do about it.

use std::fmt;
use std::time::Duration;

use elea_protocol::application::Undecodable;
use elea_protocol::client::{Outcome, Progress};
use elea_protocol::id::ReplicaId;
use elea_protocol::message::RefusalReason;

use crate::sessions::SessionError;

/// Why an operation was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Too few replicas gave the same answer in time. The operation may have been executed, or
    /// still be, unless it was never sent.
    #[error("{0}")]
    NotEnoughReplicas(Box<Shortfall>),
    /// Enough replicas refuse it.
    #[error("the cluster refuses: {reason}; {}", advice(*reason, *outcome))]
    Refused {
        /// What the replicas have against it.
        reason: RefusalReason,
        /// What is known of its effect.
        outcome: Outcome,
    },
    /// It was executed, but its results were large or are old, and no replica keeps them.
    #[error("executed, but its results are no longer kept: read again")]
    ResultForgotten,
    /// As many operations as may wait are waiting. This one was not sent.
    #[error("too many operations are waiting: wait for some of them, this one was not sent")]
    QueueFull,
    /// More than a request may carry, or nothing. This operation was not sent.
    #[error("the operations are none, or too many or too large for one request")]
    OutOfBounds,
    /// Of the replicas that can be reached too few include what was [seen before](crate::Past), or can tell.
    #[error("{0}")]
    Behind(Box<Behind>),
    /// Something cannot be noted in a [past](crate::Past), or read after it.
    #[error(transparent)]
    Past(#[from] PastError),
    /// The client was closed. This operation was not sent, or its outcome is unknown.
    #[error("the client is closed")]
    Closed,
    /// The replicas agree on a result that the command cannot read.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// Wrong from the start: the cluster, the key, or the files beside it.
    #[error("{0}")]
    Configuration(String),
    /// The files beside the key.
    #[error(transparent)]
    Sessions(#[from] SessionError),
}

/// The kinds of [`Error`], as the command line's exit codes tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Exit code 2: nothing but a change of command, key or files helps.
    Configuration,
    /// Exit code 3: the cluster did not answer in time, or has no room now.
    Unavailable,
}

impl Error {
    /// What kind it is of.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Configuration(_)
            | Self::Sessions(_)
            | Self::OutOfBounds
            | Self::Past(_)
            | Self::Undecodable(_) => ErrorKind::Configuration,
            Self::NotEnoughReplicas(_)
            | Self::Refused { .. }
            | Self::ResultForgotten
            | Self::QueueFull
            | Self::Behind(_)
            | Self::Closed => ErrorKind::Unavailable,
        }
    }

    /// A word for machines.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotEnoughReplicas(_) => "not_enough_replicas",
            Self::Refused { .. } => "refused",
            Self::ResultForgotten => "result_forgotten",
            Self::QueueFull => "queue_full",
            Self::Behind(_) => "behind",
            Self::Past(_) => "past",
            Self::OutOfBounds => "out_of_bounds",
            Self::Closed => "closed",
            Self::Undecodable(_) => "undecodable",
            Self::Configuration(_) => "configuration",
            Self::Sessions(_) => "sessions",
        }
    }

    /// What is known of the operation's effect: whether it is safe to do it again.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NotEnoughReplicas(shortfall) if shortfall.progress.number.is_none() => {
                Outcome::NotExecuted
            }
            Self::NotEnoughReplicas(_) | Self::Closed => Outcome::Unknown,
            Self::Refused { outcome, .. } => *outcome,
            Self::ResultForgotten | Self::Undecodable(_) => Outcome::Executed,
            Self::QueueFull
            | Self::Behind(_)
            | Self::Past(_)
            | Self::OutOfBounds
            | Self::Configuration(_)
            | Self::Sessions(_) => Outcome::NotExecuted,
        }
    }
}

fn advice(reason: RefusalReason, outcome: Outcome) -> String {
    let what = match reason {
        RefusalReason::SessionRetired | RefusalReason::SessionTooFar => {
            "very many sessions of this key were used meanwhile: let commands share a session file, \
             or use several keys"
        }
        RefusalReason::UnknownClient => {
            "ask the operators to list its key: a weak request takes f + 1 of them and a strong one \
             2f + 1; `elea status` shows whose lists differ"
        }
        RefusalReason::NameUsed => {
            "another process seems to use the same key and a copy of the same session file"
        }
        RefusalReason::WindowExceeded
        | RefusalReason::ResultForgotten
        | RefusalReason::HistoryFull => "try again later",
    };
    let effect = match outcome {
        Outcome::NotExecuted => "the operation was not sent",
        Outcome::Executed => "the operation was executed",
        Outcome::Unknown => "whether the operation is executed is unknown",
    };
    format!("{what}; {effect}")
}

/// Why something cannot be noted in a [`Past`](crate::Past).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PastError {
    /// It names 64 sessions already, or four histories. Reading after it makes room, but for a past of writes: begin another one.
    #[error("the past has no room for more: read something after it, or begin another one")]
    Full,
    /// It is about another cluster.
    #[error("the past is that of another cluster")]
    OtherCluster,
}

/// Who does not include what a reader has seen, and why.
#[derive(Clone, Debug)]
pub struct Behind {
    /// How long it was waited for.
    pub waited: Duration,
    /// Each replica's address, and what is known of it.
    pub replicas: Vec<(ReplicaId, String, String)>,
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.waited.as_millis();
        write!(f, "too few replicas have all that was seen before, after {millis} ms")?;
        for (id, address, why) in &self.replicas {
            write!(f, "; {id} ({address}): {why}")?;
        }
        write!(f, "; nothing was done: try again later, or read without a past")
    }
}

/// Who answered, who did not, and why.
#[derive(Clone, Debug)]
pub struct Shortfall {
    /// How long it was waited for.
    pub waited: Duration,
    /// How far it came.
    pub progress: Progress,
    /// Each replica's address, and what is known of it.
    pub replicas: Vec<(ReplicaId, String, ReplicaNote)>,
}

/// What a client knows of its connection to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaNote {
    /// Connected.
    Connected,
    /// Not yet tried to the end.
    Connecting,
    /// Tried, with this result.
    Failed(String),
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { waited, progress, replicas } = self;
        let millis = waited.as_millis();
        match (progress.number, progress.is_answered) {
            (None, _) => write!(f, "the operation could not be sent within {millis} ms")?,
            (_, true) => write!(
                f,
                "answered, but not final within {millis} ms: {} of {} replicas needed confirmed it",
                progress.matching, progress.needed
            )?,
            _ => write!(
                f,
                "{} of {} replicas needed gave the same answer within {millis} ms",
                progress.matching, progress.needed
            )?,
        }
        for (id, address, note) in replicas {
            let said = match note {
                ReplicaNote::Failed(reason) => reason.clone(),
                ReplicaNote::Connecting => "not connected yet".into(),
                ReplicaNote::Connected => match progress.refused.get(id) {
                    Some(reason) => format!("refused: {reason}"),
                    None if progress.answered.contains(id) => "answered".into(),
                    None if progress.busy.contains(id) => "had no room".into(),
                    None => "did not answer".into(),
                },
            };
            write!(f, "; {id} ({address}): {said}")?;
        }
        match progress.number {
            None => write!(f, "; it was not sent, so it is safe to try again"),
            Some(_) if progress.is_answered => Ok(()),
            Some(_) => write!(
                f,
                "; it may still be executed, so try again only what may be done twice, or read first"
            ),
        }
    }
}
