//! Primaries with two histories, each told to one half of the cluster.
//!
//! Nothing a villain says may be checked less for that: both histories are signed, on their
//! chains, and within the rules. Only together they are a proof.

use std::collections::BTreeMap;
use std::sync::Arc;

use elea_protocol::id::{ClientId, Digest, ReplicaId, RequestName, Slot, View, WallTime};
use elea_protocol::message::{
    Commit, Message, NewView, NewViewHeader, NonDeterminism, Order, OrderHeader, Position,
    Requests, SignedRequest, Status, Wanted, changes_digest,
};
use elea_protocol::quorum::Strength;
use elea_protocol::replica::{Action, Event, Mark, Target};
use elea_protocol::signature::Signed;

use super::notes::{Notes, Pace};
use super::{Deed, EDITION, Lair, Villain, tell};
use crate::network::Party;
use crate::restate;

/// A history beside the core's own, in a view that the villain leads.
pub struct Fork {
    /// The view.
    pub view: View,
    /// Its end.
    pub tip: Position,
    time: WallTime,
}

impl Fork {
    /// One that ends here.
    pub fn new(view: View, tip: Position) -> Self {
        Self { view, tip, time: WallTime(0) }
    }

    /// The order that makes it a slot longer.
    pub fn order(
        &mut self,
        lair: &Lair,
        time: WallTime,
        requests: Vec<Digest>,
        seed: [u8; 16],
    ) -> Signed<Order> {
        self.time = self.time.max(time);
        let choices = NonDeterminism { time: self.time, seed, edition: EDITION };
        let batch = restate::choices_and_requests(&choices, &requests);
        let hash = restate::link(&self.tip.hash, &batch);
        let slot = self.tip.slot.next();
        self.tip = Position { slot, hash };
        let header = OrderHeader { view: self.view, slot, hash, batch };
        lair.sign(Order { header, choices, requests })
    }
}

/// Two histories for two halves, in all that a primary says of them: orders, votes, status.
#[derive(Default)]
struct Sides {
    notes: Notes,
    fork: Option<Fork>,
    /// Whether it takes care that nobody sees both.
    is_discreet: Option<bool>,
}

impl Sides {
    fn slips(&mut self, lair: &mut Lair) -> bool {
        let is_discreet = *self.is_discreet.get_or_insert_with(|| lair.rng.one_in(2));
        !is_discreet && lair.rng.one_in(4)
    }

    fn fork_in(&mut self, view: View) -> Option<&mut Fork> {
        self.fork.as_mut().filter(|fork| fork.view == view)
    }

    /// Begins a history of its own with this order.
    fn part_before(&mut self, lair: &Lair, order: &Order) {
        let OrderHeader { view, slot, .. } = order.header;
        let before = Slot(slot.0.saturating_sub(1));
        self.fork = self.notes.at(lair, before).map(|tip| Fork::new(view, tip));
    }

    /// The core's word to the lower half and another one to the upper half.
    fn say(
        &mut self,
        lair: &mut Lair,
        own: &Message,
        other: &Message,
        after: Mark,
        deeds: &mut Vec<Deed>,
    ) {
        let (lower, upper) = lair.halves();
        for (half, is_upper) in [(lower, false), (upper, true)] {
            for to in half {
                let both = self.slips(lair);
                let Party::Replica(id) = to else { continue };
                if is_upper || both {
                    tell(&[to], other.clone(), deeds);
                }
                if !is_upper || both {
                    let to = Target::One(ReplicaId(id));
                    deeds.push(Deed::Act(Action::Send { to, message: own.clone(), after }));
                }
            }
        }
    }

    /// Passes an order on; the upper half gets one of the other history, with these requests.
    fn order(
        &mut self,
        lair: &mut Lair,
        order: &Signed<Order>,
        requests: Vec<Digest>,
        after: Mark,
        deeds: &mut Vec<Deed>,
    ) {
        let own = Message::Order(order.clone());
        let seed = lair.rng.bytes();
        let time = order.body.choices.time;
        let Some(fork) = self.fork_in(order.body.header.view) else {
            return deeds.push(Deed::Act(Action::Send { to: Target::Others, message: own, after }));
        };
        let other = Message::Order(fork.order(lair, time, requests, seed));
        self.say(lair, &own, &other, after, deeds);
    }

    /// Passes on what else the core says: the upper half hears votes for its own history.
    fn word(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        let Action::Send { to: Target::Others, message, after } = action else {
            return deeds.push(Deed::Act(action));
        };
        let other = match (&message, &self.fork) {
            (Message::Commit(commit), Some(fork)) if commit.body.view == fork.view => {
                let Position { slot, hash } = fork.tip;
                (slot.0 > 0)
                    .then(|| Message::Commit(lair.sign(Commit { view: fork.view, slot, hash })))
            }
            (Message::Status(status), Some(fork)) if status.body.entered == fork.view => {
                let stable = status.body.stable.min(fork.tip.slot);
                let lock = status.body.lock.filter(|(_, at)| at.slot <= fork.tip.slot);
                let body = Status { head: fork.tip, lock, stable, ..status.body };
                Some(Message::Status(lair.sign(body)))
            }
            _ => None,
        };
        match other {
            Some(other) => self.say(lair, &message, &other, after, deeds),
            None => deeds.push(Deed::Act(Action::Send { to: Target::Others, message, after })),
        }
    }
}

/// Signs two orders for each slot from some slot of a view on: its core's own for the lower half
/// of the cluster, and one with another seed for the upper half, and votes on both sides. Some of
/// them now and then let one replica see both, which is how they are caught.
///
/// It attacks I1: a slot with two hashes in one view.
#[derive(Default)]
pub struct Equivocator {
    sides: Sides,
}

impl Villain for Equivocator {
    fn name(&self) -> &'static str {
        "equivocator"
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        self.sides.notes.take(&action);
        let Action::Send { to: Target::Others, message: Message::Order(order), after } = action
        else {
            return self.sides.word(lair, action, deeds);
        };
        if self.sides.fork_in(order.body.header.view).is_none() && !lair.rng.one_in(3) {
            self.sides.part_before(lair, &order.body);
        }
        let requests = order.body.requests.clone();
        self.sides.order(lair, &order, requests, after, deeds);
    }
}

/// Signs two new views for each view it begins: the other one has a shorter history that the view
/// changes allow just as well, or is built on other view changes. Each half is told one, and
/// orders and votes that fit it.
///
/// It attacks the entry rule: replicas enter one view with two histories (F2 in schedules.md).
#[derive(Default)]
pub struct TwoNewViews {
    sides: Sides,
}

impl TwoNewViews {
    fn other(&self, lair: &mut Lair, new_view: &Signed<NewView>) -> Option<Signed<NewView>> {
        let NewViewHeader { view, head, .. } = new_view.body.header;
        let mut changes = new_view.body.changes.clone();
        let mut end = head;
        let base = new_view.body.base().map(|base| base.position());
        let lowest = base.map_or(0, |base| base.slot.0);
        let spare = lair.membership.size().suffices(changes.len() - 1, Strength::Weak);
        match lair.rng.between(0, 2) {
            0 | 1 if lowest < head.slot.0 => {
                let slot = Slot(lair.rng.between(lowest, head.slot.0 - 1));
                let at_base = base.filter(|base| base.slot == slot);
                end = at_base.or_else(|| self.sides.notes.at(lair, slot))?;
            }
            1 | 2 if spare => {
                let others = changes.iter().enumerate().filter(|(_, change)| change.by != lair.id);
                let others: Vec<usize> = others.map(|(index, _)| index).collect();
                changes.remove(*lair.rng.pick(&others));
            }
            // The same in another order has another digest, and is another statement.
            _ if changes.len() > 1 => changes.reverse(),
            _ => return None,
        }
        let header = NewViewHeader { view, head: end, changes: changes_digest(&changes) };
        Some(lair.sign(NewView { header, changes }))
    }
}

impl Villain for TwoNewViews {
    fn name(&self) -> &'static str {
        "two-new-views"
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        self.sides.notes.take(&action);
        match action {
            Action::Send { to: Target::Others, message: Message::NewView(new_view), after } => {
                let own = Message::NewView(new_view.clone());
                let Some(other) = self.other(lair, &new_view) else {
                    return deeds.push(Deed::Act(Action::Send {
                        to: Target::Others,
                        message: own,
                        after,
                    }));
                };
                let NewViewHeader { view, head, .. } = other.body.header;
                self.sides.fork = Some(Fork::new(view, head));
                self.sides.say(lair, &own, &Message::NewView(other), after, deeds);
            }
            Action::Send { to: Target::Others, message: Message::Order(order), after } => {
                let requests = order.body.requests.clone();
                self.sides.order(lair, &order, requests, after, deeds);
            }
            action => self.sides.word(lair, action, deeds),
        }
    }
}

/// Names remembered of which two contents were seen.
const NAMES_KEPT: usize = 64;

/// The friend of a client that signs two contents under one name: passes one on to one half and
/// the other to the other half, and as primary orders both, each on its side. What other requests
/// that client makes it passes on to some replicas only.
///
/// It attacks the rule that of two contents one survives, and the patience of backups: they wait
/// for different requests (F11 in schedules.md).
#[derive(Default)]
pub struct Accomplice {
    sides: Sides,
    seen: BTreeMap<RequestName, Vec<Arc<SignedRequest>>>,
    friends: Vec<ClientId>,
    /// Requests asked for that its core may not have.
    owed: Vec<(Party, Vec<Arc<SignedRequest>>)>,
    pace: Pace,
}

impl Accomplice {
    fn see(&mut self, request: &Arc<SignedRequest>) {
        let name = request.body().name();
        if self.seen.len() >= NAMES_KEPT && !self.seen.contains_key(&name) {
            // Names with one content are of no use; without any of those the oldest one goes.
            let useless = self.seen.iter().find(|(_, contents)| contents.len() < 2);
            let goes = useless.or(self.seen.first_key_value()).map(|(name, _)| *name);
            goes.into_iter().for_each(|name| {
                self.seen.remove(&name);
            });
        }
        let contents = self.seen.entry(name).or_default();
        if contents.len() < 2 && contents.iter().all(|known| known.digest() != request.digest()) {
            contents.push(request.clone());
        }
        if contents.len() == 2 && self.friends.len() < 8 && !self.friends.contains(&name.client) {
            self.friends.push(name.client);
        }
    }

    /// The other content under the same name.
    fn other(&self, digest: &Digest) -> Option<Digest> {
        self.seen.values().find_map(|contents| match &contents[..] {
            [one, two] if one.digest() == *digest => Some(two.digest()),
            [one, two] if two.digest() == *digest => Some(one.digest()),
            _ => None,
        })
    }
}

impl Villain for Accomplice {
    fn name(&self) -> &'static str {
        "accomplice"
    }

    fn hears(&mut self, _lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        match &event {
            Event::Request(request) => self.see(request),
            Event::Peer { message, .. } => match &**message {
                Message::Requests(requests) => requests.0.iter().for_each(|one| self.see(one)),
                Message::Fetch(fetch) => {
                    if let Wanted::Requests { digests, .. } = &fetch.body.wanted {
                        let all = self.seen.values().flatten();
                        let some = all.filter(|one| digests.contains(&one.digest())).cloned();
                        self.owed.push((Party::Replica(fetch.by.0), some.collect()));
                    }
                }
                _ => {}
            },
            _ => {}
        }
        to_core.push(event);
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        self.sides.notes.take(&action);
        let Action::Send { to: Target::Others, message: Message::Order(order), after } = action
        else {
            return self.sides.word(lair, action, deeds);
        };
        let own = &order.body.requests;
        let others: Vec<Digest> =
            own.iter().map(|digest| self.other(digest).unwrap_or(*digest)).collect();
        if others != *own && self.sides.fork_in(order.body.header.view).is_none() {
            self.sides.part_before(lair, &order.body);
        }
        self.sides.order(lair, &order, others, after, deeds);
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        for (to, requests) in self.owed.drain(..).filter(|(_, requests)| !requests.is_empty()) {
            tell(&[to], Message::Requests(Requests(requests)), deeds);
        }
        if self.seen.is_empty() || !self.pace.is_due(lair, 10, 40) {
            return;
        }
        let index = lair.rng.index(self.seen.len());
        let Some((name, contents)) = self.seen.iter().nth(index) else { return };
        let (lower, upper) = lair.halves();
        match &contents[..] {
            [one, two] => {
                tell(&lower, Message::Requests(Requests(vec![one.clone()])), deeds);
                tell(&upper, Message::Requests(Requests(vec![two.clone()])), deeds);
            }
            [one] if self.friends.contains(&name.client) => {
                tell(&lair.some(), Message::Requests(Requests(vec![one.clone()])), deeds);
            }
            _ => {}
        }
    }
}
