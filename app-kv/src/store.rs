//! The application: execution, undo and permanence around the state.

use std::collections::VecDeque;

use bytes::Bytes;
use elea_protocol::application::{Application, Context, Incomplete, Restore};
use elea_protocol::codec;
use elea_protocol::id::{Digest, Slot};

use crate::execute::execute;
use crate::limits::{BadLimits, Limits};
use crate::operation::Operation;
use crate::outcome::{Answer, Reason, Refused, Version};
use crate::snapshot::{StateRestore, StateSnapshot};
use crate::state::State;

/// The replicated key-value store.
///
/// It keeps a version of the state for every slot that may be undone. Versions share what they
/// have in common, so that a version costs what its slot wrote, and undoing a slot, or any number
/// of them, is taking up an older version.
pub struct KeyValueStore {
    limits: Limits,
    state: State,
    /// The state after each slot from the last permanent one on, the present one last; never
    /// empty. Operations of a slot that has not ended are in `state` alone.
    versions: VecDeque<(Slot, State)>,
}

impl KeyValueStore {
    /// An empty store with the default limits.
    #[must_use]
    pub fn new() -> Self {
        let genesis = (Slot::GENESIS, State::default());
        Self { limits: Limits::default(), state: State::default(), versions: [genesis].into() }
    }

    /// An empty store with these limits.
    ///
    /// # Errors
    /// A limit is 0 or above its default.
    pub fn with_limits(limits: Limits) -> Result<Self, BadLimits> {
        limits.validate()?;
        Ok(Self { limits, ..Self::new() })
    }

    /// How many keys are there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for KeyValueStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Application for KeyValueStore {
    type Snapshot = StateSnapshot;
    type Restore = StateRestore;

    fn execute(&mut self, context: &Context, operation: &Bytes) -> Bytes {
        let version = Version { slot: context.slot, index: context.index };
        let answer = match codec::decode::<Operation>(operation) {
            Ok(operation) => execute(&mut self.state, &self.limits, version, operation),
            Err(_) => Answer::Refused(Refused::from(Reason::Malformed)),
        };
        codec::encode(&answer).expect("the limits keep every answer below a frame")
    }

    fn end_slot(&mut self, slot: Slot) {
        self.versions.push_back((slot, self.state.clone()));
    }

    fn undo_to(&mut self, slot: Slot) {
        while self.versions.back().is_some_and(|(version, _)| *version > slot) {
            self.versions.pop_back();
        }
        let (version, state) = self.versions.back().expect("permanent slots are not undone");
        assert_eq!(*version, slot, "every slot that may be undone was executed");
        self.state = state.clone();
    }

    fn make_permanent(&mut self, slot: Slot) {
        while self.versions.get(1).is_some_and(|(version, _)| *version <= slot) {
            self.versions.pop_front();
        }
    }

    fn digest(&mut self) -> Digest {
        self.state.trie().digest()
    }

    fn snapshot(&self) -> StateSnapshot {
        StateSnapshot::new(self.state.clone())
    }

    fn restore(&self, digest: Digest) -> StateRestore {
        StateRestore::new(digest)
    }

    fn install(&mut self, slot: Slot, restored: StateRestore) -> Result<(), Incomplete> {
        if restored.missing().is_some() {
            return Err(Incomplete);
        }
        self.state = restored.finish().ok_or(Incomplete)?;
        self.versions = [(slot, self.state.clone())].into();
        Ok(())
    }
}
