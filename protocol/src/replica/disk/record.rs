//! What a replica keeps on its disk: the records it writes and what it finds when it starts.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;
use crate::id::{Digest, Life, ReplicaId, Slot, View};
use crate::message::{
    CommitCertificate, Linked, Mismatch, NewView, Position, SignedRequest, SlotEntry, StableProof,
    Standing, StateHead, StatePart,
};
use crate::rows::{Changes, Row, RowsView};
use crate::signature::Signed;

/// What must be durable. Records are applied in their order, each whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// This slot now ends the history; those at it and above it, if any are stored, are gone.
    Slot {
        /// Its number.
        slot: Slot,
        /// The hash of the chain up to it.
        hash: Digest,
        /// The batch and the order it was accepted by.
        entry: SlotEntry,
    },
    /// A slot of another history than the own, stored by its hash: the next [`Record::Adopted`]
    /// makes it part of the history. Written right before that one; what a crash between the two
    /// leaves behind goes with the next adoption.
    Aside(Aside),
    /// The lock, on the own history. Replaces the one before.
    Lock(CommitCertificate),
    /// The stable checkpoint. Replaces the one before.
    Stable(Box<StableProof>),
    /// The history is another from here on, and perhaps the view. All slots aside are gone then.
    Adopted(Box<Adopted>),
    /// Requests that were executed in an abandoned history and are not in the present one, by the
    /// digests of their contents; and those that are in it again.
    Orphans {
        /// To be kept.
        add: Vec<Arc<SignedRequest>>,
        /// To be let go; those not known are ignored.
        remove: Vec<Digest>,
    },
    /// A state is being fetched from here on. What was fetched of another one is gone.
    Fetching(Box<StateHead>),
    /// A piece of the state that is being fetched, of those that are the protocol's own.
    Piece {
        /// The checkpoint.
        at: Position,
        /// Which piece. Replaces the same piece, if it was there.
        part: StatePart,
        /// The piece.
        bytes: Bytes,
    },
    /// Rows of the application's state that is being fetched.
    Rows {
        /// The checkpoint.
        at: Position,
        /// The rows.
        rows: Vec<Row>,
        /// Whether all are there with these: then the driver answers with [`Event::Rows`].
        ///
        /// [`Event::Rows`]: crate::replica::Event::Rows
        whole: bool,
    },
    /// A part of what the [`Record::Settled`] of a checkpoint is to change, so that this one is not large.
    /// It is of no effect before that one, and what a crash leaves of it goes.
    Settling {
        /// The checkpoint.
        at: Position,
        /// Whether it is the first part: then what there was of others goes.
        first: bool,
        /// What becomes of the application's rows.
        changes: Changes,
    },
    /// The stored state becomes that of a stable checkpoint of the own history, and takes the place
    /// of the slots up to it; those above it stay. The driver answers with [`Event::Rows`].
    ///
    /// [`Event::Rows`]: crate::replica::Event::Rows
    Settled(Box<Settled>),
    /// A proof of misbehaviour. Added to the others.
    Evidence(Box<Evidence>),
    /// What the replica may do from now on.
    Standing(Standing),
    /// The first life of each replica that was heard of, and the own one. Replaces those before.
    Lives(BTreeMap<ReplicaId, Life>),
    /// The checkpoints whose certified state was not the own one. Replaces those before.
    Mismatches(Vec<Mismatch>),
    /// No stamp above this one was used so far. Replaces the one before.
    Stamps(u64),
}

/// A slot of another history than the own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aside {
    /// Where its history ends with it.
    pub at: Position,
    /// The hash before it, and what it holds.
    pub linked: Linked,
}

/// The view entered, where it is not the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnteredView {
    /// What made it begin, kept for peers.
    pub new_view: Signed<NewView>,
    /// The slot that the own history had as its head then: no vote of this view lies below.
    pub entry_slot: Slot,
}

impl EnteredView {
    /// The view.
    #[must_use]
    pub fn view(&self) -> View {
        self.new_view.body.header.view
    }
}

/// A change of history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The view entered with it; none where the view stays what it is.
    pub entered: Option<EnteredView>,
    /// What is kept of the history before, or what it begins with instead.
    pub ground: Ground,
    /// The slots aside that follow, lowest first.
    pub slots: Vec<Digest>,
    /// The lock from now on, on the new history.
    pub lock: Option<CommitCertificate>,
    /// Up to this slot votes of the view may have been cast, on the history before: none will be
    /// cast there again. Slot 0 where a view is entered.
    pub voted: Slot,
}

/// What an adopted history stands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ground {
    /// The own history up to this slot.
    Common(Slot),
    /// The state that was fetched. What the history and the state were before is gone.
    State(Box<StateHead>),
}

/// How the stored state becomes that of a later checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// The checkpoint.
    pub head: StateHead,
    /// The protocol's own pieces of the state, all of them. Those before are gone.
    pub pieces: Vec<(StatePart, Bytes)>,
    /// What becomes of the application's rows, with all that went before it as [`Record::Settling`].
    pub changes: Changes,
}

/// A stored state as it is found on the disk.
#[derive(Clone, Debug)]
pub struct StoredState {
    /// What it is.
    pub head: StateHead,
    /// The protocol's own pieces.
    pub pieces: Vec<(StatePart, Bytes)>,
    /// The application's rows.
    pub rows: RowsView,
}

/// What a replica finds on its disk when it starts, beside the slots of its history; empty on the
/// first start of all.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The view entered.
    pub entered: Option<EnteredView>,
    /// The state that the stored history begins with, where that is not slot 1.
    pub state: Option<StoredState>,
    /// Where the cluster [begins](crate::membership::Membership::initial_state) with a state and no
    /// later one is stored: the application's rows of that one.
    pub initial: Option<RowsView>,
    /// A state that was being fetched, as far as it came.
    pub incoming: Option<StoredState>,
    /// The lock stored.
    pub lock: Option<CommitCertificate>,
    /// No vote of the view entered may be cast at this slot or below.
    pub voted: Slot,
    /// The stable checkpoint stored.
    pub stable: Option<StableProof>,
    /// Requests that wait to be in the history again.
    pub orphans: Vec<Arc<SignedRequest>>,
    /// Proofs stored.
    pub evidence: Vec<Evidence>,
    /// What the replica may do. On the first start in a folder the driver says [`Standing::New`].
    pub standing: Standing,
    /// The first life of each replica that was heard of, and the own one, which the driver draws
    /// before the first start. Who is new needs it.
    pub lives: BTreeMap<ReplicaId, Life>,
    /// The checkpoints whose certified state was not the own one, oldest first.
    pub mismatches: Vec<Mismatch>,
    /// No stamp above this one was used.
    pub stamps: u64,
    /// Whether the replica ran on this disk before, and had a vote: in the view entered it may have ordered what is
    /// not on the disk, so it orders nothing more in that one.
    pub has_run: bool,
}
