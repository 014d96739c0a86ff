//! Another primary: losing patience, asking for a view, and beginning one.
//!
//! No cause for a campaign has to be believed. What a peer says is put to what is known here:
//! suspicions, proofs, locks, the newest word of every replica; and then the causes are looked for
//! in that. So whoever receives a proof follows at once, and what proves nothing moves nobody.

mod kept_out;
mod new_view;
mod patience;
mod resigning;

use std::collections::{BTreeMap, BTreeSet};

use self::kept_out::KeptOut;
use super::branch::{Reach, Wish};
use super::merge::Offered;
use super::{Replica, Target};
use crate::application::Application;
use crate::evidence::Evidence;
use crate::id::{Instant, ReplicaId, Slot, View};
use crate::message::{
    Campaign, Commit, CommitCertificate, Message, NewView, NewViewHeader, Order, Position, Suspect,
    ViewChange,
};
use crate::quorum::Strength;
use crate::seal::Signed;

/// View changes kept of each replica, the newest ones.
const CHANGES_KEPT: usize = 4;

/// New views kept of each primary above the one entered, the newest ones.
const OFFERED_MAX: usize = 2;

/// Why a replica asks for another view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// `f + 1` replicas suspect the primary.
    Suspected,
    /// The primary has resigned.
    Resigned,
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
    /// As much of `impatience` as primaries that lived are the reason of, and since when that is so.
    lasting: u32,
    impatient_since: Instant,
    /// How late the primary of this view is with what was passed on, on average in microseconds, by how
    /// many requests; and since when that is too much.
    lateness: u64,
    judged: u32,
    limps_at: Option<Instant>,
    /// Whether the present wait was made longer, since this replica itself had stood still.
    was_late: bool,
    /// Whether it was made longer, since the primary's order is here and only what it names is not.
    was_ordered: bool,
    /// Since when what waits has waited.
    waiting_since: Option<Instant>,
    /// When to look whether a single request has waited too long while others were ordered, and how
    /// often patience with that has doubled.
    fair_at: Option<Instant>,
    unfairness: u32,
    /// Since when an executed strong request has waited for a certificate.
    strong_since: Option<Instant>,
    /// Views that clocks or lists keep somebody out of.
    kept_out: KeptOut,
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
    // ---- what others say ----

    pub(super) fn on_suspect(&mut self, suspect: Signed<Suspect>) {
        self.hear_suspect(suspect);
        self.reconsider();
    }

    fn hear_suspect(&mut self, suspect: Signed<Suspect>) {
        let known = self.changing.suspects.get(&suspect.by);
        if suspect.by != self.setup.id && known.is_none_or(|known| known.body < suspect.body) {
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
            && (view == self.entered() || self.changing.offered.contains_key(&view))
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
        if from == by && view <= self.entered() {
            self.send_new_view(by);
        }
        let own = self.lock.get().filter(|own| Some(own.rank()) > rank).cloned();
        if let Some(own) = own.filter(|_| from == by) {
            self.send_charged(by, Message::Certificate(own));
        }
        // The lowest campaign gathers the component.
        let below = self.changing.campaign.is_some_and(|own| view < own.view);
        if view > self.entered()
            && below
            && self.may_ask_for(view)
            && self.changing.answered.insert(view)
        {
            self.ask_for(view);
        }
        self.reconsider();
    }

    /// A peer passes on what another replica asked for. If that one has said something newer since,
    /// the peer is told: it might count on a campaign that is over.
    fn correct_stale_word(&mut self, peer: ReplicaId, change: &Signed<ViewChange>) {
        let newer = self.peers.get(&change.by).and_then(super::status::Peer::signed_status);
        let newer = newer.filter(|status| status.body.stamp > change.body.stamp).cloned();
        if let Some(status) = newer {
            self.send_charged(peer, Message::Status(status));
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
            self.lock.note_candidate(by, lock);
        }
        if body.view > self.entered() {
            self.keep_change(change);
        }
    }

    /// The heads that a replica has named when it asked for views, as far as these words are kept.
    pub(super) fn heads_asked_with(&self, id: ReplicaId) -> impl Iterator<Item = Position> + '_ {
        let own = self.changing.changes.get(&id).into_iter().flatten().map(|(_, change)| change);
        let offered = self.changing.offered.values().flat_map(|offer| &offer.body.changes);
        let newest = self.changing.newest.get(&id);
        let all = own.chain(newest).chain(offered).filter(move |change| change.by == id);
        all.map(|change| change.body.head)
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
        let known = if view == self.entered() {
            self.view.new_view()
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
        if view <= self.entered() {
            self.counters.stale_view += 1;
            // Whoever sends it lags behind.
            self.send_new_view(from);
            return;
        }
        for change in &new_view.body.changes {
            if let Some(lock) = change.body.lock.clone() {
                self.lock.note_candidate(change.by, lock);
            }
        }
        // Of each primary by itself: one that lies must not push out the views of others.
        let of_primary = self.changing.offered.iter().filter(|(_, known)| known.by == new_view.by);
        let views: Vec<View> = of_primary.map(|(view, _)| *view).collect();
        if views.len() >= OFFERED_MAX
            && let Some(oldest) = views.first()
        {
            if *oldest > view {
                return;
            }
            self.changing.offered.remove(oldest);
        }
        self.changing.offered.insert(view, new_view);
        // What was known against its primary counts from now on.
        for evidence in self.evidence.clone() {
            self.note_proof(&evidence);
        }
        self.reconsider();
    }

    // ---- causes ----

    /// Looks for a reason to ask for another view, as long as there is one.
    pub(super) fn reconsider(&mut self) {
        if !self.may_vote() {
            return;
        }
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
        self.resign();
    }

    fn asks_above(&self) -> View {
        self.changing.campaign().map_or(self.entered(), |view| view.max(self.entered()))
    }

    fn lock_view(&self) -> Option<View> {
        self.lock.get().map(|lock| lock.commit.view)
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
            .filter(|view| *view >= self.entered())
            .map(|view| (next(view), Why::Suspected));
        let proven = self
            .changing
            .proofs
            .last_key_value()
            .filter(|(view, _)| **view >= self.entered())
            .map(|(view, _)| (next(*view), Why::Proven));
        let refuted = std::iter::once(self.entered())
            .chain(self.changing.offered.keys().copied())
            .filter(|view| self.lock_refutes(*view))
            .max()
            .map(|view| (next(view), Why::Refuted(view)));
        let resigned = self.resigned().map(|view| (next(view), Why::Resigned));
        [suspected, resigned, proven, refuted]
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
        let Some(lock) = self.lock.get().filter(|lock| lock.commit.view < view) else {
            return false;
        };
        let new_view = if view == self.entered() {
            self.view.new_view()
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
            // Where it meets the own history is not known, or was given up. What is here of it says
            // enough if it goes down to the lock.
            Reach::Lacks(_) | Reach::NotYet | Reach::Never => {
                self.hash_below(head, at.slot).is_some_and(|hash| hash != at.hash)
            }
        }
    }

    // ---- campaigns ----

    fn campaign_for(&mut self, view: View, why: Why) {
        self.counters.campaigns += 1;
        if matches!(why, Why::Suspected | Why::Followed) && self.changing.campaign.is_none() {
            self.note_suspicion_of_others();
        }
        self.changing.campaign = Some(Running { view, why, waiting: None });
        self.ask_for(view);
    }

    /// Sends a view change, made anew.
    fn ask_for(&mut self, view: View) {
        if let Some(change) = self.view_change(view) {
            self.send_campaign(Target::Others, change);
        }
    }

    fn view_change(&mut self, view: View) -> Option<Signed<ViewChange>> {
        let stamp = self.next_stamp();
        let campaign = self.changing.campaign().map_or(view, |campaign| campaign.max(view));
        let change = self.cast(ViewChange {
            view,
            campaign,
            entered: self.entered(),
            lock: self.lock.get().cloned(),
            stable: self.stable(),
            head: self.tip(),
            stamp,
        })?;
        self.keep_change(change.clone());
        Some(change)
    }

    fn send_campaign(&mut self, to: Target, change: Signed<ViewChange>) {
        let entered = self.entered();
        let newest = self.changing.newest.values();
        let others = newest.filter(|change| change.body.campaign > entered).cloned().collect();
        let suspects = self
            .changing
            .suspects
            .values()
            .filter(|suspect| suspect.body.view >= self.entered())
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
            self.ask_for(campaign.view);
        }
    }

    /// Sends again what may have been lost, and is still of use.
    pub(super) fn repeat_campaign(&mut self) {
        let me = self.setup.id;
        let own = self.changing.suspects.get(&me).cloned();
        if let Some(suspect) = own.filter(|suspect| suspect.body.view >= self.entered()) {
            self.send_suspect(suspect);
        }
        if let Some(campaign) = self.changing.campaign {
            self.changing.answered.clear();
            if self.may_ask_for(campaign.view) {
                // Made anew: its word is newer than that of a status sent meanwhile.
                self.ask_for(campaign.view);
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
            Some(asked.min(shown)).filter(|view| *view > self.entered())
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
        if self.is_adopting() {
            return false;
        }
        let leaving = self.changing.campaign.is_some()
            && self.size.suffices(self.campaigners(self.entered().next()), Strength::Weak);
        !leaving && !self.proof_against(self.entered())
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
            view > self.entered() && self.changing.campaign().is_none_or(|own| own <= view)
        });
        self.changing.lock_ahead_since =
            ahead.then(|| self.changing.lock_ahead_since.unwrap_or(now));
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
        changing.fair_at = None;
        changing.strong_since = None;
        changing.lock_ahead_since = None;
        changing.kept_out.forget();
        changing.changes.remove(&self.setup.id);
        for kept in changing.changes.values_mut() {
            *kept = kept.split_off(&entered.next());
        }
    }

    /// This replica may not ask for anything any more, nor blame anybody.
    pub(super) fn forget_own_campaign(&mut self) {
        let me = self.setup.id;
        let changing = &mut self.changing;
        changing.campaign = None;
        changing.answered.clear();
        changing.gathered.clear();
        changing.changes.remove(&me);
        changing.suspects.remove(&me);
        changing.kept_out.forget();
    }

    // ---- other histories ----

    /// Raises the lock to the highest certificate whose batches are here.
    fn tend_candidates(&mut self) {
        for (from, certificate) in self.lock.highest_candidates() {
            match self.reach(certificate.position()) {
                Reach::Whole(path) => {
                    self.lock.forget_candidate(from);
                    self.raise_lock(certificate, &path);
                    return;
                }
                Reach::Never => {
                    self.lock.forget_candidate(from);
                }
                Reach::Lacks(_) | Reach::NotYet => {}
            }
        }
    }

    /// Where the lock is of the view entered and its history extends the own, its slots are the
    /// next ones: the certificate stands in for orders.
    fn extend_to_lock(&mut self) {
        let lock = self.lock.aside().filter(|lock| lock.commit.view == self.entered());
        let Some(end) = lock.map(CommitCertificate::position) else {
            return;
        };
        let Reach::Whole(path) = self.reach(end) else { return };
        if path.footing != super::branch::Footing::Common(self.history.head().slot) {
            return;
        }
        for slot in (path.footing.slot().next().0..=path.top().0).map(Slot) {
            let Some((at, side)) = self.side_on(&path, slot) else { return };
            let side = side.clone();
            if self.must_wait_for_state() {
                return;
            }
            if self.history.goes_through(at) {
                // The slot before let one through that waited here.
                continue;
            }
            if !self.turn.take() {
                return;
            }
            let order = side.order.filter(|order| order.body.header.view == self.entered());
            self.accept(at.hash, side.batch, order, |_| ());
        }
    }

    /// The histories that are wanted now, with who has them.
    fn wishes(&self) -> Vec<Wish> {
        let mut wishes: Vec<Wish> = Vec::new();
        let mut wish = |end: Position, holder: ReplicaId, word: Option<ReplicaId>| {
            if end.slot == Slot::GENESIS {
                return;
            }
            match wishes.iter_mut().find(|wish| wish.end == end) {
                Some(known) => {
                    known.holders.push(holder);
                    // What is proved needs nobody's word.
                    known.word = known.word.and(word);
                }
                None => wishes.push(Wish { end, holders: vec![holder], word }),
            }
        };
        for (from, certificate) in self.lock.candidates() {
            wish(certificate.position(), *from, None);
        }
        for (view, new_view) in &self.changing.offered {
            wish(new_view.body.header.head, new_view.by, Some(new_view.by));
            for (id, peer) in &self.peers {
                if peer.entered() == Some(*view) {
                    wish(new_view.body.header.head, *id, Some(new_view.by));
                }
            }
        }
        let changes = self.own_views().into_iter().flat_map(|view| self.gathered_changes(view));
        for change in changes {
            if let Some(lock) = &change.body.lock {
                wish(lock.position(), change.by, None);
            }
            wish(change.body.head, change.by, Some(change.by));
        }
        if !self.proof_against(self.entered()) {
            for id in &self.divergent {
                if let Some(end) = self.peers.get(id).and_then(|peer| peer.pursued) {
                    wish(end, *id, Some(*id));
                }
            }
        }
        let aside = self.lock.aside().filter(|lock| lock.commit.view == self.entered());
        if let Some(lock) = aside {
            for id in self.size.members().filter(|id| *id != self.setup.id) {
                wish(lock.position(), id, None);
            }
        }
        if let Some(whole) = self.arriving.ready() {
            for id in self.size.members().filter(|id| *id != self.setup.id) {
                wish(whole.proof.cover.position(), id, None);
            }
        }
        wishes
    }

    /// Who follows another history in the view entered: one end after the other, each to the end, however
    /// often that one says another. So an honest history is followed although it goes on meanwhile.
    fn pursue(&mut self) {
        let patience = 2 * usize::from(self.size.replicas());
        let ids: Vec<ReplicaId> = self.peers.keys().copied().collect();
        for id in ids {
            let Some(peer) = self.peers.get(&id) else { continue };
            let head = peer.position_in(self.entered()).filter(|_| self.divergent.contains(&id));
            let open = peer.pursued.filter(|end| {
                let is_open = matches!(self.reach(*end), Reach::Lacks(_) | Reach::NotYet);
                is_open && self.branches.asked_in_vain(*end) < patience
            });
            let pursued = head.and(open).or(head);
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.pursued = pursued;
            }
        }
    }

    /// Looks after everything that is fetched, and does what has become possible with it.
    pub(super) fn tend_views(&mut self) {
        if !self.changing.is_busy()
            && self.lock.candidates().is_empty()
            && self.divergent.is_empty()
            && self.arriving.is_empty()
            && !self.is_distrusted()
            && self.branches.is_empty()
        {
            self.branches.clear();
            self.note_kept_out(None);
            return;
        }
        self.follow_trails();
        self.pursue();
        // Each step may make another one possible.
        for _ in 0..8 {
            let before = (self.entered(), self.lock.rank(), self.stable());
            self.tend_candidates();
            self.extend_to_lock();
            self.tend_transfer();
            if !self.enter_offered() {
                self.begin_views();
            }
            if self.is_adopting() {
                return;
            }
            let proven = self.proof_against(self.entered());
            for id in self.divergent.clone().into_iter().filter(|_| !proven) {
                let end = self.peers.get(&id).and_then(|peer| peer.pursued);
                if let Some(end) = end {
                    self.prove_divergence(end);
                }
            }
            self.reconsider();
            let after = (self.entered(), self.lock.rank(), self.stable());
            if after == before {
                break;
            }
        }
        let wishes = self.wishes();
        self.fetch_branches(&wishes);
    }
}

fn header_of(new_view: &Signed<NewView>) -> Signed<NewViewHeader> {
    Signed { body: new_view.body.header, by: new_view.by, signature: new_view.signature }
}
