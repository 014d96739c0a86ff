//! A new cluster from a backup of an old one.

use std::fs;
use std::path::Path;

use elea_processes::folder::Folder;
use elea_processes::replica::Place;
use elea_protocol::id::ReplicaId;
use rustix::process::Signal;
use serde_json::Value as Json;

use crate::harness::{Answer, Town, elea, run, until};

const KEYS: usize = 2000;

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

fn backup(town: &Town, id: u8, out: &Path) -> Answer {
    let data = town.folder().data(ReplicaId(id));
    run(&mut town.command(&["backup", "--data", text(&data), "--out", text(out), "--json"]))
}

fn restore(dir: &Path, id: u8, from: &Path) -> Answer {
    let Place { cluster, key, data } = Folder::at(dir).place(ReplicaId(id));
    let mut command = elea();
    command.args(["restore", "--from", text(from), "--key", text(&key), "--data", text(&data)]);
    run(command.arg("--cluster").arg(cluster))
}

/// All keys with what they hold and when they were written.
fn contents(town: &Town) -> Vec<Json> {
    let shown = town.patient(&["scan", "--prefix", "key/", "--json"]).succeeds();
    assert_eq!(shown.err, "");
    let page = |line: &str| serde_json::from_str::<Json>(line).expect("an object a line");
    let pages: Vec<Json> = shown.out.lines().map(page).collect();
    assert!(pages.len() > 1 && pages.last().is_some_and(|page| page["result"]["next"].is_null()));
    pages
        .iter()
        .flat_map(|page| page["result"]["items"].as_array().expect("a list").clone())
        .collect()
}

/// A scan of more than a page that has a limit, and then the rest.
fn is_cut_short_and_says_so(town: &Town) {
    let limit = KEYS - 10;
    let words = ["scan", "--prefix", "key/", "--limit", &limit.to_string()];
    let cut = town.patient(&words).succeeds();
    assert_eq!(cut.out.lines().count(), limit);
    let next = format!("key/{limit:05}");
    assert!(cut.err.contains("there is more") && cut.err.contains(&next), "{}", cut.err);
    let rest = town.patient(&["scan", "--prefix", "key/", "--from", &next]).succeeds();
    assert_eq!((rest.out.lines().count(), rest.err.as_str()), (10, ""));
    assert!(rest.out.starts_with(&next));
}

/// Writes many keys, so that the state has several chunks.
fn fill(town: &Town) {
    let value = "v".repeat(400);
    for first in (0..KEYS).step_by(100) {
        let steps: Vec<_> =
            (first..first + 100).map(|n| format!("put key/{n:05} {n}-{value}")).collect();
        let mut words = vec!["txn"];
        steps.iter().for_each(|step| words.extend(["--then", step.as_str()]));
        town.patient(&words).succeeds();
    }
    town.patient(&["incr", "number", "7"]).succeeds();
    town.patient(&["add", "set", "ada"]).succeeds();
}

/// What has the checkpoints come every few slots, and scans take several pages.
fn often(settle: bool) -> impl FnMut(&Town) {
    move |town| {
        let file = town.path("cluster.toml");
        let text = fs::read_to_string(&file).expect("there");
        let bytes = if settle { 0 } else { 1 << 30 };
        let tuning = format!("[tuning]\ncheckpoint_interval = 4\nsettle_bytes = {bytes}\n");
        let pages = "[application]\npage_items = 300\n";
        fs::write(&file, format!("{text}\n{tuning}{pages}")).expect("ours");
    }
}

/// Writes until what was written before is part of a stable checkpoint of all.
fn becomes_stable(town: &Town) {
    let head = town.agrees()["head"]["slot"].as_u64().expect("a number");
    until("what was written is stable", || {
        town.patient(&["incr", "after"]).succeeds();
        let stable = |replica: &Json| replica["stable"].as_u64();
        town.status().iter().all(|replica| stable(replica) >= Some(head)).then_some(())
    });
}

#[test]
fn a_new_cluster_begins_with_a_backup_and_goes_on() {
    for settle in [true, false] {
        begins_with_a_backup_and_goes_on(settle);
    }
}

fn begins_with_a_backup_and_goes_on(settle: bool) {
    let mut old = Town::prepared(4, often(settle));
    let out = old.path("town.backup");
    backup(&old, 3, &out).fails(2, &["in use by another process"]);
    fill(&old);
    becomes_stable(&old);
    let before = contents(&old);
    assert_eq!(before.len(), KEYS);
    is_cut_short_and_says_so(&old);

    // The others go on while one is stopped.
    old.replica(3).signal(Signal::TERM);
    assert_eq!(old.replica(3).ended(), Some(0));
    old.kill(3);
    let made = backup(&old, 3, &out).succeeds().json();
    assert!(made["chunks"].as_u64() > Some(1), "{made}");
    backup(&old, 3, &out).fails(2, &["not overwritten"]);
    let nowhere = old.path("nowhere.backup");
    backup(&old, 9, &nowhere).fails(2, &["there is no replica's data"]);
    assert!(!nowhere.exists() && !old.path("replica-9.data").exists());
    old.patient(&["incr", "after"]).succeeds();
    old.restart(&[3]);
    old.agrees();

    // Nothing of a cluster goes back to its own backup, nor to one that it was not made with.
    let dir = out.parent().expect("a folder");
    restore(dir, 3, &out).fails(2, &["of this very cluster"]);

    let mut new = Town::made(4, &["--from", text(&out)], |new| {
        let dir = new.folder().path().to_owned();
        let before_restore = run(&mut new.folder().place(ReplicaId(0)).command(elea()));
        before_restore.fails(2, &["begins with the state of a backup", "elea restore"]);
        assert!(!dir.join("replica-0.key.started").exists());
        spoiled_copies_are_refused(&dir, &out);
        for id in 0..4 {
            restore(&dir, id, &out).succeeds();
        }
        restore(&dir, 0, &out).fails(2, &["not overwritten"]);
    });
    assert_eq!(new.file().tuning, old.file().tuning);
    assert_ne!(new.file().membership.genesis(), old.file().membership.genesis());

    assert_eq!(contents(&new), before);
    assert_eq!(new.patient(&["incr", "number"]).succeeds().out, "8\n");
    assert_eq!(new.patient(&["members", "set"]).succeeds().out, "ada\n");
    let state = new.agrees()["state"].clone();
    (0..4).for_each(|id| new.kill(id));
    new.restart(&[0, 1, 2, 3]);
    assert_eq!(new.agrees()["state"], state);
    assert_eq!(contents(&new), before);

    // Its own checkpoints take the place of what it began with, and it can be backed up as well.
    becomes_stable(&new);
    assert_eq!(new.patient(&["incr", "number"]).succeeds().out, "9\n");
    (0..4).for_each(|id| new.kill(id));
    backup(&new, 1, &new.path("second.backup")).succeeds();
    new.restart(&[0, 1, 2, 3]);
    assert_eq!(new.patient(&["get", "number"]).succeeds().out, "9\n");
    assert_eq!(contents(&new), before);

    // Who loses its disk begins with the backup again, and observes.
    new.kill(2);
    fs::remove_dir_all(new.path("replica-2.data")).expect("it is there");
    let dir = new.folder().path().to_owned();
    restore(&dir, 2, &out).succeeds();
    new.restart(&[2]);
    new.agrees();
    assert_eq!(new.status()[2]["standing"], "observer");
}

/// Every byte matters, and what is refused leaves nothing behind.
fn spoiled_copies_are_refused(dir: &Path, out: &Path) {
    let bytes = fs::read(out).expect("written");
    let spoiled = dir.join("spoiled.backup");
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&spoiled, bytes).expect("ours");
        let answer = restore(dir, 0, &spoiled);
        assert_eq!(answer.code, 4, "{what}: {answer:?}");
        answer.fails(4, &["does not verify"]);
        assert!(!dir.join("replica-0.data").exists(), "{what}");
    };
    let step = bytes.len() / 40;
    let places = (0..bytes.len()).step_by(step).chain([0, 14, 15, 17, bytes.len() - 1]);
    for place in places {
        let mut changed = bytes.clone();
        changed[place] ^= 1 << (place % 8);
        refused(&changed, &format!("byte {place} flipped"));
    }
    for end in [0, 5, 16, bytes.len() / 2, bytes.len() - 32, bytes.len() - 1] {
        refused(&bytes[..end], &format!("cut at {end}"));
    }
    refused(&[&bytes[..], b"x"].concat(), "longer");
    // A part that would be larger than memory is not asked for.
    refused(&[b"elea-backup-1\n", &[255; 64][..]].concat(), "an absurd length");
    fs::remove_file(&spoiled).expect("ours");
}

#[test]
fn where_nothing_is_certified_there_is_nothing_to_back_up() {
    let mut town = Town::new(4);
    town.kill(0);
    backup(&town, 0, &town.path("b")).fails(2, &["nothing to back up"]);
    assert!(!town.path("b").exists());
}

#[test]
fn a_backup_of_a_cluster_that_has_only_just_begun_has_all_that_is_final() {
    let mut town = Town::new(4);
    for n in ["1", "2", "3"] {
        town.patient(&["put", &format!("key/{n}"), n]).succeeds();
    }
    let head = town.agrees()["head"]["slot"].clone();
    town.replica(2).signal(Signal::TERM);
    assert_eq!(town.replica(2).ended(), Some(0));
    town.kill(2);
    let out = town.path("young.backup");
    let made = backup(&town, 2, &out).succeeds().json();
    assert_eq!((&made["slot"], &made["final"]), (&head, &head), "{made}");

    // One that is killed has it a moment later, and one that starts again has it still.
    town.restart(&[2]);
    town.patient(&["put", "key/4", "4"]).succeeds();
    let head = town.agrees()["head"]["slot"].clone();
    until("the head is stable", || {
        town.status().iter().all(|replica| replica["stable"] == head).then_some(())
    });
    town.kill(1);
    town.restart(&[1]);
    town.agrees();
    town.kill(1);
    let out = town.path("second.backup");
    let made = backup(&town, 1, &out).succeeds().json();
    assert_eq!(made["slot"], head, "{made}");

    let new = Town::made(4, &["--from", text(&out)], |new| {
        let dir = new.folder().path().to_owned();
        (0..4).for_each(|id| drop(restore(&dir, id, &out).succeeds()));
    });
    for n in ["1", "2", "3", "4"] {
        let found = new.patient(&["get", &format!("key/{n}")]).succeeds();
        assert_eq!(found.out, format!("{n}\n"));
    }
}
