//! Speculative execution: the application and the sessions, slot by slot, with the way back.

use std::collections::VecDeque;

use crate::application::{Application, Context};
use crate::codec::{Canonical, FRAME_MAX, Sink};
use crate::id::{Digest, Slot};
use crate::message::{Batch, Position, ResultCollector, Results};
use crate::replica::sessions::{Kept, Sessions};
use crate::tuning::Rules;

/// The most bytes that the results of one request may have to be sent: more would not fit a frame.
pub const RESULT_BYTES_MAX: usize = FRAME_MAX / 2;

/// The most bytes of results that one slot keeps. Requests behind those that fill it keep the
/// digest of theirs only; their clients read anew.
pub const SLOT_RESULT_BYTES_MAX: usize = 4 * FRAME_MAX;

/// What is certified at a checkpoint.
struct ReplicatedState {
    application: Digest,
    sessions: Digest,
}

impl Canonical for ReplicatedState {
    const TAG: &'static str = "state";

    fn write(&self, to: &mut impl Sink) {
        to.put_digest(&self.application);
        to.put_digest(&self.sessions);
    }
}

/// The replicated state after the last executed slot.
///
/// Every slot above the last permanent one can be undone: the application keeps its own records
/// for that, and of the sessions a version is kept for each slot.
#[derive(Debug)]
pub struct Execution<A> {
    application: A,
    sessions: Sessions,
    /// The sessions after each slot that can be gone back to, the permanent one first.
    versions: VecDeque<(Slot, Sessions)>,
}

impl<A: Application> Execution<A> {
    /// Before the first slot.
    pub fn new(application: A, rules: Rules) -> Self {
        let sessions = Sessions::new(rules);
        let versions = VecDeque::from([(Slot::GENESIS, sessions.clone())]);
        Self { application, sessions, versions }
    }

    /// The application, as it is after the last slot.
    pub fn application(&self) -> &A {
        &self.application
    }

    /// The sessions, as they are after the last slot.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The last slot executed.
    pub fn executed(&self) -> Slot {
        self.versions.back().map_or(Slot::GENESIS, |(slot, _)| *slot)
    }

    /// Executes the next slot and answers the results of its requests.
    ///
    /// # Panics
    /// I4: where a name in it is executed already.
    pub fn execute(&mut self, at: Position, batch: &Batch) -> Vec<Results> {
        assert_eq!(at.slot, self.executed().next(), "slots are executed in order");
        let mut index: u32 = 0;
        let mut bytes = 0;
        let results = batch
            .requests
            .iter()
            .map(|signed| {
                let request = signed.body();
                let first = index;
                let mut collector =
                    ResultCollector::new(request.operations.len(), RESULT_BYTES_MAX);
                for operation in &request.operations {
                    let context = Context {
                        slot: at.slot,
                        index,
                        client: request.client,
                        session: request.session,
                        number: request.number,
                        time: batch.choices.time,
                        seed: batch.choices.seed,
                        level: request.level,
                    };
                    index += 1;
                    collector.add(self.application.execute(&context, operation));
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
        let sessions = self.sessions.digest();
        // The version of this slot profits from what was just computed.
        if let Some((_, version)) = self.versions.back_mut() {
            *version = self.sessions.clone();
        }
        ReplicatedState { application: self.application.digest(), sessions }.digest()
    }
}
