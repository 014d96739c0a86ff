//! A connection that a peer dialled: its messages, verified, in their order, to the core.
//!
//! Verification runs right here. A task of the runtime *is* a worker thread's work: with several
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
use elea_protocol::message::{
    Farewell, Greeting, Message, Parts, SlotEntry, StableProof, ToClient, ToReplica, ViewChange,
};
use elea_protocol::replica::Event;
use elea_protocol::seal::{Rejection, Verified, sign};
use tokio::sync::mpsc;
use tokio::task::{spawn_blocking, yield_now};
use tokio_util::sync::CancellationToken;

use crate::counters::Counter;
use crate::doubles::Voice;
use crate::frames::{self, FrameError, Reader, Writer};
use crate::handshake::{frame_counter, rejection_counter};
use crate::inbox::Room;
use crate::limits::OVERHEAD;
use crate::listener::Shell;
use crate::peer_link::Back;
use crate::weight::Lane;

/// More signatures than this are checked elsewhere: at 40 µs each they take longer than a task
/// should keep its thread.
const INLINE_SIGNATURES: usize = 32;

/// What is large and waits to be checked, with the room that it takes before the core.
pub(crate) type Checking = mpsc::UnboundedSender<(Message, Room)>;

/// Serves a peer until it closes, misbehaves, dials anew or the replica stops.
pub(crate) async fn serve(
    shell: &Shell,
    greeting: Greeting,
    voice: &Voice,
    mut reader: Reader,
    mut writer: Writer,
) {
    let peer = greeting.to;
    let replaced = CancellationToken::new();
    take_over(shell, peer, &replaced);
    shell.counters.count(Counter::PeersAdmitted);
    tracing::info!(%peer, "peer connected");
    let greeting = sign(&*shell.signer, shell.membership.genesis(), shell.me, greeting);
    let greeting = ToClient::Greeting(greeting.into_inner());
    let greeted = frames::write(&mut writer, &greeting).await;
    let back = Back::new(writer);
    let word = match greeted {
        Ok(()) => {
            shell.offer(peer, &back);
            tokio::select! {
                biased;
                () = shell.stopping.cancelled() => Some(Farewell::Stopping),
                () = replaced.cancelled() => Some(farewell_of_replaced(voice)),
                () = back.gone.cancelled() => None,
                word = receive(shell, peer, voice, &mut reader) => word,
            }
        }
        Err(_) => None,
    };
    // Whoever writes to it lets go of it.
    back.gone.cancel();
    forget(shell, peer, &replaced);
    tracing::info!(%peer, farewell = ?word, "peer disconnected");
    if let Some(word) = word {
        frames::farewell(reader, &mut *back.writer.lock().await, word).await;
    }
}

/// Two processes with one key replace each other's connections for ever: both should hear why.
fn farewell_of_replaced(voice: &Voice) -> Farewell {
    match voice.is_doubled() {
        true => Farewell::SecondProcess,
        false => Farewell::TooManyConnections,
    }
}

/// Closes the peer's older connection. A peer dials anew when it believes the old connection dead,
/// and often it is the only one of the two to know.
fn take_over(shell: &Shell, peer: ReplicaId, replaced: &CancellationToken) {
    let mut peers = shell.peers();
    if let Some(older) = peers.insert(peer, replaced.clone()) {
        older.cancel();
        shell.counters.count(Counter::PeerReplaced);
    }
}

/// Removes the peer's entry, unless a newer connection has taken it over. Who takes over cancels the
/// older one under the same lock.
fn forget(shell: &Shell, peer: ReplicaId, replaced: &CancellationToken) {
    let mut peers = shell.peers();
    if !replaced.is_cancelled() {
        peers.remove(&peer);
    }
}

/// Takes in messages until the connection has to close; gives back what to say.
async fn receive(
    shell: &Shell,
    peer: ReplicaId,
    voice: &Voice,
    reader: &mut Reader,
) -> Option<Farewell> {
    let (checking, bulk) = mpsc::unbounded_channel();
    tokio::select! {
        word = read(shell, peer, voice, reader, &checking) => word,
        word = check_later(shell, peer, bulk) => Some(word),
    }
}

async fn read(
    shell: &Shell,
    peer: ReplicaId,
    voice: &Voice,
    reader: &mut Reader,
    checking: &Checking,
) -> Option<Farewell> {
    let mut parts = Parts::default();
    let malformed = |error: FrameError| {
        shell.counters.warn(frame_counter(&error), format_args!("{peer}: {error}"));
        Some(Farewell::Misbehaviour)
    };
    loop {
        let (message, bytes) = match frames::read_to_replica(reader).await {
            Ok((ToReplica::Peer(message), bytes)) => (message, bytes),
            Ok((ToReplica::Part(part), _)) => match parts.push(&part) {
                Ok(Some(whole)) => whole,
                Ok(None) => continue,
                Err(error) => return malformed(error.into()),
            },
            Ok(_) => {
                shell.counters.warn(
                    Counter::MessageMisplaced,
                    format_args!("{peer} sent what only clients send"),
                );
                return Some(Farewell::Misbehaviour);
            }
            Err(FrameError::Closed | FrameError::Io(_)) => return None,
            Err(error) => return malformed(error),
        };
        voice.heard();
        if let Err(word) = take_in(shell, peer, checking, message, bytes).await {
            return Some(word);
        }
    }
}

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
