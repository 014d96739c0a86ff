//! By which rules slots are executed, while programs are updated one after the other (protocol.md, 2.14).
//!
//! Whoever has known all replicas to execute an edition says so from then on. On the word of a strong quorum
//! the primary goes over to it, and on that of `f + 1` everybody follows: one of these is correct, so it
//! leaves no correct replica behind. What this program cannot execute is not executed, whatever certifies it.

use crate::application::Application;
use crate::edition::Edition;
use crate::id::Slot;
use crate::message::NonDeterminism;
use crate::quorum::Strength;
use crate::replica::Replica;
use crate::replica::time::Peer;
use crate::replica::views::{Footing, Path};

/// The newest edition that all replicas were known to execute since the start. It never falls: a liar that says
/// now this and now that is believed once.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::replica) struct Common(Edition);

impl<A: Application> Replica<A> {
    /// Whether slots of this edition can be executed here.
    pub(in crate::replica) fn executes(&self, edition: Edition) -> bool {
        self.setup.editions.include(edition)
    }

    /// The newest edition that all replicas have been known to execute.
    pub(in crate::replica) fn common_edition(&self) -> Edition {
        self.common.0
    }

    /// A status came: all may be known to execute a newer edition than before.
    pub(in crate::replica) fn note_editions(&mut self) {
        let own = self.setup.editions.newest;
        let others = self.size.members().filter(|id| *id != self.setup.id);
        let newest = |id| self.peers.get(&id).and_then(Peer::newest_edition);
        let all = others.map(newest).try_fold(own, |all, one| Some(all.min(one?)));
        self.common.0 = all.unwrap_or_default().max(self.common.0);
    }

    /// What the others have known all to execute.
    fn others_common_editions(&self) -> impl Iterator<Item = Edition> {
        self.peers.values().filter_map(Peer::common_edition)
    }

    /// The edition of the next slot, as its primary: the newest that a strong quorum has known all to execute, whose words
    /// others hear, too: who has gone may have told them to this replica alone.
    pub(in crate::replica) fn edition_to_order(&self) -> Edition {
        let before = self.history.choices().edition;
        let (now, lately) = (self.now.instant, self.lately_ms());
        let others = self.peers.values().filter(|peer| peer.heard_within(now, lately));
        let words = others.filter_map(Peer::common_edition).chain([self.common.0]);
        let agreed = Edition::ranked(words, self.size.quorum(Strength::Strong) - 1);
        before.max(agreed.unwrap_or_default().min(self.setup.editions.newest))
    }

    /// The newest edition that all correct replicas execute: a correct one has known it of all.
    pub(in crate::replica) fn vouched_edition(&self) -> Edition {
        let others =
            Edition::ranked(self.others_common_editions(), usize::from(self.size.faulty()));
        others.unwrap_or_default().max(self.common.0)
    }

    /// Whether a slot that follows on one with these choices has to wait: for the clock, or until it is known that its
    /// edition leaves nobody behind. What `f + 1` others have need not.
    pub(in crate::replica) fn has_to_wait(
        &self,
        choices: NonDeterminism,
        before: NonDeterminism,
    ) -> bool {
        let vouched = before.edition.max(self.vouched_edition());
        self.is_early(choices.time, before.time) || !vouched.may_follow(choices.edition)
    }

    /// Whether others may have to wait for such a slot, by what they know.
    pub(in crate::replica) fn others_may_wait(
        &self,
        choices: NonDeterminism,
        before: NonDeterminism,
    ) -> bool {
        choices.edition != before.edition || self.is_early(choices.time, before.time)
    }

    /// Whether all slots from this one on are of this edition, which is that of the last one.
    pub(super) fn is_all_of(&self, edition: Edition, from: Slot) -> bool {
        // Every slot that there ever was is of no lower one.
        edition == Edition::FIRST
            || self.history.choices_at(from).is_some_and(|choices| choices.edition == edition)
    }

    /// Whether this program can execute a history from where it parts from the own one to its end, on the state
    /// that it stands on.
    pub(in crate::replica) fn executes_along(&self, path: &Path) -> bool {
        let first = match path.footing {
            Footing::Common(slot) => slot.next().min(path.end.slot),
            Footing::State(at) => at.slot,
        };
        // Neither number falls, so what lies between the two is executed like them.
        [first, path.end.slot].into_iter().all(|slot| self.executes_at(path, slot))
    }

    /// Whether it can execute this slot of it.
    pub(in crate::replica) fn executes_at(&self, path: &Path, slot: Slot) -> bool {
        self.choices_on(path, slot).is_some_and(|choices| self.executes(choices.edition))
    }
}
