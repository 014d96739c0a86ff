//! What is encrypted between two parties, opened with the keys of both and sealed again.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use elea_net::{BINDING, Expecting, Identity};
use elea_processes::caller::identity;
use elea_processes::frames::frame;
use elea_protocol::codec;
use elea_protocol::id::Digest;
use elea_protocol::message::{HelloBody, ToReplica};
use elea_protocol::seal::sign_hello;
use elea_protocol::signature::{SecretKey, Signer as _};

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

    /// The conversation with the replica, as its dialler.
    ///
    /// # Errors
    /// It cannot begin.
    pub fn with_the_replica(&self) -> io::Result<Session> {
        self.to_the_replica.dialling().map(Session::new)
    }

    /// The conversation with the dialler, as the replica.
    ///
    /// # Errors
    /// It cannot begin.
    pub fn with_the_dialler(&self) -> io::Result<Session> {
        self.to_the_dialler.accepting().map(Session::new)
    }

    /// The dialler's hello for another connection.
    ///
    /// # Errors
    /// It is none.
    pub fn anew(&self, hello: &[u8], nonce: [u8; 32]) -> io::Result<Vec<u8>> {
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
pub struct Session(rustls::Connection);

impl Session {
    fn new(mut tls: rustls::Connection) -> Self {
        // What it holds is bounded by how much is read at a time.
        tls.set_buffer_limit(None);
        Self(tls)
    }

    /// Whether both ends know each other.
    #[must_use]
    pub fn is_shaken(&self) -> bool {
        !self.0.is_handshaking()
    }

    /// What is spoken, once both know each other.
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        self.0.alpn_protocol()
    }

    /// Opens what came.
    pub fn open(&mut self, mut sealed: &[u8]) -> Opened {
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

    /// Seals what is to go.
    ///
    /// # Errors
    /// The conversation is over.
    pub fn seal(&mut self, words: &[u8], end: Option<End>) -> io::Result<Bytes> {
        self.0.writer().write_all(words)?;
        if end == Some(End::Announced) {
            self.0.send_close_notify();
        }
        self.waiting()
    }

    /// What it wants to say itself.
    ///
    /// # Errors
    /// None that is known.
    pub fn waiting(&mut self) -> io::Result<Bytes> {
        let mut sealed = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut sealed)?;
        }
        Ok(sealed.into())
    }

    /// What a hello signs on it.
    ///
    /// # Errors
    /// The ends do not know each other yet.
    pub fn binding(&self) -> io::Result<[u8; 32]> {
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
    /// Both directions between two conversations: from the dialler to the replica, and back. Each has had some words
    /// opened already.
    #[must_use]
    pub fn of(dialler: Session, asked: Bytes, replica: Session, said: Bytes) -> [Self; 2] {
        let (dialler, replica) = (Arc::new(Mutex::new(dialler)), Arc::new(Mutex::new(replica)));
        let (from, to) = (Arc::clone(&dialler), Arc::clone(&replica));
        [Self { from, to, early: asked }, Self { from: replica, to: dialler, early: said }]
    }

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
