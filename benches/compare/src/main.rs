//! Elea beside etcd: both run at once on this machine, the same closed loops drive one after the other,
//! and what counts is the ratio within the run.
//!
//! `elea-compare --out report` starts four replicas of Elea and three members of etcd, with their defaults:
//! real processes, sockets and disks, every write forced to disk. Each round gives every contestant of every
//! shape its turn, beginning with another one each time; the figures are medians over the rounds.
//! What each of the two does for an answer is said in the report: etcd's members trust each other and its clients are not
//! authenticated, Elea's trust nobody.

mod chart;
mod contestant;
mod elea;
mod etcd;
mod how;
mod load;
mod machine;
mod report;
mod server;
mod shape;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::contestant::{Arena, Contestant};
use crate::report::Report;
use crate::shape::Shape;

/// What can go wrong here has one reader, who started this.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Drives Elea and etcd with the same load in one run, and compares.
#[derive(Parser)]
#[command(
    name = "elea-compare",
    version,
    after_help = "Examples:\n  elea-compare --out report\n  \
                  elea-compare --out report --shapes clients-64,gets-64 --rounds 3"
)]
struct Arguments {
    /// The folder for compare.json, compare.md and compare.svg
    #[arg(long)]
    out: PathBuf,
    /// How often every contestant has its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long a turn is measured, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Which shapes of load [default: all]
    #[arg(long, value_delimiter = ',')]
    shapes: Vec<Shape>,
    /// How many replicas of Elea
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=31))]
    replicas: u8,
    /// The program `elea` [default: beside this one]
    #[arg(long)]
    elea: Option<PathBuf>,
    /// The program `etcd`
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("elea-compare: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Outcome<()> {
    let elea = match arguments.elea {
        Some(elea) => elea,
        None => std::env::current_exe()?.with_file_name("elea"),
    };
    let shapes = match arguments.shapes {
        all if all.is_empty() => Shape::all().to_vec(),
        some => some,
    };
    fs::create_dir_all(&arguments.out)?;
    machine::raise_open_files()?;
    let arena = Arena::open(&elea, &arguments.etcd, arguments.replicas).await?;
    let mut report = Report::new(machine::describe(&elea, &arguments.etcd), &arena);
    let lasting = Duration::from_secs(arguments.seconds);
    for round in 0..arguments.rounds {
        for shape in &shapes {
            let mut contestants = Contestant::of(*shape);
            let first = usize::try_from(round)? % contestants.len();
            contestants.rotate_left(first);
            for contestant in contestants {
                let turn = arena.turn(*shape, contestant, lasting).await?;
                eprintln!("round {}: {} {}: {turn}", round + 1, shape.word(), contestant.name());
                report.add(*shape, contestant, turn);
            }
        }
        // After each round, so that a run that is cut short has left something.
        fs::write(arguments.out.join("compare.json"), report.json().to_string())?;
        fs::write(arguments.out.join("compare.md"), report.markdown())?;
        fs::write(arguments.out.join("compare.svg"), chart::svg(&report.points()))?;
    }
    println!("{}", report.table());
    arena.close().await;
    Ok(())
}
