//! Villains that sign what is not so.

use std::collections::BTreeMap;

use bytes::Bytes;
use elea_protocol::codec::Canonical;
use elea_protocol::id::{ClientId, Digest, ReplicaId, SessionId, Slot, View};
use elea_protocol::message::{
    Checkpoint, Commit, Message, NewView, NewViewHeader, NonDeterminism, Order, OrderHeader,
    Position, QueryReply, Results, Suspect, ToClient, ViewChange, changes_digest,
};
use elea_protocol::quorum::Strength;
use elea_protocol::replica::{Action, Event, Mark};
use elea_protocol::seal::sign_replies;
use elea_protocol::signature::Signed;

use super::{Deed, EDITION, Lair, Villain, tell};
use crate::restate;

/// A backup that signs orders, as if it were the primary: for the slot after the last order it
/// saw, on the right chain, with requests that everybody has.
#[derive(Default)]
pub struct Pretender {
    heard: Vec<Digest>,
    last: Option<(OrderHeader, NonDeterminism)>,
    genesis_done: bool,
}

impl Pretender {
    fn forge(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        let Some(request) = self.heard.pop() else { return };
        let (view, slot, before, time) = match &self.last {
            Some((header, choices)) => (header.view, header.slot.next(), header.hash, choices.time),
            None if !self.genesis_done => {
                (View::ZERO, Slot::GENESIS.next(), *lair.membership.genesis(), lair.now.wall)
            }
            None => return,
        };
        self.genesis_done = true;
        let choices = NonDeterminism { time, seed: lair.rng.bytes(), edition: EDITION };
        let requests = vec![request];
        let batch = restate::choices_and_requests(&choices, &requests);
        let hash = restate::link(&before, &batch);
        let header = OrderHeader { view, slot, hash, batch };
        let order = lair.sign(Order { header, choices, requests });
        tell(&lair.others(), Message::Order(order), deeds);
    }
}

impl Villain for Pretender {
    fn name(&self) -> &'static str {
        "pretender"
    }

    fn hears(&mut self, _lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        match &event {
            Event::Request(request) => self.heard.push(request.digest()),
            Event::Peer { message, .. } => {
                if let Message::Order(order) = &**message
                    && self.last.is_none_or(|(last, _)| last.slot < order.body.header.slot)
                {
                    self.last = Some((order.body.header, order.body.choices));
                }
            }
            _ => {}
        }
        to_core.push(event);
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        self.forge(lair, deeds);
    }
}

/// Begins views of which another is primary, on view changes that are good.
#[derive(Default)]
pub struct Usurper {
    changes: BTreeMap<View, BTreeMap<ReplicaId, Signed<ViewChange>>>,
}

impl Usurper {
    fn keep(&mut self, change: &Signed<ViewChange>) {
        self.changes.entry(change.body.view).or_default().insert(change.by, change.clone());
    }

    fn begin(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        let size = lair.membership.size();
        // Without the primary's own view change nobody would look at it twice.
        let ready = self.changes.iter().find(|(view, changes)| {
            let primary = view.primary(size.replicas());
            primary != lair.id
                && changes.contains_key(&primary)
                && changes.contains_key(&lair.id)
                && size.suffices(changes.len(), Strength::Weak)
        });
        let Some(view) = ready.map(|(view, _)| *view) else { return };
        let changes: Vec<_> =
            self.changes.remove(&view).into_iter().flat_map(BTreeMap::into_values).collect();
        let locks = changes.iter().filter_map(|change| change.body.lock.as_ref());
        let base = locks.max_by_key(|lock| lock.rank()).map(|lock| lock.position());
        let heads = changes.iter().map(|change| change.body.head);
        let Some(head) = base.into_iter().chain(heads).max() else { return };
        let header = NewViewHeader { view, head, changes: changes_digest(&changes) };
        let new_view = lair.sign(NewView { header, changes });
        tell(&lair.others(), Message::NewView(new_view), deeds);
    }
}

impl Villain for Usurper {
    fn name(&self) -> &'static str {
        "usurper"
    }

    fn hears(&mut self, _lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        if let Event::Peer { message, .. } = &event
            && let Message::Campaign(campaign) = &**message
        {
            self.keep(&campaign.change);
        }
        to_core.push(event);
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        if let Action::Send { message: Message::Campaign(campaign), .. } = &action {
            self.keep(&campaign.change);
        }
        deeds.push(Deed::Act(action));
        self.begin(lair, deeds);
    }
}

/// Votes and suspects in the names of replicas that do not exist.
#[derive(Default)]
pub struct Inventor;

impl Inventor {
    fn in_their_names<T: Canonical + Clone>(
        lair: &mut Lair,
        body: &T,
        message: impl Fn(Signed<T>) -> Message,
        deeds: &mut Vec<Deed>,
    ) {
        let replicas = lair.membership.size().replicas();
        for id in replicas..replicas + 3 {
            let signed = Signed { by: ReplicaId(id), ..lair.sign(body.clone()) };
            tell(&lair.some(), message(signed), deeds);
        }
    }
}

impl Villain for Inventor {
    fn name(&self) -> &'static str {
        "inventor"
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        match &action {
            Action::Send { message: Message::Commit(vote), .. } => {
                let suspect = Suspect::of(vote.body.view);
                Self::in_their_names(lair, &vote.body, Message::Commit, deeds);
                Self::in_their_names(lair, &suspect, Message::Suspect, deeds);
            }
            Action::Send { message: Message::Checkpoint(vote), .. } => {
                Self::in_their_names(lair, &vote.body, Message::Checkpoint, deeds);
            }
            _ => {}
        }
        deeds.push(Deed::Act(action));
    }
}

/// Votes for checkpoints of states that nobody has.
#[derive(Default)]
pub struct FalseState;

impl Villain for FalseState {
    fn name(&self) -> &'static str {
        "false-state"
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        let action = match action {
            Action::Send { to, message: Message::Checkpoint(vote), after } => {
                let state = lair.invented();
                let message = Message::Checkpoint(lair.sign(Checkpoint { state, ..vote.body }));
                Action::Send { to, message, after }
            }
            action => action,
        };
        deeds.push(Deed::Act(action));
    }
}

/// Answers clients with invented results, properly signed, and each answer twice; and tells those who
/// ask where a new session may lie of the last place of all, or the first.
#[derive(Default)]
pub struct ForgedReplies;

impl Villain for ForgedReplies {
    fn name(&self) -> &'static str {
        "forged-replies"
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        let action = match action {
            Action::Answer { client, session, message: ToClient::Session(report), after } => {
                let mut body = report.body;
                body.has_left = body.session.0.is_multiple_of(3);
                let last = body.session.0.is_multiple_of(2);
                let generation = if last { SessionId::GENERATION_MAX } else { 0 };
                body.opening = SessionId::first_of(generation);
                let message = ToClient::Session(lair.sign(body));
                Action::Answer { client, session, message, after }
            }
            action => action,
        };
        let Action::Answer { client, session, message: ToClient::Replies(replies), after } = action
        else {
            return deeds.push(Deed::Act(action));
        };
        let genesis = *lair.membership.genesis();
        let forged: Vec<_> = replies
            .into_iter()
            .flat_map(|signed| {
                let mut reply = signed.reply;
                let count = match &reply.results {
                    Results::Full(results) => results.len(),
                    Results::Forgotten(_) => 1,
                };
                reply.results = Results::Full(vec![Bytes::from_static(b"forged"); count]);
                sign_replies(&*lair.signer, &genesis, lair.id, vec![reply])
            })
            .collect();
        for _ in 0..2 {
            deeds.push(Deed::Act(Action::Answer {
                client,
                session,
                message: ToClient::Replies(forged.clone()),
                after,
            }));
        }
    }
}

/// Answers queries with what was so when the same was asked for the first time, and says that it is so after all slots, or
/// names the history that it had the last time.
#[derive(Default)]
pub struct StaleWitness {
    /// What was asked, by the digests of queries, and whether with a past.
    asked: BTreeMap<Digest, (Vec<Bytes>, bool)>,
    /// What it came to at first.
    first: BTreeMap<Vec<Bytes>, Vec<Bytes>>,
    /// What it has just been asked and knows, and in which view it answered last.
    known: Vec<(ClientId, QueryReply)>,
    /// What it said last of where its history is.
    last: Vec<Position>,
    view: View,
}

/// So many of each it remembers.
const REMEMBERED: usize = 4096;

impl Villain for StaleWitness {
    fn name(&self) -> &'static str {
        "stale-witness"
    }

    fn hears(&mut self, _lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        if let Event::Queries(queries) = &event
            && self.asked.len() < REMEMBERED
        {
            for (client, query) in queries {
                let has_past = query.past.is_some();
                self.asked.insert(query.digest(), (query.operations.clone(), has_past));
                if let Some(results) = self.first.get(&query.operations) {
                    let (session, results) = (query.session, results.clone());
                    let (query, view) = (query.digest(), self.view);
                    let (from, to) = (Slot::GENESIS, Slot(u64::MAX));
                    let positions = if has_past { self.last.clone() } else { Vec::new() };
                    let reply = QueryReply { view, session, query, from, to, positions, results };
                    self.known.push((*client, reply));
                }
            }
        }
        to_core.push(event);
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        let genesis = *lair.membership.genesis();
        for (client, reply) in self.known.drain(..) {
            let session = Some(reply.session);
            let reply = sign_replies(&*lair.signer, &genesis, lair.id, vec![reply]);
            let (message, after) = (ToClient::QueryReplies(reply), Mark::NONE);
            deeds.push(Deed::Act(Action::Answer { client, session, message, after }));
        }
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        let Action::Answer { client, session, message: ToClient::QueryReplies(replies), after } =
            action
        else {
            return deeds.push(Deed::Act(action));
        };
        let genesis = *lair.membership.genesis();
        let stale = replies.into_iter().map(|signed| {
            let mut reply = signed.reply;
            self.view = reply.view;
            let before = self.last.clone();
            if !reply.positions.is_empty() {
                self.last.clone_from(&reply.positions);
            }
            if let Some((operations, has_past)) = self.asked.get(&reply.query) {
                let first = self.first.entry(operations.clone());
                reply.results = first.or_insert(reply.results).clone();
                (reply.from, reply.to) = (Slot::GENESIS, Slot(u64::MAX));
                if *has_past {
                    // True hashes, beside wrong slots.
                    let wrong = reply.positions.iter().zip(&before);
                    let wrong = wrong.map(|(at, before)| Position { hash: before.hash, ..*at });
                    reply.positions = wrong.collect();
                }
            }
            reply
        });
        let stale = sign_replies(&*lair.signer, &genesis, lair.id, stale.collect());
        let message = ToClient::QueryReplies(stale);
        deeds.push(Deed::Act(Action::Answer { client, session, message, after }));
    }
}

/// Votes as its core does, and also for a history that does not exist.
#[derive(Default)]
pub struct DoubleVoter;

impl Villain for DoubleVoter {
    fn name(&self) -> &'static str {
        "double-voter"
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        if let Action::Send { message: Message::Commit(commit), .. } = &action {
            let hash = lair.invented();
            let other = lair.sign(Commit { hash, ..commit.body });
            tell(&lair.some(), Message::Commit(other), deeds);
        }
        deeds.push(Deed::Act(action));
    }
}
