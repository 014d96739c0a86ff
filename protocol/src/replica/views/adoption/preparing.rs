//! The first part: slots are written aside, and it is found out which requests will be orphans.

use std::collections::BTreeSet;

use super::super::path::{Footing, Path};
use super::{Preparation, REQUESTS_A_STEP};
use crate::application::Application;
use crate::id::{RequestName, Slot};
use crate::message::Position;
use crate::replica::{Known, Record, Replica};

impl<A: Application> Replica<A> {
    /// The end of the history that is being prepared.
    pub(in crate::replica::views) fn prepared_end(&self) -> Option<Position> {
        self.preparation.as_ref().map(|prepared| prepared.path.end)
    }

    /// What the own history keeps when this one is adopted.
    pub(super) fn kept_through(&self, path: &Path) -> Slot {
        match path.footing {
            Footing::Common(slot) => slot,
            Footing::State(_) => self.stable(),
        }
    }

    /// Prepares the adoption of a history, as far as there is room in this turn. `true` when that is
    /// done.
    pub(in crate::replica) fn prepare(&mut self, path: &Path) -> bool {
        let kept = self.kept_through(path);
        let prepared = self.preparation.take().filter(|prepared| prepared.holds_for(path));
        let mut prepared = prepared.unwrap_or_else(|| Preparation::new(*path, kept));
        let is_done = self.write_aside(&mut prepared) && self.look_for_orphans(&mut prepared);
        prepared.path = *path;
        self.preparation = Some(prepared);
        is_done
    }

    fn write_aside(&mut self, prepared: &mut Preparation) -> bool {
        while prepared.written < prepared.path.top() {
            if !self.turn.take() {
                return false;
            }
            let slot = prepared.written.next();
            let (at, side) =
                self.side_on(&prepared.path, slot).expect("a whole path has all its slots");
            let requests = &side.batch.requests;
            prepared.names.extend(requests.iter().map(|request| request.body().name()));
            prepared.written = slot;
            let steps = requests.len() as u64 / REQUESTS_A_STEP;
            let aside = side.aside(at);
            self.turn.spend(steps);
            self.append(Record::Aside(aside));
        }
        true
    }

    /// The requests of the slots that will be undone: which of them the other history does not hold, and
    /// what they came to. On a state that could not be read they came to nothing.
    fn look_for_orphans(&mut self, prepared: &mut Preparation) -> bool {
        let first = prepared.looked.max(self.kept_through(&prepared.path)).next();
        for slot in (first.0..=self.history.head().slot.0).map(Slot) {
            if !self.turn.take() {
                return false;
            }
            let Some(entry) = self.history.entry(slot) else { continue };
            let batch = entry.batch.clone();
            self.turn.spend(batch.requests.len() as u64 / REQUESTS_A_STEP);
            for request in &batch.requests {
                let name = request.body().name();
                if !prepared.names.contains(&name) && !self.is_in_new_state(&prepared.path, &name) {
                    prepared.orphans.push(request.clone());
                }
                if !self.is_distrusted()
                    && let Known::Kept(kept) = self.execution.sessions().known(&name)
                {
                    prepared.results.push((name, kept.results.clone()));
                }
            }
            prepared.looked = slot;
        }
        true
    }

    fn is_in_new_state(&self, path: &Path, name: &RequestName) -> bool {
        let state = self.arriving.ready().filter(|_| matches!(path.footing, Footing::State(_)));
        state.is_some_and(|whole| !matches!(whole.sessions.known(name), Known::Open))
    }
}

impl Preparation {
    fn new(path: Path, kept: Slot) -> Self {
        let (names, orphans, results) = (BTreeSet::new(), Vec::new(), Vec::new());
        Self { path, written: path.footing.slot(), names, looked: kept, orphans, results }
    }

    /// Whether what was prepared holds for this history. The own one may have grown along it.
    fn holds_for(&self, path: &Path) -> bool {
        let same_ground = match (self.path.footing, path.footing) {
            (Footing::Common(from), Footing::Common(now)) => from <= now && now <= self.written,
            (before, now) => before == now,
        };
        self.path.end == path.end && same_ground
    }
}
