//! How far the history is certified: what the checks of signatures may know of the core's state.

use std::sync::{PoisonError, RwLock};

use elea_protocol::id::{Slot, View};
use elea_protocol::message::Commit;

/// The last slot that a certificate of the entered view covers, as the core last told it.
///
/// The core takes no notice of votes up to it: of `n` votes the first `Q` make the certificate, and
/// the others need not be checked.
#[derive(Debug, Default)]
pub(crate) struct Certified(RwLock<(View, Slot)>);

impl Certified {
    /// Called by whoever has the core, and so by one thread at a time.
    pub(crate) fn tell(&self, view: View, slot: Slot) {
        let known = *self.0.read().unwrap_or_else(PoisonError::into_inner);
        if known != (view, slot) {
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = (view, slot);
        }
    }

    /// Whether the core would take no notice of this vote.
    pub(crate) fn covers(&self, vote: &Commit) -> bool {
        let (view, slot) = *self.0.read().unwrap_or_else(PoisonError::into_inner);
        vote.view == view && vote.slot <= slot
    }
}

#[cfg(test)]
mod tests {
    use elea_protocol::id::Digest;

    use super::*;

    #[test]
    fn only_votes_of_the_same_view_up_to_the_certified_slot_are_covered() {
        let certified = Certified::default();
        certified.tell(View(2), Slot(7));
        let covers = |view, slot| {
            let (view, slot) = (View(view), Slot(slot));
            certified.covers(&Commit { view, slot, hash: Digest::default() })
        };
        assert!(covers(2, 7) && covers(2, 1));
        assert!(!covers(2, 8) && !covers(1, 7) && !covers(3, 7));
    }
}
