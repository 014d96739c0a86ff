//! A network that splits in two halves, and heals.

use std::fs;
use std::thread;

use elea_processes::environment;
use elea_processes::proxy::Proxy;
use elea_protocol::cluster_file::ClusterFile;
use tokio::runtime::Runtime;

use crate::harness::{Answer, Town, run, until};

/// Ways between four replicas and the clients of two sides.
struct Network {
    /// Runs the proxies.
    runtime: Runtime,
    crossing: Vec<Proxy>,
    within: Vec<Proxy>,
}

/// r0 and r1, or r2 and r3.
fn side(id: usize) -> &'static str {
    if id < 2 { "north" } else { "south" }
}

impl Network {
    /// Gives every replica and each side a cluster file with ways of their own.
    fn new(town: &Town) -> Self {
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

fn write(path: &std::path::Path, file: &ClusterFile, addresses: Vec<String>) {
    let text = ClusterFile { addresses, ..file.clone() }.to_text();
    fs::write(path, text).expect("written");
}

/// A command of a client that lives on one side.
fn at(town: &Town, side: &str, words: &[&str]) -> Answer {
    let key = town.folder().client_key(usize::from(side == "south"));
    let mut command = town.command(words);
    command.env(environment::CLUSTER, town.path(&format!("{side}.toml")));
    command.env(environment::KEY, key);
    run(&mut command)
}

#[test]
fn both_halves_sell_and_the_merge_keeps_every_sale_once_and_the_stock_whole() {
    let mut network = None;
    let town = Town::prepared(4, |town| network = Some(Network::new(town)));
    let network = network.expect("prepared");
    town.patient(&["put", "stock", "3"]).succeeds();
    town.patient(&["put", "book", ""]).succeeds();
    town.agrees();
    for name in ["north", "south"] {
        let stock = at(&town, name, &["get", "stock", "--timeout", "60s"]).succeeds();
        assert_eq!(stock.out, "3\n");
    }

    network.crossing.iter().for_each(Proxy::cut);
    at(&town, "north", &["get", "stock", "--timeout", "1s"]).fails(3, &["needs 3"]);

    // Each says at once that it sold, and waits in the background for the final word.
    let sales =
        [("north", "n1"), ("north", "n2"), ("south", "s1"), ("south", "s2"), ("south", "s3")];
    let sell = |name: &'static str, sale: &'static str| {
        let entry = format!("append book \"{sale} \"");
        let sold = format!("append sold \"{sale} \"");
        let mut words = vec!["txn", "--compare", "stock > 0", "--then", "incr stock -1"];
        words.extend(["--then", &entry, "--then", &sold, "--else", &entry]);
        words.extend(["--final", "--json", "--timeout", "60s"]);
        at(&town, name, &words)
    };
    let answers: Vec<Answer> = thread::scope(|scope| {
        let mut waiting = Vec::new();
        for (name, sale) in sales {
            waiting.push(scope.spawn(move || sell(name, sale)));
            until("the half executes the sale and says so", || {
                let words = ["get", "sold", "--weak", "--timeout", "60s"];
                at(&town, name, &words).out.contains(sale).then_some(())
            });
        }
        network.crossing.iter().for_each(Proxy::heal);
        waiting.into_iter().map(|sale| sale.join().expect("no panic")).collect()
    });

    town.agrees();
    let sold = answers.iter().filter(|answer| answer.code == 0).count();
    assert_eq!(sold, 3, "{answers:#?}");
    for answer in &answers {
        let last = answer.json();
        assert_eq!(last["final"], true, "{answer:?}");
        // What was sold at first and is refused in the end is said to be so.
        assert!(answer.code == 0 || answer.code == 1 && last["reordered"] == true, "{answer:?}");
    }
    assert_eq!(town.patient(&["get", "stock"]).succeeds().out, "0\n");
    let book = town.patient(&["get", "book"]).succeeds().out;
    let mut entries: Vec<_> = book.split_whitespace().collect();
    entries.sort_unstable();
    assert_eq!(entries, ["n1", "n2", "s1", "s2", "s3"], "each once");
    let kept = town.patient(&["get", "sold"]).succeeds().out;
    assert_eq!(kept.split_whitespace().count(), 3, "{kept}");
}
