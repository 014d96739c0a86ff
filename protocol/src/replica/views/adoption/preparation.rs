//! A history that is about to be adopted, as far as it is prepared.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::path::{Footing, Path};
use crate::id::{Digest, RequestName, Slot};
use crate::message::{Position, Results, SignedRequest};

/// What is known of a history that is adopted, and of the own one that gives way to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// What it holds.
    pub(super) names: BTreeMap<RequestName, Digest>,
    /// Whether the own history holds a request of which this one holds another content, or may.
    pub(super) loses: bool,
    /// What only the own history holds, oldest first.
    pub(super) orphans: Vec<Arc<SignedRequest>>,
    /// What the requests of the own slots came to, for comparison when they are executed anew.
    pub(super) results: Vec<(RequestName, Results)>,
}

/// One history at most is being prepared at a time.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Preparation {
    going_on: Option<Prepared>,
}

/// A history that is about to be adopted, as far as it is prepared.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    path: Path,
    /// The last slot of it that is written aside.
    written: Slot,
    /// The last own slot that was looked through.
    looked: Slot,
    found: Found,
}

impl Preparation {
    /// The end of the history that is being prepared.
    pub(super) fn end(&self) -> Option<Position> {
        self.going_on.as_ref().map(|prepared| prepared.path.end)
    }

    /// Takes out what holds for this history, to be [put back](Preparation::put_back) when it has come further, or begins
    /// anew. Of the own history slots above `kept` will be undone.
    pub(super) fn take_for(&mut self, path: &Path, kept: Slot) -> Prepared {
        let known = self.going_on.take().filter(|prepared| prepared.holds_for(path));
        known.unwrap_or_else(|| Prepared::new(*path, kept))
    }

    /// It has come further, and holds for this history.
    pub(super) fn put_back(&mut self, prepared: Prepared, path: &Path) {
        self.going_on = Some(Prepared { path: *path, ..prepared });
    }

    /// What was prepared is adopted.
    pub(super) fn take(&mut self) -> Option<Found> {
        self.going_on.take().map(|prepared| prepared.found)
    }
}

impl Prepared {
    fn new(path: Path, kept: Slot) -> Self {
        Self { path, written: path.footing.slot(), looked: kept, found: Found::default() }
    }

    /// Whether what was prepared holds for this history. The own one may have grown along it.
    fn holds_for(&self, path: &Path) -> bool {
        let same_ground = match (self.path.footing, path.footing) {
            (Footing::Common(from), Footing::Common(now)) => from <= now && now <= self.written,
            (before, now) => before == now,
        };
        self.path.end == path.end && same_ground
    }

    /// The history, with the footing that it had when it was looked at last.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    // ---- its slots ----

    /// The next slot of it to be written aside.
    pub(super) fn next_to_write(&self) -> Option<Slot> {
        (self.written < self.path.top()).then(|| self.written.next())
    }

    /// That is written, and holds these requests.
    pub(super) fn note_written(&mut self, slot: Slot, requests: &[Arc<SignedRequest>]) {
        let named = requests.iter().map(|request| (request.body().name(), request.digest()));
        self.found.names.extend(named);
        self.written = slot;
    }

    /// The content that it holds under a name.
    pub(super) fn content_of(&self, name: &RequestName) -> Option<Digest> {
        self.found.names.get(name).copied()
    }

    // ---- the own slots ----

    /// The next own slot to be looked through, where those up to `kept` stay.
    pub(super) fn next_to_look(&self, kept: Slot) -> Slot {
        self.looked.max(kept).next()
    }

    pub(super) fn note_looked(&mut self, slot: Slot) {
        self.looked = slot;
    }

    /// Of a request of the own history it holds another content, or may.
    pub(super) fn note_loss(&mut self) {
        self.found.loses = true;
    }

    /// A request of the own history that it does not hold.
    pub(super) fn note_orphan(&mut self, request: Arc<SignedRequest>) {
        self.found.orphans.push(request);
    }

    /// What a request of the own history came to.
    pub(super) fn note_results(&mut self, name: RequestName, results: Results) {
        self.found.results.push((name, results));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Digest;

    fn path(common: u64, end: u64) -> Path {
        let end = Position { slot: Slot(end), hash: Digest([9; 32]) };
        Path { footing: Footing::Common(Slot(common)), end }
    }

    /// The history up to slot 9 that parts at slot 3, written aside up to slot 5.
    fn prepared() -> Preparation {
        let mut preparation = Preparation::default();
        let mut prepared = preparation.take_for(&path(3, 9), Slot(3));
        for slot in [4, 5] {
            assert_eq!(prepared.next_to_write(), Some(Slot(slot)));
            prepared.note_written(Slot(slot), &[]);
        }
        prepared.note_looked(Slot(4));
        preparation.put_back(prepared, &path(3, 9));
        preparation
    }

    #[test]
    fn what_was_prepared_holds_while_the_own_history_grows_along_it() {
        let mut preparation = prepared();
        assert_eq!(preparation.end(), Some(path(3, 9).end));
        let again = preparation.take_for(&path(5, 9), Slot(5));
        assert_eq!(again.next_to_write(), Some(Slot(6)));
        assert_eq!(again.next_to_look(Slot(5)), Slot(6), "what stays is not looked through");
        preparation.put_back(again, &path(5, 9));
        let before = preparation.take_for(&path(4, 9), Slot(4));
        assert_eq!(before.next_to_write(), Some(Slot(5)), "the own one was cut: it begins anew");
    }

    #[test]
    fn for_another_history_it_begins_anew() {
        for other in [path(3, 8), path(6, 9), path(2, 9)] {
            let kept = other.footing.slot();
            let anew = prepared().take_for(&other, kept);
            assert_eq!(anew.next_to_write(), Some(kept.next()));
            assert_eq!(anew.next_to_look(kept), kept.next());
        }
        let state = Path { footing: Footing::State(path(3, 3).end), end: path(3, 9).end };
        assert_eq!(prepared().take_for(&state, Slot(1)).next_to_look(Slot(1)), Slot(2));
    }

    #[test]
    fn what_is_adopted_is_prepared_no_more() {
        let mut preparation = prepared();
        assert!(preparation.take().is_some());
        assert!(preparation.take().is_none() && preparation.end().is_none());
    }
}
