//! The third part: undoing, then executing slot by slot.

use std::sync::Arc;

use super::REQUESTS_A_STEP;
use super::adopting::{Ended, Step};
use crate::application::Application;
use crate::history::Entry;
use crate::id::Slot;
use crate::message::{Position, Results, SignedRequest};
use crate::replica::{Known, Replica};

/// After a change of view the replies for so many of the newest slots are sent unasked, so that
/// clients that wait find replies of one view. Older ones are asked for.
const ANSWERED_ANEW: u64 = 64;

impl<A: Application> Replica<A> {
    /// Goes on with what was adopted, as far as there is room in this turn.
    pub(in crate::replica) fn carry_out(&mut self) {
        while let Some(step) = self.adopting.next(self.history.head().slot, self.turn.left()) {
            match step {
                Step::Wait => {
                    self.turn.wait();
                    return;
                }
                Step::Undo(kept) => self.undo(kept),
                Step::PutBack(last) => {
                    self.pending.insert_orphans(&last, self.now.instant);
                    self.turn.spend((last.len() as u64).div_ceil(REQUESTS_A_STEP));
                }
                Step::Remember(last) => {
                    self.turn.spend((last.len() as u64).div_ceil(REQUESTS_A_STEP));
                    for (name, results) in last {
                        self.undone.remember(name, results);
                    }
                }
                Step::Execute(at) => self.execute_anew(self.adopted(at), None),
                Step::ExecuteAgain(mut entry) => {
                    let said = std::mem::take(&mut entry.results);
                    self.execute_anew(entry, Some(said));
                }
                Step::End(ended) => self.finish_adoption(ended),
            }
        }
    }

    /// Undoes as much as there is room for, down to this slot in the end.
    fn undo(&mut self, kept: Slot) {
        let head = self.history.head().slot;
        let is_again = self.adopting.is_again();
        let most = head.since(kept).min(self.turn.left());
        let count = if is_again { self.with_few_requests(most) } else { most };
        self.turn.spend(count);
        let slot = Slot(head.0 - count);
        self.execution.undo_to(slot);
        let undone = self.history.cut(slot);
        if is_again {
            let requests: usize = undone.iter().map(|entry| entry.batch.requests.len()).sum();
            self.turn.spend(requests as u64 / REQUESTS_A_STEP);
            self.adopting.keep_undone(undone, self.states.taken_above(slot));
        }
        self.states.retain_taken(|taken| taken <= slot);
    }

    /// So many of the last slots, at least one and at most `most`, that looking at their requests has room, too.
    fn with_few_requests(&self, most: u64) -> u64 {
        let (head, mut room) = (self.history.head().slot, self.turn.left());
        let mut count = 0;
        while count < most && (count == 0 || room > 0) {
            let entry = self.history.entry(Slot(head.0 - count));
            let requests = entry.map_or(0, |entry| entry.batch.requests.len() as u64);
            room = room.saturating_sub(1 + requests / REQUESTS_A_STEP);
            count += 1;
        }
        count
    }

    /// A slot of a history that was beside the own one.
    fn adopted(&self, at: Position) -> Entry {
        let side = self.branches.get(at).cloned().expect("a whole path has all its slots");
        Entry { hash: at.hash, batch: side.batch, order: side.order, results: Vec::new() }
    }

    fn execute_anew(&mut self, entry: Entry, said: Option<Vec<Results>>) {
        let (hash, batch) = (entry.hash, entry.batch.clone());
        self.turn.spend(1 + batch.requests.len() as u64 / REQUESTS_A_STEP);
        let slot = self.push(entry);
        self.execute(slot, hash, &batch);
        if let Some(said) = said {
            self.history.keep_results(slot, said);
        }
    }

    fn finish_adoption(&mut self, ended: Ended) {
        let Ended { trail, unseen, is_long } = ended;
        let is_other = trail.is_some();
        if let Some(trail) = trail {
            self.branches.leave(trail);
            self.let_go();
        }
        if unseen {
            self.drop_executed();
        }
        if is_long {
            self.counters.merges_in_turns += u64::from(is_other);
            // Nobody is to blame for what waited here meanwhile.
            self.forget_patience();
        }
        self.ahead.forget_through(self.history.head().slot);
        if is_other {
            // It may be long: its slots were neither voted on nor answered.
            self.answer_anew();
        }
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
            self.see_off(&request);
        }
        self.note_gone_orphans();
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
        let head = self.history.head().slot;
        let proofs = [self.stable.take_passed(), self.stable.take_ahead_through(head)];
        for proof in proofs.into_iter().flatten() {
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
