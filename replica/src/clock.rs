//! The two clocks the core is told.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use elea_protocol::id::{self, Now, WallTime};

/// Reads both clocks; the monotonic one counts from when this was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        // A wall clock before 1970 is as wrong as one that stands at 1970.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            instant: id::Instant(micros(self.started.elapsed())),
            wall: WallTime(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// The same point on the machine's clock; `None` where it is too far away to be waited for.
    pub(crate) fn at(&self, instant: id::Instant) -> Option<Instant> {
        self.started.checked_add(Duration::from_micros(instant.0))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
