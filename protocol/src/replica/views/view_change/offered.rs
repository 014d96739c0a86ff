//! New views on offer, and what speaks against them.

use std::collections::{BTreeMap, BTreeSet};

use crate::evidence::Evidence;
use crate::id::View;
use crate::message::NewView;
use crate::signature::Signed;

/// New views kept of each primary above the one entered, the newest ones.
const OFFERED_MAX: usize = 2;

/// The new views above the view entered, and the proofs against their primaries and that of the view entered.
#[derive(Clone, Debug, Default)]
pub(super) struct Offered {
    new_views: BTreeMap<View, Signed<NewView>>,
    /// Those that can never be entered.
    barred: BTreeSet<View>,
    proofs: BTreeMap<View, Evidence>,
}

impl Offered {
    /// Keeps one that is not known yet. `false` where newer ones of its primary are kept: of each by
    /// itself, since one that lies must not push out the views of others.
    pub(super) fn offer(&mut self, new_view: Signed<NewView>) -> bool {
        let view = new_view.body.header.view;
        let of_primary = self.new_views.iter().filter(|(_, known)| known.by == new_view.by);
        let views: Vec<View> = of_primary.map(|(view, _)| *view).collect();
        if views.len() >= OFFERED_MAX
            && let Some(oldest) = views.first()
        {
            if *oldest > view {
                return false;
            }
            self.new_views.remove(oldest);
        }
        self.new_views.insert(view, new_view);
        true
    }

    pub(super) fn get(&self, view: View) -> Option<&Signed<NewView>> {
        self.new_views.get(&view)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (View, &Signed<NewView>)> {
        self.new_views.iter().map(|(view, new_view)| (*view, new_view))
    }

    pub(super) fn len(&self) -> usize {
        self.new_views.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.new_views.is_empty()
    }

    /// Those that may be entered some day, the highest first.
    pub(super) fn open(&self) -> Vec<View> {
        let views = self.new_views.keys().rev();
        views.filter(|view| !self.barred.contains(view)).copied().collect()
    }

    /// It breaks the rules, so it is not looked at again.
    pub(super) fn bar(&mut self, view: View) {
        self.barred.insert(view);
    }

    /// Keeps a proof against a primary for what it did in its view. `true` where that is a reason to leave the view,
    /// or not to enter it: it is the one `entered` or on offer, and this is the first proof.
    pub(super) fn note_proof(&mut self, evidence: &Evidence, entered: View) -> bool {
        let view = evidence.view();
        let matters = (view == entered || self.new_views.contains_key(&view))
            && !self.proofs.contains_key(&view);
        if matters {
            self.proofs.insert(view, evidence.clone());
        }
        matters
    }

    /// Whether the primary of this view is known to have lied in it.
    pub(super) fn has_proof_against(&self, view: View) -> bool {
        self.proofs.contains_key(&view)
    }

    /// The proof of the highest view.
    pub(super) fn highest_proof(&self) -> Option<(View, &Evidence)> {
        self.proofs.last_key_value().map(|(view, proof)| (*view, proof))
    }

    /// A view was entered: those up to it are on offer no more. What its primary did still counts.
    pub(super) fn begin_view(&mut self, entered: View) {
        self.new_views = self.new_views.split_off(&entered.next());
        self.barred = self.barred.split_off(&entered.next());
        self.proofs = self.proofs.split_off(&entered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Digest, ReplicaId, Slot};
    use crate::message::{NewViewHeader, Position};
    use crate::signature::Signature;

    fn header(view: u64) -> Signed<NewViewHeader> {
        let head = Position { slot: Slot::GENESIS, hash: Digest::default() };
        let body = NewViewHeader { view: View(view), head, changes: Digest::default() };
        Signed { body, by: View(view).primary(4), signature: Signature([0; 64]) }
    }

    fn new_view(view: u64) -> Signed<NewView> {
        let Signed { body: header, by, signature } = header(view);
        Signed { body: NewView { header, changes: Vec::new() }, by, signature }
    }

    fn views(offered: &Offered) -> Vec<u64> {
        offered.iter().map(|(view, _)| view.0).collect()
    }

    #[test]
    fn the_newest_views_of_each_primary_are_kept_whatever_another_one_offers() {
        let mut offered = Offered::default();
        for view in [2, 5, 9, 13] {
            assert!(offered.offer(new_view(view)));
        }
        assert_eq!(views(&offered), [2, 9, 13]);
        assert_eq!(offered.get(View(2)).map(|new_view| new_view.by), Some(ReplicaId(2)));
        assert!(!offered.offer(new_view(1)), "it is older than those kept");
        assert_eq!(views(&offered), [2, 9, 13]);
    }

    #[test]
    fn what_breaks_the_rules_is_on_offer_and_never_entered() {
        let mut offered = Offered::default();
        for view in [2, 3, 5] {
            offered.offer(new_view(view));
        }
        offered.bar(View(3));
        assert_eq!(offered.open(), [View(5), View(2)]);
        assert_eq!(offered.len(), 3);
        offered.begin_view(View(3));
        assert_eq!(offered.open(), [View(5)]);
    }

    #[test]
    fn a_proof_matters_once_and_until_a_later_view_is_entered() {
        let mut offered = Offered::default();
        let proof = |view| Evidence::NewViews(header(view), header(view));
        assert!(offered.note_proof(&proof(1), View(1)), "of the view entered");
        assert!(!offered.note_proof(&proof(1), View(1)), "it is known");
        assert!(!offered.note_proof(&proof(2), View(1)), "nobody offers that view");
        offered.offer(new_view(2));
        assert!(offered.note_proof(&proof(2), View(1)));
        assert_eq!(offered.highest_proof().map(|(view, _)| view), Some(View(2)));
        offered.begin_view(View(2));
        assert!(offered.has_proof_against(View(2)) && !offered.has_proof_against(View(1)));
    }
}
