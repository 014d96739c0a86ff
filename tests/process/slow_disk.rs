//! Disks that take seconds for a sync. Skipped, with a word, where no C compiler is installed.

use std::time::Duration;

use elea_protocol::id::ReplicaId;
use rustix::process::Signal;

use crate::harness::{Town, until};

/// Two of them take longer than any other step of a stop may.
const SYNC: Duration = Duration::from_secs(3);

#[test]
fn a_replica_that_is_told_to_stop_writes_what_is_left_however_slow_its_disk_is() {
    let Some(mut town) = Town::with_slow_disks(4) else {
        eprintln!("skipped: no C compiler makes disks slow");
        return;
    };
    town.patient(&["put", "k", "1", "--strong"]).succeeds();
    let disks = town.disks().expect("they can be slow");
    let one = ReplicaId(3);
    disks.set(one, SYNC).expect("written");
    until("it has begun to write, and more has come since", || {
        town.patient(&["incr", "counter", "1"]).succeeds();
        (disks.count(one) > 0).then_some(())
    });
    town.replica(one.0).signal(Signal::TERM);
    assert_eq!(town.replica(one.0).ended(), Some(0), "{}", town.replica(one.0).log());

    disks.set(one, Duration::ZERO).expect("written");
    town.restart(&[one.0]);
    town.agrees();
}
