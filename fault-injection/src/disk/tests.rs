use elea_protocol::id::{RequestNumber, SessionId};
use elea_protocol::merkle::Path;
use elea_protocol::message::StateHead;
use elea_protocol::message::{
    Checkpoint, CheckpointCertificate, Commit, Level, NewView, NewViewHeader, NonDeterminism,
    Request, StateDigests,
};
use elea_protocol::signature::{Signature, Signed};

use super::*;

const ME: ReplicaId = ReplicaId(0);

fn hash(byte: u8) -> Digest {
    Digest([byte; 32])
}

fn at(slot: u64, byte: u8) -> Position {
    Position { slot: Slot(slot), hash: hash(byte) }
}

fn entry() -> SlotEntry {
    SlotEntry { choices: NonDeterminism::default(), requests: Vec::new(), order: None }
}

fn slot(slot: u64, byte: u8) -> Record {
    Record::Slot { slot: Slot(slot), hash: hash(byte), entry: entry() }
}

fn aside(slot: u64, byte: u8, previous: u8) -> Record {
    let linked = Linked { previous: hash(previous), entry: entry() };
    Record::Aside(Aside { at: at(slot, byte), linked })
}

fn certificate(view: u64, slot: u64, byte: u8) -> CommitCertificate {
    let commit = Commit { view: View(view), slot: Slot(slot), hash: hash(byte) };
    CommitCertificate { body: commit, votes: BTreeMap::new() }
}

fn lock(slot: u64, byte: u8) -> Record {
    Record::Lock(certificate(0, slot, byte))
}

fn proof(slot: u64, byte: u8) -> StableProof {
    let checkpoint =
        Checkpoint { view: View(0), slot: Slot(slot), hash: hash(byte), state: hash(77) };
    StableProof {
        checkpoint: CheckpointCertificate { body: checkpoint, votes: BTreeMap::new() },
        cover: certificate(0, slot, byte),
    }
}

fn entered(view: u64, entry_slot: u64) -> EnteredView {
    let header = NewViewHeader { view: View(view), head: at(0, 0), changes: hash(0) };
    let body = NewView { header, changes: Vec::new() };
    let new_view = Signed { by: ReplicaId(1), body, signature: Signature([0; 64]) };
    EnteredView { new_view, entry_slot: Slot(entry_slot) }
}

fn adopted(view: Option<u64>, ground: Ground, slots: &[u8]) -> Record {
    let entered = view.map(|view| entered(view, 1));
    let slots = slots.iter().map(|byte| hash(*byte)).collect();
    Record::Adopted(Box::new(Adopted { entered, ground, slots, lock: None, voted: Slot(0) }))
}

fn chunk(slot: u64, byte: u8, part: StatePart) -> Record {
    Record::Piece { at: at(slot, byte), part, bytes: Bytes::from_static(b"piece") }
}

fn head(slot: u64, byte: u8) -> Box<StateHead> {
    let digests = StateDigests { application: hash(1), sessions: hash(2) };
    Box::new(StateHead { stable: proof(slot, byte), digests })
}

fn rows(slot: u64, byte: u8, key: &'static [u8], whole: bool) -> Record {
    let rows = vec![(Bytes::from_static(key), Bytes::from_static(b"row"))];
    Record::Rows { at: at(slot, byte), rows, whole }
}

fn orphan(number: u64) -> Arc<SignedRequest> {
    let body = Request {
        client: elea_protocol::id::ClientId([1; 32]),
        session: SessionId(1),
        number: RequestNumber(number),
        level: Level::Weak,
        want_final: false,
        operations: vec![Bytes::from_static(b"incr x 1")],
    };
    Arc::new(SignedRequest::from_parts(body, Signature([0; 64]), Path::lone()))
}

/// Writes records and syncs them.
fn write(disk: &mut Disk, records: &[Record]) -> Result<(), Violation> {
    for record in records {
        let mark = Mark(disk.written().0 + 1);
        disk.append(ME, mark, record).expect("the mark is right");
    }
    disk.begin_sync();
    disk.finish_sync(ME).map(drop)
}

fn disk(records: &[Record]) -> Disk {
    let mut disk = Disk::default();
    write(&mut disk, records).expect("sound");
    disk
}

fn hashes(disk: &Disk) -> Vec<u8> {
    disk.slots().iter().map(|(hash, _)| hash.0[0]).collect()
}

#[test]
fn a_sync_covers_what_was_written_when_it_began() {
    let mut disk = Disk::default();
    disk.append(ME, Mark(1), &slot(1, 1)).expect("in order");
    assert_eq!(disk.begin_sync(), Some(Mark(1)));
    disk.append(ME, Mark(2), &slot(2, 2)).expect("in order");
    assert_eq!(disk.begin_sync(), None, "one at a time");
    assert_eq!(disk.finish_sync(ME).expect("sound").mark, Mark(1));
    assert_eq!(disk.len(), 1);
    assert_eq!(disk.begin_sync(), Some(Mark(2)));
}

#[test]
fn a_crash_takes_what_was_not_synced_and_slots_replace_what_is_above_them() {
    let mut disk = disk(&[slot(1, 1), slot(2, 1), slot(3, 1)]);
    disk.append(ME, Mark(4), &slot(2, 9)).expect("in order");
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..64 {
        let mut copy = disk.clone();
        let loss = copy.crash(ME, &mut Rng::new(seed)).expect("sound");
        torn += usize::from(loss.is_torn);
        if loss.records == 0 {
            assert_eq!(hashes(&copy), [1, 9]);
            assert!(!loss.is_torn);
            kept += 1;
        } else {
            assert_eq!((loss.records, hashes(&copy)), (1, vec![1, 1, 1]));
            lost += 1;
        }
        write(&mut copy, &[slot(2, 5)]).expect("marks begin anew");
        assert_eq!(hashes(&copy), [1, 5], "nothing of the torn record is in the way");
    }
    assert!(kept > 0 && lost > torn && torn > 0, "{kept} {lost} {torn}");
}

#[test]
fn marks_and_slots_that_leave_a_hole_are_found() {
    let mut disk = Disk::default();
    let found = disk.append(ME, Mark(2), &slot(1, 1)).expect_err("a mark left out");
    assert_eq!(found.rule, "marks");
    assert_eq!(write(&mut disk, &[slot(2, 1)]).expect_err("a slot left out").rule, "records");
}

#[test]
fn a_lock_lies_on_the_stored_history() {
    let mut disk = disk(&[slot(1, 1), slot(2, 2)]);
    write(&mut disk, &[lock(2, 2)]).expect("sound");
    for (wrong, why) in [(lock(2, 9), "another history"), (lock(3, 9), "above the head")] {
        assert!(write(&mut disk.clone(), &[wrong]).is_err(), "{why}");
    }
    assert_eq!(disk.recovered().lock.map(|lock| lock.body.slot), Some(Slot(2)));
}

#[test]
fn an_adopted_history_stands_on_what_is_common() {
    let mut disk = disk(&[slot(1, 1), slot(2, 2), slot(3, 3)]);
    let branch = [aside(2, 22, 1), aside(3, 33, 22), aside(4, 44, 33)];
    write(&mut disk, &branch).expect("sound");
    write(&mut disk, &[adopted(Some(4), Ground::Common(Slot(1)), &[22, 33, 44])]).expect("sound");
    assert_eq!(hashes(&disk), [1, 22, 33, 44]);
    assert_eq!(disk.entered(), View(4));
    assert_eq!(disk.recovered().entered.map(|entered| entered.entry_slot), Some(Slot(1)));
    assert!(disk.ever_held(&hash(3)) && !disk.ever_held(&hash(55)));
    for (wrong, why) in [
        (adopted(Some(3), Ground::Common(Slot(1)), &[]), "an earlier view"),
        (adopted(None, Ground::Common(Slot(5)), &[]), "above the head"),
        (adopted(None, Ground::Common(Slot(1)), &[33]), "not stored any more"),
    ] {
        assert!(write(&mut disk.clone(), &[wrong]).is_err(), "{why}");
    }
    let gap = [aside(4, 66, 33), adopted(None, Ground::Common(Slot(2)), &[66])];
    assert!(write(&mut disk, &gap).is_err(), "a slot left out");
}

#[test]
fn a_state_replaces_the_slots_up_to_its_own() {
    let state = || Ground::State(head(8, 88));
    let mut disk = disk(&[slot(1, 1), slot(2, 2)]);
    assert!(write(&mut disk.clone(), &[adopted(None, state(), &[])]).is_err(), "no pieces");
    let fetching = |slot, byte| Record::Fetching(head(slot, byte));
    let other = [fetching(4, 4), chunk(4, 4, StatePart::Last), adopted(None, state(), &[])];
    assert!(write(&mut disk.clone(), &other).is_err(), "another state");
    let other = [fetching(4, 4), chunk(8, 88, StatePart::Last)];
    assert!(write(&mut disk.clone(), &other).is_err(), "a piece of another state");
    let pieces = [
        fetching(4, 4),
        chunk(4, 4, StatePart::Sessions(0)),
        rows(4, 4, b"old", false),
        fetching(8, 88),
        rows(8, 88, b"one", false),
        chunk(8, 88, StatePart::Sessions(0)),
        chunk(8, 88, StatePart::Last),
        chunk(8, 88, StatePart::Last),
        rows(8, 88, b"two", true),
        aside(9, 99, 88),
    ];
    write(&mut disk, &pieces).expect("sound");
    assert_eq!((disk.base(), disk.len()), (None, 2));
    write(&mut disk, &[adopted(None, state(), &[99])]).expect("sound");
    assert_eq!((disk.base(), hashes(&disk)), (Some(at(8, 88)), vec![99]));
    let known: Vec<_> = [7, 8, 9, 10].map(|slot| disk.hash_at(Slot(slot))).into();
    assert_eq!(known, [None, Some(hash(88)), Some(hash(99)), None]);
    let recovered = disk.recovered();
    assert_eq!(recovered.stable.map(|proof| proof.slot()), Some(Slot(8)));
    assert!(recovered.incoming.is_none());
    let state = recovered.state.expect("the one put in place");
    let parts: Vec<_> = state.pieces.iter().map(|(part, _)| *part).collect();
    assert_eq!(parts, [StatePart::Last, StatePart::Sessions(0)], "of this state alone");
    let keys = state.rows.range(&[], std::ops::Bound::Unbounded);
    let keys: Vec<_> = keys.map(|row| row.expect("in memory").0).collect();
    assert_eq!(keys, ["one", "two"], "of this state alone");
    write(&mut disk, &[slot(10, 10), slot(9, 9)]).expect("sound");
    assert_eq!(hashes(&disk), [9]);
    assert!(write(&mut disk, &[slot(8, 8)]).is_err(), "below the state");
}

#[test]
fn a_settled_state_keeps_the_slots_above_it_and_the_rows_it_does_not_change() {
    let mut disk = disk(&[slot(1, 1), slot(2, 2), slot(3, 3)]);
    let settled = |slot, byte, changes: &[(&'static [u8], Option<&'static [u8]>)]| {
        let changes = changes
            .iter()
            .map(|(key, value)| (Bytes::from_static(key), value.map(Bytes::from_static)));
        let pieces = vec![(StatePart::Last, Bytes::from_static(b"piece"))];
        let settled = Settled { head: *head(slot, byte), pieces, changes: changes.collect() };
        Record::Settled(Box::new(settled))
    };
    let other = settled(1, 9, &[]);
    assert!(write(&mut disk.clone(), &[other]).is_err(), "of another history");
    write(&mut disk, &[settled(1, 1, &[(b"a", Some(b"1")), (b"b", Some(b"1"))])]).expect("sound");
    let last = settled(2, 2, &[(b"a", None), (b"c", Some(b"2"))]);
    disk.append(ME, Mark(5), &last).expect("in order");
    disk.append(ME, Mark(6), &slot(4, 4)).expect("in order");
    disk.begin_sync();
    let Synced { mark, rows } = disk.finish_sync(ME).expect("sound");
    assert_eq!((mark, rows.len(), rows[0].0), (Mark(6), 1, Mark(5)));
    let keys = rows[0].1.range(&[], std::ops::Bound::Unbounded);
    let keys: Vec<_> = keys.map(|row| row.expect("in memory").0).collect();
    assert_eq!(keys, ["b", "c"]);
    assert_eq!((disk.base(), hashes(&disk)), (Some(at(2, 2)), vec![3, 4]));
}

#[test]
fn orphans_and_proofs_are_kept() {
    let (one, two) = (orphan(1), orphan(2));
    let add = vec![one.clone(), two.clone(), one.clone()];
    let mut disk = disk(&[Record::Orphans { add, remove: Vec::new() }]);
    assert_eq!(disk.recovered().orphans, [one.clone(), two.clone()]);
    let remove = vec![one.digest(), hash(9)];
    write(&mut disk, &[Record::Orphans { add: Vec::new(), remove }]).expect("sound");
    assert_eq!(disk.recovered().orphans, [two]);
    write(&mut disk, &[Record::Stable(Box::new(proof(1, 1)))]).expect("sound");
    assert_eq!(disk.stable().map(StableProof::slot), Some(Slot(1)));
}

#[test]
fn a_record_larger_than_a_frame_is_found() {
    let bytes = Bytes::from(vec![0; codec::FRAME_MAX]);
    let large = Record::Piece { at: at(1, 1), part: StatePart::Last, bytes };
    let found = Disk::default().append(ME, Mark(1), &large).expect_err("too large");
    assert_eq!(found.rule, "records");
}
