//! A connection, encrypted or plain, to whoever reads and writes it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::TlsStream;

use crate::{Patient, prepare};

/// A connection. A write fails when for too long not one byte could be written, whatever lies above the socket.
#[derive(Debug)]
pub struct Connection(Way);

#[derive(Debug)]
enum Way {
    Plain(Wire),
    Encrypted(Box<TlsStream<Wire>>),
}

/// A socket, and whether what comes first has to be looked at.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: Patient<TcpStream>,
    /// Nothing was read yet, and what comes has to be TLS.
    pub(crate) expects_tls: bool,
    /// Whoever reads has it. TLS then writes no more than an alert: it may not wait for room, since it is the writer whom
    /// the socket has to wake, and whose patience runs.
    is_read: bool,
}

/// Whoever was dialled answered, and not in TLS.
#[derive(Debug, thiserror::Error)]
#[error("what it says is not TLS")]
pub(crate) struct NotTls;

/// What is drawn from the keys of a TLS session for whoever signs for this one (RFC 9266).
pub const BINDING: &[u8] = b"EXPORTER-Channel-Binding";

/// The first byte of a record that may answer a hello: an alert or a handshake.
const TLS_RECORDS: [u8; 2] = [21, 22];

impl Connection {
    /// A connection over a socket that was connected, plain so far. On it nothing may move for `patience`.
    ///
    /// # Errors
    /// As the system says.
    pub fn new(socket: TcpStream, patience: Duration) -> io::Result<Self> {
        prepare(&socket, patience)?;
        let socket = Patient::new(socket, patience);
        Ok(Self(Way::Plain(Wire { socket, expects_tls: false, is_read: false })))
    }

    pub(crate) fn plain(wire: Wire) -> Self {
        Self(Way::Plain(wire))
    }

    pub(crate) fn encrypted(stream: impl Into<TlsStream<Wire>>) -> Self {
        Self(Way::Encrypted(Box::new(stream.into())))
    }

    /// The plain connection, to be encrypted; `None` where it is already.
    pub(crate) fn into_wire(self) -> Option<Wire> {
        match self.0 {
            Way::Plain(wire) => Some(wire),
            Way::Encrypted(_) => None,
        }
    }

    /// The socket below.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        match &self.0 {
            Way::Plain(wire) => wire.socket.get_ref(),
            Way::Encrypted(stream) => stream.get_ref().0.socket.get_ref(),
        }
    }

    /// 32 bytes that both ends of an encrypted connection know and nobody else can: whoever signs them, signs for this
    /// connection ([`BINDING`]). `None` where it is plain.
    ///
    /// # Errors
    /// The handshake is not over.
    pub fn binding(&self) -> io::Result<Option<[u8; 32]>> {
        let Way::Encrypted(stream) = &self.0 else { return Ok(None) };
        let exported = match &**stream {
            TlsStream::Client(stream) => {
                stream.get_ref().1.export_keying_material([0; 32], BINDING, Some(b""))
            }
            TlsStream::Server(stream) => {
                stream.get_ref().1.export_keying_material([0; 32], BINDING, Some(b""))
            }
        };
        exported.map(Some).map_err(io::Error::other)
    }

    /// The name of what is spoken on it, as both ends have agreed. `None` where it is plain.
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        let Way::Encrypted(stream) = &self.0 else { return None };
        match &**stream {
            TlsStream::Client(stream) => stream.get_ref().1.alpn_protocol(),
            TlsStream::Server(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }

    /// Its two ends.
    #[must_use]
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        let (read, write) = match self.0 {
            Way::Plain(wire) => {
                let (read, write) = wire.socket.split();
                (Reading::Plain(read), Writing::Plain(write))
            }
            Way::Encrypted(stream) => {
                let stream = Arc::new(Mutex::new(stream));
                (Reading::Encrypted(Arc::clone(&stream)), Writing::Encrypted(stream))
            }
        };
        (ReadHalf(read), WriteHalf(write))
    }
}

/// The end of a connection that is read.
#[derive(Debug)]
pub struct ReadHalf(Reading);

/// The end of a connection that is written.
#[derive(Debug)]
pub struct WriteHalf(Writing);

/// Both ends have to do with the whole of it: what is read may have to be answered.
type Shared = Arc<Mutex<Box<TlsStream<Wire>>>>;

fn lock(stream: &Shared) -> MutexGuard<'_, Box<TlsStream<Wire>>> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
enum Reading {
    Plain(OwnedReadHalf),
    Encrypted(Shared),
}

#[derive(Debug)]
enum Writing {
    Plain(Patient<OwnedWriteHalf>),
    Encrypted(Shared),
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Way::Plain(wire) => Pin::new(wire).poll_read(context, into),
            Way::Encrypted(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Reading::Plain(read) => Pin::new(read).poll_read(context, into),
            Reading::Encrypted(stream) => {
                let mut stream = lock(stream);
                stream.get_mut().0.is_read = true;
                let read = Pin::new(&mut **stream).poll_read(context, into);
                stream.get_mut().0.is_read = false;
                read
            }
        }
    }
}

/// What both a connection and its writing end are written to through.
macro_rules! writes {
    ($kind:ty, $plain:path, $encrypted:path, $lock:expr) => {
        impl AsyncWrite for $kind {
            fn poll_write(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                match &mut self.0 {
                    $plain(to) => Pin::new(to).poll_write(context, bytes),
                    $encrypted(to) => Pin::new(&mut **$lock(to)).poll_write(context, bytes),
                }
            }

            fn poll_flush(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                match &mut self.0 {
                    $plain(to) => Pin::new(to).poll_flush(context),
                    $encrypted(to) => Pin::new(&mut **$lock(to)).poll_flush(context),
                }
            }

            fn poll_shutdown(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                match &mut self.0 {
                    $plain(to) => Pin::new(to).poll_shutdown(context),
                    $encrypted(to) => Pin::new(&mut **$lock(to)).poll_shutdown(context),
                }
            }
        }
    };
}

writes!(Connection, Way::Plain, Way::Encrypted, std::convert::identity);
writes!(WriteHalf, Writing::Plain, Writing::Encrypted, lock);

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.expects_tls {
            let mut first = [0];
            let mut peeked = ReadBuf::new(&mut first);
            ready!(self.socket.get_ref().poll_peek(context, &mut peeked))?;
            // What is not TLS stays where it is, for whoever can read it.
            if peeked.filled().first().is_some_and(|kind| !TLS_RECORDS.contains(kind)) {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, NotTls)));
            }
            self.expects_tls = false;
        }
        Pin::new(&mut self.socket).poll_read(context, into)
    }
}

/// What could be written without waiting for anything, and without being woken.
fn at_once(written: io::Result<usize>) -> Poll<io::Result<usize>> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        written => Poll::Ready(written),
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_read {
            return at_once(self.socket.get_ref().try_write(bytes));
        }
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    // So that a handshake that fails takes the alert behind it along.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_read {
            return at_once(self.socket.get_ref().try_write_vectored(bytes));
        }
        Pin::new(&mut self.socket).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
