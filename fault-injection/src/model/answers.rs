//! What clients could have been told.
//!
//! Replies are not letters: a client that is told something more never takes back what it
//! accepted, so the worst client is one that has heard everything, and a liar besides who agrees
//! with whatever suits it. Only that client is modelled.

use std::collections::{BTreeMap, BTreeSet};

use elea_protocol::id::{ReplicaId, RequestName};
use elea_protocol::message::{Position, Reply, ReplyKind};

use crate::check::{Ancestry as _, Histories};
use crate::violation::{Violation, demand};

/// Everything that correct replicas answered, and what it comes to.
#[derive(Clone, Default)]
pub struct Answers {
    heard: BTreeMap<Reply, BTreeSet<ReplicaId>>,
    finals: BTreeMap<RequestName, Reply>,
}

impl Answers {
    /// A correct replica replies. With the word of the `liars` it may be enough.
    ///
    /// # Errors
    /// `strong`: a client is given two final answers that contradict each other.
    pub fn hear(
        &mut self,
        by: ReplicaId,
        reply: &Reply,
        liars: &BTreeSet<ReplicaId>,
        strong: usize,
        histories: &Histories,
    ) -> Result<(), Violation> {
        let voters = self.heard.entry(reply.clone()).or_default();
        voters.insert(by);
        if reply.kind != ReplyKind::Committed || voters.union(liars).count() < strong {
            return Ok(());
        }
        let before = self.finals.entry(reply.name).or_insert_with(|| reply.clone());
        // A later view may answer again: it is the same answer.
        let same = (before.slot, before.hash, before.index, &before.results)
            == (reply.slot, reply.hash, reply.index, &reply.results);
        demand(same, "strong", || format!("two final answers: {before:?} and {reply:?}"))?;
        let at = |reply: &Reply| Position { slot: reply.slot, hash: reply.hash };
        let apart = self.finals.values().find(|other| {
            let (low, high) =
                if other.slot < reply.slot { (*other, reply) } else { (reply, *other) };
            !histories.extends(at(high), at(low))
        });
        demand(apart.is_none(), "strong", || {
            format!("final answers on two histories: {reply:?} and {apart:?}")
        })
    }

    /// How many requests were finally answered.
    #[must_use]
    pub fn finals(&self) -> usize {
        self.finals.len()
    }
}

#[cfg(test)]
mod tests {
    use elea_protocol::id::{ClientId, Digest, RequestNumber, SessionId, Slot, View};
    use elea_protocol::message::Results;

    use super::*;

    fn reply(slot: u64, hash: u8) -> Reply {
        Reply {
            kind: ReplyKind::Committed,
            view: View(0),
            slot: Slot(slot),
            hash: Digest([hash; 32]),
            name: RequestName {
                client: ClientId([1; 32]),
                session: SessionId(1),
                number: RequestNumber(1),
            },
            request: Digest([7; 32]),
            index: 0,
            results: Results::Full(Vec::new()),
        }
    }

    #[test]
    fn with_the_liar_a_strong_quorum_is_final_and_contradicts_nothing() {
        let liars = BTreeSet::from([ReplicaId(3)]);
        let histories = Histories::new(Digest([0; 32]), 4, BTreeSet::new(), u64::MAX);
        let mut answers = Answers::default();
        let mut hear = |by: u8, reply: &Reply| {
            let heard = answers.hear(ReplicaId(by), reply, &liars, 3, &histories);
            (heard.map_err(|found| found.rule), answers.finals())
        };
        assert_eq!(hear(0, &reply(1, 1)), (Ok(()), 0));
        assert_eq!(hear(0, &reply(1, 1)), (Ok(()), 0), "the same word twice");
        assert_eq!(hear(1, &reply(1, 1)), (Ok(()), 1));
        let later = Reply { view: View(2), ..reply(1, 1) };
        assert_eq!((hear(0, &later).0, hear(2, &later).0), (Ok(()), Ok(())), "said again");
        assert_eq!(hear(1, &reply(1, 2)).0, Ok(()));
        assert_eq!(hear(2, &reply(1, 2)).0, Err("strong".into()), "another history");
    }
}
