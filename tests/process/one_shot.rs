//! A key used by many short-lived processes at one time, some of them killed half-way.
//!
//! `ELEA_ONE_SHOT=20000 cargo test --release --test process one_shot` runs the full size.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use rand::RngExt as _;

use crate::harness::Town;

const AT_ONCE: usize = 16;

#[test]
fn one_shot_commands_count_right_and_leave_few_sessions() {
    let commands: u32 =
        std::env::var("ELEA_ONE_SHOT").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let town = Town::new(4);
    let (next, acknowledged, attempted) = (AtomicU32::new(0), AtomicI64::new(0), AtomicI64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < commands {
                    let level = if rand::random() { "--weak" } else { "--strong" };
                    let mut command = town.command(&["incr", "n", level, "--timeout", "60s"]);
                    command.stdout(std::process::Stdio::null());
                    let mut child = command.spawn().expect("the program starts");
                    attempted.fetch_add(1, Ordering::Relaxed);
                    if rand::random_ratio(1, 10) {
                        // No waiting for anything: only a random moment to kill it at.
                        let moment = rand::rng().random_range(0..20_000);
                        std::thread::sleep(Duration::from_micros(moment));
                        // It fails where the command was faster.
                        let _ = child.kill();
                    }
                    if child.wait().expect("our child").success() {
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let value: i64 = town.patient(&["get", "n"]).succeeds().out.trim().parse().expect("a number");
    let (acknowledged, attempted) = (acknowledged.into_inner(), attempted.into_inner());
    assert!(acknowledged >= attempted / 2, "{acknowledged} of {attempted} were acknowledged");
    assert!(
        (acknowledged..=attempted).contains(&value),
        "{acknowledged} acknowledged <= {value} <= {attempted} attempted"
    );
    let sessions = town.agrees()["sessions"].as_u64().expect("a number");
    // Those that were killed leave theirs, and the others use the same ones again.
    let killed = u64::try_from(attempted / 5).expect("not negative");
    assert!(sessions <= 64 + killed, "{sessions} sessions after {attempted} commands");
}
