//! Tests of the store against real files.

use std::collections::BTreeMap;

use bytes::Bytes;
use elea_protocol::id::{ClientId, RequestNumber, SessionId, View};
use elea_protocol::message::{
    Commit, CommitCertificate, Level, NonDeterminism, Request, SignedRequest,
};
use elea_protocol::seal::{SecretKey, Signer};
use tempfile::TempDir;

use super::*;

const GENESIS: Digest = Digest([1; 32]);
const ME: ReplicaId = ReplicaId(0);

fn open(folder: &Path) -> Result<(Store, Recovered), StoreError> {
    Store::open(folder, &GENESIS, ME, Durability::Sync)
}

fn entry(tag: u64, bytes: usize) -> SlotEntry {
    let key = SecretKey::from_bytes(&[9; 32]);
    let body = Request {
        client: ClientId::from(key.public_key()),
        session: SessionId(1),
        number: RequestNumber(tag),
        floor: SessionId(0),
        level: Level::Weak,
        want_final: false,
        operations: vec![Bytes::from(vec![7; bytes])],
    };
    SlotEntry {
        choices: NonDeterminism::default(),
        requests: vec![SignedRequest::sign(&key, &GENESIS, body)],
        order: None,
    }
}

fn slot(slot: u64, tag: u64) -> Record {
    Record::Slot { slot: Slot(slot), hash: Digest([tag as u8; 32]), entry: entry(tag, 3) }
}

fn lock(slot: u64) -> CommitCertificate {
    let commit = Commit { view: View(0), slot: Slot(slot), hash: Digest([4; 32]) };
    CommitCertificate { commit, votes: BTreeMap::new() }
}

/// The tags of the stored slots' hashes, in order.
fn stored(store: &Store) -> Vec<u8> {
    store.history().map(|read| read.expect("sound").0.0[0]).collect()
}

#[test]
fn reopening_gives_back_what_was_written() {
    let folder = TempDir::new().expect("a folder");
    let (mut store, recovered) = open(folder.path()).expect("a new store");
    assert!(recovered.lock.is_none() && recovered.stable.is_none());
    assert_eq!(stored(&store), []);
    store.commit(&[slot(1, 11), slot(2, 12), Record::Lock(lock(1))]).expect("written");
    store.commit(&[slot(3, 13), Record::Lock(lock(2))]).expect("written");
    drop(store);
    let (store, recovered) = open(folder.path()).expect("the same store");
    assert_eq!(recovered.lock, Some(lock(2)));
    let slots: Vec<_> = store.history().map(|read| read.expect("sound")).collect();
    let expected = [11, 12, 13].map(|tag| (Digest([tag; 32]), entry(u64::from(tag), 3)));
    assert_eq!(slots, expected);
}

#[test]
fn a_replaced_slot_takes_those_above_it_along_within_a_group_and_across_groups_and_starts() {
    let folder = TempDir::new().expect("a folder");
    let (mut store, _) = open(folder.path()).expect("a new store");
    // The same slots are written, removed and written again in one batch.
    let group = [slot(1, 1), slot(2, 2), slot(3, 3), slot(2, 22), slot(3, 33), slot(3, 34)];
    store.commit(&group).expect("written");
    assert_eq!(stored(&store), [1, 22, 34]);
    store.commit(&[slot(1, 9)]).expect("written");
    assert_eq!(stored(&store), [9]);
    store.commit(&[slot(2, 5), slot(3, 6), slot(4, 7)]).expect("written");
    drop(store);
    let (mut store, _) = open(folder.path()).expect("the same store");
    store.commit(&[slot(2, 8)]).expect("written");
    assert_eq!(stored(&store), [9, 8]);
    drop(store);
    let (store, _) = open(folder.path()).expect("the same store");
    assert_eq!(stored(&store), [9, 8]);
}

#[test]
fn peers_are_served_no_more_than_fits_an_answer_and_at_least_one_slot() {
    let folder = TempDir::new().expect("a folder");
    let (mut store, _) = open(folder.path()).expect("a new store");
    let reader = store.reader();
    assert_eq!(reader.serve(Slot(1)), Ok(vec![]));
    let large = |n: u64| Record::Slot {
        slot: Slot(n),
        hash: Digest([0; 32]),
        entry: entry(n, SERVED_BYTES_MAX / 3),
    };
    store.commit(&[large(1), large(2), large(3), large(4)]).expect("written");
    assert_eq!(reader.serve(Slot(1)).expect("sound").len(), 2);
    assert_eq!(reader.serve(Slot(4)).expect("sound"), [entry(4, SERVED_BYTES_MAX / 3)]);
    assert_eq!(reader.serve(Slot(5)), Ok(vec![]));
    let many: Vec<_> = (1..=SLOTS_MAX as u64 + 1).map(|n| slot(n, n)).collect();
    store.commit(&many).expect("written");
    assert_eq!(reader.serve(Slot(1)).expect("sound").len(), SLOTS_MAX);
    assert_eq!(reader.serve(Slot(2)).expect("sound").len(), SLOTS_MAX);
}

#[test]
fn data_of_another_cluster_another_replica_or_a_newer_version_is_refused() {
    let folder = TempDir::new().expect("a folder");
    drop(open(folder.path()).expect("a new store"));
    let other = Digest([2; 32]);
    let refused = Store::open(folder.path(), &other, ME, Durability::Sync).err();
    assert!(matches!(refused, Some(StoreError::OtherCluster { found: GENESIS, .. })));
    let refused = Store::open(folder.path(), &GENESIS, ReplicaId(1), Durability::Sync).err();
    assert!(matches!(refused, Some(StoreError::OtherReplica { found: ME, .. })));

    let (store, _) = open(folder.path()).expect("the same store");
    let newer = seal(META, META_FORMAT, &(FORMAT + 1)).expect("small");
    store.meta.insert(META_FORMAT, newer).expect("written");
    drop(store);
    let refused = open(folder.path()).err();
    assert!(matches!(refused, Some(StoreError::NewerFormat { found: 2, .. })));
}

#[test]
fn a_folder_in_use_and_a_folder_that_is_none_are_refused() {
    let folder = TempDir::new().expect("a folder");
    let (store, _) = open(folder.path()).expect("a new store");
    assert!(matches!(open(folder.path()).err(), Some(StoreError::InUse { .. })));
    drop(store);
    assert!(open(folder.path()).is_ok());
    let file = folder.path().join("file");
    fs::write(&file, b"").expect("written");
    assert!(matches!(open(&file).err(), Some(StoreError::Unusable { .. })));
}

#[test]
fn any_flipped_bit_of_a_value_a_swapped_value_and_a_hole_are_found() {
    let folder = TempDir::new().expect("a folder");
    let (mut store, _) = open(folder.path()).expect("a new store");
    store.commit(&[slot(1, 1), slot(2, 2), slot(3, 3)]).expect("written");
    let key = |slot: u64| slot.to_be_bytes();
    let is_damaged = |store: &Store| {
        let first = store.history().find_map(Result::err);
        matches!(first, Some(StoreError::Damaged { .. }))
    };
    assert!(!is_damaged(&store));
    let sound = store.history.get(key(2)).expect("read").expect("there");
    for position in 0..sound.len() {
        let mut flipped = sound.to_vec();
        flipped[position] ^= 1 << (position % 8);
        store.history.insert(key(2), flipped).expect("written");
        assert!(is_damaged(&store), "byte {position}");
    }
    let third = store.history.get(key(3)).expect("read").expect("there");
    store.history.insert(key(2), third).expect("written");
    assert!(is_damaged(&store), "a value in another's place");
    store.history.remove(key(2)).expect("removed");
    assert!(is_damaged(&store), "a hole");
    store.history.insert(key(2), sound).expect("written");
    assert!(!is_damaged(&store));

    store.commit(&[Record::Lock(lock(1))]).expect("written");
    let mut flipped = store.meta.get(META_LOCK).expect("read").expect("there").to_vec();
    flipped[CHECKSUM] ^= 1;
    store.meta.insert(META_LOCK, flipped).expect("written");
    drop(store);
    assert!(matches!(open(folder.path()).err(), Some(StoreError::Damaged { .. })));
}

#[test]
fn a_first_start_that_was_cut_short_is_done_anew() {
    let folder = TempDir::new().expect("a folder");
    let half = folder.path().join("store.new");
    fs::create_dir_all(half.join("keyspaces")).expect("made");
    fs::write(half.join("0.jnl"), b"half").expect("written");
    assert!(open(folder.path()).is_ok());
    assert!(!half.exists());
}

#[test]
fn nothing_that_was_synced_is_forgotten_in_silence_where_the_journal_is_damaged() {
    // The bytes around the end of the first group and the start of the second: fjall's own
    // frames among them, at which it would stop reading without a word.
    for offset in (0..120).step_by(8) {
        let folder = TempDir::new().expect("a folder");
        let (mut store, _) = open(folder.path()).expect("a new store");
        for n in 1..=4 {
            store.commit(&[slot(n, n)]).expect("written");
        }
        drop(store);
        let journal = folder.path().join("store").join("0.jnl");
        let mut bytes = fs::read(&journal).expect("read");
        // The first slot's operation.
        let at = bytes.windows(3).position(|three| three == [7; 3]).expect("there") + offset;
        bytes[at] ^= 1;
        fs::write(&journal, bytes).expect("written");
        match open(folder.path()) {
            Ok((store, _)) => assert_eq!(stored(&store), [1, 2, 3, 4], "byte {offset}"),
            Err(StoreError::Damaged { .. }) => {}
            Err(other) => panic!("byte {offset}: {other}"),
        }
    }
}

#[test]
fn an_older_copy_of_the_database_is_refused_and_a_lost_witness_is_not_missed() {
    let folder = TempDir::new().expect("a folder");
    let (mut store, _) = open(folder.path()).expect("a new store");
    store.commit(&[slot(1, 1)]).expect("written");
    drop(store);
    let witness = folder.path().join(WITNESS);
    let old = fs::read(&witness).expect("read");
    let (mut store, _) = open(folder.path()).expect("the same store");
    store.commit(&[slot(2, 2)]).expect("written");
    store.group += 1;
    store.bear_witness().expect("written");
    drop(store);
    assert!(matches!(open(folder.path()).err(), Some(StoreError::Damaged { .. })));
    // One that lags behind, as after a power cut, and none at all.
    fs::write(&witness, old).expect("written");
    assert_eq!(stored(&open(folder.path()).expect("sound").0), [1, 2]);
    fs::remove_file(&witness).expect("removed");
    assert_eq!(stored(&open(folder.path()).expect("sound").0), [1, 2]);
}
