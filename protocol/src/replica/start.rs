//! Starting from disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::branch::Branches;
use super::checkpoint::CHECKPOINTS_KEPT;
use super::commit::COMMITS_KEPT;
use super::execution::Undone;
use super::fetch::Fetching;
use super::pacing::Pacing;
use super::pending::Pending;
use super::settle::Settling;
use super::shares::Shares;
use super::standing::Office;
use super::transfer::{Taken, Transfer};
use super::turns::Turn;
use super::view_change::Changing;
use super::votes::Votes;
use super::waits::Waits;
use super::{Counters, Execution, Known, Mark, Recovered, Replica, Setup, StateHead, StoredState};
use crate::application::Application;
use crate::codec::Canonical;
use crate::evidence::Evidence;
use crate::history::{Entry, History, extend};
use crate::id::{Digest, Now, Slot, View};
use crate::message::{Batch, Position, SlotEntry, StableProof};
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
        let evidence = std::mem::take(&mut recovered.evidence);
        let mut replica = Self::empty(setup, application, evidence, now);
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
        if let Some(entered) = recovered.entered {
            replica.entered = entered.view();
            replica.entry_slot = entered.entry_slot;
            replica.new_view = Some(entered.new_view);
        }
        replica.last_stamp = recovered.stamps;
        replica.stamps_reserved = recovered.stamps;
        replica.voted_commit = recovered.voted;
        replica.voted_floor = recovered.voted;
        for evidence in replica.evidence.clone() {
            replica.note_proof(&evidence);
        }
        if let Some(proof) = stable.filter(|proof| proof.slot() > replica.stable()) {
            replica.recover_stable(proof)?;
        }
        if let Some(lock) = recovered.lock {
            let at = lock.commit.slot;
            let below = at < replica.history.base().slot;
            if !below && !replica.history.goes_through(lock.position()) {
                return Err(StartError::Damaged(at, "the lock is not on the stored history"));
            }
            replica.lock = Some(lock);
        }
        replica.recover_doubt();
        replica.commits.forget_through(replica.certified());
        let orphans: Vec<_> = recovered
            .orphans
            .into_iter()
            .filter(|orphan| matches!(replica.sessions().known(&orphan.body().name()), Known::Open))
            .collect();
        replica.pending.insert_orphans(&orphans, now.instant);
        // What became of the last votes is not known: cast them again, they are the same.
        if replica.history.head().slot > replica.certified() {
            replica.commit_at = Some(now.instant);
        }
        replica.expect_quiet();
        replica.note_strong_slots();
        if let Some(incoming) = recovered.incoming {
            replica.resume_transfer(incoming);
        }
        replica.out.clear();
        replica.appended = Mark::NONE;
        replica.counters = Counters::default();
        replica.counters.state_unreadable = u64::from(replica.distrusted);
        replica.assert_invariants();
        Ok(replica)
    }

    fn empty(setup: Setup, application: A, evidence: Vec<Evidence>, now: Now) -> Self {
        let rules = setup.tuning.rules;
        Self {
            size: setup.membership.size(),
            now,
            entered: View::ZERO,
            new_view: None,
            entry_slot: Slot::GENESIS,
            office: Office::default(),
            changing: Changing::default(),
            history: History::new(*setup.membership.genesis()),
            execution: Execution::new(application, rules),
            undone: Undone::default(),
            branches: Branches::default(),
            preparation: None,
            adopting: None,
            turn: Turn::default(),
            candidates: BTreeMap::new(),
            lock: None,
            lock_aside: false,
            stable: None,
            pending: Pending::default(),
            shares: Shares::default(),
            ahead: BTreeMap::new(),
            commits: Votes::new(COMMITS_KEPT),
            checkpoints: Votes::new(CHECKPOINTS_KEPT),
            certified_ahead: None,
            stable_ahead: None,
            voted_commit: Slot::GENESIS,
            voted_floor: Slot::GENESIS,
            voted_checkpoint: Slot::GENESIS,
            taken: BTreeMap::new(),
            served: VecDeque::new(),
            transfer: None,
            ready: None,
            distrusted: false,
            settling: Settling::default(),
            peers: BTreeMap::new(),
            waits: Waits::default(),
            divergent: BTreeSet::new(),
            fetching: Fetching::default(),
            under_way: VecDeque::new(),
            last_ordered: now.instant,
            pacing: Pacing::default(),
            appended: Mark::NONE,
            synced: Mark::NONE,
            commit_at: None,
            quiet_at: None,
            status_at: now.instant,
            last_stamp: 0,
            stamps_reserved: 0,
            stamps_after: Mark::NONE,
            disk_full: false,
            seeds_drawn: 0,
            evidence,
            counters: Counters::default(),
            out: Vec::new(),
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
        let StoredState { head: StateHead { stable, digests }, rows, .. } = state;
        self.history = History::after(at, last.choices.time);
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
        self.checkpoints.forget_through(at.slot);
        self.stable = Some(stable);
        Ok(())
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
        if transfer.is_whole() {
            self.ready = transfer.into_whole(state.rows, self.now.instant);
        } else {
            self.transfer = Some(transfer);
        }
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
        let state = proof.checkpoint.checkpoint.state;
        if self.taken.get(&slot).is_some_and(|taken| taken.digests.digest() != state) {
            if !self.is_distrusted() {
                return damaged("the state after replay is not the one that was certified");
            }
            self.taken.remove(&slot);
        }
        self.stable = Some(proof);
        self.checkpoints.forget_through(slot);
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
            self.taken.clear();
            self.give_up_through(slot);
        }
        if slot == stable {
            self.take_head(slot);
        }
        Ok(())
    }
}
