use bytes::Bytes;

use super::*;
use crate::id::{RequestNumber, SessionId};
use crate::message::{Level, Request};
use crate::signature::{SecretKey, Signer as _};

fn request(client: u8, number: u64, bytes: usize) -> Arc<SignedRequest> {
    let key = SecretKey::from_bytes(&[client; 32]);
    let body = Request {
        client: key.public_key().into(),
        session: SessionId(1),
        number: RequestNumber(number),
        level: Level::Weak,
        want_final: false,
        operations: vec![Bytes::from(vec![0; bytes])],
    };
    SignedRequest::sign(&key, &Digest([0; 32]), body)
}

fn take(pending: &mut Pending, request: &Arc<SignedRequest>, tuning: &Tuning) -> Inserted {
    pending.insert(request.clone(), Instant::default(), false, tuning)
}

fn weight(request: &SignedRequest) -> u64 {
    request.weight(|_| 0)
}

/// The bytes of the requests in the order in which the primary would take them.
fn order(pending: &Pending) -> Vec<usize> {
    pending.in_turn(weight).map(|(_, request)| request.body().operation_bytes()).collect()
}

#[test]
fn clients_take_turns_by_weight_and_oldest_first_within_a_client() {
    let (mut pending, tuning) = (Pending::default(), Tuning::default());
    for number in 1..=3 {
        take(&mut pending, &request(1, number, 100_000 + number as usize), &tuning);
    }
    for number in 1..=4 {
        take(&mut pending, &request(2, number, 10 + number as usize), &tuning);
    }
    let ordered = order(&pending);
    let place = |bytes| ordered.iter().position(|other| *other == bytes).expect("it waits");
    assert!((11..=14).is_sorted_by_key(place) && (100_001..=100_003).is_sorted_by_key(place));
    assert!(
        place(14) < place(100_002),
        "four small ones weigh less than one large one: {ordered:?}"
    );
    // What was given counts also when it has left.
    let first = request(1, 1, 100_001);
    pending.give(&first.body().client, weight(&first));
    pending.remove(&first.digest());
    assert_eq!(order(&pending), [11, 12, 13, 14, 100_002, 100_003]);
}

#[test]
fn who_was_away_saves_nothing_up_and_who_left_is_forgotten() {
    let (mut pending, tuning) = (Pending::default(), Tuning::default());
    let keeps = request(1, 1, 1000);
    take(&mut pending, &keeps, &tuning);
    for number in 2..=20 {
        let next = request(1, number, 1000);
        take(&mut pending, &next, &tuning);
        pending.give(&next.body().client, weight(&next));
        pending.remove(&next.digest());
    }
    for number in 1..=3 {
        take(&mut pending, &request(2, number, 1001), &tuning);
    }
    take(&mut pending, &request(1, 21, 1000), &tuning);
    let newcomer = order(&pending);
    assert_eq!(newcomer[..3], [1001, 1000, 1001], "one turn each: {newcomer:?}");
    let all: Vec<Digest> = pending.in_turn(weight).map(|(digest, _)| digest).collect();
    for digest in all {
        let request = pending.remove(&digest).expect("it waits");
        pending.give(&request.body().client, weight(&request));
    }
    assert!(pending.turns.is_empty() && pending.ahead.is_empty() && pending.lanes.is_empty());
}

#[test]
fn a_client_has_no_more_waiting_than_is_left_for_all_others() {
    let mut pending = Pending::default();
    let tuning = Tuning { pending_max: 8, ..Tuning::default() };
    let mut taken = |client: u8, count: u64| {
        let requests = (1..=count).map(|number| request(client, number, 1));
        requests.filter(|one| take(&mut pending, one, &tuning) == Inserted::New).count()
    };
    assert_eq!((taken(1, 9), taken(2, 9), taken(3, 9), taken(4, 9)), (4, 2, 1, 1));
    assert_eq!(taken(5, 1), 0, "nothing is left");
}

#[test]
fn a_client_has_no_more_bytes_waiting_than_is_left_for_all_others_or_a_64th_of_all() {
    const MIB: usize = 1 << 20;
    let taken = |pending: &mut Pending, client: u8, mebibytes: usize| {
        let tuning = Tuning { pending_bytes: mebibytes * MIB, ..Tuning::default() };
        let requests = (1..=100).map(|number| request(client, number, MIB - 1000));
        requests.filter(|one| take(pending, one, &tuning) == Inserted::New).count()
    };
    let mut pending = Pending::default();
    assert_eq!((taken(&mut pending, 1, 64), taken(&mut pending, 2, 64)), (4, 4));
    let mut pending = Pending::default();
    let few = [1, 2, 3, 4].map(|client| taken(&mut pending, client, 6));
    assert_eq!(few, [3, 2, 1, 0]);
}

#[test]
fn a_session_that_is_served_is_not_left_out() {
    let (mut pending, tuning) = (Pending::default(), Tuning::default());
    for (client, number) in [(1, 1), (1, 2), (2, 1)] {
        take(&mut pending, &request(client, number, 10), &tuning);
    }
    let served = request(1, 3, 10).body().name();
    let (first, later) = (Instant::default().after_ms(1), Instant::default().after_ms(5));
    assert!(!pending.note_served(&served, first), "none was sent to the others");
    pending.take_forward(first, 100, 3);
    assert!(pending.note_served(&served, later));
    let client = |waiting: (Instant, &Arc<SignedRequest>)| (waiting.1.body().client, waiting.0);
    let since: BTreeSet<_> = pending.forwarded_since().map(client).collect();
    let (one, two) = (request(1, 1, 10).body().client, request(2, 1, 10).body().client);
    assert_eq!(since, BTreeSet::from([(one, later), (two, first)]));
}
