//! Checkpoints: votes for a state, and what becomes stable and is given up.

use crate::application::Application;
use crate::codec::Canonical;
use crate::id::{ReplicaId, Slot};
use crate::message::{Checkpoint, Message, Position, StableProof};
use crate::replica::normal::Heard;
use crate::replica::{Record, Replica, Target};
use crate::signature::Signed;

impl<A: Application> Replica<A> {
    /// Where the head is certified and not stable, its state is voted for soon, unless something follows.
    pub(in crate::replica) fn expect_quiet(&mut self) {
        let head = self.history.head().slot;
        let is_due = head > self.stable() && self.certified() == head;
        let delay = self.setup.tuning.checkpoint_delay_ms;
        self.due.checkpoint_at(is_due.then(|| self.now.instant.after_ms(delay)));
    }

    /// Whether all that this replica knows to be final is in a stable state, so that a backup has it.
    #[must_use]
    pub fn is_all_stable(&self) -> bool {
        !self.is_adopting() && self.certified() <= self.stable()
    }

    /// A quiet cluster makes its head stable, whatever its slot: so a backup of it ends there.
    pub(in crate::replica) fn checkpoint_when_quiet(&mut self) {
        if !self.due.is_checkpoint_due(self.now.instant) {
            return;
        }
        self.due.checkpoint_at(None);
        if self.certified() == self.history.head().slot {
            self.take_head(self.certified());
            self.vote_checkpoint();
        }
    }

    /// A slot was just executed: takes the state after it, where it is a regular checkpoint slot or one that the
    /// others have made stable already, and where it was taken before.
    pub(in crate::replica) fn take_where_due(&mut self, at: Position) {
        let is_regular = self.is_regular(at.slot);
        let is_named = self.is_named(at.slot);
        let was_taken = self.adopting.was_taken(at.slot);
        if is_regular || is_named || was_taken {
            self.take_head(at.slot);
        }
    }

    fn is_regular(&self, slot: Slot) -> bool {
        slot.0.is_multiple_of(self.setup.tuning.rules.checkpoint_interval)
    }

    /// Whether there is a proof for the state after this slot, to compare with.
    fn is_named(&self, slot: Slot) -> bool {
        let proofs = [self.stable.ahead(), self.stable.passed(), self.newest_mismatch()];
        proofs.into_iter().flatten().any(|proof| proof.slot() == slot)
    }

    /// Takes the state after `slot`, if it is the one that is here now.
    pub(in crate::replica) fn take_head(&mut self, slot: Slot) {
        let head = self.history.head();
        let is_here = head.slot == slot && slot > self.stable();
        if !is_here || self.is_distrusted() || self.states.taken(slot).is_some() {
            return;
        }
        if !self.is_regular(slot) {
            // Beside the regular ones, and those to compare with, the newest is enough: what the others
            // come to agree on is sent again, and the next one takes its place.
            let others: Vec<Slot> = self.states.taken_above(Slot::GENESIS).collect();
            let stay = |slot: &Slot| self.is_regular(*slot) || self.is_named(*slot);
            let stay: Vec<Slot> = others.into_iter().filter(stay).collect();
            self.states.retain_taken(|taken| stay.contains(&taken));
        }
        self.take_checkpoint(head);
    }

    /// Votes for the newest checkpoint slot that a certificate of the entered view covers.
    pub(in crate::replica) fn vote_checkpoint(&mut self) {
        if self.is_adopting() {
            return;
        }
        let Some(taken) = self.states.newest_taken(self.certified()) else { return };
        let Position { slot, hash } = taken.at;
        let state = taken.digests.digest();
        if slot <= self.ballots.last_checkpoint() || slot <= self.stable() {
            return;
        }
        let vote = self.cast(Checkpoint { view: self.entered(), slot, hash, state });
        let Some(vote) = vote else { return };
        self.ballots.note_checkpoint(slot);
        self.counters.checkpoints_cast += 1;
        self.send(Target::Others, Message::Checkpoint(vote.clone()));
        self.hear_checkpoint(&vote);
    }

    pub(in crate::replica) fn on_checkpoint(&mut self, vote: &Signed<Checkpoint>) {
        if vote.body.view < self.entered() {
            self.counters.stale_view += 1;
        } else if vote.body.view > self.entered() {
            self.counters.future_view += 1;
        } else {
            self.hear_checkpoint(vote);
        }
    }

    fn hear_checkpoint(&mut self, vote: &Signed<Checkpoint>) {
        match self.ballots.hear_checkpoint(self.size, vote) {
            Heard::Kept | Heard::Nothing => {}
            // Two states for one slot: the voter is corrupt, which may be an accident of its disk.
            Heard::Contradicts(_) => self.counters.contradictions += 1,
            Heard::Quorum(checkpoint) => {
                // Whoever voted held a certificate; here it may still be on its way.
                let cover = self.lock.get().filter(|_| self.certified() >= vote.body.slot).cloned();
                if let Some(cover) = cover {
                    self.on_stable(self.setup.id, StableProof { checkpoint, cover });
                }
            }
        }
    }

    pub(in crate::replica) fn on_stable(&mut self, from: ReplicaId, proof: StableProof) {
        let Checkpoint { slot, hash, state, .. } = proof.checkpoint.body;
        if slot <= self.stable() {
            return;
        }
        self.on_certificate(from, proof.cover.clone());
        if slot <= self.stable() {
            // The cover led to a later one.
            return;
        }
        if self.history.hash_at(slot) != Some(hash) {
            // Not here yet, or another history is: the cover is the way to it.
            if self.stable.note_ahead(proof) {
                self.note_behind();
            }
            return;
        }
        if self.is_distrusted() {
            self.begin_transfer(from, proof);
            return;
        }
        // The others may have been quiet here before this replica.
        self.take_head(slot);
        let Some(taken) = self.states.taken(slot) else {
            // This replica has gone on, and there is nothing to compare with. The next checkpoint will do, as a rule.
            let known = self.stable.passed().filter(|known| known.slot() > slot);
            if known.is_none_or(|known| !self.history.goes_through(known.position())) {
                self.stable.note_passed(proof);
            }
            return;
        };
        if taken.digests.digest() != state {
            // Q replicas have another state here. Ours is not to be trusted, nor built upon.
            let own = taken.digests;
            self.distrust_computed(proof.clone(), own);
            self.begin_transfer(from, proof);
            return;
        }
        self.counters.checkpoints_stable += 1;
        let interval = self.setup.tuning.rules.checkpoint_interval;
        self.counters.checkpoints_quiet += u64::from(!slot.0.is_multiple_of(interval));
        self.append(Record::Stable(Box::new(proof.clone())));
        self.stable.raise(proof);
        self.ballots.forget_checkpoints_through(slot);
        self.keep_state(slot);
        self.give_up_through(slot);
        self.settle_when_due();
        self.advance();
    }

    /// Where to go back to: to what the others made stable and this replica has gone on from, where it cannot get to a
    /// later checkpoint, having no room, or no vote until then.
    fn way_back(&self) -> Option<Slot> {
        let proof = self.stable.passed().filter(|_| !self.is_distrusted())?;
        let is_needed = || self.is_full() || self.in_quarantine().is_some();
        let is_here = proof.slot() > self.stable() && self.history.goes_through(proof.position());
        (is_here && is_needed()).then_some(proof.slot())
    }

    pub(in crate::replica) fn has_to_go_back(&self) -> bool {
        self.way_back().is_some()
    }

    /// Goes back to what was passed, to take the state there. The others may need this replica's votes.
    pub(in crate::replica) fn go_back_to_stable(&mut self) {
        if let Some(slot) = self.way_back() {
            self.counters.went_back += 1;
            self.execute_again(Slot(slot.0 - 1));
        }
    }

    /// What a stable checkpoint makes superfluous. Some slots stay in memory for those who lag.
    pub(in crate::replica) fn give_up_through(&mut self, slot: Slot) {
        self.execution.make_permanent(slot);
        let retained = self.retained_after(slot);
        let (base, head) = (self.history.base().slot, self.history.head().slot);
        let passed = (base.0..retained.min(head).0).map(Slot);
        self.bygone.pass(passed.filter_map(|slot| self.history.hash_at(slot)));
        self.history.forget_through(retained);
    }
}
