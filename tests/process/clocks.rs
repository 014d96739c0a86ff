//! Clocks that are wrong. Skipped, with a word, where libfaketime is not installed.

use elea_chaos::clock::{MISSING, Setting};
use serde_json::Value as Json;

use crate::harness::{Town, until};

const HOUR: i64 = 3600;

fn counts(town: &Town, counter: &str) -> u64 {
    let of = |replica: &Json| replica["counters"][counter].as_u64().unwrap_or_default();
    town.status().iter().map(of).sum()
}

#[test]
fn after_all_clocks_were_an_hour_ahead_and_are_set_right_everything_goes_on_at_once() {
    let Some(mut town) = Town::with_clocks(4, Setting::off_by(HOUR)) else {
        eprintln!("skipped: {MISSING}");
        return;
    };
    town.patient(&["put", "k", "1", "--strong"]).succeeds();
    (0..4).for_each(|id| town.set_clock(id, Setting::RIGHT));
    town.patient(&["put", "k", "2", "--strong"]).succeeds();
    town.patient(&["put", "k", "3", "--weak"]).succeeds();

    // Across a restart, too: nobody falls silent for the others.
    (0..4).for_each(|id| town.kill(id));
    town.restart(&[0, 1, 2, 3]);
    town.patient(&["put", "k", "4", "--strong"]).succeeds();
    assert_eq!(town.patient(&["get", "k", "--strong"]).succeeds().out, "4\n");
    assert_eq!(counts(&town, "order_ahead_of_clock"), 0);
}

#[test]
fn a_clock_that_is_wrong_stops_nobody_and_is_named() {
    let Some(mut town) = Town::with_clocks(4, Setting::RIGHT) else {
        eprintln!("skipped: {MISSING}");
        return;
    };
    // That of the primary, while another replica is down: everybody is needed.
    town.kill(3);
    for off in [HOUR, -HOUR, -50 * 365 * 24 * HOUR] {
        town.set_clock(0, Setting::off_by(off));
        let way = if off > 0 { "s ahead of" } else { "s behind" };
        until("the table says whose clock it is", || {
            let table = town.patient(&["status"]).succeeds().out;
            let named = |line: &&str| line.starts_with("the clock of r0 is ") && line.contains(way);
            table.lines().any(|line| named(&line)).then_some(())
        });
        town.patient(&["put", "k", "1", "--strong"]).succeeds();
    }
    until("the log of another one says so", || {
        town.replica(1).log().contains("CLOCK: the clock of r0 is ").then_some(())
    });
    assert_eq!(counts(&town, "order_ahead_of_clock"), 0);

    // A replica that comes back in 1970 is heard.
    town.kill(0);
    town.restart(&[0, 3]);
    town.patient(&["put", "k", "2", "--strong"]).succeeds();
    town.set_clock(0, Setting::RIGHT);
    until("nobody is named any more", || {
        let table = town.patient(&["status"]).succeeds().out;
        (!table.contains("the clock of ")).then_some(())
    });
    town.agrees();
}
