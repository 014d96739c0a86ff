//! Remembers everything that each replica signed, across restarts, and finds what contradicts it.
//!
//! It is fed by the [taps](crate::tap) and runs in a thread of its own, since checking signatures
//! takes time. No replica in these clusters is told to lie, so every one must keep every rule.
//!
//! What is checked, with the rule's number in the specification or the checker's own name:
//!
//! - I7: no replica orders, votes for, answers for or stands at two histories at one place of one
//!   view, begins a view twice, or votes for two states. The words count wherever they are found:
//!   on the replica's own connections, in certificates, and in what others pass on.
//! - I7 across restarts: what a replica says for the first time after a restart is of no view below
//!   the ones it showed before; it stands on no shorter history than it answered for in that view,
//!   and has no lower lock than it rested an answer on. So a replica that forgets is found out.
//! - I1 and I3: no two certificates of one view, and no two certified states, exclude each other.
//! - `state`: one request at one place of one history has one result, whoever executes it.
//! - `signature`: what travels is signed by whom it names, and keeps its bounds.
//! - `honest`: nobody is accused: no proof of misbehaviour, and no replica counts anything that only
//!   a liar or a stranger causes. (That a connection is closed with a harsh word is only counted: a
//!   frame that a crash cut short, or a hello that a broken network held, gets one, too.)
//!
//! Two connections of one replica have no common sequence, so rules about what comes first are
//! held against restarts only, between which everything is heard out.

mod counters;
mod lineage;
mod record;
mod replica;
mod scheme;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use elea_fault_injection::check::Votes;
use elea_fault_injection::violation::{Violation, demand};
use elea_protocol::codec;
use elea_protocol::id::{Digest, Life, ReplicaId, RequestName, Slot};
use elea_protocol::membership::Membership;
use elea_protocol::message::{
    Message, NodeStatus, Origin, Part, Parts, Position, SignedReply, ToClient, ToReplica,
};
use elea_protocol::seal::{Rejection, VerifiedRoots};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use self::counters::{ACCUSING, BY_STRANGERS, add_up, refusal_kind};
pub use self::lineage::Lineage;
pub use self::record::Record;
use self::replica::Remembered;
pub use self::scheme::Remembering;
use crate::tap::{Heard, Hears, Party, QUEUE, Wire};

/// So many frames are remembered as looked at: a word is often sent to everybody.
const REPEATS: usize = 4096;

/// So many violations are kept in words; the others are counted.
const SHOWN: usize = 20;

/// A request, and the history that ends with the slot it was executed in.
type Place = (RequestName, Digest);

/// The recorder, as long as its thread runs.
#[derive(Clone, Debug)]
pub struct Recorder {
    hears: Hears,
}

impl Recorder {
    /// Starts to listen for a cluster, to which strangers that it does not hear may do what they like.
    /// It ends when everybody who hears for it is gone.
    #[must_use]
    pub fn start(membership: &Membership, has_strangers: bool) -> Self {
        let (hears, mut heard) = mpsc::channel(QUEUE);
        let mut ear = Ear::new(membership);
        ear.has_strangers = has_strangers;
        std::thread::spawn(move || {
            while let Some(next) = heard.blocking_recv() {
                ear.take(next);
            }
        });
        Self { hears }
    }

    /// One that hears nothing.
    #[must_use]
    pub fn deaf() -> Self {
        Self { hears: mpsc::channel(1).0 }
    }

    /// For those who hear.
    #[must_use]
    pub fn hears(&self) -> Hears {
        self.hears.clone()
    }

    /// A replica starts again, and all that it said before was heard.
    pub async fn restarted(&self, who: ReplicaId) {
        let _ = self.hears.send(Heard::Restarted(who)).await;
    }

    /// What came of everything that was heard before.
    ///
    /// # Errors
    /// The recorder has ended.
    pub async fn report(&self) -> Result<Record, Violation> {
        let (to, answer) = oneshot::channel();
        let gone = || Violation::new("harness", "the recorder has ended");
        self.hears.send(Heard::Report(to)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    /// The hashes of the history that ends so, as far down as its orders were heard.
    ///
    /// # Errors
    /// The recorder has ended.
    pub async fn history(&self, end: Position) -> Result<HashMap<Slot, Digest>, Violation> {
        let (to, answer) = oneshot::channel();
        let gone = || Violation::new("harness", "the recorder has ended");
        self.hears.send(Heard::History(end, to)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

/// What the thread holds. See the [module](self).
pub struct Ear {
    membership: Membership,
    has_strangers: bool,
    record: Record,
    votes: Votes,
    lineage: Lineage,
    remembered: Vec<Remembered>,
    results: HashMap<Place, (u32, Digest)>,
    /// Whose first life which replica says to know, and which that is.
    lives: HashMap<(ReplicaId, ReplicaId), Life>,
    /// What each replica counted since its last start.
    counters: Vec<BTreeMap<String, u64>>,
    roots: VerifiedRoots,
    repeats: (HashSet<[u8; 32]>, VecDeque<[u8; 32]>),
    /// What is coming in pieces, by who dials whom and who of the two speaks.
    pieces: HashMap<(Wire, bool), Parts>,
}

impl Ear {
    /// Nothing was heard yet.
    #[must_use]
    pub fn new(membership: &Membership) -> Self {
        // Most signatures are met again in certificates and in what is passed on.
        let membership = membership.with_scheme(|inner| Arc::new(Remembering::new(inner)));
        let size = membership.size();
        Self {
            record: Record::default(),
            votes: Votes::new(size),
            lineage: Lineage::new(*membership.genesis()),
            lives: HashMap::new(),
            remembered: vec![Remembered::default(); usize::from(size.replicas())],
            results: HashMap::new(),
            counters: vec![BTreeMap::new(); usize::from(size.replicas())],
            roots: VerifiedRoots::default(),
            repeats: Default::default(),
            pieces: HashMap::new(),
            has_strangers: false,
            membership,
        }
    }

    /// What was recorded so far.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Takes one thing in.
    pub fn take(&mut self, heard: Heard) {
        let found = match heard {
            Heard::Frame { wire, by_dialler: true, frame } => self.dialler_says(wire, &frame),
            Heard::Frame { wire, by_dialler: false, frame } => self.replica_says(wire, &frame),
            Heard::Garbled { wire, by_dialler } => {
                self.record.add("frames_malformed", 1);
                Err(malformed(wire, by_dialler, "a frame is longer than any may be"))
            }
            Heard::Reset(_) => {
                self.record.add("connections_reset", 1);
                Ok(())
            }
            Heard::Restarted(who) => {
                self.record.restarts += 1;
                self.remembered[usize::from(who.0)].starts();
                let last = std::mem::take(&mut self.counters[usize::from(who.0)]);
                add_up(&mut self.record.counted, last);
                Ok(())
            }
            Heard::Report(to) => {
                // Whoever asked may have given up.
                let mut record = self.record.clone();
                self.counters.iter().for_each(|last| add_up(&mut record.counted, last.clone()));
                let _ = to.send(record);
                Ok(())
            }
            Heard::History(end, to) => {
                let _ = to.send(self.lineage.history(end));
                Ok(())
            }
        };
        if let Err(violation) = found {
            self.record.broken += 1;
            if self.record.violations.len() < SHOWN {
                self.record.violations.push(violation);
            }
        }
    }

    fn dialler_says(&mut self, wire: Wire, frame: &Bytes) -> Result<(), Violation> {
        self.record.add("frames", 1);
        let said = codec::decode::<ToReplica>(frame).map_err(|error| {
            self.record.add("frames_malformed", 1);
            malformed(wire, true, &error.to_string())
        })?;
        match (said, wire.from) {
            (ToReplica::Peer(message), Party::Replica(who)) => self.peer(who, message, frame),
            (ToReplica::Part(part), Party::Replica(who)) => self.part(wire, true, who, &part),
            (ToReplica::Peer(_) | ToReplica::Part(_), Party::Client(_)) => {
                Err(malformed(wire, true, "a client speaks as a replica"))
            }
            (ToReplica::Hello(hello), from) => {
                let named = match (hello.body.origin, from) {
                    (Origin::Replica(id), Party::Replica(who)) => id == who,
                    (Origin::Client(_), Party::Client(_)) => true,
                    _ => false,
                };
                demand(named, "signature", || format!("{from} says hello as another"))?;
                let nonce = hello.body.nonce;
                let opened = self.membership.open_hello(hello, wire.to, &nonce);
                opened.map(drop).map_err(|why| unsigned(wire, true, "a hello", why))
            }
            (ToReplica::Knock(knock), _) => {
                let opened = self.membership.open_knock(knock, wire.to);
                opened.map(drop).map_err(|why| unsigned(wire, true, "a knock", why))
            }
            (ToReplica::Request(request), _) => {
                self.record.add("requests", 1);
                let opened = self.membership.open_request(request);
                opened.map(drop).map_err(|why| unsigned(wire, true, "a request", why))
            }
            (ToReplica::Query(query), _) => {
                self.record.add("queries", 1);
                query.check().map_err(|why| unsigned(wire, true, "a query", why.into()))
            }
            (
                ToReplica::AskSession(_)
                | ToReplica::AskStatus(_)
                | ToReplica::AskEvidence
                | ToReplica::AskState
                | ToReplica::AskPiece { .. }
                | ToReplica::Terms(_),
                _,
            ) => Ok(()),
        }
    }

    fn replica_says(&mut self, wire: Wire, frame: &Bytes) -> Result<(), Violation> {
        self.record.add("frames", 1);
        let said = codec::decode::<ToClient>(frame).map_err(|error| {
            self.record.add("frames_malformed", 1);
            malformed(wire, false, &error.to_string())
        })?;
        let who = wire.to;
        let by = |by: ReplicaId, what: &str| {
            demand(by == who, "signature", || format!("{who} sends {what} of {by}"))
        };
        let bad = |what: &'static str| move |why| unsigned(wire, false, what, why);
        match said {
            ToClient::Challenge(challenge) => demand(challenge.replica == who, "signature", || {
                format!("{who} says that it is {}", challenge.replica)
            }),
            ToClient::Replies(replies) => {
                replies.into_iter().try_for_each(|reply| self.reply(wire, reply))
            }
            ToClient::QueryReplies(replies) => replies.into_iter().try_for_each(|reply| {
                by(reply.vote.by, "a reply to a query")?;
                let opened = self.membership.open_reply_cached(reply, &mut self.roots);
                opened.map(drop).map_err(bad("a reply to a query"))
            }),
            ToClient::NoQueryReply(..) => {
                self.record.add("queries_unanswered", 1);
                Ok(())
            }
            ToClient::Refusal(refusal) => {
                by(refusal.by, "a refusal")?;
                self.record.add(refusal_kind(refusal.body.reason), 1);
                self.membership.open(refusal).map(drop).map_err(bad("a refusal"))
            }
            ToClient::Session(report) => {
                by(report.by, "a report")?;
                self.membership.open(report).map(drop).map_err(bad("a report"))
            }
            ToClient::Status(status) => {
                by(status.by, "a status")?;
                let opened = self.membership.open(*status).map_err(bad("a status"))?;
                self.own_words(who, &opened.body)
            }
            ToClient::Evidence(proofs) => demand(proofs.is_empty(), "honest", || {
                format!("{who} holds a proof that a replica misbehaved: {:?}", proofs.first())
            }),
            ToClient::Farewell(_) => {
                self.record.add("farewells", 1);
                Ok(())
            }
            ToClient::Greeting(greeting) => {
                by(greeting.by, "a greeting")?;
                self.membership.open(greeting).map(drop).map_err(bad("a greeting"))
            }
            ToClient::Peer(message) => self.peer(who, message, frame),
            ToClient::Part(part) => self.part(wire, false, who, &part),
            ToClient::State(head) => match head {
                Some(head) => {
                    self.membership.open_state_head(*head).map(drop).map_err(bad("a state"))
                }
                None => Ok(()),
            },
            ToClient::Terms(_) | ToClient::Welcome | ToClient::Busy(_) | ToClient::Piece { .. } => {
                Ok(())
            }
        }
    }

    /// What a replica tells of itself to whoever asks.
    fn own_words(&mut self, who: ReplicaId, status: &NodeStatus) -> Result<(), Violation> {
        self.record.add("node_statuses", 1);
        let counters = &mut self.counters[usize::from(who.0)];
        *counters = status.counters.iter().cloned().collect();
        let accuses = |name: &str| {
            ACCUSING.contains(&name) && !(self.has_strangers && BY_STRANGERS.contains(&name))
        };
        let accuses = counters.iter().find(|(name, count)| **count > 0 && accuses(name));
        demand(accuses.is_none() && status.evidence == 0, "honest", || {
            format!("{who} counts {accuses:?}, and holds {} proofs", status.evidence)
        })
    }

    fn reply(&mut self, wire: Wire, signed: SignedReply) -> Result<(), Violation> {
        self.record.add("replies", 1);
        let who = wire.to;
        demand(signed.vote.by == who, "signature", || {
            format!("{who} sends a reply of {}", signed.vote.by)
        })?;
        let opened = self.membership.open_reply_cached(signed, &mut self.roots);
        let reply = opened.map_err(|why| unsigned(wire, false, "a reply", why))?.into_inner().reply;
        let at = Position { slot: reply.slot, hash: reply.hash };
        let mine = &mut self.remembered[usize::from(who.0)];
        mine.answers(who, reply.kind, reply.view, at)?;
        let result = (reply.index, reply.results.digest());
        let first = *self.results.entry((reply.name, at.hash)).or_insert(result);
        demand(first == result, "state", || {
            format!(
                "{who} gives {:?} at slot {} another result than was given before, or another \
                 place in the slot",
                reply.name, at.slot
            )
        })
    }

    /// A piece of a message. Where a connection ended within one, the next one begins anew, and of those
    /// that overlap pieces may be lost: then the message is not heard.
    fn part(
        &mut self,
        wire: Wire,
        by_dialler: bool,
        who: ReplicaId,
        part: &Part,
    ) -> Result<(), Violation> {
        let parts = self.pieces.entry((wire, by_dialler)).or_default();
        if part.is_first {
            *parts = Parts::default();
        }
        match parts.push(part) {
            Ok(None) => Ok(()),
            Ok(Some((message, _))) => {
                let frame = codec::encode(&ToReplica::Peer(message.clone()));
                let frame = frame.map_err(|error| malformed(wire, by_dialler, &error.to_string()));
                self.peer(who, message, &frame?)
            }
            Err(_) => {
                *parts = Parts::default();
                self.record.add("pieces_lost", 1);
                Ok(())
            }
        }
    }

    fn peer(&mut self, who: ReplicaId, message: Message, frame: &Bytes) -> Result<(), Violation> {
        if self.is_repeated(who, frame) {
            return Ok(());
        }
        let kind = message.kind();
        self.record.add("messages", 1);
        if matches!(message, Message::Evidence(_)) {
            return Err(Violation::new("honest", format!("{who} accuses somebody: {message:?}")));
        }
        let opened = self.membership.open_message(message);
        let message = opened.map_err(|why| {
            let what = format!("{who} sends a message ({kind}) that is not to be let in: {why}");
            Violation::new(
                if why == Rejection::BadSignature { "signature" } else { "honest" },
                what,
            )
        })?;
        self.listen(who, &message)
    }

    /// Whether this very message of this replica was looked at not long ago.
    fn is_repeated(&mut self, who: ReplicaId, frame: &Bytes) -> bool {
        let mut hash = Sha256::new();
        hash.update([who.0]);
        hash.update(frame);
        let digest: [u8; 32] = hash.finalize().into();
        let (known, order) = &mut self.repeats;
        if !known.insert(digest) {
            return true;
        }
        order.push_back(digest);
        if order.len() > REPEATS
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
        false
    }
}

fn malformed(wire: Wire, by_dialler: bool, what: &str) -> Violation {
    let Wire { from, to } = wire;
    let whose = if by_dialler { format!("{from} to {to}") } else { format!("{to} to {from}") };
    Violation::new("honest", format!("malformed bytes from {whose}: {what}"))
}

fn unsigned(wire: Wire, by_dialler: bool, what: &str, why: Rejection) -> Violation {
    let Wire { from, to } = wire;
    let whose = if by_dialler { format!("{from} to {to}") } else { format!("{to} to {from}") };
    Violation::new("signature", format!("{what} from {whose} is not to be let in: {why}"))
}
