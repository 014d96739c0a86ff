//! The application: execution, undo and permanence around the state.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use bytes::Bytes;
use elea_protocol::application::{Application, Command as _, Context, Queried};
use elea_protocol::codec;
use elea_protocol::id::{Digest, Slot};
use elea_protocol::rows::{Changes, RowsView, Unreadable};
use elea_protocol::trie::MerkleTrie;

use crate::cost::{self, Spent};
use crate::execute::execute;
use crate::limits::{BadLimits, Limits};
use crate::operation::Operation;
use crate::outcome::{self, Answer, Reason, Refused};
use crate::snapshot::{StateRestore, StateSnapshot};
use crate::state::{self, Base, Desk, Log, Since, State, Writing};

/// What tells it from other applications.
const NAME: &str = "elea-kv";

/// The versions of its operations and of its state that it executes: see
/// [`Application::editions`].
pub const EDITIONS: RangeInclusive<u16> = 1..=1;

/// The replicated key-value store.
///
/// What is permanent lies on disk, and in memory is what differs from it, with what every slot that may
/// be undone put in the place of what.
pub struct KeyValueStore {
    limits: Limits,
    base: Base,
    /// The slot of the state on disk.
    stored: Slot,
    state: State,
    /// Each slot from the last permanent one on; never empty.
    versions: VecDeque<Version>,
    /// Of the slot that has not ended.
    log: Log,
    /// What the request that is being executed has cost.
    spent: Spent,
    /// The state that is on its way to the disk.
    writing: Option<Writing>,
}

/// A slot that can be gone back to.
struct Version {
    slot: Slot,
    /// What it has changed. Empty where it is permanent.
    log: Log,
    /// The trie after it.
    trie: MerkleTrie,
}

impl Version {
    fn permanent(slot: Slot, state: &State) -> Self {
        Self { slot, log: Log::default(), trie: state.trie().clone() }
    }
}

impl KeyValueStore {
    /// An empty store with the default limits.
    #[must_use]
    pub fn new() -> Self {
        let state = State::default();
        Self {
            limits: Limits::default(),
            base: Base::none(),
            stored: Slot::GENESIS,
            versions: [Version::permanent(Slot::GENESIS, &state)].into(),
            state,
            log: Log::default(),
            spent: Spent::default(),
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

    /// About the bytes in memory for what differs from what is on disk, for what undoes it and for what
    /// is on its way to the disk, each counted once. It looks at all of that: for tests.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let writing = self.writing.as_ref().map(|writing| &writing.state);
        let logs = self.versions.iter().map(|version| &version.log).chain([&self.log]);
        let tries = self.versions.iter().map(|version| &version.trie);
        state::held([&self.state].into_iter().chain(writing), logs, tries)
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

    fn settings(&self) -> Vec<(String, String)> {
        let name = (String::from("application"), String::from(NAME));
        std::iter::once(name).chain(self.limits.settings()).collect()
    }

    fn editions(&self) -> RangeInclusive<u16> {
        EDITIONS
    }

    fn execute(&mut self, context: &Context, operation: &Bytes) -> Bytes {
        let version = outcome::Version { slot: context.slot, index: context.index };
        self.spent.turn_to(context);
        let answer = match codec::decode::<Operation>(operation) {
            Ok(operation) => {
                let mut desk = Desk {
                    base: &self.base,
                    state: &mut self.state,
                    log: &mut self.log,
                    limits: &self.limits,
                    spent: &mut self.spent,
                    since: None,
                };
                execute(&mut desk, version, operation)
            }
            Err(_) => Answer::Refused(Refused::from(Reason::Malformed)),
        };
        codec::encode(&answer).expect("the limits keep every answer below a frame")
    }

    fn query(&self, _: u16, operations: &[Bytes]) -> Option<Queried> {
        let since = Since::stored(self.stored);
        let limits = self.limits.of_query();
        // Nothing is changed, so what is shared stays so, and costs nothing.
        let (mut state, mut log, mut spent) =
            (self.state.clone(), Log::default(), Spent::default());
        let mut results = Vec::with_capacity(operations.len());
        for operation in operations {
            let operation = codec::decode::<Operation>(operation).ok()?;
            if !operation.only_reads() {
                return None;
            }
            let mut desk = Desk {
                base: &self.base,
                state: &mut state,
                log: &mut log,
                limits: &limits,
                spent: &mut spent,
                since: Some(&since),
            };
            let answer = execute(&mut desk, outcome::Version::NONE, operation);
            // It is dear, and takes its turn as a request. How far it came, and since when that is so, is not looked at.
            if matches!(answer, Answer::Refused(Refused { reason: Reason::OverBudget { .. }, .. }))
            {
                return None;
            }
            results
                .push(codec::encode(&answer).expect("the limits keep every answer below a frame"));
        }
        self.base.trouble().is_none().then(|| Queried { results, since: Some(since.slot()) })
    }

    fn weight(&self, operation: &Bytes) -> u64 {
        cost::weight_of(operation)
    }

    fn end_slot(&mut self, slot: Slot) {
        self.spent = Spent::default();
        let (log, trie) = (std::mem::take(&mut self.log), self.state.trie().clone());
        self.versions.push_back(Version { slot, log, trie });
    }

    fn undo_to(&mut self, slot: Slot) {
        self.spent = Spent::default();
        let mut undone = vec![std::mem::take(&mut self.log)];
        while self.versions.back().is_some_and(|version| version.slot > slot) {
            undone.extend(self.versions.pop_back().map(|version| version.log));
        }
        let version = self.versions.back().expect("permanent slots are not undone");
        assert_eq!(version.slot, slot, "every slot that may be undone was executed");
        undone.into_iter().for_each(|log| self.state.undo(log));
        self.state.set_trie(version.trie.clone());
    }

    fn make_permanent(&mut self, slot: Slot) {
        while self.versions.get(1).is_some_and(|version| version.slot <= slot) {
            self.versions.pop_front();
        }
        if let Some(first) = self.versions.front_mut() {
            first.log = Log::default();
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
        self.stored = slot;
        self.versions = [Version::permanent(slot, &self.state)].into();
        self.log = Log::default();
        self.writing = None;
        Ok(())
    }

    fn changes(
        &mut self,
        snapshot: &StateSnapshot,
        part: u32,
    ) -> Result<Option<Changes>, Unreadable> {
        if part == 0 {
            self.writing = Some(Writing::new(snapshot.state().clone()));
        }
        match &mut self.writing {
            Some(writing) => self.base.changes(writing, part),
            None => Err(Unreadable("the changes of a state begin with the first part".to_owned())),
        }
    }

    fn stored(&mut self, slot: Slot, rows: RowsView) {
        if let Some(written) = self.writing.take() {
            let written = written.state;
            self.base.become_stored(&written, rows);
            self.state.forget(slot, &written);
            self.stored = slot;
            self.versions.iter_mut().for_each(|version| version.log.forget(slot));
            // The trie after the last slot is the present one, and need not keep more than it.
            if let Some(version) = self.versions.back_mut() {
                version.trie = self.state.trie().clone();
            }
        }
    }

    fn trouble(&self) -> Option<Unreadable> {
        self.base.trouble().cloned()
    }
}
