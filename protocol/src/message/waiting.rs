//! What waits to be ordered, by name.

use serde::{Deserialize, Serialize};

use super::{Malformed, REQUEST_BYTES_MAX};
use crate::id::{Digest, RequestName};

/// The most requests that one message may name.
pub const WAITING_MAX: usize = 256;

/// Replica to all: "these wait here, and I would pass them on".
///
/// Not signed: it asserts nothing about anybody but the sender, on whose connection it comes. Who lacks one
/// of them may fetch it from there, and checks it as any other. Bounds: 1 to [`WAITING_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting(pub Vec<WaitingRequest>);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingRequest {
    /// So that who has executed it asks for nothing.
    pub name: RequestName,
    /// The content.
    pub digest: Digest,
    /// What it has, in bytes, so that who has no room for it asks for nothing either.
    pub bytes: u32,
}

impl Waiting {
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        Malformed::unless(!self.0.is_empty(), "nothing waits")?;
        Malformed::unless(self.0.len() <= WAITING_MAX, "too many requests that wait")?;
        let fits =
            |one: &WaitingRequest| usize::try_from(one.bytes).is_ok_and(|n| n <= REQUEST_BYTES_MAX);
        Malformed::unless(self.0.iter().all(fits), "a request that is too large waits")
    }
}
