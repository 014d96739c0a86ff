//! Executing a part of the own history again.

use crate::application::Application;
use crate::id::Slot;
use crate::replica::Replica;

impl<A: Application> Replica<A> {
    /// Undoes the own history down to a slot that is not below the stable one, and executes it again from there. It
    /// stays what it is, so the disk hears nothing of it, and what was said of it holds.
    pub(in crate::replica) fn execute_again(&mut self, kept: Slot) {
        self.adopting.begin_again(self.history.head(), kept);
        self.carry_out();
    }
}
