//! What is written about metrics and alerts is so.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use elea_kv::KeyValueStore;
use elea_protocol::edition::Editions;
use elea_protocol::membership::Membership;
use elea_protocol::message::{Transport, Turnaround, WireVersions};
use elea_protocol::replica::Setup;
use elea_protocol::signature::{Ed25519, SecretKey, Signer as _};
use elea_protocol::tuning::Tuning;
use elea_replica::{Config, Durability, Limits, Node};

use super::*;

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("it is there")
}

/// The metrics of a replica that has just started, and is alone.
async fn metrics_of_one() -> String {
    let keys: Vec<SecretKey> = (1..=4).map(|n| SecretKey::from_bytes(&[n; 32])).collect();
    let public = keys.iter().map(SecretKey::public_key).collect();
    let membership = Membership::new("town", 1, public, None, Arc::new(Ed25519::default()));
    let membership = Arc::new(membership.expect("sound keys"));
    let data = tempfile::tempdir().expect("a folder");
    let key = keys.into_iter().next().expect("the first");
    let config = Config {
        setup: Setup {
            id: ReplicaId(0),
            membership: Arc::clone(&membership),
            signer: Arc::new(key),
            tuning: Tuning::default(),
            editions: Editions::with(1..=1),
            seed: [0; 32],
        },
        // Nobody listens there.
        addresses: vec!["127.0.0.1:1".to_owned(); 4],
        listen: "127.0.0.1:0".to_owned(),
        transport: Transport::default(),
        data: data.path().join("data"),
        mark: None,
        durability: Durability::Os,
        limits: Limits::default(),
        wire: WireVersions::OWN,
    };
    let node = Node::start(config, KeyValueStore::new()).await.expect("it starts");
    let watcher = node.watcher();
    let mut report = watcher.report().await.expect("it runs");
    // What it would know of another one.
    let other = ReplicaId(1);
    report.status.pace.others = vec![Turnaround { of: other, round_trip: Some(1), sync: None }];
    report.status.clocks = vec![(other, 1)];
    report.status.refused = vec![(other, 1)];
    let admin = Admin {
        replica: watch::channel(None).1,
        id: ReplicaId(0),
        address: String::new(),
        genesis: membership.genesis().to_string(),
        transport: Transport::Plain,
        data: data.path().into(),
        log: Log::start(None).expect("the environment says nothing else"),
    };
    let text = metrics::text(&admin, Some(&watcher), Some(&report));
    let bare = metrics::text(&admin, None, None);
    assert!(bare.contains("elea_starting 1") && bare.contains("elea_disk_free_bytes"), "{bare}");
    node.stop().await.expect("it stops");
    assert!(watcher.report().await.is_none(), "it is told that there is none any more");
    text
}

/// All words that begin so.
fn words<'a>(text: &'a str, begin: &str) -> BTreeSet<&'a str> {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c: char| !is_of_word(c)).filter(|word| word.starts_with(begin)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_that_rules_dashboard_and_documents_name_is_there() {
    let text = metrics_of_one().await;
    let mut there = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        let endings: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["", "_bucket", "_sum", "_count"],
            "info" => &["_info"],
            _ => &[""],
        };
        there.extend(endings.iter().map(|ending| format!("{name}{ending}")));
    }
    assert!(there.len() > 100, "{there:?}");
    let named_in = [
        "deploy/prometheus/rules.yml",
        "deploy/prometheus/rules_test.yml",
        "deploy/grafana/elea.json",
        "docs/operations.md",
        "docs/runbook.md",
    ];
    // What all begin with, and a module of which what is logged is set.
    let others = ["elea_", "elea_replica"];
    for path in named_in {
        let text = file(path);
        let named = words(&text, "elea_");
        assert!(!named.is_empty(), "{path} names metrics");
        for name in named.iter().filter(|name| !others.contains(name)) {
            assert!(there.contains(*name), "{path} names {name}, and there is none");
        }
    }
}

#[test]
fn every_alert_has_a_paragraph_in_the_runbook() {
    let (rules, runbook) = (file("deploy/prometheus/rules.yml"), file("docs/runbook.md"));
    let alerts: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let headings: Vec<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(alerts, headings, "in one order");
    for alert in alerts {
        let place = format!("runbook: docs/runbook.md#{}", alert.to_lowercase());
        assert_eq!(rules.matches(&place).count(), 1, "{alert} leads to its paragraph");
    }
}
