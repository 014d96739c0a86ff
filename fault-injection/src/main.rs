//! The simulator's command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use elea_fault_injection::campaign::{self, Order};
use elea_fault_injection::model::explore::{self, Task};
use elea_fault_injection::model::scene::{SCENES, Scene};
use elea_fault_injection::subject::JournalWorld;
use elea_fault_injection::{hostile, mutants, run, script, villain};

/// Breaks simulated Elea clusters and checks that they keep their promises.
#[derive(Parser)]
#[command(
    name = "elea-fault-injection",
    version,
    after_help = "Examples:\n  \
        elea-fault-injection campaign partition-merge --seeds 1000\n  \
        elea-fault-injection campaign all --seeds 200\n  \
        elea-fault-injection replay partition-merge 42 --verbose\n  \
        elea-fault-injection trace tests/traces/merge\n  \
        elea-fault-injection model --minutes 30\n  \
        elea-fault-injection mutants skip-duplicate-check"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds and tells what they saw; fails on a broken rule and on anything never seen.
    ///
    /// One seed is one whole world, bit for bit, on every machine. A seed that fails prints the
    /// command that replays it.
    Campaign {
        /// Which one: safety, liveness, partition-merge, villains or twins; or all of them.
        #[arg(value_parser = campaign_names(true))]
        name: String,
        /// How many seeds; of each, where all are run.
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Stop at the first broken rule.
        #[arg(long)]
        stop_early: bool,
        /// Do not fail for what was never seen; for few seeds.
        #[arg(long)]
        partial: bool,
        /// One JSON object a campaign, each on a line, instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Runs one seed again and prints its digest.
    Replay {
        /// The campaign: safety, liveness, partition-merge, villains or twins.
        #[arg(value_parser = campaign_names(false))]
        campaign: String,
        /// Which seed.
        seed: u64,
        /// Print everything that happens.
        #[arg(long, short)]
        verbose: bool,
    },
    /// Explores small clusters state by state, letters arriving in every order; fails on a broken
    /// rule and tells what has to happen for it.
    ///
    /// First each scene breadth first within its bounds, then paths at random until the time is up.
    Model {
        /// How long to go on with paths at random, all scenes together.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// One scene only.
        #[arg(long, value_parser = scene_names())]
        scene: Option<String>,
        /// How many states each scene is explored to, breadth first; they are held in memory.
        #[arg(long, default_value_t = 100_000)]
        states: usize,
        /// Where the randomness of the paths begins.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many threads explore.
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// Print how each scene opens.
        #[arg(long, short)]
        verbose: bool,
        /// One JSON object an exploration, each on a line, instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Lists campaigns, scenes, villains, hostile clients and mutants.
    List,
    /// Runs scenarios that are pages of text and checks that they print what they say.
    Trace {
        /// The pages, or folders of them, such as `tests/traces`.
        #[arg(required = true)]
        pages: Vec<PathBuf>,
    },
    /// Breaks a rule in a copy of the source and checks that the simulator notices.
    Mutants {
        /// Which mutants; all of them if none is named.
        names: Vec<String>,
    },
}

fn campaign_names(with_all: bool) -> clap::builder::PossibleValuesParser {
    let all = with_all.then_some("all");
    campaign::ALL.iter().map(|campaign| campaign.name).chain(all).collect::<Vec<_>>().into()
}

fn scene_names() -> clap::builder::PossibleValuesParser {
    SCENES.iter().map(|scene| scene.name).collect::<Vec<_>>().into()
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Campaign { name, seeds, from, stop_early, partial, json } => {
            run_campaigns(&name, Order { from, seeds, stop_early }, partial, json)
        }
        Command::Replay { campaign, seed, verbose } => replay(&campaign, seed, verbose),
        Command::Model { minutes, scene, states, seed, threads, verbose, json } => {
            let tasks = explore::tasks(scene.as_deref(), minutes, states, seed);
            if verbose {
                let named = |known: &&Scene| scene.as_ref().is_none_or(|name| known.name == name);
                let scenes = SCENES.iter().filter(named);
                scenes.for_each(|scene| print!("{}", explore::describe_opening(scene)));
            }
            run_model(&tasks, threads, json)
        }
        Command::List => list(),
        Command::Mutants { names } => code(mutants::run(&names)),
        Command::Trace { pages } => code(pages.iter().all(|page| trace(page))),
    }
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_campaigns(name: &str, order: Order, partial: bool, json: bool) -> ExitCode {
    let mut all_good = true;
    for campaign in campaign::ALL.iter().filter(|known| name == "all" || known.name == name) {
        let result = campaign::run::<JournalWorld>(campaign, order);
        all_good &= if partial { result.failures.is_empty() } else { result.is_good() };
        if json {
            print_json(&result);
        } else {
            print!("{}", campaign::describe(&result, partial));
        }
        if order.stop_early && !result.failures.is_empty() {
            break;
        }
    }
    code(all_good)
}

fn replay(name: &str, seed: u64, verbose: bool) -> ExitCode {
    let Some(campaign) = campaign::named(name) else {
        eprintln!("there is no campaign `{name}`; `list` shows them all");
        return ExitCode::FAILURE;
    };
    let plan = (campaign.plan)(seed);
    if verbose {
        println!("{plan:#?}");
    }
    let report = run::plan::<JournalWorld>(plan, verbose);
    for line in &report.lines {
        println!("{line}");
    }
    println!("{name} {seed}: {} steps, {} ms of its own time", report.steps, report.world_ms);
    println!("digest {}", report.digest);
    match &report.violation {
        None => println!("every rule held"),
        Some(violation) => println!("BROKEN {violation}"),
    }
    code(report.violation.is_none())
}

fn trace(page: &Path) -> bool {
    match script::check_pages(page) {
        Ok(()) => {
            println!("{}: as it says", page.display());
            true
        }
        Err(difference) => {
            print!("{difference}");
            false
        }
    }
}

fn run_model(tasks: &[Task], threads: usize, json: bool) -> ExitCode {
    let mut good = true;
    for task in tasks {
        let findings = explore::explore(task, threads);
        good &= findings.broken.is_empty();
        if json {
            print_json(&findings);
        } else {
            print!("{}", explore::describe(&findings));
        }
    }
    code(good)
}

fn print_json(result: &impl serde::Serialize) {
    match serde_json::to_string(result) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("the result cannot be written as JSON: {error}"),
    }
}

fn list() -> ExitCode {
    println!("campaigns");
    for campaign in campaign::ALL {
        println!("  {:<18} {}", campaign.name, campaign.about);
    }
    println!("scenes of the model");
    for scene in SCENES {
        println!("  {:<18} {}", scene.name, scene.about);
    }
    println!("villains");
    for (name, what, ..) in villain::ALL {
        println!("  {name:<18} {what}");
    }
    println!("hostile clients");
    for (name, what) in hostile::KINDS.iter().chain(hostile::GREEDY) {
        println!("  {name:<18} {what}");
    }
    println!("mutants");
    match mutants::all() {
        Ok(all) => {
            for mutant in all {
                println!("  {:<28} {}", mutant.name, mutant.breaks);
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
