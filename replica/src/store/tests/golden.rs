//! Stores in the tree, as programs before this one wrote them: what is in them, and that the present code reads and
//! writes it so.
//!
//! `replica/tests/golden/` has, for each format of which a store is kept, a folder `store-N` with two data folders and
//! a page:
//!
//! - `lived`: of a replica that has lived. Its records are in `records.txt` there (`tests/golden/` of the workspace
//!   says where they come from). Some of them are in fjall's tables, some in its journal, and the last ones in the
//!   log alone, as a crash leaves them.
//! - `founded`: of a replica that begins with the rows of that one, as after a restore.
//! - `contents.txt`: what is in them, as it is read and as it is stored.
//!
//! Files are kept without the room at their end, and folders without those in which nothing is.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::sync::OnceLock;

use elea_protocol::id::{hex, unhex};
use expect_test::expect_file;
use fjall::Keyspace;

use super::*;
use crate::store::layout::{META_NAMES, Space};

/// So many of the last groups are in the log only.
const ONLY_IN_THE_LOG: usize = 3;

/// What comes of a change that nobody has announced.
const WHAT_TO_DO: &str = "\
Where a store of this format is read or written otherwise than before, raise FORMAT \
(replica/src/store/layout.rs): programs would misread each other's disks. A golden store is never \
changed; that of a new format is written with UPDATE_EXPECT=1, and those of older formats stay: they \
have to be refused in a sentence, or read. Where only the words of contents.txt are others, and what they \
say is the same, write them with UPDATE_EXPECT=1.";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn is_meant() -> bool {
    env::var_os("UPDATE_EXPECT").is_some()
}

/// Whose store it is, and what was written to it, group by group.
fn records() -> (Digest, ReplicaId, Vec<Vec<Record>>) {
    let text = fs::read_to_string(golden().join("records.txt")).expect("it is in the tree");
    let (first, groups) = text.split_once("\n\n").expect("a head and groups");
    let (replica, genesis) = first.split_once(" of ").expect("a replica of a cluster");
    let replica = replica.strip_prefix('r').and_then(|id| id.parse().ok());
    let byte = |pair: &[u8]| str::from_utf8(pair).ok().and_then(unhex).map(|[byte]: [u8; 1]| byte);
    let record = |line: &str| {
        let (_, hex) = line.split_once(' ')?;
        let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
        codec::decode(&bytes?).ok()
    };
    let read = |line: &str| {
        record(line).unwrap_or_else(|| {
            panic!(
                "records.txt: {line}: records are encoded otherwise now. {WHAT_TO_DO} First remove \
                 records.txt, and write others with UPDATE_EXPECT=1 cargo test --release -p elea --test \
                 golden records."
            )
        })
    };
    let groups = groups.split("\n\n").map(|group| group.lines().map(read).collect());
    let genesis = unhex(genesis).map(Digest).expect("a digest");
    (genesis, ReplicaId(replica.expect("a number")), groups.collect())
}

/// Writes the records, as a replica does that crashes before the last groups are in the tables.
fn write_lived(folder: &Path) {
    let (genesis, me, groups) = records();
    let (mut store, _) = Store::open(folder, &genesis, me, Durability::Sync).expect("a new store");
    let in_tables = groups.len() - ONLY_IN_THE_LOG;
    for (place, group) in groups.iter().enumerate() {
        if place == in_tables / 2 {
            all(&store).for_each(|(_, keyspace)| {
                keyspace.rotate_memtable_and_wait().expect("flushed");
            });
        }
        let staged = store.writer.write(group).expect("written");
        if let Some(Staged { redo, .. }) = staged.filter(|_| place < in_tables) {
            store.tables.take(redo, []).expect("taken");
        }
    }
}

/// Makes a store of a cluster that begins with the state of the other one.
fn write_founded(folder: &Path, of: &Path) {
    let (genesis, me, _) = records();
    let (_store, recovered) =
        Store::open(of, &genesis, me, Durability::Os).expect("it was just written");
    let rows = all_rows(&recovered.state.expect("it has one").rows);
    Store::found::<StoreError>(folder, &genesis, me, |keep| keep(rows)).expect("a new store");
}

/// The keyspaces with their names. Whoever adds a [`Space`] adds it here, and to the records something that is in it.
fn all(store: &Store) -> impl Iterator<Item = (String, &Keyspace)> {
    let tables = &store.tables;
    let rows = tables.rows.keys().map(|generation| Space::Rows(*generation));
    let own =
        [Space::History, Space::Meta, Space::Aside, Space::Orphans, Space::State, Space::Evidence];
    own.into_iter().chain(rows).map(|space| match space {
        Space::History => (HISTORY.to_owned(), &tables.history),
        Space::Meta => (META.to_owned(), &tables.meta),
        Space::Aside => (ASIDE.to_owned(), &tables.aside),
        Space::Orphans => (ORPHANS.to_owned(), &tables.orphans),
        Space::State => (STATE.to_owned(), &tables.state),
        Space::Evidence => (EVIDENCE.to_owned(), &tables.evidence),
        Space::Rows(generation) => (rows::name(generation), &tables.rows[&generation]),
    })
}

/// What is in each keyspace, in hexadecimal.
type Stored = BTreeMap<String, BTreeMap<String, String>>;

fn tables(store: &Store) -> Stored {
    let row = |guard: fjall::Guard| {
        let (key, value) = guard.into_inner().expect("readable");
        (hex(&key), hex(&value))
    };
    all(store).map(|(name, keyspace)| (name, keyspace.iter().map(row).collect())).collect()
}

fn put(page: &mut String, name: &str, what: &impl std::fmt::Debug) {
    writeln!(page, "{name}: {what:#?}").expect("a String has room");
}

fn put_rows(page: &mut String, view: &RowsView) {
    for (key, value) in all_rows(view) {
        writeln!(page, "row {} {}", hex(&key), hex(&value)).expect("a String has room");
    }
}

fn put_state(page: &mut String, name: &str, state: Option<StoredState>) {
    let Some(StoredState { head, pieces, rows }) = state else { return };
    put(page, name, &head);
    for (part, bytes) in pieces {
        writeln!(page, "{part:?} {}", hex(&bytes)).expect("a String has room");
    }
    put_rows(page, &rows);
}

/// What the store holds, as it is read and as it is stored.
fn contents(store: &Store, recovered: Recovered) -> String {
    let mut page = String::new();
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
    } = recovered;
    put(&mut page, "standing", &standing);
    put(&mut page, "has run", &has_run);
    put(&mut page, "lives", &lives);
    put(&mut page, "entered", &entered);
    put(&mut page, "voted", &voted);
    put(&mut page, "lock", &lock);
    put(&mut page, "stable", &stable);
    put(&mut page, "stamps", &stamps);
    put(&mut page, "orphans", &orphans);
    put(&mut page, "evidence", &evidence);
    put(&mut page, "mismatches", &mismatches);
    for (slot, read) in store.history().enumerate() {
        put(&mut page, &format!("slot {slot} after the state"), &read.expect("sound"));
    }
    put_state(&mut page, "state", state);
    put_state(&mut page, "incoming", incoming);
    if let Some(rows) = &initial {
        writeln!(page, "initial").expect("a String has room");
        put_rows(&mut page, rows);
    }
    put(&mut page, "index", &store.writer.index);
    put(&mut page, "group", &store.writer.log.group);
    for (name, rows) in tables(store) {
        for (key, value) in rows {
            writeln!(page, "{name} {key} {value}").expect("a String has room");
        }
    }
    page
}

/// Copies a folder, and makes of each file what `change` makes of it.
fn copy(from: &Path, to: &Path, change: &impl Fn(Vec<u8>) -> Vec<u8>) {
    for entry in fs::read_dir(from).expect("there") {
        let (from, name) = entry.map(|entry| (entry.path(), entry.file_name())).expect("readable");
        if from.is_dir() {
            copy(&from, &to.join(name), change);
            continue;
        }
        fs::create_dir_all(to).expect("made");
        fs::write(to.join(name), change(fs::read(from).expect("read"))).expect("written");
    }
}

/// More zeros than these at the end of a file are room for what comes.
const ROOM: usize = 4096;

fn without_room(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    // The last frame of a log may end with zeros of its own.
    bytes.truncate(end + ROOM);
    bytes
}

/// The data folders of a golden store.
const KINDS: [&str; 2] = ["lived", "founded"];

fn place(format: u32) -> PathBuf {
    golden().join(format!("store-{format}"))
}

/// The formats of which there are golden stores.
fn formats() -> BTreeSet<u32> {
    let names = fs::read_dir(golden()).expect("there").filter_map(|entry| {
        let name = entry.expect("readable").file_name().into_string().ok()?;
        name.strip_prefix("store-")?.parse().ok()
    });
    names.collect()
}

/// Opens a copy of a golden store.
fn open_golden(format: u32, kind: &str) -> (TempDir, Result<(Store, Recovered), StoreError>) {
    be_there();
    let folder = TempDir::new().expect("a folder");
    copy(&place(format).join(kind), folder.path(), &|bytes| bytes);
    let (genesis, me, _) = records();
    let opened = Store::open(folder.path(), &genesis, me, Durability::Sync);
    (folder, opened)
}

/// Sees to it that there is a golden store of the present format, before any test looks for it.
fn be_there() {
    static THERE: OnceLock<()> = OnceLock::new();
    THERE.get_or_init(write_new);
}

fn write_new() {
    if place(FORMAT).exists() {
        return;
    }
    assert!(is_meant(), "there is no golden store of format {FORMAT}. {WHAT_TO_DO}");
    let folder = TempDir::new().expect("a folder");
    let [lived, founded, again] =
        ["lived", "founded", "again"].map(|name| folder.path().join(name));
    write_lived(&lived);
    // Opening it changes it.
    copy(&lived, &again, &|bytes| bytes);
    write_founded(&founded, &again);
    for (kind, from) in KINDS.into_iter().zip([lived, founded]) {
        copy(&from, &place(FORMAT).join(kind), &without_room);
    }
}

#[test]
fn a_golden_store_holds_what_was_written_or_is_refused_in_a_sentence() {
    be_there();
    for format in formats() {
        let mut page = String::new();
        for kind in KINDS {
            match open_golden(format, kind).1 {
                Ok((store, recovered)) => {
                    writeln!(page, "== {kind}").expect("a String has room");
                    page.push_str(&contents(&store, recovered));
                }
                Err(StoreError::OlderFormat { found, .. }) if found == format && found < FORMAT => {
                }
                Err(other) => panic!("{kind} of format {format}: {other}. {WHAT_TO_DO}"),
            }
        }
        // One that is refused has nothing to show; one that is read, or converted, has what it was written with.
        let file = expect_file![place(format).join("contents.txt")];
        assert!(
            page.is_empty() || page == file.data() || is_meant(),
            "a golden store of format {format} is not what it was. {WHAT_TO_DO}"
        );
        if !page.is_empty() {
            file.assert_eq(&page);
        }
    }
}

/// A store that lacks something would not show that it is still read.
#[test]
fn the_golden_store_has_something_in_every_table_under_every_name_and_in_the_log_alone() {
    let (folder, opened) = open_golden(FORMAT, "lived");
    let (lived, _) = opened.expect("of this format");
    let (_folder, opened) = open_golden(FORMAT, "founded");
    let (founded, _) = opened.expect("of this format");
    let known: BTreeSet<String> = all(&lived).map(|(name, _)| name).collect();
    let there = lived.tables.database.list_keyspace_names();
    assert_eq!(known, there.iter().map(ToString::to_string).collect(), "a table is new");
    let empty = all(&lived).filter(|(_, keyspace)| keys(keyspace) == 0);
    let empty: Vec<String> = empty.map(|(name, _)| name).collect();
    assert!(empty.is_empty(), "nothing is in {empty:?}: write records to tests/golden that are");

    let named = |name: &[u8]| {
        let [lived, founded] =
            [&lived, &founded].map(|store| store.tables.meta.contains_key(name).expect("readable"));
        lived || founded
    };
    let missing = META_NAMES.iter().filter(|name| !named(name)).map(|name| name.escape_ascii());
    let missing: Vec<String> = missing.map(|name| name.to_string()).collect();
    assert!(missing.is_empty(), "nothing is in meta under {missing:?}: write records that are");

    // Of the state in place and of the one on its way.
    assert_eq!(lived.tables.rows.len(), 2);
    assert!(
        lived.writer.index.era > 0,
        "a state that was fetched has taken the place of a history"
    );
    let group = lived.writer.log.group;
    drop((lived, folder));
    let folder = TempDir::new().expect("a folder");
    copy(&place(FORMAT).join("lived"), folder.path(), &|bytes| bytes);
    let (genesis, me, _) = records();
    // Nobody has taken the log into these.
    let tables = Tables::open(folder.path(), &genesis, Some(me)).expect("sound");
    let in_tables = tables.group().expect("named");
    assert_eq!(group - in_tables, ONLY_IN_THE_LOG as u64, "the last groups are in the log only");
}

#[test]
fn the_same_records_are_stored_as_they_were() {
    let (_folder, opened) = open_golden(FORMAT, "lived");
    let (before, _) = opened.expect("of this format");
    let folder = TempDir::new().expect("a folder");
    write_lived(folder.path());
    let (genesis, me, _) = records();
    let opened = Store::open(folder.path(), &genesis, me, Durability::Sync);
    let (now, _) = opened.expect("it was just written");
    let (before, now) = (tables(&before), tables(&now));
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let other: Vec<_> =
        names.into_iter().filter(|name| before.get(*name) != now.get(*name)).collect();
    assert!(other.is_empty(), "{other:?} are written otherwise. {WHAT_TO_DO}");
}
