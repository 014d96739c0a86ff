//! A network of two sides, between which the ways can be cut.

use std::fs;
use std::path::Path;

use elea_processes::environment;
use elea_processes::proxy::Proxy;
use elea_protocol::cluster_file::ClusterFile;
use tokio::runtime::Runtime;

use crate::harness::{Answer, Town, run};

/// Ways between four replicas and the clients of two sides.
pub struct Network {
    /// Runs the proxies.
    runtime: Runtime,
    pub crossing: Vec<Proxy>,
    within: Vec<Proxy>,
}

/// r0 and r1, or r2 and r3.
fn side(id: usize) -> &'static str {
    if id < 2 { "north" } else { "south" }
}

impl Network {
    /// Gives every replica and each side a cluster file with ways of their own.
    pub fn new(town: &Town) -> Self {
        let runtime = Runtime::new().expect("threads");
        let mut network = Self { runtime, crossing: Vec::new(), within: Vec::new() };
        let file = town.file();
        for id in file.membership.size().members() {
            let from = usize::from(id.0);
            let mut addresses = network.ways(&file, side(from));
            addresses[from].clone_from(&file.addresses[from]);
            write(&town.folder().cluster_of(id), &file, addresses);
        }
        for name in ["north", "south"] {
            let addresses = network.ways(&file, name);
            write(&town.path(&format!("{name}.toml")), &file, addresses);
        }
        network
    }

    fn ways(&mut self, file: &ClusterFile, from: &str) -> Vec<String> {
        let mut addresses = Vec::new();
        for (to, target) in file.addresses.iter().enumerate() {
            let proxy = self.runtime.block_on(Proxy::open(target.clone())).expect("a port");
            addresses.push(proxy.address().to_string());
            let ways = if side(to) == from { &mut self.within } else { &mut self.crossing };
            ways.push(proxy);
        }
        addresses
    }
}

fn write(path: &Path, file: &ClusterFile, addresses: Vec<String>) {
    let text = ClusterFile { addresses, ..file.clone() }.to_text();
    fs::write(path, text).expect("written");
}

/// A command of a client that lives on one side.
pub fn at(town: &Town, side: &str, words: &[&str]) -> Answer {
    let key = town.folder().client_key(usize::from(side == "south"));
    let mut command = town.command(words);
    command.env(environment::CLUSTER, town.path(&format!("{side}.toml")));
    command.env(environment::KEY, key);
    run(&mut command)
}
