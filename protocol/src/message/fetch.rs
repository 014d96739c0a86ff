//! Asking for what is missing, and the answers.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    CommitCertificate, Malformed, NonDeterminism, Order, Position, SignedRequest, StableProof,
};
use crate::codec::{Canonical, FRAME_MAX, Sink};
use crate::id::{ClientId, Digest, Slot};
use crate::signature::Signed;

/// The most request digests one fetch may name.
pub const FETCH_DIGESTS_MAX: usize = 1024;

/// The most slots one answer may hold.
pub const SLOTS_MAX: usize = 256;

/// The most bytes of operations an answer may hold, so that it fits a frame with all around it.
pub const ANSWER_BYTES_MAX: usize = FRAME_MAX / 2;

/// Replica to one replica: "I lack this".
///
/// Signed by the asker, so that nobody can make replicas send each other histories. The answer is
/// the best the receiver has, or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// What is lacking.
    pub wanted: Wanted,
    /// How many bytes of operations the answer should hold at most, so that it fits the line. One request
    /// or slot is sent in any case, and never more than [`ANSWER_BYTES_MAX`]. It says nothing of pieces of
    /// a state, which are what they are.
    pub room: u32,
    /// As in [`super::Status`]: an old fetch is not answered.
    pub stamp: u64,
}

/// What a [`Fetch`] asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// Requests that an order names. Bounds: 1 to [`FETCH_DIGESTS_MAX`].
    Requests {
        /// The slot of the order: where the receiver finds them once it has executed it.
        slot: Slot,
        /// The digests of the requests that are missing.
        digests: Vec<Digest>,
    },
    /// The history from this slot on (Zeno's fill hole). Bounds: `from >= 1`.
    Slots {
        /// The first slot lacking.
        from: Slot,
    },
    /// The history that ends in `head`, which need not be the receiver's, from its end downwards.
    /// Bounds: at most [`LOCATOR_MAX`] positions.
    Branch {
        /// Its end.
        head: Position,
        /// Positions of the asker's own history, exponentially spaced, the highest first: the
        /// answer stops at the first one that both share.
        known: Vec<Position>,
    },
    /// A piece of the state after a stable checkpoint.
    State {
        /// The checkpoint.
        at: Position,
        /// Which piece.
        part: StatePart,
    },
    /// The list of clients.
    Clients,
}

/// The most clients that a list may have: it fits one frame.
pub const CLIENTS_MAX: usize = 1 << 14;

/// A replica's list of clients. Bounds: [`CLIENTS_MAX`], in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clients(pub Vec<ClientId>);

impl Clients {
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        Malformed::unless(self.0.len() <= CLIENTS_MAX, "a list of too many clients")?;
        let sorted = self.0.is_sorted_by(|a, b| a < b);
        Malformed::unless(sorted, "a list of clients out of order")
    }
}

/// The most positions of a locator: enough for every power of two.
pub const LOCATOR_MAX: usize = 64;

/// A piece of a checkpoint's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StatePart {
    /// The [`LastSlot`], encoded.
    Last,
    /// A chunk of the session table.
    Sessions(u32),
    /// A chunk of the application's state.
    Application(u32),
}

impl StatePart {
    fn write(self, to: &mut impl Sink) {
        let (tag, index) = match self {
            Self::Last => (0, 0),
            Self::Sessions(index) => (1, index),
            Self::Application(index) => (2, index),
        };
        to.put_u8(tag);
        to.put_u64(u64::from(index));
    }
}

impl Fetch {
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        match &self.wanted {
            Wanted::Requests { slot, digests } => {
                Malformed::unless(*slot > Slot::GENESIS, "a fetch of slot 0")?;
                Malformed::unless(!digests.is_empty(), "a fetch of nothing")?;
                Malformed::unless(digests.len() <= FETCH_DIGESTS_MAX, "a fetch of too much")
            }
            Wanted::Slots { from } => Malformed::unless(*from > Slot::GENESIS, "a fetch of slot 0"),
            Wanted::Branch { head, known } => {
                Malformed::unless(head.slot > Slot::GENESIS, "a fetch of slot 0")?;
                Malformed::unless(known.len() <= LOCATOR_MAX, "a locator that is too long")
            }
            Wanted::Clients => Ok(()),
            Wanted::State { at, .. } => {
                Malformed::unless(at.slot > Slot::GENESIS, "a fetch of the state before slot 1")
            }
        }
    }
}

impl Canonical for Fetch {
    const TAG: &'static str = "fetch";

    fn write(&self, to: &mut impl Sink) {
        match &self.wanted {
            Wanted::Requests { slot, digests } => {
                to.put_u8(0);
                to.put_u64(slot.0);
                to.put_len(digests.len());
                digests.iter().for_each(|digest| to.put_digest(digest));
            }
            Wanted::Slots { from } => {
                to.put_u8(1);
                to.put_u64(from.0);
            }
            Wanted::Branch { head, known } => {
                to.put_u8(2);
                head.write(to);
                to.put_len(known.len());
                known.iter().for_each(|position| position.write(to));
            }
            Wanted::Clients => to.put_u8(4),
            Wanted::State { at, part } => {
                to.put_u8(3);
                at.write(to);
                part.write(to);
            }
        }
        to.put_u64(u64::from(self.room));
        to.put_u64(self.stamp);
    }
}

impl Fetch {
    /// How many bytes the answer may hold.
    pub(crate) fn answer_max(&self) -> usize {
        usize::try_from(self.room).unwrap_or(usize::MAX).min(ANSWER_BYTES_MAX)
    }
}

/// Replica to one or all: "these clients asked". Each request carries its client's signature.
/// Bounds: 1 to [`FETCH_DIGESTS_MAX`] requests of at most half a frame together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests(pub Vec<Arc<SignedRequest>>);

impl Requests {
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        let first = self.0.first().ok_or(Malformed("no requests"))?;
        Malformed::unless(self.0.len() <= FETCH_DIGESTS_MAX, "too many requests")?;
        let bytes: usize = self.0.iter().map(|request| request.body().wire_bytes()).sum();
        let most = ANSWER_BYTES_MAX.max(first.body().wire_bytes());
        Malformed::unless(bytes <= most, "too many bytes of requests")
    }
}

/// One slot of somebody's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotEntry {
    /// The primary's choices.
    pub choices: NonDeterminism,
    /// The requests, in order.
    pub requests: Vec<Arc<SignedRequest>>,
    /// The order that the sender accepted it by, where it has one.
    pub order: Option<Signed<Order>>,
}

/// Replica to the one that asked: "my history from slot `from` on".
///
/// Nothing in it is believed for the sender's sake: a slot counts under its primary's order, or
/// where the chain ends in a certified hash. Bounds: 1 to [`SLOTS_MAX`] entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// The slot of the first entry.
    pub from: Slot,
    /// The slots, one after the other.
    pub entries: Vec<SlotEntry>,
    /// The sender's lock, if it is of the view it has entered.
    pub certificate: Option<CommitCertificate>,
}

impl Slots {
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        Malformed::unless(self.from > Slot::GENESIS, "a history from slot 0")?;
        Malformed::unless(!self.entries.is_empty(), "no slots")?;
        Malformed::unless(self.entries.len() <= SLOTS_MAX, "too many slots")?;
        self.entries.iter().try_for_each(check_entry)
    }
}

fn check_entry(entry: &SlotEntry) -> Result<(), Malformed> {
    Malformed::unless(!entry.requests.is_empty(), "an empty slot")?;
    Malformed::unless(
        entry.requests.len() <= super::BATCH_REQUESTS_MAX,
        "too many requests in a slot",
    )
}

/// One slot of a branch, with the hash it follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linked {
    /// The hash of the history before it.
    pub previous: Digest,
    /// What it holds.
    pub entry: SlotEntry,
}

/// Replica to the one that asked: "this is how the history goes that ends in `head`".
///
/// Each slot is checked by its hash alone, from `head` downwards, so nobody has to be believed.
/// Bounds: at most [`SLOTS_MAX`] slots; fewer than asked for mean that the asker shall ask again
/// below them, or that the sender holds only the state there, which `stable` then offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// The end.
    pub head: Position,
    /// The slots, from the end downwards.
    pub slots: Vec<Linked>,
    /// Where the sender's history begins, if it has no more.
    pub stable: Option<Box<StableProof>>,
}

impl Branch {
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        Malformed::unless(
            !self.slots.is_empty() || self.stable.is_some(),
            "a branch with nothing in it",
        )?;
        Malformed::unless(self.slots.len() <= SLOTS_MAX, "too many slots")?;
        Malformed::unless(self.slots.len() as u64 <= self.head.slot.0, "slots below slot 1")?;
        self.slots.iter().try_for_each(|linked| check_entry(&linked.entry))
    }
}

/// The last slot before a state, without the requests: what the next slot needs to know of it, and
/// enough to check its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastSlot {
    /// The hash of the history before it.
    pub previous: Digest,
    /// Its time, which later slots do not fall behind.
    pub choices: NonDeterminism,
    /// Its requests.
    pub requests: Vec<Digest>,
}

/// What the state digest of a checkpoint is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDigests {
    /// The application's state.
    pub application: Digest,
    /// The session table.
    pub sessions: Digest,
}

impl Canonical for StateDigests {
    const TAG: &'static str = "state";

    fn write(&self, to: &mut impl Sink) {
        to.put_digest(&self.application);
        to.put_digest(&self.sessions);
    }
}

/// What there is to know of a state before its pieces: with them, enough to start from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateHead {
    /// Certifies it. It is the stable checkpoint from then on.
    pub stable: StableProof,
    /// What its digest is made of.
    pub digests: StateDigests,
}

/// What becomes of a client's question for a piece of the application's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lent {
    /// It is this. Only the certified digest says whether it is.
    Piece(Bytes),
    /// Not now: all clients together were given as much as they may be for the moment.
    Later,
    /// That state, or that piece, is not at hand, or not any more.
    Gone,
}

/// Replica to the one that asked: a piece of a state. It is checked against the certified digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChunk {
    /// The checkpoint.
    pub at: Position,
    /// What its digest is made of.
    pub digests: StateDigests,
    /// Which piece.
    pub part: StatePart,
    /// How many pieces of its kind there are, as the sender says.
    pub of: u32,
    /// The piece.
    pub bytes: Bytes,
}
