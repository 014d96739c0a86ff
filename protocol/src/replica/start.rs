//! Starting from disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::checkpoint::CHECKPOINTS_KEPT;
use super::commit::COMMITS_KEPT;
use super::fetch::Fetching;
use super::pending::Pending;
use super::votes::Votes;
use super::{Counters, Execution, Mark, Recovered, Replica, Setup};
use crate::application::Application;
use crate::history::{Entry, History, extend};
use crate::id::{Digest, Now, Slot, View};
use crate::message::{Batch, SlotEntry};

/// Why a replica cannot start from its disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError<E> {
    /// A slot could not be read.
    #[error("the stored history could not be read: {0}")]
    Unreadable(E),
    /// What is stored contradicts itself.
    #[error("the store is damaged at slot {0}: {1}")]
    Damaged(Slot, &'static str),
}

impl<A: Application> Replica<A> {
    /// Starts a replica: with empty records on its first start, else with what the disk holds.
    /// `slots` gives the stored slots from slot 1 on, in order, without a hole; they are executed
    /// anew, without a word to anybody.
    ///
    /// # Errors
    /// The records contradict each other: the store is damaged or of another cluster.
    pub fn start<E>(
        setup: Setup,
        application: A,
        recovered: Recovered,
        slots: impl Iterator<Item = Result<(Digest, SlotEntry), E>>,
        now: Now,
    ) -> Result<Self, StartError<E>> {
        let rules = setup.tuning.rules;
        let mut replica = Self {
            size: setup.membership.size(),
            now,
            entered: View::ZERO,
            entry_slot: Slot::GENESIS,
            history: History::new(*setup.membership.genesis()),
            execution: Execution::new(application, rules),
            lock: None,
            stable: None,
            pending: Pending::default(),
            ahead: BTreeMap::new(),
            commits: Votes::new(COMMITS_KEPT),
            checkpoints: Votes::new(CHECKPOINTS_KEPT),
            certified_ahead: None,
            stable_ahead: None,
            voted_commit: Slot::GENESIS,
            voted_checkpoint: Slot::GENESIS,
            digests: BTreeMap::new(),
            peers: BTreeMap::new(),
            divergent: BTreeSet::new(),
            fetching: Fetching::default(),
            under_way: VecDeque::new(),
            last_ordered: now.instant,
            appended: Mark::NONE,
            synced: Mark::NONE,
            commit_at: None,
            status_at: now.instant,
            last_stamp: 0,
            seeds_drawn: 0,
            evidence: recovered.evidence,
            counters: Counters::default(),
            out: Vec::new(),
            setup,
        };
        let stable = recovered.stable;
        let stable_slot = stable.as_ref().map_or(Slot::GENESIS, |s| s.checkpoint.slot);
        for stored in slots {
            let (hash, entry) = stored.map_err(StartError::Unreadable)?;
            replica.replay(hash, entry, stable_slot)?;
        }
        let head = replica.history.head().slot;
        if let Some(certificate) = stable {
            let checkpoint = certificate.checkpoint;
            let damaged = |what| Err(StartError::Damaged(checkpoint.slot, what));
            if checkpoint.slot > head {
                return damaged("the stable checkpoint lies above the stored history");
            }
            if replica.history.hash_at(checkpoint.slot).is_some_and(|h| h != checkpoint.hash) {
                return damaged("the stable checkpoint is of another history");
            }
            if replica.digests.get(&checkpoint.slot).is_some_and(|d| *d != checkpoint.state) {
                return damaged("the state after replay is not the one that was certified");
            }
            replica.stable = Some(certificate);
            replica.checkpoints.forget_through(checkpoint.slot);
            replica.give_up_through(checkpoint.slot);
        }
        if let Some(lock) = recovered.lock {
            let at = lock.commit.slot;
            let below = at < replica.history.base().slot;
            if !below && replica.history.hash_at(at) != Some(lock.commit.hash) {
                return Err(StartError::Damaged(at, "the lock is not on the stored history"));
            }
            replica.commits.forget_through(at);
            replica.lock = Some(lock);
        }
        // What became of the last votes is not known: cast them again, they are the same.
        if head > replica.certified() {
            replica.commit_at = Some(now.instant);
        }
        replica.counters = Counters::default();
        replica.assert_invariants();
        Ok(replica)
    }

    fn replay<E>(
        &mut self,
        hash: Digest,
        stored: SlotEntry,
        stable: Slot,
    ) -> Result<(), StartError<E>> {
        let slot = self.history.head().slot.next();
        let batch = Arc::new(Batch { choices: stored.choices, requests: stored.requests });
        if extend(&self.history.head().hash, &batch.digest()) != hash {
            return Err(StartError::Damaged(slot, "the hash chain is broken"));
        }
        let mut admission = self.sessions().admission();
        if batch.requests.iter().any(|request| admission.admit(request.body()).is_err()) {
            return Err(StartError::Damaged(slot, "a request in it may not be executed there"));
        }
        let entry = Entry { hash, batch: batch.clone(), order: stored.order, results: Vec::new() };
        self.history.push(entry);
        self.execute(slot, hash, &batch);
        if slot < stable && slot.0.is_multiple_of(self.setup.tuning.rules.checkpoint_interval) {
            self.give_up_through(slot);
        }
        Ok(())
    }
}
