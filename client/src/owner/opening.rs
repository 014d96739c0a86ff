//! How a session comes into use: the cluster is asked first.

use std::time::Duration;

use elea_protocol::client::Inquiry;
use elea_protocol::id::{RequestNumber, SessionId};
use elea_protocol::message::SessionReport;
use elea_protocol::seal::Verified;
use elea_protocol::signature::Signed;
use tokio::time::Instant;

use super::{LIVE_MAX, Owner, blocking, fail};
use crate::error::{Error, ReplicaNote};
use crate::live::{Live, Used};
use crate::sessions::{Lease, Parting, SessionError};

/// When enough replicas have answered, the others are given as long again, and at least this.
const GRACE_MIN: Duration = Duration::from_millis(20);

/// A question under way, with what waits for its answer.
pub(crate) struct Opening {
    inquiry: Inquiry,
    /// What the question is about.
    candidate: Candidate,
    asked: Instant,
    again: Instant,
    wait: Duration,
    /// Known once enough have answered.
    decide: Option<Instant>,
}

/// The session to go on in, if the cluster still knows it.
enum Candidate {
    /// None: a new one is needed.
    New,
    /// One that another process, or this one, gave back.
    Free(Lease),
    /// The one that is in use.
    Serving(SessionId),
}

impl Opening {
    pub fn deadline(&self) -> Instant {
        self.decide.map_or(self.again, |decide| decide.min(self.again))
    }
}

impl Owner {
    /// Whether submissions have to wait for a session; begins to look for one where nobody does.
    pub(crate) async fn must_open(&mut self) -> Result<bool, Error> {
        if self.opening.is_some() {
            return Ok(true);
        }
        let candidate = match self.serving {
            Some(session) if self.live.get(&session).is_some_and(|l| l.used.is_long_ago()) => {
                Candidate::Serving(session)
            }
            Some(_) => return Ok(false),
            None if self.live.len() >= LIVE_MAX => return Err(Error::QueueFull),
            None => {
                let sessions = self.parts.sessions.clone();
                match blocking(move || sessions.lease_free()).await? {
                    Some(lease) => Candidate::Free(lease),
                    None => Candidate::New,
                }
            }
        };
        self.begin_opening(candidate);
        Ok(true)
    }

    fn begin_opening(&mut self, candidate: Candidate) {
        let (session, next) = match &candidate {
            Candidate::Free(lease) => (lease.leased.session, lease.leased.next),
            Candidate::Serving(session) => {
                let live = self.live.get(session);
                (*session, live.map_or(RequestNumber::FIRST, |live| live.core.next()))
            }
            Candidate::New => (SessionId(rand::random()), RequestNumber::FIRST),
        };
        let client = self.parts.client;
        let wait = Duration::from_millis(self.parts.timing.first_retry_ms);
        let now = Instant::now();
        let inquiry = Inquiry::new(client, session, next);
        self.parts.seat.listen(session);
        self.broadcast(None, &inquiry.question());
        let again = now + wait;
        self.opening = Some(Opening { inquiry, candidate, asked: now, again, wait, decide: None });
    }

    pub(crate) fn on_report(&mut self, report: Verified<Signed<SessionReport>>) {
        let size = self.parts.membership.size();
        let Some(opening) = &mut self.opening else { return };
        opening.inquiry.hear(report);
        if opening.decide.is_none() && opening.inquiry.found(size).is_some() {
            opening.decide = Some(Instant::now() + opening.asked.elapsed().max(GRACE_MIN));
        }
    }

    /// Opens a session if enough is known, and asks again where too few have answered for long.
    pub(crate) async fn go_on_opening(&mut self) {
        let size = self.parts.membership.size();
        let Some(opening) = &mut self.opening else { return };
        let now = Instant::now();
        let heard = |opening: &Opening| {
            self.parts.lines.links.iter().all(|link| {
                let failed = matches!(link.note(), ReplicaNote::Failed(_));
                opening.inquiry.has_heard(link.id) || failed
            })
        };
        let is_due = opening.decide.is_some_and(|decide| decide <= now);
        let enough = opening.decide.is_some() && (is_due || heard(opening));
        let Some(found) = opening.inquiry.found(size).filter(|_| enough) else {
            if opening.again <= now {
                let longest = Duration::from_millis(self.parts.timing.max_retry_ms);
                opening.wait = (opening.wait * 2).min(longest.max(opening.wait));
                opening.again = now + opening.wait;
                let question = opening.inquiry.question();
                self.broadcast(None, &question);
            }
            return;
        };
        let Some(opening) = self.opening.take() else { return };
        let asked = opening.inquiry.session();
        let kept = self.keep(opening.candidate, found.may_go_on).await;
        if let Some(lease) = kept {
            self.serve(lease);
        } else if self.serving.is_none() {
            let sessions = self.parts.sessions.clone();
            match blocking(move || sessions.lease_new(found.opening)).await {
                Ok(lease) => self.serve(lease),
                Err(error) => self.fail_held(&error),
            }
        }
        self.leave_unless_live(asked);
    }

    /// Of a session that was asked about and is not used nothing more is to be heard.
    fn leave_unless_live(&self, session: SessionId) {
        if !self.live.contains_key(&session) {
            self.parts.seat.leave(session);
        }
    }

    /// What becomes of the session that was asked about; answers the lease of one to serve from.
    async fn keep(&mut self, candidate: Candidate, may_go_on: bool) -> Option<Lease> {
        match candidate {
            Candidate::New => None,
            Candidate::Free(lease) if may_go_on => Some(lease),
            Candidate::Free(lease) => {
                let parting = Parting { next: lease.leased.next, whole: false };
                if let Err(error) = blocking(move || lease.release(parting)).await {
                    tracing::warn!(%error, "a session could not be given up");
                }
                None
            }
            Candidate::Serving(session) => {
                if let Some(live) = self.live.get_mut(&session) {
                    live.used = Used::now();
                    live.draining = !may_go_on;
                }
                if !may_go_on {
                    self.serving = None;
                }
                None
            }
        }
    }

    fn serve(&mut self, lease: Lease) {
        self.parts.seat.listen(lease.leased.session);
        let mut core = self.core(lease.leased.session, lease.leased.next);
        let told = self.live.values().map(|live| live.core.newest()).max().unwrap_or_default();
        core.was_told_of(self.newest.max(told));
        self.serving = Some(lease.leased.session);
        self.live.insert(lease.leased.session, Live::new(core, lease));
    }

    fn fail_held(&mut self, error: &SessionError) {
        for (_, waiter) in &mut self.held {
            fail(waiter, || Error::Configuration(error.to_string()));
        }
        self.held.clear();
    }

    /// Gives back a session that was about to be used.
    pub(crate) async fn stop_opening(&mut self) {
        let Some(opening) = self.opening.take() else { return };
        self.leave_unless_live(opening.inquiry.session());
        if let Candidate::Free(lease) = opening.candidate {
            let parting = Parting { next: lease.leased.next, whole: true };
            if let Err(error) = blocking(move || lease.release(parting)).await {
                tracing::warn!(%error, "a session could not be given back");
            }
        }
    }
}
