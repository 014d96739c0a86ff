//! What comes for a view before it is entered: likely it will be in a moment.

use std::collections::BTreeMap;

use crate::id::{ReplicaId, Slot, View};
use crate::message::{Commit, Order};
use crate::signature::Signed;

/// Orders kept of each primary of a view that is not entered yet.
const LATER_ORDERS_MAX: usize = 16;

/// Orders and votes for views above the one entered.
#[derive(Clone, Debug, Default)]
pub(super) struct Early {
    orders: BTreeMap<(View, Slot), Signed<Order>>,
    /// The vote for the highest slot of the highest view, of each replica.
    commits: BTreeMap<ReplicaId, Signed<Commit>>,
}

impl Early {
    /// An order, by the primary of its view. The first ones of each are kept.
    pub(super) fn keep_order(&mut self, order: Signed<Order>) {
        let header = order.body.header;
        let of_primary = self.orders.values().filter(|kept| kept.by == order.by).count();
        if of_primary < LATER_ORDERS_MAX {
            self.orders.entry((header.view, header.slot)).or_insert(order);
        }
    }

    pub(super) fn keep_commit(&mut self, vote: &Signed<Commit>) {
        let newer = |known: &Signed<Commit>| {
            (known.body.view, known.body.slot) < (vote.body.view, vote.body.slot)
        };
        if self.commits.get(&vote.by).is_none_or(newer) {
            self.commits.insert(vote.by, vote.clone());
        }
    }

    /// The orders of the view entered, by their slots. Those of views below are forgotten.
    pub(super) fn take_orders(&mut self, entered: View) -> Vec<Signed<Order>> {
        let later = self.orders.split_off(&(entered.next(), Slot::GENESIS));
        let orders = std::mem::replace(&mut self.orders, later).into_iter();
        orders.filter(|((view, _), _)| *view == entered).map(|(_, order)| order).collect()
    }

    /// The votes of the view entered. Those of views below are forgotten.
    pub(super) fn take_commits(&mut self, entered: View) -> Vec<Signed<Commit>> {
        let is_later = |(_, vote): &(ReplicaId, Signed<Commit>)| vote.body.view > entered;
        let (later, commits): (_, BTreeMap<_, _>) =
            std::mem::take(&mut self.commits).into_iter().partition(is_later);
        self.commits = later;
        commits.into_values().filter(|vote| vote.body.view == entered).collect()
    }

    /// How much is kept.
    pub(super) fn len(&self) -> usize {
        self.orders.len() + self.commits.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Digest;
    use crate::message::{NonDeterminism, OrderHeader};
    use crate::signature::Signature;

    fn order(view: u64, slot: u64) -> Signed<Order> {
        let (view, slot) = (View(view), Slot(slot));
        let (hash, batch) = (Digest::default(), Digest::default());
        let header = OrderHeader { view, slot, hash, batch };
        let body = Order { header, choices: NonDeterminism::default(), requests: Vec::new() };
        Signed { body, by: view.primary(4), signature: Signature([0; 64]) }
    }

    fn vote(by: u8, view: u64, slot: u64) -> Signed<Commit> {
        let body = Commit { view: View(view), slot: Slot(slot), hash: Digest::default() };
        Signed { body, by: ReplicaId(by), signature: Signature([0; 64]) }
    }

    #[test]
    fn what_came_too_early_is_taken_up_in_its_view_and_not_after_it() {
        let mut early = Early::default();
        for (view, slot) in [(2, 8), (2, 7), (1, 7), (3, 7)] {
            early.keep_order(order(view, slot));
        }
        for (by, view) in [(1, 1), (2, 2), (3, 3)] {
            early.keep_commit(&vote(by, view, 7));
        }
        let orders = early.take_orders(View(2));
        assert_eq!(orders, [order(2, 7), order(2, 8)]);
        assert_eq!(early.take_commits(View(2)), [vote(2, 2, 7)]);
        assert_eq!(early.len(), 2, "those of view 3");
        assert_eq!(early.take_orders(View(3)), [order(3, 7)]);
    }

    #[test]
    fn no_primary_takes_the_room_of_another_one() {
        let mut early = Early::default();
        for slot in 0..100 {
            early.keep_order(order(1, slot));
        }
        early.keep_order(order(2, 1));
        assert_eq!(early.len(), LATER_ORDERS_MAX + 1);
    }

    #[test]
    fn of_each_replica_the_last_vote_is_kept() {
        let mut early = Early::default();
        early.keep_commit(&vote(1, 2, 9));
        early.keep_commit(&vote(1, 2, 8));
        early.keep_commit(&vote(1, 1, 10));
        assert_eq!(early.take_commits(View(2)), [vote(1, 2, 9)]);
    }
}
