//! Hostile clients that use connections in ways that no client library would.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use elea_client::{Command as _, Level};
use elea_kv::{Get, Put};
use elea_net::Connection;
use elea_processes::frames::{body, frame};
use elea_protocol::id::{ClientId, ReplicaId, RequestNumber, SessionId};
use elea_protocol::message::{Request, SignedRequest, ToReplica};
use elea_protocol::signature::Signer as _;
use futures::future::join_all;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::Target;
use crate::raw::{Guest, dial};

/// After something that failed.
const PAUSE: Duration = Duration::from_millis(50);

/// Between two connections of somebody who opens many.
const BETWEEN: Duration = Duration::from_millis(5);

/// How long one that is sent garbage may take none of it.
const DEAF: Duration = Duration::from_secs(3);

/// Connections to one replica on which nothing is said.
const SOCKETS: usize = 1000;

/// How many of them are opened at a time.
const SOCKETS_AT_ONCE: usize = 250;

/// So many statuses are asked for every ten milliseconds.
const STATUSES: u64 = 100;

/// The value that is asked for by somebody who does not read it.
const LARGE: usize = 256 << 10;

/// Asks for the status 10,000 times a second, and reads the answers.
pub(super) async fn statuses(mut target: Target) {
    loop {
        let victim = target.somebody();
        let Ok(connection) = target.guest.greeted(victim).await else {
            target.tally.ended(false);
            sleep(PAUSE).await;
            continue;
        };
        let (mut read, mut write) = connection.split();
        let ask = async {
            let mut nonce = 0;
            loop {
                target.tally.acts(STATUSES);
                let mut frames = Vec::new();
                for _ in 0..STATUSES {
                    nonce += 1;
                    frames.extend(frame(&ToReplica::AskStatus(nonce))?);
                }
                write.write_all(&frames).await?;
                write.flush().await?;
                sleep(Duration::from_millis(10)).await;
            }
        };
        let hear = async {
            loop {
                body(&mut read).await?;
                target.tally.ended(true);
            }
        };
        let _: io::Result<()> = tokio::select! {
            ended = ask => ended,
            ended = hear => ended,
        };
    }
}

/// Opens connections as fast as it goes, shows its key on each, and drops it.
pub(super) async fn churn(mut target: Target) {
    loop {
        let victim = target.somebody();
        target.tally.acts(1);
        let done = target.guest.greeted(victim).await;
        target.tally.ended(done.is_ok());
        sleep(if done.is_ok() { BETWEEN } else { PAUSE }).await;
    }
}

/// Opens a thousand connections to each replica, says nothing, and opens those anew that are closed.
pub(super) async fn silent(target: &Target) {
    let all = target.ids().map(|victim| async move {
        let mut held: Vec<TcpStream> = Vec::new();
        loop {
            held.retain(is_open);
            for _ in held.len()..SOCKETS.min(held.len() + SOCKETS_AT_ONCE) {
                let Ok(stream) = dial(&target.guest.at, victim).await else { break };
                target.tally.acts(1);
                held.push(stream);
            }
            sleep(PAUSE).await;
        }
    });
    join_all(all).await;
}

/// Whether the other end has not closed it; what it says is thrown away.
fn is_open(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0; 512]) {
        Ok(read) => read > 0,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Sends bytes that mean nothing.
pub(super) async fn garbage(mut target: Target) {
    loop {
        let victim = target.somebody();
        let (kind, bytes) = (target.rng.between(0, 5), target.rng.bytes::<256>());
        let connection = match kind {
            0..3 => unknown(&target, victim).await,
            _ => target.guest.greeted(victim).await,
        };
        let Ok(mut connection) = connection else {
            target.tally.ended(false);
            sleep(PAUSE).await;
            continue;
        };
        let sent = match kind {
            // Bytes of which the first four are a length, and most likely an absurd one.
            0 | 3 => bytes.to_vec(),
            // A frame of them.
            1 | 4 => [&256u32.to_be_bytes()[..], &bytes].concat(),
            // The largest one announced, and not sent.
            _ => [&(8u32 << 20).to_be_bytes()[..], &bytes].concat(),
        };
        target.tally.acts(1);
        let _ = connection.write_all(&sent).await;
        let _ = connection.flush().await;
        // Until it is turned away, or has waited long enough.
        let farewell = timeout(Duration::from_millis(200), body(&mut connection)).await;
        target.tally.ended(matches!(farewell, Ok(Ok(_))));
        sleep(BETWEEN).await;
    }
}

/// A connection of somebody who has not said yet who it is.
async fn unknown(target: &Target, victim: ReplicaId) -> io::Result<Connection> {
    Connection::new(dial(&target.guest.at, victim).await?, DEAF)
}

/// Asks for a large value on a connection to each replica, and never reads what comes.
pub(super) async fn unread(target: Target) {
    let session = session(&target).await;
    let target = Arc::new(target);
    let all = target.ids().map(|victim| {
        let target = Arc::clone(&target);
        async move {
            let mut number = session.1;
            loop {
                let _: io::Result<()> = ask_on(&target, victim, session.0, &mut number).await;
                sleep(PAUSE).await;
            }
        }
    });
    join_all(all).await;
}

/// A session in which something large was written, and the number after that.
async fn session(target: &Target) -> (SessionId, u64) {
    let put = Put::new("hostile/unread", vec![b'u'; LARGE]);
    if let Some(client) = target.client(Duration::from_secs(3), 1).await
        && let Ok(weak) = client.weak(put).await
    {
        let (session, number) = weak.name();
        return (session, number + 1);
    }
    (SessionId(rand::random::<u32>().into()), 1)
}

async fn ask_on(
    target: &Target,
    victim: ReplicaId,
    session: SessionId,
    number: &mut u64,
) -> io::Result<()> {
    let greeted = target.guest.greeted(victim).await;
    let mut connection = greeted.inspect_err(|_| target.tally.ended(false))?;
    let Guest { key, membership, .. } = &target.guest;
    loop {
        let body = Request {
            client: ClientId::from(key.public_key()),
            session,
            number: RequestNumber(*number),
            level: Level::Weak,
            want_final: false,
            operations: vec![Get::new("hostile/unread").encode()],
        };
        let request = SignedRequest::sign(&**key, membership.genesis(), body);
        target.tally.acts(1);
        *number += 1;
        connection.write_all(&frame(&ToReplica::Request(request))?).await?;
        connection.flush().await?;
        sleep(Duration::from_millis(10)).await;
    }
}
