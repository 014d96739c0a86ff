//! Replicas that exist twice: two machines with one key, both with correct code, each of which
//! reaches another part of the network (Bano et al., "Twins: BFT Systems Made Robust", 2020).
//! Together they do what an equivocating replica does, in every role and without any invention.

use super::draft::{Draft, Weather};
use super::{MILLI, Plan};

/// The world of a seed.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    let mut draft = Draft::new(5, seed, Weather::Fair);
    draft.plan.heal_at = draft.rng.between(1200, 3000) * MILLI;
    draft.patrons(4, 10);
    let faulty = draft.plan.size.faulty();
    let count = draft.rng.between(1, u64::from(faulty));
    let count = u8::try_from(count).expect("at most f");
    if draft.rng.one_in(3) {
        draft.villains(faulty - count);
    }
    draft.twins(count);
    if draft.rng.one_in(3) {
        draft.crashes(4);
    }
    if draft.rng.one_in(2) {
        draft.partitions(900 * MILLI);
    }
    if draft.rng.one_in(6) {
        draft.slow();
    }
    if draft.rng.one_in(6) {
        draft.short_suffix();
    }
    draft.passes_on();
    draft.done()
}
