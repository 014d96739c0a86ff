//! Frames: four bytes of length, big-endian, then the encoding of one message.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use elea_net::{Connection, ReadHalf, WriteHalf};
use elea_protocol::codec::{self, CodecError};
use elea_protocol::message::{Farewell, ToClient, ToReplica};
use futures::{SinkExt, StreamExt};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec, LengthDelimitedCodecError};

/// So many bytes collect before they are handed to the system.
const WRITE_BUFFER: usize = 64 << 10;

/// How long a connection that was told why it closes may take to take note.
const LINGER: Duration = Duration::from_millis(500);

/// How much of what it still sends is read meanwhile.
const LINGER_BYTES: usize = 4 << 20;

/// The end of a connection that frames come from.
pub(crate) type Reader = FramedRead<ReadHalf, LengthDelimitedCodec>;

/// The end that frames go to. It fails when for too long not one byte could be written.
pub(crate) type Writer = FramedWrite<WriteHalf, LengthDelimitedCodec>;

/// Why there is no next message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The connection ended between two frames.
    #[error("the connection was closed")]
    Closed,
    /// It ended within one.
    #[error("the connection was closed within a frame")]
    Truncated,
    /// A length larger than its sender may send.
    #[error("a frame larger than its sender may send")]
    TooLarge,
    /// The frame is no message.
    #[error(transparent)]
    Malformed(#[from] CodecError),
    /// The network failed.
    #[error(transparent)]
    Io(io::Error),
}

/// Reads the first message of a connection, of at most `frame_max` bytes, and not one byte behind it: what
/// follows may be encrypted.
pub(crate) async fn read_first(
    connection: &mut Connection,
    frame_max: usize,
) -> Result<ToReplica, FrameError> {
    let ended = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => FrameError::Closed,
        _ => FrameError::Io(error),
    };
    let length = connection.read_u32().await.map_err(ended)?;
    let length = usize::try_from(length).ok().filter(|length| *length <= frame_max);
    let mut frame = vec![0; length.ok_or(FrameError::TooLarge)?];
    connection.read_exact(&mut frame).await.map_err(ended)?;
    Ok(codec::decode(&frame)?)
}

/// Writes the first message of a connection.
pub(crate) async fn write_first(
    connection: &mut Connection,
    message: &ToReplica,
) -> io::Result<()> {
    let frame = codec::encode(message).map_err(io::Error::other)?;
    FramedWrite::new(connection, LengthDelimitedCodec::new()).send(frame).await
}

/// Frames of at most `frame_max` bytes on a connection.
pub(crate) fn split(connection: Connection, frame_max: usize) -> (Reader, Writer) {
    let (read, write) = connection.split();
    let codec = |max| LengthDelimitedCodec::builder().max_frame_length(max).new_codec();
    let mut writer = FramedWrite::new(write, codec(codec::FRAME_MAX));
    writer.set_backpressure_boundary(WRITE_BUFFER);
    (FramedRead::new(read, codec(frame_max)), writer)
}

/// Reads one message that a replica was sent, and the bytes of its frame. May be dropped and
/// called again without losing anything.
pub(crate) async fn read_to_replica(reader: &mut Reader) -> Result<(ToReplica, usize), FrameError> {
    let frame = read(reader).await?;
    Ok((codec::decode(&frame)?, frame.len()))
}

/// Whether the next frame has been received already, all of it: then it is read without waiting.
pub(crate) fn holds_next(reader: &Reader) -> bool {
    let Some((length, rest)) = reader.read_buffer().split_first_chunk() else { return false };
    usize::try_from(u32::from_be_bytes(*length)).is_ok_and(|length| length <= rest.len())
}

/// Reads one message that a replica sends to whoever dialled it, and the bytes of its frame. May be
/// dropped and called again without losing anything.
pub(crate) async fn read_to_client(reader: &mut Reader) -> Result<(ToClient, usize), FrameError> {
    let frame = read(reader).await?;
    Ok((codec::decode(&frame)?, frame.len()))
}

async fn read(reader: &mut Reader) -> Result<BytesMut, FrameError> {
    match reader.next().await {
        Some(Ok(frame)) => Ok(frame),
        None => Err(FrameError::Closed),
        Some(Err(error)) => Err(match error.kind() {
            _ if error.get_ref().is_some_and(|why| why.is::<LengthDelimitedCodecError>()) => {
                FrameError::TooLarge
            }
            // An encrypted connection whose other end was killed ends without a word, and this is TLS's for that.
            io::ErrorKind::UnexpectedEof if reader.read_buffer().is_empty() => FrameError::Closed,
            // The codec's word for an end within a frame.
            io::ErrorKind::Other | io::ErrorKind::UnexpectedEof => FrameError::Truncated,
            _ => FrameError::Io(error),
        }),
    }
}

/// Writes one message and sends it off.
pub(crate) async fn write<T: Serialize>(writer: &mut Writer, message: &T) -> io::Result<()> {
    let frame = codec::encode(message).map_err(io::Error::other)?;
    writer.send(frame).await
}

/// Puts a frame into the writer's buffer; sends what is there off where it is much.
pub(crate) async fn feed(writer: &mut Writer, frame: Bytes) -> io::Result<()> {
    writer.feed(frame).await
}

/// Sends off what is in the writer's buffer.
pub(crate) async fn flush(writer: &mut Writer) -> io::Result<()> {
    SinkExt::<Bytes>::flush(writer).await
}

/// Says why the connection closes and closes it.
///
/// A socket that is closed with unread bytes in it resets the connection, and the reset may
/// overtake the word. So what still comes in is read and thrown away for a moment.
pub(crate) async fn farewell(reader: Reader, writer: &mut Writer, word: Farewell) {
    let _ = timeout(LINGER, async {
        write(writer, &ToClient::Farewell(word)).await?;
        writer.get_mut().shutdown().await?;
        let mut rest = reader.into_inner().take(LINGER_BYTES as u64);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
        // So that the socket sees the end, or the limit.
        rest.read_u8().await.map(drop)
    })
    .await;
}
