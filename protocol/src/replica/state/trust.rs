//! Whether the own state, and with it every result, may be wrong.

use crate::application::Application;
use crate::message::{StableProof, StateDigests};
use crate::replica::{Doubt, Replica};
use crate::rows::Unreadable;

impl<A: Application> Replica<A> {
    /// Whether the own state, and with it every result, may be wrong.
    pub(in crate::replica) fn is_distrusted(&self) -> bool {
        self.stable.is_distrusted()
    }

    /// The own state cannot be read. What was executed on it since is of no use.
    pub(in crate::replica) fn distrust(&mut self, why: &Unreadable) {
        self.stable.distrust();
        self.states.forget_taken();
        if !self.is_store_in_doubt() {
            self.counters.state_unreadable += 1;
            self.quarantine(Doubt::Store(why.0.clone()));
        }
    }

    /// The own state is not the certified one. It stays where it is until that can take its place.
    pub(super) fn distrust_computed(&mut self, proof: StableProof, own: StateDigests) {
        self.counters.state_mismatch += 1;
        self.stable.distrust();
        self.states.forget_taken();
        self.note_mismatch(proof, own);
    }

    /// A certified state is in place.
    pub(in crate::replica) fn trust_again(&mut self) {
        self.stable.trust();
        self.end_doubt_of_store();
    }

    /// Whether the application says that it could not read its state.
    pub(in crate::replica) fn note_trouble(&mut self) {
        if let Some(why) = self.execution.application().trouble() {
            self.distrust(&why);
        }
    }
}
