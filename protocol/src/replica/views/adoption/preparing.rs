//! The first part: slots are written aside, and it is found out which requests will be orphans.

use super::super::path::{Footing, Path};
use super::REQUESTS_A_STEP;
use super::preparation::Prepared;
use crate::application::Application;
use crate::id::{Digest, RequestName, Slot};
use crate::message::Position;
use crate::replica::{Known, Record, Replica};

/// What the history that is adopted holds under the name of an own request.
enum Held {
    Nothing,
    It,
    Another,
}

impl<A: Application> Replica<A> {
    /// The end of the history that is being prepared.
    pub(in crate::replica::views) fn prepared_end(&self) -> Option<Position> {
        self.preparation.end()
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
        let mut prepared = self.preparation.take_for(path, kept);
        let is_done = self.write_aside(&mut prepared) && self.look_for_orphans(&mut prepared);
        self.preparation.put_back(prepared, path);
        is_done
    }

    fn write_aside(&mut self, prepared: &mut Prepared) -> bool {
        while let Some(slot) = prepared.next_to_write() {
            if !self.turn.take() {
                return false;
            }
            let (at, side) =
                self.side_on(prepared.path(), slot).expect("a whole path has all its slots");
            let requests = &side.batch.requests;
            prepared.note_written(slot, requests);
            let steps = requests.len() as u64 / REQUESTS_A_STEP;
            let aside = side.aside(at);
            self.turn.spend(steps);
            self.append(Record::Aside(aside));
        }
        true
    }

    /// The requests of the slots that will be undone: which of them the other history does not hold, and
    /// what they came to. On a state that could not be read they came to nothing.
    fn look_for_orphans(&mut self, prepared: &mut Prepared) -> bool {
        let first = prepared.next_to_look(self.kept_through(prepared.path()));
        for slot in (first.0..=self.history.head().slot.0).map(Slot) {
            if !self.turn.take() {
                return false;
            }
            let Some(entry) = self.history.entry(slot) else { continue };
            let batch = entry.batch.clone();
            self.turn.spend(batch.requests.len() as u64 / REQUESTS_A_STEP);
            for request in &batch.requests {
                let name = request.body().name();
                match self.held_instead(prepared, &name, &request.digest()) {
                    Held::Nothing => prepared.note_orphan(request.clone()),
                    Held::It => {}
                    Held::Another => prepared.note_loss(),
                }
                if !self.is_distrusted()
                    && let Known::Kept(kept) = self.execution.sessions().known(&name)
                {
                    prepared.note_results(name, kept.results.clone());
                }
            }
            prepared.note_looked(slot);
        }
        true
    }

    fn held_instead(&self, prepared: &Prepared, name: &RequestName, content: &Digest) -> Held {
        let state = self.arriving.ready();
        let state = state.filter(|_| matches!(prepared.path().footing, Footing::State(_)));
        let known = state.map(|whole| whole.sessions.known(name));
        match (prepared.content_of(name), known) {
            (Some(held), _) if held == *content => Held::It,
            (Some(_), _) => Held::Another,
            (None, None) => Held::Nothing,
            (None, Some(Known::Open)) => Held::Nothing,
            (None, Some(Known::Kept(kept))) if kept.request == *content => Held::It,
            // Where it is forgotten it may have been.
            (None, Some(Known::Kept(_) | Known::Forgotten)) => Held::Another,
        }
    }
}
