//! The own states: taken at checkpoints, kept for others, given piece by piece; and which slots stay in memory for
//! those who fetch one.

use super::states::Taken;
use crate::application::{Application, Snapshot as _};
use crate::id::{ClientId, ReplicaId, Slot};
use crate::message::{
    Branch, LastSlot, Lent, Message, Position, StateChunk, StateHead, StatePart, ToClient,
};
use crate::replica::normal::BUDGET_LEAST;
use crate::replica::{Mark, Replica, Target};
use crate::rows::Unreadable;
use crate::tuning::Rules;

impl<A: Application> Replica<A> {
    /// Freezes the state after a checkpoint slot that was just executed.
    pub(in crate::replica) fn take_checkpoint(&mut self, at: Position) {
        let digests = self.execution.digests();
        let (snapshot, sessions) = self.execution.freeze();
        let before = Slot(at.slot.0.saturating_sub(1));
        let previous = self.history.hash_at(before).unwrap_or_default();
        let Some(entry) = self.history.entry(at.slot) else { return };
        let last = LastSlot {
            previous,
            choices: entry.batch.choices,
            requests: entry.batch.request_digests(),
        };
        self.states.take(Taken { at, digests, last, snapshot, sessions });
    }

    /// A checkpoint is stable: its state is kept for others, those below are not needed.
    pub(in crate::replica) fn keep_state(&mut self, slot: Slot) {
        self.states.make_stable(slot);
        self.drop_old_states();
    }

    /// A state that was transferred is served from then on.
    pub(in crate::replica) fn keep_transferred(&mut self, taken: Taken<A::Snapshot>) {
        self.states.keep(taken);
        self.drop_old_states();
    }

    /// The newest stable state that is at hand, with what certifies it: for backups. `None` where
    /// nothing is stable yet, or where the own state is not to be trusted.
    #[must_use]
    pub fn stable_state(&self) -> Option<(StateHead, &A::Snapshot)> {
        let stable = self.stable.proof().filter(|_| !self.is_distrusted())?.clone();
        let taken = self.states.served(stable.position())?;
        Some((StateHead { stable, digests: taken.digests }, &taken.snapshot))
    }

    /// Says which certified state a client could be given.
    pub(in crate::replica) fn answer_state(&mut self, client: ClientId) {
        let head = self.stable_state().map(|(head, _)| Box::new(head));
        // It proves itself, and rests on nothing of this replica's own.
        self.outbox.answer(client, None, ToClient::State(head), Mark::NONE);
    }

    /// Gives a client a piece of a state. All clients together have a budget as each peer has one.
    pub(in crate::replica) fn answer_piece(&mut self, client: ClientId, at: Position, index: u32) {
        let lent = self.lend(at, index);
        self.outbox.answer(client, None, ToClient::Piece { at, index, lent }, Mark::NONE);
    }

    fn lend(&mut self, at: Position, index: u32) -> Lent {
        let now = self.now.instant;
        if !self.lending.refill(now) {
            return Lent::Later;
        }
        let taken = if self.is_distrusted() { None } else { self.states.lend(at, now) };
        let is_there = taken.is_some_and(|taken| index < taken.snapshot.chunks());
        let Some(bytes) = taken.and_then(|taken| taken.snapshot.chunk(index)) else {
            self.lending.spend(0);
            if is_there {
                self.distrust(&Unreadable(format!("piece {index} of the state cannot be read")));
            }
            return Lent::Gone;
        };
        self.lending.spend(bytes.len());
        self.counters.pieces_lent += 1;
        Lent::Piece(bytes)
    }

    fn drop_old_states(&mut self) {
        self.states.drop_old(self.now.instant, self.settling.at());
    }

    /// The lowest slot after which slots stay in memory for others when `stable` is stable: the last
    /// few, and, where somebody fetches a state, those that it needs then, as far as they are no more than
    /// another suffix.
    pub(super) fn retained_after(&self, stable: Slot) -> Slot {
        let tuning = &self.setup.tuning;
        let base = self.history.base().slot;
        let held = |slot: Slot| self.history.held_above(slot) - self.history.held_above(stable);
        let reach = |floor: Slot, slots: u64, bytes: u64| {
            let floor = floor.max(Slot(stable.0.saturating_sub(slots)));
            let within = (floor.0..=stable.0).map(Slot).find(|slot| held(*slot) <= bytes);
            within.unwrap_or(stable)
        };
        let retained_bytes = u64::try_from(tuning.retained_bytes).unwrap_or(u64::MAX);
        let always = reach(base, tuning.retained_slots, retained_bytes);
        let Rules { max_speculative_slots, max_speculative_bytes, .. } = tuning.rules;
        let fetched = self
            .states
            .oldest_asked_for(self.now.instant)
            .map(|from| reach(base.max(from), max_speculative_slots, max_speculative_bytes));
        fetched.map_or(always, |fetched| fetched.min(always))
    }

    pub(in crate::replica) fn serve_state(
        &mut self,
        to: ReplicaId,
        at: Position,
        part: StatePart,
    ) -> usize {
        let Some(taken) = self.states.give(at, self.now.instant) else {
            // Say what there is instead.
            let newer = self.stable.proof().filter(|proof| proof.slot() > at.slot).cloned();
            let states = &self.states;
            if let Some(proof) = newer.filter(|proof| states.served(proof.position()).is_some()) {
                let branch = Branch { head: at, slots: Vec::new(), stable: Some(Box::new(proof)) };
                self.send(Target::One(to), Message::Branch(branch));
            }
            return usize::try_from(BUDGET_LEAST).unwrap_or(usize::MAX);
        };
        let (of, digests) = (taken.pieces(part), taken.digests);
        let Some(bytes) = taken.piece(part) else {
            if matches!(part, StatePart::Application(index) if index < of) {
                // What cannot be given to others is no state to stand on.
                self.distrust(&Unreadable(format!("piece {part:?} of the state cannot be read")));
            }
            return 0;
        };
        let size = bytes.len();
        self.counters.chunks_served += 1;
        let chunk = StateChunk { at, digests, part, of, bytes };
        self.send_at_once(Target::One(to), Message::State(chunk));
        size
    }
}
