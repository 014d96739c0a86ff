//! Entering a view, and what that is for histories that differ: the merge.
//!
//! To adopt a history is to undo the own one down to where the two part, to execute the other's
//! slots, and to put what only the own one held back to the front of what waits. Nothing that was
//! executed is lost; it is only moved. What a replica may adopt is decided here, by the rule for
//! entering; how the view came about is in `view_change`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::branch::{Footing, Path, Reach};
use super::record::{Adopted, EnteredView, Ground, StateHead};
use super::{Known, Record, Replica, Target};
use crate::application::Application;
use crate::evidence::{Evidence, FORK_LINKS_MAX, Fork};
use crate::history::{Entry, History};
use crate::id::{ReplicaId, RequestName, Slot, View};
use crate::message::{
    Batch, CommitCertificate, Message, NewView, Position, Results, SignedRequest,
};
use crate::quorum::Strength;
use crate::replica::checkpoint::CHECKPOINTS_KEPT;
use crate::replica::commit::COMMITS_KEPT;
use crate::replica::ordering::header_of;
use crate::replica::sessions::Kept;
use crate::replica::transfer::Taken;
use crate::replica::votes::Votes;
use crate::seal::Signed;

/// Bytes and number of the orphans in one record.
const ORPHANS_BYTES: usize = 1 << 20;
const ORPHANS_COUNT: usize = 1024;

/// After a change of view the replies for so many of the newest slots are sent unasked, so that
/// clients that wait find replies of one view. Older ones are asked for.
const ANSWERED_ANEW: u64 = 64;

/// Whether a new view may be entered, and with which history.
pub(super) enum Entrance {
    Open(Path),
    /// Not now: something is missing or too early, or the lock forbids it.
    Shut,
    /// Never: what it holds breaks the rules.
    Barred,
}

/// What the rules for orders say of slots that no certificate covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sound {
    Yes,
    /// Its time is ahead of the own clock.
    NotYet,
    No,
}

impl<A: Application> Replica<A> {
    // ---- the rule for entering ----

    /// Section 5: whether this new view, which is validly signed, may be entered now.
    pub(super) fn entrance(&self, new_view: &NewView) -> Entrance {
        let view = new_view.header.view;
        let head = new_view.header.head;
        let base = new_view.base();
        if view <= self.entered || self.proof_against(view) {
            return Entrance::Shut;
        }
        let lock = self.lock.as_ref();
        if lock.is_some_and(|lock| lock.commit.view > view) {
            return Entrance::Shut;
        }
        let of_this_view = lock.filter(|lock| lock.commit.view == view);
        let path = match self.reach(head) {
            Reach::Whole(path) => path,
            Reach::Lacks(_) | Reach::Never => {
                // Its head may be given up everywhere; a certificate of this very view is as good.
                return of_this_view.map_or(Entrance::Shut, |lock| self.at_lock(lock, None));
            }
        };
        if base.is_some_and(|base| !self.passes(&path, base.position())) {
            return Entrance::Barred;
        }
        let extends_lock = lock.is_none_or(|lock| self.passes(&path, lock.position()));
        let outranked = || base.map(|base| base.commit.view) > lock.map(|lock| lock.commit.view);
        if !extends_lock && !outranked() {
            return of_this_view.map_or(Entrance::Shut, |lock| self.at_lock(lock, Some(head)));
        }
        let certified = base.map_or(Slot::GENESIS, |base| base.commit.slot);
        let certified = certified
            .max(lock.filter(|_| extends_lock).map_or(Slot::GENESIS, |lock| lock.commit.slot));
        match self.sound(&path, certified) {
            Sound::Yes if self.may_stand_on(&path) => Entrance::Open(path),
            Sound::Yes | Sound::NotYet => Entrance::Shut,
            Sound::No => Entrance::Barred,
        }
    }

    /// The third rule: with a lock of the view itself, it is entered with the history up to the
    /// lock, which is certified. Where the lock contradicts the head, that is a proof against the
    /// primary, and there is another view to ask for.
    fn at_lock(&self, lock: &CommitCertificate, head: Option<Position>) -> Entrance {
        let Reach::Whole(path) = self.reach(lock.position()) else { return Entrance::Shut };
        if head.is_some_and(|head| !self.passes(&path, head)) || !self.may_stand_on(&path) {
            return Entrance::Shut;
        }
        Entrance::Open(path)
    }

    /// What is stable is not undone, and a suffix has its limit.
    fn may_stand_on(&self, path: &Path) -> bool {
        let ahead = self
            .stable_ahead
            .as_ref()
            .filter(|proof| self.passes(path, proof.position()))
            .map_or(Slot::GENESIS, |proof| proof.slot());
        let stable = match path.footing {
            Footing::Common(slot) if slot < self.stable() => return false,
            Footing::Common(_) => self.stable().max(ahead),
            Footing::State(at) => at.slot,
        };
        // All but the last slot, which was put where there was room.
        let above = path.top().since(stable);
        let Some(slots) = above.checked_sub(1) else { return true };
        let weight = self.weight_between(path, stable, Slot(path.top().0 - 1));
        !self.setup.tuning.rules.is_full(slots, weight)
    }

    /// What the slots of a history above `from` up to `to` [weigh](crate::message::Batch::weight).
    fn weight_between(&self, path: &Path, from: Slot, to: Slot) -> u64 {
        let slots = (from.next().0..=to.0).map(Slot);
        slots.filter_map(|slot| self.batch_on(path, slot)).map(|batch| self.weight(batch)).sum()
    }

    /// The rules for orders, for the slots of a history above `certified`.
    pub(super) fn sound(&self, path: &Path, certified: Slot) -> Sound {
        let sessions = match path.footing {
            Footing::Common(slot) => self.execution.sessions_at(slot),
            Footing::State(_) => self.ready.as_ref().map(|whole| &whole.sessions),
        };
        let Some(sessions) = sessions else { return Sound::NotYet };
        let mut sessions = sessions.clone();
        let footing = path.footing.slot();
        let mut time = match path.footing {
            Footing::Common(slot) => self.history.time_at(slot),
            Footing::State(_) => self.ready.as_ref().map(|whole| whole.last.choices.time),
        }
        .unwrap_or_default();
        let mut early = false;
        for (slot, hash) in (footing.0 + 1..).map(Slot).zip(&path.above) {
            let Some(side) = self.branches.get(hash) else { return Sound::NotYet };
            let batch = &side.batch;
            if slot > certified {
                let mut admission = sessions.admission();
                let admitted =
                    batch.requests.iter().all(|request| admission.admit(request.body()).is_ok());
                let fits = self.fit_one_slot(&batch.requests);
                if batch.requests.is_empty() || batch.choices.time < time || !admitted || !fits {
                    return Sound::No;
                }
                early |= batch.choices.time > self.clock_limit();
            }
            time = batch.choices.time;
            for request in &batch.requests {
                if !matches!(sessions.known(&request.body().name()), Known::Open) {
                    return Sound::No;
                }
                let at = Position { slot, hash: *hash };
                let results = Results::Forgotten(Default::default());
                let kept = Kept { at, index: 0, request: request.digest(), results };
                sessions.execute(request.body(), kept);
            }
        }
        if early { Sound::NotYet } else { Sound::Yes }
    }

    // ---- adopting ----

    /// Makes a history the own one, and enters `new_view` with it, if there is one. The caller has
    /// checked that it may.
    pub(super) fn adopt(&mut self, new_view: Option<Signed<NewView>>, path: &Path) {
        let stable = self.stable();
        let kept_through = match path.footing {
            Footing::Common(slot) => slot,
            Footing::State(_) => stable,
        };
        assert!(kept_through >= stable, "I3: a history that undoes what is stable was adopted");
        let abandoned: Vec<Arc<Batch>> =
            self.history.from(kept_through.next()).map(|(_, entry)| entry.batch.clone()).collect();
        let whole = match path.footing {
            Footing::Common(_) => None,
            Footing::State(_) => self.ready.take(),
        };
        let abandoned_results = self.results_of(&abandoned);
        if let Some(whole) = &whole {
            let (at, state) = (whole.proof.position(), whole.digests.application);
            let (rows, sessions) = (whole.rows.clone(), whole.sessions.clone());
            if let Err(why) = self.execution.open(at.slot, state, rows, sessions) {
                // It was written a moment ago and cannot be read: it has to come again.
                self.distrust(&why);
                return;
            }
        }
        let orphans = self.orphans_of(&abandoned, path, whole.as_ref().map(|w| &w.sessions));
        let lock = self.lock_on(path, new_view.as_ref(), whole.as_ref().map(|w| &w.proof.cover));

        self.record_adoption(new_view.clone(), path, &orphans, lock.clone(), &whole);

        for (name, results) in abandoned_results {
            self.undone.remember(name, results);
        }
        self.counters.slots_undone += abandoned.len() as u64;
        if !abandoned.is_empty() && (whole.is_none() || !orphans.is_empty()) {
            self.counters.merges += 1;
        }
        match whole {
            None => {
                self.execution.undo_to(kept_through);
                self.history.cut(kept_through);
                self.taken.split_off(&kept_through.next());
            }
            Some(whole) => {
                let at = whole.proof.position();
                self.history = History::after(at, whole.last.choices.time);
                self.taken.clear();
                self.trust_again();
                self.counters.state_transfers += 1;
                self.settling.begin_anew();
                let (snapshot, sessions) = self.execution.freeze();
                let (last, digests) = (whole.last, whole.digests);
                self.keep_transferred(Taken { at, digests, last, snapshot, sessions });
                self.checkpoints.forget_through(at.slot);
                self.stable = Some(whole.proof);
                self.stable_ahead.take_if(|proof| proof.slot() <= at.slot);
            }
        }
        if let Some(new_view) = new_view {
            self.begin_view(new_view, path.top());
        }
        for hash in &path.above {
            let side = self.branches.get(hash).cloned().expect("a whole path has all its slots");
            let batch = side.batch;
            let entry =
                Entry { hash: *hash, batch: batch.clone(), order: side.order, results: Vec::new() };
            let slot = self.push(entry);
            self.execute(slot, *hash, &batch);
        }
        self.branches.clear();
        self.lock = lock;
        self.lock_aside = false;
        if matches!(path.footing, Footing::State(_)) {
            self.drop_executed();
        }
        self.counters.orphans += orphans.len() as u64;
        self.pending.insert_orphans(&orphans, self.now.instant);
        if !abandoned.is_empty() || matches!(path.footing, Footing::State(_)) {
            // What was in the way of older ones may be gone.
            self.pending.orphans_mut().unpark_all();
        }
        self.ahead = self.ahead.split_off(&self.history.head().slot.next());
        self.after_adoption();
    }

    /// What abandoned operations came to, for comparison when they are executed anew. On a state
    /// that could not be read they came to nothing.
    fn results_of(&self, abandoned: &[Arc<Batch>]) -> Vec<(RequestName, Results)> {
        if self.is_distrusted() {
            return Vec::new();
        }
        let requests = abandoned.iter().flat_map(|batch| &batch.requests);
        let names = requests.map(|request| request.body().name());
        let known = names.filter_map(|name| match self.execution.sessions().known(&name) {
            Known::Kept(kept) => Some((name, kept.results.clone())),
            _ => None,
        });
        known.collect()
    }

    /// A state came with requests executed that were never executed one by one here: those that
    /// wait are answered.
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

    /// The requests of the abandoned slots that the adopted history does not hold, in their order.
    fn orphans_of(
        &self,
        abandoned: &[Arc<Batch>],
        path: &Path,
        state: Option<&crate::replica::Sessions>,
    ) -> Vec<Arc<SignedRequest>> {
        let adopted: BTreeSet<RequestName> = path
            .above
            .iter()
            .filter_map(|hash| self.branches.get(hash))
            .flat_map(|side| &side.batch.requests)
            .map(|request| request.body().name())
            .collect();
        abandoned
            .iter()
            .flat_map(|batch| &batch.requests)
            .filter(|request| {
                let name = request.body().name();
                let in_state = state.is_some_and(|s| !matches!(s.known(&name), Known::Open));
                !adopted.contains(&name) && !in_state
            })
            .cloned()
            .collect()
    }

    /// The highest certificate known that lies on a history.
    fn lock_on(
        &self,
        path: &Path,
        new_view: Option<&Signed<NewView>>,
        cover: Option<&CommitCertificate>,
    ) -> Option<CommitCertificate> {
        let base = new_view.and_then(|new_view| new_view.body.base());
        [self.lock.as_ref(), base, cover]
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
        whole: &Option<super::transfer::Whole>,
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
        for hash in &path.above {
            if let Some(side) = self.branches.get(hash) {
                let aside = side.aside(*hash);
                self.append(Record::Aside(aside));
            }
        }
        let ground = match whole {
            None => Ground::Common(path.footing.slot()),
            Some(whole) => Ground::State(Box::new(StateHead {
                stable: whole.proof.clone(),
                digests: whole.digests,
            })),
        };
        let entered = new_view.map(|new_view| EnteredView { new_view, entry_slot: path.top() });
        let slots = path.above.clone();
        let head = self.history.head();
        if entered.is_some() {
            self.voted_floor = Slot::GENESIS;
        } else if !self.passes(path, head) {
            // The votes cast so far in this view are of another history. Which they were is not on
            // the disk, but that none of them lies above the head is.
            self.voted_floor = self.voted_commit.max(head.slot);
            self.voted_commit = self.voted_floor;
        }
        let voted = self.voted_floor;
        self.append(Record::Adopted(Box::new(Adopted { entered, ground, slots, lock, voted })));
    }

    /// From here on nothing is signed for a lower view.
    fn begin_view(&mut self, new_view: Signed<NewView>, entry_slot: Slot) {
        let view = new_view.body.header.view;
        self.counters.views_entered += 1;
        if !self.size.suffices(new_view.body.changes.len(), Strength::Strong) {
            self.counters.weak_views_entered += 1;
        }
        self.entered = view;
        self.entry_slot = entry_slot;
        self.new_view = Some(new_view);
        for (_, ahead) in std::mem::take(&mut self.ahead) {
            self.pending.drop_wanted(ahead.order.body.requests);
        }
        self.commits = Votes::new(COMMITS_KEPT);
        self.checkpoints = Votes::new(CHECKPOINTS_KEPT);
        self.certified_ahead = None;
        self.voted_commit = Slot::GENESIS;
        self.voted_checkpoint = Slot::GENESIS;
        self.under_way.clear();
        self.divergent.clear();
        self.commit_at = None;
        self.pending.forget_forwards(self.next_forward());
        self.end_campaign(view);
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
        if let Some(proof) = self.stable_ahead.take_if(|proof| proof.slot() <= head) {
            self.on_stable(self.setup.id, proof);
        }
        self.note_strong_slots();
        self.take_later();
        self.vote_commit();
        self.advance();
        self.note_behind();
    }

    // ---- divergence ----

    /// Makes a proof of a peer's history that parts from the own one in the view entered, where
    /// everything of it is here. The two differ by what the primary signed, or by what a
    /// certificate says against it.
    pub(super) fn prove_divergence(&mut self, end: Position) {
        let Reach::Whole(path) = self.reach(end) else { return };
        let Footing::Common(common) = path.footing else { return };
        let at = common.next();
        let Some(theirs) = self.hash_on(&path, at) else { return };
        let Some(own) = self.history.entry(at) else { return };
        let of_this_view = |order: &Option<Signed<crate::message::Order>>| {
            order.as_ref().filter(|order| order.body.header.view == self.entered).map(header_of)
        };
        let own_order = of_this_view(&own.order);
        let their_order = self.branches.get(&theirs).and_then(|side| of_this_view(&side.order));
        let evidence = match (own_order, their_order) {
            (Some(own), Some(theirs)) => Some(Evidence::Orders(own, theirs)),
            (None, Some(theirs)) => {
                let certificate = self
                    .lock
                    .clone()
                    .filter(|lock| self.certified() >= at && lock.commit.view == self.entered);
                certificate.and_then(|certificate| {
                    let fork = self.fork_on_own(at, certificate.commit.slot)?;
                    Some(Evidence::OrderRefuted(theirs, certificate, fork))
                })
            }
            (Some(own), None) => self.certificate_on(&path, at).and_then(|certificate| {
                let fork = self.fork_on(&path, at, certificate.commit.slot)?;
                Some(Evidence::OrderRefuted(own, certificate, fork))
            }),
            (None, None) => None,
        };
        if let Some(evidence) = evidence {
            self.accuse(evidence);
        }
    }

    /// A certificate of the view entered that lies on a history at or above a slot.
    fn certificate_on(&self, path: &Path, at: Slot) -> Option<CommitCertificate> {
        self.candidates
            .values()
            .chain(&self.certified_ahead)
            .chain(&self.lock)
            .find(|certificate| {
                certificate.commit.view == self.entered
                    && certificate.commit.slot >= at
                    && self.hash_on(path, certificate.commit.slot) == Some(certificate.commit.hash)
            })
            .cloned()
    }

    fn fork_on_own(&self, low: Slot, high: Slot) -> Option<Fork> {
        let hash = self.history.hash_at(low)?;
        let links = (low.0 + 1..=high.0)
            .map(|slot| Some(self.history.entry(Slot(slot))?.batch.digest()))
            .collect::<Option<Vec<_>>>()?;
        (links.len() <= FORK_LINKS_MAX).then_some(Fork { hash, links })
    }

    fn fork_on(&self, path: &Path, low: Slot, high: Slot) -> Option<Fork> {
        let hash = self.hash_on(path, low)?;
        let links = (low.0 + 1..=high.0)
            .map(|slot| Some(self.batch_on(path, Slot(slot))?.digest()))
            .collect::<Option<Vec<_>>>()?;
        (links.len() <= FORK_LINKS_MAX).then_some(Fork { hash, links })
    }

    /// A certificate of a view that the new view of the same view does not go together with.
    pub(super) fn prove_new_view_refuted(&mut self, new_view: &Signed<NewView>) {
        let view = new_view.body.header.view;
        let head = new_view.body.header.head;
        let certificates: Vec<CommitCertificate> = self
            .candidates
            .values()
            .chain(&self.lock)
            .filter(|certificate| certificate.commit.view == view)
            .cloned()
            .collect();
        for certificate in certificates {
            let end = certificate.position();
            // The higher of the two must be here down to the lower one.
            let (low, high) = if head.slot <= end.slot { (head, end) } else { (end, head) };
            let Reach::Whole(path) = self.reach(high) else { continue };
            if self.hash_on(&path, low.slot).is_some_and(|hash| hash != low.hash)
                && let Some(fork) = self.fork_on(&path, low.slot, high.slot)
            {
                let header = Signed {
                    body: new_view.body.header,
                    by: new_view.by,
                    signature: new_view.signature,
                };
                self.accuse(Evidence::NewViewRefuted(header, certificate, fork));
                return;
            }
        }
    }

    /// Sends the new view of the view entered, to whoever has not entered it or has another one.
    pub(super) fn send_new_view(&mut self, to: ReplicaId) {
        if let Some(new_view) = self.new_view.clone() {
            self.send(Target::One(to), Message::NewView(new_view));
        }
    }
}

/// New views above the one entered, by view.
pub(super) type Offered = BTreeMap<View, Signed<NewView>>;
