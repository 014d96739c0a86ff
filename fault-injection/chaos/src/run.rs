//! Everything at once: windows of faults, and quiet ones between them in which progress is due.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use elea_client::Client;
use elea_fault_injection::rng::Rng;
use elea_fault_injection::violation::Violation;
use elea_protocol::id::ReplicaId;
use serde_json::Value as Json;

use crate::chart;
use crate::disk::SmallDisk;
use crate::faults::{Deck, Kind};
use crate::fleet::{Fleet, Plan, harness};
use crate::havoc::{Havoc, Small};
use crate::kill_all::sound;
use crate::recorder::Record;
use crate::report::{Facts, counts};
use crate::verify;
use crate::workload::{self, Shared, Workload};

/// Clients that write; one more reads.
const WRITERS: usize = 3;

/// Why clocks are left alone.
const CLOCKS: &str = "a time namespace moves the monotonic clock and not the wall clock, and the \
                      wall clock is the whole machine's";

/// What to do.
#[derive(Clone, Debug)]
pub struct Order {
    /// The program under test.
    pub elea: PathBuf,
    /// How long, without what comes before and after.
    pub length: Duration,
    /// How many replicas.
    pub replicas: u8,
    /// What the schedule follows from.
    pub seed: u64,
    /// Where the report goes.
    pub out: PathBuf,
    /// Whether replicas live in network namespaces.
    pub in_namespaces: bool,
}

/// How a run went.
struct Story {
    havoc: Havoc,
    recoveries: Vec<u64>,
    in_the_end: BTreeMap<&'static str, u64>,
    record: Record,
    shared: Arc<Shared>,
}

/// Breaks a cluster for this long, heals it, checks everything, and writes the report. Answers
/// with the report.
///
/// # Errors
/// The run could not be made. A broken promise is in the report.
pub async fn run(order: &Order) -> Result<Json, Violation> {
    fs::create_dir_all(&order.out).map_err(harness("the folder of the report"))?;
    let version = tokio::process::Command::new(&order.elea).arg("--version").output().await;
    let version = version.map_err(harness("elea --version"))?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let mut rng = Rng::new(order.seed);
    let plan = Plan {
        elea: order.elea.clone(),
        replicas: order.replicas,
        clients: WRITERS + 1,
        in_namespaces: order.in_namespaces,
        is_large: false,
    };
    let mut fleet = Fleet::new(&plan).await?;
    let mut left_out = vec![("clock steps", CLOCKS.to_owned())];
    let small = small_disk(&mut fleet, &mut rng, &mut left_out);
    if !order.in_namespaces {
        left_out.push((Kind::Namespace.word(), String::from("not asked for with --netns")));
    }
    let enabled: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| match kind {
            Kind::DiskFull => small.is_some(),
            Kind::Namespace => order.in_namespaces,
            _ => true,
        })
        .collect();
    let ids: Vec<ReplicaId> = fleet.ids().collect();
    fleet.start(&ids).await?;
    let load = Workload::start(&fleet, 0..WRITERS, Duration::from_millis(10), &mut rng).await?;
    let reader = workload::client(&fleet, WRITERS).await?;
    let shared = Arc::clone(&load.shared);
    let havoc = Havoc::new(fleet, rng, small, WRITERS + 1, Arc::clone(&shared));
    let mut story = Story {
        havoc,
        recoveries: Vec::new(),
        in_the_end: BTreeMap::new(),
        record: Record::default(),
        shared,
    };
    let told = tell(order, &enabled, &mut story, load, &reader).await;
    if let Ok(record) = story.havoc.fleet.recorder.report().await {
        story.record = record;
    }
    let verdict = told.and_then(|()| nothing_was_missed(&enabled, &story));
    if verdict.is_err() {
        let kept = story.havoc.fleet.keep();
        let _ = writeln!(std::io::stderr(), "logs and stores are in {}", kept.display());
    }
    report(order, &version, &enabled, &left_out, &story, verdict.map_err(|why| why.to_string()))
}

/// A disk of its own for one replica, where that can be had.
fn small_disk(
    fleet: &mut Fleet,
    rng: &mut Rng,
    left_out: &mut Vec<(&'static str, String)>,
) -> Small {
    let replicas: Vec<ReplicaId> = fleet.ids().collect();
    let who = replicas[rng.index(replicas.len())];
    match SmallDisk::mount(fleet.path("small-disk")) {
        Ok(disk) => {
            fleet.put_data(who, disk.folder());
            Some((who, disk))
        }
        Err(why) => {
            left_out.push((Kind::DiskFull.word(), why.to_string()));
            None
        }
    }
}

/// The run itself.
async fn tell(
    order: &Order,
    enabled: &[Kind],
    story: &mut Story,
    load: Workload,
    reader: &Client,
) -> Result<(), Violation> {
    let (of_replicas, of_network): (Vec<Kind>, Vec<Kind>) =
        enabled.iter().partition(|kind| kind.is_of_replicas());
    let (mut heavy, mut light) = (Deck::new(of_replicas), Deck::new(of_network));
    let begin = Instant::now();
    while begin.elapsed() < order.length {
        let rng = &mut story.havoc.rng;
        let (quiet, hold) = (rng.between(1_500, 3_500), rng.between(3_000, 7_000));
        // Every third window leaves processes alone, every third one the network nearly so.
        let heavy = if rng.between(0, 3) > 0 { heavy.deal(rng) } else { None };
        let lights = rng.between(if heavy.is_some() { 0 } else { 1 }, 3);
        let mut network = Vec::new();
        for _ in 0..lights {
            network.extend(light.deal(rng).filter(|kind| !network.contains(kind)));
        }
        tokio::time::sleep(Duration::from_millis(quiet)).await;
        progress(story, &network, heavy);
        story.havoc.window(&network, heavy, Duration::from_millis(hold)).await?;
        // The network is whole and all replicas run: strong reads must go through, and see
        // everything strong.
        let healed = Instant::now();
        let owed = story.shared.ledger.owed(false);
        verify::books(reader, &story.shared, &owed[..owed.len().min(1)], false).await?;
        let after = u64::try_from(healed.elapsed().as_millis()).unwrap_or(u64::MAX);
        story.recoveries.push(after);
        verify::books(reader, &story.shared, &owed, false).await?;
        verify::ask_around(reader).await;
        sound(&story.shared, &story.havoc.fleet.recorder.report().await?)?;
    }
    let shared = load.stop().await?;
    let status = verify::agreement(reader).await?;
    let (books, _) = verify::books(reader, &shared, &shared.ledger.owed(true), true).await?;
    let finals = verify::finals(&story.havoc.fleet.recorder, &shared, status.head).await?;
    story.in_the_end = BTreeMap::from([
        ("books_read", books as u64),
        ("finals_compared", finals as u64),
        ("slots", status.head.slot.0),
        ("view", status.view.0),
    ]);
    sound(&shared, &story.havoc.fleet.recorder.report().await?)
}

fn progress(story: &Story, network: &[Kind], heavy: Option<Kind>) {
    let [weak, strong] = story.shared.meter.totals();
    let kinds: Vec<&str> = network.iter().chain(&heavy).map(|kind| kind.word()).collect();
    let seconds = story.shared.meter.elapsed().as_secs();
    // A closed stderr is no reason to stop.
    let _ = writeln!(
        std::io::stderr(),
        "{seconds:>5} s: {weak} weak and {strong} strong answers; now {}",
        kinds.join(", ")
    );
}

/// A run that saw nothing has shown nothing.
fn nothing_was_missed(enabled: &[Kind], story: &Story) -> Result<(), Violation> {
    let missed = |what: &str| Err(Violation::new("seen", format!("{what} never occurred")));
    for (kind, count) in counts(enabled, &story.havoc.events) {
        if count == 0 {
            return missed(kind);
        }
    }
    let [weak, strong] = story.shared.ledger.acknowledged();
    let record = &story.record;
    for (what, count) in [
        ("a weak write", weak),
        ("a strong write", strong),
        ("a vote", record.count("commit_votes")),
        ("an order", record.count("orders")),
        ("a reply", record.count("replies")),
        ("a restart", record.restarts),
        ("an operation on a register", story.shared.registers.tally().operations),
        ("a final answer to compare", *story.in_the_end.get("finals_compared").unwrap_or(&0)),
    ] {
        if count == 0 {
            return missed(what);
        }
    }
    Ok(())
}

fn report(
    order: &Order,
    version: &str,
    enabled: &[Kind],
    left_out: &[(&'static str, String)],
    story: &Story,
    verdict: Result<(), String>,
) -> Result<Json, Violation> {
    let facts = Facts {
        seed: order.seed,
        version,
        replicas: order.replicas,
        enabled,
        left_out,
        events: &story.havoc.events,
        seen: &story.havoc.seen,
        recoveries: &story.recoveries,
        record: &story.record,
        shared: &story.shared,
        in_the_end: story.in_the_end.clone(),
        verdict,
    };
    let json = facts.to_json();
    let pretty = serde_json::to_string_pretty(&json)
        .map_err(|error| Violation::new("harness", format!("the report: {error}")))?;
    fs::write(order.out.join("report.json"), pretty + "\n").map_err(harness("report.json"))?;
    let title = format!(
        "{version}, {} replicas, seed {}: {}",
        order.replicas,
        order.seed,
        if facts.verdict.is_ok() { "sound" } else { "BROKEN" }
    );
    let svg = chart::svg(&title, &story.shared.meter.seconds(), &story.havoc.events);
    fs::write(order.out.join("report.svg"), svg).map_err(harness("report.svg"))?;
    Ok(json)
}
