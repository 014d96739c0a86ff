//! State transfer: a checkpoint's state instead of the slots that led to it.
//!
//! Peers give up what is stable, so a replica that was away longer than they remember fetches the
//! state, piece by piece, each checked against the certified digest, and the slots above it as a
//! branch. To put it in place is a merge like any other: what the own history held above its old
//! stable checkpoint, and the new one does not, is orphaned.
//!
//! Several pieces are asked for at a time, of one peer after the other, no faster than
//! [`Tuning::transfer_bytes_per_ms`](crate::tuning::Tuning). Every piece goes to the disk when it
//! comes, so that a crash costs none. Who sends a piece that is not of the certified state lies, or
//! its disk does: the count is shown by its name. Who does that, or does not answer, is asked after
//! the others. Where nothing comes any more, another state is fetched that somebody offers ([`Offers`]).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::branch::{Footing, Path, Reach, Side};
use super::fetch::BUDGET_LEAST;
use super::offers::Offers;
use super::primary::LONE_STATUSES;
use super::sessions::{Sessions, SessionsRestore};
use super::states::Taken;
use super::waits::Pace;
use super::{Doubt, Mark, Record, Replica, StateHead, StoredState, Target};
use crate::application::{Application, Restore};
use crate::codec::{self, Canonical};
use crate::history::extend;
use crate::id::{Digest, Instant, ReplicaId, Slot};
use crate::message::{
    Branch, LastSlot, Message, Position, StableProof, StateChunk, StateDigests, StatePart,
    Transferring, Wanted, batch_digest,
};
use crate::rows::{RowsView, Unreadable};
use crate::tuning::Rules;

/// Pieces asked for and not here yet, at most.
const ASKED_MAX: usize = 4;

/// So many times as long as for a newer state nothing has come before an older one is fetched instead: what is
/// here of the one is lost with that.
const IDLE_WAITS: u64 = 4;

/// A piece that is not of the certified state counts like so many that do not come.
const LIE: u64 = 2;

/// And so does not to be heard.
const SILENT: u64 = 2;

/// A state on its way here.
#[derive(Clone, Debug)]
pub(super) struct Transfer<R> {
    pub(super) proof: StableProof,
    digests: Option<StateDigests>,
    last: Option<LastSlot>,
    sessions: Option<SessionsRestore>,
    application: Option<R>,
    /// Whether the disk knows of it.
    recorded: bool,
    /// Pieces asked for: of whom, and when.
    asked: BTreeMap<StatePart, (ReplicaId, Instant)>,
    /// How many may be, and how long they take.
    window: usize,
    pace: Pace,
    /// Counts through those who can be asked.
    turn: usize,
    /// Who showed that it has this state.
    sources: BTreeSet<ReplicaId>,
    /// How often each did not answer, or, which counts more, sent what is not of this state.
    demerits: BTreeMap<ReplicaId, u64>,
    /// Not before then is more asked for, so that the rate is kept.
    not_before: Instant,
    /// How far it has come.
    pub(super) pieces: u64,
    pub(super) bytes: u64,
    /// Since when nothing has come.
    idle_since: Instant,
    /// Everything is here when this is durable.
    whole: Option<Mark>,
    /// Other states that were offered meanwhile.
    offers: Offers,
}

/// A state of which everything is here and on disk, to be put in place.
#[derive(Clone, Debug)]
pub(super) struct Whole {
    pub(super) proof: StableProof,
    pub(super) digests: StateDigests,
    pub(super) last: LastSlot,
    pub(super) sessions: Sessions,
    pub(super) rows: RowsView,
    /// When the last piece came.
    since: Instant,
}

/// The state that is on its way here, and the one that is here and not in place yet.
#[derive(Clone, Debug)]
pub(super) struct Arriving<R> {
    transfer: Option<Transfer<R>>,
    ready: Option<Whole>,
}

impl<R> Default for Arriving<R> {
    fn default() -> Self {
        Self { transfer: None, ready: None }
    }
}

impl<R> Arriving<R> {
    /// A state that was being fetched was found on disk.
    pub(super) fn resume(&mut self, transfer: Transfer<R>, now: Instant) {
        self.transfer = Some(Transfer { idle_since: now, ..transfer });
    }

    /// All of a state is here.
    pub(super) fn complete(&mut self, whole: Option<Whole>) {
        self.ready = whole;
    }

    /// Whether one is on its way.
    pub(super) fn is_under_way(&self) -> bool {
        self.transfer.is_some()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.transfer.is_none() && self.ready.is_none()
    }

    /// One of which everything is here.
    pub(super) fn ready(&self) -> Option<&Whole> {
        self.ready.as_ref()
    }

    pub(super) fn take_ready(&mut self) -> Option<Whole> {
        self.ready.take()
    }

    /// Lets go of what is of no use any more.
    fn retain(&mut self, is_wanted: impl Fn(Slot) -> bool) {
        self.transfer.take_if(|transfer| !is_wanted(transfer.proof.slot()));
        self.ready.take_if(|whole| !is_wanted(whole.proof.slot()));
    }
}

impl<R: Restore> Transfer<R> {
    fn new(proof: StableProof, now: Instant) -> Self {
        Self {
            proof,
            digests: None,
            last: None,
            sessions: None,
            application: None,
            recorded: false,
            asked: BTreeMap::new(),
            window: 1,
            pace: Pace::default(),
            turn: 0,
            sources: BTreeSet::new(),
            demerits: BTreeMap::new(),
            not_before: now,
            pieces: 0,
            bytes: 0,
            idle_since: now,
            whole: None,
            offers: Offers::default(),
        }
    }

    /// The next piece to ask for: the lowest that is neither here nor asked for.
    fn next_part(&self) -> Option<StatePart> {
        let is_asked = |part: StatePart| self.asked.contains_key(&part);
        if self.last.is_none() {
            // It shows what the others are pieces of.
            return (!is_asked(StatePart::Last)).then_some(StatePart::Last);
        }
        let sessions = self.sessions.as_ref()?;
        let application = self.application.as_ref()?;
        let next = |of: fn(u32) -> StatePart, missing: &dyn Fn(u32) -> Option<u32>| {
            let mut first = 0;
            loop {
                let part = of(missing(first)?);
                if !is_asked(part) {
                    return Some(part);
                }
                first = missing(first)? + 1;
            }
        };
        next(StatePart::Sessions, &|first| sessions.missing_from(first))
            .or_else(|| next(StatePart::Application, &|first| application.missing_from(first)))
    }

    pub(super) fn is_whole(&self) -> bool {
        self.last.is_some()
            && self.sessions.as_ref().is_some_and(|restore| restore.missing().is_none())
            && self.application.as_ref().is_some_and(|restore| restore.missing().is_none())
    }

    /// How many pieces there are, where it is known.
    fn of(&self) -> Option<u64> {
        let sessions = self.sessions.as_ref()?.total()?;
        let application = self.application.as_ref()?.chunks()?;
        Some(1 + u64::from(sessions) + u64::from(application))
    }

    /// Whom to ask next: those with the fewest demerits, and of them who showed that they have it. Who was not
    /// heard lately may be out of reach, or only have a slow disk.
    fn candidate(
        &mut self,
        others: impl Iterator<Item = ReplicaId>,
        is_heard: impl Fn(&ReplicaId) -> bool,
    ) -> Option<ReplicaId> {
        let others: Vec<_> = others.collect();
        let demerits = |id: &ReplicaId| self.demerits.get(id).copied().unwrap_or_default();
        let rank = |id: &ReplicaId| {
            let silent = if is_heard(id) { 0 } else { SILENT };
            (demerits(id) + silent, !self.sources.contains(id))
        };
        let best = others.iter().map(rank).min()?;
        let among: Vec<_> = others.iter().filter(|id| rank(id) == best).collect();
        let chosen = **among.get(self.turn % among.len().max(1))?;
        self.turn += 1;
        Some(chosen)
    }

    fn blame(&mut self, id: ReplicaId, demerits: u64) {
        *self.demerits.entry(id).or_default() += demerits;
        self.sources.remove(&id);
    }

    /// What the pieces are pieces of. `false` where it is not the certified state.
    fn learn(
        &mut self,
        digests: StateDigests,
        rules: Rules,
        restore: impl FnOnce(Digest) -> R,
    ) -> bool {
        if digests.digest() != self.proof.checkpoint.checkpoint.state {
            return false;
        }
        if self.digests.is_none() {
            self.digests = Some(digests);
            self.sessions = Some(SessionsRestore::new(rules, digests.sessions));
            self.application = Some(restore(digests.application));
        }
        true
    }

    /// Takes a piece. `false` where it does not belong to the certified state.
    fn accept(&mut self, part: StatePart, bytes: &Bytes) -> bool {
        let checkpoint = self.proof.checkpoint.checkpoint;
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

    /// Rebuilds a transfer from what is stored. `None` where that is not of the state.
    pub(super) fn from_disk(
        stored: &StoredState,
        rules: Rules,
        restore: impl Fn(Digest) -> R,
    ) -> Option<Self> {
        let mut transfer = Self::new(stored.head.stable.clone(), Instant::default());
        transfer.recorded = true;
        if !transfer.learn(stored.head.digests, rules, restore) {
            return None;
        }
        for (part, bytes) in &stored.pieces {
            if !transfer.accept(*part, bytes) {
                return None;
            }
            transfer.pieces += 1;
        }
        Some(transfer)
    }

    /// Goes on with the rows that were fetched before.
    pub(super) fn resume(&mut self, rows: &RowsView) -> Result<(), Unreadable> {
        let Some(application) = &mut self.application else { return Ok(()) };
        application.resume(rows)?;
        self.pieces += u64::from(application.missing().unwrap_or_default());
        Ok(())
    }

    /// The protocol's own part of it, where that is whole.
    pub(super) fn own_part(self) -> Option<(LastSlot, Sessions)> {
        Some((self.last?, self.sessions?.finish()?))
    }

    /// The state, if all of it is here.
    pub(super) fn into_whole(self, rows: RowsView, since: Instant) -> Option<Whole> {
        if !self.is_whole() {
            return None;
        }
        let (proof, digests) = (self.proof.clone(), self.digests?);
        let (last, sessions) = self.own_part()?;
        Some(Whole { proof, digests, last, sessions, rows, since })
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
        self.states.take(Taken { at, digests, last, snapshot, sessions });
    }

    /// A checkpoint is stable: its state is kept for others, those below are not needed.
    pub(super) fn keep_state(&mut self, slot: Slot) {
        self.states.make_stable(slot);
        self.drop_old_states();
    }

    /// A state that was transferred is served from then on.
    pub(super) fn keep_transferred(&mut self, taken: Taken<A::Snapshot>) {
        self.states.keep(taken);
        self.drop_old_states();
    }

    /// The newest stable state that is at hand, with what certifies it: for backups. `None` where
    /// nothing is stable yet, or where the own state is not to be trusted.
    #[must_use]
    pub fn stable_state(&self) -> Option<(StateHead, &A::Snapshot)> {
        let stable = self.stable.proof().filter(|_| !self.is_distrusted())?.clone();
        let taken = self.states.served(stable.position())?;
        Some((StateHead { stable, digests: taken.digests }, &taken.snapshot))
    }

    fn drop_old_states(&mut self) {
        self.states.drop_old(self.now.instant, self.settling.at());
    }

    /// The lowest slot after which slots stay in memory for others when `stable` is stable: the last
    /// few, and, where somebody fetches a state, those that it needs then, as far as they are no more than
    /// another suffix.
    pub(super) fn retained_after(&self, stable: Slot) -> Slot {
        let tuning = &self.setup.tuning;
        let base = self.history.base().slot;
        let held = |slot: Slot| self.history.held_above(slot) - self.history.held_above(stable);
        let reach = |floor: Slot, slots: u64, bytes: u64| {
            let floor = floor.max(Slot(stable.0.saturating_sub(slots)));
            let within = (floor.0..=stable.0).map(Slot).find(|slot| held(*slot) <= bytes);
            within.unwrap_or(stable)
        };
        let retained_bytes = u64::try_from(tuning.retained_bytes).unwrap_or(u64::MAX);
        let always = reach(base, tuning.retained_slots, retained_bytes);
        let Rules { max_speculative_slots, max_speculative_bytes, .. } = tuning.rules;
        let fetched = self
            .states
            .oldest_asked_for(self.now.instant)
            .map(|from| reach(base.max(from), max_speculative_slots, max_speculative_bytes));
        fetched.map_or(always, |fetched| fetched.min(always))
    }

    pub(super) fn serve_state(&mut self, to: ReplicaId, at: Position, part: StatePart) -> usize {
        let Some(taken) = self.states.give(at, self.now.instant) else {
            // Say what there is instead.
            let newer = self.stable.proof().filter(|proof| proof.slot() > at.slot).cloned();
            let states = &self.states;
            if let Some(proof) = newer.filter(|proof| states.served(proof.position()).is_some()) {
                let branch = Branch { head: at, slots: Vec::new(), stable: Some(Box::new(proof)) };
                self.send(Target::One(to), Message::Branch(branch));
            }
            return usize::try_from(BUDGET_LEAST).unwrap_or(usize::MAX);
        };
        let (of, digests) = (taken.pieces(part), taken.digests);
        let Some(bytes) = taken.piece(part) else {
            if matches!(part, StatePart::Application(index) if index < of) {
                // What cannot be given to others is no state to stand on.
                self.distrust(&Unreadable(format!("piece {part:?} of the state cannot be read")));
            }
            return 0;
        };
        let size = bytes.len();
        self.counters.chunks_served += 1;
        let chunk = StateChunk { at, digests, part, of, bytes };
        self.send_at_once(Target::One(to), Message::State(chunk));
        size
    }

    // ---- a state of others ----

    /// The checkpoint of a state that is here whole and not in place yet.
    pub(super) fn transferred(&self) -> Option<Position> {
        self.arriving.ready.as_ref().map(|whole| whole.proof.position())
    }

    /// Asked for history, a peer says that it has only the state.
    pub(super) fn consider_state(&mut self, from: ReplicaId, proof: StableProof) {
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
        let lately = LONE_STATUSES * self.setup.tuning.status_interval_ms;
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

    pub(super) fn on_state(&mut self, from: ReplicaId, chunk: StateChunk) {
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
            self.peers.entry(from).or_default().pieces_refused += 1;
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
    pub(super) fn fetched(&mut self, mark: Mark, rows: RowsView) {
        if let Some(transfer) =
            self.arriving.transfer.take_if(|transfer| transfer.whole == Some(mark))
        {
            self.arriving.ready = transfer.into_whole(rows, self.now.instant);
        }
    }

    /// When to ask again for a piece that does not come, or for the next one.
    pub(super) fn transfer_at(&self) -> Option<Instant> {
        let transfer = self.arriving.transfer.as_ref()?;
        let wait = self.answer_wait_ms(&transfer.pace);
        let retry = transfer.asked.values().map(|(_, since)| since.after_ms(wait)).min();
        let next = || transfer.next_part().map(|_| transfer.not_before);
        let may_ask =
            transfer.asked.len() < transfer.window && transfer.not_before > self.now.instant;
        retry.into_iter().chain(may_ask.then(next).flatten()).min()
    }

    /// Asks again, gives up what nobody has any more, and puts in place what is whole.
    pub(super) fn tend_transfer(&mut self) {
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

    // ---- trust in the own state ----

    /// Whether the own state, and with it every result, may be wrong.
    pub(super) fn is_distrusted(&self) -> bool {
        self.stable.is_distrusted()
    }

    /// The own state cannot be read. What was executed on it since is of no use.
    pub(super) fn distrust(&mut self, why: &Unreadable) {
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
    pub(super) fn trust_again(&mut self) {
        self.stable.trust();
        self.end_doubt_of_store();
    }

    /// Whether the application says that it could not read its state.
    pub(super) fn note_trouble(&mut self) {
        if let Some(why) = self.execution.application().trouble() {
            self.distrust(&why);
        }
    }

    /// Puts a state in place without a change of view, where it is of the own history or of the view
    /// entered. Where the certificate is, no other history of this view can be certified, so that
    /// the own votes on another one, if there were any, come to nothing.
    fn install_in_view(&mut self) {
        let Some(proof) = self.arriving.ready.as_ref().map(|whole| whole.proof.clone()) else {
            return;
        };
        let of_view = proof.cover.commit.view == self.entered();
        let at = proof.position();
        if self.history.goes_through(at) {
            // The own state is not the certified one, but the history is: it is executed anew. The
            // history stays what it is, so it matters not of which view the certificate is.
            let own: Vec<_> = self
                .history
                .from(at.slot.next())
                .map(|(slot, entry)| (slot, entry.clone()))
                .collect();
            let mut previous = at.hash;
            let mut slots = Vec::new();
            for (slot, entry) in own {
                let weight = self.weight(&entry.batch);
                let side = Side::new(previous, entry.batch, weight, entry.order);
                previous = entry.hash;
                slots.push((Position { slot, hash: previous }, side));
            }
            let end = self.history.head();
            self.branches.put(end, slots);
            let path = Path { footing: Footing::State(at), end };
            // It is repaired now, however long that takes: until it is, this replica is of no use.
            let left = self.turn.lend(u64::MAX);
            let is_prepared = self.prepare(&path);
            self.turn.lend(left);
            if is_prepared {
                self.adopt(None, &path);
            }
            return;
        }
        if !of_view {
            return;
        }
        // The lock may be a later one of this view: then the history leads up to it.
        let cover = &proof.cover;
        let lock = self.lock.get().filter(|lock| lock.rank() > cover.rank());
        if lock.is_some_and(|lock| lock.commit.view != self.entered()) {
            return;
        }
        let end = lock.unwrap_or(cover).position();
        if let Reach::Whole(path) = self.reach(end)
            && path.footing == Footing::State(at)
            && self.passes(&path, cover.position())
            && self.prepare(&path)
        {
            self.adopt(None, &path);
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
