//! The task that owns the sessions: commands and messages in, frames and answers out.

mod opening;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use elea_protocol::client::{
    Action, Answer, Ask, Client as Core, Event, Failure, Finality, Progress, Seen, Setup,
    Submission, Ticket, Timing, Unusable,
};
use elea_protocol::codec::{self, Canonical as _};
use elea_protocol::evidence::Evidence;
use elea_protocol::id::{
    ClientId, Instant as CoreInstant, Now, ReplicaId, RequestNumber, SessionId, Slot, WallTime,
};
use elea_protocol::membership::Membership;
use elea_protocol::message::{
    Lent, Level, NoReply, NodeStatus, Position, SignedRequest, StateHead, ToReplica,
};
use elea_protocol::quorum::Strength;
use elea_protocol::seal::Verified;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use self::opening::Opening;
use crate::audience::Seat;
use crate::error::{Error, ReplicaNote};
use crate::lines::Lines;
use crate::link::{Inbound, Link, Question, Said};
use crate::live::{Live, Used};
use crate::sessions::{SessionError, Sessions};
use crate::signing::SignedFor;

/// The most sessions one client has in use at one time.
pub(crate) const LIVE_MAX: usize = 8;
/// The most submissions that are taken up together.
const COMMANDS_AT_ONCE: usize = 2048;
/// Nothing is due before this, where nothing is due at all.
const FAR: Duration = Duration::from_secs(3600);

/// What the handles ask for.
pub(crate) enum Command {
    Do(Work, Waiter),
    WantFinal(Ticket),
    Cancel(Ticket),
    Explain(Ticket, oneshot::Sender<Progress>),
    Status { nonce: u64, answers: Answers<NodeStatus> },
    Evidence(Answers<Vec<Evidence>>),
    State(Answers<Option<StateHead>>),
    Piece { from: ReplicaId, at: Position, index: u32, answers: Answers<Lent> },
    Close { deadline: Instant, done: oneshot::Sender<()> },
}

/// What somebody waits for.
#[derive(Debug)]
pub(crate) enum Work {
    Submit(Submission),
    Ask(Ask),
}

impl Work {
    fn ticket(&self) -> Ticket {
        match self {
            Self::Submit(submission) => submission.ticket,
            Self::Ask(ask) => ask.ticket,
        }
    }

    fn level(&self) -> Level {
        match self {
            Self::Submit(submission) => submission.level,
            Self::Ask(ask) => ask.level,
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Given {
    Answer(Answer),
    Seen(Seen),
    /// What those said that have no reply, where it was asked with a past.
    NotSeen(BTreeMap<ReplicaId, NoReply>),
}

/// Where the answers of replicas go, in the order in which they come.
pub(crate) type Answers<T> = mpsc::UnboundedSender<(ReplicaId, T)>;

pub(crate) type FinalWord = Result<(Finality, Answer), Error>;

/// Who waits for a submission.
pub(crate) struct Waiter {
    pub answer: Option<oneshot::Sender<Result<Given, Error>>>,
    pub finality: Option<oneshot::Sender<FinalWord>>,
    /// Bounds how many wait; given back with the answer.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// What an owner is made of.
pub(crate) struct Parts {
    pub membership: Arc<Membership>,
    pub client: ClientId,
    pub sessions: Sessions,
    pub lines: Arc<Lines>,
    /// The way back from [signing](crate::signing).
    pub signed: SignedFor,
    pub seat: Seat,
    pub timing: Timing,
    pub window: u64,
    pub pipeline: usize,
}

pub(crate) struct Owner {
    pub(crate) parts: Parts,
    pub(crate) start: Instant,
    pub(crate) live: BTreeMap<SessionId, Live>,
    pub(crate) serving: Option<SessionId>,
    /// The newest slot that was told to anybody, in sessions before the one in use.
    pub(crate) newest: Slot,
    pub(crate) waiters: HashMap<Ticket, (SessionId, Waiter)>,
    /// What waits for a session.
    pub(crate) held: Vec<(Work, Waiter)>,
    pub(crate) opening: Option<Opening>,
    pub(crate) statuses: HashMap<u64, Answers<NodeStatus>>,
    pub(crate) proofs: Vec<Answers<Vec<Evidence>>>,
    pub(crate) states: Vec<Answers<Option<StateHead>>>,
    pub(crate) pieces: Vec<((Position, u32), Answers<Lent>)>,
    pub(crate) closing: Option<Closing>,
}

pub(crate) struct Closing {
    /// Nothing is waited for beyond this.
    deadline: Instant,
    done: Option<oneshot::Sender<()>>,
}

impl Owner {
    /// An owner that begins to look for its first session.
    pub async fn start(parts: Parts) -> Result<Self, Error> {
        let now = Instant::now();
        let mut owner = Self {
            parts,
            start: now,
            live: BTreeMap::new(),
            serving: None,
            newest: Slot::GENESIS,
            waiters: HashMap::new(),
            held: Vec::new(),
            opening: None,
            statuses: HashMap::new(),
            proofs: Vec::new(),
            states: Vec::new(),
            pieces: Vec::new(),
            closing: None,
        };
        owner.must_open().await?;
        Ok(owner)
    }

    /// Runs until it is closed or every handle is gone.
    pub async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        mut inbound: mpsc::UnboundedReceiver<Inbound>,
        mut signed: mpsc::UnboundedReceiver<Arc<SignedRequest>>,
    ) {
        while !self.is_over() {
            let wake = self.wake_at();
            tokio::select! {
                biased;
                // What replicas say comes first: it makes room for what is asked.
                Some(message) = inbound.recv() => self.on_inbound(message),
                Some(request) = signed.recv() => {
                    self.handle(request.body().session, Event::Signed(request));
                }
                command = commands.recv(), if self.closing.is_none() => match command {
                    Some(first) => self.on_commands(first, &mut commands).await,
                    None => {
                        // Nobody is left to hear an answer. What was sent is still given a
                        // moment, so that the session need not be given up.
                        let patience = Duration::from_millis(self.parts.timing.stall_ms);
                        self.close(Instant::now() + patience, None);
                    }
                },
                () = sleep_until(wake) => self.on_wake(),
            }
            self.after().await;
        }
        self.end().await;
    }

    fn now(&self) -> Now {
        let micros = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        Now { instant: CoreInstant(micros), wall: wall() }
    }

    fn wake_at(&self) -> Instant {
        let due = self.live.values().filter_map(|live| live.core.deadline()).min();
        let due = due.map(|at| self.start + Duration::from_micros(at.0));
        let opening = self.opening.as_ref().map(Opening::deadline);
        let closing = self.closing.as_ref().map(|closing| closing.deadline);
        let all = [due, opening, closing].into_iter().flatten().min();
        all.unwrap_or_else(|| Instant::now() + FAR)
    }

    pub(crate) fn core(&self, session: SessionId, next: RequestNumber) -> Core {
        Core::new(Setup {
            membership: Arc::clone(&self.parts.membership),
            client: self.parts.client,
            session,
            next,
            timing: self.parts.timing,
            window: self.parts.window,
            pipeline: self.parts.pipeline,
        })
    }

    pub(crate) fn broadcast(&self, to: Option<ReplicaId>, message: &ToReplica) {
        let question = match message {
            ToReplica::AskSession(_) => Some(Question::Session),
            ToReplica::AskStatus(nonce) => Some(Question::Status(*nonce)),
            ToReplica::AskEvidence => Some(Question::Evidence),
            ToReplica::Query(_) => Some(Question::Query),
            ToReplica::AskState => Some(Question::State),
            ToReplica::AskPiece { .. } => Some(Question::Piece),
            _ => None,
        };
        // Encoded once for all. What the core makes is within bounds.
        let Ok(frame) = codec::encode(message) else { return };
        let request = match message {
            ToReplica::Request(request) => Some(request.body().name()),
            _ => None,
        };
        for link in self.parts.lines.links.iter().filter(|link| to.is_none_or(|id| id == link.id)) {
            let frame: Bytes = frame.clone();
            match question {
                Some(question) => link.ask(question, frame),
                None => link.push(request, frame),
            }
        }
    }

    async fn on_commands(
        &mut self,
        first: Command,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) {
        let mut works = Vec::new();
        let mut next = Some(first);
        for _ in 0..COMMANDS_AT_ONCE {
            let Some(command) = next.take().or_else(|| commands.try_recv().ok()) else { break };
            match command {
                Command::Do(work, waiter) => works.push((work, waiter)),
                other => {
                    // What was submitted before it is known before it.
                    self.begin(std::mem::take(&mut works)).await;
                    self.on_command(other);
                }
            }
        }
        self.begin(works).await;
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Do(..) => {}
            Command::WantFinal(ticket) => self.tell_session_of(ticket, Event::WantFinal(ticket)),
            Command::Cancel(ticket) => {
                self.held.retain(|(held, _)| held.ticket() != ticket);
                self.tell_session_of(ticket, Event::Cancel(ticket));
                self.waiters.remove(&ticket);
            }
            Command::Explain(ticket, to) => {
                let session = self.waiters.get(&ticket).map(|(session, _)| *session);
                let live = session.and_then(|session| self.live.get(&session));
                let progress = live.and_then(|live| live.core.progress(ticket));
                let _ = to.send(progress.unwrap_or_else(|| self.progress_of_held(ticket)));
            }
            Command::Status { nonce, answers } => {
                self.statuses.retain(|_, answers| !answers.is_closed());
                self.statuses.insert(nonce, answers);
                self.broadcast(None, &ToReplica::AskStatus(nonce));
            }
            Command::Evidence(answers) => {
                self.proofs.retain(|answers| !answers.is_closed());
                self.proofs.push(answers);
                self.broadcast(None, &ToReplica::AskEvidence);
            }
            Command::State(answers) => {
                self.states.retain(|answers| !answers.is_closed());
                self.states.push(answers);
                self.broadcast(None, &ToReplica::AskState);
            }
            Command::Piece { from, at, index, answers } => {
                self.pieces.retain(|(_, answers)| !answers.is_closed());
                self.pieces.push(((at, index), answers));
                self.broadcast(Some(from), &ToReplica::AskPiece { at, index });
            }
            Command::Close { deadline, done } => self.close(deadline, Some(done)),
        }
    }

    /// What waits for a session was not sent to anybody, but what it takes is known.
    fn progress_of_held(&self, ticket: Ticket) -> Progress {
        let held = self.held.iter().find(|(work, _)| work.ticket() == ticket);
        let strength = match held.map(|(work, _)| work.level()) {
            None => return Progress::default(),
            Some(Level::Weak) => Strength::Weak,
            Some(Level::Strong) => Strength::Strong,
        };
        let needed = self.parts.membership.size().quorum(strength);
        Progress { needed, ..Progress::default() }
    }

    fn close(&mut self, deadline: Instant, done: Option<oneshot::Sender<()>>) {
        self.closing = Some(Closing { deadline, done });
    }

    async fn begin(&mut self, works: Vec<(Work, Waiter)>) {
        if works.is_empty() {
            return;
        }
        match self.must_open().await {
            Ok(false) => {}
            Ok(true) => return self.held.extend(works),
            Err(error) => {
                let error = || match &error {
                    Error::QueueFull => Error::QueueFull,
                    other => Error::Configuration(other.to_string()),
                };
                return works.into_iter().for_each(|(_, mut waiter)| fail(&mut waiter, error));
            }
        }
        let Some(session) = self.serving else { return };
        let (mut batch, mut asks) = (Vec::with_capacity(works.len()), Vec::new());
        for (work, waiter) in works {
            // Its caller may have gone while it was on its way.
            if waiter.answer.as_ref().is_none_or(oneshot::Sender::is_closed) {
                continue;
            }
            self.waiters.insert(work.ticket(), (session, waiter));
            match work {
                Work::Submit(submission) => batch.push(submission),
                Work::Ask(ask) => asks.push(ask),
            }
        }
        if !batch.is_empty() {
            // A query is nothing that a cluster remembers of a session.
            if let Some(live) = self.live.get_mut(&session) {
                live.used = Used::now();
            }
            self.handle(session, Event::Submit(batch));
        }
        for ask in asks {
            self.handle(session, Event::Ask(ask));
        }
    }

    fn tell_session_of(&mut self, ticket: Ticket, event: Event) {
        if let Some((session, _)) = self.waiters.get(&ticket) {
            self.handle(*session, event);
        }
    }

    /// Hands an event to a session and does what it asks for.
    pub(crate) fn handle(&mut self, session: SessionId, event: Event) {
        let now = self.now();
        let mut actions = Vec::new();
        if let Some(live) = self.live.get_mut(&session) {
            live.core.handle(now, event, &mut actions);
        }
        for action in actions {
            self.carry_out(session, action);
        }
    }

    fn carry_out(&mut self, session: SessionId, action: Action) {
        match action {
            Action::Send { to: Some(from), message: ToReplica::Query(query) }
                if self.has_failed(from) =>
            {
                // It is not waited for.
                let query = query.digest();
                let why = NoReply::Unable;
                self.handle(session, Event::NoQueryReply { from, query, why });
            }
            Action::Sign(request) => self.parts.lines.signing.sign(request, &self.parts.signed),
            Action::Send { to, message } => self.broadcast(to, &message),
            Action::Awaits { number, what } => self.parts.seat.awaits(session, number, what),
            Action::Answered { ticket, answer: given } => {
                if let Some((_, waiter)) = self.waiters.get_mut(&ticket) {
                    answer(waiter, Ok(Given::Answer(given)));
                    if waiter.finality.is_none() {
                        self.waiters.remove(&ticket);
                    }
                }
            }
            Action::Seen { ticket, seen } => {
                if let Some((_, mut waiter)) = self.waiters.remove(&ticket) {
                    answer(&mut waiter, Ok(Given::Seen(seen)));
                }
            }
            Action::NotSeen { ticket, without } => {
                if let Some((_, mut waiter)) = self.waiters.remove(&ticket) {
                    answer(&mut waiter, Ok(Given::NotSeen(without)));
                }
            }
            Action::MustOrder(submission) => {
                // See `after`: it may be another session that takes it.
                if let Some((_, waiter)) = self.waiters.remove(&submission.ticket) {
                    self.held.push((Work::Submit(submission), waiter));
                }
            }
            Action::Final { ticket, finality, answer } => {
                if let Some((_, mut waiter)) = self.waiters.remove(&ticket)
                    && let Some(to) = waiter.finality.take()
                {
                    let _ = to.send(Ok((finality, answer)));
                }
            }
            Action::Failed { ticket, failure } => {
                if let Some((_, mut waiter)) = self.waiters.remove(&ticket) {
                    fail(&mut waiter, || failed(failure));
                }
            }
            Action::SessionUnusable { reason, unsent } => {
                self.on_unusable(session, reason, unsent);
            }
        }
    }

    fn has_failed(&self, replica: ReplicaId) -> bool {
        let failed = |link: &Link| matches!(link.note(), ReplicaNote::Failed(_));
        self.parts.lines.links.iter().any(|link| link.id == replica && failed(link))
    }

    fn on_unusable(&mut self, session: SessionId, reason: Unusable, unsent: Vec<Submission>) {
        tracing::info!(%session, %reason, "the session takes no new submissions");
        if let Some(live) = self.live.get_mut(&session) {
            live.draining = true;
        }
        if self.serving == Some(session) {
            self.serving = None;
        }
        for submission in unsent {
            // Never sent, so it may go on under another name; see `after`.
            if let Some((_, waiter)) = self.waiters.remove(&submission.ticket) {
                self.held.push((Work::Submit(submission), waiter));
            }
        }
    }

    fn on_inbound(&mut self, inbound: Inbound) {
        let Inbound { from, said, permit: _permit } = inbound;
        match said {
            Said::Replies(replies) => {
                for reply in replies {
                    let session = reply.reply.name.session;
                    self.handle(session, Event::Reply { from, reply });
                }
            }
            Said::QueryReplies(replies) => {
                for reply in replies {
                    self.handle(reply.reply.session, Event::QueryReply { from, reply });
                }
            }
            Said::NoQueryReply(session, query, why) => {
                self.handle(session, Event::NoQueryReply { from, query, why });
            }
            Said::Refusal(refusal) => {
                self.handle(refusal.body.name.session, Event::Refusal(refusal));
            }
            Said::Busy(name) => self.handle(name.session, Event::Busy { from, name }),
            Said::Session(report) => self.on_report(report),
            Said::Status(status) => self.on_status(from, status.into_inner().body),
            Said::Evidence(proofs) => {
                self.on_evidence(from, proofs.into_iter().map(Verified::into_inner).collect());
            }
            Said::State(head) => {
                let head = head.map(|head| head.into_inner());
                self.states.retain(|answers| answers.send((from, head.clone())).is_ok());
            }
            Said::Piece { at, index, lent } => {
                self.pieces.retain(|(wanted, answers)| {
                    *wanted != (at, index) || answers.send((from, lent.clone())).is_ok()
                });
            }
        }
    }

    fn on_wake(&mut self) {
        let sessions: Vec<_> = self.live.keys().copied().collect();
        for session in sessions {
            self.handle(session, Event::Tick);
        }
    }

    /// What is to be done after every event: held submissions, and sessions that are done with.
    async fn after(&mut self) {
        self.go_on_opening().await;
        // What is begun may have to be held again: a query that must be ordered.
        while self.opening.is_none() && !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            // A submission handed back by its session, or held from the start.
            self.begin(held).await;
        }
        let done: Vec<_> = self
            .live
            .iter()
            .filter(|(_, live)| live.draining && live.is_idle())
            .map(|(session, _)| *session)
            .collect();
        for session in done {
            self.release(session).await;
        }
    }

    fn on_status(&mut self, from: ReplicaId, status: NodeStatus) {
        if let Some(answers) = self.statuses.get(&status.nonce) {
            let _ = answers.send((from, status));
        }
    }

    /// The answer has no name: it goes to all who wait for one.
    fn on_evidence(&mut self, from: ReplicaId, proofs: Vec<Evidence>) {
        self.proofs.retain(|answers| answers.send((from, proofs.clone())).is_ok());
    }

    async fn release(&mut self, session: SessionId) {
        let Some(live) = self.live.remove(&session) else { return };
        self.newest = self.newest.max(live.core.newest());
        self.parts.seat.leave(session);
        let parting = live.parting();
        let lease = live.lease;
        if let Err(error) = blocking(move || lease.release(parting)).await {
            tracing::warn!(%error, %session, "the session could not be given back");
        }
    }

    fn is_over(&self) -> bool {
        let Some(closing) = &self.closing else { return false };
        let now = Instant::now();
        let answered = self.held.is_empty()
            && self.live.values().all(|live| {
                let core = &live.core;
                core.unanswered() == 0 && core.queued() == 0 && core.queries() == 0
            });
        answered || now >= closing.deadline
    }

    async fn end(mut self) {
        for (_, (_, mut waiter)) in std::mem::take(&mut self.waiters) {
            fail(&mut waiter, || Error::Closed);
        }
        self.stop_opening().await;
        let sessions: Vec<_> = self.live.keys().copied().collect();
        for session in sessions {
            self.release(session).await;
        }
        if let Some(done) = self.closing.take().and_then(|closing| closing.done) {
            let _ = done.send(());
        }
    }
}

fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since.as_millis()).unwrap_or(0))
}

fn answer(waiter: &mut Waiter, with: Result<Given, Error>) {
    waiter.permit = None;
    if let Some(to) = waiter.answer.take() {
        let _ = to.send(with);
    }
}

pub(crate) fn fail(waiter: &mut Waiter, error: impl Fn() -> Error) {
    if waiter.answer.is_some() {
        answer(waiter, Err(error()));
    } else if let Some(to) = waiter.finality.take() {
        let _ = to.send(Err(error()));
    }
}

fn failed(failure: Failure) -> Error {
    match failure {
        Failure::QueueFull | Failure::SessionClosed => Error::QueueFull,
        Failure::OutOfBounds => Error::OutOfBounds,
        Failure::ResultForgotten => Error::ResultForgotten,
        Failure::Refused(reason) => Error::Refused { reason, outcome: failure.outcome() },
    }
}

/// Files are locked and written on a thread that may wait.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SessionError> + Send + 'static,
) -> Result<T, SessionError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            Err(SessionError::Io { path: Default::default(), error: std::io::Error::other(error) })
        }
    }
}
