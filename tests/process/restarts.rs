//! Replicas that are stopped as operators stop them.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use crate::harness::{Town, run, until};

fn view(town: &Town, id: usize) -> Option<u64> {
    town.status()[id]["view"].as_u64()
}

#[test]
fn a_primary_that_is_stopped_hands_its_view_on_before_it_is_gone() {
    let mut town = Town::new(4);
    town.patient(&["put", "a", "1"]).succeeds();
    town.agrees();
    assert_eq!(view(&town, 1), Some(0));
    town.replica(0).signal(Signal::TERM);
    assert_eq!(town.replica(0).ended(), Some(0));
    town.kill(0);
    until("the others are in the next view", || (view(&town, 1) >= Some(1)).then_some(()));
    for replica in &town.status()[1..] {
        // Nobody has lost patience.
        assert_eq!(replica["counters"]["suspicions"].as_u64(), None, "{replica}");
    }
    // A backup that is stopped changes nothing.
    let before = view(&town, 1);
    town.restart(&[0]);
    town.agrees();
    town.replica(3).signal(Signal::TERM);
    assert_eq!(town.replica(3).ended(), Some(0));
    town.kill(3);
    town.patient(&["put", "a", "2"]).succeeds();
    assert_eq!(view(&town, 1), before);
}

/// Where the history of a replica ends.
fn head(town: &Town, id: usize) -> Option<u64> {
    town.status()[id]["head"]["slot"].as_u64()
}

#[test]
fn every_replica_is_restarted_in_turn_and_no_request_fails() {
    let mut town = Town::new(4);
    town.patient(&["incr", "count"]).succeeds();
    let writers: Vec<_> =
        (0..2).map(|_| town.command(&["incr", "count", "--timeout", "60s"])).collect();
    let all_done = AtomicBool::new(false);
    let write = |mut command: Command| {
        let mut done = 0;
        while !all_done.load(Ordering::SeqCst) {
            run(&mut command).succeeds();
            done += 1;
        }
        done
    };
    let done = std::thread::scope(|scope| {
        let write = &write;
        let writers: Vec<_> =
            writers.into_iter().map(|command| scope.spawn(move || write(command))).collect();
        for id in 0..4 {
            town.replica(id).signal(Signal::TERM);
            assert_eq!(town.replica(id).ended(), Some(0));
            town.restart(&[id]);
            // The next one is stopped when this one has what there was.
            let end = head(&town, usize::from(id + 1) % 4);
            until("it has caught up", || (head(&town, usize::from(id)) >= end).then_some(()));
        }
        all_done.store(true, Ordering::SeqCst);
        writers.into_iter().map(|writer| writer.join().expect("no panic")).sum::<u64>()
    });
    assert!(done > 0);
    assert_eq!(town.patient(&["get", "count"]).succeeds().out, format!("{}\n", done + 1));
    town.agrees();
}
