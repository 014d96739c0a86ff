//! Accepts connections, finds out whose they are, and hands them on.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use elea_net::Listening;
use elea_protocol::codec::FRAME_MAX;
use elea_protocol::id::ReplicaId;
use elea_protocol::membership::Membership;
use elea_protocol::message::{Farewell, Greeting, Origin};
use elea_protocol::seal::Signer;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::certified::Certified;
use crate::clients::Clients;
use crate::counters::{Counter, Counters};
use crate::doubles::Doubles;
use crate::handshake::{self, Waiting};
use crate::inbox::Inbox;
use crate::limits::{CLIENT_FRAME_MAX, HELLO_FRAME_MAX, Limits};
use crate::peer_link::Back;
use crate::store::Files;
use crate::terms::Agreement;
use crate::{client_connection, frames, peer_connection};

/// When the system has no more descriptors, it helps to wait until some are closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What every connection needs.
pub(crate) struct Shell {
    pub(crate) me: ReplicaId,
    pub(crate) membership: Arc<Membership>,
    pub(crate) limits: Limits,
    pub(crate) counters: Arc<Counters>,
    pub(crate) agreement: Arc<Agreement>,
    pub(crate) files: Files,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) certified: Arc<Certified>,
    pub(crate) clients: Arc<Clients>,
    /// Signs for this replica that it is the one that was reached.
    pub(crate) signer: Arc<dyn Signer>,
    /// This process, among all that may ever have used the key.
    pub(crate) instance: u64,
    pub(crate) doubles: Arc<Doubles>,
    /// By peer id: the connection that it dialled last, for what is to be said to it.
    pub(crate) backs: Vec<watch::Sender<Option<Back>>>,
    /// By peer: cancelled when it dials anew.
    pub(crate) peers: Mutex<HashMap<ReplicaId, CancellationToken>>,
    pub(crate) waiting: Arc<Waiting>,
    /// No connection is accepted any more.
    pub(crate) no_more: CancellationToken,
    /// Connections say farewell.
    pub(crate) stopping: CancellationToken,
}

impl Shell {
    pub(crate) fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.limits.handshake_timeout_ms)
    }

    pub(crate) fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.limits.write_timeout_ms)
    }

    /// Has what is to be said to a peer go over this connection where there is no better way.
    pub(crate) fn offer(&self, peer: ReplicaId, back: &Back) {
        if let Some(way) = self.backs.get(usize::from(peer.0)) {
            way.send_replace(Some(back.clone()));
        }
    }

    pub(crate) fn peers(&self) -> MutexGuard<'_, HashMap<ReplicaId, CancellationToken>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts until it is told not to, then waits until all connections have said farewell.
pub(crate) async fn listen(shell: Arc<Shell>, listener: Listening) {
    let mut connections = JoinSet::new();
    // Said once, however long it lasts.
    let mut is_paused = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shell.no_more.cancelled() => break,
            accepted = listener.accept() => accepted,
            // Finished ones are collected as they come.
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, address)) => {
                tracing::debug!(%address, "accepted");
                if std::mem::take(&mut is_paused) {
                    tracing::info!("connections are accepted again");
                }
                connections.spawn(serve(Arc::clone(&shell), stream, address.ip()));
            }
            Err(error) => {
                if !std::mem::replace(&mut is_paused, true) {
                    tracing::warn!(%error, "no connection can be accepted for the moment");
                }
                shell.counters.count(Counter::AcceptPaused);
                shell.waiting.make_room();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve(shell: Arc<Shell>, stream: TcpStream, from: IpAddr) {
    let mut turn = shell.waiting.enter(from);
    let split = frames::split(stream, HELLO_FRAME_MAX, shell.write_timeout());
    let Ok((mut reader, mut writer)) = split else { return };
    let evicted = turn.evicted.clone();
    let answered = tokio::select! {
        biased;
        () = shell.stopping.cancelled() => Err((Counter::HandshakeAborted, Some(Farewell::Stopping))),
        () = evicted.cancelled() => return,
        answered = timeout(
            shell.handshake_timeout(),
            handshake::challenge(&shell, &mut turn, &mut reader, &mut writer),
        ) => answered.unwrap_or(Err((Counter::HandshakeTimeout, Some(Farewell::NotAdmitted)))),
    };
    match answered {
        Ok(hello) => {
            let voice = shell.doubles.voice(hello.origin, hello.instance);
            match hello.origin {
                Origin::Replica(peer) => {
                    drop(turn);
                    reader.decoder_mut().set_max_frame_length(FRAME_MAX);
                    let greeting = Greeting { to: peer, nonce: hello.own_nonce };
                    peer_connection::serve(&shell, greeting, &voice, reader, writer).await;
                }
                Origin::Client(client) => {
                    reader.decoder_mut().set_max_frame_length(CLIENT_FRAME_MAX);
                    elea_net::bear_a_slow_line(writer.get_ref().get_ref().as_ref());
                    client_connection::serve(&shell, client, turn, &voice, reader, writer).await;
                }
            }
        }
        Err((counter, word)) => {
            match counter {
                // That was told when it became known.
                Counter::SettingsDiffer => shell.counters.count(counter),
                _ => shell.counters.warn(counter, "a connection was not let in"),
            }
            let Some(word) = word else { return };
            tokio::select! {
                () = evicted.cancelled() => {}
                () = frames::farewell(reader, &mut writer, word) => {}
            }
        }
    }
}
