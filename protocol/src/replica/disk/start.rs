//! Starting from disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::office::Office;
use super::outbox::Outbox;
use crate::application::Application;
use crate::codec::Canonical;
use crate::edition::{Edition, Editions};
use crate::history::{Entry, History, extend};
use crate::id::{Digest, Now, Slot};
use crate::message::{Batch, Position, SlotEntry, StableProof, StateHead};
use crate::replica::normal::{
    Ballots, Budget, Common, Fetching, Lock, OrdersAhead, Pending, Pipeline, Queries, Shares,
    Undone,
};
use crate::replica::state::{Arriving, Settling, Stable, States, Taken, Transfer};
use crate::replica::time::{Due, Stamps, Turn, Waits};
use crate::replica::views::{
    Adopting, Branches, Bygone, Changing, Divergent, Entered, Preparation, Proofs,
};
use crate::replica::{Counters, Execution, Known, Mark, Recovered, Replica, Setup, StoredState};
use crate::rows::RowsView;

/// Why a replica cannot start from its disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError<E> {
    /// A slot could not be read.
    #[error("the stored history could not be read: {0}")]
    Unreadable(E),
    /// What is stored contradicts itself.
    #[error("the store is damaged at slot {0}: {1}")]
    Damaged(Slot, &'static str),
    /// The program is too old, or too new, for a stored slot or the stored state.
    #[error(
        "slot {slot} is of edition {edition}, and this program executes {own}: it takes another version of the program"
    )]
    Edition {
        /// Which one.
        slot: Slot,
        /// By which rules it is executed.
        edition: Edition,
        /// What this program executes.
        own: Editions,
    },
    /// The cluster begins with a state, and neither that nor a later one is stored.
    #[error("the state that the cluster begins with is not stored")]
    NoInitialState,
}

impl<A: Application> Replica<A> {
    /// Starts a replica: with empty records on its first start, else with what the disk holds.
    ///
    /// `slots` gives the stored slots in order and without a hole, from the one after the stored
    /// state on, or from slot 1 where there is none; they are executed anew, without a word to
    /// anybody.
    ///
    /// # Errors
    /// The records contradict each other: the store is damaged or of another cluster.
    pub fn start<E>(
        setup: Setup,
        application: A,
        mut recovered: Recovered,
        slots: impl Iterator<Item = Result<(Digest, SlotEntry), E>>,
        now: Now,
    ) -> Result<Self, StartError<E>> {
        let proofs = Proofs::recovered(std::mem::take(&mut recovered.evidence));
        let mut replica = Self::empty(setup, application, proofs, now);
        replica.recover_office(&mut recovered);
        match recovered.state {
            Some(state) => replica.restore(state)?,
            None => replica.begin_with(recovered.initial)?,
        }
        let stable = recovered.stable;
        let stable_slot = stable.as_ref().map_or(Slot::GENESIS, StableProof::slot);
        for stored in slots {
            let (hash, entry) = stored.map_err(StartError::Unreadable)?;
            replica.replay(hash, entry, stable_slot)?;
        }
        replica.view = Entered::recovered(recovered.entered, recovered.has_run);
        replica.stamps = Stamps::recovered(recovered.stamps);
        replica.ballots = Ballots::recovered(recovered.voted);
        for evidence in replica.proofs.all().to_vec() {
            replica.note_proof(&evidence);
        }
        if let Some(proof) = stable.filter(|proof| proof.slot() > replica.stable()) {
            replica.recover_stable(proof)?;
        }
        if let Some(lock) = recovered.lock {
            let at = lock.body.slot;
            let below = at < replica.history.base().slot;
            if !below && !replica.history.goes_through(lock.position()) {
                return Err(StartError::Damaged(at, "the lock is not on the stored history"));
            }
            replica.lock.raise(lock, Mark::NONE);
        }
        replica.recover_doubt();
        replica.ballots.forget_commits_through(replica.certified());
        let orphans: Vec<_> = recovered
            .orphans
            .into_iter()
            .filter(|orphan| matches!(replica.sessions().known(&orphan.body().name()), Known::Open))
            .collect();
        replica.pending.insert_orphans(&orphans, now.instant);
        // What became of the last votes is not known: cast them again, they are the same.
        if replica.history.head().slot > replica.certified() {
            replica.due.commit_at(now.instant);
        }
        replica.expect_quiet();
        replica.note_strong_slots();
        if let Some(incoming) = recovered.incoming {
            replica.resume_transfer(incoming);
        }
        // All of one.
        replica.note_editions();
        replica.outbox.begin();
        replica.counters = Counters::default();
        replica.counters.state_unreadable = u64::from(replica.is_distrusted());
        replica.assert_invariants();
        Ok(replica)
    }

    fn empty(setup: Setup, application: A, proofs: Proofs, now: Now) -> Self {
        let rules = setup.tuning.rules;
        Self {
            size: setup.membership.size(),
            now,
            view: Entered::default(),
            office: Office::default(),
            changing: Changing::default(),
            history: History::new(*setup.membership.genesis()),
            execution: Execution::new(application, rules),
            undone: Undone::default(),
            branches: Branches::default(),
            preparation: Preparation::default(),
            adopting: Adopting::default(),
            turn: Turn::default(),
            lock: Lock::default(),
            common: Common::default(),
            queries: Queries::default(),
            bygone: Bygone::default(),
            stable: Stable::default(),
            pending: Pending::default(),
            shares: Shares::default(),
            ahead: OrdersAhead::default(),
            ballots: Ballots::default(),
            states: States::default(),
            arriving: Arriving::default(),
            settling: Settling::default(),
            peers: BTreeMap::new(),
            waits: Waits::default(),
            divergent: Divergent::default(),
            fetching: Fetching::default(),
            pipeline: Pipeline::new(now.instant),
            outbox: Outbox::default(),
            stamps: Stamps::default(),
            due: Due::new(now.instant),
            proofs,
            lending: Budget::default(),
            counters: Counters::default(),
            setup,
        }
    }

    /// Puts the state in place that the cluster begins with, where there is one. If the application
    /// cannot read it, the replica starts all the same, as with any stored state.
    fn begin_with<E>(&mut self, initial: Option<RowsView>) -> Result<(), StartError<E>> {
        let Some(digest) = self.setup.membership.initial_state().copied() else { return Ok(()) };
        let rows = initial.ok_or(StartError::NoInitialState)?;
        let sessions = self.sessions().clone();
        if let Err(why) = self.execution.open(Slot::GENESIS, digest, rows, sessions) {
            self.distrust(&why);
        }
        Ok(())
    }

    /// Puts the stored state in place as what the history begins with. If the application cannot
    /// read its part, the replica starts all the same, and has it repaired by the others.
    fn restore<E>(&mut self, state: StoredState) -> Result<(), StartError<E>> {
        let at = state.head.stable.position();
        let damaged = |what| StartError::Damaged(at.slot, what);
        let rules = self.setup.tuning.rules;
        let execution = &self.execution;
        self.settling.note_state(state.pieces.iter().map(|(_, bytes)| bytes.len() as u64).sum());
        let transfer = Transfer::from_disk(&state, rules, |digest| execution.restore(digest))
            .ok_or_else(|| damaged("the stored state is not the certified one"))?;
        let (last, sessions) =
            transfer.own_part().ok_or_else(|| damaged("pieces of the stored state are missing"))?;
        self.check_edition(at.slot, last.choices.edition)?;
        let StoredState { head: StateHead { stable, digests }, rows, .. } = state;
        self.history = History::after(at, last.choices);
        match self.execution.open(at.slot, digests.application, rows, sessions.clone()) {
            Ok(()) => {
                let (snapshot, sessions) = self.execution.freeze();
                self.keep_transferred(Taken { at, digests, last, snapshot, sessions });
            }
            Err(why) => {
                self.execution.open_without(at.slot, sessions);
                self.distrust(&why);
            }
        }
        self.ballots.forget_checkpoints_through(at.slot);
        self.stable.raise(stable);
        Ok(())
    }

    fn check_edition<E>(&self, slot: Slot, edition: Edition) -> Result<(), StartError<E>> {
        let own = self.setup.editions;
        if own.include(edition) { Ok(()) } else { Err(StartError::Edition { slot, edition, own }) }
    }

    /// Goes on with a state that was being fetched. If what is there is of no use, it is fetched
    /// anew.
    fn resume_transfer(&mut self, state: StoredState) {
        let rules = self.setup.tuning.rules;
        let execution = &self.execution;
        let transfer = Transfer::from_disk(&state, rules, |digest| execution.restore(digest));
        let Some(mut transfer) = transfer else { return };
        if transfer.resume(&state.rows).is_err() {
            return;
        }
        self.arriving.resume(transfer, state.rows, self.now.instant);
    }

    fn recover_stable<E>(&mut self, proof: StableProof) -> Result<(), StartError<E>> {
        let Position { slot, hash } = proof.position();
        let damaged = |what| Err(StartError::Damaged(slot, what));
        if slot > self.history.head().slot {
            return damaged("the stable checkpoint lies above the stored history");
        }
        if self.history.hash_at(slot).is_some_and(|own| own != hash) {
            return damaged("the stable checkpoint is of another history");
        }
        let state = proof.checkpoint.body.state;
        if self.states.taken(slot).is_some_and(|taken| taken.digests.digest() != state) {
            if !self.is_distrusted() {
                return damaged("the state after replay is not the one that was certified");
            }
            self.states.retain_taken(|taken| taken != slot);
        }
        self.stable.raise(proof);
        self.ballots.forget_checkpoints_through(slot);
        self.keep_state(slot);
        self.give_up_through(slot);
        Ok(())
    }

    fn replay<E>(
        &mut self,
        hash: Digest,
        stored: SlotEntry,
        stable: Slot,
    ) -> Result<(), StartError<E>> {
        let slot = self.history.head().slot.next();
        self.settling.note_slot(&stored);
        self.check_edition(slot, stored.choices.edition)?;
        let batch = Arc::new(Batch { choices: stored.choices, requests: stored.requests });
        if extend(&self.history.head().hash, &batch.digest()) != hash {
            return Err(StartError::Damaged(slot, "the hash chain is broken"));
        }
        let mut admission = self.sessions().admission();
        if batch.requests.iter().any(|request| admission.admit(request.body()).is_err()) {
            return Err(StartError::Damaged(slot, "a request in it may not be executed there"));
        }
        let entry = Entry { hash, batch: batch.clone(), order: stored.order, results: Vec::new() };
        self.push(entry);
        self.execute(slot, hash, &batch);
        if slot < stable && slot.0.is_multiple_of(self.setup.tuning.rules.checkpoint_interval) {
            self.states.forget_taken();
            self.give_up_through(slot);
        }
        if slot == stable {
            self.take_head(slot);
        }
        Ok(())
    }
}
