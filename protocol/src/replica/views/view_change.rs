//! Another primary: what others say of views. What is remembered of that, losing patience, asking for a view and
//! beginning one are in the files below.
//!
//! No cause for a campaign has to be believed. What a peer says is put to what is known here:
//! suspicions, proofs, locks, the newest word of every replica; and then the causes are looked for
//! in that. So whoever receives a proof follows at once, and what proves nothing moves nobody.
//!
//! | part | what it remembers | who makes use of it |
//! |---|---|---|
//! | `suspicions` | who suspects which view | `causes`, `patience`, `resigning`, `kept_out` |
//! | `asked` | who asks for which | `campaigns`, `new_view` |
//! | `offered` | new views, and what speaks against them | `causes`, `new_view`, `tending` |
//! | `campaigning` | what this replica asks for, and since when | `campaigns`, `causes`, `patience` |
//! | `patience` | how long the primary is waited for; each wait is a part of its own below it | itself |
//! | `kept_out` | views that clocks or lists keep somebody out of | itself |
//! | `early` | what came for views that are not entered yet | `new_view` |

mod asked;
mod campaigning;
mod campaigns;
mod causes;
mod early;
mod kept_out;
mod new_view;
mod offered;
mod patience;
mod resigning;
mod suspicions;
mod tending;

use self::asked::Asked;
use self::campaigning::Campaigning;
use self::early::Early;
use self::kept_out::KeptOut;
use self::offered::Offered;
use self::patience::Patience;
use self::suspicions::Suspicions;
use crate::application::Application;
use crate::evidence::Evidence;
use crate::id::{ReplicaId, View};
use crate::message::{Campaign, Message, NewView, NewViewHeader, Position, Suspect, ViewChange};
use crate::replica::Replica;
use crate::replica::time::Peer;
use crate::signature::Signed;

/// All about views other than the one entered, and whether it is to be left.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Changing {
    /// Who suspects which view.
    suspicions: Suspicions,
    /// Who asks for which.
    asked: Asked,
    /// Which ones could be entered, and what speaks against them.
    offered: Offered,
    /// Which one this replica asks for.
    campaigning: Campaigning,
    /// How long the primary of the view entered is waited for.
    patience: Patience,
    /// Views that clocks or lists keep somebody out of.
    kept_out: KeptOut,
    /// What came for views that are not entered yet.
    early: Early,
    /// The view asked for, or gone on with, when this replica was told that it would be stopped.
    leaving: Option<View>,
}

impl Changing {
    pub(in crate::replica) fn view_changes(&self) -> usize {
        self.asked.len()
    }

    pub(in crate::replica) fn new_views(&self) -> usize {
        self.offered.len()
    }

    pub(in crate::replica) fn of_later_views(&self) -> usize {
        self.early.len()
    }

    pub(in crate::replica) fn campaign(&self) -> Option<View> {
        self.campaigning.view()
    }

    /// Whether anything is going on that has to be looked after.
    pub(super) fn is_busy(&self) -> bool {
        self.campaign().is_some() || !self.offered.is_empty()
    }
}

impl<A: Application> Replica<A> {
    pub(in crate::replica) fn on_suspect(&mut self, suspect: Signed<Suspect>) {
        self.hear_suspect(suspect);
        self.reconsider();
    }

    fn hear_suspect(&mut self, suspect: Signed<Suspect>) {
        if suspect.by != self.setup.id {
            self.changing.suspicions.hear(suspect);
        }
    }

    pub(in crate::replica) fn on_evidence(&mut self, evidence: Evidence) {
        self.accuse(evidence);
        self.reconsider();
    }

    /// A proof is known: whether it is a reason to leave the view, or not to enter it.
    pub(in crate::replica) fn note_proof(&mut self, evidence: &Evidence) -> bool {
        let entered = self.entered();
        evidence.convicts_primary(self.size.replicas())
            && self.changing.offered.note_proof(evidence, entered)
    }

    /// Whether the primary of this view is known to have lied in it.
    pub(super) fn proof_against(&self, view: View) -> bool {
        self.changing.offered.has_proof_against(view)
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
        if view > self.entered() && self.may_ask_for(view) && self.changing.campaigning.joins(view)
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
        if let Some(lock) = body.lock.clone() {
            self.lock.note_candidate(by, lock);
        }
        let entered = self.entered();
        self.changing.asked.hear(change, entered);
    }

    /// The heads that a replica has named when it asked for views, as far as these words are kept.
    pub(super) fn heads_asked_with(&self, id: ReplicaId) -> impl Iterator<Item = Position> + '_ {
        let offered = self.changing.offered.iter().flat_map(|(_, offer)| &offer.body.changes);
        let offered = offered.filter(move |change| change.by == id);
        self.changing.asked.of(id).chain(offered).map(|change| change.body.head)
    }

    /// What made the view entered begin, or would make one begin that is on offer.
    fn new_view_of(&self, view: View) -> Option<&Signed<NewView>> {
        if view == self.entered() { self.view.new_view() } else { self.changing.offered.get(view) }
    }

    pub(in crate::replica) fn on_new_view(&mut self, from: ReplicaId, new_view: Signed<NewView>) {
        let view = new_view.body.header.view;
        if let Some(known) = self.new_view_of(view) {
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
        if !self.changing.offered.offer(new_view) {
            return;
        }
        // What was known against its primary counts from now on.
        for evidence in self.proofs.all().to_vec() {
            self.note_proof(&evidence);
        }
        self.reconsider();
    }
}

fn header_of(new_view: &Signed<NewView>) -> Signed<NewViewHeader> {
    Signed { body: new_view.body.header, by: new_view.by, signature: new_view.signature }
}
