//! A connection, encrypted or plain, to whoever reads and writes it.

use std::io::{self, IoSlice};
use std::pin::Pin;
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
}

/// Whoever was dialled answered, and not in TLS.
#[derive(Debug, thiserror::Error)]
#[error("what it says is not TLS")]
pub(crate) struct NotTls;

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
        Ok(Self(Way::Plain(Wire { socket, expects_tls: false })))
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
    /// connection (RFC 9266). `None` where it is plain.
    ///
    /// # Errors
    /// The handshake is not over.
    pub fn binding(&self) -> io::Result<Option<[u8; 32]>> {
        let Way::Encrypted(stream) = &self.0 else { return Ok(None) };
        let label = b"EXPORTER-Channel-Binding";
        let exported = match &**stream {
            TlsStream::Client(stream) => {
                stream.get_ref().1.export_keying_material([0; 32], label, Some(b""))
            }
            TlsStream::Server(stream) => {
                stream.get_ref().1.export_keying_material([0; 32], label, Some(b""))
            }
        };
        exported.map(Some).map_err(io::Error::other)
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
                let (read, write) = tokio::io::split(stream);
                (Reading::Encrypted(read), Writing::Encrypted(write))
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

type Encrypted = Box<TlsStream<Wire>>;

#[derive(Debug)]
enum Reading {
    Plain(OwnedReadHalf),
    Encrypted(tokio::io::ReadHalf<Encrypted>),
}

#[derive(Debug)]
enum Writing {
    Plain(Patient<OwnedWriteHalf>),
    Encrypted(tokio::io::WriteHalf<Encrypted>),
}

/// Something of several kinds that all can be read.
trait Reads {
    fn reads(&mut self) -> &mut (dyn AsyncRead + Unpin);
}

/// Something of several kinds that all can be written to.
trait Writes {
    fn writes(&mut self) -> &mut (dyn AsyncWrite + Unpin);
}

impl Reads for Connection {
    fn reads(&mut self) -> &mut (dyn AsyncRead + Unpin) {
        match &mut self.0 {
            Way::Plain(wire) => wire,
            Way::Encrypted(stream) => stream,
        }
    }
}

impl Reads for ReadHalf {
    fn reads(&mut self) -> &mut (dyn AsyncRead + Unpin) {
        match &mut self.0 {
            Reading::Plain(read) => read,
            Reading::Encrypted(read) => read,
        }
    }
}

impl Writes for Connection {
    fn writes(&mut self) -> &mut (dyn AsyncWrite + Unpin) {
        match &mut self.0 {
            Way::Plain(wire) => wire,
            Way::Encrypted(stream) => stream,
        }
    }
}

impl Writes for WriteHalf {
    fn writes(&mut self) -> &mut (dyn AsyncWrite + Unpin) {
        match &mut self.0 {
            Writing::Plain(write) => write,
            Writing::Encrypted(write) => write,
        }
    }
}

macro_rules! reads {
    ($($kind:ty),*) => {$(
        impl AsyncRead for $kind {
            fn poll_read(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                into: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(self.reads()).poll_read(context, into)
            }
        }
    )*};
}

macro_rules! writes {
    ($($kind:ty),*) => {$(
        impl AsyncWrite for $kind {
            fn poll_write(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(self.writes()).poll_write(context, bytes)
            }

            fn poll_flush(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(self.writes()).poll_flush(context)
            }

            fn poll_shutdown(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(self.writes()).poll_shutdown(context)
            }
        }
    )*};
}

reads!(Connection, ReadHalf);
writes!(Connection, WriteHalf);

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

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    // So that a handshake that fails takes the alert behind it along.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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
