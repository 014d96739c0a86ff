//! The acceptance of a slot, which is the same for primary and backups, and its execution.

use std::sync::Arc;

use crate::application::Application;
use crate::history::Entry;
use crate::id::{Digest, Slot};
use crate::message::{Batch, Order, Position, RefusalReason, SignedRequest, fit_one_slot};
use crate::replica::{Record, Replica};
use crate::signature::Signed;

impl<A: Application> Replica<A> {
    /// Makes a batch the next slot: records it, executes it, answers, votes.
    pub(in crate::replica) fn accept(
        &mut self,
        hash: Digest,
        batch: Arc<Batch>,
        order: Option<Signed<Order>>,
    ) {
        let entry = Entry { hash, batch: batch.clone(), order, results: Vec::new() };
        let stored = entry.to_slot_entry();
        let slot = self.push(entry);
        self.append(Record::Slot { slot, hash, entry: stored });
        self.execute(slot, hash, &batch);
        if !self.fetching.is_filling() {
            self.answer_speculatively(slot);
        }
        self.after_execution(slot, batch.wants_commit());
        self.ahead.forget_through(slot);
    }

    /// Appends a slot to the history, with what it weighs.
    pub(in crate::replica) fn push(&mut self, entry: Entry) -> Slot {
        let weight = self.weight(&entry.batch);
        self.history.push(entry, weight)
    }

    /// What a slot weighs, on whatever history it is. It follows from the batch alone.
    pub(in crate::replica) fn weight(&self, batch: &Batch) -> u64 {
        batch.weight(|operation| self.execution.weight(operation))
    }

    pub(in crate::replica) fn fit_one_slot(&self, requests: &[Arc<SignedRequest>]) -> bool {
        fit_one_slot(requests, |operation| self.execution.weight(operation))
    }

    /// Executes a slot that was just pushed; also at the start, for those from disk.
    ///
    /// # Panics
    /// This program does not execute its edition: I11.
    pub(in crate::replica) fn execute(&mut self, slot: Slot, hash: Digest, batch: &Batch) {
        let (at, edition) = (Position { slot, hash }, batch.choices.edition);
        assert!(self.executes(edition), "I11: slot {slot} is of edition {edition}");
        let results = self.execution.execute(at, batch, &mut self.undone);
        self.counters.results_reordered = self.undone.changed;
        self.counters.sessions_left = self.execution.sessions_left();
        self.counters.executed_slots += 1;
        self.counters.executed_requests += batch.requests.len() as u64;
        self.history.keep_results(slot, results);
        self.take_where_due(at);
        self.note_trouble();
        let digests = batch.requests.iter().map(|request| request.digest());
        let waited: Vec<Digest> =
            digests.filter(|digest| self.pending.get(digest).is_some()).collect();
        let progress = !waited.is_empty();
        for digest in waited {
            self.note_lateness(self.pending.forwarded_at(&digest));
        }
        let mut was_forwarded =
            batch.requests.iter().any(|request| self.pending.is_forwarded(&request.digest()));
        for request in &batch.requests {
            let name = request.body().name();
            was_forwarded |= self.pending.note_served(&name, self.now.instant);
            if self.pending.orphans().of_name(&name).any(|content| content != request.digest()) {
                self.bygone.note_lost();
            }
            for other in self.pending.remove_name(&name, &request.digest()) {
                self.refuse(&other, RefusalReason::NameUsed);
            }
        }
        if progress {
            self.note_progress(was_forwarded);
        }
        let names = batch.requests.iter().map(|request| request.body().name());
        let sessions = self.execution.sessions();
        self.pending.look_again(names, |request| sessions.refusal(request).is_some());
        self.note_gone_orphans();
        self.ask_for_what_waits();
    }

    /// Orphans that left `pending` are in the history again, or can never be.
    pub(in crate::replica) fn note_gone_orphans(&mut self) {
        self.counters.orphan_looks = self.pending.orphans().looks();
        let remove = self.pending.orphans_mut().take_gone();
        if !remove.is_empty() {
            self.counters.orphans_reordered += remove.len() as u64;
            self.append(Record::Orphans { add: Vec::new(), remove });
        }
    }
}
