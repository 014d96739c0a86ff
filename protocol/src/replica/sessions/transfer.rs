//! Sending the table to another replica in chunks, and rebuilding it.
//!
//! A chunk is a subtree of the table's tree: some [parts](super::part) and the proof that they
//! are all that lie there. The receiver computes every leaf anew from what it was sent. For each
//! number exactly one chunk is right, byte for byte; everything else is refused at once, whoever
//! it comes from, and nothing is kept of it. That is why nobody looks at what a part says: that
//! intervals are apart, that limits hold, that a session has a client is what a strong quorum
//! signed.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Sessions;
use super::client::{Client, Session};
use super::executed::Executed;
use super::openings::Openings;
use super::part::{Part, PartName};
use crate::application::BadChunk;
use crate::codec::{self, Canonical};
use crate::id::{ClientId, Digest, SessionId};
use crate::trie::{Assembly, Proof};
use crate::tuning::Rules;

#[derive(Serialize, Deserialize)]
struct Chunk {
    proof: Proof,
    /// In the order of their hashed names.
    parts: Vec<Part>,
}

/// The table as it was at some slot, to be sent. A copy costs next to nothing, and none hinders
/// the table that it was taken of.
#[derive(Clone, Debug)]
pub(crate) struct FrozenSessions {
    /// Its tree is up to date.
    sessions: Sessions,
}

impl Sessions {
    /// A view of the present table that later changes do not touch. Costs what
    /// [`Sessions::digest`] costs.
    pub(crate) fn freeze(&mut self) -> FrozenSessions {
        let _ = self.digest();
        FrozenSessions { sessions: self.clone() }
    }

    /// Takes in a part that was proven.
    fn put(&mut self, part: Part) {
        match part {
            Part::Client { client, floor } => self.client_to_fill(client).floor = floor,
            Part::Session { client, session, executed, used } => {
                let session = self.session_to_fill(client, session);
                session.executed = Executed::of(executed);
                session.used = used;
            }
            Part::Results { client, session, page: _, kept } => {
                self.session_to_fill(client, session).kept.extend(kept);
            }
            Part::Openings { generation, opened, horizon } => {
                self.openings = Openings { generation, opened, horizon };
            }
        }
    }

    fn client_to_fill(&mut self, client: ClientId) -> &mut Client {
        Arc::make_mut(self.clients.entry(client).or_default())
    }

    fn session_to_fill(&mut self, client: ClientId, session: SessionId) -> &mut Session {
        Arc::make_mut(self.client_to_fill(client).sessions.entry(session).or_default())
    }

    /// Works out what no part says, since it follows from the others.
    fn put_in_order(&mut self) {
        let clients: Vec<ClientId> = self.clients.keys().copied().collect();
        for id in clients {
            let client = self.client_to_fill(id);
            client.put_in_order();
            let (used, sessions) = (client.used(), client.sessions.len() as u64);
            self.count += sessions;
            self.resting.insert((used, id));
        }
    }
}

impl FrozenSessions {
    /// How many chunks there are; at least 1.
    pub(crate) fn chunks(&self) -> u32 {
        self.sessions.tree.chunks()
    }

    /// One chunk, to be checked alone against the digest; `None` past the end.
    pub(crate) fn chunk(&self, index: u32) -> Option<Bytes> {
        let (proof, leaves) = self.sessions.tree.chunk(index)?;
        let parts = leaves
            .map(|(_, leaf)| self.sessions.part(&leaf.value))
            .collect::<Option<_>>()
            .expect("the table holds every part that its tree names");
        let chunk = codec::encode(&Chunk { proof, parts });
        Some(chunk.expect("pages are cut so that a chunk fits a frame"))
    }
}

/// A table that is being rebuilt from chunks.
#[derive(Clone, Debug)]
pub(crate) struct SessionsRestore {
    assembly: Assembly<PartName>,
    /// What the accepted chunks hold, without a tree.
    sessions: Sessions,
}

impl SessionsRestore {
    /// Starts on the table with this digest. The rules are those that all replicas share.
    pub(crate) fn new(rules: Rules, digest: Digest) -> Self {
        Self { assembly: Assembly::new(digest), sessions: Sessions::new(rules) }
    }

    /// Checks a chunk and keeps it. Chunks come in any order, repeated or not.
    ///
    /// # Errors
    /// It is not chunk `index` of the table with the digest: whoever sent it lied.
    pub(crate) fn accept(&mut self, index: u32, chunk: &Bytes) -> Result<(), BadChunk> {
        let Chunk { proof, parts } = codec::decode(chunk).map_err(|_| BadChunk)?;
        let leaves = parts.iter().map(|part| (part.name().digest(), part.leaf()));
        if self.assembly.accept(index, &proof, leaves)? {
            parts.into_iter().for_each(|part| self.sessions.put(part));
        }
        Ok(())
    }

    /// The lowest chunk still missing; `None` when the table is whole.
    pub(crate) fn missing(&self) -> Option<u32> {
        self.assembly.missing()
    }

    /// The lowest chunk still missing from this one on, as far as it is known that they exist.
    pub(crate) fn missing_from(&self, first: u32) -> Option<u32> {
        self.assembly.missing_from(first)
    }

    /// How many chunks there are, once one has shown it.
    pub(crate) fn total(&self) -> Option<u32> {
        self.assembly.chunks()
    }

    /// The table, if no chunk is missing.
    pub(crate) fn finish(self) -> Option<Sessions> {
        let mut sessions = Sessions { tree: self.assembly.finish()?, ..self.sessions };
        sessions.put_in_order();
        Some(sessions)
    }
}

#[cfg(test)]
mod tests;
