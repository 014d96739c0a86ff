//! Scans: pages, prefixes, completeness.

use std::collections::BTreeSet;

use bytes::Bytes;
use elea_kv::{Item, KeyValueStore, Limits, Put, Scan};
use proptest::prelude::*;

use crate::dumb::key;
use crate::world::{bytes, run, version};

/// Follows a scan to its end.
fn pages(store: &mut KeyValueStore, scan: &Scan) -> Vec<Vec<Item>> {
    let mut pages = Vec::new();
    let mut scan = scan.clone();
    loop {
        let page = run(store, version(9, 0), &scan).expect("a scan is not refused");
        pages.push(page.items);
        match page.next {
            Some(next) => scan = scan.resume(next),
            None => return pages,
        }
    }
}

fn keys(pages: &[Vec<Item>]) -> Vec<Bytes> {
    pages.iter().flatten().map(|item| item.key.clone()).collect()
}

proptest! {
    #[test]
    fn pages_of_any_size_cover_the_range_once_and_in_order(
        held in prop::collection::btree_set(key(), 0..30),
        from in key(),
        to in prop::option::of(key()),
        limit in 0u32..5,
        page_bytes in 1usize..300,
    ) {
        let limits = Limits { page_bytes, ..Limits::default() };
        let mut store = KeyValueStore::with_limits(limits).expect("smaller");
        for (index, key) in (0..).zip(&held) {
            run(&mut store, version(1, index), &Put::new(key.clone(), vec![b'v'; key.len() * 20]))
                .expect("plain");
        }
        let expected: Vec<_> = held
            .iter()
            .filter(|key| **key >= from && to.as_ref().is_none_or(|to| *key < to))
            .cloned()
            .collect();
        let scan = Scan { from, to, limit };
        let pages = pages(&mut store, &scan);
        prop_assert_eq!(keys(&pages), expected);
        for page in &pages {
            prop_assert!(page.len() <= limit.max(1) as usize);
            let size: usize =
                page.iter().map(|item| 32 + item.key.len() + item.key.len() * 20).sum();
            prop_assert!(size <= page_bytes || page.len() == 1);
        }
        prop_assert!(pages.len() == 1 || pages.iter().all(|page| !page.is_empty()));
    }

    #[test]
    fn a_prefix_covers_the_keys_that_begin_with_it(
        held in prop::collection::btree_set(key(), 0..40),
        prefix in key(),
    ) {
        let mut store = KeyValueStore::new();
        for key in &held {
            run(&mut store, version(1, 0), &Put::new(key.clone(), "v")).expect("plain");
        }
        let expected: BTreeSet<_> =
            held.into_iter().filter(|key| key.starts_with(&prefix)).collect();
        let pages = pages(&mut store, &Scan::prefix(prefix));
        prop_assert_eq!(keys(&pages), expected.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_page_holds_what_the_limit_says_and_at_most_what_fits() {
    let mut store = KeyValueStore::new();
    for n in 0..5u8 {
        run(&mut store, version(1, 0), &Put::new(vec![n], vec![0; 1 << 20])).expect("plain");
    }
    let large = pages(&mut store, &Scan::all());
    assert_eq!(large.iter().map(Vec::len).collect::<Vec<_>>(), [1; 5]);
    let limited = pages(&mut store, &Scan::range(vec![1], vec![4]).limit(1));
    assert_eq!(keys(&limited), [[1], [2], [3]].map(|key| Bytes::copy_from_slice(&key)));
    let empty = run(&mut store, version(2, 0), &Scan::range("b", "a")).expect("no refusal");
    assert_eq!((empty.items, empty.next), (vec![], None));
}

#[test]
fn a_prefix_of_largest_bytes_has_no_end() {
    assert_eq!(Scan::prefix("ab").to, Some(bytes("ac")));
    assert_eq!(Scan::prefix(vec![b'a', 255, 255]).to, Some(bytes("b")));
    assert_eq!(Scan::prefix(vec![255]).to, None);
    assert_eq!(Scan::prefix("").to, None);
}
