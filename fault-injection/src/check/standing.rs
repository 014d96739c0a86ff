//! Who may vote: a list of what counts, made from the messages themselves and not from what the core
//! calls a vote.

use elea_protocol::id::ReplicaId;
use elea_protocol::message::{Message, Standing, ToClient};

use crate::disk::Disk;
use crate::violation::{Violation, demand};

/// A message leaves a replica that is no villain. `has_lost` says that it voted in a life of which
/// its disk knows nothing.
///
/// # Errors
/// It counts towards a quorum, and the replica may not vote.
pub fn message_leaves(
    who: ReplicaId,
    message: &Message,
    disk: &Disk,
    has_lost: bool,
) -> Result<(), Violation> {
    let own = match message {
        Message::Order(order) => order.by == who,
        Message::Commit(vote) => vote.by == who,
        Message::Checkpoint(vote) => vote.by == who,
        Message::Suspect(suspect) => suspect.by == who,
        Message::Campaign(campaign) => campaign.change.by == who,
        // What it began in its first life may come back to it, and go on from there.
        Message::NewView(new_view) => new_view.by == who && !has_lost,
        Message::Enrolled(word) => {
            // What it said before it knew leaves with the record that says so, at the latest.
            let is_observer = disk.was_observer();
            return demand(word.by != who || !is_observer, "standing", || {
                format!("{who} is an observer and vouches for {}", word.body.replica)
            });
        }
        Message::Certificate(_)
        | Message::Stable(_)
        | Message::Status(_)
        | Message::Fetch(_)
        | Message::Requests(_)
        | Message::Clients(_)
        | Message::Waiting(_)
        | Message::Slots(_)
        | Message::Branch(_)
        | Message::State(_)
        | Message::Evidence(_)
        | Message::Enrol(_)
        | Message::Pulse(_) => false,
    };
    may(who, own, message.kind(), disk, has_lost)
}

/// The same, of words to a client.
///
/// # Errors
/// As [`message_leaves`].
pub fn answer_leaves(
    who: ReplicaId,
    answer: &ToClient,
    disk: &Disk,
    has_lost: bool,
) -> Result<(), Violation> {
    let counts = matches!(
        answer,
        ToClient::Replies(_)
            | ToClient::Refusal(_)
            | ToClient::Session(_)
            | ToClient::QueryReplies(_)
    );
    may(who, counts, "an answer", disk, has_lost)
}

fn may(
    who: ReplicaId,
    counts: bool,
    what: &str,
    disk: &Disk,
    has_lost: bool,
) -> Result<(), Violation> {
    let standing = disk.standing();
    demand(!counts || (standing == Standing::Voter && !has_lost), "standing", || {
        let lost = if has_lost { ", whose disk was lost," } else { "" };
        format!("{who}{lost} is {} by its disk and sends {what}", standing.word())
    })
}
