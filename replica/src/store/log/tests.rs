//! Tests of the log against real files, and without tables.

use elea_protocol::id::Digest;
use tempfile::TempDir;

use super::*;
use crate::dice::Dice;

const GENESIS: Digest = Digest([1; 32]);
const ME: ReplicaId = ReplicaId(2);

/// Opens it beside tables that have all groups up to `tables`, and answers what these lack.
fn open(
    folder: &TempDir,
    tables: u64,
    durability: Durability,
) -> Result<(Log, Vec<Redo>), StoreError> {
    let mut taken = Vec::new();
    let mut ends = Vec::new();
    let log = Log::open(folder.path(), (&GENESIS, ME), durability, tables, |redo, is_last| {
        taken.push(redo);
        ends.push(is_last);
        Ok(())
    })?;
    assert_eq!(ends.iter().filter(|is_last| **is_last).count(), ends.len().min(1));
    assert!(ends.last().is_none_or(|is_last| *is_last));
    Ok((log, taken))
}

/// The change that group `number` makes.
fn redo(number: u64, bytes: usize) -> Redo {
    let mut redo = Redo {
        present: Present {
            era: number,
            base: Slot(number / 2),
            ground: number.is_multiple_of(2).then_some(number),
            incoming: None,
        },
        ..Redo::default()
    };
    let key = Bytes::copy_from_slice(&number.to_be_bytes());
    redo.put(Space::Meta, key.clone(), Some(Bytes::from(vec![7; bytes])));
    redo.put(Space::Rows(number), key.clone(), Some(Bytes::new()));
    redo.put(Space::History, key, None);
    redo
}

fn all(numbers: std::ops::RangeInclusive<u64>, bytes: usize) -> Vec<Redo> {
    numbers.map(|number| redo(number, bytes)).collect()
}

#[test]
fn what_the_tables_lack_comes_back_and_nothing_twice() {
    for durability in [Durability::Sync, Durability::Os] {
        let folder = TempDir::new().expect("a folder");
        let (mut log, taken) = open(&folder, 0, durability).expect("a new log");
        assert_eq!(taken, []);
        for number in 1..=5 {
            assert_eq!(log.append(&redo(number, 10)).expect("written"), number);
        }
        drop(log);
        let (mut log, taken) = open(&folder, 3, durability).expect("sound");
        assert_eq!(taken, all(4..=5, 10));
        assert_eq!(log.group, 5);
        // They have it now, and it begins anew.
        assert_eq!(log.append(&redo(6, 10)).expect("written"), 6);
        drop(log);
        let (_, taken) = open(&folder, 5, durability).expect("sound");
        assert_eq!(taken, all(6..=6, 10));
        let (log, taken) = open(&folder, 6, durability).expect("sound");
        assert_eq!((log.group, taken.len()), (6, 0));
    }
}

#[test]
fn the_two_files_take_turns_and_none_is_begun_anew_before_the_tables_have_it() {
    let folder = TempDir::new().expect("a folder");
    let (mut log, _) = open(&folder, 0, Durability::Os).expect("a new log");
    let large = usize::try_from(SIDE_BYTES / 4 + 1).expect("small");
    for number in 1..=8 {
        log.append(&redo(number, large)).expect("there is room for all of these");
    }
    assert_eq!([log.sides[0].last, log.sides[1].last], [4, 8]);
    let taken = Arc::clone(&log.taken);
    let writing = std::thread::spawn(move || (log.append(&redo(9, large)), log));
    taken.set(3);
    assert!(!writing.is_finished());
    taken.set(4);
    let (written, mut log) = writing.join().expect("no panic");
    assert_eq!(written, Ok(9));
    for number in 10..=12 {
        log.append(&redo(number, large)).expect("there is room");
    }
    drop(log);
    let (mut log, found) = open(&folder, 4, Durability::Os).expect("sound");
    assert_eq!(found, all(5..=12, large));
    // Whoever waits for tables that failed is told so.
    for number in 13..=20 {
        log.append(&redo(number, large)).expect("there is room");
    }
    let why = StoreError::RowsDamaged { path: "data".into(), what: "a row".to_owned() };
    log.taken.end(Err(why.clone()));
    log.taken.end(Ok(()));
    assert_eq!(log.append(&redo(21, large)), Err(why));
}

#[test]
fn a_file_is_no_larger_for_good_than_two_turns() {
    let folder = TempDir::new().expect("a folder");
    let (mut log, _) = open(&folder, 0, Durability::Os).expect("a new log");
    let huge = usize::try_from(3 * SIDE_BYTES).expect("small");
    log.append(&redo(1, huge)).expect("written");
    log.taken.set(1);
    for number in 2..=4 {
        log.append(&redo(number, huge / 3)).expect("written");
        log.taken.set(number);
    }
    let len = |name: &str| folder.path().join(name).metadata().expect("there").len();
    assert!(len(NAMES[0]) <= 2 * SIDE_BYTES && len(NAMES[1]) <= 2 * SIDE_BYTES);
}

#[test]
fn no_turned_bit_and_no_torn_end_is_forgotten_in_silence() {
    let folder = TempDir::new().expect("a folder");
    let (mut log, _) = open(&folder, 0, Durability::Sync).expect("a new log");
    for number in 1..=4 {
        log.append(&redo(number, 3)).expect("written");
    }
    let end = log.end;
    drop(log);
    let file = folder.path().join(NAMES[0]);
    let sound = std::fs::read(&file).expect("there");
    let witness = std::fs::read(folder.path().join(WITNESS)).expect("there");
    for at in 0..usize::try_from(end).expect("small") {
        let mut bent = sound.clone();
        bent[at] ^= 1 << (at % 8);
        std::fs::write(&file, bent).expect("written");
        let opened = open(&folder, 0, Durability::Sync);
        assert!(matches!(opened, Err(StoreError::Damaged { .. })), "byte {at}: {opened:?}");
        // What is in the tables need not be in the log.
        let in_tables = open(&folder, 4, Durability::Sync).expect("they have it");
        assert_eq!(in_tables.1, []);
        // Without the witness it is what a power cut leaves: the groups before.
        std::fs::remove_file(folder.path().join(WITNESS)).expect("removed");
        let mut bent = sound.clone();
        bent[at] ^= 1 << (at % 8);
        std::fs::write(&file, bent).expect("written");
        let (log, found) = open(&folder, 0, Durability::Sync).expect("as it was before");
        assert!(log.group < 4);
        assert_eq!(found, all(1..=log.group, 3));
        std::fs::write(folder.path().join(WITNESS), &witness).expect("written");
    }
}

#[test]
fn a_gap_to_the_other_file_or_to_the_tables_is_damage() {
    let folder = TempDir::new().expect("a folder");
    let (mut log, _) = open(&folder, 0, Durability::Sync).expect("a new log");
    let large = usize::try_from(SIDE_BYTES / 2 + 1).expect("small");
    for number in 1..=4 {
        log.append(&redo(number, large)).expect("written");
    }
    drop(log);
    // Older tables than the log begins with.
    let other = TempDir::new().expect("a folder");
    let (log, _) = open(&other, 9, Durability::Sync).expect("a new log");
    drop(log);
    let (mut log, _) = open(&other, 9, Durability::Sync).expect("sound");
    log.append(&redo(10, 3)).expect("written");
    drop(log);
    let refused = open(&other, 8, Durability::Sync);
    assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
    // The second group of the first file is not there, and the other file goes on with the third.
    std::fs::remove_file(folder.path().join(WITNESS)).expect("removed");
    let file = File::options().write(true).open(folder.path().join(NAMES[0])).expect("there");
    file.write_all_at(&[0; HEADER], SIDE_BYTES / 2 + 200).expect("written");
    let refused = open(&folder, 0, Durability::Sync);
    assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
    // Whoever left it to the system has what was before the hole, and nothing of what was behind comes back.
    let (mut log, found) = open(&folder, 0, Durability::Os).expect("by the operator's choice");
    assert_eq!((found, log.group), (all(1..=1, large), 1));
    log.append(&redo(2, 3)).expect("written");
    drop(log);
    let (_, found) = open(&folder, 1, Durability::Os).expect("sound");
    assert_eq!(found, all(2..=2, 3));
}

#[test]
fn frames_of_another_cluster_or_replica_are_none() {
    for (genesis, owner) in [(Digest([9; 32]), ME), (GENESIS, ReplicaId(3))] {
        let folder = TempDir::new().expect("a folder");
        let (mut log, _) = open(&folder, 0, Durability::Os).expect("a new log");
        log.append(&redo(1, 3)).expect("written");
        drop(log);
        let other = (&genesis, owner);
        let log = Log::open(folder.path(), other, Durability::Os, 0, |_, _| unreachable!("none"));
        assert_eq!(log.expect("empty").group, 0);
    }
}

#[test]
fn no_bytes_are_too_mad_for_a_payload() {
    let mut dice = Dice(1);
    let mut sound = Vec::new();
    encode(&redo(4, 20), &mut sound);
    assert_eq!(decode(&sound), Some(redo(4, 20)));
    for end in 0..sound.len() {
        // A prefix may be the payload of fewer changes.
        let _ = decode(&sound[..end]);
    }
    for _ in 0..20_000 {
        let mut bent = sound.clone();
        for _ in 0..dice.between(1, 4) {
            let at = usize::try_from(dice.below(bent.len() as u64)).expect("small");
            bent[at] = dice.next() as u8;
        }
        let _ = decode(&bent);
    }
}

/// Another encoding needs another format of the store.
#[test]
fn a_frame_with_every_keyspace_is_encoded_as_it_was() {
    let present = Present { era: 0x11, base: Slot(0x12), ground: Some(0x13), incoming: Some(0x14) };
    let mut redo = Redo { present, ..Redo::default() };
    let spaces = [
        Space::History,
        Space::Meta,
        Space::Aside,
        Space::Orphans,
        Space::State,
        Space::Evidence,
        Space::Rows(0x13),
    ];
    for space in spaces {
        // Whoever adds a keyspace shows it above.
        let name = match space {
            Space::History => "history",
            Space::Meta => "meta",
            Space::Aside => "aside",
            Space::Orphans => "orphans",
            Space::State => "state",
            Space::Evidence => "evidence",
            Space::Rows(_) => "rows",
        };
        redo.put(space, name, Some(Bytes::from_static(b"value")));
    }
    redo.put(Space::Meta, "gone", None);
    redo.put(Space::Meta, "nothing", Some(Bytes::new()));
    let bare =
        Redo { present: Present { ground: None, incoming: None, ..present }, ..Redo::default() };

    let folder = TempDir::new().expect("a folder");
    let (mut log, _) = open(&folder, 0, Durability::Sync).expect("a new log");
    let mut frames = Vec::new();
    for redo in [&redo, &bare] {
        log.append(redo).expect("written");
        frames.push(elea_protocol::id::hex(&log.buffer));
    }
    let end = usize::try_from(log.end).expect("small");
    drop(log);
    expect_test::expect![[r#"
        454c4731010000000000000019010000000000000364672f8f08c20438e09ce682bef9911100000000000000120000000000000013000000000000001400000000000000000000000000000000010000000700000005000000686973746f727976616c75650100000000000000000300000004000000ffffffff676f6e6504000000050000006d65746176616c756507000000000000006e6f7468696e67020000000000000000010000000500000005000000617369646576616c75650300000000000000000100000007000000050000006f727068616e7376616c7565040000000000000000010000000500000005000000737461746576616c756505000000000000000001000000080000000500000065766964656e636576616c7565061300000000000000010000000400000005000000726f777376616c7565
        454c473102000000000000002000000000000000ac31ba9837461785fc659bff54c4108a11000000000000001200000000000000ffffffffffffffffffffffffffffffff"#]].assert_eq(&frames.join("\n"));
    let written = std::fs::read(folder.path().join(NAMES[0])).expect("there");
    assert_eq!(elea_protocol::id::hex(&written[..end]), frames.concat());
    let witness = std::fs::read(folder.path().join(WITNESS)).expect("there");
    expect_test::expect!["3ccb048985a3ed14e0d921933dfc36180200000000000000"]
        .assert_eq(&elea_protocol::id::hex(&witness));

    let (_, found) = open(&folder, 0, Durability::Sync).expect("sound");
    // How much it weighs is worked out anew.
    let found: Vec<_> = found.into_iter().map(|redo| (redo.spaces, redo.present)).collect();
    assert_eq!(found, [(redo.spaces, redo.present), (bare.spaces, bare.present)]);
}
