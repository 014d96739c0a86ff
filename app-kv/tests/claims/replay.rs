//! The store against the dumb model, with undo, the disk, and the digest.

use std::sync::Arc;

use bytes::Bytes;
use elea_kv::{
    Add, Answer, Append, Cas, Command, Compare, Delete, Get, Incr, KeyValueStore, Members,
    Operation, Put, Reason, Refused, Relation, Remove, Scan, Txn, Version,
};
use elea_protocol::application::{Application, Queried};
use elea_protocol::codec::{Canonical, Sink};
use elea_protocol::id::{Digest, Slot};
use elea_protocol::rows::{Changes, MemoryRows};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::dumb::{Dumb, operation};
use crate::world::{context, digest, restored, run, run_slot, version, write};

/// What a driver may do to an application.
#[derive(Clone, Debug)]
enum Event {
    Slot(Vec<Operation>),
    /// Operations of a slot that does not end, then undo to where it began.
    Abandoned(Vec<Operation>),
    Undo(Index),
    Permanent(Index),
    /// A permanent state begins to go to the disk.
    Write(Index),
    /// It is there.
    Written,
}

fn event() -> impl Strategy<Value = Event> {
    let operations = || prop::collection::vec(operation(), 1..6);
    prop_oneof![
        6 => operations().prop_map(Event::Slot),
        1 => operations().prop_map(Event::Abandoned),
        2 => any::<Index>().prop_map(Event::Undo),
        2 => any::<Index>().prop_map(Event::Permanent),
        2 => any::<Index>().prop_map(Event::Write),
        2 => Just(Event::Written),
    ]
}

/// The model knows nothing of undo: it runs the remaining slots from the start.
fn replay(slots: &[Vec<Operation>]) -> (Dumb, Vec<Answer>) {
    let mut model = Dumb::default();
    let mut answers = Vec::new();
    for (slot, operations) in (1..).zip(slots) {
        answers = (0..)
            .zip(operations)
            .map(|(index, operation)| model.execute(version(slot, index), operation))
            .collect();
    }
    (model, answers)
}

fn everything(store: &mut KeyValueStore) -> Vec<elea_kv::Item> {
    let page = run(store, version(99, 0), &Scan::all()).expect("a scan is not refused");
    assert_eq!(page.next, None);
    page.items
}

/// Builds the state of the model in one go, in the order of a seed and not in that of its history.
fn build(model: &Dumb, seed: usize) -> KeyValueStore {
    let mut items = model.items();
    let turn = seed % items.len().max(1);
    items.rotate_left(turn);
    let mut store = KeyValueStore::new();
    items.into_iter().for_each(|item| write(&mut store, item));
    store
}

/// A store that starts with what is on disk.
fn opened(slot: usize, digest: Digest, rows: Arc<MemoryRows>) -> KeyValueStore {
    let mut store = KeyValueStore::new();
    store.open(Slot(slot as u64), digest, rows).expect("it was written");
    store
}

proptest! {
    #[test]
    fn with_undo_and_redo_it_is_what_a_replay_from_scratch_makes(
        events in prop::collection::vec(event(), 1..40),
        queries in prop::collection::vec(operation(), 1..8),
    ) {
        let mut models = vec![Dumb::default()];
        let mut store = KeyValueStore::new();
        let mut rows = MemoryRows::default();
        let (mut stored, mut writing) = (0, None);
        let mut snapshots = vec![store.snapshot()];
        let mut slots: Vec<Vec<Operation>> = Vec::new();
        let mut permanent = 0;
        let mut digests: Vec<Digest> = vec![digest(&mut store)];
        for event in events {
            match event {
                Event::Slot(operations) => {
                    let slot = slots.len() as u64 + 1;
                    slots.push(operations.clone());
                    let answers = run_slot(&mut store, slot, &operations);
                    let (model, expected) = replay(&slots);
                    prop_assert_eq!(answers, expected);
                    models.push(model);
                    digests.push(digest(&mut store));
                    snapshots.push(store.snapshot());
                }
                Event::Abandoned(operations) => {
                    let here = slots.len() as u64;
                    for (index, operation) in (0..).zip(&operations) {
                        run(&mut store, version(here + 1, index), operation);
                    }
                    store.undo_to(Slot(here));
                }
                Event::Undo(to) => {
                    let to = permanent + to.index(slots.len() - permanent + 1);
                    slots.truncate(to);
                    models.truncate(to + 1);
                    digests.truncate(to + 1);
                    snapshots.truncate(to + 1);
                    store.undo_to(Slot(to as u64));
                }
                Event::Permanent(to) => {
                    permanent += to.index(slots.len() - permanent + 1);
                    store.make_permanent(Slot(permanent as u64));
                }
                Event::Write(slot) => {
                    if writing.is_none() && permanent > stored {
                        let slot = stored + 1 + slot.index(permanent - stored);
                        let mut part = |n| store.changes(&snapshots[slot], n).expect("in memory");
                        let changes: Changes = (0..).map_while(&mut part).flatten().collect();
                        rows.apply(changes);
                        let view = Arc::new(rows.clone());
                        let mut other = opened(slot, digests[slot], view.clone());
                        prop_assert_eq!(everything(&mut other), replay(&slots[..slot]).0.items());
                        writing = Some((slot, view));
                    }
                }
                Event::Written => {
                    if let Some((slot, view)) = writing.take() {
                        store.stored(Slot(slot as u64), view);
                        stored = slot;
                    }
                }
            }
            prop_assert_eq!(digest(&mut store), digests[slots.len()]);
            let model = &models[slots.len()];
            prop_assert_eq!(everything(&mut store), model.items());
            prop_assert_eq!(store.len(), model.0.len());
            for query in &queries {
                let found = store.query(1, &[query.encode()]);
                prop_assert_eq!(found.is_some(), query.only_reads());
                let Some(Queried { results, since }) = found else { continue };
                let since = since.expect("the store knows since when").0 as usize;
                prop_assert!(since <= slots.len());
                // So it has been after each slot since then.
                for model in &models[since..] {
                    let answer = model.clone().execute(Version::NONE, query);
                    prop_assert_eq!(query.decode(&results[0]), Ok(answer), "{:?} since {}", query, since);
                }
            }
        }
        prop_assert_eq!(store.trouble(), None);
        // Every snapshot is still what it was, and can be sent.
        for (slot, snapshot) in snapshots.iter().enumerate() {
            let mut other = restored(snapshot, slot as u64, []);
            prop_assert_eq!(digest(&mut other), digests[slot]);
            prop_assert_eq!(everything(&mut other), replay(&slots[..slot]).0.items());
        }
        // What is on disk and what came after it make the same state again.
        if let Some((slot, view)) = writing.or((stored > 0).then(|| (stored, Arc::new(rows)))) {
            let mut other = opened(slot, digests[slot], view);
            for (at, operations) in (1..).zip(&slots).skip(slot) {
                run_slot(&mut other, at, operations);
            }
            prop_assert_eq!(digest(&mut other), digests[slots.len()]);
            prop_assert_eq!(everything(&mut other), everything(&mut store));
        }
        // Every slot that may still be undone gives back its own digest.
        for slot in (permanent..=slots.len()).rev() {
            store.undo_to(Slot(slot as u64));
            prop_assert_eq!(digest(&mut store), digests[slot]);
        }
    }

    #[test]
    fn digests_are_equal_where_states_are_and_nowhere_else(
        operations in prop::collection::vec(operation(), 1..25),
        changed in any::<Index>(),
        turn in any::<usize>(),
    ) {
        let mut store = KeyValueStore::new();
        let mut model = Dumb::default();
        let mut seen: Vec<(Dumb, Digest)> = vec![(model.clone(), digest(&mut store))];
        for (index, operation) in (0..).zip(&operations) {
            model.execute(version(1, index), operation);
            run(&mut store, version(1, index), operation);
            seen.push((model.clone(), digest(&mut store)));
        }
        for (one, one_digest) in &seen {
            for (other, other_digest) in &seen {
                prop_assert_eq!(one == other, one_digest == other_digest);
            }
        }
        // It does not matter how a state came about.
        prop_assert_eq!(digest(&mut build(&model, turn)), digest(&mut store));

        // The version alone, or the type alone, makes a difference.
        let Some(key) = model.0.keys().nth(changed.index(model.0.len().max(1))).cloned() else {
            return Ok(());
        };
        let mut later = model.clone();
        later.0.get_mut(&key).expect("taken from it").1.index += 1;
        prop_assert_ne!(digest(&mut build(&later, turn)), digest(&mut store));
        let mut retyped = model.clone();
        let held = &mut retyped.0.get_mut(&key).expect("taken from it").0;
        if let crate::dumb::Kept::Number(number) = held {
            *held = crate::dumb::Kept::Plain(number.to_string().into_bytes());
            prop_assert_ne!(digest(&mut build(&retyped, turn)), digest(&mut store));
        }
    }

    #[test]
    fn bytes_that_are_no_operation_are_refused_and_change_nothing(
        garbage in prop::collection::vec(any::<u8>(), 0..80),
        operation in operation(),
        at in any::<Index>(),
        flip in 1..=255u8,
    ) {
        let mut store = KeyValueStore::new();
        run(&mut store, version(1, 0), &Put::new("a", "1")).expect("not refused");
        let before = digest(&mut store);
        let honest = operation.encode();
        let mut flipped = honest.to_vec();
        let at = at.index(flipped.len());
        flipped[at] ^= flip;
        for bytes in [garbage.clone(), honest[..at].to_vec(), [&honest[..], &[0]].concat(), flipped] {
            let bytes = Bytes::from(bytes);
            let result = store.execute(&context(version(2, 0)), &bytes);
            let answer = Answer::decode(&result).expect("whatever comes, it is answered");
            if elea_protocol::codec::decode::<Operation>(&bytes).is_err() {
                let refused = Refused { reason: Reason::Malformed, step: None };
                prop_assert_eq!(answer, Answer::Refused(refused));
                prop_assert_eq!(digest(&mut store), before);
            } else {
                // It became another operation, which may do what it says.
                store.undo_to(Slot::GENESIS);
                run(&mut store, version(1, 0), &Put::new("a", "1")).expect("not refused");
            }
        }
    }

    #[test]
    fn results_of_no_operation_are_undecodable_and_do_not_panic(
        garbage in prop::collection::vec(any::<u8>(), 0..80),
        operation in operation(),
    ) {
        let _ = operation.decode(&garbage.clone().into());
        let _ = Put::new("a", "b").decode(&garbage.into());
    }
}

#[test]
fn the_digest_is_the_same_in_every_release() {
    let mut store = KeyValueStore::new();
    expect_test::expect!["97ddb26d2714062ffebb80a2614646eb95dfc6df761fad0ace53e6266676e0b9"]
        .assert_eq(&digest(&mut store).to_string());
    run(&mut store, version(1, 0), &Put::new("plain", "value")).expect("not refused");
    run(&mut store, version(1, 1), &Incr::new("integer", -7)).expect("not refused");
    run(&mut store, version(2, 0), &Add::new("set", "one")).expect("not refused");
    run(&mut store, version(2, 1), &Add::new("set", "two")).expect("not refused");
    expect_test::expect!["96d26bc7dd77b2488e0260a1f3dd5288c45c3b674282916cfbf7c6329dc8cbcb"]
        .assert_eq(&digest(&mut store).to_string());
}

/// A golden test of bytes that are too long to print.
struct Wire(Vec<u8>);

impl Canonical for Wire {
    const TAG: &'static str = "test-wire";

    fn write(&self, to: &mut impl Sink) {
        to.put_bytes(&self.0);
    }
}

/// Replicas read what older clients wrote, and histories are executed anew from their bytes.
#[test]
fn operations_have_the_same_bytes_in_every_release() {
    let all = Txn::new()
        .when(Compare::exists("k"))
        .when(Compare::absent("k"))
        .when(Compare::value("k", Relation::Less, "v"))
        .when(Compare::version("k", Relation::Greater, version(3, 4)))
        .then(Get::new("k"))
        .then(Put::new("k", "v"))
        .then(Delete::new("k"))
        .then(Cas::new("k", "a", "b"))
        .then(Incr::new("k", -2))
        .otherwise(Append::new("k", "v"))
        .otherwise(Add::new("k", "m"))
        .otherwise(Remove::new("k", "m"))
        .otherwise(Members::new("k"))
        .otherwise(Scan::prefix("k").limit(9));
    let bytes = [all.encode(), Put::new("k", "v").encode()].concat();
    expect_test::expect!["f49527eb3a60a418d985441a4238d6f9b896623fb598d21aa6d70b51f7484b24"]
        .assert_eq(&Wire(bytes).digest().to_string());
}
