//! Each limit at, below and above.

use elea_kv::{
    Add, Append, BadLimits, Cas, Compare, Get, KeyValueStore, Limits, Put, Quantity, Reason,
    Refused, Txn,
};

use crate::world::{digest, run, version};

fn small() -> Limits {
    Limits {
        key_bytes: 4,
        value_bytes: 10,
        member_bytes: 3,
        set_bytes: 50,
        txn_compares: 2,
        txn_steps: 2,
        txn_result_bytes: 150,
        page_items: 3,
        page_bytes: 200,
        ..Limits::default()
    }
}

fn store() -> KeyValueStore {
    KeyValueStore::with_limits(small()).expect("smaller than the defaults")
}

fn too_large(what: Quantity, size: u64, most: u64) -> Refused {
    Refused { reason: Reason::TooLarge { what, size, most }, step: None }
}

#[test]
fn limits_go_down_and_not_up() {
    assert_eq!(Limits::default().validate(), Ok(()));
    assert_eq!(small().validate(), Ok(()));
    let zero = Limits { key_bytes: 0, ..Limits::default() };
    let bad = BadLimits { name: "key_bytes", value: 0, most: 4096 };
    assert_eq!(KeyValueStore::with_limits(zero).err(), Some(bad));
    let high = Limits { value_bytes: (1 << 20) + 1, ..Limits::default() };
    let bad = BadLimits { name: "value_bytes", value: (1 << 20) + 1, most: 1 << 20 };
    assert_eq!(KeyValueStore::with_limits(high).err(), Some(bad));
}

#[test]
fn keys_and_values_by_default() {
    let mut store = KeyValueStore::new();
    let at = version(1, 0);
    for size in [4095, 4096] {
        assert!(run(&mut store, at, &Put::new(vec![b'k'; size], "v")).is_ok());
    }
    let refusal = too_large(Quantity::Key, 4097, 4096);
    assert_eq!(run(&mut store, at, &Put::new(vec![b'k'; 4097], "v")), Err(refusal.clone()));
    assert_eq!(run(&mut store, at, &Get::new(vec![b'k'; 4097])), Err(refusal.clone()));
    assert_eq!(
        refusal.to_string(),
        "the size of the key in bytes would be 4097, and 4096 is the most"
    );
    for size in [(1 << 20) - 1, 1 << 20] {
        assert!(run(&mut store, at, &Put::new("v", vec![0; size])).is_ok());
        assert!(run(&mut store, at, &Get::new("v")).is_ok());
    }
    let refusal = too_large(Quantity::Value, (1 << 20) + 1, 1 << 20);
    assert_eq!(run(&mut store, at, &Put::new("v", vec![0; (1 << 20) + 1])), Err(refusal.clone()));
    assert_eq!(run(&mut store, at, &Append::new("v", "x")), Err(refusal));
}

#[test]
fn a_value_may_grow_up_to_its_limit() {
    let mut store = store();
    let at = version(1, 0);
    assert!(run(&mut store, at, &Put::new("v", "123456789")).is_ok());
    let before = digest(&mut store);
    let refusal = too_large(Quantity::Value, 11, 10);
    assert_eq!(run(&mut store, at, &Append::new("v", "ab")), Err(refusal.clone()));
    assert_eq!(digest(&mut store), before);
    assert!(run(&mut store, at, &Append::new("v", "a")).is_ok());
    let grown = Cas::new("v", "123456789a", "12345678901");
    assert_eq!(run(&mut store, at, &grown), Err(refusal));
}

#[test]
fn a_set_may_grow_up_to_its_limit() {
    let mut store = store();
    let at = version(1, 0);
    let refusal = too_large(Quantity::Member, 4, 3);
    assert_eq!(run(&mut store, at, &Add::new("s", "four")), Err(refusal));
    // 19 and 19 and 16 would be 54 of 50.
    assert!(run(&mut store, at, &Add::new("s", "abc")).is_ok());
    assert!(run(&mut store, at, &Add::new("s", "def")).is_ok());
    assert_eq!(run(&mut store, at, &Add::new("s", "")), Err(too_large(Quantity::Set, 54, 50)));
    // What is there already takes no more room.
    assert!(run(&mut store, at, &Add::new("s", "abc")).is_ok());
    assert!(run(&mut store, at, &elea_kv::Remove::new("s", "abc")).is_ok());
    // 19 and 16 are 35; another 16 are 51.
    assert!(run(&mut store, at, &Add::new("s", "")).is_ok());
    assert_eq!(run(&mut store, at, &Add::new("s", "x")), Err(too_large(Quantity::Set, 52, 50)));
}

#[test]
fn transactions_are_bounded_in_steps_comparisons_and_results() {
    let mut store = store();
    let at = version(1, 0);
    let steps = |n| (0..n).fold(Txn::new(), |txn, _| txn.then(Get::new("k")));
    let others = |n| {
        let never = Txn::new().when(Compare::exists("none"));
        (0..n).fold(never, |txn, _| txn.otherwise(Get::new("k")))
    };
    let compares = |n| (0..n).fold(Txn::new(), |txn, _| txn.when(Compare::absent("k")));
    for n in [1, 2] {
        assert!(run(&mut store, at, &steps(n)).is_ok());
        assert!(run(&mut store, at, &others(n)).is_ok());
        assert!(run(&mut store, at, &compares(n)).is_ok());
    }
    let refusal = too_large(Quantity::Steps, 3, 2);
    assert_eq!(run(&mut store, at, &steps(3)), Err(refusal.clone()));
    assert_eq!(run(&mut store, at, &others(3)), Err(refusal));
    assert_eq!(run(&mut store, at, &compares(3)), Err(too_large(Quantity::Compares, 3, 2)));
    let long_key = Txn::new().when(Compare::absent("12345"));
    assert_eq!(run(&mut store, at, &long_key), Err(too_large(Quantity::Key, 5, 4)));

    // Two results of 64 and the value count 128 and twice the value.
    assert!(run(&mut store, at, &Put::new("k", "1234567890")).is_ok());
    assert!(run(&mut store, at, &steps(2)).is_ok());
    let limits = Limits { txn_result_bytes: 147, ..small() };
    let mut store = KeyValueStore::with_limits(limits).expect("smaller");
    assert!(run(&mut store, at, &Put::new("k", "1234567890")).is_ok());
    let refusal = Refused { step: Some(1), ..too_large(Quantity::TxnResult, 148, 147) };
    assert_eq!(run(&mut store, at, &steps(2)), Err(refusal));
}

#[test]
fn the_largest_answers_fit_a_frame() {
    let mut store = KeyValueStore::new();
    let at = version(1, 0);
    // Members of no or one byte are those whose encoding grows most.
    let mut members = 0u32;
    while run(&mut store, at, &Add::new("s", members.to_le_bytes()[..3].to_vec())).is_ok() {
        members += 1;
    }
    assert!(members > 50_000);
    let list = run(&mut store, at, &elea_kv::Members::new("s")).expect("it fits");
    assert_eq!(list.members.len(), members as usize);
    let page = run(&mut store, at, &elea_kv::Scan::all()).expect("it fits");
    assert_eq!(page.items.len(), 1);
    let twice = Txn::new().then(elea_kv::Scan::all()).then(elea_kv::Scan::all());
    let refused = run(&mut store, at, &twice).expect_err("more than 2 MiB");
    assert!(matches!(refused.reason, Reason::TooLarge { what: Quantity::TxnResult, .. }));
}
