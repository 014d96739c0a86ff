//! The key-value application.

use std::collections::BTreeMap;

use bytes::Bytes;
use elea_kv::{
    Add, Answer, Append, Cas, Command, Compare, Delete, Get, Incr, KeyValueStore, Members,
    Operation, Put, Remove, Scan, Txn,
};
use elea_protocol::application::{Application, Context, Restore, Snapshot};
use elea_protocol::codec;
use elea_protocol::id::{ClientId, Digest, RequestNumber, SessionId, Slot, WallTime};
use elea_protocol::message::Level;

/// Slots of one input at most.
const SLOTS_MAX: u64 = 64;

/// Executes operations, undoes some of them, and makes some permanent. Whatever they are: none panics, what is
/// undone leaves the state that there was, two replicas answer the same, and the state comes whole out of its chunks.
pub(crate) fn operations(mut bytes: &[u8]) {
    let (mut one, mut other) = (KeyValueStore::new(), KeyValueStore::new());
    let mut digests = BTreeMap::from([(Slot::GENESIS, one.digest())]);
    let (mut permanent, mut slot, mut index) = (Slot::GENESIS, Slot(1), 0);
    while let Some((what, rest)) = bytes.split_first().filter(|_| slot.0 < SLOTS_MAX) {
        bytes = rest;
        match what % 8 {
            0 | 1 => {
                one.end_slot(slot);
                other.end_slot(slot);
                digests.insert(slot, one.digest());
                assert_eq!(one.digest(), other.digest(), "two replicas differ after {slot}");
                (slot, index) = (slot.next(), 0);
            }
            2 => {
                let to =
                    Slot(permanent.0 + u64::from(what >> 3) % slot.0.saturating_sub(permanent.0));
                one.undo_to(to);
                other.undo_to(to);
                assert_eq!(one.digest(), digests[&to], "what was undone left traces");
                (slot, index) = (to.next(), 0);
            }
            3 => {
                permanent = Slot(slot.0 - 1);
                one.make_permanent(permanent);
                other.make_permanent(permanent);
            }
            _ => {
                let Some((len, rest)) = bytes.split_first_chunk() else { break };
                let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
                let (operation, rest) = rest.split_at(len);
                bytes = rest;
                let operation = Bytes::copy_from_slice(operation);
                let context = context(slot, index);
                index += 1;
                assert_eq!(one.weight(&operation), other.weight(&operation));
                let answer = one.execute(&context, &operation);
                assert_eq!(answer, other.execute(&context, &operation), "two replicas answer");
                Answer::decode(&answer).expect("every answer can be read");
            }
        }
    }
    one.end_slot(slot);
    comes_whole(&mut one);
}

fn context(slot: Slot, index: u32) -> Context {
    Context {
        slot,
        index,
        client: ClientId([1; 32]),
        session: SessionId(1),
        number: RequestNumber(slot.0),
        time: WallTime(slot.0 * 1000),
        seed: [7; 16],
        level: Level::Strong,
        edition: 1,
    }
}

fn comes_whole(store: &mut KeyValueStore) {
    let snapshot = store.snapshot();
    assert_eq!(snapshot.digest(), store.digest());
    let mut restore = KeyValueStore::new().restore(snapshot.digest());
    for index in 0..snapshot.chunks() {
        let chunk = snapshot.chunk(index).expect("a chunk below the count");
        restore.accept(index, &chunk).expect("a chunk of this state");
        // Of no other.
        assert!(index == 0 || restore.accept(index - 1, &chunk).is_err());
    }
    assert_eq!(restore.missing(), None);
    let mut nothing = KeyValueStore::new().restore(Digest([9; 32]));
    let chunk = snapshot.chunk(0).expect("there is always one");
    assert!(nothing.accept(0, &chunk).is_err(), "a chunk of another state");
}

/// Reads an answer, as every command would.
pub(crate) fn answer(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(answer) = Answer::decode(&bytes) {
        let again = codec::encode(&answer).expect("what was read fits a frame");
        assert_eq!(again, bytes, "one answer, one encoding");
        let _ = answer.version();
    }
    let _ = Get::new("k").decode(&bytes);
    let _ = Scan::prefix("k").decode(&bytes);
    let _ = Txn::default().decode(&bytes);
    let _ = Operation::from(Members::new("k")).decode(&bytes);
}

fn some_operations() -> Vec<Operation> {
    let key = "k";
    vec![
        Put::new(key, "v").into(),
        Get::new(key).into(),
        Delete::new(key).into(),
        Cas::new(key, "v", "w").into(),
        Incr::new("n", 3).into(),
        Append::new(key, "x").into(),
        Add::new("s", "m").into(),
        Remove::new("s", "m").into(),
        Members::new("s").into(),
        Scan::prefix("").into(),
        Txn::new()
            .when(Compare::exists(key))
            .then(Put::new(key, "x"))
            .otherwise(Get::new(key))
            .into(),
    ]
}

fn framed(operation: &Operation) -> Vec<u8> {
    let bytes = operation.encode();
    let len = u16::try_from(bytes.len()).expect("small");
    [&[4], &len.to_le_bytes()[..], &bytes].concat()
}

pub(crate) fn operation_lists() -> Vec<Vec<u8>> {
    let all: Vec<Vec<u8>> = some_operations().iter().map(framed).collect();
    let slots: Vec<u8> = all.iter().flat_map(|one| [&one[..], &[0]].concat()).collect();
    let undone = [&slots[..], &[2], &slots, &[3], &slots, &[2 | 5 << 3], &slots].concat();
    [vec![slots, undone, all.concat()], all].concat()
}

pub(crate) fn answers() -> Vec<Vec<u8>> {
    let mut store = KeyValueStore::new();
    let operations = some_operations();
    let answers = operations.iter().zip(0..).map(|(operation, index)| {
        store.execute(&context(Slot(1), index), &operation.encode()).to_vec()
    });
    answers.collect()
}
