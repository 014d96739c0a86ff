//! What goes on when replicas do not.

use std::time::Instant;

use rustix::process::Signal;

use crate::harness::{Town, elea, run};

#[test]
fn with_one_down_everything_goes_on_and_with_two_weak_requests_do() {
    let mut town = Town::new(4);
    assert_eq!(town.patient(&["incr", "stock", "10"]).succeeds().out, "10\n");
    town.kill(3);
    assert_eq!(town.patient(&["incr", "stock", "-1", "--weak"]).succeeds().out, "9\n");
    assert_eq!(town.patient(&["incr", "stock", "-1", "--strong"]).succeeds().out, "8\n");
    assert_eq!(town.patient(&["incr", "stock", "-1", "--final"]).succeeds().out, "7\n");
    town.kill(2);
    assert_eq!(town.patient(&["incr", "stock", "-1", "--weak"]).succeeds().out, "6\n");

    let begin = Instant::now();
    let strong = town.elea(&["get", "stock", "--timeout", "1s", "--json"]);
    assert!(begin.elapsed().as_secs() < 20, "{strong:?}");
    strong.fails(3, &["2 of 4", "needs 3", "r2", "r3"]);
    assert_eq!(strong.json()["error"]["kind"], "unavailable");

    // They were stopped as by a power cut: both come back from their disks and catch up.
    town.restart(&[2, 3]);
    assert_eq!(town.patient(&["get", "stock"]).succeeds().out, "6\n");
    town.agrees();
}

#[test]
fn kill_nine_of_all_replicas_loses_nothing() {
    let mut town = Town::new(4);
    for round in 1..=3 {
        let weak = town.patient(&["incr", "weak", "--weak"]).succeeds();
        let strong = town.patient(&["incr", "strong"]).succeeds();
        assert_eq!((weak.out, strong.out), (format!("{round}\n"), format!("{round}\n")));
        (0..4).for_each(|id| town.kill(id));
        town.restart(&[0, 1, 2, 3]);
        assert_eq!(town.patient(&["get", "weak"]).succeeds().out, format!("{round}\n"));
        assert_eq!(town.patient(&["get", "strong"]).succeeds().out, format!("{round}\n"));
    }
    town.agrees();
}

#[test]
fn sigterm_stops_a_replica_cleanly() {
    let mut town = Town::new(4);
    town.patient(&["put", "k", "v"]).succeeds();
    town.replica(1).signal(Signal::TERM);
    assert_eq!(town.replica(1).ended(), Some(0), "{}", town.replica(1).log());
    town.restart(&[1]);
    assert_eq!(town.patient(&["get", "k"]).succeeds().out, "v\n");
}

#[test]
fn nobody_at_home_is_said_so() {
    let mut town = Town::new(4);
    (0..4).for_each(|id| town.kill(id));
    for words in [&["get", "k"][..], &["put", "k", "v", "--weak"], &["status"], &["evidence"]] {
        let answer = run(town.command(words).args(["--timeout", "300ms"]));
        answer.fails(3, &["r0, r1, r2, r3: "]);
    }
}

#[test]
fn the_demo_shows_everything_and_leaves_nothing_behind() {
    let begin = Instant::now();
    let demo = run(elea().arg("demo")).succeeds();
    assert!(begin.elapsed().as_secs() < 60, "under a minute: {demo:?}");
    for part in ["kill -9", "needs 3", "nothing was lost", "valid", "worthless"] {
        assert!(demo.out.contains(part), "{part}: {demo:?}");
    }
}
