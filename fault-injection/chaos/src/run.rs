//! Everything at once: rounds of faults that overlap, and quiet times between them.

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
use elea_protocol::message::Transport;
use serde_json::Value as Json;

use crate::chart;
use crate::clock::{self, Clocks};
use crate::disk::SmallDisk;
use crate::faults::Kind;
use crate::fleet::{Fleet, Plan, harness};
use crate::havoc::{Clients, Havoc, Means, WRONG_CLOCK_TOLD};
use crate::hostile::Mischief;
use crate::kill_all::sound;
use crate::lookout;
use crate::recorder::Record;
use crate::report::{Facts, counts};
use crate::schedule::{Round, Schedule};
use crate::service::{Service, Terms};
use crate::shared::Shared;
use crate::slow_sync::{self, SlowSync};
use crate::verify;
use crate::workload::{self, Workload};

/// Clients that write.
const WRITERS: usize = 3;

/// The one that writes large values, and the one that reads.
const BULKY: usize = WRITERS;
const READER: usize = WRITERS + 1;

/// All of those.
const HONEST: usize = WRITERS + 2;

/// Who asks all replicas how they are. Hostile clients have the numbers between.
const LOOKOUT: usize = HONEST + Mischief::ALL.len();

/// How often each writer asks for something at each level, whatever else it does.
const STEADY: Duration = Duration::from_millis(100);

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
    /// How all speak to each other.
    pub transport: Transport,
    /// Whether anything is broken at all.
    pub has_faults: bool,
    /// Whether some clients are hostile.
    pub has_hostile: bool,
    /// What service is demanded.
    pub terms: Terms,
}

/// How a run went.
struct Story {
    havoc: Havoc,
    recoveries: Vec<u64>,
    in_the_end: BTreeMap<&'static str, u64>,
    record: Record,
    service: Service,
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
        clients: HONEST,
        strangers: Mischief::ALL.len() + 1,
        has_hostile: order.has_hostile,
        in_namespaces: order.in_namespaces,
        transport: order.transport,
        is_large: false,
    };
    let mut fleet = Fleet::new(&plan).await?;
    let mut left_out = Vec::new();
    let means = means(order, &mut fleet, &mut rng, &mut left_out);
    let enabled = enabled(order, &means, &mut left_out);
    let ids: Vec<ReplicaId> = fleet.ids().collect();
    fleet.start(&ids).await?;
    let mut load = Workload::start(&fleet, 0..WRITERS, Duration::from_millis(10), &mut rng).await?;
    load.add_steady(STEADY);
    load.add_bulky(&fleet, BULKY, &mut rng).await?;
    let reader = workload::client(&fleet, READER).await?;
    let shared = Arc::clone(&load.shared);
    let _lookout = lookout::begin(&fleet, LOOKOUT, &shared, &order.out.join("status.csv"))?;
    let schedule = Schedule::new(&enabled, order.replicas, rng.fork());
    let clients = Clients { honest: HONEST, bulky: BULKY };
    let havoc = Havoc::new(fleet, rng, means, clients, Arc::clone(&shared));
    let mut story = Story {
        havoc,
        recoveries: Vec::new(),
        in_the_end: BTreeMap::new(),
        record: Record::default(),
        service: Service::default(),
        shared,
    };
    let told = tell(order, schedule, &mut story, load, &reader).await;
    if let Ok(record) = story.havoc.fleet.recorder.report().await {
        story.record = record;
    }
    let size = story.havoc.fleet.file.membership.size();
    let requests = story.shared.requests.all();
    story.service = Service::judge(&order.terms, size, &story.havoc.timeline, &requests);
    let served = story.service.verdict(&order.terms);
    let verdict = told.and(served.map_err(|why| Violation::new("service", why)));
    let verdict = verdict.and_then(|()| nothing_was_missed(&enabled, &story));
    if verdict.is_err() {
        let kept = story.havoc.fleet.keep();
        let _ = writeln!(std::io::stderr(), "logs and stores are in {}", kept.display());
    }
    report(order, &version, &enabled, &left_out, &story, verdict.map_err(|why| why.to_string()))
}

/// The kinds that can happen here, and are to.
fn enabled(order: &Order, means: &Means, left_out: &mut Vec<(&'static str, String)>) -> Vec<Kind> {
    if order.transport == Transport::Plain {
        // Everything would count as said, and its speaker as a liar.
        left_out.push((Kind::Turned.word(), String::from("nothing is encrypted")));
    }
    if !order.in_namespaces {
        left_out.push((Kind::Namespace.word(), String::from("not asked for with --netns")));
    }
    let can = |kind: &Kind| match kind {
        Kind::DiskFull => means.small.is_some(),
        Kind::SlowDisk | Kind::SlowDisks => means.slow.is_some(),
        Kind::Clock | Kind::Clocks => means.clocks.is_some(),
        Kind::Namespace => order.in_namespaces,
        Kind::Turned => order.transport == Transport::Encrypted,
        Kind::Hostile(_) => order.has_hostile,
        _ => order.has_faults,
    };
    let is_wanted = |kind: &Kind| order.has_faults || matches!(kind, Kind::Hostile(_));
    Kind::all().into_iter().filter(|kind| can(kind) && is_wanted(kind)).collect()
}

/// What makes some faults possible, where it can be had: a disk of its own for one replica, slow syncs
/// for all, and clocks.
fn means(
    order: &Order,
    fleet: &mut Fleet,
    rng: &mut Rng,
    left_out: &mut Vec<(&'static str, String)>,
) -> Means {
    let replicas: Vec<ReplicaId> = fleet.ids().collect();
    let who = *rng.pick(&replicas);
    let small = match SmallDisk::mount(fleet.path("small-disk")) {
        Ok(disk) => {
            fleet.put_data(who, disk.folder());
            Some((who, disk))
        }
        Err(why) => {
            left_out.push((Kind::DiskFull.word(), why.to_string()));
            None
        }
    };
    let slow = match SlowSync::build(fleet.path("slow-sync")) {
        Ok(slow) => {
            fleet.preload(slow.library());
            for id in replicas {
                fleet.set_variable(id, slow_sync::VARIABLE, slow.file(id));
            }
            Some(slow)
        }
        Err(why) => {
            left_out.push((Kind::SlowDisk.word(), why.to_string()));
            None
        }
    };
    let clocks = clocks(order, fleet).unwrap_or_else(|why| {
        left_out.push((Kind::Clock.word(), why));
        None
    });
    Means { small, slow, clocks }
}

/// Clocks that can be set, if any are to be.
fn clocks(order: &Order, fleet: &mut Fleet) -> Result<Option<Clocks>, String> {
    if !order.has_faults {
        return Ok(None);
    }
    let made = Clocks::new(&fleet.path("clocks"), order.replicas);
    let clocks = made.map_err(|why| why.to_string())?.ok_or(clock::MISSING)?;
    fleet.preload(clocks.library());
    for id in fleet.ids() {
        for (name, value) in clocks.variables(id) {
            fleet.set_variable(id, name, value);
        }
    }
    Ok(Some(clocks))
}

/// The run itself.
async fn tell(
    order: &Order,
    mut schedule: Schedule,
    story: &mut Story,
    load: Workload,
    reader: &Client,
) -> Result<(), Violation> {
    let begin = Instant::now();
    while begin.elapsed() < order.length {
        let round = schedule.next_round();
        tokio::time::sleep(round.quiet).await;
        progress(story, &round);
        story.havoc.round(&round).await?;
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
    // What comes is no longer what clients are used to: they stop.
    let now = story.shared.meter.micros();
    story.havoc.timeline.ends(now);
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

fn progress(story: &Story, round: &Round) {
    let [weak, strong] = story.shared.meter.totals();
    let kinds: Vec<&str> = round.faults.iter().map(|planned| planned.kind.word()).collect();
    let seconds = story.shared.meter.elapsed().as_secs();
    // A closed stderr is no reason to stop.
    let _ = writeln!(
        std::io::stderr(),
        "{seconds:>5} s: {weak} weak and {strong} strong answers; now {} s of {}",
        round.length.as_secs(),
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
    for (mischief, tally) in &story.havoc.tallies {
        if tally.acted() == 0 {
            return missed(&format!("{} at work", mischief.word()));
        }
    }
    if enabled.contains(&Kind::SlowDisk) && story.havoc.slow_syncs() == 0 {
        return missed("a slow sync");
    }
    if enabled.contains(&Kind::Turned) && story.havoc.fleet.network.turned() == 0 {
        return missed("a bit that turned on the way");
    }
    let told = story.havoc.seen.get(WRONG_CLOCK_TOLD).copied().unwrap_or(0);
    if enabled.contains(&Kind::Clock) && told == 0 {
        return missed("a wrong clock that replicas tell of");
    }
    let [weak, strong] = story.shared.ledger.acknowledged();
    let record = &story.record;
    let restarts = enabled.iter().any(|kind| matches!(kind, Kind::KillOne | Kind::KillAll));
    for (what, count) in [
        ("a weak write", weak),
        ("a strong write", strong),
        ("a vote", record.count("commit_votes")),
        ("an order", record.count("orders")),
        ("a reply", record.count("replies")),
        ("a restart", record.restarts.max(u64::from(!restarts))),
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
        transport: order.transport,
        bits_turned: story.havoc.fleet.network.turned(),
        enabled,
        left_out,
        events: &story.havoc.events,
        seen: &story.havoc.seen,
        recoveries: &story.recoveries,
        service: &story.service,
        terms: order.terms,
        hostile: &story.havoc.tallies,
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
        "{version}, {} replicas, {}, seed {}: {}",
        order.replicas,
        order.transport,
        order.seed,
        if facts.verdict.is_ok() { "sound" } else { "BROKEN" }
    );
    let svg =
        chart::svg(&title, &story.shared.meter.seconds(), &story.havoc.events, &story.service);
    fs::write(order.out.join("report.svg"), svg).map_err(harness("report.svg"))?;
    Ok(json)
}
