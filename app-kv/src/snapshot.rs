//! The state in chunks, each proven against the digest on its own.

use bytes::Bytes;
use elea_protocol::application::{BadChunk, Restore, Snapshot};
use elea_protocol::codec;
use elea_protocol::id::Digest;
use elea_protocol::rows::{Row, RowsView, Unreadable};
use elea_protocol::trie::{Assembly, Proof};
use serde::{Deserialize, Serialize};

use crate::outcome::Item;
use crate::state::{Entry, State, leaf, name, rows_of};

/// A chunk as it is sent: all entries below one node of the trie, in the order of their hashed
/// keys, and what proves that they are all of them. There is exactly one right chunk for each
/// number, byte for byte.
#[derive(Serialize, Deserialize)]
struct Chunk {
    proof: Proof,
    items: Vec<Item>,
}

/// A frozen state, made by [`KeyValueStore::snapshot`]: a view of what lies on disk, and what differs
/// from it.
///
/// [`KeyValueStore::snapshot`]: elea_protocol::application::Application::snapshot
pub struct StateSnapshot {
    state: State,
    rows: RowsView,
}

impl StateSnapshot {
    pub(crate) fn new(state: State, rows: RowsView) -> Self {
        Self { state, rows }
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    fn read_chunk(&self, index: u32) -> Result<Option<Bytes>, Unreadable> {
        let Some((proof, low, high)) = self.state.trie().chunk_in(&*self.rows, index)? else {
            return Ok(None);
        };
        let items = self.state.items_between(&*self.rows, &low, &high)?;
        let chunk = codec::encode(&Chunk { proof, items });
        Ok(Some(chunk.expect("the limits keep a chunk below a frame")))
    }
}

impl Snapshot for StateSnapshot {
    fn digest(&self) -> Digest {
        self.state.trie().digest()
    }

    fn chunks(&self) -> u32 {
        self.state.trie().chunks()
    }

    fn chunk(&self, index: u32) -> Option<Bytes> {
        self.read_chunk(index).ok().flatten()
    }
}

/// A state that is being put together from chunks, made by [`KeyValueStore::restore`]. It goes to
/// disk chunk by chunk: in memory is only which are there.
///
/// [`KeyValueStore::restore`]: elea_protocol::application::Application::restore
pub struct StateRestore {
    trie: Assembly,
    /// Of the chunk accepted last.
    rows: Vec<Row>,
}

impl StateRestore {
    pub(crate) fn new(digest: Digest) -> Self {
        Self { trie: Assembly::new(digest), rows: Vec::new() }
    }
}

impl Restore for StateRestore {
    fn accept(&mut self, index: u32, chunk: &Bytes) -> Result<(), BadChunk> {
        let Chunk { proof, items } = codec::decode(chunk).map_err(|_| BadChunk)?;
        let mut entries = Vec::with_capacity(items.len());
        let mut leaves = Vec::with_capacity(items.len());
        for item in items {
            let name = name(&item.key);
            let (key, entry) = Entry::from_item(item).map_err(|_| BadChunk)?;
            leaves.push((name, leaf(&key, &entry)));
            entries.push((name, key, entry));
        }
        self.rows.clear();
        if let Some(of_trie) = self.trie.accept_rows(index, &proof, leaves)? {
            self.rows = of_trie;
            for (name, key, entry) in entries {
                let rows = rows_of(&name, &key, &entry).map_err(|_| BadChunk)?;
                self.rows.extend(rows.into_iter().filter_map(|(key, row)| Some((key, row?))));
            }
        }
        Ok(())
    }

    fn missing(&self) -> Option<u32> {
        self.trie.missing()
    }

    fn missing_from(&self, first: u32) -> Option<u32> {
        self.trie.missing_from(first)
    }

    fn chunks(&self) -> Option<u32> {
        self.trie.chunks()
    }

    fn rows(&mut self, _index: u32, _chunk: &Bytes) -> Vec<Row> {
        std::mem::take(&mut self.rows)
    }

    fn rest(&mut self) -> Vec<Row> {
        self.trie.rest()
    }

    fn resume(&mut self, rows: &RowsView) -> Result<(), Unreadable> {
        self.trie.resume(&**rows)
    }
}
