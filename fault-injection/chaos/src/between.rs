//! Between the two ends of an encrypted connection, with the keys of both.
//!
//! The fleet has made all keys. So whoever carries a connection can be the replica to the dialler, and the dialler to
//! the replica, and hears what the two say to each other. Neither can tell; only the hello, which signs the very connection that it
//! is said on, is said anew. Nobody else could do that, which is the point of encrypting.
//!
//! What a speaker wrote is opened as it comes from its socket, and sealed before anything is done with it. So it is heard
//! before any fault, as it is where nothing is encrypted, and what the faults meet is TLS.

use std::io;

use bytes::{Bytes, BytesMut};
use elea_processes::frames::body;
use tokio::io::AsyncRead;

use crate::seals::{Ends, Opened, Seals, Session};
use crate::tap::next_frame;
use crate::voice::{Voice, read_chunk};

/// Speaks TLS with both until the hello is said. Answers how the dialler's words go on to the replica, and the replica's
/// to the dialler.
///
/// # Errors
/// Either ends, or does not let the other one in.
pub async fn meet<N, F>(
    ends: &Ends,
    (near, there): (&mut N, &mut Voice),
    (far, back): (&mut F, &mut Voice),
) -> io::Result<[Seals; 2]>
where
    N: AsyncRead + Unpin,
    F: AsyncRead + Unpin,
{
    // In clear, and good for any connection.
    let knock = with_length(&body(near).await?);
    there.speaker.tap.hear(&knock).await;
    there.line.send(knock).await?;
    there.line.is_sealed = true;
    back.line.is_sealed = true;
    let mut replica = ends.with_the_replica()?;
    let said = shake(&mut replica, far, there).await?;
    let mut dialler = ends.with_the_dialler()?;
    let mut words = shake(&mut dialler, near, back).await?;
    if dialler.protocol() != replica.protocol() {
        return Err(io::Error::other("they speak different versions"));
    }
    let hello = loop {
        if let Ok(Some(hello)) = next_frame(&mut words) {
            break hello;
        }
        words.extend_from_slice(&opened(&mut dialler, near).await?);
    };
    there.speaker.tap.hear(&with_length(&hello)).await;
    let anew = ends.anew(&hello, replica.binding()?)?;
    there.line.send(replica.seal(&anew, None)?).await?;
    Ok(Seals::of(dialler, words.freeze(), replica, said.freeze()))
}

fn with_length(frame: &[u8]) -> Bytes {
    // It was read with such a length.
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], frame].concat().into()
}

/// Goes on until both know each other; answers with what came behind that.
async fn shake<R: AsyncRead + Unpin>(
    session: &mut Session,
    from: &mut R,
    answers: &mut Voice,
) -> io::Result<BytesMut> {
    let mut words = BytesMut::new();
    loop {
        answers.line.send(session.waiting()?).await?;
        if session.is_shaken() {
            return Ok(words);
        }
        words.extend_from_slice(&opened(session, from).await?);
    }
}

/// What comes next.
async fn opened<R: AsyncRead + Unpin>(session: &mut Session, from: &mut R) -> io::Result<Bytes> {
    let sealed = read_chunk(from).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let Opened { words, end } = session.open(&sealed);
    end.map_or(Ok(words), |_| Err(io::ErrorKind::ConnectionAborted.into()))
}
