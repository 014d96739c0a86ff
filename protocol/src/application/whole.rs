//! States that are small enough to be one chunk.

use bytes::Bytes;

use super::{BadChunk, Restore, Snapshot, rebuilt};
use crate::codec::{Canonical, Sink};
use crate::id::Digest;
use crate::rows::{RowsView, Unreadable};

/// A state as its bytes: all of an application's, where it is small, 512 KiB or so at the most. It is sent, kept and
/// checked in one piece, so each checkpoint writes all of it.
///
/// It is the [`Application::Snapshot`](super::Application::Snapshot) of an application that can write its state
/// down; equal states have to come to equal bytes. [`WholeRestore`] is the other way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whole(Bytes);

impl Whole {
    /// The state that these bytes say.
    pub fn new(state: impl Into<Bytes>) -> Self {
        Self(state.into())
    }

    /// The bytes of the state with this digest that lies in these rows, for
    /// [`Application::open`](super::Application::open).
    ///
    /// # Errors
    /// It does not.
    pub fn stored(digest: Digest, rows: &RowsView) -> Result<Bytes, Unreadable> {
        Ok(rebuilt(WholeRestore::new(digest), rows)?.state.unwrap_or_default().0)
    }
}

impl Canonical for Whole {
    const TAG: &'static str = "whole-state";

    fn write(&self, to: &mut impl Sink) {
        to.put_len(self.0.len());
        to.put(&self.0);
    }
}

impl Snapshot for Whole {
    fn digest(&self) -> Digest {
        Canonical::digest(self)
    }

    fn chunks(&self) -> u32 {
        1
    }

    fn chunk(&self, index: u32) -> Option<Bytes> {
        (index == 0).then(|| self.0.clone())
    }
}

/// A [`Whole`] state that is waited for, by its digest.
#[derive(Clone, Debug)]
pub struct WholeRestore {
    digest: Digest,
    state: Option<Whole>,
}

impl WholeRestore {
    /// It has not come yet.
    #[must_use]
    pub fn new(digest: Digest) -> Self {
        Self { digest, state: None }
    }
}

impl Restore for WholeRestore {
    fn accept(&mut self, index: u32, chunk: &Bytes) -> Result<(), BadChunk> {
        let state = Whole(chunk.clone());
        if index != 0 || Canonical::digest(&state) != self.digest {
            return Err(BadChunk);
        }
        self.state = Some(state);
        Ok(())
    }

    fn missing(&self) -> Option<u32> {
        self.state.is_none().then_some(0)
    }

    fn chunks(&self) -> Option<u32> {
        Some(1)
    }
}
