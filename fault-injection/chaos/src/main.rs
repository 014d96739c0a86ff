//! The command line of faults on real processes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};
use elea_chaos::fleet::unusable;
use elea_chaos::greedy::Greed;
use elea_chaos::service::Terms;
use elea_chaos::{failover, greedy, hangover, kill_all, large, run};
use elea_client::files::{load_cluster, load_key};
use elea_fault_injection::violation::Violation;
use elea_protocol::message::Transport;
use serde_json::{Value as Json, json};

/// Breaks clusters of real elea processes and checks that they keep their promises.
#[derive(Parser)]
#[command(
    name = "elea-chaos",
    version,
    after_help = "Examples:\n  elea-chaos kill-all --rounds 200\n  \
                  elea-chaos run --minutes 30 --out report"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// How the clusters that are made here speak.
#[derive(clap::Args)]
struct TransportArguments {
    /// How connections are protected; the recorder hears everything either way
    #[arg(long, default_value = Transport::Encrypted.name(), value_parser = transport())]
    transport: Transport,
}

fn transport() -> impl TypedValueParser<Value = Transport> {
    let encrypted = PossibleValue::new(Transport::Encrypted.name())
        .help("By TLS, which the proxies open with the keys of both ends");
    let plain = PossibleValue::new(Transport::Plain.name()).help("Not at all");
    PossibleValuesParser::new([encrypted, plain]).map(|name| {
        match name == Transport::Plain.name() {
            true => Transport::Plain,
            false => Transport::Encrypted,
        }
    })
}

#[derive(Subcommand)]
enum Command {
    /// Kill all replicas at once, again and again, and look for what was lost or taken back
    KillAll {
        /// How often
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        #[command(flatten)]
        cluster: ClusterArguments,
    },
    /// Kill the primary, again and again, and tell how long the next write waits for its answer
    Failover {
        /// How often
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// How many replicas
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=31))]
        replicas: u8,
        #[command(flatten)]
        transport: TransportArguments,
        /// The program under test [default: `elea` beside this one]
        #[arg(long)]
        elea: Option<PathBuf>,
    },
    /// Let one thing after the other go wrong, and tell by how much longer answers take a second later
    Hangover {
        /// How often each
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        #[command(flatten)]
        transport: TransportArguments,
        /// The program under test [default: `elea` beside this one]
        #[arg(long)]
        elea: Option<PathBuf>,
    },
    /// Have one replica miss many writes, come back, be killed twice on its way and lied to
    Away {
        #[command(flatten)]
        data: DataArguments,
    },
    /// Write many keys, and start every replica anew
    Start {
        #[command(flatten)]
        data: DataArguments,
        /// The most memory that a replica may have at any time, in MiB
        #[arg(long, default_value_t = 512)]
        memory_max: u64,
        /// The longest that a start may take, in seconds
        #[arg(long, default_value_t = 20)]
        start_max: u64,
    },
    /// Measure what a quiet client feels of greedy ones beside it, on a cluster that runs
    Fairness {
        /// The cluster file
        #[arg(long)]
        cluster: PathBuf,
        /// The key file of the quiet client
        #[arg(long)]
        key: PathBuf,
        /// That of the greedy one
        #[arg(long)]
        greedy: PathBuf,
        /// Which kinds of them, one after the other
        #[arg(long, value_delimiter = ',', default_value = "hog,deaf,asker")]
        beside: Vec<Greed>,
    },
    /// Break everything, in rounds of faults that overlap, and report what came of it
    Run {
        /// How long; below ten minutes not every kind of fault has its turn
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
        minutes: u64,
        /// The folder for report.json and report.svg
        #[arg(long)]
        out: PathBuf,
        /// Also drop packets in the kernel: replicas live in network namespaces (takes root)
        #[arg(long)]
        netns: bool,
        /// Whether some clients are hostile
        #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
        hostile: bool,
        /// Whether anything else is broken
        #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
        faults: bool,
        #[command(flatten)]
        service: ServiceArguments,
        #[command(flatten)]
        cluster: ClusterArguments,
    },
}

#[derive(clap::Args)]
struct ServiceArguments {
    /// How long an answer that is owed may take, in milliseconds, where nothing is slow
    #[arg(long, default_value_t = 3_000)]
    service_bound: u64,
    /// How long the replicas that owe it have been connected before it was asked for, in milliseconds
    #[arg(long, default_value_t = 3_000)]
    service_grace: u64,
    /// The share of them that must come in time, in percent
    #[arg(long, default_value_t = 99.0)]
    service_min: f64,
}

impl ServiceArguments {
    fn terms(&self) -> Terms {
        Terms {
            bound: Duration::from_millis(self.service_bound),
            grace: Duration::from_millis(self.service_grace),
            least: self.service_min,
        }
    }
}

#[derive(clap::Args)]
struct DataArguments {
    /// How many writes
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    operations: u64,
    /// To how many keys, in turn
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Bytes of each value
    #[arg(long, default_value_t = 100)]
    value_size: usize,
    #[command(flatten)]
    transport: TransportArguments,
    /// The program under test [default: `elea` beside this one]
    #[arg(long)]
    elea: Option<PathBuf>,
}

impl DataArguments {
    fn order(&self) -> Result<large::Order, Violation> {
        Ok(large::Order {
            elea: program(self.elea.as_ref())?,
            transport: self.transport.transport,
            operations: self.operations,
            keys: self.keys,
            value_size: self.value_size,
        })
    }
}

#[derive(clap::Args)]
struct ClusterArguments {
    /// How many replicas
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=31))]
    replicas: u8,
    /// What everything random follows from [default: a random one]
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    transport: TransportArguments,
    /// The program under test [default: `elea` beside this one]
    #[arg(long)]
    elea: Option<PathBuf>,
}

impl ClusterArguments {
    fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(rand::random)
    }

    fn elea(&self) -> Result<PathBuf, Violation> {
        program(self.elea.as_ref())
    }
}

/// The program under test.
fn program(named: Option<&PathBuf>) -> Result<PathBuf, Violation> {
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("elea"));
    let path = named.cloned().or_else(beside).filter(|path| path.is_file());
    path.ok_or_else(|| {
        Violation::new("harness", "there is no program `elea` here: build it, or name --elea")
    })
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("elea-chaos: no threads: {error}");
            return ExitCode::from(2);
        }
    };
    let done = runtime.block_on(async {
        tokio::select! {
            done = obey(&arguments.command) => done,
            // What was begun is dropped, and with it go processes, folders, mounts and namespaces.
            why = told_to_stop() => Err(why),
        }
    });
    match done {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("{}", json!({ "verdict": "broken", "violation": violation }));
            eprintln!("elea-chaos: {violation}");
            ExitCode::FAILURE
        }
    }
}

/// Returns when somebody wants it to stop.
async fn told_to_stop() -> Violation {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return Violation::new("harness", "signals cannot be listened for");
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Violation::new("harness", "told to stop")
}

async fn obey(command: &Command) -> Result<Json, Violation> {
    match command {
        Command::KillAll { rounds, cluster } => {
            let order = kill_all::Order {
                elea: cluster.elea()?,
                transport: cluster.transport.transport,
                rounds: *rounds,
                replicas: cluster.replicas,
                seed: cluster.seed(),
                is_told: true,
            };
            eprintln!("seed {}", order.seed);
            kill_all::run(&order).await
        }
        Command::Failover { rounds, replicas, transport, elea } => {
            let (elea, transport) = (program(elea.as_ref())?, transport.transport);
            let (rounds, replicas) = (*rounds, *replicas);
            failover::run(&failover::Order { elea, transport, rounds, replicas }).await
        }
        Command::Hangover { rounds, transport, elea } => {
            let (elea, transport) = (program(elea.as_ref())?, transport.transport);
            hangover::run(&hangover::Order { elea, transport, rounds: *rounds }).await
        }
        Command::Fairness { cluster, key, greedy, beside } => {
            let file = load_cluster(cluster).map_err(unusable)?;
            let [key, greedy] = [key, greedy].map(|path| load_key(path).map_err(unusable));
            greedy::measure(&file, key?, &greedy?, beside).await
        }
        Command::Away { data } => large::away(&data.order()?).await,
        Command::Start { data, memory_max, start_max } => {
            let start = Duration::from_secs(*start_max);
            let allowance = large::Allowance { memory: memory_max.saturating_mul(1 << 20), start };
            large::start(&data.order()?, &allowance).await
        }
        Command::Run { minutes, out, netns, hostile, faults, service, cluster } => {
            let order = run::Order {
                elea: cluster.elea()?,
                transport: cluster.transport.transport,
                length: Duration::from_secs(60 * minutes),
                replicas: cluster.replicas,
                seed: cluster.seed(),
                out: out.clone(),
                in_namespaces: *netns,
                has_faults: *faults,
                has_hostile: *hostile,
                terms: service.terms(),
            };
            eprintln!("seed {}", order.seed);
            let report = run::run(&order).await?;
            let why = report["why"].as_str();
            why.map_or(Ok(()), |why| Err(Violation::new("run", why)))?;
            let mut short = report;
            // They are in the file.
            for long in ["events", "answered_per_second", "recovered_after_ms"] {
                short.as_object_mut().map(|object| object.remove(long));
            }
            short["service"].as_object_mut().map(|service| service.remove("late"));
            Ok(short)
        }
    }
}
