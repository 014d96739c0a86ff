//! Plain values, in pages: what is appended costs what is appended, however long the value is.
//!
//! A value is a row of full pages and a rest that is shorter than one. Its digest covers a hash chain over
//! the pages, so that with one more page only that one is hashed. On disk each page is a row of its own, and
//! the rest lies in the entry. In memory are the rest, and the pages that came after what is on disk:
//! versions of a value that only grew share them.

use std::collections::BTreeSet;
use std::mem::size_of;
use std::ops::Bound;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use elea_protocol::codec::{Canonical, Sink};
use elea_protocol::id::Digest;
use elea_protocol::rows::{Changes, Rows, Unreadable};

use crate::outcome::Version;

/// The bytes of a page. It is part of what is hashed: other replicas must have the same.
pub(crate) const PAGE: usize = 4 << 10;

const PAGE_ROW: u8 = b'v';

/// A plain value.
#[derive(Clone)]
pub(crate) struct Text {
    /// The write since which it has only grown. Two states with the same one share their pages.
    since: Version,
    /// How many full pages there are, and the hash chain over them.
    pages: u32,
    chain: Digest,
    /// So many of the first pages are on disk and not in memory.
    stored: u32,
    /// The others.
    runs: Option<Arc<Run>>,
    /// Shorter than a page.
    rest: Bytes,
}

/// Pages that one write made.
struct Run {
    before: Option<Arc<Run>>,
    /// The number of the first one.
    first: u32,
    bytes: Bytes,
}

struct Page<'a> {
    before: &'a Digest,
    bytes: &'a [u8],
}

impl Canonical for Page<'_> {
    const TAG: &'static str = "kv-page";

    fn write(&self, to: &mut impl Sink) {
        to.put_digest(self.before);
        to.put_bytes(self.bytes);
    }
}

fn page_row(name: &Digest, page: u32) -> Bytes {
    [&[PAGE_ROW], &name.0[..], &page.to_be_bytes()].concat().into()
}

impl Text {
    /// A value that this operation wrote.
    pub(crate) fn new(bytes: Bytes, since: Version) -> Self {
        let empty = Bytes::new();
        let chain = Digest::default();
        Self { since, pages: 0, chain, stored: 0, runs: None, rest: empty }.grown_to(bytes)
    }

    /// What an entry's row says of a value whose pages are on disk.
    pub(crate) fn stored(since: Version, pages: u32, chain: Digest, rest: Bytes) -> Self {
        Self { since, pages, chain, stored: pages, runs: None, rest }
    }

    /// How many full pages there are, the hash chain over them, and the rest.
    pub(crate) fn parts(&self) -> (u32, Digest, &Bytes) {
        (self.pages, self.chain, &self.rest)
    }

    pub(crate) fn len(&self) -> usize {
        self.pages as usize * PAGE + self.rest.len()
    }

    /// With this at its end.
    pub(crate) fn appended(&self, more: &[u8]) -> Self {
        self.clone().grown_to([&self.rest, more].concat().into())
    }

    /// With this in the place of the rest.
    fn grown_to(mut self, mut tail: Bytes) -> Self {
        let full = tail.split_to(tail.len() / PAGE * PAGE);
        self.rest = tail;
        if full.is_empty() {
            return self;
        }
        // Its own bytes, so that it does not hold on to those of the pages.
        self.rest = Bytes::copy_from_slice(&self.rest);
        let first = self.pages;
        for bytes in full.chunks(PAGE) {
            self.chain = Page { before: &self.chain, bytes }.digest();
            self.pages += 1;
        }
        self.runs = Some(Arc::new(Run { before: self.runs.take(), first, bytes: full }));
        self
    }

    /// The pages in memory, the last ones first.
    fn runs(&self) -> impl Iterator<Item = &Arc<Run>> {
        std::iter::successors(self.runs.as_ref(), |run| run.before.as_ref())
    }

    /// Its first bytes, so many at most. What is not in memory is in these rows, under the hashed key.
    pub(crate) fn first(
        &self,
        most: usize,
        rows: &dyn Rows,
        name: &Digest,
    ) -> Result<Bytes, Unreadable> {
        if self.pages == 0 {
            return Ok(self.rest.slice(..most.min(self.rest.len())));
        }
        let most = most.min(self.len());
        let mut bytes = BytesMut::with_capacity(most + PAGE);
        let wanted = u32::try_from(most.div_ceil(PAGE)).unwrap_or(u32::MAX).min(self.stored);
        let mut number = 0;
        for row in rows.range(&page_row(name, 0), Bound::Excluded(&page_row(name, wanted))) {
            let (key, page) = row?;
            if key != page_row(name, number) || page.len() != PAGE {
                break;
            }
            bytes.extend_from_slice(&page);
            number += 1;
        }
        if number != wanted {
            return Err(Unreadable(format!("page {number} of a value is missing")));
        }
        let runs: Vec<_> = self.runs().collect();
        let later = runs.iter().rev().map(|run| &run.bytes).chain([&self.rest]);
        for part in later {
            let room = most.saturating_sub(bytes.len());
            bytes.extend_from_slice(&part[..part.len().min(room)]);
        }
        bytes.truncate(most);
        Ok(bytes.freeze())
    }

    /// All of it.
    pub(crate) fn whole(&self, rows: &dyn Rows, name: &Digest) -> Result<Bytes, Unreadable> {
        self.first(self.len(), rows, name)
    }

    /// What becomes of the rows of pages where `before` has so many of them.
    pub(crate) fn changes(&self, name: &Digest, before: u32, changes: &mut Changes) {
        for run in self.runs() {
            for (number, page) in (run.first..).zip(0..run.bytes.len() / PAGE) {
                let page = run.bytes.slice(page * PAGE..(page + 1) * PAGE);
                changes.push((page_row(name, number), Some(page)));
            }
        }
        remove_pages(name, self.pages, before, changes);
    }

    /// Lets go of the pages that lie on disk with `stored`, if that is an earlier version of this
    /// value, since which it has only grown.
    pub(crate) fn forget(&mut self, stored: &Self) {
        if self.since != stored.since || stored.pages <= self.stored {
            return;
        }
        let later: Vec<_> =
            self.runs().take_while(|run| run.first >= stored.pages).cloned().collect();
        let relinked = later.iter().rev().fold(None, |before, run| {
            Some(Arc::new(Run { before, first: run.first, bytes: run.bytes.clone() }))
        });
        (self.runs, self.stored) = (relinked, stored.pages);
    }

    /// The bytes that it has in memory, but for those that were seen already.
    pub(crate) fn held(&self, seen: &mut BTreeSet<usize>) -> usize {
        let mut held = 0;
        if seen.insert(self.rest.as_ptr() as usize) {
            held += self.rest.len();
        }
        for run in self.runs() {
            if !seen.insert(Arc::as_ptr(run) as usize) {
                break;
            }
            held += size_of::<Run>();
            if seen.insert(run.bytes.as_ptr() as usize) {
                held += run.bytes.len();
            }
        }
        held
    }
}

/// The rows of these pages go.
pub(crate) fn remove_pages(name: &Digest, from: u32, to: u32, changes: &mut Changes) {
    changes.extend((from..to).map(|page| (page_row(name, page), None)));
}

#[cfg(test)]
mod tests {
    use elea_protocol::id::Slot;
    use elea_protocol::rows::MemoryRows;

    use super::*;

    fn at(slot: u64) -> Version {
        Version { slot: Slot(slot), index: 0 }
    }

    fn bytes(length: usize) -> Bytes {
        (0..length).map(|n| (n / 7) as u8).collect::<Vec<_>>().into()
    }

    #[test]
    fn however_it_grew_it_is_the_same_and_reads_the_same() {
        let (rows, name) = (MemoryRows::none(), Digest::default());
        let whole = bytes(3 * PAGE + 11);
        let at_once = Text::new(whole.clone(), at(1));
        for cuts in [vec![0], vec![1, PAGE - 1], vec![PAGE, 2 * PAGE + 5], vec![3 * PAGE]] {
            let mut text = Text::new(Bytes::new(), at(1));
            let mut from = 0;
            for to in cuts.into_iter().chain([whole.len()]) {
                text = text.appended(&whole[from..to]);
                from = to;
            }
            assert_eq!(text.parts(), at_once.parts());
            for most in [0, 1, PAGE, PAGE + 1, 3 * PAGE + 10, 3 * PAGE + 11, usize::MAX] {
                let first = text.first(most, &*rows, &name).expect("in memory");
                assert_eq!(first, whole[..most.min(whole.len())]);
            }
        }
    }

    #[test]
    fn what_is_on_disk_leaves_memory_unless_the_value_was_another_one() {
        let (mut rows, name) = (MemoryRows::default(), Digest::default());
        let old = Text::new(bytes(2 * PAGE), at(1));
        let mut grown = old.appended(&bytes(2 * PAGE)).appended(b"rest");
        let whole = grown.whole(&rows, &name).expect("in memory");
        let mut changes = Changes::new();
        old.changes(&name, 5, &mut changes);
        assert_eq!(changes.iter().filter(|(_, row)| row.is_none()).count(), 3);
        rows.apply(changes);
        let held = |text: &Text| text.held(&mut BTreeSet::new()) / PAGE;
        assert_eq!(held(&grown), 4);
        let mut other = Text { since: at(2), ..grown.clone() };
        other.forget(&old);
        assert_eq!(held(&other), 4, "another value may have the same bytes for a while");
        grown.forget(&old);
        assert_eq!((held(&grown), grown.whole(&rows, &name)), (2, Ok(whole)));
        let missing = grown.whole(&MemoryRows::default(), &name);
        assert!(missing.is_err_and(|why| why.0.contains("missing")));
    }
}
