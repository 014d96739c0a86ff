//! What goes on when replicas do not.

use std::fs;
use std::time::Instant;

use elea_client::load_key;
use elea_processes::liar::Liar;
use elea_protocol::id::{ReplicaId, Slot, View};
use rustix::process::Signal;
use serde_json::Value as Json;

use crate::harness::{Town, elea, run, until};

#[test]
fn with_one_down_everything_goes_on_and_with_two_weak_requests_do() {
    let mut town = Town::new(4);
    assert_eq!(town.patient(&["incr", "stock", "10"]).succeeds().out, "10\n");
    town.kill(3);
    assert_eq!(town.patient(&["incr", "stock", "-1", "--weak"]).succeeds().out, "9\n");
    assert_eq!(town.patient(&["incr", "stock", "-1", "--strong"]).succeeds().out, "8\n");
    assert_eq!(town.patient(&["incr", "stock", "-1", "--final"]).succeeds().out, "7\n");
    town.kill(2);
    assert_eq!(town.patient(&["incr", "stock", "-1", "--weak"]).succeeds().out, "6\n");

    let begin = Instant::now();
    let strong = town.elea(&["get", "stock", "--timeout", "1s", "--json"]);
    assert!(begin.elapsed().as_secs() < 20, "{strong:?}");
    strong.fails(3, &["2 of 4", "needs 3", "r2", "r3"]);
    assert_eq!(strong.json()["error"]["kind"], "unavailable");

    // They were stopped as by a power cut: both come back from their disks and catch up.
    town.restart(&[2, 3]);
    assert_eq!(town.patient(&["get", "stock"]).succeeds().out, "6\n");
    town.agrees();
}

#[test]
fn a_strong_read_needs_no_slot_also_with_one_down() {
    let mut town = Town::new(4);
    town.patient(&["put", "greeting", "hello"]).succeeds();
    // On a busy machine one may have to be ordered, and answers the same.
    let read = |town: &Town| {
        until("a read without a slot", || {
            let read = town.patient(&["get", "greeting", "--json"]).succeeds().json();
            assert_eq!((&read["result"], &read["final"]), (&Json::from("hello"), &true.into()));
            read["hash"].is_null().then_some(())
        });
    };
    read(&town);
    for id in 0..2 {
        town.kill(id);
        read(&town);
        town.restart(&[id]);
    }
    // A receipt is of a slot.
    let receipt = town.path("read.receipt");
    let words = ["get", "greeting", "--json", "--receipt", receipt.to_str().expect("text")];
    assert!(town.patient(&words).succeeds().json()["hash"].is_string());
    assert!(receipt.exists());
}

#[test]
fn kill_nine_of_all_replicas_loses_nothing() {
    let mut town = Town::new(4);
    for round in 1..=3 {
        let weak = town.patient(&["incr", "weak", "--weak"]).succeeds();
        let strong = town.patient(&["incr", "strong"]).succeeds();
        assert_eq!((weak.out, strong.out), (format!("{round}\n"), format!("{round}\n")));
        (0..4).for_each(|id| town.kill(id));
        town.restart(&[0, 1, 2, 3]);
        assert_eq!(town.patient(&["get", "weak"]).succeeds().out, format!("{round}\n"));
        assert_eq!(town.patient(&["get", "strong"]).succeeds().out, format!("{round}\n"));
    }
    town.agrees();
}

#[test]
fn old_slots_leave_the_disk_and_kill_nine_still_loses_nothing() {
    let mut town = Town::prepared(4, |town| {
        let file = town.path("cluster.toml");
        let text = fs::read_to_string(&file).expect("there");
        let tuning = "[tuning]\ncheckpoint_interval = 4\nsettle_bytes = 0\n";
        fs::write(&file, format!("{text}\n{tuning}")).expect("ours");
    });
    let mut sum = 0;
    for _ in 0..3 {
        until("every replica has put a state in the place of slots", || {
            sum += 1;
            let answer = town.patient(&["incr", "n"]).succeeds();
            assert_eq!(answer.out, format!("{sum}\n"));
            let settled = |replica: &Json| replica["counters"]["states_settled"].as_u64();
            town.status().iter().all(|replica| settled(replica) > Some(0)).then_some(())
        });
        (0..4).for_each(|id| town.kill(id));
        town.restart(&[0, 1, 2, 3]);
        assert_eq!(town.patient(&["get", "n"]).succeeds().out, format!("{sum}\n"));
    }
    town.agrees();
}

#[test]
fn a_killed_primary_is_replaced_and_catches_up() {
    let mut town = Town::new(4);
    assert_eq!(town.patient(&["incr", "n"]).succeeds().out, "1\n");
    let before = town.agrees();
    let id = |status: &Json| u8::try_from(status["primary"].as_u64().expect("an id")).expect("few");
    let primary = id(&before);
    town.kill(primary);
    assert_eq!(town.patient(&["incr", "n"]).succeeds().out, "2\n");
    assert_eq!(town.patient(&["incr", "n", "--final"]).succeeds().out, "3\n");
    town.restart(&[primary]);
    let after = town.agrees();
    assert!(after["view"].as_u64() > before["view"].as_u64(), "{before} {after}");
    assert_ne!(id(&after), primary);
    assert_eq!(town.patient(&["incr", "n"]).succeeds().out, "4\n");
}

#[test]
fn a_liar_is_convicted_by_its_own_signatures() {
    let mut town = Town::new(4);
    let none = town.patient(&["evidence"]).succeeds();
    assert_eq!(none.out, "no proofs, say r0, r1, r2, r3\n");
    assert_eq!(town.patient(&["evidence", "--json"]).succeeds().out, "");

    town.patient(&["put", "k", "v"]).succeeds();
    let view = View(town.agrees()["view"].as_u64().expect("a number"));
    town.kill(3);
    let file = town.file();
    let key = load_key(town.folder().replica_key(ReplicaId(3))).expect("a key file");
    let liar = Liar { membership: &file.membership, id: ReplicaId(3), key: &key };
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let lie = liar.vote_twice((ReplicaId(1), file.addresses[1].as_str()), view, Slot(50));
    runtime.block_on(lie).expect("r1 listens");

    let held = until("all who run hold the proof", || {
        let said = town.patient(&["evidence", "--json"]);
        let line = said.out.lines().next().filter(|_| said.code == 4)?;
        let proof: Json = serde_json::from_str(line).expect("an object a line");
        (proof["held_by"].as_array()?.len() == 3).then_some(proof)
    });
    let expected = serde_json::json!({
        "culprit": 3, "kind": "two votes for one slot", "view": view.0, "held_by": [0, 1, 2],
    });
    assert_eq!(held, expected);
    town.elea(&["evidence"]).fails(4, &["r3 signed", "not heard: r3"]);
    assert_eq!(town.patient(&["get", "k"]).succeeds().out, "v\n");

    // The proof outlives those who hold it.
    (0..3).for_each(|id| town.kill(id));
    town.restart(&[0, 1, 2, 3]);
    let said = town.patient(&["evidence"]);
    said.fails(4, &["r3 signed"]);
    let proof = format!("r3: two votes for one slot, in {view}; held by r0, r1, r2");
    assert!(said.out.starts_with(&proof), "{said:?}");
}

#[test]
fn sigterm_stops_a_replica_cleanly() {
    let mut town = Town::new(4);
    town.patient(&["put", "k", "v"]).succeeds();
    town.replica(1).signal(Signal::TERM);
    assert_eq!(town.replica(1).ended(), Some(0), "{}", town.replica(1).log());
    town.restart(&[1]);
    assert_eq!(town.patient(&["get", "k"]).succeeds().out, "v\n");
}

#[test]
fn nobody_at_home_is_said_so() {
    let mut town = Town::new(4);
    (0..4).for_each(|id| town.kill(id));
    for words in [&["get", "k"][..], &["put", "k", "v", "--weak"], &["status"], &["evidence"]] {
        let answer = run(town.command(words).args(["--timeout", "300ms"]));
        answer.fails(3, &["r0, r1, r2, r3: "]);
    }
}

#[test]
fn the_demo_shows_everything_and_leaves_nothing_behind() {
    let begin = Instant::now();
    let demo = run(elea().arg("demo")).succeeds();
    assert!(begin.elapsed().as_secs() < 60, "under a minute: {demo:?}");
    for part in ["kill -9", "two votes", "needs 3", "sold out", "valid and final", "worthless"] {
        assert!(demo.out.contains(part), "{part}: {demo:?}");
    }
}
