//! A replica that is late with everything.

use std::collections::{BTreeMap, VecDeque};

use elea_protocol::id::Instant;
use elea_protocol::message::Message;
use elea_protocol::replica::{Action, Event};

use super::{Deed, Lair, Villain, tell};
use crate::network::Party;

/// Messages held back at most; what comes on top leaves at once.
const HELD_MAX: usize = 512;

/// The delay of an order, in milliseconds: where it begins, and the most it grows to. Worlds have
/// request timeouts of some hundred milliseconds, and wait no minute for everything to be final.
const FIRST_DELAY: u64 = 60;
const DELAY_MAX: u64 = 400;

/// Delays everything it sends by some milliseconds. As primary it delays each order until it is
/// almost too late: it feels its way to the others' timeout, a little slower with each order and
/// much faster after a suspicion.
///
/// It attacks patience: no timer ever quite runs out, and the whole cluster is as slow as that.
pub struct Procrastinator {
    /// What is to be said when.
    held: BTreeMap<(Instant, u64), (Party, Message)>,
    /// Orders, which leave one after the other.
    orders: VecDeque<(Vec<Party>, Message)>,
    next_order: Instant,
    delay: u64,
    sequence: u64,
}

impl Default for Procrastinator {
    fn default() -> Self {
        Self {
            held: BTreeMap::new(),
            orders: VecDeque::new(),
            next_order: Instant::default(),
            delay: FIRST_DELAY,
            sequence: 0,
        }
    }
}

impl Villain for Procrastinator {
    fn name(&self) -> &'static str {
        "procrastinator"
    }

    fn hears(&mut self, lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        if let Event::Peer { message, .. } = &event
            && let Message::Suspect(suspect) = &**message
            && lair.leads(suspect.body.view)
        {
            self.delay = self.delay * 3 / 4;
        }
        to_core.push(event);
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        // What it says late it says itself: what the core's words rest on is on disk by then, or
        // it is a villain's word.
        let Action::Send { to, message, .. } = action else {
            return deeds.push(Deed::Act(action));
        };
        let parties = lair.meant(to);
        if matches!(message, Message::Order(_)) {
            if self.orders.is_empty() {
                self.next_order = lair.now.instant.after_ms(self.delay);
            }
            self.orders.push_back((parties, message));
            return;
        }
        for party in parties {
            if self.held.len() >= HELD_MAX {
                tell(&[party], message.clone(), deeds);
                continue;
            }
            self.sequence += 1;
            let at = lair.now.instant.after_ms(lair.rng.between(0, 40));
            self.held.insert((at, self.sequence), (party, message.clone()));
        }
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        let now = lair.now.instant;
        while let Some(first) = self.held.first_entry()
            && first.key().0 <= now
        {
            let (party, message) = first.remove();
            tell(&[party], message, deeds);
        }
        while now >= self.next_order || self.orders.len() > HELD_MAX {
            let Some((parties, message)) = self.orders.pop_front() else { break };
            tell(&parties, message, deeds);
            self.delay = (self.delay + 4).min(DELAY_MAX);
            self.next_order = now.after_ms(self.delay);
        }
    }
}
