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

mod fetching;
mod installing;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::offers::Offers;
use crate::application::Restore;
use crate::codec::{self, Canonical};
use crate::history::extend;
use crate::id::{Digest, Instant, ReplicaId, Slot};
use crate::message::{LastSlot, StableProof, StateDigests, StatePart, batch_digest};
use crate::replica::sessions::{Sessions, SessionsRestore};
use crate::replica::time::Pace;
use crate::replica::{Mark, StoredState};
use crate::rows::{RowsView, Unreadable};
use crate::tuning::Rules;

/// Who is not heard is asked like one who did not answer so many times.
const SILENT: u64 = 2;

/// A state on its way here.
#[derive(Clone, Debug)]
pub(in crate::replica) struct Transfer<R> {
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
pub(in crate::replica) struct Whole {
    pub(in crate::replica) proof: StableProof,
    pub(in crate::replica) digests: StateDigests,
    pub(in crate::replica) last: LastSlot,
    pub(in crate::replica) sessions: Sessions,
    pub(in crate::replica) rows: RowsView,
    /// When the last piece came.
    since: Instant,
}

/// The state that is on its way here, and the one that is here and not in place yet.
#[derive(Clone, Debug)]
pub(in crate::replica) struct Arriving<R> {
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
    pub(in crate::replica) fn resume(&mut self, transfer: Transfer<R>, now: Instant) {
        self.transfer = Some(Transfer { idle_since: now, ..transfer });
    }

    /// All of a state is here.
    pub(in crate::replica) fn complete(&mut self, whole: Option<Whole>) {
        self.ready = whole;
    }

    /// Whether one is on its way.
    pub(in crate::replica) fn is_under_way(&self) -> bool {
        self.transfer.is_some()
    }

    /// Whether there is none.
    pub(in crate::replica) fn is_empty(&self) -> bool {
        self.transfer.is_none() && self.ready.is_none()
    }

    /// One of which everything is here.
    pub(in crate::replica) fn ready(&self) -> Option<&Whole> {
        self.ready.as_ref()
    }

    pub(in crate::replica) fn take_ready(&mut self) -> Option<Whole> {
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

    pub(in crate::replica) fn is_whole(&self) -> bool {
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
        if digests.digest() != self.proof.checkpoint.body.state {
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
        let checkpoint = self.proof.checkpoint.body;
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
    pub(in crate::replica) fn from_disk(
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
    pub(in crate::replica) fn resume(&mut self, rows: &RowsView) -> Result<(), Unreadable> {
        let Some(application) = &mut self.application else { return Ok(()) };
        application.resume(rows)?;
        self.pieces += u64::from(application.missing().unwrap_or_default());
        Ok(())
    }

    /// The protocol's own part of it, where that is whole.
    pub(in crate::replica) fn own_part(self) -> Option<(LastSlot, Sessions)> {
        Some((self.last?, self.sessions?.finish()?))
    }

    /// The state, if all of it is here.
    pub(in crate::replica) fn into_whole(self, rows: RowsView, since: Instant) -> Option<Whole> {
        if !self.is_whole() {
            return None;
        }
        let (proof, digests) = (self.proof.clone(), self.digests?);
        let (last, sessions) = self.own_part()?;
        Some(Whole { proof, digests, last, sessions, rows, since })
    }
}
