//! The sessions that a connection used last.

use std::collections::{BTreeMap, HashMap};

use elea_protocol::id::SessionId;

/// So many sessions at most, those used last.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    used: HashMap<SessionId, u64>,
    oldest_first: BTreeMap<u64, SessionId>,
    next: u64,
}

impl Recent {
    /// A session is used; answers whether it is among them.
    pub(crate) fn touch(&mut self, session: SessionId) -> bool {
        let Some(used) = self.used.get_mut(&session) else { return false };
        self.oldest_first.remove(&std::mem::replace(used, self.next));
        self.oldest_first.insert(self.next, session);
        self.next += 1;
        true
    }

    /// Takes in one that is not among them, and answers which ones make room for it.
    pub(crate) fn add(&mut self, session: SessionId, most: usize) -> Vec<SessionId> {
        let mut left = Vec::new();
        while self.used.len() >= most.max(1) {
            let Some((_, oldest)) = self.oldest_first.pop_first() else { break };
            self.used.remove(&oldest);
            left.push(oldest);
        }
        self.used.insert(session, self.next);
        self.oldest_first.insert(self.next, session);
        self.next += 1;
        left
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = SessionId> {
        self.used.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_were_used_least_recently_make_room() {
        let mut recent = Recent::default();
        let ids = |all: Vec<SessionId>| all.into_iter().map(|id| id.0).collect::<Vec<_>>();
        for session in 1..=4 {
            assert!(!recent.touch(SessionId(session)));
            assert_eq!(recent.add(SessionId(session), 4), []);
        }
        assert!(recent.touch(SessionId(1)));
        assert_eq!(ids(recent.add(SessionId(5), 4)), [2]);
        // Where there is room for fewer now, more than one leave.
        assert_eq!(ids(recent.add(SessionId(6), 2)), [3, 4, 1]);
        let mut all = ids(recent.all().collect());
        all.sort_unstable();
        assert_eq!((all, recent.oldest_first.len()), (vec![5, 6], 2));
    }
}
