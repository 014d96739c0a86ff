//! Pauses between what is heavy, for those who have little.
//!
//! Turns by weight alone would let whoever has a backlog use every moment in which nobody else waits, and a
//! client that sends one small request after the other never has one waiting when the next slot is made. Each of
//! its requests would then stand behind a slot that everybody has to fetch, write and execute first. It
//! is the *deceptive idleness* that disks know, and the remedy is the one of anticipatory scheduling (Iyer and
//! Druschel, SOSP 2001): not to begin with the long work at once, but to leave a moment for the short.
//!
//! So while other clients that take little are served, of a client with much the next [`HEAVY`] part of a slot waits until
//! the last one is certified, and twice as long again as that took: it has a third of the time. Alone, or among
//! others with as much, it has all of it. Only the primary does this, and no rule of the state machine knows of it.

use std::collections::BTreeMap;

use crate::application::Application;
use crate::id::{ClientId, Instant, Slot};
use crate::replica::Replica;

/// What makes a slot heavy, and what a client may have of a slot without a pause. A heavy slot is a commit point.
pub(super) const HEAVY: u64 = 128 << 10;

/// Who was served within so long and had little is not to wait.
const AT_WORK_MS: u64 = 1000;

/// What the primary remembers of what it ordered last.
#[derive(Clone, Debug, Default)]
pub(super) struct Pacing {
    heavy: Option<Heavy>,
    /// The last client that had little of a slot, and the last one before it that was another.
    light: Option<(ClientId, Instant)>,
    other: Option<Instant>,
}

/// The newest slot that had much of one client.
#[derive(Clone, Copy, Debug)]
struct Heavy {
    slot: Slot,
    since: Instant,
    /// Until when there is none after it, where it is certified.
    rests: Option<Instant>,
}

impl Pacing {
    /// Notes a slot with what it has of each client.
    pub(super) fn ordered(&mut self, slot: Slot, parts: &BTreeMap<ClientId, u64>, now: Instant) {
        for (client, part) in parts {
            if *part >= HEAVY {
                self.heavy = Some(Heavy { slot, since: now, rests: None });
                continue;
            }
            if let Some((last, at)) = self.light
                && last != *client
            {
                self.other = Some(at);
            }
            self.light = Some((*client, now));
        }
    }

    /// The slots up to this one are certified. No rest is longer than `most_ms`.
    fn certified(&mut self, slot: Slot, now: Instant, most_ms: u64) {
        if let Some(heavy) = &mut self.heavy
            && heavy.slot <= slot
            && heavy.rests.is_none()
        {
            let took = now.micros_since(heavy.since);
            heavy.rests = Some(Instant(now.0 + (2 * took).min(most_ms * 1000)));
        }
    }

    /// Whether a client may have more than a little of the next slot. Without a certificate that is so after
    /// `most_ms`: in a part without a strong quorum there are none.
    fn may_have_much(&self, client: &ClientId, now: Instant, most_ms: u64) -> bool {
        let Some(heavy) = self.heavy else { return true };
        let until = heavy.rests.unwrap_or_else(|| heavy.since.after_ms(most_ms));
        let others = match self.light {
            Some((last, at)) if last != *client => Some(at),
            Some(_) => self.other,
            None => None,
        };
        now >= until || others.is_none_or(|at| at.after_ms(AT_WORK_MS) < now)
    }
}

impl<A: Application> Replica<A> {
    /// Looks whether the newest heavy slot is certified.
    pub(super) fn note_heavy_certified(&mut self) {
        let (certified, most) = (self.certified(), self.forward_wait_ms());
        self.pipeline.pacing_mut().certified(certified, self.now.instant, most);
    }

    /// Whether a client may have more than a little of the next slot. It never waits so long that others
    /// would lose patience.
    pub(super) fn may_have_much(&self, client: &ClientId) -> bool {
        self.pipeline.pacing().may_have_much(client, self.now.instant, self.forward_wait_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOG: ClientId = ClientId([1; 32]);
    const ANN: ClientId = ClientId([2; 32]);
    const MOST: u64 = 75;

    fn at(ms: u64) -> Instant {
        Instant::default().after_ms(ms)
    }

    fn ordered(pacing: &mut Pacing, slot: u64, client: ClientId, weight: u64, ms: u64) {
        pacing.ordered(Slot(slot), &BTreeMap::from([(client, weight)]), at(ms));
    }

    #[test]
    fn a_client_with_much_has_a_third_of_the_time_while_others_take_little() {
        let mut pacing = Pacing::default();
        ordered(&mut pacing, 1, ANN, 100, 0);
        ordered(&mut pacing, 2, HOG, HEAVY, 1);
        assert!(!pacing.may_have_much(&HOG, at(20), MOST), "it is not certified");
        pacing.certified(Slot(1), at(20), MOST);
        assert!(!pacing.may_have_much(&HOG, at(60), MOST));
        pacing.certified(Slot(2), at(21), MOST);
        pacing.certified(Slot(2), at(40), MOST);
        assert!(!pacing.may_have_much(&HOG, at(60), MOST), "twice the 20 ms that it took");
        assert!(pacing.may_have_much(&HOG, at(61), MOST));
    }

    #[test]
    fn no_rest_is_longer_than_others_bear() {
        let mut pacing = Pacing::default();
        ordered(&mut pacing, 1, ANN, 100, 0);
        ordered(&mut pacing, 2, HOG, HEAVY, 1);
        assert!(pacing.may_have_much(&HOG, at(1 + MOST), MOST), "nobody certifies it");
        pacing.certified(Slot(2), at(61), MOST);
        assert!(!pacing.may_have_much(&HOG, at(60 + MOST), MOST));
        assert!(pacing.may_have_much(&HOG, at(61 + MOST), MOST));
    }

    #[test]
    fn alone_and_among_others_with_as_much_nobody_rests() {
        let mut pacing = Pacing::default();
        ordered(&mut pacing, 1, HOG, HEAVY, 0);
        assert!(pacing.may_have_much(&HOG, at(1), MOST));
        ordered(&mut pacing, 2, ANN, 2 * HEAVY, 1);
        assert!(pacing.may_have_much(&HOG, at(2), MOST));
        ordered(&mut pacing, 3, HOG, 100, 2);
        assert!(pacing.may_have_much(&HOG, at(3), MOST), "the little is its own");
        ordered(&mut pacing, 4, ANN, 100, 3);
        ordered(&mut pacing, 5, HOG, 100, 4);
        assert!(!pacing.may_have_much(&HOG, at(5), MOST));
        assert!(pacing.may_have_much(&HOG, at(1004 + MOST), MOST), "it has gone");
    }
}
