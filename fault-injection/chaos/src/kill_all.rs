//! A power cut, again and again: all replicas die at the same moment, and come back on their disks.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use elea_client::Client;
use elea_fault_injection::rng::Rng;
use elea_fault_injection::violation::{Violation, demand};
use elea_protocol::id::ReplicaId;
use elea_protocol::message::Transport;
use serde_json::{Value as Json, json};

use crate::fleet::{Fleet, Plan};
use crate::recorder::Record;
use crate::shared::Shared;
use crate::verify;
use crate::workload::{self, Workload};

/// Clients that write; one more reads.
const WRITERS: usize = 3;

/// Between two operations of one task: what all rounds write must be read at every start, and a
/// round should not last longer for that.
const PAUSE: Duration = Duration::from_millis(40);

/// How long the cluster serves before it is killed again, at most.
const LONGEST_LIFE: u64 = 2_500;

/// What to do.
#[derive(Clone, Debug)]
pub struct Order {
    /// The program under test.
    pub elea: PathBuf,
    /// How all speak to each other.
    pub transport: Transport,
    /// How often all die.
    pub rounds: u32,
    /// How many replicas.
    pub replicas: u8,
    /// What the instants follow from.
    pub seed: u64,
    /// Whether to tell how it goes, a line a round, on stderr.
    pub is_told: bool,
}

/// Counts of one run.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    rounds: u32,
    kills: u64,
    killed_while_starting: u64,
    books: u64,
    awaited: u64,
}

/// Kills all replicas in every round, and checks after each that nothing is lost. Answers with a
/// summary.
///
/// # Errors
/// The first broken promise.
pub async fn run(order: &Order) -> Result<Json, Violation> {
    let mut rng = Rng::new(order.seed);
    let plan = Plan::simple(&order.elea, order.replicas, WRITERS + 1, order.transport);
    let mut fleet = Fleet::new(&plan).await?;
    let done = rounds(order, &mut fleet, &mut rng).await;
    if done.is_err() {
        let _ = writeln!(std::io::stderr(), "logs and stores are in {}", fleet.keep().display());
    }
    done
}

async fn rounds(order: &Order, fleet: &mut Fleet, rng: &mut Rng) -> Result<Json, Violation> {
    let begin = Instant::now();
    let ids: Vec<ReplicaId> = fleet.ids().collect();
    fleet.start(&ids).await?;
    let load = Workload::start(fleet, 0..WRITERS, PAUSE, rng).await?;
    let reader = workload::client(fleet, WRITERS).await?;
    let mut counts = Counts::default();
    let mut slowest = Duration::ZERO;
    for round in 1..=order.rounds {
        let began = Instant::now();
        let acknowledged = load.shared.ledger.acknowledged();
        one_round(fleet, &ids, &load.shared, &reader, rng, &mut counts).await?;
        let record = fleet.recorder.report().await?;
        sound(&load.shared, &record)?;
        counts.rounds = round;
        slowest = slowest.max(began.elapsed());
        if order.is_told {
            let now = load.shared.ledger.acknowledged();
            // A closed stderr is no reason to stop.
            let _ = writeln!(
                std::io::stderr(),
                "round {round}: {:.1} s, {} weak and {} strong writes, {} votes in all, {} awaited",
                began.elapsed().as_secs_f64(),
                now[0] - acknowledged[0],
                now[1] - acknowledged[1],
                record.count("commit_votes"),
                counts.awaited,
            );
        }
    }
    let shared = load.stop().await?;
    let status = verify::agreement(&reader).await?;
    let (books, _) = verify::books(&reader, &shared, &shared.ledger.owed(true), true).await?;
    let finals = verify::finals(&fleet.recorder, &shared, status.head).await?;
    let record = fleet.recorder.report().await?;
    sound(&shared, &record)?;
    nothing_was_missed(order, &counts, &shared, &record)?;
    demand(finals > 0, "seen", || String::from("no final answer could be compared"))?;
    let mut summary = summary(order, &counts, &shared, &record, begin.elapsed(), slowest);
    summary["books_at_the_end"] = books.into();
    summary["finals_compared"] = finals.into();
    summary["slots"] = status.head.slot.0.into();
    summary["view"] = status.view.0.into();
    Ok(summary)
}

async fn one_round(
    fleet: &mut Fleet,
    ids: &[ReplicaId],
    shared: &Shared,
    reader: &Client,
    rng: &mut Rng,
    counts: &mut Counts,
) -> Result<(), Violation> {
    // Not to wait for anything: it is the random instant.
    tokio::time::sleep(Duration::from_millis(rng.between(0, LONGEST_LIFE))).await;
    fleet.kill(ids).await?;
    counts.kills += ids.len() as u64;
    if rng.between(0, 3) == 0 {
        // Some die again while they read their disks.
        ids.iter().try_for_each(|id| fleet.spawn(*id))?;
        tokio::time::sleep(Duration::from_millis(rng.between(0, 60))).await;
        fleet.kill(ids).await?;
        counts.killed_while_starting += ids.len() as u64;
    }
    fleet.start(ids).await?;
    let mut owed = shared.ledger.owed(false);
    // And some that were found whole before: what is old must stay, too.
    let old = shared.ledger.owed(true);
    for _ in 0..4 {
        if let Some(owed_before) = (!old.is_empty()).then(|| old[rng.index(old.len())].clone()) {
            owed.push(owed_before);
        }
    }
    let (books, awaited) = verify::books(reader, shared, &owed, false).await?;
    verify::ask_around(reader).await;
    counts.books += books as u64;
    counts.awaited += awaited as u64;
    Ok(())
}

/// What was recorded and complained of so far.
///
/// # Errors
/// The first of it.
pub fn sound(shared: &Shared, record: &Record) -> Result<(), Violation> {
    let first = record.violations.first().cloned();
    first.or_else(|| shared.violations().first().cloned()).map_or(Ok(()), Err)
}

/// A checker that saw nothing has shown nothing.
fn nothing_was_missed(
    order: &Order,
    counts: &Counts,
    shared: &Shared,
    record: &Record,
) -> Result<(), Violation> {
    let [weak, strong] = shared.ledger.acknowledged();
    let kills = u64::from(order.rounds) * u64::from(order.replicas);
    for (what, seen, least) in [
        ("weak writes", weak, 1),
        ("strong writes", strong, 1),
        ("votes", record.count("commit_votes"), 1),
        ("orders", record.count("orders"), 1),
        ("replies", record.count("replies"), 1),
        ("kills", counts.kills, kills),
        ("restarts", record.restarts, kills),
        ("books", counts.books, 1),
        ("register operations", shared.registers.tally().operations, 1),
    ] {
        demand(seen >= least, "seen", || format!("{seen} {what} were seen, and {least} are due"))?;
    }
    Ok(())
}

fn summary(
    order: &Order,
    counts: &Counts,
    shared: &Shared,
    record: &Record,
    elapsed: Duration,
    slowest: Duration,
) -> Json {
    let [weak, strong] = shared.ledger.acknowledged();
    let tally = shared.registers.tally();
    json!({
        "verdict": "sound",
        "transport": order.transport.name(),
        "seed": order.seed,
        "replicas": order.replicas,
        "rounds": counts.rounds,
        "seconds": elapsed.as_secs_f64(),
        "slowest_round_seconds": slowest.as_secs_f64(),
        "kills": counts.kills,
        "kills_while_starting": counts.killed_while_starting,
        "acknowledged": { "weak": weak, "strong": strong },
        "books_read": counts.books,
        "weak_writes_awaited": counts.awaited,
        "final_places": shared.ledger.finals(),
        "registers": {
            "linearizable": tally.linearizable,
            "undecided": tally.undecided,
            "operations": tally.operations,
        },
        "restarts": record.restarts,
        "heard": record.counts,
        "counted_by_replicas": record.counted,
    })
}
