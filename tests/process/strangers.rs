//! Nobody in particular, in numbers: connections that say nothing, with hardly a descriptor to spare.

use std::net::TcpStream;

use crate::harness::Town;

/// More than each replica may have files open.
const SILENT: usize = 150;

#[test]
fn hardly_any_descriptors_and_many_silent_connections_cost_no_service_and_damage_nothing() {
    let town = Town::with_open_files(4, 96);
    // Large values, so that the store reads tables and merges them meanwhile.
    let words = ["bench", "--clients", "2", "--seconds", "2", "--value-size", "60000"];
    town.patient(&words).succeeds();
    let mut silent = Vec::new();
    for address in town.file().addresses {
        for _ in 0..SILENT {
            // The first of them are closed again by then.
            silent.push(TcpStream::connect(&address).expect("somebody listens"));
        }
    }
    town.patient(&["put", "a", "1"]).succeeds();
    town.patient(&words).succeeds();
    assert_eq!(town.patient(&["get", "a"]).succeeds().out, "1\n");
    for replica in town.status() {
        assert_eq!(replica["standing"], "voter", "{replica}");
        assert_eq!(replica["disk"], "sound", "{replica}");
        assert!(replica["counters"]["handshake_evicted"].as_u64() > Some(0), "{replica}");
    }
    town.agrees();
}
