//! What a world is like: everything that a seed decides before it begins.
//!
//! A *swarm*: each seed switches whole kinds of trouble on or off, so that some worlds have none of
//! a kind and some have little else. What is left out of a world is as important as what is in it,
//! since one kind of trouble can hide another. Each [campaign](crate::campaign) has a generator of
//! its own here; what they share is in `draft`, and the shapes of partitions are in `shape`.
//!
//! Every world has faults first, up to [`Plan::heal_at`]. Then, in some, the network heals in parts
//! only, and a [`Component`] must get along by itself. At last all of it heals: villains, twins and
//! what stopped for good stay as they are, at most `f` of them, and everything else must come to
//! rest in one history.

mod draft;
pub mod liveness;
pub mod partition;
pub mod safety;
mod shape;
pub mod twins;
pub mod villains;
pub mod waits;

use elea_protocol::edition::Editions;
use elea_protocol::id::ReplicaId;
use elea_protocol::message::Level;
use elea_protocol::quorum::ClusterSize;
use elea_protocol::tuning::Tuning;

use crate::network::{Lateness, Link, Machine, Party};
use crate::villain::Script;

/// Something that is done to the world at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power of a machine goes.
    Crash(Machine),
    /// It is told that it is going to be stopped.
    Leave(Machine),
    /// It comes back.
    Restart(Machine),
    /// It goes for good.
    Stop(Machine),
    /// The power of a machine goes, and when it comes back its disk is empty.
    LoseDisk(Machine),
    /// The power of a machine goes, and when it comes back a row of its stored state is spoilt.
    Rot(Machine),
    /// A row of the stored state of a machine is spoilt, and its driver finds that while it runs.
    Scrub(Machine),
    /// The disk of a machine is full: what is on its way to it now still gets there, and nothing after it.
    FillDisk(Machine),
    /// It has room again.
    MakeRoom(Machine),
    /// The power of all machines goes.
    Blackout,
    /// The power of a machine goes, later, in the middle of fetching a state: when so many pieces
    /// of one are on its disk. It is back so many microseconds after that.
    CrashFetching {
        /// The machine.
        machine: Machine,
        /// How many pieces.
        pieces: usize,
        /// How long.
        down: u64,
    },
    /// From now on exactly these directions are cut: of each, the first is not heard by the second.
    Split(Vec<(Party, Party)>),
    /// All cuts end.
    Join,
    /// A replica is started anew with a list of all clients but these.
    Lists {
        /// Which machine.
        machine: Machine,
        /// The clients that are not on it.
        without: Vec<u16>,
    },
    /// A replica is started anew with another program.
    Update {
        /// Which machine.
        machine: Machine,
        /// What that one executes.
        editions: Editions,
    },
    /// The wall clock of a machine is set.
    SetClock {
        /// The machine.
        machine: Machine,
        /// How far it is off then, in microseconds.
        skew: i64,
        /// How fast it runs from then on, in thousandths.
        rate: u32,
    },
}

/// What an honest client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taste {
    /// Anything.
    Mixed,
    /// Weak requests, and it never asks whether they are final.
    Weak,
    /// Strong requests.
    Strong,
}

/// An honest client process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatronPlan {
    /// How many sessions it begins with.
    pub sessions: usize,
    /// How often it asks for something while there are faults.
    pub loads: u64,
    /// How often it does so after the network healed.
    pub late_loads: u64,
    /// What it asks for.
    pub taste: Taste,
    /// Whether it is a process of its own each time, without memory of those before.
    pub one_shot: bool,
    /// Whose key it uses, if not its own.
    pub key_of: Option<u16>,
}

impl PatronPlan {
    /// A process with so many sessions that asks for nothing by itself.
    #[must_use]
    pub fn idle(sessions: usize) -> Self {
        let taste = Taste::Mixed;
        Self { sessions, loads: 0, late_loads: 0, taste, one_shot: false, key_of: None }
    }
}

/// A part of the network that has to get along by itself for a while, once the faults are over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// The correct replicas in it: exactly enough.
    pub members: Vec<Machine>,
    /// Who reaches it and everybody else besides; none of them correct.
    pub bridges: Vec<Machine>,
    /// The honest client in it, which must be answered.
    pub client: u16,
    /// What it asks for.
    pub level: Level,
    /// How often.
    pub loads: u64,
}

impl Component {
    /// The directions that are cut so that it is alone.
    #[must_use]
    pub fn cuts(&self, parties: &[Party]) -> Vec<(Party, Party)> {
        let inside = |party: &Party| match party {
            Party::Replica(number) => self.members.contains(&Machine(*number)),
            Party::Client(index) => *index == self.client,
        };
        let (inner, outer): (Vec<Party>, Vec<Party>) =
            parties.iter().copied().partition(|party| inside(party));
        let bridges: Vec<Party> = self.bridges.iter().map(|machine| machine.party()).collect();
        shape::apart(&[inner, outer], &bridges)
    }
}

/// What is asked of how fast a world is, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// A second after the faults, answers come as fast as they came in this time before them.
    NoHangover {
        /// From when on.
        from: u64,
        /// Until when.
        until: u64,
    },
    /// A while after the faults, answers take no longer than this in the mean (L3).
    Lazy {
        /// How long, in microseconds.
        bound: u64,
        /// After what while, in microseconds.
        after: u64,
    },
    /// Nothing is wrong, and after the first so many views hardly one begins any more.
    Steady {
        /// How many.
        views: u64,
        /// In twenty seconds after that, at most so many.
        later: u64,
    },
}

/// A world, before it begins. Times are in microseconds.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where all of it comes from.
    pub seed: u64,
    /// `n` and `f`.
    pub size: ClusterSize,
    /// Replicas that exist twice: their second machines, in order, after the first ones of all.
    pub twins: Vec<ReplicaId>,
    /// Ed25519, or the cheap scheme.
    pub real_signatures: bool,
    /// The same for all replicas.
    pub tuning: Tuning,
    /// How links are.
    pub link: Link,
    /// Links that are different.
    pub special: Vec<(Party, Party, Link)>,
    /// Directions that are cut for good.
    pub walls: Vec<(Party, Party)>,
    /// What happens when, in order.
    pub faults: Vec<(u64, Fault)>,
    /// When the faults end.
    pub heal_at: u64,
    /// What part of the network is alone for a while after that, if one is.
    pub component: Option<Component>,
    /// Whether replicas begin with empty disks and have to find out that they may vote. If not they
    /// are voters from the beginning, and who loses its disk is told so.
    pub is_first_start: bool,
    /// Whether the cluster begins with a state, as one does that was made of a backup.
    pub begins_with_state: bool,
    /// Whether replicas list the clients, all of them at first, and do not take everybody.
    pub lists_clients: bool,
    /// Whose disks will be lost: they count among the faulty ones from the beginning.
    pub careless: Vec<ReplicaId>,
    /// Who is Byzantine, and how.
    pub villains: Vec<(ReplicaId, &'static str)>,
    /// Who does what a script says.
    pub puppet: Option<(ReplicaId, Script)>,
    /// How far the wall clock of each machine is off.
    pub skews: Vec<i64>,
    /// How long a sync takes on each machine, at most.
    pub sync_max: Vec<u64>,
    /// The honest clients.
    pub patrons: Vec<PatronPlan>,
    /// The hostile clients.
    pub hostiles: Vec<&'static str>,
    /// How fast it has to be, if that is asked.
    pub judgement: Option<Judgement>,
    /// Whether orders are late beyond all that is measured.
    pub late_orders: Option<Lateness>,
    /// What is special about this world, for the coverage.
    pub shapes: Vec<&'static str>,
}

const MILLI: u64 = 1000;

/// Longer than any world lasts, in ms.
pub const NEVER_MS: u64 = 3_600_000;

impl Plan {
    /// All machines.
    pub fn machines(&self) -> impl Iterator<Item = Machine> + use<> {
        let twins = u8::try_from(self.twins.len()).expect("few twins");
        (0..self.size.replicas() + twins).map(Machine)
    }

    /// Which replica runs on a machine.
    ///
    /// # Panics
    /// Where there is no such machine.
    #[must_use]
    pub fn replica_on(&self, machine: Machine) -> ReplicaId {
        match machine.0.checked_sub(self.size.replicas()) {
            None => ReplicaId(machine.0),
            Some(twin) => self.twins[usize::from(twin)],
        }
    }

    /// Everybody who sends or receives.
    ///
    /// # Panics
    /// Never: there are few clients.
    #[must_use]
    pub fn parties(&self) -> Vec<Party> {
        let clients = u16::try_from(self.patrons.len() + self.hostiles.len()).expect("few clients");
        self.machines().map(Machine::party).chain((0..clients).map(Party::Client)).collect()
    }

    /// A quiet world of `replicas`, for scripted traces: every message takes one millisecond, every
    /// sync none, and nobody misbehaves.
    ///
    /// # Panics
    /// Where no cluster has so many replicas.
    #[must_use]
    pub fn quiet(replicas: u8) -> Self {
        let size = ClusterSize::most_tolerant(replicas).expect("a valid size");
        Self {
            seed: 1,
            size,
            twins: Vec::new(),
            real_signatures: false,
            // Pages that want checkpoints of quiet heads say so, and nothing is measured where it is
            // written when what happens.
            tuning: Tuning {
                checkpoint_delay_ms: NEVER_MS,
                request_timeout_min_ms: Tuning::default().request_timeout_ms,
                ..Tuning::default()
            },
            link: Link::steady(MILLI),
            special: Vec::new(),
            walls: Vec::new(),
            faults: Vec::new(),
            heal_at: u64::MAX,
            component: None,
            is_first_start: false,
            begins_with_state: false,
            lists_clients: false,
            careless: Vec::new(),
            villains: Vec::new(),
            puppet: None,
            skews: vec![0; usize::from(replicas)],
            sync_max: vec![0; usize::from(replicas)],
            patrons: Vec::new(),
            hostiles: Vec::new(),
            judgement: None,
            late_orders: None,
            shapes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
