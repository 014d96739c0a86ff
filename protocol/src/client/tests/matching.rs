//! Which replies count, and how many it takes.

use super::*;

#[test]
fn a_weak_request_takes_f_plus_one_matching_replies_and_its_receipt_verifies() {
    let mut world = World::new();
    let (ticket, requests) = world.submit(Level::Weak, Follow::No);
    assert!(answers(&world.hear(0, &requests[0], &Says::speculative("yes"))).is_empty());
    let actions = world.hear(2, &requests[0], &Says::speculative("yes"));
    let answers = answers(&actions);
    let [(answered, answer)] = &answers[..] else { panic!("{actions:?}") };
    assert_eq!((*answered, texts(&answer.results)), (ticket, vec!["yes".to_owned()]));
    assert_eq!(answer.receipt.verify(&world.membership), Ok(Proven::Executed));
    assert_eq!(world.client.in_flight(), 0);
}

#[test]
fn a_strong_request_takes_a_strong_quorum_of_committed_replies() {
    let mut world = World::new();
    let (ticket, requests) = world.submit(Level::Strong, Follow::No);
    for by in 0..4 {
        assert!(answers(&world.hear(by, &requests[0], &Says::speculative("yes"))).is_empty());
    }
    for by in 0..2 {
        assert!(answers(&world.hear(by, &requests[0], &Says::committed("yes"))).is_empty());
    }
    let progress = world.client.progress(ticket).expect("under way");
    assert_eq!((progress.matching, progress.needed, progress.sent), (2, 3, 1));
    let actions = world.hear(3, &requests[0], &Says::committed("yes"));
    let answer = &answers(&actions)[0].1;
    assert_eq!(answer.proven, Proven::Final);
    assert_eq!(answer.receipt.verify(&world.membership), Ok(Proven::Final));
    assert!(finals(&actions).is_empty(), "a strong answer is final as it is");
}

#[test]
fn one_replica_counts_once_however_often_it_speaks() {
    let mut world = World::new();
    let (_, requests) = world.submit(Level::Weak, Follow::No);
    for _ in 0..5 {
        assert!(answers(&world.hear(1, &requests[0], &Says::speculative("yes"))).is_empty());
    }
    // Its newest word replaces the one before, so this leaves nobody who says yes.
    world.hear(1, &requests[0], &Says::speculative("no"));
    assert!(answers(&world.hear(2, &requests[0], &Says::speculative("yes"))).is_empty());
    assert_eq!(answers(&world.hear(3, &requests[0], &Says::speculative("yes"))).len(), 1);
}

#[test]
fn an_older_view_does_not_replace_a_newer_one() {
    let mut world = World::new();
    let (_, requests) = world.submit(Level::Weak, Follow::No);
    let newer = Says { view: 3, ..Says::speculative("yes") };
    world.hear(1, &requests[0], &newer);
    world.hear(1, &requests[0], &Says::speculative("yes"));
    assert_eq!(world.client.counters().stale, 1);
    assert!(answers(&world.hear(2, &requests[0], &Says::speculative("yes"))).is_empty());
    assert_eq!(answers(&world.hear(2, &requests[0], &newer)).len(), 1);
}

#[test]
fn replies_that_differ_in_any_field_do_not_match() {
    let first = Says::speculative("yes");
    let others = [
        Says { view: 1, ..first.clone() },
        Says { slot: 2, ..first.clone() },
        Says { index: 1, ..first.clone() },
        Says::speculative("no"),
        Says::committed("yes"),
    ];
    for other in others {
        let mut world = World::new();
        let (_, requests) = world.submit(Level::Weak, Follow::No);
        world.hear(0, &requests[0], &first);
        assert!(answers(&world.hear(1, &requests[0], &other)).is_empty(), "{other:?}");
    }
}

#[test]
fn a_weak_request_that_was_committed_before_its_client_heard_of_it_is_answered_in_a_small_part() {
    // f + 1 replicas are cut off after a commit: they say "committed" from then on, and the
    // client would never be answered if that counted for less than "executed".
    let mut world = World::new();
    let (_, requests) = world.submit(Level::Weak, Follow::No);
    world.hear(0, &requests[0], &Says::committed("yes"));
    let actions = world.hear(1, &requests[0], &Says::committed("yes"));
    let answer = &answers(&actions)[0].1;
    assert_eq!(answer.proven, Proven::Executed);
    assert_eq!(answer.receipt.verify(&world.membership), Ok(Proven::Executed));
}

#[test]
fn a_reply_about_another_content_session_or_replica_is_dropped() {
    let mut world = World::new();
    let (_, requests) = world.submit(Level::Weak, Follow::No);
    let good = world.reply(0, &requests[0], &Says::speculative("yes")).into_inner().reply;
    let other_content = Reply { request: Digest([7; 32]), ..good.clone() };
    let other_session =
        Reply { name: RequestName { session: SessionId(1), ..good.name }, ..good.clone() };
    for foreign in [other_content, other_session] {
        for by in 0..4 {
            let reply = world.sign(by, foreign.clone());
            let actions = world.handle(Event::Reply { from: ReplicaId(by), reply });
            assert!(answers(&actions).is_empty());
        }
    }
    assert_eq!(world.client.counters().foreign, 8);
    // Somebody else's word on one's own connection.
    let reply = world.sign(0, good.clone());
    world.handle(Event::Reply { from: ReplicaId(3), reply });
    assert_eq!(world.client.counters().malformed, 1);
    // A number that was never used.
    let name = RequestName { number: RequestNumber(9), ..good.name };
    let reply = world.sign(0, Reply { name, ..good });
    world.handle(Event::Reply { from: ReplicaId(0), reply });
    assert_eq!(world.client.counters().late, 1);
}

#[test]
fn a_reply_with_too_few_or_too_many_results_is_malformed() {
    let mut world = World::new();
    let (_, requests) = world.submit(Level::Weak, Follow::No);
    for by in 0..4 {
        let says = Says { results: vec!["a", "b"], ..Says::speculative("") };
        assert!(answers(&world.hear(by, &requests[0], &says)).is_empty());
    }
    assert_eq!(world.client.counters().malformed, 4);
}

#[test]
fn forgotten_results_match_and_one_replica_that_still_has_them_is_enough() {
    let mut world = World::new();
    let (_, requests) = world.submit(Level::Weak, Follow::No);
    let forgotten = Says { forgotten: true, ..Says::speculative("large") };
    world.hear(0, &requests[0], &forgotten);
    assert!(answers(&world.hear(1, &requests[0], &forgotten)).is_empty());
    let actions = world.hear(2, &requests[0], &Says::speculative("large"));
    let answer = &answers(&actions)[0].1;
    assert_eq!(texts(&answer.results), vec!["large".to_owned()]);
    assert_eq!(answer.receipt.votes.len(), 3);
    assert_eq!(answer.receipt.verify(&world.membership), Ok(Proven::Executed));
}

#[test]
fn results_that_nobody_has_any_more_are_reported_after_a_wait() {
    let mut world = World::new();
    let (ticket, requests) = world.submit(Level::Weak, Follow::No);
    let forgotten = Says { forgotten: true, ..Says::speculative("large") };
    world.hear(0, &requests[0], &forgotten);
    world.hear(1, &requests[0], &forgotten);
    let (_, actions) = world.wake();
    assert_eq!(failures(&actions), vec![(ticket, Failure::ResultForgotten)]);
    assert_eq!(Failure::ResultForgotten.outcome(), Outcome::Executed);
    assert!(world.client.is_whole());
}

#[test]
fn final_is_same_or_reordered() {
    for (last, same) in [
        (Says::committed("yes"), true),
        (Says::committed("no"), false),
        (Says { slot: 5, view: 1, ..Says::committed("yes") }, false),
        (Says { view: 1, ..Says::committed("yes") }, true),
    ] {
        let mut world = World::new();
        let (ticket, requests) = world.submit(Level::Weak, Follow::Yes);
        assert!(requests[0].body().want_final);
        for by in 0..2 {
            world.hear(by, &requests[0], &Says::speculative("yes"));
        }
        assert_eq!(world.client.unanswered(), 0);
        for by in 0..2 {
            assert!(finals(&world.hear(by, &requests[0], &last)).is_empty());
        }
        let finals = finals(&world.hear(2, &requests[0], &last));
        let results = last.results.iter().map(|r| Bytes::from_static(r.as_bytes())).collect();
        let expected = if same { Finality::Same } else { Finality::Reordered { results } };
        assert_eq!(finals, vec![(ticket, expected)]);
        assert_eq!(world.client.in_flight(), 0);
    }
}

#[test]
fn a_weak_request_answered_by_committed_replies_only_is_answered_and_then_final() {
    let mut world = World::of(7, 2, |_| {});
    let (ticket, requests) = world.submit(Level::Weak, Follow::Yes);
    let mut all = Vec::new();
    for by in 0..5 {
        all.extend(world.hear(by, &requests[0], &Says::committed("yes")));
    }
    assert_eq!(answers(&all).len(), 1);
    assert_eq!(finals(&all), vec![(ticket, Finality::Same)]);
}

#[test]
fn finality_may_be_asked_for_later_and_let_go() {
    let mut world = World::new();
    let (ticket, requests) = world.submit(Level::Weak, Follow::MayAsk);
    assert!(!requests[0].body().want_final);
    for by in 0..2 {
        world.hear(by, &requests[0], &Says::speculative("yes"));
    }
    assert_eq!(world.client.in_flight(), 1);
    assert_eq!(world.client.deadline(), None, "nobody wants to know yet");
    let again = sent(&world.handle(Event::WantFinal(ticket)));
    assert_eq!(again[0].digest(), requests[0].digest(), "the same request, asked about again");
    assert!(world.client.deadline().is_some());
    world.handle(Event::Cancel(ticket));
    assert_eq!((world.client.in_flight(), world.client.deadline()), (0, None));
}
