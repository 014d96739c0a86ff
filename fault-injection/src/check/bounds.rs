//! I10: everything a replica keeps has a limit, whatever it is sent.

use elea_protocol::id::ReplicaId;
use elea_protocol::message::SLOTS_MAX;
use elea_protocol::quorum::ClusterSize;
use elea_protocol::tuning::Tuning;

use crate::violation::{Violation, demand};

/// Votes of one kind that a replica may keep of each other one.
const VOTES_KEPT: usize = 256;

/// View changes and new views that a replica may keep of each other one.
const CHANGES_KEPT: usize = 8;

/// The most operations of one request in a simulated world, joined ones included.
const OPERATIONS: usize = 32;

/// The limits of a world, by the names of the footprint.
#[derive(Clone)]
pub struct Bounds {
    limits: Vec<(&'static str, usize)>,
    /// The most that was seen of each.
    pub peaks: Vec<(&'static str, usize)>,
}

impl Bounds {
    /// The limits that follow from these settings, with `clients` different keys.
    #[must_use]
    pub fn new(tuning: &Tuning, size: ClusterSize, clients: usize) -> Self {
        let narrow = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let replicas = usize::from(size.replicas());
        let ahead = narrow(tuning.orders_ahead);
        let wanted = ahead.saturating_mul(tuning.batch_requests);
        let speculative = narrow(tuning.rules.max_speculative_slots);
        // Who catches up holds what the others retain and what they hold above it, beside what it retains
        // itself: as much as a suffix while somebody fetches a state.
        let retained = narrow(tuning.retained_slots).max(speculative);
        let slots = retained.saturating_mul(2).saturating_add(speculative);
        let checkpoints = slots / narrow(tuning.rules.checkpoint_interval.max(1)) + 3;
        // Votes are kept for each sender apart, the newest of each.
        let votes = replicas * VOTES_KEPT;
        let limits = vec![
            ("pending", tuning.pending_max.saturating_add(wanted)),
            ("pending_bytes", tuning.pending_bytes.saturating_mul(2)),
            ("orders_ahead", ahead),
            ("commit_votes", votes),
            ("checkpoint_votes", votes),
            ("sessions", clients.saturating_mul(narrow(tuning.rules.max_sessions))),
            ("slots", slots),
            ("digests", checkpoints),
            ("evidence", replicas),
            // Of each other replica one history above the own stable checkpoint, at most, and of
            // what is fetched no more than one answer beyond that.
            ("branch_slots", replicas.saturating_mul(speculative.saturating_add(SLOTS_MAX))),
            ("view_changes", replicas * (CHANGES_KEPT + 1)),
            ("new_views", replicas * CHANGES_KEPT),
            ("of_later_views", replicas.saturating_mul(ahead.saturating_add(VOTES_KEPT))),
            (
                "undone_results",
                speculative.saturating_mul(tuning.batch_requests).saturating_mul(OPERATIONS),
            ),
        ];
        let limits = limits
            .into_iter()
            .chain([
                // Each was executed within a suffix; what waits of an older one comes first.
                ("orphans", speculative.saturating_mul(tuning.batch_requests).saturating_mul(4)),
                // One of them for clients.
                ("states", 5),
            ])
            .collect();
        Self { limits, peaks: Vec::new() }
    }

    /// Whether a replica holds no more than it may.
    ///
    /// # Errors
    /// I10.
    pub fn check(
        &mut self,
        who: ReplicaId,
        footprint: &[(&'static str, usize)],
    ) -> Result<(), Violation> {
        for (position, (name, held)) in footprint.iter().enumerate() {
            match self.peaks.get_mut(position) {
                Some((_, peak)) => *peak = (*peak).max(*held),
                None => self.peaks.push((name, *held)),
            }
            let limit = self.limits.iter().find(|(limited, _)| limited == name);
            let limit = limit.map_or(0, |(_, limit)| *limit);
            demand(*held <= limit, "I10", || {
                format!("{who} keeps {held} of `{name}`, which may have {limit}")
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_limit_breaks_i10_and_the_limit_does_not() {
        let size = ClusterSize::new(4, 1).expect("a valid size");
        let tuning = Tuning { orders_ahead: 5, ..Tuning::default() };
        let mut bounds = Bounds::new(&tuning, size, 2);
        assert!(bounds.check(ReplicaId(0), &[("orders_ahead", 5)]).is_ok());
        let found = bounds.check(ReplicaId(0), &[("orders_ahead", 6)]).expect_err("too many");
        assert_eq!(found.rule, "I10");
        assert!(bounds.check(ReplicaId(0), &[("something new", 1)]).is_err());
    }
}
