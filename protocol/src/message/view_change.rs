//! The request for another view.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::position::{check_view, write_lock};
use super::{CommitCertificate, Malformed, Position};
use crate::codec::{Canonical, Sink};
use crate::id::{Slot, View};
use crate::quorum::{ClusterSize, REPLICAS_MAX};
use crate::signature::Signed;

/// Replica to all: "I ask for `view`, and this is what I hold".
///
/// A request and not a promise: the sender goes on in the view it has entered, and enters `view`
/// or any other one only by the rule for entering. Bounds: `entered < view <= campaign`, the lock is of a view
/// below `view`, and the head is not below the stable slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewChange {
    /// The view asked for.
    pub view: View,
    /// The highest view that the sender asks for: it also asks for lower ones where others do, so
    /// that the lowest campaign gathers all.
    pub campaign: View,
    /// The view entered.
    pub entered: View,
    /// The highest certificate whose batches the sender holds. Its rank and position are signed;
    /// its votes prove themselves.
    pub lock: Option<CommitCertificate>,
    /// The last slot that will never be undone.
    pub stable: Slot,
    /// The end of the sender's history.
    pub head: Position,
    /// As in [`super::Status`], and counted together with it: the higher one is the newer word.
    pub stamp: u64,
}

impl ViewChange {
    pub(crate) fn check(&self, size: ClusterSize) -> Result<(), Malformed> {
        check_view(self.campaign)?;
        Malformed::unless(self.view <= self.campaign, "a view change above its campaign")?;
        Malformed::unless(self.entered < self.view, "a view change for a view entered")?;
        Malformed::unless(self.stable <= self.head.slot, "a head below the stable slot")?;
        match &self.lock {
            None => Ok(()),
            Some(lock) => {
                Malformed::unless(lock.body.view < self.view, "a lock of the view asked for")?;
                lock.check(size)
            }
        }
    }

    /// The rank of the lock, for comparison: none is below all.
    #[must_use]
    pub fn lock_rank(&self) -> Option<(View, Slot)> {
        self.lock.as_ref().map(CommitCertificate::rank)
    }
}

impl Canonical for ViewChange {
    const TAG: &'static str = "view-change";

    fn write(&self, to: &mut impl Sink) {
        to.put_u64(self.view.0);
        to.put_u64(self.campaign.0);
        to.put_u64(self.entered.0);
        let lock = self.lock.as_ref().map(CommitCertificate::at);
        write_lock(lock.as_ref(), to);
        to.put_u64(self.stable.0);
        self.head.write(to);
        to.put_u64(self.stamp);
    }
}

/// Whether these are words of different members.
pub(super) fn distinct<T>(words: &[Signed<T>], size: ClusterSize) -> bool {
    let by: BTreeSet<_> = words.iter().map(|word| word.by).collect();
    words.len() <= usize::from(REPLICAS_MAX)
        && by.len() == words.len()
        && by.iter().all(|id| size.has(*id))
}
