//! The session table against one that remembers everything and computes all from scratch.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;

use super::executed::Executed;
use super::*;
use crate::message::Level;

const RULES: Rules = Rules {
    max_sessions: 3,
    max_clients: 2,
    session_window: 4,
    max_kept_result: 64,
    kept_bytes: 3 * 1024 + 3,
    checkpoint_interval: 4,
    max_speculative_slots: 8,
    max_speculative_bytes: 1 << 20,
};

pub(super) fn request(client: u8, session: u64, number: u64) -> Request {
    Request {
        client: ClientId([client; 32]),
        session: SessionId(session),
        number: RequestNumber(number),
        level: Level::Weak,
        want_final: false,
        operations: vec![Bytes::from_static(b"x")],
    }
}

fn kept(slot: u64, result: &'static [u8]) -> Kept {
    Kept {
        at: Position { slot: Slot(slot), hash: Digest([slot as u8; 32]) },
        index: 0,
        request: Digest([1; 32]),
        results: Results::Full(vec![Bytes::from_static(result)]),
    }
}

/// Executes these in one slot.
pub(super) fn in_one_slot(sessions: &mut Sessions, slot: u64, requests: &[Request]) {
    requests.iter().for_each(|request| sessions.execute(request, kept(slot, b"r")));
    sessions.end_slot();
}

/// Everything that was ever executed, slot by slot from slot 1 on.
#[derive(Default)]
struct Dumb(Vec<Vec<Request>>);

/// What is in the table, and where floors are, found by going through everything again.
#[derive(Default)]
struct Present {
    /// The sessions of each client, with the slot of their last use.
    clients: BTreeMap<ClientId, BTreeMap<SessionId, usize>>,
    floors: BTreeMap<ClientId, SessionId>,
    horizon: SessionId,
    opened: u64,
}

impl Present {
    fn floor(&self, client: ClientId) -> SessionId {
        self.floors.get(&client).copied().unwrap_or(self.horizon)
    }

    fn enter(&mut self, slot: usize, requests: &[Request]) {
        for request in requests {
            let floor = self.floor(request.client);
            self.floors.insert(request.client, floor);
            let sessions = self.clients.entry(request.client).or_default();
            self.opened += u64::from(sessions.insert(request.session, slot).is_none());
        }
        for (client, sessions) in &mut self.clients {
            while sessions.len() as u64 > RULES.max_sessions {
                let (_, left) = sessions.iter().map(|(id, used)| (*used, *id)).min().unwrap();
                sessions.remove(&left);
                let floor = self.floors.get_mut(client).unwrap();
                *floor = SessionId(floor.0.max(left.0 + 1));
            }
        }
        while self.clients.len() as u64 > RULES.max_clients {
            let used = |sessions: &BTreeMap<_, usize>| *sessions.values().max().unwrap();
            let (_, left) = self.clients.iter().map(|(id, s)| (used(s), *id)).min().unwrap();
            let sessions = self.clients.remove(&left).unwrap();
            let above = SessionId(sessions.into_keys().max().unwrap().0 + 1);
            self.horizon = self.horizon.max(above).max(self.floors.remove(&left).unwrap());
        }
    }
}

impl Dumb {
    fn all(&self) -> impl Iterator<Item = &Request> {
        self.0.iter().flatten()
    }

    fn present(&self) -> Present {
        let mut present = Present::default();
        self.0.iter().enumerate().for_each(|(slot, requests)| present.enter(slot + 1, requests));
        present
    }

    /// Why a request may not come next, after these others of its slot.
    fn refusal(&self, slot: &[Request], request: &Request) -> Option<RefusalReason> {
        let present = self.present();
        let known = present.clients.get(&request.client);
        let floor = present.floor(request.client);
        if known.is_none_or(|sessions| !sessions.contains_key(&request.session)) {
            if request.session < floor {
                return Some(RefusalReason::SessionRetired);
            }
            // Every session is a generation of its own, since so few are remembered.
            let from = if floor.0 == 0 { 0 } else { (floor.0 >> 32) + 1 };
            if (request.session.0 >> 32) > present.opened.max(from) + 65_536 {
                return Some(RefusalReason::SessionTooFar);
            }
        }
        if self.all().chain(slot).any(|other| other.name() == request.name()) {
            return Some(RefusalReason::NameUsed);
        }
        let executed: BTreeSet<u64> = self
            .all()
            .filter(|r| (r.client, r.session) == (request.client, request.session))
            .map(|r| r.number.0)
            .collect();
        let lowest = (1..).find(|number| !executed.contains(number)).unwrap();
        (request.number.0 >= lowest + RULES.session_window).then_some(RefusalReason::WindowExceeded)
    }
}

/// Requests of a slot: of three clients, in a few sessions, some of which lie too far up.
fn slot() -> impl Strategy<Value = Vec<(u8, u64, u64)>> {
    let generation = prop_oneof![8 => 0u64..4, 1 => 65_535u64..65_560, 1 => 65_536u64..200_000];
    let session = (generation, 1u64..4).prop_map(|(generation, low)| (generation << 32) | low);
    let number = prop_oneof![3 => Just(1u64), 1 => 1u64..7];
    prop::collection::vec((0u8..3, session, number), 1..4)
}

proptest! {
    #[test]
    fn admission_and_memory_equal_those_of_a_table_that_forgets_nothing(
        slots in prop::collection::vec(slot(), 1..40)
    ) {
        let mut sessions = Sessions::new(RULES);
        let mut dumb = Dumb::default();
        for (slot, wanted) in (1u64..).zip(slots) {
            let mut admitted = Vec::new();
            {
                let mut admission = sessions.admission();
                for (client, session, number) in wanted {
                    let request = request(client, session, number);
                    let refusal = dumb.refusal(&admitted, &request);
                    prop_assert_eq!(admission.admit(&request).err(), refusal);
                    if refusal.is_none() {
                        admitted.push(request);
                    }
                }
            }
            let before = sessions.clone();
            let digest_before = sessions.digest();
            in_one_slot(&mut sessions, slot, &admitted);
            prop_assert_eq!(sessions.digest() != digest_before, !admitted.is_empty());
            prop_assert_eq!(before.clone().digest(), digest_before, "a copy is not touched");
            dumb.0.push(admitted);

            let present = dumb.present();
            let live = present.clients.values().map(|sessions| sessions.len() as u64).sum::<u64>();
            prop_assert_eq!(sessions.len(), live);
            prop_assert!(live <= RULES.max_clients * RULES.max_sessions, "I10");
            for client in (0..3).map(|client| ClientId([client; 32])) {
                prop_assert_eq!(sessions.floor(&client), present.floor(client));
                // A new session is never one that was executed in before.
                let opening = sessions.opening(&client);
                let old = dumb.all().filter(|r| r.client == client).map(|r| r.session);
                let old: BTreeSet<_> = old.filter(|id| id.0 >> 32 < 65_535).collect();
                prop_assert!(opening >= present.floor(client));
                prop_assert!(old.iter().all(|id| *id < present.floor(client)
                    || present.clients[&client].contains_key(id)));
            }
            // Whatever was executed is known as such or lies in a session that has left.
            for request in dumb.all() {
                let here = present.clients.get(&request.client);
                let here = here.is_some_and(|sessions| sessions.contains_key(&request.session));
                let known = sessions.known(&request.name());
                prop_assert_eq!(matches!(known, Known::Open), !here);
                prop_assert!(sessions.refusal(request).is_some(), "I4: {:?} again", request.name());
            }
            let keeps = |client: &Client| {
                let kept = client.sessions.values().flat_map(|s| s.kept.values().cloned());
                kept.map(|kept| 1024 + kept.results.size() as u64).sum::<u64>()
            };
            prop_assert!(sessions.clients.values().all(|c| keeps(c) <= RULES.kept_bytes), "I10");
            // The digest does not depend on when it is asked for.
            let mut asked_late = Sessions::new(RULES);
            for (slot, requests) in (1u64..).zip(&dumb.0) {
                in_one_slot(&mut asked_late, slot, requests);
            }
            prop_assert_eq!(sessions.digest(), asked_late.digest());
        }
    }

    #[test]
    fn intervals_equal_a_set(numbers in prop::collection::vec(1u64..40, 0..60)) {
        let mut executed = Executed::default();
        let mut set = BTreeSet::new();
        for number in numbers {
            executed.insert(RequestNumber(number));
            set.insert(number);
            for n in 0..42 {
                prop_assert_eq!(executed.contains(RequestNumber(n)), set.contains(&n));
            }
            let lowest = (1..).find(|n| !set.contains(n)).unwrap();
            prop_assert_eq!(executed.lowest_open(), RequestNumber(lowest));
            let intervals = executed.intervals();
            prop_assert!(intervals.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            prop_assert_eq!(Executed::of(intervals), executed.clone());
        }
    }
}

#[test]
fn requests_of_one_slot_are_admitted_against_the_state_before_it() {
    let mut sessions = Sessions::new(RULES);
    let mut admission = sessions.admission();
    assert_eq!(admission.admit(&request(0, 1, 1)), Ok(()));
    assert_eq!(admission.admit(&request(0, 1, 1)), Err(RefusalReason::NameUsed));
    assert_eq!(admission.admit(&request(0, 1, 5)), Err(RefusalReason::WindowExceeded));
    // However many sessions one slot opens and uses, none leaves before its end.
    let all: Vec<_> = (1..=9).flat_map(|s| [request(0, s, 1), request(0, s, 2)]).collect();
    let mut admission = sessions.admission();
    assert!(all.iter().all(|request| admission.admit(request).is_ok()));
    in_one_slot(&mut sessions, 1, &all);
    assert_eq!((sessions.len(), sessions.floor(&ClientId([0; 32]))), (3, SessionId(7)));
    let refusal = |session| sessions.refusal(&request(0, session, 3));
    assert_eq!(refusal(6), Some(RefusalReason::SessionRetired));
    assert_eq!([refusal(7), refusal(8), refusal(9), refusal(10)][..3], [None; 3]);
}

#[test]
fn who_was_used_stays_and_who_rested_longest_leaves() {
    let mut sessions = Sessions::new(RULES);
    for (slot, session) in (1..).zip([1, 2, 3]) {
        in_one_slot(&mut sessions, slot, &[request(0, session, 1)]);
    }
    in_one_slot(&mut sessions, 4, &[request(0, 1, 2)]);
    in_one_slot(&mut sessions, 5, &[request(0, 4, 1)]);
    let here = |session| sessions.executed_through(&ClientId([0; 32]), SessionId(session));
    assert_eq!([1, 2, 3, 4].map(|session| here(session).is_some()), [true, false, true, true]);
    // Session 1 lies below the floor and goes on.
    assert_eq!(sessions.floor(&ClientId([0; 32])), SessionId(3));
    assert_eq!(sessions.refusal(&request(0, 1, 3)), None);
    assert_eq!(sessions.refusal(&request(0, 2, 2)), Some(RefusalReason::SessionRetired));
}

#[test]
fn a_client_that_comes_back_executes_nothing_twice() {
    let mut sessions = Sessions::new(RULES);
    for (slot, client) in (1..).zip([0, 1, 2]) {
        in_one_slot(&mut sessions, slot, &[request(client, 5, 1)]);
    }
    let (old, new) = (request(0, 5, 1), request(0, sessions.opening(&ClientId([0; 32])).0, 1));
    assert_eq!(sessions.refusal(&old), Some(RefusalReason::SessionRetired));
    assert_eq!(sessions.refusal(&new), None);
    in_one_slot(&mut sessions, 4, &[new]);
    assert_eq!(sessions.refusal(&old), Some(RefusalReason::SessionRetired));
}

#[test]
fn the_highest_of_all_sessions_cannot_be_used_up() {
    let mut sessions = Sessions::new(RULES);
    assert_eq!(sessions.refusal(&request(0, u64::MAX, 1)), Some(RefusalReason::SessionTooFar));
    // A client that goes as far as it may, again and again, until it has left the table itself.
    for slot in 1..200 {
        let opening = sessions.opening(&ClientId([0; 32])).generation();
        let high = request(0, (opening + 65_536) << 32, 1);
        assert_eq!(sessions.refusal(&high), None);
        in_one_slot(&mut sessions, slot, &[high]);
    }
    for client in [1, 2, 3, 4] {
        let opening = sessions.opening(&ClientId([client; 32]));
        let new = request(client, opening.told_apart_by(7).0, 1);
        assert_eq!(sessions.refusal(&new), None);
        in_one_slot(&mut sessions, 200 + u64::from(client), &[new]);
    }
}

#[test]
fn only_the_newest_results_are_kept_and_large_ones_as_their_digest() {
    let mut sessions = Sessions::new(Rules { kept_bytes: 1 << 20, ..RULES });
    for number in 1..=5 {
        in_one_slot(&mut sessions, number, &[request(0, 1, number)]);
    }
    assert!(matches!(sessions.known(&request(0, 1, 1).name()), Known::Forgotten));
    assert!(matches!(sessions.known(&request(0, 1, 2).name()), Known::Kept(_)));
    assert!(matches!(sessions.known(&request(0, 1, 6).name()), Known::Open));
    sessions.execute(&request(0, 1, 6), kept(6, &[7; 65]));
    let Known::Kept(kept) = sessions.known(&request(0, 1, 6).name()) else { panic!() };
    assert_eq!(kept.results, Results::Forgotten(kept.results.digest()));
}

#[test]
fn results_of_the_session_that_rested_longest_go_first() {
    let mut sessions = Sessions::new(RULES);
    for (slot, (session, number)) in (1..).zip([(1, 1), (2, 1), (1, 2), (3, 1)]) {
        in_one_slot(&mut sessions, slot, &[request(0, session, number)]);
    }
    let kept = |session, number| {
        matches!(sessions.known(&request(0, session, number).name()), Known::Kept(_))
    };
    assert_eq!([kept(1, 1), kept(1, 2), kept(2, 1), kept(3, 1)], [true, true, false, true]);
    assert!(matches!(sessions.known(&request(0, 2, 1).name()), Known::Forgotten));
}

#[test]
#[should_panic(expected = "I4")]
fn a_name_executed_twice_is_our_own_bug() {
    let mut sessions = Sessions::new(RULES);
    sessions.execute(&request(0, 1, 1), kept(1, b"r"));
    sessions.execute(&request(0, 1, 1), kept(2, b"r"));
}

#[test]
#[should_panic(expected = "I4")]
fn a_session_that_left_and_is_executed_in_is_our_own_bug() {
    let mut sessions = Sessions::new(RULES);
    for slot in 1..=4 {
        in_one_slot(&mut sessions, slot, &[request(0, slot, 1)]);
    }
    sessions.execute(&request(0, 1, 2), kept(5, b"r"));
}
