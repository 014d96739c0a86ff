//! What is under way between machines, and what can happen next, in words a person can read.

use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use elea_protocol::id::ReplicaId;
use elea_protocol::membership::Membership;
use elea_protocol::message::{Message, SignedRequest};
use elea_protocol::replica::Event;
use elea_protocol::seal::Rejection;

/// A hash of everything that `words` prints.
#[must_use]
pub fn print_of(words: &impl fmt::Debug) -> u64 {
    let mut text = String::with_capacity(1 << 14);
    write!(text, "{words:?}").expect("writing to a String");
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// Makes one fingerprint of several, in this order.
#[must_use]
pub fn blend(prints: &[u64]) -> u64 {
    let mut hasher = DefaultHasher::new();
    prints.iter().for_each(|print| hasher.write_u64(*print));
    hasher.finish()
}

/// A machine: twins are two of them with one identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which machine of the situation.
    pub index: usize,
    /// Which replica runs on it.
    pub id: ReplicaId,
    /// Whether it is the second one of its identity.
    pub is_twin: bool,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.id, if self.is_twin { "'" } else { "" })
    }
}

/// What a letter says.
#[derive(Clone, Debug)]
pub enum Words {
    /// A client asks.
    Request(Arc<SignedRequest>),
    /// A replica says something to another.
    Peer(ReplicaId, Box<Message>),
}

impl Words {
    /// The name of the kind, as scenes know it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Request(_) => "request",
            Self::Peer(_, message) => message.kind(),
        }
    }

    /// The replica it comes from, if it is one.
    #[must_use]
    pub fn from(&self) -> Option<ReplicaId> {
        match self {
            Self::Request(_) => None,
            Self::Peer(from, _) => Some(*from),
        }
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(request) => {
                write!(f, "request {} ({:?})", request.body().number, request.body().level)
            }
            Self::Peer(_, message) => {
                f.write_str(message.kind())?;
                detail(message, f)
            }
        }
    }
}

fn detail(message: &Message, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match message {
        Message::Order(order) => {
            let header = order.body.header;
            write!(f, " of {}: slot {} becomes {:?}", header.view, header.slot, header.hash)
        }
        Message::Commit(vote) => {
            write!(f, " of {}: slot {} is {:?}", vote.body.view, vote.body.slot, vote.body.hash)
        }
        Message::Certificate(certificate) => {
            let commit = certificate.body;
            write!(f, " of {}: slot {} is {:?}", commit.view, commit.slot, commit.hash)
        }
        Message::Checkpoint(vote) => write!(f, " of {}: slot {}", vote.body.view, vote.body.slot),
        Message::Stable(proof) => write!(f, ": slot {}", proof.slot()),
        Message::Status(status) => {
            let status = &status.body;
            let head = status.head;
            write!(f, ": in {}, head {} {:?}", status.entered, head.slot, head.hash)
        }
        Message::Fetch(fetch) => write!(f, ": {:?}", fetch.body.wanted),
        Message::Suspect(suspect) => write!(f, " of {}", suspect.body.view),
        Message::Campaign(campaign) => {
            let change = &campaign.change.body;
            let (view, head, lock) = (change.view, change.head, change.lock_rank());
            write!(f, " for {view}: head {} {:?}, lock {lock:?}", head.slot, head.hash)
        }
        Message::NewView(new_view) => {
            let header = new_view.body.header;
            let by: Vec<ReplicaId> = new_view.body.changes.iter().map(|change| change.by).collect();
            let head = header.head;
            write!(f, " {}: head {} {:?}, asked for by {by:?}", header.view, head.slot, head.hash)
        }
        Message::Evidence(evidence) => {
            write!(f, " against {}: {}", evidence.culprit(), evidence.kind())
        }
        Message::Enrol(enrol) => write!(f, " of {:?}", enrol.body.life),
        Message::Enrolled(word) => {
            write!(f, ": {:?} was the first of {}", word.body.life, word.body.replica)
        }
        Message::Waiting(waiting) => write!(f, ": {} requests", waiting.0.len()),
        Message::Requests(_)
        | Message::Clients(_)
        | Message::Slots(_)
        | Message::Branch(_)
        | Message::State(_)
        | Message::Pulse(_) => Ok(()),
    }
}

/// Words on their way to one machine.
#[derive(Clone)]
pub struct Letter {
    /// Where to.
    pub to: Place,
    /// What it says.
    pub words: Arc<Words>,
    /// Equal for letters that say the same to the same machine.
    pub print: u64,
}

impl Letter {
    /// These words, whose print is known, to this machine.
    #[must_use]
    pub fn new(to: Place, words: Arc<Words>, print: u64) -> Self {
        Self { to, words, print: blend(&[print, to.index as u64]) }
    }

    /// The event that it is for the machine that hears it.
    ///
    /// # Errors
    /// Its signatures are not good: only liars send such letters.
    pub fn open(&self, membership: &Membership) -> Result<Event, Rejection> {
        match &*self.words {
            Words::Request(request) => membership.open_request(request.clone()).map(Event::Request),
            Words::Peer(from, message) => {
                let message = membership.open_message((**message).clone())?;
                Ok(Event::Peer { from: *from, message })
            }
        }
    }

    /// Whether a newer letter of the same kind from the same replica makes it worthless.
    #[must_use]
    pub fn is_outdated_by(&self, newer: &Self) -> bool {
        self.to == newer.to
            && self.words.kind() == "status"
            && newer.words.kind() == "status"
            && self.words.from() == newer.words.from()
    }
}

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words.from() {
            Some(from) => write!(f, "{} hears from {from}: {}", self.to, self.words),
            None => write!(f, "{} hears from a client: {}", self.to, self.words),
        }
    }
}

/// One thing that can happen next.
#[derive(Clone)]
pub enum Step {
    /// A letter arrives.
    Deliver(Arc<Letter>),
    /// Time passes on a machine until its next deadline.
    Tick(Place),
    /// A machine is told that it is going to be stopped.
    Leave(Place),
    /// A machine loses its memory and starts again from its disk.
    Restart(Place),
    /// A letter arrives, and the same befalls the machine before anything that comes of it is on its disk. What
    /// rests on nothing of that has left.
    Fall(Arc<Letter>),
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Deliver(one), Self::Deliver(two)) | (Self::Fall(one), Self::Fall(two)) => {
                one.print == two.print
            }
            (Self::Tick(one), Self::Tick(two))
            | (Self::Leave(one), Self::Leave(two))
            | (Self::Restart(one), Self::Restart(two)) => one == two,
            _ => false,
        }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deliver(letter) => fmt::Display::fmt(letter, f),
            Self::Tick(place) => write!(f, "{place} waits until its next deadline"),
            Self::Leave(place) => write!(f, "{place} is told that it is going to be stopped"),
            Self::Restart(place) => write!(f, "{place} crashes and starts again"),
            Self::Fall(letter) => {
                write!(f, "{letter}; it crashes before that is on its disk, and starts again")
            }
        }
    }
}
