//! Long partitions with work on both sides, and what comes of it when they end.

use super::draft::{Draft, Weather};
use super::{MILLI, Plan};

/// The world of a seed.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    let mut draft = Draft::new(3, seed, Weather::Fair);
    draft.plan.heal_at = draft.rng.between(2000, 4500) * MILLI;
    draft.patrons(4, 14);
    // Both sides need `f + 1` correct replicas: with `n = 3f + 1` that leaves `f - 1` for others.
    if draft.rng.one_in(2) {
        draft.villains(draft.plan.size.faulty() - 1);
    } else if draft.rng.one_in(6) {
        draft.villains(1);
    }
    if draft.rng.one_in(5) {
        draft.hostiles();
    }
    let mut at = draft.rng.between(50, 400) * MILLI;
    while at < draft.plan.heal_at {
        let until = at + draft.rng.between(600, 2500) * MILLI;
        let shape = draft.two_sides();
        let flapping = draft.rng.one_in(6);
        draft.episode(at, until, shape, flapping);
        at = until + draft.rng.between(20, 1000) * MILLI;
    }
    if draft.rng.one_in(4) {
        draft.crashes(3);
    }
    if draft.rng.one_in(12) {
        draft.blackout();
    }
    if draft.rng.one_in(5) {
        draft.slow();
    }
    if draft.rng.one_in(5) {
        draft.short_suffix();
    }
    draft.rot();
    draft.crashes_while_fetching();
    draft.passes_on();
    draft.done()
}
