//! What peers say is checked, and handed to the core.
//!
//! Verification runs in the task of the connection. A task of the runtime *is* a worker thread's work: with several
//! connections it spreads over the cores by itself, and on a quiet replica it costs no wake-up of
//! another thread, which would take twice as long as the check. Only a message with so many signatures
//! that it would hold up the other tasks of its thread goes to the pool for long work; the next
//! message of its lane waits for it, so order is kept there.
//!
//! What is large ([`Lane::Bulk`]) is set aside and checked beside what comes meanwhile, so that a vote waits
//! for none of it. Where its lane is full it is dropped and the connection read on: who asked for it
//! asks again, and what was not asked for is named again.

use std::sync::Arc;

use elea_protocol::evidence::Evidence;
use elea_protocol::id::ReplicaId;
use elea_protocol::membership::Membership;
use elea_protocol::message::{Farewell, Message, SlotEntry, StableProof, ViewChange};
use elea_protocol::replica::Event;
use elea_protocol::seal::{Rejection, Verified};
use tokio::sync::mpsc;
use tokio::task::{spawn_blocking, yield_now};

use crate::counters::{Counter, rejection_counter};
use crate::inbox::Room;
use crate::limits::OVERHEAD;
use crate::shell::Shell;
use crate::weight::Lane;

/// More signatures than this are checked elsewhere: at 40 µs each they take longer than a task
/// should keep its thread.
const INLINE_SIGNATURES: usize = 32;

/// What is large and waits to be checked, with the room that it takes before the core.
pub(crate) type Checking = mpsc::UnboundedSender<(Message, Room)>;

/// Checks a peer's message, of so many bytes, and hands it to the core, or has it checked later. By whichever
/// connection it came, that one has to close with this word where it must not be.
pub(crate) async fn take_in(
    shell: &Shell,
    peer: ReplicaId,
    checking: &Checking,
    message: Message,
    bytes: usize,
) -> Result<(), Farewell> {
    if let Message::Commit(vote) = &message
        && shell.certified.covers(&vote.body)
    {
        shell.counters.count(Counter::VotesNotNeeded);
        return Ok(());
    }
    // Room comes first: a peer that sends faster than the core takes is not worth checking.
    tracing::trace!(%peer, kind = message.kind(), bytes, "received");
    if Lane::of(&message) == Lane::Bulk {
        match shell.inbox.bulk_room(peer, bytes + OVERHEAD) {
            // Nobody closes the channel before the connection.
            Some(room) => drop(checking.send((message, room))),
            None => {
                shell.counters.count(Counter::PeerBulkDropped);
                yield_now().await;
            }
        }
        return Ok(());
    }
    let Some(room) = shell.inbox.peer_room(peer, bytes + OVERHEAD).await else {
        return Err(Farewell::Stopping);
    };
    check(shell, peer, Lane::Control, message, room).await
}

/// Checks what was set aside, one after the other, until something must not be.
pub(crate) async fn check_later(
    shell: &Shell,
    peer: ReplicaId,
    mut bulk: mpsc::UnboundedReceiver<(Message, Room)>,
) -> Farewell {
    while let Some((message, room)) = bulk.recv().await {
        if let Err(word) = check(shell, peer, Lane::Bulk, message, room).await {
            return word;
        }
    }
    // Whoever reads from the connection ends this as well.
    std::future::pending().await
}

async fn check(
    shell: &Shell,
    peer: ReplicaId,
    lane: Lane,
    message: Message,
    room: Room,
) -> Result<(), Farewell> {
    let kind = message.kind();
    match open(&shell.membership, message).await {
        Ok(message) => {
            shell.inbox.put_peer(peer, lane, Event::Peer { from: peer, message }, room);
            Ok(())
        }
        Err(rejection) => {
            let counter = rejection_counter(rejection);
            shell.counters.warn(counter, format_args!("{peer} sent {kind}: {rejection}"));
            match rejection {
                // Replicas may know different clients: who passes on what we refuse is no liar.
                Rejection::UnknownSigner | Rejection::WeakKey => Ok(()),
                _ => Err(Farewell::Misbehaviour),
            }
        }
    }
}

async fn open(
    membership: &Arc<Membership>,
    message: Message,
) -> Result<Verified<Message>, Rejection> {
    if signatures(&message) <= INLINE_SIGNATURES {
        return membership.open_message(message);
    }
    let membership = Arc::clone(membership);
    let opened = spawn_blocking(move || membership.open_message(message)).await;
    // The pool loses a task only when the runtime goes down: then nobody waits for the message.
    opened.unwrap_or(Err(Rejection::UnknownSigner))
}

fn signatures(message: &Message) -> usize {
    match message {
        Message::Certificate(certificate) => certificate.votes.len(),
        Message::Stable(proof) => stable(proof),
        Message::Requests(requests) => requests.0.len(),
        Message::Slots(slots) => slots.entries.iter().map(entry).sum(),
        Message::Branch(branch) => {
            let slots: usize = branch.slots.iter().map(|linked| entry(&linked.entry)).sum();
            slots + branch.stable.as_ref().map_or(0, |proof| stable(proof))
        }
        Message::Campaign(campaign) => {
            let others: usize = campaign.others.iter().map(|signed| change(&signed.body)).sum();
            let proof = campaign.proof.as_ref().map_or(0, |proof| evidence(proof));
            change(&campaign.change.body) + others + campaign.suspects.len() + proof
        }
        Message::NewView(new_view) => {
            1 + new_view.body.changes.iter().map(|signed| change(&signed.body)).sum::<usize>()
        }
        Message::Evidence(proof) => evidence(proof),
        // One signature, or, of a kind that is new, few enough.
        _ => 1,
    }
}

fn entry(entry: &SlotEntry) -> usize {
    1 + entry.requests.len()
}

fn stable(proof: &StableProof) -> usize {
    proof.checkpoint.votes.len() + proof.cover.votes.len()
}

fn change(change: &ViewChange) -> usize {
    1 + change.lock.as_ref().map_or(0, |lock| lock.votes.len())
}

fn evidence(evidence: &Evidence) -> usize {
    match evidence {
        Evidence::OrderRefuted(_, certificate, _) | Evidence::NewViewRefuted(_, certificate, _) => {
            1 + certificate.votes.len()
        }
        Evidence::Orders(..) | Evidence::Commits(..) | Evidence::NewViews(..) => 2,
    }
}
