//! What one lying peer can do to the fetching of histories.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::edition::Editions;
use elea_protocol::history::extend;
use elea_protocol::id::{Digest, ReplicaId, RequestNumber, SessionId, Slot, View, WallTime};
use elea_protocol::message::{
    Branch, Level, Linked, Message, NewView, NewViewHeader, NonDeterminism, Position, Request,
    SignedRequest, SlotEntry, Status, ToClient, ViewChange, Wanted, batch_digest, changes_digest,
};
use elea_protocol::replica::{Action, Event, Target};
use elea_protocol::signature::Signer;
use elea_protocol::tuning::{Rules, Tuning};

use crate::core::{Bench, WALL, write, write_more};
use crate::members::{key, say};

/// A history made by hand, by the hashes of its slots.
struct Chain {
    slots: BTreeMap<Digest, (Slot, Linked)>,
    head: Position,
}

fn request(bench: &Bench, session: u64, number: u64) -> Arc<SignedRequest> {
    let client = key(9);
    let body = Request {
        client: client.public_key().into(),
        session: SessionId(session),
        number: RequestNumber(number),
        level: Level::Weak,
        want_final: false,
        operations: vec![Bytes::from_static(b"y")],
    };
    SignedRequest::sign(&client, bench.membership.genesis(), body)
}

impl Chain {
    /// `count` slots on top of `before`.
    fn above(before: Position, count: u64, request: impl Fn(u64) -> Arc<SignedRequest>) -> Self {
        let mut slots = BTreeMap::new();
        let mut head = before;
        for n in 1..=count {
            let mut seed = [0; 16];
            seed[..8].copy_from_slice(&n.to_le_bytes());
            let choices =
                NonDeterminism { time: WallTime(WALL), seed, ..NonDeterminism::default() };
            let requests = vec![request(n)];
            let digests: Vec<Digest> = requests.iter().map(|r| r.digest()).collect();
            let previous = head.hash;
            head = Position {
                slot: head.slot.next(),
                hash: extend(&previous, &batch_digest(&choices, &digests)),
            };
            let entry = SlotEntry { choices, requests, order: None };
            slots.insert(head.hash, (head.slot, Linked { previous, entry }));
        }
        Self { slots, head }
    }

    /// What comes back for a question: an honest replica looks at the slot, a liar does not.
    fn answer(&self, head: Position, honest: bool) -> Option<Message> {
        let (slot, _) = self.slots.get(&head.hash)?;
        if honest && *slot != head.slot {
            return None;
        }
        let mut at = head.hash;
        let mut slots = Vec::new();
        while slots.len() < 256
            && (slots.len() as u64) < head.slot.0
            && let Some((_, linked)) = self.slots.get(&at)
        {
            at = linked.previous;
            slots.push(linked.clone());
        }
        Some(Message::Branch(Branch { head, slots, stable: None }))
    }
}

fn status(bench: &mut Bench, by: u8, entered: u64, head: Position, stamp: u64) -> Vec<Action> {
    let body = Status {
        entered: View(entered),
        campaign: None,
        head,
        lock: None,
        stable: Slot(0),
        convicted: 0,
        clients: *bench.membership.client_list(),
        newest_edition: Editions::with(1..=1).newest,
        common_edition: Editions::with(1..=1).newest,
        wall: bench.now.wall,
        stamp,
    };
    let message = Message::Status(say(&bench.membership, by, body));
    hear_from(bench, by, message)
}

fn hear_from(bench: &mut Bench, by: u8, message: Message) -> Vec<Action> {
    let message = bench.membership.open_message(message).expect("signed and within bounds");
    bench.handle(Event::Peer { from: ReplicaId(by), message })
}

/// View 2 begins with this head, at the wish of its primary 2 and of 0. Both are correct.
pub(crate) fn new_view(bench: &Bench, head: Position) -> Message {
    let view = View(2);
    let change = |id: u8| {
        let (lock, stable, entered) = (None, Slot(0), View(0));
        let body = ViewChange { view, campaign: view, entered, lock, stable, head, stamp: 1 };
        say(&bench.membership, id, body)
    };
    let changes = vec![change(2), change(0)];
    let header = NewViewHeader { view, head, changes: changes_digest(&changes) };
    Message::NewView(say(&bench.membership, 2, NewView { header, changes }))
}

/// Answers every question about branches, until none is left. Gives back how many were answered.
fn serve(bench: &mut Bench, actions: Vec<Action>, truth: &Chain, lie: Option<&Chain>) -> usize {
    let mut open = actions;
    let mut answered = 0;
    while !open.is_empty() {
        let mut next = Vec::new();
        for action in open {
            let Action::Send { to: Target::One(id), message: Message::Fetch(fetch), .. } = action
            else {
                continue;
            };
            let Wanted::Branch { head, .. } = fetch.body.wanted else { continue };
            let answer = match (id.0, lie) {
                (3, Some(lie)) => lie.answer(head, false),
                (3, None) => None,
                _ => truth.answer(head, true),
            };
            if let Some(answer) = answer {
                answered += 1;
                next.extend(hear_from(bench, id.0, answer));
            }
        }
        open = next;
    }
    answered
}

/// The victim is replica 1, in view 0 with slots of its own above a common prefix; 0 and 2, both
/// correct, have entered view 2 with another history. How long until the victim enters view 2?
fn merge(own: u64, theirs: u64, poisoned: bool) -> (View, u64) {
    let mut bench = Bench::new();
    write(&mut bench, 5);
    let common = bench.head();
    write_more(&mut bench, own);
    let truth = Chain::above(common, theirs, |n| request(&bench, 8, n));
    let begin = bench.now.instant;
    // The liar says that its head, in view 0, is at slot 6 and has the hash of the others' head.
    let claim = Position { slot: Slot(common.slot.0 + 1), hash: truth.head.hash };
    let mut stamp = 0;
    let mut told = false;
    for _ in 0..80 {
        stamp += 1;
        if poisoned {
            let actions = status(&mut bench, 3, 0, claim, stamp);
            serve(&mut bench, actions, &truth, Some(&truth));
        }
        for honest in [0, 2] {
            let actions = status(&mut bench, honest, 2, truth.head, stamp);
            serve(&mut bench, actions, &truth, poisoned.then_some(&truth));
        }
        if stamp > 2 {
            // Sent with every status, for the victim is seen in a lower view.
            told = true;
            let message = new_view(&bench, truth.head);
            let actions = hear_from(&mut bench, 2, message);
            serve(&mut bench, actions, &truth, poisoned.then_some(&truth));
        }
        let until = bench.now.instant.after_ms(250);
        while bench.replica.deadline().is_some_and(|at| at <= until) {
            bench.now.instant = bench.replica.deadline().unwrap().max(bench.now.instant);
            bench.now.wall = WallTime(WALL + bench.now.instant.0 / 1000);
            let actions = bench.handle(Event::Tick);
            serve(&mut bench, actions, &truth, poisoned.then_some(&truth));
        }
        bench.now.instant = until;
        if bench.replica.entered() == View(2) {
            break;
        }
    }
    assert!(told);
    (bench.replica.entered(), bench.now.instant.micros_since(begin) / 1000)
}

/// The hash of a slot does not name the slot. Who says a true hash beside a wrong slot, and answers for
/// it, must not keep anybody from fetching what is true.
#[test]
fn true_hashes_beside_wrong_slots_keep_nobody_out_of_a_view() {
    for (own, theirs) in [(3, 5), (10, 12), (10, 300)] {
        let [honest, poisoned] = [false, true].map(|poisoned| merge(own, theirs, poisoned));
        assert_eq!(honest.0, View(2));
        assert_eq!(poisoned, honest, "own {own}, theirs {theirs}: the liar costs no time");
    }
}

/// Goes on for as long as the replica asks to be called again at once.
fn go_on(bench: &mut Bench, mut each: impl FnMut(&mut Bench, Vec<Action>)) {
    while bench.replica.deadline().is_some_and(|at| at <= bench.now.instant) {
        let actions = bench.handle(Event::Tick);
        each(bench, actions);
    }
}

/// Steps of long work in what `event` does.
fn steps(bench: &mut Bench, event: impl FnOnce(&mut Bench)) -> u64 {
    let before = bench.counters().turn_steps;
    event(bench);
    bench.counters().turn_steps - before
}

/// A history of so many invented slots is here, and can never be followed to its end.
fn deceived(length: u64) -> (Bench, Chain) {
    let mut bench = Bench::new();
    write(&mut bench, length);
    let one = request(&bench, 8, 1);
    let root = Position { slot: Slot(0), hash: Digest([7; 32]) };
    let lie = Chain::above(root, length, |_| one.clone());
    let actions = status(&mut bench, 3, 0, lie.head, 1);
    serve(&mut bench, actions, &lie, Some(&lie));
    (bench, lie)
}

#[test]
fn invented_histories_cost_no_event_anything_once_they_are_here() {
    let (mut bench, _) = deceived(3000);
    assert_eq!(bench.replica.footprint().branch_slots, 3000);
    let spare = request(&bench, 7, 3001);
    let work = steps(&mut bench, |bench| {
        for _ in 0..100 {
            bench.ask(&spare);
            bench.handle(Event::Tick);
        }
    });
    assert_eq!(work, 0, "a history that nobody adds to is not followed again");
}

#[test]
fn what_nobody_wishes_for_any_more_is_let_go_in_turns() {
    let (mut bench, _) = deceived(3000);
    let head = bench.head();
    let most = bench.replica.footprint().branch_slots;
    let work = steps(&mut bench, |bench| {
        // The liar takes back what it said.
        status(bench, 3, 0, head, 2);
        assert!(bench.replica.footprint().branch_slots < most);
        go_on(bench, |_, _| {});
    });
    assert_eq!(bench.replica.footprint().branch_slots, 0);
    assert!(work <= 3000 / 16 + 1, "{work} steps");
}

/// Who shows invented histories again and again has used up what may be fetched on its word; and a true
/// one on another's word is fetched all the same.
#[test]
fn a_liar_has_a_share_of_what_is_fetched_and_an_honest_history_gets_through() {
    let tuning = Tuning {
        rules: Rules {
            checkpoint_interval: 16,
            max_speculative_slots: 2048,
            ..Tuning::default().rules
        },
        retained_slots: 256,
        ..Tuning::default()
    };
    let mut bench = Bench::tuned(ReplicaId(1), tuning);
    write(&mut bench, 1003);
    let one = request(&bench, 8, 1);
    let mut fetched = Vec::new();
    for stamp in 1..=40u64 {
        let before = bench.counters().branch_slots;
        let root = Position { slot: Slot(0), hash: Digest([u8::try_from(stamp).unwrap(); 32]) };
        let lie = Chain::above(root, 1000, |_| one.clone());
        let actions = status(&mut bench, 3, 0, lie.head, stamp);
        serve(&mut bench, actions, &lie, Some(&lie));
        for _ in 0..2 {
            bench.now.instant = bench.now.instant.after_ms(200);
            let actions = bench.handle(Event::Tick);
            serve(&mut bench, actions, &lie, Some(&lie));
        }
        fetched.push(bench.counters().branch_slots - before);
    }
    let sum = |part: &[u64]| part.iter().sum::<u64>();
    let (first, last) = (sum(&fetched[..8]), sum(&fetched[32..]));
    assert!(first >= 4000, "what may be true is fetched: {fetched:?}");
    assert!(last <= 2500, "and ever less of what never is: {fetched:?}");
    assert!(bench.counters().branches_over_credit > 0);

    let common = bench.head();
    let truth = Chain::above(common, 400, |n| request(&bench, 8, n));
    let message = new_view(&bench, truth.head);
    let actions = hear_from(&mut bench, 2, message);
    serve(&mut bench, actions, &truth, None);
    go_on(&mut bench, |_, _| {});
    assert_eq!((bench.replica.entered(), bench.head()), (View(2), truth.head));
}

/// An honest merge of long histories: it goes on in turns, no event of a client waits for it, and nothing
/// leaves that rests on what is not executed yet.
#[test]
fn a_long_merge_is_done_in_turns() {
    const LENGTH: u64 = 3000;
    let mut bench = Bench::new();
    write(&mut bench, 5);
    let common = bench.head();
    write_more(&mut bench, LENGTH);
    let truth = Chain::above(common, LENGTH, |n| request(&bench, 8, n));
    let spare = request(&bench, 9, 1);
    let most = Tuning::default().turn_slots;
    let before = bench.counters().turn_steps;
    let message = new_view(&bench, truth.head);
    let mut open = hear_from(&mut bench, 2, message);
    let mut turns = 0;
    let mut adopted = 0;
    while bench.replica.entered() != View(2) || bench.replica.is_adopting() {
        turns += 1;
        assert!(turns < 1000, "it comes to an end");
        let asked = steps(&mut bench, |bench| {
            let actions = bench.ask(&spare);
            assert_eq!(actions.len(), 0, "nobody is answered meanwhile");
        });
        assert_eq!(asked, 0, "a client's event does not work on the merge");
        adopted += usize::from(bench.replica.is_adopting());
        let questions = std::mem::take(&mut open);
        let mut handled = false;
        for action in questions {
            let Action::Send { message: Message::Fetch(fetch), .. } = action else { continue };
            let Wanted::Branch { head, .. } = fetch.body.wanted else { continue };
            let Some(answer) = truth.answer(head, true) else { continue };
            let work = steps(&mut bench, |bench| open.extend(hear_from(bench, 2, answer)));
            assert!(work <= most, "{work} steps in one event");
            handled = true;
        }
        if !handled {
            assert!(bench.replica.deadline().is_some_and(|at| at <= bench.now.instant));
            let work = steps(&mut bench, |bench| open.extend(bench.handle(Event::Tick)));
            assert!(work <= most, "{work} steps in one event");
        }
        let rests = |action: &Action| match action {
            Action::Answer { .. } => true,
            Action::Send { message, .. } => {
                matches!(message, Message::Commit(_) | Message::Checkpoint(_) | Message::Order(_))
            }
            _ => false,
        };
        if bench.replica.is_adopting() {
            assert!(!open.iter().any(rests), "{open:?}");
        }
    }
    assert!(adopted > 10, "it was seen in the middle of it");
    assert_eq!(bench.head(), truth.head);
    assert_eq!(bench.replica.footprint().orphans as u64, LENGTH);
    // What came meanwhile waits, and is passed on like anything else.
    assert!(bench.replica.waits(&spare.body().name()));
    go_on(&mut bench, |_, _| {});
    assert_eq!(bench.replica.footprint().branch_slots, 0);
    let work = bench.counters().turn_steps - before;
    assert!(work <= 6 * LENGTH, "{work} steps for {LENGTH} slots, given up, and as many adopted");
}

/// A client that lives on both sides: what is asked for while its history is executed anew is answered
/// when that is done.
#[test]
fn requests_that_come_during_a_merge_are_answered_when_it_is_done() {
    let tuning = Tuning { turn_slots: 4, ..Tuning::default() };
    let mut bench = Bench::tuned(ReplicaId(1), tuning);
    write(&mut bench, 5);
    let common = bench.head();
    let truth = Chain::above(common, 60, |n| request(&bench, 8, n));
    let message = new_view(&bench, truth.head);
    let actions = hear_from(&mut bench, 2, message);
    serve(&mut bench, actions, &truth, None);
    while !bench.replica.is_adopting() {
        bench.handle(Event::Tick);
    }
    // Executed in the history that is adopted, but not yet; and one that is new.
    let (old, new) = (request(&bench, 8, 60), request(&bench, 8, 61));
    assert!(bench.replica.waits(&old.body().name()));
    bench.ask(&old);
    bench.ask(&new);
    let mut answered = 0;
    go_on(&mut bench, |_, actions| {
        let is_reply = |action: &&Action| {
            matches!(action, Action::Answer { message: ToClient::Replies(_), .. })
        };
        answered += actions.iter().filter(is_reply).count();
    });
    assert_eq!((bench.replica.is_adopting(), bench.head()), (false, truth.head));
    assert!(answered > 0, "the newest slots are answered anew");
    assert_eq!(bench.replica.footprint().pending, 1);
    assert!(bench.replica.waits(&new.body().name()));
}

/// Whoever signs many words gets answers to some of them: they are charged like any other answer.
#[test]
fn answers_to_words_are_charged_to_who_says_them() {
    let mut bench = Bench::new();
    write(&mut bench, 5);
    let truth = Chain::above(bench.head(), 3, |n| request(&bench, 8, n));
    let message = new_view(&bench, truth.head);
    let actions = hear_from(&mut bench, 2, message);
    serve(&mut bench, actions, &truth, None);
    assert_eq!(bench.replica.entered(), View(2));
    let old = Position { slot: Slot(0), hash: *bench.membership.genesis() };
    let new_views = |actions: &[Action]| {
        let is_new_view =
            |action: &&Action| matches!(action, Action::Send { message: Message::NewView(_), .. });
        actions.iter().filter(is_new_view).count()
    };
    let mut sent = 0;
    for stamp in 1..=6000 {
        // Of a view that this one has left: it is sent the new view.
        sent += new_views(&status(&mut bench, 3, 0, old, stamp));
    }
    assert!((1..5000).contains(&sent), "{sent} new views for 6000 words within 6 ms");
    assert!(bench.counters().answers_over_budget > 0);
    assert_eq!(new_views(&status(&mut bench, 0, 0, old, 1)), 1, "others have budgets of their own");
}

/// A client used many sessions on one side of a partition, and others on the other side: what it asked
/// for on the side that gave way can be ordered at once.
#[test]
fn orphans_of_many_sessions_can_be_ordered_at_once() {
    const EACH: u64 = 30;
    let mut bench = Bench::of(ReplicaId(1));
    write(&mut bench, 5);
    let common = bench.head();
    for number in 1..=EACH {
        let all: Vec<_> = (0..63).map(|s| request(&bench, 1000 + s, number)).collect();
        let named: Vec<_> = all.iter().collect();
        all.iter().for_each(|request| drop(bench.ask(request)));
        let (order, head) = bench.order(0, bench.head(), WALL, &named);
        bench.hear(order);
        assert_eq!(bench.head(), head);
    }
    let truth = Chain::above(common, 63, |n| request(&bench, 2000 + n, 1));
    let message = new_view(&bench, truth.head);
    let actions = hear_from(&mut bench, 2, message);
    serve(&mut bench, actions, &truth, None);
    go_on(&mut bench, |_, _| {});
    assert_eq!(bench.replica.entered(), View(2));
    assert_eq!(bench.replica.footprint().orphans as u64, 63 * EACH);
    assert_eq!(bench.replica.orderable() as u64, 63 * EACH);
}
