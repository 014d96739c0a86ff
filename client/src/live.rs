//! The sessions that one client has in use, and those it settles in passing.

use std::collections::{BTreeMap, BTreeSet};

use elea_protocol::client::Client as Core;
use elea_protocol::id::{RequestNumber, SessionId};
use elea_protocol::message::{DiskHealth, NodeStatus};

use crate::sessions::{Lease, Parting};

/// A session in use.
pub(crate) struct Live {
    pub core: Core,
    pub lease: Lease,
    /// New submissions go elsewhere; it is given back when nothing is under way in it.
    pub draining: bool,
    /// The floor that requests from this number on carry.
    floors: BTreeMap<RequestNumber, SessionId>,
    executed_floor: SessionId,
}

impl Live {
    pub fn new(core: Core, lease: Lease) -> Self {
        let floors = BTreeMap::from([(core.next(), core.floor())]);
        let draining = false;
        Self { core, lease, draining, floors, executed_floor: SessionId(0) }
    }

    /// The core was given another floor.
    pub fn note_floor(&mut self) {
        let (next, floor) = (self.core.next(), self.core.floor());
        if self.floors.last_key_value().is_none_or(|(_, last)| *last != floor) {
            self.floors.insert(next, floor);
        }
    }

    /// A request was executed.
    pub fn note_executed(&mut self, number: RequestNumber) {
        if let Some((_, floor)) = self.floors.range(..=number).next_back() {
            self.executed_floor = self.executed_floor.max(*floor);
        }
        while self.floors.len() > 64 {
            self.floors.pop_first();
        }
    }

    pub fn executed_floor(&self) -> SessionId {
        self.executed_floor
    }

    pub fn is_idle(&self) -> bool {
        self.core.in_flight() == 0 && self.core.queued() == 0
    }

    pub fn parting(&self) -> Parting {
        Parting {
            next: self.core.next(),
            whole: self.core.is_whole(),
            retire: self.draining,
            unsettled: self.core.unsettled(),
            executed_floor: self.executed_floor,
        }
    }
}

/// Whether these statuses, one of each of all `n` replicas, show that everything ever executed by
/// any correct replica is final.
///
/// A correct replica keeps whatever it executed in its history, or, when it left that history, as
/// pending. If nobody has anything pending and all histories are one and under a certificate of
/// the view that all have entered, nothing is left that could still be reordered. Liars can only
/// prevent this, or speak for themselves. It takes all replicas, not a quorum: the one that is
/// missing may be the one correct replica that executed something in another part of the network.
pub(crate) fn is_quiet(statuses: &[&NodeStatus], n: usize) -> bool {
    let Some(first) = statuses.first() else { return false };
    statuses.len() == n
        && statuses.iter().all(|status| {
            let certified = status.lock == Some((status.view, status.head))
                || status.head.slot == elea_protocol::id::Slot::GENESIS;
            (status.view, status.head) == (first.view, first.head)
                && certified
                && status.pending == 0
                && status.divergent.is_empty()
                // What it says then may not be on its disk.
                && status.disk != DiskHealth::Full
        })
}

/// Sessions of others, gone by now, of which it is asked how far they are final.
#[derive(Default)]
pub(crate) struct Settling {
    pub cores: BTreeMap<SessionId, (Core, RequestNumber)>,
    /// Those found settled, not to be asked about again while the book is not up to date.
    pub done: BTreeSet<SessionId>,
}

#[cfg(test)]
mod tests {
    use elea_protocol::id::{Digest, ReplicaId, Slot, View};
    use elea_protocol::message::{Position, Standing};

    use super::*;

    fn status() -> NodeStatus {
        let head = Position { slot: Slot(9), hash: Digest([1; 32]) };
        NodeStatus {
            nonce: 1,
            standing: Standing::Voter,
            quarantined: false,
            mismatches: Vec::new(),
            view: View(2),
            primary: ReplicaId(2),
            campaign: None,
            head,
            lock: Some((View(2), head)),
            stable: Slot(0),
            state: Digest::default(),
            sessions: 3,
            pending: 0,
            divergent: Vec::new(),
            evidence: 0,
            disk: DiskHealth::Sound,
            transfer: None,
            refused: Vec::new(),
            doubled: Vec::new(),
            counters: Vec::new(),
        }
    }

    #[test]
    fn quiet_takes_all_replicas_in_one_view_with_one_certified_history_and_nothing_pending() {
        let same = status();
        assert!(is_quiet(&[&same; 4], 4));
        assert!(!is_quiet(&[&same; 3], 4), "the missing one may know something");
        assert!(!is_quiet(&[], 0));
        let behind = Position { slot: Slot(8), hash: Digest([2; 32]) };
        let others = [
            NodeStatus { view: View(3), ..status() },
            NodeStatus { head: behind, lock: Some((View(2), behind)), ..status() },
            NodeStatus { lock: None, ..status() },
            NodeStatus { lock: Some((View(1), same.head)), ..status() },
            NodeStatus { lock: Some((View(2), behind)), ..status() },
            NodeStatus { pending: 1, ..status() },
            NodeStatus { disk: DiskHealth::Full, ..status() },
            NodeStatus { divergent: vec![ReplicaId(3)], ..status() },
        ];
        for other in others {
            assert!(!is_quiet(&[&same, &same, &same, &other], 4), "{other:?}");
            assert!(!is_quiet(&[&other, &same, &same, &same], 4), "{other:?}");
        }
        let empty = NodeStatus {
            head: Position { slot: Slot::GENESIS, hash: Digest([3; 32]) },
            lock: None,
            ..status()
        };
        assert!(is_quiet(&[&empty; 4], 4), "nothing was ever executed");
    }
}
