//! Clients that want more than their share, and a quiet one beside them. What is asserted is what they
//! are told and what becomes of the cluster; how long things take is for `elea-chaos fairness`.

use std::fs;

use elea_chaos::greedy::{Greed, Greedy};
use elea_client::load_key;

use crate::harness::{Town, until};

/// So many operations of the quiet client beside each of them.
const QUIET: usize = 20;

fn beside(greed: Greed, has_begun: impl Fn(&Town, &Greedy) -> bool) {
    // It is about what clients do to a primary. What a busy machine does to it is to be no reason for a view change.
    let town = Town::prepared(4, |town| {
        let file = town.path("cluster.toml");
        let text = fs::read_to_string(&file).expect("there");
        let tuning = "[tuning]\nrequest_timeout_ms = 10000\nrequest_timeout_min_ms = 10000\n";
        fs::write(&file, format!("{text}\n{tuning}")).expect("ours");
    });
    let large = "v".repeat(900_000);
    town.piped(&["put", "large", "-"], large.as_bytes());
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let key = load_key(town.folder().client_key(1)).expect("a key");
    let greedy = runtime.block_on(async { Greedy::start(greed, &town.file(), key) });
    until("it is at work", || has_begun(&town, &greedy).then_some(()));
    for number in 0..QUIET {
        let value = number.to_string();
        town.patient(&["put", "quiet", &value]).succeeds();
    }
    assert_eq!(town.patient(&["get", "quiet"]).succeeds().out, format!("{}\n", QUIET - 1));
    runtime.block_on(greedy.stop());
    let replica = town.agrees();
    assert_eq!(replica["view"], 0, "no primary is to blame: {replica}");
}

/// The most that any replica has counted of this.
fn counted(town: &Town, counter: &str) -> u64 {
    let count = |replica: &serde_json::Value| replica["counters"][counter].as_u64();
    town.status().iter().filter_map(count).max().unwrap_or(0)
}

#[test]
fn a_client_with_more_than_its_share_open_is_told_so_and_others_are_served() {
    beside(Greed::Hog, |_, greedy| greedy.busy() > 100 && greedy.answered() > 10);
}

#[test]
fn a_client_that_never_reads_loses_its_own_answers() {
    beside(Greed::Deaf, |town, _| counted(town, "answer_dropped") > 0);
}

#[test]
fn a_client_that_asks_without_end_is_answered_at_a_rate() {
    beside(Greed::Asker, |town, _| counted(town, "question_busy") > 1000);
}
