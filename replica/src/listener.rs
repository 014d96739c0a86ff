//! Accepts connections, finds out whose they are, and hands them on.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use elea_net::{Connection, Listening};
use elea_protocol::codec::FRAME_MAX;
use elea_protocol::message::{Farewell, Greeting, HelloBody, Origin};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::counters::Counter;
use crate::frames::{Reader, Writer};
use crate::handshake::Refused;
use crate::limits::{CLIENT_FRAME_MAX, HELLO_FRAME_MAX};
use crate::shell::Shell;
use crate::waiting::Turn;
use crate::{client_connection, frames, handshake, peer_connection};

/// When the system has no more descriptors, it helps to wait until some are closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

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

/// A connection that was let in, or why not.
type Answered = (Result<HelloBody, Refused>, Reader, Writer);

/// Hears who it is; `None` where it has closed without a word.
async fn answer(shell: &Shell, turn: &mut Turn, socket: TcpStream) -> Option<Answered> {
    let late = (Counter::HandshakeTimeout, Some(Farewell::NotAdmitted));
    let stopping = (Counter::HandshakeAborted, Some(Farewell::Stopping));
    let until = Instant::now() + shell.handshake_timeout();
    let mut connection = Connection::new(socket, shell.write_timeout()).ok()?;
    let knocked = tokio::select! {
        biased;
        () = shell.stopping.cancelled() => Err(stopping),
        knocked = timeout_at(until, handshake::knock(shell, turn, &mut connection)) => {
            knocked.unwrap_or(Err(late))
        }
    };
    let origin = match knocked {
        Ok(origin) => origin,
        Err(refused) => {
            // Whoever could not be understood may understand this: which version is spoken here, and where it is.
            let (reader, mut writer) = frames::split(connection, HELLO_FRAME_MAX);
            let challenged = handshake::challenge(shell, rand::random(), &mut writer).await;
            return Some((challenged.and(Err(refused)), reader, writer));
        }
    };
    let secured = tokio::select! {
        biased;
        () = shell.stopping.cancelled() => return None,
        secured = timeout_at(until, handshake::secure(shell, origin, connection)) => {
            secured.unwrap_or(Err(Counter::HandshakeTimeout))
        }
    };
    let (connection, known) = match secured {
        Ok(secured) => secured,
        Err(counter) => {
            shell.counters.warn(counter, "a connection was not let in");
            return None;
        }
    };
    let (mut reader, mut writer) = frames::split(connection, HELLO_FRAME_MAX);
    let answered = tokio::select! {
        biased;
        () = shell.stopping.cancelled() => Err(stopping),
        answered = timeout_at(until, handshake::hello(shell, &known, &mut reader, &mut writer)) => {
            answered.unwrap_or(Err(late))
        }
    };
    Some((answered, reader, writer))
}

async fn serve(shell: Arc<Shell>, socket: TcpStream, from: IpAddr) {
    let mut turn = shell.waiting.enter(from);
    let evicted = turn.evicted.clone();
    let answered = tokio::select! {
        biased;
        () = evicted.cancelled() => return,
        answered = answer(&shell, &mut turn, socket) => answered,
    };
    let Some((answered, mut reader, mut writer)) = answered else { return };
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
