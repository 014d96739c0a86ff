//! A history followed from its end downwards: what is remembered of it, so that nobody walks it again.
//!
//! A trail is as long as what is here of its history, and no further than something that is known.
//! It remembers the hash at each slot, sums of what the slots take, and how far its slots keep the
//! rules. Where it parts from the own history is *not* remembered: two chains that agree at a slot agree
//! below it, so that is found by halving, and nothing has to be undone when the own history grows.
//! When the own history is cut, all trails go.

use std::collections::{BTreeMap, VecDeque};

use super::path::Footing;
use crate::id::{ClientId, Digest, ReplicaId, Slot};
use crate::membership::Membership;
use crate::message::{Batch, NonDeterminism, Position, Results};
use crate::replica::sessions::{Kept, Sessions};

/// What the slots of a trail take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Takes {
    /// About in memory.
    pub(super) held: u64,
    /// By the rule for a suffix.
    pub(super) weight: u64,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    hash: Digest,
    /// Of all slots from the end down to this one.
    through: Takes,
}

/// A history that is wanted, as far as it is here.
#[derive(Clone, Debug)]
pub(super) struct Trail {
    end: Position,
    /// From the end downwards.
    links: VecDeque<Link>,
    /// What comes next.
    below: Position,
    checked: Option<Checked>,
    /// On whose word alone it is wanted.
    word: Option<ReplicaId>,
}

/// How far the slots of a trail were looked at, with what they do to the sessions.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    /// What it was begun on.
    pub(super) footing: Footing,
    /// The last slot looked at.
    pub(super) through: Slot,
    /// After it.
    pub(super) sessions: Sessions,
    /// Of the last slot looked at.
    pub(super) choices: NonDeterminism,
    /// The highest slot that breaks a rule which a certificate would excuse.
    pub(super) broken: Option<Slot>,
    /// Whether a name is executed twice, which nothing excuses.
    pub(super) repeats: bool,
    /// The highest slot of each client that is not on the own list.
    pub(super) unlisted: BTreeMap<ClientId, Slot>,
}

impl Checked {
    pub(super) fn begin(footing: Footing, sessions: Sessions, choices: NonDeterminism) -> Self {
        let through = footing.slot();
        let unlisted = BTreeMap::new();
        Self { footing, through, sessions, choices, broken: None, repeats: false, unlisted }
    }

    /// Whether what was found holds for the same history on this footing. The own history may have
    /// grown along it; by more than was looked at, and it is quicker to begin anew.
    fn holds_for(&self, footing: Footing) -> bool {
        match (self.footing, footing) {
            (Footing::Common(from), Footing::Common(now)) => from <= now && now <= self.through,
            (before, now) => before == now,
        }
    }

    /// Looks at the next slot, which is not larger than it may be, if it `fits`.
    pub(super) fn add(&mut self, at: Position, batch: &Batch, fits: bool, own: &Membership) {
        let mut admission = self.sessions.admission();
        let admitted = batch.requests.iter().all(|request| admission.admit(request.body()).is_ok());
        let follows = batch.choices.time >= self.choices.time
            && batch.choices.edition.may_follow(self.choices.edition);
        if batch.requests.is_empty() || !follows || !admitted || !fits {
            self.broken = Some(at.slot);
        }
        self.choices = batch.choices;
        self.through = at.slot;
        for request in &batch.requests {
            let client = request.body().client;
            if !own.admits(&client) {
                self.unlisted.insert(client, at.slot);
            }
            if !self.sessions.may_be_new(&request.body().name()) {
                self.repeats = true;
                return;
            }
            let results = Results::Forgotten(Digest::default());
            let kept = Kept { at, index: 0, request: request.digest(), results };
            self.sessions.execute(request.body(), kept);
        }
        self.sessions.end_slot();
    }
}

impl Trail {
    /// On whose word alone it is wanted.
    pub(super) fn word(&self) -> Option<ReplicaId> {
        self.word
    }

    /// It is wanted on this one's word alone, or on more than that.
    pub(super) fn rest_on(&mut self, word: Option<ReplicaId>) {
        self.word = word;
    }

    /// How far it was looked through.
    pub(super) fn checked(&self) -> Option<&Checked> {
        self.checked.as_ref()
    }

    /// What holds on this footing, to be [put back](Trail::keep_checked) when it has come further.
    pub(super) fn take_checked(&mut self, footing: Footing) -> Option<Checked> {
        self.checked.take().filter(|checked| checked.holds_for(footing))
    }

    pub(super) fn keep_checked(&mut self, checked: Option<Checked>) {
        self.checked = checked;
    }

    pub(super) fn new(end: Position, word: Option<ReplicaId>) -> Self {
        Self { end, links: VecDeque::new(), below: end, checked: None, word }
    }

    pub(super) fn end(&self) -> Position {
        self.end
    }

    /// The position that it goes on with.
    pub(super) fn below(&self) -> Position {
        self.below
    }

    pub(super) fn len(&self) -> u64 {
        self.links.len() as u64
    }

    /// Goes on by one slot, which is the one below.
    pub(super) fn push(&mut self, previous: Digest, takes: Takes) {
        let before = self.links.back().map_or(Takes::default(), |link| link.through);
        let through =
            Takes { held: before.held + takes.held, weight: before.weight + takes.weight };
        self.links.push_back(Link { hash: self.below.hash, through });
        self.below = Position { slot: Slot(self.below.slot.0 - 1), hash: previous };
    }

    /// Takes off the lowest slot.
    pub(super) fn pop(&mut self) -> Option<Position> {
        let link = self.links.pop_back()?;
        self.below = Position { slot: self.below.slot.next(), hash: link.hash };
        Some(self.below)
    }

    fn link(&self, slot: Slot) -> Option<&Link> {
        let index = usize::try_from(self.end.slot.0.checked_sub(slot.0)?).ok()?;
        self.links.get(index)
    }

    /// The hash at a slot, from the end down to what comes next.
    pub(super) fn hash_at(&self, slot: Slot) -> Option<Digest> {
        if slot == self.below.slot {
            return Some(self.below.hash);
        }
        self.link(slot).map(|link| link.hash)
    }

    /// What the slots above `from` up to `to` take, as far as they are here.
    pub(super) fn takes(&self, from: Slot, to: Slot) -> Takes {
        let through = |slot: Slot| self.link(slot).map_or(Takes::default(), |link| link.through);
        let to = to.min(self.end.slot);
        let from = from.max(self.below.slot);
        if from >= to {
            return Takes::default();
        }
        let (all, above) = (through(from.next()), through(to.next()));
        Takes { held: all.held - above.held, weight: all.weight - above.weight }
    }

    /// The highest slot, between two, at which `agrees` with the hash here. Who agrees at a slot agrees
    /// at all below.
    pub(super) fn common(
        &self,
        low: Slot,
        high: Slot,
        agrees: impl Fn(Position) -> bool,
    ) -> Option<Slot> {
        let at = |slot| self.hash_at(slot).is_some_and(|hash| agrees(Position { slot, hash }));
        let (mut low, mut high) = (low.max(self.below.slot), high.min(self.end.slot));
        if low > high || !at(low) {
            return None;
        }
        while low < high {
            let middle = Slot(high.0 - (high.0 - low.0) / 2);
            if at(middle) {
                low = middle;
            } else {
                high = Slot(middle.0 - 1);
            }
        }
        Some(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(slot: u64) -> Digest {
        Digest([u8::try_from(slot).expect("small"); 32])
    }

    /// Slots 11 to 20; slot `n` takes `n`.
    fn trail() -> Trail {
        let mut trail = Trail::new(Position { slot: Slot(20), hash: hash(20) }, None);
        for slot in (11..=20).rev() {
            trail.push(hash(slot - 1), Takes { held: slot, weight: 2 * slot });
        }
        trail
    }

    #[test]
    fn a_trail_knows_each_slot_and_what_any_of_them_take() {
        let mut trail = trail();
        assert_eq!((trail.len(), trail.below().slot), (10, Slot(10)));
        for slot in 10..=20 {
            assert_eq!(trail.hash_at(Slot(slot)), Some(hash(slot)));
        }
        assert_eq!((trail.hash_at(Slot(9)), trail.hash_at(Slot(21))), (None, None));
        for (from, to) in [(10, 20), (0, 99), (12, 15), (15, 15), (19, 20)] {
            let held = (from + 1..=to).filter(|slot| (11..=20).contains(slot)).sum();
            let takes = Takes { held, weight: 2 * held };
            assert_eq!(trail.takes(Slot(from), Slot(to)), takes, "{from} to {to}");
        }
        assert_eq!(trail.pop(), Some(Position { slot: Slot(11), hash: hash(11) }));
        assert_eq!((trail.len(), trail.below().slot), (9, Slot(11)));
    }

    #[test]
    fn where_it_parts_from_another_history_is_found_by_halving() {
        let trail = trail();
        for common in 9..=21u64 {
            let agrees = |at: Position| at.slot.0 <= common;
            let found = trail.common(Slot(0), Slot(30), agrees);
            let expected = (common >= 10).then(|| Slot(common.min(20)));
            assert_eq!(found, expected, "{common}");
        }
        assert_eq!(trail.common(Slot(12), Slot(14), |_| true), Some(Slot(14)));
        assert_eq!(trail.common(Slot(21), Slot(30), |_| true), None);
    }
}
