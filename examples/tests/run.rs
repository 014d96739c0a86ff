//! The examples do what their pages say, on a cluster of four in this process.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;

use elea_client::files::key_text;
use elea_client::{ClusterFile, SecretKey};
use elea_examples::counter::Counter;
use elea_kv::KeyValueStore;
use elea_protocol::application::Application;
use elea_protocol::cluster_file::{Durability, ListedClient};
use elea_protocol::edition::Editions;
use elea_protocol::membership::Membership;
use elea_protocol::message::WireVersions;
use elea_protocol::replica::Setup;
use elea_protocol::signature::{Ed25519, Signer as _};
use elea_protocol::tuning::Tuning;
use elea_replica::{Config, Limits, Node, Transport};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Four replicas, and a folder with the files of a client.
struct Cluster {
    folder: TempDir,
    nodes: Vec<Node>,
    runtime: Runtime,
}

fn cluster<A: Application + 'static>(application: impl Fn() -> A) -> Cluster {
    let folder = TempDir::new().expect("a folder");
    let keys: Vec<_> = (1..=4).map(|n| Arc::new(SecretKey::from_bytes(&[n; 32]))).collect();
    let client = SecretKey::from_bytes(&[100; 32]);
    let id = client.public_key().into();
    let membership = Membership::new(
        "examples",
        1,
        keys.iter().map(|key| key.public_key()).collect(),
        Some([id].into()),
        Arc::new(Ed25519::default()),
    )
    .expect("sound");
    let listeners: Vec<_> =
        keys.iter().map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    let addresses: Vec<_> =
        listeners.iter().map(|port| port.local_addr().expect("bound").to_string()).collect();
    let file = ClusterFile {
        membership: membership.clone(),
        addresses: addresses.clone(),
        clients: Some(vec![ListedClient { id, name: None }]),
        tuning: Tuning::default(),
        durability: Durability::Os,
        application: Default::default(),
    };
    fs::write(folder.path().join("cluster.toml"), file.to_text()).expect("written");
    let key = folder.path().join("client-0.key");
    fs::write(&key, key_text(&client)).expect("written");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("ours");

    let runtime = Runtime::new().expect("threads");
    let membership = Arc::new(membership);
    let nodes = file.membership.size().members().zip(listeners).map(|(id, listener)| {
        let data = folder.path().join(id.to_string());
        let config = Config {
            setup: Setup {
                id,
                membership: Arc::clone(&membership),
                signer: keys[usize::from(id.0)].clone(),
                tuning: Tuning::default(),
                editions: Editions::with(1..=1),
                seed: [id.0; 32],
            },
            addresses: addresses.clone(),
            listen: addresses[usize::from(id.0)].clone(),
            transport: Transport::default(),
            data,
            mark: None,
            durability: Durability::Os,
            limits: Limits::default(),
            wire: WireVersions::OWN,
        };
        let node = Node::start_on(config, application(), listener);
        runtime.block_on(node).expect("it starts")
    });
    let nodes = nodes.collect();
    Cluster { folder, nodes, runtime }
}

impl Cluster {
    /// What an example prints.
    fn run(&self, program: &str, words: &[&str]) -> String {
        let file = |name: &str| self.folder.path().join(name);
        let mut command = Command::new(program);
        command.arg(file("cluster.toml")).arg(file("client-0.key")).args(words);
        command.current_dir(self.folder.path());
        let output = command.output().expect("it runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn stop(self) {
        for node in self.nodes {
            self.runtime.block_on(node.stop()).expect("a clean stop");
        }
    }
}

#[test]
fn the_examples_do_what_they_say() {
    let cluster = cluster(KeyValueStore::new);

    let inventory = |words: &[&str]| cluster.run(env!("CARGO_BIN_EXE_inventory"), words);
    assert!(inventory(&["bolts", "10"]).starts_with("bolts: 10 as far as"));
    let sold = inventory(&["bolts", "-3"]);
    assert!(sold.starts_with("bolts: 7 as far as") && sold.contains("that is final"), "{sold}");

    let lock = |words: &[&str]| cluster.run(env!("CARGO_BIN_EXE_lock"), words);
    assert!(lock(&["backup", "take", "alice"]).starts_with("alice holds backup, token "));
    assert_eq!(lock(&["backup", "take", "bob"]), "alice holds backup\n");
    assert_eq!(lock(&["backup", "release", "bob"]), "alice holds backup\n");
    assert_eq!(lock(&["backup", "release", "alice"]), "backup is free\n");
    assert!(lock(&["backup", "take", "bob"]).starts_with("bob holds backup, token "));

    let discovery = |words: &[&str]| cluster.run(env!("CARGO_BIN_EXE_discovery"), words);
    assert_eq!(discovery(&["mail", "join", "10.0.0.7:25"]), "");
    assert_eq!(discovery(&["mail", "join", "10.0.0.8:25"]), "");
    assert_eq!(discovery(&["mail", "list"]), "10.0.0.7:25\n10.0.0.8:25\n");
    assert_eq!(discovery(&["mail", "leave", "10.0.0.7:25"]), "");
    assert_eq!(discovery(&["mail", "list"]), "10.0.0.8:25\n");

    let greeting = || cluster.run(env!("CARGO_BIN_EXE_greeting"), &[]);
    assert_eq!([greeting(), greeting()], ["visitor 1\n", "visitor 2\n"]);

    cluster.stop();
}

#[test]
fn an_application_of_its_own_runs_and_its_client_with_it() {
    let cluster = cluster(Counter::default);
    let counter = |word: &str| cluster.run(env!("CARGO_BIN_EXE_counter"), &[word]);
    assert_eq!(counter("5"), "5 as far as f + 1 replicas know\nthat is final\n");
    assert_eq!(counter("-7"), "-2 as far as f + 1 replicas know\nthat is final\n");
    cluster.stop();
}
