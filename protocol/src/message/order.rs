//! The primary's order and the batch it orders.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Malformed, SignedRequest};
use crate::codec::{Canonical, Sink};
use crate::edition::Edition;
use crate::id::{Digest, Slot, View, WallTime};

/// The most requests one slot may hold.
pub const BATCH_REQUESTS_MAX: usize = 4096;

/// The most bytes the requests of one slot may take together, so that it fits a frame.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// The most that they may [weigh](SignedRequest::weight) together: any one of them has room.
pub const BATCH_WEIGHT_MAX: u64 = 8 << 20;

/// About what a request takes in memory beside its operations.
const REQUEST_BYTES: usize = 512;

/// The primary's choices for a slot, on which execution may depend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NonDeterminism {
    /// The primary's wall time; never decreases along a history.
    pub time: WallTime,
    /// Random bytes.
    pub seed: [u8; 16],
    /// By which rules the slot is executed; never falls along a history.
    pub edition: Edition,
}

struct BatchContent<'a> {
    choices: &'a NonDeterminism,
    requests: &'a [Digest],
}

impl Canonical for BatchContent<'_> {
    const TAG: &'static str = "batch";

    fn write(&self, to: &mut impl Sink) {
        to.put_u64(self.choices.time.0);
        to.put(&self.choices.seed);
        self.choices.edition.write(to);
        to.put_len(self.requests.len());
        self.requests.iter().for_each(|digest| to.put_digest(digest));
    }
}

/// `D(batch)`: over the primary's choices and the digests of the requests, in order.
#[must_use]
pub fn batch_digest(choices: &NonDeterminism, requests: &[Digest]) -> Digest {
    BatchContent { choices, requests }.digest()
}

/// What one slot holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The primary's choices.
    pub choices: NonDeterminism,
    /// The requests, in the order of their execution.
    pub requests: Vec<Arc<SignedRequest>>,
}

/// Whether one slot may hold these requests, given [what the application
/// says](crate::application::Application::weight) of each operation.
#[must_use]
pub fn fit_one_slot(requests: &[Arc<SignedRequest>], of: impl Fn(&Bytes) -> u64) -> bool {
    let sums = requests.iter().fold((0, 0), |(bytes, weight), request| {
        (bytes + request.body().wire_bytes(), weight + request.weight(&of))
    });
    sums.0 <= BATCH_BYTES_MAX && sums.1 <= BATCH_WEIGHT_MAX
}

impl Batch {
    /// `D(batch)`.
    #[must_use]
    pub fn digest(&self) -> Digest {
        batch_digest(&self.choices, &self.request_digests())
    }

    /// The digests of its requests, in order.
    #[must_use]
    pub fn request_digests(&self) -> Vec<Digest> {
        self.requests.iter().map(|request| request.digest()).collect()
    }

    /// At least the bytes its requests take in a frame.
    #[must_use]
    pub fn size(&self) -> usize {
        self.requests.iter().map(|request| request.body().wire_bytes()).sum()
    }

    /// About what its requests take in memory, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.size() + REQUEST_BYTES * self.requests.len()
    }

    /// About what it takes in memory while it can be undone, in bytes: see the
    /// [weight](SignedRequest::weight) of a request.
    #[must_use]
    pub fn weight(&self, of: impl Fn(&Bytes) -> u64) -> u64 {
        self.requests.iter().map(|request| request.weight(&of)).sum()
    }

    /// Whether somebody waits for a certificate that covers this slot.
    #[must_use]
    pub fn wants_commit(&self) -> bool {
        self.requests.iter().any(|request| request.body().wants_commit())
    }
}

/// What the primary's signature covers. Two of one `(view, slot)` with different hashes are a
/// proof against it, small enough to be kept and passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderHeader {
    /// The primary's view.
    pub view: View,
    /// The slot filled.
    pub slot: Slot,
    /// `h_n`: the history that ends with this slot.
    pub hash: Digest,
    /// `D(batch)`.
    pub batch: Digest,
}

impl Canonical for OrderHeader {
    const TAG: &'static str = "order";

    fn write(&self, to: &mut impl Sink) {
        to.put_u64(self.view.0);
        to.put_u64(self.slot.0);
        to.put_digest(&self.hash);
        to.put_digest(&self.batch);
    }
}

/// Primary to all: "in `view`, this batch makes `slot`, and the history up to it hashes to
/// `hash`". Zeno's ORDERREQ.
///
/// Signed by the primary of the view. A receiver whose head is the slot before executes it, if the
/// requests are there and the rules for a slot hold; one whose head is further back keeps it and
/// fetches the hole. Bounds: `slot >= 1`, 1 to [`BATCH_REQUESTS_MAX`] requests, and the header's
/// batch digest is that of the choices and requests beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What is signed.
    pub header: OrderHeader,
    /// Covered by `header.batch`.
    pub choices: NonDeterminism,
    /// Covered by `header.batch`. The requests themselves come from the clients.
    pub requests: Vec<Digest>,
}

impl Order {
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        Malformed::unless(self.header.slot > Slot::GENESIS, "an order for slot 0")?;
        Malformed::unless(!self.requests.is_empty(), "an order without requests")?;
        Malformed::unless(self.requests.len() <= BATCH_REQUESTS_MAX, "too many requests")?;
        Malformed::unless(
            batch_digest(&self.choices, &self.requests) == self.header.batch,
            "an order whose batch has another digest",
        )
    }
}

impl Canonical for Order {
    const TAG: &'static str = OrderHeader::TAG;

    fn write(&self, to: &mut impl Sink) {
        self.header.write(to);
    }
}
