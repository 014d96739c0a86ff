//! The rule for entering a view: which history may be adopted with it.
//!
//! How the view came about is in `view_change`, what two histories of one view prove in `divergence`, and how
//! a history is adopted in `adoption`.

use super::path::{Footing, Path, Reach};
use super::trail::{Checked, Trail};
use crate::application::Application;
use crate::id::{ClientId, ReplicaId, Slot};
use crate::message::{CommitCertificate, Message, NewView, NonDeterminism, Position, StableProof};
use crate::replica::Replica;
use crate::replica::time::Peer;
use crate::tuning::Rules;

/// Requests of a slot that are looked through in one step of a turn, beside the slot itself.
const REQUESTS_A_STEP: u64 = 16;

/// Whether a new view may be entered, and with which history.
pub(super) enum Entrance {
    Open(Path),
    /// Not now: something is missing, or the lock forbids it.
    Shut,
    /// Not now, and only since clocks, lists of clients or editions do not allow it.
    Waits,
    /// Never: what it holds breaks the rules.
    Barred,
}

/// What the rules for orders say of slots that no certificate covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sound {
    Yes,
    /// Not all of it has been looked through.
    NotYet,
    /// Its time is ahead of the clock, it is of an edition that not all execute, or too few are known to list a client.
    Waits,
    No,
}

impl<A: Application> Replica<A> {
    /// Section 5: whether this new view, which is validly signed, may be entered now.
    pub(super) fn entrance(&mut self, new_view: &NewView) -> Entrance {
        let view = new_view.header.view;
        let head = new_view.header.head;
        let base = new_view.base();
        if view <= self.entered() || self.proof_against(view) {
            return Entrance::Shut;
        }
        let lock = self.lock.get().cloned();
        let lock = lock.as_ref();
        if lock.is_some_and(|lock| lock.body.view > view) {
            return Entrance::Shut;
        }
        let of_this_view = lock.filter(|lock| lock.body.view == view);
        let path = match self.reach(head) {
            Reach::Whole(path) => path,
            Reach::Lacks(_) | Reach::NotYet | Reach::Never => {
                // Its head may be given up everywhere; a certificate of this very view is as good.
                return of_this_view.map_or(Entrance::Shut, |lock| self.at_lock(lock, None));
            }
        };
        if base.is_some_and(|base| !self.passes(&path, base.position())) {
            return Entrance::Barred;
        }
        let extends_lock = lock.is_none_or(|lock| self.passes(&path, lock.position()));
        let outranked = || base.map(|base| base.body.view) > lock.map(|lock| lock.body.view);
        if !extends_lock && !outranked() {
            return of_this_view.map_or(Entrance::Shut, |lock| self.at_lock(lock, Some(head)));
        }
        let certified = base.map_or(Slot::GENESIS, |base| base.body.slot);
        let certified = certified
            .max(lock.filter(|_| extends_lock).map_or(Slot::GENESIS, |lock| lock.body.slot));
        match self.sound(&path, certified) {
            Sound::Yes if self.may_stand_on(&path) => Entrance::Open(path),
            Sound::Waits if self.may_stand_on(&path) => Entrance::Waits,
            Sound::Yes | Sound::NotYet | Sound::Waits => Entrance::Shut,
            // What is wrong may be the own state.
            Sound::No if self.is_distrusted() => Entrance::Shut,
            Sound::No => Entrance::Barred,
        }
    }

    /// The third rule: with a lock of the view itself, it is entered with the history up to the
    /// lock, which is certified. Where the lock contradicts the head, that is a proof against the
    /// primary, and there is another view to ask for.
    fn at_lock(&self, lock: &CommitCertificate, head: Option<Position>) -> Entrance {
        let Reach::Whole(path) = self.reach(lock.position()) else { return Entrance::Shut };
        let is_off = head.is_some_and(|head| !self.passes(&path, head));
        if is_off || !self.may_stand_on(&path) || !self.executes_along(&path) {
            return Entrance::Shut;
        }
        Entrance::Open(path)
    }

    /// What is stable is not undone, and a suffix has its limit: above what others have made stable, whatever the
    /// history stands on; and above the own state twice that where it stays and is to be replaced: until it is,
    /// nothing becomes stable here.
    fn may_stand_on(&self, path: &Path) -> bool {
        let proofs = [self.stable.ahead(), self.stable.passed()].into_iter().flatten();
        let ahead = proofs.filter(|proof| self.passes(path, proof.position()));
        let ahead = ahead.map(StableProof::slot).max().unwrap_or_default();
        let stable = match path.footing {
            Footing::Common(slot) if slot < self.stable() => return false,
            Footing::Common(_) => self.stable().max(ahead),
            Footing::State(at) => at.slot.max(ahead),
        };
        // All but the last slot, which was put where there was room.
        let last = Slot(path.top().0.saturating_sub(1));
        let fits = |rules: Rules, from: Slot| {
            !rules.is_full(last.since(from), self.weight_on(path, from, last))
        };
        let rules = self.setup.tuning.rules;
        let stays = self.is_distrusted() && matches!(path.footing, Footing::Common(_));
        fits(rules, stable) && (!stays || fits(rules.twice(), self.stable()))
    }

    /// The rules for orders, for the slots of a history above `certified`.
    pub(super) fn sound(&mut self, path: &Path, certified: Slot) -> Sound {
        if !self.executes_along(path) {
            self.counters.order_of_unknown_edition += 1;
            // What is certified stays, and so does this replica, until its program is a newer one.
            let is_certain = !self.executes_at(path, certified.max(path.footing.slot()));
            return if is_certain { Sound::NotYet } else { Sound::Waits };
        }
        if !path.goes_on() {
            return Sound::Yes;
        }
        let Some(checked) = self.look_through(path) else { return Sound::NotYet };
        if checked.repeats || checked.broken.is_some_and(|slot| slot > certified) {
            return Sound::No;
        }
        let waits = self.waits_for_others(path, certified);
        if waits { Sound::Waits } else { Sound::Yes }
    }

    /// Whether a history, which was looked through, has slots above `certified` that are too early or of
    /// clients that too few are known to list, and that too few others are known to stand on.
    fn waits_for_others(&self, path: &Path, certified: Slot) -> bool {
        let trail = self.branches.trail(path.end);
        let Some(checked) = trail.and_then(Trail::checked) else { return true };
        let borne_out = self.borne_out(|id| self.slot_shown_on(path, id));
        let judged = certified.max(borne_out).max(path.footing.slot());
        // Neither time nor edition ever falls, so where any slot above has to wait, the last one has.
        let before = self.choices_on(path, judged).unwrap_or_default();
        let is_early = judged < path.top() && self.has_to_wait(checked.choices, before);
        let is_strange =
            |(client, slot): (&ClientId, &Slot)| *slot > judged && !self.is_admitted(client);
        is_early || checked.unlisted.iter().any(is_strange)
    }

    /// What was chosen for a slot at the footing of a history or above it.
    pub(in crate::replica) fn choices_on(&self, path: &Path, slot: Slot) -> Option<NonDeterminism> {
        if slot > path.footing.slot() {
            return self.batch_on(path, slot).map(|batch| batch.choices);
        }
        match path.footing {
            Footing::Common(slot) => self.history.choices_at(slot),
            Footing::State(_) => self.arriving.ready().map(|whole| whole.last.choices),
        }
    }

    /// The highest slot on a history that a replica has said to be the head of its own.
    fn slot_shown_on(&self, path: &Path, id: ReplicaId) -> Option<Slot> {
        let by_status = self.peers.get(&id).and_then(Peer::head);
        let heads = by_status.into_iter().chain(self.heads_asked_with(id));
        heads.filter(|head| self.passes(path, *head)).map(|head| head.slot).max()
    }

    /// Looks through the slots of a history, as far as there is room in this turn, and remembers how far it
    /// came. `None` while it is not at the end.
    fn look_through(&mut self, path: &Path) -> Option<&Checked> {
        let mut trail = self.branches.take(path.end)?;
        let checked = trail.take_checked(path.footing);
        let mut checked = checked.or_else(|| self.begin_looking(path.footing));
        while let Some(checked) = checked.as_mut().filter(|checked| checked.through < path.top())
            && self.turn.take()
        {
            let slot = checked.through.next();
            let at = trail.hash_at(slot).map(|hash| Position { slot, hash });
            let Some((at, side)) = at.and_then(|at| Some((at, self.branches.get(at)?))) else {
                break;
            };
            let fits = self.fit_one_slot(&side.batch.requests);
            checked.add(at, &side.batch, fits, &self.setup.membership);
            self.turn.spend(side.batch.requests.len() as u64 / REQUESTS_A_STEP);
        }
        trail.keep_checked(checked);
        self.branches.put_back(trail);
        let checked = self.branches.trail(path.end)?.checked();
        checked.filter(|checked| checked.repeats || checked.through >= path.top())
    }

    /// What the slots of a history are looked through on.
    fn begin_looking(&self, footing: Footing) -> Option<Checked> {
        let (sessions, choices) = match footing {
            Footing::Common(slot) => {
                (self.execution.sessions_at(slot)?.clone(), self.history.choices_at(slot)?)
            }
            Footing::State(_) => {
                let whole = self.arriving.ready()?;
                (whole.sessions.clone(), whole.last.choices)
            }
        };
        Some(Checked::begin(footing, sessions, choices))
    }

    /// Sends the new view of the view entered, to whoever has not entered it or has another one.
    pub(in crate::replica) fn send_new_view(&mut self, to: ReplicaId) {
        if let Some(new_view) = self.view.new_view().cloned() {
            self.send_charged(to, Message::NewView(new_view));
        }
    }
}
