//! The view entered.

use crate::id::{Slot, View};
use crate::message::NewView;
use crate::signature::Signed;

/// The view entered, what made it begin, and the slot it was entered at: no vote of this view lies below.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Entered {
    view: View,
    new_view: Option<Signed<NewView>>,
    slot: Slot,
}

impl Entered {
    pub(in crate::replica) fn new(new_view: Signed<NewView>, slot: Slot) -> Self {
        Self { view: new_view.body.header.view, new_view: Some(new_view), slot }
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
    fn the_first_view_was_begun_by_nothing_and_every_other_one_by_its_new_view() {
        let first = Entered::default();
        assert_eq!((first.view(), first.slot()), (View::ZERO, Slot::GENESIS));
        assert!(first.new_view().is_none());

        let head = Position { slot: Slot(7), hash: Digest([1; 32]) };
        let header = NewViewHeader { view: View(3), head, changes: Digest([2; 32]) };
        let body = NewView { header, changes: Vec::new() };
        let signed = Signed { body, by: ReplicaId(3), signature: Signature([0; 64]) };
        // With a lock of the view itself it is entered above its head.
        let entered = Entered::new(signed.clone(), Slot(9));
        assert_eq!((entered.view(), entered.slot()), (View(3), Slot(9)));
        assert_eq!(entered.new_view(), Some(&signed));
    }
}
