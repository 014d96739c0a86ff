//! An honest client process: client cores, several sessions of one key, and a load.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::client::{
    Action, Answer, Ask, Client, Event, Failure, Finality, Follow, Inquiry, Seen, Setup,
    Submission, Ticket, Timing,
};
use elea_protocol::codec::encode;
use elea_protocol::id::{ClientId, Digest, ReplicaId, RequestName, RequestNumber, SessionId, Slot};
use elea_protocol::membership::Membership;
use elea_protocol::message::{
    Level, NoReply, Past, RefusalReason, ReplyKind, Request, SignedRequest, ToClient, ToReplica,
};
use elea_protocol::seal::VerifiedRoots;
use elea_protocol::signature::Signer;

use crate::check::{Glimpse, Promise};
use crate::coverage::Coverage;
use crate::node::Clock;
use crate::plan::{PatronPlan, Taste};
use crate::rng::Rng;
use crate::violation::{Violation, demand};

/// A submission that is not done with.
#[derive(Clone, Debug)]
struct Asked {
    at: u64,
    level: Level,
    follow: Follow,
    is_answered: bool,
    /// What the answer has to include, for a query with a past, and how often that was asked.
    past: Option<(Past, u32)>,
}

/// A query that is asked now, or again.
struct Put {
    at: u64,
    session: usize,
    ticket: Ticket,
    level: Level,
    operations: Vec<Bytes>,
}

/// So often it is asked, and after which wait for the second time, in microseconds; the waits double.
const PAST_ASKED_MAX: u32 = 8;
const PAST_WAIT: u64 = 5_000;

/// What a client was told of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The time of the world, in microseconds.
    pub at: u64,
    /// Of which request it is a part.
    pub name: RequestName,
    /// The slot that the answer names.
    pub slot: Slot,
    /// The hash of the history up to it.
    pub hash: Digest,
    /// The position of its first operation in the slot.
    pub index: u32,
    /// The results.
    pub results: Vec<Bytes>,
}

/// A submission, from the first to the last, for the judgement at the end.
#[derive(Clone, Debug)]
pub struct Story {
    /// When it was asked for.
    pub asked: u64,
    /// How good the answer had to be.
    pub level: Level,
    /// What it asked for.
    pub operations: Vec<Bytes>,
    /// The first answer.
    pub answered: Option<Told>,
    /// The answer that was final.
    pub finally: Option<Told>,
    /// Whether it need not be ordered.
    pub is_query: bool,
    /// What was seen without a slot, and when that was told.
    pub seen: Option<(u64, Seen)>,
}

/// A process that is started for one thing, keeps nothing of those before it, and so asks the cluster
/// first where its session may lie.
struct Visit {
    inquiry: Inquiry,
    /// What its question is told by.
    asks_about: SessionId,
    wants: Vec<(Level, Follow, Vec<Bytes>)>,
    /// When it asks again, and how long it waits after that.
    again: u64,
    wait: u64,
    /// When it no longer waits for more replicas to answer.
    decide: Option<u64>,
}

/// So often an operation is drawn until it is one that changes nothing.
const DRAWS: usize = 16;

/// How long a visit waits for more answers than it needs, in microseconds.
const GRACE: u64 = 30_000;

/// See the [module](self).
pub struct Patron {
    id: ClientId,
    membership: Arc<Membership>,
    signer: Arc<dyn Signer>,
    /// Its clocks.
    pub clock: Clock,
    sessions: Vec<Client>,
    /// Those that take submissions, by index.
    usable: Vec<usize>,
    window: u64,
    timing: Timing,
    taste: Taste,
    /// Whether each load is a process of its own.
    one_shot: bool,
    visits: Vec<Visit>,
    asked: BTreeMap<Ticket, Asked>,
    /// What it has seen, and what of its requests was answered since it asked for something with that.
    past: Past,
    /// What it had seen at some time before, as another process would hand it on.
    older: Past,
    /// Whether it is left to chance what it asks for, which it is not where a page is played.
    by_chance: bool,
    written: Vec<RequestName>,
    again: Option<Put>,
    /// All that it ever asked for, in that order.
    pub stories: BTreeMap<Ticket, Story>,
    tickets: u64,
    roots: VerifiedRoots,
    rng: Rng,
    /// Of the bits that tell its sessions apart.
    random_max: u64,
    /// What it counted.
    pub coverage: Coverage,
    /// Readable words about what it was told, newest last; for scripted traces.
    pub told: Vec<String>,
}

/// What a client process wants of the world.
#[derive(Default)]
pub struct Wants {
    /// To one replica or to all.
    pub sends: Vec<(Option<ReplicaId>, ToReplica)>,
    /// What it was promised.
    pub promises: Vec<Promise>,
    /// What it was shown that asked with a past.
    pub glimpses: Vec<Glimpse>,
}

impl Wants {
    fn extend(&mut self, more: Self) {
        self.sends.extend(more.sends);
        self.promises.extend(more.promises);
        self.glimpses.extend(more.glimpses);
    }
}

impl Patron {
    /// A process of this kind.
    #[must_use]
    pub fn new(
        membership: Arc<Membership>,
        signer: Arc<dyn Signer>,
        planned: PatronPlan,
        window: u64,
        timing: Timing,
        rng: Rng,
    ) -> Self {
        let mut patron = Self {
            id: signer.public_key().into(),
            membership,
            signer,
            clock: Clock::off_by(0, 0),
            sessions: Vec::new(),
            usable: Vec::new(),
            window,
            timing,
            taste: planned.taste,
            one_shot: planned.one_shot,
            visits: Vec::new(),
            asked: BTreeMap::new(),
            past: Past::default(),
            older: Past::default(),
            by_chance: false,
            written: Vec::new(),
            again: None,
            stories: BTreeMap::new(),
            tickets: 0,
            roots: VerifiedRoots::default(),
            rng,
            // Short words serve where nobody else has the key.
            random_max: planned.key_of.map_or(u16::MAX.into(), |_| u32::MAX.into()),
            coverage: Coverage::default(),
            told: Vec::new(),
        };
        (0..planned.sessions).for_each(|_| patron.open_session());
        patron
    }

    /// Which client it is.
    #[must_use]
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// A session of a process that lives for long. Few are opened with one key, so that none ever
    /// leaves and the cluster need not be asked where it may lie.
    fn open_session(&mut self) {
        self.usable.push(self.sessions.len());
        self.open_session_in(SessionId::default());
    }

    /// A session in the generation that begins at `opening`.
    fn open_session_in(&mut self, opening: SessionId) {
        let session = loop {
            let random = u32::try_from(self.rng.between(0, self.random_max)).expect("32 bits");
            let session = opening.told_apart_by(random);
            if self.sessions.iter().all(|known| known.session() != session) {
                break session;
            }
        };
        self.sessions.push(Client::new(Setup {
            membership: self.membership.clone(),
            client: self.id,
            session,
            next: RequestNumber::FIRST,
            timing: self.timing,
            window: self.window,
            pipeline: 4,
        }));
    }

    /// A request of this number in its newest session, whatever the session's window says.
    ///
    /// # Panics
    /// Where the operations do not fit a frame.
    #[must_use]
    pub fn raw_request(&self, number: u64, operations: Vec<Bytes>) -> Bytes {
        let session = self.sessions.last().map(Client::session).unwrap_or_default();
        let body = Request {
            client: self.id,
            session,
            number: RequestNumber(number),
            level: Level::Weak,
            want_final: false,
            operations,
        };
        let request = SignedRequest::sign(&*self.signer, self.membership.genesis(), body);
        encode(&ToReplica::Request(request)).expect("a small request")
    }

    /// Submissions that are not done with.
    #[must_use]
    pub fn open(&self) -> usize {
        self.asked.len() + self.visits.len()
    }

    /// Submits operations of random levels, to one session or another.
    ///
    /// # Errors
    /// As [`Patron::submit`].
    pub fn load(
        &mut self,
        time: u64,
        mut operation: impl FnMut(&mut Rng) -> Bytes,
        only_reads: impl Fn(&Bytes) -> bool,
    ) -> Result<Wants, Violation> {
        self.by_chance = true;
        let count = if self.rng.one_in(3) { self.rng.between(2, 6) } else { 1 };
        let mut submissions = Vec::new();
        for _ in 0..count {
            let (level, follow) = match (self.taste, self.rng.between(0, 9)) {
                (Taste::Strong, _) | (Taste::Mixed, 0..=2) => (Level::Strong, Follow::No),
                (Taste::Mixed, 3..=5) => (Level::Weak, Follow::Yes),
                (Taste::Mixed, 6) => (Level::Weak, Follow::MayAsk),
                (Taste::Weak, _) | (Taste::Mixed, _) => (Level::Weak, Follow::No),
            };
            let operations =
                (0..self.rng.between(1, 3)).map(|_| operation(&mut self.rng)).collect();
            submissions.push((level, follow, operations));
        }
        if self.one_shot {
            submissions.truncate(1);
            return Ok(self.visit(time, submissions));
        }
        let session = *self.rng.pick(&self.usable);
        let is_read = |(_, follow, operations): &(Level, Follow, Vec<Bytes>)| {
            *follow == Follow::No && operations.iter().all(&only_reads)
        };
        let (mut reads, rest): (Vec<_>, Vec<_>) = submissions.into_iter().partition(is_read);
        if self.rng.one_in(2) {
            let level = if self.rng.one_in(2) { Level::Strong } else { Level::Weak };
            let level = if self.taste == Taste::Weak { Level::Weak } else { level };
            let read = (0..DRAWS).map(|_| operation(&mut self.rng)).find(&only_reads);
            reads.extend(read.map(|read| (level, Follow::No, vec![read])));
        }
        let mut wants = Wants::default();
        for (level, _, operations) in reads {
            if !self.has_asked_with_past() && self.rng.one_in(2) {
                self.ask_with_past(time, session, level, operations, &mut wants)?;
            } else {
                self.ask(time, session, level, operations, &mut wants)?;
            }
        }
        if !rest.is_empty() {
            let more = self.submit(time, session, rest)?;
            wants.extend(more);
        }
        Ok(wants)
    }

    /// Asks what operations come to that change nothing.
    ///
    /// # Errors
    /// What comes of it breaks a rule.
    pub fn ask(
        &mut self,
        time: u64,
        session: usize,
        level: Level,
        operations: Vec<Bytes>,
        wants: &mut Wants,
    ) -> Result<(), Violation> {
        let ticket = self.note_query(time, level, &operations);
        self.put(Put { at: time, session, ticket, level, operations }, None, wants)
    }

    /// The beginning of the story of a query.
    fn note_query(&mut self, time: u64, level: Level, operations: &[Bytes]) -> Ticket {
        let ticket = self.note(time, level, Follow::No, operations);
        self.stories.get_mut(&ticket).expect("it was just noted").is_query = true;
        ticket
    }

    fn put(&mut self, it: Put, past: Option<Past>, wants: &mut Wants) -> Result<(), Violation> {
        let Put { at, session, ticket, level, operations } = it;
        let nonce = self.rng.bytes();
        let ask = Ask { ticket, level, operations, past, nonce, alone: false };
        let session = session.min(self.sessions.len() - 1);
        self.tell(at, session, Event::Ask(ask), wants)
    }

    /// Whether it waits for an answer that includes what it has seen: one at a time.
    fn has_asked_with_past(&self) -> bool {
        self.asked.values().any(|asked| asked.past.is_some())
    }

    /// Asks what operations come to that change nothing, in a history that includes all that it has seen.
    ///
    /// # Errors
    /// What comes of it breaks a rule.
    pub fn ask_with_past(
        &mut self,
        time: u64,
        session: usize,
        level: Level,
        operations: Vec<Bytes>,
        wants: &mut Wants,
    ) -> Result<(), Violation> {
        let ticket = self.note_query(time, level, &operations);
        let asked = self.asked.get_mut(&ticket).expect("it was just noted");
        self.written.clear();
        let is_joined = self.by_chance && self.rng.one_in(4);
        let joined = is_joined.then(|| self.past.clone().joined(&self.older)).flatten();
        asked.past = Some((joined.unwrap_or_else(|| self.past.clone()), 0));
        self.ask_again(Put { at: time, session, ticket, level, operations }, wants)
    }

    fn ask_again(&mut self, again: Put, wants: &mut Wants) -> Result<(), Violation> {
        let asked = self.asked.get_mut(&again.ticket).expect("it is asked until it is done with");
        let (past, times) = asked.past.as_mut().expect("it was asked with a past");
        *times += 1;
        let past = past.clone();
        self.put(again, Some(past), wants)
    }

    /// Too few include what it has seen: it asks again, or gives up and begins anew.
    fn not_seen(
        &mut self,
        time: u64,
        session: usize,
        ticket: Ticket,
        without: &BTreeMap<ReplicaId, NoReply>,
    ) -> Result<(), Violation> {
        let words: Vec<_> = without.iter().map(|(id, why)| format!("{id} {why}")).collect();
        for why in without.values() {
            self.coverage.mark(match why {
                NoReply::Unable => "past: unable",
                NoReply::NotYet => "past: not yet",
                NoReply::Unknown => "past: unknown",
            });
        }
        let times = self.asked.get(&ticket).and_then(|asked| asked.past.as_ref());
        let times = times.map(|(_, times)| *times).ok_or_else(|| {
            Violation::new("honest", format!("{ticket:?} has no past, and is not seen for it"))
        })?;
        if times < PAST_ASKED_MAX {
            let Story { level, operations, .. } = self.stories[&ticket].clone();
            let at = time + (PAST_WAIT << times);
            self.again = Some(Put { at, session, ticket, level, operations });
        } else {
            self.coverage.mark("past: given up");
            self.told.push(format!("not seen: {}", words.join(", ")));
            self.asked.remove(&ticket);
            self.past = Past::default();
        }
        Ok(())
    }

    /// What was answered is part of what it has seen.
    fn note_written(&mut self, name: RequestName) {
        self.written.push(name);
        if !self.past.note_written(name.client, name.session, name.number) {
            self.coverage.mark("past: full");
            self.past = Past::default();
        }
    }

    /// The beginning of a story.
    fn note(&mut self, time: u64, level: Level, follow: Follow, operations: &[Bytes]) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let asked = Asked { at: time, level, follow, is_answered: false, past: None };
        self.asked.insert(ticket, asked);
        let (answered, finally, seen) = (None, None, None);
        let operations = operations.to_vec();
        let is_query = false;
        let story = Story { asked: time, level, operations, answered, finally, is_query, seen };
        self.stories.insert(ticket, story);
        ticket
    }

    /// A new process with no memory asks where its session may lie.
    fn visit(&mut self, time: u64, wants: Vec<(Level, Follow, Vec<Bytes>)>) -> Wants {
        let asks_about = SessionId(u64::from_le_bytes(self.rng.bytes()));
        let inquiry = Inquiry::new(self.id, asks_about, RequestNumber::FIRST);
        let question = inquiry.question();
        let wait = self.timing.first_retry_ms * 1000;
        let again = time + wait;
        self.visits.push(Visit { inquiry, asks_about, wants, again, wait, decide: None });
        Wants { sends: vec![(None, question)], ..Wants::default() }
    }

    /// Opens the sessions of the visits that know enough, and asks again for the others.
    fn go_on_visiting(&mut self, time: u64, wants: &mut Wants) -> Result<(), Violation> {
        let size = self.membership.size();
        for mut visit in std::mem::take(&mut self.visits) {
            let found = visit.inquiry.found(size);
            let all = size.members().all(|replica| visit.inquiry.has_heard(replica));
            if found.is_some() && visit.decide.is_none() {
                visit.decide = Some(time + GRACE);
            }
            let is_due = all || visit.decide.is_some_and(|decide| decide <= time);
            if let Some(found) = found.filter(|_| is_due) {
                self.coverage.mark("client: came without memory");
                if found.opening.generation() > 0 {
                    self.coverage.mark("client: later generation");
                }
                self.open_session_in(found.opening);
                let session = self.sessions.len() - 1;
                let more = self.submit(time, session, visit.wants)?;
                wants.extend(more);
                continue;
            }
            if visit.again <= time {
                visit.wait = (visit.wait * 2).min(self.timing.max_retry_ms * 1000);
                visit.again = time + visit.wait;
                wants.sends.push((None, visit.inquiry.question()));
            }
            self.visits.push(visit);
        }
        Ok(())
    }

    /// Submits these to one of the sessions.
    ///
    /// # Errors
    /// What comes of it breaks a rule.
    pub fn submit(
        &mut self,
        time: u64,
        session: usize,
        submissions: Vec<(Level, Follow, Vec<Bytes>)>,
    ) -> Result<Wants, Violation> {
        let submissions = submissions
            .into_iter()
            .map(|(level, follow, operations)| {
                let ticket = self.note(time, level, follow, &operations);
                Submission { ticket, level, follow, operations, alone: false }
            })
            .collect();
        let mut wants = Wants::default();
        let session = session.min(self.sessions.len() - 1);
        self.tell(time, session, Event::Submit(submissions), &mut wants)?;
        Ok(wants)
    }

    /// Signs what is to be signed, all of it together.
    fn sign(&mut self, actions: &[Action]) -> Vec<Arc<SignedRequest>> {
        let to_sign = actions.iter().filter_map(|action| match action {
            Action::Sign(request) => Some(request.clone()),
            _ => None,
        });
        let requests: Vec<_> = to_sign.collect();
        match requests.len() {
            0 => return Vec::new(),
            1 => {}
            _ => self.coverage.mark("client: requests signed together"),
        }
        SignedRequest::sign_all(&*self.signer, self.membership.genesis(), requests)
    }

    fn tell(
        &mut self,
        time: u64,
        session: usize,
        event: Event,
        wants: &mut Wants,
    ) -> Result<(), Violation> {
        let mut actions = Vec::new();
        let resent = self.sessions[session].counters().resent;
        self.sessions[session].handle(self.clock.at(time), event, &mut actions);
        let resent = self.sessions[session].counters().resent - resent;
        self.coverage.add("client: resent", resent);
        let mut signed = self.sign(&actions).into_iter();
        for action in actions {
            match action {
                Action::Sign(_) => {
                    let signed = signed.next().expect("all are signed");
                    self.tell(time, session, Event::Signed(signed), wants)?;
                }
                Action::Send { to, message } => wants.sends.push((to, message)),
                Action::Awaits { .. } => {}
                Action::Answered { ticket, answer } => {
                    let promise = self.promise(time, ticket, &answer, false)?;
                    self.note_written(promise.name);
                    wants.promises.push(promise);
                    let asked = self.asked.get_mut(&ticket).expect("checked by `promise`");
                    asked.is_answered = true;
                    match asked.follow {
                        Follow::No => self.forget(ticket),
                        Follow::MayAsk => {
                            asked.follow = Follow::Yes;
                            self.tell(time, session, Event::WantFinal(ticket), wants)?;
                        }
                        Follow::Yes if asked.level == Level::Strong => self.forget(ticket),
                        Follow::Yes => {}
                    }
                }
                Action::Seen { ticket, seen } => self.saw(time, ticket, seen, wants)?,
                Action::NotSeen { ticket, without } => {
                    self.not_seen(time, session, ticket, &without)?;
                }
                Action::MustOrder(submission) => {
                    self.coverage.mark("client: query had to be ordered");
                    self.told.push(String::from("a query has to be ordered"));
                    let usable = self.usable.contains(&session) || self.one_shot;
                    let session = if usable { session } else { *self.rng.pick(&self.usable) };
                    self.tell(time, session, Event::Submit(vec![submission]), wants)?;
                }
                Action::Final { ticket, answer, finality } => {
                    let promise = self.promise(time, ticket, &answer, true)?;
                    wants.promises.push(promise);
                    let first = self.stories.get(&ticket).and_then(|story| story.answered.as_ref());
                    if let Some(first) = first {
                        let what = compare(first, &answer, &finality)?;
                        what.into_iter().for_each(|what| self.coverage.mark(what));
                    }
                    self.asked.remove(&ticket);
                }
                Action::Failed { ticket, failure } => self.failed(ticket, failure)?,
                Action::SessionUnusable { reason, unsent } => {
                    self.coverage.mark("client: new session");
                    self.told.push(format!("session closed: {reason}"));
                    self.usable.retain(|usable| *usable != session);
                    if self.one_shot {
                        demand(unsent.is_empty(), "honest", || {
                            "a process that wants one thing has something left to send".into()
                        })?;
                        continue;
                    }
                    self.open_session();
                    let next = self.sessions.len() - 1;
                    if !unsent.is_empty() {
                        self.tell(time, next, Event::Submit(unsent), wants)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn forget(&mut self, ticket: Ticket) {
        self.asked.remove(&ticket);
    }

    /// A query is answered.
    fn saw(
        &mut self,
        time: u64,
        ticket: Ticket,
        seen: Seen,
        wants: &mut Wants,
    ) -> Result<(), Violation> {
        let asked = self.asked.remove(&ticket).ok_or_else(|| {
            Violation::new("honest", format!("the client core answers {ticket:?} once too often"))
        })?;
        let kind = match asked.level {
            Level::Strong => "seen strong",
            Level::Weak => "seen weak",
        };
        self.coverage.mark(kind);
        let results: Vec<_> = seen.results.iter().map(|r| String::from_utf8_lossy(r)).collect();
        let slot = seen.at.map_or(seen.slot, |at| at.slot);
        let with = if asked.past.is_some() { ", all that was seen before included" } else { "" };
        self.told.push(format!("{kind} slot={slot} results=[{}]{with}", results.join(", ")));
        demand(seen.at.is_some() == asked.past.is_some(), "honest", || {
            format!("the client core names a history for {ticket:?}, or none: {:?}", seen.at)
        })?;
        if let (Some(at), Some((past, _))) = (seen.at, asked.past) {
            self.coverage.mark("past: read");
            if past.read().len() > 1 {
                self.coverage.mark("past: read after two histories");
            }
            wants.glimpses.push(Glimpse { ticket, past, at });
            self.past = Past::default();
            self.past.note_read(at);
            if self.by_chance && self.rng.one_in(4) {
                self.older = self.past.clone();
            }
            for name in std::mem::take(&mut self.written) {
                let has_room = self.past.note_written(name.client, name.session, name.number);
                demand(has_room, "honest", || {
                    String::from("no room in a past for what came since")
                })?;
            }
        }
        if let Some(story) = self.stories.get_mut(&ticket) {
            story.seen = Some((time, seen));
        }
        Ok(())
    }

    fn failed(&mut self, ticket: Ticket, failure: Failure) -> Result<(), Violation> {
        self.coverage.mark(&format!("client: failed, {failure:?}"));
        self.told.push(format!("failed: {failure}"));
        // Nothing else can happen to who keeps to the rules. Results are only kept for a while, and
        // who was cut off for long comes too late for them; where very many came without memory, also
        // for its session; and a client that is being added is turned away as long as too few list it.
        // What it sent may have been executed, all the same.
        let has_left = failure == Failure::Refused(RefusalReason::SessionRetired);
        let is_stranger = failure == Failure::Refused(RefusalReason::UnknownClient);
        let may_be =
            failure == Failure::ResultForgotten || (self.one_shot && has_left) || is_stranger;
        demand(may_be, "liveness", || format!("an honest client is told: {failure}"))?;
        demand(self.asked.remove(&ticket).is_some(), "honest", || {
            format!("the client core fails {ticket:?}, which is done with")
        })
    }

    /// What an answer promises, after a look at its proof.
    fn promise(
        &mut self,
        time: u64,
        ticket: Ticket,
        answer: &Answer,
        is_final: bool,
    ) -> Result<Promise, Violation> {
        let size = self.membership.size();
        let (n, f) = (usize::from(size.replicas()), usize::from(size.faulty()));
        let asked = self.asked.get(&ticket).cloned().ok_or_else(|| {
            Violation::new("honest", format!("the client core answers {ticket:?} once too often"))
        })?;
        let strong = asked.level == Level::Strong || is_final;
        let rule = if strong { "strong" } else { "weak" };
        let voters: BTreeSet<ReplicaId> = answer.receipt.votes.iter().map(|vote| vote.by).collect();
        let needed = match answer.kind {
            ReplyKind::Speculative => f + 1,
            ReplyKind::Committed => (n + f) / 2 + 1,
        };
        let is_weak_on_committed = !strong && answer.kind == ReplyKind::Committed;
        let needed = if is_weak_on_committed { f + 1 } else { needed };
        demand(voters.len() >= needed, rule, || {
            format!("an answer rests on {voters:?} alone, {needed} are needed")
        })?;
        demand(!strong || answer.kind == ReplyKind::Committed, rule, || {
            format!("{ticket:?} is called final on speculative replies")
        })?;
        if voters.len() > (n + f) / 2 || answer.kind == ReplyKind::Speculative {
            answer
                .receipt
                .verify(&self.membership)
                .map_err(|error| Violation::new(rule, format!("a bad receipt: {error}")))?;
        }
        self.coverage.mark(match (strong, is_final) {
            (_, true) => "answer final",
            (true, _) => "answer strong",
            (false, _) => "answer weak",
        });
        self.told.push(in_words(if is_final { "final" } else { rule }, answer, &voters));
        let told = Told {
            at: time,
            name: answer.receipt.reply.name,
            slot: answer.slot,
            hash: answer.hash,
            index: answer.index,
            results: answer.results.clone(),
        };
        if let Some(story) = self.stories.get_mut(&ticket) {
            if strong {
                story.finally = Some(told.clone());
            }
            story.answered.get_or_insert(told);
        }
        Ok(Promise {
            name: answer.receipt.reply.name,
            level: asked.level,
            kind: if is_weak_on_committed { ReplyKind::Speculative } else { answer.kind },
            asked: asked.at,
            answered: time,
            slot: answer.slot,
            hash: answer.hash,
            index: answer.index,
            results: answer.results.clone(),
        })
    }

    /// Something came from a replica.
    ///
    /// # Errors
    /// What comes of it breaks a rule.
    pub fn hear(
        &mut self,
        time: u64,
        from: ReplicaId,
        words: ToClient,
    ) -> Result<Wants, Violation> {
        let mut wants = Wants::default();
        let mut events = Vec::new();
        match words {
            ToClient::Replies(replies) => {
                for signed in replies {
                    let session = signed.reply.name.session;
                    match self.membership.open_reply_cached(signed, &mut self.roots) {
                        Ok(reply) => events.push((session, Event::Reply { from, reply })),
                        Err(_) => self.coverage.mark("client: bad reply"),
                    }
                }
            }
            ToClient::QueryReplies(replies) => {
                for signed in replies {
                    match self.membership.open_reply_cached(signed, &mut self.roots) {
                        Ok(reply) => {
                            events.push((reply.reply.session, Event::QueryReply { from, reply }));
                        }
                        Err(_) => self.coverage.mark("client: bad reply"),
                    }
                }
            }
            ToClient::NoQueryReply(session, query, why) => {
                events.push((session, Event::NoQueryReply { from, query, why }));
            }
            ToClient::Refusal(refusal) => match self.membership.open(refusal) {
                Ok(refusal) => {
                    let (session, reason) = (refusal.body.name.session, refusal.body.reason);
                    self.told.push(format!("{from} refuses: {reason}"));
                    events.push((session, Event::Refusal(refusal)));
                }
                Err(_) => self.coverage.mark("client: bad reply"),
            },
            ToClient::Busy(name) => {
                self.coverage.mark("client: busy");
                events.push((name.session, Event::Busy { from, name }));
            }
            ToClient::Session(report) => {
                if let Ok(report) = self.membership.open(report) {
                    let asked = report.body.session;
                    let of = self.visits.iter_mut().find(|visit| visit.asks_about == asked);
                    if let Some(visit) = of {
                        visit.inquiry.hear(report);
                    }
                }
                self.go_on_visiting(time, &mut wants)?;
            }
            ToClient::Challenge(_)
            | ToClient::Terms(_)
            | ToClient::Welcome
            | ToClient::Greeting(_)
            | ToClient::Peer(_)
            | ToClient::Part(_)
            | ToClient::Farewell(_)
            | ToClient::Status(_)
            | ToClient::Evidence(_)
            | ToClient::State(_)
            | ToClient::Piece { .. } => {}
        }
        for (session, event) in events {
            if let Some(index) = self.sessions.iter().position(|core| core.session() == session) {
                self.tell(time, index, event, &mut wants)?;
            }
        }
        Ok(wants)
    }

    /// When it wants to be woken, in the world's time.
    #[must_use]
    pub fn wake_at(&self) -> Option<u64> {
        self.sessions
            .iter()
            .filter_map(Client::deadline)
            .min()
            .map(|instant| self.clock.when(instant))
            .into_iter()
            .chain(self.again.as_ref().map(|again| again.at))
            .chain(
                self.visits
                    .iter()
                    .map(|visit| visit.decide.map_or(visit.again, |at| at.min(visit.again))),
            )
            .min()
    }

    /// The time has come.
    ///
    /// # Errors
    /// What comes of it breaks a rule.
    pub fn wake(&mut self, time: u64) -> Result<Wants, Violation> {
        let mut wants = Wants::default();
        for session in 0..self.sessions.len() {
            self.tell(time, session, Event::Tick, &mut wants)?;
        }
        self.go_on_visiting(time, &mut wants)?;
        if let Some(again) = self.again.take_if(|again| again.at <= time) {
            self.ask_again(Put { at: time, ..again }, &mut wants)?;
        }
        Ok(wants)
    }

    /// What is still open, for a liveness report.
    #[must_use]
    pub fn complaint(&self) -> String {
        self.asked
            .iter()
            .map(|(ticket, asked)| {
                let progress = self.sessions.iter().find_map(|core| core.progress(*ticket));
                format!("{ticket:?} {asked:?} {progress:?}")
            })
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// Whether a client that was answered something is told rightly what became of it. Answers what
/// there is to count.
fn compare(
    first: &Told,
    last: &Answer,
    finality: &Finality,
) -> Result<Option<&'static str>, Violation> {
    let is_same = first.results == last.results;
    match finality {
        Finality::Same => {
            demand(is_same, "reported", || {
                format!(
                    "{:?} was answered {:?}, is final with {:?}, and that is called the same",
                    first.name, first.results, last.results
                )
            })?;
            Ok(None)
        }
        Finality::Reordered { results } => {
            demand(*results == last.results, "reported", || {
                format!("{:?} is final with {:?}, not {results:?}", first.name, last.results)
            })?;
            Ok(Some(if is_same { "client: moved" } else { "client: result changed" }))
        }
    }
}

fn in_words(kind: &str, answer: &Answer, voters: &BTreeSet<ReplicaId>) -> String {
    let results: Vec<_> = answer.results.iter().map(|r| String::from_utf8_lossy(r)).collect();
    let voters: Vec<_> = voters.iter().map(ToString::to_string).collect();
    let (results, voters) = (results.join(", "), voters.join(","));
    format!("{kind} slot={} results=[{results}] by={voters}", answer.slot)
}
