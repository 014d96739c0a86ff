//! A world that follows from bytes, for a fuzzer that looks for bytes which lead to new code.
//!
//! Four replicas and two clients, small limits, one replica a [puppet](crate::villain::Puppet). The first bytes say
//! which one, which limits, and what befalls the others; the rest is the puppet's script. Whatever the bytes are, every
//! rule holds after every step, and when all of it is over everybody agrees.

use std::sync::Arc;

use elea_protocol::id::ReplicaId;
use elea_protocol::tuning::Tuning;

use crate::network::{Machine, Party};
use crate::plan::{Fault, PatronPlan, Plan, Taste};
use crate::run;
use crate::subject::Subject;
use crate::villain::Script;
use crate::violation::Violation;

const REPLICAS: u8 = 4;

/// In microseconds.
const MILLI: u64 = 1000;

/// When faults end.
const HEAL: u64 = 1500 * MILLI;

/// Faults at most.
const FAULTS: u8 = 12;

/// What each honest client asks for while there are faults, and after them.
const LOADS: u64 = 10;
const LATE_LOADS: u64 = 2;

/// Runs the world of these bytes to its end.
///
/// # Errors
/// A rule was broken.
pub fn world<S: Subject>(bytes: &[u8]) -> Result<(), Violation> {
    let mut script = Script::new(Arc::from(bytes));
    let Some(plan) = plan(&mut script) else { return Ok(()) };
    match run::plan::<S>(plan, false).violation {
        None => Ok(()),
        Some(violation) => Err(violation),
    }
}

/// `None` where there are too few bytes for one.
fn plan(script: &mut Script) -> Option<Plan> {
    let (who, limits, count) = (script.byte()?, script.byte()?, script.byte()?);
    let mut plan = Plan::quiet(REPLICAS);
    plan.seed = u64::from(who);
    plan.heal_at = HEAL;
    tighten(&mut plan.tuning, limits);
    plan.sync_max = vec![u64::from(who >> 4) * MILLI; usize::from(REPLICAS)];
    let loads =
        |taste| PatronPlan { loads: LOADS, late_loads: LATE_LOADS, taste, ..PatronPlan::idle(2) };
    plan.patrons = vec![loads(Taste::Mixed), loads(Taste::Weak)];
    for _ in 0..count % FAULTS {
        let at = (script.number()? as u64 * HEAL) >> u16::BITS;
        plan.faults.push((at, fault(script)?));
    }
    plan.faults.sort_by_key(|(at, _)| *at);
    plan.puppet = Some((ReplicaId(who % REPLICAS), script.clone()));
    Some(plan)
}

/// Limits that are reached soon, and waits that fit a world of a second.
fn tighten(tuning: &mut Tuning, limits: u8) {
    let interval = 1 << (limits & 3);
    tuning.rules.checkpoint_interval = interval;
    tuning.rules.max_speculative_slots = if limits & 4 == 0 { interval * 2 } else { 1024 };
    tuning.retained_slots = if limits & 8 == 0 { 1 } else { 64 };
    tuning.settle_bytes = if limits & 16 == 0 { 0 } else { 1 << 30 };
    tuning.commit_interval = if limits & 32 == 0 { 1 } else { 4 };
    if limits & 64 == 0 {
        tuning.checkpoint_delay_ms = 20;
    }
    tuning.turn_slots = if limits & 128 == 0 { 4 } else { 256 };
    tuning.commit_delay_ms = 10;
    tuning.status_interval_ms = 100;
    (tuning.request_timeout_min_ms, tuning.request_timeout_ms) = (75, 300);
    tuning.request_timeout_max_ms = 8000;
    (tuning.view_change_timeout_ms, tuning.view_change_timeout_max_ms) = (300, 4000);
    tuning.weak_view_delay_ms = 100;
    (tuning.fetch_grace_ms, tuning.fetch_retry_ms) = (5, 50);
}

fn fault(script: &mut Script) -> Option<Fault> {
    let (kind, which) = (script.byte()?, script.byte()?);
    let machine = Machine(which % REPLICAS);
    Some(match kind % 8 {
        0 => Fault::Crash(machine),
        1 | 2 => Fault::Restart(machine),
        3 | 4 => Fault::Split(apart(which)),
        5 => Fault::Join,
        6 => Fault::FillDisk(machine),
        _ => Fault::MakeRoom(machine),
    })
}

/// Whoever has its bit set does not hear, or is not heard by, whoever has not: replicas first, then the clients.
fn apart(mask: u8) -> Vec<(Party, Party)> {
    let parties: Vec<Party> =
        (0..REPLICAS).map(Party::Replica).chain((0..2).map(Party::Client)).collect();
    let is_inside = |index: usize| mask >> index & 1 == 1;
    let mut cuts = Vec::new();
    for (index, party) in parties.iter().enumerate() {
        for (other, of) in parties.iter().enumerate() {
            let is_cut = is_inside(index) && !is_inside(other);
            if is_cut {
                cuts.push((*party, *of));
            }
            if is_cut && mask & 0x80 == 0 {
                cuts.push((*of, *party));
            }
        }
    }
    cuts
}
