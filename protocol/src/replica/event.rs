//! What happens to a replica, and what it asks of the world.

use std::sync::Arc;

use super::Record;
use crate::evidence::Evidence;
use crate::id::{ClientId, ReplicaId, SessionId};
use crate::message::{
    Disagreement, DiskHealth, Message, Origin, Position, Query, SignedRequest, ToClient, Transport,
};
use crate::rows::{RowsView, Unreadable};
use crate::seal::Verified;

/// A point in the sequence of durable records of one run. `Mark::NONE` is before all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(pub u64);

impl Mark {
    /// Depends on no record.
    pub const NONE: Self = Self(0);
}

/// What the driver alone knows, and tells whoever asks how the replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// What it has counted, to be told beside the core's own.
    pub counters: Vec<(String, u64)>,
    /// How its connections are protected.
    pub transport: Transport,
    /// How its disk is.
    pub disk: DiskHealth,
    /// Whose keys it hears in two places at once.
    pub doubled: Vec<Origin>,
    /// Whom it does not speak to, for their settings.
    pub disagreements: Vec<Disagreement>,
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
    /// Clients, who are known from their connections, ask what operations would come to. Those that come together are
    /// answered under one signature.
    Queries(Vec<(ClientId, Query)>),
    /// A client asks what became of one of its sessions.
    AskSession {
        /// Who asks; known from the connection.
        client: ClientId,
        /// Its session.
        session: SessionId,
    },
    /// A client or operator asks which proofs of misbehaviour the replica holds.
    AskEvidence {
        /// Who asks.
        client: ClientId,
    },
    /// A client asks which certified state it could be given.
    AskState {
        /// Who asks.
        client: ClientId,
    },
    /// A client asks for a piece of one.
    AskPiece {
        /// Who asks.
        client: ClientId,
        /// After which checkpoint.
        at: Position,
        /// Which piece of the application's state.
        index: u32,
    },
    /// A client or operator asks how the replica is.
    AskStatus {
        /// Who asks.
        client: ClientId,
        /// To be sent back.
        nonce: u64,
        /// What the driver knows of it.
        driver: Driver,
    },
    /// Every record up to this mark is on disk.
    Synced(Mark),
    /// The record of this mark is on disk, which was a [`Record::Settled`] or the last
    /// [`Record::Rows`] of a state, and these are the rows of that state as they are now.
    Rows(Mark, RowsView),
    /// The driver found that the stored state is not what was written.
    Unreadable(Unreadable),
    /// Whether the disk is full, so that nothing more gets durable until it has room.
    DiskFull(bool),
    /// The driver is going to stop the replica: it leads no view from now on, so that nobody has to find out that
    /// it is gone. It [has left](super::Replica::has_left) when another one leads.
    Leave,
    /// The [deadline](super::Replica::deadline) has come, or some other time.
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
        /// The receivers.
        to: Target,
        /// What is said.
        message: Message,
        /// What it rests on.
        after: Mark,
    },
    /// Send to a client, on every connection of its that used this session, or on all of them
    /// where no session is named; not before `after` is on disk.
    Answer {
        /// The client.
        client: ClientId,
        /// For which of its sessions.
        session: Option<SessionId>,
        /// What is said.
        message: ToClient,
        /// What it rests on.
        after: Mark,
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
