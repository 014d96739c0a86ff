//! Byzantine clients: they hold a key of their own and send whatever bytes they like.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::codec::encode;
use elea_protocol::id::{ClientId, Digest, RequestNumber, SessionId, Slot};
use elea_protocol::merkle::Path;
use elea_protocol::message::{Level, Past, Position, Query, Request, SignedRequest, ToReplica};
use elea_protocol::signature::{Signature, Signer};

use crate::plan::Plan;
use crate::rng::Rng;

/// What a hostile client does, with what it is called.
pub const KINDS: &[(&str, &str)] = &[
    ("two-contents", "signs two contents under one name and tells each half another one"),
    ("beyond-window", "numbers far beyond its window, and gaps"),
    ("old-numbers", "executed numbers again, with the same and with other contents"),
    ("flood", "many requests at once, in one session"),
    ("many-sessions", "a new session for every request"),
    ("old-sessions", "more sessions than it may have, and what it sent in those that have left"),
    ("forger", "requests with bad signatures and in the names of others"),
    ("backups-only", "sends to one backup and to nobody else"),
];

/// Those who want more than their share, apart from the others so that old seeds keep theirs.
pub const GREEDY: &[(&str, &str)] = &[
    ("hog", "large requests, as many as there is room for, some to one backup only"),
    ("asker", "asks how everybody is, for proofs, sessions and copies of states, without end"),
];

/// What each request of a hog has, in bytes: several fill what may wait of all clients in a small world.
const HOG_BYTES: usize = 60_000;

/// See the [module](self).
pub struct Hostile {
    /// As it is called.
    pub kind: &'static str,
    signer: Arc<dyn Signer>,
    genesis: Digest,
    replicas: u8,
    /// In whose name it would like to speak.
    victim: ClientId,
    session: SessionId,
    number: u64,
    window: u64,
    sent: Vec<Arc<SignedRequest>>,
    /// By replica: what it lacks of the state that it copies.
    lacking: BTreeMap<u8, (Position, u32)>,
    rng: Rng,
}

/// Bytes for a replica.
pub type Shot = (u8, Bytes);

impl Hostile {
    /// A client of this kind.
    #[must_use]
    pub fn new(
        kind: &'static str,
        signer: Arc<dyn Signer>,
        victim: ClientId,
        plan: &Plan,
        genesis: Digest,
        mut rng: Rng,
    ) -> Self {
        let session = SessionId((1 << 32) + rng.between(0, 1 << 20));
        let (replicas, window) = (plan.size.replicas(), plan.tuning.rules.session_window);
        let (number, sent, lacking) = (0, Vec::new(), BTreeMap::new());
        Self {
            kind,
            signer,
            genesis,
            replicas,
            victim,
            session,
            number,
            window,
            sent,
            lacking,
            rng,
        }
    }

    /// Which client it is.
    #[must_use]
    pub fn id(&self) -> ClientId {
        self.signer.public_key().into()
    }

    fn request(&mut self, number: u64, text: &str) -> Arc<SignedRequest> {
        let body = Request {
            client: self.id(),
            session: self.session,
            number: RequestNumber(number),
            level: if self.rng.one_in(4) { Level::Strong } else { Level::Weak },
            want_final: self.rng.one_in(2),
            operations: vec![Bytes::copy_from_slice(text.as_bytes())],
        };
        SignedRequest::sign(&*self.signer, &self.genesis, body)
    }

    fn everywhere(&self, request: &Arc<SignedRequest>, shots: &mut Vec<Shot>) {
        let bytes = frame(request);
        shots.extend((0..self.replicas).map(|to| (to, bytes.clone())));
    }

    /// What it sends now.
    pub fn act(&mut self) -> Vec<Shot> {
        let mut shots = Vec::new();
        self.number += 1;
        match self.kind {
            "two-contents" => self.sign_two_contents(&mut shots),
            "beyond-window" => self.leave_the_window(&mut shots),
            "old-numbers" => self.use_numbers_again(&mut shots),
            "flood" => self.flood(&mut shots),
            "many-sessions" => {
                self.session = SessionId(self.session.0 + 1);
                let request = self.request(1, "incr hostile 1");
                self.everywhere(&request, &mut shots);
            }
            "old-sessions" => self.use_sessions_again(&mut shots),
            "forger" => self.forge(&mut shots),
            "hog" => self.hog(&mut shots),
            "asker" => self.question(&mut shots),
            _ => {
                let request = self.request(self.number, "incr hostile 1");
                let to = self.rng.between(1, u64::from(self.replicas.max(2)) - 1);
                shots.push((u8::try_from(to).expect("few replicas"), frame(&request)));
            }
        }
        shots
    }

    fn sign_two_contents(&mut self, shots: &mut Vec<Shot>) {
        let left = self.request(self.number, "incr hostile 1");
        let right = self.request(self.number, "incr hostile 100");
        for to in 0..self.replicas {
            let both = self.rng.one_in(4);
            if to % 2 == 0 || both {
                shots.push((to, frame(&left)));
            }
            if to % 2 == 1 || both {
                shots.push((to, frame(&right)));
            }
        }
    }

    fn leave_the_window(&mut self, shots: &mut Vec<Shot>) {
        let gap = self.rng.between(0, 3 * self.window);
        let request = self.request(self.number.saturating_add(gap), "incr hostile 1");
        self.everywhere(&request, shots);
        if self.rng.one_in(4) {
            let request = self.request(u64::MAX, "incr hostile 1");
            self.everywhere(&request, shots);
        }
    }

    fn use_numbers_again(&mut self, shots: &mut Vec<Shot>) {
        let request = self.request(self.number, "incr hostile 1");
        self.everywhere(&request, shots);
        self.sent.push(request);
        let old = self.rng.pick(&self.sent).clone();
        self.everywhere(&old, shots);
        let again = self.request(old.body().number.0, "put hostile again");
        self.everywhere(&again, shots);
    }

    fn flood(&mut self, shots: &mut Vec<Shot>) {
        for offset in 0..self.rng.between(20, 60) {
            let request = self.request(self.number + offset, "append hostile x");
            self.everywhere(&request, shots);
        }
        self.number += 10;
    }

    fn use_sessions_again(&mut self, shots: &mut Vec<Shot>) {
        for _ in 0..self.rng.between(1, 6) {
            self.session = SessionId(self.session.0 + 1);
            let request = self.request(1, "incr hostile 1");
            self.everywhere(&request, shots);
            self.sent.push(request);
        }
        for _ in 0..3 {
            let old = self.rng.pick(&self.sent).clone();
            self.everywhere(&old, shots);
            let mut body = old.body().clone();
            body.number = RequestNumber(body.number.0 + 1);
            let next = SignedRequest::sign(&*self.signer, &self.genesis, body);
            self.everywhere(&next, shots);
        }
    }

    fn forge(&mut self, shots: &mut Vec<Shot>) {
        let good = self.request(self.number, "incr hostile 1");
        let mut body = good.body().clone();
        let signature = *good.signature();
        body.client = ClientId(self.rng.bytes());
        let foreign = SignedRequest::from_parts(body, signature, Path::lone());
        self.everywhere(&Arc::new(foreign), shots);
        self.forge_among_others(shots);
        let noise: [u8; 32] = self.rng.bytes();
        let mut bad = [0; 64];
        bad[..32].copy_from_slice(&noise);
        let unsigned = SignedRequest::from_parts(good.body().clone(), Signature(bad), Path::lone());
        self.everywhere(&Arc::new(unsigned), shots);
        self.everywhere(&good, shots);
    }

    /// Signs two requests together, and puts another one in the place of the first.
    fn forge_among_others(&mut self, shots: &mut Vec<Shot>) {
        let bodies = [1000, 1001].map(|more| {
            let session = SessionId(self.session.0 + more);
            let good = self.request(1, "incr hostile 1");
            Request { session, ..good.body().clone() }
        });
        let both = SignedRequest::sign_all(&*self.signer, &self.genesis, bodies.to_vec());
        let Some(first) = both.first() else { return };
        let mut body = first.body().clone();
        body.client = self.victim;
        let (signature, path) = (*first.signature(), first.path().clone());
        let foreign = SignedRequest::from_parts(body, signature, path);
        self.everywhere(&Arc::new(foreign), shots);
    }

    fn hog(&mut self, shots: &mut Vec<Shot>) {
        for offset in 0..self.rng.between(2, 6) {
            let request = self.request(self.number + offset, &"put hog ".repeat(HOG_BYTES / 8));
            if self.rng.one_in(3) {
                let to = self.rng.between(0, u64::from(self.replicas) - 1);
                shots.push((u8::try_from(to).expect("few replicas"), frame(&request)));
            } else {
                self.everywhere(&request, shots);
            }
        }
        self.number += 3;
    }

    /// Which piece of a state it lacks of those that it copies from a replica.
    pub fn note_lacking(&mut self, replica: u8, piece: Option<(Position, u32)>) {
        match piece {
            Some(piece) => drop(self.lacking.insert(replica, piece)),
            None => drop(self.lacking.remove(&replica)),
        }
    }

    /// Asks replicas for the pieces that it lacks, and for one that nobody has.
    fn pieces(&mut self, shots: &mut Vec<Shot>) {
        let nowhere = Position { slot: Slot(self.number), hash: Digest([9; 32]) };
        let strange =
            (u8::try_from(self.rng.index(usize::from(self.replicas))).expect("few"), (nowhere, 7));
        let lacking = self.lacking.iter().map(|(to, piece)| (*to, *piece));
        for (to, (at, index)) in lacking.chain([strange]) {
            let question = encode(&ToReplica::AskPiece { at, index }).expect("a small question");
            shots.push((to, question));
        }
    }

    /// What it never saw, and what is there by chance.
    fn past(&mut self) -> Option<Past> {
        let mut past = Past::default();
        if self.rng.one_in(2) {
            let slot = Slot(self.rng.between(0, 20));
            past.note_read(Position { slot, hash: Digest(self.rng.bytes()) });
        }
        let number = RequestNumber(self.rng.between(0, 9));
        let _ = past.note_written(self.id(), self.session, number);
        self.rng.one_in(2).then_some(past)
    }

    fn question(&mut self, shots: &mut Vec<Shot>) {
        for _ in 0..self.rng.between(5, 30) {
            let question = match self.rng.index(6) {
                0 => ToReplica::AskStatus(self.number),
                1 => ToReplica::AskEvidence,
                4 => ToReplica::AskState,
                5 => {
                    self.pieces(shots);
                    continue;
                }
                2 => ToReplica::Query(Query {
                    session: self.session,
                    nonce: self.rng.bytes(),
                    level: if self.rng.one_in(2) { Level::Strong } else { Level::Weak },
                    after: Slot(u64::from(self.replicas)),
                    past: self.past(),
                    operations: vec![Bytes::from_static(b"get k0"); self.rng.index(4)],
                }),
                _ => ToReplica::AskSession(self.session),
            };
            let bytes = encode(&question).expect("a small question");
            shots.extend((0..self.replicas).map(|to| (to, bytes.clone())));
        }
    }
}

fn frame(request: &Arc<SignedRequest>) -> Bytes {
    encode(&ToReplica::Request(request.clone())).expect("a small request")
}
