//! Clients that mean harm, or behave as if they did.
//!
//! Each has a key that the cluster admits, but for those that need none. They are not part of what is
//! checked: whatever one of them does, everybody else is owed answers as before. So their words do
//! not pass through the recorder, and each runs in a thread of its own, so that it takes time from the
//! clients that are judged only as another process would.

mod requests;
mod strangers;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use elea_client::{Client, Cluster, Options, SecretKey};
use elea_fault_injection::rng::Rng;
use elea_protocol::id::ReplicaId;
use tokio::sync::oneshot;

use crate::raw::Guest;

/// What a hostile client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mischief {
    /// Sends 128 requests of 1.9 MiB at once, again and again.
    Bulk,
    /// Asks for large values and never reads an answer.
    Unread,
    /// Asks one replica for its status 10,000 times a second.
    Statuses,
    /// Opens connections with its key, and drops them.
    Churn,
    /// Holds a thousand connections to each replica open, without a key, and says nothing.
    Silent,
    /// Sends bytes that mean nothing, before and after it has shown its key.
    Garbage,
    /// Runs one-shot commands that keep no session.
    OneShot,
    /// Adds 512 members at a time to a large set.
    BigSet,
    /// Appends a hundred times to a large value in one transaction.
    LongTxn,
}

impl Mischief {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Bulk,
        Self::Unread,
        Self::Statuses,
        Self::Churn,
        Self::Silent,
        Self::Garbage,
        Self::OneShot,
        Self::BigSet,
        Self::LongTxn,
    ];

    /// Its name in reports.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Bulk => "hostile: bulk",
            Self::Unread => "hostile: never reads",
            Self::Statuses => "hostile: statuses",
            Self::Churn => "hostile: connections",
            Self::Silent => "hostile: silent sockets",
            Self::Garbage => "hostile: garbage",
            Self::OneShot => "hostile: one-shot",
            Self::BigSet => "hostile: big set",
            Self::LongTxn => "hostile: long txn",
        }
    }

    async fn run(self, target: Target) {
        match self {
            Self::Bulk => requests::bulk(&target).await,
            Self::Unread => strangers::unread(target).await,
            Self::Statuses => strangers::statuses(target).await,
            Self::Churn => strangers::churn(target).await,
            Self::Silent => strangers::silent(&target).await,
            Self::Garbage => strangers::garbage(target).await,
            Self::OneShot => requests::one_shot(&target).await,
            Self::BigSet => requests::big_set(&target).await,
            Self::LongTxn => requests::long_txn(&target).await,
        }
    }
}

/// Who is harmed, and by whom.
#[derive(Clone)]
pub struct Target {
    /// The cluster, as a client of its own sees it.
    pub cluster: Cluster,
    /// The same for those who use no client.
    pub guest: Guest,
    /// What was done so far.
    pub tally: Arc<Tally>,
    /// What follows from the seed.
    pub rng: Rng,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Target {
    fn ids(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        self.cluster.membership.size().members().collect::<Vec<_>>().into_iter()
    }

    fn somebody(&mut self) -> ReplicaId {
        let ids: Vec<ReplicaId> = self.ids().collect();
        *self.rng.pick(&ids)
    }

    /// A client with the hostile key, without a session file.
    async fn client(&self, timeout: Duration, pipeline: usize) -> Option<Client> {
        // As if each was a process.
        let transport = self.guest.transport;
        let options =
            Options { timeout, pipeline, own_connections: true, transport, ..Options::default() };
        let key = SecretKey::from_bytes(&self.guest.key.to_bytes());
        Client::with_options(&self.cluster, key, options).await.ok()
    }
}

/// What hostile clients of one kind did.
#[derive(Debug, Default)]
pub struct Tally {
    acted: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
}

impl Tally {
    /// So often.
    #[must_use]
    pub fn acted(&self) -> u64 {
        self.acted.load(Ordering::Relaxed)
    }

    fn acts(&self, times: u64) {
        self.acted.fetch_add(times, Ordering::Relaxed);
    }

    fn ended(&self, well: bool) {
        let count = if well { &self.answered } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it acted, was answered, and was refused, turned away or not answered in time.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        BTreeMap::from([
            ("acted", self.acted()),
            ("answered", count(&self.answered)),
            ("failed", count(&self.failed)),
        ])
    }
}

/// A hostile client at work. Dropping it ends it.
#[derive(Debug)]
pub struct Attack {
    /// Dropped to end it.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Attack {
    /// Lets it loose.
    #[must_use]
    pub fn begin(mischief: Mischief, target: Target) -> Self {
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            // Without it nothing is done, and that is noticed.
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                tokio::select! {
                    () = mischief.run(target) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }

    /// Ends it, and waits until it has.
    pub async fn end(mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}
