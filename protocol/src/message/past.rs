//! What somebody has seen, so that later reads do not fall behind it.

use serde::{Deserialize, Serialize};

use super::{Malformed, Position};
use crate::codec::Sink;
use crate::id::{ClientId, RequestNumber, SessionId, Slot};

/// So many histories at most stand side by side in a [`Past`]: no more can be served at a time, nearly ever.
pub const PAST_READ_MAX: usize = 4;

/// So many intervals of answered requests are in a [`Past`] at most.
pub const PAST_WRITTEN_MAX: usize = 64;

/// What somebody has seen: histories that were read, and requests that were answered.
///
/// A history *includes* a past when every request up to each of its positions, and every request that it names, is
/// executed in it, at whatever place. A read that was answered by a history that includes the past of its session has the
/// session guarantees of Terry et al. 1994, whatever replicas, views and merges lie between: with its own requests in
/// it the session reads its writes, with what it has read its reads are monotonic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    read: Vec<Position>,
    written: Vec<Written>,
}

/// Requests of one session that were answered: all numbers from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Whose.
    pub client: ClientId,
    /// In which session.
    pub session: SessionId,
    /// The first of the numbers.
    pub first: RequestNumber,
    /// The last of them.
    pub last: RequestNumber,
}

impl Past {
    /// The histories that were read.
    #[must_use]
    pub fn read(&self) -> &[Position] {
        &self.read
    }

    /// The requests that were answered.
    #[must_use]
    pub fn written(&self) -> &[Written] {
        &self.written
    }

    /// Whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read.is_empty() && self.written.is_empty()
    }

    /// This history was read, and includes all that was seen before.
    pub fn note_read(&mut self, at: Position) {
        self.read.clear();
        self.written.clear();
        if at.slot > Slot::GENESIS {
            self.read.push(at);
        }
    }

    /// A request of this number was answered. `false` where there is no room to note that: after the next read there is.
    #[must_use]
    pub fn note_written(
        &mut self,
        client: ClientId,
        session: SessionId,
        number: RequestNumber,
    ) -> bool {
        self.add(Written { client, session, first: number, last: number })
    }

    /// Both pasts together. `None` where that is too much: a read that includes the one or the other makes it less.
    #[must_use]
    pub fn joined(mut self, other: &Self) -> Option<Self> {
        for at in &other.read {
            if !self.read.contains(at) {
                self.read.push(*at);
            }
        }
        let has_room = other.written.iter().all(|written| self.add(*written));
        (has_room && self.read.len() <= PAST_READ_MAX).then_some(self)
    }

    /// Adds an interval to those it touches. Where there are too many, the two of one session that are next to each other
    /// become one with what lies between: a number once used is executed in the end, so this only asks for more than has
    /// to be.
    fn add(&mut self, new: Written) -> bool {
        let before = self.written.clone();
        self.written.push(new);
        self.written.sort_by_key(|one| (one.client, one.session, one.first));
        let mut apart: Vec<Written> = Vec::with_capacity(self.written.len());
        for one in self.written.drain(..) {
            match apart.last_mut().filter(|last| gap(last, &one) == Some(0)) {
                Some(last) => last.last = last.last.max(one.last),
                None => apart.push(one),
            }
        }
        if apart.len() > PAST_WRITTEN_MAX {
            let pairs = apart.iter().zip(apart.iter().skip(1)).enumerate();
            let narrowest = pairs.filter_map(|(at, (one, next))| Some((gap(one, next)?, at))).min();
            let Some((_, at)) = narrowest else {
                self.written = before;
                return false;
            };
            let next = apart.remove(at + 1);
            if let Some(one) = apart.get_mut(at) {
                one.last = one.last.max(next.last);
            }
        }
        self.written = apart;
        true
    }

    /// Whether the bounds hold.
    ///
    /// # Errors
    /// One does not.
    pub fn check(&self) -> Result<(), Malformed> {
        Malformed::unless(self.read.len() <= PAST_READ_MAX, "a past of too many histories")?;
        let fits = self.written.len() <= PAST_WRITTEN_MAX;
        Malformed::unless(fits, "a past of too many requests")?;
        let is_interval = |one: &Written| one.first <= one.last;
        Malformed::unless(self.written.iter().all(is_interval), "an interval that ends first")
    }

    pub(super) fn write(&self, to: &mut impl Sink) {
        to.put_len(self.read.len());
        for Position { slot, hash } in &self.read {
            to.put_u64(slot.0);
            to.put_digest(hash);
        }
        to.put_len(self.written.len());
        for Written { client, session, first, last } in &self.written {
            to.put_client(client);
            to.put_u64(session.0);
            to.put_u64(first.0);
            to.put_u64(last.0);
        }
    }
}

/// How many numbers lie between two intervals of one session, of which the second does not begin before the first.
fn gap(one: &Written, next: &Written) -> Option<u64> {
    let is_same = (one.client, one.session) == (next.client, next.session);
    is_same.then(|| next.first.0.saturating_sub(one.last.0).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Digest;

    const ME: ClientId = ClientId([1; 32]);

    fn wrote(past: &mut Past, session: u64, number: u64) -> bool {
        past.note_written(ME, SessionId(session), RequestNumber(number))
    }

    fn intervals(past: &Past) -> Vec<(u64, u64, u64)> {
        let of = |one: &Written| (one.session.0, one.first.0, one.last.0);
        past.written().iter().map(of).collect()
    }

    fn at(slot: u64) -> Position {
        Position { slot: Slot(slot), hash: Digest([7; 32]) }
    }

    #[test]
    fn numbers_that_touch_are_one_interval_whatever_order_they_come_in() {
        let mut past = Past::default();
        for number in [1, 3, 2, 7, 2] {
            assert!(wrote(&mut past, 5, number));
        }
        assert!(wrote(&mut past, 4, 8));
        assert_eq!(intervals(&past), [(4, 8, 8), (5, 1, 3), (5, 7, 7)]);
    }

    #[test]
    fn too_many_intervals_ask_for_what_lies_between_and_too_many_sessions_have_no_room() {
        let mut past = Past::default();
        assert!(wrote(&mut past, 1, 1) && wrote(&mut past, 1, 10));
        for session in 2..=63 {
            assert!(wrote(&mut past, session, 1));
        }
        assert_eq!(past.written().len(), PAST_WRITTEN_MAX);
        assert!(wrote(&mut past, 64, 1));
        assert_eq!((past.written().len(), intervals(&past)[0]), (PAST_WRITTEN_MAX, (1, 1, 10)));
        let full = past.clone();
        assert!(!wrote(&mut past, 65, 1));
        assert_eq!(past, full, "nothing is forgotten for what has no room");
        assert!(past.check().is_ok());
        past.note_read(at(3));
        assert!(wrote(&mut past, 65, 1));
    }

    #[test]
    fn what_was_read_stands_for_all_before_it() {
        let mut past = Past::default();
        past.note_read(at(0));
        assert!(past.is_empty(), "every history includes the empty one");
        assert!(wrote(&mut past, 1, 1));
        past.note_read(at(3));
        past.note_read(at(2));
        assert_eq!((past.read(), past.written()), (&[at(2)][..], &[][..]));
        let mut others = Past::default();
        for slot in 4..=6 {
            let mut other = Past::default();
            other.note_read(at(slot));
            others = others.joined(&other).expect("there is room");
        }
        let joined = past.clone().joined(&others).expect("there is room");
        assert_eq!(joined.read().len(), PAST_READ_MAX);
        let mut more = Past::default();
        more.note_read(at(9));
        assert_eq!(joined.joined(&more), None);
    }
}
