//! Cluster files that differ: in what decides results, and in who may use the cluster.

use std::fs;
use std::process::Command;

use elea_processes::environment;
use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::id::ReplicaId;
use serde_json::Value as Json;

use crate::harness::{Answer, Town, run, until};

/// Starts this replica anew with smaller values, and does not wait until it serves.
fn differ(town: &mut Town, id: u8) {
    let text = town.file().to_text() + "\n[application]\nvalue_bytes = 1024\n";
    town.kill(id);
    fs::write(town.folder().cluster_of(ReplicaId(id)), text).expect("it can be written");
    town.launch(id);
}

/// The same with the cluster file of the others.
fn agree_again(town: &mut Town, ids: &[u8]) {
    for id in ids {
        town.kill(*id);
        fs::remove_file(town.folder().cluster_of(ReplicaId(*id))).expect("it is there");
    }
    town.restart(ids);
}

fn until_told(town: &Town, what: &str) {
    until(what, || {
        let table = town.patient(&["status"]).succeeds().out;
        table.lines().any(|line| line.starts_with(what)).then_some(())
    });
}

fn quarantines(town: &Town) -> u64 {
    let of = |replica: &Json| replica["counters"]["quarantines"].as_u64().unwrap_or_default();
    town.status().iter().map(of).sum()
}

#[test]
fn a_replica_with_other_settings_is_left_out_and_everybody_says_why() {
    let mut town = Town::new(4);
    let large = "x".repeat(2000);
    differ(&mut town, 3);
    until_told(&town, "r3 has value_bytes = 1024, r0 1048576: they do not speak to each other");
    town.patient(&["put", "big", &large, "--strong"]).succeeds();
    until("its own log says why", || {
        let log = town.replica(3).log();
        let told = log.contains("SETTINGS DIFFER: value_bytes = 1048576 there and 1024 here");
        told.then_some(())
    });
    let status = town.status();
    let settings = &status[0]["settings_differ"][0];
    assert_eq!(settings["replica"], 3, "{settings}");
    assert_eq!(settings["settings"]["value_bytes"]["there"], "1024", "{settings}");
    // The kill may have come before its standing was on disk: then it asks anew, later.
    assert_ne!(status[3]["standing"], "observer");
    assert_eq!(quarantines(&town), 0);

    agree_again(&mut town, &[3]);
    town.agrees();
    until("it votes", || (town.status()[3]["standing"] == "voter").then_some(()));
    assert_eq!(town.status()[0]["settings_differ"], Json::Array(Vec::new()));
    assert_eq!(quarantines(&town), 0);
}

#[test]
fn two_and_two_serve_nothing_strong_and_merge_once_they_agree() {
    let mut town = Town::new(4);
    differ(&mut town, 3);
    differ(&mut town, 2);
    until_told(&town, "r3 has value_bytes = 1024, r1 1048576");
    town.elea(&["put", "k", "1", "--strong", "--timeout", "2s"]).fails(3, &["needs 3"]);
    town.patient(&["put", "w", "1", "--weak"]).succeeds();
    assert_eq!(quarantines(&town), 0);
    agree_again(&mut town, &[2, 3]);
    town.patient(&["put", "k", "2", "--strong"]).succeeds();
    town.agrees();
    assert_eq!(town.patient(&["get", "w", "--strong"]).succeeds().out, "1\n");
    assert_eq!(quarantines(&town), 0);
}

/// The cluster file as it was before the second client was added.
fn without_the_second_client(file: &ClusterFile) -> String {
    let mut file = file.clone();
    file.clients.as_mut().expect("a list").pop();
    file.to_text()
}

/// Waits until each of the first replicas, which list the second client, knows of so many that do not.
fn until_known(town: &Town, listing: usize, not_there: usize) {
    let knows = |replica: &Json| {
        let lists = replica["client_lists_differ"].as_array();
        let names_it = |list: &&Json| list["not_there"].as_array().is_some_and(|n| !n.is_empty());
        lists.is_some_and(|lists| lists.iter().filter(names_it).count() == not_there)
    };
    until(&format!("{listing} replicas know of {not_there} other lists"), || {
        town.status()[..listing].iter().all(knows).then_some(())
    });
}

#[test]
fn a_client_that_is_being_added_is_served_by_those_who_list_it_and_disturbs_nobody() {
    let mut town = Town::prepared(4, |town| {
        let old = without_the_second_client(&town.file());
        for id in [2, 3] {
            fs::write(town.folder().cluster_of(ReplicaId(id)), &old).expect("written");
        }
    });
    let new_client = |town: &Town, words: &[&str]| -> Answer {
        let mut command: Command = town.command(words);
        run(command.env(environment::KEY, town.folder().client_key(1)).args(["--timeout", "60s"]))
    };
    until_told(&town, "r2, r3 do not list the client ");
    // Whoever lists it knows who does not: before that a strong request may be let in, and waits.
    until_known(&town, 2, 2);
    new_client(&town, &["put", "a", "1", "--weak"]).succeeds();
    // What is given up may still be executed, at any time: it is asked of a key of its own.
    let refused = new_client(&town, &["put", "given-up", "1", "--strong"]);
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.err.contains("too few replicas list this client"), "{refused:?}");
    for n in 0..20 {
        town.patient(&["put", "b", &n.to_string(), "--strong"]).succeeds();
    }
    for replica in town.status() {
        assert_eq!(replica["view"], 0, "{replica}");
        assert_eq!(replica["counters"]["suspicions"], Json::Null, "{replica}");
        assert_eq!(replica["pending"], 0, "{replica}");
    }

    // With three of four it can do everything.
    agree_again(&mut town, &[2]);
    until_known(&town, 3, 1);
    new_client(&town, &["put", "a", "3", "--strong"]).succeeds();
    agree_again(&mut town, &[3]);
    assert_eq!(town.patient(&["get", "a", "--strong"]).succeeds().out, "3\n");
    town.agrees();

    // When it is taken off again, what it wrote stays, also for a replica that was away.
    town.kill(3);
    new_client(&town, &["put", "a", "4", "--strong"]).succeeds();
    let old = without_the_second_client(&town.file());
    for id in 0..4 {
        town.kill(id);
        fs::write(town.folder().cluster_of(ReplicaId(id)), &old).expect("written");
    }
    town.restart(&[0, 1, 2, 3]);
    assert_eq!(town.patient(&["get", "a", "--strong"]).succeeds().out, "4\n");
    town.agrees();
}
