//! Fetching a state from others: what is offered is considered, pieces are asked for and written, and what does not come
//! is asked for again, or given up for another state.

use crate::application::Application;
use crate::id::{Instant, ReplicaId};
use crate::message::{StableProof, StateChunk, Transferring, Wanted};
use crate::replica::{Mark, Record, Replica};
use crate::rows::RowsView;

impl<A: Application> Replica<A> {
    /// Asked for history, a peer says that it has only the state.
    pub(in crate::replica) fn consider_state(&mut self, from: ReplicaId, proof: StableProof) {
        if !self.stable.lacks_state(proof.slot()) {
            return;
        }
        let in_history = self.history.goes_through(proof.position()) && !self.is_distrusted();
        self.on_stable(from, proof.clone());
        if in_history || !self.stable.lacks_state(proof.slot()) {
            return;
        }
        self.begin_transfer(from, proof);
    }

    pub(super) fn begin_transfer(&mut self, from: ReplicaId, proof: StableProof) {
        let ready = self.arriving.ready().map(|whole| whole.last.choices.edition);
        if ready.is_some_and(|edition| !self.setup.editions.newest.may_follow(edition)) {
            // Later ones are of no more use, until the program is a newer one.
            return;
        }
        let (now, patience) = (self.now.instant, 4 * self.fetch_wait_ms());
        if let Some(proof) = self.arriving.hear_of(from, proof, now, patience) {
            self.start_transfer(from, proof);
        }
    }

    fn start_transfer(&mut self, from: ReplicaId, proof: StableProof) {
        let source = (from != self.setup.id).then_some(from);
        self.arriving.begin(proof, source, self.now.instant);
        self.ask_for_state();
    }

    /// Asks for as many pieces as may be under way.
    fn ask_for_state(&mut self) {
        let (now, me, size) = (self.now.instant, self.setup.id, self.size);
        let lately = self.lately_ms();
        loop {
            let others = size.members().filter(|id| *id != me);
            let peers = &self.peers;
            let is_heard =
                |id: &ReplicaId| peers.get(id).is_some_and(|peer| peer.heard_within(now, lately));
            let Some(transfer) = self.arriving.transfer_mut() else { return };
            let Some((to, at, part)) = transfer.ask_next(others, is_heard, now) else { return };
            self.ask(Some(to), Wanted::State { at, part });
        }
    }

    pub(in crate::replica) fn on_state(&mut self, from: ReplicaId, chunk: StateChunk) {
        let (now, tuning) = (self.now.instant, &self.setup.tuning);
        let StateChunk { at, part, .. } = chunk;
        let asked = self.arriving.transfer_mut().filter(|transfer| transfer.expects(at, part));
        let Some(transfer) = asked else {
            self.counters.useless_answers += 1;
            return;
        };
        let execution = &self.execution;
        let restore = |digest| execution.restore(digest);
        let Some(piece) = transfer.take_in(from, &chunk, tuning.rules, restore, now) else {
            self.counters.chunks_refused += 1;
            self.peers.entry(from).or_default().refuse_piece();
            self.ask_for_state();
            return;
        };
        transfer.keep_rate(chunk.bytes.len(), tuning.transfer_bytes_per_ms, now);
        self.counters.chunks_accepted += 1;
        if let Some(head) = piece.head {
            self.append(Record::Fetching(Box::new(head)));
        }
        if piece.as_it_is {
            self.append(Record::Piece { at, part, bytes: chunk.bytes });
        }
        if let Some(rows) = piece.rows {
            self.append(Record::Rows { at, rows, whole: piece.is_whole });
        }
        let written = self.outbox.appended();
        if let Some(transfer) = self.arriving.transfer_mut().filter(|_| piece.is_whole) {
            transfer.note_whole(written);
        }
        self.ask_for_state();
    }

    /// The last rows of a state that was fetched are on disk.
    pub(super) fn fetched(&mut self, mark: Mark, rows: RowsView) {
        self.arriving.written(mark, rows, self.now.instant);
    }

    /// When to ask again for a piece that does not come, or for the next one.
    pub(in crate::replica) fn transfer_at(&self) -> Option<Instant> {
        let transfer = self.arriving.transfer()?;
        transfer.next_at(self.piece_wait_ms(transfer.pace()), self.now.instant)
    }

    /// Asks again, gives up what nobody has any more, and puts in place what is whole.
    pub(in crate::replica) fn tend_transfer(&mut self) {
        let stable = &self.stable;
        self.arriving.retain(|slot| stable.lacks_state(slot));
        self.install_in_view();
        self.begin_repair();
        let Some(transfer) = self.arriving.transfer() else { return };
        if transfer.waits_for_disk() {
            return;
        }
        let (wait, retry) = (self.piece_wait_ms(transfer.pace()), self.fetch_wait_ms());
        let Some(transfer) = self.arriving.transfer_mut() else { return };
        let another = transfer.give_up_late(wait, retry, self.now.instant).and_then(|idle| {
            let stable = &self.stable;
            if let Some(own) = stable.proof().filter(|_| stable.is_distrusted()) {
                // Whoever is left may have just that of the own stable checkpoint, and says nothing of it.
                transfer.note_offer(self.setup.id, own.clone());
            }
            transfer.choose_another(|slot| stable.lacks_state(slot), idle)
        });
        match another {
            Some((from, proof)) => self.start_transfer(from, proof),
            None => self.ask_for_state(),
        }
    }

    /// The own state is of no use: that of the own stable checkpoint is fetched from others. Those
    /// who are further offer theirs.
    fn begin_repair(&mut self) {
        let is_due = self.is_distrusted() && self.arriving.is_empty();
        if let Some(proof) = self.stable.proof().filter(|_| is_due).cloned() {
            self.start_transfer(self.setup.id, proof);
        }
    }

    /// How far the fetching of a state has come, if one is being fetched.
    #[must_use]
    pub fn transferring(&self) -> Option<Transferring> {
        self.arriving.transfer().map(|transfer| transfer.progress())
    }
}
