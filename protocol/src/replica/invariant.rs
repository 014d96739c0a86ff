//! What a replica asserts of itself after every event. A peer cannot break these; we can.

use super::Replica;
use crate::application::Application;

impl<A: Application> Replica<A> {
    /// The invariants of `docs/protocol.md` that one replica can see alone and cheaply.
    ///
    /// # Panics
    /// Where one is broken, with its number.
    #[track_caller]
    pub(super) fn assert_invariants(&self) {
        let head = self.history.head();
        let stable = self.stable();
        assert_eq!(
            self.execution.executed(),
            head.slot,
            "I6: what is executed is not what the history holds"
        );
        assert!(stable <= head.slot, "I3: stable {stable} above the head {}", head.slot);
        assert!(
            self.history.base().slot <= stable,
            "I5: slots above the stable checkpoint were given up"
        );
        if let Some(lock) = self.lock.get()
            && lock.body.view == self.entered()
            && self.certified() >= lock.body.slot
        {
            assert!(
                lock.body.slot <= head.slot,
                "I1: certified through {} above the head {}",
                lock.body.slot,
                head.slot
            );
        }
        assert!(
            self.campaign().is_none_or(|view| view > self.entered()),
            "I7: campaigns for a view that was entered"
        );
        let voted = self.ballots.last_commit();
        assert!(
            voted == crate::id::Slot::GENESIS || voted >= self.entry_slot(),
            "I7: voted below the entry slot"
        );
        assert!(
            !self.is_distrusted() || !self.may_vote(),
            "I3: it may vote on a state that is to be replaced"
        );
        self.outbox.assert_invariants();
        let limit = self.setup.tuning.orders_ahead;
        assert!(self.ahead.len() as u64 <= limit, "I10: {} orders ahead", self.ahead.len());
    }
}
