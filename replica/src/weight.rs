//! About how many bytes a message takes while it waits, so that queues can be bounded in bytes
//! before anything is encoded. An estimate: what is fixed in size is rounded.

use bytes::Bytes;
use elea_protocol::evidence::Evidence;
use elea_protocol::message::{
    Branch, Campaign, CommitCertificate, Lent, Message, NewView, SignedQueryReply, SignedReply,
    SlotEntry, StableProof, ToClient, ViewChange,
};
use elea_protocol::replica::Record;
use elea_protocol::rows::Changes;

use crate::limits::OVERHEAD;

/// The two ways between replicas, over one connection. What is small and what others wait for never stands
/// behind what is large: each has queues of its own, and small messages go between the pieces of large ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Orders, votes, statuses, views, and questions.
    Control,
    /// Requests passed on, and what was asked for: slots, branches, pieces of states.
    Bulk,
}

impl Lane {
    pub(crate) fn of(message: &Message) -> Self {
        match message {
            Message::Requests(_) | Message::Slots(_) | Message::Branch(_) | Message::State(_) => {
                Self::Bulk
            }
            _ => Self::Control,
        }
    }
}

const REQUEST: usize = 256;
const REPLY: usize = 512;
const VOTE: usize = 80;
const DIGEST: usize = 32;

pub(crate) fn message(message: &Message) -> usize {
    OVERHEAD
        + match message {
            Message::Order(order) => 32 * order.body.requests.len(),
            Message::Certificate(certificate) => votes(certificate),
            Message::Stable(proof) => stable(proof),
            Message::Requests(requests) => {
                requests.0.iter().map(|r| REQUEST + r.body().operation_bytes()).sum()
            }
            Message::Slots(slots) => slots.entries.iter().map(entry).sum(),
            Message::Branch(branch) => self::branch(branch),
            Message::State(chunk) => chunk.bytes.len(),
            Message::Campaign(campaign) => self::campaign(campaign),
            Message::NewView(new_view) => self::new_view(&new_view.body),
            Message::Evidence(evidence) => proof(evidence),
            // The rest is small and of fixed size, up to the digests that a fetch names.
            _ => 0,
        }
}

fn entry(entry: &SlotEntry) -> usize {
    let requests: usize =
        entry.requests.iter().map(|r| REQUEST + 32 + r.body().operation_bytes()).sum();
    REQUEST + requests
}

fn votes(certificate: &CommitCertificate) -> usize {
    VOTE * certificate.votes.len()
}

fn stable(proof: &StableProof) -> usize {
    VOTE * proof.checkpoint.votes.len() + votes(&proof.cover)
}

fn branch(branch: &Branch) -> usize {
    let slots: usize = branch.slots.iter().map(|linked| entry(&linked.entry)).sum();
    slots + branch.stable.as_ref().map_or(0, |proof| stable(proof))
}

fn change(change: &ViewChange) -> usize {
    REQUEST + change.lock.as_ref().map_or(0, votes)
}

fn new_view(new_view: &NewView) -> usize {
    new_view.changes.iter().map(|signed| change(&signed.body)).sum()
}

fn campaign(campaign: &Campaign) -> usize {
    let others: usize = campaign.others.iter().map(|signed| change(&signed.body)).sum();
    let evidence = campaign.proof.as_ref().map_or(0, |evidence| proof(evidence));
    change(&campaign.change.body) + others + VOTE * campaign.suspects.len() + evidence
}

fn proof(evidence: &Evidence) -> usize {
    match evidence {
        Evidence::OrderRefuted(_, certificate, fork)
        | Evidence::NewViewRefuted(_, certificate, fork) => {
            REQUEST + votes(certificate) + DIGEST * fork.links.len()
        }
        // Two signed statements of fixed size.
        Evidence::Orders(..) | Evidence::Commits(..) | Evidence::NewViews(..) => REQUEST,
    }
}

fn row_changes(changes: &Changes) -> usize {
    let size = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
    changes.iter().map(|(key, value)| OVERHEAD + key.len() + size(value)).sum()
}

pub(crate) fn record(record: &Record) -> usize {
    OVERHEAD
        + match record {
            Record::Slot { entry: slot, .. } => entry(slot),
            Record::Aside(aside) => entry(&aside.linked.entry),
            Record::Lock(certificate) => votes(certificate),
            Record::Stable(proof) => stable(proof),
            Record::Adopted(adopted) => {
                let entered = adopted.entered.as_ref();
                DIGEST * adopted.slots.len()
                    + entered.map_or(0, |entered| new_view(&entered.new_view.body))
                    + adopted.lock.as_ref().map_or(0, votes)
            }
            Record::Orphans { add, remove } => {
                add.iter().map(|r| REQUEST + r.body().operation_bytes()).sum::<usize>()
                    + DIGEST * remove.len()
            }
            Record::Fetching(head) => stable(&head.stable),
            Record::Piece { bytes, .. } => bytes.len(),
            Record::Rows { rows, .. } => {
                rows.iter().map(|(key, value)| OVERHEAD + key.len() + value.len()).sum()
            }
            Record::Settling { changes, .. } => row_changes(changes),
            Record::Settled(settled) => {
                let pieces = settled.pieces.iter().map(|(_, bytes)| bytes.len());
                let rows = row_changes(&settled.changes);
                stable(&settled.head.stable) + pieces.sum::<usize>() + rows
            }
            Record::Evidence(evidence) => proof(evidence),
            Record::Standing(_) | Record::Stamps(_) => 0,
            Record::Lives(lives) => DIGEST * lives.len(),
            Record::Mismatches(mismatches) => {
                mismatches.iter().map(|mismatch| stable(&mismatch.certified)).sum()
            }
        }
}

pub(crate) fn reply(reply: &SignedReply) -> usize {
    REPLY + reply.reply.results.size() + 32 * reply.vote.path.siblings.len()
}

pub(crate) fn query_reply(reply: &SignedQueryReply) -> usize {
    let results = reply.reply.results.iter().map(|result| result.len() + 8).sum::<usize>();
    REPLY + results + 32 * reply.vote.path.siblings.len()
}

pub(crate) fn answer(answer: &ToClient) -> usize {
    match answer {
        ToClient::Replies(replies) => OVERHEAD + replies.iter().map(reply).sum::<usize>(),
        ToClient::QueryReplies(replies) => {
            OVERHEAD + replies.iter().map(query_reply).sum::<usize>()
        }
        ToClient::Evidence(evidence) => OVERHEAD + evidence.iter().map(proof).sum::<usize>(),
        ToClient::Piece { lent: Lent::Piece(bytes), .. } => OVERHEAD + bytes.len(),
        _ => OVERHEAD,
    }
}
