//! Asking for what is missing, and the answers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{CommitCertificate, Malformed, NonDeterminism, Order, SignedRequest};
use crate::codec::{Canonical, FRAME_MAX, Sink};
use crate::id::{Digest, Slot};
use crate::seal::Signed;

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
        /// Which.
        digests: Vec<Digest>,
    },
    /// The history from this slot on (Zeno's fill hole). Bounds: `from >= 1`.
    Slots {
        /// The first slot lacking.
        from: Slot,
    },
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
        }
        to.put_u64(self.stamp);
    }
}

/// Replica to one or all: "these clients asked". Each request carries its client's signature.
/// Bounds: 1 to [`FETCH_DIGESTS_MAX`] requests of at most half a frame together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests(pub Vec<Arc<SignedRequest>>);

impl Requests {
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        Malformed::unless(!self.0.is_empty(), "no requests")?;
        Malformed::unless(self.0.len() <= FETCH_DIGESTS_MAX, "too many requests")?;
        let bytes: usize = self.0.iter().map(|request| request.body().wire_bytes()).sum();
        let most = ANSWER_BYTES_MAX.max(self.0[0].body().wire_bytes());
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
        self.entries.iter().try_for_each(|entry| {
            Malformed::unless(!entry.requests.is_empty(), "an empty slot")?;
            Malformed::unless(
                entry.requests.len() <= super::BATCH_REQUESTS_MAX,
                "too many requests in a slot",
            )
        })
    }
}
