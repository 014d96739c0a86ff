//! A replica of the key-value store starts from a data folder that an earlier program wrote, and goes on.
//!
//! What the folder holds is checked where the store is (`replica/src/store/tests/golden.rs`), which also says how it
//! is made anew. Its records come from here: `replica/tests/golden/records.txt` has what replica 1 of four wrote, event by
//! event, and `peers.txt` what another one wrote meanwhile. `replica.txt` says how replica 1 is then.
//!
//! They stay what they are, whatever replicas come to write in such a life. Where they are removed, `UPDATE_EXPECT=1` writes
//! others; the store of the present format is to be made of these, too.

mod world;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use elea_client::{Client, Cluster};
use elea_kv::{Add, KeyValueStore, Members};
use elea_protocol::codec::{decode, encode};
use elea_protocol::id::{ReplicaId, hex, unhex};
use elea_protocol::message::NodeStatus;
use elea_protocol::message::WireVersions;
use elea_protocol::replica::Record;
use elea_replica::{Config, Durability, Limits, Node, Store, Transport};
use tempfile::TempDir;

use self::world::{ANOTHER, Groups, ME, client_key, live, membership, setup, tuning};

/// Longer than the test takes on a busy machine: it ends one that hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// The kinds of records. The list is the match, so that none is left out.
macro_rules! kinds {
    ($($kind:ident),+) => {
        fn kind(record: &Record) -> &'static str {
            match record {
                $(Record::$kind { .. } => stringify!($kind),)+
            }
        }

        const KINDS: &[&str] = &[$(stringify!($kind)),+];
    };
}

kinds! {
    Slot, Aside, Lock, Stable, Adopted, Orphans, Fetching, Piece, Rows, Settling, Settled, Evidence,
    Standing, Lives, Mismatches, Stamps
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("replica/tests/golden")
}

/// As pages: whose they are, then the groups with a line for each record.
fn page(groups: &Groups, of: ReplicaId) -> String {
    let mut page = format!("{of} of {}\n", hex(&membership().genesis().0));
    for group in groups {
        page.push('\n');
        for record in group {
            let bytes = encode(record).expect("small");
            writeln!(page, "{} {}", kind(record), hex(&bytes)).expect("a String has room");
        }
    }
    page
}

fn groups(file: &str) -> Groups {
    let text = fs::read_to_string(golden().join(file)).expect("it is in the tree");
    let (_, groups) = text.split_once("\n\n").expect("a head and groups");
    let byte = |pair: &[u8]| str::from_utf8(pair).ok().and_then(unhex).map(|[byte]: [u8; 1]| byte);
    let record = |line: &str| {
        let (_, hex) = line.split_once(' ')?;
        let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
        decode::<Record>(&bytes?).ok()
    };
    let read = |line: &str| record(line).unwrap_or_else(|| panic!("{file}: {line}"));
    groups.split("\n\n").map(|group| group.lines().map(read).collect()).collect()
}

/// How a replica is, as far as it can be told from its disk.
fn facts(status: &NodeStatus) -> String {
    let NodeStatus { standing, view, head, lock, stable, state, sessions, .. } = status;
    let (evidence, quarantined, edition) = (status.evidence, status.quarantined, status.edition);
    let lock = lock.map(|(view, at)| format!("{view} {} {}", at.slot, hex(&at.hash.0)));
    format!(
        "standing {standing:?}\nview {view}\nhead {} {}\nlock {}\nstable {stable}\nstate {}\n\
         sessions {sessions}\nproofs {evidence}\nin quarantine {quarantined}\nedition {edition:?}\n",
        head.slot,
        hex(&head.hash.0),
        lock.as_deref().unwrap_or("none"),
        hex(&state.0),
    )
}

#[test]
fn the_records_show_every_kind_there_is() {
    let lives = live();
    if env::var_os("UPDATE_EXPECT").is_some() && !golden().join("records.txt").exists() {
        let write = |file, text| fs::write(golden().join(file), text).expect("written");
        write("records.txt", page(&lives.mine, ME));
        write("peers.txt", page(&lives.another, ANOTHER));
        write("replica.txt", facts(&lives.status));
    }
    let all: BTreeSet<&str> = KINDS.iter().copied().collect();
    for groups in [lives.mine, groups("records.txt")] {
        let shown: BTreeSet<&str> = groups.iter().flatten().map(kind).collect();
        let missing: Vec<_> = all.difference(&shown).collect();
        assert!(
            missing.is_empty(),
            "no record is {missing:?}: make the life of tests/golden/world.rs write one"
        );
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("there") {
        let (from, name) = entry.map(|entry| (entry.path(), entry.file_name())).expect("readable");
        let to = to.join(name);
        match from.is_dir() {
            true => copy(&from, &to),
            false => drop(fs::copy(&from, &to).expect("copied")),
        }
    }
}

/// The newest of the golden stores.
fn newest() -> PathBuf {
    let formats = fs::read_dir(golden()).expect("there").filter_map(|entry| {
        let name = entry.expect("readable").file_name().into_string().ok()?;
        name.strip_prefix("store-")?.parse::<u32>().ok()
    });
    golden().join(format!("store-{}", formats.max().expect("there is one")))
}

fn run(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let patient = async { tokio::time::timeout(PATIENCE, body).await.expect("it hangs") };
    runtime.expect("a runtime").block_on(patient);
}

#[test]
fn a_replica_starts_from_the_golden_store_and_goes_on_with_the_others() {
    let folder = TempDir::new().expect("a folder");
    let data = |id: ReplicaId| folder.path().join(id.0.to_string());
    copy(&newest().join("lived"), &data(ME));
    let others = [0, 2, 3].map(ReplicaId);
    for id in others {
        let genesis = *membership().genesis();
        let (mut store, _) =
            Store::open(&data(id), &genesis, id, Durability::Os).expect("a new store");
        for group in groups("peers.txt") {
            store.commit(&group).expect("written");
        }
    }
    let mut listeners: Vec<_> =
        (0..4).map(|_| Some(TcpListener::bind("127.0.0.1:0").expect("a free port"))).collect();
    let addresses: Vec<String> = listeners
        .iter()
        .flatten()
        .map(|listener| listener.local_addr().expect("bound").to_string())
        .collect();
    let config = |id: ReplicaId| Config {
        setup: setup(id),
        addresses: addresses.clone(),
        listen: addresses[usize::from(id.0)].clone(),
        transport: Transport::Encrypted,
        data: data(id),
        mark: None,
        durability: Durability::Os,
        limits: Limits::default(),
        wire: WireVersions::OWN,
    };
    run(async {
        let mut start = async |id: ReplicaId| {
            let listener = listeners[usize::from(id.0)].take().expect("not started yet");
            Node::start_on(config(id), KeyValueStore::new(), listener).await.expect("it starts")
        };
        let me = start(ME).await;
        let status = me.watcher().report().await.expect("it runs").status;
        let recorded = fs::read_to_string(golden().join("replica.txt")).expect("in the tree");
        assert_eq!(facts(&status), recorded);

        let mut nodes = vec![me];
        for id in others {
            nodes.push(start(id).await);
        }
        let mut cluster = Cluster::new(membership(), addresses.clone());
        cluster.rules = tuning().rules;
        let client = Client::connect(&cluster, client_key()).await.expect("a key that is listed");
        client.strong(Add::new("towns", "Massalia")).await.expect("a strong quorum");
        // What nobody else had heard of is in the history again.
        loop {
            let towns = client.strong(Members::new("towns")).await.expect("a strong quorum");
            let towns: Vec<_> =
                towns.result.expect("a set").members.iter().map(|town| town.to_vec()).collect();
            if towns.contains(&b"Velia".to_vec()) {
                break;
            }
        }
        // All end with one history and one state, the one with the golden store among them.
        loop {
            let mut ends = BTreeSet::new();
            for node in &nodes {
                let status = node.watcher().report().await.expect("it runs").status;
                ends.insert((status.head.slot, status.head.hash, status.state, status.stable));
            }
            if ends.len() == 1 {
                break;
            }
        }
        client.close().await;
        for node in nodes {
            node.stop().await.expect("it stops");
        }
    });
}
