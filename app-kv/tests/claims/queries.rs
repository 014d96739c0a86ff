//! What is found out without a slot, and since when it is so.

use elea_kv::{Command, Delete, Get, Incr, KeyValueStore, Members, Operation, Put, Scan, Txn};
use elea_protocol::application::{Application, Queried};
use elea_protocol::id::Slot;

use crate::world::run_slot;

/// Three keys, written in slots 1 to 3; slot 4 removes the first.
fn store() -> KeyValueStore {
    let mut store = KeyValueStore::new();
    run_slot(&mut store, 1, &[Put::new("a", "1").into()]);
    run_slot(&mut store, 2, &[Put::new("b", "2").into()]);
    run_slot(&mut store, 3, &[Put::new("c", "3").into()]);
    run_slot(&mut store, 4, &[Delete::new("a").into()]);
    store
}

fn since(store: &KeyValueStore, operations: &[Operation]) -> Option<u64> {
    let encoded: Vec<_> = operations.iter().map(Command::encode).collect();
    let Queried { results, since } = store.query(1, &encoded)?;
    assert_eq!(results.len(), operations.len());
    since.map(|slot| slot.0)
}

#[test]
fn a_read_is_as_old_as_the_last_change_of_what_it_looks_at() {
    let store = store();
    let get = |key: &'static str| Operation::from(Get::new(key));
    assert_eq!(since(&store, &[get("b")]), Some(2));
    assert_eq!(since(&store, &[get("c")]), Some(3));
    assert_eq!(since(&store, &[get("b"), get("c")]), Some(3));
    assert_eq!(since(&store, &[get("never")]), Some(0));
    assert_eq!(since(&store, &[get("a")]), Some(4), "its removal is a change");
    assert_eq!(since(&store, &[Members::new("b").into()]), Some(2), "so is what an error rests on");
}

#[test]
fn a_scan_looks_at_its_stretch_and_at_the_key_behind_it() {
    let store = store();
    let first = |scan: Scan| Operation::from(Scan { limit: 1, ..scan });
    assert_eq!(since(&store, &[Scan::all().into()]), Some(4));
    assert_eq!(since(&store, &[Scan::range("b", "c").into()]), Some(2));
    assert_eq!(since(&store, &[first(Scan::range("b", "d"))]), Some(3), "it names c");
    assert_eq!(since(&store, &[Scan::range("d", "z").into()]), Some(0));
    assert_eq!(since(&store, &[Scan::range("z", "d").into()]), Some(0), "an empty stretch");
}

#[test]
fn what_may_change_something_has_to_be_ordered() {
    let store = store();
    let reads = Txn::new().then(Get::new("b"));
    assert_eq!(since(&store, &[reads.clone().into()]), Some(2));
    for changes in [Operation::from(Incr::new("b", 0)), reads.otherwise(Put::new("b", "2")).into()]
    {
        assert_eq!(since(&store, &[Get::new("b").into(), changes]), None);
    }
    assert_eq!(store.query(1, &[bytes::Bytes::from_static(b"nonsense")]), None);
}

#[test]
fn what_is_dear_has_to_be_ordered() {
    let mut store = KeyValueStore::new();
    let keys = || (0..200).map(|n| format!("key {n:03}"));
    let writes: Vec<Operation> = keys().map(|key| Put::new(key, "x").into()).collect();
    run_slot(&mut store, 1, &writes);
    run_slot(&mut store, 2, &[Put::new("large", vec![b'x'; 300 << 10]).into()]);
    let gets = |count| keys().take(count).map(|key| Get::new(key).into()).collect::<Vec<_>>();
    assert_eq!(since(&store, &gets(128)), Some(1));
    assert_eq!(since(&store, &gets(129)), None);
    let page = |limit| Operation::from(Scan { limit, ..Scan::prefix("key") });
    assert_eq!(since(&store, &[page(100)]), Some(1));
    assert_eq!(since(&store, &[page(150)]), None);
    assert_eq!(since(&store, &[Get::new("large").into()]), None);
}

#[test]
fn what_is_taken_back_is_as_old_as_it_was() {
    let mut store = store();
    store.undo_to(Slot(3));
    assert_eq!(since(&store, &[Get::new("a").into()]), Some(1));
}
