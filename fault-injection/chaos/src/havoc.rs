//! What does the damage, and undoes it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use elea_fault_injection::rng::Rng;
use elea_fault_injection::violation::{Violation, demand};
use elea_protocol::id::ReplicaId;
use rustix::process::Signal;

use crate::disk::{Flip, SmallDisk, copy, files, tables_of_rows};
use crate::faults::Kind;
use crate::fleet::{Fleet, Start, harness};
use crate::report::Event;
use crate::tap::{Party, Wire};
use crate::workload::Shared;

/// A pause between two resets of a window.
const TICK: Duration = Duration::from_millis(200);

/// A replica with its small disk.
pub type Small = Option<(ReplicaId, SmallDisk)>;

/// A cluster to which things happen.
pub struct Havoc {
    // What lies within the fleet's folder goes before it.
    small: Small,
    /// The processes and the network.
    pub fleet: Fleet,
    /// What follows from the seed.
    pub rng: Rng,
    /// What happened, oldest first.
    pub events: Vec<Event>,
    /// How often something came of it, by name.
    pub seen: BTreeMap<String, u64>,
    clients: usize,
    shared: Arc<Shared>,
}

impl Havoc {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(fleet: Fleet, rng: Rng, small: Small, clients: usize, shared: Arc<Shared>) -> Self {
        Self { fleet, rng, events: Vec::new(), seen: BTreeMap::new(), small, clients, shared }
    }

    fn now(&self) -> f64 {
        self.shared.meter.elapsed().as_secs_f64()
    }

    fn saw(&mut self, what: &str) {
        *self.seen.entry(what.to_owned()).or_default() += 1;
    }

    fn anybody(&mut self) -> ReplicaId {
        let ids: Vec<ReplicaId> = self.fleet.ids().collect();
        ids[self.rng.index(ids.len())]
    }

    fn begins(&mut self, kind: Kind, what: String) -> usize {
        let begin = self.now();
        self.events.push(Event { kind, what, begin, end: begin });
        self.events.len() - 1
    }

    /// One window: these faults of the network and this one of replicas, for this long; then the
    /// network is healed, and everybody comes back.
    ///
    /// # Errors
    /// A replica does not do what it should.
    pub async fn window(
        &mut self,
        network: &[Kind],
        of_replicas: Option<Kind>,
        hold: Duration,
    ) -> Result<(), Violation> {
        let mut begun = Vec::new();
        let mut cut_off = None;
        for kind in network {
            let (what, cell) = self.worsen(*kind).await?;
            cut_off = cut_off.or(cell);
            begun.push(self.begins(*kind, what));
        }
        let subject = match of_replicas {
            Some(Kind::DiskFull) => self.small.as_ref().map(|(id, _)| *id),
            _ => Some(self.anybody()),
        };
        let heavy = of_replicas.zip(subject);
        if let Some((kind, who)) = heavy {
            let what = if kind == Kind::KillAll { "all".into() } else { who.to_string() };
            begun.push(self.begins(kind, what));
            self.strike(kind, who).await?;
        }
        let begin = Instant::now();
        let mut is_back = false;
        while begin.elapsed() < hold {
            tokio::time::sleep(TICK).await;
            if network.contains(&Kind::Reset) {
                self.reset_some();
            }
            // Whoever was killed alone comes back while the network is still broken.
            if !is_back
                && begin.elapsed() > hold / 2
                && let Some((Kind::KillOne, who)) = heavy
            {
                is_back = true;
                self.fleet.spawn(who)?;
            }
        }
        self.fleet.network.heal();
        if let Some(who) = cut_off {
            let cell = &self.fleet.cells[usize::from(who.0)];
            cell.cut(false).await.map_err(harness("iptables"))?;
        }
        if let Some((kind, who)) = heavy {
            if kind == Kind::KillOne && !is_back {
                self.fleet.spawn(who)?;
            }
            self.mend(kind, who).await?;
        }
        let end = self.now();
        begun.into_iter().for_each(|index| self.events[index].end = end);
        Ok(())
    }

    /// Begins a fault of the network. Answers with what it is, and whose packets are dropped.
    async fn worsen(&mut self, kind: Kind) -> Result<(String, Option<ReplicaId>), Violation> {
        let network = Arc::clone(&self.fleet.network);
        let millis = |rng: &mut Rng, low, high| Duration::from_millis(rng.between(low, high));
        Ok(match kind {
            Kind::Partition => {
                let (side, abrupt) = (self.side(), self.rng.between(0, 1) == 0);
                network.split(&side, abrupt);
                let names: Vec<String> = side.iter().map(ToString::to_string).collect();
                let how = if abrupt { "closed" } else { "silent" };
                (format!("{} apart, {how}", names.join(" ")), None)
            }
            Kind::OneWay => {
                let (who, is_mute) = (self.anybody(), self.rng.between(0, 1) == 0);
                network.deafen(who, is_mute);
                let what = if is_mute { "is not heard" } else { "hears nothing" };
                (format!("{who} {what}"), None)
            }
            Kind::Delay => {
                let delay = millis(&mut self.rng, 20, 200);
                network.worsen(|_| true, |link| link.delay = delay);
                (format!("{} ms everywhere", delay.as_millis()), None)
            }
            Kind::Jitter => {
                let (who, jitter) = (self.anybody(), millis(&mut self.rng, 50, 500));
                network.worsen(|wire| touches(wire, who), |link| link.jitter = jitter);
                (format!("up to {} ms at {who}", jitter.as_millis()), None)
            }
            Kind::Bandwidth => {
                let (who, rate) = (self.anybody(), self.rng.between(8, 64) << 10);
                let slow = |link: &mut crate::proxy::Link| link.bytes_per_second = Some(rate);
                network.worsen(|wire| touches(wire, who), slow);
                (format!("{} KiB/s at {who}", rate >> 10), None)
            }
            Kind::Reset => (String::from("some connections, again and again"), None),
            Kind::Namespace => {
                let who = self.anybody();
                let cell = &self.fleet.cells[usize::from(who.0)];
                cell.cut(true).await.map_err(harness("iptables"))?;
                (format!("of {who}"), Some(who))
            }
            Kind::KillOne | Kind::KillAll | Kind::Freeze | Kind::DiskFull | Kind::BitFlip => {
                (String::new(), None)
            }
        })
    }

    /// Some of the parties, at least one replica, and not all replicas.
    fn side(&mut self) -> BTreeSet<Party> {
        let ids: Vec<ReplicaId> = self.fleet.ids().collect();
        loop {
            let some: Vec<ReplicaId> =
                ids.iter().copied().filter(|_| self.rng.between(0, 1) == 0).collect();
            if some.is_empty() || some.len() == ids.len() {
                continue;
            }
            let mut side: BTreeSet<Party> = some.into_iter().map(Party::Replica).collect();
            for client in (0..self.clients).map(Party::Client) {
                if self.rng.between(0, 1) == 0 {
                    side.insert(client);
                }
            }
            return side;
        }
    }

    fn reset_some(&mut self) {
        let rng = &mut self.rng;
        self.fleet.network.reset(|_| rng.between(0, 5) == 0);
    }

    /// Begins a fault of replicas.
    async fn strike(&mut self, kind: Kind, who: ReplicaId) -> Result<(), Violation> {
        match kind {
            Kind::KillOne | Kind::BitFlip => self.fleet.kill(&[who]).await,
            Kind::KillAll => {
                let all: Vec<ReplicaId> = self.fleet.ids().collect();
                self.fleet.kill(&all).await?;
                all.iter().try_for_each(|id| self.fleet.spawn(*id))
            }
            Kind::Freeze => {
                self.fleet.signal(who, Signal::STOP);
                Ok(())
            }
            Kind::DiskFull => match &self.small {
                Some((_, disk)) => disk.fill().map_err(harness("a full disk")),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Ends it: the network is whole, and everybody must come back.
    async fn mend(&mut self, kind: Kind, who: ReplicaId) -> Result<(), Violation> {
        match kind {
            Kind::KillOne => self.fleet.serve(&[who]).await,
            Kind::KillAll => {
                let all: Vec<ReplicaId> = self.fleet.ids().collect();
                self.fleet.serve(&all).await
            }
            Kind::Freeze => {
                self.fleet.signal(who, Signal::CONT);
                Ok(())
            }
            Kind::DiskFull => self.room_again(who).await,
            Kind::BitFlip => self.rot(who).await,
            _ => Ok(()),
        }
    }

    /// A replica whose disk is full waits, and says nothing that is not on its disk. With room
    /// again it goes on. Where the disk was full before it could know, it stops with a sentence.
    async fn room_again(&mut self, who: ReplicaId) -> Result<(), Violation> {
        // The network is whole and clients write, so it has to write, too.
        self.fleet.said(who, "the disk is full", || false).await?;
        if !self.fleet.has_ended(who) {
            self.saw("waited on a full disk");
        }
        if let Some((_, disk)) = &self.small {
            disk.empty().map_err(harness("a disk with room"))?;
        }
        self.fleet.said(who, "the disk has room again", || false).await?;
        if !self.fleet.has_ended(who) {
            self.saw("went on with room again");
            return Ok(());
        }
        let code = self.fleet.ended(who).await?.code();
        let log = self.fleet.log_end(who);
        demand(code == Some(2) && log.contains("free space"), "disk", || {
            format!("{who} ended with {code:?} on a full disk, and said: {log}")
        })?;
        self.saw("stopped on a full disk");
        self.fleet.start(&[who]).await
    }

    /// Turns a bit in what a replica stored, and starts it on that.
    async fn rot(&mut self, who: ReplicaId) -> Result<(), Violation> {
        let sound = self.fleet.path("sound");
        let data = self.fleet.data(who).to_owned();
        // Nothing runs on this folder until it is back as it was: the copy is not an old one.
        copy(&data, &sound).map_err(harness("a copy"))?;
        let tables = tables_of_rows(&data).map_err(harness("the tables"))?;
        let is_of_rows = !tables.is_empty() && self.rng.between(0, 1) == 0;
        let files = if is_of_rows { tables } else { files(&data).map_err(harness("a store"))? };
        let flip = Flip::random(files, &mut self.rng).map_err(harness("a bit"))?;
        self.fleet.spawn(who)?;
        let started = self.fleet.ready(who).await?;
        self.after_flip(who, &flip, &sound, started).await?;
        std::fs::remove_dir_all(&sound).map_err(harness("a copy"))
    }

    /// What a replica must do that was started on a store with a turned bit: refuse with a
    /// sentence, have it repaired by the others where it is in the application's rows, or not have
    /// read it. This is the one place that knows.
    async fn after_flip(
        &mut self,
        who: ReplicaId,
        flip: &Flip,
        sound: &Path,
        started: Start,
    ) -> Result<(), Violation> {
        let data = self.fleet.data(who).to_owned();
        match started {
            Start::Refused(code, log) => {
                let is_said = log.contains("damaged") || log.contains("contradicts itself");
                demand(code == Some(2) && is_said, "disk", || {
                    format!("{who} ended with {code:?} on a damaged store ({flip:?}): {log}")
                })?;
                self.saw("refused a damaged store");
                std::fs::remove_dir_all(&data).map_err(harness("a damaged store"))?;
                copy(sound, &data).map_err(harness("a copy"))?;
            }
            Start::Ready if flip.is_of_rows() => {
                // What is repaired lies in other files.
                let is_gone = || !flip.path.exists();
                self.fleet.said(who, "the quarantine is over", is_gone).await?;
                self.fleet.said(who, "no such words", is_gone).await?;
                let log = self.fleet.log_end(who);
                demand(!self.fleet.has_ended(who), "disk", || {
                    format!("{who} did not outlive damaged rows ({flip:?}): {log}")
                })?;
                let is_told = self.fleet.log(who).contains("damaged");
                self.saw(if is_told {
                    "damaged rows repaired"
                } else {
                    "damaged rows overwritten"
                });
                return Ok(());
            }
            Start::Ready => {
                // Most likely nobody will ever read it. It may also be found while it runs, and it
                // then stops with a sentence. Its folder has new things in it by now, so it keeps
                // it, without the turned bit.
                self.saw("did not read the turned bit");
                self.fleet.kill(&[who]).await?;
                let is_undone = flip.undo().map_err(harness("a bit"))?;
                self.saw(if is_undone { "bit turned back" } else { "bit was overwritten" });
            }
        }
        self.fleet.start(&[who]).await
    }
}

fn touches(wire: Wire, who: ReplicaId) -> bool {
    wire.to == who || wire.from == Party::Replica(who)
}
