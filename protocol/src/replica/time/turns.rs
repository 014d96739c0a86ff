//! Long work in turns: what takes long is done a little at a time, with other events in between.
//!
//! An event may do so many steps of such work, about as many as slots can be executed within a few
//! milliseconds, and an event of a client none. What is left asks for the next turn at once
//! ([`Replica::deadline`](crate::replica::Replica::deadline)), so a short merge is done within the event that made it possible,
//! and a long one delays nobody by more than a turn.

use crate::replica::counters::Tally;

/// What may still be done in this event, and whether something waits for the next.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::replica) struct Turn {
    left: u64,
    waits: bool,
    /// Steps done since the start.
    done: Tally,
}

impl Turn {
    /// An event comes with room for so many steps. Gives back whether something waited for it.
    pub(in crate::replica) fn begin(&mut self, steps: u64) -> bool {
        self.left = steps;
        std::mem::take(&mut self.waits)
    }

    /// The event is over, and what room is left in it is of no use.
    pub(in crate::replica) fn end(&mut self) {
        self.left = 0;
    }

    /// Takes one step, if there is room.
    pub(in crate::replica) fn take(&mut self) -> bool {
        if self.left == 0 {
            self.waits = true;
            return false;
        }
        self.spend(1);
        true
    }

    /// Takes so many steps, more than there is room for, if it must be.
    pub(in crate::replica) fn spend(&mut self, steps: u64) {
        self.left = self.left.saturating_sub(steps);
        self.done.0 += steps;
    }

    /// How many steps there is room for.
    pub(in crate::replica) fn left(&self) -> u64 {
        self.left
    }

    /// Makes room for so many steps, and says for how many there was.
    pub(in crate::replica) fn lend(&mut self, steps: u64) -> u64 {
        std::mem::replace(&mut self.left, steps)
    }

    /// There is something to be done that needs another turn.
    pub(in crate::replica) fn wait(&mut self) {
        self.waits = true;
    }

    /// Perhaps there is.
    pub(in crate::replica) fn wait_if(&mut self, waits: bool) {
        self.waits |= waits;
    }

    /// Whether there is.
    pub(in crate::replica) fn waits(&self) -> bool {
        self.waits
    }

    /// Steps done since the start.
    pub(in crate::replica) fn done(&self) -> u64 {
        self.done.0
    }
}
