//! Windows, batches, retries, refusals, settling.

use super::*;
use crate::message::{OPERATIONS_MAX, REQUEST_BYTES_MAX};

fn submissions(world: &mut World, level: Level, count: usize) -> Vec<Submission> {
    (0..count).map(|n| world.submission(level, Follow::No, &format!("op {n}"))).collect()
}

fn unusable(actions: &[Action]) -> Option<(Unusable, Vec<Ticket>)> {
    actions.iter().find_map(|action| match action {
        Action::SessionUnusable { reason, unsent } => {
            Some((*reason, unsent.iter().map(|one| one.ticket).collect()))
        }
        _ => None,
    })
}

#[test]
fn what_is_not_answered_is_sent_again_with_a_back_off_and_a_cap() {
    let mut world = World::new();
    let (_, requests) = world.submit(Level::Strong, Follow::No);
    let mut waits = Vec::new();
    for _ in 0..5 {
        let (waited, actions) = world.wake();
        assert_eq!(sent(&actions), requests);
        waits.push(waited);
    }
    assert_eq!(waits, [100, 200, 400, 400, 400]);
    assert_eq!(world.client.counters().resent, 5);
}

#[test]
fn a_busy_replica_slows_the_next_sending_once_however_often_it_says_so() {
    let mut world = World::new();
    let (ticket, requests) = world.submit(Level::Strong, Follow::No);
    let name = requests[0].body().name();
    for by in [1, 1, 1, 2] {
        world.handle(Event::Busy { from: ReplicaId(by), name });
    }
    assert_eq!(world.client.progress(ticket).expect("under way").busy.len(), 2);
    let (waited, actions) = world.wake();
    assert_eq!((waited, sent(&actions).len()), (200, 1));
}

#[test]
fn numbers_stay_within_the_window_and_the_rest_waits_and_travels_together() {
    let mut world = World::of(4, 1, |setup| (setup.window, setup.pipeline) = (2, 8));
    let mut requests = Vec::new();
    let mut tickets = Vec::new();
    for _ in 0..5 {
        let (ticket, out) = world.submit(Level::Weak, Follow::No);
        tickets.push(ticket);
        requests.extend(out);
    }
    assert_eq!((requests.len(), world.client.queued()), (2, 3));
    // The second is answered, but the lowest one not answered still holds the window.
    for by in 0..2 {
        let actions = world.hear(by, &requests[1], &Says::speculative("b"));
        assert!(sent(&actions).is_empty());
    }
    world.hear(0, &requests[0], &Says::speculative("a"));
    let out = sent(&world.hear(1, &requests[0], &Says::speculative("a")));
    assert_eq!(out.len(), 1, "the three that waited share one signature");
    assert_eq!(out[0].body().operations.len(), 3);
    assert_eq!(out[0].body().number, RequestNumber(3));
    let says = Says { results: vec!["c", "d", "e"], index: 4, ..Says::speculative("") };
    world.hear(0, &out[0], &says);
    let answers = answers(&world.hear(1, &out[0], &says));
    let split: Vec<_> =
        answers.iter().map(|(t, a)| (*t, texts(&a.results).remove(0), a.index)).collect();
    let expected = [("c", 4), ("d", 5), ("e", 6)].map(|(text, index)| (text.to_owned(), index));
    let expected: Vec<_> =
        tickets[2..].iter().zip(expected).map(|(t, (text, index))| (*t, text, index)).collect();
    assert_eq!(split, expected);
}

#[test]
fn submissions_that_come_together_share_a_request_unless_they_want_something_else() {
    let mut world = World::new();
    let mut all = submissions(&mut world, Level::Weak, 3);
    all.extend(submissions(&mut world, Level::Strong, 2));
    all.extend(submissions(&mut world, Level::Weak, 1));
    let requests = sent(&world.handle(Event::Submit(all)));
    let shapes: Vec<_> =
        requests.iter().map(|r| (r.body().level, r.body().operations.len())).collect();
    assert_eq!(shapes, [(Level::Weak, 3), (Level::Strong, 2), (Level::Weak, 1)]);
}

#[test]
fn a_request_carries_no_more_than_it_may() {
    let mut world = World::new();
    let many = submissions(&mut world, Level::Weak, MERGED_MAX + 1);
    let counts: Vec<_> = sent(&world.handle(Event::Submit(many)))
        .iter()
        .map(|request| request.body().operations.len())
        .collect();
    assert_eq!(counts, [MERGED_MAX, 1]);

    let mut some = submissions(&mut world, Level::Weak, 6);
    some[2].alone = true;
    let sizes = sent(&world.handle(Event::Submit(some)));
    let sizes: Vec<_> = sizes.iter().map(|request| request.body().operations.len()).collect();
    assert_eq!(sizes, [2, 1, 3], "who must be alone is");

    let mut one = world.submission(Level::Weak, Follow::No, "");
    one.operations = vec![Bytes::from_static(b"x"); OPERATIONS_MAX];
    let alone = sent(&world.handle(Event::Submit(vec![one])));
    assert_eq!(alone.iter().map(|r| r.body().operations.len()).collect::<Vec<_>>(), [1024]);

    let mut large = submissions(&mut world, Level::Weak, 3);
    for one in &mut large {
        one.operations = vec![Bytes::from(vec![0; REQUEST_BYTES_MAX / 2])];
    }
    assert_eq!(sent(&world.handle(Event::Submit(large))).len(), 2);

    let mut none = world.submission(Level::Weak, Follow::No, "");
    none.operations = Vec::new();
    let mut too_large = world.submission(Level::Weak, Follow::No, "");
    too_large.operations = vec![Bytes::from(vec![0; REQUEST_BYTES_MAX + 1])];
    let expected = [&none, &too_large].map(|one| (one.ticket, Failure::OutOfBounds)).to_vec();
    assert_eq!(failures(&world.handle(Event::Submit(vec![none, too_large]))), expected);
}

#[test]
fn the_queue_is_bounded_at_its_edge() {
    let mut world = World::of(4, 1, |setup| setup.window = 1);
    world.submit(Level::Weak, Follow::No);
    let all = submissions(&mut world, Level::Weak, QUEUED_MAX + 1);
    let last = all.last().expect("many").ticket;
    assert_eq!(failures(&world.handle(Event::Submit(all))), [(last, Failure::QueueFull)]);
    assert_eq!(Failure::QueueFull.outcome(), Outcome::NotExecuted);
}

#[test]
fn what_cannot_grow_does_not_wait_for_the_pipeline() {
    let mut world = World::of(4, 1, |setup| setup.pipeline = 1);
    world.submit(Level::Strong, Follow::No);
    let (_, none) = world.submit(Level::Weak, Follow::No);
    assert!(none.is_empty(), "others may join it");
    let (_, requests) = world.submit(Level::Strong, Follow::No);
    let levels: Vec<_> = requests.iter().map(|request| request.body().level).collect();
    assert_eq!(levels, [Level::Weak], "nothing joins it any more");

    let many = submissions(&mut world, Level::Strong, 2 * MERGED_MAX);
    let requests = sent(&world.handle(Event::Submit(many)));
    let sizes: Vec<_> = requests.iter().map(|request| request.body().operations.len()).collect();
    assert_eq!((sizes, world.client.queued()), (vec![MERGED_MAX, MERGED_MAX], 1));
}

#[test]
fn what_is_large_waits_for_the_pipeline() {
    let mut world = World::of(4, 1, |setup| setup.pipeline = 1);
    let large = "v".repeat(REQUEST_BYTES_MAX / 2 + 1);
    let many = (0..4).map(|_| world.submission(Level::Weak, Follow::No, &large)).collect();
    let requests = sent(&world.handle(Event::Submit(many)));
    assert_eq!((requests.len(), world.client.queued()), (1, 3));
}

#[test]
fn requests_that_wait_long_do_not_hold_up_the_pipeline_but_a_full_window_ends_the_session() {
    let mut world = World::of(4, 1, |setup| (setup.window, setup.pipeline) = (3, 1));
    world.submit(Level::Strong, Follow::No);
    let (_, none) = world.submit(Level::Weak, Follow::No);
    assert!(none.is_empty(), "one at a time while all is well");
    let (_, actions) = world.wake();
    assert_eq!(sent(&actions).len(), 2, "the strong one again, and the weak one");
    world.submit(Level::Weak, Follow::No);
    let (fourth, _) = world.submit(Level::Strong, Follow::No);
    let given_back = (0..50).find_map(|_| unusable(&world.wake().1));
    assert_eq!(given_back, Some((Unusable::Stalled, vec![fourth])));
    assert_eq!(world.client.in_flight(), 3, "what was sent goes on");
    let ticket = Ticket(77);
    let late = Submission { ticket, ..world.submission(Level::Weak, Follow::No, "x") };
    let refused = failures(&world.handle(Event::Submit(vec![late])));
    assert_eq!(refused, [(ticket, Failure::SessionClosed)]);
}

#[test]
fn a_refusal_takes_f_plus_one_of_one_reason() {
    let mut world = World::new();
    let (ticket, requests) = world.submit(Level::Weak, Follow::No);
    assert!(world.refuse(0, &requests[0], RefusalReason::NameUsed).is_empty());
    assert!(world.refuse(0, &requests[0], RefusalReason::NameUsed).is_empty());
    assert!(world.refuse(1, &requests[0], RefusalReason::SessionRetired).is_empty());
    let actions = world.refuse(2, &requests[0], RefusalReason::NameUsed);
    let failure = Failure::Refused(RefusalReason::NameUsed);
    assert_eq!(failures(&actions), [(ticket, failure)]);
    assert_eq!(failure.outcome(), Outcome::Unknown);
    assert!(unusable(&actions).is_some());
    assert!(!world.client.is_whole(), "whether its number was executed is unknown");
}

#[test]
fn a_refusal_that_may_pass_keeps_what_was_sent_and_hands_back_what_was_not() {
    let reason = RefusalReason::WindowExceeded;
    let mut world = World::of(4, 1, |setup| setup.window = 1);
    let (sent_one, requests) = world.submit(Level::Weak, Follow::No);
    let (queued, _) = world.submit(Level::Weak, Follow::No);
    world.refuse(0, &requests[0], reason);
    let actions = world.refuse(1, &requests[0], reason);
    assert_eq!(unusable(&actions), Some((Unusable::Refused(reason), vec![queued])));
    assert!(failures(&actions).is_empty());
    let progress = world.client.progress(sent_one).expect("still under way");
    assert_eq!(progress.refused.len(), 2);
    assert_eq!(sent(&world.wake().1), requests, "it may execute yet");
    for by in 0..2 {
        world.hear(by, &requests[0], &Says::speculative("yes"));
    }
    assert!(world.client.is_whole());
}

#[test]
fn a_full_history_is_a_reason_to_wait() {
    let mut world = World::new();
    let (ticket, requests) = world.submit(Level::Weak, Follow::No);
    for by in 0..4 {
        let actions = world.refuse(by, &requests[0], RefusalReason::HistoryFull);
        assert!(actions.is_empty());
    }
    assert_eq!(world.client.progress(ticket).expect("under way").refused.len(), 4);
    assert_eq!(world.client.unusable(), None);
}

#[test]
fn what_was_executed_long_ago_is_reported_as_executed() {
    let mut world = World::new();
    let (ticket, requests) = world.submit(Level::Weak, Follow::No);
    world.refuse(0, &requests[0], RefusalReason::ResultForgotten);
    let actions = world.refuse(1, &requests[0], RefusalReason::ResultForgotten);
    assert_eq!(failures(&actions), [(ticket, Failure::ResultForgotten)]);
    assert!(world.client.is_whole());
}

#[test]
fn a_request_whose_caller_has_gone_is_sent_until_it_is_executed() {
    let mut world = World::of(4, 1, |setup| setup.window = 1);
    let (first, requests) = world.submit(Level::Weak, Follow::No);
    let (second, _) = world.submit(Level::Weak, Follow::No);
    world.handle(Event::Cancel(first));
    world.handle(Event::Cancel(second));
    assert_eq!(world.client.queued(), 0, "never sent, so it is gone");
    assert_eq!(sent(&world.wake().1), requests);
    for by in 0..2 {
        assert!(answers(&world.hear(by, &requests[0], &Says::speculative("yes"))).is_empty());
    }
    assert_eq!((world.client.in_flight(), world.client.deadline()), (0, None));
}

#[test]
fn new_sessions_lie_where_neither_liars_nor_stragglers_alone_say() {
    let world = World::new();
    let size = world.membership.size();
    let (client, old) = (world.client_id(), SessionId::first_of(7));
    let ask = |words: &[(u8, bool, u64)], next| {
        let mut inquiry = Inquiry::new(client, old, RequestNumber(next));
        assert!(matches!(inquiry.question(), ToReplica::AskSession(session) if session == old));
        for (by, has_left, generation) in words {
            inquiry.hear(world.report(*by, old, *has_left, *generation));
            assert!(inquiry.has_heard(ReplicaId(*by)));
        }
        inquiry.found(size).map(|found| (found.may_go_on, found.opening.generation()))
    };
    assert_eq!(ask(&[], 4), None);
    assert_eq!(ask(&[(3, false, 9)], 4), None, "one may lie");
    assert_eq!(ask(&[(3, false, 9), (3, false, 8)], 4), None, "and twice");
    assert_eq!(ask(&[(3, false, 9), (2, false, 8)], 4), Some((true, 8)));
    let highest = SessionId::GENERATION_MAX;
    assert_eq!(ask(&[(0, false, highest), (1, false, 4), (2, false, 5)], 4), Some((true, 5)));
    assert_eq!(ask(&[(0, false, 0), (1, false, 4), (2, false, 5)], 4), Some((true, 4)));
    assert_eq!(ask(&[(0, true, 4), (1, false, 4), (2, false, 4)], 4), Some((false, 4)));
    // All of them have executed number 3.
    assert_eq!(ask(&[(0, false, 4), (1, false, 4)], 3), Some((false, 4)), "somebody used it");
    let mut inquiry = Inquiry::new(client, SessionId(1), RequestNumber::FIRST);
    for by in 0..3 {
        inquiry.hear(world.report(by, old, false, 5));
    }
    assert_eq!(inquiry.found(size), None, "reports on another session");
}
