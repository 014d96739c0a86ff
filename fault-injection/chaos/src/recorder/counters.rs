//! What replicas count themselves, and what becomes of it.

use std::collections::BTreeMap;

use elea_protocol::message::RefusalReason;

/// What a replica counts where somebody lies, is a stranger, or has a bad disk or memory.
pub(super) const ACCUSING: [&str; 15] = [
    "accusations",
    "contradictions",
    "frame_malformed",
    "frame_too_large",
    "frame_trailing",
    "hello_bad_signature",
    "hello_malformed",
    "hello_unknown_signer",
    "message_bad_signature",
    "message_malformed",
    "message_misplaced",
    "message_unknown_signer",
    "proofs",
    "request_foreign",
    "state_mismatch",
];

/// Those of them that anybody can cause who is no replica. (What correct parties send is looked at frame by
/// frame, so nothing is overlooked where strangers are let loose and these say nothing.)
pub(super) const BY_STRANGERS: [&str; 7] = [
    "frame_malformed",
    "frame_too_large",
    "frame_trailing",
    "hello_bad_signature",
    "hello_malformed",
    "hello_unknown_signer",
    "request_foreign",
];

/// What it counts that tells what happened.
const TELLING: [&str; 11] = [
    "campaigns",
    "merges",
    "orphans",
    "orphans_reordered",
    "results_reordered",
    "slots_undone",
    "state_transfers",
    "states_settled",
    "suspicions",
    "views_entered",
    "weak_views_entered",
];

/// Adds what tells something, when a replica is gone.
pub(super) fn add_up(sums: &mut BTreeMap<String, u64>, last: BTreeMap<String, u64>) {
    for (name, count) in last {
        if TELLING.contains(&&*name) {
            *sums.entry(name).or_default() += count;
        }
    }
}

/// The name under which a refusal is counted.
pub(super) fn refusal_kind(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::SessionRetired => "refused_session_retired",
        RefusalReason::WindowExceeded => "refused_window_exceeded",
        RefusalReason::SessionTooFar => "refused_session_too_far",
        RefusalReason::NameUsed => "refused_name_used",
        RefusalReason::ResultForgotten => "refused_result_forgotten",
        RefusalReason::HistoryFull => "refused_history_full",
        RefusalReason::UnknownClient => "refused_unknown_client",
    }
}
