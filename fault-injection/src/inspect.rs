//! The only place that looks into a core: if its inspection methods change, this changes.

use std::sync::Arc;

use elea_protocol::application::Application;
use elea_protocol::edition::Editions;
use elea_protocol::id::{Digest, RequestName, Slot, View};
use elea_protocol::message::{Batch, Commit, Order, Position};
use elea_protocol::replica::Replica;
use elea_protocol::signature::Signed;

/// One slot of a replica's history, as the checkers want it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The hash of the history up to it.
    pub hash: Digest,
    /// What it holds.
    pub batch: Arc<Batch>,
    /// The order that it was accepted by, if it was by one.
    pub order: Option<Signed<Order>>,
}

/// What the checkers may see of a replica.
pub trait Look {
    /// The end of its history.
    fn head(&self) -> Position;
    /// The view it has entered, and the slot at which.
    fn entered(&self) -> (View, Slot);
    /// The end of what is no longer in memory.
    fn base(&self) -> Position;
    /// Whether a request waits to be ordered.
    fn waits(&self, name: &RequestName) -> bool;
    /// The hash at a slot.
    fn hash_at(&self, slot: Slot) -> Option<Digest>;
    /// A slot in memory.
    fn slot(&self, slot: Slot) -> Option<Seen>;
    /// What its program executes.
    fn editions(&self) -> Editions;
    /// What its lock certifies.
    fn lock(&self) -> Option<Commit>;
    /// What it holds in memory.
    fn footprint(&self) -> Vec<(&'static str, usize)>;
}

/// A core, as the checkers see it.
pub struct Lens<'a, A: Application>(pub &'a Replica<A>);

impl<A: Application> Look for Lens<'_, A> {
    fn head(&self) -> Position {
        self.0.head()
    }

    fn entered(&self) -> (View, Slot) {
        (self.0.entered(), self.0.entry_slot())
    }

    fn base(&self) -> Position {
        self.0.history().base()
    }

    fn waits(&self, name: &RequestName) -> bool {
        self.0.waits(name)
    }

    fn hash_at(&self, slot: Slot) -> Option<Digest> {
        self.0.history().hash_at(slot)
    }

    fn slot(&self, slot: Slot) -> Option<Seen> {
        let entry = self.0.history().entry(slot)?;
        Some(Seen { hash: entry.hash, batch: entry.batch.clone(), order: entry.order.clone() })
    }

    fn editions(&self) -> Editions {
        self.0.editions()
    }

    fn lock(&self) -> Option<Commit> {
        self.0.lock().map(|certificate| certificate.body)
    }

    fn footprint(&self) -> Vec<(&'static str, usize)> {
        let footprint = self.0.footprint();
        vec![
            ("pending", footprint.pending),
            ("pending_bytes", footprint.pending_bytes),
            ("orders_ahead", footprint.orders_ahead),
            ("commit_votes", footprint.commit_votes),
            ("checkpoint_votes", footprint.checkpoint_votes),
            ("sessions", footprint.sessions),
            ("slots", footprint.slots),
            ("digests", footprint.digests),
            ("evidence", footprint.evidence),
            ("branch_slots", footprint.branch_slots),
            ("view_changes", footprint.view_changes),
            ("new_views", footprint.new_views),
            ("of_later_views", footprint.of_later_views),
            ("undone_results", footprint.undone_results),
            ("orphans", footprint.orphans),
            ("states", footprint.states),
        ]
    }
}

/// Everything the core counts.
pub fn counters<A: Application>(core: &Replica<A>) -> Vec<(&'static str, u64)> {
    core.counters().iter().collect()
}
