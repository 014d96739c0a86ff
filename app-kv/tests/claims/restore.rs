//! Snapshots, chunk by chunk.

use std::sync::Arc;

use bytes::Bytes;
use elea_kv::{Add, Answer, Incr, Item, KeyValueStore, Operation, Put, Scan};
use elea_protocol::application::{Application, BadChunk, Restore, Snapshot};
use elea_protocol::codec::{FRAME_MAX, encode};
use elea_protocol::id::{Digest, Slot};
use elea_protocol::rows::{MemoryRows, RowsView};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::dumb::operation;
use crate::world::{digest, restored, run, run_slot, version};

/// Several chunks: plain values of some size, integers and sets.
fn large() -> KeyValueStore {
    let mut store = KeyValueStore::new();
    for n in 0..90u32 {
        let value = vec![b'v'; 20_000 + n as usize];
        run(&mut store, version(1, n), &Put::new(format!("plain-{n}"), value)).expect("plain");
        run(&mut store, version(1, n), &Incr::new(format!("integer-{n}"), 1)).expect("plain");
        run(&mut store, version(1, n), &Add::new("set", format!("member {n}"))).expect("a set");
    }
    store.end_slot(Slot(1));
    store
}

fn everything(store: &mut KeyValueStore) -> Vec<Item> {
    let mut items = Vec::new();
    let mut scan = Scan::all();
    loop {
        let page = run(store, version(99, 0), &scan).expect("a scan is not refused");
        items.extend(page.items);
        match page.next {
            Some(next) => scan = scan.resume(next),
            None => return items,
        }
    }
}

fn verdict(digest: Digest, index: u32, chunk: Vec<u8>) -> Result<(), BadChunk> {
    KeyValueStore::new().restore(digest).accept(index, &Bytes::from(chunk))
}

proptest! {
    #[test]
    fn a_restored_state_reads_the_same_and_goes_on_the_same(
        slots in prop::collection::vec(prop::collection::vec(operation(), 1..8), 1..8),
        more in prop::collection::vec(operation(), 1..8),
        at in any::<Index>(),
        flip in 1..=255u8,
    ) {
        let mut store = KeyValueStore::new();
        for (slot, operations) in (1..).zip(&slots) {
            run_slot(&mut store, slot, operations);
        }
        let snapshot = store.snapshot();
        prop_assert_eq!(snapshot.digest(), digest(&mut store));
        let here = slots.len() as u64;
        let mut other = restored(&snapshot, here, []);
        prop_assert_eq!(digest(&mut other), digest(&mut store));
        prop_assert_eq!(everything(&mut other), everything(&mut store));

        let chunk = snapshot.chunk(0).expect("there is always one").to_vec();
        let mut flipped = chunk.clone();
        flipped[at.index(chunk.len())] ^= flip;
        prop_assert_eq!(verdict(snapshot.digest(), 0, flipped), Err(BadChunk));
        prop_assert_eq!(verdict(snapshot.digest(), 1, chunk), Err(BadChunk));

        let answers: Vec<Answer> = run_slot(&mut store, here + 1, &more);
        prop_assert_eq!(answers, run_slot(&mut other, here + 1, &more));
        prop_assert_eq!(digest(&mut other), digest(&mut store));
        // The slot at which it was installed can be returned to.
        other.undo_to(Slot(here));
        prop_assert_eq!(digest(&mut other), snapshot.digest());
    }

    #[test]
    fn garbage_is_no_chunk(garbage in prop::collection::vec(any::<u8>(), 0..100), index in 0u32..3) {
        prop_assert_eq!(verdict(digest(&mut KeyValueStore::new()), index, garbage), Err(BadChunk));
    }
}

#[test]
fn a_large_state_goes_in_several_chunks_in_any_order() {
    let mut store = large();
    let snapshot = store.snapshot();
    // What happens later does not touch the snapshot.
    run(&mut store, version(2, 0), &Put::new("plain-0", "changed")).expect("plain");
    assert_ne!(digest(&mut store), snapshot.digest());
    store.undo_to(Slot(1));
    assert_eq!(digest(&mut store), snapshot.digest());

    let chunks = snapshot.chunks();
    assert!(chunks > 3, "{chunks}");
    assert_eq!(snapshot.chunk(chunks), None);
    for index in 0..chunks {
        assert!(snapshot.chunk(index).expect("within").len() < 600 << 10);
    }
    let mut other = restored(&snapshot, 1, (0..chunks).rev());
    assert_eq!(digest(&mut other), snapshot.digest());
    assert_eq!(everything(&mut other), everything(&mut store));
}

#[test]
fn a_restore_says_what_is_missing_and_its_rows_are_no_state_before_it_is_whole() {
    let mut store = large();
    let snapshot = store.snapshot();
    let before = digest(&mut KeyValueStore::new());
    let mut other = KeyValueStore::new();
    let mut restore = other.restore(snapshot.digest());
    assert_eq!(restore.missing(), Some(0));
    let mut rows = MemoryRows::default();
    for index in (0..snapshot.chunks()).filter(|index| *index != 1) {
        let chunk = snapshot.chunk(index).expect("within");
        restore.accept(index, &chunk).expect("honest");
        rows.apply(restore.rows(index, &chunk).into_iter().map(|(key, row)| (key, Some(row))));
    }
    assert_eq!(restore.missing(), Some(1));
    assert_eq!((restore.missing_from(2), restore.chunks()), (None, Some(snapshot.chunks())));
    let rows: RowsView = Arc::new(rows);
    assert!(other.open(Slot(1), snapshot.digest(), rows.clone()).is_err());
    // Whoever goes on with these rows after a crash lacks the same.
    let mut resumed = other.restore(snapshot.digest());
    resumed.resume(&rows).expect("sound");
    assert_eq!(resumed.missing(), Some(1));
    assert!(other.restore(before).resume(&rows).is_err(), "they are of another state");
    assert_eq!(digest(&mut other), before);
    assert_eq!(everything(&mut store).len(), 181);
}

#[test]
fn a_chunk_flipped_anywhere_is_refused() {
    let store = large();
    let snapshot = store.snapshot();
    for index in 0..snapshot.chunks() {
        let chunk = snapshot.chunk(index).expect("within").to_vec();
        assert_eq!(verdict(snapshot.digest(), index, chunk.clone()), Ok(()));
        // Densely at the start, where the proof stands, and here and there behind it.
        for at in (0..300).chain((300..chunk.len()).step_by(chunk.len() / 40)) {
            let mut bad = chunk.clone();
            bad[at] ^= 0x10;
            assert_eq!(verdict(snapshot.digest(), index, bad), Err(BadChunk), "{index} {at}");
        }
        for end in [0, 1, chunk.len() / 2, chunk.len() - 1] {
            assert_eq!(verdict(snapshot.digest(), index, chunk[..end].to_vec()), Err(BadChunk));
        }
        let longer = [&chunk[..], &[0]].concat();
        assert_eq!(verdict(snapshot.digest(), index, longer), Err(BadChunk));
    }
}

/// Every byte, once, on a state with one of everything.
#[test]
fn every_byte_of_a_small_chunk_counts() {
    let mut store = KeyValueStore::new();
    let operations: [Operation; 4] = [
        Put::new("plain", "value").into(),
        Incr::new("integer", 300).into(),
        Add::new("set", "a").into(),
        Add::new("set", "b").into(),
    ];
    run_slot(&mut store, 1, &operations);
    let snapshot = store.snapshot();
    let chunk = snapshot.chunk(0).expect("the one").to_vec();
    for at in 0..chunk.len() {
        for bit in 0..8 {
            let mut bad = chunk.clone();
            bad[at] ^= 1 << bit;
            assert_eq!(verdict(snapshot.digest(), 0, bad), Err(BadChunk), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn the_heaviest_entry_is_a_chunk_that_fits_a_frame() {
    let mut store = KeyValueStore::new();
    run(&mut store, version(1, 0), &Put::new(vec![b'k'; 4096], vec![0; 1 << 20])).expect("plain");
    run(&mut store, version(1, 1), &Put::new("other", "v")).expect("plain");
    let snapshot = store.snapshot();
    assert_eq!(snapshot.chunks(), 2);
    let largest = (0..2).filter_map(|index| snapshot.chunk(index)).map(|chunk| chunk.len()).max();
    assert!(largest.expect("two") < FRAME_MAX / 2);
    restored(&snapshot, 0, []);
}

#[test]
fn the_empty_store_has_one_chunk() {
    let snapshot = KeyValueStore::new().snapshot();
    assert_eq!(snapshot.chunks(), 1);
    let chunk = snapshot.chunk(0).expect("the one");
    assert!(chunk.len() <= encode(&(0u64, 0u64)).expect("small").len());
    assert!(restored(&snapshot, 0, []).is_empty());
}
