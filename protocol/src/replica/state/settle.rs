//! Settling: on the disk, a stable state takes the place of the slots that led to it.
//!
//! A history that only grows fills every disk and makes every start slower than the one before. So
//! when the slots on disk have come to [`Tuning::settle_bytes`](crate::tuning::Tuning), and to as
//! much as the protocol's own part of the state takes, the stored state becomes that of the newest
//! stable checkpoint, in one record: what has [changed](Application::changes) of the application's
//! rows, and the sessions as they are. From then on the slots up to it are not needed.
//!
//! What has changed may be much, and nobody waits for it: it is worked out in slices, each a record
//! ([`Record::Settling`]) that the driver keeps in memory until the last one makes all of it durable at
//! once. The next slice comes when the one before has gone through the driver's queue, so that
//! between any two of them there is room for other events and other records.
//!
//! The application learns of it when the record is durable, with a view of the rows as they are
//! then, and lets go of what it kept in memory. Only one such record is under way at a time, so
//! that this view is of exactly that checkpoint.

use super::states::Taken;
use crate::application::{Application, Snapshot};
use crate::id::Slot;
use crate::message::{Position, SlotEntry, StableProof, StateHead, StatePart};
use crate::replica::{Mark, Record, Replica, Settled};
use crate::rows::{Changes, RowsView};

/// About what a slot takes beside its requests, and a request beside its operations.
const SLOT_BYTES: u64 = 256;
const REQUEST_BYTES: u64 = 256;

/// A slice ends when it has so many rows, or so many bytes...
const SLICE_ROWS: usize = 512;
const SLICE_BYTES: usize = 256 << 10;

/// ...but has at least so many parts of what an application changes, so that there are no more slices the
/// more there is: memory would fill with what is not settled.
const SLICE_PARTS: u32 = 8;

/// How much is on disk, and what is being written.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Settling {
    /// About how many bytes of slots have been written since a state took the place of some.
    logged: u64,
    /// The bytes of the protocol's own pieces when they were last written.
    pieces: u64,
    /// The state whose changes are being worked out.
    gathering: Option<Gathering>,
    /// The record that is not durable yet, and of which checkpoint it is.
    writing: Option<(Mark, Slot)>,
}

/// How far the changes of a state have been worked out.
#[derive(Clone, Debug)]
struct Gathering {
    proof: StableProof,
    /// The next part to ask the application for.
    next: u32,
    /// Not before this is durable.
    after: Mark,
}

impl Settling {
    /// A slot goes to the disk, or was found there.
    pub(in crate::replica) fn note_slot(&mut self, entry: &SlotEntry) {
        let requests = entry.requests.iter();
        let bytes = requests.map(|r| REQUEST_BYTES + r.body().operation_bytes() as u64);
        self.logged += SLOT_BYTES + bytes.sum::<u64>();
    }

    /// A state with so many bytes of pieces was found on the disk.
    pub(in crate::replica) fn note_state(&mut self, bytes: u64) {
        self.pieces = bytes;
    }

    /// The state that is needed until its changes are worked out.
    pub(super) fn at(&self) -> Option<Position> {
        self.gathering.as_ref().map(|gathering| gathering.proof.position())
    }

    /// A state that was fetched has taken the place of the history.
    pub(in crate::replica) fn begin_anew(&mut self) {
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
        let Settling { logged, pieces, gathering, writing } = &self.settling;
        let is_free = gathering.is_none() && writing.is_none();
        let is_due = is_free && *logged >= self.setup.tuning.settle_bytes.max(*pieces);
        let Some(proof) = self.stable.proof().filter(|_| is_due).cloned() else { return };
        self.settling.logged = 0;
        self.settling.gathering = Some(Gathering { proof, next: 0, after: Mark::NONE });
        self.settle_on();
    }

    /// Works out the next slice of the changes, when the one before is through.
    pub(in crate::replica) fn settle_on(&mut self) {
        let outbox = &self.outbox;
        let Some(mut gathering) =
            self.settling.gathering.take_if(|now| outbox.is_synced(now.after))
        else {
            return;
        };
        let at = gathering.proof.position();
        let taken = self.states.served(at).filter(|_| !self.stable.is_distrusted());
        let Some(taken) = taken else { return };
        let (first, mut changes, mut bytes) = (gathering.next, Changes::new(), 0);
        let is_last = loop {
            match self.execution.changes(&taken.snapshot, gathering.next) {
                Ok(Some(part)) => {
                    let size = |value: &Option<bytes::Bytes>| value.as_ref().map_or(0, |v| v.len());
                    bytes += part.iter().map(|(key, value)| key.len() + size(value)).sum::<usize>();
                    changes.extend(part);
                }
                Ok(None) => break true,
                Err(why) => return self.distrust(&why),
            }
            gathering.next += 1;
            let is_full = changes.len() >= SLICE_ROWS || bytes >= SLICE_BYTES;
            if is_full && gathering.next - first >= SLICE_PARTS {
                break false;
            }
        };
        if !is_last {
            gathering.after = self.append(Record::Settling { at, first: first == 0, changes });
            self.settling.gathering = Some(gathering);
            return;
        }
        let (digests, pieces) = (taken.digests, taken.own_pieces());
        self.settling.pieces = pieces.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        self.counters.states_settled += 1;
        let head = StateHead { stable: gathering.proof, digests };
        let mark = self.append(Record::Settled(Box::new(Settled { head, pieces, changes })));
        self.settling.writing = Some((mark, at.slot));
    }

    /// A record that changes rows is durable, and these are the rows.
    pub(in crate::replica) fn on_rows(&mut self, mark: Mark, rows: RowsView) {
        if let Some((_, slot)) = self.settling.writing.take_if(|(written, _)| *written == mark) {
            self.execution.stored(slot, rows);
            self.note_trouble();
        } else {
            self.fetched(mark, rows);
        }
    }
}
