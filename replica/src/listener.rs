//! Accepts connections, finds out whose they are, and hands them on.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use elea_net::Listening;
use elea_protocol::codec::FRAME_MAX;
use elea_protocol::message::{Farewell, Greeting, Origin};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::counters::Counter;
use crate::limits::{CLIENT_FRAME_MAX, HELLO_FRAME_MAX};
use crate::shell::Shell;
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
