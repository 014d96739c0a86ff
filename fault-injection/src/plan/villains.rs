//! As many villains as a cluster bears, in a network that gives them no excuse.

use super::draft::{Draft, Weather};
use super::{MILLI, Plan};

/// The world of a seed.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    let mut draft = Draft::new(4, seed, Weather::Fair);
    draft.plan.heal_at = draft.rng.between(1000, 2500) * MILLI;
    draft.patrons(3, 10);
    if draft.rng.one_in(2) {
        draft.hostiles();
    }
    draft.villains(draft.plan.size.faulty());
    if draft.rng.one_in(4) {
        draft.crashes(2);
    }
    if draft.rng.one_in(3) {
        draft.partitions(500 * MILLI);
    }
    if draft.rng.one_in(6) {
        draft.slow();
    }
    if draft.rng.one_in(8) {
        draft.short_suffix();
    }
    draft.programs_updated();
    draft.done()
}
