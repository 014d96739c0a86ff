//! Disks that rot.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use elea_protocol::id::ReplicaId;
use rand::RngExt as _;
use serde_json::Value as Json;

use crate::harness::{Town, until};

const WHO: u8 = 3;

fn status(town: &Town) -> Json {
    town.status().swap_remove(usize::from(WHO))
}

/// The tables in which the application's rows lie, oldest first, by the note beside the store.
fn tables(town: &Town) -> Vec<PathBuf> {
    let data = town.folder().data(ReplicaId(WHO));
    let note = fs::read_to_string(data.join("rows")).unwrap_or_default();
    let folder = note.lines().find_map(|line| line.strip_prefix("folder ")?.split(' ').nth(1));
    let Some(folder) = folder else { return Vec::new() };
    let tables = data.join("store/keyspaces").join(folder).join("tables");
    // It is not there while a state takes the place of another one.
    let Ok(entries) = fs::read_dir(tables) else { return Vec::new() };
    let mut found: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    found.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    found
}

/// Writes until a table of rows lies on the disk, has the replica started anew, and answers with that
/// table. fjall removes at a start what it had not written whole; and it has too few tables to merge
/// them. So this one stays, and is read, until the state is another one.
fn written(town: &mut Town) -> PathBuf {
    let mut count = 0;
    until("rows in a table", || {
        while tables(town).is_empty() {
            // Not more keys than make a few tables, of which nobody can make less by packing them.
            let key = format!("filler-{}", count % 8);
            let value: Vec<u8> = rand::rng().random_iter().take(900_000).collect();
            town.piped(&["put", &key, "-"], &value);
            count += 1;
        }
        town.kill(WHO);
        town.restart(&[WHO]);
        tables(town).into_iter().next()
    })
}

/// A byte of a file, from its beginning.
type Place = fn(usize) -> usize;

/// Turns a bit of the file itself, if it is still there: a file of that name made anew would be nobody's.
fn turn_a_bit(table: &Path, place: Place) -> Option<()> {
    let file = File::options().read(true).write(true).open(table).ok()?;
    let length = file.metadata().expect("ours").len();
    let at = place(usize::try_from(length).expect("small")) as u64;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it has a byte there");
    file.write_all_at(&[byte[0] ^ 4], at).expect("written");
    Some(())
}

/// When a replica has read so many tables since its start, it has read each of the dozen that it has several times.
const LOOKED_AT: u64 = 300;

/// Damages a table of a replica and has it repaired, again where fjall had packed the table into another one: then the file may
/// stay for a while, and nobody reads it. Answers with what the replica logged.
fn damaged_and_repaired(town: &mut Town, is_down: bool, place: Place) -> String {
    for _ in 0..10 {
        let table = written(town);
        if is_down {
            town.kill(WHO);
        }
        let turned = turn_a_bit(&table, place);
        if is_down {
            town.restart(&[WHO]);
        }
        if let Some(log) = turned.and_then(|()| repaired(town, &table)) {
            return log;
        }
    }
    panic!("damage is not found");
}

/// Writes as a client does that knows nothing of it, until the replica votes again on a state that it
/// fetched, and its disk is sound. At the next start at the latest this table is gone: until then fjall may
/// keep it for the sake of a journal. Answers with what the replica logged; `None` where everything was looked at and nothing
/// was found.
fn repaired(town: &mut Town, table: &Path) -> Option<String> {
    let mut count = 0;
    let was_seen = until("it is repaired", || {
        count += 1;
        let written = town.patient(&["incr", "meanwhile", "--strong"]).succeeds();
        assert_eq!(written.out, format!("{count}\n"), "clients notice nothing");
        let status = status(town);
        let is_sound = status["standing"] == "voter" && status["disk"] == "sound";
        let has_fetched = status["counters"]["state_transfers"].as_u64() >= Some(1);
        let counts = |name: &str| status["counters"][name].as_u64().unwrap_or_default();
        // One that was damaged at the start is in quarantine until it has fetched.
        let is_missed = counts("tables_damaged") == 0 && counts("tables_checked") >= LOOKED_AT;
        (is_sound && (has_fetched || is_missed)).then_some(has_fetched)
    });
    town.patient(&["delete", "meanwhile"]).succeeds();
    if !was_seen {
        return None;
    }
    town.agrees();
    let log = town.replica(WHO).log();
    town.kill(WHO);
    town.restart(&[WHO]);
    assert!(!table.exists(), "what was damaged is still there: {}", table.display());
    Some(log)
}

#[test]
fn a_turned_bit_in_a_stored_state_is_found_told_and_repaired_while_clients_notice_nothing() {
    let mut town = Town::run_with(4, &["--scrub-pause", "100ms", "--scrub-rate", "1024"]);

    // Beneath a replica that runs: it is found by looking, and not only when it is needed.
    let log = damaged_and_repaired(&mut town, false, |len| len / 2);
    assert!(log.contains("QUARANTINE") && log.contains("the quarantine is over"), "{log}");

    // While it is down: in the middle of a table, at its very end, and where fjall has to read to
    // open it at all.
    let places: [Place; 3] = [|len| len * 3 / 10, |len| len - 1, |len| len - 24];
    for place in places {
        let log = damaged_and_repaired(&mut town, true, place);
        assert!(log.contains("damaged"), "{log}");
    }

    // What it has now is what the others have, and it counts: with it and two others all goes on.
    town.kill(0);
    assert_eq!(town.patient(&["incr", "after", "--strong"]).succeeds().out, "1\n");
}
