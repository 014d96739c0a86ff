//! Reads that need no slot: whom they are asked of, which replies agree, and what comes of it where none do.

use super::*;
use crate::codec::Canonical as _;
use crate::id::Digest;
use crate::message::{NoReply, Past, Position, Query, QueryReply};

/// What a played replica has found.
#[derive(Clone, Copy, Debug)]
struct Finds {
    view: u64,
    from: u64,
    to: u64,
    result: &'static str,
    /// Which history it is, where it is asked with a past.
    history: u8,
}

const YES: Finds = Finds { view: 0, from: 2, to: 5, result: "yes", history: 1 };

/// A slot of a history.
fn at(history: u8, slot: u64) -> Position {
    let mut hash = [history; 32];
    hash[..8].copy_from_slice(&slot.to_le_bytes());
    Position { slot: Slot(slot), hash: Digest(hash) }
}

/// To whom a query was sent.
fn asked(actions: &[Action]) -> Vec<(u8, Query)> {
    let sent = actions.iter().filter_map(|action| match action {
        Action::Send { to: Some(to), message: ToReplica::Query(query) } => {
            Some((to.0, query.clone()))
        }
        _ => None,
    });
    sent.collect()
}

fn seen(actions: &[Action]) -> Option<(Ticket, Vec<String>, u64)> {
    actions.iter().find_map(|action| match action {
        Action::Seen { ticket, seen } => Some((*ticket, texts(&seen.results), seen.slot.0)),
        _ => None,
    })
}

fn must_be_ordered(actions: &[Action]) -> Option<&Submission> {
    actions.iter().find_map(|action| match action {
        Action::MustOrder(submission) => Some(submission),
        _ => None,
    })
}

impl World {
    /// Asks, and gives back whom, and what.
    fn ask(&mut self, level: Level) -> (Ticket, Vec<u8>, Query) {
        self.ask_with(level, None)
    }

    fn ask_with(&mut self, level: Level, past: Option<Past>) -> (Ticket, Vec<u8>, Query) {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        let nonce = [u8::try_from(self.next_ticket).expect("small") - 1; 16];
        let operations = operation("op");
        let ask = Ask { ticket, level, operations, past, nonce, alone: false };
        let asked = asked(&self.handle(Event::Ask(ask)));
        let query = asked.first().expect("somebody is asked").1.clone();
        (ticket, asked.into_iter().map(|(to, _)| to).collect(), query)
    }

    fn finds(&mut self, by: u8, query: &Query, finds: Finds) -> Vec<Action> {
        let Finds { view, from, to, result, history } = finds;
        let slots = QueryReply::slots_to_name(Slot(from), Slot(to));
        let slots = slots.into_iter().filter(|_| query.past.is_some());
        let reply = QueryReply {
            view: View(view),
            session: SESSION,
            query: query.digest(),
            from: Slot(from),
            to: Slot(to),
            positions: slots.map(|slot| at(history, slot.0)).collect(),
            results: operation(result),
        };
        let key = &self.keys[usize::from(by)];
        let signed = sign_replies(key, self.membership.genesis(), ReplicaId(by), vec![reply]);
        let reply = self.membership.open_reply(signed[0].clone());
        let reply = reply.expect("signed by a member");
        self.handle(Event::QueryReply { from: ReplicaId(by), reply })
    }

    fn finds_nothing(&mut self, by: u8, query: &Query) -> Vec<Action> {
        self.has_no_reply(by, query, NoReply::Unable)
    }

    fn has_no_reply(&mut self, by: u8, query: &Query, why: NoReply) -> Vec<Action> {
        self.handle(Event::NoQueryReply { from: ReplicaId(by), query: query.digest(), why })
    }
}

#[test]
fn it_is_asked_of_a_quorum_and_answered_where_all_have_found_the_same_after_one_slot() {
    let mut world = World::new();
    let (ticket, to, query) = world.ask(Level::Strong);
    assert_eq!(to, [0, 1, 2]);
    world.finds(0, &query, YES);
    world.finds(1, &query, Finds { from: 1, to: 3, ..YES });
    let actions = world.finds(2, &query, Finds { from: 3, to: 9, ..YES });
    assert_eq!(seen(&actions), Some((ticket, vec!["yes".to_owned()], 3)));
    assert_eq!((world.client.queries(), world.client.deadline()), (0, None));
}

#[test]
fn a_weak_one_takes_a_weak_quorum() {
    let mut world = World::new();
    let (ticket, to, query) = world.ask(Level::Weak);
    assert_eq!(to, [0, 1]);
    world.finds(1, &query, YES);
    let actions = world.finds(0, &query, YES);
    assert_eq!(seen(&actions).map(|(ticket, ..)| ticket), Some(ticket));
}

#[test]
fn equal_results_of_no_common_slot_or_of_several_views_are_no_agreement() {
    for other in [
        Finds { from: 6, to: 9, ..YES },
        Finds { from: 0, to: 1, ..YES },
        Finds { view: 1, ..YES },
        Finds { result: "no", ..YES },
    ] {
        let mut world = World::new();
        let (ticket, _, query) = world.ask(Level::Strong);
        world.finds(0, &query, YES);
        world.finds(1, &query, YES);
        // The fourth is asked as well, and finds what the third did: two and two.
        let actions = world.finds(2, &query, other);
        assert_eq!(asked(&actions).len(), 1, "{other:?}");
        let actions = world.finds(3, &query, other);
        assert_eq!(seen(&actions), None, "{other:?}");
        let submission = must_be_ordered(&actions).expect("it has to be ordered");
        assert_eq!((submission.ticket, &submission.operations), (ticket, &query.operations));
        assert_eq!(world.client.queries(), 0);
    }
}

#[test]
fn who_has_no_reply_is_not_waited_for() {
    let mut world = World::new();
    let (_, _, query) = world.ask(Level::Strong);
    world.finds(0, &query, YES);
    // The two that are left are too few.
    assert_eq!(asked(&world.finds_nothing(1, &query))[0].0, 3);
    world.finds(3, &query, YES);
    assert!(seen(&world.finds(2, &query, YES)).is_some());
    // Where nobody has one, of those asked first nor of the others, it is ordered at once.
    let (_, _, query) = world.ask(Level::Weak);
    let all: Vec<_> = (0..8).flat_map(|by| world.finds_nothing(by % 4, &query)).collect();
    assert!(must_be_ordered(&all).is_some());
}

#[test]
fn who_is_silent_is_asked_in_the_second_place_for_a_while() {
    let mut world = World::new();
    let (_, _, query) = world.ask(Level::Strong);
    world.finds(0, &query, YES);
    world.finds(1, &query, YES);
    let (waited, actions) = world.wake();
    assert_eq!((waited, asked(&actions)[0].0), (50, 3));
    assert!(seen(&world.finds(3, &query, YES)).is_some());
    for _ in 0..8 {
        let (_, to, query) = world.ask(Level::Strong);
        assert!(!to.contains(&2), "{to:?}");
        to.iter().for_each(|by| drop(world.finds(*by, &query, YES)));
    }
    world.now.instant = world.now.instant.after_ms(6_000);
    let (_, to, _) = world.ask(Level::Strong);
    assert_eq!(to.len(), 3);
    let first: BTreeSet<u8> = (0..4).flat_map(|_| world.ask(Level::Weak).1).collect();
    assert!(first.contains(&2), "its silence is forgotten");
}

#[test]
fn a_reply_counts_once_and_must_have_a_result_for_each_operation() {
    let mut world = World::new();
    let (_, _, query) = world.ask(Level::Weak);
    world.finds(0, &query, YES);
    assert!(seen(&world.finds(0, &query, YES)).is_none());
    assert!(seen(&world.finds(3, &query, YES)).is_none(), "nobody asked it");
    assert_eq!(world.client.counters().malformed, 2);
}

#[test]
fn what_is_read_is_not_older_than_what_was_told_before() {
    let mut world = World::new();
    let (_, requests) = world.submit(Level::Weak, Follow::No);
    for by in 0..2 {
        world.hear(by, &requests[0], &Says { slot: 7, ..Says::speculative("yes") });
    }
    let (_, to, query) = world.ask(Level::Weak);
    assert_eq!(query.after, Slot(7));
    let newer = Finds { to: 9, ..YES };
    to.iter().for_each(|by| drop(world.finds(*by, &query, newer)));
    assert_eq!(world.ask(Level::Strong).2.after, Slot(9));
}

#[test]
fn what_nobody_waits_for_is_forgotten() {
    let mut world = World::new();
    let (ticket, _, query) = world.ask(Level::Strong);
    assert_eq!(world.client.progress(ticket).map(|progress| progress.needed), Some(3));
    world.handle(Event::Cancel(ticket));
    assert_eq!((world.client.queries(), world.client.deadline()), (0, None));
    assert!(world.finds(0, &query, YES).is_empty());
}

/// A position of a history, as what was seen before.
fn past() -> Past {
    let mut past = Past::default();
    past.note_read(at(1, 3));
    past
}

#[test]
fn with_a_past_the_answer_names_the_oldest_slot_after_which_enough_have_one_hash() {
    let mut world = World::new();
    let (_, requests) = world.submit(Level::Weak, Follow::No);
    for by in 0..2 {
        world.hear(by, &requests[0], &Says { slot: 70, ..Says::speculative("yes") });
    }
    let (ticket, to, query) = world.ask_with(Level::Weak, Some(past()));
    assert_eq!((to.len(), &query.past), (2, &Some(past())));
    assert_eq!(query.after, Slot(0), "after a merge what was seen may stand in earlier slots");
    world.finds(to[0], &query, Finds { from: 3, to: 20, ..YES });
    let actions = world.finds(to[1], &query, Finds { from: 4, to: 15, ..YES });
    let named = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::Seen { ticket, seen } => Some((*ticket, seen.at)),
            _ => None,
        })
    };
    assert_eq!(named(&actions), Some((ticket, Some(at(1, 8)))));
    // Without one no history is named.
    let (ticket, to, query) = world.ask(Level::Weak);
    let newer = Finds { to: 80, ..YES };
    let actions: Vec<_> = to.iter().flat_map(|by| world.finds(*by, &query, newer)).collect();
    assert_eq!(named(&actions), Some((ticket, None)));
}

#[test]
fn with_a_past_equal_results_of_different_histories_are_no_agreement_and_nothing_is_ordered() {
    for other in [
        Finds { history: 2, ..YES },
        // No slot of the one is one of the other.
        Finds { from: 6, to: 90, ..YES },
        Finds { view: 1, ..YES },
        Finds { result: "no", ..YES },
    ] {
        let mut world = World::new();
        let (ticket, to, query) = world.ask_with(Level::Weak, Some(past()));
        world.finds(to[0], &query, YES);
        let actions = world.finds(to[1], &query, other);
        let more: Vec<u8> = asked(&actions).iter().map(|(to, _)| *to).collect();
        assert_eq!(more.len(), 2, "{other:?}");
        world.has_no_reply(more[0], &query, NoReply::NotYet);
        let actions = world.has_no_reply(more[1], &query, NoReply::Unknown);
        assert!(must_be_ordered(&actions).is_none());
        let [Action::NotSeen { ticket: of, without }] = &actions[..] else { panic!("{actions:?}") };
        let without: BTreeSet<_> = without.iter().map(|(by, why)| (by.0, *why)).collect();
        assert_eq!(*of, ticket);
        let expected = [(more[0], NoReply::NotYet), (more[1], NoReply::Unknown)];
        assert_eq!(without, expected.into());
        assert_eq!((world.client.queries(), world.client.deadline()), (0, None));
    }
}

#[test]
fn a_reply_that_names_no_history_or_one_that_was_not_asked_for_is_of_no_use() {
    for with in [true, false] {
        let mut world = World::new();
        let (_, _, query) = world.ask_with(Level::Weak, with.then(past));
        let turned = Query { past: (!with).then(past), ..query.clone() };
        let digest = query.digest();
        let reply = QueryReply {
            view: View(0),
            session: SESSION,
            query: digest,
            from: Slot(2),
            to: Slot(2),
            positions: turned.past.iter().map(|_| at(1, 2)).collect(),
            results: operation("yes"),
        };
        let key = &world.keys[0];
        let signed = sign_replies(key, world.membership.genesis(), ReplicaId(0), vec![reply]);
        let reply = world.membership.open_reply(signed[0].clone()).expect("signed by a member");
        world.handle(Event::QueryReply { from: ReplicaId(0), reply });
        assert_eq!(world.client.counters().malformed, 1);
    }
}
