//! What does the damage, and undoes it.
//!
//! A fault that runs is what it made wrong, as [`Ill`]s, and what has to be done about it later.
//! All that is wrong at a time is told to the network and to the [timeline](Timeline) at once: before
//! anything gets worse, and after it got better.

mod disks;
mod strike;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use elea_fault_injection::rng::Rng;
use elea_fault_injection::violation::{Violation, demand};
use elea_protocol::id::ReplicaId;
use rustix::process::Signal;

use crate::clock::{Clocks, Setting};
use crate::condition::Ill;
use crate::disk::SmallDisk;
use crate::faults::{Class, Kind};
use crate::fleet::{Fleet, harness};
use crate::hostile::{Attack, Mischief, Tally};
use crate::report::Event;
use crate::schedule::{Planned, Round};
use crate::service::Timeline;
use crate::shared::Shared;
use crate::slow_sync::SlowSync;

pub use self::strike::WRONG_CLOCK_TOLD;

/// How often it is looked what is due.
const TICK: Duration = Duration::from_millis(100);

/// A replica with its small disk.
pub type Small = Option<(ReplicaId, SmallDisk)>;

/// The parties of a run that are no replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clients {
    /// Clients that are owed answers, by number from 0.
    pub honest: usize,
    /// The one of them that writes large values.
    pub bulky: usize,
}

/// What makes faults possible that not every machine can have.
#[derive(Debug, Default)]
pub struct Means {
    /// A disk that can be full.
    pub small: Small,
    /// Disks that can be slow.
    pub slow: Option<SlowSync>,
    /// Clocks that can be set.
    pub clocks: Option<Clocks>,
}

/// A cluster to which things happen.
pub struct Havoc {
    // What lies within the fleet's folder goes before it.
    means: Means,
    /// The processes and the network.
    pub fleet: Fleet,
    /// What follows from the seed.
    pub rng: Rng,
    /// What happened, oldest first.
    pub events: Vec<Event>,
    /// How often something came of it, by name.
    pub seen: BTreeMap<String, u64>,
    /// Who was connected when.
    pub timeline: Timeline,
    /// What hostile clients did.
    pub tallies: BTreeMap<Mischief, Arc<Tally>>,
    clients: Clients,
    shared: Arc<Shared>,
    running: Vec<Running>,
    /// Replicas that do not serve, from before they are struck until they say that they do.
    down: BTreeSet<ReplicaId>,
    /// What is not believed to be over yet.
    lingering: Vec<(Instant, Ill)>,
    /// How clocks are set; those that are not here are right.
    clocks: BTreeMap<ReplicaId, Setting>,
}

/// A fault that has begun.
struct Running {
    kind: Kind,
    /// When it ends, from the beginning of the round.
    to: Duration,
    /// Its place among the events.
    event: usize,
    /// The replica that it befell, if it is one.
    who: Option<ReplicaId>,
    ills: Vec<Ill>,
    act: Act,
}

/// What a fault does while it lasts.
enum Act {
    /// Nothing more.
    None,
    /// A client is at it.
    Attack(Attack),
    /// Replicas have their turn.
    Rolling { left: Vec<ReplicaId>, next: Instant },
    /// It is over, once those that it befell serve again.
    Over,
}

impl Havoc {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(
        fleet: Fleet,
        rng: Rng,
        means: Means,
        clients: Clients,
        shared: Arc<Shared>,
    ) -> Self {
        let replicas = fleet.file.membership.size().replicas();
        Self {
            timeline: Timeline::new(replicas, clients.honest),
            means,
            fleet,
            rng,
            events: Vec::new(),
            seen: BTreeMap::new(),
            tallies: BTreeMap::new(),
            clients,
            shared,
            running: Vec::new(),
            down: BTreeSet::new(),
            lingering: Vec::new(),
            clocks: BTreeMap::new(),
        }
    }

    /// How many syncs were made to take longer.
    #[must_use]
    pub fn slow_syncs(&self) -> u64 {
        let slow = self.means.slow.iter();
        slow.flat_map(|slow| self.fleet.ids().map(|id| slow.count(id))).sum()
    }

    fn now(&self) -> f64 {
        self.shared.meter.elapsed().as_secs_f64()
    }

    fn saw(&mut self, what: &str) {
        *self.seen.entry(what.to_owned()).or_default() += 1;
    }

    /// A replica to which nothing happens at present.
    fn anybody_well(&mut self) -> Option<ReplicaId> {
        let well = |id: &ReplicaId| {
            !self.down.contains(id) && self.running.iter().all(|other| other.who != Some(*id))
        };
        let ids: Vec<ReplicaId> = self.fleet.ids().filter(well).collect();
        (!ids.is_empty()).then(|| *self.rng.pick(&ids))
    }

    fn anybody(&mut self) -> ReplicaId {
        let ids: Vec<ReplicaId> = self.fleet.ids().collect();
        *self.rng.pick(&ids)
    }

    fn ills(&self) -> Vec<Ill> {
        let down = self.down.iter().copied().map(Ill::Down);
        let lingering = self.lingering.iter().map(|(_, ill)| ill.clone());
        let running = self.running.iter().flat_map(|running| running.ills.clone());
        down.chain(lingering).chain(running).collect()
    }

    /// Something is wrong, or about to be.
    fn is_worse(&mut self) {
        let ills = self.ills();
        self.timeline.is_now(self.shared.meter.micros(), &ills);
        self.fleet.network.suffers(&ills);
    }

    /// Something is as it should be again.
    fn is_better(&mut self) {
        let ills = self.ills();
        self.fleet.network.suffers(&ills);
        self.timeline.is_now(self.shared.meter.micros(), &ills);
    }

    fn goes_down(&mut self, ids: &[ReplicaId]) {
        self.down.extend(ids);
        self.is_worse();
    }

    /// One round: its faults, at their times; then the network is healed, and everybody comes back.
    ///
    /// # Errors
    /// A replica does not do what it should.
    pub async fn round(&mut self, round: &Round) -> Result<(), Violation> {
        let begin = Instant::now();
        let mut waiting: VecDeque<Planned> = round.faults.iter().copied().collect();
        while begin.elapsed() < round.length {
            while let Some(planned) = waiting.pop_front_if(|next| next.from <= begin.elapsed()) {
                self.begin(planned).await?;
            }
            while let Some(due) = self.due(begin.elapsed()) {
                self.end(due).await?;
            }
            self.tick().await?;
            tokio::time::sleep(TICK).await;
        }
        self.finish().await
    }

    fn due(&self, now: Duration) -> Option<usize> {
        let is_due = |running: &Running| running.to <= now && !matches!(running.act, Act::Over);
        // What touches disks is mended when the network is whole.
        self.running.iter().position(|running| is_due(running) && !running.kind.is_of_disks())
    }

    /// What goes on by itself.
    async fn tick(&mut self) -> Result<(), Violation> {
        if self.running.iter().any(|running| running.kind == Kind::Reset) {
            let rng = &mut self.rng;
            self.fleet.network.reset(|_| rng.one_in(12));
        }
        self.roll().await?;
        let now = Instant::now();
        let before = (self.down.len(), self.lingering.len());
        self.lingering.retain(|(until, _)| *until > now);
        let held: Vec<ReplicaId> = self.running.iter().filter_map(Running::holds).collect();
        for id in self.fleet.ids() {
            let is_lost = self.fleet.runs(id) && self.fleet.has_ended(id) && !held.contains(&id);
            demand(!is_lost, "restart", || {
                format!("{id} ended by itself: {}", self.fleet.log_end(id))
            })?;
        }
        let fleet = &self.fleet;
        self.down.retain(|id| held.contains(id) || !fleet.is_ready(*id));
        if (self.down.len(), self.lingering.len()) != before {
            self.is_better();
        }
        let is_over = |running: &Running| {
            matches!(running.act, Act::Over)
                && running.who.map_or(self.down.is_empty(), |who| !self.down.contains(&who))
        };
        while let Some(over) = self.running.iter().position(is_over) {
            let running = self.running.remove(over);
            self.events[running.event].end = self.now();
        }
        Ok(())
    }

    /// The next replica of a rolling restart, if it is its turn.
    async fn roll(&mut self) -> Result<(), Violation> {
        let is_at_rest = self.down.is_empty();
        let pause = Duration::from_millis(self.rng.between(5_000, 7_000));
        let turn = self.running.iter_mut().find_map(|running| match &mut running.act {
            Act::Rolling { left, next } if is_at_rest && *next <= Instant::now() => {
                *next = Instant::now() + pause;
                left.pop().map(|who| (who, running.event))
            }
            _ => None,
        });
        let Some((who, event)) = turn else { return Ok(()) };
        self.goes_down(&[who]);
        self.fleet.signal(who, Signal::TERM);
        let code = self.fleet.ended(who).await?.code();
        demand(code == Some(0), "restart", || {
            format!(
                "{who} ended with {code:?} when it was told to stop: {}",
                self.fleet.log_end(who)
            )
        })?;
        self.fleet.spawn(who)?;
        let what = &mut self.events[event].what;
        *what = format!("{what} {who}").trim().to_owned();
        Ok(())
    }

    /// All is over: the network is whole, disks are quick, clients are friendly, and everybody must
    /// come back.
    async fn finish(&mut self) -> Result<(), Violation> {
        let class = |class: Class| move |running: &Running| running.kind.class() == class;
        for class in [Class::Network, Class::Lasting, Class::Clients].map(class) {
            while let Some(next) = self.running.iter().position(&class) {
                self.end(next).await?;
            }
        }
        let is_to_end =
            |running: &Running| !running.kind.is_of_disks() && !matches!(running.act, Act::Over);
        while let Some(next) = self.running.iter().position(is_to_end) {
            self.end(next).await?;
        }
        for (kind, who) in self.running.iter().map(|it| (it.kind, it.who)).collect::<Vec<_>>() {
            match (kind, who) {
                (Kind::DiskFull, Some(who)) => self.room_again(who).await?,
                (Kind::BitFlip, Some(who)) => self.rot(who).await?,
                _ => {}
            }
        }
        let down: Vec<ReplicaId> = self.down.iter().copied().collect();
        self.fleet.serve(&down).await?;
        let now = self.now();
        for running in std::mem::take(&mut self.running) {
            self.events[running.event].end = now;
        }
        self.down.clear();
        self.clocks_are_read().await;
        self.lingering.clear();
        self.is_better();
        Ok(())
    }
}

impl Havoc {
    /// Until every process goes by the clock that it was given.
    async fn clocks_are_read(&self) {
        let in_doubt = self.lingering.iter().filter(|(_, ill)| matches!(ill, Ill::ClockInDoubt(_)));
        if let Some(until) = in_doubt.map(|(until, _)| *until).max() {
            tokio::time::sleep_until(until.into()).await;
        }
    }
}

impl Running {
    /// The replica that does not serve while this lasts, whatever it last said.
    fn holds(&self) -> Option<ReplicaId> {
        let does = matches!(self.kind, Kind::Freeze | Kind::DiskFull | Kind::BitFlip);
        self.who.filter(|_| does)
    }
}
