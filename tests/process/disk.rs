//! Disks that rot.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::harness::{Town, until};

const WHO: u8 = 3;

fn status(town: &Town) -> Json {
    town.status().swap_remove(usize::from(WHO))
}

/// The tables in which the application's rows lie, by the note beside the store.
fn tables(town: &Town) -> Vec<PathBuf> {
    let data = town.path(&format!("replica-{WHO}.data"));
    let note = fs::read_to_string(data.join("rows")).unwrap_or_default();
    let folder = note.lines().find_map(|line| line.strip_prefix("folder ")?.split(' ').nth(1));
    let Some(folder) = folder else { return Vec::new() };
    let tables = data.join("store/keyspaces").join(folder).join("tables");
    let mut found: Vec<_> =
        fs::read_dir(tables).expect("there").map(|entry| entry.expect("readable").path()).collect();
    found.sort();
    found
}

/// Writes until a table of rows lies on the disk, and answers with that one.
fn written(town: &Town) -> PathBuf {
    until("rows in a table", || {
        let words = ["bench", "--clients", "4", "--seconds", "2", "--level", "weak"];
        town.patient(&[&words[..], &["--value-size", "16000"]].concat()).succeeds();
        tables(town).into_iter().next()
    })
}

fn turn_a_bit(table: &Path, thousandths: usize) {
    let mut bytes = fs::read(table).expect("there");
    let at = (bytes.len() - 1) * thousandths / 1000;
    bytes[at] ^= 4;
    fs::write(table, bytes).expect("written");
}

/// Writes as a client does that knows nothing of it, until the replica votes again and its disk is
/// sound, with other tables than this one.
fn repaired(town: &Town, table: &Path) {
    let mut count = 0;
    until("it is repaired", || {
        count += 1;
        let written = town.patient(&["incr", "meanwhile", "--strong"]).succeeds();
        assert_eq!(written.out, format!("{count}\n"), "clients notice nothing");
        let status = status(town);
        let is_sound = status["standing"] == "voter" && status["disk"] == "sound";
        (is_sound && !table.exists()).then_some(())
    });
    town.patient(&["delete", "meanwhile"]).succeeds();
    town.agrees();
}

/// Turns a bit as `turn` does, again and again, until the replica has met one and was repaired:
/// fjall may be about to write a table anew, or was when it was killed, and then it is as good as
/// gone.
fn met(town: &mut Town, turn: impl Fn(&mut Town, &Path)) -> String {
    until("the turned bit is met", || {
        let table = written(town);
        turn(town, &table);
        repaired(town, &table);
        let log = town.replica(WHO).log();
        log.contains("damaged").then_some(log)
    })
}

#[test]
fn a_turned_bit_in_a_stored_state_is_found_told_and_repaired_while_clients_notice_nothing() {
    let mut town = Town::run_with(4, &["--scrub-pause", "100ms"]);

    // Beneath a replica that runs: it is found by looking, and not only when it is needed.
    let log = met(&mut town, |_, table| turn_a_bit(table, 500));
    assert!(log.contains("QUARANTINE") && log.contains("the quarantine is over"), "{log}");

    // While it is down: in the middle of a table, and where fjall has to read to open it at all.
    for thousandths in [300, 1000] {
        met(&mut town, |town, table| {
            town.kill(WHO);
            turn_a_bit(table, thousandths);
            town.restart(&[WHO]);
        });
    }

    // What it has now is what the others have, and it counts: with it and two others all goes on.
    town.kill(0);
    assert_eq!(town.patient(&["incr", "after", "--strong"]).succeeds().out, "1\n");
}
