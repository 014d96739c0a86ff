//! What clients were promised, and whether it is still there.
//!
//! Writes go into *books*: sets whose members are added once, texts to which entries are appended
//! once, and sums. Each book has one writer and few entries, so it can be read in one answer, and
//! every entry is told from every other one. So a write that is lost is seen, and so is one that
//! was executed twice, or that nobody asked for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use elea_client::Level;
use elea_fault_injection::violation::{Violation, demand};
use elea_protocol::id::{Digest, Slot};
use elea_protocol::message::Position;

/// What kind of book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A set; entries are members.
    Set,
    /// A text; entries are pieces of it, each behind a space.
    Log,
    /// A number; entries count one each.
    Sum,
}

/// A book is named by its kind, its writer, and which of the writer's books it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub Kind, pub usize, pub u64);

impl Name {
    /// The key of the book.
    #[must_use]
    pub fn key(&self) -> String {
        let Self(kind, writer, number) = self;
        format!("{}/{writer}/{number}", format!("{kind:?}").to_lowercase())
    }
}

/// What a book was found to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// The entries of a set or a log, as they stand there.
    Entries(Vec<String>),
    /// The sum.
    Sum(i64),
}

#[derive(Clone, Debug, Default)]
struct Book {
    attempted: BTreeSet<String>,
    acknowledged: BTreeMap<String, Level>,
    /// Whether something was acknowledged since it was last found whole.
    is_dirty: bool,
}

/// Promises of one moment: what must be found by whoever looks later.
#[derive(Clone, Debug)]
pub struct Owed {
    /// The book.
    pub name: Name,
    acknowledged: BTreeMap<String, Level>,
}

/// How a look at a book ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Found {
    /// All that is owed is there.
    Whole,
    /// So many weak writes are not there yet. They must be once replicas agree.
    Awaited(usize),
}

#[derive(Default)]
struct Inner {
    books: HashMap<Name, Book>,
    acknowledged: [u64; 2],
    finals: BTreeMap<Slot, Digest>,
    contradicted: Option<Violation>,
}

/// All books.
#[derive(Default)]
pub struct Ledger(Mutex<Inner>);

fn index(level: Level) -> usize {
    match level {
        Level::Weak => 0,
        Level::Strong => 1,
    }
}

impl Ledger {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client is about to ask for this.
    pub fn attempt(&self, name: Name, entry: &str) {
        self.inner().books.entry(name).or_default().attempted.insert(entry.to_owned());
    }

    /// A client was told that it is done.
    pub fn acknowledge(&self, name: Name, entry: &str, level: Level) {
        let mut inner = self.inner();
        inner.acknowledged[index(level)] += 1;
        let book = inner.books.entry(name).or_default();
        book.acknowledged.insert(entry.to_owned(), level);
        book.is_dirty = true;
    }

    /// A client was told something final of this place.
    pub fn is_final(&self, at: Position) {
        let mut inner = self.inner();
        let first = *inner.finals.entry(at.slot).or_insert(at.hash);
        if first != at.hash && inner.contradicted.is_none() {
            let what = format!("clients were told of two final histories at slot {}", at.slot);
            inner.contradicted = Some(Violation::new("final", what));
        }
    }

    /// How many writes were acknowledged, weak and strong.
    #[must_use]
    pub fn acknowledged(&self) -> [u64; 2] {
        self.inner().acknowledged
    }

    /// How many places clients were told something final of.
    #[must_use]
    pub fn finals(&self) -> usize {
        self.inner().finals.len()
    }

    /// What is owed now, of books that something was promised of since they were last found
    /// whole, or of all.
    #[must_use]
    pub fn owed(&self, all: bool) -> Vec<Owed> {
        let inner = self.inner();
        let books = inner.books.iter().filter(|(_, book)| all || book.is_dirty);
        let mut owed: Vec<_> = books
            .map(|(name, book)| Owed { name: *name, acknowledged: book.acknowledged.clone() })
            .collect();
        owed.sort_by_key(|owed| owed.name);
        owed
    }

    /// Holds what a book holds against what was owed before it was read. `is_last`: replicas agree
    /// and nothing is under way, so weak writes must be there as well.
    ///
    /// # Errors
    /// `lost`: something acknowledged is not there. `twice`: something is there more than once.
    /// `unasked`: something is there that nobody asked for. `final`: clients were told of two
    /// histories.
    pub fn look(&self, owed: &Owed, found: &Contents, is_last: bool) -> Result<Found, Violation> {
        let key = owed.name.key();
        let mut inner = self.inner();
        inner.contradicted.clone().map_or(Ok(()), Err)?;
        let book = inner.books.entry(owed.name).or_default();
        let missing: Vec<(&String, Level)> = match found {
            Contents::Sum(sum) => return sum_of(owed, book, *sum, is_last),
            Contents::Entries(entries) => {
                let there: BTreeSet<&String> = entries.iter().collect();
                demand(there.len() == entries.len(), "twice", || {
                    format!("{key} holds something twice: {entries:?}")
                })?;
                let unasked = there.iter().find(|entry| !book.attempted.contains(**entry));
                demand(unasked.is_none(), "unasked", || {
                    format!("{key} holds {unasked:?}, which nobody asked for")
                })?;
                let acknowledged = owed.acknowledged.iter();
                let missing = acknowledged.filter(|(entry, _)| !there.contains(entry));
                missing.map(|(entry, level)| (entry, *level)).collect()
            }
        };
        let lost = missing.iter().find(|(_, level)| is_last || *level == Level::Strong);
        if let Some((entry, level)) = lost {
            let what = format!(
                "{key} lacks {entry}, which was acknowledged ({level:?}), and {} others",
                missing.len() - 1
            );
            return Err(Violation::new("lost", what));
        }
        if missing.is_empty() {
            book.is_dirty = book.acknowledged.len() > owed.acknowledged.len();
            return Ok(Found::Whole);
        }
        Ok(Found::Awaited(missing.len()))
    }

    /// Holds every final answer against the history that all agree on, given as far as it is
    /// known: the hash at a slot.
    ///
    /// # Errors
    /// I2: an answer was final on another history.
    pub fn lies_on(&self, hash_at: impl Fn(Slot) -> Option<Digest>) -> Result<usize, Violation> {
        let inner = self.inner();
        let mut compared = 0;
        for (slot, hash) in &inner.finals {
            let Some(known) = hash_at(*slot) else { continue };
            demand(known == *hash, "I2", || {
                format!("a client was told something final of slot {slot} of another history")
            })?;
            compared += 1;
        }
        Ok(compared)
    }
}

fn sum_of(owed: &Owed, book: &mut Book, sum: i64, is_last: bool) -> Result<Found, Violation> {
    let key = owed.name.key();
    let count = |entries: usize| i64::try_from(entries).unwrap_or(i64::MAX);
    let strong = owed.acknowledged.values().filter(|level| **level == Level::Strong).count();
    let whole = count(owed.acknowledged.len());
    demand(sum <= count(book.attempted.len()), "twice", || {
        format!("{key} is {sum}, after {} increments were asked for", book.attempted.len())
    })?;
    let least = if is_last { whole } else { count(strong) };
    demand(sum >= least, "lost", || {
        format!("{key} is {sum}, after {least} increments were acknowledged")
    })?;
    if sum < whole {
        return Ok(Found::Awaited(usize::try_from(whole - sum).unwrap_or(usize::MAX)));
    }
    book.is_dirty = book.acknowledged.len() > owed.acknowledged.len();
    Ok(Found::Whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(found: Result<Found, Violation>) -> String {
        found.expect_err("a violation").rule
    }

    fn entries(entries: &[&str]) -> Contents {
        Contents::Entries(entries.iter().map(|entry| (*entry).to_owned()).collect())
    }

    /// `a` was acknowledged strongly, `b` weakly, `c` not at all.
    fn promises(kind: Kind) -> (Ledger, Owed) {
        let ledger = Ledger::default();
        let name = Name(kind, 0, 0);
        ["a", "b", "c"].iter().for_each(|entry| ledger.attempt(name, entry));
        ledger.acknowledge(name, "a", Level::Strong);
        ledger.acknowledge(name, "b", Level::Weak);
        let owed = ledger.owed(false).remove(0);
        (ledger, owed)
    }

    #[test]
    fn a_lost_strong_write_is_found_at_once_and_a_weak_one_in_the_end() {
        let (ledger, owed) = promises(Kind::Set);
        assert_eq!(rule(ledger.look(&owed, &entries(&["b"]), false)), "lost");
        assert_eq!(ledger.look(&owed, &entries(&["a", "c"]), false), Ok(Found::Awaited(1)));
        assert_eq!(rule(ledger.look(&owed, &entries(&["a", "c"]), true)), "lost");
        assert_eq!(ledger.owed(false).len(), 1, "not found whole yet");
        assert_eq!(ledger.look(&owed, &entries(&["a", "b"]), true), Ok(Found::Whole));
        assert!(ledger.owed(false).is_empty());
        assert_eq!(ledger.owed(true).len(), 1);
    }

    #[test]
    fn what_is_there_twice_or_unasked_is_found() {
        let (ledger, owed) = promises(Kind::Log);
        assert_eq!(rule(ledger.look(&owed, &entries(&["a", "b", "a"]), false)), "twice");
        assert_eq!(rule(ledger.look(&owed, &entries(&["a", "b", "x"]), false)), "unasked");
    }

    #[test]
    fn a_sum_that_is_too_low_or_too_high_is_found() {
        let (ledger, owed) = promises(Kind::Sum);
        assert_eq!(rule(ledger.look(&owed, &Contents::Sum(0), false)), "lost");
        assert_eq!(ledger.look(&owed, &Contents::Sum(1), false), Ok(Found::Awaited(1)));
        assert_eq!(rule(ledger.look(&owed, &Contents::Sum(1), true)), "lost");
        assert_eq!(ledger.look(&owed, &Contents::Sum(3), true), Ok(Found::Whole));
        assert_eq!(rule(ledger.look(&owed, &Contents::Sum(4), true)), "twice");
    }

    #[test]
    fn two_final_histories_are_found() {
        let (ledger, owed) = promises(Kind::Set);
        let at = |hash| Position { slot: Slot(3), hash: Digest([hash; 32]) };
        ledger.is_final(at(1));
        assert_eq!(ledger.lies_on(|_| Some(Digest([1; 32]))), Ok(1));
        assert_eq!(ledger.lies_on(|_| None), Ok(0));
        let other = ledger.lies_on(|_| Some(Digest([2; 32])));
        assert_eq!(other.expect_err("another history").rule, "I2");
        ledger.is_final(at(2));
        assert_eq!(rule(ledger.look(&owed, &entries(&["a", "b"]), true)), "final");
    }
}
