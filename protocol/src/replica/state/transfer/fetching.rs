//! Fetching a state from others: from whom, which pieces, how fast, and when another one is fetched instead.

use super::Transfer;
use crate::application::{Application, Restore};
use crate::id::{Instant, ReplicaId};
use crate::message::{StableProof, StateChunk, StatePart, Transferring, Wanted};
use crate::replica::{Mark, Record, Replica, StateHead};
use crate::rows::RowsView;

/// Pieces asked for and not here yet, at most.
const ASKED_MAX: usize = 4;

/// So many times as long as for a newer state nothing has come before an older one is fetched instead: what is
/// here of the one is lost with that.
const IDLE_WAITS: u64 = 4;

/// A piece that is not of the certified state counts like so many that do not come.
const LIE: u64 = 2;

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

    pub(in crate::replica::state) fn begin_transfer(
        &mut self,
        from: ReplicaId,
        proof: StableProof,
    ) {
        let now = self.now.instant;
        if let Some(whole) = &self.arriving.ready {
            // It is put in place as soon as its view can be entered. If that takes too long, what
            // it takes is no longer to be had, and the newer state is the way on.
            let patience = 4 * self.fetch_wait_ms();
            if whole.proof.slot() >= proof.slot() || whole.since.after_ms(patience) > now {
                return;
            }
            self.arriving.ready = None;
        }
        match &mut self.arriving.transfer {
            Some(transfer) if transfer.proof.position() == proof.position() => {
                transfer.sources.insert(from);
            }
            Some(transfer) => transfer.offers.note(from, proof),
            None => self.start_transfer(from, proof),
        }
    }

    fn start_transfer(&mut self, from: ReplicaId, proof: StableProof) {
        let now = self.now.instant;
        let mut transfer = Transfer::new(proof, now);
        if let Some(before) = self.arriving.transfer.take() {
            // How long answers take has nothing to do with the state,
            (transfer.pace, transfer.offers) = (before.pace, before.offers);
            // nor who gives nothing.
            transfer.demerits = before.demerits;
        }
        if from != self.setup.id {
            transfer.sources.insert(from);
        }
        self.arriving.transfer = Some(transfer);
        self.ask_for_state();
    }

    /// Asks for as many pieces as may be under way.
    fn ask_for_state(&mut self) {
        let now = self.now.instant;
        let me = self.setup.id;
        let size = self.size;
        let lately = self.lately_ms();
        loop {
            let Some(transfer) = &mut self.arriving.transfer else { return };
            if transfer.asked.len() >= transfer.window || transfer.not_before > now {
                return;
            }
            let Some(part) = transfer.next_part() else { return };
            let others = size.members().filter(|id| *id != me);
            let peers = &self.peers;
            let is_heard =
                |id: &ReplicaId| peers.get(id).is_some_and(|peer| peer.heard_within(now, lately));
            let Some(to) = transfer.candidate(others, is_heard) else { return };
            transfer.asked.insert(part, (to, now));
            transfer.pace.asks(to, now);
            let at = transfer.proof.position();
            self.ask(Some(to), Wanted::State { at, part });
        }
    }

    pub(in crate::replica) fn on_state(&mut self, from: ReplicaId, chunk: StateChunk) {
        let (now, rules) = (self.now.instant, self.setup.tuning.rules);
        let rate = self.setup.tuning.transfer_bytes_per_ms;
        let StateChunk { at, digests, part, bytes, .. } = chunk;
        let asked =
            self.arriving.transfer.as_mut().filter(|transfer| transfer.proof.position() == at);
        let Some(transfer) = asked.filter(|transfer| transfer.asked.contains_key(&part)) else {
            self.counters.useless_answers += 1;
            return;
        };
        transfer.pace.answered(from, now);
        let execution = &self.execution;
        let right = transfer.learn(digests, rules, |digest| execution.restore(digest))
            && transfer.accept(part, &bytes);
        if !right {
            // Whoever sends what is not certified lies, or its disk does. What it was asked for is
            // asked of others.
            self.counters.chunks_refused += 1;
            transfer.blame(from, LIE);
            transfer.asked.retain(|_, (of, _)| *of != from);
            self.peers.entry(from).or_default().refuse_piece();
            self.ask_for_state();
            return;
        }
        transfer.asked.remove(&part);
        // As many as come in time, but not many: a line that is slow is not to be filled in advance.
        transfer.window = (transfer.window + 1).min(ASKED_MAX);
        transfer.sources.insert(from);
        transfer.pieces += 1;
        transfer.bytes += bytes.len() as u64;
        transfer.idle_since = now;
        let micros = (bytes.len() as u64).saturating_mul(1000) / rate.max(1);
        transfer.not_before = Instant(transfer.not_before.max(now).0.saturating_add(micros));
        let rows = match part {
            StatePart::Application(index) => {
                transfer.application.as_mut().map(|restore| restore.rows(index, &bytes))
            }
            StatePart::Last | StatePart::Sessions(_) => None,
        };
        let whole = transfer.is_whole();
        let rest = transfer.application.as_mut().filter(|_| whole).map(|restore| restore.rest());
        let is_first = !std::mem::replace(&mut transfer.recorded, true);
        let head = is_first.then(|| StateHead { stable: transfer.proof.clone(), digests });
        self.counters.chunks_accepted += 1;
        if let Some(head) = head {
            self.append(Record::Fetching(Box::new(head)));
        }
        if rows.is_none() {
            self.append(Record::Piece { at, part, bytes });
        }
        if rows.is_some() || whole {
            let rows = rows.into_iter().chain(rest).flatten().collect();
            self.append(Record::Rows { at, rows, whole });
        }
        let appended = self.outbox.appended();
        if let Some(transfer) = self.arriving.transfer.as_mut().filter(|_| whole) {
            transfer.whole = Some(appended);
        }
        self.ask_for_state();
    }

    /// The last rows of a state that was fetched are on disk.
    pub(in crate::replica::state) fn fetched(&mut self, mark: Mark, rows: RowsView) {
        if let Some(transfer) =
            self.arriving.transfer.take_if(|transfer| transfer.whole == Some(mark))
        {
            self.arriving.ready = transfer.into_whole(rows, self.now.instant);
        }
    }

    /// When to ask again for a piece that does not come, or for the next one.
    pub(in crate::replica) fn transfer_at(&self) -> Option<Instant> {
        let transfer = self.arriving.transfer.as_ref()?;
        let wait = self.answer_wait_ms(&transfer.pace);
        let retry = transfer.asked.values().map(|(_, since)| since.after_ms(wait)).min();
        let next = || transfer.next_part().map(|_| transfer.not_before);
        let may_ask =
            transfer.asked.len() < transfer.window && transfer.not_before > self.now.instant;
        retry.into_iter().chain(may_ask.then(next).flatten()).min()
    }

    /// Asks again, gives up what nobody has any more, and puts in place what is whole.
    pub(in crate::replica) fn tend_transfer(&mut self) {
        let stable = &self.stable;
        self.arriving.retain(|slot| stable.lacks_state(slot));
        self.install_in_view();
        self.begin_repair();
        let now = self.now.instant;
        let retry = self.fetch_wait_ms();
        let pace = self.arriving.transfer.as_ref().map(|transfer| &transfer.pace);
        let wait = pace.map_or(0, |pace| self.answer_wait_ms(pace));
        let Some(transfer) = &mut self.arriving.transfer else { return };
        if transfer.whole.is_some() {
            return;
        }
        let is_late = |since: &Instant| since.after_ms(wait) <= now;
        let late: Vec<_> = transfer.asked.extract_if(.., |_, (_, since)| is_late(since)).collect();
        for (_, (of, _)) in &late {
            transfer.blame(*of, 1);
        }
        if !late.is_empty() {
            transfer.window = 1;
            transfer.pace.missed();
        }
        let is_idle = |ms: u64| !late.is_empty() && transfer.idle_since.after_ms(ms) <= now;
        let (is_idle, is_for_long) = (is_idle(retry), is_idle(IDLE_WAITS * wait.max(retry)));
        let fetched = transfer.proof.slot();
        if let Some(own) = self.stable.proof().filter(|_| is_idle && self.stable.is_distrusted()) {
            // Whoever is left may have just that of the own stable checkpoint, and says nothing of it.
            transfer.offers.note(self.setup.id, own.clone());
        }
        let stable = &self.stable;
        let is_of_use = |slot| stable.lacks_state(slot);
        let other = is_idle.then(|| transfer.offers.choose(fetched, is_of_use, is_for_long));
        if let Some((from, proof)) = other.flatten() {
            self.start_transfer(from, proof);
        } else {
            self.ask_for_state();
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
        self.arriving.transfer.as_ref().map(|transfer| Transferring {
            slot: transfer.proof.slot(),
            pieces: transfer.pieces,
            of: transfer.of(),
            bytes: transfer.bytes,
        })
    }
}
