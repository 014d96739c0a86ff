//! Whether this replica may vote, and the one way by which votes leave it.
//!
//! What others count is worth what its signer remembers and computes. A replica that lost its disk
//! has forgotten what it promised, and one whose state is not the certified one computes wrongly:
//! neither may sign anything that counts towards a quorum, and both go on following and serving.
//! Every statement that a replica signs is listed here, as a [`Ballot`], which counts, or a
//! [`Remark`], which does not; replies are signed in bundles and ask [`Replica::may_vote`], too.
//!
//! An empty disk is either that of a first start or of a replica that lost its own. The replica
//! itself cannot tell. So each replica notes, for good, the first [`Life`] of each other one that
//! it hears of, and a life becomes a voter when a strong quorum names it as the first. That is a
//! register that is written once: no second life of one replica ever finds such a quorum. It
//! depends on no time and no history, so whoever is switched on late is a voter like the others.

use std::collections::BTreeMap;

use crate::application::Application;
use crate::codec::Canonical;
use crate::id::{Instant, Life, ReplicaId, Slot};
use crate::message::{
    Checkpoint, Commit, Enrol, Enrolled, Fetch, Message, Mismatch, MismatchReport, NewView,
    NodeStatus, Order, Pulse, Refusal, SessionReport, StableProof, Standing, StateDigests, Status,
    Suspect, ViewChange,
};
use crate::quorum::Strength;
use crate::replica::{Mark, Record, Recovered, Replica, Target};
use crate::seal::sign;
use crate::signature::Signed;

/// The first wait until a new replica asks again, in ms; it doubles up to the status interval.
const ASK_AGAIN_MS: u64 = 10;

/// Mismatches kept for the operator, the newest ones.
const MISMATCHES_KEPT: usize = 8;

/// A statement that counts towards a quorum of replicas or of a client.
pub(in crate::replica) trait Ballot: Canonical {}

/// A statement that counts nowhere: what it says is checked, or believed by nobody.
pub(in crate::replica) trait Remark: Canonical {}

// The primary's word alone makes a slot, and with it everything that is voted on.
impl Ballot for Order {}
impl Ballot for Commit {}
impl Ballot for Checkpoint {}
impl Ballot for Suspect {}
impl Ballot for ViewChange {}
impl Ballot for NewView {}
// A client believes a weak quorum of either.
impl Ballot for Refusal {}
impl Ballot for SessionReport {}
// It says where its sender stands: others fetch what they lack, and take back a view change that
// they held of the same sender. A status adds no voice to anything.
impl Remark for Status {}
impl Remark for Fetch {}
impl Remark for NodeStatus {}
impl Remark for Enrol {}
impl Remark for Pulse {}

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
    /// Why.
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
        Self {
            standing: Standing::Voter,
            standing_after: Mark::NONE,
            lives: BTreeMap::new(),
            told: BTreeMap::new(),
            // At once.
            ask_at: Instant::default(),
            wait_ms: ASK_AGAIN_MS,
            quarantine: None,
            mismatches: Vec::new(),
        }
    }
}

impl<A: Application> Replica<A> {
    // ---- the way out ----

    /// Whether what this replica signs may count.
    #[must_use]
    pub fn may_vote(&self) -> bool {
        self.office.standing == Standing::Voter && self.office.quarantine.is_none()
    }

    /// What must be on disk before anything leaves that counts.
    pub(in crate::replica) fn votes_after(&self) -> Mark {
        self.office.standing_after
    }

    /// Whether it orders requests: as the primary of a view that goes on.
    pub(in crate::replica) fn leads(&self) -> bool {
        self.is_primary() && self.is_serving() && self.may_vote()
    }

    /// Signs what counts towards a quorum. `None` where this replica may not vote.
    pub(in crate::replica) fn cast<T: Ballot>(&self, body: T) -> Option<Signed<T>> {
        self.may_vote().then(|| self.signed(body))
    }

    /// Signs what counts nowhere.
    pub(in crate::replica) fn sign<T: Remark>(&self, body: T) -> Signed<T> {
        self.signed(body)
    }

    /// The first life of another replica that was heard of. This is a vote, and the only one that a
    /// new replica casts: what it rests on is durable before, and nothing older is needed for it.
    /// Who lost its disk may have forgotten an earlier life.
    fn attest(&self, body: Enrolled) -> Option<Signed<Enrolled>> {
        let remembers = self.office.standing != Standing::Observer;
        (remembers && self.office.quarantine.is_none()).then(|| self.signed(body))
    }

    fn signed<T: Canonical>(&self, body: T) -> Signed<T> {
        let genesis = self.setup.membership.genesis();
        sign(&*self.setup.signer, genesis, self.setup.id, body).into_inner()
    }

    // ---- what is known ----

    /// What it may do, by its disk.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.office.standing
    }

    /// Why it doubts its own state, if it does.
    #[must_use]
    pub fn in_quarantine(&self) -> Option<&Quarantine> {
        self.office.quarantine.as_ref()
    }

    /// The checkpoints whose certified state was not the own one, oldest first.
    #[must_use]
    pub fn mismatches(&self) -> &[Mismatch] {
        &self.office.mismatches
    }

    pub(in crate::replica) fn mismatch_reports(&self) -> Vec<MismatchReport> {
        let report = |mismatch: &Mismatch| MismatchReport {
            slot: mismatch.certified.slot(),
            certified: mismatch.certified.checkpoint.body.state,
            own: mismatch.own.digest(),
        };
        self.office.mismatches.iter().map(report).collect()
    }

    /// Takes up what is on the disk, once the stable checkpoint is known.
    pub(super) fn recover_office(&mut self, recovered: &mut Recovered) {
        self.office.standing = recovered.standing;
        self.office.lives = std::mem::take(&mut recovered.lives);
        self.office.mismatches = std::mem::take(&mut recovered.mismatches);
    }

    /// A doubt outlives a restart: what is on the disk may be what is wrong.
    pub(super) fn recover_doubt(&mut self) {
        let newest = self.office.mismatches.iter().map(|known| known.certified.slot()).max();
        if let Some(slot) = newest.filter(|slot| *slot > self.stable()) {
            self.quarantine(Doubt::State(slot));
        }
    }

    // ---- new replicas ----

    /// When a new replica asks again.
    pub(in crate::replica) fn enrol_at(&self) -> Option<Instant> {
        (self.office.standing == Standing::New).then_some(self.office.ask_at)
    }

    /// Asks the others which life of this replica they know, and leaves quarantine when it is time.
    pub(in crate::replica) fn tend_standing(&mut self) {
        let stable = self.stable();
        let is_over = |known: &mut Quarantine| !known.is_store_in_doubt && known.until <= stable;
        if self.office.quarantine.take_if(is_over).is_some() {
            self.counters.quarantines_ended += 1;
            self.resume();
        }
        let now = self.now.instant;
        if self.enrol_at().is_some_and(|at| at <= now) {
            self.office.ask_at = now.after_ms(self.office.wait_ms);
            let most = self.setup.tuning.status_interval_ms;
            self.office.wait_ms = (2 * self.office.wait_ms).min(most);
            self.ask_to_enrol(Target::Others);
            // A cluster of one replica is its own quorum.
            self.decide_standing();
        }
    }

    fn ask_to_enrol(&mut self, to: Target) {
        let Some(life) = self.office.lives.get(&self.setup.id).copied() else { return };
        let enrol = self.sign(Enrol { life });
        self.send(to, Message::Enrol(enrol));
    }

    pub(in crate::replica) fn on_enrol(&mut self, enrol: &Signed<Enrol>) {
        let from = enrol.by;
        if from == self.setup.id {
            return;
        }
        let first = self.office.lives.get(&from).copied().unwrap_or(enrol.body.life);
        let Some(word) = self.attest(Enrolled { replica: from, life: first }) else { return };
        if self.office.lives.insert(from, first).is_none() {
            self.append(Record::Lives(self.office.lives.clone()));
        }
        // Not before it is durable: what can be forgotten could be said of a second life, too.
        self.send(Target::One(from), Message::Enrolled(word));
        // It is up, and may not have been when it was asked.
        if self.office.standing == Standing::New && !self.office.told.contains_key(&from) {
            self.ask_to_enrol(Target::One(from));
        }
    }

    pub(in crate::replica) fn on_enrolled(&mut self, word: &Signed<Enrolled>) {
        let me = self.setup.id;
        if self.office.standing == Standing::New && word.body.replica == me && word.by != me {
            // No correct replica ever says something else.
            self.office.told.entry(word.by).or_insert(word.body.life);
            self.decide_standing();
        }
    }

    fn decide_standing(&mut self) {
        let Some(own) = self.office.lives.get(&self.setup.id) else { return };
        let others = self.office.told.len();
        let same = self.office.told.values().filter(|life| *life == own).count();
        if self.size.suffices(same + 1, Strength::Strong) {
            self.take_standing(Standing::Voter);
        } else if self.size.suffices(others - same, Strength::Weak) {
            // One of them is correct and has heard of this replica in another life.
            self.take_standing(Standing::Observer);
        }
    }

    fn take_standing(&mut self, standing: Standing) {
        // Every vote waits for what was appended before it.
        self.office.standing_after = self.append(Record::Standing(standing));
        self.office.standing = standing;
        if standing == Standing::Voter {
            self.resume();
        }
    }

    /// From now on it votes. What it did not say meanwhile it says now, as far as it is of use.
    fn resume(&mut self) {
        if !self.may_vote() {
            return;
        }
        // Nobody is to blame for what waited here while this replica could not say so.
        self.forget_patience();
        self.answer_anew();
        self.vote_commit();
        self.vote_checkpoint();
        self.reconsider();
    }

    // ---- quarantine ----

    /// This replica's own state is in doubt: from now on it neither votes nor answers clients. It
    /// is a voter again when a checkpoint that is not stable yet becomes so here, with a state that
    /// is the certified one.
    pub fn quarantine(&mut self, doubt: Doubt) {
        let (until, is_store_in_doubt) = match doubt {
            Doubt::State(slot) => (slot, false),
            Doubt::Store(_) => (Slot::GENESIS, true),
        };
        match &mut self.office.quarantine {
            Some(known) => {
                known.until = known.until.max(until);
                known.is_store_in_doubt |= is_store_in_doubt;
            }
            None => {
                self.counters.quarantines += 1;
                self.office.quarantine = Some(Quarantine { doubt, until, is_store_in_doubt });
            }
        }
        self.forget_own_campaign();
    }

    /// A certified state has taken the place of one that could not be read. A doubt that came before
    /// that one is still to be settled.
    pub(in crate::replica) fn end_doubt_of_store(&mut self) {
        if let Some(quarantine) = &mut self.office.quarantine {
            quarantine.is_store_in_doubt = false;
        }
    }

    /// Whether it is known already that what is stored is not what was written.
    pub(in crate::replica) fn is_store_in_doubt(&self) -> bool {
        self.office.quarantine.as_ref().is_some_and(|known| known.is_store_in_doubt)
    }

    /// The newest of the certified states that were not the own one.
    pub(in crate::replica) fn newest_mismatch(&self) -> Option<&StableProof> {
        let all = self.office.mismatches.iter().map(|mismatch| &mismatch.certified);
        all.max_by_key(|certified| certified.slot())
    }

    /// A strong quorum certified another state than the own one.
    pub(in crate::replica) fn note_mismatch(&mut self, certified: StableProof, own: StateDigests) {
        let slot = certified.slot();
        let known = &mut self.office.mismatches;
        if known.iter().all(|mismatch| mismatch.certified.slot() != slot) {
            known.push(Mismatch { certified, own });
            let surplus = known.len().saturating_sub(MISMATCHES_KEPT);
            known.drain(..surplus);
            let kept = known.clone();
            self.append(Record::Mismatches(kept));
        }
        self.quarantine(Doubt::State(slot));
    }
}
