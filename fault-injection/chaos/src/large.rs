//! Much data: a replica that was away for long, and a start with many keys.
//!
//! What is measured is told, and judged only where it does not depend on the machine: that the
//! replica catches up although it is killed twice on the way and one of its peers lies to it, that
//! all agree in the end, and that nobody needs more memory than is allowed or more time for a
//! start, which is generous. How many pieces it took in each life is told and not judged: under
//! load its peers may have moved on to a later state while it was down.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use elea_client::{Client, Command as _, Outcome};
use elea_fault_injection::violation::{Violation, demand};
use elea_kv::Put;
use elea_protocol::id::ReplicaId;
use elea_protocol::message::{Level, NodeStatus, Transport};
use futures::StreamExt as _;
use futures::stream;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value as Json, json};

use crate::fleet::{Fleet, PATIENCE, Plan, harness};
use crate::network::Network;
use crate::tap::{Party, Wire};
use crate::{verify, workload};

/// Operations in one request, and requests under way.
const BATCH: u64 = 64;
const UNDER_WAY: usize = 12;

/// The bytes of a key.
const KEY_BYTES: u64 = 14;

/// The one that is away, and the one that lies to it.
const AWAY: ReplicaId = ReplicaId(3);
const LIAR: ReplicaId = ReplicaId(1);

/// Pieces accepted in one life before it is killed.
const LIFE_PIECES: u64 = 40;

/// What to do.
#[derive(Clone, Debug)]
pub struct Order {
    /// The program under test.
    pub elea: PathBuf,
    /// How all speak to each other.
    pub transport: Transport,
    /// How many writes.
    pub operations: u64,
    /// To how many keys.
    pub keys: u64,
    /// Bytes of each value.
    pub value_size: usize,
}

/// What a replica may need.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Bytes of memory, at any time.
    pub memory: u64,
    /// From the start of the process until it serves.
    pub start: Duration,
}

/// What is written with this number: bytes that do not compress, so that sizes mean something.
fn value(number: u64, size: usize) -> Bytes {
    let mut value = vec![0; size];
    StdRng::seed_from_u64(number).fill_bytes(&mut value);
    Bytes::from(value)
}

/// Writes keys in turn, and answers how long that took.
async fn write(
    client: &Client,
    order: &Order,
    operations: std::ops::Range<u64>,
) -> Result<Duration, Violation> {
    let begin = Instant::now();
    let batches = operations.clone().step_by(BATCH as usize).map(|first| {
        let puts = first..operations.end.min(first + BATCH);
        let put = |number: u64| {
            let value = value(number, order.value_size);
            Put::new(format!("large/{:08}", number % order.keys), value).encode()
        };
        let operations: Vec<Bytes> = puts.map(put).collect();
        async move {
            loop {
                match client.execute(Level::Strong, false, operations.clone()).await {
                    Ok(_) => return Ok(()),
                    // The same values again: it does not matter whether they were written.
                    Err(error) if error.outcome() == Outcome::Unknown => {}
                    Err(error) => return Err(Violation::new("liveness", error.to_string())),
                }
                demand(begin.elapsed() < 20 * PATIENCE, "liveness", || "a write".to_owned())?;
            }
        }
    });
    let mut done = stream::iter(batches).buffer_unordered(UNDER_WAY);
    while let Some(result) = done.next().await {
        result?;
    }
    Ok(begin.elapsed())
}

async fn status(client: &Client, id: ReplicaId) -> Option<NodeStatus> {
    let all = client.status().await;
    all.into_iter().find(|(of, _)| *of == id)?.1.ok()
}

fn counted(status: &NodeStatus, name: &str) -> u64 {
    let counters = status.counters.iter();
    counters.filter(|(counter, _)| counter == name).map(|(_, count)| *count).sum()
}

/// What the liar says to the one that was away is spoilt from now on.
fn lie(network: &Network) {
    for way in network.ways() {
        let Wire { from, to } = way.wire;
        way.set(|state| {
            state.there.spoils_states = (from, to) == (Party::Replica(LIAR), AWAY);
            state.back.spoils_states = (from, to) == (Party::Replica(AWAY), LIAR);
        });
    }
}

fn tell(what: &str) {
    // A closed stderr is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{what}");
}

async fn fleet(order: &Order) -> Result<(Fleet, Client), Violation> {
    let plan = Plan { is_large: true, ..Plan::simple(&order.elea, 4, 2, order.transport) };
    let fleet = Fleet::started(&plan).await?;
    let client = workload::client(&fleet, 0).await?.with_timeout(PATIENCE);
    Ok((fleet, client))
}

/// One replica is away for all the writes, comes back under load, is killed twice on its way, and
/// hears lies from one peer.
///
/// # Errors
/// It does not catch up, or was not interrupted twice, or nobody lied to it.
pub async fn away(order: &Order) -> Result<Json, Violation> {
    let (mut fleet, client) = fleet(order).await?;
    let written = order.operations.saturating_mul(order.value_size as u64 + KEY_BYTES);
    let retained = fleet.file.tuning.retained_bytes as u64;
    // Whoever finds all slots that it missed fetches no state.
    demand(written > 2 * retained, "harness", || {
        format!(
            "{written} bytes are too few to be written while it is away: {retained} are retained"
        )
    })?;
    write(&client, order, 0..BATCH).await?;
    fleet.kill(&[AWAY]).await?;
    let took = write(&client, order, 0..order.operations).await?;
    tell(&format!("{} writes in {:.1} s", order.operations, took.as_secs_f64()));
    lie(&fleet.network);
    let other = workload::client(&fleet, 1).await?.with_timeout(PATIENCE);
    let back = Instant::now();
    // Load goes on until it has caught up.
    let load = async {
        let mut next = order.operations;
        loop {
            write(&other, order, next..next + 4 * BATCH).await?;
            next += 4 * BATCH;
            tokio::task::yield_now().await;
            if next == u64::MAX {
                return Ok::<u64, Violation>(next);
            }
        }
    };
    let caught_up = async {
        let mut lives = Vec::new();
        loop {
            fleet.spawn(AWAY)?;
            let began = Instant::now();
            let (pieces, refused, done) = loop {
                demand(began.elapsed() < PATIENCE, "liveness", || {
                    format!("{AWAY} does not catch up: {}", fleet.log_end(AWAY))
                })?;
                let Some(status) = status(&client, AWAY).await else { continue };
                let pieces = counted(&status, "chunks_accepted");
                let refused = counted(&status, "chunks_refused");
                let done = counted(&status, "state_transfers") > 0;
                if done || (lives.len() < 2 && pieces >= LIFE_PIECES) {
                    break (pieces, refused, done);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            tell(&format!("life {}: {pieces} pieces, {refused} refused", lives.len() + 1));
            lives.push((pieces, refused));
            if done {
                return Ok::<_, Violation>(lives);
            }
            fleet.kill(&[AWAY]).await?;
        }
    };
    let lives = tokio::select! {
        lives = caught_up => lives?,
        ended = load => return Err(Violation::new("harness", format!("the load ended: {ended:?}"))),
    };
    let caught_up_after = back.elapsed();
    fleet.ready(AWAY).await?;
    let status = verify::agreement(&client).await?;
    demand(lives.len() == 3, "seen", || "it was not interrupted twice".to_owned())?;
    let refused: u64 = lives.iter().map(|(_, refused)| refused).sum();
    demand(refused > 0, "seen", || "nobody lied to it".to_owned())?;
    Ok(json!({
        "verdict": "sound",
        "transport": order.transport.name(),
        "operations": order.operations,
        "write_seconds": took.as_secs_f64(),
        "caught_up_seconds": caught_up_after.as_secs_f64(),
        "pieces_by_life": lives.iter().map(|(pieces, _)| *pieces).collect::<Vec<_>>(),
        "pieces_refused": refused,
        "slots": status.head.slot.0,
        "memory_bytes": fleet.ids().filter_map(|id| fleet.memory(id)).collect::<Vec<_>>(),
    }))
}

/// Writes all keys, then kills and starts every replica, one after the other.
///
/// # Errors
/// Something does not start, or needs more than is allowed, or the replicas do not agree.
pub async fn start(order: &Order, allowance: &Allowance) -> Result<Json, Violation> {
    let (mut fleet, client) = fleet(order).await?;
    let took = write(&client, order, 0..order.operations).await?;
    tell(&format!("{} writes in {:.1} s", order.operations, took.as_secs_f64()));
    verify::agreement(&client).await?;
    let ids: Vec<ReplicaId> = fleet.ids().collect();
    let memory =
        |fleet: &Fleet| -> Vec<u64> { fleet.ids().filter_map(|id| fleet.memory(id)).collect() };
    let loaded = memory(&fleet);
    let peak: Vec<u64> = ids.iter().filter_map(|id| fleet.memory_peak(*id)).collect();
    let mut starts = Vec::new();
    for id in &ids {
        fleet.kill(&[*id]).await?;
        let begin = Instant::now();
        fleet.start(&[*id]).await?;
        starts.push(begin.elapsed());
    }
    let started = memory(&fleet);
    let head = verify::agreement(&client).await?.head;
    let state = order.operations.min(order.keys) * (order.value_size as u64 + KEY_BYTES);
    let stored: Vec<u64> = ids.iter().map(|id| folder_bytes(fleet.data(*id))).collect();
    let seconds = |time: &Duration| time.as_secs_f64();
    let times = |all: &[u64]| -> Vec<f64> {
        let hundredths = |bytes: u64| (bytes * 100 / state.max(1)) as f64;
        all.iter().map(|bytes| hundredths(*bytes) / 100.0).collect()
    };
    let measured = json!({
        "verdict": "sound",
        "transport": order.transport.name(),
        "keys": order.keys,
        "state_bytes": state,
        "write_seconds": took.as_secs_f64(),
        "start_seconds": starts.iter().map(seconds).collect::<Vec<_>>(),
        "memory_bytes_peak": peak,
        "memory_bytes_loaded": loaded,
        "memory_bytes_started": started,
        "memory_peak_by_state": times(&peak),
        "stored_bytes": stored,
        "stored_by_state": times(&stored),
        "slots": head.slot.0,
    });
    let most = peak.iter().chain(&started).max().copied().unwrap_or_default();
    demand(most <= allowance.memory, "memory", || {
        format!("a replica had {most} bytes of {} allowed: {measured}", allowance.memory)
    })?;
    let longest = starts.iter().max().copied().unwrap_or_default();
    demand(longest <= allowance.start, "start", || {
        format!("a start took {longest:?} of {:?} allowed: {measured}", allowance.start)
    })?;
    Ok(measured)
}

/// The bytes of all files in a folder. Files that go meanwhile count nothing.
fn folder_bytes(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).map_err(harness("a data folder"));
    let entries = entries.into_iter().flatten().filter_map(Result::ok);
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => folder_bytes(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}
