//! Who is known to follow another history in the view entered.

use std::collections::BTreeSet;

use crate::id::ReplicaId;

/// The replicas whose words have shown that they follow another history in the view entered. Their histories are
/// fetched, for what the two differ by proves something against the primary.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Divergent {
    ids: BTreeSet<ReplicaId>,
}

impl Divergent {
    /// Another view begins: what parted before says nothing of it.
    pub(in crate::replica) fn begin_view(&mut self) {
        self.ids.clear();
    }

    /// Something that it said, or that was said of it, lies on another history.
    pub(in crate::replica) fn note(&mut self, id: ReplicaId) {
        self.ids.insert(id);
    }

    /// Its head lies on the own history.
    pub(in crate::replica) fn note_together(&mut self, id: ReplicaId) {
        self.ids.remove(&id);
    }

    pub(in crate::replica) fn contains(&self, id: &ReplicaId) -> bool {
        self.ids.contains(id)
    }

    pub(in crate::replica) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(in crate::replica) fn iter(&self) -> impl Iterator<Item = &ReplicaId> {
        self.ids.iter()
    }

    pub(in crate::replica) fn to_vec(&self) -> Vec<ReplicaId> {
        self.ids.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_on_the_own_history_again_is_not_followed_any_more() {
        let mut divergent = Divergent::default();
        divergent.note(ReplicaId(3));
        divergent.note(ReplicaId(1));
        divergent.note(ReplicaId(3));
        assert_eq!(divergent.to_vec(), [ReplicaId(1), ReplicaId(3)]);
        divergent.note_together(ReplicaId(3));
        divergent.note_together(ReplicaId(2));
        assert_eq!(divergent.iter().collect::<Vec<_>>(), [&ReplicaId(1)]);
        assert!(divergent.contains(&ReplicaId(1)) && !divergent.contains(&ReplicaId(3)));
    }

    #[test]
    fn nobody_is_divergent_when_a_view_begins() {
        let mut divergent = Divergent::default();
        divergent.note(ReplicaId(2));
        assert!(!divergent.is_empty());
        divergent.begin_view();
        assert!(divergent.is_empty());
    }
}
