//! What is done at a certain time, unless something happens before.

use crate::id::Instant;

#[derive(Clone, Debug)]
pub(in crate::replica) struct Due {
    commit: Option<Instant>,
    checkpoint: Option<Instant>,
    status: Instant,
}

impl Due {
    pub(in crate::replica) fn new(now: Instant) -> Self {
        Self { commit: None, checkpoint: None, status: now }
    }

    /// The votes that were due are of the view before.
    pub(in crate::replica) fn begin_view(&mut self) {
        (self.commit, self.checkpoint) = (None, None);
    }

    /// The head is voted for then, so that weak requests become final.
    pub(in crate::replica) fn commit_at(&mut self, at: Instant) {
        self.commit = Some(at);
    }

    /// It is voted for, or need not be.
    pub(in crate::replica) fn commit_is_done(&mut self) {
        self.commit = None;
    }

    pub(in crate::replica) fn is_commit_due(&self, now: Instant) -> bool {
        self.commit.is_some_and(|at| at <= now)
    }

    /// The state after a head that stays certified and alone is voted for then.
    pub(in crate::replica) fn checkpoint_at(&mut self, at: Option<Instant>) {
        self.checkpoint = at;
    }

    pub(in crate::replica) fn is_checkpoint_due(&self, now: Instant) -> bool {
        self.checkpoint.is_some_and(|at| at <= now)
    }

    /// The next status is sent then.
    pub(super) fn status_at(&mut self, at: Instant) {
        self.status = at;
    }

    pub(super) fn is_status_due(&self, now: Instant) -> bool {
        self.status <= now
    }

    /// The earliest of all.
    pub(in crate::replica) fn next(&self) -> Instant {
        [self.commit, self.checkpoint].into_iter().flatten().fold(self.status, Instant::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_is_next_and_a_view_begins_without_votes_that_are_due() {
        let at = |ms| Instant::default().after_ms(ms);
        let mut due = Due::new(at(5));
        due.commit_at(at(3));
        due.checkpoint_at(Some(at(4)));
        assert_eq!(due.next(), at(3));
        assert!(due.is_commit_due(at(3)) && !due.is_checkpoint_due(at(3)));
        due.begin_view();
        assert_eq!(due.next(), at(5));
        assert!(due.is_status_due(at(5)) && !due.is_commit_due(at(9)));
    }
}
