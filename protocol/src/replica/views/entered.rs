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
