//! The state that is on its way here, and the one that is here and not in place yet.

use super::transfer::{Transfer, Whole};
use crate::application::Restore;
use crate::id::{Instant, ReplicaId, Slot};
use crate::message::StableProof;
use crate::replica::Mark;
use crate::rows::RowsView;

/// At most one state is fetched at a time, and at most one waits to be put in place.
#[derive(Clone, Debug)]
pub(in crate::replica) struct Arriving<R> {
    transfer: Option<Transfer<R>>,
    ready: Option<Ready>,
}

#[derive(Clone, Debug)]
struct Ready {
    whole: Whole,
    /// When the last piece came.
    since: Instant,
}

impl<R> Default for Arriving<R> {
    fn default() -> Self {
        Self { transfer: None, ready: None }
    }
}

impl<R> Arriving<R> {
    /// Whether there is none.
    pub(in crate::replica) fn is_empty(&self) -> bool {
        self.transfer.is_none() && self.ready.is_none()
    }

    // ---- on its way ----

    /// Whether one is on its way.
    pub(in crate::replica) fn is_under_way(&self) -> bool {
        self.transfer.is_some()
    }

    pub(super) fn transfer(&self) -> Option<&Transfer<R>> {
        self.transfer.as_ref()
    }

    pub(super) fn transfer_mut(&mut self) -> Option<&mut Transfer<R>> {
        self.transfer.as_mut()
    }

    // ---- here whole ----

    /// One of which everything is here.
    pub(in crate::replica) fn ready(&self) -> Option<&Whole> {
        self.ready.as_ref().map(|ready| &ready.whole)
    }

    pub(in crate::replica) fn take_ready(&mut self) -> Option<Whole> {
        self.ready.take().map(|ready| ready.whole)
    }

    /// Everything of a state is here.
    fn complete(&mut self, whole: Option<Whole>, since: Instant) {
        self.ready = whole.map(|whole| Ready { whole, since });
    }
}

impl<R: Restore> Arriving<R> {
    /// Goes on with a state that was found on disk, as far as it was fetched.
    pub(in crate::replica) fn resume(
        &mut self,
        transfer: Transfer<R>,
        rows: RowsView,
        now: Instant,
    ) {
        if transfer.is_whole() {
            self.complete(transfer.into_whole(rows), now);
        } else {
            self.transfer = Some(transfer.resumed(now));
        }
    }

    /// A peer has the state that this proves. Gives it back where that is to be fetched from now on; one that is
    /// here whole comes before it for so long.
    pub(super) fn hear_of(
        &mut self,
        from: ReplicaId,
        proof: StableProof,
        now: Instant,
        patience_ms: u64,
    ) -> Option<StableProof> {
        if let Some(Ready { whole, since }) = &self.ready {
            // It is put in place as soon as its view can be entered. If that takes too long, what
            // it takes is no longer to be had, and the newer state is the way on.
            if whole.proof.slot() >= proof.slot() || since.after_ms(patience_ms) > now {
                return None;
            }
            self.ready = None;
        }
        match &mut self.transfer {
            Some(transfer) => {
                transfer.hear_of(from, proof);
                None
            }
            None => Some(proof),
        }
    }

    /// This state is fetched from now on, in place of the one before.
    pub(super) fn begin(&mut self, proof: StableProof, source: Option<ReplicaId>, now: Instant) {
        self.transfer = Some(Transfer::new(proof, source, self.transfer.take(), now));
    }

    /// A record with the last rows of a state may be on disk.
    pub(super) fn written(&mut self, mark: Mark, rows: RowsView, now: Instant) {
        if let Some(transfer) = self.transfer.take_if(|transfer| transfer.is_whole_after(mark)) {
            self.complete(transfer.into_whole(rows), now);
        }
    }

    /// Lets go of what is of no use any more.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(Slot) -> bool) {
        self.transfer.take_if(|transfer| !is_wanted(transfer.slot()));
        self.ready.take_if(|ready| !is_wanted(ready.whole.proof.slot()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::pieces::tests::{Two, state};
    use super::*;
    use crate::message::StateChunk;
    use crate::rows::MemoryRows;
    use crate::tuning::Rules;

    const PATIENCE: u64 = 100;

    fn at(ms: u64) -> Instant {
        Instant::default().after_ms(ms)
    }

    /// The state after slot 8 is here whole, and the record with its last rows is the first one.
    fn fetched() -> Arriving<Two> {
        let mut arriving = Arriving::default();
        let (proof, digests, pieces) = state(8);
        arriving.begin(proof.clone(), None, at(0));
        let transfer = arriving.transfer_mut().expect("it has begun");
        for (part, bytes) in pieces {
            assert!(!transfer.is_whole());
            let from = transfer.ask_next([ReplicaId(1)].into_iter(), |_| true, at(0));
            assert_eq!(from.map(|(_, _, asked)| asked), Some(part));
            let chunk = StateChunk { at: proof.position(), digests, part, of: 1, bytes };
            let restore = |_| Two::default();
            let kept = transfer.take_in(ReplicaId(1), &chunk, Rules::default(), restore, at(0));
            assert!(kept.is_some());
        }
        transfer.note_whole(Mark(1));
        arriving
    }

    #[test]
    fn a_state_is_here_whole_when_its_last_rows_are_on_disk() {
        let mut arriving = fetched();
        arriving.written(Mark(2), MemoryRows::none(), at(0));
        assert!(arriving.ready().is_none() && arriving.is_under_way());
        arriving.written(Mark(1), MemoryRows::none(), at(0));
        assert!(arriving.ready().is_some() && !arriving.is_under_way());
        assert!(arriving.take_ready().is_some() && arriving.is_empty());
    }

    #[test]
    fn a_newer_state_takes_the_place_of_one_that_is_here_only_after_a_while() {
        let mut arriving = fetched();
        arriving.written(Mark(1), MemoryRows::none(), at(0));
        let mut offered = |slot: u64, ms: u64| {
            arriving.hear_of(ReplicaId(2), state(slot).0, at(ms), PATIENCE).is_some()
        };
        assert!(!offered(9, PATIENCE - 1), "it will be put in place");
        assert!(!offered(8, PATIENCE) && !offered(4, PATIENCE), "it is no way on");
        assert!(offered(9, PATIENCE));
        assert!(arriving.is_empty());
    }

    #[test]
    fn one_state_is_fetched_at_a_time() {
        let mut arriving = fetched();
        assert_eq!(arriving.hear_of(ReplicaId(2), state(9).0, at(0), PATIENCE), None);
        assert_eq!(arriving.transfer().map(Transfer::slot), Some(Slot(8)));
        arriving.begin(state(9).0, None, at(0));
        assert_eq!(arriving.transfer().map(Transfer::slot), Some(Slot(9)));
        arriving.retain(|slot| slot > Slot(9));
        assert!(arriving.is_empty());
    }
}
