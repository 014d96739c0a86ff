//! Many seeds, on all processors, and whether they saw what they are about.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::coverage::{Coverage, REQUIRED};
use crate::run::{self, Report};
use crate::subject::Subject;

/// Which seeds to run.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The first.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// Whether to stop at the first violation.
    pub stop_early: bool,
}

/// What came of a campaign.
#[derive(Clone, Debug, Serialize)]
pub struct Result {
    /// How many seeds were run.
    pub seeds: u64,
    /// How many happenings there were in all of them.
    pub steps: u64,
    /// What they saw together.
    pub coverage: Coverage,
    /// What they should have seen and did not.
    pub unseen: Vec<&'static str>,
    /// The worlds in which a rule was broken.
    pub failures: Vec<Report>,
}

impl Result {
    /// Whether every rule held and everything was seen.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failures.is_empty() && self.unseen.is_empty()
    }
}

/// Runs seeds, on as many threads as there are processors.
///
/// # Panics
/// Where a thread of the campaign itself panics.
#[must_use]
pub fn run<S: Subject>(order: Order) -> Result {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(order.from);
    let end = order.from.saturating_add(order.seeds);
    let gathered = Mutex::new((0u64, 0u64, Coverage::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let report = run::seed::<S>(seed, false);
                    let mut all = gathered.lock().expect("no thread panics with it");
                    all.0 += 1;
                    all.1 += report.steps;
                    all.2.absorb(&report.coverage);
                    if report.violation.is_some() {
                        all.3.push(report);
                        if order.stop_early {
                            next.store(end, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let (seeds, steps, coverage, mut failures) =
        gathered.into_inner().expect("no thread panics with it");
    failures.sort_by_key(|report: &Report| report.seed);
    let unseen = REQUIRED.iter().copied().filter(|what| coverage.count(what) == 0).collect();
    Result { seeds, steps, coverage, unseen, failures }
}

/// How to see one failure again.
#[must_use]
pub fn replay_command(seed: u64) -> String {
    format!("cargo run --release -p elea-fault-injection -- replay {seed} --verbose")
}

/// A campaign's result, to be read.
#[must_use]
pub fn describe(result: &Result, partial: bool) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| {
        writeln!(text, "{words}").expect("writing to a String cannot fail");
    };
    line(format_args!("{} seeds, {} steps", result.seeds, result.steps));
    for (what, times) in result.coverage.iter() {
        line(format_args!("  {times:>10}  {what}"));
    }
    for report in &result.failures {
        if let Some(violation) = &report.violation {
            line(format_args!("seed {} BROKEN {violation}", report.seed));
            line(format_args!("  again: {}", replay_command(report.seed)));
        }
    }
    if !partial {
        for what in &result.unseen {
            line(format_args!("NEVER SEEN: {what}"));
        }
    }
    text
}
