//! What a cluster says of a session before it is used.

use crate::id::{ClientId, ReplicaId, RequestNumber, SessionId};
use crate::message::{SessionReport, ToReplica};
use crate::quorum::{ClusterSize, Strength, Tally};
use crate::seal::Verified;
use crate::signature::Signed;

/// A question to all replicas: may somebody go on in this session, and where may a new one of this
/// client lie?
#[derive(Debug)]
pub struct Inquiry {
    client: ClientId,
    session: SessionId,
    next: RequestNumber,
    reports: Tally<SessionReport>,
}

/// What came of an [`Inquiry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Nobody says that the session has left, or that somebody else has used it. Liars who say so
    /// do no harm: another session does as well.
    pub may_go_on: bool,
    /// The generation for new sessions begins here. A correct replica says that it is this one or a
    /// later one, so that liars cannot use up those that there are; and with answers of all correct
    /// replicas of a weak quorum one of them says that it is no later one.
    pub opening: SessionId,
}

impl Inquiry {
    /// Asks about a session of which `next` is to be used next. Who wants a new one only asks about
    /// one at random, so that its answers go to nobody else with the same key.
    #[must_use]
    pub fn new(client: ClientId, session: SessionId, next: RequestNumber) -> Self {
        Self { client, session, next, reports: Tally::default() }
    }

    /// Which session it is about.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// What to send to all, and again while too few answer.
    #[must_use]
    pub fn question(&self) -> ToReplica {
        ToReplica::AskSession(self.session)
    }

    /// Takes a replica's report; its newest one counts.
    pub fn hear(&mut self, report: Verified<Signed<SessionReport>>) {
        let Signed { body, by, .. } = report.into_inner();
        if (body.client, body.session) == (self.client, self.session) {
            self.reports.hear(by, body);
        }
    }

    /// Whether this replica has answered.
    #[must_use]
    pub fn has_heard(&self, replica: ReplicaId) -> bool {
        self.reports.word(replica).is_some()
    }

    /// What is known by now; `None` before a weak quorum has answered. The more answer the better:
    /// of a weak quorum alone one liar can name a generation that is over.
    #[must_use]
    pub fn found(&self, size: ClusterSize) -> Option<Found> {
        let reports = || self.reports.iter().map(|(_, report)| report);
        let mut openings: Vec<SessionId> = reports().map(|report| report.opening).collect();
        openings.sort_unstable_by(|a, b| b.cmp(a));
        let opening = *openings.get(size.quorum(Strength::Weak) - 1)?;
        let goes_on =
            |report: &SessionReport| !report.has_left && report.executed_through < self.next;
        let may_go_on = reports().all(goes_on);
        Some(Found { may_go_on, opening })
    }
}
