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
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Begins(Position),
    Piece(Position, StatePart),
    Used,
}

impl Pieces {
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
                (Step::Begins(at), on_disk) => *on_disk = Some((at, BTreeSet::new())),
                (Step::Piece(at, part), Some((of, parts))) if *of == at => {
                    parts.insert(part);
                }
                (Step::Piece(..), _) => {}
                (Step::Used, on_disk) => *on_disk = None,
            }
        }
    }

    /// The power goes. What was on its way to the disk may be there or not; `fetching` is the state
    /// of which pieces are on the disk.
    pub fn crashes(&mut self, fetching: Option<Position>) {
        self.written.clear();
        self.resumed = None;
        if self.on_disk.as_ref().is_some_and(|(at, _)| Some(*at) != fetching) {
            self.on_disk = None;
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
    pub fn message_leaves(&self, who: ReplicaId, message: &Message) -> Result<(), Violation> {
        let Message::Fetch(fetch) = message else { return Ok(()) };
        let Wanted::State { at, part } = fetch.body.wanted else { return Ok(()) };
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
