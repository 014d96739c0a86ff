//! Primaries that fail, again and again, and parts of the network that have to get along by
//! themselves.

use elea_protocol::message::Level;

use super::draft::{Draft, Weather};
use super::{Fault, MILLI, Plan};
use crate::network::Machine;

/// The world of a seed.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    let mut draft = Draft::new(2, seed, Weather::Fair);
    draft.plan.heal_at = draft.rng.between(1000, 2500) * MILLI;
    draft.patrons(3, 8);
    let faulty = draft.plan.size.faulty();
    match draft.rng.between(0, 4) {
        0 => draft.lost_disk(),
        1 | 2 => {
            let count = draft.rng.between(1, u64::from(faulty));
            draft.stopped(u8::try_from(count).expect("at most f"));
        }
        _ => draft.villains(faulty),
    }
    match draft.rng.between(0, 5) {
        0 | 1 => draft.component(Level::Weak),
        2 => draft.component(Level::Strong),
        _ => {}
    }
    if draft.rng.one_in(4) {
        draft.hostiles();
    }
    if draft.rng.one_in(2) {
        primaries_fall(&mut draft);
    }
    if draft.rng.one_in(4) {
        draft.crashes(4);
    }
    if draft.rng.one_in(10) {
        draft.blackout();
    }
    if draft.rng.one_in(2) {
        draft.partitions(600 * MILLI);
    }
    if draft.rng.one_in(4) {
        draft.slow();
    }
    // A component without a strong quorum would be full for good reason.
    if draft.plan.component.is_none() && draft.rng.one_in(4) {
        draft.short_suffix();
    }
    draft.full_disks();
    draft.planned_stops();
    draft.clocks();
    draft.client_rolled_out();
    draft.programs_updated();
    draft.passes_on();
    draft.done()
}

/// One primary after the other crashes, about when its view has begun.
fn primaries_fall(draft: &mut Draft) {
    draft.plan.shapes.push("primaries fall");
    let mut at = draft.rng.between(50, 300) * MILLI;
    for number in 0..draft.plan.size.replicas() {
        if at >= draft.plan.heal_at {
            return;
        }
        let down = draft.rng.between(100, 1200) * MILLI;
        draft.fault(at, Fault::Crash(Machine(number)));
        draft.fault(at + down, Fault::Restart(Machine(number)));
        at += draft.rng.between(200, 900) * MILLI;
    }
}
