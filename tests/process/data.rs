//! Every data command, at every level.

use serde_json::{Value as Json, json};

use crate::harness::{Answer, Town};

const LEVELS: [&str; 3] = ["--weak", "--strong", "--final"];

/// Checks everything but the result, and answers with that.
#[track_caller]
fn result(answer: &Answer, level: &str, code: i32) -> Json {
    assert_eq!(answer.code, code, "{answer:?}");
    let json = answer.json();
    assert_eq!(json["level"], level.trim_start_matches("--"), "{json}");
    // A weak request may be final before the client hears of it.
    assert!(level == "--weak" || json["final"] == true, "{json}");
    assert_eq!(json["reordered"], false, "{json}");
    assert!(json["slot"].is_u64(), "{json}");
    assert!(json["view"].is_u64() && json["latency_us"].is_u64(), "{json}");
    // A strong read has no slot of its own.
    let is_hash = json["hash"].as_str().is_some_and(|hash| hash.len() == 64);
    assert!(is_hash || (level == "--strong" && json["hash"].is_null()), "{json}");
    json["result"].clone()
}

#[test]
fn every_command_answers_at_every_level() {
    let town = Town::new(4);
    for level in LEVELS {
        let key = |name: &str| format!("{}/{name}", level.trim_start_matches('-'));
        let ask = |words: &[&str], code: i32| {
            let mut all = words.to_vec();
            all.extend([level, "--json"]);
            result(&town.patient(&all), level, code)
        };
        let (text, number, set) = (&key("text"), &key("number"), &key("set"));
        assert_eq!(ask(&["get", text], 1), Json::Null);
        assert_eq!(ask(&["put", text, "one"], 0), true);
        assert_eq!(ask(&["get", text], 0), "one");
        assert_eq!(
            ask(&["cas", text, "zero", "two"], 1),
            json!({"swapped": false, "found": "one"})
        );
        assert_eq!(ask(&["cas", text, "one", "two"], 0), json!({"swapped": true}));
        assert_eq!(ask(&["append", text, "!"], 0), 4);
        assert_eq!(ask(&["get", text], 0), "two!");
        assert_eq!(ask(&["delete", text], 0), true);
        assert_eq!(ask(&["delete", text], 1), false);
        assert_eq!(ask(&["cas", text, "--absent", "new"], 0), json!({"swapped": true}));
        assert_eq!(ask(&["incr", number], 0), 1);
        assert_eq!(ask(&["incr", number, "-5"], 0), -4);
        assert_eq!(ask(&["add", set, "ada"], 0), true);
        assert_eq!(ask(&["add", set, "ada"], 0), false);
        assert_eq!(ask(&["add", set, "bob"], 0), true);
        assert_eq!(ask(&["remove", set, "bob"], 0), true);
        assert_eq!(ask(&["members", set], 0), json!(["ada"]));
        let page = ask(&["scan", "--prefix", &key("")], 0);
        let keys: Vec<_> =
            page["items"].as_array().expect("items").iter().map(|i| &i["key"]).collect();
        assert_eq!(keys, [number, set, text]);
        assert_eq!(page["next"], Json::Null);
        let (compare, then) = (format!("{number} >= -4"), format!("incr {number} 4"));
        let otherwise = format!("get {number}");
        let txn = ["txn", "--compare", &compare, "--then", &then, "--else", &otherwise];
        assert_eq!(ask(&txn, 0), json!({"succeeded": true, "results": [0]}));
        let never = format!("{number} < -100");
        let txn = ["txn", "--compare", &never, "--then", &then, "--else", &otherwise];
        assert_eq!(ask(&txn, 1), json!({"succeeded": false, "results": ["0"]}));
    }
    // A write says where it stands, and a read of it says the same.
    let written = town.patient(&["put", "where", "here", "--json"]).json();
    let read = town.patient(&["get", "where", "--json"]).json();
    assert_eq!(written["version"], read["version"]);
    assert_eq!(written["version"][0], written["slot"]);
}

#[test]
fn shells_get_values_and_nothing_else() {
    let town = Town::new(4);
    let silent = |words: &[&str]| assert_eq!(town.patient(words).succeeds().out, "");
    silent(&["put", "k", "v"]);
    assert_eq!(town.patient(&["get", "k"]).succeeds().out, "v\n");
    assert_eq!(town.patient(&["get", "k", "--raw"]).succeeds().out, "v");
    assert_eq!(town.patient(&["incr", "n", "7"]).succeeds().out, "7\n");
    silent(&["add", "s", "b"]);
    silent(&["add", "s", "a"]);
    assert_eq!(town.patient(&["members", "s"]).succeeds().out, "a\nb\n");
    assert_eq!(town.patient(&["scan", "--to", "n"]).succeeds().out, "k\tv\n");
    let page = town.patient(&["scan", "--limit", "1"]).succeeds();
    assert_eq!(page.out, "k\tv\n");
    assert!(page.err.contains("--from \"n\""), "{page:?}");

    town.patient(&["get", "none"]).fails(1, &["absent"]);
    town.patient(&["cas", "k", "w", "x"]).fails(1, &["holds `v`"]);
    town.patient(&["incr", "k"]).fails(1, &["no integer"]);
    let refused = town.patient(&["incr", "k", "--json"]);
    refused.fails(1, &["no integer"]);
    assert_eq!(refused.json()["error"]["kind"], "refused");

    // Any bytes go in and come out.
    let bytes: Vec<u8> = (0..=255).collect();
    assert!(town.piped(&["put", "bytes", "-"], &bytes).is_empty());
    assert_eq!(town.piped(&["get", "bytes", "--raw"], b""), bytes);
    let json = town.patient(&["get", "bytes", "--json"]).json();
    assert!(json["result_base64"].as_str().is_some_and(|text| text.starts_with("AAECAwQF")));
    assert!(json.get("result").is_none());
    silent(&["put", "/w==", "gA==", "--base64"]);
    assert_eq!(town.patient(&["get", "/w==", "--base64"]).succeeds().out, "gA==\n");
}

#[test]
fn seven_replicas_serve_both_levels_with_two_of_them_down() {
    let mut town = Town::new(7);
    assert_eq!(town.patient(&["incr", "n"]).succeeds().out, "1\n");
    town.kill(6);
    town.kill(5);
    assert_eq!(town.patient(&["incr", "n", "--weak"]).succeeds().out, "2\n");
    assert_eq!(town.patient(&["incr", "n"]).succeeds().out, "3\n");
    let status = town.status();
    assert_eq!(status.iter().filter(|replica| replica["reachable"] == true).count(), 5);
}

#[test]
fn a_bench_counts_verified_answers_and_leaves_equal_replicas() {
    let town = Town::new(4);
    for level in ["weak", "strong", "final"] {
        let words =
            ["bench", "--clients", "2", "--pipeline", "8", "--seconds", "1", "--level", level];
        let report = town.patient(&[&words[..], &["--json"]].concat()).succeeds().json();
        assert!(report["answered"].as_u64().is_some_and(|n| n > 0), "{report}");
        assert_eq!(report["failed"], 0, "{report}");
        assert!(report["requests_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{report}");
        let latency = |name: &str| report["latency_us"][name].as_u64().unwrap_or(0);
        assert!(0 < latency("p50") && latency("p50") <= latency("max"), "{report}");
    }
    let replica = town.agrees();
    assert_eq!(replica["evidence"], 0);
    assert_eq!(replica["divergence"], json!([]));
    town.patient(&["evidence"]).succeeds();
    let table = town.patient(&["status"]).succeeds();
    for word in
        ["replica", "view", "primary", "head", "lock", "stable", "state", "divergence", "r3"]
    {
        assert!(table.out.contains(word), "{word}: {}", table.out);
    }
}
