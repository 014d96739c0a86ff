//! Where replicas are: forms of addresses, and what of them cannot work.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use crate::harness::{Town, elea, run};

#[test]
fn hosts_that_nobody_could_dial_are_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("town");
    let refused = |words: &[&str], says: &str| {
        run(elea().arg("init").arg(&dir).args(words)).fails(2, &[says]);
        assert!(!Path::new(&dir).exists(), "{words:?}");
    };
    for (host, says) in [
        ("", "the host is empty"),
        ("two words", "no host"),
        ("node:7100", "without a port"),
        ("127.0.0.1:7100", "without a port"),
        ("[::1]:7100", "without a port"),
        ("https://node", "without `//`"),
        ("127.0.0.300", "up to 255"),
        ("0.0.0.0", "elea replica --listen"),
        ("::", "elea replica --listen"),
        ("ff02::1", "many machines"),
        ("fe80::1%lo", "zone"),
        ("{n}", "no host"),
        ("r{m}", "no host"),
    ] {
        refused(&["--host", host], says);
    }
    refused(&["--base-port", "65533"], "--base-port of at most 65532");
    refused(&["--base-port", "0"], "--base-port");
    refused(&["--base-port", "70000"], "--base-port");
}

#[test]
fn replicas_with_hosts_of_their_own_have_one_port() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("town");
    run(elea().arg("init").arg(&dir).args(["--host", "r{n}.town", "--base-port", "7300"]))
        .succeeds();
    let cluster = fs::read_to_string(dir.join("cluster.toml")).expect("the cluster file");
    for n in 0..4 {
        assert!(cluster.contains(&format!("\"r{n}.town:7300\"")), "{cluster}");
    }
}

#[test]
fn every_form_of_host_that_is_accepted_works() {
    let has_six = TcpListener::bind("[::1]:0").is_ok();
    for host in ["localhost", "LocalHost", "::1", "[::1]"] {
        if host.contains(':') && !has_six {
            eprintln!("this machine has no IPv6: {host} is left out");
            continue;
        }
        let town = Town::made(1, &["--host", host], |_| {});
        town.patient(&["put", "host", host]).succeeds();
        assert_eq!(town.patient(&["get", "host"]).succeeds().out, format!("{host}\n"));
    }
}
