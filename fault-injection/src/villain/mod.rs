//! Byzantine replicas: a correct core in bad company.
//!
//! A villain wraps a correct core from outside. It sees every event before the core does and every
//! action before the driver does; it may swallow, change and add. It holds its own signer and
//! nothing of anybody else's. Shipped code knows nothing of it: there is no flag that makes a
//! replica lie.

mod equivocator;
mod flooders;
mod liars;
mod rule_breaker;
mod silent;

use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::codec::{Canonical, encode};
use elea_protocol::id::{Digest, Now, ReplicaId};
use elea_protocol::membership::Membership;
use elea_protocol::message::{Message, ToClient, ToReplica};
use elea_protocol::replica::{Action, Event};
use elea_protocol::seal::{Signed, Signer, sign};

pub use self::equivocator::Equivocator;
pub use self::flooders::{FalseHistorian, FutureFlooder, Junk, Replayer};
pub use self::liars::{DoubleVoter, ForgedReplies, Pretender};
pub use self::rule_breaker::RuleBreaker;
pub use self::silent::{Mute, Shunner};
use crate::network::Party;
use crate::rng::Rng;

/// What a villain has to work with.
pub struct Lair {
    /// Which replica it is.
    pub id: ReplicaId,
    /// Of which cluster.
    pub membership: Arc<Membership>,
    /// Its own key, and no other.
    pub signer: Arc<dyn Signer>,
    /// Its own randomness.
    pub rng: Rng,
    /// Its clocks.
    pub now: Now,
}

impl Lair {
    /// Signs whatever it likes, as itself.
    pub fn sign<T: Canonical>(&self, body: T) -> Signed<T> {
        sign(&*self.signer, self.membership.genesis(), self.id, body).into_inner()
    }

    /// All other replicas.
    #[must_use]
    pub fn others(&self) -> Vec<Party> {
        self.membership
            .size()
            .members()
            .filter(|id| *id != self.id)
            .map(|id| Party::Replica(id.0))
            .collect()
    }

    /// One of the others.
    pub fn somebody(&mut self) -> Party {
        let others = self.others();
        *self.rng.pick(&others)
    }

    /// A hash of nothing.
    pub fn invented(&mut self) -> Digest {
        Digest(self.rng.bytes())
    }
}

/// What comes out of a villain.
#[expect(clippy::large_enum_variant, reason = "few exist at a time, and none for long")]
pub enum Deed {
    /// Something that its core wanted, changed or not. The driver carries it out as for anybody.
    Act(Action),
    /// Bytes of its own making, sent at once.
    Whisper {
        /// To whom.
        to: Party,
        /// What.
        bytes: Bytes,
    },
}

impl Deed {
    /// A message for a replica.
    ///
    /// # Panics
    /// Where the message is too large for a frame.
    #[must_use]
    pub fn message(to: Party, message: Message) -> Self {
        let bytes = encode(&ToReplica::Peer(message)).expect("a villain's message fits a frame");
        Self::Whisper { to, bytes }
    }

    /// Words for a client.
    ///
    /// # Panics
    /// Where they are too large for a frame.
    #[must_use]
    pub fn answer(to: Party, answer: &ToClient) -> Self {
        let bytes = encode(answer).expect("a villain's answer fits a frame");
        Self::Whisper { to, bytes }
    }
}

/// A way of being Byzantine. The methods that are not written pass everything on.
pub trait Villain: Send {
    /// As it is called in `list` and in traces.
    fn name(&self) -> &'static str;

    /// Something comes in; what is put into `to_core` reaches the core.
    fn hears(&mut self, _lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        to_core.push(event);
    }

    /// The core wants something.
    fn does(&mut self, _lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        deeds.push(Deed::Act(action));
    }

    /// The event has been dealt with: a moment for deeds of its own.
    fn stirs(&mut self, _lair: &mut Lair, _deeds: &mut Vec<Deed>) {}
}

/// Makes a villain.
type Maker = fn() -> Box<dyn Villain>;

/// The villains that a backup can be, with what they do.
pub const BACKUPS: &[(&str, &str, Maker)] = &[
    ("pretender", "a backup that signs orders", || Box::new(Pretender::default())),
    ("forged-replies", "answers clients with invented results, signed", || Box::new(ForgedReplies)),
    ("double-voter", "votes for two histories at once", || Box::new(DoubleVoter)),
    ("future-flooder", "votes, heads and states far in the future", || {
        Box::new(FutureFlooder::default())
    }),
    ("false-historian", "invented histories, and fetches without end", || {
        Box::new(FalseHistorian::default())
    }),
    ("replayer", "old messages of others, again and again", || Box::new(Replayer::default())),
    ("junk", "bytes that are no message, or almost one", || Box::new(Junk)),
    ("mute", "hears everything and says nothing", || Box::new(Mute)),
    ("shunner", "behaves, except that it never talks to one replica", || {
        Box::new(Shunner::default())
    }),
];

/// The villains that need to be primary.
pub const PRIMARIES: &[(&str, &str, Maker)] = &[
    (
        "equivocator",
        "a primary that signs two orders for a slot and tells each half of the cluster another one",
        || Box::new(Equivocator::default()),
    ),
    ("rule-breaker", "a primary that orders what no slot may hold", || {
        Box::new(RuleBreaker::default())
    }),
];

/// The villain of this name.
#[must_use]
pub fn named(name: &str) -> Option<Box<dyn Villain>> {
    BACKUPS.iter().chain(PRIMARIES).find(|(known, ..)| *known == name).map(|(.., make)| make())
}
