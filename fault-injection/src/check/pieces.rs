//! What is on disk of a state that is being fetched is not asked for again, nor after a crash.
//!
//! Kept beside the replica, from the messages that it was handed and the records that it wrote: what
//! the replica makes of its disk when it starts is what is judged here.

use std::collections::{BTreeSet, VecDeque};

use elea_protocol::id::{ReplicaId, Slot};
use elea_protocol::message::{Message, Position, StatePart, Wanted};
use elea_protocol::replica::{Event, Ground, Mark, Record};

use crate::violation::{Violation, demand};

/// What one replica wrote of states that it fetched.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    /// The piece that the event being handled brings.
    arriving: Option<StatePart>,
    written: VecDeque<(Mark, Step)>,
    on_disk: Option<(Position, BTreeSet<StatePart>)>,
    /// The state that was gone on with since the last start.
    resumed: Option<Position>,
    /// The state on disk is the one that is being fetched.
    is_fetched: bool,
    /// It was, and is no longer needed. Should it be needed after all, it is fetched anew.
    is_given_up: bool,
    /// The state on disk is whole.
    is_whole: bool,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Begins(Position),
    Piece(Position, StatePart),
    Whole(Position),
    Used,
}

impl Pieces {
    /// The replica fetches the state at this slot, or none. Said before every event.
    pub fn fetches(&mut self, slot: Option<Slot>) {
        let on_disk = self.on_disk.as_ref().map(|(at, _)| at.slot);
        let was_fetched =
            std::mem::replace(&mut self.is_fetched, slot.is_some() && slot == on_disk);
        self.is_given_up |= was_fetched && !self.is_fetched;
    }

    /// The replica is about to be handed this.
    pub fn arrives(&mut self, event: &Event) {
        self.arriving = match event {
            Event::Peer { message, .. } => match &**message {
                Message::State(chunk) => Some(chunk.part),
                _ => None,
            },
            _ => None,
        };
    }

    /// The replica writes this.
    pub fn writes(&mut self, mark: Mark, record: &Record) {
        if let Record::Rows { at, whole: true, .. } = record {
            self.written.push_back((mark, Step::Whole(*at)));
        }
        let step = match (record, self.arriving) {
            (Record::Fetching(head), _) => Step::Begins(head.stable.position()),
            (Record::Piece { at, part, .. }, _) => Step::Piece(*at, *part),
            (Record::Rows { at, .. }, Some(part @ StatePart::Application(_))) => {
                Step::Piece(*at, part)
            }
            (Record::Adopted(adopted), _) if matches!(adopted.ground, Ground::State(_)) => {
                Step::Used
            }
            _ => return,
        };
        self.written.push_back((mark, step));
    }

    /// Everything up to this mark is on disk.
    pub fn synced(&mut self, mark: Mark) {
        while let Some((_, step)) = self.written.pop_front_if(|(written, _)| *written <= mark) {
            match (step, &mut self.on_disk) {
                (Step::Begins(at), on_disk) => {
                    *on_disk = Some((at, BTreeSet::new()));
                    (self.is_given_up, self.is_whole) = (false, false);
                }
                (Step::Piece(at, part), Some((of, parts))) if *of == at => {
                    parts.insert(part);
                }
                // There is nothing more to ask for, unless the state was of no use for a moment.
                (Step::Whole(at), Some((of, _))) if *of == at => self.is_whole = true,
                (Step::Piece(..) | Step::Whole(_), _) => {}
                (Step::Used, on_disk) => *on_disk = None,
            }
        }
    }

    /// The power goes. What was on its way to the disk may be there or not; `fetching` is the state
    /// of which pieces are on the disk.
    pub fn crashes(&mut self, fetching: Option<Position>) {
        self.written.clear();
        self.resumed = None;
        (self.is_fetched, self.is_given_up) = (false, false);
        if self.on_disk.as_ref().is_some_and(|(at, _)| Some(*at) != fetching) {
            self.on_disk = None;
            self.is_whole = false;
        }
    }

    /// The replica starts and goes on with the state at this slot, or with none. Answers how many
    /// pieces of it are known to be on its disk, where there are any.
    pub fn starts(&mut self, going_on: Option<Slot>) -> Option<usize> {
        let (at, parts) = self.on_disk.as_ref()?;
        if going_on != Some(at.slot) || parts.is_empty() {
            return None;
        }
        self.resumed = Some(*at);
        Some(parts.len())
    }

    /// Whether the history of the replica begins with a state that it went on with after a crash.
    /// Asked once it does, it is no longer so.
    pub fn has_put_in_place(&mut self, base: Option<Position>) -> bool {
        self.resumed.take_if(|at| Some(*at) == base).is_some()
    }

    /// How many pieces are on disk.
    #[must_use]
    pub fn count(&self) -> usize {
        self.on_disk.as_ref().map_or(0, |(_, parts)| parts.len())
    }

    /// A message leaves the replica.
    ///
    /// # Errors
    /// It asks for a piece that is on its disk.
    pub fn message_leaves(&mut self, who: ReplicaId, message: &Message) -> Result<(), Violation> {
        let Message::Fetch(fetch) = message else { return Ok(()) };
        let Wanted::State { at, part } = fetch.body.wanted else { return Ok(()) };
        // What was there is given up, and will be gone as soon as that is on the disk.
        if self.written.iter().any(|(_, step)| !matches!(step, Step::Piece(..) | Step::Whole(_))) {
            return Ok(());
        }
        // Whoever goes on with a state has this piece in memory, too. To ask for it is to begin anew,
        // after the state was of no use for a moment.
        let goes_on = self.is_fetched || self.resumed == Some(at);
        if goes_on && part == StatePart::Last {
            self.is_given_up =
                self.on_disk.as_ref().is_some_and(|(_, parts)| parts.contains(&part));
        }
        if self.is_given_up || self.is_whole {
            return Ok(());
        }
        let is_here = self
            .on_disk
            .as_ref()
            .is_some_and(|(of, parts)| fetch.by == who && *of == at && parts.contains(&part));
        demand(!is_here, "pieces", || {
            format!(
                "{who} asks for {part:?} of the state at slot {}, which is on its disk",
                at.slot
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use elea_protocol::id::{Digest, View};
    use elea_protocol::message::StateHead;
    use elea_protocol::message::{
        Checkpoint, CheckpointCertificate, Commit, CommitCertificate, Fetch, StableProof,
        StateDigests,
    };
    use elea_protocol::signature::{Signature, Signed};

    use super::*;

    const ME: ReplicaId = ReplicaId(2);
    const AT: Position = Position { slot: Slot(8), hash: Digest([8; 32]) };

    fn fetching() -> Record {
        let Position { slot, hash } = AT;
        let (view, state) = (View(0), Digest([0; 32]));
        let checkpoint = Checkpoint { view, slot, hash, state };
        let commit = Commit { view, slot, hash };
        let stable = StableProof {
            checkpoint: CheckpointCertificate { body: checkpoint, votes: BTreeMap::new() },
            cover: CommitCertificate { body: commit, votes: BTreeMap::new() },
        };
        let digests = StateDigests { application: state, sessions: state };
        Record::Fetching(Box::new(StateHead { stable, digests }))
    }

    fn asks(pieces: &mut Pieces, part: StatePart) -> Result<(), Violation> {
        let body = Fetch { wanted: Wanted::State { at: AT, part }, room: 1 << 20, stamp: 0 };
        let fetch = Signed { body, by: ME, signature: Signature([0; 64]) };
        pieces.message_leaves(ME, &Message::Fetch(fetch))
    }

    #[test]
    fn what_is_on_disk_must_not_be_asked_for_and_what_is_not_may() {
        let mut pieces = Pieces::default();
        let piece = |part| Record::Piece { at: AT, part, bytes: bytes::Bytes::new() };
        pieces.writes(Mark(1), &fetching());
        pieces.writes(Mark(2), &piece(StatePart::Last));
        pieces.writes(Mark(3), &piece(StatePart::Sessions(0)));
        assert_eq!(asks(&mut pieces, StatePart::Last), Ok(()), "nothing is synced");
        pieces.synced(Mark(2));
        assert!(asks(&mut pieces, StatePart::Last).is_err());
        assert_eq!(asks(&mut pieces, StatePart::Sessions(0)), Ok(()));
        // The crash takes what was not synced, and leaves the rest.
        pieces.crashes(Some(AT));
        assert_eq!(pieces.starts(None), None, "it begins anew");
        assert!(asks(&mut pieces, StatePart::Last).is_err());
        assert_eq!(pieces.starts(Some(AT.slot)), Some(1));
        assert_eq!(asks(&mut pieces, StatePart::Sessions(0)), Ok(()));
        assert!(!pieces.has_put_in_place(None));
        assert!(pieces.has_put_in_place(Some(AT)));
        assert!(!pieces.has_put_in_place(Some(AT)), "counted once");
        // What was given up is fetched anew, and what a crash brings back is not.
        pieces.fetches(Some(AT.slot));
        pieces.fetches(None);
        assert_eq!(asks(&mut pieces, StatePart::Last), Ok(()));
        pieces.crashes(Some(AT));
        assert!(asks(&mut pieces, StatePart::Last).is_err());
        // A disk on which there is another state has nothing of this one.
        pieces.crashes(None);
        assert_eq!((pieces.count(), asks(&mut pieces, StatePart::Last)), (0, Ok(())));
    }
}
