//! Everything at once: villains, crashes, partitions, bad links and hostile clients.

use super::draft::{Draft, Weather};
use super::{MILLI, Plan};

/// The world of a seed.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    let mut draft = Draft::new(1, seed, Weather::Foul);
    draft.plan.heal_at = draft.rng.between(1200, 2800) * MILLI;
    draft.patrons(3, 10);
    if draft.rng.one_in(2) {
        draft.hostiles();
    }
    // Up to `f` faulty ones in all.
    for _ in 0..draft.plan.size.faulty() {
        match draft.rng.between(0, 9) {
            0 | 1 => {}
            2 => draft.lost_disk(),
            3 => draft.stopped(1),
            4 => draft.lost_clock(),
            _ => draft.villains(1),
        }
    }
    if draft.rng.one_in(2) {
        draft.crashes(5);
    }
    if draft.rng.one_in(8) {
        draft.blackout();
    }
    if !draft.rng.one_in(3) {
        draft.partitions(900 * MILLI);
    }
    if draft.rng.one_in(3) {
        draft.slow();
    }
    if draft.rng.one_in(6) {
        draft.short_suffix();
    }
    draft.rot();
    draft.full_disks();
    draft.planned_stops();
    draft.crashes_while_fetching();
    draft.clocks();
    draft.client_rolled_out();
    draft.programs_updated();
    draft.passes_on();
    draft.done()
}
