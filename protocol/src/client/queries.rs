//! Queries under way: whom they were sent to, what was replied, and whether enough replies agree.
//!
//! A query is sent to as many replicas as have to agree, those first that replied fast of late, and in turn where they
//! are alike. The others are asked where that does not do, and where they do not agree either the operations are to be
//! ordered ([`Action::MustOrder`]): that always ends. Who asks with a past is told so instead ([`Action::NotSeen`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::words::Accounts;
use super::{Action, Counters, Failure, Follow, Progress, QUEUED_MAX, Submission, Ticket};
use crate::codec::Canonical as _;
use crate::estimate::Estimate;
use crate::id::{Digest, Instant, ReplicaId, SessionId, Slot, View};
use crate::message::{
    Level, NoReply, Past, Position, Query, QueryReply, Results, SignedQueryReply, ToReplica,
};
use crate::quorum::{ClusterSize, Strength, Tally};

/// The least that a reply may take before others are asked as well, in ms.
const WIDEN_MIN_MS: u64 = 20;

/// Who did not reply in time is asked in the second place only, for so long, in ms.
const SHUNNED_MS: u64 = 5_000;

/// Operations that change nothing, and of which somebody wants to know what they come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What to call it.
    pub ticket: Ticket,
    /// How good the answer must be.
    pub level: Level,
    /// At least one, within the bounds of a request.
    pub operations: Vec<Bytes>,
    /// What the answer must include, where it must. Without it the answer is merely not older than the newest slot that this
    /// session was told of, where nothing is merged.
    pub past: Option<Past>,
    /// Random, and never used before, also by other processes and before a crash.
    pub nonce: [u8; 16],
    /// Whether they must not share a request with others, where they have to be ordered.
    pub alone: bool,
}

/// What operations come to that change nothing, as a quorum says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// One for each operation.
    pub results: Vec<Bytes>,
    /// The view in which the replicas answered.
    pub view: View,
    /// A slot after which it was so at all of them. With a strong answer it is final.
    pub slot: Slot,
    /// Where it was asked with a past: the end of a history that includes it, and in which it was so. A correct replica had it.
    pub at: Option<Position>,
}

/// What an event is handled with.
pub(super) struct Turn<'a> {
    pub now: Instant,
    pub accounts: &'a mut Accounts,
    pub counters: &'a mut Counters,
    pub actions: &'a mut Vec<Action>,
}

/// One replica's reply, without the results.
#[derive(Clone, Debug)]
struct Word {
    view: View,
    from: Slot,
    to: Slot,
    results: Digest,
    /// Where it is so; of an answer to a query with a past.
    positions: Vec<Position>,
}

impl Word {
    /// Whether both say the same, of whatever slots.
    fn is_like(&self, other: &Self) -> bool {
        (self.view, self.results) == (other.view, other.results)
    }

    /// Whether it is of the history that ends here. Positions ascend, or the reply would not have been let in.
    fn names(&self, at: &Position) -> bool {
        self.positions.binary_search(at).is_ok()
    }
}

#[derive(Debug)]
struct Open {
    ticket: Ticket,
    query: Arc<Query>,
    alone: bool,
    since: Instant,
    /// Whom it was sent to, and when.
    asked: BTreeMap<ReplicaId, Instant>,
    /// Those who said that they have no reply, or sent one that is of no use.
    without: BTreeMap<ReplicaId, NoReply>,
    words: Tally<Word>,
    /// Results, on whose account, and their size.
    bodies: BTreeMap<Digest, (Vec<Bytes>, ReplicaId, usize)>,
    due: Instant,
}

/// How a replica replies to queries.
#[derive(Clone, Copy, Debug, Default)]
struct Manner {
    took: Estimate,
    shunned_until: Instant,
}

/// All queries of a session.
#[derive(Debug)]
pub(super) struct Queries {
    session: SessionId,
    size: ClusterSize,
    open: BTreeMap<Digest, Open>,
    tickets: BTreeMap<Ticket, Digest>,
    due: BTreeSet<(Instant, Digest)>,
    manners: BTreeMap<ReplicaId, Manner>,
}

fn strength(level: Level) -> Strength {
    match level {
        Level::Weak => Strength::Weak,
        Level::Strong => Strength::Strong,
    }
}

impl Open {
    fn needed(&self, size: ClusterSize) -> usize {
        size.quorum(strength(self.query.level))
    }

    /// Results that enough replicas have found in one view, after one slot that is in the intervals of all of them, and,
    /// where there is a past, in one history.
    fn agreed(&self, size: ClusterSize) -> Option<Seen> {
        if self.query.past.is_some() {
            let all = self.words.iter().flat_map(|(_, word)| word.positions.iter());
            // The oldest is as good as any, and known to most.
            let oldest_first: BTreeSet<_> = all.copied().collect();
            oldest_first.into_iter().find_map(|at| {
                let holders = self.words.iter().filter(|(_, word)| word.names(&at));
                let mut holders = holders.map(|(_, word)| word);
                holders.find_map(|word| self.agreed_with(size, word, Some(at)))
            })
        } else {
            self.words.iter().find_map(|(_, word)| self.agreed_with(size, word, None))
        }
    }

    fn agreed_with(&self, size: ClusterSize, one: &Word, at: Option<Position>) -> Option<Seen> {
        let shares = |other: &Word| match &at {
            Some(at) => other.names(at),
            // Intervals that share a slot share the highest of their first ones.
            None => (other.from..=other.to).contains(&one.from),
        };
        let agrees = |other: &Word| one.is_like(other) && shares(other);
        let voters = self.words.quorum(size, strength(self.query.level), agrees)?;
        let (results, ..) = self.bodies.get(&one.results)?;
        let ends = self.words.iter().filter(|(id, _)| voters.contains(id));
        let slot = ends.map(|(_, word)| word.to).min()?;
        Some(Seen { results: results.clone(), view: one.view, slot, at })
    }

    fn waits_for(&self, replica: ReplicaId) -> bool {
        self.asked.contains_key(&replica)
            && !self.without.contains_key(&replica)
            && self.words.word(replica).is_none()
    }

    fn waits(&self) -> bool {
        self.asked.keys().any(|replica| self.waits_for(*replica))
    }
}

impl Queries {
    /// None yet.
    pub fn new(session: SessionId, size: ClusterSize) -> Self {
        let (open, tickets) = (BTreeMap::new(), BTreeMap::new());
        let (due, manners) = (BTreeSet::new(), BTreeMap::new());
        Self { session, size, open, tickets, due, manners }
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    pub fn progress(&self, ticket: Ticket) -> Option<Progress> {
        let open = self.open.get(self.tickets.get(&ticket)?)?;
        let like = |word: &Word| {
            let same = |other: &Word| (other.view, other.results) == (word.view, word.results);
            open.words.iter().filter(|(_, other)| same(other)).count()
        };
        Some(Progress {
            sent: 1,
            answered: open.words.iter().map(|(id, _)| id).collect(),
            matching: open.words.iter().map(|(_, word)| like(word)).max().unwrap_or_default(),
            needed: open.needed(self.size),
            ..Progress::default()
        })
    }

    /// Sends a query, of which replies must not be older than `after`. Others are asked as well long before a request
    /// would be sent again, after `first_wait_ms`.
    pub fn ask(&mut self, turn: &mut Turn<'_>, ask: Ask, after: Slot, first_wait_ms: u64) {
        let Ask { ticket, level, operations, nonce, alone, past } = ask;
        // In a history that includes a past its slots have other numbers, perhaps.
        let after = if past.is_some() { Slot::GENESIS } else { after };
        let session = self.session;
        let query = Arc::new(Query { session, nonce, level, after, past, operations });
        let failure = match query.check() {
            Err(_) => Some(Failure::OutOfBounds),
            Ok(()) => (self.open.len() >= QUEUED_MAX).then_some(Failure::QueueFull),
        };
        if let Some(failure) = failure {
            turn.actions.push(Action::Failed { ticket, failure });
            return;
        }
        let (now, digest) = (turn.now, query.digest());
        let first = usize::from(query.nonce[0]);
        let to = self.in_order(now, first).take(self.size.quorum(strength(level)));
        let asked: BTreeMap<_, _> = to.map(|replica| (replica, now)).collect();
        // Half of what a request is waited for, or less where replies are faster.
        let usual = asked.keys().map(|id| self.manner(*id).took.smoothed()).max().flatten();
        let wait = usual.map_or(u64::MAX, |usual| usual.saturating_mul(4).div_ceil(1000));
        let wait = wait.min(first_wait_ms / 2).max(WIDEN_MIN_MS);
        let due = now.after_ms(wait);
        send(&query, asked.keys(), turn.actions);
        self.due.insert((due, digest));
        self.tickets.insert(ticket, digest);
        let (words, bodies, without) = Default::default();
        self.open.insert(
            digest,
            Open { ticket, query, alone, since: now, asked, without, words, bodies, due },
        );
    }

    fn manner(&self, replica: ReplicaId) -> Manner {
        self.manners.get(&replica).copied().unwrap_or_default()
    }

    /// All replicas, those first that are to be asked first; of those that are alike one at random.
    fn in_order(&self, now: Instant, first: usize) -> impl Iterator<Item = ReplicaId> {
        let known = self.manners.values().filter_map(|manner| manner.took.smoothed());
        let fast = known.min().unwrap_or_default().saturating_mul(2).saturating_add(1_000);
        let mut all: Vec<_> = self.size.members().collect();
        let count = all.len();
        all.rotate_left(first % count.max(1));
        all.sort_by_key(|id| {
            let manner = self.manner(*id);
            let is_slow = manner.took.smoothed().is_some_and(|took| took > fast);
            (manner.shunned_until > now, is_slow)
        });
        all.into_iter()
    }

    /// A replica replied. Answers the slot of what that has decided.
    pub fn hear(
        &mut self,
        turn: &mut Turn<'_>,
        from: ReplicaId,
        signed: SignedQueryReply,
    ) -> Option<Slot> {
        let QueryReply { view, session: _, query, from: first, to, positions, results } =
            signed.reply;
        let Some(open) = self.open.get_mut(&query) else {
            turn.counters.late += 1;
            return None;
        };
        // It speaks for itself only, and once.
        let asked = open.asked.get(&from).copied().filter(|_| open.waits_for(from));
        let Some(asked) = asked.filter(|_| signed.vote.by == from) else {
            turn.counters.malformed += 1;
            return None;
        };
        let (digest, size) = (Results::digest_of(&results), results.iter().map(Bytes::len).sum());
        let is_known = open.bodies.contains_key(&digest);
        if results.len() != open.query.operations.len()
            || open.query.past.is_some() == positions.is_empty()
            || !(is_known || turn.accounts.charge(from, size))
        {
            turn.counters.malformed += 1;
            open.without.insert(from, NoReply::Unable);
        } else {
            if !is_known {
                open.bodies.insert(digest, (results, from, size));
            }
            open.words.hear(from, Word { view, from: first, to, results: digest, positions });
            let manner = self.manners.entry(from).or_default();
            manner.took.note(turn.now, turn.now.micros_since(asked));
            manner.shunned_until = Instant::default();
        }
        self.decide(turn, query)
    }

    /// A replica has no reply.
    pub fn hear_none(&mut self, turn: &mut Turn<'_>, from: ReplicaId, query: Digest, why: NoReply) {
        if let Some(open) = self.open.get_mut(&query)
            && open.waits_for(from)
        {
            open.without.insert(from, why);
            let none = self.decide(turn, query);
            debug_assert!(none.is_none(), "it says nothing new");
        }
    }

    fn decide(&mut self, turn: &mut Turn<'_>, query: Digest) -> Option<Slot> {
        let open = self.open.get(&query)?;
        let Some(seen) = open.agreed(self.size) else {
            // Those who may still reply are too few, or all have replied.
            let left = open.asked.len() - open.without.len();
            if !open.waits() || left < open.needed(self.size) {
                self.go_on(turn, query);
            }
            return None;
        };
        let (ticket, at) = (open.ticket, seen.slot);
        self.close(query, turn.accounts);
        turn.actions.push(Action::Seen { ticket, seen });
        Some(at)
    }

    /// Asks those who were not asked, or, where there are none, has the operations ordered, if that is of use.
    fn go_on(&mut self, turn: &mut Turn<'_>, query: Digest) {
        let Some(open) = self.open.get_mut(&query) else { return };
        let others: Vec<_> =
            self.size.members().filter(|id| !open.asked.contains_key(id)).collect();
        if others.is_empty() {
            if let Some(open) = self.close(query, turn.accounts) {
                let Open { ticket, query, alone, without, .. } = open;
                let Query { level, operations, past, .. } = Arc::unwrap_or_clone(query);
                if past.is_some() {
                    turn.actions.push(Action::NotSeen { ticket, without });
                    return;
                }
                let follow = Follow::No;
                let submission = Submission { ticket, level, follow, operations, alone };
                turn.actions.push(Action::MustOrder(submission));
            }
            return;
        }
        self.due.remove(&(open.due, query));
        let wait = turn.now.micros_since(open.since).div_ceil(1000).max(WIDEN_MIN_MS);
        open.due = turn.now.after_ms(wait);
        self.due.insert((open.due, query));
        send(&open.query, &others, turn.actions);
        open.asked.extend(others.into_iter().map(|replica| (replica, turn.now)));
    }

    /// Goes on with those that were not answered in time.
    pub fn tick(&mut self, turn: &mut Turn<'_>) {
        while let Some((at, query)) = self.due.first().copied()
            && at <= turn.now
        {
            let silent = |open: &Open| {
                self.size.members().filter(|replica| open.waits_for(*replica)).collect()
            };
            let silent: Vec<_> = self.open.get(&query).map(silent).unwrap_or_default();
            for replica in silent {
                let manner = self.manners.entry(replica).or_default();
                manner.shunned_until = turn.now.after_ms(SHUNNED_MS);
            }
            self.go_on(turn, query);
        }
    }

    /// Nobody waits for it any more.
    pub fn cancel(&mut self, ticket: Ticket, accounts: &mut Accounts) {
        if let Some(query) = self.tickets.get(&ticket).copied() {
            self.close(query, accounts);
        }
    }

    fn close(&mut self, query: Digest, accounts: &mut Accounts) -> Option<Open> {
        let open = self.open.remove(&query)?;
        self.due.remove(&(open.due, query));
        self.tickets.remove(&open.ticket);
        for (_, charged, size) in open.bodies.values() {
            accounts.release(*charged, *size);
        }
        Some(open)
    }
}

fn send<'a>(
    query: &Arc<Query>,
    to: impl IntoIterator<Item = &'a ReplicaId>,
    actions: &mut Vec<Action>,
) {
    for replica in to {
        let message = ToReplica::Query(Query::clone(query));
        actions.push(Action::Send { to: Some(*replica), message });
    }
}
