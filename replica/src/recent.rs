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

/// What became of the sessions of a connection when it used one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Used {
    /// It was among them.
    Known,
    /// It is from now on, and this one no longer, if there were too many.
    New(Option<SessionId>),
}

impl Recent {
    /// A session is used.
    pub(crate) fn note(&mut self, session: SessionId, most: usize) -> Used {
        let before = self.used.insert(session, self.next);
        self.oldest_first.insert(self.next, session);
        self.next += 1;
        if let Some(before) = before {
            self.oldest_first.remove(&before);
            return Used::Known;
        }
        let oldest = if self.used.len() > most { self.oldest_first.pop_first() } else { None };
        let left = oldest.map(|(_, session)| session);
        if let Some(left) = left {
            self.used.remove(&left);
        }
        Used::New(left)
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
    fn the_one_that_was_used_least_recently_makes_room() {
        let mut recent = Recent::default();
        let mut note = |session| recent.note(SessionId(session), 2);
        assert_eq!([note(1), note(2)], [Used::New(None), Used::New(None)]);
        assert_eq!(note(1), Used::Known);
        assert_eq!(note(3), Used::New(Some(SessionId(2))));
        assert_eq!([note(1), note(3)], [Used::Known, Used::Known]);
        let mut all: Vec<_> = recent.all().map(|session| session.0).collect();
        all.sort_unstable();
        assert_eq!((all, recent.oldest_first.len()), (vec![1, 3], 2));
    }
}
