//! Simulated clusters: a thousand seeds, the scripted traces, and mutants that must be caught.
//!
//! Run in release mode: `cargo test --release --test simulation`. A seed that fails prints the one
//! command that replays it. `REWRITE=1` writes the outputs of traces anew; read the difference.

use elea_fault_injection::campaign::{self, Order};
use elea_fault_injection::mutants;
use elea_fault_injection::run;
use elea_fault_injection::script::Script;
use elea_fault_injection::subject::JournalWorld;

/// Every rule holds in every world, and together they see everything that they are about.
#[test]
fn a_thousand_worlds_keep_every_rule_and_see_every_fault() {
    let order = Order { from: 0, seeds: 1000, stop_early: false };
    let result = campaign::run::<JournalWorld>(order);
    let text = campaign::describe(&result, false);
    println!("{text}");
    assert!(result.is_good(), "{text}");
}

/// A seed in a bug report must be the same world for whoever reads it.
#[test]
fn the_same_seed_is_the_same_world() {
    for seed in 0..16 {
        let (first, second) =
            (run::seed::<JournalWorld>(seed, false), run::seed::<JournalWorld>(seed, true));
        assert_eq!(first.digest, second.digest, "seed {seed}");
        assert_eq!((first.steps, &first.coverage), (second.steps, &second.coverage));
    }
    let other = run::seed::<JournalWorld>(1000, false);
    assert_ne!(other.digest, run::seed::<JournalWorld>(1001, false).digest);
}

/// Scenarios as pages of text, in `tests/traces`.
#[test]
fn traces_print_what_they_say() {
    datadriven::walk("tests/traces", |file| {
        let mut script = Script::default();
        file.run(|case| script.step(&case.directive, &case.args, &case.input));
    });
}

fn hunt(name: &str) {
    let all = mutants::all().expect("the mutants' files are sound");
    let mutant = all.iter().find(|mutant| mutant.name == name).expect("there is such a mutant");
    match mutants::hunt(mutant) {
        Ok(caught) => println!("{name}: {caught}"),
        Err(error) => panic!("{name}: {error}"),
    }
}

/// The simulator notices when a rule is broken. One test, since mutants share a build directory;
/// `cargo run --release -p elea-fault-injection -- mutants` runs them all.
#[test]
fn mutants_are_caught_slow() {
    for name in ["skip-duplicate-check", "count-a-reply-twice", "order-from-a-backup"] {
        hunt(name);
    }
}
