//! The primary is not to be waited for.

use serde::{Deserialize, Serialize};

use super::Malformed;
use super::position::check_view;
use crate::codec::{Canonical, Sink};
use crate::id::View;

/// Replica to all: "the primary of `view` does not do its work". Zeno's *I hate the primary*.
///
/// `f + 1` of them, for this view or later, are reason enough for anybody to ask for the next one, and so
/// is one with which the primary resigns. Of each replica the highest counts, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Suspect {
    /// The view the sender has entered, or a later one that clocks or lists alone keep it from, or that it
    /// is asked to lead.
    pub view: View,
    /// Whether the sender gives the view up as its primary. Of anybody else it says nothing.
    pub resigns: bool,
}

impl Suspect {
    /// A suspicion, by whoever it is.
    #[must_use]
    pub fn of(view: View) -> Self {
        Self { view, resigns: false }
    }

    /// The word of a primary that cannot lead its view.
    #[must_use]
    pub fn resign(view: View) -> Self {
        Self { view, resigns: true }
    }

    pub(crate) fn check(&self) -> Result<(), Malformed> {
        check_view(self.view)
    }
}

impl Canonical for Suspect {
    const TAG: &'static str = "suspect";

    fn write(&self, to: &mut impl Sink) {
        to.put_u64(self.view.0);
        to.put_u64(u64::from(self.resigns));
    }
}
