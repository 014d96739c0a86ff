//! Messages in pieces, so that small ones can go between the pieces of a large one.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Message;
use crate::codec::{self, CodecError, FRAME_MAX};

/// The bytes of a piece: so many a vote may have to let pass, on any line a moment.
pub const PART_BYTES: usize = 64 << 10;

/// A piece of a message's encoding. The pieces of one message follow each other, with whole messages between
/// them and no other message's pieces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// A message begins with this.
    pub is_first: bool,
    /// Nothing of it follows.
    pub is_last: bool,
    /// Not empty.
    pub bytes: Bytes,
}

/// The pieces that are left of an encoding.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    rest: Bytes,
    is_cut: bool,
}

impl From<Bytes> for Pieces {
    fn from(encoding: Bytes) -> Self {
        Self { rest: encoding, is_cut: false }
    }
}

impl Pieces {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

impl Iterator for Pieces {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        let most = self.rest.len().min(PART_BYTES);
        let (bytes, is_first) = (self.rest.split_to(most), !self.is_cut);
        self.is_cut = true;
        (most > 0).then(|| Part { is_first, is_last: self.rest.is_empty(), bytes })
    }
}

/// The pieces that came so far of the message that is coming.
#[derive(Clone, Debug, Default)]
pub struct Parts(Vec<u8>);

impl Parts {
    /// Adds a piece; gives back the message when it is whole, with its bytes.
    ///
    /// # Errors
    /// The piece is empty, it is not of this message, it is too much, or the whole is no message.
    pub fn push(&mut self, part: &Part) -> Result<Option<(Message, usize)>, CodecError> {
        let bytes = self.0.len() + part.bytes.len();
        if part.bytes.is_empty() || part.is_first != self.0.is_empty() {
            return Err(CodecError::Malformed("an empty or wrong piece of a message".to_owned()));
        }
        if bytes > FRAME_MAX {
            return Err(CodecError::TooLarge(bytes));
        }
        self.0.extend_from_slice(&part.bytes);
        if !part.is_last {
            return Ok(None);
        }
        let whole = std::mem::take(&mut self.0);
        Ok(Some((codec::decode(&whole)?, bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ClientId, Digest, RequestName, RequestNumber, SessionId};
    use crate::message::{Waiting, WaitingRequest};

    fn part(is_first: bool, bytes: usize, is_last: bool) -> Part {
        Part { is_first, is_last, bytes: Bytes::from(vec![0; bytes]) }
    }

    #[test]
    fn a_message_in_pieces_comes_whole_and_nothing_larger_than_a_frame_does() {
        let (client, session) = (ClientId([1; 32]), SessionId(1));
        let named = |number| WaitingRequest {
            name: RequestName { client, session, number: RequestNumber(number) },
            digest: Digest([2; 32]),
            bytes: 1,
        };
        let message = Message::Waiting(Waiting((0..2000).map(named).collect()));
        let encoded = codec::encode(&message).expect("small");
        let mut parts = Parts::default();
        let pieces = Pieces::from(encoded.clone());
        let mut came: Vec<_> =
            pieces.map(|part| parts.push(&part).expect("a good piece")).collect();
        assert!(came.len() > 2, "so small a message is one piece");
        assert_eq!(came.pop(), Some(Some((message, encoded.len()))));
        assert!(came.iter().all(Option::is_none));

        let refused = |part| Parts::default().push(&part).is_err();
        assert!(refused(part(true, 0, false)), "empty ones would never end");
        assert!(refused(part(true, 10, true)), "no message");
        assert!(refused(part(false, 10, false)), "the middle of one");
        let mut parts = Parts::default();
        for count in 0..FRAME_MAX / PART_BYTES {
            assert_eq!(parts.push(&part(count == 0, PART_BYTES, false)), Ok(None));
        }
        assert!(parts.push(&part(true, 1, false)).is_err(), "another one within this one");
        let beyond = part(false, 1, true);
        assert_eq!(parts.push(&beyond), Err(CodecError::TooLarge(FRAME_MAX + 1)));
    }
}
