//! Asking for a view: what goes out, what is sent again, who is known to ask, and when it is over.

use super::campaigning::Why;
use crate::application::Application;
use crate::id::View;
use crate::message::{Campaign, Message, ViewChange};
use crate::quorum::Strength;
use crate::replica::{Replica, Target};
use crate::signature::Signed;

impl<A: Application> Replica<A> {
    pub(super) fn campaign_for(&mut self, view: View, why: Why) {
        self.counters.campaigns += 1;
        if matches!(why, Why::Suspected | Why::Followed) && self.changing.campaign().is_none() {
            self.note_suspicion_of_others();
        }
        self.changing.campaigning.begin(view, why);
        self.ask_for(view);
    }

    /// Sends a view change, made anew.
    pub(super) fn ask_for(&mut self, view: View) {
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
        self.changing.asked.keep(change.clone());
        Some(change)
    }

    fn send_campaign(&mut self, to: Target, change: Signed<ViewChange>) {
        let entered = self.entered();
        let others = self.changing.asked.newest_above(entered).cloned().collect();
        let suspects = self.changing.suspicions.from(entered).cloned().collect();
        let highest = self.changing.offered.highest_proof();
        let proof = highest.map(|(_, proof)| Box::new(proof.clone()));
        let campaign = Campaign { change, suspects, proof, others };
        // It speaks of the head and the lock, which must be found again after a crash.
        self.send(to, Message::Campaign(Box::new(campaign)));
    }

    /// The lock was raised: what was asked for with the old one is asked for anew.
    pub(in crate::replica) fn renew_campaign(&mut self) {
        let Some(view) = self.changing.campaign() else { return };
        if self.may_ask_for(view) {
            self.ask_for(view);
        }
    }

    /// Sends again what may have been lost, and is still of use.
    pub(in crate::replica) fn repeat_campaign(&mut self) {
        let own = self.changing.suspicions.of(self.setup.id).cloned();
        if let Some(suspect) = own.filter(|suspect| suspect.body.view >= self.entered()) {
            self.send_suspect(suspect);
        }
        if let Some(view) = self.changing.campaigning.repeat()
            && self.may_ask_for(view)
        {
            // Made anew: its word is newer than that of a status sent meanwhile.
            self.ask_for(view);
        }
    }

    /// The views that others ask for: those whose newest word is that they ask for one, and whose
    /// view change is here. What cannot be shown to others must not count: of two replicas that are
    /// alone together, one would stop serving, and the other would not know why.
    pub(super) fn asked_by_others(&self) -> impl Iterator<Item = View> {
        self.peers.iter().filter_map(|(id, peer)| {
            let asked = peer.campaign()?;
            let shown = self.changing.asked.newest_of(*id)?.body.campaign;
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
    pub(in crate::replica) fn is_serving(&self) -> bool {
        if self.is_adopting() {
            return false;
        }
        let leaving = self.changing.campaign().is_some()
            && self.size.suffices(self.campaigners(self.entered().next()), Strength::Weak);
        !leaving && !self.proof_against(self.entered())
    }

    pub(super) fn note_waiting(&mut self) {
        let now = self.now.instant;
        if let Some(view) = self.changing.campaign() {
            let is_enough = self.size.suffices(self.campaigners(view), Strength::Weak);
            self.changing.campaigning.note_enough(is_enough, now);
        }
        // A campaign for the lock's own view is for one that could not be entered anew.
        let is_ahead = self.lock_view().is_some_and(|view| {
            view > self.entered() && self.changing.campaign().is_none_or(|own| own <= view)
        });
        self.changing.campaigning.note_lock_ahead(is_ahead, now);
    }

    /// A view was entered: campaigns for it or below are over.
    pub(in crate::replica::views) fn end_campaign(&mut self, entered: View) {
        let changing = &mut self.changing;
        changing.campaigning.end();
        changing.campaigning.forget_lock_ahead();
        changing.offered.begin_view(entered);
        changing.asked.begin_view(entered, self.setup.id);
        changing.patience.begin_view();
        changing.kept_out.forget();
    }

    /// This replica may not ask for anything any more, nor blame anybody.
    pub(in crate::replica) fn forget_own_campaign(&mut self) {
        let me = self.setup.id;
        let changing = &mut self.changing;
        changing.campaigning.end();
        changing.asked.take_back(me);
        changing.suspicions.take_back(me);
        changing.kept_out.forget();
    }
}
