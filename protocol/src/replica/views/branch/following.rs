//! Following a history from its end, as far as it is here, and what can be looked up on one that was followed.

use std::sync::Arc;

use super::super::path::{Footing, Path, Reach};
use super::super::trail::Trail;
use super::{FOLLOWED_A_STEP, Side};
use crate::application::Application;
use crate::id::{Digest, Slot};
use crate::message::{Batch, Position};
use crate::replica::Replica;

impl<A: Application> Replica<A> {
    /// How long a branch may be at most.
    pub(super) fn branch_max(&self) -> usize {
        let tuning = &self.setup.tuning;
        let slots = 2 * tuning.rules.max_speculative_slots + tuning.retained_slots;
        usize::try_from(slots).unwrap_or(usize::MAX)
    }

    /// What a branch may take in memory at most, beside its uppermost slots, for which there is room
    /// however large they are: what another replica may have above its stable checkpoint and may
    /// retain below, and as much again as it may have had to undo.
    fn branch_bytes_max(&self) -> usize {
        let tuning = &self.setup.tuning;
        let suffix = usize::try_from(tuning.rules.max_speculative_bytes).unwrap_or(usize::MAX);
        suffix.saturating_mul(2).saturating_add(tuning.retained_bytes)
    }

    /// How far a history can be followed from its end, as far as it has been.
    pub(in crate::replica) fn reach(&self, end: Position) -> Reach {
        let base = self.history.base().slot;
        if self.history.goes_through(end) {
            return Reach::Whole(Path::own(end));
        }
        if self.transferred() == Some(end) {
            return Reach::Whole(Path { footing: Footing::State(end), end });
        }
        if end.slot <= base {
            return Reach::Never;
        }
        let Some(trail) = self.branches.trail(end) else { return Reach::Lacks(end) };
        let footing = self.footing(trail);
        let bottom = footing.map_or(trail.below().slot, Footing::slot);
        if self.is_too_long(trail, bottom) {
            return Reach::Never;
        }
        match footing {
            Some(footing) => Reach::Whole(Path { footing, end }),
            None if bottom <= base => Reach::Never,
            None if self.branches.get(trail.below()).is_some() => Reach::NotYet,
            None => Reach::Lacks(trail.below()),
        }
    }

    /// The highest position of a trail that is known here.
    fn footing(&self, trail: &Trail) -> Option<Footing> {
        let (base, head) = (self.history.base().slot, self.history.head().slot);
        let common = trail.common(base, head, |at| self.history.goes_through(at));
        let state = self.transferred().filter(|at| trail.hash_at(at.slot) == Some(at.hash));
        match (common, state) {
            (Some(slot), Some(at)) if at.slot > slot => Some(Footing::State(at)),
            (Some(slot), _) => Some(Footing::Common(slot)),
            (None, at) => at.map(Footing::State),
        }
    }

    /// Whether a history is longer, or larger, above this slot than it may be.
    fn is_too_long(&self, trail: &Trail, bottom: Slot) -> bool {
        let end = trail.end().slot;
        let uppermost = 2 * self.setup.tuning.rules.checkpoint_interval;
        let counted = Slot(end.0.saturating_sub(uppermost));
        end.since(bottom) > self.branch_max() as u64 + 1
            || trail.takes(bottom, counted).held > self.branch_bytes_max() as u64
    }

    /// Follows a trail over the slots that are here, by at least so many.
    pub(super) fn follow(&mut self, trail: &mut Trail, at_least: u64) {
        let first = trail.len();
        let base = self.history.base().slot;
        loop {
            let (at, gone) = (trail.below(), trail.len() - first);
            if self.history.goes_through(at) {
                return;
            }
            let is_there = self.transferred() == Some(at)
                || at.slot <= base
                || self.is_too_long(trail, at.slot);
            if is_there && gone >= at_least {
                return;
            }
            if at.slot == Slot::GENESIS {
                return;
            }
            if self.branches.get(at).is_none() {
                return;
            }
            if gone >= at_least && gone.is_multiple_of(FOLLOWED_A_STEP) && !self.turn.take() {
                return;
            }
            self.branches.lead_on(trail);
        }
    }

    /// Follows what is wanted, as far as there is room in this turn.
    pub(in crate::replica::views) fn follow_trails(&mut self) {
        for end in self.branches.ends() {
            let Some(mut trail) = self.branches.take(end) else { continue };
            self.follow(&mut trail, 0);
            self.branches.put_back(trail);
        }
    }

    /// Lets go of the slots that no trail goes through any more.
    pub(in crate::replica::views) fn let_go(&mut self) {
        self.branches.let_go(&mut self.turn);
    }

    /// The hash that the history with this end has at a slot, as far as it is here.
    pub(in crate::replica::views) fn hash_below(
        &self,
        end: Position,
        slot: Slot,
    ) -> Option<Digest> {
        if self.history.goes_through(end) {
            return self.history.hash_at(slot).filter(|_| slot <= end.slot);
        }
        let trail = self.branches.trail(end)?;
        trail.hash_at(slot).or_else(|| {
            let footing = self.footing(trail)?;
            let is_own = matches!(footing, Footing::Common(_)) && slot <= footing.slot();
            self.history.hash_at(slot).filter(|_| is_own)
        })
    }

    /// Whether a history goes through a position. Below what is in memory it is taken to.
    pub(in crate::replica) fn passes(&self, path: &Path, position: Position) -> bool {
        if position.slot > path.footing.slot() {
            return self.hash_on(path, position.slot) == Some(position.hash);
        }
        match path.footing {
            Footing::Common(_) => {
                position.slot < self.history.base().slot || self.history.goes_through(position)
            }
            Footing::State(at) => position.slot < at.slot || position == at,
        }
    }

    /// The hash that a history has at a slot, where that is known.
    pub(in crate::replica::views) fn hash_on(&self, path: &Path, slot: Slot) -> Option<Digest> {
        if slot > path.top() {
            return None;
        }
        if slot > path.footing.slot() {
            return self.branches.trail(path.end)?.hash_at(slot);
        }
        match path.footing {
            Footing::Common(_) => self.history.hash_at(slot),
            Footing::State(at) => (slot == at.slot).then_some(at.hash),
        }
    }

    /// A slot of a history above what it stands on.
    pub(in crate::replica::views) fn side_on(
        &self,
        path: &Path,
        slot: Slot,
    ) -> Option<(Position, &Side)> {
        let hash = self.hash_on(path, slot).filter(|_| slot > path.footing.slot())?;
        let at = Position { slot, hash };
        self.branches.get(at).map(|side| (at, side))
    }

    /// The batch of a slot on a history, where it is known.
    pub(in crate::replica::views) fn batch_on(
        &self,
        path: &Path,
        slot: Slot,
    ) -> Option<&Arc<Batch>> {
        if slot > path.footing.slot() {
            return self.side_on(path, slot).map(|(_, side)| &side.batch);
        }
        let hash = self.hash_on(path, slot)?;
        self.history.entry(slot).filter(|entry| entry.hash == hash).map(|entry| &entry.batch)
    }

    /// What the slots of a history above `from` up to `to` [weigh](crate::message::Batch::weight).
    pub(in crate::replica::views) fn weight_on(&self, path: &Path, from: Slot, to: Slot) -> u64 {
        let footing = path.footing.slot();
        let own = match path.footing {
            Footing::Common(_) if from < footing => {
                let above = self.history.weight_above(to.min(footing));
                self.history.weight_above(from).saturating_sub(above)
            }
            Footing::Common(_) | Footing::State(_) => 0,
        };
        let trail = self.branches.trail(path.end);
        own + trail.map_or(0, |trail| trail.takes(from.max(footing), to).weight)
    }
}
