//! Clocks and lists of clients that differ, as one replica of four hears of them.

use std::sync::Arc;

use elea_protocol::edition::Editions;
use elea_protocol::id::{ClientId, ReplicaId, Slot, View, WallTime};
use elea_protocol::membership::Membership;
use elea_protocol::message::{Clients, Message, Position, RefusalReason, Requests, Status};
use elea_protocol::replica::Action;
use elea_protocol::signature::Signer as _;

use crate::core::{Bench, WALL, refusals};
use crate::members::{key, say};

fn client(secret: u8) -> ClientId {
    key(secret).public_key().into()
}

/// What `by` says of itself: that its list is this one, and its clock shows this.
fn status(bench: &Bench, by: u8, list: &Membership, wall: u64, stamp: u64) -> Message {
    let body = Status {
        entered: View(0),
        campaign: None,
        head: Position { slot: Slot(0), hash: *bench.membership.genesis() },
        lock: None,
        stable: Slot(0),
        convicted: 0,
        clients: *list.client_list(),
        newest_edition: Editions::with(1..=1).newest,
        common_edition: Editions::with(1..=1).newest,
        wall: WallTime(wall),
        stamp,
    };
    Message::Status(say(&bench.membership, by, body))
}

fn asks_for_a_list(actions: &[Action]) -> bool {
    actions.iter().any(|action| match action {
        Action::Send { message: Message::Fetch(fetch), .. } => {
            fetch.body.wanted == elea_protocol::message::Wanted::Clients
        }
        _ => false,
    })
}

#[test]
fn a_stranger_stands_in_a_slot_only_if_a_weak_quorum_of_others_lists_it() {
    // Here only another client is listed; r0 and r3 list client 9 as well.
    let mut bench = Bench::listing(ReplicaId(1), [client(10)].into());
    let more = bench.membership.listing([client(9), client(10)].into());
    let listed = || {
        Clients({
            let mut all = vec![client(9), client(10)];
            all.sort();
            all
        })
    };
    let request = bench.request(1, b"a");
    let (order, head) = bench.order(0, bench.head(), WALL, &[&request]);
    bench.hear(order);
    bench.hear(Message::Requests(Requests(vec![request.clone()])));
    assert_eq!(bench.head().slot, Slot(0), "nobody is known to list it");
    assert!(bench.counters().order_of_stranger > 0);
    assert_eq!(bench.counters().order_breaks_rules, 0, "and it may be right");

    let actions = bench.hear_from(0, status(&bench, 0, &more, WALL, 1));
    assert!(asks_for_a_list(&actions), "its list is another one: {actions:?}");
    bench.hear_from(0, Message::Clients(listed()));
    assert_eq!(bench.head().slot, Slot(0), "a liar could say so, too");
    // A list that is not the one named counts for nothing.
    bench.hear_from(3, status(&bench, 3, &bench.membership.listing([client(11)].into()), WALL, 1));
    bench.hear_from(3, Message::Clients(listed()));
    assert_eq!(bench.head().slot, Slot(0));
    bench.hear_from(3, status(&bench, 3, &more, WALL, 2));
    bench.hear_from(3, Message::Clients(listed()));
    assert_eq!(bench.head(), head, "one of the two is correct");
}

#[test]
fn a_client_that_too_few_list_is_refused_and_nothing_waits_for_it() {
    let mut bench = Bench::listing(ReplicaId(1), [client(9), client(10)].into());
    let less = bench.membership.listing([client(10)].into());
    let request = bench.request(1, b"a");
    for by in [0, 2, 3] {
        bench.hear_from(by, status(&bench, by, &less, WALL, 1));
        bench.hear_from(by, Message::Clients(Clients(vec![client(10)])));
    }
    let actions = bench.ask(&request);
    assert_eq!(refusals(&actions), [RefusalReason::UnknownClient]);
    assert_eq!(bench.replica.footprint().pending, 0);
    // Nor is it taken from a peer that passes it on.
    bench.hear(Message::Requests(Requests(vec![request])));
    assert_eq!(bench.replica.footprint().pending, 0);
    assert_eq!(bench.counters().strangers, 1);
}

#[test]
fn lists_out_of_order_or_without_end_are_malformed() {
    let bench = Bench::new();
    let opens = |clients: Vec<ClientId>| {
        bench.membership.open_message(Message::Clients(Clients(clients))).is_ok()
    };
    let ids = |count: u16| -> Vec<ClientId> {
        (0..count)
            .map(|n| {
                let mut id = [0; 32];
                id[..2].copy_from_slice(&n.to_be_bytes());
                ClientId(id)
            })
            .collect()
    };
    assert!(opens(Vec::new()) && opens(ids(1 << 14)));
    assert!(!opens(ids((1 << 14) + 1)));
    assert!(!opens(vec![ClientId([2; 32]), ClientId([1; 32])]));
    assert!(!opens(vec![ClientId([1; 32]), ClientId([1; 32])]));
}

#[test]
fn a_replica_behind_its_own_words_is_shown_them_and_goes_on_from_there() {
    let mut bench = Bench::new();
    let far = 1 << 60;
    let list = Arc::clone(&bench.membership);
    bench.hear_from(2, status(&bench, 2, &list, WALL, far));
    let shows = |actions: &[Action]| {
        actions.iter().any(|action| match action {
            Action::Send { message: Message::Status(shown), .. } => shown.by == ReplicaId(2),
            _ => false,
        })
    };
    let actions = bench.hear_from(2, status(&bench, 2, &list, WALL, 7));
    assert!(shows(&actions), "{actions:?}");
    let again = bench.hear_from(2, status(&bench, 2, &list, WALL, 8));
    assert!(!shows(&again), "once a while is enough: {again:?}");

    // It is shown its own words of a life before.
    bench.hear_from(2, status(&bench, 1, &list, WALL, far));
    bench.now.instant.0 += 1_000_000;
    let actions = bench.handle(elea_protocol::replica::Event::Tick);
    let stamps: Vec<u64> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Send { message: Message::Status(own), .. } => Some(own.body.stamp),
            _ => None,
        })
        .collect();
    assert!(stamps.iter().all(|stamp| *stamp > far) && !stamps.is_empty(), "{stamps:?}");
}

#[test]
fn no_liar_moves_the_clock_that_is_agreed_on() {
    for lie in [0, WALL - 1, u64::MAX] {
        let mut bench = Bench::new();
        let list = Arc::clone(&bench.membership);
        for (by, wall) in [(0, WALL + 3), (2, lie), (3, WALL + 5)] {
            bench.hear_from(by, status(&bench, by, &list, wall, 1));
        }
        let clocks = bench.replica.clocks();
        let ahead = |id: u8| clocks.iter().find(|(of, _)| of.0 == id).map(|(_, ms)| *ms);
        assert!(ahead(1).is_some_and(|ms| ms.abs() <= 5), "{lie}: {clocks:?}");
        assert_eq!(clocks.len(), 4);
        assert_eq!(ahead(2).is_some_and(|ms| ms.unsigned_abs() > 5), lie != WALL - 1, "{clocks:?}");
    }
    let bench = Bench::new();
    assert!(bench.replica.clocks().is_empty(), "nobody was heard");
}
