//! What this replica is, by its disk and by what the others know of it, and what it doubts.

use std::collections::BTreeMap;

use crate::id::{Instant, Life, ReplicaId, Slot};
use crate::message::{Mismatch, StableProof, Standing, StateDigests};
use crate::quorum::{ClusterSize, Strength};
use crate::replica::Mark;

/// The first wait until a new replica asks again, in ms; it doubles up to the status interval.
const ASK_AGAIN_MS: u64 = 10;

/// Mismatches kept for the operator, the newest ones.
const MISMATCHES_KEPT: usize = 8;

/// Why a replica doubts its own state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// A strong quorum certified another state than the own one, at this checkpoint.
    State(Slot),
    /// What is stored is not what was written, as the driver says.
    Store(String),
}

/// A replica in doubt of its own state neither votes nor answers clients, until a checkpoint is
/// stable here whose certified state is the own one: computed, or fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// What makes it doubt.
    pub doubt: Doubt,
    /// It ends with a stable checkpoint at this slot or above it.
    pub until: Slot,
    /// Whether what is stored is in doubt: then no checkpoint ends it before another state is in place.
    pub is_store_in_doubt: bool,
}

/// All about what this replica may do.
#[derive(Clone, Debug)]
pub(in crate::replica) struct Office {
    standing: Standing,
    /// The record that says so, if it was written in this life.
    standing_after: Mark,
    /// The first life of each replica that was heard of, and the own one. Durable.
    lives: BTreeMap<ReplicaId, Life>,
    /// Which life of this replica each other one heard of first.
    told: BTreeMap<ReplicaId, Life>,
    /// When a new replica asks next, and how long it waits after that.
    ask_at: Instant,
    wait_ms: u64,
    quarantine: Option<Quarantine>,
    /// Oldest first. Durable.
    mismatches: Vec<Mismatch>,
}

impl Default for Office {
    fn default() -> Self {
        Self::recovered(Standing::Voter, BTreeMap::new(), Vec::new())
    }
}

impl Office {
    /// After a start: what is on the disk.
    pub(super) fn recovered(
        standing: Standing,
        lives: BTreeMap<ReplicaId, Life>,
        mismatches: Vec<Mismatch>,
    ) -> Self {
        Self {
            standing,
            standing_after: Mark::NONE,
            lives,
            told: BTreeMap::new(),
            // At once.
            ask_at: Instant::default(),
            wait_ms: ASK_AGAIN_MS,
            quarantine: None,
            mismatches,
        }
    }

    // ---- what it may do ----

    /// Whether what it signs may count.
    pub(super) fn may_vote(&self) -> bool {
        self.standing == Standing::Voter && self.quarantine.is_none()
    }

    /// Whether its word on the first life of another one may count. Who lost its disk may have forgotten an earlier life.
    pub(super) fn may_attest(&self) -> bool {
        self.standing != Standing::Observer && self.quarantine.is_none()
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// The record that has to be on disk before anything leaves that counts.
    pub(super) fn standing_after(&self) -> Mark {
        self.standing_after
    }

    /// It is this from now on, as this record says.
    pub(super) fn take_standing(&mut self, standing: Standing, record: Mark) {
        (self.standing, self.standing_after) = (standing, record);
    }

    // ---- lives ----

    pub(super) fn lives(&self) -> &BTreeMap<ReplicaId, Life> {
        &self.lives
    }

    /// The first life of a replica that was heard of.
    pub(super) fn first_life(&self, id: ReplicaId) -> Option<Life> {
        self.lives.get(&id).copied()
    }

    /// That is this one, for good. `true` where none was known.
    pub(super) fn note_life(&mut self, id: ReplicaId, first: Life) -> bool {
        self.lives.insert(id, first).is_none()
    }

    /// When a new replica asks next which life of it the others know.
    pub(super) fn ask_at(&self) -> Option<Instant> {
        (self.standing == Standing::New).then_some(self.ask_at)
    }

    /// It asks, and waits for twice as long the next time, but not longer than this.
    pub(super) fn note_asked(&mut self, now: Instant, most_ms: u64) {
        self.ask_at = now.after_ms(self.wait_ms);
        self.wait_ms = (2 * self.wait_ms).min(most_ms);
    }

    /// Whether this one has said which life it knows.
    pub(super) fn was_told_by(&self, id: ReplicaId) -> bool {
        self.told.contains_key(&id)
    }

    /// Another replica says which life of this one it heard of first. No correct one ever says something else.
    pub(super) fn hear_told(&mut self, by: ReplicaId, life: Life) {
        self.told.entry(by).or_insert(life);
    }

    /// What this replica is, as far as the others have said it.
    pub(super) fn verdict(&self, me: ReplicaId, size: ClusterSize) -> Option<Standing> {
        let own = self.lives.get(&me)?;
        let others = self.told.len();
        let same = self.told.values().filter(|life| *life == own).count();
        if size.suffices(same + 1, Strength::Strong) {
            Some(Standing::Voter)
        } else if size.suffices(others - same, Strength::Weak) {
            // One of them is correct and has heard of this replica in another life.
            Some(Standing::Observer)
        } else {
            None
        }
    }

    // ---- doubt ----

    pub(super) fn quarantine(&self) -> Option<&Quarantine> {
        self.quarantine.as_ref()
    }

    /// The own state is in doubt. `true` where it was not before.
    pub(super) fn doubts(&mut self, doubt: Doubt) -> bool {
        let (until, is_store_in_doubt) = match doubt {
            Doubt::State(slot) => (slot, false),
            Doubt::Store(_) => (Slot::GENESIS, true),
        };
        match &mut self.quarantine {
            Some(known) => {
                known.until = known.until.max(until);
                known.is_store_in_doubt |= is_store_in_doubt;
                false
            }
            None => {
                self.quarantine = Some(Quarantine { doubt, until, is_store_in_doubt });
                true
            }
        }
    }

    /// A certified state has taken the place of one that could not be read. A doubt that came before
    /// that one is still open.
    pub(super) fn end_doubt_of_store(&mut self) {
        if let Some(quarantine) = &mut self.quarantine {
            quarantine.is_store_in_doubt = false;
        }
    }

    /// A checkpoint at this slot is stable here. `true` where that ends the doubt.
    pub(super) fn end_doubt_at(&mut self, stable: Slot) -> bool {
        let is_over = |known: &mut Quarantine| !known.is_store_in_doubt && known.until <= stable;
        self.quarantine.take_if(is_over).is_some()
    }

    // ---- mismatches ----

    /// The checkpoints whose certified state was not the own one, oldest first.
    pub(super) fn mismatches(&self) -> &[Mismatch] {
        &self.mismatches
    }

    /// The newest of the certified states that were not the own one.
    pub(super) fn newest_mismatch(&self) -> Option<&StableProof> {
        let all = self.mismatches.iter().map(|mismatch| &mismatch.certified);
        all.max_by_key(|certified| certified.slot())
    }

    /// A strong quorum certified another state than the own one. Gives all that are kept, where it was not known.
    pub(super) fn note_mismatch(
        &mut self,
        certified: StableProof,
        own: StateDigests,
    ) -> Option<Vec<Mismatch>> {
        let (known, slot) = (&mut self.mismatches, certified.slot());
        if known.iter().any(|mismatch| mismatch.certified.slot() == slot) {
            return None;
        }
        known.push(Mismatch { certified, own });
        let surplus = known.len().saturating_sub(MISMATCHES_KEPT);
        known.drain(..surplus);
        Some(known.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Digest, View};
    use crate::message::{Checkpoint, CheckpointCertificate, Commit, CommitCertificate};

    const ME: ReplicaId = ReplicaId(0);
    const LIFE: Life = Life([1; 16]);
    const OTHER: Life = Life([2; 16]);

    fn new() -> Office {
        Office::recovered(Standing::New, BTreeMap::from([(ME, LIFE)]), Vec::new())
    }

    fn verdict(told: &[(u8, Life)]) -> Option<Standing> {
        let mut office = new();
        told.iter().for_each(|(by, life)| office.hear_told(ReplicaId(*by), *life));
        office.verdict(ME, ClusterSize::new(4, 1).expect("a valid size"))
    }

    fn proof(slot: u64) -> StableProof {
        let (view, slot, hash) = (View(0), Slot(slot), Digest([1; 32]));
        let checkpoint = Checkpoint { view, slot, hash, state: Digest([2; 32]) };
        let commit = Commit { view, slot, hash };
        StableProof {
            checkpoint: CheckpointCertificate { body: checkpoint, votes: BTreeMap::new() },
            cover: CommitCertificate { body: commit, votes: BTreeMap::new() },
        }
    }

    #[test]
    fn a_life_votes_when_a_strong_quorum_with_itself_names_it_and_not_after_another_one() {
        assert_eq!(verdict(&[(1, LIFE)]), None);
        assert_eq!(verdict(&[(1, LIFE), (2, LIFE)]), Some(Standing::Voter));
        assert_eq!(verdict(&[(1, LIFE), (2, OTHER)]), None, "one of them may lie");
        assert_eq!(verdict(&[(1, OTHER), (2, OTHER)]), Some(Standing::Observer));
        assert_eq!(verdict(&[(1, LIFE), (1, OTHER), (2, LIFE)]), Some(Standing::Voter));
    }

    #[test]
    fn only_a_voter_without_doubt_votes_and_whoever_remembers_attests() {
        let mut office = new();
        assert!(!office.may_vote() && office.may_attest() && office.ask_at().is_some());
        office.take_standing(Standing::Voter, Mark(7));
        assert!(office.may_vote() && office.ask_at().is_none());
        assert_eq!(office.standing_after(), Mark(7));
        assert!(office.doubts(Doubt::State(Slot(8))));
        assert!(!office.may_vote() && !office.may_attest());
        office.take_standing(Standing::Observer, Mark(8));
        assert!(office.end_doubt_at(Slot(8)) && !office.may_vote() && !office.may_attest());
    }

    #[test]
    fn a_doubt_ends_when_every_one_that_came_meanwhile_is_decided() {
        let mut office = Office::default();
        assert!(office.doubts(Doubt::State(Slot(8))));
        assert!(!office.doubts(Doubt::Store("unreadable".into())));
        assert!(!office.doubts(Doubt::State(Slot(12))));
        assert!(!office.end_doubt_at(Slot(12)), "what is stored is in doubt");
        office.end_doubt_of_store();
        assert!(!office.end_doubt_at(Slot(11)) && office.end_doubt_at(Slot(12)));
        assert!(office.may_vote());
    }

    #[test]
    fn the_newest_mismatches_are_kept_each_once() {
        let own = StateDigests { application: Digest([3; 32]), sessions: Digest([4; 32]) };
        let mut office = Office::default();
        for slot in 1..=MISMATCHES_KEPT as u64 + 2 {
            assert!(office.note_mismatch(proof(slot), own).is_some());
            assert!(office.note_mismatch(proof(slot), own).is_none());
        }
        assert_eq!(office.mismatches().len(), MISMATCHES_KEPT);
        assert_eq!(office.mismatches().first().map(|known| known.certified.slot()), Some(Slot(3)));
        let newest = Slot(MISMATCHES_KEPT as u64 + 2);
        assert_eq!(office.newest_mismatch().map(StableProof::slot), Some(newest));
    }
}
