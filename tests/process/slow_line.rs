//! A replica behind a line that carries a megabit a second.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use elea_chaos::network::Network;
use elea_chaos::tap::Party;
use elea_protocol::id::ReplicaId;
use tokio::sync::mpsc;

use crate::harness::Town;

/// In bytes.
const A_SECOND: u64 = 125_000;

const BEHIND_IT: u8 = 3;

/// What the replica lacks when it starts: ten times this, and a little more.
const VALUE: usize = 60_000;

/// All replicas reach each other through ways, and those of one are slow. The others keep no slots for it.
fn slow_down(town: &Town, network: &Network) {
    let file = town.file();
    for id in 0..4 {
        let mut own = file.clone();
        let ways = network.addresses(Party::Replica(ReplicaId(id)));
        for (other, way) in ways.into_iter().enumerate() {
            if other != usize::from(id) {
                own.addresses[other] = way;
            }
        }
        let text = own.to_text() + "\n[tuning]\nretained_slots = 1\nretained_bytes = 0\n";
        fs::write(town.folder().cluster_of(ReplicaId(id)), text).expect("ours");
        let address = file.addresses[usize::from(id)].parse().expect("an address");
        network.listens(ReplicaId(id), address);
    }
    let end = Party::Replica(ReplicaId(BEHIND_IT));
    for way in
        network.ways().iter().filter(|way| way.wire.from == end || way.wire.to.0 == BEHIND_IT)
    {
        way.set(|state| {
            state.there.bytes_per_second = Some(A_SECOND);
            state.back.bytes_per_second = Some(A_SECOND);
        });
    }
}

#[test]
fn a_replica_behind_a_megabit_fetches_a_state_and_keeps_up() {
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let (hears, mut heard) = mpsc::channel(64);
    runtime.spawn(async move { while heard.recv().await.is_some() {} });
    let localhost = IpAddr::from(Ipv4Addr::LOCALHOST);
    let network = Network::open(4, 0, |_| hears.clone(), |_| localhost, |_| None);
    let network = runtime.block_on(network).expect("ports");
    let mut town = Town::prepared(4, |town| slow_down(town, &network));
    town.kill(BEHIND_IT);
    for number in 0..10 {
        town.piped(&["put", &format!("large-{number}"), "-"], "v".repeat(VALUE).as_bytes());
    }
    // Far more than one checkpoint: nobody has the slots any more.
    town.patient(&["bench", "--clients", "1", "--seconds", "1", "--value-size", "100"]).succeeds();

    town.restart(&[BEHIND_IT]);
    town.agrees();
    let status = town.status();
    let counters = &status[usize::from(BEHIND_IT)]["counters"];
    assert!(counters["state_transfers"].as_u64() >= Some(1), "{counters}");

    // It is the third voice of a strong quorum, and as slow as its line.
    town.kill(0);
    town.patient(&["put", "after", "1"]).succeeds();
    assert_eq!(town.patient(&["get", "after"]).succeeds().out, "1\n");
}
