//! What happens when replicas will not, or cannot now.

use super::state::Client;
use super::{Action, Failure, Unusable};
use crate::id::{Instant, ReplicaId, RequestName, RequestNumber};
use crate::message::{Refusal, RefusalReason};
use crate::quorum::Strength;

impl Client {
    pub(super) fn on_refusal(
        &mut self,
        by: ReplicaId,
        refusal: Refusal,
        actions: &mut Vec<Action>,
    ) {
        if !self.is_ours(&refusal.name) {
            self.counters.foreign += 1;
            return;
        }
        let number = refusal.name.number;
        let Some(open) = self.outstanding.get_mut(&number) else {
            self.counters.late += 1;
            return;
        };
        if refusal.request != open.digest {
            self.counters.foreign += 1;
            return;
        }
        let reason = refusal.reason;
        open.refusals.hear(by, reason);
        let size = self.setup.membership.size();
        if open.refusals.quorum(size, Strength::Weak, |other| *other == reason).is_none() {
            return;
        }
        match reason {
            RefusalReason::HistoryFull => {}
            RefusalReason::WindowExceeded => {
                self.retire(Unusable::Refused(reason), actions);
            }
            RefusalReason::SessionRetired
            | RefusalReason::NameUsed
            | RefusalReason::UnknownClient
            | RefusalReason::SessionTooFar => {
                self.gave_up |= open.answered.is_none();
                self.fail(number, Failure::Refused(reason), actions);
                self.retire(Unusable::Refused(reason), actions);
            }
            RefusalReason::ResultForgotten => self.forgotten(number, actions),
        }
    }

    /// It was executed, but nobody has its results any more.
    pub(super) fn forgotten(&mut self, number: RequestNumber, actions: &mut Vec<Action>) {
        self.fail(number, Failure::ResultForgotten, actions);
    }

    fn fail(&mut self, number: RequestNumber, failure: Failure, actions: &mut Vec<Action>) {
        let Some(open) = self.outstanding.get(&number) else { return };
        for part in &open.parts {
            actions.push(Action::Failed { ticket: part.ticket, failure });
        }
        self.close(number, actions);
    }

    pub(super) fn retire(&mut self, reason: Unusable, actions: &mut Vec<Action>) {
        if self.unusable.is_none() {
            self.unusable = Some(reason);
            self.stalled_since = None;
            actions.push(Action::SessionUnusable { reason, unsent: self.queue.drain() });
        }
    }

    /// A replica without room: the next sending waits twice as long. Once a sending, since nothing
    /// is signed and a liar could put it off for ever.
    pub(super) fn on_busy(&mut self, now: Instant, from: ReplicaId, name: &RequestName) {
        if !self.is_ours(name) {
            self.counters.foreign += 1;
            return;
        }
        let Some(open) = self.outstanding.get_mut(&name.number) else {
            self.counters.late += 1;
            return;
        };
        let first = open.busy.is_empty();
        if open.busy.insert(from)
            && first
            && let Some(at) = open.retry_at
        {
            self.timers.remove(&(at, name.number));
            let later = at.max(now.after_ms(open.wait_ms));
            open.wait_ms = self.setup.timing.longer(open.wait_ms);
            open.retry_at = Some(later);
            self.timers.insert((later, name.number));
        }
    }
}
