//! Adopting a history: the merge itself, in turns.
//!
//! To adopt a history is to undo the own one down to where the two part, to execute the other's
//! slots, and to put what only the own one held back to the front of what waits. Nothing that was
//! executed is lost; it is only moved.
//!
//! Histories may be long, so this takes [turns](super::turns), in three parts:
//!
//! 1. **Preparing.** The slots are written aside, and it is found out which requests will be orphans.
//!    The old history goes on meanwhile; nothing of this counts yet, and it may come to nothing.
//! 2. **The change itself** is one event. The orphans are written, and then one record: the view, the entry
//!    slot, the lock and the history are the new ones from then on. It costs no more than its records.
//! 3. **Carrying it out**: undoing, then executing slot by slot. A crash anywhere in it starts from that
//!    record. Until it is done the replica knows no more of its own history than what it has executed,
//!    so nothing leaves that would rest on more: no order is made or accepted, no vote cast, no client
//!    answered, no history adopted. Requests are kept, and what peers say is heard, or comes again.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::branch::{Footing, Path};
use super::entered::Entered;
use super::record::{Adopted, EnteredView, Ground, StateHead};
use super::states::Taken;
use super::trail::Trail;
use super::transfer::Whole;
use super::{Event, Known, Record, Replica};
use crate::application::Application;
use crate::history::{Entry, History};
use crate::id::{ReplicaId, RequestName, Slot};
use crate::message::{
    CommitCertificate, Message, NewView, Position, Requests, Results, SignedRequest,
};
use crate::quorum::Strength;
use crate::seal::Signed;

/// Bytes and number of the orphans in one record.
const ORPHANS_BYTES: usize = 1 << 20;
const ORPHANS_COUNT: usize = 1024;

/// Requests that are looked at, executed or put back in one step of a turn, beside the slot itself.
const REQUESTS_A_STEP: u64 = 16;

/// After a change of view the replies for so many of the newest slots are sent unasked, so that
/// clients that wait find replies of one view. Older ones are asked for.
const ANSWERED_ANEW: u64 = 64;

/// A history that is about to be adopted, as far as it is prepared.
#[derive(Clone, Debug)]
pub(super) struct Preparation {
    path: Path,
    /// The last slot of it that is written aside.
    written: Slot,
    /// What it holds.
    names: BTreeSet<RequestName>,
    /// The last own slot that was looked through.
    looked: Slot,
    /// What only the own history holds, oldest first.
    orphans: Vec<Arc<SignedRequest>>,
    /// What the requests of the own slots came to, for comparison when they are executed anew.
    results: Vec<(RequestName, Results)>,
}

/// A history that was adopted and is not executed to its end yet.
#[derive(Clone, Debug)]
pub(super) struct Adopting {
    trail: Trail,
    /// Up to here the old history stays; what it has above is undone first.
    kept: Slot,
    /// What is to be executed.
    names: BTreeSet<RequestName>,
    /// Orphans that are not among what waits yet, oldest first.
    orphans: Vec<Arc<SignedRequest>>,
    /// What undone requests came to, as far as it is not at hand yet.
    results: Vec<(RequestName, Results)>,
    /// Whether requests were taken in unseen meanwhile, or a state came with some executed.
    unseen: bool,
    /// Whether it took more than one event.
    is_long: bool,
}

impl Adopting {
    /// Its end.
    pub(super) fn end(&self) -> Position {
        self.trail.end()
    }

    /// Whether this request is among what is to be executed, or an orphan.
    pub(super) fn holds(&self, name: &RequestName) -> bool {
        self.names.contains(name)
            || self.orphans.iter().any(|request| request.body().name() == *name)
    }
}

impl<A: Application> Replica<A> {
    /// Whether a history was adopted and is not executed to its end yet.
    #[must_use]
    pub fn is_adopting(&self) -> bool {
        self.adopting.is_some()
    }

    /// Whether there is long work that goes on in the next turn.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        self.is_adopting() || self.turn.waits()
    }

    /// The end of the history that counts: of the one adopted, where that is not executed yet.
    pub(super) fn tip(&self) -> Position {
        self.adopting.as_ref().map_or_else(|| self.history.head(), Adopting::end)
    }

    // ---- preparing ----

    /// The end of the history that is being prepared.
    pub(super) fn prepared_end(&self) -> Option<Position> {
        self.preparation.as_ref().map(|prepared| prepared.path.end)
    }

    /// What the own history keeps when this one is adopted.
    fn kept_through(&self, path: &Path) -> Slot {
        match path.footing {
            Footing::Common(slot) => slot,
            Footing::State(_) => self.stable(),
        }
    }

    /// Prepares the adoption of a history, as far as there is room in this turn. `true` when that is
    /// done.
    pub(super) fn prepare(&mut self, path: &Path) -> bool {
        let kept = self.kept_through(path);
        let prepared = self.preparation.take().filter(|prepared| prepared.holds_for(path));
        let mut prepared = prepared.unwrap_or_else(|| Preparation::new(*path, kept));
        let is_done = self.write_aside(&mut prepared) && self.look_for_orphans(&mut prepared);
        prepared.path = *path;
        self.preparation = Some(prepared);
        is_done
    }

    fn write_aside(&mut self, prepared: &mut Preparation) -> bool {
        while prepared.written < prepared.path.top() {
            if !self.turn.take() {
                return false;
            }
            let slot = prepared.written.next();
            let (at, side) =
                self.side_on(&prepared.path, slot).expect("a whole path has all its slots");
            let requests = &side.batch.requests;
            prepared.names.extend(requests.iter().map(|request| request.body().name()));
            prepared.written = slot;
            let steps = requests.len() as u64 / REQUESTS_A_STEP;
            let aside = side.aside(at);
            self.turn.spend(steps);
            self.append(Record::Aside(aside));
        }
        true
    }

    /// The requests of the slots that will be undone: which of them the other history does not hold, and
    /// what they came to. On a state that could not be read they came to nothing.
    fn look_for_orphans(&mut self, prepared: &mut Preparation) -> bool {
        let first = prepared.looked.max(self.kept_through(&prepared.path)).next();
        for slot in (first.0..=self.history.head().slot.0).map(Slot) {
            if !self.turn.take() {
                return false;
            }
            let Some(entry) = self.history.entry(slot) else { continue };
            let batch = entry.batch.clone();
            self.turn.spend(batch.requests.len() as u64 / REQUESTS_A_STEP);
            for request in &batch.requests {
                let name = request.body().name();
                if !prepared.names.contains(&name) && !self.is_in_new_state(&prepared.path, &name) {
                    prepared.orphans.push(request.clone());
                }
                if !self.is_distrusted()
                    && let Known::Kept(kept) = self.execution.sessions().known(&name)
                {
                    prepared.results.push((name, kept.results.clone()));
                }
            }
            prepared.looked = slot;
        }
        true
    }

    fn is_in_new_state(&self, path: &Path, name: &RequestName) -> bool {
        let state = self.arriving.ready().filter(|_| matches!(path.footing, Footing::State(_)));
        state.is_some_and(|whole| !matches!(whole.sessions.known(name), Known::Open))
    }

    // ---- the change itself ----

    /// Makes a history the own one, and enters `new_view` with it, if there is one. The caller has
    /// checked that it may, and [prepared](Replica::prepare) it.
    pub(super) fn adopt(&mut self, new_view: Option<Signed<NewView>>, path: &Path) {
        let stable = self.stable();
        let kept = self.kept_through(path);
        assert!(kept >= stable, "I3: a history that undoes what is stable was adopted");
        let prepared = self.preparation.take().expect("what is adopted was prepared");
        let Preparation { names, orphans, results, .. } = prepared;
        let whole = match path.footing {
            Footing::Common(_) => None,
            Footing::State(_) => self.arriving.take_ready(),
        };
        if let Some(whole) = &whole {
            let (at, state) = (whole.proof.position(), whole.digests.application);
            let (rows, sessions) = (whole.rows.clone(), whole.sessions.clone());
            if let Err(why) = self.execution.open(at.slot, state, rows, sessions) {
                // It was written a moment ago and cannot be read: it has to come again.
                self.distrust(&why);
                return;
            }
        }
        let lock = self.lock_on(path, new_view.as_ref(), whole.as_ref().map(|w| &w.proof.cover));
        self.record_adoption(new_view.clone(), path, &orphans, lock.clone(), &whole);
        // A state is put in place under the own history, which the lock goes on from. Its slots are fetched
        // again.
        let stays = new_view.is_none();

        let abandoned = self.history.head().slot.since(kept);
        self.counters.slots_undone += abandoned;
        if abandoned > 0 && (whole.is_none() || !orphans.is_empty()) {
            self.counters.merges += 1;
        }
        self.counters.orphans += orphans.len() as u64;
        let unseen = whole.is_some();
        let kept = whole.map_or(kept, |whole| self.stand_on_state(whole));
        if let Some(new_view) = new_view {
            self.begin_view(new_view, path.top());
        }
        self.lock.move_to(lock, stays);
        if abandoned > 0 || unseen {
            // What was in the way of older orphans may be gone.
            self.pending.orphans_mut().unpark_all();
        }
        let trail = self.branches.take(path.end).unwrap_or_else(|| Trail::new(path.end, None));
        if let Some(peer) = trail.word.and_then(|id| self.peers.get_mut(&id)) {
            peer.credit.restore();
        }
        self.branches.clear();
        let is_long = false;
        let adopting = Adopting { trail, kept, names, orphans, results, unseen, is_long };
        self.adopting = Some(adopting);
        self.carry_out();
    }

    /// Puts a state that was fetched in place of the history that led to it.
    fn stand_on_state(&mut self, whole: Whole) -> Slot {
        let at = whole.proof.position();
        self.history = History::after(at, whole.last.choices.time);
        self.states.forget_taken();
        self.trust_again();
        self.counters.state_transfers += 1;
        self.settling.begin_anew();
        let (snapshot, sessions) = self.execution.freeze();
        let (last, digests) = (whole.last, whole.digests);
        self.keep_transferred(Taken { at, digests, last, snapshot, sessions });
        self.ballots.forget_checkpoints_through(at.slot);
        self.stable.raise(whole.proof);
        self.stable.take_ahead_through(at.slot);
        at.slot
    }

    /// The highest certificate known that lies on a history.
    fn lock_on(
        &self,
        path: &Path,
        new_view: Option<&Signed<NewView>>,
        cover: Option<&CommitCertificate>,
    ) -> Option<CommitCertificate> {
        let base = new_view.and_then(|new_view| new_view.body.base());
        [self.lock.own(), self.lock.aside(), base, cover]
            .into_iter()
            .flatten()
            .filter(|lock| self.passes(path, lock.position()))
            .max_by_key(|lock| lock.rank())
            .cloned()
    }

    fn record_adoption(
        &mut self,
        new_view: Option<Signed<NewView>>,
        path: &Path,
        orphans: &[Arc<SignedRequest>],
        lock: Option<CommitCertificate>,
        whole: &Option<Whole>,
    ) {
        // Before the adoption: a crash between the two leaves orphans that are still in the
        // history, which the next start notices.
        let mut add: Vec<Arc<SignedRequest>> = Vec::new();
        let mut bytes = 0;
        for request in orphans {
            let size = request.body().wire_bytes();
            if !add.is_empty() && (bytes + size > ORPHANS_BYTES || add.len() >= ORPHANS_COUNT) {
                let full = std::mem::take(&mut add);
                self.append(Record::Orphans { add: full, remove: Vec::new() });
                bytes = 0;
            }
            bytes += size;
            add.push(request.clone());
        }
        if !add.is_empty() {
            self.append(Record::Orphans { add, remove: Vec::new() });
        }
        let ground = match whole {
            None => Ground::Common(path.footing.slot()),
            Some(whole) => Ground::State(Box::new(StateHead {
                stable: whole.proof.clone(),
                digests: whole.digests,
            })),
        };
        let entered = new_view.map(|new_view| EnteredView { new_view, entry_slot: path.top() });
        let above = (path.footing.slot().0 + 1..=path.top().0).map(Slot);
        let slots = above.filter_map(|slot| self.hash_on(path, slot)).collect();
        let head = self.history.head();
        let voted = if entered.is_some() {
            Slot::GENESIS
        } else if !self.passes(path, head) {
            self.ballots.leave_history(head.slot)
        } else {
            self.ballots.floor()
        };
        self.append(Record::Adopted(Box::new(Adopted { entered, ground, slots, lock, voted })));
    }

    /// From here on nothing is signed for a lower view.
    fn begin_view(&mut self, new_view: Signed<NewView>, entry_slot: Slot) {
        let view = new_view.body.header.view;
        self.counters.views_entered += 1;
        if !self.size.suffices(new_view.body.changes.len(), Strength::Strong) {
            self.counters.weak_views_entered += 1;
        }
        self.view = Entered::new(new_view, entry_slot);
        for ahead in self.ahead.take_all() {
            self.pending.drop_wanted(ahead.order.body.requests);
        }
        self.ballots.begin_view();
        self.lock.forget_ahead();
        self.pipeline.begin_view(self.now.instant);
        self.divergent.clear();
        self.due.begin_view();
        self.pending.forget_forwards(self.next_forward());
        self.end_campaign(view);
    }

    // ---- carrying it out ----

    /// Goes on with what was adopted, as far as there is room in this turn.
    pub(super) fn carry_out(&mut self) {
        while let Some(mut adopting) = self.adopting.take() {
            if self.turn.left() == 0 {
                self.turn.wait();
                adopting.is_long = true;
                self.adopting = Some(adopting);
                return;
            }
            let head = self.history.head().slot;
            if head > adopting.kept {
                let count = head.since(adopting.kept).min(self.turn.left());
                self.undo_to(Slot(head.0 - count));
                self.turn.spend(count);
                self.adopting = Some(adopting);
            } else if !adopting.orphans.is_empty() {
                let count = usize::try_from(self.turn.left().saturating_mul(REQUESTS_A_STEP));
                let from = adopting.orphans.len().saturating_sub(count.unwrap_or(usize::MAX));
                let last = adopting.orphans.split_off(from);
                self.pending.insert_orphans(&last, self.now.instant);
                self.turn.spend((last.len() as u64).div_ceil(REQUESTS_A_STEP));
                self.adopting = Some(adopting);
            } else if !adopting.results.is_empty() {
                let count = usize::try_from(self.turn.left().saturating_mul(REQUESTS_A_STEP));
                let from = adopting.results.len().saturating_sub(count.unwrap_or(usize::MAX));
                let last = adopting.results.split_off(from);
                self.turn.spend((last.len() as u64).div_ceil(REQUESTS_A_STEP));
                for (name, results) in last {
                    self.undone.remember(name, results);
                }
                self.adopting = Some(adopting);
            } else if head < adopting.end().slot {
                // Slots go on one upon the other from where the old history was kept.
                adopting.kept = head.next();
                let at = adopting.trail.hash_at(head.next());
                self.adopting = Some(adopting);
                let hash = at.expect("a whole path has all its slots");
                self.execute_adopted(Position { slot: head.next(), hash });
            } else {
                self.finish_adoption(adopting);
            }
        }
    }

    fn undo_to(&mut self, slot: Slot) {
        self.execution.undo_to(slot);
        self.history.cut(slot);
        self.states.retain_taken(|taken| taken <= slot);
    }

    fn execute_adopted(&mut self, at: Position) {
        let side = self.branches.get(at).cloned().expect("a whole path has all its slots");
        let batch = side.batch;
        let entry =
            Entry { hash: at.hash, batch: batch.clone(), order: side.order, results: Vec::new() };
        self.turn.spend(1 + batch.requests.len() as u64 / REQUESTS_A_STEP);
        let slot = self.push(entry);
        self.execute(slot, at.hash, &batch);
    }

    fn finish_adoption(&mut self, adopting: Adopting) {
        let Adopting { trail, unseen, is_long, .. } = adopting;
        self.branches.leave(trail);
        self.let_go();
        if unseen {
            self.drop_executed();
        }
        if is_long {
            self.counters.merges_in_turns += 1;
            // Nobody is to blame for what waited here meanwhile.
            self.forget_patience();
        }
        self.ahead.forget_through(self.history.head().slot);
        self.after_adoption();
    }

    /// A state came with requests executed that were never executed one by one here, or some were taken in
    /// unseen: those that are executed are answered.
    fn drop_executed(&mut self) {
        let executed: Vec<Arc<SignedRequest>> = self
            .pending
            .all()
            .map(|(_, request)| request.clone())
            .filter(|request| !matches!(self.sessions().known(&request.body().name()), Known::Open))
            .collect();
        for request in executed {
            self.pending.remove(&request.digest());
            self.answer_known(&request);
        }
        self.settle_orphans();
    }

    /// Answers for the newest slots, whoever waits.
    pub(super) fn answer_anew(&mut self) {
        let head = self.history.head().slot;
        let first = self.stable().max(Slot(head.0.saturating_sub(ANSWERED_ANEW))).next();
        for slot in (first.0..=head.0).map(Slot) {
            self.answer_speculatively(slot);
        }
    }

    fn after_adoption(&mut self) {
        // An adopted history may be long: its slots were neither voted on nor answered.
        self.answer_anew();
        let head = self.history.head().slot;
        if let Some(proof) = self.stable.take_ahead_through(head) {
            self.on_stable(self.setup.id, proof);
        }
        // What a state was wrong at may have been executed anew on a right one, and nobody shows the proof again.
        let mismatch = self.newest_mismatch().filter(|proof| proof.slot() <= head).cloned();
        if let Some(proof) = mismatch.filter(|_| !self.is_distrusted()) {
            self.on_stable(self.setup.id, proof);
        }
        self.note_strong_slots();
        self.take_later();
        self.vote_commit();
        self.expect_quiet();
        self.advance();
        self.note_behind();
    }

    // ---- meanwhile ----

    /// An event while an adopted history is being executed. What rests on the whole of it has to wait: it
    /// is kept, or is said again when its sender hears that it is lacking here.
    pub(super) fn handle_meanwhile(&mut self, event: Event) {
        match event {
            Event::Peer { from, message } => self.hear_meanwhile(from, message.into_inner()),
            Event::Request(request) => self.keep_unseen(Requests(vec![request.into_inner()])),
            Event::AskSession { .. } => {}
            Event::Tick => self.send_status_when_due(),
            Event::AskStatus { .. }
            | Event::AskEvidence { .. }
            | Event::Synced(_)
            | Event::Rows(..)
            | Event::Unreadable(_) => self.take_up(event),
            Event::DiskFull(is_full) => self.outbox.note_disk_full(is_full),
        }
    }

    fn hear_meanwhile(&mut self, from: ReplicaId, message: Message) {
        match message {
            Message::Order(order) if order.body.header.view >= self.entered() => {
                self.keep_later_order(order);
            }
            Message::Commit(vote) if vote.body.view >= self.entered() => {
                self.keep_later_commit(&vote);
            }
            Message::Requests(requests) => self.keep_unseen(requests),
            Message::Order(_)
            | Message::Commit(_)
            | Message::Certificate(_)
            | Message::Checkpoint(_)
            | Message::Stable(_)
            | Message::Clients(_)
            | Message::Slots(_)
            | Message::Branch(_)
            // It is named again.
            | Message::Waiting(_) => {}
            Message::Status(_)
            | Message::Fetch(_)
            | Message::State(_)
            | Message::Suspect(_)
            | Message::Campaign(_)
            | Message::NewView(_)
            | Message::Evidence(_)
            | Message::Enrol(_)
            | Message::Enrolled(_)
            | Message::Pulse(_) => self.on_message(from, message),
        }
    }

    /// Requests whose names may be executed a little later: they are kept within the limits, and looked at
    /// then.
    fn keep_unseen(&mut self, requests: Requests) {
        let forward_at = self.next_forward();
        for request in requests.0 {
            if !self.may_be_ordered(&request.body().client) {
                self.counters.strangers += 1;
                continue;
            }
            if self
                .adopting
                .as_ref()
                .is_some_and(|adopting| adopting.names.contains(&request.body().name()))
            {
                // Its client asks again, and is answered when it is executed.
                continue;
            }
            self.pending.insert(request, forward_at, false, &self.setup.tuning);
            if let Some(adopting) = &mut self.adopting {
                adopting.unseen = true;
            }
        }
    }
}

impl Preparation {
    fn new(path: Path, kept: Slot) -> Self {
        let (names, orphans, results) = (BTreeSet::new(), Vec::new(), Vec::new());
        Self { path, written: path.footing.slot(), names, looked: kept, orphans, results }
    }

    /// Whether what was prepared holds for this history. The own one may have grown along it.
    fn holds_for(&self, path: &Path) -> bool {
        let same_ground = match (self.path.footing, path.footing) {
            (Footing::Common(from), Footing::Common(now)) => from <= now && now <= self.written,
            (before, now) => before == now,
        };
        self.path.end == path.end && same_ground
    }
}
