//! The admin listener, as programs of an operator use it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use elea_processes::environment;
use elea_processes::folder::Folder;
use elea_processes::replica::{LISTENING, Place};
use elea_protocol::id::ReplicaId;
use rustix::process::Signal;
use serde_json::Value as Json;

use crate::harness::{PATIENCE, Process, Town, elea, init, run, until};

/// Asks, and answers with the status and what follows the head.
fn ask(admin: &str, method: &str, path: &str, more: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    let length = body.len();
    let question = format!(
        "{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n{more}\r\n{body}"
    );
    stream.write_all(question.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (code, body.to_owned())
}

fn get(admin: &str, path: &str) -> (u16, String) {
    ask(admin, "GET", path, "", "")
}

/// The value of a metric with these labels, as they are written, if it is there: a busy core may not answer in time.
fn known(text: &str, name: &str) -> Option<f64> {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.map(|value| value.parse().expect("a number"))
}

#[track_caller]
fn metric(text: &str, name: &str) -> f64 {
    known(text, name).unwrap_or_else(|| panic!("{name} is not in {text}"))
}

/// What describes a metric comes before its values, once, and they have no name twice.
fn is_well_formed(text: &str) {
    assert!(text.ends_with("# EOF\n"), "it is whole");
    let (mut described, mut values) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(description) = line.strip_prefix("# TYPE ") {
            let (name, _) = description.split_once(' ').expect("a name and a type");
            assert!(described.insert(name.to_owned()), "{name} is described twice");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            value.parse::<f64>().unwrap_or_else(|_| panic!("{line} has no value"));
            assert!(values.insert(name.to_owned()), "{name} is there twice");
            let is_of = |described: &String| name.starts_with(&**described);
            assert!(described.iter().any(is_of), "{name} is not described");
        }
    }
}

#[test]
fn metrics_and_health_say_how_a_replica_is_before_and_after_others_are_lost() {
    let mut town = Town::run_with(4, &["--admin", "127.0.0.1:0"]);
    for n in 0..20 {
        let level = if n % 2 == 0 { "--weak" } else { "--strong" };
        town.patient(&["put", &format!("key{n}"), "value", level]).succeeds();
    }
    town.agrees();
    let admins: Vec<String> = (0..4).map(|id| town.replica(id).admin().to_owned()).collect();
    let (mut primaries, mut speculative, mut committed) = (0.0, 0.0, 0.0);
    for (id, admin) in admins.iter().enumerate() {
        // Ready is who has met a strong quorum; the last link may come later.
        let text = until("all are connected", || {
            let (code, text) = get(admin, "/metrics");
            assert_eq!(code, 200);
            (known(&text, "elea_failure_tolerance") == Some(1.0)).then_some(text)
        });
        is_well_formed(&text);
        assert_eq!(metric(&text, "elea_standing{standing=\"voter\"}"), 1.0);
        assert_eq!(metric(&text, "elea_quarantined"), 0.0);
        assert!(metric(&text, "elea_slot{position=\"head\"}") >= 1.0);
        assert!(metric(&text, "elea_executed_requests_total") >= 20.0, "r{id}");
        assert!(metric(&text, "elea_sync_seconds_count") >= 1.0);
        committed += metric(&text, "elea_answer_seconds_count{kind=\"committed\"}");
        speculative += metric(&text, "elea_answer_seconds_count{kind=\"speculative\"}");
        assert!(metric(&text, "elea_resident_bytes") > 1e6);
        assert!(metric(&text, "elea_disk_free_bytes") > 1e6);
        primaries += metric(&text, "elea_is_primary");
        let (code, status) = get(admin, "/status");
        let status: Json = serde_json::from_str(&status).expect("JSON");
        assert_eq!((code, &status["id"]), (200, &Json::from(id)));
        assert_eq!(status["standing"], "voter");
        for words in [&["health"][..], &["health", "--ready"], &["health", "--ready", "--weak"]] {
            run(elea().args(words).args(["--admin", admin])).succeeds();
        }
    }
    assert_eq!(primaries, 1.0);
    // Each was answered by some replica that had it from the client.
    assert!(committed >= 10.0 && speculative + committed >= 20.0, "{committed}, {speculative}");

    town.kill(2);
    town.kill(3);
    let admin = &*admins[0];
    until("it notices that two are gone", || {
        let (_, text) = get(admin, "/metrics");
        (known(&text, "elea_failure_tolerance") == Some(-1.0)).then_some(())
    });
    let says = ["in touch with 2 of 4 replicas, and it takes 3"];
    run(elea().args(["health", "--ready", "--admin", admin])).fails(3, &says);
    for words in [&["health"][..], &["health", "--ready", "--weak"]] {
        run(elea().args(words).args(["--admin", admin])).succeeds();
    }
    run(elea().args(["health", "--admin", &admins[3]])).fails(3, &["does not answer", "--admin"]);
    assert_eq!(get(admin, "/readyz?both").0, 400);
    assert_eq!(get(admin, "/elsewhere").0, 404);
}

#[test]
fn what_is_logged_is_set_while_the_replica_runs() {
    let mut town = Town::run_with(4, &["--admin", "127.0.0.1:0"]);
    let admin = town.replica(0).admin().to_owned();
    let put = |more: &str, levels: &str| ask(&admin, "PUT", "/log", more, levels);
    assert!(get(&admin, "/log").1.contains("fjall=warn"));
    assert_eq!(put("", "warn,elea_replica=debug").0, 200);
    assert!(get(&admin, "/log").1.contains("elea_replica=debug"));
    town.patient(&["put", "key", "value"]).succeeds();
    until("it logs more", || town.replica(0).log().contains("client connected").then_some(()));
    let (code, why) = put("", "elea_replica=loud");
    assert!(code == 400 && why.contains("no list of"), "{why}");
    assert_eq!(put("", "").0, 400);
    assert_eq!(put("origin: http://evil.example\r\n", "trace").0, 403);
    assert_eq!(put("", &"elea=debug,".repeat(1000)).0, 413);
    assert!(get(&admin, "/log").1.contains("elea_replica=debug"), "nothing of that was taken");
}

#[test]
fn whoever_holds_connections_of_the_admin_listener_or_says_nonsense_is_closed_and_costs_nobody_else()
 {
    let mut town = Town::run_with(4, &["--admin", "127.0.0.1:0"]);
    let admin = town.replica(0).admin().to_owned();
    let silent: Vec<_> = (0..200).filter_map(|_| TcpStream::connect(&admin).ok()).collect();
    assert!(silent.len() > 100, "they are let in, or wait");
    for nonsense in [&b"\0\x01\x02\r\n\r\n"[..], b"GET\r\n\r\n", &[b'a'; 100_000]] {
        let mut stream = TcpStream::connect(&admin).expect("it listens");
        // It may be closed before all is written.
        let _ = stream.write_all(nonsense);
    }
    town.patient(&["put", "key", "value"]).succeeds();
    run(elea().args(["health", "--admin", &admin])).succeeds();
    drop(silent);
}

#[test]
fn a_log_in_json_is_one_object_a_line_and_an_unknown_format_is_refused() {
    let dir = init(4);
    let place = Folder::at(dir.path()).place(ReplicaId(0));
    let command = |format: &str| {
        let mut command = place.command(elea());
        command.env(environment::LOG_FORMAT, format);
        command
    };
    let mut process = Process::start(&mut command("json"), &dir.path().join("log"));
    assert!(process.says(LISTENING).is_some(), "{}", process.log());
    let log = process.log();
    assert!(log.lines().count() > 0);
    for line in log.lines() {
        let object: Json =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(object["level"].is_string() && object["message"].is_string(), "{line}");
    }
    drop(process);
    run(&mut command("xml")).fails(2, &["`xml`", "`json`"]);
    let nowhere = ["--admin", "no-such-host.invalid:1"];
    run(command("text").args(nowhere))
        .fails(2, &["cannot listen for the operator on no-such-host.invalid:1"]);
}

#[test]
fn systemd_is_told_when_a_replica_serves_how_it_is_and_that_it_ends() {
    let dir = init(4);
    let path = dir.path().join("notify");
    let systemd = UnixDatagram::bind(&path).expect("a socket");
    systemd.set_read_timeout(Some(PATIENCE)).expect("a time");
    let hears = |what: &str| {
        let mut word = [0; 4096];
        loop {
            let length = systemd.recv(&mut word).unwrap_or_else(|_| panic!("never said {what}"));
            let word = String::from_utf8_lossy(&word[..length]);
            if word.contains(what) {
                return word.into_owned();
            }
        }
    };
    let place = Folder::at(dir.path()).place(ReplicaId(0));
    let mut command = place.command(elea());
    // A watchdog that waits for a fifth of a second.
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let mut replica = Process::start(&mut command, &dir.path().join("log"));
    hears("READY=1");
    let word = hears("in touch with 1 of 4");
    assert!(word.starts_with("WATCHDOG=1\nSTATUS=waits to vote"), "{word}");
    replica.signal(Signal::TERM);
    hears("STOPPING=1");
    assert_eq!(replica.ended(), Some(0), "{}", replica.log());
}

#[test]
fn a_key_that_systemd_hands_over_is_taken_whatever_its_mode_shows_and_its_note_lies_elsewhere() {
    let dir = init(4);
    let credentials = dir.path().join("credentials");
    fs::create_dir(&credentials).expect("ours");
    let place = Folder::at(dir.path()).place(ReplicaId(0));
    let (key, note) = (credentials.join("key"), dir.path().join("key.started"));
    fs::copy(&place.key, &key).expect("ours");
    // As an access list that gives it to the service looks, in a folder that is read-only.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o440)).expect("ours");
    let place = Place { key: key.clone(), ..place };
    let command = |folder: &Path| {
        let mut command = place.command(elea());
        command.arg("--mark").arg(&note).env("CREDENTIALS_DIRECTORY", folder);
        command
    };
    run(&mut command(dir.path().join("elsewhere").as_path())).fails(2, &["key", "chmod"]);
    let mut replica = Process::start(&mut command(&credentials), &dir.path().join("log"));
    assert!(replica.says(LISTENING).is_some(), "{}", replica.log());
    assert!(note.exists() && !credentials.join("key.started").exists());
}
