//! The pieces of a state that are here, each checked against the certified digest.

use bytes::Bytes;

use crate::application::Restore;
use crate::codec::{self, Canonical};
use crate::history::extend;
use crate::id::Digest;
use crate::message::{LastSlot, StableProof, StateDigests, StatePart, batch_digest};
use crate::replica::sessions::{Sessions, SessionsRestore};
use crate::rows::{Row, RowsView, Unreadable};
use crate::tuning::Rules;

/// What is here of a certified state.
#[derive(Clone, Debug)]
pub(super) struct Pieces<R> {
    proof: StableProof,
    last: Option<LastSlot>,
    /// Nothing until a piece has come, with what its digest is made of.
    tables: Option<Tables<R>>,
}

/// The two tables that a state is made of, being rebuilt.
#[derive(Clone, Debug)]
struct Tables<R> {
    digests: StateDigests,
    sessions: SessionsRestore,
    application: R,
}

impl<R> Pieces<R> {
    pub(super) fn new(proof: StableProof) -> Self {
        Self { proof, last: None, tables: None }
    }

    /// What certifies the state.
    pub(super) fn proof(&self) -> &StableProof {
        &self.proof
    }
}

impl<R: Restore> Pieces<R> {
    /// What the pieces are pieces of. `false` where it is not the certified state.
    pub(super) fn learn(
        &mut self,
        digests: StateDigests,
        rules: Rules,
        restore: impl FnOnce(Digest) -> R,
    ) -> bool {
        if digests.digest() != self.proof.checkpoint.body.state {
            return false;
        }
        if self.tables.is_none() {
            let sessions = SessionsRestore::new(rules, digests.sessions);
            let application = restore(digests.application);
            self.tables = Some(Tables { digests, sessions, application });
        }
        true
    }

    /// Takes a piece. `false` where it does not belong to the certified state.
    pub(super) fn accept(&mut self, part: StatePart, bytes: &Bytes) -> bool {
        let checkpoint = self.proof.checkpoint.body;
        let tables = self.tables.as_mut();
        match part {
            StatePart::Last => {
                let Ok(last) = codec::decode::<LastSlot>(bytes) else { return false };
                let batch = batch_digest(&last.choices, &last.requests);
                if extend(&last.previous, &batch) != checkpoint.hash {
                    return false;
                }
                self.last = Some(last);
                true
            }
            StatePart::Sessions(index) => {
                tables.is_some_and(|tables| tables.sessions.accept(index, bytes).is_ok())
            }
            StatePart::Application(index) => {
                tables.is_some_and(|tables| tables.application.accept(index, bytes).is_ok())
            }
        }
    }

    /// The next piece to ask for: the lowest that is neither here nor asked for.
    pub(super) fn next(&self, is_asked: impl Fn(StatePart) -> bool) -> Option<StatePart> {
        if self.last.is_none() {
            // It shows what the others are pieces of.
            return (!is_asked(StatePart::Last)).then_some(StatePart::Last);
        }
        let Tables { sessions, application, .. } = self.tables.as_ref()?;
        let next = |of: fn(u32) -> StatePart, missing: &dyn Fn(u32) -> Option<u32>| {
            let mut first = 0;
            loop {
                let part = of(missing(first)?);
                if !is_asked(part) {
                    return Some(part);
                }
                first = missing(first)? + 1;
            }
        };
        next(StatePart::Sessions, &|first| sessions.missing_from(first))
            .or_else(|| next(StatePart::Application, &|first| application.missing_from(first)))
    }

    pub(super) fn are_whole(&self) -> bool {
        let is_whole = |tables: &Tables<R>| {
            tables.sessions.missing().is_none() && tables.application.missing().is_none()
        };
        self.last.is_some() && self.tables.as_ref().is_some_and(is_whole)
    }

    /// How many there are, where it is known.
    pub(super) fn of(&self) -> Option<u64> {
        let tables = self.tables.as_ref()?;
        let sessions = tables.sessions.total()?;
        let application = tables.application.chunks()?;
        Some(1 + u64::from(sessions) + u64::from(application))
    }

    /// The rows that a piece comes to, which was just accepted, where it is one of the application's.
    pub(super) fn rows(&mut self, part: StatePart, bytes: &Bytes) -> Option<Vec<Row>> {
        match part {
            StatePart::Application(index) => {
                self.tables.as_mut().map(|tables| tables.application.rows(index, bytes))
            }
            StatePart::Last | StatePart::Sessions(_) => None,
        }
    }

    /// The application's rows that belong to no piece, when the state is whole.
    pub(super) fn rest(&mut self) -> Vec<Row> {
        self.tables.as_mut().map(|tables| tables.application.rest()).unwrap_or_default()
    }

    /// Goes on with the rows that were stored before. Answers how many pieces of the application's they are, as far as
    /// that is known.
    pub(super) fn resume(&mut self, rows: &RowsView) -> Result<u64, Unreadable> {
        let Some(Tables { application, .. }) = &mut self.tables else { return Ok(0) };
        application.resume(rows)?;
        Ok(u64::from(application.missing().unwrap_or_default()))
    }

    /// The protocol's own part of the state, where that is whole.
    pub(super) fn own_part(self) -> Option<(LastSlot, Sessions)> {
        Some((self.last?, self.tables?.sessions.finish()?))
    }

    /// All of it that is not in rows, if all of it is here.
    pub(super) fn into_whole(self) -> Option<(StableProof, StateDigests, LastSlot, Sessions)> {
        if !self.are_whole() {
            return None;
        }
        let (proof, digests) = (self.proof.clone(), self.tables.as_ref()?.digests);
        let (last, sessions) = self.own_part()?;
        Some((proof, digests, last, sessions))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::application::BadChunk;
    use crate::id::{Slot, View, WallTime};
    use crate::message::{
        Checkpoint, CheckpointCertificate, Commit, CommitCertificate, NonDeterminism,
    };

    /// An application's state of two chunks, which are as they should be where they hold their number.
    #[derive(Clone, Debug, Default)]
    pub(in crate::replica::state) struct Two([bool; 2]);

    impl Restore for Two {
        fn accept(&mut self, index: u32, chunk: &Bytes) -> Result<(), BadChunk> {
            let is_here = self.0.get_mut(index as usize).ok_or(BadChunk)?;
            if *chunk != chunk_of(index) {
                return Err(BadChunk);
            }
            *is_here = true;
            Ok(())
        }

        fn missing(&self) -> Option<u32> {
            self.missing_from(0)
        }

        fn missing_from(&self, first: u32) -> Option<u32> {
            (first..2).find(|index| !self.0[*index as usize])
        }

        fn chunks(&self) -> Option<u32> {
            Some(2)
        }
    }

    fn chunk_of(index: u32) -> Bytes {
        Bytes::copy_from_slice(&index.to_le_bytes())
    }

    /// A certified state with all its pieces, lowest first.
    pub(in crate::replica::state) fn state(
        slot: u64,
    ) -> (StableProof, StateDigests, Vec<(StatePart, Bytes)>) {
        let mut sessions = Sessions::new(Rules::default());
        let digests = StateDigests { application: Digest([7; 32]), sessions: sessions.digest() };
        let choices =
            NonDeterminism { time: WallTime(slot), seed: [0; 16], ..NonDeterminism::default() };
        let last = LastSlot { previous: Digest([1; 32]), choices, requests: Vec::new() };
        let hash = extend(&last.previous, &batch_digest(&last.choices, &last.requests));
        let (view, slot) = (View(0), Slot(slot));
        let checkpoint = Checkpoint { view, slot, hash, state: digests.digest() };
        let commit = Commit { view, slot, hash };
        let proof = StableProof {
            checkpoint: CheckpointCertificate { body: checkpoint, votes: BTreeMap::new() },
            cover: CommitCertificate { body: commit, votes: BTreeMap::new() },
        };
        let last = codec::encode(&last).expect("it is small");
        let frozen = sessions.freeze();
        assert_eq!(frozen.chunks(), 1, "an empty table");
        let table = frozen.chunk(0).expect("the only one");
        let mut pieces = vec![(StatePart::Last, last), (StatePart::Sessions(0), table)];
        pieces.extend((0..2).map(|index| (StatePart::Application(index), chunk_of(index))));
        (proof, digests, pieces)
    }

    #[test]
    fn nothing_is_kept_that_is_not_of_the_certified_state() {
        let (proof, digests, _) = state(8);
        let (.., others) = state(9);
        let mut pieces = Pieces::new(proof);
        assert!(!pieces.accept(StatePart::Application(0), &chunk_of(0)), "of what is not known");
        let wrong = StateDigests { application: Digest([8; 32]), ..digests };
        assert!(!pieces.learn(wrong, Rules::default(), |_| Two::default()));
        assert!(pieces.learn(digests, Rules::default(), |_| Two::default()));
        assert!(!pieces.accept(StatePart::Last, &others[0].1), "the slot before another state");
        assert!(!pieces.accept(StatePart::Sessions(0), &chunk_of(0)));
        assert!(!pieces.accept(StatePart::Application(1), &chunk_of(0)));
        assert_eq!(pieces.next(|_| false), Some(StatePart::Last));
        assert!(pieces.clone().into_whole().is_none());
    }

    #[test]
    fn the_lowest_piece_that_is_neither_here_nor_asked_for_is_the_next_until_it_is_whole() {
        let (proof, digests, all) = state(8);
        let mut pieces = Pieces::new(proof.clone());
        assert_eq!((pieces.next(|_| false), pieces.of()), (Some(StatePart::Last), None));
        assert_eq!(pieces.next(|part| part == StatePart::Last), None, "it shows what follows");
        assert!(pieces.learn(digests, Rules::default(), |_| Two::default()));
        for (part, bytes) in &all {
            assert!(!pieces.are_whole());
            assert_eq!(pieces.next(|_| false), Some(*part));
            assert!(pieces.accept(*part, bytes));
        }
        assert_eq!((pieces.next(|_| false), pieces.of()), (None, Some(4)));
        let (certified, whole, last, _) = pieces.into_whole().expect("all of it");
        assert_eq!((certified, whole, last.choices.time), (proof, digests, WallTime(8)));
    }

    #[test]
    fn a_piece_that_was_asked_for_is_passed_over() {
        let (proof, digests, all) = state(8);
        let mut pieces = Pieces::new(proof);
        assert!(pieces.learn(digests, Rules::default(), |_| Two::default()));
        assert!(pieces.accept(all[0].0, &all[0].1) && pieces.accept(all[1].0, &all[1].1));
        let is_asked = |part| part == StatePart::Application(0);
        assert_eq!(pieces.next(is_asked), Some(StatePart::Application(1)));
        assert_eq!(pieces.rows(StatePart::Last, &all[0].1), None);
        assert_eq!(pieces.rows(all[2].0, &all[2].1).map(|rows| rows.len()), Some(1));
    }
}
