//! A replica that contradicts what it said before.

use std::collections::VecDeque;

use elea_protocol::id::{Instant, Slot, View};
use elea_protocol::message::{
    Campaign, Commit, Message, NonDeterminism, Order, OrderHeader, Position, Status, ViewChange,
};
use elea_protocol::replica::{Action, Event};

use super::notes::{Notes, Overheard, Stamps};
use super::{Deed, EDITION, Lair, Villain, tell};
use crate::restate;

/// Votes remembered, to be contradicted.
const VOTES_KEPT: usize = 64;

/// Has fits in which it speaks as if its disk had been lost and nobody had noticed: it stands at
/// the genesis in view 0, holds no lock, votes again where it has voted, below its entry slot and
/// for histories that it left, and orders slot 1 of view 0 anew if that view was its own.
///
/// It attacks what rests on the memory of a quorum: locks that are forgotten, votes cast twice (F1
/// in schedules.md). One of `f` may do so; the others must not need its memory.
#[derive(Default)]
pub struct Amnesiac {
    notes: Notes,
    overheard: Overheard,
    stamps: Stamps,
    votes: VecDeque<Commit>,
    fit_until: Instant,
    clear_until: Instant,
}

impl Amnesiac {
    fn has_fit(&mut self, lair: &mut Lair) -> bool {
        let now = lair.now.instant;
        if now >= self.clear_until && now >= self.fit_until {
            self.fit_until = now.after_ms(lair.rng.between(20, 400));
            self.clear_until = self.fit_until.after_ms(lair.rng.between(20, 600));
        }
        now < self.fit_until
    }

    fn genesis(lair: &Lair) -> Position {
        Position { slot: Slot::GENESIS, hash: *lair.membership.genesis() }
    }

    /// A vote that contradicts one of its own.
    fn vote(&self, lair: &mut Lair) -> Option<Commit> {
        let view = self.notes.entered();
        match lair.rng.between(0, 2) {
            // For a history that it left.
            0 => {
                let left = self.notes.left();
                let (at, _) = left.get(lair.rng.index(left.len().max(1)))?;
                Some(Commit { view, slot: at.slot, hash: at.hash })
            }
            // Below its entry slot, most likely.
            1 => {
                let known: Vec<Position> = self.notes.known().collect();
                let at = known.get(lair.rng.index(known.len().max(1)))?;
                Some(Commit { view, slot: at.slot, hash: at.hash })
            }
            // In a view that it has left.
            _ => {
                let vote = *self.votes.get(lair.rng.index(self.votes.len().max(1)))?;
                let at = self.notes.at(lair, vote.slot)?;
                Some(Commit { hash: at.hash, ..vote })
            }
        }
    }

    fn first_order(&self, lair: &mut Lair) -> Option<Order> {
        let request = self.overheard.all().last()?.digest();
        let choices =
            NonDeterminism { time: lair.now.wall, seed: lair.rng.bytes(), edition: EDITION };
        let requests = vec![request];
        let batch = restate::choices_and_requests(&choices, &requests);
        let hash = restate::link(lair.membership.genesis(), &batch);
        let header = OrderHeader { view: View::ZERO, slot: Slot::GENESIS.next(), hash, batch };
        Some(Order { header, choices, requests })
    }

    /// The same word, of one that remembers nothing.
    fn forgetful(&mut self, lair: &mut Lair, message: Message, deeds: &mut Vec<Deed>) -> Message {
        match message {
            Message::Status(status) => {
                let head = Self::genesis(lair);
                let (entered, stable) = (View::ZERO, Slot::GENESIS);
                let body =
                    Status { entered, campaign: None, head, lock: None, stable, ..status.body };
                Message::Status(lair.sign(body))
            }
            Message::Campaign(own) if own.change.by == lair.id => {
                let change = lair.sign(ViewChange {
                    view: own.change.body.view,
                    campaign: own.change.body.campaign,
                    entered: View::ZERO,
                    lock: None,
                    stable: Slot::GENESIS,
                    head: Self::genesis(lair),
                    stamp: self.stamps.next(lair).max(own.change.body.stamp + 1),
                });
                Message::Campaign(Box::new(Campaign { change, ..*own }))
            }
            Message::Commit(commit) => {
                if let Some(other) = self.vote(lair) {
                    tell(&lair.some(), Message::Commit(lair.sign(other)), deeds);
                }
                Message::Commit(commit)
            }
            other => other,
        }
    }
}

impl Villain for Amnesiac {
    fn name(&self) -> &'static str {
        "amnesiac"
    }

    fn hears(&mut self, _lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        self.overheard.take(&event);
        to_core.push(event);
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        self.notes.take(&action);
        let Action::Send { to, message, after } = action else {
            return deeds.push(Deed::Act(action));
        };
        if let Message::Commit(commit) = &message {
            if self.votes.len() >= VOTES_KEPT {
                self.votes.pop_front();
            }
            self.votes.push_back(commit.body);
        }
        let message =
            if self.has_fit(lair) { self.forgetful(lair, message, deeds) } else { message };
        deeds.push(Deed::Act(Action::Send { to, message, after }));
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        if self.has_fit(lair)
            && lair.leads(View::ZERO)
            && lair.rng.one_in(64)
            && let Some(order) = self.first_order(lair)
        {
            tell(&lair.some(), Message::Order(lair.sign(order)), deeds);
        }
    }
}
