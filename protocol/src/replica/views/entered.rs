//! The view entered.

use crate::id::{Slot, View};
use crate::message::NewView;
use crate::replica::{EnteredView, Mark};
use crate::signature::Signed;

/// The view entered, what made it begin, and the slot it was entered at: no vote of this view lies below.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Entered {
    view: View,
    new_view: Option<Signed<NewView>>,
    slot: Slot,
    /// The record that says so, if it was written since the start.
    mark: Mark,
    /// Whether it was entered before the start.
    is_from_disk: bool,
}

impl Entered {
    /// A view that is entered now; this record says so.
    pub(in crate::replica) fn new(new_view: Signed<NewView>, slot: Slot, mark: Mark) -> Self {
        let view = new_view.body.header.view;
        Self { view, new_view: Some(new_view), slot, mark, is_from_disk: false }
    }

    /// After a start: what is on the disk, where there is anything.
    pub(in crate::replica) fn recovered(entered: Option<EnteredView>, has_run: bool) -> Self {
        let first = Self::default();
        let known = entered.map_or(first, |EnteredView { new_view, entry_slot }| {
            Self::new(new_view, entry_slot, Mark::NONE)
        });
        Self { is_from_disk: has_run, ..known }
    }

    /// The record on which what is said in this view rests at least.
    pub(in crate::replica) fn mark(&self) -> Mark {
        self.mark
    }

    /// Whether it was entered before the start: what was said in it then need not be on the disk, if it was an order.
    pub(in crate::replica) fn is_from_disk(&self) -> bool {
        self.is_from_disk
    }

    pub(in crate::replica) fn view(&self) -> View {
        self.view
    }

    /// What made it begin; nothing where it is the first one.
    pub(in crate::replica) fn new_view(&self) -> Option<&Signed<NewView>> {
        self.new_view.as_ref()
    }

    pub(in crate::replica) fn slot(&self) -> Slot {
        self.slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Digest, ReplicaId};
    use crate::message::{NewViewHeader, Position};
    use crate::signature::Signature;

    #[test]
    fn only_what_was_entered_since_the_start_is_known_in_every_word() {
        assert!(!Entered::recovered(None, false).is_from_disk());
        let entered = Entered::recovered(None, true);
        assert_eq!((entered.view(), entered.mark()), (View::ZERO, Mark::NONE));
        assert!(entered.is_from_disk());
    }

    #[test]
    fn the_first_view_was_begun_by_nothing_and_every_other_one_by_its_new_view() {
        let first = Entered::default();
        assert_eq!((first.view(), first.slot()), (View::ZERO, Slot::GENESIS));
        assert!(first.new_view().is_none() && !first.is_from_disk());

        let head = Position { slot: Slot(7), hash: Digest([1; 32]) };
        let header = NewViewHeader { view: View(3), head, changes: Digest([2; 32]) };
        let body = NewView { header, changes: Vec::new() };
        let signed = Signed { body, by: ReplicaId(3), signature: Signature([0; 64]) };
        // With a lock of the view itself it is entered above its head.
        let entered = Entered::new(signed.clone(), Slot(9), Mark(5));
        assert_eq!((entered.view(), entered.slot()), (View(3), Slot(9)));
        assert_eq!((entered.new_view(), entered.mark()), (Some(&signed), Mark(5)));
        assert!(!entered.is_from_disk());
    }
}
