//! The primary's own slots until they are done, and what it needs for the next one.

use std::collections::VecDeque;

use super::gathering::Gathering;
use super::pacing::Pacing;
use crate::id::{Instant, RequestName, Slot};
use crate::replica::Mark;
use crate::replica::disk::Outbox;

/// One of the primary's own slots, until it is durable and, if somebody waits for it, certified.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    slot: Slot,
    mark: Mark,
    wants_commit: bool,
    /// Of its requests.
    bytes: u64,
}

/// The primary's slots that are not durable or not certified yet, and what it needs for the next one.
#[derive(Clone, Debug)]
pub(in crate::replica) struct Pipeline {
    /// Oldest first.
    under_way: VecDeque<UnderWay>,
    /// When a slot was ordered last, or nothing of what waits could be.
    last_looked: Instant,
    /// When a certificate of the view entered came last, or it was entered.
    last_certified: Instant,
    gathering: Gathering,
    pacing: Pacing,
    seeds_drawn: u64,
}

impl Pipeline {
    pub(in crate::replica) fn new(now: Instant) -> Self {
        Self {
            under_way: VecDeque::new(),
            last_looked: now,
            last_certified: now,
            gathering: Gathering::default(),
            pacing: Pacing::default(),
            seeds_drawn: 0,
        }
    }

    /// Those of another view are nobody's business any more.
    pub(in crate::replica) fn begin_view(&mut self, now: Instant) {
        self.under_way.clear();
        self.gathering = Gathering::default();
        self.last_certified = now;
    }

    // ---- the next slot ----

    /// When a slot was ordered last, or nothing of what waits could be.
    pub(super) fn last_looked(&self) -> Instant {
        self.last_looked
    }

    pub(super) fn note_looked(&mut self, now: Instant) {
        self.last_looked = now;
        self.gathering.looked();
    }

    /// Counts the seeds that were drawn.
    pub(super) fn draw(&mut self) -> u64 {
        self.seeds_drawn += 1;
        self.seeds_drawn
    }

    pub(super) fn gathering(&self) -> &Gathering {
        &self.gathering
    }

    pub(super) fn gathering_mut(&mut self) -> &mut Gathering {
        &mut self.gathering
    }

    /// A request is here that was not before.
    pub(super) fn note_came(&mut self, name: &RequestName, now: Instant) {
        let Self { under_way, gathering, .. } = self;
        gathering.came(name, now, |slot| under_way.iter().any(|known| known.slot == slot));
    }

    pub(super) fn pacing(&self) -> &Pacing {
        &self.pacing
    }

    pub(super) fn pacing_mut(&mut self) -> &mut Pacing {
        &mut self.pacing
    }

    // ---- certificates ----

    /// When a certificate of the view entered came last, or it was entered.
    pub(super) fn last_certified(&self) -> Instant {
        self.last_certified
    }

    /// A certificate of the view entered formed.
    pub(super) fn note_certificate(&mut self, now: Instant) {
        self.last_certified = now;
    }

    // ---- slots under way ----

    /// A slot is ordered. This record makes it durable.
    pub(super) fn note_ordered(&mut self, slot: Slot, mark: Mark, wants_commit: bool, bytes: u64) {
        self.under_way.push_back(UnderWay { slot, mark, wants_commit, bytes });
    }

    pub(super) fn len(&self) -> u64 {
        self.under_way.len() as u64
    }

    /// The bytes that wait for the own disk.
    pub(super) fn waiting(&self, outbox: &Outbox) -> u64 {
        let waiting = self.under_way.iter().filter(|slot| !outbox.is_synced(slot.mark));
        waiting.map(|slot| slot.bytes).sum()
    }

    /// Certificates may never come, so of those that only wait for one no more than `most` stay.
    pub(super) fn forget_done(&mut self, certified: Slot, outbox: &Outbox, most: u64) {
        self.under_way.retain(|slot| {
            !outbox.is_synced(slot.mark) || (slot.wants_commit && slot.slot > certified)
        });
        while self.len() > most
            && self.under_way.front().is_some_and(|slot| outbox.is_synced(slot.mark))
        {
            self.under_way.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = 9;

    /// Slots 1 to 4 of 100 bytes each, of which every second one is waited for.
    fn pipeline() -> Pipeline {
        let mut pipeline = Pipeline::new(Instant::default());
        for slot in 1..=4 {
            pipeline.note_ordered(Slot(slot), Mark(slot), slot.is_multiple_of(2), 100);
        }
        pipeline
    }

    fn synced(mark: u64) -> Outbox {
        let mut outbox = Outbox::default();
        outbox.note_synced(Mark(mark));
        outbox
    }

    #[test]
    fn a_slot_is_under_way_until_it_is_durable_and_where_somebody_waits_certified() {
        let mut pipeline = pipeline();
        pipeline.forget_done(Slot(4), &synced(0), MOST);
        assert_eq!((pipeline.len(), pipeline.waiting(&synced(0))), (4, 400));
        pipeline.forget_done(Slot::GENESIS, &synced(3), MOST);
        assert_eq!((pipeline.len(), pipeline.waiting(&synced(3))), (2, 100), "2 and 4");
        pipeline.forget_done(Slot(2), &synced(3), MOST);
        assert_eq!(pipeline.len(), 1);
        pipeline.begin_view(Instant::default());
        assert_eq!(pipeline.len(), 0);
    }

    #[test]
    fn few_wait_for_certificates_alone_and_all_for_the_disk() {
        let mut pipeline = pipeline();
        pipeline.forget_done(Slot::GENESIS, &synced(1), 2);
        assert_eq!(pipeline.len(), 3, "none of them is durable");
        pipeline.forget_done(Slot::GENESIS, &synced(4), 1);
        assert_eq!(pipeline.len(), 1);
        pipeline.forget_done(Slot(3), &synced(4), 1);
        assert_eq!(pipeline.len(), 1, "the newest stayed");
    }

    #[test]
    fn no_seed_is_drawn_twice() {
        let mut pipeline = pipeline();
        assert_eq!([pipeline.draw(), pipeline.draw()], [1, 2]);
        pipeline.begin_view(Instant::default());
        assert_eq!(pipeline.draw(), 3);
    }
}
