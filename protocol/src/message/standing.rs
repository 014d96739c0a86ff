//! What a replica may do, as it is stored and as operators are told.

use serde::{Deserialize, Serialize};

use super::{StableProof, StateDigests};
use crate::id::{Digest, Slot};

/// What a replica may do. It is on its disk.
///
/// Who is no voter signs nothing that counts towards a quorum. It follows all the same, and serves
/// history, states and proofs to its peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Standing {
    /// It takes part.
    #[default]
    Voter,
    /// Its disk was empty, and it does not know yet whether this is its first start.
    New,
    /// It took part once and lost its disk, and with it what it had promised. For good.
    Observer,
}

impl Standing {
    /// In one word, for operators.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Voter => "voter",
            Self::New => "new",
            Self::Observer => "observer",
        }
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Voter => 0,
            Self::New => 1,
            Self::Observer => 2,
        }
    }
}

/// A stable checkpoint whose state is not the one that this replica had computed: the replica's
/// memory, disk or program is bad. It convicts nobody, and is kept for the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    /// What was certified.
    pub certified: StableProof,
    /// What the replica had.
    pub own: StateDigests,
}

/// A [`Mismatch`] in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MismatchReport {
    /// The checkpoint.
    pub slot: Slot,
    /// The digest of the state that a strong quorum signed.
    pub certified: Digest,
    /// That of the state which this replica had.
    pub own: Digest,
}
