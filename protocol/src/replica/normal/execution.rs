//! Speculative execution: the application and the sessions, slot by slot, with the way back.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::application::{Application, Context};
use crate::codec::{Canonical, FRAME_MAX};
use crate::id::{Digest, RequestName, Slot};
use crate::message::{Batch, Position, ResultCollector, Results, StateDigests};
use crate::replica::sessions::{FrozenSessions, Kept, Sessions};
use crate::rows::{Changes, RowsView, Unreadable};
use crate::tuning::Rules;

/// The most bytes that the results of one request may have to be sent: more would not fit a frame.
pub const RESULT_BYTES_MAX: usize = FRAME_MAX / 2;

/// The most bytes of results that one slot keeps. Requests behind those that fill it keep the
/// digest of theirs only; their clients read anew.
pub const SLOT_RESULT_BYTES_MAX: usize = 4 * FRAME_MAX;

/// What operations came to before their slots were undone, by the names of their requests.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Undone {
    results: BTreeMap<RequestName, Results>,
    /// Operations whose result was another one when they were executed anew.
    pub(super) changed: u64,
}

impl Undone {
    /// With more than this, the rest is not compared: clients compare for themselves.
    const KEPT: usize = 1 << 16;

    pub(in crate::replica) fn remember(&mut self, name: RequestName, results: Results) {
        if self.results.len() < Self::KEPT {
            self.results.insert(name, results);
        }
    }

    pub(in crate::replica) fn len(&self) -> usize {
        self.results.len()
    }
}

/// The replicated state after the last executed slot.
///
/// Every slot above the last permanent one can be undone: the application keeps its own records
/// for that, and of the sessions a version is kept for each slot.
#[derive(Clone, Debug)]
pub struct Execution<A> {
    application: A,
    sessions: Sessions,
    /// How many sessions have left the table, each as often as its slot was executed.
    sessions_left: u64,
    /// The sessions after each slot that can be gone back to, the permanent one first.
    versions: VecDeque<(Slot, Sessions)>,
}

impl<A: Application> Execution<A> {
    /// Before the first slot.
    pub fn new(application: A, rules: Rules) -> Self {
        let sessions = Sessions::new(rules);
        let versions = VecDeque::from([(Slot::GENESIS, sessions.clone())]);
        Self { application, sessions, sessions_left: 0, versions }
    }

    /// The application, as it is after the last slot.
    pub fn application(&self) -> &A {
        &self.application
    }

    /// What the application says of an operation; see [`Application::weight`].
    pub(super) fn weight(&self, operation: &Bytes) -> u64 {
        self.application.weight(operation)
    }

    /// The sessions, as they are after the last slot.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// How many sessions have left the table, each as often as its slot was executed.
    pub fn sessions_left(&self) -> u64 {
        self.sessions_left
    }

    /// The last slot executed.
    pub fn executed(&self) -> Slot {
        self.versions.back().map_or(Slot::GENESIS, |(slot, _)| *slot)
    }

    /// Executes the next slot and answers the results of its requests.
    ///
    /// # Panics
    /// I4: where a name in it is executed already.
    pub(super) fn execute(
        &mut self,
        at: Position,
        batch: &Batch,
        undone: &mut Undone,
    ) -> Vec<Results> {
        assert_eq!(at.slot, self.executed().next(), "slots are executed in order");
        let mut index: u32 = 0;
        let mut bytes = 0;
        let results = batch
            .requests
            .iter()
            .map(|signed| {
                let request = signed.body();
                let first = index;
                let before = undone.results.remove(&request.name());
                let mut collector =
                    ResultCollector::new(request.operations.len(), RESULT_BYTES_MAX);
                for (part, operation) in request.operations.iter().enumerate() {
                    let context = Context {
                        slot: at.slot,
                        index,
                        client: request.client,
                        session: request.session,
                        number: request.number,
                        time: batch.choices.time,
                        seed: batch.choices.seed,
                        level: request.level,
                        edition: batch.choices.edition.application,
                    };
                    index += 1;
                    let result = self.application.execute(&context, operation);
                    if let Some(Results::Full(before)) = &before
                        && let Some(before) = before.get(part)
                        && *before != result
                    {
                        undone.changed += 1;
                        self.application.reordered(&context, before, &result);
                    }
                    collector.add(result);
                }
                let mut results = collector.finish();
                if bytes + results.size() > SLOT_RESULT_BYTES_MAX {
                    results = Results::Forgotten(results.digest());
                }
                bytes += results.size();
                let kept =
                    Kept { at, index: first, request: signed.digest(), results: results.clone() };
                self.sessions.execute(request, kept);
                results
            })
            .collect();
        self.application.end_slot(at.slot);
        self.sessions_left += self.sessions.end_slot();
        self.versions.push_back((at.slot, self.sessions.clone()));
        results
    }

    /// Takes back everything above `slot`.
    ///
    /// # Panics
    /// Where `slot` lies below the last permanent one.
    pub fn undo_to(&mut self, slot: Slot) {
        while self.versions.back().is_some_and(|(last, _)| *last > slot) {
            self.versions.pop_back();
        }
        let (last, sessions) = self.versions.back().expect("what is permanent is not undone");
        assert_eq!(*last, slot, "every slot above the permanent one can be gone back to");
        self.sessions = sessions.clone();
        self.application.undo_to(slot);
    }

    /// Nothing up to `slot` will be undone.
    pub fn make_permanent(&mut self, slot: Slot) {
        while self.versions.len() > 1 && self.versions.front().is_some_and(|(at, _)| *at < slot) {
            self.versions.pop_front();
        }
        self.application.make_permanent(slot);
    }

    /// Over the application's state and the sessions.
    pub fn digest(&mut self) -> Digest {
        self.digests().digest()
    }

    /// The digests of the application's state and of the sessions.
    pub(in crate::replica) fn digests(&mut self) -> StateDigests {
        let sessions = self.sessions.digest();
        // The version of this slot profits from what was just computed.
        if let Some((_, version)) = self.versions.back_mut() {
            *version = self.sessions.clone();
        }
        StateDigests { application: self.application.digest(), sessions }
    }

    /// The whole state after the last executed slot, to be sent to others; costs little.
    pub(in crate::replica) fn freeze(&mut self) -> (A::Snapshot, FrozenSessions) {
        (self.application.snapshot(), self.sessions.freeze())
    }

    /// The sessions after a slot that can be gone back to.
    pub(in crate::replica) fn sessions_at(&self, slot: Slot) -> Option<&Sessions> {
        if slot == self.executed() {
            return Some(&self.sessions);
        }
        let index = self.versions.binary_search_by_key(&slot, |(at, _)| *at).ok()?;
        self.versions.get(index).map(|(_, sessions)| sessions)
    }

    /// A state of the application to be rebuilt.
    pub(in crate::replica) fn restore(&self, digest: Digest) -> A::Restore {
        self.application.restore(digest)
    }

    /// Puts a stored state in place of all there is. Where that fails, nothing has changed.
    ///
    /// # Errors
    /// The application's rows are damaged.
    pub(in crate::replica) fn open(
        &mut self,
        slot: Slot,
        application: Digest,
        rows: RowsView,
        sessions: Sessions,
    ) -> Result<(), Unreadable> {
        self.application.open(slot, application, rows)?;
        self.stand_on(slot, sessions);
        Ok(())
    }

    /// Puts stored sessions in place; the application's state cannot be read. What the application
    /// has instead is of no use, but it is what slots are executed on, and undone to.
    pub(in crate::replica) fn open_without(&mut self, slot: Slot, sessions: Sessions) {
        self.application.end_slot(slot);
        self.application.make_permanent(slot);
        self.stand_on(slot, sessions);
    }

    fn stand_on(&mut self, slot: Slot, sessions: Sessions) {
        self.versions = VecDeque::from([(slot, sessions.clone())]);
        self.sessions = sessions;
    }

    /// A part of what is to be written for a snapshot of a stable slot; `None` after the last.
    ///
    /// # Errors
    /// The application's rows are damaged.
    pub(in crate::replica) fn changes(
        &mut self,
        snapshot: &A::Snapshot,
        part: u32,
    ) -> Result<Option<Changes>, Unreadable> {
        self.application.changes(snapshot, part)
    }

    /// The state of a stable slot is on disk.
    pub(in crate::replica) fn stored(&mut self, slot: Slot, rows: RowsView) {
        self.application.stored(slot, rows);
    }
}
