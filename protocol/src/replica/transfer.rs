//! State transfer: a checkpoint's state instead of the slots that led to it.
//!
//! Peers give up what is stable, so a replica that was away longer than they remember fetches the
//! state, piece by piece, each checked against the certified digest, and the slots above it as a
//! branch. To put it in place is a merge like any other: what the own history held above its old
//! stable checkpoint, and the new one does not, is orphaned.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::branch::{Footing, Path, Reach, Side};
use super::fetch::BUDGET_LEAST;
use super::sessions::{FrozenSessions, Sessions, SessionsRestore};
use super::{Record, Replica, Target};
use crate::application::{Application, Restore, Snapshot};
use crate::codec::{self, Canonical};
use crate::history::extend;
use crate::id::{Digest, Instant, ReplicaId, Slot};
use crate::message::{
    Branch, LastSlot, Message, Position, StableProof, StateChunk, StateDigests, StatePart, Wanted,
    batch_digest,
};
use crate::tuning::Rules;

/// States kept for peers that fetch them: the newest, and those somebody was fetching lately.
const SERVED_MAX: usize = 4;

/// How long after the last question a state is kept for whoever asked, in ms.
const SERVED_MS: u64 = 30_000;

/// The state after a checkpoint slot, frozen.
#[derive(Clone, Debug)]
pub(super) struct Taken<S> {
    pub(super) at: Position,
    pub(super) digests: StateDigests,
    pub(super) last: LastSlot,
    pub(super) snapshot: S,
    pub(super) sessions: FrozenSessions,
}

impl<S: Snapshot> Taken<S> {
    /// A piece of it; `None` past the end.
    pub(super) fn piece(&self, part: StatePart) -> Option<Bytes> {
        match part {
            StatePart::Last => codec::encode(&self.last).ok(),
            StatePart::Sessions(index) => self.sessions.chunk(index),
            StatePart::Application(index) => self.snapshot.chunk(index),
        }
    }

    /// How many pieces there are of this kind.
    fn pieces(&self, part: StatePart) -> u32 {
        match part {
            StatePart::Last => 1,
            StatePart::Sessions(_) => self.sessions.chunks(),
            StatePart::Application(_) => self.snapshot.chunks(),
        }
    }
}

/// A stable one of them, kept for others.
#[derive(Clone, Debug)]
pub(super) struct Served<S> {
    pub(super) taken: Taken<S>,
    asked: Option<Instant>,
}

/// A state on its way here.
#[derive(Clone, Debug)]
pub(super) struct Transfer<R> {
    pub(super) proof: StableProof,
    digests: Option<StateDigests>,
    last: Option<LastSlot>,
    sessions: Option<SessionsRestore>,
    application: Option<R>,
    sources: Vec<ReplicaId>,
    turn: usize,
    /// When to ask somebody else, and whether anything came since the last time.
    again: Instant,
    progressed: bool,
    /// A newer state that was offered meanwhile.
    newer: Option<(ReplicaId, StableProof)>,
}

/// A transferred state of which everything is here, to be put in place.
#[derive(Clone, Debug)]
pub(super) struct Whole<R> {
    pub(super) proof: StableProof,
    pub(super) digests: StateDigests,
    pub(super) last: LastSlot,
    pub(super) sessions: Sessions,
    pub(super) application: R,
    /// When the last piece came.
    since: Instant,
}

impl<R: Restore> Transfer<R> {
    fn new(proof: StableProof, from: ReplicaId, now: Instant) -> Self {
        Self {
            proof,
            digests: None,
            last: None,
            sessions: None,
            application: None,
            sources: vec![from],
            turn: 0,
            again: now,
            progressed: true,
            newer: None,
        }
    }

    fn next_part(&self) -> Option<StatePart> {
        if self.last.is_none() {
            return Some(StatePart::Last);
        }
        let sessions = self.sessions.as_ref().and_then(SessionsRestore::missing);
        let application = || self.application.as_ref().and_then(Restore::missing);
        sessions.map(StatePart::Sessions).or_else(|| application().map(StatePart::Application))
    }

    fn is_whole(&self) -> bool {
        self.next_part().is_none()
    }

    /// Takes a piece. `false` where it does not belong to the certified state.
    pub(super) fn accept(
        &mut self,
        part: StatePart,
        digests: StateDigests,
        bytes: &Bytes,
        rules: Rules,
        restore: impl FnOnce(Digest) -> R,
    ) -> bool {
        let checkpoint = self.proof.checkpoint.checkpoint;
        if digests.digest() != checkpoint.state {
            return false;
        }
        if self.digests.is_none() {
            self.digests = Some(digests);
            self.sessions = Some(SessionsRestore::new(rules, digests.sessions));
            self.application = Some(restore(digests.application));
        }
        match part {
            StatePart::Last => {
                let Ok(last) = codec::decode::<LastSlot>(bytes) else { return false };
                let batch = batch_digest(&last.choices, &last.requests);
                if extend(&last.previous, &batch) != checkpoint.hash {
                    return false;
                }
                self.last = Some(last);
                true
            }
            StatePart::Sessions(index) => {
                self.sessions.as_mut().is_some_and(|restore| restore.accept(index, bytes).is_ok())
            }
            StatePart::Application(index) => self
                .application
                .as_mut()
                .is_some_and(|restore| restore.accept(index, bytes).is_ok()),
        }
    }

    /// Rebuilds a transfer from its stored pieces. `None` where they are not a whole state.
    pub(super) fn from_disk(
        proof: StableProof,
        digests: StateDigests,
        chunks: &[(StatePart, Bytes)],
        rules: Rules,
        restore: impl Fn(Digest) -> R,
    ) -> Option<Whole<R>> {
        let mut transfer = Self::new(proof, ReplicaId(0), Instant::default());
        // The session table and the application's restore exist once the first piece is there.
        for (part, bytes) in chunks {
            if !transfer.accept(*part, digests, bytes, rules, &restore) {
                return None;
            }
        }
        transfer.into_whole(Instant::default())
    }

    fn into_whole(self, since: Instant) -> Option<Whole<R>> {
        if !self.is_whole() {
            return None;
        }
        Some(Whole {
            proof: self.proof,
            digests: self.digests?,
            last: self.last?,
            sessions: self.sessions?.finish().ok()?,
            application: self.application?,
            since,
        })
    }
}

impl<A: Application> Replica<A> {
    // ---- states of our own ----

    /// Freezes the state after a checkpoint slot that was just executed.
    pub(super) fn take_checkpoint(&mut self, at: Position) {
        let digests = self.execution.digests();
        let (snapshot, sessions) = self.execution.freeze();
        let before = Slot(at.slot.0.saturating_sub(1));
        let previous = self.history.hash_at(before).unwrap_or_default();
        let Some(entry) = self.history.entry(at.slot) else { return };
        let last = LastSlot {
            previous,
            choices: entry.batch.choices,
            requests: entry.batch.request_digests(),
        };
        self.taken.insert(at.slot, Taken { at, digests, last, snapshot, sessions });
    }

    /// A checkpoint is stable: its state is kept for others, those below are not needed.
    pub(super) fn keep_state(&mut self, slot: Slot) {
        let above = self.taken.split_off(&slot.next());
        let taken = std::mem::replace(&mut self.taken, above).remove(&slot);
        self.served.extend(taken.map(|taken| Served { taken, asked: None }));
        self.drop_old_states();
    }

    /// A state that was transferred is served from then on.
    pub(super) fn keep_transferred(&mut self, taken: Taken<A::Snapshot>) {
        self.served.push_back(Served { taken, asked: None });
        self.drop_old_states();
    }

    fn drop_old_states(&mut self) {
        let now = self.now.instant;
        let newest = self.served.len().saturating_sub(2);
        let written = self.settling.writing();
        let mut index = 0;
        self.served.retain(|served| {
            index += 1;
            index > newest
                || written == Some(served.taken.at)
                || served.asked.is_some_and(|asked| asked.after_ms(SERVED_MS) > now)
        });
        while self.served.len() > SERVED_MAX {
            let oldest = self.served.iter().position(|served| written != Some(served.taken.at));
            self.served.remove(oldest.unwrap_or(0));
        }
    }

    pub(super) fn serve_state(&mut self, to: ReplicaId, at: Position, part: StatePart) -> usize {
        let now = self.now.instant;
        let Some(served) = self.served.iter_mut().find(|served| served.taken.at == at) else {
            // Say what there is instead.
            if let Some(proof) = self.stable.clone().filter(|proof| proof.slot() > at.slot) {
                let branch = Branch { head: at, slots: Vec::new(), stable: Some(Box::new(proof)) };
                self.send(Target::One(to), Message::Branch(branch));
            }
            return usize::try_from(BUDGET_LEAST).unwrap_or(usize::MAX);
        };
        served.asked = Some(now);
        let taken = &served.taken;
        let Some(bytes) = taken.piece(part) else { return 0 };
        let of = taken.pieces(part);
        let size = bytes.len();
        self.counters.chunks_served += 1;
        let chunk = StateChunk { at, digests: taken.digests, part, of, bytes };
        self.send_at_once(Target::One(to), Message::State(chunk));
        size
    }

    // ---- a state of others ----

    /// The checkpoint of a state that is here whole and not in place yet.
    pub(super) fn transferred(&self) -> Option<Position> {
        self.ready.as_ref().map(|whole| whole.proof.position())
    }

    /// Asked for history, a peer says that it has only the state.
    pub(super) fn consider_state(&mut self, from: ReplicaId, proof: StableProof) {
        let own = self.stable();
        if proof.slot() <= own {
            return;
        }
        let in_history = self.history.goes_through(proof.position());
        self.on_stable(from, proof.clone());
        if in_history || self.stable() >= proof.slot() {
            return;
        }
        self.begin_transfer(from, proof);
    }

    pub(super) fn begin_transfer(&mut self, from: ReplicaId, proof: StableProof) {
        let now = self.now.instant;
        if let Some(whole) = &self.ready {
            // It is put in place as soon as its view can be entered. If that takes too long, what
            // it takes is no longer to be had, and the newer state is the way on.
            let patience = 4 * self.setup.tuning.fetch_retry_ms;
            if whole.proof.slot() >= proof.slot() || whole.since.after_ms(patience) > now {
                return;
            }
            self.ready = None;
        }
        let Some(transfer) = &mut self.transfer else {
            self.transfer = Some(Transfer::new(proof, from, now));
            self.ask_for_state();
            return;
        };
        if transfer.proof.position() == proof.position() {
            if !transfer.sources.contains(&from) {
                transfer.sources.push(from);
            }
            return;
        }
        if transfer.newer.as_ref().is_none_or(|(_, newer)| newer.slot() < proof.slot())
            && transfer.proof.slot() < proof.slot()
        {
            transfer.newer = Some((from, proof));
        }
    }

    fn ask_for_state(&mut self) {
        let now = self.now.instant;
        let retry = now.after_ms(self.setup.tuning.fetch_retry_ms);
        let me = self.setup.id;
        let members: Vec<ReplicaId> = self.size.members().filter(|id| *id != me).collect();
        let Some(transfer) = &mut self.transfer else { return };
        transfer.again = retry;
        transfer.progressed = false;
        let Some(part) = transfer.next_part() else { return };
        let others = members.iter().filter(|id| !transfer.sources.contains(id));
        let all: Vec<ReplicaId> = transfer.sources.iter().chain(others).copied().collect();
        let to = all.get(transfer.turn % all.len().max(1)).copied();
        let at = transfer.proof.position();
        self.ask(to, Wanted::State { at, part });
    }

    pub(super) fn on_state(&mut self, from: ReplicaId, chunk: StateChunk) {
        let rules = self.setup.tuning.rules;
        let StateChunk { at, digests, part, bytes, .. } = chunk;
        let Some(transfer) = &mut self.transfer else {
            self.counters.useless_answers += 1;
            return;
        };
        if transfer.proof.position() != at || transfer.next_part() != Some(part) {
            self.counters.useless_answers += 1;
            return;
        }
        let execution = &self.execution;
        if !transfer.accept(part, digests, &bytes, rules, |digest| execution.restore(digest)) {
            // Whoever sends what is not certified lies, or its disk does.
            self.counters.chunks_refused += 1;
            transfer.sources.retain(|source| *source != from);
            transfer.turn += 1;
            self.ask_for_state();
            return;
        }
        transfer.progressed = true;
        self.counters.chunks_accepted += 1;
        // One state at a time goes to the disk, and this one is needed more.
        self.settling.give_way();
        self.append(Record::Chunk { at, part, bytes });
        if let Some(transfer) = self.transfer.take_if(|transfer| transfer.is_whole()) {
            self.ready = transfer.into_whole(self.now.instant);
        } else {
            self.ask_for_state();
        }
    }

    /// When to ask again for a piece that does not come.
    pub(super) fn transfer_at(&self) -> Option<Instant> {
        self.transfer.as_ref().map(|transfer| transfer.again)
    }

    /// Asks again, gives up what nobody has any more, and puts in place what is whole.
    pub(super) fn tend_transfer(&mut self) {
        let stable = self.stable();
        if self.transfer.as_ref().is_some_and(|transfer| transfer.proof.slot() <= stable) {
            self.transfer = None;
        }
        if self.ready.as_ref().is_some_and(|whole| whole.proof.slot() <= stable) {
            self.ready = None;
        }
        self.install_in_view();
        let now = self.now.instant;
        let Some(transfer) = &mut self.transfer else { return };
        if transfer.again <= now {
            if let Some((from, proof)) = transfer.newer.take_if(|_| !transfer.progressed) {
                self.transfer = Some(Transfer::new(proof, from, now));
            } else if !transfer.progressed {
                transfer.turn += 1;
            }
            self.ask_for_state();
        }
    }

    /// Puts a state in place without a change of view, where it is of the view entered. Where the
    /// certificate is, no other history of this view can be certified, so that the own votes on
    /// another one, if there were any, come to nothing.
    fn install_in_view(&mut self) {
        let Some(proof) = self.ready.as_ref().map(|whole| whole.proof.clone()) else { return };
        let of_view = proof.cover.commit.view == self.entered;
        let at = proof.position();
        if self.history.goes_through(at) && (of_view || !self.lock_aside) {
            // The own state is not the certified one, but the history is: it is executed anew. The
            // history stays what it is, so it matters not of which view the certificate is.
            let own: Vec<_> = self
                .history
                .from(at.slot.next())
                .map(|(slot, entry)| (slot, entry.clone()))
                .collect();
            let mut previous = at.hash;
            let mut above = Vec::new();
            for (slot, entry) in own {
                let side = Side { slot, previous, batch: entry.batch, order: entry.order };
                self.branches.insert(entry.hash, side);
                previous = entry.hash;
                above.push(entry.hash);
            }
            let path = Path { footing: Footing::State(at), above };
            self.adopt(None, &path);
            return;
        }
        if !of_view {
            return;
        }
        // The lock may be a later one of this view: then the history leads up to it.
        let cover = &proof.cover;
        let lock = self.lock.as_ref().filter(|lock| lock.rank() > cover.rank());
        if lock.is_some_and(|lock| lock.commit.view != self.entered) {
            return;
        }
        let end = lock.unwrap_or(cover).position();
        if let Reach::Whole(path) = self.reach(end)
            && path.footing == Footing::State(at)
            && self.passes(&path, cover.position())
        {
            self.adopt(None, &path);
        }
    }

    /// How far a transfer has come, for operators: pieces accepted and where it goes to.
    #[must_use]
    pub fn transferring(&self) -> Option<Slot> {
        self.transfer.as_ref().map(|transfer| transfer.proof.slot())
    }
}

/// States of our own by their slots.
pub(super) type States<S> = BTreeMap<Slot, Taken<S>>;
