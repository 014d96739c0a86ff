//! The state machine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::outstanding::Outstanding;
use super::queries::{Queries, Turn};
use super::queue::Queue;
use super::words::{Accounts, Agreed, Heard};
use super::{
    Action, Awaiting, Counters, Event, Failure, Follow, Progress, Setup, Submission, Ticket,
    Timing, Unusable,
};
use crate::estimate::Estimate;
use crate::id::{ClientId, Instant, Now, ReplicaId, RequestName, RequestNumber, SessionId, Slot};
use crate::message::{Level, Reply, ReplyKind, Request, SignedReply, SignedRequest, ToReplica};
use crate::quorum::Strength;
use crate::receipt::{Proven, Receipt};

/// Beyond [`Setup::pipeline`] no more is on its way than this, in bytes.
const FRESH_BYTES: usize = 128 << 10;

/// One session of a client.
pub struct Client {
    pub(super) setup: Setup,
    pub(super) id: ClientId,
    /// Numbered and not done with.
    pub(super) outstanding: BTreeMap<RequestNumber, Outstanding>,
    /// Those of them that are not answered.
    pub(super) unanswered: BTreeSet<RequestNumber>,
    /// Those of the unanswered that were sent once only, with their bytes: what [`Setup::pipeline`] bounds.
    pub(super) fresh: BTreeMap<RequestNumber, usize>,
    /// Where to find a submission that has a number.
    pub(super) tickets: BTreeMap<Ticket, RequestNumber>,
    /// When to send what again.
    pub(super) timers: BTreeSet<(Instant, RequestNumber)>,
    pub(super) queue: Queue,
    queries: Queries,
    /// Since when the window has kept the queue from moving.
    pub(super) stalled_since: Option<Instant>,
    pub(super) unusable: Option<Unusable>,
    /// Whether a number may never be executed: see [`Client::is_whole`].
    pub(super) gave_up: bool,
    pub(super) accounts: Accounts,
    pub(super) counters: Counters,
    /// When the event that is being handled came.
    now: Instant,
    /// How long answers take.
    took: Estimate,
    /// The newest slot that it was told of: what it reads without a slot is not older.
    newest: Slot,
}

impl Client {
    /// A session that has nothing under way.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self {
            id: setup.client,
            queries: Queries::new(setup.session, setup.membership.size()),
            setup,
            outstanding: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            fresh: BTreeMap::new(),
            tickets: BTreeMap::new(),
            timers: BTreeSet::new(),
            queue: Queue::default(),
            stalled_since: None,
            unusable: None,
            gave_up: false,
            accounts: Accounts::default(),
            counters: Counters::default(),
            now: Instant::default(),
            took: Estimate::default(),
            newest: Slot::GENESIS,
        }
    }

    /// Takes one event and appends what is to be done to `actions`.
    pub fn handle(&mut self, now: Now, event: Event, actions: &mut Vec<Action>) {
        let now = now.instant;
        self.now = now;
        match event {
            Event::Submit(submissions) => self.on_submit(submissions, actions),
            Event::Ask(_) | Event::QueryReply { .. } | Event::NoQueryReply { .. } => {
                self.on_query_event(event, actions);
            }
            Event::WantFinal(ticket) => self.on_want_final(now, ticket, actions),
            Event::Cancel(ticket) => self.on_cancel(ticket, actions),
            Event::Reply { from, reply } => self.on_reply(from, reply.into_inner(), actions),
            Event::Refusal(refusal) => {
                let signed = refusal.into_inner();
                self.on_refusal(signed.by, signed.body, actions);
            }
            Event::Busy { from, name } => self.on_busy(now, from, &name),
            Event::Signed(request) => self.on_signed(request, actions),
            Event::Tick => self.on_tick(now, actions),
        }
        self.pump(now, actions);
        self.assert_invariants();
    }

    fn on_query_event(&mut self, event: Event, actions: &mut Vec<Action>) {
        let first_wait = self.first_wait_ms();
        let (accounts, counters) = (&mut self.accounts, &mut self.counters);
        let turn = &mut Turn { now: self.now, accounts, counters, actions };
        match event {
            Event::Ask(ask) => self.queries.ask(turn, ask, self.newest, first_wait),
            Event::QueryReply { from, reply } => {
                let seen = self.queries.hear(turn, from, reply.into_inner());
                self.newest = self.newest.max(seen.unwrap_or_default());
            }
            Event::NoQueryReply { from, query, why } => {
                self.queries.hear_none(turn, from, query, why);
            }
            _ => self.queries.tick(turn),
        }
    }

    /// When to come back with [`Event::Tick`] if nothing else happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let retry = self.timers.first().map(|(at, _)| *at);
        let stall = self.stalled_since.map(|since| since.after_ms(self.setup.timing.stall_ms));
        [retry, stall, self.queries.deadline()].into_iter().flatten().min()
    }

    /// The newest slot that it was told of.
    #[must_use]
    pub fn newest(&self) -> Slot {
        self.newest
    }

    /// Whoever uses it was told of this slot in another session: what is read without a slot is not older.
    pub fn was_told_of(&mut self, slot: Slot) {
        self.newest = self.newest.max(slot);
    }

    /// Which session this is.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.setup.session
    }

    /// Requests that have a number and are not done with, those included that wait to be final.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.outstanding.len()
    }

    /// Requests that have a number and are not answered.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Queries that are not answered.
    #[must_use]
    pub fn queries(&self) -> usize {
        self.queries.len()
    }

    /// Submissions that wait for a number.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The first number of the session that was not used yet.
    #[must_use]
    pub fn next(&self) -> RequestNumber {
        self.setup.next
    }

    /// Whether every number used has been executed, so that another process may go on with the
    /// next one.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.unanswered.is_empty() && !self.gave_up
    }

    /// Why the session takes no new submissions, if so.
    #[must_use]
    pub fn unusable(&self) -> Option<Unusable> {
        self.unusable
    }

    /// Whether a reply of this kind to this request is worth verifying.
    #[must_use]
    pub fn awaits(&self, name: &RequestName, kind: ReplyKind) -> bool {
        let ours = name.client == self.id && name.session == self.setup.session;
        ours && self.outstanding.get(&name.number).is_some_and(|open| match awaiting(open) {
            Awaiting::Any => true,
            Awaiting::Committed => kind == ReplyKind::Committed,
            Awaiting::Nothing => false,
        })
    }

    /// How far a submission has come; `None` when it is done with or unknown.
    #[must_use]
    pub fn progress(&self, ticket: Ticket) -> Option<Progress> {
        let size = self.setup.membership.size();
        let Some(number) = self.tickets.get(&ticket) else {
            let queued = self.queue.holds(ticket).then(Progress::default);
            return queued.or_else(|| self.queries.progress(ticket));
        };
        let open = self.outstanding.get(number)?;
        let is_answered = open.answered.is_some();
        let (matching, needed) = if is_answered || open.request.level == Level::Strong {
            let matching = open.words.most_matching(ReplyKind::Committed);
            (matching, size.quorum(Strength::Strong))
        } else {
            let matching = [ReplyKind::Speculative, ReplyKind::Committed]
                .map(|kind| open.words.most_matching(kind));
            (matching.into_iter().max().unwrap_or(0), size.quorum(Strength::Weak))
        };
        Some(Progress {
            number: Some(*number),
            sent: open.sent,
            answered: open.words.heard(),
            matching,
            needed,
            refused: open.refusals.iter().map(|(id, reason)| (id, *reason)).collect(),
            busy: open.busy.clone(),
            is_answered,
        })
    }

    /// What was dropped.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn on_submit(&mut self, submissions: Vec<Submission>, actions: &mut Vec<Action>) {
        for submission in submissions {
            let ticket = submission.ticket;
            let failure = if !submission.is_within_bounds() {
                Failure::OutOfBounds
            } else if self.unusable.is_some() {
                Failure::SessionClosed
            } else if self.queue.push(submission).is_err() {
                Failure::QueueFull
            } else {
                continue;
            };
            actions.push(Action::Failed { ticket, failure });
        }
    }

    /// Has signed and sends what the window lets out.
    fn pump(&mut self, now: Instant, actions: &mut Vec<Action>) {
        while !self.queue.is_empty()
            && self.window_is_open()
            && (self.fresh.len() < self.setup.pipeline.max(1) || self.need_not_wait())
        {
            self.send_next(now, actions);
        }
        if self.queue.is_empty() || self.window_is_open() {
            self.stalled_since = None;
        } else if self.stalled_since.is_none() {
            self.stalled_since = Some(now);
        }
    }

    /// Whether the next request can go out although so many are on their way: it would not grow while it
    /// waits, and they are small.
    fn need_not_wait(&self) -> bool {
        self.queue.has_whole_batch() && self.fresh.values().sum::<usize>() < FRESH_BYTES
    }

    fn window_is_open(&self) -> bool {
        let lowest = self.unanswered.first().copied().unwrap_or(self.setup.next);
        self.setup.next.0 - lowest.0 < self.setup.window.max(1)
    }

    fn send_next(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let batch = self.queue.next_batch();
        let Some(first) = batch.first() else { return };
        let number = self.setup.next;
        let (level, want_final) = first.terms();
        let request = Request {
            client: self.id,
            session: self.setup.session,
            number,
            level,
            want_final,
            operations: batch.iter().flat_map(|one| one.operations.iter().cloned()).collect(),
        };
        self.fresh.insert(number, request.wire_bytes());
        let mut open = Outstanding::new(request, &batch, &self.setup.timing);
        open.wait_ms = self.first_wait_ms();
        self.tickets.extend(batch.iter().map(|submission| (submission.ticket, number)));
        self.setup.next = number.next();
        actions.push(Action::Awaits { number, what: awaiting(&open) });
        self.outstanding.insert(number, open);
        self.unanswered.insert(number);
        self.send(now, number, actions);
    }

    /// How long to wait until a request is sent for the second time: what answers took of late, or they
    /// would be asked for while they are on their way. Not much longer than at first, though: the answer
    /// may have been lost.
    fn first_wait_ms(&self) -> u64 {
        let Timing { first_retry_ms, max_retry_ms, .. } = self.setup.timing;
        let usual = self.took.upper().unwrap_or_default().div_ceil(1000);
        usual.min(max_retry_ms / 4).max(first_retry_ms)
    }

    /// Sends a request to all, as soon as it is signed, and sets its timer.
    fn send(&mut self, now: Instant, number: RequestNumber, actions: &mut Vec<Action>) {
        let Some(open) = self.outstanding.get_mut(&number) else { return };
        if let Some(at) = open.retry_at.take() {
            self.timers.remove(&(at, number));
        }
        let at = now.after_ms(open.wait_ms);
        open.wait_ms = self.setup.timing.longer(open.wait_ms);
        open.sent = open.sent.saturating_add(1);
        open.since.get_or_insert(now);
        open.retry_at = Some(at);
        open.busy.clear();
        self.timers.insert((at, number));
        actions.push(match &open.signed {
            Some(request) => Self::to_all(request),
            None => Action::Sign(open.request.clone()),
        });
    }

    fn to_all(request: &Arc<SignedRequest>) -> Action {
        Action::Send { to: None, message: ToReplica::Request(Arc::clone(request)) }
    }

    fn on_signed(&mut self, request: Arc<SignedRequest>, actions: &mut Vec<Action>) {
        let open = self.outstanding.get_mut(&request.body().number);
        // What was asked for twice comes twice.
        if let Some(open) = open.filter(|open| open.signed.is_none())
            && open.digest == request.digest()
        {
            actions.push(Self::to_all(&request));
            open.signed = Some(request);
        }
    }

    fn on_want_final(&mut self, now: Instant, ticket: Ticket, actions: &mut Vec<Action>) {
        let first_wait = self.first_wait_ms();
        let Some(number) = self.tickets.get(&ticket).copied() else { return };
        let Some(open) = self.outstanding.get_mut(&number) else { return };
        let was_active = open.is_active();
        for part in open.parts.iter_mut().filter(|part| part.ticket == ticket) {
            part.follow = Follow::Yes;
        }
        if !was_active {
            open.wait_ms = first_wait;
            actions.push(Action::Awaits { number, what: Awaiting::Committed });
            self.send(now, number, actions);
        }
    }

    fn on_cancel(&mut self, ticket: Ticket, actions: &mut Vec<Action>) {
        self.queries.cancel(ticket, &mut self.accounts);
        if self.queue.remove(ticket).is_some() {
            return;
        }
        let Some(number) = self.tickets.remove(&ticket) else { return };
        let Some(open) = self.outstanding.get_mut(&number) else { return };
        open.parts.retain(|part| part.ticket != ticket);
        self.rest_or_close(number, actions);
    }

    /// After an answered request lost a part: without any it is done with, and without one that
    /// is followed it is sent no more.
    fn rest_or_close(&mut self, number: RequestNumber, actions: &mut Vec<Action>) {
        let Some(open) = self.outstanding.get_mut(&number) else { return };
        if open.answered.is_none() {
            return;
        }
        if open.parts.is_empty() {
            self.close(number, actions);
        } else if !open.is_active()
            && let Some(at) = open.retry_at.take()
        {
            self.timers.remove(&(at, number));
            actions.push(Action::Awaits { number, what: Awaiting::Nothing });
        }
    }

    pub(super) fn close(&mut self, number: RequestNumber, actions: &mut Vec<Action>) {
        let Some(mut open) = self.outstanding.remove(&number) else { return };
        open.words.clear(&mut self.accounts);
        for part in &open.parts {
            self.tickets.remove(&part.ticket);
        }
        if let Some(at) = open.retry_at {
            self.timers.remove(&(at, number));
        }
        self.unanswered.remove(&number);
        self.fresh.remove(&number);
        actions.push(Action::Awaits { number, what: Awaiting::Nothing });
    }

    pub(super) fn is_ours(&self, name: &RequestName) -> bool {
        name.client == self.id && name.session == self.setup.session
    }

    fn on_reply(&mut self, from: ReplicaId, signed: SignedReply, actions: &mut Vec<Action>) {
        let name = signed.reply.name;
        if !self.is_ours(&name) {
            self.counters.foreign += 1;
            return;
        }
        let Some(open) = self.outstanding.get_mut(&name.number) else {
            self.counters.late += 1;
            return;
        };
        // Of two contents under one name this one is about another: not ours, whoever signed it.
        if signed.reply.request != open.digest {
            self.counters.foreign += 1;
            return;
        }
        // A replica speaks for itself only, so that none can bring back another's older word.
        if signed.vote.by != from {
            self.counters.malformed += 1;
            return;
        }
        match open.words.hear(signed, open.operations(), &mut self.accounts) {
            Heard::Counted => self.decide(name.number, actions),
            Heard::Stale => self.counters.stale += 1,
            Heard::Malformed => self.counters.malformed += 1,
        }
    }

    fn agreed(&self, open: &Outstanding, kind: ReplyKind, strength: Strength) -> Option<Agreed> {
        let membership = &self.setup.membership;
        let request = open.digest;
        let name = open.request.name();
        // Place and kind are filled in by whoever knows them.
        let like = |results| Reply {
            kind,
            view: Default::default(),
            slot: Default::default(),
            hash: Default::default(),
            name,
            request,
            index: 0,
            results,
        };
        open.words.agreed(membership.size(), kind, strength, like, *membership.genesis())
    }

    /// Answers a request, or says that it is final, if the replies suffice.
    fn decide(&mut self, number: RequestNumber, actions: &mut Vec<Action>) {
        let Some(open) = self.outstanding.get(&number) else { return };
        let may_be_weak = open.answered.is_none() && open.request.level == Level::Weak;
        let final_word = (ReplyKind::Committed, Strength::Strong, Proven::Final);
        let weak_words = [ReplyKind::Speculative, ReplyKind::Committed]
            .map(|kind| (kind, Strength::Weak, Proven::Executed));
        // Agreement on results that nobody sent has to wait: see `on_tick`.
        let decided = std::iter::once(final_word)
            .chain(weak_words.into_iter().filter(|_| may_be_weak))
            .find_map(|(kind, strength, proven)| match self.agreed(open, kind, strength)? {
                Agreed::With(receipt) => Some((receipt, proven)),
                Agreed::WithoutResults => None,
            });
        if let Some((receipt, proven)) = decided {
            self.complete(number, *receipt, proven, actions);
        }
    }

    fn complete(
        &mut self,
        number: RequestNumber,
        receipt: Receipt,
        proven: Proven,
        actions: &mut Vec<Action>,
    ) {
        let Some(open) = self.outstanding.get_mut(&number) else { return };
        self.newest = self.newest.max(receipt.reply.slot);
        let receipt = Arc::new(receipt);
        if open.answered.is_none() {
            if let Some(since) = open.since {
                self.took.note(self.now, self.now.micros_since(since));
            }
            open.note_answer(&receipt);
            for part in &open.parts {
                let answer = Outstanding::answer(part, &receipt, proven);
                actions.push(Action::Answered { ticket: part.ticket, answer });
            }
        }
        if proven == Proven::Final {
            let weak = open.request.level == Level::Weak;
            for part in open.parts.iter().filter(|part| weak && part.follow != Follow::No) {
                let answer = Outstanding::answer(part, &receipt, proven);
                let finality = open.finality(part, &answer);
                actions.push(Action::Final { ticket: part.ticket, finality, answer });
            }
            self.close(number, actions);
            return;
        }
        self.unanswered.remove(&number);
        self.fresh.remove(&number);
        let Some(open) = self.outstanding.get_mut(&number) else { return };
        for part in open.parts.extract_if(.., |part| part.follow == Follow::No) {
            self.tickets.remove(&part.ticket);
        }
        if open.is_active() {
            actions.push(Action::Awaits { number, what: Awaiting::Committed });
        }
        self.rest_or_close(number, actions);
    }

    fn on_tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.on_query_event(Event::Tick, actions);
        while let Some((at, number)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            if let Some(open) = self.outstanding.get_mut(&number) {
                open.retry_at = None;
            }
            self.fresh.remove(&number);
            if self.lacks_only_results(number) {
                self.forgotten(number, actions);
            } else {
                self.counters.resent += 1;
                self.send(now, number, actions);
            }
        }
        let patience = self.setup.timing.stall_ms;
        if self.stalled_since.is_some_and(|since| since.after_ms(patience) <= now) {
            self.retire(Unusable::Stalled, actions);
        }
    }

    /// Whether enough replicas agree, after a whole wait, and none of them sent the results: they
    /// were large and are kept by nobody.
    fn lacks_only_results(&mut self, number: RequestNumber) -> bool {
        let turned_away =
            self.outstanding.get_mut(&number).is_some_and(|open| open.words.take_turned_away());
        let Some(open) = self.outstanding.get(&number) else { return false };
        let lacks = |kind, strength| {
            matches!(self.agreed(open, kind, strength), Some(Agreed::WithoutResults))
        };
        let may_be_weak = open.answered.is_none() && open.request.level == Level::Weak;
        let lacking = lacks(ReplyKind::Committed, Strength::Strong)
            || may_be_weak
                && (lacks(ReplyKind::Speculative, Strength::Weak)
                    || lacks(ReplyKind::Committed, Strength::Weak));
        lacking && !turned_away
    }

    /// Our own bugs only: nothing that a replica sends can break these.
    #[track_caller]
    fn assert_invariants(&self) {
        let Setup { next, window, .. } = self.setup;
        let lowest = self.unanswered.first().copied().unwrap_or(next);
        assert!(next.0 - lowest.0 <= window.max(1), "C1: {next} is too far beyond {lowest}");
        assert!(self.fresh.len() <= self.unanswered.len(), "C2: answered requests in the pipeline");
        assert!(self.unanswered.len() <= self.outstanding.len(), "C3: unanswered and forgotten");
    }
}

fn awaiting(open: &Outstanding) -> Awaiting {
    match (&open.answered, open.request.level) {
        (None, Level::Weak) => Awaiting::Any,
        (None, Level::Strong) => Awaiting::Committed,
        (Some(_), _) if open.is_active() => Awaiting::Committed,
        (Some(_), _) => Awaiting::Nothing,
    }
}
