//! Views and positions, as messages name them.

use serde::{Deserialize, Serialize};

use super::Malformed;
use crate::codec::Sink;
use crate::id::{Digest, Slot, View};

/// The highest view that is spoken of: far beyond what any cluster reaches, and far enough below
/// the end of the numbers that nothing overflows.
pub const VIEW_MAX: View = View(1 << 62);

pub(super) fn check_view(view: View) -> Result<(), Malformed> {
    Malformed::unless(view <= VIEW_MAX, "a view beyond all views")
}

/// The end of a history: it names the whole prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Its last slot.
    pub slot: Slot,
    /// The hash of the chain up to it.
    pub hash: Digest,
}

impl Position {
    pub(crate) fn write(&self, to: &mut impl Sink) {
        to.put_u64(self.slot.0);
        to.put_digest(&self.hash);
    }
}

/// The canonical bytes of a lock that there may be.
pub(super) fn write_lock(lock: Option<&(View, Position)>, to: &mut impl Sink) {
    match lock {
        None => to.put_u8(0),
        Some((view, at)) => {
            to.put_u8(1);
            to.put_u64(view.0);
            at.write(to);
        }
    }
}
