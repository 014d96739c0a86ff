//! Another primary: losing patience, asking for a view, and beginning one.
//!
//! No cause for a campaign has to be believed. What a peer says is put to what is known here:
//! suspicions, proofs, locks, the newest word of every replica; and then the causes are looked for
//! in that. So whoever receives a proof follows at once, and what proves nothing moves nobody.

use std::collections::{BTreeMap, BTreeSet};

use super::branch::{Path, Reach, Wish};
use super::merge::{Entrance, Offered, Sound};
use super::{Replica, Target};
use crate::application::Application;
use crate::evidence::Evidence;
use crate::id::{Instant, ReplicaId, Slot, View};
use crate::message::{
    Campaign, Commit, CommitCertificate, Message, NewView, NewViewHeader, Order, Position, Suspect,
    ViewChange, changes_digest,
};
use crate::quorum::Strength;
use crate::seal::Signed;

/// View changes kept of each replica, the newest ones.
const CHANGES_KEPT: usize = 4;

/// New views kept above the one entered.
const OFFERED_MAX: usize = 4;

/// Orders kept of each primary of a view that is not entered yet.
const LATER_ORDERS_MAX: usize = 16;

/// How often patience may double.
const PATIENCE_DOUBLINGS: u32 = 6;

/// Why a replica asks for another view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// `f + 1` replicas suspect the primary.
    Suspected,
    /// There is a proof against it.
    Proven,
    /// The own lock refutes the new view of this view.
    Refuted(View),
    /// The own lock is of a view that nobody lets this replica enter.
    LockAhead,
    /// `f + 1` others ask for it.
    Followed,
    /// The view before did not begin in time.
    Waited,
}

/// A campaign that is going on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    pub(super) view: View,
    why: Why,
    /// Since when a weak quorum asks for this view or a later one.
    waiting: Option<Instant>,
}

/// All about views other than the one entered.
#[derive(Clone, Debug, Default)]
pub(super) struct Changing {
    /// The highest suspicion of each replica.
    suspects: BTreeMap<ReplicaId, Signed<Suspect>>,
    /// A few view changes above the view entered, of each replica.
    changes: BTreeMap<ReplicaId, BTreeMap<View, Signed<ViewChange>>>,
    /// The newest view change of each other replica, whatever view it is for.
    newest: BTreeMap<ReplicaId, Signed<ViewChange>>,
    offered: Offered,
    /// Offered ones that can never be entered.
    barred: BTreeSet<View>,
    campaign: Option<Running>,
    /// Since when this replica, as its primary, could begin a view with a weak quorum.
    gathered: BTreeMap<View, Instant>,
    /// Views below the campaign for which a view change was sent since others asked for them.
    answered: BTreeSet<View>,
    /// Proofs against primaries of the view entered or of offered ones.
    proofs: BTreeMap<View, Evidence>,
    /// How often the wait for a view has doubled since a certificate of the entered view formed.
    waits: u32,
    /// How often patience with a primary has doubled, for want of orders and of certificates.
    impatience: u32,
    strong_impatience: u32,
    /// Since when what waits has waited.
    waiting_since: Option<Instant>,
    /// Since when an executed strong request has waited for a certificate.
    strong_since: Option<Instant>,
    /// Since when the lock is of a view above the entered one.
    lock_ahead_since: Option<Instant>,
    /// Orders and votes for views that are not entered yet.
    orders: BTreeMap<(View, Slot), Signed<Order>>,
    commits: BTreeMap<ReplicaId, Signed<Commit>>,
}

impl Changing {
    pub(super) fn view_changes(&self) -> usize {
        self.changes.values().map(BTreeMap::len).sum::<usize>() + self.newest.len()
    }

    pub(super) fn new_views(&self) -> usize {
        self.offered.len()
    }

    pub(super) fn of_later_views(&self) -> usize {
        self.orders.len() + self.commits.len()
    }

    pub(super) fn campaign(&self) -> Option<View> {
        self.campaign.map(|campaign| campaign.view)
    }

    /// Whether anything is going on that has to be looked after.
    pub(super) fn is_busy(&self) -> bool {
        self.campaign.is_some() || !self.offered.is_empty()
    }
}

impl<A: Application> Replica<A> {
    // ---- patience ----

    /// A request that was passed on to all waits from now on, if none did before.
    pub(super) fn note_forwarded(&mut self) {
        if self.changing.waiting_since.is_none() && self.pending.any_forwarded() {
            self.changing.waiting_since = Some(self.now.instant);
        }
    }

    /// The primary had a request executed that waited here: it does its work.
    pub(super) fn note_progress(&mut self, was_forwarded: bool) {
        self.changing.impatience = 0;
        if was_forwarded {
            self.changing.waiting_since = self.pending.any_forwarded().then_some(self.now.instant);
        }
    }

    /// A slot with a strong request was executed.
    pub(super) fn note_strong(&mut self) {
        if self.changing.strong_since.is_none() {
            self.changing.strong_since = Some(self.now.instant);
        }
    }

    /// What waits for a certificate after the history or the certified part of it changed.
    pub(super) fn note_strong_slots(&mut self) {
        let from = self.certified().max(self.stable()).next();
        let waits = self.history.from(from).any(|(_, entry)| entry.batch.wants_commit());
        self.changing.strong_since = waits.then_some(self.now.instant);
    }

    /// A certificate of the entered view formed: the primary and the timing are good. One that
    /// comes only after this replica has given the view up says nothing of the kind: a liar could
    /// show one at the end of each view.
    pub(super) fn note_certificate(&mut self) {
        if !self.has_suspected() {
            self.changing.waits = 0;
            self.changing.strong_impatience = 0;
        }
        self.note_strong_slots();
    }

    fn patience(&self, doublings: u32) -> u64 {
        self.setup.tuning.request_timeout_ms << doublings.min(PATIENCE_DOUBLINGS)
    }

    fn order_patience_at(&self) -> Option<Instant> {
        let since = self.changing.waiting_since?;
        Some(since.after_ms(self.patience(self.changing.impatience)))
    }

    fn strong_patience_at(&self) -> Option<Instant> {
        let since = self.changing.strong_since?;
        // Without a cap: nobody can tell a partition from a liar that withholds its votes.
        let doublings = self.changing.strong_impatience.min(30);
        Some(since.after_ms(self.setup.tuning.request_timeout_ms << doublings))
    }

    /// Suspects the primary if patience has run out.
    fn lose_patience(&mut self) {
        let now = self.now.instant;
        if self.has_suspected() {
            return;
        }
        if self.is_full() {
            // Nobody can order anything: that is not the primary's fault.
            self.changing.waiting_since = self.changing.waiting_since.map(|_| now);
            self.changing.strong_since = self.changing.strong_since.map(|_| now);
            return;
        }
        if self.order_patience_at().is_some_and(|at| at <= now) && !self.is_primary() {
            // What nobody may order now is nobody's fault either.
            let sessions = self.sessions();
            let orderable =
                self.pending.forwarded().any(|request| sessions.refusal(request.body()).is_none());
            if orderable {
                self.changing.impatience += 1;
                self.suspect();
                return;
            }
            self.changing.waiting_since = self.pending.any_forwarded().then_some(now);
        }
        if self.strong_patience_at().is_some_and(|at| at <= now) {
            let within =
                self.setup.tuning.request_timeout_ms.max(2 * self.setup.tuning.status_interval_ms);
            let heard = self.peers.values().filter(|peer| peer.heard_within(now, within)).count();
            self.changing.strong_since = Some(now);
            if self.size.suffices(heard + 1, Strength::Strong) {
                self.changing.strong_impatience += 1;
                self.suspect();
            }
        }
    }

    fn has_suspected(&self) -> bool {
        let own = self.changing.suspects.get(&self.setup.id);
        own.is_some_and(|suspect| suspect.body.view >= self.entered)
    }

    fn suspect(&mut self) {
        self.counters.suspicions += 1;
        let suspect = self.sign(Suspect { view: self.entered });
        self.changing.suspects.insert(self.setup.id, suspect.clone());
        self.send(Target::Others, Message::Suspect(suspect));
        self.reconsider();
    }

    // ---- what others say ----

    pub(super) fn on_suspect(&mut self, suspect: Signed<Suspect>) {
        self.hear_suspect(suspect);
        self.reconsider();
    }

    fn hear_suspect(&mut self, suspect: Signed<Suspect>) {
        let known = self.changing.suspects.get(&suspect.by);
        if suspect.by != self.setup.id
            && known.is_none_or(|known| known.body.view < suspect.body.view)
        {
            self.changing.suspects.insert(suspect.by, suspect);
        }
    }

    pub(super) fn on_evidence(&mut self, evidence: Evidence) {
        self.accuse(evidence);
        self.reconsider();
    }

    /// A proof is known: whether it is a reason to leave the view, or not to enter it.
    pub(super) fn note_proof(&mut self, evidence: &Evidence) -> bool {
        let view = evidence.view();
        let matters = evidence.convicts_primary(self.size.replicas())
            && (view == self.entered || self.changing.offered.contains_key(&view))
            && !self.changing.proofs.contains_key(&view);
        if matters {
            self.changing.proofs.insert(view, evidence.clone());
        }
        matters
    }

    /// Whether the primary of this view is known to have lied in it.
    pub(super) fn proof_against(&self, view: View) -> bool {
        self.changing.proofs.contains_key(&view)
    }

    pub(super) fn on_campaign(&mut self, from: ReplicaId, campaign: Campaign) {
        let Campaign { change, suspects, proof, others } = campaign;
        suspects.into_iter().for_each(|suspect| self.hear_suspect(suspect));
        if let Some(proof) = proof {
            self.accuse(*proof);
        }
        for other in others {
            self.correct_stale_word(from, &other);
            self.hear_change(other);
        }
        let by = change.by;
        let (view, rank) = (change.body.view, change.body.lock_rank());
        self.hear_change(change);
        if from == by && view <= self.entered {
            self.send_new_view(by);
        }
        let own = self.lock.clone().filter(|own| Some(own.rank()) > rank);
        if let Some(own) = own.filter(|_| from == by) {
            self.send(Target::One(by), Message::Certificate(own));
        }
        // The lowest campaign gathers the component.
        let below = self.changing.campaign.is_some_and(|own| view < own.view);
        if view > self.entered
            && below
            && self.may_ask_for(view)
            && self.changing.answered.insert(view)
        {
            let change = self.view_change(view);
            self.send_campaign(Target::Others, change);
        }
        self.reconsider();
    }

    /// A peer passes on what another replica asked for. If that one has said something newer since,
    /// the peer is told: it might count on a campaign that is over.
    fn correct_stale_word(&mut self, peer: ReplicaId, change: &Signed<ViewChange>) {
        let newer = self.peers.get(&change.by).and_then(super::status::Peer::signed_status);
        let newer = newer.filter(|status| status.body.stamp > change.body.stamp).cloned();
        if let Some(status) = newer {
            self.send_at_once(Target::One(peer), Message::Status(status));
        }
    }

    fn hear_change(&mut self, change: Signed<ViewChange>) {
        let by = change.by;
        if by == self.setup.id {
            return;
        }
        let body = &change.body;
        self.peers.entry(by).or_default().campaigns(body.stamp, body.entered, body.campaign);
        let newest = self.changing.newest.get(&by);
        if newest.is_none_or(|newest| newest.body.stamp < body.stamp) {
            self.changing.newest.insert(by, change.clone());
        }
        if let Some(lock) = body.lock.clone() {
            self.consider_lock(by, lock);
        }
        if body.view > self.entered {
            self.keep_change(change);
        }
    }

    fn keep_change(&mut self, change: Signed<ViewChange>) {
        let kept = self.changing.changes.entry(change.by).or_default();
        let view = change.body.view;
        if kept.get(&view).is_some_and(|known| known.body.stamp >= change.body.stamp) {
            return;
        }
        kept.insert(view, change);
        while kept.len() > CHANGES_KEPT
            && let Some(oldest) = kept.iter().min_by_key(|(_, change)| change.body.stamp)
        {
            let oldest = *oldest.0;
            kept.remove(&oldest);
        }
    }

    pub(super) fn on_new_view(&mut self, from: ReplicaId, new_view: Signed<NewView>) {
        let view = new_view.body.header.view;
        let known = if view == self.entered {
            self.new_view.as_ref()
        } else {
            self.changing.offered.get(&view)
        };
        if let Some(known) = known {
            if known.body.header != new_view.body.header {
                let evidence = Evidence::NewViews(header_of(known), header_of(&new_view));
                self.accuse(evidence);
                self.reconsider();
            }
            return;
        }
        if view <= self.entered {
            self.counters.stale_view += 1;
            // Whoever sends it lags behind.
            self.send_new_view(from);
            return;
        }
        for change in &new_view.body.changes {
            if let Some(lock) = change.body.lock.clone() {
                self.consider_lock(change.by, lock);
            }
        }
        self.changing.offered.insert(view, new_view);
        while self.changing.offered.len() > OFFERED_MAX {
            self.changing.offered.pop_first();
        }
        // What was known against its primary counts from now on.
        for evidence in self.evidence.clone() {
            self.note_proof(&evidence);
        }
        self.reconsider();
    }

    // ---- causes ----

    /// Looks for a reason to ask for another view, as long as there is one.
    pub(super) fn reconsider(&mut self) {
        let Changing { campaign, .. } = &self.changing;
        if let Some(Running { why: Why::Refuted(view), .. }) = campaign
            && !self.lock_refutes(*view)
        {
            // The lock that was the reason has given way to one that the view goes together with.
            self.changing.campaign = None;
        }
        while let Some((view, why)) = self.cause() {
            self.campaign_for(view, why);
        }
        self.note_waiting();
    }

    fn asks_above(&self) -> View {
        self.changing.campaign().map_or(self.entered, |view| view.max(self.entered))
    }

    fn lock_view(&self) -> Option<View> {
        self.lock.as_ref().map(|lock| lock.commit.view)
    }

    /// The view must be above that of the lock: it could not be entered.
    fn may_ask_for(&self, view: View) -> bool {
        self.lock_view().is_none_or(|lock| lock < view)
    }

    fn cause(&self) -> Option<(View, Why)> {
        let above = self.asks_above();
        let next = |view: View| {
            let lock = self.lock_view().map_or(View::ZERO, View::next);
            view.next().max(lock)
        };
        let suspected = self
            .suspected_through()
            .filter(|view| *view >= self.entered)
            .map(|view| (next(view), Why::Suspected));
        let proven = self
            .changing
            .proofs
            .last_key_value()
            .filter(|(view, _)| **view >= self.entered)
            .map(|(view, _)| (next(*view), Why::Proven));
        let refuted = std::iter::once(self.entered)
            .chain(self.changing.offered.keys().copied())
            .filter(|view| self.lock_refutes(*view))
            .max()
            .map(|view| (next(view), Why::Refuted(view)));
        [suspected, proven, refuted]
            .into_iter()
            .flatten()
            .filter(|(view, _)| *view > above)
            .max_by_key(|(view, _)| *view)
            .or_else(|| self.followed(above))
    }

    /// The highest view that `f + 1` replicas suspect, it or a later one.
    fn suspected_through(&self) -> Option<View> {
        let mut views: Vec<View> =
            self.changing.suspects.values().map(|suspect| suspect.body.view).collect();
        views.sort_unstable_by(|a, b| b.cmp(a));
        views.get(self.size.quorum(Strength::Weak) - 1).copied()
    }

    /// The smallest view above `above` that `f + 1` others ask for, or one above it.
    fn followed(&self, above: View) -> Option<(View, Why)> {
        let views: Vec<View> = self.asked_by_others().filter(|view| *view > above).collect();
        let enough = self.size.suffices(views.len(), Strength::Weak);
        let smallest = views.into_iter().min().filter(|_| enough)?;
        let lock = self.lock_view().map_or(View::ZERO, View::next);
        Some((smallest.max(lock), Why::Followed))
    }

    /// Cause 3: `base.view <= lock.view < v`, and the head does not extend the lock.
    fn lock_refutes(&self, view: View) -> bool {
        let Some(lock) = self.lock.as_ref().filter(|lock| lock.commit.view < view) else {
            return false;
        };
        let new_view = if view == self.entered {
            self.new_view.as_ref()
        } else {
            self.changing.offered.get(&view)
        };
        let Some(new_view) = new_view else { return false };
        let base = new_view.body.base().map(|base| base.commit.view);
        if base > Some(lock.commit.view) {
            return false;
        }
        let head = new_view.body.header.head;
        let at = lock.position();
        if at.slot > head.slot {
            return true;
        }
        match self.reach(head) {
            Reach::Whole(path) => !self.passes(&path, at),
            Reach::Lacks(_) | Reach::Never => at.slot == head.slot && at.hash != head.hash,
        }
    }

    // ---- campaigns ----

    fn campaign_for(&mut self, view: View, why: Why) {
        self.counters.campaigns += 1;
        self.changing.campaign = Some(Running { view, why, waiting: None });
        let change = self.view_change(view);
        self.send_campaign(Target::Others, change);
    }

    fn view_change(&mut self, view: View) -> Signed<ViewChange> {
        let stamp = self.next_stamp();
        let campaign = self.changing.campaign().map_or(view, |campaign| campaign.max(view));
        let change = self.sign(ViewChange {
            view,
            campaign,
            entered: self.entered,
            lock: self.lock.clone(),
            stable: self.stable(),
            head: self.history.head(),
            stamp,
        });
        self.keep_change(change.clone());
        change
    }

    fn send_campaign(&mut self, to: Target, change: Signed<ViewChange>) {
        let entered = self.entered;
        let newest = self.changing.newest.values();
        let others = newest.filter(|change| change.body.campaign > entered).cloned().collect();
        let suspects = self
            .changing
            .suspects
            .values()
            .filter(|suspect| suspect.body.view >= self.entered)
            .cloned()
            .collect();
        let proof = self.changing.proofs.last_key_value().map(|(_, proof)| Box::new(proof.clone()));
        let campaign = Campaign { change, suspects, proof, others };
        // It speaks of the head and the lock, which must be found again after a crash.
        self.send(to, Message::Campaign(Box::new(campaign)));
    }

    /// The lock was raised: what was asked for with the old one is asked for anew.
    pub(super) fn renew_campaign(&mut self) {
        let Some(campaign) = self.changing.campaign else { return };
        if self.may_ask_for(campaign.view) {
            let change = self.view_change(campaign.view);
            self.send_campaign(Target::Others, change);
        }
    }

    /// Sends again what may have been lost, and is still of use.
    pub(super) fn repeat_campaign(&mut self) {
        let me = self.setup.id;
        let own = self.changing.suspects.get(&me).cloned();
        if let Some(suspect) = own.filter(|suspect| suspect.body.view >= self.entered) {
            self.send(Target::Others, Message::Suspect(suspect));
        }
        if let Some(campaign) = self.changing.campaign {
            self.changing.answered.clear();
            if self.may_ask_for(campaign.view) {
                // Made anew: its word is newer than that of a status sent meanwhile.
                let change = self.view_change(campaign.view);
                self.send_campaign(Target::Others, change);
            }
        }
    }

    /// The views that others ask for: those whose newest word is that they ask for one, and whose
    /// view change is here. What cannot be shown to others must not count: of two replicas that are
    /// alone together, one would stop serving, and the other would not know why.
    fn asked_by_others(&self) -> impl Iterator<Item = View> {
        self.peers.iter().filter_map(|(id, peer)| {
            let asked = peer.campaign()?;
            let shown = self.changing.newest.get(id)?.body.campaign;
            Some(asked.min(shown)).filter(|view| *view > self.entered)
        })
    }

    /// How many replicas are known by their newest word to ask for `view` or a later one.
    fn campaigners(&self, view: View) -> usize {
        let own = self.changing.campaign().is_some_and(|own| own >= view);
        let others = self.asked_by_others().filter(|asked| *asked >= view).count();
        others + usize::from(own)
    }

    /// Whether the view entered goes on. To ask for another one does not end it; that enough ask
    /// for another one does, or a proof against its primary.
    pub(super) fn is_serving(&self) -> bool {
        let leaving = self.changing.campaign.is_some()
            && self.size.suffices(self.campaigners(self.entered.next()), Strength::Weak);
        !leaving && !self.proof_against(self.entered)
    }

    fn note_waiting(&mut self) {
        let now = self.now.instant;
        if let Some(campaign) = self.changing.campaign {
            let enough = self.size.suffices(self.campaigners(campaign.view), Strength::Weak);
            let waiting = enough.then(|| campaign.waiting.unwrap_or(now));
            self.changing.campaign = Some(Running { waiting, ..campaign });
        }
        // A campaign for the lock's own view is for one that could not be entered anew.
        let ahead = self.lock_view().is_some_and(|view| {
            view > self.entered && self.changing.campaign().is_none_or(|own| own <= view)
        });
        self.changing.lock_ahead_since =
            ahead.then(|| self.changing.lock_ahead_since.unwrap_or(now));
    }

    fn wait_ms(&self) -> u64 {
        let tuning = &self.setup.tuning;
        let doubled =
            tuning.view_change_timeout_ms.saturating_mul(1 << self.changing.waits.min(20));
        doubled.min(tuning.view_change_timeout_max_ms)
    }

    fn waited_at(&self) -> Option<Instant> {
        Some(self.changing.campaign?.waiting?.after_ms(self.wait_ms()))
    }

    fn lock_ahead_at(&self) -> Option<Instant> {
        Some(self.changing.lock_ahead_since?.after_ms(self.wait_ms()))
    }

    fn gathered_at(&self) -> Option<Instant> {
        let now = self.now.instant;
        let delay = self.setup.tuning.weak_view_delay_ms;
        // What is past and did not begin waits for messages, not for time.
        let ends = self.changing.gathered.values().map(|gathered| gathered.after_ms(delay));
        ends.filter(|at| *at > now).min()
    }

    /// The next time at which something here is due.
    pub(super) fn change_at(&self) -> Option<Instant> {
        let patience = if self.has_suspected() {
            [None, None]
        } else {
            let of_orders = self.order_patience_at().filter(|_| !self.is_primary());
            [of_orders, self.strong_patience_at()]
        };
        patience
            .into_iter()
            .chain([self.waited_at(), self.lock_ahead_at(), self.gathered_at()])
            .flatten()
            .min()
    }

    /// What time alone brings about.
    pub(super) fn tend_patience(&mut self) {
        self.lose_patience();
        let now = self.now.instant;
        if self.waited_at().is_some_and(|at| at <= now)
            && let Some(campaign) = self.changing.campaign
        {
            self.changing.waits += 1;
            let view = campaign.view.next().max(self.lock_view().map_or(View::ZERO, View::next));
            self.campaign_for(view, Why::Waited);
            self.reconsider();
        }
        if self.lock_ahead_at().is_some_and(|at| at <= now)
            && let Some(view) = self.lock_view()
        {
            self.changing.waits += 1;
            self.changing.lock_ahead_since = None;
            self.campaign_for(view.next(), Why::LockAhead);
            self.reconsider();
        }
    }

    /// A view was entered: campaigns for it or below are over.
    pub(super) fn end_campaign(&mut self, entered: View) {
        let changing = &mut self.changing;
        changing.campaign = None;
        changing.answered.clear();
        changing.gathered.clear();
        changing.offered = changing.offered.split_off(&entered.next());
        changing.barred = changing.barred.split_off(&entered.next());
        changing.proofs = changing.proofs.split_off(&entered);
        changing.waiting_since = None;
        changing.strong_since = None;
        changing.lock_ahead_since = None;
        changing.changes.remove(&self.setup.id);
        for kept in changing.changes.values_mut() {
            *kept = kept.split_off(&entered.next());
        }
    }

    // ---- other histories ----

    /// A certificate of whatever view is known: a lock, once its batches are here.
    pub(super) fn consider_lock(&mut self, from: ReplicaId, certificate: CommitCertificate) {
        let is_higher = |known: &CommitCertificate| known.rank() < certificate.rank();
        if !self.lock.as_ref().is_none_or(is_higher) {
            return;
        }
        if self.candidates.get(&from).is_none_or(is_higher) {
            self.candidates.insert(from, certificate);
        }
    }

    /// Raises the lock to the highest certificate whose batches are here.
    fn tend_candidates(&mut self) {
        if self.candidates.is_empty() {
            return;
        }
        let rank = self.lock.as_ref().map(CommitCertificate::rank);
        self.candidates.retain(|_, certificate| Some(certificate.rank()) > rank);
        let mut known: Vec<(ReplicaId, CommitCertificate)> =
            self.candidates.iter().map(|(from, c)| (*from, c.clone())).collect();
        known.sort_by_key(|(_, certificate)| std::cmp::Reverse(certificate.rank()));
        for (from, certificate) in known {
            match self.reach(certificate.position()) {
                Reach::Whole(path) => {
                    self.candidates.remove(&from);
                    self.raise_lock(certificate, &path);
                    return;
                }
                Reach::Never => {
                    self.candidates.remove(&from);
                }
                Reach::Lacks(_) => {}
            }
        }
    }

    /// Where the lock is of the view entered and its history extends the own, its slots are the
    /// next ones: the certificate stands in for orders.
    fn extend_to_lock(&mut self) {
        let lock = self.lock.as_ref().filter(|lock| lock.commit.view == self.entered);
        let Some(end) = lock.filter(|_| self.lock_aside).map(CommitCertificate::position) else {
            return;
        };
        let Reach::Whole(path) = self.reach(end) else { return };
        if path.footing != super::branch::Footing::Common(self.history.head().slot) {
            return;
        }
        for hash in &path.above {
            let Some(side) = self.branches.get(hash).cloned() else { return };
            if self.history.goes_through(Position { slot: side.slot, hash: *hash }) {
                // The slot before let one through that waited here.
                continue;
            }
            let order = side.order.filter(|order| order.body.header.view == self.entered);
            self.accept(*hash, side.batch, order, |_| ());
        }
    }

    /// The histories that are wanted now, with who has them.
    fn wishes(&self) -> Vec<Wish> {
        let mut wishes: Vec<Wish> = Vec::new();
        let mut wish = |end: Position, holder: ReplicaId| {
            if end.slot == Slot::GENESIS {
                return;
            }
            match wishes.iter_mut().find(|wish| wish.end == end) {
                Some(known) => known.holders.push(holder),
                None => wishes.push(Wish { end, holders: vec![holder] }),
            }
        };
        for (from, certificate) in &self.candidates {
            wish(certificate.position(), *from);
        }
        for (view, new_view) in &self.changing.offered {
            wish(new_view.body.header.head, new_view.by);
            for (id, peer) in &self.peers {
                if peer.entered() == Some(*view) {
                    wish(new_view.body.header.head, *id);
                }
            }
        }
        let changes = self.own_views().into_iter().flat_map(|view| self.gathered_changes(view));
        for change in changes {
            if let Some(lock) = &change.body.lock {
                wish(lock.position(), change.by);
            }
            wish(change.body.head, change.by);
        }
        if !self.proof_against(self.entered) {
            for id in &self.divergent {
                if let Some(head) =
                    self.peers.get(id).and_then(|peer| peer.position_in(self.entered))
                {
                    wish(head, *id);
                }
            }
        }
        let of_view = self.lock.as_ref().filter(|lock| lock.commit.view == self.entered);
        if let Some(lock) = of_view.filter(|_| self.lock_aside) {
            for id in self.size.members().filter(|id| *id != self.setup.id) {
                wish(lock.position(), id);
            }
        }
        if let Some(whole) = &self.ready {
            for id in self.size.members().filter(|id| *id != self.setup.id) {
                wish(whole.proof.cover.position(), id);
            }
        }
        wishes
    }

    /// Looks after everything that is fetched, and does what has become possible with it.
    pub(super) fn tend_views(&mut self) {
        if !self.changing.is_busy()
            && self.candidates.is_empty()
            && self.divergent.is_empty()
            && self.ready.is_none()
            && self.transfer.is_none()
            && self.branches.len() == 0
        {
            self.branches.rest();
            return;
        }
        // Each step may make another one possible.
        for _ in 0..8 {
            let before =
                (self.entered, self.lock.as_ref().map(CommitCertificate::rank), self.stable());
            self.tend_candidates();
            self.extend_to_lock();
            self.tend_transfer();
            self.enter_offered();
            self.begin_views();
            let proven = self.proof_against(self.entered);
            for id in self.divergent.clone().into_iter().filter(|_| !proven) {
                let head = self.peers.get(&id).and_then(|peer| peer.position_in(self.entered));
                if let Some(head) = head {
                    self.prove_divergence(head);
                }
            }
            self.reconsider();
            let after =
                (self.entered, self.lock.as_ref().map(CommitCertificate::rank), self.stable());
            if after == before {
                break;
            }
        }
        let wishes = self.wishes();
        self.fetch_branches(&wishes);
    }

    // ---- entering ----

    fn enter_offered(&mut self) {
        let views: Vec<View> = self.changing.offered.keys().rev().copied().collect();
        for view in views {
            if self.changing.barred.contains(&view) {
                continue;
            }
            let Some(new_view) = self.changing.offered.get(&view).cloned() else { continue };
            match self.entrance(&new_view.body) {
                Entrance::Open(path) => {
                    self.adopt(Some(new_view), &path);
                    self.reconsider();
                    return;
                }
                Entrance::Shut => self.prove_new_view_refuted(&new_view),
                Entrance::Barred => {
                    self.counters.new_views_refused += 1;
                    self.changing.barred.insert(view);
                }
            }
        }
    }

    /// The views that this replica leads and asks for, or asked for because others do.
    fn own_views(&self) -> Vec<View> {
        let own = self.changing.changes.get(&self.setup.id);
        own.into_iter()
            .flat_map(|kept| kept.keys().copied())
            .filter(|view| {
                *view > self.entered && view.primary(self.size.replicas()) == self.setup.id
            })
            .collect()
    }

    /// The view changes that count for a view.
    fn gathered_changes(&self, view: View) -> Vec<&Signed<ViewChange>> {
        self.changing
            .changes
            .iter()
            .filter(|(by, _)| {
                // Who has entered this view or a later one takes no part any more.
                **by == self.setup.id
                    || self.peers.get(by).and_then(super::status::Peer::entered) < Some(view)
            })
            .filter_map(|(_, kept)| kept.get(&view))
            .collect()
    }

    /// As primary of a view asked for, begins it when enough ask for it.
    fn begin_views(&mut self) {
        for view in self.own_views() {
            if view > self.entered {
                self.begin_view_as_primary(view);
            }
        }
    }

    fn begin_view_as_primary(&mut self, view: View) {
        let changes: Vec<Signed<ViewChange>> =
            self.gathered_changes(view).into_iter().cloned().collect();
        if !self.size.suffices(changes.len(), Strength::Weak) {
            return;
        }
        let now = self.now.instant;
        let gathered = *self.changing.gathered.entry(view).or_insert(now);
        let late = gathered.after_ms(self.setup.tuning.weak_view_delay_ms) <= now;
        let strong = self.size.suffices(changes.len(), Strength::Strong);
        if !strong && !late {
            return;
        }
        let mut complete = true;
        let chosen: Vec<Signed<ViewChange>> = changes
            .into_iter()
            .filter(|change| match &change.body.lock {
                None => true,
                Some(lock) => match self.reach(lock.position()) {
                    Reach::Whole(_) => true,
                    // A lock below all that is in memory is below what is stable.
                    Reach::Never => lock.commit.slot <= self.history.base().slot,
                    Reach::Lacks(_) => {
                        complete = false;
                        false
                    }
                },
            })
            .collect();
        let own = chosen.iter().find(|change| change.by == self.setup.id);
        let current = own.is_some_and(|own| {
            own.body.lock_rank() == self.lock.as_ref().map(CommitCertificate::rank)
        });
        if !current || !self.size.suffices(chosen.len(), Strength::Weak) {
            return;
        }
        let base = chosen
            .iter()
            .filter_map(|change| change.body.lock.as_ref())
            .max_by_key(|lock| lock.rank())
            .cloned();
        let mut best: Option<Path> = None;
        let ends = chosen.iter().map(|change| change.body.head).chain([self.history.head()]);
        let mut ends: Vec<Position> =
            ends.chain(base.as_ref().map(|base| base.position())).collect();
        ends.sort();
        ends.dedup();
        for end in ends {
            match self.reach(end) {
                Reach::Whole(path) => match self.may_begin_with(&path, base.as_ref()) {
                    Sound::Yes if best.as_ref().is_none_or(|best| best.top() < path.top()) => {
                        best = Some(path);
                    }
                    Sound::NotYet => complete = false,
                    Sound::Yes | Sound::No => {}
                },
                Reach::Lacks(_) => complete = false,
                Reach::Never => {}
            }
        }
        let Some(path) = best.filter(|_| complete || late) else { return };
        self.begin_view_with(view, chosen, &path);
    }

    /// Whether a new view may begin with this history.
    fn may_begin_with(&self, path: &Path, base: Option<&CommitCertificate>) -> Sound {
        if base.is_some_and(|base| !self.passes(path, base.position())) {
            return Sound::No;
        }
        let on_own = match path.footing {
            super::branch::Footing::Common(slot) => slot >= self.stable(),
            super::branch::Footing::State(_) => true,
        };
        if !on_own {
            return Sound::No;
        }
        self.sound(path, base.map_or(Slot::GENESIS, |base| base.commit.slot))
    }

    fn begin_view_with(&mut self, view: View, changes: Vec<Signed<ViewChange>>, path: &Path) {
        let slot = path.top();
        let Some(hash) = self.hash_on(path, slot) else { return };
        let head = Position { slot, hash };
        let header = NewViewHeader { view, head, changes: changes_digest(&changes) };
        let new_view = self.sign(NewView { header, changes });
        if !matches!(self.entrance(&new_view.body), Entrance::Open(_)) {
            return;
        }
        self.counters.new_views_made += 1;
        self.adopt(Some(new_view.clone()), path);
        // One for a view, ever: it leaves when the view is entered on disk.
        self.send(Target::Others, Message::NewView(new_view));
        self.reconsider();
    }

    // ---- what comes too early ----

    /// An order or vote of a view that is not entered yet: likely it will be in a moment.
    pub(super) fn keep_later_order(&mut self, order: Signed<Order>) {
        let header = order.body.header;
        let of_primary = self.changing.orders.values().filter(|kept| kept.by == order.by).count();
        let right = order.by == header.view.primary(self.size.replicas());
        if right && of_primary < LATER_ORDERS_MAX {
            self.changing.orders.entry((header.view, header.slot)).or_insert(order);
        }
    }

    pub(super) fn keep_later_commit(&mut self, vote: &Signed<Commit>) {
        let newer = |known: &Signed<Commit>| {
            (known.body.view, known.body.slot) < (vote.body.view, vote.body.slot)
        };
        if self.changing.commits.get(&vote.by).is_none_or(newer) {
            self.changing.commits.insert(vote.by, vote.clone());
        }
    }

    /// Takes up what came before the view was entered.
    pub(super) fn take_later(&mut self) {
        let entered = self.entered;
        let orders = std::mem::take(&mut self.changing.orders);
        for ((view, _), order) in orders {
            if view == entered {
                self.on_order(order);
            } else if view > entered {
                self.keep_later_order(order);
            }
        }
        let commits = std::mem::take(&mut self.changing.commits);
        for (by, vote) in commits {
            if vote.body.view == entered {
                self.on_commit(&vote);
            } else if vote.body.view > entered {
                self.changing.commits.insert(by, vote);
            }
        }
    }
}

fn header_of(new_view: &Signed<NewView>) -> Signed<NewViewHeader> {
    Signed { body: new_view.body.header, by: new_view.by, signature: new_view.signature }
}
