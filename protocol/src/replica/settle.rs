//! Settling: on the disk, a stable state takes the place of the slots that led to it.
//!
//! A history that only grows fills every disk and makes every start slower than the one before. So
//! when the slots on disk have come to as much as the last state took, and to
//! [`Tuning::settle_bytes`](crate::tuning::Tuning) at least, the state of the newest stable
//! checkpoint is written beside them, as if it had been transferred, and with one last record it
//! becomes what the history begins with. What is on disk is then less than two states and as many
//! bytes of slots as a state has, and each byte of the state is written once for each byte of slots.
//!
//! The pieces follow each other: the next one is made when the one before is durable. So neither
//! the core nor the disk is kept from its work, and a state never waits in memory to be written. A
//! crash in between leaves pieces that the next state replaces.

use super::transfer::Taken;
use super::{Mark, Record, Replica, StateHead};
use crate::application::{Application, Snapshot};
use crate::message::{Position, SlotEntry, StableProof, StatePart};

/// About what a slot takes beside its requests, and a request beside its operations.
const SLOT_BYTES: u64 = 256;
const REQUEST_BYTES: u64 = 256;

/// How much is on disk, and what is being written.
#[derive(Clone, Debug, Default)]
pub(super) struct Settling {
    /// About how many bytes of slots have been written since a state took the place of some.
    logged: u64,
    /// The bytes of the last state that was written.
    state: u64,
    writing: Option<Writing>,
}

/// A state of which some pieces are written.
#[derive(Clone, Debug)]
struct Writing {
    proof: StableProof,
    /// The piece to be written when `after` is durable; none where all are.
    next: Option<StatePart>,
    after: Mark,
    bytes: u64,
    /// What `logged` was when the writing began.
    logged: u64,
}

impl Settling {
    /// A slot goes to the disk, or was found there.
    pub(super) fn note_slot(&mut self, entry: &SlotEntry) {
        let requests = entry.requests.iter();
        let bytes = requests.map(|r| REQUEST_BYTES + r.body().operation_bytes() as u64);
        self.logged += SLOT_BYTES + bytes.sum::<u64>();
    }

    /// A state of this many bytes was found on the disk.
    pub(super) fn note_state(&mut self, bytes: u64) {
        self.state = bytes;
    }

    /// The state that must not be let go of.
    pub(super) fn writing(&self) -> Option<Position> {
        self.writing.as_ref().map(|writing| writing.proof.position())
    }

    /// Another state goes to the disk, or has taken the place of the history.
    pub(super) fn give_way(&mut self) {
        self.writing = None;
    }

    /// A state that was fetched has taken the place of the history.
    pub(super) fn begin_anew(&mut self) {
        *self = Self::default();
    }
}

/// The piece after this one.
fn following<S: Snapshot>(taken: &Taken<S>, part: StatePart) -> Option<StatePart> {
    let sessions = |index| (index < taken.sessions.chunks()).then_some(StatePart::Sessions(index));
    let application =
        |index| (index < taken.snapshot.chunks()).then_some(StatePart::Application(index));
    match part {
        StatePart::Last => sessions(0).or_else(|| application(0)),
        StatePart::Sessions(index) => sessions(index + 1).or_else(|| application(0)),
        StatePart::Application(index) => application(index + 1),
    }
}

impl<A: Application> Replica<A> {
    /// A checkpoint became stable: whether its state is written.
    pub(super) fn settle_when_due(&mut self) {
        let least = self.setup.tuning.settle_bytes.max(self.settling.state);
        let is_idle = self.settling.writing.is_none()
            && self.transfer.is_none()
            && self.ready.is_none()
            && self.settling.logged >= least;
        let Some(proof) = self.stable.clone().filter(|_| is_idle) else { return };
        if self.served.iter().any(|served| served.taken.at == proof.position()) {
            let logged = self.settling.logged;
            let next = Some(StatePart::Last);
            self.settling.writing =
                Some(Writing { proof, next, after: self.appended, bytes: 0, logged });
        }
    }

    /// Writes the next piece, if the one before is durable.
    pub(super) fn tend_settling(&mut self) {
        let Some(writing) = &mut self.settling.writing else { return };
        if writing.after > self.synced {
            return;
        }
        let at = writing.proof.position();
        let served = self.served.iter().find(|served| served.taken.at == at);
        let Some(taken) = served.map(|served| &served.taken) else {
            self.settling.writing = None;
            return;
        };
        let record = match writing.next {
            Some(part) => {
                let Some(bytes) = taken.piece(part) else {
                    self.settling.writing = None;
                    return;
                };
                writing.next = following(taken, part);
                writing.bytes += bytes.len() as u64;
                Record::Chunk { at, part, bytes }
            }
            None => {
                let (stable, digests) = (writing.proof.clone(), taken.digests);
                self.settling.logged -= writing.logged;
                self.settling.state = writing.bytes;
                self.settling.writing = None;
                self.counters.states_settled += 1;
                Record::Settled(Box::new(StateHead { stable, digests }))
            }
        };
        self.append(record);
        if let Some(writing) = &mut self.settling.writing {
            writing.after = self.appended;
        }
    }
}
