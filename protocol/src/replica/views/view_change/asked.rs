//! Who has asked for which view.

use std::collections::BTreeMap;

use crate::id::{ReplicaId, View};
use crate::message::ViewChange;
use crate::signature::Signed;

/// View changes kept of each replica, the newest ones.
const CHANGES_KEPT: usize = 4;

/// The view changes of all replicas, as far as they are kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// A few above the view entered, of each replica.
    changes: BTreeMap<ReplicaId, BTreeMap<View, Signed<ViewChange>>>,
    /// The newest one of each other replica, whatever view it is for.
    newest: BTreeMap<ReplicaId, Signed<ViewChange>>,
}

impl Asked {
    /// What another replica asks for, where `entered` is the view entered here.
    pub(super) fn hear(&mut self, change: Signed<ViewChange>, entered: View) {
        let newest = self.newest.get(&change.by);
        if newest.is_none_or(|newest| newest.body.stamp < change.body.stamp) {
            self.newest.insert(change.by, change.clone());
        }
        if change.body.view > entered {
            self.keep(change);
        }
    }

    /// A view change that may become part of a new view: another one's, or the own one. Of each view the
    /// newest counts.
    pub(super) fn keep(&mut self, change: Signed<ViewChange>) {
        let kept = self.changes.entry(change.by).or_default();
        let view = change.body.view;
        if kept.get(&view).is_some_and(|known| known.body.stamp >= change.body.stamp) {
            return;
        }
        kept.insert(view, change);
        while kept.len() > CHANGES_KEPT
            && let Some(oldest) = kept.iter().min_by_key(|(_, change)| change.body.stamp)
        {
            let oldest = *oldest.0;
            kept.remove(&oldest);
        }
    }

    /// All that is kept of a replica.
    pub(super) fn of(&self, id: ReplicaId) -> impl Iterator<Item = &Signed<ViewChange>> {
        let kept = self.changes.get(&id).into_iter().flat_map(BTreeMap::values);
        kept.chain(self.newest.get(&id))
    }

    /// The newest one of another replica.
    pub(super) fn newest_of(&self, id: ReplicaId) -> Option<&Signed<ViewChange>> {
        self.newest.get(&id)
    }

    /// The newest ones of those whose campaign is for a view above this one.
    pub(super) fn newest_above(&self, view: View) -> impl Iterator<Item = &Signed<ViewChange>> {
        self.newest.values().filter(move |change| change.body.campaign > view)
    }

    /// The views that a replica has asked for, as far as they are above the one entered.
    pub(super) fn views_of(&self, id: ReplicaId) -> impl Iterator<Item = View> {
        self.changes.get(&id).into_iter().flat_map(|kept| kept.keys().copied())
    }

    /// What a new view could be built on.
    pub(super) fn for_view(&self, view: View) -> impl Iterator<Item = &Signed<ViewChange>> {
        self.changes.values().filter_map(move |kept| kept.get(&view))
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.changes.values().map(BTreeMap::len).sum::<usize>() + self.newest.len()
    }

    /// A view was entered: who asked for it or for one below has had an answer. What this replica asked
    /// for it asked with another history.
    pub(super) fn begin_view(&mut self, entered: View, me: ReplicaId) {
        self.take_back(me);
        for kept in self.changes.values_mut() {
            *kept = kept.split_off(&entered.next());
        }
    }

    /// This replica asks for nothing any more.
    pub(super) fn take_back(&mut self, me: ReplicaId) {
        self.changes.remove(&me);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Digest, Slot};
    use crate::message::Position;
    use crate::signature::Signature;

    const ME: ReplicaId = ReplicaId(0);
    const PEER: ReplicaId = ReplicaId(1);

    fn change(by: ReplicaId, view: u64, stamp: u64) -> Signed<ViewChange> {
        let head = Position { slot: Slot::GENESIS, hash: Digest::default() };
        let body = ViewChange {
            view: View(view),
            campaign: View(view),
            entered: View::ZERO,
            lock: None,
            stable: Slot::GENESIS,
            head,
            stamp,
        };
        Signed { body, by, signature: Signature([0; 64]) }
    }

    fn stamps(asked: &Asked, view: u64) -> Vec<u64> {
        asked.for_view(View(view)).map(|change| change.body.stamp).collect()
    }

    #[test]
    fn of_each_view_the_newest_word_counts_and_of_many_views_the_newest_are_kept() {
        let mut asked = Asked::default();
        asked.hear(change(PEER, 9, 3), View::ZERO);
        asked.hear(change(PEER, 9, 2), View::ZERO);
        assert_eq!(stamps(&asked, 9), [3]);
        for (view, stamp) in [(2, 7), (3, 6), (4, 5), (5, 4)] {
            asked.hear(change(PEER, view, stamp), View::ZERO);
        }
        assert!(stamps(&asked, 9).is_empty(), "it was the oldest word");
        assert_eq!(asked.views_of(PEER).collect::<Vec<_>>(), [2, 3, 4, 5].map(View));
        assert_eq!(asked.newest_of(PEER).map(|change| change.body.view), Some(View(2)));
        assert_eq!(asked.len(), CHANGES_KEPT + 1);
    }

    #[test]
    fn a_word_for_a_view_that_was_entered_is_news_of_its_sender_and_nothing_to_begin_a_view_with() {
        let mut asked = Asked::default();
        asked.hear(change(PEER, 2, 1), View(2));
        assert!(stamps(&asked, 2).is_empty());
        assert_eq!(asked.of(PEER).count(), 1);
        assert_eq!(asked.newest_above(View(1)).count(), 1);
        assert_eq!(asked.newest_above(View(2)).count(), 0);
    }

    #[test]
    fn with_another_history_nothing_is_left_of_what_this_replica_asked_for() {
        let mut asked = Asked::default();
        for view in [2, 3] {
            asked.keep(change(ME, view, view));
            asked.hear(change(PEER, view, view), View::ZERO);
        }
        asked.begin_view(View(2), ME);
        assert_eq!(asked.views_of(ME).count(), 0);
        assert_eq!(asked.views_of(PEER).collect::<Vec<_>>(), [View(3)]);
    }
}
