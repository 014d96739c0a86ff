//! What was counted, by reason: everything dropped is in here, and what campaigns must have seen.

use std::fmt;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// How often things happened since the start.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)*
        }

        impl Counters {
            /// Every counter with its name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            /// Every counter's name, and what it counts.
            pub fn described() -> impl Iterator<Item = (&'static str, &'static str)> {
                [$((stringify!($name), concat!($($doc),+).trim_ascii()),)*].into_iter()
            }
        }
    };
}

/// How often something happened, where that decides nothing: two that differ in it alone behave the same, so it
/// is not shown among what a replica is.
#[derive(Clone, Copy, Default)]
pub(super) struct Tally(pub(super) u64);

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("_")
    }
}

counters! {
    /// Requests executed.
    executed_requests,
    /// Slots executed.
    executed_slots,
    /// Queries answered.
    queries_answered,
    /// Queries whose results had to wait for a certificate.
    queries_kept,
    /// Queries that could not be answered, so that the operations have to be ordered.
    queries_unanswered,
    /// Slots ordered as primary.
    ordered_slots,
    /// Those of them for which requests gathered, so that they were ordered a moment later.
    gathered_slots,
    /// Commit votes cast.
    commits_cast,
    /// Commit certificates that raised the lock.
    certificates,
    /// Checkpoint votes cast.
    checkpoints_cast,
    /// Checkpoints that became stable.
    checkpoints_stable,
    /// Those of them that a quiet head was made.
    checkpoints_quiet,
    /// Times it went back to a checkpoint that the others had made stable, to take the state there.
    went_back,
    /// Fetches of missing slots sent.
    slot_fetches,
    /// Fetches of missing requests sent.
    request_fetches,
    /// Slots accepted from an answer to a fetch.
    slots_filled,
    /// Requests accepted from an answer to a fetch.
    requests_filled,
    /// Requests passed on to the other replicas.
    requests_forwarded,
    /// Requests of which the other replicas were told that they wait.
    requests_named,
    /// Requests answered from the session table.
    answered_from_cache,
    /// Sessions that left the table, being more than a client may have, since others were used later.
    sessions_left,
    /// Requests refused, with a word to the client.
    refused_requests,
    /// Requests dropped for want of room.
    busy,
    /// Requests turned away, since their client has more than its share of the suffix.
    over_share,
    /// Statements for a view left long ago.
    stale_view,
    /// Statements for a view not entered yet.
    future_view,
    /// Orders signed by somebody who is not the primary.
    order_not_from_primary,
    /// Orders too far ahead of the head.
    order_too_far,
    /// Orders seen before.
    order_repeated,
    /// Orders that do not extend the history they follow.
    order_off_chain,
    /// Orders that break a rule for a slot.
    order_breaks_rules,
    /// Orders that waited for the own clock, or until all replicas execute their edition.
    order_ahead_of_clock,
    /// Orders, slots and histories of an edition that this program does not execute.
    order_of_unknown_edition,
    /// Orders that waited until enough replicas are known to list a client.
    order_of_stranger,
    /// Requests passed on of clients that too few replicas list.
    strangers,
    /// Two statements of one replica that contradict each other.
    contradictions,
    /// Votes for a history that is not the own.
    divergent_votes,
    /// Votes that fell out of the bounded store.
    votes_dropped,
    /// Status messages and fetches older than others of their sender.
    stale_stamp,
    /// Fetches not answered, for asking too much too fast.
    fetch_over_budget,
    /// Answers to fetches that were of no use.
    useless_answers,
    /// Checkpoint certificates whose state is not the own: this replica is corrupt.
    state_mismatch,
    /// Times this replica went into quarantine, for doubt of its own state.
    quarantines,
    /// Times it came out again, with a certified state.
    quarantines_ended,
    /// Times patience with a primary ran out.
    suspicions,
    /// Primaries suspected since they are late with most of what they order.
    limping_primaries,
    /// Views that this replica gave up as their primary: its disk is full, or it was started anew.
    resignations,
    /// Campaigns begun for another view.
    campaigns,
    /// New views made as their primary.
    new_views_made,
    /// Views entered.
    views_entered,
    /// Those of them that were built on less than a strong quorum.
    weak_views_entered,
    /// New views that can never be entered.
    new_views_refused,
    /// Own slots that were abandoned for another history.
    slots_undone,
    /// Times that a history with slots of its own gave way to another one.
    merges,
    /// Histories that took more than one event to be executed, once adopted.
    merges_in_turns,
    /// Requests of abandoned slots that the adopted history did not hold.
    orphans,
    /// Those of them that were executed again later.
    orphans_reordered,
    /// Times that one of them was looked at, to see whether it can be executed again.
    orphan_looks,
    /// Operations whose result changed when they were executed anew.
    results_reordered,
    /// Proofs of misbehaviour that were kept.
    proofs,
    /// Locks that lie on another history than the own.
    locks_aside,
    /// Fetches of the end of a history sent.
    branch_fetches,
    /// Slots of other histories received.
    branch_slots,
    /// Times that a history was not fetched, since too much was fetched in vain on its teller's word.
    branches_over_credit,
    /// Branches that are not what their hash says, or that nobody asked for.
    branches_refused,
    /// Answers not sent to a peer that says too much too fast.
    answers_over_budget,
    /// Steps of long work done, each about one slot followed, looked through, undone or executed.
    turn_steps,
    /// Pieces of a state served.
    chunks_served,
    /// Pieces of a state given to clients, for backups.
    pieces_lent,
    /// Pieces of a state accepted.
    chunks_accepted,
    /// Pieces of a state that do not belong to it.
    chunks_refused,
    /// States transferred and put in place.
    state_transfers,
    /// Own states that took the place of slots on the disk.
    states_settled,
    /// Times that the own state could not be read from the disk.
    state_unreadable,
}
