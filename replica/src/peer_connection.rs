//! A connection that a peer dialled: its messages, verified, in their order, to the core.

use elea_protocol::id::ReplicaId;
use elea_protocol::message::{Farewell, Greeting, Parts, ToClient, ToReplica};
use elea_protocol::seal::sign;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::back::Back;
use crate::checking::{Checking, check_later, take_in};
use crate::counters::{Counter, frame_counter};
use crate::doubles::Voice;
use crate::frames::{self, FrameError, Reader, Writer};
use crate::shell::Shell;

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
