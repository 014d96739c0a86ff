//! Where a replica stands.

use serde::{Deserialize, Serialize};

use super::position::{check_view, write_lock};
use super::{Malformed, Position};
use crate::codec::{Canonical, Sink};
use crate::edition::Edition;
use crate::id::{Digest, Slot, View, WallTime};

/// Replica to all, every `status_interval`: "this is where I stand".
///
/// A receiver that lacks something fetches it; one that sees the sender lack something sends it.
/// It proves nothing but that the sender lives. `stamp` grows with every status of one sender, so
/// that a recorded one does not count as a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The view entered.
    pub entered: View,
    /// The higher view asked for, if any.
    pub campaign: Option<View>,
    /// The end of the own history.
    pub head: Position,
    /// The rank and position of the highest certificate held with its batches.
    pub lock: Option<(View, Position)>,
    /// The last slot that will never be undone.
    pub stable: Slot,
    /// Whom the sender holds a proof against: bit `i` is set for replica `i`.
    pub convicted: u32,
    /// Who may use the cluster, by the sender's [list](crate::membership::Membership::client_list).
    pub clients: Digest,
    /// The newest edition that the sender's program executes.
    pub newest_edition: Edition,
    /// The newest one that it has known all replicas to execute.
    pub common_edition: Edition,
    /// What the sender's wall clock shows.
    pub wall: WallTime,
    /// Wall time of the sender in microseconds, pushed up to grow always.
    pub stamp: u64,
}

impl Status {
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        Malformed::unless(self.stable <= self.head.slot, "a head below the stable slot")?;
        Malformed::unless(
            self.lock.is_none_or(|(_, at)| at.slot > Slot::GENESIS),
            "a lock at slot 0",
        )?;
        check_view(self.entered)?;
        self.campaign.iter().try_for_each(|view| {
            check_view(*view)?;
            Malformed::unless(*view > self.entered, "a campaign for a view entered")
        })
    }
}

impl Canonical for Status {
    const TAG: &'static str = "status";

    fn write(&self, to: &mut impl Sink) {
        to.put_u64(self.entered.0);
        // No view 0 is ever asked for.
        to.put_u64(self.campaign.unwrap_or_default().0);
        self.head.write(to);
        write_lock(self.lock.as_ref(), to);
        to.put_u64(self.stable.0);
        to.put_u64(u64::from(self.convicted));
        to.put_digest(&self.clients);
        self.newest_edition.write(to);
        self.common_edition.write(to);
        to.put_u64(self.wall.0);
        to.put_u64(self.stamp);
    }
}
