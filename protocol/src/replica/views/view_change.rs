//! Another primary: what others say of views, and what is remembered of that. Losing patience, asking for a view and
//! beginning one are in the files below.
//!
//! No cause for a campaign has to be believed. What a peer says is put to what is known here:
//! suspicions, proofs, locks, the newest word of every replica; and then the causes are looked for
//! in that. So whoever receives a proof follows at once, and what proves nothing moves nobody.

mod campaigns;
mod causes;
mod kept_out;
mod new_view;
mod patience;
mod resigning;
mod tending;

use std::collections::{BTreeMap, BTreeSet};

use self::kept_out::KeptOut;
use crate::application::Application;
use crate::evidence::Evidence;
use crate::id::{Instant, ReplicaId, Slot, View};
use crate::message::{
    Campaign, Commit, Message, NewView, NewViewHeader, Order, Position, Suspect, ViewChange,
};
use crate::replica::Replica;
use crate::replica::time::Peer;
use crate::signature::Signed;

/// New views above the one entered, by view.
type Offered = BTreeMap<View, Signed<NewView>>;

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
pub(in crate::replica) struct Changing {
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
    pub(in crate::replica) fn view_changes(&self) -> usize {
        self.changes.values().map(BTreeMap::len).sum::<usize>() + self.newest.len()
    }

    pub(in crate::replica) fn new_views(&self) -> usize {
        self.offered.len()
    }

    pub(in crate::replica) fn of_later_views(&self) -> usize {
        self.orders.len() + self.commits.len()
    }

    pub(in crate::replica) fn campaign(&self) -> Option<View> {
        self.campaign.map(|campaign| campaign.view)
    }

    /// Whether anything is going on that has to be looked after.
    pub(super) fn is_busy(&self) -> bool {
        self.campaign.is_some() || !self.offered.is_empty()
    }
}

impl<A: Application> Replica<A> {
    pub(in crate::replica) fn on_suspect(&mut self, suspect: Signed<Suspect>) {
        self.hear_suspect(suspect);
        self.reconsider();
    }

    fn hear_suspect(&mut self, suspect: Signed<Suspect>) {
        let known = self.changing.suspects.get(&suspect.by);
        if suspect.by != self.setup.id && known.is_none_or(|known| known.body < suspect.body) {
            self.changing.suspects.insert(suspect.by, suspect);
        }
    }

    pub(in crate::replica) fn on_evidence(&mut self, evidence: Evidence) {
        self.accuse(evidence);
        self.reconsider();
    }

    /// A proof is known: whether it is a reason to leave the view, or not to enter it.
    pub(in crate::replica) fn note_proof(&mut self, evidence: &Evidence) -> bool {
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

    pub(in crate::replica) fn on_campaign(&mut self, from: ReplicaId, campaign: Campaign) {
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
        let newer = self.peers.get(&change.by).and_then(Peer::signed_status);
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

    pub(in crate::replica) fn on_new_view(&mut self, from: ReplicaId, new_view: Signed<NewView>) {
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
}

fn header_of(new_view: &Signed<NewView>) -> Signed<NewViewHeader> {
    Signed { body: new_view.body.header, by: new_view.by, signature: new_view.signature }
}
