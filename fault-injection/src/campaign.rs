//! The campaigns: many seeds each, on all processors, and whether they saw what they are about.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use elea_protocol::id::hex;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::coverage::{Coverage, HEADLINES};
use crate::plan::{self, Plan};
use crate::run::{self, Report};
use crate::subject::Subject;

/// Worlds of one kind, each from a seed.
pub struct Campaign {
    /// As it is called.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Makes the world of a seed.
    pub plan: fn(u64) -> Plan,
    /// What all of its worlds together must have seen at least once.
    pub required: &'static [&'static str],
}

/// All campaigns.
pub const ALL: &[Campaign] = &[
    Campaign {
        name: "safety",
        about: "everything at once: crashes, partitions, bad links, villains, hostile clients",
        plan: plan::safety::plan,
        required: SAFETY,
    },
    Campaign {
        name: "liveness",
        about: "primaries that fail, and components with just enough correct replicas",
        plan: plan::liveness::plan,
        required: LIVENESS,
    },
    Campaign {
        name: "partition-merge",
        about: "long partitions with work on both sides, and the merges after them",
        plan: plan::partition::plan,
        required: PARTITION_MERGE,
    },
    Campaign {
        name: "villains",
        about: "as many Byzantine replicas as a cluster bears, in a fair network",
        plan: plan::villains::plan,
        required: VILLAINS,
    },
    Campaign {
        name: "waits",
        about: "slow disks, slow lines, long ways, lazy primaries, and how fast all is after a storm",
        plan: plan::waits::plan,
        required: WAITS,
    },
    Campaign {
        name: "twins",
        about: "replicas that exist twice, each copy in another part of the network",
        plan: plan::twins::plan,
        required: TWINS,
    },
];

const SAFETY: &[&str] = &[
    "answer final",
    "answer strong",
    "answer weak",
    "backup made",
    "client: query had to be ordered",
    "client: requests signed together",
    "core:gathered_slots",
    "seen strong",
    "past: not yet",
    "past: read",
    "past: unknown",
    "seen weak",
    "client: busy",
    "client: new session",
    "client: resent",
    "clock beyond drift",
    "client rolled out",
    "edition raised",
    "programs updated",
    "clock set",
    "clock at another speed",
    "clock: a site is off",
    "clock: all ahead, then right",
    "clock: all strobe",
    "clock: half strobe",
    "clock: one strobes",
    "cluster begins with a state",
    "core:answered_from_cache",
    "core:certificates",
    "core:checkpoints_cast",
    "core:checkpoints_stable",
    "core:checkpoints_quiet",
    "core:commits_cast",
    "core:executed_slots",
    "core:locks_aside",
    "core:merges",
    "core:order_ahead_of_clock",
    "core:order_repeated",
    "core:order_too_far",
    "core:ordered_slots",
    "core:orphans_reordered",
    "core:queries_kept",
    "core:refused_requests",
    "core:order_of_stranger",
    "core:request_fetches",
    "core:requests_filled",
    "core:requests_forwarded",
    "core:requests_named",
    "core:order_of_unknown_edition",
    "core:resignations",
    "core:slot_fetches",
    "core:slots_filled",
    "core:state_transfers",
    "core:state_unreadable",
    "core:states_settled",
    "core:views_entered",
    "core:weak_views_entered",
    "crash",
    "crash of all",
    "crash while fetching a state",
    "crash with lost records",
    "cut",
    "disk full",
    "disk lost",
    "disk lost of a cluster that begins with a state",
    "first start",
    "flapping",
    "hostile asker",
    "hostile hog",
    "linearizable",
    "message doubled",
    "message lost",
    "message malformed",
    "message rejected",
    "observer caught up",
    "order forgotten",
    "real signatures",
    "refused NameUsed",
    "refused SessionRetired",
    "client: came without memory",
    "client: failed, Refused(SessionRetired)",
    "client: failed, ResultForgotten",
    "client: later generation",
    "core:sessions_left",
    "refused UnknownClient",
    "refused WindowExceeded",
    "request after execution",
    "restart",
    "restart on the state of the beginning",
    "state of the beginning replaced by a fetched one",
    "state of the beginning settled",
    "state put in place that a crash interrupted",
    "stopped for good",
    "stopped when it had left",
    "told to leave",
    "stored state spoilt",
    "spoilt state found while running",
    "torn write",
    "transfer resumed after a crash",
];

const LIVENESS: &[&str] = &[
    "answer final",
    "answer strong",
    "answer weak",
    "client: query had to be ordered",
    "client: requests signed together",
    "core:gathered_slots",
    "seen strong",
    "seen weak",
    "client rolled out",
    "edition raised",
    "programs updated",
    "clock set",
    "clock at another speed",
    "clock: a site is off",
    "clock: all ahead, then right",
    "clock: all strobe",
    "clock: half strobe",
    "clock: one strobes",
    "cluster begins with a state",
    "component answered: strong",
    "component answered: weak",
    "core:campaigns",
    "core:checkpoints_stable",
    "core:merges",
    "core:new_views_made",
    "core:resignations",
    "core:suspicions",
    "core:views_entered",
    "core:weak_views_entered",
    "disk full",
    "disk lost",
    "disk lost of a cluster that begins with a state",
    "first start",
    "observer caught up",
    "one-way cut",
    "order forgotten",
    "primaries fall",
    "primary cut off",
    "random links cut",
    "restart on the state of the beginning",
    "short suffix",
    "light suffix",
    "state of the beginning replaced by a fetched one",
    "state of the beginning settled",
    "stopped for good",
    "stopped when it had left",
    "told to leave",
];

const PARTITION_MERGE: &[&str] = &[
    "answer final",
    "answer strong",
    "answer weak",
    "client: query had to be ordered",
    "client: requests signed together",
    "core:gathered_slots",
    "seen strong",
    "past: not yet",
    "past: read",
    "past: read after a merge",
    "past: read after two histories",
    "past: unknown",
    "seen weak",
    "branch sent",
    "client: came without memory",
    "client: failed, Refused(SessionRetired)",
    "client: failed, ResultForgotten",
    "client: later generation",
    "client: moved",
    "client: result changed",
    "cluster begins with a state",
    "core:branch_slots",
    "core:checkpoints_stable",
    "core:locks_aside",
    "core:merges",
    "core:merges_in_turns",
    "core:orphans",
    "core:orphans_reordered",
    "core:results_reordered",
    "core:slots_undone",
    "core:state_transfers",
    "core:states_settled",
    "core:views_entered",
    "core:weak_views_entered",
    "core:went_back",
    "crash while fetching a state",
    "flapping",
    "linearizable",
    "refused HistoryFull",
    "restart on the state of the beginning",
    "slots taken back",
    "state of the beginning replaced by a fetched one",
    "state of the beginning settled",
    "state put in place that a crash interrupted",
    "transfer resumed after a crash",
    "two live sides",
];

const VILLAINS: &[&str] = &[
    "attack",
    "core:contradictions",
    "core:future_view",
    "core:order_not_from_primary",
    "core:proofs",
    "core:stale_stamp",
    "core:useless_answers",
    "core:views_entered",
    "evidence: two orders for one slot",
    "evidence: two votes for one slot",
    "message malformed",
    "message rejected",
    "quarantine",
    "quarantine ended",
    "villain accomplice",
    "villain agitator",
    "villain amnesiac",
    "villain bad-memory",
    "villain basementdb-drop-commits",
    "villain basementdb-garbage-hash",
    "villain basementdb-n-zero",
    "villain double-voter",
    "villain equivocator",
    "villain false-historian",
    "villain false-pulse",
    "villain false-status",
    "villain forged-replies",
    "villain false-state",
    "villain future-flooder",
    "villain hidden-lock",
    "villain huge-views",
    "villain inventor",
    "villain junk",
    "villain junk-state",
    "villain limper",
    "villain mute",
    "villain pretender",
    "villain procrastinator",
    "villain replayer",
    "villain rule-breaker",
    "villain selective-sender",
    "villain shunner",
    "villain slot-shifter",
    "villain stale-historian",
    "villain stale-witness",
    "villain ticket-hoarder",
    "villain trickler",
    "villain two-faced",
    "villain two-new-views",
    "villain usurper",
    "villain vote-withholder",
    "villain year-9000",
];

const WAITS: &[&str] = &[
    "650 ms round trips",
    "answer strong",
    "answer weak",
    "client: query had to be ordered",
    "core:gathered_slots",
    "seen strong",
    "seen weak",
    "core:limping_primaries",
    "core:suspicions",
    "core:views_entered",
    "late orders",
    "late, then lazy",
    "lazy primaries",
    "no hangover",
    "no lazier than L3 allows",
    "no view for nothing",
    "slow disk of one",
    "slow disks",
    "slow lines",
    "storm",
    "villain false-pulse",
    "villain limper",
    "villain procrastinator",
];

const TWINS: &[&str] = &[
    "answer final",
    "answer strong",
    "answer weak",
    "client: query had to be ordered",
    "client: requests signed together",
    "core:gathered_slots",
    "seen strong",
    "seen weak",
    "core:checkpoints_stable",
    "core:contradictions",
    "core:merges",
    "core:proofs",
    "core:views_entered",
    "core:weak_views_entered",
    "evidence: two orders for one slot",
    "twins",
];

/// The campaign of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Campaign> {
    ALL.iter().find(|campaign| campaign.name == name)
}

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
    /// The name of the campaign.
    pub campaign: &'static str,
    /// How many seeds were run.
    pub seeds: u64,
    /// How many happenings there were in all of them.
    pub steps: u64,
    /// Over the digests of all these seeds, in their order: two programs with the same one do the same.
    pub digest: String,
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
pub fn run<S: Subject>(campaign: &Campaign, order: Order) -> Result {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(order.from);
    let end = order.from.saturating_add(order.seeds);
    let gathered = Mutex::new(Gathered::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let report = run::plan::<S>((campaign.plan)(seed), false);
                    if report.violation.is_some() && order.stop_early {
                        next.store(end, Ordering::Relaxed);
                    }
                    gathered.lock().expect("no thread panics with it").add(report);
                }
            });
        }
    });
    let Gathered { digests, steps, coverage, mut failures } =
        gathered.into_inner().expect("no thread panics with it");
    failures.sort_by_key(|report: &Report| report.seed);
    let unseen =
        campaign.required.iter().copied().filter(|what| coverage.count(what) == 0).collect();
    let seeds = digests.len() as u64;
    let mut digest = Sha256::new();
    digests.values().for_each(|of_seed| digest.update(of_seed));
    let digest = hex(&digest.finalize()[..8]);
    Result { campaign: campaign.name, seeds, steps, digest, coverage, unseen, failures }
}

/// What the threads of a campaign have seen so far.
#[derive(Default)]
struct Gathered {
    /// Of each seed.
    digests: BTreeMap<u64, String>,
    steps: u64,
    coverage: Coverage,
    failures: Vec<Report>,
}

impl Gathered {
    fn add(&mut self, report: Report) {
        self.digests.insert(report.seed, report.digest.clone());
        self.steps += report.steps;
        self.coverage.absorb(&report.coverage);
        if report.violation.is_some() {
            self.failures.push(report);
        }
    }
}

/// How to see one failure again.
#[must_use]
pub fn replay_command(campaign: &str, seed: u64) -> String {
    format!("cargo run --release -p elea-fault-injection -- replay {campaign} {seed} --verbose")
}

/// A campaign's result, to be read: what it is about first, then all that it saw, then what went
/// wrong.
#[must_use]
pub fn describe(result: &Result, partial: bool) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| {
        writeln!(text, "{words}").expect("writing to a String cannot fail");
    };
    line(format_args!(
        "{}: {} seeds, {} steps, digest {}",
        result.campaign, result.seeds, result.steps, result.digest
    ));
    let headlines: Vec<String> = HEADLINES
        .iter()
        .map(|(name, what)| format!("{name} {}", result.coverage.count(what)))
        .collect();
    line(format_args!("  {}", headlines.join(", ")));
    for (what, times) in result.coverage.iter() {
        line(format_args!("  {times:>10}  {what}"));
    }
    for report in &result.failures {
        if let Some(violation) = &report.violation {
            line(format_args!("{} seed {} BROKEN {violation}", result.campaign, report.seed));
            line(format_args!("  again: {}", replay_command(result.campaign, report.seed)));
        }
    }
    if !partial {
        for what in &result.unseen {
            line(format_args!("NEVER SEEN: {what}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::villain;

    #[test]
    fn the_villains_campaign_asks_for_all_villains() {
        for (name, ..) in villain::ALL {
            let wanted = format!("villain {name}");
            assert!(VILLAINS.contains(&wanted.as_str()), "{wanted}");
        }
    }

    #[test]
    fn campaigns_have_names_of_their_own_and_worlds_that_can_be() {
        for campaign in ALL {
            assert!(named(campaign.name).is_some_and(|found| found.about == campaign.about));
            for seed in 0..200 {
                let plan = (campaign.plan)(seed);
                assert_eq!(plan.tuning.check(), Ok(()), "{} {seed}", campaign.name);
                assert_eq!(plan.skews.len(), plan.machines().count());
                assert_eq!(plan.sync_max.len(), plan.machines().count());
                let faulty = plan.villains.len() + plan.twins.len();
                assert!(faulty <= usize::from(plan.size.faulty()), "{} {seed}", campaign.name);
                assert!(plan.faults.iter().all(|(at, _)| *at <= plan.heal_at));
            }
        }
    }
}
