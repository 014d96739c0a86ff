//! Keys that are used by commands which keep nothing between them: in jobs, containers, and from
//! places that are read-only.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

use elea_chaos::clock;
use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::tuning::Rules;

use crate::harness::{Town, run};

const COMMANDS: u32 = 200;

/// Changes the rules in a cluster file that nobody has used yet.
fn with_rules(town: &Town, change: impl FnOnce(&mut Rules)) -> ClusterFile {
    let mut file = town.file();
    change(&mut file.tuning.rules);
    fs::write(town.path("cluster.toml"), file.to_text()).expect("ours");
    file
}

#[test]
fn one_shot_commands_without_a_session_file_work_for_ever_with_one_replica_down() {
    let mut town = Town::prepared(4, |town| {
        with_rules(town, |rules| (rules.max_sessions, rules.kept_bytes) = (16, 4096));
    });
    town.kill(3);
    let next = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < COMMANDS {
                    let level = if rand::random() { "--weak" } else { "--strong" };
                    town.patient(&["incr", "n", level, "--sessions", "none"]).succeeds();
                }
            });
        }
    });
    assert!(!town.path("client-0.key.sessions").exists(), "nothing was kept");
    let count = |town: &Town| town.patient(&["get", "n"]).succeeds().out.trim().to_owned();
    assert_eq!(count(&town), COMMANDS.to_string(), "each once");
    town.restart(&[3]);
    let sessions = town.agrees()["sessions"].as_u64().expect("a number");
    assert!(sessions <= 16, "{sessions} sessions");
    assert_eq!(count(&town), COMMANDS.to_string());
}

#[test]
fn a_kept_session_that_the_cluster_has_forgotten_is_noticed_before_it_is_used() {
    let town = Town::prepared(4, |town| {
        with_rules(town, |rules| rules.max_sessions = 4);
    });
    town.patient(&["put", "k", "first"]).succeeds();
    for _ in 0..6 {
        town.patient(&["incr", "n", "--sessions", "none"]).succeeds();
    }
    town.patient(&["put", "k", "second"]).succeeds();
    assert_eq!(town.patient(&["get", "k"]).succeeds().out, "second\n");
}

#[test]
fn an_open_cluster_stays_open_after_more_keys_than_it_remembers() {
    let town = Town::prepared(4, |town| {
        let mut file = with_rules(town, |rules| rules.max_clients = 4);
        file.clients = None;
        fs::write(town.path("cluster.toml"), file.to_text()).expect("ours");
    });
    town.patient(&["incr", "n"]).succeeds();
    for number in 0..12 {
        let key = town.path(&format!("throw-away-{number}.key"));
        fs::write(&key, format!("elea-key-1 {:064x}\n", 1000 + number)).expect("ours");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("ours");
        let mut command = town.command(&["incr", "n", "--timeout", "60s"]);
        run(command.env("ELEA_KEY", &key)).succeeds();
    }
    assert_eq!(town.patient(&["incr", "n"]).succeeds().out, "14\n", "its session was kept");
    let sessions = town.agrees()["sessions"].as_u64().expect("a number");
    assert!(sessions <= 4, "{sessions} sessions");
}

#[test]
fn sessions_may_be_kept_in_another_place_or_nowhere() {
    let town = Town::new(4);
    let state = town.path("elsewhere");
    let state = state.to_str().expect("text");
    town.patient(&["put", "k", "1", "--sessions", state]).succeeds();
    let mut by_variable = town.command(&["put", "k", "2", "--timeout", "60s"]);
    run(by_variable.env("ELEA_SESSIONS", state)).succeeds();
    let kept = fs::read_to_string(state).expect("written");
    assert_eq!(kept.matches("\"free\": 3").count(), 1, "one session, used twice: {kept}");
    assert!(!town.path("client-0.key.sessions").exists());
    // A place that was named must be writable, and nobody may write there.
    let named = town.elea(&["get", "k", "--sessions", "/proc/self/elea.sessions"]);
    named.fails(2, &["session file", "/proc/self/elea.sessions"]);
}

#[test]
fn a_key_that_its_group_may_read_takes_a_word() {
    let town = Town::new(4);
    let key = town.path("client-0.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o440)).expect("ours");
    town.patient(&["put", "k", "v"]).fails(2, &["chmod 600", "--group-key"]);
    town.patient(&["put", "k", "v", "--group-key"]).succeeds();
    let mut by_variable = town.command(&["put", "k", "v", "--timeout", "60s"]);
    run(by_variable.env("ELEA_GROUP_KEY", "1")).succeeds();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o444)).expect("ours");
    town.patient(&["put", "k", "v", "--group-key"]).fails(2, &["chmod 600"]);
}

#[test]
fn the_clock_of_a_client_does_not_matter() {
    // Loaded by hand: the command `faketime` names a semaphore by its process, and does not start where one
    // that was killed has left its own.
    let Some(library) = clock::library() else {
        eprintln!("skipped: {}", clock::MISSING);
        return;
    };
    let town = Town::prepared(4, |town| {
        with_rules(town, |rules| rules.max_sessions = 8);
    });
    let times = ["2100-01-01", "1970-01-02", "2026-01-01", "1970-01-02", "2100-01-01"];
    for (count, time) in (1..).zip(times.repeat(4)) {
        let mut command = town.command(&["incr", "n", "--timeout", "60s", "--sessions", "none"]);
        command.env("LD_PRELOAD", &library).env("FAKETIME", format!("@{time} 00:00:00"));
        assert_eq!(run(&mut command).succeeds().out, format!("{count}\n"));
    }
}

#[test]
fn many_clients_with_one_key_work_as_they_come() {
    let town = Town::new(4);
    let words = ["bench", "--clients", "64", "--pipeline", "1", "--seconds", "1", "--json"];
    let bench = town.patient(&words).succeeds().json();
    assert_eq!(bench["failed"], 0, "{bench}");
    assert!(bench["answered"].as_u64().is_some_and(|count| count > 64), "{bench}");
}
