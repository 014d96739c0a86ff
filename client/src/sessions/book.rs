//! The rules of [`sessions`](super), without files and clocks.

use std::collections::BTreeMap;

use elea_protocol::id::{Digest, RequestNumber, SessionId, WallTime};
use serde::{Deserialize, Serialize};

/// What a host knows about the sessions of one key in one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Book {
    /// The cluster, as hex.
    genesis: String,
    /// The highest session id ever given out.
    last: SessionId,
    /// Whether there may be older sessions that are not in here.
    pinned: bool,
    /// A request with this floor was executed: sessions below are gone from the cluster.
    executed_floor: SessionId,
    entries: BTreeMap<SessionId, Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    state: State,
    /// The first number never used; of no use where the session is retiring.
    next: RequestNumber,
    /// Weak requests up to this one may have been acknowledged without being final.
    acknowledged: RequestNumber,
    /// All requests up to this one are final.
    settled: RequestNumber,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Free,
    Leased,
    Retiring,
}

impl Entry {
    fn is_settled(&self) -> bool {
        self.acknowledged <= self.settled
    }

    /// Nothing of it is needed any more.
    fn is_done(&self) -> bool {
        self.state == State::Retiring && self.is_settled()
    }
}

/// A session to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    /// Which.
    pub session: SessionId,
    /// The first number never used.
    pub next: RequestNumber,
    /// What its requests are to carry.
    pub floor: SessionId,
    /// Whether the floor is held down because older sessions may be unknown.
    pub pinned: bool,
    /// How many sessions the cluster may know of this key, this one included.
    pub live: usize,
    /// Retiring sessions to settle in passing, the lowest first, and through which number.
    pub unsettled: Vec<(SessionId, RequestNumber)>,
}

/// What a holder says when it gives a session back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parting {
    /// The first number it did not use.
    pub next: RequestNumber,
    /// Whether every number below was executed. Otherwise the session is not used again.
    pub whole: bool,
    /// Whether it should not be used again although it could be.
    pub retire: bool,
    /// The highest weak request acknowledged and not known to be final.
    pub unsettled: Option<RequestNumber>,
    /// The highest floor that a request carried which was executed.
    pub executed_floor: SessionId,
}

/// How many sessions are settled in passing by one process.
const UNSETTLED_AT_ONCE: usize = 8;

impl Book {
    /// The book of a key that was never used.
    #[must_use]
    pub fn fresh(genesis: &Digest) -> Self {
        Self {
            genesis: genesis.to_string(),
            last: SessionId(0),
            pinned: false,
            executed_floor: SessionId(0),
            entries: BTreeMap::new(),
        }
    }

    /// The book of a key that may have been used, nobody knows how.
    #[must_use]
    pub fn lost(genesis: &Digest) -> Self {
        Self { pinned: true, ..Self::fresh(genesis) }
    }

    /// What remains of this book when it may have missed what happened last.
    #[must_use]
    pub fn into_lost(self) -> Self {
        Self {
            genesis: self.genesis,
            last: self.last,
            pinned: true,
            executed_floor: SessionId(0),
            entries: BTreeMap::new(),
        }
    }

    /// Whether it is about this cluster.
    #[must_use]
    pub fn is_of(&self, genesis: &Digest) -> bool {
        self.genesis == genesis.to_string()
    }

    /// Whether there may be sessions that are not in here.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// All that was ever acknowledged before now is final, or may be dropped.
    pub fn unpin(&mut self) {
        self.pinned = false;
    }

    /// How many sessions the cluster may know of this key, as far as this book tells.
    #[must_use]
    pub fn live(&self) -> usize {
        self.entries.len()
    }

    /// The floor for new requests.
    #[must_use]
    pub fn floor(&self) -> SessionId {
        if self.pinned {
            return SessionId(0);
        }
        let lowest = self.entries.iter().find(|(_, entry)| !entry.is_done());
        lowest.map_or(self.executed_floor, |(id, _)| *id)
    }

    /// Leased sessions.
    pub fn leased(&self) -> impl Iterator<Item = SessionId> {
        self.entries.iter().filter(|(_, entry)| entry.state == State::Leased).map(|(id, _)| *id)
    }

    /// Sessions that will not be used again and hold acknowledged requests not known to be final,
    /// the lowest first, with the highest such request.
    pub fn unsettled(&self) -> impl Iterator<Item = (SessionId, RequestNumber)> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.state == State::Retiring && !entry.is_settled())
            .map(|(id, entry)| (*id, entry.acknowledged))
    }

    /// Whether this leased session holds down the floor for others that are to go.
    #[must_use]
    pub fn is_in_the_way(&self, session: SessionId) -> bool {
        self.entries.range(session..).any(|(_, entry)| entry.state == State::Retiring)
    }

    /// The holder of a leased session is gone without a word. It had acknowledged weak requests up
    /// to this one.
    pub fn holder_died(&mut self, session: SessionId, acknowledged: RequestNumber) {
        if let Some(entry) = self.entries.get_mut(&session)
            && entry.state == State::Leased
        {
            entry.acknowledged = entry.acknowledged.max(acknowledged);
            entry.state = State::Retiring;
        }
    }

    /// Gives out a session that nobody else uses.
    pub fn lease(&mut self, now: WallTime, random: u16) -> Leased {
        // A free session below one that has to go would hold the floor below it.
        let highest_retiring =
            self.entries.iter().rev().find(|(_, e)| e.state == State::Retiring).map(|(id, _)| *id);
        if let Some(highest) = highest_retiring {
            for (_, entry) in self.entries.range_mut(..highest) {
                if entry.state == State::Free {
                    entry.state = State::Retiring;
                }
            }
        }
        let free = self.entries.iter().find(|(_, e)| e.state == State::Free).map(|(id, _)| *id);
        let session = free.unwrap_or_else(|| {
            let by_clock = SessionId::new(now, random);
            SessionId(by_clock.0.max(self.last.0.saturating_add(1)))
        });
        self.last = self.last.max(session);
        let entry = self.entries.entry(session).or_insert(Entry {
            state: State::Free,
            next: RequestNumber::FIRST,
            acknowledged: RequestNumber(0),
            settled: RequestNumber(0),
        });
        entry.state = State::Leased;
        let next = entry.next;
        Leased {
            session,
            next,
            floor: self.floor(),
            pinned: self.pinned,
            live: self.live(),
            unsettled: self.unsettled().take(UNSETTLED_AT_ONCE).collect(),
        }
    }

    /// Takes a session back from its holder.
    pub fn release(&mut self, session: SessionId, parting: Parting) {
        if let Some(entry) = self.entries.get_mut(&session) {
            entry.state =
                if parting.whole && !parting.retire { State::Free } else { State::Retiring };
            entry.next = entry.next.max(parting.next);
            if let Some(unsettled) = parting.unsettled {
                entry.acknowledged = entry.acknowledged.max(unsettled);
            }
        }
        // What was never used needs no place in the cluster's state, nor in here.
        if parting.next == RequestNumber::FIRST {
            self.entries.remove(&session);
        }
        self.note_executed(parting.executed_floor);
    }

    /// The cluster was quiet, after [`Book::unsettled`] gave these: whatever was acknowledged in
    /// them, or in sessions that are not in here, is final.
    pub fn note_quiet(&mut self, before: &[(SessionId, RequestNumber)]) {
        self.pinned = false;
        for (session, through) in before {
            self.note_settled(*session, *through);
        }
    }

    /// All requests of a session up to `through` are final.
    pub fn note_settled(&mut self, session: SessionId, through: RequestNumber) {
        if let Some(entry) = self.entries.get_mut(&session) {
            entry.settled = entry.settled.max(through);
        }
    }

    /// A request with this floor was executed.
    pub fn note_executed(&mut self, floor: SessionId) {
        self.executed_floor = self.executed_floor.max(floor);
        let gone = self.executed_floor;
        self.entries.retain(|id, entry| *id >= gone || !entry.is_done());
    }
}
