//! Helpers: contexts, and a store that is driven slot by slot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use elea_kv::{Add, Answer, Command, Incr, Item, KeyValueStore, Operation, Put, Value, Version};
use elea_protocol::application::{Application, Context, Restore, Snapshot};
use elea_protocol::id::{ClientId, Digest, RequestNumber, SessionId, Slot, WallTime};
use elea_protocol::message::Level;
use elea_protocol::rows::MemoryRows;

/// Where an operation stands, in a request of its own.
pub fn context(version: Version) -> Context {
    static REQUESTS: AtomicU64 = AtomicU64::new(1);
    within(version, REQUESTS.fetch_add(1, Ordering::Relaxed))
}

/// Where an operation of the request with this number stands.
pub fn within(version: Version, number: u64) -> Context {
    Context {
        slot: version.slot,
        index: version.index,
        client: ClientId([0; 32]),
        session: SessionId(1),
        number: RequestNumber(number),
        time: WallTime(0),
        seed: [0; 16],
        level: Level::Weak,
        edition: 1,
    }
}

pub fn version(slot: u64, index: u32) -> Version {
    Version { slot: Slot(slot), index }
}

/// Executes a command as some version and decodes what came out.
pub fn run<C: Command>(store: &mut KeyValueStore, version: Version, command: &C) -> C::Output {
    let result = store.execute(&context(version), &command.encode());
    command.decode(&result).expect("the store answers what the command expects")
}

/// Executes a slot of operations and ends it.
pub fn run_slot(store: &mut KeyValueStore, slot: u64, operations: &[Operation]) -> Vec<Answer> {
    let answers = (0..)
        .zip(operations)
        .map(|(index, operation)| run(store, version(slot, index), operation))
        .collect();
    store.end_slot(Slot(slot));
    answers
}

/// Takes all chunks of the snapshot of a slot, in this order and then in their own.
pub fn restored(
    snapshot: &impl Snapshot,
    slot: u64,
    first: impl IntoIterator<Item = u32>,
) -> KeyValueStore {
    let mut store = KeyValueStore::new();
    let mut restore = store.restore(snapshot.digest());
    let mut rows = MemoryRows::default();
    let put = |(key, value)| (key, Some(value));
    for index in first.into_iter().chain(0..snapshot.chunks()) {
        let chunk = snapshot.chunk(index).expect("within the snapshot");
        restore.accept(index, &chunk).expect("an honest chunk");
        rows.apply(restore.rows(index, &chunk).into_iter().map(put));
    }
    assert_eq!(restore.missing(), None);
    rows.apply(restore.rest().into_iter().map(put));
    store.open(Slot(slot), snapshot.digest(), Arc::new(rows)).expect("whole");
    store
}

pub fn digest(store: &mut KeyValueStore) -> Digest {
    store.digest()
}

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Writes an entry as it is in a state.
pub fn write(store: &mut KeyValueStore, item: Item) {
    let writes: Vec<Operation> = match item.value {
        Value::Bytes(value) => vec![Put { key: item.key, value }.into()],
        Value::Integer(by) => vec![Incr { key: item.key, by }.into()],
        Value::Set(members) => members
            .into_iter()
            .rev()
            .map(|member| Add { key: item.key.clone(), member }.into())
            .collect(),
    };
    for write in writes {
        run(store, item.version, &write);
    }
}
