//! Settling: on the disk, a stable state takes the place of the slots that led to it.
//!
//! A history that only grows fills every disk and makes every start slower than the one before. So
//! when the slots on disk have come to [`Tuning::settle_bytes`](crate::tuning::Tuning), and to as
//! much as the protocol's own part of the state takes, the stored state becomes that of the newest
//! stable checkpoint, in one record: what has [changed](Application::changes) of the application's
//! rows, and the sessions as they are. From then on the slots up to it are not needed.
//!
//! The application learns of it when the record is durable, with a view of the rows as they are
//! then, and lets go of what it kept in memory. Only one such record is under way at a time, so
//! that this view is of exactly that checkpoint.

use super::transfer::Taken;
use super::{Mark, Record, Replica, Settled, StateHead};
use crate::application::{Application, Snapshot};
use crate::id::Slot;
use crate::message::{SlotEntry, StatePart};
use crate::rows::RowsView;

/// About what a slot takes beside its requests, and a request beside its operations.
const SLOT_BYTES: u64 = 256;
const REQUEST_BYTES: u64 = 256;

/// How much is on disk, and what is being written.
#[derive(Clone, Debug, Default)]
pub(super) struct Settling {
    /// About how many bytes of slots have been written since a state took the place of some.
    logged: u64,
    /// The bytes of the protocol's own pieces when they were last written.
    pieces: u64,
    /// The record that is not durable yet, and of which checkpoint it is.
    writing: Option<(Mark, Slot)>,
}

impl Settling {
    /// A slot goes to the disk, or was found there.
    pub(super) fn note_slot(&mut self, entry: &SlotEntry) {
        let requests = entry.requests.iter();
        let bytes = requests.map(|r| REQUEST_BYTES + r.body().operation_bytes() as u64);
        self.logged += SLOT_BYTES + bytes.sum::<u64>();
    }

    /// A state with so many bytes of pieces was found on the disk.
    pub(super) fn note_state(&mut self, bytes: u64) {
        self.pieces = bytes;
    }

    /// A state that was fetched has taken the place of the history.
    pub(super) fn begin_anew(&mut self) {
        *self = Self::default();
    }
}

impl<S: Snapshot> Taken<S> {
    /// The protocol's own pieces.
    fn own_pieces(&self) -> Vec<(StatePart, bytes::Bytes)> {
        let sessions = (0..self.sessions.chunks()).map(StatePart::Sessions);
        let parts = [StatePart::Last].into_iter().chain(sessions);
        parts.filter_map(|part| Some((part, self.piece(part)?))).collect()
    }
}

impl<A: Application> Replica<A> {
    /// A checkpoint became stable: whether its state is written.
    pub(super) fn settle_when_due(&mut self) {
        let Settling { logged, pieces, writing } = self.settling;
        let is_due = writing.is_none() && logged >= self.setup.tuning.settle_bytes.max(pieces);
        let Some(proof) = self.stable.clone().filter(|_| is_due && !self.is_distrusted()) else {
            return;
        };
        let at = proof.position();
        let Some(served) = self.served.iter().find(|served| served.taken.at == at) else { return };
        let changes = match self.execution.changes(&served.taken.snapshot) {
            Ok(changes) => changes,
            Err(why) => return self.distrust(&why),
        };
        let (digests, pieces) = (served.taken.digests, served.taken.own_pieces());
        self.settling.pieces = pieces.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        self.settling.logged = 0;
        self.counters.states_settled += 1;
        let head = StateHead { stable: proof, digests };
        self.append(Record::Settled(Box::new(Settled { head, pieces, changes })));
        self.settling.writing = Some((self.appended, at.slot));
    }

    /// A record that changes rows is durable, and these are the rows.
    pub(super) fn on_rows(&mut self, mark: Mark, rows: RowsView) {
        if let Some((_, slot)) = self.settling.writing.take_if(|(written, _)| *written == mark) {
            self.execution.stored(slot, rows);
            self.note_trouble();
        } else {
            self.fetched(mark, rows);
        }
    }
}
