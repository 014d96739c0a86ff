//! Timelines, and what is owed on them.

use std::collections::BTreeSet;

use elea_protocol::id::ReplicaId;

use super::*;
use crate::clock::Setting;
use crate::condition::Ill;
use crate::line::Link;
use crate::tap::Party;

const SECOND: u64 = 1_000_000;

fn terms() -> Terms {
    Terms { bound: Duration::from_secs(3), grace: Duration::from_secs(2), least: 99.0 }
}

fn size() -> ClusterSize {
    ClusterSize::most_tolerant(4).expect("a size")
}

fn replica(id: u8) -> ReplicaId {
    ReplicaId(id)
}

/// What was wrong from which second on. It ends after a minute.
fn timeline(entries: &[(u64, &[Ill])]) -> Timeline {
    let mut timeline = Timeline::new(4, 2);
    entries.iter().for_each(|(second, ills)| timeline.is_now(second * SECOND, ills));
    timeline.ends(60 * SECOND);
    timeline
}

fn asked(level: Level, second: u64) -> Asked {
    let pace = Pace::Steady;
    Asked { client: 0, level, pace, at: second * SECOND, answered: None, bytes: 0 }
}

/// The seconds in which client 0 was owed an answer.
fn owed_seconds(timeline: &Timeline, level: Level) -> Vec<u64> {
    let mut look = Look::at(timeline);
    let is_owed =
        |second: &u64| owed(&terms(), size(), &mut look, &asked(level, *second)).is_some();
    (0..60).filter(is_owed).collect()
}

/// These, and those in between.
fn seconds(spans: &[(u64, u64)]) -> Vec<u64> {
    spans.iter().flat_map(|(from, to)| *from..=*to).collect()
}

fn split(one: &[Party], other: &[Party]) -> Ill {
    let side = |parties: &[Party]| parties.iter().copied().collect::<BTreeSet<_>>();
    Ill::Split { sides: [side(one), side(other)], abrupt: true }
}

fn parties(ids: &[u8], clients: &[usize]) -> Vec<Party> {
    let replicas = ids.iter().map(|id| Party::Replica(ReplicaId(*id)));
    replicas.chain(clients.iter().map(|number| Party::Client(*number))).collect()
}

#[test]
fn where_all_is_whole_an_answer_is_owed_but_for_the_beginning_and_the_end() {
    for level in [Level::Weak, Level::Strong] {
        assert_eq!(owed_seconds(&timeline(&[]), level), seconds(&[(2, 57)]));
    }
}

#[test]
fn one_replica_that_is_down_is_not_missed_and_two_are_by_strong_operations() {
    let one = timeline(&[(20, &[Ill::Down(replica(3))]), (30, &[])]);
    assert_eq!(owed_seconds(&one, Level::Strong), seconds(&[(2, 57)]));
    let two = [Ill::Down(replica(3)), Ill::Down(replica(0))];
    let two = timeline(&[(20, &two), (30, &[])]);
    // Until it is sure to be answered before, and when they have been back for long enough.
    assert_eq!(owed_seconds(&two, Level::Strong), seconds(&[(2, 16), (32, 57)]));
    assert_eq!(owed_seconds(&two, Level::Weak), seconds(&[(2, 57)]));
}

#[test]
fn the_same_replicas_must_be_there_all_the_time() {
    // One after the other: at each instant three serve, but not the same ones for long.
    let down = |id| vec![Ill::Down(replica(id))];
    let all: Vec<(u64, Vec<Ill>)> = (0..4).map(|id| (20 + 2 * u64::from(id), down(id))).collect();
    let mut entries: Vec<(u64, &[Ill])> = all.iter().map(|(at, ills)| (*at, &ills[..])).collect();
    entries.push((28, &[]));
    let rolling = timeline(&entries);
    assert_eq!(owed_seconds(&rolling, Level::Strong), seconds(&[(2, 18), (28, 57)]));
}

#[test]
fn halves_owe_their_clients_weak_answers_and_nobody_strong_ones() {
    let ill = [split(&parties(&[0, 1], &[0]), &parties(&[2, 3], &[1]))];
    let halves = timeline(&[(20, &ill), (40, &[])]);
    // Nobody is in both halves of the time, so around the cut it is the half that stays.
    assert_eq!(owed_seconds(&halves, Level::Weak), seconds(&[(2, 57)]));
    assert_eq!(owed_seconds(&halves, Level::Strong), seconds(&[(2, 16), (42, 57)]));
}

#[test]
fn a_client_is_owed_nothing_by_those_it_does_not_reach() {
    let ill = [split(&parties(&[0, 1, 2], &[1]), &parties(&[3], &[0]))];
    let apart = timeline(&[(20, &ill), (40, &[])]);
    for level in [Level::Weak, Level::Strong] {
        assert_eq!(owed_seconds(&apart, level), seconds(&[(2, 16), (42, 57)]));
    }
}

#[test]
fn who_is_heard_in_one_direction_only_does_not_count() {
    for ill in [Ill::Mute(replica(1)), Ill::Deaf(replica(1)), Ill::Dropped(replica(1))] {
        let one = timeline(&[(20, std::slice::from_ref(&ill)), (40, &[])]);
        assert_eq!(owed_seconds(&one, Level::Strong), seconds(&[(2, 57)]), "the others do");
        let two = timeline(&[(20, &[ill, Ill::Down(replica(2))]), (40, &[])]);
        assert_eq!(owed_seconds(&two, Level::Strong), seconds(&[(2, 16), (42, 57)]));
    }
    let resets = timeline(&[(20, &[Ill::Resets]), (40, &[])]);
    assert_eq!(owed_seconds(&resets, Level::Weak), seconds(&[(2, 16), (42, 57)]));
}

#[test]
fn what_is_slow_everywhere_is_allowed_for_and_one_slow_replica_is_not() {
    let slow = |who| Ill::SlowDisk { who, delay: Duration::from_millis(500) };
    let bound = |ill: Ill| {
        let timeline = timeline(&[(10, &[ill])]);
        owed(&terms(), size(), &mut Look::at(&timeline), &asked(Level::Strong, 30))
    };
    assert_eq!(bound(slow(Some(replica(2)))), Some(Duration::from_secs(3)));
    assert_eq!(bound(slow(None)), Some(Duration::from_secs(9)));
    let delay = Link { delay: Duration::from_millis(200), ..Link::default() };
    let late = |who| Ill::Slow { who, link: delay };
    assert_eq!(bound(late(Some(Party::Replica(replica(0))))), Some(Duration::from_secs(3)));
    assert_eq!(bound(late(None)), Some(Duration::from_secs(5)));
    // All are connected while it gets slow, and an answer that comes later is allowed for.
    let slow = timeline(&[(20, &[slow(None)])]);
    assert_eq!(owed_seconds(&slow, Level::Strong), seconds(&[(2, 51)]));
}

#[test]
fn a_slow_line_is_allowed_for_by_what_it_has_to_carry() {
    let line = |rate| Link { bytes_per_second: Some(rate), ..Link::default() };
    let bound = |who, rate, bytes| {
        let ill = [Ill::Slow { who: Some(who), link: line(rate) }];
        let timeline = timeline(&[(0, &ill)]);
        let asked = Asked { bytes, ..asked(Level::Weak, 20) };
        owed(&terms(), size(), &mut Look::at(&timeline), &asked).map(|bound| bound.as_secs())
    };
    let client = Party::Client(0);
    assert_eq!(bound(client, 31_250, 0), Some(7));
    assert_eq!(bound(client, 31_250, 100_000), Some(16));
    assert_eq!(bound(client, 31_250, 1_000_000), None, "longer than anything is known");
    assert_eq!(bound(client, 1_000, 0), None, "that is no line");
    assert_eq!(bound(Party::Replica(replica(0)), 31_250, 1_000_000), Some(3), "the others do it");
}

#[test]
fn late_answers_count_where_they_were_owed_and_do_not_change_what_is() {
    let down = [Ill::Down(replica(0)), Ill::Down(replica(1))];
    let timeline = timeline(&[(20, &down), (30, &[])]);
    let took = |second: u64, millis: Option<u64>| {
        let answered = millis.map(|millis| second * SECOND + millis * 1000);
        Asked { answered, ..asked(Level::Strong, second) }
    };
    let all = [
        took(10, Some(5)),
        took(11, Some(3_000)),
        took(12, Some(3_001)),
        took(13, None),
        // Not owed, whether it was answered or not.
        took(18, Some(5)),
        took(19, Some(13_000)),
        took(25, None),
    ];
    let service = Service::judge(&terms(), size(), &timeline, &all);
    assert_eq!(service.steady[1], Share { asked: 7, owed: 4, in_time: 2 });
    assert_eq!(service.late.len(), 2);
    let spell = Spell { from: 12 * SECOND, to: 13 * SECOND, count: [0, 2] };
    assert_eq!(service.spells(), [spell]);
    assert_eq!(service.eager, [Share::default(), Share::default()]);
}

#[test]
fn a_run_fails_where_too_few_were_owed_or_served() {
    let service = |owed, in_time| {
        let share = Share { asked: 1000, owed, in_time };
        let both = [share.clone(), share];
        Service { steady: both.clone(), eager: both, late: Vec::new() }
    };
    assert_eq!(service(900, 891).verdict(&terms()), Ok(()));
    let why = service(900, 890).verdict(&terms()).expect_err("too few in time");
    assert!(why.contains("98.89 %"), "{why}");
    for owed in [99, 0] {
        let why = service(owed, owed).verdict(&terms()).expect_err("too few owed");
        assert!(why.contains("too few to show"), "{why}");
    }
}

#[test]
fn clocks_that_agree_owe_answers_whatever_they_show_and_others_are_not_missed() {
    let clock = |id, seconds| {
        let setting = Setting::off_by(seconds);
        Ill::Clock { who: replica(id), setting }
    };
    let owed = |entries: &[(u64, &[Ill])]| {
        let timeline = timeline(entries);
        [Level::Weak, Level::Strong].map(|level| owed_seconds(&timeline, level))
    };
    let (always, not_then) = (seconds(&[(2, 57)]), seconds(&[(2, 16), (42, 57)]));
    let both = || [always.clone(), always.clone()];

    assert_eq!(owed(&[(20, &[clock(3, 3600)]), (40, &[])]), both());
    assert_eq!(owed(&[(20, &[clock(3, 3600), clock(3, 0)]), (40, &[])]), both(), "the last counts");
    let one_of_three = [clock(3, 3600), Ill::Down(replica(0))];
    assert_eq!(owed(&[(20, &one_of_three), (40, &[])]), [always.clone(), not_then.clone()]);
    let site = [clock(2, 3600), clock(3, 3600)];
    assert_eq!(owed(&[(20, &site), (40, &[])]), [always.clone(), not_then.clone()]);
    // It is with each of the others that three have to agree.
    let row = [clock(1, 3), clock(2, 6), clock(3, 9)];
    assert_eq!(owed(&[(20, &row), (40, &[])]), [always, not_then]);

    // All by the same. While they are set nobody knows who goes by which.
    let all: Vec<Ill> = (0..4).map(|id| clock(id, 3600)).collect();
    let doubt: Vec<Ill> = (0..4).map(|id| Ill::ClockInDoubt(replica(id))).collect();
    let then = seconds(&[(2, 16), (24, 36), (44, 57)]);
    let entries: [(u64, &[Ill]); 4] = [(20, &doubt), (22, &all), (40, &doubt), (42, &[])];
    assert_eq!(owed(&entries), [then.clone(), then]);
}
