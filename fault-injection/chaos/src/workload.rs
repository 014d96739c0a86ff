//! Clients that never rest: the real client library, at both levels, all the time.

use std::sync::Arc;
use std::time::Duration;

use elea_client::{Client, Cluster, Command, Level, Options, Strong, Weak};
use elea_fault_injection::rng::Rng;
use elea_fault_injection::violation::Violation;
use elea_kv::{Add, Append, Incr, Refused};
use tokio::task::JoinSet;

use crate::fleet::Fleet;
use crate::ledger::{Kind, Name};
use crate::service::Pace;
use crate::shared::{BOOK, Shared, rest, unanswered};
use crate::tap::Party;
use crate::{bulky, contest, steady};

/// How long a client waits for one answer. It is longer than any fault lasts, so that few
/// operations are left of which nobody knows whether they were done.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The clients and their tasks.
pub struct Workload {
    /// What they share.
    pub shared: Arc<Shared>,
    clients: Vec<(usize, Client)>,
    tasks: JoinSet<()>,
}

/// A client of the fleet.
///
/// # Errors
/// Its key or the cluster cannot be used.
pub async fn client(fleet: &Fleet, number: usize) -> Result<Client, Violation> {
    let cluster = Cluster::from(&fleet.file_for(Party::Client(number)));
    let transport = fleet.transport;
    let options = Options { timeout: TIMEOUT, transport, ..Options::default() };
    let client = Client::with_options(&cluster, fleet.client_key(number)?, options).await;
    client.map_err(|error| Violation::new("harness", format!("client {number}: {error}")))
}

impl Workload {
    /// Starts the clients with these numbers. Each has its own books, and all use the same
    /// registers. Between two operations of one task lies about this pause.
    ///
    /// # Errors
    /// As [`client`].
    pub async fn start(
        fleet: &Fleet,
        numbers: std::ops::Range<usize>,
        pause: Duration,
        rng: &mut Rng,
    ) -> Result<Self, Violation> {
        let shared = Arc::new(Shared::default());
        let (mut tasks, mut clients) = (JoinSet::new(), Vec::new());
        for number in numbers {
            let client = client(fleet, number).await?;
            clients.push((number, client.clone()));
            for (index, kind) in [Kind::Set, Kind::Log, Kind::Sum].into_iter().enumerate() {
                for (half, level) in [Level::Weak, Level::Strong].into_iter().enumerate() {
                    let writer = Writer {
                        client: client.clone(),
                        shared: Arc::clone(&shared),
                        kind,
                        level,
                        by: number,
                        number: (number * 3 + index) * 2 + half,
                    };
                    tasks.spawn(writer.run(pause, rng.fork()));
                }
            }
            for _ in 0..2 {
                let (client, shared) = (client.clone(), Arc::clone(&shared));
                let id = u32::try_from(number).unwrap_or(u32::MAX);
                tasks.spawn(contest::run(client, shared, id, pause, rng.fork()));
            }
        }
        Ok(Self { shared, clients, tasks })
    }

    /// Has every client ask steadily, too, at both levels, so often.
    pub fn add_steady(&mut self, every: Duration) {
        for (number, client) in &self.clients {
            for level in [Level::Weak, Level::Strong] {
                let (client, shared) = (client.clone(), Arc::clone(&self.shared));
                self.tasks.spawn(steady::run(client, shared, *number, level, every));
            }
        }
    }

    /// Adds a client that writes large values.
    ///
    /// # Errors
    /// As [`client`].
    pub async fn add_bulky(
        &mut self,
        fleet: &Fleet,
        number: usize,
        rng: &mut Rng,
    ) -> Result<(), Violation> {
        let client = client(fleet, number).await?;
        self.tasks.spawn(bulky::run(client, Arc::clone(&self.shared), number, rng.fork()));
        Ok(())
    }

    /// Lets every client finish what it is at, and judges the registers that are left.
    ///
    /// # Errors
    /// I8: one of them is not linearizable.
    pub async fn stop(mut self) -> Result<Arc<Shared>, Violation> {
        self.shared.end();
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(|error| Violation::new("harness", format!("a client: {error}")))?;
        }
        for records in self.shared.registers.rest() {
            let shared = Arc::clone(&self.shared);
            let judged = tokio::task::spawn_blocking(move || shared.registers.judge(&records));
            judged.await.map_err(|error| Violation::new("harness", error.to_string()))??;
        }
        Ok(self.shared)
    }
}

/// Writes into its own books.
struct Writer {
    client: Client,
    shared: Arc<Shared>,
    kind: Kind,
    level: Level,
    /// Which client it is.
    by: usize,
    number: usize,
}

impl Writer {
    async fn run(self, pause: Duration, mut rng: Rng) {
        for count in 0.. {
            if self.shared.is_over() {
                return;
            }
            let name = Name(self.kind, self.number, count / BOOK);
            let (key, entry) = (name.key(), format!("{}.{count}", self.number));
            self.shared.ledger.attempt(name, &entry);
            match self.kind {
                Kind::Set => self.write(name, &entry, Add::new(key, entry.clone())).await,
                Kind::Log => self.write(name, &entry, Append::new(key, format!(" {entry}"))).await,
                Kind::Sum => self.write(name, &entry, Incr::new(key, 1)).await,
            }
            rest(pause, &mut rng).await;
        }
    }

    async fn write<C, T>(&self, name: Name, entry: &str, command: C)
    where
        C: Command<Output = Result<T, Refused>>,
    {
        let asked = self.shared.asks(self.by, self.level, Pace::Eager, 0);
        let result = match self.level {
            Level::Weak => self.client.weak(command).await.map(|Weak { result, .. }| result),
            Level::Strong => {
                self.client.strong(command).await.map(|Strong { result, receipt, .. }| {
                    self.shared.is_final(&receipt);
                    result
                })
            }
        };
        self.shared.has(asked, result.is_ok());
        match result {
            Ok(Ok(_)) => self.shared.ledger.acknowledge(name, entry, self.level),
            Ok(Err(refused)) => self.shared.refused(&name.key(), entry, &refused),
            Err(error) => unanswered(&self.shared, self.level, &error),
        }
    }
}
