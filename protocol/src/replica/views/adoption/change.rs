//! The second part: the change itself, which is one event.

use std::sync::Arc;

use super::super::entered::Entered;
use super::super::path::{Footing, Path};
use super::super::trail::Trail;
use crate::application::Application;
use crate::history::History;
use crate::id::Slot;
use crate::message::{CommitCertificate, NewView, SignedRequest, StateHead};
use crate::quorum::Strength;
use crate::replica::disk::{Adopted, EnteredView, Ground};
use crate::replica::state::{Taken, Whole};
use crate::replica::{Record, Replica};
use crate::signature::Signed;

/// Bytes and number of the orphans in one record.
const ORPHANS_BYTES: usize = 1 << 20;
const ORPHANS_COUNT: usize = 1024;

impl<A: Application> Replica<A> {
    /// Makes a history the own one, and enters `new_view` with it, if there is one. The caller has
    /// checked that it may, and [prepared](Replica::prepare) it.
    pub(in crate::replica) fn adopt(&mut self, new_view: Option<Signed<NewView>>, path: &Path) {
        let stable = self.stable();
        let kept = self.kept_through(path);
        assert!(kept >= stable, "I3: a history that undoes what is stable was adopted");
        let found = self.preparation.take().expect("what is adopted was prepared");
        let whole = match path.footing {
            Footing::Common(_) => None,
            Footing::State(_) => self.arriving.take_ready(),
        };
        if let Some(whole) = &whole {
            let (at, state) = (whole.proof.position(), whole.digests.application);
            let (rows, sessions) = (whole.rows.clone(), whole.sessions.clone());
            if let Err(why) = self.execution.open(at.slot, state, rows, sessions) {
                // It was written a moment ago and cannot be read: it has to come again.
                self.distrust(&why);
                return;
            }
        }
        let lock = self.lock_on(path, new_view.as_ref(), whole.as_ref().map(|w| &w.proof.cover));
        self.record_adoption(new_view.clone(), path, &found.orphans, lock.clone(), &whole);
        // A state is put in place under the own history, which the lock goes on from. Its slots are fetched
        // again.
        let stays = new_view.is_none();

        let abandoned = self.history.head().slot.since(kept);
        self.counters.slots_undone += abandoned;
        if abandoned > 0 && (whole.is_none() || !found.orphans.is_empty()) {
            self.counters.merges += 1;
        }
        self.counters.orphans += found.orphans.len() as u64;
        let unseen = whole.is_some();
        self.note_abandoned(kept, unseen);
        if found.loses {
            self.bygone.note_lost();
        }
        let kept = whole.map_or(kept, |whole| self.stand_on_state(whole));
        if let Some(new_view) = new_view {
            self.begin_view(new_view, path.top());
        }
        self.lock.move_to(lock, stays, self.outbox.appended());
        if abandoned > 0 || unseen {
            // What was in the way of older orphans may be gone.
            self.pending.orphans_mut().unpark_all();
        }
        let trail = self.branches.take(path.end).unwrap_or_else(|| Trail::new(path.end, None));
        if let Some(peer) = trail.word().and_then(|id| self.peers.get_mut(&id)) {
            peer.credit_mut().restore();
        }
        self.branches.clear();
        self.adopting.begin(trail, kept, found, unseen);
        self.carry_out();
    }

    /// Whoever read what is abandoned may ask later what became of it.
    fn note_abandoned(&mut self, kept: Slot, for_state: bool) {
        let (base, stable) = (self.history.base(), self.stable());
        let above = if for_state { base.slot } else { kept };
        let hashes = self.history.from(above.next()).map(|(_, entry)| entry.hash).collect();
        if for_state {
            self.bygone.leave_for_state(base, stable, hashes);
        } else {
            self.bygone.leave(kept, hashes);
        }
    }

    /// Puts a state that was fetched in place of the history that led to it.
    fn stand_on_state(&mut self, whole: Whole) -> Slot {
        let at = whole.proof.position();
        self.history = History::after(at, whole.last.choices);
        self.states.forget_taken();
        self.trust_again();
        self.counters.state_transfers += 1;
        self.settling.begin_anew();
        let (snapshot, sessions) = self.execution.freeze();
        let (last, digests) = (whole.last, whole.digests);
        self.keep_transferred(Taken { at, digests, last, snapshot, sessions });
        self.ballots.forget_checkpoints_through(at.slot);
        self.stable.raise(whole.proof);
        self.stable.take_ahead_through(at.slot);
        at.slot
    }

    /// The highest certificate known that lies on a history.
    fn lock_on(
        &self,
        path: &Path,
        new_view: Option<&Signed<NewView>>,
        cover: Option<&CommitCertificate>,
    ) -> Option<CommitCertificate> {
        let base = new_view.and_then(|new_view| new_view.body.base());
        [self.lock.own(), self.lock.aside(), base, cover]
            .into_iter()
            .flatten()
            .filter(|lock| self.passes(path, lock.position()))
            .max_by_key(|lock| lock.rank())
            .cloned()
    }

    fn record_adoption(
        &mut self,
        new_view: Option<Signed<NewView>>,
        path: &Path,
        orphans: &[Arc<SignedRequest>],
        lock: Option<CommitCertificate>,
        whole: &Option<Whole>,
    ) {
        // Before the adoption: a crash between the two leaves orphans that are still in the
        // history, which the next start notices.
        let mut add: Vec<Arc<SignedRequest>> = Vec::new();
        let mut bytes = 0;
        for request in orphans {
            let size = request.body().wire_bytes();
            if !add.is_empty() && (bytes + size > ORPHANS_BYTES || add.len() >= ORPHANS_COUNT) {
                let full = std::mem::take(&mut add);
                self.append(Record::Orphans { add: full, remove: Vec::new() });
                bytes = 0;
            }
            bytes += size;
            add.push(request.clone());
        }
        if !add.is_empty() {
            self.append(Record::Orphans { add, remove: Vec::new() });
        }
        let ground = match whole {
            None => Ground::Common(path.footing.slot()),
            Some(whole) => Ground::State(Box::new(StateHead {
                stable: whole.proof.clone(),
                digests: whole.digests,
            })),
        };
        let entered = new_view.map(|new_view| EnteredView { new_view, entry_slot: path.top() });
        let above = (path.footing.slot().0 + 1..=path.top().0).map(Slot);
        let slots = above.filter_map(|slot| self.hash_on(path, slot)).collect();
        let head = self.history.head();
        let voted = if entered.is_some() {
            Slot::GENESIS
        } else if !self.passes(path, head) {
            self.ballots.leave_history(head.slot)
        } else {
            self.ballots.floor()
        };
        self.append(Record::Adopted(Box::new(Adopted { entered, ground, slots, lock, voted })));
    }

    /// From here on nothing is signed for a lower view.
    fn begin_view(&mut self, new_view: Signed<NewView>, entry_slot: Slot) {
        let view = new_view.body.header.view;
        self.counters.views_entered += 1;
        if !self.size.suffices(new_view.body.changes.len(), Strength::Strong) {
            self.counters.weak_views_entered += 1;
        }
        self.view = Entered::new(new_view, entry_slot, self.outbox.appended());
        for ahead in self.ahead.take_all() {
            self.pending.drop_wanted(ahead.order.body.requests);
        }
        self.ballots.begin_view();
        self.lock.forget_ahead();
        self.pipeline.begin_view(self.now.instant);
        self.divergent.begin_view();
        self.due.begin_view();
        self.pending.forget_forwards(self.next_forward());
        self.end_campaign(view);
    }
}
