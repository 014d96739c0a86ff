//! By which rules slots are executed, while programs are updated one after the other (protocol.md, 2.14).
//!
//! The primary goes over to a newer edition when all replicas are known to execute it. Nobody follows it before that,
//! as far as is known here: else a liar in office could leave those behind whose programs are older. What
//! this program cannot execute is not executed, whatever certifies it.

use crate::application::Application;
use crate::edition::Edition;
use crate::id::Slot;
use crate::message::NonDeterminism;
use crate::replica::Replica;
use crate::replica::time::Peer;
use crate::replica::views::{Footing, Path};

impl<A: Application> Replica<A> {
    /// Whether slots of this edition can be executed here.
    pub(in crate::replica) fn executes(&self, edition: Edition) -> bool {
        self.setup.editions.include(edition)
    }

    /// The edition of the next slot, as its primary: the newest that all replicas are known to execute, and as long as that
    /// is not known of all the one of the slot before.
    pub(in crate::replica) fn edition_to_order(&self) -> Edition {
        let own = self.setup.editions;
        let before = self.history.choices().edition.max(own.lowest);
        let others = self.size.members().filter(|id| *id != self.setup.id);
        let newest = |id| self.peers.get(&id).and_then(Peer::newest_edition);
        let all = others.map(newest).try_fold(own.newest, |all, one| Some(all.min(one?)));
        all.map_or(before, |all| all.max(before))
    }

    /// Whether a slot of this edition, which follows on one of another, may leave somebody behind: a replica is known
    /// not to execute it.
    fn leaves_behind(&self, edition: Edition, before: Edition) -> bool {
        let mut newest = self.peers.values().filter_map(Peer::newest_edition);
        edition != before && newest.any(|newest| !newest.may_follow(edition))
    }

    /// Whether a slot that follows on one with these choices has to wait: for the clock, or until everybody executes
    /// its edition. What `f + 1` others have need not.
    pub(in crate::replica) fn has_to_wait(
        &self,
        choices: NonDeterminism,
        before: NonDeterminism,
    ) -> bool {
        self.is_early(choices.time, before.time)
            || self.leaves_behind(choices.edition, before.edition)
    }

    /// Whether others may have to wait for such a slot, by what they know. Before slot 1 there is no edition to go over from.
    pub(in crate::replica) fn others_may_wait(
        &self,
        choices: NonDeterminism,
        before: NonDeterminism,
    ) -> bool {
        let is_raised = before.edition != Edition::NONE && choices.edition != before.edition;
        is_raised || self.has_to_wait(choices, before)
    }

    /// Whether this program can execute a history from where it parts from the own one to its end, on the state
    /// that it stands on.
    pub(in crate::replica) fn executes_along(&self, path: &Path) -> bool {
        let first = match path.footing {
            Footing::Common(slot) => slot.next().min(path.end.slot),
            Footing::State(at) => at.slot,
        };
        // Between the two it lies between theirs.
        [first, path.end.slot].into_iter().all(|slot| self.executes_at(path, slot))
    }

    /// Whether it can execute this slot of it.
    pub(in crate::replica) fn executes_at(&self, path: &Path, slot: Slot) -> bool {
        self.choices_on(path, slot).is_some_and(|choices| self.executes(choices.edition))
    }
}
