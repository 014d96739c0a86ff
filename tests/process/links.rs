//! Replicas that others cannot dial, and keys in two places.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use elea_processes::environment;
use elea_processes::replica::Place;
use elea_protocol::id::ReplicaId;
use serde_json::Value as Json;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::harness::{Process, Town, elea, run, until};

/// An address where whatever is sent is lost: the place has no room for one more connection.
struct BlackHole {
    address: SocketAddr,
    _guests: Vec<TcpStream>,
    _listener: TcpListener,
}

async fn black_hole() -> BlackHole {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.3:0".parse().expect("sound")).expect("a port");
    let listener = socket.listen(1).expect("it listens");
    let address = listener.local_addr().expect("bound");
    let mut guests = Vec::new();
    while let Ok(guest) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        guests.push(guest.expect("it has room"));
    }
    BlackHole { address, _guests: guests, _listener: listener }
}

/// The other replicas' files have this address for a replica; its own file, and the clients', is right.
fn hide(town: &Town, id: u8, address: SocketAddr) {
    let mut file = town.file();
    file.addresses[usize::from(id)] = address.to_string();
    for other in (0..4).filter(|other| *other != id) {
        fs::write(town.folder().cluster_of(ReplicaId(other)), file.to_text()).expect("ours");
    }
}

#[test]
fn a_replica_that_nobody_can_dial_takes_part_by_dialling() {
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let hole = runtime.block_on(black_hole());
    let mut town = Town::prepared(4, |town| hide(town, 3, hole.address));
    town.patient(&["put", "a", "1"]).succeeds();
    town.agrees();
    let status = town.status();
    for id in [0, 1, 2] {
        let back = status[id]["counters"]["links_back"].as_u64();
        assert!(back >= Some(1), "{status:#?}");
    }
    // From now on no strong request goes through without it.
    town.kill(2);
    town.patient(&["put", "b", "2"]).succeeds();
    town.kill(3);
    town.patient(&["put", "c", "3", "--weak"]).succeeds();
    town.restart(&[3]);
    assert_eq!(town.patient(&["get", "c"]).succeeds().out, "3\n");
}

#[test]
fn two_processes_with_one_replicas_key_are_named_to_both_and_in_the_status() {
    let mut town = Town::new(4);
    town.patient(&["put", "k", "v"]).succeeds();
    let path = |name: &str| town.path(name);
    let place = Place { data: path("second.data"), ..town.folder().place(ReplicaId(2)) };
    let mut second = place.command(elea());
    second.args(["--listen", "127.0.0.1:0"]);
    let mut second = Process::start(&mut second, &path("second.log"));
    assert!(second.says("listening").is_some(), "{}", second.log());
    until("its peers name the key", || {
        let told = |id: usize| town.status()[id]["keys_in_two_places"].as_array().cloned();
        let named = |id| told(id).is_some_and(|all| all.contains(&Json::from("r2")));
        (named(0) && named(1) && named(3)).then_some(())
    });
    until("both are told", || {
        let told = |log: String| log.contains("another process uses this replica's key");
        (told(second.log()) && told(town.replica(2).log())).then_some(())
    });
    let table = town.patient(&["status"]).succeeds();
    assert!(table.out.contains("the key of r2 is in use in two places"), "{table:?}");
    // One of the two is stopped, and everything goes on.
    drop(second);
    town.patient(&["put", "k", "w"]).succeeds();
    assert_eq!(town.patient(&["get", "k"]).succeeds().out, "w\n");
}

#[test]
fn a_clients_key_on_two_hosts_is_named() {
    let town = Town::new(4);
    fs::create_dir(town.path("other-host")).expect("ours");
    let copy = town.path("other-host").join("client-1.key");
    fs::copy(town.path("client-1.key"), &copy).expect("ours");
    let mut load = town.command(&["bench", "--clients", "1", "--seconds", "600"]);
    let _load =
        Process::start(load.env(environment::KEY, town.path("client-1.key")), &town.path("log"));
    until("the key is named", || {
        let mut put = town.command(&["put", "other", "host", "--timeout", "60s"]);
        // The two retire each other's sessions: it may be refused.
        run(put.env(environment::KEY, &copy));
        let status = town.status();
        let told = status[0]["keys_in_two_places"].as_array()?;
        told.iter()
            .any(|key| key.as_str().is_some_and(|key| key.starts_with("client ")))
            .then_some(())
    });
    let table = town.patient(&["status"]).succeeds();
    assert!(table.out.contains("give each host a key of its own"), "{table:?}");
}
