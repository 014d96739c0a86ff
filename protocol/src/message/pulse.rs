//! How long things take.

use serde::{Deserialize, Serialize};

use super::Malformed;
use crate::codec::{Canonical, Sink};
use crate::id::ReplicaId;
use crate::quorum::ClusterSize;

/// The newest pulse of a replica that another one heard, sent back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// Whose pulse it was.
    pub of: ReplicaId,
    /// Its stamp.
    pub stamp: u64,
    /// How long ago it came, in microseconds.
    pub held: u64,
}

/// Replica to all, with every status: "this is how long my disk takes, and this is what I last heard of
/// you".
///
/// Unlike a status it waits for no disk, so that the way of an echo is that of the network alone. It
/// proves nothing and counts nowhere; how far it can move the waits of others is in docs/waits.md.
/// Bounds: at most one echo of each member, in the order of their ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulse {
    /// Grows with everything stamped that this sender sends.
    pub stamp: u64,
    /// What the sender expects a record to take until it is on its disk, in microseconds; 0 where it
    /// does not know yet.
    pub sync: u64,
    /// What was heard of the others.
    pub echoes: Vec<Echo>,
}

impl Pulse {
    pub(crate) fn check(&self, size: ClusterSize) -> Result<(), Malformed> {
        let are_members = self.echoes.iter().all(|echo| size.has(echo.of));
        Malformed::unless(are_members, "an echo of no member")?;
        let are_sorted = self.echoes.windows(2).all(|pair| matches!(pair, [a, b] if a.of < b.of));
        Malformed::unless(are_sorted, "two echoes of one member, or in no order")
    }
}

impl Canonical for Pulse {
    const TAG: &'static str = "pulse";

    fn write(&self, to: &mut impl Sink) {
        to.put_u64(self.stamp);
        to.put_u64(self.sync);
        to.put_len(self.echoes.len());
        for echo in &self.echoes {
            to.put_u8(echo.of.0);
            to.put_u64(echo.stamp);
            to.put_u64(echo.held);
        }
    }
}
