//! Views that a replica cannot enter only since clocks, lists of clients, or editions, do not allow it.
//!
//! Clocks that were ahead and are set back leave slots behind whose time no clock has reached; a client that
//! was taken off a list leaves slots that not everybody takes; and so does a primary that goes over to a newer
//! edition, where others do not know that all execute it. Who has such slots goes on with them, and
//! who has not waits. As long as `f + 1` others have them nobody waits for long. But in a part of the network
//! with just enough replicas the one who has them and the others would each go on in a view of
//! their own, for as long as clocks were ahead. So whoever is kept out says so, by suspecting that view;
//! whoever may be the cause joins in, ever more patiently; and the next view begins with a history
//! that all who asked for it can follow.

use super::super::path::{Footing, Path};
use crate::application::Application;
use crate::id::{ClientId, Instant, Slot, View};
use crate::message::{NonDeterminism, Position, ViewChange};
use crate::quorum::Strength;
use crate::replica::Replica;
use crate::signature::Signed;

/// How often the wait before others' suspicions are shared may double, which is as long as for a primary at
/// first: without an end, in effect.
const DOUBLINGS: u32 = 30;

/// What is known of views that somebody is kept out of.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptOut {
    /// The highest view on offer that clocks, lists or editions alone keep this replica from, and since when.
    of: Option<(View, Instant)>,
    /// Since when another one has suspected the view entered, or a later one, while slots of this
    /// replica may be what keeps it out.
    others_suspect_since: Option<Instant>,
    /// How often suspicions were shared since a certificate of the entered view formed.
    shared: u32,
}

impl KeptOut {
    /// The highest view on offer that clocks, lists or editions alone keep this replica from now, if any.
    fn note(&mut self, view: Option<View>, now: Instant) {
        self.of = view.map(|view| match self.of {
            Some((of, since)) if of == view => (view, since),
            _ => (view, now),
        });
    }

    /// Whether others suspect a view, which slots of this replica may keep them out of.
    fn note_others(&mut self, suspect: bool, now: Instant) {
        self.others_suspect_since = suspect.then(|| self.others_suspect_since.unwrap_or(now));
    }

    /// The view that this replica is kept out of.
    fn of(&self) -> Option<View> {
        self.of.map(|(view, _)| view)
    }

    /// When it is suspected, unless the view that this replica has `said` that it suspects is as high.
    fn at(&self, said: Option<View>, wait_ms: impl FnOnce() -> u64) -> Option<Instant> {
        let (view, since) = self.of?;
        let is_told = said.is_some_and(|told| told >= view);
        (!is_told).then(|| since.after_ms(wait_ms()))
    }

    /// When the others' suspicions are shared, ever more patiently.
    fn joins_at(&self, wait_ms: impl FnOnce() -> u64) -> Option<Instant> {
        let since = self.others_suspect_since?;
        let doubled = wait_ms().saturating_mul(1 << self.shared.min(DOUBLINGS));
        Some(since.after_ms(doubled))
    }

    /// They are.
    fn join(&mut self) {
        self.shared += 1;
        self.others_suspect_since = None;
    }

    /// Another view was entered.
    pub(super) fn forget(&mut self) {
        self.of = None;
        self.others_suspect_since = None;
    }

    /// A certificate formed: enough others follow. Under load there is always a slot that none covers yet,
    /// so the wait begins anew.
    pub(super) fn certified(&mut self) {
        self.others_suspect_since = None;
        self.shared = 0;
    }
}

impl<A: Application> Replica<A> {
    /// The highest view on offer that clocks, lists or editions alone keep this replica from, if any.
    pub(super) fn note_kept_out(&mut self, view: Option<View>) {
        self.changing.kept_out.note(view, self.now.instant);
    }

    /// The view that this replica has said that it suspects.
    fn suspects(&self) -> Option<View> {
        self.changing.suspicions.of(self.setup.id).map(|suspect| suspect.body.view)
    }

    fn kept_out_at(&self) -> Option<Instant> {
        self.changing.kept_out.at(self.suspects(), || self.order_wait_ms())
    }

    fn joins_at(&self) -> Option<Instant> {
        self.changing.kept_out.joins_at(|| self.order_wait_ms())
    }

    /// When something here is due.
    pub(super) fn kept_out_due(&self) -> Option<Instant> {
        [self.kept_out_at(), self.joins_at()].into_iter().flatten().min()
    }

    /// Suspects a view that this replica has been kept out of for long, or its own one, which keeps
    /// others out.
    pub(super) fn tend_kept_out(&mut self) {
        self.note_others_suspicions();
        let now = self.now.instant;
        if self.kept_out_at().is_some_and(|at| at <= now)
            && let Some(view) = self.changing.kept_out.of()
        {
            // That is a suspicion of the view entered, too.
            self.suspect_through(view);
        } else if self.joins_at().is_some_and(|at| at <= now) {
            self.changing.kept_out.join();
            self.suspect_through(self.entered());
        }
    }

    fn note_others_suspicions(&mut self) {
        let entered = self.entered();
        let is_suspected = self.suspects().is_none_or(|own| own < entered)
            && self.changing.suspicions.from(entered).next().is_some()
            && self.may_keep_others_out();
        self.changing.kept_out.note_others(is_suspected, self.now.instant);
    }

    /// Whether slots above all that is certified of the own history are such that not everybody could
    /// follow them now.
    fn may_keep_others_out(&self) -> bool {
        let lock = self.lock.get().filter(|lock| self.history.goes_through(lock.position()));
        let certified = self.stable().max(lock.map_or(Slot::GENESIS, |lock| lock.body.slot));
        let Some(before) = self.history.choices_at(certified) else { return false };
        self.history.head().slot > certified
            && (self.others_may_wait(self.history.choices(), before) || self.lists_differ())
    }

    /// How far a history can be followed by all whose view changes these are: the highest slot up to
    /// which none of them waits for clocks, lists or editions. What `f + 1` of them have they need not judge.
    fn followed_through(&self, path: &Path, base: Slot, changes: &[Signed<ViewChange>]) -> Slot {
        let heads = changes.iter().map(|change| change.body.head);
        let mut shown: Vec<Slot> =
            heads.filter(|head| self.passes(path, *head)).map(|head| head.slot).collect();
        shown.sort_unstable_by(|a, b| b.cmp(a));
        let common = shown.get(self.size.quorum(Strength::Weak) - 1).copied();
        let judged = common.unwrap_or(Slot::GENESIS).max(base).max(self.stable());
        if judged >= path.top() {
            return path.top();
        }
        let choices = |slot| self.choices_along(path, slot);
        let ends = choices(judged).zip(choices(path.top()));
        let Some((before, last)) = ends else { return judged };
        if !self.others_may_wait(last, before) && !self.lists_differ() {
            return path.top();
        }
        let follows = |slot: &Slot| {
            choices(*slot).is_some_and(|choices| !self.others_may_wait(choices, before))
                && self.clients_along(path, *slot).iter().all(|id| self.is_known_to(changes, id))
        };
        let above = (judged.next().0..=path.top().0).map(Slot);
        above.take_while(follows).last().unwrap_or(judged)
    }

    fn choices_along(&self, path: &Path, slot: Slot) -> Option<NonDeterminism> {
        match path.footing {
            Footing::Common(common) if slot <= common => self.history.choices_at(slot),
            Footing::Common(_) | Footing::State(_) => self.choices_on(path, slot),
        }
    }

    fn clients_along(&self, path: &Path, slot: Slot) -> Vec<ClientId> {
        let batch = match path.footing {
            Footing::Common(common) if slot <= common => {
                self.history.entry(slot).map(|entry| &entry.batch)
            }
            Footing::Common(_) | Footing::State(_) => self.batch_on(path, slot),
        };
        let requests = batch.into_iter().flat_map(|batch| &batch.requests);
        requests.map(|request| request.body().client).collect()
    }

    /// Whether all of these replicas take a client: nobody of them is known not to list it, or `f + 1`
    /// of them do.
    fn is_known_to(&self, changes: &[Signed<ViewChange>], client: &ClientId) -> bool {
        let lists = |change: &Signed<ViewChange>| self.lists_client(change.by, client);
        let known: Vec<bool> = changes.iter().filter_map(lists).collect();
        let listed = known.iter().filter(|lists| **lists).count();
        listed == known.len() || self.size.suffices(listed, Strength::Weak)
    }

    /// A history as far as all whose view changes these are can follow it; `None` of one that is not the own
    /// one and that they cannot follow to its end.
    pub(super) fn followed_by_all(
        &self,
        path: Path,
        base: Slot,
        changes: &[Signed<ViewChange>],
    ) -> Option<Path> {
        let through = self.followed_through(&path, base, changes);
        if through == path.top() {
            return Some(path);
        }
        let is_own = matches!(path.footing, Footing::Common(common) if common == path.top());
        let hash = self.history.hash_at(through).filter(|_| is_own)?;
        Some(Path::own(Position { slot: through, hash }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::default().after_ms(ms)
    }

    #[test]
    fn who_is_kept_out_of_a_view_says_so_once_and_after_a_wait() {
        let mut kept_out = KeptOut::default();
        kept_out.note(Some(View(2)), at(0));
        kept_out.note(Some(View(2)), at(50));
        assert_eq!(kept_out.at(Some(View(1)), || 100), Some(at(100)));
        assert_eq!(kept_out.at(Some(View(2)), || 100), None, "it is said");
        kept_out.note(Some(View(3)), at(60));
        assert_eq!(kept_out.at(Some(View(2)), || 100), Some(at(160)));
        kept_out.note(None, at(70));
        assert_eq!((kept_out.of(), kept_out.at(None, || 100)), (None, None));
    }

    #[test]
    fn others_suspicions_are_shared_ever_more_patiently_until_a_certificate_forms() {
        let mut kept_out = KeptOut::default();
        kept_out.note_others(true, at(0));
        kept_out.note_others(true, at(50));
        assert_eq!(kept_out.joins_at(|| 100), Some(at(100)));
        kept_out.join();
        assert_eq!(kept_out.joins_at(|| 100), None);
        kept_out.note_others(true, at(100));
        assert_eq!(kept_out.joins_at(|| 100), Some(at(300)));
        kept_out.note_others(false, at(200));
        kept_out.note_others(true, at(250));
        assert_eq!(kept_out.joins_at(|| 100), Some(at(450)));
        kept_out.certified();
        kept_out.note_others(true, at(300));
        assert_eq!(kept_out.joins_at(|| 100), Some(at(400)));
    }

    #[test]
    fn in_another_view_nobody_is_kept_out_and_patience_stays() {
        let mut kept_out = KeptOut::default();
        kept_out.note(Some(View(2)), at(0));
        kept_out.note_others(true, at(0));
        kept_out.join();
        kept_out.forget();
        assert_eq!((kept_out.of(), kept_out.joins_at(|| 100)), (None, None));
        kept_out.note_others(true, at(10));
        assert_eq!(kept_out.joins_at(|| 100), Some(at(210)));
    }
}
