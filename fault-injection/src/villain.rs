//! Byzantine replicas: a correct core in bad company.
//!
//! A villain wraps a correct core from outside. It sees every event before the core does and every
//! action before the driver does; it may swallow, change and add. It holds its own signer and
//! nothing of anybody else's. Shipped code knows nothing of it: there is no flag that makes a
//! replica lie.

mod agitators;
mod amnesiac;
mod bad_memory;
mod basementdb;
mod equivocator;
mod flooders;
mod historians;
mod hoarders;
mod liars;
mod loiterers;
mod notes;
mod procrastinator;
mod puppet;
mod rule_breaker;
mod silent;
mod slot_shifter;
mod two_faced;
mod year_9000;

use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::codec::{Canonical, encode};
use elea_protocol::edition::{Edition, Editions};
use elea_protocol::id::{Digest, Instant, Now, ReplicaId, View};
use elea_protocol::membership::Membership;
use elea_protocol::message::{Message, ToReplica};
use elea_protocol::replica::{Action, Event, Target};
use elea_protocol::seal::sign;
use elea_protocol::signature::{Signed, Signer};

use self::Worst::{Anywhere, Leading};
use self::agitators::{Agitator, FalseStatus, HugeViews};
use self::amnesiac::Amnesiac;
use self::bad_memory::BadMemory;
use self::basementdb::{DropCommits, GarbageHash, NZero};
use self::equivocator::{Accomplice, Equivocator, TwoNewViews};
use self::flooders::{FalseHistorian, FutureFlooder, Junk, Replayer};
use self::historians::{JunkState, StaleHistorian};
use self::hoarders::{HiddenLock, TicketHoarder};
use self::liars::{
    DoubleVoter, FalseState, ForgedReplies, Inventor, Pretender, StaleWitness, Usurper,
};
use self::loiterers::{FalsePulse, Limper, Trickler};
use self::procrastinator::Procrastinator;
pub use self::puppet::{Puppet, Script};
use self::rule_breaker::RuleBreaker;
use self::silent::{Mute, SelectiveSender, Shunner, VoteWithholder};
use self::slot_shifter::SlotShifter;
use self::two_faced::{LIES, TwoFaced};
use self::year_9000::Year9000;
use crate::network::Party;
use crate::rng::Rng;

/// By which rules slots are executed, as long as no program is updated.
const EDITION: Edition = Editions::with(1..=1).newest;

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

    /// Some of the others: a random half of them, roughly.
    pub fn some(&mut self) -> Vec<Party> {
        let mut others = self.others();
        others.retain(|_| self.rng.one_in(2));
        others
    }

    /// The others in two halves, always the same ones.
    #[must_use]
    pub fn halves(&self) -> (Vec<Party>, Vec<Party>) {
        let mut lower = self.others();
        let upper = lower.split_off(lower.len() / 2);
        (lower, upper)
    }

    /// Whom its core means.
    #[must_use]
    pub fn meant(&self, to: Target) -> Vec<Party> {
        match to {
            Target::Others => self.others(),
            Target::One(id) => vec![Party::Replica(id.0)],
        }
    }

    /// Whether it is the primary of this view.
    #[must_use]
    pub fn leads(&self, view: View) -> bool {
        view.primary(self.membership.size().replicas()) == self.id
    }

    /// A view that it leads, `turns` or a few more views after this one.
    #[must_use]
    pub fn own_view_after(&self, view: View, turns: u64) -> View {
        let replicas = u64::from(self.membership.size().replicas());
        let round = (view.0 / replicas).saturating_add(1).saturating_add(turns);
        View(round.saturating_mul(replicas).saturating_add(u64::from(self.id.0)))
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
        /// The receiver.
        to: Party,
        /// The frame.
        bytes: Bytes,
    },
}

/// Says this to these replicas. What does not fit a frame is not said.
pub fn tell(to: &[Party], message: Message, deeds: &mut Vec<Deed>) {
    let Ok(bytes) = encode(&ToReplica::Peer(message)) else { return };
    deeds.extend(to.iter().map(|to| Deed::Whisper { to: *to, bytes: bytes.clone() }));
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

    /// When it wants to stir, if nothing happens before.
    fn wakes(&self) -> Option<Instant> {
        None
    }

    /// Whether the application of its core lies in bad memory.
    fn has_bad_memory(&self) -> bool {
        false
    }
}

/// Where a villain does its worst. Any of them may be any replica: views change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worst {
    /// As primary.
    Leading,
    /// Anywhere.
    Anywhere,
}

/// Makes a villain.
type Maker = fn() -> Box<dyn Villain>;

fn made<V: Villain + Default + 'static>() -> Box<dyn Villain> {
    Box::new(V::default())
}

/// All villains, with what they do and where they do their worst.
pub const ALL: &[(&str, &str, Worst, Maker)] = &[
    ("accomplice", "spreads and orders both contents of a name", Leading, made::<Accomplice>),
    ("agitator", "asks for the next view all the time", Anywhere, made::<Agitator>),
    ("amnesiac", "contradicts what it said, as if it had no disk", Anywhere, made::<Amnesiac>),
    ("bad-memory", "loses a part of its state now and then", Anywhere, made::<BadMemory>),
    (
        "basementdb-drop-commits",
        "hears no vote for a slot that it has not executed",
        Anywhere,
        made::<DropCommits>,
    ),
    (
        "basementdb-garbage-hash",
        "removes, invents and modifies the newest hash of its chain",
        Leading,
        made::<GarbageHash>,
    ),
    ("basementdb-n-zero", "sets its slot number to zero", Leading, made::<NZero>),
    ("double-voter", "votes for two histories at once", Anywhere, made::<DoubleVoter>),
    (
        "equivocator",
        "signs two orders for a slot and tells each half of the cluster another one",
        Leading,
        made::<Equivocator>,
    ),
    (
        "false-historian",
        "invented histories, and fetches without end",
        Anywhere,
        made::<FalseHistorian>,
    ),
    (
        "false-pulse",
        "says of its disk and of the network whatever it likes",
        Anywhere,
        made::<FalsePulse>,
    ),
    ("false-state", "votes for states that nobody has", Anywhere, made::<FalseState>),
    ("false-status", "heads, locks and views that it does not have", Anywhere, made::<FalseStatus>),
    (
        "forged-replies",
        "answers clients with invented results and places for sessions, signed",
        Anywhere,
        made::<ForgedReplies>,
    ),
    (
        "future-flooder",
        "votes, views, proofs and branches far in the future",
        Anywhere,
        made::<FutureFlooder>,
    ),
    (
        "hidden-lock",
        "keeps certificates to itself and shows them when another view has begun",
        Leading,
        made::<HiddenLock>,
    ),
    ("huge-views", "views at the end of all numbers, and one by one", Anywhere, made::<HugeViews>),
    ("inventor", "votes in the names of nobody", Anywhere, made::<Inventor>),
    ("junk", "bytes that are no message, or almost one", Anywhere, made::<Junk>),
    ("junk-state", "offers states and answers with spoilt chunks", Anywhere, made::<JunkState>),
    ("limper", "is always as late with its orders", Leading, made::<Limper>),
    ("mute", "hears everything and says nothing", Anywhere, made::<Mute>),
    ("pretender", "signs orders where another is primary", Anywhere, made::<Pretender>),
    ("procrastinator", "is almost too late with everything", Leading, made::<Procrastinator>),
    ("replayer", "old messages of others, again and again", Anywhere, made::<Replayer>),
    ("rule-breaker", "orders what no slot may hold", Leading, made::<RuleBreaker>),
    (
        "selective-sender",
        "talks to a random part of the others, now and then another one",
        Leading,
        made::<SelectiveSender>,
    ),
    ("shunner", "behaves, except that it never talks to one replica", Anywhere, made::<Shunner>),
    (
        "slot-shifter",
        "names true hashes beside wrong slots, and answers for them",
        Anywhere,
        made::<SlotShifter>,
    ),
    (
        "stale-historian",
        "answers fetches with old and mixed-up history",
        Anywhere,
        made::<StaleHistorian>,
    ),
    (
        "stale-witness",
        "answers queries with what was so once, for all slots",
        Anywhere,
        made::<StaleWitness>,
    ),
    (
        "ticket-hoarder",
        "keeps view changes and redeems them in healthy views",
        Leading,
        made::<TicketHoarder>,
    ),
    ("trickler", "gives history slot by slot, each almost too late", Anywhere, made::<Trickler>),
    ("two-faced", "says another thing of its program to each", Anywhere, made::<TwoFaced>),
    ("two-new-views", "begins a view with two histories", Leading, made::<TwoNewViews>),
    ("usurper", "begins views where another is primary", Anywhere, made::<Usurper>),
    ("vote-withholder", "says everything but its votes", Anywhere, made::<VoteWithholder>),
    ("year-9000", "orders and begins views in the far future", Leading, made::<Year9000>),
];

/// Those that came later. They are drawn by themselves, so that worlds without them stay what they were.
const NEWER: &[&str] =
    &["false-pulse", "limper", "slot-shifter", "stale-witness", "trickler", "two-faced"];

/// The name of one of them.
pub fn pick(rng: &mut Rng) -> &'static str {
    let older: Vec<_> = ALL.iter().filter(|(name, ..)| !NEWER.contains(name)).collect();
    rng.pick(&older).0
}

/// The name of one that came later, now and then.
pub fn pick_newer(rng: &mut Rng) -> Option<&'static str> {
    rng.one_in(12).then(|| *rng.pick(NEWER))
}

/// The villain of this name.
#[must_use]
pub fn named(name: &str) -> Option<Box<dyn Villain>> {
    ALL.iter().find(|(known, ..)| *known == name).map(|(.., make)| make())
}

#[cfg(test)]
mod tests;
