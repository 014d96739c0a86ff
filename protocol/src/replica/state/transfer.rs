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
//! the others ([`Sources`]). Where nothing comes any more, another state is fetched that somebody offers ([`Offers`]).

use std::collections::BTreeMap;

use super::offers::Offers;
use super::pieces::Pieces;
use super::sources::{Choice, Sources};
use crate::application::Restore;
use crate::id::{Digest, Instant, ReplicaId, Slot};
use crate::message::{
    LastSlot, Position, StableProof, StateChunk, StateDigests, StateHead, StatePart, Transferring,
};
use crate::replica::sessions::Sessions;
use crate::replica::time::{Pace, Question};
use crate::replica::{Mark, StoredState};
use crate::rows::{Row, RowsView, Unreadable};
use crate::tuning::Rules;

/// Pieces asked for and not here yet, at most.
const ASKED_MAX: usize = 4;

/// So many times as long as for a newer state nothing has come before an older one is fetched instead: what is
/// here of the one is lost with that.
const IDLE_WAITS: u64 = 4;

/// A piece that is not of the certified state counts like so many that do not come.
const LIE: u64 = 2;

/// A state on its way here.
#[derive(Clone, Debug)]
pub(in crate::replica) struct Transfer<R> {
    pieces: Pieces<R>,
    /// Whether the disk knows of it.
    is_recorded: bool,
    sources: Sources,
    /// Pieces asked for: of whom, and when.
    asked: BTreeMap<StatePart, (Choice, Instant)>,
    /// How many may be, and how long they take.
    window: usize,
    pace: Pace,
    /// Not before then is more asked for, so that the rate is kept.
    not_before: Instant,
    /// How far it has come.
    count: u64,
    bytes: u64,
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
}

/// What has to be written of a piece.
pub(super) struct ToWrite {
    /// What the state is, where this is the first piece of it.
    pub(super) head: Option<StateHead>,
    /// Whether the piece is written as it is: one of the application's is written in rows.
    pub(super) as_it_is: bool,
    /// The rows that are, if there are any.
    pub(super) rows: Option<Vec<Row>>,
    /// Whether everything is written with these.
    pub(super) is_whole: bool,
}

/// How long nothing has come of what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    /// Long enough to fetch a newer state instead.
    ForAWhile,
    /// Long enough to fetch any other one.
    ForLong,
}

impl<R> Transfer<R> {
    /// Begins to fetch a state in place of the one before. How long answers take, who gives nothing, and what is
    /// offered has nothing to do with the state.
    pub(super) fn new(
        proof: StableProof,
        source: Option<ReplicaId>,
        before: Option<Self>,
        now: Instant,
    ) -> Self {
        let (mut sources, pace, offers) = match before {
            Some(before) => (before.sources.of_another_state(), before.pace, before.offers),
            None => (Sources::default(), Pace::default(), Offers::default()),
        };
        source.into_iter().for_each(|source| sources.note(source));
        Self {
            pieces: Pieces::new(proof),
            is_recorded: false,
            sources,
            asked: BTreeMap::new(),
            window: 1,
            pace,
            not_before: now,
            count: 0,
            bytes: 0,
            idle_since: now,
            whole: None,
            offers,
        }
    }

    /// It goes on from what was found on disk.
    pub(super) fn resumed(self, now: Instant) -> Self {
        Self { idle_since: now, ..self }
    }

    /// The checkpoint.
    fn at(&self) -> Position {
        self.pieces.proof().position()
    }

    pub(super) fn slot(&self) -> Slot {
        self.pieces.proof().slot()
    }

    /// How long answers take.
    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }

    // ---- what others have ----

    /// A peer has the state that this proves: the one that is being fetched, or another one.
    pub(super) fn hear_of(&mut self, from: ReplicaId, proof: StableProof) {
        if self.at() == proof.position() {
            self.sources.note(from);
        } else {
            self.note_offer(from, proof);
        }
    }

    /// This state can be had instead.
    pub(super) fn note_offer(&mut self, from: ReplicaId, proof: StableProof) {
        self.offers.note(from, proof);
    }

    /// Which state to fetch instead, since nothing comes.
    pub(super) fn choose_another(
        &mut self,
        is_of_use: impl Fn(Slot) -> bool,
        idle: Idle,
    ) -> Option<(ReplicaId, StableProof)> {
        let fetched = self.slot();
        self.offers.choose(fetched, is_of_use, idle == Idle::ForLong)
    }

    // ---- the end of it ----

    /// Everything is here as soon as this record is on disk.
    pub(super) fn note_whole(&mut self, written: Mark) {
        self.whole = Some(written);
    }

    /// Whether it waits for the disk alone.
    pub(super) fn waits_for_disk(&self) -> bool {
        self.whole.is_some()
    }

    pub(super) fn is_whole_after(&self, mark: Mark) -> bool {
        self.whole == Some(mark)
    }
}

impl<R: Restore> Transfer<R> {
    // ---- asking ----

    /// Asks for the next piece, if one more may be under way: of whom, and which piece of which state.
    pub(super) fn ask_next(
        &mut self,
        others: impl Iterator<Item = ReplicaId>,
        is_heard: impl Fn(&ReplicaId) -> bool,
        now: Instant,
    ) -> Option<(ReplicaId, Position, StatePart)> {
        if self.asked.len() >= self.window || self.not_before > now {
            return None;
        }
        let part = self.next_part()?;
        let asked = &self.asked;
        let under_way = |id: &ReplicaId| asked.values().filter(|(of, _)| of.of == *id).count();
        let has_chance = asked.values().any(|(of, _)| of.is_chance);
        let choice = self.sources.next(others, is_heard, under_way, has_chance)?;
        self.asked.insert(part, (choice, now));
        self.pace.asks(choice.of, Question::State, now);
        Some((choice.of, self.at(), part))
    }

    fn next_part(&self) -> Option<StatePart> {
        self.pieces.next(|part| self.asked.contains_key(&part))
    }

    /// When to ask again for a piece that does not come for so long, or for the next one.
    pub(super) fn next_at(&self, wait_ms: u64, now: Instant) -> Option<Instant> {
        let retry = self.asked.values().map(|(_, since)| since.after_ms(wait_ms)).min();
        let next = || self.next_part().map(|_| self.not_before);
        let may_ask = self.asked.len() < self.window && self.not_before > now;
        retry.into_iter().chain(may_ask.then(next).flatten()).min()
    }

    /// Gives up what did not come for so long, to ask others for it. Answers how long nothing has come at all, where that is
    /// longer than `retry_ms`.
    pub(super) fn give_up_late(
        &mut self,
        wait_ms: u64,
        retry_ms: u64,
        now: Instant,
    ) -> Option<Idle> {
        let is_late = |since: &Instant| since.after_ms(wait_ms) <= now;
        let late: Vec<_> = self.asked.extract_if(.., |_, (_, since)| is_late(since)).collect();
        if late.is_empty() {
            return None;
        }
        if late.iter().any(|(_, (choice, _))| !choice.is_chance) {
            self.window = 1;
            self.pace.missed();
        }
        late.into_iter().for_each(|(_, (choice, _))| self.sources.blame(choice.of, 1));
        let is_idle = |ms: u64| self.idle_since.after_ms(ms) <= now;
        match is_idle(IDLE_WAITS * wait_ms.max(retry_ms)) {
            true => Some(Idle::ForLong),
            false => is_idle(retry_ms).then_some(Idle::ForAWhile),
        }
    }

    // ---- being answered ----

    /// Whether this piece of this state was asked for.
    pub(super) fn expects(&self, at: Position, part: StatePart) -> bool {
        self.at() == at && self.asked.contains_key(&part)
    }

    /// Takes in a piece that was asked for, and tells what has to be written of it. `None` where it is not of the
    /// certified state: whoever sends that lies, or its disk does, and what it was asked for is asked of others.
    pub(super) fn take_in(
        &mut self,
        from: ReplicaId,
        chunk: &StateChunk,
        rules: Rules,
        restore: impl FnOnce(Digest) -> R,
        now: Instant,
    ) -> Option<ToWrite> {
        let StateChunk { digests, part, bytes, .. } = chunk;
        self.pace.answered(from, Question::State, now);
        let right = self.pieces.learn(*digests, rules, restore) && self.pieces.accept(*part, bytes);
        if !right {
            self.sources.blame(from, LIE);
            self.asked.retain(|_, (choice, _)| choice.of != from);
            return None;
        }
        self.asked.remove(part);
        // As many as come in time, but not many: a line that is slow is not to be filled in advance.
        self.window = (self.window + 1).min(ASKED_MAX);
        self.sources.praise(from);
        self.count += 1;
        self.bytes += bytes.len() as u64;
        self.idle_since = now;
        let rows = self.pieces.rows(*part, bytes);
        let is_whole = self.is_whole();
        let rest = is_whole.then(|| self.pieces.rest());
        let is_first = !std::mem::replace(&mut self.is_recorded, true);
        let stable = || self.pieces.proof().clone();
        Some(ToWrite {
            head: is_first.then(|| StateHead { stable: stable(), digests: *digests }),
            as_it_is: rows.is_none(),
            rows: (rows.is_some() || is_whole)
                .then(|| rows.into_iter().chain(rest).flatten().collect()),
            is_whole,
        })
    }

    /// So many bytes came: no more is asked for until they have taken their time, at so many in a millisecond.
    pub(super) fn keep_rate(&mut self, bytes: usize, bytes_per_ms: u64, now: Instant) {
        let micros = (bytes as u64).saturating_mul(1000) / bytes_per_ms.max(1);
        self.not_before = Instant(self.not_before.max(now).0.saturating_add(micros));
    }

    pub(super) fn is_whole(&self) -> bool {
        self.pieces.are_whole()
    }

    /// How far it has come.
    pub(super) fn progress(&self) -> Transferring {
        let (slot, of) = (self.slot(), self.pieces.of());
        Transferring { slot, pieces: self.count, of, bytes: self.bytes }
    }

    // ---- from disk ----

    /// Rebuilds a transfer from what is stored. `None` where that is not of the state.
    pub(in crate::replica) fn from_disk(
        stored: &StoredState,
        rules: Rules,
        restore: impl Fn(Digest) -> R,
    ) -> Option<Self> {
        let mut transfer = Self::new(stored.head.stable.clone(), None, None, Instant::default());
        transfer.is_recorded = true;
        if !transfer.pieces.learn(stored.head.digests, rules, restore) {
            return None;
        }
        for (part, bytes) in &stored.pieces {
            if !transfer.pieces.accept(*part, bytes) {
                return None;
            }
            transfer.count += 1;
        }
        Some(transfer)
    }

    /// Goes on with the rows that were fetched before.
    pub(in crate::replica) fn resume(&mut self, rows: &RowsView) -> Result<(), Unreadable> {
        self.count += self.pieces.resume(rows)?;
        Ok(())
    }

    /// The protocol's own part of it, where that is whole.
    pub(in crate::replica) fn own_part(self) -> Option<(LastSlot, Sessions)> {
        self.pieces.own_part()
    }

    /// The state, if all of it is here.
    pub(super) fn into_whole(self, rows: RowsView) -> Option<Whole> {
        let (proof, digests, last, sessions) = self.pieces.into_whole()?;
        Some(Whole { proof, digests, last, sessions, rows })
    }
}

#[cfg(test)]
mod tests {
    use super::super::pieces::tests::{Two, state};
    use super::*;

    const WAIT: u64 = 100;

    fn at(ms: u64) -> Instant {
        Instant::default().after_ms(ms)
    }

    fn ask(transfer: &mut Transfer<Two>, ms: u64) -> Option<(u8, StatePart)> {
        let others = (1..4).map(ReplicaId);
        transfer.ask_next(others, |_| true, at(ms)).map(|(to, _, part)| (to.0, part))
    }

    /// The peer gives a piece, which is right or not.
    fn give(transfer: &mut Transfer<Two>, from: u8, part: StatePart, is_right: bool) -> bool {
        let (proof, digests, pieces) = state(8);
        let (_, bytes) = pieces.into_iter().find(|(of, _)| *of == part).expect("one of them");
        let bytes = if is_right { bytes } else { bytes.slice(1..) };
        let chunk = StateChunk { at: proof.position(), digests, part, of: 1, bytes };
        let rules = Rules::default();
        let kept = transfer.take_in(ReplicaId(from), &chunk, rules, |_| Two::default(), at(0));
        kept.is_some()
    }

    #[test]
    fn as_many_pieces_are_under_way_as_come_in_time() {
        let mut transfer = Transfer::new(state(8).0, None, None, at(0));
        let (of, last) = ask(&mut transfer, 0).expect("one");
        assert_eq!((last, ask(&mut transfer, 0)), (StatePart::Last, None));
        assert!(give(&mut transfer, of, last, true));
        assert!(ask(&mut transfer, 0).is_some() && ask(&mut transfer, 0).is_some());
        assert_eq!(ask(&mut transfer, 0), None, "two");
        assert_eq!(transfer.give_up_late(WAIT, 2 * WAIT, at(WAIT - 1)), None);
        assert_eq!(transfer.give_up_late(WAIT, WAIT, at(WAIT)), Some(Idle::ForAWhile));
        assert!(ask(&mut transfer, WAIT).is_some());
        assert_eq!(ask(&mut transfer, WAIT), None, "one again");
        assert_eq!(transfer.next_at(WAIT, at(WAIT)), Some(at(2 * WAIT)));
        let long = IDLE_WAITS * WAIT;
        assert_eq!(transfer.give_up_late(WAIT, WAIT, at(long)), Some(Idle::ForLong));
    }

    #[test]
    fn a_piece_of_another_state_is_asked_of_somebody_else() {
        let mut transfer = Transfer::new(state(8).0, Some(ReplicaId(2)), None, at(0));
        let position = state(8).0.position();
        assert_eq!(ask(&mut transfer, 0), Some((2, StatePart::Last)), "it has shown to have it");
        assert!(transfer.expects(position, StatePart::Last));
        assert!(!transfer.expects(position, StatePart::Sessions(0)));
        assert!(!give(&mut transfer, 2, StatePart::Last, false));
        assert!(!transfer.expects(position, StatePart::Last));
        assert_eq!(transfer.progress().pieces, 0);
        assert_ne!(ask(&mut transfer, 0).map(|(to, _)| to), Some(2));
    }

    #[test]
    fn no_more_is_asked_for_until_what_came_has_taken_its_time() {
        let mut transfer = Transfer::new(state(8).0, None, None, at(0));
        let (of, last) = ask(&mut transfer, 0).expect("one");
        assert!(give(&mut transfer, of, last, true));
        transfer.keep_rate(500, 100, at(0));
        assert_eq!(ask(&mut transfer, 4), None);
        assert_eq!(transfer.next_at(WAIT, at(4)), Some(at(5)));
        assert!(ask(&mut transfer, 5).is_some());
    }
}
