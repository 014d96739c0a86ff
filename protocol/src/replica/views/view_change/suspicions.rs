//! Who has said that a primary is not to be waited for.

use std::collections::BTreeMap;

use crate::id::{ReplicaId, View};
use crate::message::Suspect;
use crate::signature::Signed;

/// One suspicion of each replica.
#[derive(Clone, Debug, Default)]
pub(super) struct Suspicions {
    by: BTreeMap<ReplicaId, Signed<Suspect>>,
}

impl Suspicions {
    /// What another replica says. The highest counts, for ever.
    pub(super) fn hear(&mut self, suspect: Signed<Suspect>) {
        if self.by.get(&suspect.by).is_none_or(|known| known.body < suspect.body) {
            self.by.insert(suspect.by, suspect);
        }
    }

    /// What this replica says, and goes on to say.
    pub(super) fn say(&mut self, suspect: Signed<Suspect>) {
        self.by.insert(suspect.by, suspect);
    }

    /// This replica may blame nobody any more.
    pub(super) fn take_back(&mut self, me: ReplicaId) {
        self.by.remove(&me);
    }

    pub(super) fn of(&self, id: ReplicaId) -> Option<&Signed<Suspect>> {
        self.by.get(&id)
    }

    /// Whether a replica has said this, or more.
    pub(super) fn says(&self, id: ReplicaId, suspect: Suspect) -> bool {
        self.of(id).is_some_and(|known| known.body >= suspect)
    }

    /// Those of this view, or of a later one.
    pub(super) fn from(&self, view: View) -> impl Iterator<Item = &Signed<Suspect>> {
        self.by.values().filter(move |suspect| suspect.body.view >= view)
    }

    /// The highest view that as many replicas suspect, it or a later one.
    pub(super) fn through(&self, replicas: usize) -> Option<View> {
        let mut views: Vec<View> = self.by.values().map(|suspect| suspect.body.view).collect();
        views.sort_unstable_by(|a, b| b.cmp(a));
        views.get(replicas - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::Signature;

    fn of(by: u8, view: u64) -> Signed<Suspect> {
        let body = Suspect::of(View(view));
        Signed { body, by: ReplicaId(by), signature: Signature([by; 64]) }
    }

    #[test]
    fn of_another_replica_the_highest_word_counts_for_ever() {
        let mut suspicions = Suspicions::default();
        suspicions.hear(of(1, 5));
        suspicions.hear(of(1, 3));
        assert_eq!(suspicions.of(ReplicaId(1)), Some(&of(1, 5)));
        let resigned = Signed { body: Suspect::resign(View(5)), ..of(1, 5) };
        suspicions.hear(resigned.clone());
        suspicions.hear(of(1, 5));
        assert_eq!(suspicions.of(ReplicaId(1)), Some(&resigned));
        assert!(suspicions.says(ReplicaId(1), Suspect::of(View(5))));
        assert!(!suspicions.says(ReplicaId(1), Suspect::of(View(6))));
    }

    #[test]
    fn whoever_suspects_a_view_suspects_all_before_it() {
        let mut suspicions = Suspicions::default();
        suspicions.hear(of(1, 5));
        assert_eq!(suspicions.through(2), None);
        suspicions.hear(of(2, 3));
        suspicions.hear(of(3, 9));
        assert_eq!(suspicions.through(2), Some(View(5)));
        let from = |view| suspicions.from(View(view)).map(|suspect| suspect.by.0);
        assert_eq!(from(5).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn who_may_not_vote_has_said_nothing() {
        let mut suspicions = Suspicions::default();
        suspicions.hear(of(1, 5));
        suspicions.say(of(0, 5));
        suspicions.take_back(ReplicaId(0));
        assert!(!suspicions.says(ReplicaId(0), Suspect::of(View::ZERO)));
        assert!(suspicions.says(ReplicaId(1), Suspect::of(View(5))));
    }
}
