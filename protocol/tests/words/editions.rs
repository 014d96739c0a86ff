//! Editions, as one replica of four hears of them: it is told of slots that go over to a newer one.

use std::sync::Arc;

use elea_protocol::edition::{Edition, Editions};
use elea_protocol::history::extend;
use elea_protocol::id::{ReplicaId, Slot, View, WallTime};
use elea_protocol::message::{
    Branch, Commit, CommitCertificate, Linked, Message, NonDeterminism, Position, SignedRequest,
    SlotEntry, Slots, Status, batch_digest,
};
use elea_protocol::replica::{Action, Event};

use crate::core::{Bench, WALL};
use crate::liar::new_view;
use crate::members::{certificate, say};

const ONE: Edition = Edition { protocol: 1, application: 1 };
const TWO: Edition = Edition { protocol: 1, application: 2 };

fn choices(edition: Edition) -> NonDeterminism {
    NonDeterminism { time: WallTime(WALL), edition, ..NonDeterminism::default() }
}

/// What `by` says: where it stands, what its program executes, and what it has known all to execute.
fn status(
    bench: &Bench,
    by: u8,
    head: Position,
    (newest_edition, common_edition): (Edition, Edition),
    stamp: u64,
) -> Message {
    let body = Status {
        entered: View(0),
        campaign: None,
        head,
        lock: None,
        stable: Slot(0),
        convicted: 0,
        clients: *bench.membership.client_list(),
        newest_edition,
        common_edition,
        wall: WallTime(WALL),
        stamp,
    };
    Message::Status(say(&bench.membership, by, body))
}

/// Replica 1 of a program that executes these, with slot 1 of edition 1.1 executed, and a request that waits.
fn stage(editions: Editions) -> (Bench, Position, Arc<SignedRequest>) {
    let mut bench = Bench::executing(ReplicaId(1), editions);
    let (first, second) = (bench.request(1, b"a"), bench.request(2, b"b"));
    bench.ask(&first);
    bench.ask(&second);
    let (order, head) = bench.order_with(0, bench.head(), choices(ONE), &[&first]);
    bench.hear(order);
    assert_eq!(bench.head(), head);
    (bench, head, second)
}

#[test]
fn a_primary_that_goes_over_is_followed_on_the_word_of_a_correct_replica_that_all_can() {
    let (mut bench, at_one, request) = stage(Editions::with(1..=2));
    let (order, head) = bench.order_with(0, at_one, choices(TWO), &[&request]);
    bench.hear(order);
    assert_eq!(bench.head(), at_one, "nothing is known of the others");
    assert_eq!(bench.counters().order_breaks_rules, 0, "and it may be right");
    // A liar may say so, and that it has the slot; and that all execute 1.2 does not follow from some words.
    bench.hear_from(0, status(&bench, 0, head, (TWO, TWO), 1));
    bench.hear_from(2, status(&bench, 2, at_one, (TWO, ONE), 1));
    assert_eq!(bench.head(), at_one);
    bench.hear_from(2, status(&bench, 2, at_one, (TWO, TWO), 2));
    assert_eq!(bench.head(), head, "one of two is correct");
}

#[test]
fn who_has_known_all_to_execute_it_needs_no_others_and_does_not_forget() {
    let (mut bench, at_one, request) = stage(Editions::with(1..=2));
    for by in [0, 2, 3] {
        bench.hear_from(by, status(&bench, by, at_one, (TWO, ONE), 1));
    }
    // A liar says another thing now.
    bench
        .hear_from(3, status(&bench, 3, at_one, (Edition { protocol: 0, application: 0 }, ONE), 2));
    let (order, head) = bench.order_with(0, at_one, choices(TWO), &[&request]);
    bench.hear(order);
    assert_eq!(bench.head(), head);
}

#[test]
fn old_words_that_somebody_else_plays_back_are_not_believed() {
    let (mut bench, at_one, request) = stage(Editions::with(1..=2));
    // All of it is signed, and was true once: r0 shows it to a replica that has just started.
    for by in [0, 2, 3] {
        bench.hear_from(0, status(&bench, by, at_one, (TWO, TWO), 1));
    }
    let (order, _) = bench.order_with(0, at_one, choices(TWO), &[&request]);
    bench.hear(order);
    assert_eq!(bench.head(), at_one);
}

#[test]
fn what_f_others_say_of_programs_is_not_believed_and_numbers_are_taken_by_themselves() {
    let far = Edition { protocol: u16::MAX, application: u16::MAX };
    let none = Edition { protocol: 0, application: 0 };
    for lie in [
        far,
        none,
        Edition { protocol: 0, application: 2 },
        Edition { protocol: 2, application: 1 },
    ] {
        let (mut bench, at_one, request) = stage(Editions::with(1..=2));
        bench.hear_from(3, status(&bench, 3, at_one, (lie, lie), 1));
        bench.hear_from(2, status(&bench, 2, at_one, (TWO, ONE), 1));
        let (order, _) = bench.order_with(0, at_one, choices(TWO), &[&request]);
        bench.hear(order);
        assert_eq!(bench.head(), at_one, "{lie}");
        // Nor does it keep the edition that there is from going on.
        bench.hear_from(0, status(&bench, 0, at_one, (TWO, ONE), 1));
        let (order, head) = bench.order_with(0, at_one, choices(ONE), &[&request]);
        let mut fresh = stage(Editions::with(1..=2)).0;
        fresh.hear_from(3, status(&fresh, 3, at_one, (lie, lie), 1));
        fresh.hear(order);
        assert_eq!(fresh.head(), head, "{lie}");
    }
}

#[test]
fn an_edition_that_was_left_behind_does_not_come_again() {
    let (mut bench, at_one, request) = stage(Editions::with(1..=2));
    for by in [0, 2, 3] {
        bench.hear_from(by, status(&bench, by, at_one, (TWO, ONE), 1));
    }
    let third = bench.request(3, b"c");
    bench.ask(&third);
    let (order, head) = bench.order_with(0, at_one, choices(TWO), &[&request]);
    bench.hear(order);
    assert_eq!(bench.head(), head);
    for fallen in
        [ONE, Edition { protocol: 0, application: 2 }, Edition { protocol: 1, application: 0 }]
    {
        let (order, _) = bench.order_with(0, head, choices(fallen), &[&third]);
        bench.hear(order);
        assert_eq!(bench.head(), head, "{fallen}");
    }
    assert_eq!(bench.counters().order_breaks_rules, 3);
}

#[test]
fn what_a_program_does_not_execute_is_not_executed_whatever_certifies_it() {
    for editions in [Editions::with(1..=1), Editions::with(1..=2)] {
        let (mut bench, at_one, request) = stage(editions);
        let newer = Edition { application: editions.newest.application + 1, ..ONE };
        let (order, head) = bench.order_with(0, at_one, choices(newer), &[&request]);
        bench.hear(order);
        let commit = Commit { view: View(0), slot: head.slot, hash: head.hash };
        let certificate: CommitCertificate = certificate(&bench.membership, commit, &[0, 2, 3]);
        bench.hear(Message::Certificate(certificate.clone()));
        let entry =
            SlotEntry { choices: choices(newer), requests: vec![request.clone()], order: None };
        let (from, entries) = (head.slot, vec![entry]);
        bench.hear(Message::Slots(Slots { from, entries, certificate: Some(certificate) }));
        for by in [0, 2, 3] {
            bench.hear_from(by, status(&bench, by, head, (newer, newer), 1));
        }
        bench.handle(Event::Tick);
        assert_eq!(bench.head(), at_one, "{editions}");
        assert!(bench.counters().order_of_unknown_edition > 0);
        assert!(bench.replica.in_quarantine().is_none(), "its state is right");
    }
}

#[test]
fn who_is_kept_out_of_a_view_by_an_edition_says_so() {
    let (mut bench, at_one, request) = stage(Editions::with(1..=1));
    let (_, head) = bench.order_with(0, at_one, choices(TWO), &[&request]);
    let entry = SlotEntry { choices: choices(TWO), requests: vec![request], order: None };
    let linked = Linked { previous: at_one.hash, entry };
    let branch = Branch { head, slots: vec![linked], stable: None };
    let mut said = bench.hear_from(2, new_view(&bench, head));
    said.extend(bench.hear_from(2, Message::Branch(branch)));
    for _ in 0..200 {
        bench.now.instant.0 += 50_000;
        said.extend(bench.handle(Event::Tick));
    }
    assert_eq!((bench.replica.entered(), bench.head()), (View(0), at_one));
    let suspects = |action: &Action| match action {
        Action::Send { message: Message::Suspect(suspect), .. } => suspect.body.view == View(2),
        _ => false,
    };
    assert!(said.iter().any(suspects), "it cannot enter view 2: {said:?}");
}

/// Slots of these editions above `before`, each with one request, as a branch from the end downwards.
fn branch(bench: &Bench, before: Position, editions: &[Edition]) -> (Position, Message) {
    let mut head = before;
    let mut slots = Vec::new();
    for (number, edition) in (10..).zip(editions) {
        let request = bench.request(number, b"z");
        let digest = batch_digest(&choices(*edition), &[request.digest()]);
        let entry = SlotEntry { choices: choices(*edition), requests: vec![request], order: None };
        slots.push(Linked { previous: head.hash, entry });
        head = Position { slot: head.slot.next(), hash: extend(&head.hash, &digest) };
    }
    slots.reverse();
    (head, Message::Branch(Branch { head, slots, stable: None }))
}

#[test]
fn no_history_that_a_liar_makes_up_is_executed_by_rules_that_there_are_not() {
    let edition = |protocol, application| Edition { protocol, application };
    let paths: [&[Edition]; 5] = [
        &[edition(0, 0), edition(0, 1), ONE],
        &[ONE, edition(1, 0), ONE],
        &[ONE, TWO, ONE],
        &[edition(0, 9), edition(9, 0), edition(1, 1)],
        &[ONE, edition(9, 9), edition(9, 9)],
    ];
    for path in paths {
        let mut bench = Bench::executing(ReplicaId(1), Editions::with(1..=1));
        let genesis = bench.head();
        let (head, branch) = branch(&bench, genesis, path);
        bench.hear_from(2, new_view(&bench, head));
        bench.hear_from(2, branch);
        for _ in 0..50 {
            bench.now.instant.0 += 50_000;
            bench.handle(Event::Tick);
        }
        assert_eq!(bench.head(), genesis, "{path:?}");
    }
    // And one that there is is entered, or the above would prove nothing.
    let mut bench = Bench::executing(ReplicaId(1), Editions::with(1..=1));
    let (head, branch) = branch(&bench, bench.head(), &[ONE, ONE, ONE]);
    bench.hear_from(2, new_view(&bench, head));
    bench.hear_from(2, branch);
    bench.handle(Event::Tick);
    assert_eq!((bench.head(), bench.replica.entered()), (head, View(2)));
}
