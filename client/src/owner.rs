//! The task that owns the sessions: commands and messages in, frames and answers out.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use elea_protocol::client::{
    Action, Answer, Client as Core, Event, Failure, Finality, Outcome, Progress, Setup, Submission,
    Ticket, Timing, Unusable,
};
use elea_protocol::codec;
use elea_protocol::evidence::Evidence;
use elea_protocol::id::{
    Instant as CoreInstant, Now, ReplicaId, RequestNumber, SessionId, WallTime,
};
use elea_protocol::membership::Membership;
use elea_protocol::message::{NodeStatus, RefusalReason, ToReplica};
use elea_protocol::seal::{Signer, Verified};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::error::Error;
use crate::link::{Awaited, Inbound, Links, Said};
use crate::live::{Live, Settling};
use crate::sessions::{SessionError, Sessions};

/// The most sessions one client has in use at one time.
pub(crate) const LIVE_MAX: usize = 8;
/// The most submissions that are taken up together.
const COMMANDS_AT_ONCE: usize = 2048;
/// How often a client looks after the sessions of its key.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long the first request waits for the cluster to be seen quiet when the session file is new
/// or lost, and how long when so many sessions are in use that it might be refused.
const HOLD_PINNED: Duration = Duration::from_millis(60);
const HOLD_CROWDED: Duration = Duration::from_millis(1500);
/// How long a parting client waits for reports on other sessions.
const LINGER: Duration = Duration::from_millis(10);
/// The ticket under which sessions are settled; submissions have others.
pub(crate) const SETTLE: Ticket = Ticket(0);

/// What the handles ask for.
pub(crate) enum Command {
    Submit(Submission, Waiter),
    WantFinal(Ticket),
    Cancel(Ticket),
    Explain(Ticket, oneshot::Sender<Progress>),
    Status { nonce: u64, answers: Answers<NodeStatus> },
    Evidence(Answers<Vec<Evidence>>),
    Close { deadline: Instant, done: oneshot::Sender<()> },
}

/// Where the answers of replicas go, in the order in which they come.
pub(crate) type Answers<T> = mpsc::UnboundedSender<(ReplicaId, T)>;

pub(crate) type FinalWord = Result<(Finality, Answer), Error>;

/// Who waits for a submission.
pub(crate) struct Waiter {
    pub answer: Option<oneshot::Sender<Result<Answer, Error>>>,
    pub finality: Option<oneshot::Sender<FinalWord>>,
    /// Bounds how many wait; given back with the answer.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// What an owner is made of.
pub(crate) struct Parts {
    pub membership: Arc<Membership>,
    pub signer: Arc<dyn Signer>,
    pub sessions: Sessions,
    pub links: Links,
    pub awaited: Arc<Awaited>,
    pub timing: Timing,
    pub window: u64,
    pub pipeline: usize,
    pub max_sessions: usize,
}

pub(crate) struct QuietCheck {
    pub(crate) nonce: u64,
    /// What it would settle.
    pub(crate) before: Vec<(SessionId, RequestNumber)>,
    pub(crate) statuses: BTreeMap<ReplicaId, NodeStatus>,
}

pub(crate) struct Owner {
    pub(crate) parts: Parts,
    pub(crate) start: Instant,
    pub(crate) live: BTreeMap<SessionId, Live>,
    pub(crate) serving: Option<SessionId>,
    pub(crate) settling: Settling,
    pub(crate) waiters: HashMap<Ticket, (SessionId, Waiter)>,
    /// Submissions that wait until the floor is better known.
    pub(crate) held: Vec<(Submission, Waiter)>,
    pub(crate) hold_until: Option<Instant>,
    pub(crate) quiet: Option<QuietCheck>,
    pub(crate) statuses: HashMap<u64, Answers<NodeStatus>>,
    pub(crate) proofs: Vec<Answers<Vec<Evidence>>>,
    pub(crate) next_upkeep: Instant,
    pub(crate) closing: Option<Closing>,
}

pub(crate) struct Closing {
    /// Nothing is waited for beyond this.
    deadline: Instant,
    /// Nor is anything that only helps others beyond this.
    linger: Instant,
    done: Option<oneshot::Sender<()>>,
}

impl Owner {
    /// An owner with its first session.
    pub async fn start(parts: Parts) -> Result<Self, SessionError> {
        let now = Instant::now();
        let mut owner = Self {
            parts,
            start: now,
            live: BTreeMap::new(),
            serving: None,
            settling: Settling::default(),
            waiters: HashMap::new(),
            held: Vec::new(),
            hold_until: None,
            quiet: None,
            statuses: HashMap::new(),
            proofs: Vec::new(),
            next_upkeep: now + UPKEEP,
            closing: None,
        };
        owner.lease().await?;
        Ok(owner)
    }

    /// Runs until it is closed or every handle is gone.
    pub async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        mut inbound: mpsc::UnboundedReceiver<Inbound>,
    ) {
        while !self.is_over() {
            let wake = self.wake_at();
            tokio::select! {
                biased;
                // What replicas say comes first: it makes room for what is asked.
                Some(message) = inbound.recv() => self.on_inbound(message),
                command = commands.recv(), if self.closing.is_none() => match command {
                    Some(first) => self.on_commands(first, &mut commands).await,
                    None => {
                        // Nobody is left to hear an answer. What was sent is still given a
                        // moment, so that the session need not be given up.
                        let patience = Duration::from_millis(self.parts.timing.stall_ms);
                        self.close(Instant::now() + patience, None);
                    }
                },
                () = sleep_until(wake) => self.on_wake().await,
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
        let cores = self.live.values().map(|live| &live.core);
        let settling = self.settling.cores.values().map(|(core, _)| core);
        let due = cores.chain(settling).filter_map(Core::deadline).min();
        let due = due.map(|at| self.start + Duration::from_micros(at.0));
        let now = Instant::now();
        let closing = self.closing.as_ref().map(|closing| {
            if closing.linger > now {
                closing.linger.min(closing.deadline)
            } else {
                closing.deadline
            }
        });
        [due, self.hold_until, closing, Some(self.next_upkeep)]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.next_upkeep)
    }

    /// Takes a session to serve from, and starts to settle what stands in its floor's way.
    async fn lease(&mut self) -> Result<(), SessionError> {
        let sessions = self.parts.sessions.clone();
        let (now, random) = (wall(), rand::random());
        let lease = blocking(move || sessions.lease(now, random)).await?;
        let leased = lease.leased.clone();
        let core = self.core(leased.session, leased.next, leased.floor);
        self.serving = Some(leased.session);
        self.live.insert(leased.session, Live::new(core, lease));
        let crowded = leased.live * 4 >= self.parts.max_sessions * 3;
        if leased.pinned || crowded {
            let patience = if crowded { HOLD_CROWDED } else { HOLD_PINNED };
            self.hold_until = Some(Instant::now() + patience);
            self.check_quiet(leased.unsettled.clone());
        }
        self.settle(leased.unsettled);
        Ok(())
    }

    pub(crate) fn core(&self, session: SessionId, next: RequestNumber, floor: SessionId) -> Core {
        Core::new(Setup {
            membership: Arc::clone(&self.parts.membership),
            signer: Arc::clone(&self.parts.signer),
            session,
            next,
            floor,
            timing: self.parts.timing,
            window: self.parts.window,
            pipeline: self.parts.pipeline,
        })
    }

    pub(crate) fn broadcast(&self, to: Option<ReplicaId>, message: &ToReplica) {
        let question = matches!(
            message,
            ToReplica::AskSession(_) | ToReplica::AskStatus(_) | ToReplica::AskEvidence
        );
        // Encoded once for all. What the core makes is within bounds.
        let Ok(frame) = codec::encode(message) else { return };
        for link in self.parts.links.iter().filter(|link| to.is_none_or(|id| id == link.id)) {
            let frame: Bytes = frame.clone();
            if question { link.ask(frame) } else { link.push(frame) }
        }
    }

    async fn on_commands(
        &mut self,
        first: Command,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) {
        let mut submissions = Vec::new();
        let mut next = Some(first);
        for _ in 0..COMMANDS_AT_ONCE {
            let Some(command) = next.take().or_else(|| commands.try_recv().ok()) else { break };
            match command {
                Command::Submit(submission, waiter) => submissions.push((submission, waiter)),
                other => {
                    // What was submitted before it is known before it.
                    self.submit(std::mem::take(&mut submissions)).await;
                    self.on_command(other);
                }
            }
        }
        self.submit(submissions).await;
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Submit(..) => {}
            Command::WantFinal(ticket) => self.tell_session_of(ticket, Event::WantFinal(ticket)),
            Command::Cancel(ticket) => {
                self.held.retain(|(held, _)| held.ticket != ticket);
                self.tell_session_of(ticket, Event::Cancel(ticket));
                self.waiters.remove(&ticket);
            }
            Command::Explain(ticket, to) => {
                let session = self.waiters.get(&ticket).map(|(session, _)| *session);
                let live = session.and_then(|session| self.live.get(&session));
                let progress = live.and_then(|live| live.core.progress(ticket));
                let _ = to.send(progress.unwrap_or_default());
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
            Command::Close { deadline, done } => self.close(deadline, Some(done)),
        }
    }

    fn close(&mut self, deadline: Instant, done: Option<oneshot::Sender<()>>) {
        self.release_hold();
        self.closing = Some(Closing { deadline, linger: Instant::now() + LINGER, done });
    }

    async fn submit(&mut self, submissions: Vec<(Submission, Waiter)>) {
        if submissions.is_empty() {
            return;
        }
        if self.hold_until.is_some() {
            self.held.extend(submissions);
            return;
        }
        if self.serving.is_none() {
            // The one before went out of use.
            let full = self.live.len() >= LIVE_MAX;
            let failed = if full { None } else { self.lease().await.err() };
            if full || failed.is_some() {
                let error = || match &failed {
                    None => Error::QueueFull,
                    Some(error) => Error::Configuration(error.to_string()),
                };
                for (_, mut waiter) in submissions {
                    fail(&mut waiter, error);
                }
                return;
            }
            if self.hold_until.is_some() {
                self.held.extend(submissions);
                return;
            }
        }
        let Some(session) = self.serving else { return };
        let mut batch = Vec::with_capacity(submissions.len());
        for (submission, waiter) in submissions {
            // Its caller may have gone while it was on its way.
            if waiter.answer.as_ref().is_some_and(|answer| !answer.is_closed()) {
                self.waiters.insert(submission.ticket, (session, waiter));
                batch.push(submission);
            }
        }
        self.handle(session, Event::Submit(batch));
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
            // Written down before anybody hears of it.
            if let Some(through) = live.core.unsettled()
                && let Err(error) = live.lease.note_acknowledged(through)
            {
                tracing::warn!(%error, "an acknowledged weak request could not be written down");
            }
        } else if let Some((core, _)) = self.settling.cores.get_mut(&session) {
            core.handle(now, event, &mut actions);
        }
        for action in actions {
            self.carry_out(session, action);
        }
    }

    fn carry_out(&mut self, session: SessionId, action: Action) {
        match action {
            Action::Send { to, message } => self.broadcast(to, &message),
            Action::Awaits { number, what } => self.parts.awaited.set(session, number, what),
            Action::Answered { ticket, answer: given } => {
                if let Some(live) = self.live.get_mut(&session) {
                    live.note_executed(given.receipt.reply.name.number);
                }
                if let Some((_, waiter)) = self.waiters.get_mut(&ticket) {
                    answer(waiter, Ok(given));
                    if waiter.finality.is_none() {
                        self.waiters.remove(&ticket);
                    }
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
            Action::Settled { through, .. } => self.on_settled(session, through),
            Action::SessionUnusable { reason, unsent } => {
                self.on_unusable(session, reason, unsent);
            }
        }
    }

    fn on_unusable(&mut self, session: SessionId, reason: Unusable, unsent: Vec<Submission>) {
        tracing::info!(%session, %reason, "the session takes no new submissions");
        if let Some(live) = self.live.get_mut(&session) {
            live.draining = true;
        }
        if self.serving == Some(session) {
            self.serving = None;
        }
        let hopeless = match reason {
            Unusable::Refused(reason @ RefusalReason::TooManyClients) => Some(reason),
            // Another session would be one more. Room comes when old ones are settled: those who
            // ask again find out.
            Unusable::Refused(reason @ RefusalReason::TooManySessions) => {
                self.next_upkeep = Instant::now();
                Some(reason)
            }
            _ => None,
        };
        for submission in unsent {
            let Some((_, mut waiter)) = self.waiters.remove(&submission.ticket) else { continue };
            match hopeless {
                Some(reason) => {
                    fail(&mut waiter, || Error::Refused { reason, outcome: Outcome::NotExecuted })
                }
                // Never sent, so it may go on under another name; see `after`.
                None => self.held.push((submission, waiter)),
            }
        }
    }

    fn on_inbound(&mut self, inbound: Inbound) {
        let Inbound { from, said, _permit } = inbound;
        match said {
            Said::Replies(replies) => {
                for reply in replies {
                    let session = reply.reply.name.session;
                    self.handle(session, Event::Reply { from, reply });
                }
            }
            Said::Refusal(refusal) => {
                self.handle(refusal.body.name.session, Event::Refusal(refusal));
            }
            Said::Busy(name) => self.handle(name.session, Event::Busy { from, name }),
            Said::Session(report) => {
                let session = report.body.session;
                self.handle(session, Event::Session(report));
                // Retired already, by a floor that a process wrote down nowhere.
                let known = self.settling.cores.get(&session);
                if let Some((core, through)) = known
                    && core.reported().floor > session
                {
                    let through = *through;
                    self.on_settled(session, through);
                }
            }
            Said::Status(status) => self.on_status(from, status.into_inner().body),
            Said::Evidence(proofs) => {
                self.on_evidence(from, proofs.into_iter().map(Verified::into_inner).collect());
            }
        }
    }

    pub(crate) fn release_hold(&mut self) {
        // What is held goes out in `after`.
        self.hold_until = None;
    }

    async fn on_wake(&mut self) {
        let now = Instant::now();
        if self.hold_until.is_some_and(|until| until <= now) {
            self.release_hold();
        }
        let sessions: Vec<_> =
            self.live.keys().chain(self.settling.cores.keys()).copied().collect();
        for session in sessions {
            self.handle(session, Event::Tick);
        }
        if self.next_upkeep <= now {
            self.next_upkeep = now + UPKEEP;
            self.upkeep();
        }
    }

    /// What is to be done after every event: held submissions, and sessions that are done with.
    async fn after(&mut self) {
        if self.hold_until.is_none() && !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            // A submission handed back by its session, or held from the start.
            self.submit(held).await;
        }
        let done: Vec<_> = self
            .live
            .iter()
            .filter(|(_, live)| live.draining && live.is_idle())
            .map(|(session, _)| *session)
            .collect();
        for session in done {
            self.release(session).await;
            self.next_upkeep = self.next_upkeep.min(Instant::now() + LINGER);
        }
    }

    async fn release(&mut self, session: SessionId) {
        let Some(live) = self.live.remove(&session) else { return };
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
            && self.live.values().all(|l| l.core.unanswered() == 0 && l.core.queued() == 0);
        let helped = self.settling.cores.is_empty() || now >= closing.linger;
        answered && helped || now >= closing.deadline
    }

    async fn end(mut self) {
        for (_, (_, mut waiter)) in std::mem::take(&mut self.waiters) {
            fail(&mut waiter, || Error::Closed);
        }
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

fn answer(waiter: &mut Waiter, with: Result<Answer, Error>) {
    waiter.permit = None;
    if let Some(to) = waiter.answer.take() {
        let _ = to.send(with);
    }
}

fn fail(waiter: &mut Waiter, error: impl Fn() -> Error) {
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
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SessionError> + Send + 'static,
) -> Result<T, SessionError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            Err(SessionError::Io { path: Default::default(), error: std::io::Error::other(error) })
        }
    }
}
