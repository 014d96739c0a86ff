//! A session in use, and when it was used last.

use std::time::{Duration, SystemTime};

use elea_protocol::client::Client as Core;
use tokio::time::Instant;

use crate::sessions::{Lease, Parting};

/// A session that was not used for so long is asked about again. The cluster may have seen many
/// others meanwhile.
const REST: Duration = Duration::from_secs(60);

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
        self.core.in_flight() == 0 && self.core.queued() == 0 && self.core.queries() == 0
    }

    pub fn parting(&self) -> Parting {
        Parting { next: self.core.next(), whole: self.core.is_whole() && !self.draining }
    }
}

/// When a session was used last, by two clocks: one does not tell how long a machine slept, and
/// the other may be set.
pub(crate) struct Used(Instant, SystemTime);

impl Used {
    pub fn now() -> Self {
        Self(Instant::now(), SystemTime::now())
    }

    pub fn is_long_ago(&self) -> bool {
        self.0.elapsed() >= REST || self.1.elapsed().is_ok_and(|elapsed| elapsed >= REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_clock_tells_of_a_rest_and_one_that_was_set_back_tells_nothing() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        assert!(!Used(now, wall).is_long_ago());
        assert!(Used(now - REST, wall).is_long_ago());
        assert!(Used(now, wall - REST).is_long_ago());
        assert!(!Used(now, wall + 2 * REST).is_long_ago());
    }
}
