//! Between the two ends of an encrypted connection, with the keys of both.
//!
//! The fleet has made all keys. So whoever carries a connection can be the replica to the dialler, and the dialler to
//! the replica, and hears what the two say to each other. Neither can tell; only the hello, which signs the very connection that it
//! is said on, is said anew. Nobody else could do that, which is the point of encrypting.
//!
//! What a speaker wrote is opened as it comes from its socket, and sealed before anything is done with it. So it is heard
//! before any fault, as it is where nothing is encrypted, and what the faults meet is TLS.

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use elea_net::{BINDING, Expecting, Identity};
use elea_processes::caller::identity;
use elea_processes::frames::{body, frame};
use elea_protocol::codec;
use elea_protocol::id::Digest;
use elea_protocol::message::{HelloBody, ToReplica};
use elea_protocol::seal::sign_hello;
use elea_protocol::signature::{SecretKey, Signer as _};
use tokio::io::AsyncRead;

use crate::pump::{Voice, read_chunk};
use crate::tap::next_frame;

/// What it takes to stand between a dialler and a replica.
pub struct Ends {
    genesis: Digest,
    dialler: Arc<SecretKey>,
    to_the_replica: Expecting,
    to_the_dialler: Identity,
}

impl fmt::Debug for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ends").finish_non_exhaustive()
    }
}

impl Ends {
    /// With the keys of both.
    #[must_use]
    pub fn new(genesis: Digest, dialler: &Arc<SecretKey>, replica: &SecretKey) -> Self {
        Self {
            genesis,
            dialler: Arc::clone(dialler),
            to_the_replica: identity(dialler).expecting(replica.public_key().0),
            to_the_dialler: identity(replica),
        }
    }

    /// The hello for another connection.
    fn anew(&self, hello: &[u8], nonce: [u8; 32]) -> io::Result<Vec<u8>> {
        let ToReplica::Hello(hello) = codec::decode(hello).map_err(io::Error::other)? else {
            return Err(io::Error::other("no hello"));
        };
        let body = HelloBody { nonce, ..hello.body };
        frame(&ToReplica::Hello(sign_hello(&*self.dialler, &self.genesis, body)))
    }
}

/// How what a party said ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It said that this is all.
    Announced,
    /// It found something wrong, and what.
    Broken,
}

/// What was opened.
#[derive(Debug)]
pub struct Opened {
    /// The words.
    pub words: Bytes,
    /// Whether they are the last ones.
    pub end: Option<End>,
}

/// One of the two conversations.
struct Session(rustls::Connection);

impl Session {
    fn new(mut tls: rustls::Connection) -> Self {
        // What it holds is bounded by how much is read at a time.
        tls.set_buffer_limit(None);
        Self(tls)
    }

    fn open(&mut self, mut sealed: &[u8]) -> Opened {
        let (mut words, mut end) = (BytesMut::new(), None);
        let mut buffer = [0; 1 << 12];
        while !sealed.is_empty() && end.is_none() {
            let read = self.0.read_tls(&mut sealed);
            end = match read.and_then(|_| self.0.process_new_packets().map_err(io::Error::other)) {
                Ok(state) => state.peer_has_closed().then_some(End::Announced),
                Err(_) => Some(End::Broken),
            };
            // Also of what ends badly: what was said before that was said.
            while let Ok(read @ 1..) = self.0.reader().read(&mut buffer) {
                words.extend_from_slice(&buffer[..read]);
            }
        }
        Opened { words: words.freeze(), end }
    }

    fn seal(&mut self, words: &[u8], end: Option<End>) -> io::Result<Bytes> {
        self.0.writer().write_all(words)?;
        if end == Some(End::Announced) {
            self.0.send_close_notify();
        }
        self.waiting()
    }

    /// What it wants to say itself.
    fn waiting(&mut self) -> io::Result<Bytes> {
        let mut sealed = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut sealed)?;
        }
        Ok(sealed.into())
    }

    fn binding(&self) -> io::Result<[u8; 32]> {
        self.0.export_keying_material([0; 32], BINDING, Some(b"")).map_err(io::Error::other)
    }
}

/// Of both directions: what one opens the other has to answer.
type Shared = Arc<Mutex<Session>>;

/// One direction of an encrypted connection.
pub struct Seals {
    from: Shared,
    to: Shared,
    /// What was opened already.
    early: Bytes,
}

impl Seals {
    /// Opens what was read.
    pub fn open(&self, sealed: &[u8]) -> Opened {
        self.from.lock().unwrap_or_else(PoisonError::into_inner).open(sealed)
    }

    /// Seals what passes on.
    ///
    /// # Errors
    /// The conversation is over.
    pub fn seal(&self, words: &[u8], end: Option<End>) -> io::Result<Bytes> {
        self.to.lock().unwrap_or_else(PoisonError::into_inner).seal(words, end)
    }

    /// What was opened before anybody asked.
    pub fn early(&mut self) -> Option<Bytes> {
        (!self.early.is_empty()).then(|| std::mem::take(&mut self.early))
    }
}

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
    let mut replica = Session::new(ends.to_the_replica.dialling()?);
    let said = shake(&mut replica, far, there).await?;
    let mut dialler = Session::new(ends.to_the_dialler.accepting()?);
    let mut words = shake(&mut dialler, near, back).await?;
    if dialler.0.alpn_protocol() != replica.0.alpn_protocol() {
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
    let (dialler, replica) = (Arc::new(Mutex::new(dialler)), Arc::new(Mutex::new(replica)));
    let (from, to) = (Arc::clone(&dialler), Arc::clone(&replica));
    let there = Seals { from, to, early: words.freeze() };
    Ok([there, Seals { from: replica, to: dialler, early: said.freeze() }])
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
        if !session.0.is_handshaking() {
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
