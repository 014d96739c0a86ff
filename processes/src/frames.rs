//! What is said on a connection, without a client library or a replica, which would not let one misbehave: four
//! bytes of length, big-endian, then the encoding of one message.

use std::io;

use elea_protocol::codec::{self, FRAME_MAX};
use elea_protocol::message::{ToClient, ToReplica};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// A message with its length before it.
///
/// # Errors
/// It is longer than any may be.
pub fn frame(message: &ToReplica) -> io::Result<Vec<u8>> {
    let body = codec::encode(message).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes()[..], &body].concat())
}

/// The next frame, as a replica says it.
///
/// # Errors
/// The connection ends, or says something else.
pub async fn message<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<ToClient> {
    let body = body(from).await?;
    codec::decode(&body).map_err(io::Error::other)
}

/// The next frame, whatever is in it.
///
/// # Errors
/// The connection ends.
pub async fn body<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Vec<u8>> {
    let length = usize::try_from(from.read_u32().await?).map_err(io::Error::other)?;
    if length > FRAME_MAX {
        return Err(io::Error::other("a frame too large"));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    Ok(body)
}
