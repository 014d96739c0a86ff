//! Transactions. Their random counterpart is in `replay`.

use bytes::Bytes;
use elea_kv::{
    Add, Compare, Get, Incr, KeyValueStore, Outcome, Put, Reason, Refused, Relation, Txn, Version,
};

use crate::world::{digest, run, version};

fn holds(store: &mut KeyValueStore, compare: Compare) -> bool {
    run(store, version(9, 0), &Txn::new().when(compare)).expect("not refused").succeeded
}

#[test]
fn one_branch_is_done_and_each_of_its_steps_answered() {
    let mut store = KeyValueStore::new();
    run(&mut store, version(1, 0), &Put::new("stock", "1")).expect("plain");
    let buy = Txn::new()
        .when(Compare::value("stock", Relation::Greater, "0"))
        .then(Incr::new("stock", -1))
        .then(Put::new("buyer", "ada"))
        .otherwise(Get::new("stock"));
    let first = run(&mut store, version(2, 0), &buy).expect("not refused");
    assert!(first.succeeded);
    assert_eq!(first.version, version(2, 0));
    assert!(matches!(
        &first.outcomes[..],
        [Outcome::Incr(counted), Outcome::Put(_)] if counted.value == 0
    ));
    let second = run(&mut store, version(3, 0), &buy).expect("not refused");
    assert!(!second.succeeded);
    assert!(matches!(
        &second.outcomes[..],
        [Outcome::Get(Some(found))] if found.value == "0" && found.version == version(2, 0)
    ));
}

#[test]
fn steps_see_what_the_steps_before_them_wrote_and_comparisons_do_not() {
    let mut store = KeyValueStore::new();
    let txn = Txn::new()
        .when(Compare::absent("k"))
        .then(Put::new("k", "5"))
        .then(Incr::new("k", 2))
        .then(Get::new("k"));
    let done = run(&mut store, version(1, 4), &txn).expect("not refused");
    assert!(matches!(
        &done.outcomes[..],
        [_, _, Outcome::Get(Some(found))] if found.value == "7" && found.version == version(1, 4)
    ));
}

#[test]
fn a_refused_step_takes_back_those_before_it() {
    let mut store = KeyValueStore::new();
    run(&mut store, version(1, 0), &Put::new("text", "x")).expect("plain");
    let before = digest(&mut store);
    let txn = Txn::new().then(Put::new("new", "1")).then(Add::new("text", "member"));
    let refused = Refused { reason: Reason::HoldsValue, step: Some(1) };
    assert_eq!(run(&mut store, version(2, 0), &txn), Err(refused.clone()));
    assert_eq!(digest(&mut store), before);
    assert_eq!(
        refused.to_string(),
        "step 1 of the transaction: the key holds a plain value, and the operation needs a set"
    );
}

#[test]
fn values_compare_as_numbers_where_both_are_and_else_as_bytes() {
    let mut store = KeyValueStore::new();
    let at = version(1, 0);
    run(&mut store, at, &Incr::new("nine", 9)).expect("plain");
    run(&mut store, at, &Put::new("nine-text", "9")).expect("plain");
    run(&mut store, at, &Put::new("word", "b")).expect("plain");
    use Relation::{Equal, Greater, Less, NotEqual};
    for (key, relation, value, expected) in [
        ("nine", Less, "10", true),
        ("nine", Greater, "10", false),
        ("nine", Equal, "9", true),
        ("nine", NotEqual, "9", false),
        ("nine", Greater, "-10", true),
        ("nine-text", Less, "10", true),
        ("nine", Greater, "10x", true),
        ("nine", Equal, "09", false),
        ("word", Greater, "a", true),
        ("word", Less, "ba", true),
        ("none", Equal, "", false),
        ("none", NotEqual, "", true),
        ("none", Less, "x", false),
        ("none", Greater, "", false),
    ] {
        let compare = Compare::value(key, relation, value);
        assert_eq!(holds(&mut store, compare), expected, "{key} {relation:?} {value}");
    }
}

#[test]
fn existence_and_versions_compare() {
    let mut store = KeyValueStore::new();
    run(&mut store, version(3, 1), &Add::new("s", "m")).expect("a set");
    use Relation::{Equal, Greater, Less};
    assert!(holds(&mut store, Compare::exists("s")));
    assert!(!holds(&mut store, Compare::absent("s")));
    assert!(holds(&mut store, Compare::absent("none")));
    assert!(holds(&mut store, Compare::version("s", Equal, version(3, 1))));
    assert!(holds(&mut store, Compare::version("s", Greater, version(3, 0))));
    assert!(holds(&mut store, Compare::version("s", Less, version(4, 0))));
    assert!(holds(&mut store, Compare::version("none", Equal, Version::NONE)));
    let value = Txn::new().when(Compare::value("s", Equal, "m"));
    let refused = Refused { reason: Reason::HoldsSet, step: None };
    assert_eq!(run(&mut store, version(4, 0), &value), Err(refused));
}

/// The bytes say "a transaction in a transaction in ...": decoding must not follow them down.
#[test]
fn transactions_do_not_nest() {
    let mut store = KeyValueStore::new();
    let inner = elea_protocol::codec::encode(&1u32).expect("small");
    let nested: Bytes = inner.repeat(100_000).into();
    let result = elea_protocol::application::Application::execute(
        &mut store,
        &crate::world::context(version(1, 0)),
        &nested,
    );
    assert!(elea_kv::Answer::decode(&result).expect("an answer").said_no());
}
