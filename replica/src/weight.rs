//! About how many bytes a message takes while it waits, so that queues can be bounded in bytes
//! before anything is encoded. An estimate: what is fixed in size is rounded.

use elea_protocol::message::{Message, SignedReply, SlotEntry, ToClient};
use elea_protocol::replica::Record;

use crate::limits::OVERHEAD;

const REQUEST: usize = 256;
const REPLY: usize = 512;
const VOTE: usize = 80;

pub(crate) fn message(message: &Message) -> usize {
    OVERHEAD
        + match message {
            Message::Order(order) => 32 * order.body.requests.len(),
            Message::Certificate(certificate) => VOTE * certificate.votes.len(),
            Message::Stable(certificate) => VOTE * certificate.votes.len(),
            Message::Requests(requests) => {
                requests.0.iter().map(|r| REQUEST + r.body().operation_bytes()).sum()
            }
            Message::Slots(slots) => slots.entries.iter().map(entry).sum(),
            // The rest is small and of fixed size, up to the digests that a fetch names.
            _ => 0,
        }
}

fn entry(entry: &SlotEntry) -> usize {
    let requests: usize =
        entry.requests.iter().map(|r| REQUEST + 32 + r.body().operation_bytes()).sum();
    REQUEST + requests
}

pub(crate) fn record(record: &Record) -> usize {
    OVERHEAD
        + match record {
            Record::Slot { entry: slot, .. } => entry(slot),
            _ => 0,
        }
}

pub(crate) fn reply(reply: &SignedReply) -> usize {
    REPLY + reply.reply.results.size() + 32 * reply.vote.path.siblings.len()
}

pub(crate) fn answer(answer: &ToClient) -> usize {
    match answer {
        ToClient::Replies(replies) => OVERHEAD + replies.iter().map(reply).sum::<usize>(),
        _ => OVERHEAD,
    }
}
