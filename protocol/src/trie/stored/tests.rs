//! Tries on disk against tries in memory.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::prelude::*;

use super::super::path::BRANCH;
use super::*;
use crate::id::hex;
use crate::rows::{Changes, MemoryRows};

/// Keys with long common prefixes, so that deep branches come and go.
fn key() -> impl Strategy<Value = Digest> {
    (proptest::collection::vec(0..3u8, 3), any::<u8>()).prop_map(|(nibbles, last)| {
        let mut key = [0; 32];
        key[0] = nibbles[0] << 4 | nibbles[1];
        key[1] = nibbles[2] << 4;
        key[2] = last & 0x33;
        Digest(key)
    })
}

fn leaf(seed: u8) -> Leaf {
    let weight = [10, 1_000, 200_000, 600_000][usize::from(seed % 4)];
    Leaf { digest: Digest([seed; 32]), weight, value: () }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Digest, u8),
    Remove(Digest),
    /// The changes go to disk; with how many steps of delay what is in memory is let go of.
    Store,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (key(), any::<u8>()).prop_map(|(key, seed)| Step::Insert(key, seed)),
        4 => key().prop_map(Step::Remove),
        1 => Just(Step::Store),
    ]
}

fn in_memory<V>(node: Option<&Node<V>>) -> usize {
    match node {
        Some(Node::Branch(branch)) => {
            1 + branch.children().map(|(_, child)| in_memory(Some(child))).sum::<usize>()
        }
        Some(Node::Leaf(_) | Node::Stub(_)) | None => 0,
    }
}

/// All rows that a trie in memory comes to.
fn rows_of(trie: &MerkleTrie) -> MemoryRows {
    let mut rows = MemoryRows::default();
    let changes = changes(trie, &MerkleTrie::new(), &rows);
    rows.apply(changes);
    rows
}

/// All parts of the changes, of which no two are of the same row.
fn changes(trie: &MerkleTrie, stored: &MerkleTrie, rows: &MemoryRows) -> Changes {
    let part = |part| trie.changes(stored, rows, part).expect("readable");
    let changes: Changes = (0..).map_while(part).flatten().collect();
    let keys: std::collections::BTreeSet<_> = changes.iter().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), changes.len());
    changes
}

proptest! {
    #[test]
    fn a_trie_on_disk_is_the_one_in_memory(steps in proptest::collection::vec(step(), 1..80)) {
        let mut plain = MerkleTrie::new();
        let mut rows = MemoryRows::default();
        let (mut live, mut stored) = (MerkleTrie::new(), MerkleTrie::new());
        for step in steps {
            match step {
                Step::Insert(key, seed) => {
                    let before = plain.insert(key, leaf(seed));
                    prop_assert_eq!(live.insert_in(&rows, key, leaf(seed)), Ok(before));
                }
                Step::Remove(key) => {
                    let before = plain.remove(&key);
                    prop_assert_eq!(live.remove_in(&rows, &key), Ok(before));
                }
                Step::Store => {
                    let frozen = live.clone();
                    let changes = changes(&frozen, &stored, &rows);
                    rows.apply(changes);
                    stored = frozen;
                    live.forget(&stored.clone());
                    let whole = stored.clone();
                    stored.forget(&whole);
                    // No row is left over and none is missing.
                    prop_assert_eq!(&rows, &rows_of(&plain));
                    let opened = <MerkleTrie>::open(&rows).expect("stored");
                    prop_assert_eq!((opened.digest(), opened.len()), (plain.digest(), plain.len()));
                    prop_assert!(in_memory(live.root.as_deref()) <= 1 + 3 + 9);
                }
            }
            prop_assert_eq!((live.digest(), live.len()), (plain.digest(), plain.len()));
        }
    }

    /// The same for a trie that is a part of something, whose owner keeps something with each leaf.
    #[test]
    fn what_tells_two_versions_apart_makes_one_of_the_other(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut plain: BTreeMap<Digest, Leaf<Option<u8>>> = BTreeMap::new();
        let mut rows = MemoryRows::default();
        let mut owned: BTreeMap<Digest, u8> = BTreeMap::new();
        let (mut live, mut stored) = (MerkleTrie::new(), MerkleTrie::new());
        for step in steps {
            match step {
                Step::Insert(key, seed) => {
                    let Leaf { digest, weight, .. } = leaf(seed);
                    let leaf = Leaf { digest, weight, value: Some(seed) };
                    prop_assert!(live.insert_in(&rows, key, leaf).is_ok());
                    plain.insert(key, leaf);
                }
                Step::Remove(key) => {
                    let removed = live.remove_in(&rows, &key).expect("readable");
                    prop_assert_eq!(removed.is_some(), plain.remove(&key).is_some());
                }
                Step::Store => {
                    let mut changes = Changes::new();
                    for way in 0..16 {
                        let found = live.difference(&stored, &rows, way).expect("readable");
                        for (key, leaf) in found.put {
                            owned.extend(leaf.value.map(|value| (key, value)));
                        }
                        for key in found.gone {
                            prop_assert!(owned.remove(&key).is_some());
                        }
                        changes.extend(found.rows);
                    }
                    rows.apply(changes);
                    stored = if live.is_empty() {
                        MerkleTrie::new()
                    } else {
                        MerkleTrie::open(&rows).expect("stored")
                    };
                    let frozen = live.clone();
                    live.forget_below(0, &frozen);
                    let of_leaves = plain.iter().map(|(key, leaf)| (*key, leaf.value.expect("put")));
                    prop_assert_eq!(&owned, &of_leaves.collect());
                    prop_assert!(in_memory(live.root.as_deref()) <= 1);
                }
            }
            for key in plain.keys() {
                let found = live.find_in(&rows, key).expect("readable").expect("put");
                prop_assert_eq!(found.value.or(owned.get(key).copied()), plain[key].value);
            }
        }
        for leaf in 0..16u8 {
            let absent = Digest([leaf; 32]);
            let found = live.find_in(&rows, &absent).expect("readable");
            prop_assert_eq!(found.is_some(), plain.contains_key(&absent));
        }
    }

    /// Chunks of a trie on disk are those of the same trie in memory, and what is put together from
    /// them lies in the same rows, be it in one go or with a crash in between.
    #[test]
    fn chunks_come_from_disk_and_go_to_disk(
        leaves in proptest::collection::btree_map(key(), any::<u8>(), 0..60),
        crash in any::<proptest::sample::Index>(),
    ) {
        let mut plain = MerkleTrie::new();
        for (key, seed) in &leaves {
            plain.insert(*key, leaf(*seed));
        }
        let rows = rows_of(&plain);
        let opened = <MerkleTrie>::open(&rows).expect("stored");
        let crash = crash.index(plain.chunks() as usize) as u32;
        let mut assembly = Assembly::new(plain.digest());
        let mut fetched = MemoryRows::default();
        for index in (0..plain.chunks()).rev() {
            let (proof, low, high) = opened.chunk_in(&rows, index).expect("readable").expect("there");
            let (same, expected) = plain.chunk(index).expect("there");
            prop_assert_eq!(&proof, &same);
            let expected: BTreeMap<_, _> = expected.map(|(key, leaf)| (*key, *leaf)).collect();
            let within: BTreeMap<_, _> =
                plain.iter().filter(|(key, _)| (low..=high).contains(key)).map(|(k, l)| (*k, *l)).collect();
            prop_assert_eq!(&within, &expected);
            let accepted = assembly.accept_rows(index, &proof, expected).expect("right");
            fetched.apply(accepted.expect("new").into_iter().map(|(key, row)| (key, Some(row))));
            if index == crash {
                assembly = Assembly::new(plain.digest());
                assembly.resume(&fetched).expect("stored");
            }
        }
        prop_assert_eq!(assembly.missing(), None);
        fetched.apply(assembly.rest().into_iter().map(|(key, row)| (key, Some(row))));
        let marks: Vec<_> = fetched
            .range(&[CHUNK], Bound::Excluded(&[CHUNK + 1]))
            .map(|row| (row.expect("in memory").0, None))
            .collect();
        prop_assert_eq!(marks.len(), plain.chunks() as usize);
        fetched.apply(marks);
        prop_assert_eq!(fetched, rows);
    }
}

#[test]
fn a_damaged_branch_is_noticed() {
    let mut trie = MerkleTrie::new();
    for n in 0..200u8 {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&[n, n]);
        trie.insert(Digest(key), leaf(n));
    }
    let rows = rows_of(&trie);
    for (key, row) in rows.iter().filter(|(key, _)| key[0] == BRANCH) {
        let (mut other, mut bent) = (rows.clone(), row.to_vec());
        let middle = bent.len() / 2;
        bent[middle] ^= 4;
        other.apply([(key.clone(), Some(bent.into()))]);
        let opened = MerkleTrie::open(&other).expect("the root row is whole");
        let unreadable = (0..200u8).any(|n| {
            let mut key = [0; 32];
            key[..2].copy_from_slice(&[n, n]);
            opened.clone().insert_in(&other, Digest(key), leaf(n)).is_err()
        });
        assert!(unreadable, "{key:?}");
    }
}

/// Every kind of row, with each kind of child. Another encoding needs another format of the store.
#[test]
fn rows_are_encoded_as_they_were() {
    let page = |rows: Vec<Row>| -> String {
        let line = |(key, row): (Bytes, Bytes)| format!("{} {}\n", hex(&key), hex(&row));
        rows.into_iter().map(line).collect()
    };
    let key = |bytes: [u8; 2]| {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&bytes);
        Digest(key)
    };
    // Below the root a leaf and a branch of two leaves, which are too heavy to be one chunk.
    let heavy = |digest| Leaf { digest: Digest([digest; 32]), weight: 0x0006_0000, value: () };
    let leaves = [(key([0x1a, 0]), heavy(0xa1)), (key([0x1b, 0]), heavy(0xb1))];
    let alone = (key([0x2c, 0xcc]), Leaf { digest: Digest([0xc1; 32]), weight: 5, value: () });
    let mut trie = MerkleTrie::new();
    for (key, leaf) in leaves.iter().chain([&alone]) {
        trie.insert(*key, *leaf);
    }
    let rows = changes(&trie, &MerkleTrie::new(), &MemoryRows::default());
    let rows = rows.into_iter().map(|(key, row)| (key, row.expect("nothing goes"))).collect();
    expect_test::expect![[r#"
        74 0200000000000000010100000013e83aa7a6da1d1d893dc4b86d2834af186d6fd0cfbaf627c67008a9cae5b24b00000c00000000000200000002000000002ccc000000000000000000000000000000000000000000000000000000000000c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c105000000
        7401 02000000000000000a000000001a00000000000000000000000000000000000000000000000000000000000000a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1000006000b000000001b00000000000000000000000000000000000000000000000000000000000000b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b100000600
        72 01010000006c4d430227a302ceb0c39bb6048d8ff59cdfd7c4efd44d5bc69d3ef72f23ffa605000c0000000000030000000300000000000000
    "#]].assert_eq(&page(rows));

    // Chunks that are here while others are not: of one leaf, and of a branch below another one.
    let mut assembly = Assembly::<()>::new(trie.digest());
    let (proof, found) = trie.chunk(0).expect("the first");
    let found: Vec<_> = found.map(|(key, leaf)| (*key, *leaf)).collect();
    let rows = assembly.accept_rows(0, &proof, found).expect("right").expect("new");
    expect_test::expect![[r#"
        6300000000 02000000000000000101000000000000000216225ca883c642c2c9512ee75ea54c54c1bda0db86d646f4631633560c6f83de0500000000000000010000000a01000000000000000b346bc776936d32fc7ee1ee893a32d2d9d097fdd46c39428b485f24ffac0f29d900000600000000000100000001000000001a00000000000000000000000000000000000000000000000000000000000000a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1000006000100000000000000
    "#]].assert_eq(&page(rows));
    let mut small = MerkleTrie::new();
    for (key, leaf) in [(key([0x1a, 0]), alone.1), (key([0x1b, 0]), alone.1)] {
        small.insert(key, leaf);
    }
    let mut assembly = Assembly::<()>::new(small.digest());
    let (proof, found) = small.chunk(0).expect("the only one");
    let found: Vec<_> = found.map(|(key, leaf)| (*key, *leaf)).collect();
    let rows = assembly.accept_rows(0, &proof, found).expect("right").expect("new");
    expect_test::expect![[r#"
        74 01000000000000000101000000acd23d0ffb85ce6eae896afc9340ba485003ce8702b11c31f3832d8723fb63990a0000000000000001000000
        7401 02000000000000000a000000001a00000000000000000000000000000000000000000000000000000000000000c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1050000000b000000001b00000000000000000000000000000000000000000000000000000000000000c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c105000000
        6300000000 0000000000000000010100000053be544c1a6139275f5db070da2816862cdfa1307115e9627663dc782aa26e240a00000000000000010000000200000000000000
    "#]].assert_eq(&page(rows));
    expect_test::expect![[r#"
        72 000000000000000000
    "#]]
    .assert_eq(&page(Assembly::<()>::new(small.digest()).rest()));
}
