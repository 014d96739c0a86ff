//! Tests of damage to files: what can be repaired is given up, what cannot is the end.

use elea_protocol::message::DiskHealth;

use super::*;
use crate::store::opening::open_database;

/// Where a bit is turned: at so many thousandths of the file.
const PLACES: [u64; 9] = [0, 3, 100, 300, 500, 700, 900, 985, 999];

/// A store with two slots and a state of many rows in a table, and one slot more.
fn built(folder: &Path) -> Store {
    let (mut store, _) = open(folder).expect("a new store");
    let keys: Vec<[u8; 8]> =
        (0..4000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()).collect();
    let changes: Vec<(Bytes, Option<Bytes>)> = keys
        .iter()
        .map(|key| (Bytes::copy_from_slice(key), Some(Bytes::from(vec![key[3]; 40]))))
        .collect();
    let Record::Settled(mut state) = settled(2, 12, &[]) else { unreachable!("it is one") };
    state.changes = changes;
    store.commit(&[slot(1, 11), slot(2, 12), slot(3, 13)]).expect("written");
    store.commit(&[Record::Settled(state)]).expect("written");
    store.tables.rows.values().for_each(|keyspace| {
        keyspace.rotate_memtable_and_wait().expect("flushed");
    });
    store
}

/// The tables in the folder of this keyspace.
fn tables(keyspace: &Keyspace) -> Vec<PathBuf> {
    let read = fs::read_dir(keyspace.path().join("tables")).expect("there");
    let mut found: Vec<_> = read.map(|entry| entry.expect("readable").path()).collect();
    found.sort();
    found
}

fn turn_a_bit(file: &Path, thousandths: u64) {
    let mut bytes = fs::read(file).expect("there");
    let at = (bytes.len() as u64 - 1) * thousandths / 999;
    bytes[usize::try_from(at).expect("small")] ^= 0x10;
    fs::write(file, bytes).expect("written");
}

/// What fjall says of everything that follows a failure.
fn failed() -> StoreError {
    StoreError::WriteFailed { path: "data".into(), reason: "an earlier write failed".to_owned() }
}

fn look(store: &Store) -> Vec<Damage> {
    let mut found = Vec::new();
    let looked = store.files().look(&mut |_| true, &mut |damage| found.push(damage));
    assert!(matches!(looked, Looked::Whole(_)));
    found
}

fn is_readable(view: &RowsView) -> bool {
    view.range(&[], std::ops::Bound::Unbounded).all(|row| row.is_ok())
}

#[test]
fn a_look_finds_a_turned_bit_wherever_it_is_in_a_table_and_nothing_where_there_is_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = built(folder.path());
    assert_eq!(look(&store), []);
    assert_eq!(store.files().health(), DiskHealth::Sound);
    let table = &tables(&store.tables.rows[&1])[0];
    let sound = fs::read(table).expect("there");
    for place in PLACES {
        turn_a_bit(table, place);
        let found = look(&store);
        assert_eq!(found.len(), 1, "at {place}: {found:?}");
        assert_eq!(found[0].keyspace, "rows-1");
        fs::write(table, &sound).expect("written");
    }
    assert_eq!(look(&store), []);
    let damage = Damage { keyspace: "rows-1".to_owned(), what: "it".to_owned() };
    assert!(store.files().note(&damage) && !store.files().note(&damage), "told once");
    let mut steps = 0;
    let looked = store.files().look(
        &mut |_| {
            steps += 1;
            false
        },
        &mut |_| {},
    );
    assert_eq!((looked, steps), (Looked::Stopped, 1));
}

#[test]
fn a_store_with_damaged_rows_opens_all_the_same_and_is_whole_again_with_those_of_others() {
    for place in PLACES {
        let folder = tempfile::tempdir().expect("a folder");
        let store = built(folder.path());
        let table = tables(&store.tables.rows[&1]).remove(0);
        drop(store);
        turn_a_bit(&table, place);

        // fjall may refuse the database, and the store opens it without the rows. Or it opens, and
        // the damage shows when it is read.
        let (mut store, recovered) = open(folder.path()).expect("all but the rows");
        assert_eq!(recovered.stable, None);
        assert_eq!(stored(&store), [13]);
        let state = recovered.state.expect("what others certified");
        // Not every byte of a table is read to read its rows.
        let is_found = !is_readable(&state.rows) || look(&store).len() == 1;
        assert!(is_found, "at {place}");
        drop(state);

        // From others comes the same state again.
        let at = 2;
        store.commit(&[fetching(at, 12)]).expect("written");
        store.commit(&[rows(at, 12, vec![row(b"key", b"value")], true)]).expect("written");
        let state = head(at, 12);
        let adopted = adopted(Ground::State(Box::new(state)), &[], None);
        store.commit(&[adopted]).expect("written");
        assert_eq!(look(&store), []);
        assert_eq!(store.files().health(), DiskHealth::Sound, "at {place}");
        drop(store);
        let (store, recovered) = open(folder.path()).expect("sound");
        let state = recovered.state.expect("there");
        assert_eq!(all_rows(&state.rows), [row(b"key", b"value")]);
        assert_eq!(store.tables.note.damaged, BTreeSet::new());
        assert!(!table.exists(), "the damaged rows are gone");
    }
}

#[test]
fn damaged_rows_that_keep_fjall_from_writing_are_given_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = built(folder.path());
    let table = tables(&store.tables.rows[&1]).remove(0);
    turn_a_bit(&table, 100);
    // Whatever fails when damage is met, fjall says of everything after it that it cannot be
    // written.
    let error = failed();
    let blamed = store.tables.blame(error.clone());
    assert!(matches!(&blamed, StoreError::RowsDamaged { what, .. } if what.contains("rows-1")));
    drop(store);
    let (mut store, recovered) = open(folder.path()).expect("all but the rows");
    assert!(!is_readable(&recovered.state.expect("there").rows));
    assert!(matches!(store.files().health(), DiskHealth::Damaged(what) if what.contains("rows-1")));
    assert_eq!(store.tables.blame(error.clone()), error, "nothing is left to blame");
    // Nothing may be written over what is gone.
    store.commit(&[slot(4, 14)]).expect("written");
    assert!(store.commit(&[settled(3, 13, &[])]).is_err());
    drop(store);
    // It stays so until the rows are here.
    let (_, recovered) = open(folder.path()).expect("all but the rows");
    assert!(!is_readable(&recovered.state.expect("there").rows));
}

#[test]
fn rows_on_their_way_here_that_are_damaged_are_fetched_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = built(folder.path());
    store.commit(&[fetching(9, 19)]).expect("written");
    store.commit(&[rows(9, 19, vec![row(b"key", b"value")], false)]).expect("written");
    store.tables.rows[&2].rotate_memtable_and_wait().expect("flushed");
    let table = tables(&store.tables.rows[&2]).remove(0);
    turn_a_bit(&table, 0);
    assert_eq!(look(&store)[0].keyspace, "rows-2");
    assert!(!store.files().note(&look(&store)[0]), "nobody stands on them");
    let error = failed();
    assert!(matches!(store.tables.blame(error), StoreError::RowsDamaged { .. }));
    drop(store);
    let (mut store, recovered) = open(folder.path()).expect("all but those");
    assert!(recovered.incoming.is_none());
    assert!(is_readable(&recovered.state.expect("there").rows), "the state in place is sound");
    store.commit(&[fetching(9, 19)]).expect("written");
    let generations: Vec<u64> = store.tables.rows.keys().copied().collect();
    assert_eq!(generations, [1, 3], "no name is used twice");
    assert_eq!(store.tables.note.damaged, BTreeSet::new());
}

#[test]
fn damage_to_anything_else_is_the_end_of_the_store_and_leaves_the_rows_where_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = built(folder.path());
    store.tables.meta.rotate_memtable_and_wait().expect("flushed");
    let table = tables(&store.tables.meta).remove(0);
    let sound = fs::read(&table).expect("there");
    drop(store);
    let mut refused = BTreeMap::new();
    for place in PLACES {
        turn_a_bit(&table, place);
        match open(folder.path()).map(drop) {
            Ok(()) => {}
            Err(StoreError::Damaged { what, .. }) => {
                refused.insert(place, what);
            }
            Err(other) => panic!("at {place}: {other}"),
        }
        fs::write(&table, &sound).expect("written");
    }
    assert!(refused.len() >= 3, "{refused:?}");
    let (_, recovered) = open(folder.path()).expect("sound");
    assert!(is_readable(&recovered.state.expect("there").rows));
}

#[test]
fn a_trial_without_rows_that_a_crash_interrupts_is_undone() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = built(folder.path());
    let place = store.tables.rows[&1].path().to_owned();
    drop(store);
    let name = place.file_name().expect("a number").to_string_lossy().into_owned();
    fs::rename(&place, folder.path().join(format!("rows-aside-{name}"))).expect("moved");
    let (_, recovered) = open(folder.path()).expect("sound");
    assert!(is_readable(&recovered.state.expect("there").rows));
}

/// The files that say which tables a keyspace has.
fn manifests(keyspace: &Path) -> Vec<PathBuf> {
    let current = fs::read(keyspace.join("current")).expect("there");
    let number = u64::from_le_bytes(current[..8].try_into().expect("eight bytes"));
    vec![keyspace.join("current"), keyspace.join(format!("v{number}"))]
}

#[test]
fn any_turned_bit_of_a_manifest_is_found_and_one_of_rows_is_repaired() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = built(folder.path());
    let (of_rows, of_meta) =
        (store.tables.rows[&1].path().to_owned(), store.tables.meta.path().to_owned());
    drop(store);
    for manifest in manifests(&of_meta) {
        let sound = fs::read(&manifest).expect("there");
        for at in 0..sound.len() {
            let mut bent = sound.clone();
            bent[at] ^= 1 << (at % 8);
            fs::write(&manifest, bent).expect("written");
            let opened = open_database(folder.path(), &folder.path().join("store"));
            assert!(matches!(opened, Err(StoreError::Damaged { .. })), "{manifest:?} at {at}");
        }
        fs::write(&manifest, sound).expect("written");
    }
    let manifest = manifests(&of_rows).remove(1);
    turn_a_bit(&manifest, 40);
    let (store, recovered) = open(folder.path()).expect("all but the rows");
    assert!(!is_readable(&recovered.state.expect("there").rows));
    assert_eq!(store.tables.note.damaged, BTreeSet::from([1]));
}

#[test]
fn no_byte_at_the_end_of_a_table_keeps_the_store_from_being_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = built(folder.path());
    let table = tables(&store.tables.rows[&1]).remove(0);
    drop(store);
    let whole = folder.path().join("store");
    let sound = fs::read(&table).expect("there");
    // What fjall reads of a table to open it stands at its end.
    for at in (0..sound.len()).rev().take(700) {
        let mut bent = sound.clone();
        bent[at] ^= 1 << (at % 8);
        fs::write(&table, bent).expect("written");
        match open_database(folder.path(), &whole) {
            Ok(_) | Err(StoreError::Damaged { .. }) => {}
            Err(other) => panic!("at {at}: {other}"),
        }
    }
}

/// The journals in the folder of a database, the oldest first.
fn journals(whole: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(whole).expect("there").map(|entry| entry.expect("readable").path());
    let mut found: Vec<_> =
        read.filter(|path| path.extension().is_some_and(|end| end == "jnl")).collect();
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("there") {
        let (from, name) = entry.map(|entry| (entry.path(), entry.file_name())).expect("readable");
        let to = to.join(name);
        match from.is_dir() {
            true => copy(&from, &to),
            false => drop(fs::copy(&from, &to).expect("copied")),
        }
    }
}

#[test]
fn damage_to_a_journal_that_another_one_followed_is_found_and_not_forgotten() {
    let sound = tempfile::tempdir().expect("a folder");
    let (mut store, _) = open(sound.path()).expect("a new store");
    store.commit(&[slot(1, 1)]).expect("written");
    store.commit(&[slot(2, 2)]).expect("written");
    drop(store);
    // Another one follows it, as when the first had been full. Nothing of the first is in a file yet:
    // the process dies before that.
    let first = journals(&sound.path().join("store")).remove(0);
    let later = tempfile::tempdir().expect("a folder");
    copy(sound.path(), later.path());
    let second = Path::new("store").join("9.jnl");
    File::create(later.path().join(&second)).expect("made");
    let (mut store, _) = open(later.path()).expect("sound");
    store.commit(&[slot(3, 3)]).expect("written");
    drop(store);
    for file in [second.as_path(), Path::new(WITNESS)] {
        fs::copy(later.path().join(file), sound.path().join(file)).expect("copied");
    }
    copy(sound.path(), later.path());
    let (store, _) = open(later.path()).expect("sound");
    assert_eq!(stored(&store), [1, 2, 3]);
    drop(store);
    assert!(!later.path().join("journals").exists());

    let bytes = fs::read(&first).expect("there");
    // All but the mark at its end.
    let written = bytes.iter().rposition(|byte| *byte != 0).expect("not empty") - 3;
    let mut found = 0;
    for at in (0..written).step_by(11) {
        let folder = tempfile::tempdir().expect("a folder");
        copy(sound.path(), folder.path());
        let journal = folder.path().join("store").join(first.file_name().expect("it has one"));
        let mut bent = bytes.clone();
        bent[at] ^= 1 << (at % 8);
        fs::write(&journal, bent).expect("written");
        match open(folder.path()) {
            Ok((store, _)) => assert_eq!(stored(&store), [1, 2, 3], "at {at}"),
            Err(StoreError::Damaged { what, .. }) if what.contains("is not what was written") => {
                found += 1;
                // fjall has cut it off, and finds nothing wrong with it now.
                let again = open(folder.path());
                assert!(matches!(again, Err(StoreError::Damaged { .. })), "at {at}");
            }
            Err(StoreError::Damaged { .. }) => {}
            Err(other) => panic!("at {at}: {other}"),
        }
    }
    assert!(found > 0, "fjall does not cut journals off any more");
}

#[test]
fn no_byte_of_a_journal_keeps_the_store_from_saying_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut store, _) = open(folder.path()).expect("a new store");
    for n in 1..=3 {
        store.commit(&[slot(n, n)]).expect("written");
    }
    drop(store);
    let journal = journals(&folder.path().join("store")).remove(0);
    let sound = fs::read(&journal).expect("there");
    let written = sound.iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
    for at in (0..written).step_by(7) {
        let mut bent = sound.clone();
        bent[at] ^= 1 << (at % 8);
        fs::write(&journal, bent).expect("written");
        match open(folder.path()) {
            Ok((store, _)) => assert_eq!(stored(&store), [1, 2, 3], "at {at}"),
            Err(StoreError::Damaged { .. }) => {}
            Err(other) => panic!("at {at}: {other}"),
        }
    }
}
