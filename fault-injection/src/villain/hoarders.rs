//! Villains that keep what others said until it does harm.

use std::collections::BTreeMap;

use elea_protocol::id::{Digest, Instant, ReplicaId, Slot, View};
use elea_protocol::message::{
    Campaign, Commit, CommitCertificate, Message, NewView, NewViewHeader, Position, Slots, Status,
    ViewChange, Wanted, changes_digest,
};
use elea_protocol::quorum::Strength;
use elea_protocol::replica::{Action, Event, Target};
use elea_protocol::signature::{Signature, Signed};

use super::notes::{Notes, Pace, Stamps};
use super::{Deed, Lair, Villain, tell};
use crate::network::Party;

/// A bare request for a view.
fn campaign(change: Signed<ViewChange>) -> Message {
    let (suspects, others) = (Vec::new(), Vec::new());
    Message::Campaign(Box::new(Campaign { change, suspects, proof: None, others }))
}

/// Positions of which votes are gathered, and certificates hidden.
const GATHERED_MAX: usize = 64;
const HIDDEN_MAX: usize = 8;

/// Gathers the others' votes and keeps the certificates to itself: it does not vote, has no lock
/// as far as anybody hears, and leaves one replica out of the orders of its own views. When another
/// view has begun it shows a certificate of an earlier one, best of a history that was given up,
/// with a view change to go with it; and does not always let the batches go.
///
/// It attacks the lock rule: a lock whose batches nobody has, and a lock that refutes a new view
/// after everybody has entered it (F6, F8 in schedules.md).
#[derive(Default)]
pub struct HiddenLock {
    notes: Notes,
    stamps: Stamps,
    votes: BTreeMap<(View, Slot, Digest), BTreeMap<ReplicaId, Signature>>,
    hidden: Vec<CommitCertificate>,
    left_out: Option<(View, Party)>,
    /// The highest view that is known to have begun, and when to speak up in it.
    begun: View,
    speaks_at: Option<Instant>,
}

impl HiddenLock {
    fn hide(&mut self, certificate: CommitCertificate) {
        if self.hidden.iter().any(|known| known.body == certificate.body) {
            return;
        }
        if self.hidden.len() >= HIDDEN_MAX {
            self.hidden.remove(0);
        }
        self.hidden.push(certificate);
    }

    fn count(&mut self, lair: &Lair, vote: &Signed<Commit>) {
        let Commit { view, slot, hash } = vote.body;
        if self.votes.len() >= GATHERED_MAX && !self.votes.contains_key(&(view, slot, hash)) {
            self.votes.pop_first();
        }
        let votes = self.votes.entry((view, slot, hash)).or_default();
        votes.insert(vote.by, vote.signature);
        if lair.membership.size().suffices(votes.len() + 1, Strength::Strong) {
            let mut votes = votes.clone();
            votes.insert(lair.id, lair.sign(vote.body).signature);
            self.hide(CommitCertificate { body: vote.body, votes });
        }
    }

    fn a_view_begins(&mut self, lair: &mut Lair, view: View) {
        if view > self.begun {
            self.begun = view;
            self.speaks_at = Some(lair.now.instant.after_ms(lair.rng.between(0, 60)));
        }
    }

    /// The certificate that hurts most: of an earlier view, and off the present history.
    fn worst(&self, lair: &Lair) -> Option<&CommitCertificate> {
        let old = self.hidden.iter().filter(|hidden| hidden.body.view < self.begun);
        old.max_by_key(|hidden| {
            let at = hidden.position();
            let is_off = self.notes.at(lair, at.slot) != Some(at);
            (is_off, hidden.rank())
        })
    }

    fn speak(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        let Some(lock) = self.worst(lair).cloned() else { return };
        let to = if lair.rng.one_in(2) { lair.others() } else { lair.some() };
        if lair.rng.one_in(2) {
            tell(&to, Message::Certificate(lock.clone()), deeds);
        }
        let (head, view) = (lock.position(), self.begun.next());
        let stamp = self.stamps.next(lair);
        let (entered, stable) = (self.begun, self.notes.stable_slot().min(head.slot));
        let change =
            ViewChange { view, campaign: view, entered, lock: Some(lock), stable, head, stamp };
        tell(&to, campaign(lair.sign(change)), deeds);
    }

    /// What the core says, without a lock in it.
    fn without_lock(lair: &Lair, message: Message) -> Option<Message> {
        Some(match message {
            Message::Commit(_) | Message::Certificate(_) | Message::Stable(_) => return None,
            Message::Status(status) => {
                Message::Status(lair.sign(Status { lock: None, ..status.body }))
            }
            Message::Slots(slots) => Message::Slots(Slots { certificate: None, ..slots }),
            Message::Campaign(own) if own.change.by == lair.id => {
                let change = lair.sign(ViewChange { lock: None, ..own.change.body });
                Message::Campaign(Box::new(Campaign { change, ..*own }))
            }
            other => other,
        })
    }
}

impl Villain for HiddenLock {
    fn name(&self) -> &'static str {
        "hidden-lock"
    }

    fn hears(&mut self, lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        if let Event::Peer { message, .. } = &event {
            match &**message {
                Message::Commit(vote) => self.count(lair, vote),
                Message::Certificate(certificate) => self.hide(certificate.clone()),
                Message::NewView(new_view) => {
                    self.a_view_begins(lair, new_view.body.header.view);
                }
                Message::Fetch(fetch) => {
                    if let Wanted::Branch { head, .. } = &fetch.body.wanted
                        && self.hidden.iter().any(|hidden| hidden.position() == *head)
                        && lair.rng.one_in(2)
                    {
                        return;
                    }
                }
                _ => {}
            }
        }
        to_core.push(event);
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        self.notes.take(&action);
        self.a_view_begins(lair, self.notes.entered());
        let Action::Send { to, message, after } = action else {
            return deeds.push(Deed::Act(action));
        };
        let order_in = match &message {
            Message::Order(order) => Some(order.body.header.view),
            _ => None,
        };
        let Some(message) = Self::without_lock(lair, message) else { return };
        let Some(view) = order_in else {
            return deeds.push(Deed::Act(Action::Send { to, message, after }));
        };
        if self.left_out.is_none_or(|(of, _)| of != view) {
            self.left_out = Some((view, lair.somebody()));
        }
        let left_out = self.left_out.map(|(_, party)| party);
        for party in lair.meant(to).into_iter().filter(|party| Some(*party) != left_out) {
            let Party::Replica(id) = party else { continue };
            let (to, message) = (Target::One(ReplicaId(id)), message.clone());
            deeds.push(Deed::Act(Action::Send { to, message, after }));
        }
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        if self.speaks_at.is_some_and(|at| at <= lair.now.instant) {
            self.speaks_at = None;
            self.speak(lair, deeds);
        }
    }
}

/// Views for which tickets are kept.
const VIEWS_KEPT: usize = 32;

/// Keeps others' view changes for views that it leads, and begins none of those views when it
/// should. Later, when another view is well under way, it redeems them, one view at a time, the
/// lowest first, with the weakest new view that they allow.
///
/// It attacks healthy views with stale tickets (F17 in schedules.md): each costs a view change.
#[derive(Default)]
pub struct TicketHoarder {
    notes: Notes,
    stamps: Stamps,
    tickets: BTreeMap<View, BTreeMap<ReplicaId, Signed<ViewChange>>>,
    pace: Pace,
}

impl TicketHoarder {
    fn keep(&mut self, lair: &Lair, change: &Signed<ViewChange>) {
        let view = change.body.view;
        if !lair.leads(view) || change.by == lair.id || view <= self.notes.entered() {
            return;
        }
        self.tickets.entry(view).or_default().insert(change.by, change.clone());
        // The highest views are the last ones that can be begun: those can go.
        if self.tickets.len() > VIEWS_KEPT {
            self.tickets.pop_last();
        }
    }

    fn redeem(&mut self, lair: &mut Lair) -> Option<Signed<NewView>> {
        self.tickets = self.tickets.split_off(&self.notes.entered().next());
        let size = lair.membership.size();
        let enough = |kept: &BTreeMap<_, _>| size.suffices(kept.len() + 1, Strength::Weak);
        let view = *self.tickets.iter().find(|(_, kept)| enough(kept))?.0;
        let mut changes: Vec<_> = self.tickets.remove(&view)?.into_values().collect();
        // As few as will do: the others' locks are left out.
        lair.rng.shuffle(&mut changes);
        while size.suffices(changes.len(), Strength::Weak) {
            changes.pop();
        }
        let own_head = self.notes.head(lair);
        let own = ViewChange {
            view,
            campaign: view,
            entered: self.notes.entered(),
            lock: self.notes.lock_below(view).filter(|_| lair.rng.one_in(2)),
            stable: self.notes.stable_slot().min(own_head.slot),
            head: own_head,
            stamp: self.stamps.next(lair),
        };
        changes.push(lair.sign(own));
        let locks = changes.iter().filter_map(|change| change.body.lock.as_ref());
        let base = locks.max_by_key(|lock| lock.rank()).map(CommitCertificate::position);
        let lowest = base.or_else(|| self.notes.at(lair, Slot::GENESIS)).unwrap_or(own_head);
        let extends = self.notes.at(lair, lowest.slot) == Some(lowest);
        let head: Position = if extends && lair.rng.one_in(2) { own_head } else { lowest };
        let header = NewViewHeader { view, head, changes: changes_digest(&changes) };
        Some(lair.sign(NewView { header, changes }))
    }
}

impl Villain for TicketHoarder {
    fn name(&self) -> &'static str {
        "ticket-hoarder"
    }

    fn hears(&mut self, lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        if let Event::Peer { message, .. } = &event
            && let Message::Campaign(campaign) = &**message
        {
            campaign.others.iter().for_each(|other| self.keep(lair, other));
            self.keep(lair, &campaign.change);
            // The core would begin the view at once.
            if lair.leads(campaign.change.body.view) {
                return;
            }
        }
        to_core.push(event);
    }

    fn does(&mut self, _lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        self.notes.take(&action);
        deeds.push(Deed::Act(action));
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        if !self.tickets.is_empty()
            && self.pace.is_due(lair, 100, 900)
            && let Some(new_view) = self.redeem(lair)
        {
            tell(&lair.others(), Message::NewView(new_view), deeds);
        }
    }
}
