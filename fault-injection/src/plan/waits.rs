//! Worlds that are slow, each in one way, and replicas that are lazy. All have the settings that
//! replicas have by default: nothing is to be tuned.

use elea_protocol::id::ReplicaId;
use elea_protocol::quorum::ClusterSize;
use elea_protocol::tuning::{Rules, Tuning};

use super::draft::{Draft, Weather};
use super::{Judgement, MILLI, PatronPlan, Plan, Taste};
use crate::network::{Lateness, Link, Machine};

const SECOND: u64 = 1000 * MILLI;

/// Villains that are as slow as they may be, or lie about how slow others are.
const LAZY: &[&str] = &["procrastinator", "limper", "false-pulse"];

/// The world of a seed.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    let mut draft = Draft::new(6, seed, Weather::Fair);
    calm(&mut draft);
    match seed % 8 {
        0 => slow_disks(&mut draft),
        1 => slow_disk_of_one(&mut draft),
        2 => continent(&mut draft),
        3 => slow_lines(&mut draft),
        4 => lazy(&mut draft),
        5 => slow_for_no_reason(&mut draft),
        6 => late_then_lazy(&mut draft),
        _ => storm(&mut draft),
    }
    draft.done()
}

/// A LAN with good disks, and clients that ask for something now and then.
fn calm(draft: &mut Draft) {
    let plan = &mut draft.plan;
    plan.size = ClusterSize::most_tolerant(4).expect("a valid size");
    plan.tuning = Tuning {
        rules: Rules { checkpoint_interval: 16, ..Rules::default() },
        ..Tuning::default()
    };
    plan.link = Link::steady(MILLI);
    plan.is_first_start = false;
    plan.begins_with_state = false;
    plan.skews = vec![0; 4];
    plan.sync_max = vec![4 * MILLI; 4];
    plan.heal_at = 20 * SECOND;
    let taste = *draft.rng.pick(&[Taste::Weak, Taste::Strong]);
    plan.patrons = vec![PatronPlan {
        sessions: 1,
        loads: 60,
        late_loads: 0,
        taste,
        one_shot: false,
        key_of: None,
    }];
}

/// Every sync takes a second, more or less.
fn slow_disks(draft: &mut Draft) {
    let slowest = draft.rng.between(1000, 2000) * MILLI;
    draft.plan.sync_max = vec![slowest; 4];
    draft.plan.shapes.push("slow disks");
    draft.plan.judgement = Some(Judgement::Steady { views: 2, later: 0 });
}

/// The first primary has a slow disk, and the others wait for it no longer than they must.
fn slow_disk_of_one(draft: &mut Draft) {
    draft.plan.sync_max[0] = draft.rng.between(1000, 2000) * MILLI;
    draft.plan.shapes.push("slow disk of one");
    let liar = Machine(2);
    if draft.rng.one_in(2) {
        draft.plan.villains.push((ReplicaId(liar.0), "false-pulse"));
        judged_by_the_second_slowest(draft, &[liar], 20 * SECOND);
    } else {
        judged_by_the_second_slowest(draft, &[], 20 * SECOND);
    }
}

fn continent(draft: &mut Draft) {
    draft.plan.link = Link { jitter: 20 * MILLI, ..Link::steady(325 * MILLI) };
    draft.plan.shapes.push("650 ms round trips");
    draft.plan.judgement = Some(Judgement::Steady { views: 2, later: 0 });
}

/// All lines of a replica carry a little, and it is cut off for a while, so that there is something
/// to fetch.
fn slow_lines(draft: &mut Draft) {
    let bytes_per_ms = draft.rng.between(8, 125);
    let link = Link { bytes_per_ms, ..draft.plan.link };
    let slow = Machine(3).party();
    for other in draft.machines().into_iter().map(Machine::party).filter(|other| *other != slow) {
        draft.plan.special.push((other, slow, link));
        draft.plan.special.push((slow, other, link));
    }
    let cuts = draft
        .machines()
        .into_iter()
        .map(Machine::party)
        .filter(|other| *other != slow)
        .flat_map(|other| [(other, slow), (slow, other)])
        .collect();
    draft.fault(2 * SECOND, super::Fault::Split(cuts));
    draft.fault(15 * SECOND, super::Fault::Join);
    draft.plan.tuning.retained_slots = 4;
    draft.plan.shapes.push("slow lines");
    draft.plan.judgement = Some(Judgement::Steady { views: 2, later: 0 });
}

/// As many as may be are as slow as they may be.
fn lazy(draft: &mut Draft) {
    let name = *draft.rng.pick(LAZY);
    let place = u8::from(draft.rng.one_in(4));
    draft.plan.villains.push((ReplicaId(place), name));
    if draft.rng.one_in(3) {
        let slow = draft.rng.between(20, 200) * MILLI;
        draft.plan.sync_max = vec![slow; 4];
    }
    draft.plan.shapes.push("lazy primaries");
    judged_by_the_second_slowest(draft, &[Machine(place)], 20 * SECOND);
}

/// Every order of every primary is late, and nothing that is measured tells. Patience grows until
/// it is above that, and comes back slowly. It may have to grow only after the first while, where orders
/// have not been waited for before: from 150 ms to more than 900 ms each of the four replicas doubles its own
/// three times, and each view that ends may have grown that of one of them alone.
fn slow_for_no_reason(draft: &mut Draft) {
    let by = draft.rng.between(400, 900) * MILLI;
    draft.plan.late_orders = Some(Lateness { by, until: u64::MAX });
    draft.plan.shapes.push("late orders");
    draft.plan.judgement = Some(Judgement::Steady { views: 8, later: 16 });
}

/// The same for a while; and then there is a primary that is lazy. What the others' patience grew by
/// must not protect it for ever.
fn late_then_lazy(draft: &mut Draft) {
    let (by, until) = (draft.rng.between(400, 900) * MILLI, 12 * SECOND);
    draft.plan.late_orders = Some(Lateness { by, until });
    let place = u8::try_from(draft.rng.index(4)).expect("one of four");
    draft.plan.villains.push((ReplicaId(place), "limper"));
    draft.plan.shapes.push("late, then lazy");
    judged_by_the_second_slowest(draft, &[Machine(place)], 60 * SECOND);
}

/// L3, where these are no correct replicas.
fn judged_by_the_second_slowest(draft: &mut Draft, faulty: &[Machine], after: u64) {
    let plan = &mut draft.plan;
    plan.patrons[0].taste = Taste::Weak;
    let way = 2 * (plan.link.delay + plan.link.jitter);
    let mut turnarounds: Vec<u64> = plan
        .machines()
        .filter(|machine| !faulty.contains(machine))
        // A record may have to wait for the sync of another one.
        .map(|machine| way + 2 * plan.sync_max[machine.index()])
        .collect();
    turnarounds.sort_unstable();
    let second_slowest = turnarounds[turnarounds.len() - 2];
    // What is expected of a primary is an estimate, up to half above what it is of; and the way
    // between client and replicas, and their disks, come on top.
    let bound = plan.tuning.request_timeout_min_ms * MILLI + 3 * second_slowest + second_slowest;
    plan.judgement = Some(Judgement::Lazy { bound, after });
}

/// Everything breaks for some seconds, and is then as it was.
fn storm(draft: &mut Draft) {
    let (from, until) = (4 * SECOND, 10 * SECOND);
    draft.plan.heal_at = until;
    draft.plan.patrons[0].loads = 120;
    let mut at = from;
    while at < until {
        let machines = draft.machines();
        let one = *draft.rng.pick(&machines);
        let lasts = draft.rng.between(50, 1500) * MILLI;
        if draft.rng.one_in(2) {
            draft.fault(at, super::Fault::Crash(one));
            draft.fault(at + lasts, super::Fault::Restart(one));
        } else {
            let clients = 1;
            let shape = super::shape::any(&mut draft.rng, &machines, clients, one);
            draft.episode(at, at + lasts, shape, false);
        }
        at += draft.rng.between(100, 2000) * MILLI;
    }
    draft.plan.shapes.push("storm");
    draft.plan.judgement = Some(Judgement::NoHangover { from: SECOND, until: from });
}
