//! Tests of the store against real files. That all records together come to what they should is
//! the business of `random`, what becomes of damage that of `damage`, and that stores of earlier
//! programs are read that of `golden`.

mod damage;
mod golden;
mod random;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::codec;
use elea_protocol::evidence::Evidence;
use elea_protocol::id::{ClientId, Life, RequestNumber, SessionId, Slot, View};
use elea_protocol::message::{
    Checkpoint, CheckpointCertificate, Commit, CommitCertificate, Level, Linked, Mismatch, NewView,
    NewViewHeader, NonDeterminism, OrderHeader, Position, Request, SignedRequest, StableProof,
    Standing, StateDigests, StateHead, StatePart,
};
use elea_protocol::replica::{Adopted, Aside, EnteredView, Ground, Mark, Settled, StoredState};
use elea_protocol::signature::{SecretKey, Signature, Signed, Signer};
use fjall::{Keyspace, KeyspaceCreateOptions};
use tempfile::TempDir;

use super::layout::{
    ASIDE, CHECKSUM, EVIDENCE, FORMAT, HISTORY, META, META_FORMAT, META_LOCK, ORPHANS, STATE, seal,
    slot_key,
};
use super::log::WITNESS;
use super::opening::builder;
use super::tables::SWEPT;
use super::*;

const GENESIS: Digest = Digest([1; 32]);
const ME: ReplicaId = ReplicaId(0);

fn open(folder: &Path) -> Result<(Store, Recovered), StoreError> {
    Store::open(folder, &GENESIS, ME, Durability::Sync)
}

fn request(tag: u64, bytes: usize) -> Arc<SignedRequest> {
    let key = SecretKey::from_bytes(&[9; 32]);
    let body = Request {
        client: ClientId::from(key.public_key()),
        session: SessionId(1),
        number: RequestNumber(tag),
        level: Level::Weak,
        want_final: false,
        operations: vec![Bytes::from(vec![7; bytes])],
    };
    SignedRequest::sign(&key, &GENESIS, body)
}

fn entry(tag: u64, bytes: usize) -> SlotEntry {
    let choices = NonDeterminism::default();
    SlotEntry { choices, requests: vec![request(tag, bytes)], order: None }
}

fn hash(tag: u64) -> Digest {
    let mut hash = [tag as u8; 32];
    hash[24..].copy_from_slice(&tag.to_be_bytes());
    Digest(hash)
}

fn slot(slot: u64, tag: u64) -> Record {
    Record::Slot { slot: Slot(slot), hash: hash(tag), entry: entry(tag, 3) }
}

fn lock(slot: u64) -> CommitCertificate {
    let commit = Commit { view: View(0), slot: Slot(slot), hash: Digest([4; 32]) };
    CommitCertificate { body: commit, votes: BTreeMap::new() }
}

fn locked(slot: u64) -> Record {
    Record::Lock(lock(slot))
}

fn aside(slot: u64, tag: u64) -> Aside {
    let at = Position { slot: Slot(slot), hash: hash(tag) };
    Aside { at, linked: Linked { previous: hash(tag - 1), entry: entry(tag, 3) } }
}

fn signed<T>(body: T) -> Signed<T> {
    Signed { body, by: ReplicaId(1), signature: Signature([5; 64]) }
}

fn entered(view: u64, entry_slot: u64) -> EnteredView {
    let head = Position { slot: Slot(entry_slot), hash: hash(view) };
    let header = NewViewHeader { view: View(view), head, changes: Digest([6; 32]) };
    let new_view = signed(NewView { header, changes: Vec::new() });
    EnteredView { new_view, entry_slot: Slot(entry_slot) }
}

fn stable(slot: u64, tag: u64) -> StableProof {
    let checkpoint =
        Checkpoint { view: View(0), slot: Slot(slot), hash: hash(tag), state: hash(tag + 1) };
    let checkpoint = CheckpointCertificate { body: checkpoint, votes: BTreeMap::new() };
    StableProof { checkpoint, cover: lock(slot) }
}

fn head(slot: u64, tag: u64) -> StateHead {
    let digests = StateDigests { application: hash(tag + 2), sessions: hash(tag + 3) };
    StateHead { stable: stable(slot, tag), digests }
}

fn proof(tag: u64) -> Evidence {
    let order = |batch| {
        let (slot, batch) = (Slot(tag), hash(batch));
        signed(OrderHeader { view: View(0), slot, hash: hash(tag), batch })
    };
    Evidence::Orders(order(tag), order(tag + 1))
}

fn chunk(slot: u64, tag: u64, part: StatePart, bytes: &'static [u8]) -> Record {
    let at = Position { slot: Slot(slot), hash: hash(tag) };
    Record::Piece { at, part, bytes: Bytes::from_static(bytes) }
}

fn fetching(slot: u64, tag: u64) -> Record {
    Record::Fetching(Box::new(head(slot, tag)))
}

fn row(key: &'static [u8], value: &'static [u8]) -> (Bytes, Bytes) {
    (Bytes::from_static(key), Bytes::from_static(value))
}

fn rows(slot: u64, tag: u64, rows: Vec<(Bytes, Bytes)>, whole: bool) -> Record {
    Record::Rows { at: Position { slot: Slot(slot), hash: hash(tag) }, rows, whole }
}

type Changed = (&'static [u8], Option<&'static [u8]>);

fn settled(slot: u64, tag: u64, changes: &[Changed]) -> Record {
    let bytes = Bytes::from_static;
    let changes = changes.iter().map(|(key, value)| (bytes(key), value.map(bytes))).collect();
    let pieces = vec![(StatePart::Last, bytes(b"piece"))];
    Record::Settled(Box::new(Settled { head: head(slot, tag), pieces, changes }))
}

fn settling(slot: u64, tag: u64, first: bool, changes: &[Changed]) -> Record {
    let Record::Settled(settled) = settled(slot, tag, changes) else { unreachable!() };
    let at = settled.head.stable.position();
    Record::Settling { at, first, changes: settled.changes }
}

fn all_rows(view: &RowsView) -> Vec<(Bytes, Bytes)> {
    view.range(&[], std::ops::Bound::Unbounded).map(|row| row.expect("sound")).collect()
}

fn adopted(ground: Ground, slots: &[u64], lock: Option<CommitCertificate>) -> Record {
    let slots = slots.iter().map(|tag| hash(*tag)).collect();
    Record::Adopted(Box::new(Adopted { entered: None, ground, slots, lock, voted: Slot(0) }))
}

/// What a store holds that was just made.
fn fresh() -> Recovered {
    Recovered { standing: Standing::New, ..Recovered::default() }
}

fn assert_same(found: Recovered, expected: Recovered) {
    let Recovered {
        entered,
        state,
        initial,
        incoming,
        lock,
        voted,
        stable,
        orphans,
        evidence,
        standing,
        lives,
        mismatches,
        stamps,
        has_run,
    } = found;
    assert_eq!(entered, expected.entered);
    assert!(state.is_none() && incoming.is_none(), "looked at one by one");
    assert!(initial.is_none(), "it begins empty");
    assert_eq!(lock, expected.lock);
    assert_eq!(voted, expected.voted);
    assert_eq!(stable, expected.stable);
    assert_eq!(orphans, expected.orphans);
    assert_eq!(evidence, expected.evidence);
    assert_eq!(standing, expected.standing);
    assert_eq!(lives, expected.lives);
    assert_eq!(mismatches, expected.mismatches);
    assert_eq!(stamps, expected.stamps);
    assert_eq!(has_run, standing != Standing::New);
}

/// Closes the store and opens it again; what is known of it without reading must be the same.
fn reopen(folder: &TempDir, store: Store) -> (Store, Recovered) {
    let index = store.writer.index.clone();
    drop(store);
    let (store, recovered) = open(folder.path()).expect("the same store");
    assert_eq!(store.writer.index, index);
    (store, recovered)
}

fn keys(keyspace: &Keyspace) -> usize {
    keyspace.iter().count()
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
    store.commit(&[slot(1, 11), slot(2, 12), locked(1)]).expect("written");
    store.commit(&[slot(3, 13), locked(2)]).expect("written");
    drop(store);
    let (store, recovered) = open(folder.path()).expect("the same store");
    assert_eq!(recovered.lock, Some(lock(2)));
    let slots: Vec<_> = store.history().map(|read| read.expect("sound")).collect();
    let expected = [11, 12, 13].map(|tag| (hash(tag), entry(tag, 3)));
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
    store.tables.meta.insert(META_FORMAT, newer).expect("written");
    drop(store);
    let refused = open(folder.path()).err();
    assert!(matches!(refused, Some(StoreError::NewerFormat { found, .. }) if found == FORMAT + 1));
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
    let key = |slot: u64| slot_key(0, Slot(slot));
    let is_damaged = |store: &Store| {
        let first = store.history().find_map(Result::err);
        matches!(first, Some(StoreError::Damaged { .. }))
    };
    assert!(!is_damaged(&store));
    let sound = store.tables.history.get(key(2)).expect("read").expect("there");
    for position in 0..sound.len() {
        let mut flipped = sound.to_vec();
        flipped[position] ^= 1 << (position % 8);
        store.tables.history.insert(key(2), flipped).expect("written");
        assert!(is_damaged(&store), "byte {position}");
    }
    let third = store.tables.history.get(key(3)).expect("read").expect("there");
    store.tables.history.insert(key(2), third).expect("written");
    assert!(is_damaged(&store), "a value in another's place");
    store.tables.history.remove(key(2)).expect("removed");
    assert!(is_damaged(&store), "a hole");
    store.tables.history.insert(key(2), sound).expect("written");
    assert!(!is_damaged(&store));

    store.commit(&[locked(1)]).expect("written");
    let mut flipped = store.tables.meta.get(META_LOCK).expect("read").expect("there").to_vec();
    flipped[CHECKSUM] ^= 1;
    store.tables.meta.insert(META_LOCK, flipped).expect("written");
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
    store.writer.log.group += 1;
    store.writer.log.bear_witness().expect("written");
    drop(store);
    assert!(matches!(open(folder.path()).err(), Some(StoreError::Damaged { .. })));
    // One that lags behind, as after a power cut, and none at all.
    fs::write(&witness, old).expect("written");
    assert_eq!(stored(&open(folder.path()).expect("sound").0), [1, 2]);
    fs::remove_file(&witness).expect("removed");
    assert_eq!(stored(&open(folder.path()).expect("sound").0), [1, 2]);
}

#[test]
fn a_store_of_the_first_format_is_refused_though_it_lacks_what_is_new() {
    let folder = TempDir::new().expect("a folder");
    let database = builder(&folder.path().join("store")).open().expect("a database");
    for name in [HISTORY, META, EVIDENCE] {
        let keyspace = database.keyspace(name, KeyspaceCreateOptions::default).expect("made");
        if name == META {
            let format = seal(META, META_FORMAT, &1_u32).expect("small");
            keyspace.insert(META_FORMAT, format).expect("written");
        }
    }
    database.persist(PersistMode::SyncAll).expect("written");
    drop(database);
    let refused = open(folder.path()).err().expect("it cannot be read");
    assert!(matches!(refused, StoreError::OlderFormat { found: 1, .. }), "{refused}");
}

/// Groups that are in the log and in no table, as a crash leaves them, and some that are in both.
#[test]
fn what_is_only_in_the_log_is_there_after_a_start_and_may_be_taken_again() {
    let records = [
        slot(1, 1),
        slot(2, 2),
        settled(1, 1, &[(b"a", Some(b"1")), (b"b", Some(b"1"))]),
        Record::Aside(aside(2, 12)),
        fetching(9, 9),
        chunk(9, 9, StatePart::Last, b"piece"),
        rows(9, 9, vec![row(b"k", b"v")], true),
        adopted(Ground::Common(Slot(1)), &[12], Some(lock(2))),
        settled(2, 12, &[(b"a", None)]),
        adopted(Ground::State(Box::new(head(9, 9))), &[], None),
        slot(10, 10),
        fetching(20, 20),
    ];
    for in_tables in 0..=records.len() {
        let folder = TempDir::new().expect("a folder");
        let (mut store, _) = open(folder.path()).expect("a new store");
        let mut left = Vec::new();
        for (place, record) in records.iter().enumerate() {
            let staged = store.writer.write(std::slice::from_ref(record)).expect("written");
            let Staged { redo, completed, .. } = staged.expect("something");
            if place < in_tables {
                let taken = store.tables.take(redo, completed.into_iter().map(|(_, of)| of));
                taken.expect("taken");
            } else {
                left.push(redo);
            }
        }
        let (store, recovered) = reopen(&folder, store);
        assert_eq!(stored(&store), [10], "{in_tables} of them in the tables");
        assert_eq!(all_rows(&recovered.state.expect("in place").rows), [row(b"k", b"v")]);
        assert_eq!(recovered.incoming.expect("on its way").head, head(20, 20));
        let mut store = store;
        for redo in left {
            store.tables.take(redo, []).expect("taken again");
        }
        let (store, _) = reopen(&folder, store);
        assert_eq!(stored(&store), [10]);
    }
}

/// All that is written while the tables stand still comes to them later, and the rows with it.
#[test]
fn the_tables_follow_the_log() {
    let folder = TempDir::new().expect("a folder");
    let (store, _) = open(folder.path()).expect("a new store");
    let (mut writer, to, applier) = store.into_parts();
    let group = [slot(1, 1), slot(2, 2), settled(1, 1, &[(b"a", Some(b"1"))])];
    for (mark, record) in (1..).zip(&group) {
        let staged = writer.write(std::slice::from_ref(record)).expect("written");
        to.hand_over(Mark(mark), staged.expect("something"));
    }
    let (sender, told) = std::sync::mpsc::channel();
    let mut counted = 0;
    let applying = std::thread::spawn(move || {
        applier.run(|groups, rows| {
            counted += groups;
            if !rows.is_empty() {
                sender.send((counted, rows)).expect("heard");
            }
        })
    });
    let (groups, rows) = told.recv().expect("the rows of the state");
    assert_eq!(groups, 3);
    let [(Mark(3), view)] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(all_rows(view), [row(b"a", b"1")]);
    let staged = writer.write(&[slot(3, 3)]).expect("written").expect("something");
    to.hand_over(Mark(4), staged);
    drop((to, writer, rows));
    assert_eq!(applying.join().expect("no panic"), Ok(()));
    let (store, _) = open(folder.path()).expect("nobody has it any more");
    assert_eq!(stored(&store), [2, 3]);
}

#[test]
fn a_keyspace_that_is_gone_does_not_come_back_empty() {
    for name in [HISTORY, ASIDE, ORPHANS, STATE, EVIDENCE] {
        let folder = TempDir::new().expect("a folder");
        let (store, _) = open(folder.path()).expect("a new store");
        drop(store);
        let database = builder(&folder.path().join("store")).open().expect("a database");
        let keyspace = database.keyspace(name, KeyspaceCreateOptions::default).expect("there");
        database.delete_keyspace(keyspace).expect("deleted");
        drop(database);
        let refused = open(folder.path()).err();
        assert!(matches!(refused, Some(StoreError::Damaged { .. })), "{name}: {refused:?}");
    }
}

#[test]
fn the_stable_checkpoint_orphans_and_proofs_come_back() {
    let folder = TempDir::new().expect("a folder");
    let (mut store, _) = open(folder.path()).expect("a new store");
    let orphans = |add: &[u64], remove: &[u64]| Record::Orphans {
        add: add.iter().map(|tag| request(*tag, 1)).collect(),
        remove: remove.iter().map(|tag| request(*tag, 1).digest()).collect(),
    };
    let accused = |tag| Record::Evidence(Box::new(proof(tag)));
    store.commit(&[Record::Stable(Box::new(stable(4, 1)))]).expect("written");
    // Added and removed in one group, added twice, and never known.
    let group = [orphans(&[1, 2, 3], &[]), orphans(&[3], &[1, 7]), accused(1), accused(1)];
    store.commit(&group).expect("written");
    let (mut store, recovered) = reopen(&folder, store);
    assert_eq!(recovered.stable, Some(stable(4, 1)));
    assert_eq!(recovered.evidence, [proof(1)]);
    let mut expected = vec![request(2, 1), request(3, 1)];
    expected.sort_by_key(|orphan| orphan.digest());
    assert_eq!(recovered.orphans, expected);
    store.commit(&[orphans(&[1], &[2, 3]), Record::Stable(Box::new(stable(8, 2)))]).expect("it");
    let (_, recovered) = reopen(&folder, store);
    assert_eq!(recovered.orphans, [request(1, 1)]);
    assert_eq!(recovered.stable, Some(stable(8, 2)));
}

#[test]
fn an_adopted_history_replaces_the_end_of_the_own_one_from_slots_of_this_group_and_earlier_ones() {
    let folder = TempDir::new().expect("a folder");
    let (mut store, _) = open(folder.path()).expect("a new store");
    let own: Vec<_> = (1..=5).map(|n| slot(n, n)).collect();
    store.commit(&own).expect("written");
    store
        .commit(&[locked(4), Record::Aside(aside(3, 13)), Record::Aside(aside(9, 99))])
        .expect("it");
    let (mut store, _) = reopen(&folder, store);
    assert_eq!(keys(&store.tables.aside), 2);
    let change = Record::Adopted(Box::new(Adopted {
        entered: Some(entered(3, 4)),
        ground: Ground::Common(Slot(2)),
        slots: vec![hash(13), hash(14)],
        lock: Some(lock(3)),
        voted: Slot(0),
    }));
    store.commit(&[Record::Aside(aside(4, 14)), change, slot(5, 15)]).expect("written");
    assert_eq!(stored(&store), [1, 2, 13, 14, 15]);
    let (mut store, recovered) = reopen(&folder, store);
    assert_eq!(stored(&store), [1, 2, 13, 14, 15]);
    let expected = Recovered { entered: Some(entered(3, 4)), lock: Some(lock(3)), ..fresh() };
    assert_same(recovered, expected);
    assert_eq!(keys(&store.tables.aside), 0, "they are in the history, or of no use any more");
    // Without a lock, without another view, and shorter.
    store.commit(&[adopted(Ground::Common(Slot(1)), &[], None)]).expect("written");
    let (store, recovered) = reopen(&folder, store);
    assert_eq!(stored(&store), [1]);
    assert_same(recovered, Recovered { entered: Some(entered(3, 4)), ..fresh() });
}

#[test]
fn a_fetched_state_replaces_the_history_and_what_was_fetched_of_others_goes() {
    use StatePart::{Last, Sessions};
    let folder = TempDir::new().expect("a folder");
    let (mut store, _) = open(folder.path()).expect("a new store");
    let old: Vec<_> = (1..=7).map(|n| slot(n, n)).collect();
    store.commit(&old).expect("written");
    let first = [
        fetching(10, 1),
        chunk(10, 1, Last, b"a"),
        chunk(10, 1, Sessions(0), b"b"),
        rows(10, 1, vec![row(b"k", b"old")], false),
    ];
    assert!(store.commit(&first).expect("written").is_empty());
    assert_eq!((keys(&store.tables.state), store.tables.rows.len()), (2, 1));
    store.commit(&[fetching(20, 2), chunk(20, 2, Last, b"c")]).expect("written");
    assert_eq!(
        (keys(&store.tables.state), store.tables.rows.len()),
        (1, 1),
        "only the newest is on its way"
    );
    // A crash in the middle costs nothing of it.
    let (mut store, recovered) = reopen(&folder, store);
    assert!(recovered.state.is_none(), "it is not in place");
    let incoming = recovered.incoming.expect("it is on its way");
    assert_eq!((incoming.head, incoming.pieces.len()), (head(20, 2), 1));
    drop(incoming.rows);
    assert_eq!(stored(&store), [1, 2, 3, 4, 5, 6, 7]);
    let group = [
        slot(8, 8),
        rows(20, 2, vec![row(b"y", b"1"), row(b"x", b"2")], false),
        rows(20, 2, vec![row(b"y", b"3")], true),
    ];
    let views = store.commit(&group).expect("written");
    assert_eq!((views.len(), views[0].0), (1, 2));
    let fetched = all_rows(&views[0].1);
    drop(views);
    let group = [
        Record::Aside(aside(21, 121)),
        adopted(Ground::State(Box::new(head(20, 2))), &[121], Some(lock(21))),
        slot(22, 122),
    ];
    store.commit(&group).expect("written");
    let (mut store, mut recovered) = reopen(&folder, store);
    assert_eq!(stored(&store), [121, 122]);
    assert_eq!(keys(&store.tables.history), 2, "the old history is swept");
    let state = recovered.state.take().expect("in place");
    assert_eq!((state.head, state.pieces.len()), (head(20, 2), 1));
    let expected = vec![row(b"x", b"2"), row(b"y", b"3")];
    assert_eq!((all_rows(&state.rows), fetched), (expected.clone(), expected));
    drop(state.rows);
    let expected = Recovered { lock: Some(lock(21)), stable: Some(stable(20, 2)), ..fresh() };
    assert_same(recovered, expected);

    // The next one, of the same slot, as when the state in place is damaged: that one stays until
    // the other is whole.
    store.commit(&[fetching(20, 2), rows(20, 2, vec![row(b"z", b"4")], true)]).expect("written");
    let (mut store, recovered) = reopen(&folder, store);
    assert_eq!(all_rows(&recovered.state.expect("in place").rows).len(), 2);
    drop(recovered.incoming);
    assert_eq!(store.tables.rows.len(), 2);
    let next = adopted(Ground::State(Box::new(head(20, 2))), &[], None);
    store.commit(&[next, slot(21, 41), fetching(50, 5)]).expect("written");
    let (store, recovered) = reopen(&folder, store);
    let state = recovered.state.expect("in place");
    assert_eq!((all_rows(&state.rows), state.pieces.len()), (vec![row(b"z", b"4")], 0));
    assert!(all_rows(&recovered.incoming.expect("on its way").rows).is_empty());
    assert_eq!((stored(&store), store.tables.rows.len()), (vec![41], 2));
}

#[test]
fn a_damaged_row_is_found_when_it_is_read_and_rows_that_a_crash_left_are_dropped() {
    let folder = TempDir::new().expect("a folder");
    let (mut store, _) = open(folder.path()).expect("a new store");
    let changes: [Changed; 2] = [(b"a", Some(b"1")), (b"b", Some(b"2"))];
    store.commit(&[slot(1, 1), settled(1, 1, &changes)]).expect("written");
    store.tables.database.keyspace(&rows::name(77), || rows::options(ME)).expect("made");
    let keyspace = &store.tables.rows[&1];
    keyspace.insert(b"a", rows::seal(b"b", b"1")).expect("written");
    let (store, recovered) = reopen(&folder, store);
    assert!(!store.tables.database.keyspace_exists(&rows::name(77)));
    let view = recovered.state.expect("in place").rows;
    assert!(view.get(b"a").is_err(), "of another place");
    assert_eq!(view.get(b"b"), Ok(Some(Bytes::from_static(b"2"))));
    assert_eq!(view.get(b"c"), Ok(None));
    assert!(view.range(b"a", std::ops::Bound::Unbounded).next().expect("a row").is_err());
}

#[test]
fn an_old_history_that_a_crash_left_is_swept_at_the_next_start_however_long_it_is() {
    let folder = TempDir::new().expect("a folder");
    let (mut store, _) = open(folder.path()).expect("a new store");
    let state = adopted(Ground::State(Box::new(head(9, 1))), &[], None);
    store.commit(&[fetching(9, 1), state, slot(10, 10)]).expect("written");
    let left = SWEPT as u64 * 2 + 3;
    for n in 1..=left {
        store.tables.history.insert(slot_key(0, Slot(n)), b"old").expect("written");
    }
    let (mut store, _) = reopen(&folder, store);
    assert_eq!(stored(&store), [10]);
    assert_eq!(
        keys(&store.tables.history),
        1 + SWEPT + 3,
        "a part at a time, so that none takes long"
    );
    for n in 11..=13 {
        store.commit(&[slot(n, n)]).expect("written");
    }
    assert_eq!(keys(&store.tables.history), 4);
    assert_eq!(stored(&store), [10, 11, 12, 13]);
}

#[test]
fn a_state_takes_the_place_of_the_slots_up_to_it_and_of_the_state_before() {
    let folder = TempDir::new().expect("a folder");
    let (mut store, _) = open(folder.path()).expect("a new store");
    let all: Vec<_> = (1..=9).map(|n| slot(n, n)).collect();
    store.commit(&all).expect("written");
    for group in [vec![settled(10, 1, &[])], vec![settled(4, 1, &[]), settled(4, 1, &[])]] {
        let refused = store.commit(&group);
        assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{group:?}");
    }
    let first: [Changed; 2] = [(b"a", Some(b"1")), (b"b", Some(b"1"))];
    let views = store.commit(&[settled(4, 1, &first), slot(10, 10)]).expect("written");
    let (_, view) = views.into_iter().next().expect("the rows");
    store.commit(&[Record::Lock(lock(5))]).expect("written");
    let second: [Changed; 1] = [(b"a", Some(b"9"))];
    store.commit(&[settled(5, 1, &second)]).expect("written");
    assert_eq!(all_rows(&view), [row(b"a", b"1"), row(b"b", b"1")], "a view does not change");
    drop(view);
    let (mut store, recovered) = reopen(&folder, store);
    assert_eq!(stored(&store), [6, 7, 8, 9, 10]);
    assert_eq!(keys(&store.tables.history), 5);
    let state = recovered.state.expect("it was written");
    assert_eq!((state.head, state.pieces.len()), (head(5, 1), 1));
    drop(state.rows);
    // The next one, with the slot after it in the same group, and then another history.
    let second: [Changed; 2] = [(b"a", None), (b"c", Some(b"2"))];
    store.commit(&[slot(11, 11), settled(8, 2, &second), slot(9, 19)]).expect("written");
    let (mut store, recovered) = reopen(&folder, store);
    assert_eq!(stored(&store), [19]);
    let state = recovered.state.expect("it was written");
    assert_eq!(all_rows(&state.rows), [row(b"b", b"1"), row(b"c", b"2")]);
    drop(state.rows);
    assert_eq!((keys(&store.tables.history), keys(&store.tables.state)), (1, 1));
    let other = adopted(Ground::State(Box::new(head(20, 3))), &[], None);
    let fetched = [fetching(20, 3), chunk(20, 3, StatePart::Last, b"d"), other, slot(21, 21)];
    store.commit(&fetched).expect("written");
    let (store, _) = reopen(&folder, store);
    assert_eq!(
        (stored(&store), keys(&store.tables.history), store.tables.rows.len()),
        (vec![21], 1, 1)
    );
}

#[test]
fn what_a_state_changes_comes_in_parts_and_is_of_no_effect_before_the_last() {
    let folder = TempDir::new().expect("a folder");
    let open = || Store::open(folder.path(), &GENESIS, ME, Durability::Os).expect("sound");
    let (mut store, _) = open();
    store.commit(&[slot(1, 1), slot(2, 2), settled(1, 1, &[(b"a", Some(b"1"))])]).expect("written");
    let given_up = settling(2, 2, true, &[(b"a", None), (b"x", Some(b"x"))]);
    assert_eq!(store.commit(std::slice::from_ref(&given_up)).expect("kept").len(), 0);
    let group = store.writer.log.group;
    // A crash takes it, and what follows it cannot be taken for what it belongs to.
    drop(store);
    let (mut store, recovered) = open();
    assert_eq!(store.writer.log.group, group);
    let rows = all_rows(&recovered.state.expect("settled").rows);
    assert_eq!(rows, [(Bytes::from("a"), Bytes::from("1"))]);
    assert!(store.commit(&[settling(2, 2, false, &[])]).is_err());
    // Begun anew, in the same group or in others, it has what it was told since.
    store.commit(&[given_up]).expect("kept");
    store.commit(&[settling(2, 2, true, &[(b"b", Some(b"2"))])]).expect("kept");
    let views = store
        .commit(&[settling(2, 2, false, &[(b"c", Some(b"3"))]), settled(2, 2, &[(b"a", None)])])
        .expect("written");
    let [(1, view)] = views.as_slice() else { panic!("the rows of the state: {views:?}") };
    let pairs = [("b", "2"), ("c", "3")].map(|(key, value)| (Bytes::from(key), Bytes::from(value)));
    assert_eq!(all_rows(view), pairs);
    // A view keeps the folder in use.
    drop((store, views));
    assert_eq!(all_rows(&open().1.state.expect("settled").rows), pairs);
}

#[test]
fn records_that_would_leave_a_history_with_a_hole_are_not_written() {
    let folder = TempDir::new().expect("a folder");
    let (mut store, _) = open(folder.path()).expect("a new store");
    store.commit(&[slot(1, 1), slot(2, 2), Record::Aside(aside(5, 15))]).expect("written");
    let state = |slot, tag| adopted(Ground::State(Box::new(head(slot, tag))), &[], None);
    for group in [
        vec![slot(3, 3), slot(5, 5)],
        vec![adopted(Ground::Common(Slot(3)), &[], None)],
        vec![adopted(Ground::Common(Slot(2)), &[15], None)],
        vec![adopted(Ground::Common(Slot(2)), &[16], None)],
        vec![fetching(4, 1), state(4, 1), slot(4, 4)],
        vec![fetching(4, 1), state(4, 1), adopted(Ground::Common(Slot(3)), &[], None)],
        vec![fetching(4, 1), state(4, 1), state(4, 1)],
        vec![fetching(4, 1), state(4, 2)],
        vec![fetching(4, 1), chunk(4, 2, StatePart::Last, b"x")],
    ] {
        let refused = store.commit(&group);
        assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{group:?}");
        assert_eq!(stored(&store), [1, 2]);
    }
    let (store, recovered) = reopen(&folder, store);
    assert_eq!(stored(&store), [1, 2]);
    assert_same(recovered, fresh());
}

/// Once it is in the log no start would get beyond it.
#[test]
fn a_row_that_the_database_cannot_take_is_refused_before_it_is_written() {
    let folder = TempDir::new().expect("a folder");
    let (mut store, _) = open(folder.path()).expect("a new store");
    store.commit(&[slot(1, 1), fetching(9, 9)]).expect("written");
    let long: &[u8] = &[7; 65_536];
    for key in [&b""[..], long] {
        let key = Bytes::copy_from_slice(key);
        let row = (key.clone(), Bytes::from_static(b"v"));
        let Record::Settled(mut state) = settled(1, 1, &[]) else { unreachable!("it is one") };
        state.changes = vec![(key, None)];
        for record in [rows(9, 9, vec![row], true), Record::Settled(state)] {
            let refused = store.commit(&[record]);
            assert!(matches!(refused, Err(StoreError::WriteFailed { .. })), "{refused:?}");
        }
    }
    let longest = (Bytes::copy_from_slice(&long[1..]), Bytes::from_static(b"v"));
    store.commit(&[rows(9, 9, vec![longest], true)]).expect("written");
    assert_eq!(stored(&reopen(&folder, store).0), [1]);
}

#[test]
fn a_damaged_value_of_any_kind_is_found_at_the_start() {
    let group = [
        fetching(5, 1),
        chunk(5, 1, StatePart::Last, b"piece"),
        adopted(Ground::State(Box::new(head(5, 1))), &[], None),
        Record::Lock(lock(6)),
        Record::Orphans { add: vec![request(1, 1)], remove: vec![] },
        Record::Evidence(Box::new(proof(1))),
    ];
    let keyspaces: [fn(&Store) -> &Keyspace; 4] =
        [|s| &s.tables.orphans, |s| &s.tables.state, |s| &s.tables.evidence, |s| &s.tables.meta];
    for keyspace in keyspaces {
        let folder = TempDir::new().expect("a folder");
        let (mut store, _) = open(folder.path()).expect("a new store");
        store.commit(&group).expect("written");
        let (store, _) = reopen(&folder, store);
        let last = keyspace(&store).last_key_value().expect("there");
        let (key, value) = last.into_inner().expect("read");
        let mut flipped = value.to_vec();
        *flipped.last_mut().expect("not empty") ^= 1;
        keyspace(&store).insert(key, flipped).expect("written");
        drop(store);
        assert!(matches!(open(folder.path()).err(), Some(StoreError::Damaged { .. })));
    }
}

#[test]
fn a_founded_store_begins_with_its_rows_until_a_later_state_takes_their_place() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let row = |n: u32| (Bytes::from(n.to_be_bytes().to_vec()), Bytes::from(vec![7; 1000]));
    let fails = Store::found(&data, &GENESIS, ME, |keep| {
        keep(vec![row(1)])?;
        Err(StoreError::Absent { path: data.clone() })
    });
    assert!(fails.is_err());
    assert_eq!(Store::is_in(&data), Ok(false));

    // More than is kept in memory, so that files are written before the store is moved.
    let groups =
        || (0..200u32).map(|group| (group * 100..group * 100 + 100).map(row).collect::<Vec<Row>>());
    let found = || {
        Store::found::<StoreError>(&data, &GENESIS, ME, |keep| {
            groups().try_for_each(|rows: Vec<Row>| keep(rows))
        })
    };
    found().expect("a new folder");
    assert!(matches!(found(), Err(StoreError::Present { .. })));

    for _ in 0..2 {
        let (_store, recovered) = open(&data).expect("it opens");
        assert!(recovered.state.is_none());
        let initial = recovered.initial.expect("founded");
        let all = initial.range(&[], std::ops::Bound::Unbounded);
        let all: Vec<Row> = all.collect::<Result<_, _>>().expect("sound");
        assert_eq!(all, groups().flatten().collect::<Vec<Row>>());
    }

    let (mut store, recovered) = open(&data).expect("it opens");
    drop(recovered);
    store.commit(&[slot(1, 1), slot(2, 2)]).expect("written");
    let settled = Settled {
        head: head(2, 2),
        pieces: Vec::new(),
        changes: vec![(row(0).0, None), (row(1).0, Some(Bytes::from_static(b"new")))],
    };
    store.commit(&[Record::Settled(Box::new(settled))]).expect("written");
    drop(store);
    let (store, recovered) = open(&data).expect("it opens");
    assert!(recovered.initial.is_none());
    let rows = recovered.state.expect("settled").rows;
    assert_eq!(rows.get(&row(0).0), Ok(None));
    assert_eq!(rows.get(&row(1).0), Ok(Some(Bytes::from_static(b"new"))));
    assert_eq!(rows.get(&row(2).0), Ok(Some(row(2).1)));
    assert_eq!(store.owner(), ME);
    // A view keeps the store open.
    drop(rows);
    drop(store);
    let (store, _) = Store::open_present(&data, &GENESIS, Durability::Sync).expect("it opens");
    assert_eq!(store.owner(), ME);
    let absent = Store::open_present(folder.path(), &GENESIS, Durability::Sync);
    assert!(matches!(absent, Err(StoreError::Absent { .. })));
}
