//! Executing a part of the own history again.

use std::collections::BTreeSet;

use super::{Adopting, Source};
use crate::application::Application;
use crate::id::Slot;
use crate::replica::Replica;

impl<A: Application> Replica<A> {
    /// Undoes the own history down to a slot that is not below the stable one, and executes it again from there. It
    /// stays what it is, so the disk hears nothing of it, and what was said of it holds.
    pub(in crate::replica) fn execute_again(&mut self, kept: Slot) {
        let (end, entries, taken) = (self.history.head(), Vec::new(), BTreeSet::new());
        let source = Source::Undone { end, entries, taken };
        let (names, orphans, results) = (BTreeSet::new(), Vec::new(), Vec::new());
        let (unseen, is_long) = (false, false);
        self.adopting = Some(Adopting { source, kept, names, orphans, results, unseen, is_long });
        self.carry_out();
    }
}
