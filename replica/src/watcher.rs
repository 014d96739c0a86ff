//! What programs of its operator see of a replica, from within its process.
//!
//! What it says to clients rests on its disk and is signed. This is for whoever runs it, and tells how it is
//! also while its disk is silent.

use std::sync::Arc;

use elea_protocol::id::Slot;
use elea_protocol::message::NodeStatus;
use elea_protocol::quorum::ClusterSize;
use elea_protocol::replica::Driver;
use tokio::sync::{Mutex, watch};
use tokio::task::spawn_blocking;

use crate::counters::Counters;
use crate::measures::Measures;
use crate::shell::Shell;

/// How a replica is at one moment.
#[derive(Clone, Debug)]
pub struct Report {
    /// What it says to whoever asks.
    pub status: NodeStatus,
    /// The slot of the state on its disk.
    pub settled: Slot,
    /// Slots that may still be undone.
    pub speculative_slots: u64,
    /// How many there may be before no more requests are taken.
    pub speculative_slots_max: u64,
    /// About what they take in memory, in bytes.
    pub speculative_bytes: u64,
    /// What they may take before no more requests are taken.
    pub speculative_bytes_max: u64,
}

/// Asks the core; `None` once it has ended.
pub(crate) type Look = dyn Fn(Driver) -> Option<Report> + Send + Sync;

/// Looks at a running replica. It may outlive it.
#[derive(Clone)]
pub struct Watcher {
    pub(crate) shell: Arc<Shell>,
    pub(crate) look: Arc<Look>,
    pub(crate) links_up: watch::Receiver<usize>,
    pub(crate) measures: Arc<Measures>,
    /// One looks at a time, so that whoever gives up waiting leaves no more than one thread that still does.
    pub(crate) turn: Arc<Mutex<()>>,
}

impl Watcher {
    /// How it is. Waits until the core has time, so whoever asks sets a limit; `None` once it has stopped.
    pub async fn report(&self) -> Option<Report> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let (look, driver) = (Arc::clone(&self.look), self.shell.driver());
        // What the core is at may take a while, and this thread has others to serve.
        let looking = spawn_blocking(move || {
            let _turn = turn;
            look(driver)
        });
        looking.await.ok().flatten()
    }

    /// With how many replicas it is in touch, itself among them.
    #[must_use]
    pub fn connected(&self) -> usize {
        *self.links_up.borrow() + 1
    }

    /// How large its cluster is.
    #[must_use]
    pub fn size(&self) -> ClusterSize {
        self.shell.membership.size()
    }

    /// What it has counted beside its core.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shell.counters
    }

    /// How long things take.
    #[must_use]
    pub fn measures(&self) -> &Measures {
        &self.measures
    }

    /// The name of its cluster.
    #[must_use]
    pub fn cluster(&self) -> &str {
        self.shell.membership.name()
    }
}
