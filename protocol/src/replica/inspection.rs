//! What a replica shows of itself.

use std::fmt;

use super::{Counters, Replica, Sessions};
use crate::application::Application;
use crate::edition::Editions;
use crate::evidence::Evidence;
use crate::history::History;
use crate::id::{Digest, ReplicaId, RequestName, Slot, View};
use crate::message::{CommitCertificate, Position, StableProof};
use crate::tuning::Rules;

/// Everything that decides what it does next: two that read the same behave the same. What never
/// changes is left out, and what is only counted, or only says what queries with a past are answered.
impl<A> fmt::Debug for Replica<A>
where
    A: Application + fmt::Debug,
    A::Snapshot: fmt::Debug,
    A::Restore: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Names every part, so that none is forgotten.
        macro_rules! all {
            ($($shown:ident)+; without $($left_out:ident)+) => {{
                let Self { setup, $($shown,)+ $($left_out: _),+ } = self;
                f.debug_struct("Replica")
                    // Another program may execute another range after a restart.
                    .field("editions", &setup.editions)
                    $(.field(stringify!($shown), $shown))+
                    .finish_non_exhaustive()
            }};
        }
        all!(
            now view office changing history execution undone branches preparation adopting turn lock
            common stable pending queries ahead ballots states arriving settling peers waits divergent
            fetching pipeline outbox stamps due proofs;
            // Shares follow from the history.
            without size shares bygone lending counters
        )
    }
}

impl<A: Application> Replica<A> {
    /// Which replica this is.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.setup.id
    }

    /// The view it has entered.
    #[must_use]
    pub fn entered(&self) -> View {
        self.view.view()
    }

    /// The slot it was entered at: the head that the own history then had.
    #[must_use]
    pub fn entry_slot(&self) -> Slot {
        self.view.slot()
    }

    /// The higher view it asks for, if any.
    #[must_use]
    pub fn campaign(&self) -> Option<View> {
        self.changing.campaign()
    }

    /// Whether this request waits to be ordered, or to be executed with a history that was adopted.
    #[must_use]
    pub fn waits(&self, name: &RequestName) -> bool {
        self.pending.holds(name) || self.adopting.holds(name)
    }

    /// How many of the requests that wait could be ordered now. The rest waits for its clients.
    #[must_use]
    pub fn orderable(&self) -> usize {
        let requests = self.pending.all();
        requests.filter(|(_, request)| self.not_orderable(request).is_none()).count()
    }

    /// The stable checkpoint, with what proves it.
    #[must_use]
    pub fn stable_proof(&self) -> Option<&StableProof> {
        self.stable.proof()
    }

    /// What its program executes.
    #[must_use]
    pub fn editions(&self) -> Editions {
        self.setup.editions
    }

    /// The end of its history.
    #[must_use]
    pub fn head(&self) -> Position {
        self.history.head()
    }

    /// The highest commit certificate whose batches it holds.
    #[must_use]
    pub fn lock(&self) -> Option<&CommitCertificate> {
        self.lock.get()
    }

    /// The last slot that will never be undone.
    #[must_use]
    pub fn stable(&self) -> Slot {
        self.stable.slot()
    }

    /// The slots in memory.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The application, as it is after the head.
    #[must_use]
    pub fn application(&self) -> &A {
        self.execution.application()
    }

    /// The sessions, as they are after the head.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        self.execution.sessions()
    }

    /// Over the application's state and the sessions, after the head.
    pub fn state_digest(&mut self) -> Digest {
        self.execution.digest()
    }

    /// The proofs of misbehaviour held.
    #[must_use]
    pub fn evidence(&self) -> &[Evidence] {
        self.proofs.all()
    }

    /// The limits that all replicas share.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.setup.tuning.rules
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
