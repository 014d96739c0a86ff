//! The application: execution, undo and permanence around the state.

use std::collections::VecDeque;

use bytes::Bytes;
use elea_protocol::application::{Application, Context};
use elea_protocol::codec;
use elea_protocol::id::{Digest, Slot};
use elea_protocol::rows::{Changes, RowsView, Unreadable};

use crate::execute::execute;
use crate::limits::{BadLimits, Limits};
use crate::operation::Operation;
use crate::outcome::{Answer, Reason, Refused, Version};
use crate::snapshot::{StateRestore, StateSnapshot};
use crate::state::{Base, Desk, State};

/// The replicated key-value store.
///
/// What is permanent lies on disk, and in memory is what differs from it. It keeps a version of that
/// for every slot that may be undone. Versions share what they have in common, so that a version
/// costs what its slot wrote, and undoing a slot, or any number of them, is taking up an older
/// version.
pub struct KeyValueStore {
    limits: Limits,
    base: Base,
    state: State,
    /// The state after each slot from the last permanent one on, the present one last; never
    /// empty. Operations of a slot that has not ended are in `state` alone.
    versions: VecDeque<(Slot, State)>,
    /// The state that is on its way to the disk.
    writing: Option<State>,
}

impl KeyValueStore {
    /// An empty store with the default limits.
    #[must_use]
    pub fn new() -> Self {
        let genesis = (Slot::GENESIS, State::default());
        Self {
            limits: Limits::default(),
            base: Base::none(),
            state: State::default(),
            versions: [genesis].into(),
            writing: None,
        }
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

    /// How many keys are held in memory because they differ from what is on disk, or did until
    /// lately.
    #[must_use]
    pub fn in_memory(&self) -> usize {
        self.state.changed()
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
            Ok(operation) => {
                let mut desk = Desk { base: &self.base, state: &mut self.state };
                execute(&mut desk, &self.limits, version, operation)
            }
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
        StateSnapshot::new(self.state.clone(), self.base.rows.clone())
    }

    fn restore(&self, digest: Digest) -> StateRestore {
        StateRestore::new(digest)
    }

    fn open(&mut self, slot: Slot, digest: Digest, rows: RowsView) -> Result<(), Unreadable> {
        self.base = Base::open(rows, digest)?;
        self.state = self.base.state();
        self.versions = [(slot, self.state.clone())].into();
        self.writing = None;
        Ok(())
    }

    fn changes(&mut self, snapshot: &StateSnapshot) -> Result<Changes, Unreadable> {
        let changes = self.base.changes(snapshot.state())?;
        self.writing = Some(snapshot.state().clone());
        Ok(changes)
    }

    fn stored(&mut self, slot: Slot, rows: RowsView) {
        if let Some(written) = self.writing.take() {
            self.base.become_stored(&written, rows);
            self.state.forget(slot, &written);
            // The version of the last slot is the present state, and need not keep more than it.
            if let Some((_, version)) = self.versions.back_mut() {
                *version = self.state.clone();
            }
        }
    }

    fn trouble(&self) -> Option<Unreadable> {
        self.base.trouble().cloned()
    }
}
