//! Everything that can be tuned, with defaults that suit a LAN and stand a WAN.

use serde::{Deserialize, Serialize};

use crate::message::{BATCH_REQUESTS_MAX, REQUEST_BYTES_MAX};

/// Limits that are part of the state machine. **They must be equal on all replicas**: one that
/// differs refuses what the others accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Sessions remembered of a client, at most. Of more than that the one that was not used for longest leaves.
    pub max_sessions: u64,
    /// Clients remembered, at most; likewise.
    pub max_clients: u64,
    /// How far a request's number may lie beyond the lowest one not executed, and how many
    /// results are kept for each session.
    pub session_window: u64,
    /// Results larger than this, in bytes for a request, are kept as their digest only.
    pub max_kept_result: u64,
    /// The bytes of all results kept of a client, each counted with 1024 more. Of more than that those of the session that
    /// was not used for longest go.
    pub kept_bytes: u64,
    /// Every so many slots the state digest is taken and voted on.
    pub checkpoint_interval: u64,
    /// How many slots may be executed above the stable checkpoint.
    pub max_speculative_slots: u64,
    /// How many bytes these slots may come to before no other one follows, counted like those of
    /// `batch_bytes`. Twice `checkpoint_interval` slots have room whatever they weigh.
    pub max_speculative_bytes: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            max_sessions: 16_384,
            max_clients: 16_384,
            session_window: 128,
            max_kept_result: 4096,
            kept_bytes: 16 << 20,
            checkpoint_interval: 64,
            max_speculative_slots: 1 << 16,
            max_speculative_bytes: 256 << 20,
        }
    }
}

/// A setting: its name, its value, the least and the most it may be, and both in words.
type Range = (&'static str, u64, u64, u64, &'static str);

impl Rules {
    fn ranges(&self) -> [Range; 8] {
        [
            ("max_sessions", self.max_sessions, 1, 1 << 16, "1 to 65536"),
            ("max_clients", self.max_clients, 1, 1 << 24, "1 to 16777216"),
            ("session_window", self.session_window, 1, 1 << 12, "1 to 4096"),
            ("max_kept_result", self.max_kept_result, 64, 1 << 20, "64 to 1048576"),
            ("kept_bytes", self.kept_bytes, 1 << 10, 1 << 40, "1024 to 1099511627776"),
            ("checkpoint_interval", self.checkpoint_interval, 1, 1 << 16, "1 to 65536"),
            (
                "max_speculative_slots",
                self.max_speculative_slots,
                2 * self.checkpoint_interval,
                1 << 24,
                "at least twice checkpoint_interval",
            ),
            ("max_speculative_bytes", self.max_speculative_bytes, 1, 1 << 40, "1 to 1099511627776"),
        ]
    }

    /// With room for suffixes twice as long.
    pub(crate) fn twice(self) -> Self {
        Self {
            checkpoint_interval: self.checkpoint_interval.saturating_mul(2),
            max_speculative_slots: self.max_speculative_slots.saturating_mul(2),
            max_speculative_bytes: self.max_speculative_bytes.saturating_mul(2),
            ..self
        }
    }

    /// Whether no slot may follow on so many above the stable checkpoint, of this
    /// [weight](crate::message::Batch::weight).
    ///
    /// However heavy slots are, two checkpoints have room: with less, no slot that becomes stable
    /// might ever be reached.
    #[must_use]
    pub(crate) fn is_full(&self, slots: u64, weight: u64) -> bool {
        let least = self.checkpoint_interval.saturating_mul(2);
        slots >= self.max_speculative_slots
            || (slots >= least && weight >= self.max_speculative_bytes)
    }
}

/// Times and sizes that each replica chooses for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tuning {
    /// Limits that all replicas must share.
    pub rules: Rules,
    /// Every so many slots everybody votes, also where nobody waits for it.
    pub commit_interval: u64,
    /// After so long without a new order everybody votes at the head, in ms.
    pub commit_delay_ms: u64,
    /// After so long without a new order, once the head is certified, everybody votes for its state,
    /// in ms.
    pub checkpoint_delay_ms: u64,
    /// How often replicas tell each other where they stand, in ms.
    pub status_interval_ms: u64,
    /// How long a request that was passed on to all may wait to be ordered before its replica loses
    /// patience, in ms, while it is not known how fast the others are. After half of it the request is
    /// passed on.
    pub request_timeout_ms: u64,
    /// The same once it is known: what the network and the disks take comes on top.
    pub request_timeout_min_ms: u64,
    /// The most it comes to, in ms.
    pub request_timeout_max_ms: u64,
    /// The least that a replica waits for the view it asks for before it asks for the next one, in ms. It
    /// doubles each time, until a certificate forms.
    pub view_change_timeout_ms: u64,
    /// The most it grows to, in ms.
    pub view_change_timeout_max_ms: u64,
    /// The least that the primary of a new view waits for a strong quorum before it begins with a weak
    /// one, in ms. Well below the first wait.
    pub weak_view_delay_ms: u64,
    /// How long something may be missing before it is asked for, in ms: it is mostly on its way.
    pub fetch_grace_ms: u64,
    /// The least that an answer to a fetch may take before somebody else is asked, in ms.
    pub fetch_retry_ms: u64,
    /// Orders further ahead of the own clock than this wait, in ms.
    pub max_clock_drift_ms: u64,
    /// The primary has at most so many slots under way that are not durable, or strong and not certified, and
    /// more than one only where a whole slot waits...
    pub pipeline_slots: u64,
    /// ...unless the last one is older than this, in ms. No longer than this do requests gather for a slot
    /// with nothing under way, either.
    pub batch_wait_ms: u64,
    /// The most requests the primary puts into one slot.
    pub batch_requests: usize,
    /// The most bytes the primary puts into one slot, each operation counted with 2 KiB more for what
    /// it takes in memory beside them. One request has room whatever it weighs.
    pub batch_bytes: usize,
    /// Requests kept that wait to be ordered, of all clients together.
    pub pending_max: usize,
    /// The same of one client.
    pub pending_per_client: usize,
    /// Bytes of all of them.
    pub pending_bytes: usize,
    /// Requests with no more bytes than this are passed on as they are. Of larger ones the others are told
    /// that they wait, and fetch what they lack.
    pub pass_on_bytes: usize,
    /// Orders kept that cannot be executed yet.
    pub orders_ahead: u64,
    /// Stable slots kept in memory for replicas that lag behind...
    pub retained_slots: u64,
    /// ...as far as they have no more than about so many bytes.
    pub retained_bytes: usize,
    /// Slots on disk come to this many bytes before a state takes their place.
    pub settle_bytes: u64,
    /// The bytes of a state that are fetched a millisecond, at most.
    pub transfer_bytes_per_ms: u64,
    /// A long merge is done so many slots at a time, with other events in between.
    pub turn_slots: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            commit_interval: 32,
            commit_delay_ms: 25,
            checkpoint_delay_ms: 250,
            status_interval_ms: 250,
            request_timeout_ms: 1000,
            request_timeout_min_ms: 150,
            request_timeout_max_ms: 60_000,
            view_change_timeout_ms: 1500,
            view_change_timeout_max_ms: 30_000,
            weak_view_delay_ms: 300,
            fetch_grace_ms: 10,
            fetch_retry_ms: 200,
            max_clock_drift_ms: 10_000,
            pipeline_slots: 2,
            batch_wait_ms: 10,
            batch_requests: 1024,
            batch_bytes: 512 << 10,
            pending_max: 65_536,
            pending_per_client: 16_384,
            pending_bytes: 256 << 20,
            pass_on_bytes: 4 << 10,
            orders_ahead: 512,
            retained_slots: 4096,
            retained_bytes: 16 << 20,
            settle_bytes: 2 << 20,
            transfer_bytes_per_ms: 32 << 10,
            turn_slots: 256,
        }
    }
}

/// A value that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` must be {must}, not {is}")]
pub struct BadTuning {
    /// The setting.
    pub name: &'static str,
    /// What is demanded of it.
    pub must: &'static str,
    /// What it is.
    pub is: u64,
}

impl Tuning {
    /// Checks every value.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn check(&self) -> Result<(), BadTuning> {
        let all = [&self.rules.ranges()[..], &self.times()[..], &self.sizes()[..]].concat();
        match all.into_iter().find(|(_, is, low, high, _)| !(low..=high).contains(&is)) {
            None => Ok(()),
            Some((name, is, _, _, must)) => Err(BadTuning { name, must, is }),
        }
    }

    fn times(&self) -> [Range; 13] {
        const MINUTE: u64 = 60_000;
        const HOUR: u64 = 60 * MINUTE;
        [
            ("commit_delay_ms", self.commit_delay_ms, 1, MINUTE, "1 to 60000"),
            ("checkpoint_delay_ms", self.checkpoint_delay_ms, 1, HOUR, "1 to 3600000"),
            ("status_interval_ms", self.status_interval_ms, 10, MINUTE, "10 to 60000"),
            ("request_timeout_ms", self.request_timeout_ms, 20, HOUR, "20 to 3600000"),
            (
                "request_timeout_min_ms",
                self.request_timeout_min_ms,
                10,
                self.request_timeout_ms,
                "10 to request_timeout_ms",
            ),
            (
                "request_timeout_max_ms",
                self.request_timeout_max_ms,
                self.request_timeout_ms,
                24 * HOUR,
                "at least request_timeout_ms, at most 86400000",
            ),
            (
                "view_change_timeout_ms",
                self.view_change_timeout_ms,
                2 * self.weak_view_delay_ms,
                HOUR,
                "at least twice weak_view_delay_ms, at most 3600000",
            ),
            (
                "view_change_timeout_max_ms",
                self.view_change_timeout_max_ms,
                self.view_change_timeout_ms,
                24 * HOUR,
                "at least view_change_timeout_ms, at most 86400000",
            ),
            ("weak_view_delay_ms", self.weak_view_delay_ms, 1, HOUR, "1 to 3600000"),
            ("fetch_grace_ms", self.fetch_grace_ms, 1, MINUTE, "1 to 60000"),
            ("fetch_retry_ms", self.fetch_retry_ms, 10, MINUTE, "10 to 60000"),
            ("max_clock_drift_ms", self.max_clock_drift_ms, 100, 24 * HOUR, "100 to 86400000"),
            ("batch_wait_ms", self.batch_wait_ms, 1, MINUTE, "1 to 60000"),
        ]
    }

    fn sizes(&self) -> [Range; 14] {
        let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        [
            ("commit_interval", self.commit_interval, 1, 1 << 12, "1 to 4096"),
            ("pipeline_slots", self.pipeline_slots, 1, 1 << 10, "1 to 1024"),
            ("batch_requests", wide(self.batch_requests), 1, wide(BATCH_REQUESTS_MAX), "1 to 4096"),
            ("batch_bytes", wide(self.batch_bytes), 1, wide(REQUEST_BYTES_MAX), "1 to 2097152"),
            ("pending_max", wide(self.pending_max), 1, 1 << 24, "1 to 16777216"),
            ("pending_per_client", wide(self.pending_per_client), 1, 1 << 24, "1 to 16777216"),
            (
                "pending_bytes",
                wide(self.pending_bytes),
                2 * wide(REQUEST_BYTES_MAX),
                1 << 36,
                "4194304 to 68719476736",
            ),
            ("pass_on_bytes", wide(self.pass_on_bytes), 0, wide(REQUEST_BYTES_MAX), "0 to 2097152"),
            ("orders_ahead", self.orders_ahead, 1, 1 << 16, "1 to 65536"),
            ("retained_slots", self.retained_slots, 1, 1 << 24, "1 to 16777216"),
            ("retained_bytes", wide(self.retained_bytes), 0, 1 << 40, "0 to 1099511627776"),
            ("settle_bytes", self.settle_bytes, 0, 1 << 40, "0 to 1099511627776"),
            ("transfer_bytes_per_ms", self.transfer_bytes_per_ms, 1, 1 << 30, "1 to 1073741824"),
            ("turn_slots", self.turn_slots, 1, 1 << 20, "1 to 1048576"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound_and_limits_are_checked_at_their_edges() {
        assert_eq!(Tuning::default().check(), Ok(()));
        for (window, sound) in [(0, false), (1, true), (4096, true), (4097, false)] {
            let mut tuning = Tuning::default();
            tuning.rules.session_window = window;
            assert_eq!(tuning.check().is_ok(), sound, "{window}");
        }
        let mut tuning = Tuning::default();
        tuning.rules.max_speculative_slots = 2 * tuning.rules.checkpoint_interval - 1;
        assert!(tuning.check().is_err_and(|bad| bad.name == "max_speculative_slots"));
    }

    #[test]
    fn a_suffix_is_full_by_slots_or_by_bytes_and_two_checkpoints_always_have_room() {
        let rules = Rules {
            checkpoint_interval: 4,
            max_speculative_slots: 10,
            max_speculative_bytes: 1000,
            ..Rules::default()
        };
        let cases =
            [(9, 999, false), (10, 0, true), (8, 1000, true), (7, 1 << 40, false), (8, 999, false)];
        for (slots, weight, full) in cases {
            assert_eq!(rules.is_full(slots, weight), full, "{slots} slots of {weight} bytes");
        }
    }
}
