//! The states after checkpoint slots: those that may become stable, and stable ones kept for peers that fetch them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::application::Snapshot;
use crate::codec;
use crate::id::{Instant, Slot};
use crate::message::{LastSlot, Position, StateDigests, StatePart};
use crate::replica::sessions::FrozenSessions;

/// States kept for peers that fetch them: the newest, and those somebody was fetching lately.
const SERVED_MAX: usize = 4;

/// How long after the last question a state is kept for whoever asked, in ms.
const SERVED_MS: u64 = 30_000;

/// The state after a checkpoint slot, frozen.
#[derive(Clone, Debug)]
pub(in crate::replica) struct Taken<S> {
    pub(in crate::replica) at: Position,
    pub(in crate::replica) digests: StateDigests,
    pub(in crate::replica) last: LastSlot,
    pub(in crate::replica) snapshot: S,
    pub(in crate::replica) sessions: FrozenSessions,
}

impl<S: Snapshot> Taken<S> {
    /// A piece of it; `None` past the end.
    pub(super) fn piece(&self, part: StatePart) -> Option<Bytes> {
        match part {
            StatePart::Last => codec::encode(&self.last).ok(),
            StatePart::Sessions(index) => self.sessions.chunk(index),
            StatePart::Application(index) => self.snapshot.chunk(index),
        }
    }

    /// How many pieces there are of this kind.
    pub(super) fn pieces(&self, part: StatePart) -> u32 {
        match part {
            StatePart::Last => 1,
            StatePart::Sessions(_) => self.sessions.chunks(),
            StatePart::Application(_) => self.snapshot.chunks(),
        }
    }
}

/// A stable one of them, kept for others.
#[derive(Clone, Debug)]
struct Served<S> {
    taken: Taken<S>,
    asked: Option<Instant>,
}

/// The states at hand.
#[derive(Clone, Debug)]
pub(in crate::replica) struct States<S> {
    /// Above the stable one, by slot.
    taken: BTreeMap<Slot, Taken<S>>,
    /// Stable ones, oldest first.
    served: VecDeque<Served<S>>,
    /// The one of these that a client is making a backup of, and when it asked for a piece last. It is one at a time:
    /// clients are many, and peers need theirs.
    lent: Option<(Position, Instant)>,
}

impl<S> Default for States<S> {
    fn default() -> Self {
        Self { taken: BTreeMap::new(), served: VecDeque::new(), lent: None }
    }
}

impl<S: Snapshot> States<S> {
    // ---- that may become stable ----

    pub(super) fn take(&mut self, taken: Taken<S>) {
        self.taken.insert(taken.at.slot, taken);
    }

    pub(in crate::replica) fn taken(&self, slot: Slot) -> Option<&Taken<S>> {
        self.taken.get(&slot)
    }

    /// The newest one up to a slot.
    pub(super) fn newest_taken(&self, through: Slot) -> Option<&Taken<S>> {
        self.taken.range(..=through).next_back().map(|(_, taken)| taken)
    }

    pub(in crate::replica) fn taken_above(&self, slot: Slot) -> impl Iterator<Item = Slot> {
        self.taken.range(slot.next()..).map(|(slot, _)| *slot)
    }

    pub(in crate::replica) fn retain_taken(&mut self, stays: impl Fn(Slot) -> bool) {
        self.taken.retain(|slot, _| stays(*slot));
    }

    pub(in crate::replica) fn forget_taken(&mut self) {
        self.taken.clear();
    }

    pub(in crate::replica) fn taken_len(&self) -> usize {
        self.taken.len()
    }

    // ---- that are kept for others ----

    /// The state after this slot is stable: those below are not needed.
    pub(super) fn make_stable(&mut self, slot: Slot) {
        let above = self.taken.split_off(&slot.next());
        let taken = std::mem::replace(&mut self.taken, above).remove(&slot);
        self.served.extend(taken.map(|taken| Served { taken, asked: None }));
    }

    /// A stable state that was fetched, or found on disk.
    pub(super) fn keep(&mut self, taken: Taken<S>) {
        self.served.push_back(Served { taken, asked: None });
    }

    /// A stable one.
    pub(super) fn served(&self, at: Position) -> Option<&Taken<S>> {
        self.served.iter().map(|served| &served.taken).find(|taken| taken.at == at)
    }

    pub(in crate::replica) fn served_len(&self) -> usize {
        self.served.len()
    }

    /// What a peer asks for. Also one that is not stable here: who asks has the certificate, and nobody else
    /// may be left who had.
    pub(super) fn give(&mut self, at: Position, now: Instant) -> Option<&Taken<S>> {
        if let Some(served) = self.served.iter_mut().find(|served| served.taken.at == at) {
            served.asked = Some(now);
        }
        let kept = self.served.iter().map(|served| &served.taken);
        kept.chain(self.taken.values()).find(|taken| taken.at == at)
    }

    /// What a client asks for. It is kept for it, unless another one is kept for another client.
    pub(super) fn lend(&mut self, at: Position, now: Instant) -> Option<&Taken<S>> {
        if self.lent_at(now).is_none_or(|lent| lent == at) && self.served(at).is_some() {
            self.lent = Some((at, now));
        }
        self.served(at)
    }

    /// The state that some client is making a backup of.
    fn lent_at(&self, now: Instant) -> Option<Position> {
        let (at, asked) = self.lent?;
        (asked.after_ms(SERVED_MS) > now).then_some(at)
    }

    /// Keeps the newest ones, what somebody fetches, and what is being `settled`.
    pub(super) fn drop_old(&mut self, now: Instant, settled: Option<Position>) {
        let newest = self.served.len().saturating_sub(2);
        let lent = self.lent_at(now);
        let mut index = 0;
        self.served.retain(|served| {
            index += 1;
            index > newest
                || Some(served.taken.at) == settled
                || Some(served.taken.at) == lent
                || served.asked.is_some_and(|asked| asked.after_ms(SERVED_MS) > now)
        });
        let most = SERVED_MAX + usize::from(lent.is_some());
        while self.served.len() > most {
            let may_go = |at: Option<Position>| at != settled && at != lent;
            let oldest = self.served.iter().position(|served| may_go(Some(served.taken.at)));
            self.served.remove(oldest.unwrap_or_default());
        }
    }

    /// The oldest one that somebody is fetching.
    pub(super) fn oldest_asked_for(&self, now: Instant) -> Option<Slot> {
        let is_fresh = |asked: Instant| asked.after_ms(SERVED_MS) > now;
        let asked = self.served.iter().filter(|served| served.asked.is_some_and(is_fresh));
        asked.map(|served| served.taken.at.slot).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Digest, WallTime};
    use crate::message::NonDeterminism;
    use crate::replica::sessions::Sessions;
    use crate::tuning::Rules;

    #[derive(Clone, Debug)]
    struct Empty;

    impl Snapshot for Empty {
        fn digest(&self) -> Digest {
            Digest::default()
        }

        fn chunks(&self) -> u32 {
            1
        }

        fn chunk(&self, _: u32) -> Option<Bytes> {
            None
        }
    }

    fn at(slot: u64) -> Position {
        Position { slot: Slot(slot), hash: Digest([1; 32]) }
    }

    fn taken(slot: u64) -> Taken<Empty> {
        let digests = StateDigests { application: Digest([7; 32]), sessions: Digest([8; 32]) };
        let choices =
            NonDeterminism { time: WallTime(0), seed: [0; 16], ..NonDeterminism::default() };
        let last = LastSlot { previous: Digest([0; 32]), choices, requests: Vec::new() };
        let sessions = Sessions::new(Rules::default()).freeze();
        Taken { at: at(slot), digests, last, snapshot: Empty, sessions }
    }

    fn now(ms: u64) -> Instant {
        Instant::default().after_ms(ms)
    }

    #[test]
    fn the_state_that_becomes_stable_is_kept_for_others_and_those_below_go() {
        let mut states = States::default();
        [4, 8, 12].into_iter().for_each(|slot| states.take(taken(slot)));
        assert_eq!(states.newest_taken(Slot(11)).map(|taken| taken.at), Some(at(8)));
        states.make_stable(Slot(8));
        assert_eq!((states.taken_len(), states.served_len()), (1, 1));
        assert!(states.served(at(8)).is_some() && states.served(at(4)).is_none());
        assert!(states.taken(Slot(12)).is_some());
        states.make_stable(Slot(10));
        assert_eq!(states.served_len(), 1, "that was never taken");
    }

    #[test]
    fn the_newest_are_kept_and_what_somebody_fetches_or_is_being_settled() {
        let mut states = States::default();
        [4, 8, 12, 16].into_iter().for_each(|slot| states.keep(taken(slot)));
        assert!(states.give(at(4), now(0)).is_some());
        assert_eq!(states.oldest_asked_for(now(1)), Some(Slot(4)));
        states.drop_old(now(1), Some(at(8)));
        assert_eq!(states.served_len(), 4);
        states.drop_old(now(1), None);
        assert!(states.served_len() == 3 && states.served(at(8)).is_none());
        states.drop_old(now(SERVED_MS), None);
        assert!(states.served_len() == 2 && states.served(at(4)).is_none());
    }

    #[test]
    fn what_a_client_makes_a_backup_of_is_kept_one_at_a_time_and_beside_those_of_peers() {
        let mut states = States::default();
        [4, 8, 12, 16].into_iter().for_each(|slot| states.keep(taken(slot)));
        assert!(states.lend(at(4), now(0)).is_some());
        // Another client gets what is there, and it is not kept for it.
        assert!(states.lend(at(8), now(1)).is_some());
        states.drop_old(now(2), None);
        assert!(states.served(at(4)).is_some() && states.served(at(8)).is_none());
        for slot in 20..40 {
            states.keep(taken(slot));
            assert!(states.give(at(slot), now(3)).is_some());
            states.drop_old(now(3), None);
            assert!(states.served_len() <= SERVED_MAX + 1 && states.served(at(4)).is_some());
        }
        // It asks no more.
        states.drop_old(now(SERVED_MS), None);
        assert!(states.served(at(4)).is_none());
        assert!(states.lend(at(4), now(SERVED_MS)).is_none());
        assert!(states.lend(at(39), now(SERVED_MS)).is_some());
        assert_eq!(states.lent_at(now(SERVED_MS)), Some(at(39)));
    }

    #[test]
    fn there_are_never_many_and_never_without_what_is_being_settled() {
        let mut states = States::default();
        for slot in 1..=8 {
            states.keep(taken(slot));
            assert!(states.give(at(slot), now(0)).is_some());
            states.drop_old(now(0), Some(at(1)));
            assert!(states.served_len() <= SERVED_MAX && states.served(at(1)).is_some());
        }
        assert!(states.served(at(8)).is_some() && states.served(at(2)).is_none());
    }
}
