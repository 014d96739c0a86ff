//! Which part of the suffix is whose.
//!
//! It is worked out only where the suffix is large, and then remembered: what is added is counted once,
//! and all of it again only when the stable checkpoint has moved or the history has changed.

use std::collections::BTreeMap;

use crate::history::History;
use crate::id::{ClientId, Slot};
use crate::message::Position;

/// What an operation comes to beside its bytes.
const OPERATION: usize = 2 << 10;

/// What the requests of each client above the stable checkpoint come to, in bytes with something for each
/// operation: what they weigh exactly only their execution knows, and a part needs no more than this.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Shares {
    above: Slot,
    /// Up to where it is counted.
    through: Option<Position>,
    bytes: BTreeMap<ClientId, u64>,
    all: u64,
}

impl Shares {
    /// What this client has above the stable checkpoint, and what all have.
    pub(super) fn of(&mut self, client: &ClientId, history: &History, stable: Slot) -> (u64, u64) {
        let through = self.through.filter(|at| self.above == stable && history.goes_through(*at));
        if through.is_none() {
            *self = Self { above: stable, ..Self::default() };
        }
        let from = through.map_or(stable, |at| at.slot).next();
        for (_, entry) in history.from(from) {
            for request in &entry.batch.requests {
                let body = request.body();
                let bytes = (body.wire_bytes() + OPERATION * body.operations.len()) as u64;
                *self.bytes.entry(body.client).or_default() += bytes;
                self.all += bytes;
            }
        }
        self.through = Some(history.head());
        (self.bytes.get(client).copied().unwrap_or_default(), self.all)
    }
}
