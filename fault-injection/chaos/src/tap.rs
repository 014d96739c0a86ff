//! Listens to a connection: cuts what passes into frames and hands them to the recorder.
//!
//! It never stands in the way of what it hears, with one exception: where the recorder is slower
//! than the network, the network waits. So nothing that is checked depends on how fast anything
//! is, and nothing grows without bound.

use std::collections::HashMap;
use std::fmt;

use bytes::{Buf as _, Bytes, BytesMut};
use elea_protocol::codec::FRAME_MAX;
use elea_protocol::id::{Digest, ReplicaId, Slot};
use elea_protocol::message::Position;
use tokio::sync::{mpsc, oneshot};

use crate::recorder::Record;

/// So many frames wait for the recorder.
pub const QUEUE: usize = 4096;

/// Who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// A replica.
    Replica(ReplicaId),
    /// A client, by number.
    Client(usize),
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica(id) => id.fmt(f),
            Self::Client(number) => write!(f, "c{number}"),
        }
    }
}

/// Who dials whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wire {
    /// The dialler.
    pub from: Party,
    /// The replica dialled.
    pub to: ReplicaId,
}

/// What a recorder is told.
#[derive(Debug)]
pub enum Heard {
    /// A whole frame, without its length.
    Frame {
        /// On which connection.
        wire: Wire,
        /// Whether the dialler said it, or the replica.
        by_dialler: bool,
        /// The message.
        frame: Bytes,
    },
    /// A length that no frame has. What follows on the connection cannot be read.
    Garbled {
        /// On which connection.
        wire: Wire,
        /// Whether the dialler said it, or the replica.
        by_dialler: bool,
    },
    /// Connections were reset.
    Reset(Wire),
    /// A replica was started again, and all that it said before was heard.
    Restarted(ReplicaId),
    /// Everything up to here should be looked at, and what came of it be told.
    Report(oneshot::Sender<Record>),
    /// What is known of the history that ends so should be told.
    History(Position, oneshot::Sender<HashMap<Slot, Digest>>),
}

/// To the recorder.
pub type Hears = mpsc::Sender<Heard>;

/// Listens to one direction of one connection.
pub struct Tap {
    wire: Wire,
    by_dialler: bool,
    hears: Hears,
    buffer: BytesMut,
    is_lost: bool,
}

impl Tap {
    /// Nothing was heard yet.
    #[must_use]
    pub fn new(wire: Wire, by_dialler: bool, hears: Hears) -> Self {
        Self { wire, by_dialler, hears, buffer: BytesMut::new(), is_lost: false }
    }

    /// Takes what was read.
    pub async fn hear(&mut self, bytes: &[u8]) {
        if self.is_lost {
            return;
        }
        self.buffer.extend_from_slice(bytes);
        let Self { wire, by_dialler, .. } = *self;
        loop {
            let heard = match next_frame(&mut self.buffer) {
                Ok(Some(frame)) => Heard::Frame { wire, by_dialler, frame },
                Ok(None) => return,
                Err(TooLong) => {
                    self.is_lost = true;
                    self.buffer = BytesMut::new();
                    Heard::Garbled { wire, by_dialler }
                }
            };
            // It fails where the recorder has ended, and then nobody wants to know.
            if self.hears.send(heard).await.is_err() {
                self.is_lost = true;
            }
            if self.is_lost {
                return;
            }
        }
    }
}

/// A length that no frame has.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

/// Takes the first frame out of the buffer, if it is whole.
///
/// # Errors
/// It begins with a length that no frame has.
pub fn next_frame(buffer: &mut BytesMut) -> Result<Option<Bytes>, TooLong> {
    let Some(length) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| TooLong)?;
    if length > FRAME_MAX {
        return Err(TooLong);
    }
    if buffer.len() - 4 < length {
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_wherever_the_bytes_are_cut() {
        let whole =
            [&[0, 0, 0, 2][..], b"ab", &[0, 0, 0, 0], &[0, 0, 0, 1], b"c", &[0, 0]].concat();
        for cut in 0..whole.len() {
            let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
            for part in [&whole[..cut], &whole[cut..]] {
                buffer.extend_from_slice(part);
                while let Some(frame) = next_frame(&mut buffer).expect("short") {
                    frames.push(frame);
                }
            }
            assert_eq!(frames, [&b"ab"[..], b"", b"c"], "cut at {cut}");
            assert_eq!(&buffer[..], [0, 0]);
        }
    }

    #[test]
    fn an_absurd_length_is_refused() {
        let mut buffer = BytesMut::from(&[0xff; 9][..]);
        assert_eq!(next_frame(&mut buffer), Err(TooLong));
    }

    #[tokio::test]
    async fn after_an_absurd_length_nothing_more_is_heard() {
        let (hears, mut heard) = mpsc::channel(8);
        let wire = Wire { from: Party::Client(0), to: ReplicaId(0) };
        let mut tap = Tap::new(wire, true, hears);
        tap.hear(&[0, 0, 0, 1, 7, 0xff, 0xff, 0xff, 0xff]).await;
        tap.hear(&[0, 0, 0, 1, 7]).await;
        assert!(matches!(heard.try_recv(), Ok(Heard::Frame { .. })));
        assert!(matches!(heard.try_recv(), Ok(Heard::Garbled { by_dialler: true, .. })));
        assert!(heard.try_recv().is_err());
    }
}
