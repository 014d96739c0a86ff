//! Replicas that may not vote.

use std::fs;

use elea_protocol::id::ReplicaId;
use serde_json::Value as Json;

use crate::harness::{Town, until};

fn replica(town: &Town, id: usize) -> Json {
    town.status().swap_remove(id)
}

fn lose_folder(town: &mut Town, id: u8) {
    town.kill(id);
    fs::remove_dir_all(town.folder().data(ReplicaId(id))).expect("it is there");
}

#[test]
fn a_replica_whose_folder_is_deleted_follows_and_serves_and_never_votes_again() {
    let mut town = Town::new(4);
    let standings = |town: &Town| -> Vec<Json> {
        town.status().iter().map(|replica| replica["standing"].clone()).collect()
    };
    assert_eq!(standings(&town), ["voter"; 4]);
    assert_eq!(town.patient(&["incr", "n"]).succeeds().out, "1\n");
    lose_folder(&mut town, 3);
    assert_eq!(town.patient(&["incr", "n"]).succeeds().out, "2\n");
    town.restart(&[3]);
    assert_eq!(standings(&town), ["voter", "voter", "voter", "observer"]);
    assert!(town.replica(3).log().contains("OBSERVER"));
    let table = town.patient(&["status"]).succeeds().out;
    assert!(table.contains("r3 is an observer: it lost its data folder"), "{table}");

    // It follows, and the others go on.
    assert_eq!(town.patient(&["incr", "n"]).succeeds().out, "3\n");
    assert_eq!(town.patient(&["incr", "n", "--final"]).succeeds().out, "4\n");
    town.agrees();
    let counters = replica(&town, 3)["counters"].clone();
    assert_eq!(counters["commits_cast"], Json::Null, "{counters}");
    assert_eq!(counters["ordered_slots"], Json::Null, "{counters}");

    // It is not the third voice of a strong quorum, nor the second of a weak one.
    town.kill(2);
    town.elea(&["incr", "n", "--strong", "--timeout", "1s"]).fails(3, &["needs 3", "r2"]);
    town.kill(1);
    town.elea(&["get", "n", "--weak", "--timeout", "1s"]).fails(3, &["needs 2", "r1", "r2"]);
    town.restart(&[1, 2]);
    town.agrees();

    // What it is stands in its new folder, whether or not something beside the key says so.
    town.kill(3);
    fs::remove_file(town.path("replica-3.key.started")).expect("it is there");
    town.restart(&[3]);
    assert_eq!(standings(&town), ["voter", "voter", "voter", "observer"]);
}

#[test]
fn without_the_file_beside_the_key_the_others_tell_a_replica_that_it_was_here_before() {
    let mut town = Town::new(4);
    assert_eq!(town.patient(&["incr", "n"]).succeeds().out, "1\n");
    lose_folder(&mut town, 0);
    fs::remove_file(town.path("replica-0.key.started")).expect("it is there");
    // It led view 0: the others replace it.
    assert_eq!(town.patient(&["incr", "n"]).succeeds().out, "2\n");
    town.restart(&[0]);
    assert_eq!(replica(&town, 0)["standing"], "observer");
    until("it catches up", || {
        let (own, other) = (replica(&town, 0), replica(&town, 1));
        (own["head"] == other["head"] && own["view"] == other["view"]).then_some(())
    });
    assert_eq!(town.patient(&["incr", "n"]).succeeds().out, "3\n");
    town.agrees();
}

#[test]
fn a_replica_that_is_first_switched_on_when_the_others_have_a_history_votes() {
    let mut town = Town::new(4);
    // A key that never ran: the others know nothing of it, as if r3 had not been started before.
    (0..4).for_each(|id| town.kill(id));
    for id in 0..4 {
        fs::remove_dir_all(town.folder().data(ReplicaId(id))).expect("it is there");
        fs::remove_file(town.path(&format!("replica-{id}.key.started"))).expect("it is there");
    }
    town.restart(&[0, 1, 2]);
    assert_eq!(town.patient(&["incr", "n"]).succeeds().out, "1\n");
    town.restart(&[3]);
    assert_eq!(replica(&town, 3)["standing"], "voter");
    town.agrees();
    town.kill(1);
    assert_eq!(town.patient(&["incr", "n"]).succeeds().out, "2\n");
}
