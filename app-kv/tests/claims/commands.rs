//! Single commands, told as short stories.

use elea_kv::{
    Add, Added, Answer, Append, Cas, Command, Delete, Found, Get, Incr, KeyValueStore, Members,
    Operation, Put, Reason, Refused, Remove, Removed, Swap, Txn,
};
use elea_protocol::application::Undecodable;

use crate::world::{bytes, run, version};

fn refused<T>(reason: Reason) -> Result<T, Refused> {
    Err(Refused { reason, step: None })
}

#[test]
fn a_read_carries_the_version_that_wrote_and_a_write_its_own() {
    let mut store = KeyValueStore::new();
    assert_eq!(run(&mut store, version(1, 0), &Get::new("k")), Ok(None));
    assert_eq!(run(&mut store, version(1, 1), &Put::new("k", "v")), Ok(version(1, 1)));
    let found = Found { value: bytes("v"), version: version(1, 1) };
    assert_eq!(run(&mut store, version(2, 0), &Get::new("k")), Ok(Some(found)));
    assert_eq!(run(&mut store, version(2, 1), &Delete::new("k")), Ok(Some(version(2, 1))));
    assert_eq!(run(&mut store, version(2, 2), &Delete::new("k")), Ok(None));
}

#[test]
fn cas_creates_swaps_and_deletes_what_was_expected_and_shows_what_was_not() {
    let mut store = KeyValueStore::new();
    let done = |slot| Ok(Swap::Done(Some(version(slot, 0))));
    assert_eq!(run(&mut store, version(1, 0), &Cas::create("k", "a")), done(1));
    let held = Some(Found { value: bytes("a"), version: version(1, 0) });
    assert_eq!(
        run(&mut store, version(2, 0), &Cas::create("k", "b")),
        Ok(Swap::Mismatch(held.clone()))
    );
    assert_eq!(run(&mut store, version(3, 0), &Cas::new("k", "x", "b")), Ok(Swap::Mismatch(held)));
    assert_eq!(run(&mut store, version(4, 0), &Cas::new("k", "a", "b")), done(4));
    assert_eq!(run(&mut store, version(5, 0), &Cas::delete("k", "b")), done(5));
    assert_eq!(run(&mut store, version(6, 0), &Cas::delete("k", "b")), Ok(Swap::Mismatch(None)));
    let nothing = Cas { key: bytes("k"), expected: None, value: None };
    assert_eq!(run(&mut store, version(7, 0), &nothing), Ok(Swap::Done(None)));
}

#[test]
fn an_integer_is_its_decimal_text_to_every_other_command() {
    let mut store = KeyValueStore::new();
    let mut at = (0..).map(|index| version(1, index));
    let mut next = || at.next().expect("endless");
    let sum = |result: Result<elea_kv::Counted, Refused>| result.map(|counted| counted.value);
    assert_eq!(sum(run(&mut store, next(), &Incr::new("n", -3))), Ok(-3));
    let found = run(&mut store, next(), &Get::new("n")).expect("plain").expect("there");
    assert_eq!(found.value, bytes("-3"));
    run(&mut store, next(), &Append::new("n", "1")).expect("plain");
    assert_eq!(sum(run(&mut store, next(), &Incr::new("n", 1))), Ok(-30));
    assert!(matches!(run(&mut store, next(), &Cas::new("n", "-30", "8")), Ok(Swap::Done(_))));
    assert_eq!(sum(run(&mut store, next(), &Incr::new("n", 1))), Ok(9));
}

#[test]
fn type_errors_and_overflow_are_refusals() {
    let mut store = KeyValueStore::new();
    let at = version(1, 0);
    run(&mut store, at, &Put::new("text", "x1")).expect("plain");
    run(&mut store, at, &Add::new("set", "m")).expect("a set");
    run(&mut store, at, &Put::new("max", i64::MAX.to_string())).expect("plain");
    assert_eq!(run(&mut store, at, &Incr::new("text", 1)), refused(Reason::NotAnInteger));
    let overflow = Reason::Overflow { value: i64::MAX, by: 1 };
    assert_eq!(run(&mut store, at, &Incr::new("max", 1)), refused(overflow));
    assert_eq!(run(&mut store, at, &Get::new("set")), refused(Reason::HoldsSet));
    assert_eq!(run(&mut store, at, &Incr::new("set", 1)), refused(Reason::HoldsSet));
    assert_eq!(run(&mut store, at, &Append::new("set", "x")), refused(Reason::HoldsSet));
    assert_eq!(run(&mut store, at, &Cas::create("set", "x")), refused(Reason::HoldsSet));
    assert_eq!(run(&mut store, at, &Add::new("text", "x")), refused(Reason::HoldsValue));
    assert_eq!(run(&mut store, at, &Remove::new("text", "x")), refused(Reason::HoldsValue));
    assert_eq!(run(&mut store, at, &Members::new("text")), refused(Reason::HoldsValue));
    // Only these two take whatever is there away.
    assert_eq!(run(&mut store, at, &Put::new("set", "x")), Ok(at));
    run(&mut store, at, &Add::new("other", "m")).expect("a set");
    assert_eq!(run(&mut store, at, &Delete::new("other")), Ok(Some(at)));
}

#[test]
fn a_set_keeps_each_member_once_and_goes_with_the_last_one() {
    let mut store = KeyValueStore::new();
    let added = |added, slot| Ok(Added { added, version: version(slot, 0) });
    assert_eq!(run(&mut store, version(1, 0), &Add::new("s", "b")), added(true, 1));
    assert_eq!(run(&mut store, version(2, 0), &Add::new("s", "a")), added(true, 2));
    assert_eq!(run(&mut store, version(3, 0), &Add::new("s", "b")), added(false, 2));
    let list = run(&mut store, version(4, 0), &Members::new("s")).expect("a set");
    assert_eq!((list.members, list.version), (vec![bytes("a"), bytes("b")], Some(version(2, 0))));
    let removed =
        |removed, slot: Option<u64>| Ok(Removed { removed, version: slot.map(|n| version(n, 0)) });
    assert_eq!(run(&mut store, version(5, 0), &Remove::new("s", "x")), removed(false, Some(2)));
    assert_eq!(run(&mut store, version(6, 0), &Remove::new("s", "a")), removed(true, Some(6)));
    assert_eq!(run(&mut store, version(7, 0), &Remove::new("s", "b")), removed(true, Some(7)));
    assert_eq!(run(&mut store, version(8, 0), &Remove::new("s", "b")), removed(false, None));
    assert!(store.is_empty());
    let list = run(&mut store, version(9, 0), &Members::new("s")).expect("absent is empty");
    assert_eq!((list.members, list.version), (vec![], None));
}

#[test]
fn a_command_takes_no_answer_of_another_kind() {
    let mut store = KeyValueStore::new();
    let put = Operation::from(Put::new("k", "v")).encode();
    let result = elea_protocol::application::Application::execute(
        &mut store,
        &crate::world::context(version(1, 0)),
        &put,
    );
    assert_eq!(Put::new("k", "v").decode(&result), Ok(Ok(version(1, 0))));
    assert_eq!(Get::new("k").decode(&result), Err(Undecodable));
    assert_eq!(Txn::new().decode(&result), Err(Undecodable));
    assert_eq!(Operation::from(Txn::new()).decode(&result), Err(Undecodable));
    assert!(Operation::from(Put::new("k", "v")).decode(&result).is_ok());
}

#[test]
fn an_operation_beyond_any_frame_still_encodes_to_something_too_large() {
    let huge = Put::new("k", vec![0; elea_protocol::codec::FRAME_MAX]);
    assert!(huge.encode().len() > elea_protocol::message::REQUEST_BYTES_MAX);
}

#[test]
fn an_answer_tells_no_from_yes() {
    let mut store = KeyValueStore::new();
    let mut no = |operation: Operation| run(&mut store, version(1, 0), &operation).said_no();
    assert!(no(Get::new("k").into()));
    assert!(no(Delete::new("k").into()));
    assert!(no(Members::new(vec![0; 5000]).into()));
    assert!(no(Cas::new("k", "a", "b").into()));
    assert!(no(Txn::new().when(elea_kv::Compare::exists("k")).into()));
    assert!(!no(Txn::new().into()));
    assert!(!no(Put::new("k", "v").into()));
    assert!(!no(Get::new("k").into()));
    assert!(!no(Remove::new("s", "m").into()));
    assert_eq!(Answer::decode(b"garbage"), Err(Undecodable));
}
