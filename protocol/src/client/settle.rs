//! What became of a session: how far it is executed, and how far final.

use super::Ticket;
use crate::id::{Instant, RequestNumber, SessionId};
use crate::message::SessionReport;
use crate::quorum::{ClusterSize, Strength, Tally};

/// The replicas' newest reports, and who waits for what.
#[derive(Debug, Default)]
pub(super) struct Settlement {
    reports: Tally<SessionReport>,
    waiting: Vec<(Ticket, RequestNumber)>,
    settled: RequestNumber,
    /// When to ask again, and how long to wait after that, in ms.
    pub timer: Option<(Instant, u64)>,
}

/// What a cluster says of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// How many replicas reported.
    pub heard: usize,
    /// A correct replica has executed all requests up to this one.
    pub executed_through: RequestNumber,
    /// All requests up to this one are final.
    pub final_through: RequestNumber,
    /// A correct replica has this floor, or a higher one.
    pub floor: SessionId,
}

/// The highest value that at least `count` of these reach.
fn reached_by<T: Ord + Copy + Default>(values: impl Iterator<Item = T>, count: usize) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable_by(|a, b| b.cmp(a));
    count.checked_sub(1).and_then(|last| values.get(last)).copied().unwrap_or_default()
}

impl Settlement {
    /// Somebody wants to know when everything up to `through` is final.
    pub fn ask(&mut self, ticket: Ticket, through: RequestNumber) {
        self.waiting.push((ticket, through));
    }

    /// Nobody waits under this ticket any more.
    pub fn cancel(&mut self, ticket: Ticket) {
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
    }

    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes a replica's report; whether it is news.
    ///
    /// Reports of different views do not count together, for the same reason that replies do not:
    /// a strong quorum must have held certificates of *one* view for what they cover to be
    /// complete.
    pub fn hear(&mut self, by: crate::id::ReplicaId, report: SessionReport, size: ClusterSize) {
        if self.reports.word(by).is_some_and(|word| word.view > report.view) {
            return;
        }
        self.reports.hear(by, report);
        let reports = || self.reports.iter().map(|(_, report)| report);
        let same_view = reports().filter(|other| other.view == report.view);
        let through = reached_by(same_view.map(|r| r.final_through), size.quorum(Strength::Strong));
        // What was complete once stays so, whatever later views report.
        self.settled = self.settled.max(through);
    }

    /// Everything up to here is final.
    pub fn settled(&self) -> RequestNumber {
        self.settled
    }

    /// Those who have waited for no more than this.
    pub fn take_answered(&mut self) -> Vec<Ticket> {
        let settled = self.settled;
        self.waiting.extract_if(.., |(_, through)| *through <= settled).map(|(t, _)| t).collect()
    }

    pub fn reported(&self, size: ClusterSize) -> Reported {
        let reports = || self.reports.iter().map(|(_, report)| report);
        let weak = size.quorum(Strength::Weak);
        Reported {
            heard: self.reports.len(),
            executed_through: reached_by(reports().map(|r| r.executed_through), weak),
            final_through: self.settled,
            floor: reached_by(reports().map(|r| r.floor), weak),
        }
    }
}
