//! How a replica with an empty disk learns whether it has been here before.

use serde::{Deserialize, Serialize};

use super::Malformed;
use crate::codec::{Canonical, Sink};
use crate::id::{Life, ReplicaId};
use crate::quorum::ClusterSize;

/// Replica to all: "my disk knows of no history, and this is the life that began with it. Have you
/// heard of another one?"
///
/// Sent while the sender does not know whether this is its first start. Whoever receives it notes
/// the first life of each replica that it hears of, for good, and says which one that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrol {
    /// The life.
    pub life: Life,
}

impl Canonical for Enrol {
    const TAG: &'static str = "enrol";

    fn write(&self, to: &mut impl Sink) {
        to.put(&self.life.0);
    }
}

/// Replica to one: "the first life of `replica` that I ever heard of is this one, and my disk holds
/// that for good".
///
/// A strong quorum that names one life, the replica itself among them, makes that life a voter; no
/// other life of it ever finds one, since two strong quorums share a correct replica. A weak quorum
/// of others that name another life shows that the replica has lost its disk. Bounds: `replica` is
/// a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Who asked.
    pub replica: ReplicaId,
    /// The first life of it.
    pub life: Life,
}

impl Enrolled {
    pub(crate) fn check(&self, size: ClusterSize) -> Result<(), Malformed> {
        Malformed::unless(size.has(self.replica), "a life of no member")
    }
}

impl Canonical for Enrolled {
    const TAG: &'static str = "enrolled";

    fn write(&self, to: &mut impl Sink) {
        to.put_u8(self.replica.0);
        to.put(&self.life.0);
    }
}
