//! Closed loops: so many of them, each of which asks for one thing, waits for the answer, and asks for the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use crate::{Outcome, elea, etcd};

/// Latencies are kept in microseconds, to three digits, up to a minute.
const LATENCY_MAX_US: u64 = 60_000_000;

/// An answer that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// One client of one of the two.
#[derive(Clone, Debug)]
pub enum Driver {
    /// Of etcd.
    Etcd(etcd::Client),
    /// Of Elea.
    Elea(elea::Client),
}

impl From<etcd::Client> for Driver {
    fn from(client: etcd::Client) -> Self {
        Self::Etcd(client)
    }
}

impl From<elea::Client> for Driver {
    fn from(client: elea::Client) -> Self {
        Self::Elea(client)
    }
}

/// Clients of either.
pub fn drivers(clients: Vec<impl Into<Driver>>) -> Vec<Driver> {
    clients.into_iter().map(Into::into).collect()
}

impl Driver {
    async fn put(&mut self, key: String, value: Bytes) -> Result<(), String> {
        match self {
            Self::Etcd(client) => client.put(key, value).await,
            Self::Elea(client) => client.put(key, value).await,
        }
    }

    /// Fails where there is no value.
    async fn get(&mut self, key: String) -> Result<(), String> {
        match self {
            Self::Etcd(client) => client.get(key).await,
            Self::Elea(client) => client.get(key).await,
        }
    }

    /// Ends its connections.
    pub async fn close(self) {
        if let Self::Elea(client) = self {
            client.close().await;
        }
    }
}

/// What the loops do.
#[derive(Clone, Debug)]
pub struct Task {
    /// How all keys begin.
    pub prefix: String,
    /// How many keys each loop uses, in turn.
    pub keys: u64,
    /// Bytes of a value.
    pub value: usize,
    /// Whether they read.
    pub reads: bool,
}

impl Task {
    fn key(&self, number: usize, count: u64) -> String {
        format!("{}/{number:04}/{:03}", self.prefix, count % self.keys)
    }

    /// Two writes of a key differ, and no value compresses.
    fn fresh(&self) -> Bytes {
        let mut value = vec![0; self.value];
        rand::fill(&mut value[..]);
        value.into()
    }
}

/// A part of a turn, in which what is answered is counted apart.
pub struct Step {
    /// What happens at its begin.
    pub begins: Option<Box<dyn FnOnce() + Send>>,
    /// How long it is.
    pub lasts: Duration,
}

impl Step {
    /// Nothing happens.
    pub fn silent(lasts: Duration) -> Self {
        Self { begins: None, lasts }
    }
}

/// What was seen in one step.
#[derive(Clone, Debug)]
pub struct Seen {
    latencies: Histogram<u64>,
    /// How many operations were not answered, or with an error.
    pub failed: u64,
    /// One of those errors.
    pub example: Option<String>,
}

impl Seen {
    fn new() -> Self {
        let latencies =
            Histogram::new_with_max(LATENCY_MAX_US, 3).expect("three digits up to a minute");
        Self { latencies, failed: 0, example: None }
    }

    fn add(&mut self, other: Self) {
        self.latencies.add(&other.latencies).expect("all histograms have the same bounds");
        self.failed += other.failed;
        self.example = self.example.take().or(other.example);
    }

    /// How many were answered.
    pub fn answered(&self) -> u64 {
        self.latencies.len()
    }

    /// The latency that this part of all answers did not exceed, in microseconds.
    pub fn latency(&self, part: f64) -> u64 {
        self.latencies.value_at_quantile(part)
    }
}

/// Writes every key that will be read.
pub async fn fill(drivers: &[Driver], task: &Task) -> Outcome<()> {
    let mut tasks = JoinSet::new();
    for (number, driver) in drivers.iter().enumerate() {
        let (mut driver, task) = (driver.clone(), task.clone());
        tasks.spawn(async move {
            for count in 0..task.keys {
                driver.put(task.key(number, count), task.fresh()).await?;
            }
            Ok::<(), String>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Runs a loop for each driver through all steps. What an answer belongs to is the step in which it came.
pub async fn run(drivers: &[Driver], task: Task, steps: Vec<Step>) -> Outcome<Vec<Seen>> {
    let now = Arc::new(AtomicUsize::new(0));
    let count = steps.len();
    let mut tasks = JoinSet::new();
    for (number, driver) in drivers.iter().enumerate() {
        tasks.spawn(one(number, driver.clone(), task.clone(), Arc::clone(&now), count));
    }
    let mut end = tokio::time::Instant::now();
    for (index, step) in steps.into_iter().enumerate() {
        now.store(index, Ordering::Relaxed);
        if let Some(begins) = step.begins {
            begins();
        }
        end += step.lasts;
        sleep_until(end).await;
    }
    now.store(count, Ordering::Relaxed);
    let mut all = vec![Seen::new(); count];
    while let Some(seen) = tasks.join_next().await {
        all.iter_mut().zip(seen?).for_each(|(all, seen)| all.add(seen));
    }
    Ok(all)
}

async fn one(
    number: usize,
    mut driver: Driver,
    task: Task,
    now: Arc<AtomicUsize>,
    steps: usize,
) -> Vec<Seen> {
    let mut seen = vec![Seen::new(); steps];
    for count in 0.. {
        if now.load(Ordering::Relaxed) >= steps {
            break;
        }
        let key = task.key(number, count);
        let begin = Instant::now();
        let act = async {
            if task.reads { driver.get(key).await } else { driver.put(key, task.fresh()).await }
        };
        let done = timeout(PATIENCE, act).await.unwrap_or_else(|_| Err(String::from("no answer")));
        let Some(step) = seen.get_mut(now.load(Ordering::Relaxed)) else { break };
        match done {
            Ok(()) => {
                let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
                step.latencies.saturating_record(micros);
            }
            Err(error) => {
                step.failed += 1;
                step.example.get_or_insert(error);
                // Who fails at once would otherwise do nothing but fail.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    seen
}
