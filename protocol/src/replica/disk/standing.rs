//! Whether this replica may vote, and the one way by which votes leave it.
//!
//! What others count is worth what its signer remembers and computes. A replica that lost its disk
//! has forgotten what it promised, and one whose state is not the certified one computes wrongly:
//! neither may sign anything that counts towards a quorum, and both go on following and serving.
//! Every statement that a replica signs is listed here, as a [`Ballot`], which counts, or a
//! [`Remark`], which does not; replies are signed in bundles and ask [`Replica::may_vote`], too.
//!
//! An empty disk is either that of a first start or of a replica that lost its own. The replica
//! itself cannot tell. So each replica notes, for good, the first [`Life`](crate::id::Life) of each other one that
//! it hears of, and a life becomes a voter when a strong quorum names it as the first. That is a
//! register that is written once: no second life of one replica ever finds such a quorum. It
//! depends on no time and no history, so whoever is switched on late is a voter like the others.

use super::office::{Doubt, Office, Quarantine};
use crate::application::Application;
use crate::codec::Canonical;
use crate::id::Instant;
use crate::message::{
    Checkpoint, Commit, Enrol, Enrolled, Fetch, Message, Mismatch, MismatchReport, NewView,
    NodeStatus, Order, Pulse, Refusal, SessionReport, StableProof, Standing, StateDigests, Status,
    Suspect, ViewChange,
};
use crate::replica::{Mark, Record, Recovered, Replica, Target};
use crate::seal::sign;
use crate::signature::Signed;

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

impl<A: Application> Replica<A> {
    // ---- the way out ----

    /// Whether what this replica signs may count.
    #[must_use]
    pub fn may_vote(&self) -> bool {
        self.office.may_vote()
    }

    /// What must be on disk before anything leaves that counts.
    pub(in crate::replica) fn votes_after(&self) -> Mark {
        self.office.standing_after()
    }

    /// Whether it orders requests: as the primary of a view that goes on, and of which it knows every order.
    pub(in crate::replica) fn leads(&self) -> bool {
        self.is_primary() && !self.view.is_from_disk() && self.is_serving() && self.may_vote()
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
    fn attest(&self, body: Enrolled) -> Option<Signed<Enrolled>> {
        self.office.may_attest().then(|| self.signed(body))
    }

    fn signed<T: Canonical>(&self, body: T) -> Signed<T> {
        let genesis = self.setup.membership.genesis();
        sign(&*self.setup.signer, genesis, self.setup.id, body).into_inner()
    }

    // ---- what is known ----

    /// What it may do, by its disk.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.office.standing()
    }

    /// Why it doubts its own state, if it does.
    #[must_use]
    pub fn in_quarantine(&self) -> Option<&Quarantine> {
        self.office.quarantine()
    }

    /// The checkpoints whose certified state was not the own one, oldest first.
    #[must_use]
    pub fn mismatches(&self) -> &[Mismatch] {
        self.office.mismatches()
    }

    pub(in crate::replica) fn mismatch_reports(&self) -> Vec<MismatchReport> {
        let report = |mismatch: &Mismatch| MismatchReport {
            slot: mismatch.certified.slot(),
            certified: mismatch.certified.checkpoint.body.state,
            own: mismatch.own.digest(),
        };
        self.mismatches().iter().map(report).collect()
    }

    /// Takes up what is on the disk, once the stable checkpoint is known.
    pub(super) fn recover_office(&mut self, recovered: &mut Recovered) {
        let lives = std::mem::take(&mut recovered.lives);
        let mismatches = std::mem::take(&mut recovered.mismatches);
        self.office = Office::recovered(recovered.standing, lives, mismatches);
    }

    /// A doubt outlives a restart: what is on the disk may be what is wrong.
    pub(super) fn recover_doubt(&mut self) {
        let newest = self.newest_mismatch().map(StableProof::slot);
        if let Some(slot) = newest.filter(|slot| *slot > self.stable()) {
            self.quarantine(Doubt::State(slot));
        }
    }

    // ---- new replicas ----

    /// When a new replica asks again.
    pub(in crate::replica) fn enrol_at(&self) -> Option<Instant> {
        self.office.ask_at()
    }

    /// Asks the others which life of this replica they know, and leaves quarantine when it is time.
    pub(in crate::replica) fn tend_standing(&mut self) {
        let stable = self.stable();
        // While an adoption is carried out nothing can be said of the history that it is of.
        if !self.is_adopting() && self.office.end_doubt_at(stable) {
            self.counters.quarantines_ended += 1;
            self.resume();
        }
        let now = self.now.instant;
        if self.enrol_at().is_some_and(|at| at <= now) {
            self.office.note_asked(now, self.setup.tuning.status_interval_ms);
            self.ask_to_enrol(Target::Others);
            // A cluster of one replica is its own quorum.
            self.decide_standing();
        }
    }

    fn ask_to_enrol(&mut self, to: Target) {
        let Some(life) = self.office.first_life(self.setup.id) else { return };
        let enrol = self.sign(Enrol { life });
        self.send(to, Message::Enrol(enrol));
    }

    pub(in crate::replica) fn on_enrol(&mut self, enrol: &Signed<Enrol>) {
        let from = enrol.by;
        if from == self.setup.id {
            return;
        }
        let first = self.office.first_life(from).unwrap_or(enrol.body.life);
        let Some(word) = self.attest(Enrolled { replica: from, life: first }) else { return };
        if self.office.note_life(from, first) {
            self.append(Record::Lives(self.office.lives().clone()));
        }
        // Not before it is durable: what can be forgotten could be said of a second life, too.
        self.send(Target::One(from), Message::Enrolled(word));
        // It is up, and may not have been when it was asked.
        if self.standing() == Standing::New && !self.office.was_told_by(from) {
            self.ask_to_enrol(Target::One(from));
        }
    }

    pub(in crate::replica) fn on_enrolled(&mut self, word: &Signed<Enrolled>) {
        let me = self.setup.id;
        if self.standing() == Standing::New && word.body.replica == me && word.by != me {
            self.office.hear_told(word.by, word.body.life);
            self.decide_standing();
        }
    }

    fn decide_standing(&mut self) {
        if let Some(standing) = self.office.verdict(self.setup.id, self.size) {
            self.take_standing(standing);
        }
    }

    fn take_standing(&mut self, standing: Standing) {
        // Every vote waits for what was appended before it.
        let record = self.append(Record::Standing(standing));
        self.office.take_standing(standing, record);
        if standing == Standing::Voter {
            self.resume();
        }
    }

    /// From now on it votes. What it did not say meanwhile it says now, as far as it is of use.
    fn resume(&mut self) {
        // What is being carried out is answered and voted on at its end.
        if !self.may_vote() || self.is_adopting() {
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
        if self.office.doubts(doubt) {
            self.counters.quarantines += 1;
        }
        self.forget_own_campaign();
    }

    /// A certified state has taken the place of one that could not be read. A doubt that came before
    /// that one is still open.
    pub(in crate::replica) fn end_doubt_of_store(&mut self) {
        self.office.end_doubt_of_store();
    }

    /// Whether it is known already that what is stored is not what was written.
    pub(in crate::replica) fn is_store_in_doubt(&self) -> bool {
        self.in_quarantine().is_some_and(|known| known.is_store_in_doubt)
    }

    /// The newest of the certified states that were not the own one.
    pub(in crate::replica) fn newest_mismatch(&self) -> Option<&StableProof> {
        self.office.newest_mismatch()
    }

    /// A strong quorum certified another state than the own one.
    pub(in crate::replica) fn note_mismatch(&mut self, certified: StableProof, own: StateDigests) {
        let slot = certified.slot();
        if let Some(kept) = self.office.note_mismatch(certified, own) {
            self.append(Record::Mismatches(kept));
        }
        self.quarantine(Doubt::State(slot));
    }
}
