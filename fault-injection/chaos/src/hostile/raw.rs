//! Connections without a client library, which would not let one misbehave.

use std::io;
use std::time::Duration;

use elea_protocol::codec::{self, FRAME_MAX};
use elea_protocol::id::{ClientId, ReplicaId};
use elea_protocol::message::{HelloBody, Origin, ToClient, ToReplica};
use elea_protocol::seal::{Signer as _, sign_hello};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Target;

/// How long a step of a connection may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// A connection on which nothing was said yet.
pub(super) async fn dial(target: &Target, id: ReplicaId) -> io::Result<TcpStream> {
    let at = (target.at)(id).ok_or_else(|| io::Error::other("it is down"))?;
    let stream = timeout(PATIENCE, TcpStream::connect(at)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection that has shown its key and was welcomed.
pub(super) async fn greeted(target: &Target, id: ReplicaId) -> io::Result<TcpStream> {
    let mut stream = dial(target, id).await?;
    let greet = async {
        let ToClient::Challenge(challenge) = message(&mut stream).await? else {
            return Err(io::Error::other("no challenge"));
        };
        let origin = Origin::Client(ClientId::from(target.key.public_key()));
        let body = HelloBody { origin, to: id, nonce: challenge.nonce };
        let hello = sign_hello(&*target.key, &challenge.genesis, body);
        stream.write_all(&frame(&ToReplica::Hello(hello))?).await?;
        match message(&mut stream).await? {
            ToClient::Welcome => Ok(()),
            _ => Err(io::Error::other("no welcome")),
        }
    };
    timeout(PATIENCE, greet).await??;
    Ok(stream)
}

/// A message with its length before it.
pub(super) fn frame(message: &ToReplica) -> io::Result<Vec<u8>> {
    let body = codec::encode(message).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes()[..], &body].concat())
}

async fn message<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<ToClient> {
    let body = body(from).await?;
    codec::decode(&body).map_err(io::Error::other)
}

/// The next frame, whatever is in it.
pub(super) async fn body<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Vec<u8>> {
    let length = usize::try_from(from.read_u32().await?).map_err(io::Error::other)?;
    if length > FRAME_MAX {
        return Err(io::Error::other("a frame too large"));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    Ok(body)
}
