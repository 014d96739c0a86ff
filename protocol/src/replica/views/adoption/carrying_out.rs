//! The third part: undoing, then executing slot by slot.

use std::sync::Arc;

use super::{Adopting, REQUESTS_A_STEP};
use crate::application::Application;
use crate::history::Entry;
use crate::id::Slot;
use crate::message::{Position, SignedRequest};
use crate::replica::{Known, Replica};

/// After a change of view the replies for so many of the newest slots are sent unasked, so that
/// clients that wait find replies of one view. Older ones are asked for.
const ANSWERED_ANEW: u64 = 64;

impl<A: Application> Replica<A> {
    /// Goes on with what was adopted, as far as there is room in this turn.
    pub(in crate::replica) fn carry_out(&mut self) {
        while let Some(mut adopting) = self.adopting.take() {
            if self.turn.left() == 0 {
                self.turn.wait();
                adopting.is_long = true;
                self.adopting = Some(adopting);
                return;
            }
            let head = self.history.head().slot;
            if head > adopting.kept {
                let count = head.since(adopting.kept).min(self.turn.left());
                self.undo_to(Slot(head.0 - count));
                self.turn.spend(count);
                self.adopting = Some(adopting);
            } else if !adopting.orphans.is_empty() {
                let count = usize::try_from(self.turn.left().saturating_mul(REQUESTS_A_STEP));
                let from = adopting.orphans.len().saturating_sub(count.unwrap_or(usize::MAX));
                let last = adopting.orphans.split_off(from);
                self.pending.insert_orphans(&last, self.now.instant);
                self.turn.spend((last.len() as u64).div_ceil(REQUESTS_A_STEP));
                self.adopting = Some(adopting);
            } else if !adopting.results.is_empty() {
                let count = usize::try_from(self.turn.left().saturating_mul(REQUESTS_A_STEP));
                let from = adopting.results.len().saturating_sub(count.unwrap_or(usize::MAX));
                let last = adopting.results.split_off(from);
                self.turn.spend((last.len() as u64).div_ceil(REQUESTS_A_STEP));
                for (name, results) in last {
                    self.undone.remember(name, results);
                }
                self.adopting = Some(adopting);
            } else if head < adopting.end().slot {
                // Slots go on one upon the other from where the old history was kept.
                adopting.kept = head.next();
                let at = adopting.trail.hash_at(head.next());
                self.adopting = Some(adopting);
                let hash = at.expect("a whole path has all its slots");
                self.execute_adopted(Position { slot: head.next(), hash });
            } else {
                self.finish_adoption(adopting);
            }
        }
    }

    fn undo_to(&mut self, slot: Slot) {
        self.execution.undo_to(slot);
        self.history.cut(slot);
        self.states.retain_taken(|taken| taken <= slot);
    }

    fn execute_adopted(&mut self, at: Position) {
        let side = self.branches.get(at).cloned().expect("a whole path has all its slots");
        let batch = side.batch;
        let entry =
            Entry { hash: at.hash, batch: batch.clone(), order: side.order, results: Vec::new() };
        self.turn.spend(1 + batch.requests.len() as u64 / REQUESTS_A_STEP);
        let slot = self.push(entry);
        self.execute(slot, at.hash, &batch);
    }

    fn finish_adoption(&mut self, adopting: Adopting) {
        let Adopting { trail, unseen, is_long, .. } = adopting;
        self.branches.leave(trail);
        self.let_go();
        if unseen {
            self.drop_executed();
        }
        if is_long {
            self.counters.merges_in_turns += 1;
            // Nobody is to blame for what waited here meanwhile.
            self.forget_patience();
        }
        self.ahead.forget_through(self.history.head().slot);
        self.after_adoption();
    }

    /// A state came with requests executed that were never executed one by one here, or some were taken in
    /// unseen: those that are executed are answered.
    fn drop_executed(&mut self) {
        let executed: Vec<Arc<SignedRequest>> = self
            .pending
            .all()
            .map(|(_, request)| request.clone())
            .filter(|request| !matches!(self.sessions().known(&request.body().name()), Known::Open))
            .collect();
        for request in executed {
            self.pending.remove(&request.digest());
            self.answer_known(&request);
        }
        self.settle_orphans();
    }

    /// Answers for the newest slots, whoever waits.
    pub(in crate::replica) fn answer_anew(&mut self) {
        let head = self.history.head().slot;
        let first = self.stable().max(Slot(head.0.saturating_sub(ANSWERED_ANEW))).next();
        for slot in (first.0..=head.0).map(Slot) {
            self.answer_speculatively(slot);
        }
    }

    fn after_adoption(&mut self) {
        // An adopted history may be long: its slots were neither voted on nor answered.
        self.answer_anew();
        let head = self.history.head().slot;
        if let Some(proof) = self.stable.take_ahead_through(head) {
            self.on_stable(self.setup.id, proof);
        }
        // What a state was wrong at may have been executed anew on a right one, and nobody shows the proof again.
        let mismatch = self.newest_mismatch().filter(|proof| proof.slot() <= head).cloned();
        if let Some(proof) = mismatch.filter(|_| !self.is_distrusted()) {
            self.on_stable(self.setup.id, proof);
        }
        self.note_strong_slots();
        self.take_later();
        self.vote_commit();
        self.expect_quiet();
        self.advance();
        self.note_behind();
    }
}
