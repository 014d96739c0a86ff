//! What waits at a peer, by the last list that it sent.

use std::collections::BTreeSet;

use crate::id::{Digest, Instant};
use crate::message::WaitingRequest;

#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Named {
    waiting: Vec<WaitingRequest>,
    /// What of that is to be asked for by whoever does not lead.
    due: BTreeSet<Digest>,
    asked: Option<Instant>,
}

impl Named {
    /// This waits there now. Whoever leads has to have all of it; others only what is named again.
    pub(super) fn name(&mut self, waiting: &[WaitingRequest], leads: bool) {
        let before: BTreeSet<Digest> = self.waiting.iter().map(|one| one.digest).collect();
        let named = waiting.iter().map(|one| one.digest);
        self.due = named.filter(|digest| leads || before.contains(digest)).collect();
        self.waiting = waiting.to_vec();
    }

    /// Whether something waits there that was not asked for a moment ago.
    pub(super) fn may_be_asked_for(&self, now: Instant, wait_ms: u64) -> bool {
        !self.waiting.is_empty() && self.asked.is_none_or(|at| now >= at.after_ms(wait_ms))
    }

    /// Only this is of interest.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&WaitingRequest) -> bool) {
        self.waiting.retain(is_wanted);
    }

    /// What is to be asked for.
    pub(super) fn due(&self, leads: bool) -> impl Iterator<Item = &WaitingRequest> {
        self.waiting.iter().filter(move |one| leads || self.due.contains(&one.digest))
    }

    /// It is asked for.
    pub(super) fn note_asked(&mut self, now: Instant) {
        self.asked = Some(now);
    }

    /// It came, so that more may be asked for.
    pub(super) fn note_come(&mut self) {
        self.asked = None;
    }
}
