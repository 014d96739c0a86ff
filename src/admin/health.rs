//! Whether a replica can serve.

use elea_protocol::message::{DiskHealth, NodeStatus, Standing};
use elea_protocol::quorum::{ClusterSize, Strength};

/// What stands against serving requests of this strength, as far as this replica sees: each in a few words. It is in
/// touch with so many replicas, itself among them.
pub fn hindrances(
    status: &NodeStatus,
    connected: usize,
    size: ClusterSize,
    strength: Strength,
) -> Vec<String> {
    let mut found = Vec::new();
    match status.standing {
        Standing::Voter => {}
        Standing::New => found.push("it does not know yet whether it may vote".to_owned()),
        Standing::Observer => found.push("it is an observer, and never votes".to_owned()),
    }
    if status.quarantined {
        found.push("it is in quarantine: its state is not the certified one".to_owned());
    }
    match &status.disk {
        DiskHealth::Sound => {}
        DiskHealth::Full => found.push("its disk is full".to_owned()),
        DiskHealth::Damaged(what) => found.push(format!("its disk is damaged: {what}")),
    }
    if !size.suffices(connected, strength) {
        let (all, quorum) = (size.replicas(), size.quorum(strength));
        found.push(format!(
            "it is in touch with {connected} of {all} replicas, and it takes {quorum}"
        ));
    }
    found
}

/// How many more replicas may be lost before strong requests are no longer answered. Below 0 that many are missing. It
/// counts whom this one is in touch with; which of the others are observers it does not know.
pub fn tolerance(standing: Standing, connected: usize, size: ClusterSize) -> i64 {
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let voters = connected - usize::from(standing == Standing::Observer);
    number(voters) - number(size.quorum(Strength::Strong))
}
