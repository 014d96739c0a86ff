//! What clients were told, held against what became history: I8 in part, I9, and durability.

use std::collections::HashMap;

use bytes::Bytes;
use elea_protocol::application::{Application, Context};
use elea_protocol::id::{Digest, RequestName, Slot};
use elea_protocol::message::{Level, ReplyKind};

use super::Histories;
use super::histories::sessions_may_have_left;
use crate::violation::{Violation, demand};

/// Something a client was told.
#[derive(Clone, Debug)]
pub struct Promise {
    /// Which request.
    pub name: RequestName,
    /// What it asked for.
    pub level: Level,
    /// Which replies it rests on.
    pub kind: ReplyKind,
    /// When the client asked, in the world's time.
    pub asked: u64,
    /// When it was answered.
    pub answered: u64,
    /// The slot that the answer names.
    pub slot: Slot,
    /// The hash that the answer names.
    pub hash: Digest,
    /// The position of the submission's first operation.
    pub index: u32,
    /// The results.
    pub results: Vec<Bytes>,
}

/// All promises of a world.
#[derive(Clone, Default)]
pub struct Outcomes {
    /// In the order in which they were made.
    pub promises: Vec<Promise>,
    /// How many sessions a client may have; see [`Outcomes::check`].
    pub max_sessions: u64,
}

/// What a re-execution of a history came to for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// In which slot.
    pub slot: Slot,
    /// The hash of the history up to it.
    pub hash: Digest,
    /// The position of its first operation in the slot.
    pub index: u32,
    /// The results, one for each operation.
    pub results: Vec<Bytes>,
}

/// Executes the history that ends in `head` from scratch, without the core's help, and shows the state before the first
/// slot and after each.
///
/// # Errors
/// I4: a name is in it twice; or what `look` says.
pub fn reexecute<A: Application>(
    histories: &Histories,
    head: Digest,
    application: &mut A,
    mut look: impl FnMut(Slot, &A) -> Result<(), Violation>,
) -> Result<HashMap<RequestName, Executed>, Violation> {
    let mut executed = HashMap::new();
    look(Slot::GENESIS, application)?;
    for (at, batch) in histories.batches(head) {
        let mut index = 0;
        for signed in &batch.requests {
            let request = signed.body();
            let first = index;
            let mut results = Vec::new();
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
                    edition: batch.choices.edition.application,
                };
                results.push(application.execute(&context, operation));
                index += 1;
            }
            let outcome = Executed { slot: at.slot, hash: at.hash, index: first, results };
            if executed.insert(request.name(), outcome).is_some() {
                let what = format!("{:?} is twice in one history", request.name());
                return Err(Violation::new("I4", what));
            }
        }
        application.end_slot(at.slot);
        look(at.slot, application)?;
    }
    Ok(executed)
}

impl Outcomes {
    /// Holds every promise against the final history.
    ///
    /// # Errors
    /// I5: an answered request is not in it, unless it was weak and the history has more sessions of its
    /// client than one may have, so that its session may have left before a merge brought it; I9: a final result is not the one there; I8: strong
    /// requests are in it in another order than they happened.
    pub fn check(&self, executed: &HashMap<RequestName, Executed>) -> Result<(), Violation> {
        for promise in &self.promises {
            let name = promise.name;
            let Some(place) = executed.get(&name) else {
                let is_weak = promise.kind == ReplyKind::Speculative;
                let may_have_left =
                    sessions_may_have_left(executed.keys(), &name.client, self.max_sessions);
                demand(is_weak && may_have_left, "I5", || {
                    format!("{name:?} was answered and is not in the final history")
                })?;
                continue;
            };
            // A merge may move a weak request; where it did not, nothing may differ.
            if promise.kind == ReplyKind::Committed || promise.hash == place.hash {
                Self::check_place(promise, place)?;
            }
        }
        self.check_real_time(executed)
    }

    fn check_place(promise: &Promise, place: &Executed) -> Result<(), Violation> {
        let name = promise.name;
        demand((promise.slot, promise.hash) == (place.slot, place.hash), "I9", || {
            format!("{name:?} was answered in slot {} and is in slot {}", promise.slot, place.slot)
        })?;
        // A submission may be one part of a request: its results are a stretch of the request's.
        let offset = promise.index.checked_sub(place.index).map(|offset| offset as usize);
        let stretch = offset.and_then(|offset| {
            place.results.get(offset..offset.checked_add(promise.results.len())?)
        });
        demand(stretch == Some(&promise.results[..]), "I9", || {
            format!(
                "{name:?} was answered {:?}; executed anew: {:?}",
                promise.results, place.results
            )
        })
    }

    /// If one strong request was answered before another was submitted, it comes first in the
    /// history. With results equal to a sequential execution, that is linearizability.
    fn check_real_time(&self, executed: &HashMap<RequestName, Executed>) -> Result<(), Violation> {
        let mut strong: Vec<(&Promise, (Slot, u32))> = self
            .promises
            .iter()
            .filter(|promise| promise.level == Level::Strong)
            .filter_map(|promise| {
                let place = executed.get(&promise.name)?;
                Some((promise, (place.slot, promise.index)))
            })
            .collect();
        strong.sort_by_key(|(promise, _)| promise.asked);
        let mut answered: Vec<(&Promise, (Slot, u32))> = strong.clone();
        answered.sort_by_key(|(promise, _)| promise.answered);
        let mut done = answered.into_iter().peekable();
        let mut latest: Option<(&Promise, (Slot, u32))> = None;
        for (promise, place) in strong {
            while let Some(earlier) = done.next_if(|(earlier, _)| earlier.answered < promise.asked)
            {
                if latest.is_none_or(|(_, place)| place < earlier.1) {
                    latest = Some(earlier);
                }
            }
            if let Some((earlier, earlier_place)) = latest {
                demand(earlier_place < place, "I8", || {
                    format!(
                        "{:?} was answered before {:?} was asked, and comes after it",
                        earlier.name, promise.name
                    )
                })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use elea_protocol::id::{ClientId, RequestNumber, SessionId};

    use super::super::histories::tests::Stage;
    use super::*;
    use crate::journal::Journal;

    fn name(number: u64) -> RequestName {
        RequestName {
            client: ClientId([0; 32]),
            session: SessionId(1),
            number: RequestNumber(number),
        }
    }

    fn promise(number: u64, times: (u64, u64), slot: u64, result: &'static str) -> Promise {
        Promise {
            name: name(number),
            level: Level::Strong,
            kind: ReplyKind::Committed,
            asked: times.0,
            answered: times.1,
            slot: Slot(slot),
            hash: Digest::default(),
            index: 0,
            results: vec![result.into()],
        }
    }

    fn place(slot: u64, result: &'static str) -> Executed {
        let results = vec![result.into()];
        Executed { slot: Slot(slot), hash: Digest::default(), index: 0, results }
    }

    fn rule(promises: Vec<Promise>, executed: &[(u64, Executed)]) -> String {
        let executed = executed.iter().map(|(n, place)| (name(*n), place.clone())).collect();
        Outcomes { promises, max_sessions: 8 }.check(&executed).expect_err("a violation").rule
    }

    #[test]
    fn lost_moved_changed_and_reordered_answers_are_found() {
        let kept = promise(1, (0, 5), 1, "a");
        let history = [(1, place(1, "a")), (2, place(2, "b"))];
        let good =
            Outcomes { promises: vec![kept.clone(), promise(2, (6, 9), 2, "b")], max_sessions: 8 };
        let executed = history.iter().map(|(n, place)| (name(*n), place.clone())).collect();
        assert_eq!(good.check(&executed), Ok(()));
        assert_eq!(rule(vec![promise(3, (0, 1), 1, "a")], &history), "I5");
        assert_eq!(rule(vec![promise(1, (0, 1), 2, "a")], &history), "I9");
        assert_eq!(rule(vec![promise(1, (0, 1), 1, "b")], &history), "I9");
        let late_first = vec![promise(2, (0, 3), 2, "b"), promise(1, (4, 5), 1, "a")];
        assert_eq!(rule(late_first, &history), "I8");
    }

    #[test]
    fn strong_requests_that_overlap_may_come_in_any_order() {
        let executed = [(1, place(1, "a")), (2, place(2, "b"))]
            .into_iter()
            .map(|(n, place)| (name(n), place))
            .collect();
        let overlapping = Outcomes {
            promises: vec![promise(2, (0, 5), 2, "b"), promise(1, (5, 6), 1, "a")],
            max_sessions: 8,
        };
        assert_eq!(overlapping.check(&executed), Ok(()));
    }

    #[test]
    fn a_history_is_executed_anew_from_its_batches() {
        let stage = Stage::new();
        let mut histories = stage.histories();
        let fake = stage.chain(&[&[1], &[2, 3]], 0);
        let who = elea_protocol::id::ReplicaId(1);
        histories.follow(who, &fake, &stage.membership).expect("sound");
        let mut journal = Journal::default();
        let executed = reexecute(&histories, fake.slots[1].hash, &mut journal, |_, _| Ok(()))
            .expect("no name twice");
        assert_eq!(executed.len(), 3);
        assert_eq!(journal.value("x"), Some("3"));
    }
}
