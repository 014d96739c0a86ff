//! How far a history can be followed from its end, and what it stands on.

use crate::id::Slot;
use crate::message::Position;

/// What a history stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::replica) enum Footing {
    /// The own history up to this slot.
    Common(Slot),
    /// A state that was transferred.
    State(Position),
}

impl Footing {
    pub(in crate::replica) fn slot(self) -> Slot {
        match self {
            Self::Common(slot) => slot,
            Self::State(at) => at.slot,
        }
    }
}

/// A history of which everything is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::replica) struct Path {
    pub(in crate::replica) footing: Footing,
    pub(in crate::replica) end: Position,
}

impl Path {
    /// The own history up to a slot.
    pub(in crate::replica) fn own(end: Position) -> Self {
        Self { footing: Footing::Common(end.slot), end }
    }

    /// The last slot.
    pub(super) fn top(&self) -> Slot {
        self.end.slot
    }

    /// Whether it has slots above what it stands on.
    pub(in crate::replica) fn goes_on(&self) -> bool {
        self.top() > self.footing.slot()
    }
}

/// How far a history can be followed from its end.
#[derive(Clone, Copy, Debug)]
pub(in crate::replica) enum Reach {
    Whole(Path),
    /// This slot and what is below it are not here.
    Lacks(Position),
    /// It was not followed to its end yet.
    NotYet,
    /// It cannot be followed, or parts from the own history where nothing is undone any more.
    Never,
}
