//! What is on the wires between processes, who is let onto them, and what the others are told.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpStream as Socket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use elea_processes::acceptor::Acceptor;
use elea_processes::environment;
use elea_protocol::cluster_file::ClusterFile;
use serde_json::Value as Json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::harness::{Answer, Town, run, until};

/// Words that are found in what was recorded if they were said in clear.
const KEY: &str = "harbour-master-of-the-north";
const VALUE: &str = "seven-blue-whales-and-a-lighthouse";

/// Everything that was said on a way, in the order of its arrival; each connection's two directions apart.
type Record = Arc<Mutex<Vec<Vec<u8>>>>;

async fn carry(near: TcpStream, target: String, record: Record) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::join!(
        pass(near_read, far_write, Arc::clone(&record)),
        pass(far_read, near_write, record)
    );
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, record: Record) {
    let place = {
        let mut all = record.lock().expect("no panic");
        all.push(Vec::new());
        all.len() - 1
    };
    let mut buffer = vec![0; 1 << 14];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        record.lock().expect("no panic")[place].extend(&buffer[..read]);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    // The other direction may go on.
    let _ = to.shutdown().await;
}

/// Ways to all replicas that somebody listens at.
struct Wires {
    runtime: Runtime,
    ways: Vec<Acceptor>,
    record: Record,
}

impl Wires {
    fn new() -> Self {
        let runtime = Runtime::new().expect("threads");
        Self { runtime, ways: Vec::new(), record: Record::default() }
    }

    /// A cluster file by which all replicas but the one itself are reached over these.
    fn file(&mut self, file: &ClusterFile, own: Option<usize>) -> ClusterFile {
        let mut addresses = file.addresses.clone();
        for (to, address) in addresses.iter_mut().enumerate().filter(|(to, _)| own != Some(*to)) {
            let (target, record) = (file.addresses[to].clone(), Arc::clone(&self.record));
            let carry = move |near| carry(near, target.clone(), Arc::clone(&record));
            let way = Acceptor::open(IpAddr::V4(Ipv4Addr::LOCALHOST), carry);
            let way = self.runtime.block_on(way).expect("a port");
            *address = way.address().to_string();
            self.ways.push(way);
        }
        ClusterFile { addresses, ..file.clone() }
    }

    /// Puts them between all replicas, and between them and clients that use `north.toml`.
    fn between(&mut self, town: &Town) {
        let file = town.file();
        for id in file.membership.size().members() {
            let own = self.file(&file, Some(usize::from(id.0)));
            fs::write(town.folder().cluster_of(id), own.to_text()).expect("ours");
        }
        let clients = self.file(&file, None);
        fs::write(town.path("north.toml"), clients.to_text()).expect("ours");
    }

    fn holds(&self, word: &str) -> bool {
        let all = self.record.lock().expect("no panic");
        all.iter().any(|said| said.windows(word.len()).any(|part| part == word.as_bytes()))
    }
}

/// A command of a client whose words all pass these wires.
fn north(town: &Town, words: &[&str]) -> Answer {
    let mut command = town.command(words);
    run(command.env(environment::CLUSTER, town.path("north.toml")))
}

/// What passes where replicas and clients have this setting.
fn recorded(words: &'static [&'static str]) -> (Town, Wires) {
    let mut wires = Wires::new();
    let town = Town::run_prepared(4, words, |town| wires.between(town));
    let with = |said: &[&'static str]| [said, words, &["--timeout", "60s"]].concat();
    north(&town, &with(&["put", KEY, VALUE])).succeeds();
    assert_eq!(north(&town, &with(&["get", KEY])).succeeds().out, format!("{VALUE}\n"));
    (town, wires)
}

#[test]
fn whoever_records_everything_reads_neither_keys_nor_values() {
    let (town, wires) = recorded(&[]);
    assert!(!wires.holds(KEY) && !wires.holds(VALUE), "it is there in clear");
    for replica in town.status() {
        assert_eq!(replica["transport"], "encrypted", "{replica}");
    }
    // What was recorded says nothing a second time.
    until("all links are up", || {
        let admitted = |replica: &Json| replica["counters"]["peers_admitted"].as_u64() >= Some(3);
        town.status().iter().all(admitted).then_some(())
    });
    town.agrees();
    let record = wires.record.lock().expect("no panic").clone();
    let before = town.status();
    for address in town.file().addresses {
        for said in &record {
            let mut socket = Socket::connect(&address).expect("it listens");
            socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
            // It may be closed in the middle.
            let _ = socket.write_all(said);
            let _ = socket.shutdown(std::net::Shutdown::Write);
            let _ = socket.read_to_end(&mut Vec::new());
        }
    }
    for (before, after) in before.iter().zip(town.status()) {
        assert_eq!(before["head"], after["head"]);
        let admitted = |status: &Json| {
            (
                status["counters"]["peers_admitted"].as_u64(),
                status["counters"]["key_used_twice"].as_u64(),
            )
        };
        assert_eq!(admitted(before), admitted(&after), "{after}");
    }

    // The check can fail: this is what it sees where nothing is encrypted.
    let (town, wires) = recorded(&["--transport", "plain"]);
    assert!(wires.holds(KEY) && wires.holds(VALUE), "nothing was recorded");
    let status = town.elea(&["status", "--transport", "plain"]).succeeds().out;
    assert!(status.contains("r0, r1, r2, r3 do not encrypt connections"), "{status}");
}

#[test]
fn who_is_refused_or_refuses_is_told_why_in_a_sentence() {
    let town = Town::new(4);
    let says = |words: &[&str], parts: &[&str]| town.elea(words).fails(3, parts);
    // A client that would say everything in clear.
    says(
        &["get", "a", "--transport", "plain", "--timeout", "2s"],
        &["turned this client away: its transport is encrypted, and this one's is not"],
    );
    // Somebody else is where a replica should be.
    let mut file = town.file();
    file.addresses.rotate_left(1);
    fs::write(town.path("north.toml"), file.to_text()).expect("ours");
    let other = north(&town, &["get", "a", "--timeout", "2s"]);
    other.fails(3, &["is another replica than the cluster file says (r1): check the address"]);
    // Somebody with a key of another cluster has one of its addresses, and the file is right otherwise.
    let stranger = Town::new(4);
    let mut file = town.file();
    file.addresses = stranger.file().addresses;
    fs::write(town.path("north.toml"), file.to_text()).expect("ours");
    let other = north(&town, &["get", "a", "--timeout", "2s"]);
    other.fails(3, &["belongs to another cluster: check the cluster file and the address"]);
    // A client that the replicas do not list, whatever its own file says.
    let mut file = town.file();
    let unknown = stranger.file().clients.expect("it lists some").remove(0);
    file.clients.as_mut().expect("it lists some").push(unknown);
    fs::write(town.path("north.toml"), file.to_text()).expect("ours");
    let mut command = town.command(&["get", "a", "--timeout", "2s"]);
    command.env(environment::CLUSTER, town.path("north.toml"));
    command.env(environment::KEY, stranger.folder().client_key(0));
    run(&mut command).fails(
        3,
        &[
            "turned this client away: the key is not known to this cluster",
            "said without encryption",
        ],
    );
}

#[test]
fn ten_thousand_hostile_connections_leave_the_service_up() {
    const CONNECTIONS: usize = 10_000;
    let (town, wires) = recorded(&[]);
    // Knocks with what followed them, which anybody on the way may say again.
    let record = wires.record.lock().expect("no panic").clone();
    let knocks: Vec<_> = record.into_iter().filter(|said| said.first() == Some(&0)).collect();
    assert!(!knocks.is_empty(), "a knock is said in clear");
    let addresses = town.file().addresses;
    let hostile = std::thread::spawn(move || {
        let mut held = Vec::new();
        for number in 0..CONNECTIONS {
            let Ok(mut socket) = Socket::connect(&addresses[number % addresses.len()]) else {
                continue;
            };
            // Each in each manner at each replica.
            let knock = &knocks[number / (5 * addresses.len()) % knocks.len()];
            // Whoever is there may close it at any moment.
            let _ = match number % 5 {
                0 => Ok(()),
                1 => socket.write_all(&[0xa5; 700]),
                2 => socket.write_all(&knock[..knock.len().min(400)]),
                3 => socket.write_all(knock),
                _ => socket.write_all(&[&knock[..knock.len().min(200)], &[0x5a; 300]].concat()),
            };
            // Some stay.
            if number % 3 == 0 {
                held.push(socket);
            }
            if held.len() > 200 {
                held.clear();
            }
        }
    });
    let mut puts = 0;
    while !hostile.is_finished() || puts == 0 {
        town.patient(&["put", "a", "1"]).succeeds();
        puts += 1;
    }
    hostile.join().expect("no panic");
    for replica in town.status() {
        assert_eq!(replica["standing"], "voter", "{replica}");
        assert!(replica["counters"]["tls_failed"].as_u64() > Some(0), "{replica}");
    }
    town.agrees();
}
