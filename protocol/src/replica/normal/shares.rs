//! Which part of the suffix is whose.
//!
//! It is worked out only where the suffix is large, and then remembered: what is added is counted once,
//! and all of it again only when the stable checkpoint has moved or the history has changed.

use std::collections::BTreeMap;

use crate::history::History;
use crate::id::{ClientId, Slot};
use crate::message::Position;

/// What an operation comes to beside its bytes.
const OPERATION: usize = 2 << 10;

/// What the requests of each client above the stable checkpoint come to, in bytes with something for each
/// operation: what they weigh exactly only their execution knows, and a part needs no more than this.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Shares {
    above: Slot,
    /// Up to where it is counted.
    through: Option<Position>,
    bytes: BTreeMap<ClientId, u64>,
    all: u64,
}

impl Shares {
    /// What this client has above the stable checkpoint, and what all have.
    pub(super) fn of(&mut self, client: &ClientId, history: &History, stable: Slot) -> (u64, u64) {
        let through = self.through.filter(|at| self.above == stable && history.goes_through(*at));
        if through.is_none() {
            *self = Self { above: stable, ..Self::default() };
        }
        let from = through.map_or(stable, |at| at.slot).next();
        for (_, entry) in history.from(from) {
            for request in &entry.batch.requests {
                let body = request.body();
                let bytes = (body.wire_bytes() + OPERATION * body.operations.len()) as u64;
                *self.bytes.entry(body.client).or_default() += bytes;
                self.all += bytes;
            }
        }
        self.through = Some(history.head());
        (self.bytes.get(client).copied().unwrap_or_default(), self.all)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::history::{Entry, extend};
    use crate::id::{Digest, RequestNumber, SessionId, WallTime};
    use crate::message::{Batch, Level, NonDeterminism, Request, SignedRequest};
    use crate::signature::{SecretKey, Signer as _};

    fn key(client: u8) -> SecretKey {
        SecretKey::from_bytes(&[client; 32])
    }

    fn id(client: u8) -> ClientId {
        key(client).public_key().into()
    }

    /// The next slot holds one request.
    fn push(history: &mut History, client: u8, bytes: usize) {
        let number = RequestNumber(history.head().slot.next().0);
        let body = Request {
            client: id(client),
            session: SessionId(1),
            number,
            level: Level::Weak,
            want_final: false,
            operations: vec![Bytes::from(vec![0; bytes])],
        };
        let requests = vec![SignedRequest::sign(&key(client), &Digest([0; 32]), body)];
        let choices =
            NonDeterminism { time: WallTime(0), seed: [0; 16], ..NonDeterminism::default() };
        let batch = Arc::new(Batch { choices, requests });
        let hash = extend(&history.head().hash, &batch.digest());
        history.push(Entry { hash, batch, order: None, results: Vec::new() }, 1);
    }

    /// What is remembered must be what comes out when all of it is counted.
    fn check(shares: &mut Shares, history: &History, stable: u64) -> (u64, u64) {
        let anew = Shares::default().of(&id(1), history, Slot(stable));
        assert_eq!(shares.of(&id(1), history, Slot(stable)), anew);
        anew
    }

    #[test]
    fn what_is_added_is_counted_once_and_only_above_what_is_stable() {
        let (mut shares, mut history) = (Shares::default(), History::new(Digest([0; 32])));
        assert_eq!(check(&mut shares, &history, 0), (0, 0));
        push(&mut history, 1, 1000);
        push(&mut history, 2, 5000);
        let (own, all) = check(&mut shares, &history, 0);
        assert!(own >= 1000 && all - own >= 5000);
        push(&mut history, 1, 300);
        let (more, _) = check(&mut shares, &history, 0);
        assert!(more >= own + 300);
        assert_eq!(check(&mut shares, &history, 1).0, more - own);
        assert_eq!(check(&mut shares, &history, 3), (0, 0));
    }

    #[test]
    fn on_another_history_all_is_counted_anew() {
        let (mut shares, mut history) = (Shares::default(), History::new(Digest([0; 32])));
        (0..3).for_each(|_| push(&mut history, 1, 1000));
        let (before, _) = check(&mut shares, &history, 0);
        history.cut(Slot(1));
        push(&mut history, 2, 1000);
        push(&mut history, 2, 1000);
        let (own, all) = check(&mut shares, &history, 0);
        assert_eq!((own, all), (before / 3, before));
    }
}
