//! The state in chunks, each proven against the digest on its own.

use bytes::Bytes;
use elea_protocol::application::{BadChunk, Restore, Snapshot};
use elea_protocol::codec;
use elea_protocol::id::Digest;
use elea_protocol::trie::{Assembly, Proof};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::outcome::Item;
use crate::state::{Entry, Held, State, leaf};

/// A chunk as it is sent: all entries below one node of the trie, in the order of their hashed
/// keys, and what proves that they are all of them. There is exactly one right chunk for each
/// number, byte for byte.
#[derive(Serialize, Deserialize)]
struct Chunk {
    proof: Proof,
    items: Vec<Item>,
}

/// A frozen state, made by [`KeyValueStore::snapshot`].
///
/// [`KeyValueStore::snapshot`]: elea_protocol::application::Application::snapshot
pub struct StateSnapshot(State);

impl StateSnapshot {
    pub(crate) fn new(state: State) -> Self {
        Self(state)
    }
}

impl Snapshot for StateSnapshot {
    fn digest(&self) -> Digest {
        self.0.trie().digest()
    }

    fn chunks(&self) -> u32 {
        self.0.trie().chunks()
    }

    fn chunk(&self, index: u32) -> Option<Bytes> {
        let (proof, leaves) = self.0.trie().chunk(index)?;
        let items = leaves
            .map(|(_, leaf)| Some(self.0.get(&leaf.value)?.item(&leaf.value)))
            .collect::<Option<_>>()
            .expect("the map holds every key of the trie");
        Some(codec::encode(&Chunk { proof, items }).expect("the limits keep a chunk below a frame"))
    }
}

/// A state that is being put together from chunks, made by [`KeyValueStore::restore`].
///
/// [`KeyValueStore::restore`]: elea_protocol::application::Application::restore
pub struct StateRestore {
    trie: Assembly<Bytes>,
    entries: OrdMap<Bytes, Entry>,
}

impl StateRestore {
    pub(crate) fn new(digest: Digest) -> Self {
        Self { trie: Assembly::new(digest), entries: OrdMap::new() }
    }

    pub(crate) fn finish(self) -> Option<State> {
        Some(State::new(self.entries, self.trie.finish()?))
    }
}

impl Restore for StateRestore {
    fn accept(&mut self, index: u32, chunk: &Bytes) -> Result<(), BadChunk> {
        let Chunk { proof, items } = codec::decode(chunk).map_err(|_| BadChunk)?;
        let entries = items
            .into_iter()
            .map(|Item { key, value, version }| {
                Some((key, Entry { held: Held::from_value(value)?, version }))
            })
            .collect::<Option<Vec<_>>>()
            .ok_or(BadChunk)?;
        let leaves = entries.iter().map(|(key, entry)| leaf(key, entry));
        if self.trie.accept(index, &proof, leaves)? {
            self.entries.extend(entries);
        }
        Ok(())
    }

    fn missing(&self) -> Option<u32> {
        self.trie.missing()
    }
}
