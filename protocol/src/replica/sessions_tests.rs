//! The session table against one that remembers everything and computes all from scratch.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::message::Level;

const RULES: Rules = Rules {
    max_sessions: 2,
    max_clients: 2,
    session_window: 4,
    max_kept_result: 64,
    checkpoint_interval: 4,
    max_speculative_slots: 8,
    max_speculative_bytes: 1 << 20,
};

pub(super) fn request(client: u8, session: u64, number: u64, floor: u64) -> Request {
    Request {
        client: ClientId([client; 32]),
        session: SessionId(session),
        number: RequestNumber(number),
        floor: SessionId(floor.min(session)),
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

/// Everything that was ever executed, in order.
#[derive(Default)]
struct Dumb(Vec<Request>);

impl Dumb {
    fn floor(&self, client: ClientId) -> SessionId {
        let floors = self.0.iter().filter(|r| r.client == client).map(|r| r.floor);
        floors.max().unwrap_or_default()
    }

    fn sessions(&self, client: ClientId, floor: SessionId) -> BTreeSet<SessionId> {
        let of_client = self.0.iter().filter(|r| r.client == client);
        of_client.map(|r| r.session).filter(|id| *id >= floor).collect()
    }

    fn admits(&self, request: &Request) -> Result<(), RefusalReason> {
        let clients: BTreeSet<_> = self.0.iter().map(|r| r.client).collect();
        if !clients.contains(&request.client) && clients.len() as u64 >= RULES.max_clients {
            return Err(RefusalReason::TooManyClients);
        }
        let floor = self.floor(request.client);
        if request.session < floor {
            return Err(RefusalReason::SessionRetired);
        }
        if self.0.iter().any(|r| r.name() == request.name()) {
            return Err(RefusalReason::NameUsed);
        }
        let executed: BTreeSet<u64> = self
            .0
            .iter()
            .filter(|r| (r.client, r.session) == (request.client, request.session))
            .map(|r| r.number.0)
            .collect();
        let lowest = (1..).find(|number| !executed.contains(number)).unwrap();
        if request.number.0 >= lowest + RULES.session_window {
            return Err(RefusalReason::WindowExceeded);
        }
        let sessions = self.sessions(request.client, floor.max(request.floor));
        let is_new = !self.sessions(request.client, floor).contains(&request.session);
        if is_new && sessions.len() as u64 >= RULES.max_sessions {
            return Err(RefusalReason::TooManySessions);
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn admission_and_memory_equal_those_of_a_table_that_forgets_nothing(
        requests in prop::collection::vec((0u8..3, 1u64..6, 1u64..9, 0u64..6), 1..120)
    ) {
        let mut sessions = Sessions::new(RULES);
        let mut dumb = Dumb::default();
        for (slot, (client, session, number, floor)) in (1u64..).zip(requests) {
            let request = request(client, session, number, floor);
            prop_assert_eq!(sessions.admission().admit(&request), dumb.admits(&request));
            if dumb.admits(&request).is_err() {
                continue;
            }
            let before = sessions.clone();
            let digest_before = sessions.digest();
            sessions.execute(&request, kept(slot, b"r"));
            prop_assert_ne!(sessions.digest(), digest_before);
            prop_assert_eq!(before.clone().digest(), digest_before, "a copy is not touched");
            dumb.0.push(request.clone());
            let live: usize = [0u8, 1, 2]
                .map(|c| ClientId([c; 32]))
                .map(|c| dumb.sessions(c, dumb.floor(c)).len())
                .iter()
                .sum();
            prop_assert_eq!(sessions.len(), live as u64);
            prop_assert!(matches!(sessions.known(&request.name()), Known::Kept(_)));
            // The digest does not depend on when it is asked for.
            let mut asked_late = Sessions::new(RULES);
            for (slot, request) in (1u64..).zip(&dumb.0) {
                asked_late.execute(request, kept(slot, b"r"));
            }
            let mut same_slots = Sessions::new(RULES);
            for (slot, request) in (1u64..).zip(&dumb.0) {
                same_slots.execute(request, kept(slot, b"r"));
                same_slots.digest();
            }
            prop_assert_eq!(same_slots.digest(), asked_late.digest());
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
            let apart = executed.0.iter().zip(executed.0.iter().skip(1));
            prop_assert!(apart.clone().all(|((_, end), (start, _))| end + 1 < *start));
        }
    }
}

#[test]
fn requests_of_one_slot_count_for_each_other() {
    let sessions = Sessions::new(RULES);
    let mut admission = sessions.admission();
    assert_eq!(admission.admit(&request(0, 1, 1, 0)), Ok(()));
    assert_eq!(admission.admit(&request(0, 1, 1, 0)), Err(RefusalReason::NameUsed));
    assert_eq!(admission.admit(&request(0, 1, 5, 0)), Err(RefusalReason::WindowExceeded));
    assert_eq!(admission.admit(&request(0, 2, 1, 0)), Ok(()));
    assert_eq!(admission.admit(&request(0, 3, 1, 0)), Err(RefusalReason::TooManySessions));
    assert_eq!(admission.admit(&request(0, 3, 1, 2)), Ok(()), "its floor retires session 1");
    assert_eq!(admission.admit(&request(0, 1, 2, 0)), Err(RefusalReason::SessionRetired));
    assert_eq!(admission.admit(&request(1, 1, 1, 0)), Ok(()));
    assert_eq!(admission.admit(&request(2, 1, 1, 0)), Err(RefusalReason::TooManyClients));
}

#[test]
fn only_the_newest_results_are_kept_and_large_ones_as_their_digest() {
    let mut sessions = Sessions::new(RULES);
    for number in 1..=5 {
        sessions.execute(&request(0, 1, number, 0), kept(number, b"small"));
    }
    assert!(matches!(sessions.known(&request(0, 1, 1, 0).name()), Known::Forgotten));
    assert!(matches!(sessions.known(&request(0, 1, 2, 0).name()), Known::Kept(_)));
    assert!(matches!(sessions.known(&request(0, 1, 6, 0).name()), Known::Open));
    sessions.execute(&request(0, 1, 6, 0), kept(6, &[7; 65]));
    let Known::Kept(kept) = sessions.known(&request(0, 1, 6, 0).name()) else { panic!() };
    assert_eq!(kept.results, Results::Forgotten(kept.results.digest()));
}

#[test]
fn what_is_final_of_a_session_is_never_overstated() {
    let (client, session) = (ClientId([0; 32]), SessionId(1));
    let mut sessions = Sessions::new(RULES);
    let through = |sessions: &Sessions, certified| {
        let (executed, final_through) = sessions.progress(&client, session, Slot(certified));
        (executed.0, final_through.0)
    };
    assert_eq!(through(&sessions, 9), (0, 0));
    for (number, slot) in [(1, 1), (3, 2), (2, 7), (4, 8)] {
        sessions.execute(&request(0, 1, number, 0), kept(slot, b"r"));
    }
    assert_eq!(through(&sessions, 0), (4, 0));
    assert_eq!(through(&sessions, 2), (4, 1), "number 2 lies in slot 7");
    assert_eq!(through(&sessions, 7), (4, 3));
    assert_eq!(through(&sessions, 8), (4, 4));
    for number in 5..=7 {
        sessions.execute(&request(0, 1, number, 0), kept(number + 4, b"r"));
    }
    // The results of 1 to 3 are gone; the highest of their slots is 7.
    assert_eq!(through(&sessions, 6), (7, 0));
    assert_eq!(through(&sessions, 7), (7, 3));
    assert_eq!(through(&sessions, 99), (7, 7));
}

#[test]
#[should_panic(expected = "I4")]
fn a_name_executed_twice_is_our_own_bug() {
    let mut sessions = Sessions::new(RULES);
    sessions.execute(&request(0, 1, 1, 0), kept(1, b"r"));
    sessions.execute(&request(0, 1, 1, 0), kept(2, b"r"));
}
