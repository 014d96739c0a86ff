//! Simulated clusters: seeds of every campaign, the scripted traces, the scenes of the model, and
//! mutants that must be caught.
//!
//! Run in release mode: `cargo test --release --test simulation`. A seed that fails prints the one
//! command that replays it. `REWRITE=1` writes the outputs of traces anew; read the difference.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use elea_fault_injection::campaign::{self, Order};
use elea_fault_injection::model::explore::{self, Task, Way};
use elea_fault_injection::model::scene::SCENES;
use elea_fault_injection::mutants;
use elea_fault_injection::rng::Rng;
use elea_fault_injection::run;
use elea_fault_injection::script;
use elea_fault_injection::subject::{JournalWorld, Subject};
use elea_kv::{
    Add, Append, Cas, Command, Compare, Delete, Get, Incr, KeyValueStore, Limits, Members,
    Operation, Put, Remove, Scan, Step, Txn,
};
use elea_protocol::application::{Application, Snapshot};
use elea_protocol::codec;

/// Runs seeds of a campaign: every rule holds, and together they see everything that it is about.
fn hold<S: Subject>(name: &str, order: Order, partial: bool) {
    let campaign = campaign::named(name).expect("there is such a campaign");
    let result = campaign::run::<S>(campaign, order);
    let text = campaign::describe(&result, partial);
    println!("{text}");
    assert!(result.failures.is_empty() && (partial || result.unseen.is_empty()), "{text}");
}

fn seeds(count: u64) -> Order {
    Order { from: 0, seeds: count, stop_early: false }
}

#[test]
fn worlds_with_everything_at_once_keep_every_rule() {
    hold::<JournalWorld>("safety", seeds(400), false);
}

#[test]
fn worlds_whose_primaries_fail_go_on() {
    hold::<JournalWorld>("liveness", seeds(200), false);
}

#[test]
fn worlds_in_parts_lose_nothing_when_they_merge() {
    hold::<JournalWorld>("partition-merge", seeds(300), false);
}

#[test]
fn villains_break_no_rule() {
    hold::<JournalWorld>("villains", seeds(300), false);
}

#[test]
fn twins_break_no_rule() {
    hold::<JournalWorld>("twins", seeds(200), false);
}

/// Worlds of the application that is shipped.
struct KeyValueWorld;

impl Subject for KeyValueWorld {
    type App = KeyValueStore;

    fn application(_in_bad_memory: bool) -> KeyValueStore {
        KeyValueStore::new()
    }

    fn describe(application: &KeyValueStore) -> String {
        format!("{} keys, state {}", application.len(), application.snapshot().digest())
    }

    fn only_reads(operation: &Bytes) -> bool {
        codec::decode::<Operation>(operation).is_ok_and(|operation| operation.only_reads())
    }

    fn operation(rng: &mut Rng) -> Bytes {
        let key = format!("k{}", rng.between(0, 3));
        let set = format!("s{}", rng.between(0, 1));
        let text = rng.between(0, 5).to_string();
        match rng.between(0, 13) {
            0 | 1 => Put::new(key, text).encode(),
            2 | 3 => Incr::new(key, 1).encode(),
            4 => Get::new(key).encode(),
            5 => Delete::new(key).encode(),
            6 => Cas::new(key, text, "7").encode(),
            7 => Append::new(key, text).encode(),
            8 => Add::new(set, text).encode(),
            9 => Remove::new(set, text).encode(),
            10 => Members::new(set).encode(),
            11 => Scan::all().limit(3).encode(),
            12 => Txn::new()
                .when(Compare::exists(key.clone()))
                .then(Incr::new(key.clone(), -1))
                .otherwise(Put::new(key, "3"))
                .encode(),
            _ => Bytes::from_static(b"no operation at all"),
        }
    }
}

/// Worlds whose clients change large values and sets, and ask for more than one request may cost.
struct HostileWorld;

impl Subject for HostileWorld {
    type App = KeyValueStore;

    fn application(_in_bad_memory: bool) -> KeyValueStore {
        let limits = Limits {
            request_steps: 40,
            request_read_bytes: 30_000,
            request_kept_bytes: 100_000,
            ..Limits::default()
        };
        KeyValueStore::with_limits(limits).expect("lower than the defaults")
    }

    fn describe(application: &KeyValueStore) -> String {
        KeyValueWorld::describe(application)
    }

    fn only_reads(operation: &Bytes) -> bool {
        KeyValueWorld::only_reads(operation)
    }

    fn operation(rng: &mut Rng) -> Bytes {
        let key = format!("k{}", rng.between(0, 2));
        let set = format!("s{}", rng.between(0, 1));
        let member = rng.between(0, 60).to_string();
        let text = vec![b'x'; rng.between(0, 6000) as usize];
        let many = |step: Step, times| (0..times).fold(Txn::new(), |txn, _| txn.then(step.clone()));
        match rng.between(0, 12) {
            0..=2 => Append::new(key, text).encode(),
            3 => many(Append::new(key, text).into(), rng.between(1, 12)).encode(),
            4 => many(Append::new(key, "y").into(), rng.between(1, 30))
                .then(Incr::new(set, 1))
                .encode(),
            5 => many(Get::new(key).into(), rng.between(1, 6)).encode(),
            6 => Put::new(key, text).encode(),
            7 => Delete::new(if text.len() < 3000 { key } else { set }).encode(),
            8 | 9 => Add::new(set, member).encode(),
            10 => Remove::new(set, member).encode(),
            11 => Members::new(set).encode(),
            _ => Scan::all().encode(),
        }
    }
}

/// Budgets are the same on every replica, in every history and after every restart.
#[test]
fn what_requests_may_cost_is_the_same_for_all() {
    let order = Order { from: 8_000_000, seeds: 30, stop_early: false };
    hold::<HostileWorld>("safety", order, true);
    hold::<HostileWorld>("partition-merge", order, true);
}

/// The store that is shipped, in worlds of its own: the same history makes the same state.
#[test]
fn the_key_value_store_keeps_every_rule() {
    let order = Order { from: 7_000_000, seeds: 60, stop_early: false };
    hold::<KeyValueWorld>("safety", order, true);
    hold::<KeyValueWorld>("partition-merge", order, true);
}

/// A seed in a bug report must be the same world for whoever reads it.
#[test]
fn the_same_seed_is_the_same_world() {
    for campaign in campaign::ALL {
        let world = |seed, verbose| run::plan::<JournalWorld>((campaign.plan)(seed), verbose);
        for seed in 0..6 {
            let (first, second) = (world(seed, false), world(seed, true));
            assert_eq!(first.digest, second.digest, "{} {seed}", campaign.name);
            assert_eq!((first.steps, &first.coverage), (second.steps, &second.coverage));
        }
        assert_ne!(world(6, false).digest, world(7, false).digest);
    }
}

/// Scenarios as pages of text, in `tests/traces`.
#[test]
fn traces_print_what_they_say() {
    if let Err(differences) = script::check_pages(Path::new("tests/traces")) {
        panic!("{differences}");
    }
}

/// The simulator notices when a rule is broken, whichever it is.
#[test]
fn mutants_are_caught_slow() {
    assert!(mutants::run(&[]), "a mutant was not caught");
}

/// The scenes of the model, searched as far as it takes to see what they are about. The long form:
/// `cargo run --release -p elea-fault-injection -- model --minutes 60`.
#[test]
fn scenes_of_the_model_keep_every_rule() {
    let way = Way::Breadth { states: 12_000, depth: usize::MAX };
    let mut reached = BTreeSet::new();
    for scene in SCENES {
        let findings = explore::explore(&Task { scene, bounds: scene.bounds, way }, 1);
        let text = explore::describe(&findings);
        println!("{text}");
        assert!(findings.broken.is_empty(), "{text}");
        reached.extend(findings.reached);
    }
    for goal in [
        "a later view",
        "a weak view",
        "a merge",
        "an orphan",
        "a commit certificate",
        "an equivocation proved",
        "a final answer",
        "a restart",
    ] {
        assert!(reached.contains(goal), "no scene reached {goal}: {reached:?}");
    }
}
