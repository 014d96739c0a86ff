//! The sessions that one client has in use.

use elea_protocol::client::Client as Core;

use crate::opening::Used;
use crate::sessions::{Lease, Parting};

/// A session in use.
pub(crate) struct Live {
    pub core: Core,
    pub lease: Lease,
    /// New submissions go elsewhere; it is given up when nothing is under way in it.
    pub draining: bool,
    /// When something was last submitted to it.
    pub used: Used,
}

impl Live {
    pub fn new(core: Core, lease: Lease) -> Self {
        Self { core, lease, draining: false, used: Used::now() }
    }

    pub fn is_idle(&self) -> bool {
        self.core.in_flight() == 0 && self.core.queued() == 0
    }

    pub fn parting(&self) -> Parting {
        Parting { next: self.core.next(), whole: self.core.is_whole() && !self.draining }
    }
}
