//! The rules of [`sessions`](super), without files.

use std::collections::BTreeMap;

use elea_protocol::id::{Digest, RequestNumber, SessionId};
use serde::{Deserialize, Serialize};

/// So many free sessions are remembered. There are as many as there were processes at one time.
const FREE_MAX: usize = 1024;

/// What a host knows about the sessions of one key in one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Book {
    /// The cluster, as hex.
    genesis: String,
    sessions: BTreeMap<SessionId, State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Nobody uses it. With the first number that was never used.
    Free(RequestNumber),
    Leased,
}

/// A session to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leased {
    /// The session.
    pub session: SessionId,
    /// The first number never used.
    pub next: RequestNumber,
}

/// What a holder says when it gives a session back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parting {
    /// The first number it did not use.
    pub next: RequestNumber,
    /// Whether every number below was executed, so that somebody else may go on.
    pub whole: bool,
}

impl Book {
    /// The book of a key of which nothing is known.
    #[must_use]
    pub fn new(genesis: &Digest) -> Self {
        Self { genesis: genesis.to_string(), sessions: BTreeMap::new() }
    }

    /// Whether it is about this cluster.
    #[must_use]
    pub fn is_of(&self, genesis: &Digest) -> bool {
        self.genesis == genesis.to_string()
    }

    /// How many sessions it knows of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether it knows of none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Leased sessions.
    pub fn leased(&self) -> impl Iterator<Item = SessionId> {
        let leased = self.sessions.iter().filter(|(_, state)| **state == State::Leased);
        leased.map(|(id, _)| *id)
    }

    /// Gives out a free session: the newest one, so that of those that are too many the oldest rest until the
    /// cluster forgets them.
    pub fn lease_free(&mut self) -> Option<Leased> {
        self.sessions.iter_mut().rev().find_map(|(id, state)| match *state {
            State::Free(next) => {
                *state = State::Leased;
                Some(Leased { session: *id, next })
            }
            State::Leased => None,
        })
    }

    /// Gives out a new session in the generation that begins at `opening`.
    pub fn lease_new(&mut self, opening: SessionId, mut random: impl FnMut() -> u32) -> Leased {
        let session = loop {
            let session = opening.told_apart_by(random());
            if !self.sessions.contains_key(&session) {
                break session;
            }
        };
        self.sessions.insert(session, State::Leased);
        Leased { session, next: RequestNumber::FIRST }
    }

    /// The holder of a leased session is gone without a word, or nobody may go on in it. The session
    /// rests until the cluster forgets it.
    pub fn give_up(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    /// Takes a session back from its holder.
    pub fn release(&mut self, session: SessionId, parting: Parting) {
        let Parting { next, whole } = parting;
        // What was never used is in no state of the cluster, nor need it be in here.
        if !whole || next == RequestNumber::FIRST {
            return self.give_up(session);
        }
        self.sessions.insert(session, State::Free(next));
        let free = |state: &State| *state != State::Leased;
        while self.sessions.values().filter(|state| free(state)).count() > FREE_MAX
            && let Some(lowest) = self.sessions.iter().find(|(_, state)| free(state))
        {
            let lowest = *lowest.0;
            self.sessions.remove(&lowest);
        }
    }
}
