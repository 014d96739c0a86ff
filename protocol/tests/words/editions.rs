//! Editions, as one replica of four hears of them: it is told of slots that go over to a newer one.

use std::sync::Arc;

use elea_protocol::edition::{Edition, Editions};
use elea_protocol::id::{ReplicaId, Slot, View, WallTime};
use elea_protocol::message::{
    Commit, CommitCertificate, Message, NewView, NewViewHeader, NonDeterminism, Position,
    SignedRequest, SlotEntry, Slots, Status, ViewChange, changes_digest,
};
use elea_protocol::replica::{Action, Event};

use crate::core::{Bench, WALL};
use crate::members::{certificate, say};

const ONE: Edition = Edition { protocol: 1, application: 1 };
const TWO: Edition = Edition { protocol: 1, application: 2 };

fn choices(edition: Edition) -> NonDeterminism {
    NonDeterminism { time: WallTime(WALL), edition, ..NonDeterminism::default() }
}

/// What `by` says of itself: where it stands, and what its program executes.
fn status(bench: &Bench, by: u8, head: Position, newest_edition: Edition, stamp: u64) -> Message {
    let body = Status {
        entered: View(0),
        campaign: None,
        head,
        lock: None,
        stable: Slot(0),
        convicted: 0,
        clients: *bench.membership.client_list(),
        newest_edition,
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
fn nobody_follows_a_primary_that_leaves_somebody_behind_until_others_have() {
    let (mut bench, at_one, request) = stage(Editions::with(1..=2));
    bench.hear_from(3, status(&bench, 3, at_one, ONE, 1));
    let (order, head) = bench.order_with(0, at_one, choices(TWO), &[&request]);
    bench.hear(order);
    assert_eq!(bench.head(), at_one, "r3 does not execute it");
    assert_eq!(bench.counters().order_breaks_rules, 0, "and it may be right");

    // One of those who have it may be a liar.
    bench.hear_from(0, status(&bench, 0, head, TWO, 1));
    bench.handle(Event::Tick);
    assert_eq!(bench.head(), at_one);
    bench.hear_from(2, status(&bench, 2, head, TWO, 1));
    bench.handle(Event::Tick);
    assert_eq!(bench.head(), head, "a correct one has judged it");
}

#[test]
fn an_order_that_waited_is_taken_when_the_last_program_is_a_new_one() {
    let (mut bench, at_one, request) = stage(Editions::with(1..=2));
    bench.hear_from(3, status(&bench, 3, at_one, ONE, 1));
    let (order, head) = bench.order_with(0, at_one, choices(TWO), &[&request]);
    bench.hear(order);
    bench.hear_from(3, status(&bench, 3, at_one, TWO, 2));
    assert_eq!(bench.head(), head);
}

#[test]
fn an_edition_that_was_left_behind_does_not_come_again() {
    let (mut bench, at_one, request) = stage(Editions::with(1..=2));
    let third = bench.request(3, b"c");
    bench.ask(&third);
    let (order, head) = bench.order_with(0, at_one, choices(TWO), &[&request]);
    bench.hear(order);
    assert_eq!(bench.head(), head);
    for fallen in [ONE, Edition::NONE, Edition { protocol: 0, application: 2 }] {
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
            bench.hear_from(by, status(&bench, by, head, newer, 1));
        }
        bench.handle(Event::Tick);
        assert_eq!(bench.head(), at_one, "{editions}");
        assert!(bench.counters().order_of_unknown_edition > 0);
        assert!(bench.replica.in_quarantine().is_none(), "its state is right");
    }
}

/// View 2 begins with this head, at the wish of its primary 2 and of 0.
fn new_view(bench: &Bench, head: Position) -> Message {
    let view = View(2);
    let change = |id: u8| {
        let (lock, stable, entered) = (None, Slot(0), View(0));
        let body = ViewChange { view, campaign: view, entered, lock, stable, head, stamp: 9 };
        say(&bench.membership, id, body)
    };
    let changes = vec![change(2), change(0)];
    let header = NewViewHeader { view, head, changes: changes_digest(&changes) };
    Message::NewView(say(&bench.membership, 2, NewView { header, changes }))
}

#[test]
fn who_is_kept_out_of_a_view_by_an_edition_says_so() {
    let (mut bench, at_one, request) = stage(Editions::with(1..=1));
    let (_, head) = bench.order_with(0, at_one, choices(TWO), &[&request]);
    let entry = SlotEntry { choices: choices(TWO), requests: vec![request], order: None };
    let linked = elea_protocol::message::Linked { previous: at_one.hash, entry };
    let branch = elea_protocol::message::Branch { head, slots: vec![linked], stable: None };
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
