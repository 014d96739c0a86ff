//! Queries that no slot holds, and what replicas answer to them.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::past::Past;
use super::{
    InTree, Level, Malformed, OPERATIONS_MAX, Position, REQUEST_BYTES_MAX, Results, Voted,
};
use crate::codec::{Canonical, Sink};
use crate::id::{Digest, SessionId, Slot, View};

/// Client to some replicas: "what would these operations, which change nothing, come to now?"
///
/// It is not signed: it changes nothing, and only its sender, whom the connection proves, gets the answer. Bounds:
/// those of a request's operations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// The answer goes to where this session is used.
    pub session: SessionId,
    /// Random, and never used twice, so that no answer that was recorded fits.
    pub nonce: [u8; 16],
    /// What the answer must be worth.
    pub level: Level,
    /// It must be so after this slot or a later one: the newest that the client was told of.
    pub after: Slot,
    /// It must be so in a history that includes all of this, and the answer must name that history.
    pub past: Option<Past>,
    /// What to look at. The application reads the bytes.
    pub operations: Vec<Bytes>,
}

impl Query {
    /// The bytes of its operations together.
    #[must_use]
    pub fn operation_bytes(&self) -> usize {
        self.operations.iter().map(Bytes::len).sum()
    }

    /// Whether the bounds hold.
    ///
    /// # Errors
    /// One does not.
    pub fn check(&self) -> Result<(), Malformed> {
        Malformed::unless(!self.operations.is_empty(), "a query without operations")?;
        Malformed::unless(self.operations.len() <= OPERATIONS_MAX, "too many operations")?;
        Malformed::unless(self.operation_bytes() <= REQUEST_BYTES_MAX, "a query too large")?;
        self.past.as_ref().map_or(Ok(()), Past::check)
    }
}

impl Canonical for Query {
    const TAG: &'static str = "query";

    fn write(&self, to: &mut impl Sink) {
        to.put_u64(self.session.0);
        to.put(&self.nonce);
        to.put_u8(match self.level {
            Level::Weak => 0,
            Level::Strong => 1,
        });
        to.put_u64(self.after.0);
        to.put_u8(self.past.is_some().into());
        if let Some(past) = &self.past {
            past.write(to);
        }
        to.put_len(self.operations.len());
        self.operations.iter().for_each(|operation| to.put_bytes(operation));
    }
}

/// Replica to client: "in the view that I have entered, the operations come to this after each of these slots".
///
/// It was found out after the query came, in a history that has not been left since. Of a strong query the last of
/// the slots is covered by a certificate of the view that the replica holds. Where it was asked with a past, all of that
/// is included in the history up to the first of the slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryReply {
    /// The view the replica has entered.
    pub view: View,
    /// In which session the query was asked.
    pub session: SessionId,
    /// The digest of the query.
    pub query: Digest,
    /// The first of the slots.
    pub from: Slot,
    /// The last of them.
    pub to: Slot,
    /// Where it was asked with a past: the history after some of these slots, ascending, at most [`QUERY_POSITIONS_MAX`].
    pub positions: Vec<Position>,
    /// What the operations come to, one for each.
    pub results: Vec<Bytes>,
}

/// So many positions a reply has at most.
pub const QUERY_POSITIONS_MAX: usize = 32;

impl QueryReply {
    /// Which slots of an interval to name the history after, ascending: the first one, which is the same wherever the history is,
    /// as a rule; and ever fewer of those below the last one, so that two whose histories end some slots apart name one of
    /// them alike.
    #[must_use]
    pub fn slots_to_name(from: Slot, to: Slot) -> Vec<Slot> {
        let mut slots = BTreeSet::from([from.min(to)]);
        for step in (0..u64::BITS).map(|bits| 1_u64 << bits) {
            let last = to.0 - to.0 % step;
            let two = [Some(last), last.checked_sub(step)];
            slots.extend(two.into_iter().flatten().map(Slot).filter(|slot| *slot > from));
            if last <= from.0 || slots.len() + 2 > QUERY_POSITIONS_MAX {
                break;
            }
        }
        slots.into_iter().collect()
    }
}

/// Why a replica has no reply to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NoReply {
    /// The operations have to be ordered, or it may not answer now.
    Unable,
    /// Not all of the [past](Query::past) is included yet in its history.
    NotYet,
    /// It knows nothing of some of the past: that may be included or not.
    Unknown,
}

impl std::fmt::Display for NoReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unable => "cannot answer it without a slot, or not now",
            Self::NotYet => "does not have all of it yet",
            Self::Unknown => "cannot tell whether it has all of it",
        })
    }
}

struct QueryReplyLeaf<'a>(&'a QueryReply);

impl Canonical for QueryReplyLeaf<'_> {
    const TAG: &'static str = "query-reply-leaf";

    fn write(&self, to: &mut impl Sink) {
        let QueryReply { view: _, session, query, from, to: last, positions, results: _ } = self.0;
        to.put_u64(session.0);
        to.put_digest(query);
        to.put_u64(from.0);
        to.put_u64(last.0);
        to.put_len(positions.len());
        for Position { slot, hash } in positions {
            to.put_u64(slot.0);
            to.put_digest(hash);
        }
        to.put_digest(&Results::digest_of(&self.0.results));
    }
}

/// What one signature covers: all that a replica answers at one time, in one view.
struct QueryReplyRoot {
    view: View,
    leaves: u32,
    root: Digest,
}

impl Canonical for QueryReplyRoot {
    const TAG: &'static str = "query-replies";

    fn write(&self, to: &mut impl Sink) {
        to.put_u64(self.view.0);
        to.put_u64(u64::from(self.leaves));
        to.put_digest(&self.root);
    }
}

impl InTree for QueryReply {
    type Shared = View;

    fn shared(&self) -> View {
        self.view
    }

    fn leaf(&self) -> Digest {
        QueryReplyLeaf(self).digest()
    }

    fn signing_digest(view: View, leaves: u32, root: Digest, genesis: &Digest) -> Digest {
        QueryReplyRoot { view, leaves, root }.signing_digest(genesis)
    }

    fn check(&self) -> Result<(), Malformed> {
        Malformed::unless(self.from <= self.to, "a query reply for no slot")?;
        let fits = self.positions.len() <= QUERY_POSITIONS_MAX;
        Malformed::unless(fits, "too many positions in a query reply")?;
        let ascend = self.positions.iter().is_sorted_by(|one, next| one.slot < next.slot);
        let within = |at: &Position| (self.from..=self.to).contains(&at.slot);
        let are_within = self.positions.iter().all(within);
        Malformed::unless(ascend && are_within, "positions that a query reply is not for")
    }
}

/// A reply to a query as one replica sends it.
pub type SignedQueryReply = Voted<QueryReply>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slots(from: u64, to: u64) -> Vec<u64> {
        QueryReply::slots_to_name(Slot(from), Slot(to)).into_iter().map(|slot| slot.0).collect()
    }

    #[test]
    fn the_first_slot_and_ever_fewer_of_those_below_the_last_are_named() {
        assert_eq!(slots(5, 5), [5]);
        assert_eq!(slots(0, 0), [0]);
        assert_eq!(slots(0, 3), [0, 2, 3]);
        assert_eq!(slots(1, 100), [1, 64, 80, 88, 96, 98, 99, 100]);
        assert!(
            (QUERY_POSITIONS_MAX - 2..=QUERY_POSITIONS_MAX).contains(&slots(0, u64::MAX).len())
        );
    }

    proptest! {
        /// Whoever is so far behind as the interval is long has one in common with who is not.
        #[test]
        fn two_that_end_apart_name_one_slot_alike(from in 0..1_u64 << 40, common in 1..1_u64 << 20, apart in 0..1_u64 << 18) {
            prop_assume!(apart <= common / 4);
            // As they do where they know since when it is so, both name the first slot; here that is left out.
            let named = |first, to| slots(first, to).into_iter().skip(1).collect::<Vec<_>>();
            let (one, other) = (named(from, from + common), named(from.saturating_sub(9), from + common + apart));
            prop_assert!(one.iter().any(|slot| other.contains(slot)), "{one:?} {other:?}");
        }

        #[test]
        fn they_ascend_within_the_interval(from: u64, length: u64) {
            let to = from.saturating_add(length);
            let named = slots(from, to);
            prop_assert!(named.len() <= QUERY_POSITIONS_MAX && named.is_sorted());
            prop_assert!(named.first() == Some(&from) && named.last() == Some(&to));
        }
    }
}
