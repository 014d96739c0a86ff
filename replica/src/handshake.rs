//! How a connection proves who it is, and what the connections before that may cost.
//!
//! Whoever dials gets a challenge, and time for one small frame. The number of such connections is
//! bounded; the oldest makes room for the newest, since those who hold connections open are old and
//! those who have a key are quick.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use elea_protocol::message::{Challenge, Farewell, Origin, ToClient, ToReplica, WIRE_VERSION};
use elea_protocol::seal::Rejection;
use tokio_util::sync::CancellationToken;

use crate::counters::{Counter, Counters};
use crate::frames::{self, FrameError, Reader, Writer};
use crate::listener::Shell;

/// The connections that have not yet proved who they are, oldest first.
pub(crate) struct Waiting {
    max: usize,
    counters: Arc<Counters>,
    open: Mutex<(u64, BTreeMap<u64, CancellationToken>)>,
}

/// One of them. Dropping it makes room.
pub(crate) struct Turn {
    waiting: Arc<Waiting>,
    id: u64,
    /// Cancelled when it has to make room.
    pub(crate) evicted: CancellationToken,
}

impl Waiting {
    pub(crate) fn new(max: usize, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { max, counters, open: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, CancellationToken>)> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a new one, at the cost of the oldest.
    pub(crate) fn enter(self: &Arc<Self>) -> Turn {
        let evicted = CancellationToken::new();
        let mut open = self.open();
        let id = open.0;
        open.0 += 1;
        if open.1.len() >= self.max
            && let Some((_, oldest)) = open.1.pop_first()
        {
            oldest.cancel();
            self.counters.warn(
                Counter::HandshakeEvicted,
                "too many connections do not say who they are; closing the oldest",
            );
        }
        open.1.insert(id, evicted.clone());
        Turn { waiting: Arc::clone(self), id, evicted }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.waiting.open().1.remove(&self.id);
    }
}

/// Why a connection is not let in: how it is counted and what it is told.
pub(crate) type Refused = (Counter, Option<Farewell>);

/// Challenges a connection and checks its answer.
pub(crate) async fn challenge(
    shell: &Shell,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<Origin, Refused> {
    const GONE: Refused = (Counter::HandshakeAborted, None);
    let nonce = rand::random();
    let (genesis, replica) = (*shell.membership.genesis(), shell.me);
    let challenge = Challenge { version: WIRE_VERSION, genesis, replica, nonce };
    frames::write(writer, &ToClient::Challenge(challenge)).await.map_err(|_| GONE)?;
    let hello = match frames::read_to_replica(reader).await {
        Ok((ToReplica::Hello(hello), _)) => hello,
        Ok(_) => return Err((Counter::HelloMalformed, Some(Farewell::Misbehaviour))),
        Err(FrameError::Closed | FrameError::Io(_)) => return Err(GONE),
        Err(error) => return Err((frame_counter(&error), Some(Farewell::Misbehaviour))),
    };
    let refused = |counter| Err((counter, Some(Farewell::NotAdmitted)));
    match shell.membership.open_hello(hello, shell.me, &nonce) {
        Ok(hello) if hello.body.origin == Origin::Replica(shell.me) => {
            refused(Counter::HelloUnknownSigner)
        }
        Ok(hello) => Ok(hello.body.origin),
        Err(Rejection::BadSignature) => refused(Counter::HelloBadSignature),
        Err(Rejection::UnknownSigner | Rejection::WeakKey) => refused(Counter::HelloUnknownSigner),
        Err(Rejection::Malformed(_)) => refused(Counter::HelloMalformed),
    }
}

/// How a frame that cannot be read is counted.
pub(crate) fn frame_counter(error: &FrameError) -> Counter {
    match error {
        FrameError::TooLarge => Counter::FrameTooLarge,
        FrameError::Malformed(elea_protocol::codec::CodecError::Trailing(_)) => {
            Counter::FrameTrailing
        }
        FrameError::Malformed(_) => Counter::FrameMalformed,
        FrameError::Truncated | FrameError::Closed | FrameError::Io(_) => Counter::FrameTruncated,
    }
}

/// How a message that does not verify is counted.
pub(crate) fn rejection_counter(rejection: Rejection) -> Counter {
    match rejection {
        Rejection::BadSignature => Counter::MessageBadSignature,
        Rejection::UnknownSigner | Rejection::WeakKey => Counter::MessageUnknownSigner,
        Rejection::Malformed(_) => Counter::MessageMalformed,
    }
}
