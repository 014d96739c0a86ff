//! The thread that reads the whole store again and again, and compares it with what was written.
//!
//! Damage to the application's rows is repaired by the other replicas, and the earlier it is known
//! the fewer replicas have any. Damage to the rest is told to the operator: the replica goes on, for
//! what it needs is in memory, but it may not be able to start again.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use elea_protocol::rows::Unreadable;

use crate::counters::{Counter, Counters};
use crate::store::{Damage, Files, Looked};

pub(crate) struct Scrub {
    pub(crate) files: Files,
    pub(crate) counters: Arc<Counters>,
    /// So much is read in a second on average, so that clients do not feel it.
    pub(crate) bytes_per_second: u64,
    /// Between one look at everything and the next.
    pub(crate) pause: Duration,
}

impl Scrub {
    /// Looks until the other end of `stop` is dropped. `report` is told when the application's rows
    /// are damaged.
    pub(crate) fn run(self, stop: &Receiver<Infallible>, mut report: impl FnMut(Unreadable)) {
        let goes_on = |time| stop.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
        loop {
            let mut pace = |bytes: usize| goes_on(self.time_for(bytes));
            let looked = self.files.look(&mut pace, &mut |damage| self.found(damage, &mut report));
            match looked {
                Looked::Whole(tables) => self.counters.add(Counter::TablesChecked, tables),
                Looked::Stopped => return,
            }
            if !goes_on(self.pause) {
                return;
            }
        }
    }

    fn time_for(&self, bytes: usize) -> Duration {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        Duration::from_micros(bytes.saturating_mul(1_000_000) / self.bytes_per_second.max(1))
    }

    fn found(&self, damage: Damage, report: &mut impl FnMut(Unreadable)) {
        let is_of_rows = Files::is_of_rows(&damage.keyspace);
        if !self.files.note(&damage) {
            return;
        }
        self.counters.count(Counter::TablesDamaged);
        let what = damage.what;
        if is_of_rows {
            tracing::error!(what, "the disk is damaged; the state is fetched from the others");
            report(Unreadable(what));
        } else {
            tracing::error!(
                what,
                "the disk is damaged, where nobody can repair it: this replica goes on, but may not \
                 start again (docs/operations.md, \"A damaged disk\")"
            );
        }
    }
}
