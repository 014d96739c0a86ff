//! The backups: which orders are followed, and what those that are not wait for.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::application::Application;
use crate::evidence::Evidence;
use crate::history::extend;
use crate::id::{Digest, Instant, Slot};
use crate::message::{Batch, FETCH_DIGESTS_MAX, Order, OrderHeader, RefusalReason, SignedRequest};
use crate::replica::Replica;
use crate::signature::Signed;

/// An order that waits: for the slots below it, for its requests or for the clock.
#[derive(Clone, Debug)]
pub(in crate::replica) struct Ahead {
    pub(in crate::replica) order: Signed<Order>,
    /// When it came.
    pub(super) since: Instant,
}

/// Orders of the view entered above the head.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct OrdersAhead {
    orders: BTreeMap<Slot, Ahead>,
}

impl OrdersAhead {
    pub(in crate::replica) fn get(&self, slot: Slot) -> Option<&Ahead> {
        self.orders.get(&slot)
    }

    pub(in crate::replica) fn len(&self) -> usize {
        self.orders.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// The last slot up to which there is an order for each one after `head`.
    pub(super) fn last_in_row(&self, head: Slot) -> Slot {
        let mut last = head;
        while self.orders.contains_key(&last.next()) {
            last = last.next();
        }
        last
    }

    /// A new one, of the `most` slots above the head. That may have moved, in both directions, since others came.
    fn insert(&mut self, order: Signed<Order>, head: Slot, most: u64, now: Instant) {
        if self.orders.len() as u64 >= most {
            self.orders.retain(|slot, _| *slot > head && slot.since(head) <= most);
        }
        self.orders.insert(order.body.header.slot, Ahead { order, since: now });
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<Ahead> {
        self.orders.remove(&slot)
    }

    /// Slots up to this one are executed, or others stand there.
    pub(in crate::replica) fn forget_through(&mut self, slot: Slot) {
        self.orders = self.orders.split_off(&slot.next());
    }

    /// They are of the view before.
    pub(in crate::replica) fn take_all(&mut self) -> impl Iterator<Item = Ahead> + use<> {
        std::mem::take(&mut self.orders).into_values()
    }
}

/// What stands between an order at the head and its acceptance.
enum Obstacle {
    /// Requests that are not here, as many as one fetch may name.
    Missing(Vec<Digest>),
    /// The own clock is not far enough, or it is not known that all execute its edition.
    Early,
    /// This program does not execute its edition.
    Unknown,
    /// The history may not grow.
    Full,
    /// Too few are known to list a client.
    Stranger,
    /// It does not extend the history.
    OffChain,
    /// It breaks a rule.
    Never,
}

impl<A: Application> Replica<A> {
    pub(in crate::replica) fn on_order(&mut self, order: Signed<Order>) {
        if self.keep_order(order) {
            self.advance();
        }
    }

    /// Puts an order to those that wait, where it may be one. `true` where it is new.
    pub(super) fn keep_order(&mut self, order: Signed<Order>) -> bool {
        let header = order.body.header;
        if header.view < self.entered() {
            self.counters.stale_view += 1;
            return false;
        }
        if header.view > self.entered() {
            self.counters.future_view += 1;
            self.keep_later_order(order);
            return false;
        }
        // Its own come back to it where it may have forgotten them.
        let is_known = self.is_primary() && !self.view.is_from_disk();
        if order.by != self.primary() || is_known {
            self.counters.order_not_from_primary += 1;
            return false;
        }
        let known = if header.slot <= self.history.head().slot {
            self.history.entry(header.slot).and_then(|entry| entry.order.as_ref())
        } else {
            self.ahead.get(header.slot).map(|ahead| &ahead.order)
        };
        if let Some(known) = known {
            if known.body.header.view == header.view && known.body.header.hash != header.hash {
                let (known, new) = (header_of(known), header_of(&order));
                self.accuse(Evidence::Orders(known, new));
            } else {
                self.counters.order_repeated += 1;
            }
            return false;
        }
        let (head, most) = (self.history.head().slot, self.setup.tuning.orders_ahead);
        if header.slot <= head {
            self.counters.order_repeated += 1;
            return false;
        }
        if header.slot.since(head) > most {
            self.counters.order_too_far += 1;
            self.note_behind();
            return false;
        }
        self.ahead.insert(order, head, most, self.now.instant);
        true
    }

    /// Accepts orders as long as the next one is there and right.
    pub(in crate::replica) fn advance(&mut self) {
        if !self.is_serving() {
            return;
        }
        while let Some(ahead) = self.ahead.get(self.history.head().slot.next()) {
            match self.check(&ahead.order.body) {
                Ok(requests) => {
                    let order = ahead.order.clone();
                    let batch = Batch { choices: order.body.choices, requests };
                    let hash = order.body.header.hash;
                    self.accept(hash, Arc::new(batch), Some(order));
                }
                Err(Obstacle::Missing(_)) => {
                    self.note_order_lacks();
                    break;
                }
                Err(Obstacle::Full) => break,
                Err(Obstacle::Early) => {
                    self.counters.order_ahead_of_clock += 1;
                    break;
                }
                Err(Obstacle::Stranger) => {
                    self.counters.order_of_stranger += 1;
                    break;
                }
                Err(Obstacle::Unknown) => {
                    self.counters.order_of_unknown_edition += 1;
                    break;
                }
                Err(obstacle @ (Obstacle::OffChain | Obstacle::Never)) => {
                    match obstacle {
                        Obstacle::OffChain => {
                            self.counters.order_off_chain += 1;
                            // Others may have followed it.
                            self.divergent.note(self.primary());
                        }
                        _ => self.counters.order_breaks_rules += 1,
                    }
                    // Not kept: the slot stays open for an order that is right.
                    let slot = self.history.head().slot.next();
                    if let Some(wrong) = self.ahead.remove(slot) {
                        self.pending.drop_wanted(wrong.order.body.requests);
                    }
                    break;
                }
            }
        }
    }

    /// The rules for an order at the head. Answers the requests it names.
    fn check(&self, order: &Order) -> Result<Vec<Arc<SignedRequest>>, Obstacle> {
        let head = self.history.head();
        if extend(&head.hash, &order.header.batch) != order.header.hash {
            return Err(Obstacle::OffChain);
        }
        let (choices, before) = (order.choices, self.history.choices());
        if choices.time < before.time || !choices.edition.may_follow(before.edition) {
            return Err(Obstacle::Never);
        }
        if !self.executes(choices.edition) {
            return Err(Obstacle::Unknown);
        }
        if self.has_to_wait(choices, before) && !self.next_is_borne_out() {
            return Err(Obstacle::Early);
        }
        if self.is_full() {
            return Err(Obstacle::Full);
        }
        let mut requests = Vec::with_capacity(order.requests.len());
        let mut missing = Vec::new();
        for digest in &order.requests {
            match self.pending.get(digest) {
                Some(request) => requests.push(request.clone()),
                None => missing.push(*digest),
            }
        }
        // Before what is missing: what an order names is fetched whatever the limits, and must not be
        // more than one slot may hold.
        if !self.fit_one_slot(&requests) {
            return Err(Obstacle::Never);
        }
        if !missing.is_empty() {
            missing.truncate(FETCH_DIGESTS_MAX);
            return Err(Obstacle::Missing(missing));
        }
        let mut admission = self.sessions().admission();
        let admitted = requests.iter().all(|request| admission.admit(request.body()).is_ok());
        if !admitted {
            return Err(Obstacle::Never);
        }
        if !self.admits_all(&requests) && !self.next_is_borne_out() {
            return Err(Obstacle::Stranger);
        }
        Ok(requests)
    }

    /// Whether all of these are of clients that are admitted.
    pub(super) fn admits_all(&self, requests: &[Arc<SignedRequest>]) -> bool {
        requests.iter().all(|request| self.is_admitted(&request.body().client))
    }

    /// Why a request that waits cannot be ordered now, if it cannot.
    pub(in crate::replica) fn not_orderable(
        &self,
        request: &SignedRequest,
    ) -> Option<RefusalReason> {
        let body = request.body();
        let is_stranger = !self.may_be_ordered(&body.client);
        self.sessions()
            .refusal(body)
            .or_else(|| is_stranger.then_some(RefusalReason::UnknownClient))
    }

    /// When the own clock allows the next order, where it is only that which it waits for.
    pub(in crate::replica) fn clock_allows_at(&self) -> Option<Instant> {
        let next = self.ahead.get(self.history.head().slot.next())?;
        let (time, before) = (next.order.body.choices.time, self.history.choices().time);
        let early = time.0.saturating_sub(self.clock_limit().0);
        // Looked at once a second at least: a clock may be set.
        let waits = self.is_early(time, before);
        waits.then(|| self.now.instant.after_ms(early.min(1000)))
    }

    /// Whether the order at the head is let in only where enough others turn out to have it.
    pub(super) fn next_is_to_be_borne_out(&self) -> bool {
        let next = self.ahead.get(self.history.head().slot.next());
        next.is_some_and(|next| {
            matches!(self.check(&next.order.body), Err(Obstacle::Early | Obstacle::Stranger))
        })
    }

    /// The requests that the order at the head lacks.
    pub(super) fn missing_at_head(&self) -> Vec<Digest> {
        let Some(ahead) = self.ahead.get(self.history.head().slot.next()) else {
            return Vec::new();
        };
        match self.check(&ahead.order.body) {
            Err(Obstacle::Missing(digests)) => digests,
            Ok(_)
            | Err(
                Obstacle::Early
                | Obstacle::Unknown
                | Obstacle::Full
                | Obstacle::Stranger
                | Obstacle::OffChain
                | Obstacle::Never,
            ) => Vec::new(),
        }
    }
}

pub(in crate::replica) fn header_of(order: &Signed<Order>) -> Signed<OrderHeader> {
    Signed { body: order.body.header, by: order.by, signature: order.signature }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ReplicaId, View};
    use crate::message::NonDeterminism;
    use crate::signature::Signature;

    fn order(slot: u64) -> Signed<Order> {
        let (view, slot) = (View(0), Slot(slot));
        let header = OrderHeader { view, slot, hash: Digest::default(), batch: Digest::default() };
        let body = Order { header, choices: NonDeterminism::default(), requests: Vec::new() };
        Signed { body, by: ReplicaId(0), signature: Signature([0; 64]) }
    }

    #[test]
    fn there_are_never_more_orders_ahead_than_slots_in_reach() {
        const MOST: u64 = 4;
        let mut ahead = OrdersAhead::default();
        // A state was installed in between, or another history: the head is lower, and then higher, than it was.
        for head in [10, 2, 11, 6] {
            for slot in head + 1..=head + MOST {
                if ahead.get(Slot(slot)).is_none() {
                    ahead.insert(order(slot), Slot(head), MOST, Instant::default());
                }
                assert!(ahead.len() as u64 <= MOST, "slot {slot} above {head}");
            }
            assert_eq!(ahead.last_in_row(Slot(head)), Slot(head + MOST));
        }
    }
}
