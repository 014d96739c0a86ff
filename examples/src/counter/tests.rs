use std::sync::Arc;

use elea_protocol::application::{BadChunk, Restore};
use elea_protocol::id::{ClientId, RequestNumber, SessionId, WallTime};
use elea_protocol::message::Level;
use elea_protocol::rows::MemoryRows;

use super::*;

fn context(slot: u64) -> Context {
    Context {
        slot: Slot(slot),
        index: 0,
        client: ClientId([0; 32]),
        session: SessionId(1),
        number: RequestNumber(1),
        time: WallTime(0),
        seed: [0; 16],
        level: Level::Weak,
        edition: 1,
    }
}

fn add(counter: &mut Counter, slot: u64, by: i64) -> Option<i64> {
    let command = AddToCounter(by);
    let result = counter.execute(&context(slot), &command.encode());
    counter.end_slot(Slot(slot));
    command.decode(&result).expect("a counter answers numbers")
}

#[test]
fn undo_takes_back_everything_above_a_slot() {
    let mut counter = Counter::default();
    assert_eq!(add(&mut counter, 1, 5), Some(5));
    let after_one = counter.digest();
    assert_eq!(add(&mut counter, 2, -8), Some(-3));
    assert_eq!(add(&mut counter, 3, 1), Some(-2));
    counter.make_permanent(Slot(1));
    counter.undo_to(Slot(1));
    assert_eq!(counter.digest(), after_one);
    assert_eq!(add(&mut counter, 2, 0), Some(5));
}

#[test]
fn overflow_and_garbage_change_nothing() {
    let mut counter = Counter::default();
    assert_eq!(add(&mut counter, 1, i64::MAX), Some(i64::MAX));
    assert_eq!(add(&mut counter, 2, 1), None);
    assert!(counter.execute(&context(3), &Bytes::from("garbage")).is_empty());
    assert_eq!(add(&mut counter, 3, 0), Some(i64::MAX));
    assert_eq!(AddToCounter(1).decode(&Bytes::from("garbage")), Err(Undecodable));
}

#[test]
fn a_snapshot_restores_the_value_and_no_other_chunk_is_taken() {
    let mut counter = Counter::default();
    add(&mut counter, 1, 77);
    let snapshot = counter.snapshot();
    add(&mut counter, 2, 1);
    let chunk = snapshot.chunk(0).expect("the one chunk");
    assert_eq!((snapshot.chunks(), snapshot.chunk(1)), (1, None));

    let mut other = Counter::default();
    let mut restore = other.restore(snapshot.digest());
    for at in 0..chunk.len() {
        let mut bad = chunk.to_vec();
        bad[at] ^= 1;
        assert_eq!(restore.accept(0, &bad.into()), Err(BadChunk));
    }
    assert_eq!(restore.accept(1, &chunk), Err(BadChunk));
    assert_eq!(restore.missing(), Some(0));
    assert!(other.open(Slot(1), snapshot.digest(), MemoryRows::none()).is_err());
    assert_eq!(restore.accept(0, &chunk), Ok(()));
    assert_eq!(restore.missing(), None);
    let mut rows = MemoryRows::default();
    rows.apply(restore.rows(0, &chunk).into_iter().map(|(key, value)| (key, Some(value))));
    assert_eq!(other.open(Slot(1), snapshot.digest(), Arc::new(rows)), Ok(()));
    assert_eq!(other.digest(), snapshot.digest());
    assert_eq!(add(&mut other, 2, 0), Some(77));
}
