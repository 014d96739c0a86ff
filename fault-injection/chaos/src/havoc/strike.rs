//! How each kind of fault begins and ends. A new kind has its arms here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use elea_client::Cluster;
use elea_fault_injection::violation::Violation;
use elea_protocol::id::ReplicaId;
use rustix::process::Signal;

use super::{Act, Havoc, Running, harness};
use crate::clock::{READ_WITHIN, Setting};
use crate::condition::{Ill, clock_setting};
use crate::faults::Kind;
use crate::hostile::{Attack, Mischief, Target};
use crate::line::Link;
use crate::report::Event;
use crate::schedule::Planned;
use crate::tap::Party;

/// What a slow line carries in a second: of a client, an old modem's worth; of a replica, 1 Mbit.
const CLIENT_RATE: u64 = 32_000;
const REPLICA_RATE: u64 = 125_000;

/// What is seen of a clock that is wrong: a replica says so.
pub const WRONG_CLOCK_TOLD: &str = "wrong clock told";

/// What a fault is, before it begins.
struct Strike {
    what: String,
    who: Option<ReplicaId>,
    ills: Vec<Ill>,
    act: Act,
}

impl Strike {
    fn new(what: impl Into<String>, ills: Vec<Ill>) -> Self {
        Self { what: what.into(), who: None, ills, act: Act::None }
    }

    fn at(who: ReplicaId) -> Self {
        Self { who: Some(who), ..Self::new(who.to_string(), Vec::new()) }
    }
}

impl Havoc {
    /// Begins a fault, unless nobody is left for it.
    pub(super) async fn begin(&mut self, planned: Planned) -> Result<(), Violation> {
        let Some(strike) = self.choose(planned.kind) else { return Ok(()) };
        let begin = self.now();
        self.events.push(Event { kind: planned.kind, what: strike.what, begin, end: begin });
        let who = strike.who;
        self.running.push(Running {
            kind: planned.kind,
            to: planned.to,
            event: self.events.len() - 1,
            who,
            ills: strike.ills,
            act: strike.act,
        });
        self.is_worse();
        match (planned.kind, who) {
            (Kind::SlowDisk | Kind::SlowDisks, _) => self.slow_disks(),
            (Kind::Clock | Kind::Clocks, _) => self.set_clocks(),
            (Kind::Namespace, Some(who)) => self.cut_off(who, true).await,
            (Kind::KillOne | Kind::BitFlip, Some(who)) => {
                self.goes_down(&[who]);
                self.fleet.kill(&[who]).await
            }
            (Kind::KillAll, _) => {
                let all: Vec<ReplicaId> = self.fleet.ids().collect();
                self.goes_down(&all);
                self.fleet.kill(&all).await?;
                all.iter().try_for_each(|id| self.fleet.spawn(*id))
            }
            (Kind::Freeze, Some(who)) => {
                self.goes_down(&[who]);
                self.fleet.signal(who, Signal::STOP);
                Ok(())
            }
            (Kind::DiskFull, Some(who)) => {
                self.goes_down(&[who]);
                let disk = self.means.small.as_ref().map(|(_, disk)| disk);
                disk.map_or(Ok(()), |disk| disk.fill().map_err(harness("a full disk")))
            }
            _ => Ok(()),
        }
    }

    /// Chooses whom it befalls, and how.
    fn choose(&mut self, kind: Kind) -> Option<Strike> {
        Some(match kind {
            Kind::Partition => self.split(),
            Kind::OneWay => match (self.anybody(), self.rng.one_in(2)) {
                (who, true) => Strike::new(format!("{who} is not heard"), vec![Ill::Mute(who)]),
                (who, false) => Strike::new(format!("{who} hears nothing"), vec![Ill::Deaf(who)]),
            },
            Kind::Delay | Kind::Jitter | Kind::Bandwidth | Kind::SlowClient | Kind::SlowReplica => {
                self.slow_lines(kind)
            }
            Kind::Reset => Strike::new("some connections, again and again", vec![Ill::Resets]),
            Kind::Turned => {
                let who = self.anybody();
                Strike::new(format!("at {who}"), vec![Ill::Turned(who)])
            }
            Kind::Namespace => {
                let who = self.anybody();
                Strike { ills: vec![Ill::Dropped(who)], ..Strike::at(who) }
            }
            Kind::SlowDisk | Kind::SlowDisks => {
                let delay = Duration::from_millis(self.rng.between(100, 1_000));
                let who = (kind == Kind::SlowDisk).then(|| self.anybody());
                let whose = who.map_or("all".into(), |who| who.to_string());
                let what = format!("{} ms for each sync of {whose}", delay.as_millis());
                Strike::new(what, vec![Ill::SlowDisk { who, delay }])
            }
            Kind::Clock => {
                let (who, setting) = (self.anybody(), Setting::wrong(&mut self.rng));
                let what = format!("{} at {who}", setting.words());
                Strike::new(what, vec![Ill::Clock { who, setting }])
            }
            Kind::Clocks => self.wrong_clocks(),
            Kind::KillAll => Strike { act: Act::Over, ..Strike::new("all", Vec::new()) },
            Kind::Restart => {
                let mut left: Vec<ReplicaId> = self.fleet.ids().collect();
                self.rng.shuffle(&mut left);
                let act = Act::Rolling { left, next: Instant::now() };
                Strike { act, ..Strike::new("", Vec::new()) }
            }
            Kind::KillOne | Kind::Freeze | Kind::BitFlip => Strike::at(self.anybody_well()?),
            Kind::DiskFull => {
                let who = self.means.small.as_ref().map(|(who, _)| *who)?;
                if self.down.contains(&who) {
                    return None;
                }
                Strike::at(who)
            }
            Kind::Hostile(mischief) => {
                let act = Act::Attack(Attack::begin(mischief, self.target(mischief)?));
                Strike { act, ..Strike::new("", Vec::new()) }
            }
        })
    }

    /// Some lines, or all of them, are slow.
    fn slow_lines(&mut self, kind: Kind) -> Strike {
        let (what, who, link) = match kind {
            Kind::Jitter => {
                let (who, jitter) = (self.anybody(), self.rng.between(50, 500));
                let link = Link { jitter: Duration::from_millis(jitter), ..Link::default() };
                (format!("up to {jitter} ms at {who}"), Some(Party::Replica(who)), link)
            }
            Kind::Bandwidth => {
                let (who, rate) = (self.anybody(), self.rng.between(8, 64) << 10);
                let what = format!("{} KiB/s at {who}", rate >> 10);
                (what, Some(Party::Replica(who)), rated(rate))
            }
            Kind::SlowClient => {
                // Half of the time it is the one that has much to send.
                let clients: Vec<usize> = (0..self.clients.honest).collect();
                let anybody = *self.rng.pick(&clients);
                let who = if self.rng.one_in(2) { self.clients.bulky } else { anybody };
                let who = Party::Client(who);
                (format!("{CLIENT_RATE} B/s at {who}"), Some(who), rated(CLIENT_RATE))
            }
            Kind::SlowReplica => {
                let who = Party::Replica(self.anybody());
                (format!("{REPLICA_RATE} B/s at {who}"), Some(who), rated(REPLICA_RATE))
            }
            _ => {
                let delay = Duration::from_millis(self.rng.between(20, 200));
                let what = format!("{} ms everywhere", delay.as_millis());
                (what, None, Link { delay, ..Link::default() })
            }
        };
        Strike::new(what, vec![Ill::Slow { who, link }])
    }

    /// The clocks of all replicas, or of half of them, are wrong.
    fn wrong_clocks(&mut self) -> Strike {
        let mut ids: Vec<ReplicaId> = self.fleet.ids().collect();
        if self.rng.one_in(2) {
            self.rng.shuffle(&mut ids);
            ids.truncate(ids.len() / 2);
        }
        let setting = Setting::wrong_for_many(&mut self.rng);
        let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let what = format!("{} at {}", setting.words(), names.join(" "));
        let ill = |who| Ill::Clock { who, setting };
        Strike::new(what, ids.into_iter().map(ill).collect())
    }

    /// Some of the parties apart from the others: at least one replica, and not all of them.
    fn split(&mut self) -> Strike {
        let ids: Vec<ReplicaId> = self.fleet.ids().collect();
        let mut sides: [BTreeSet<Party>; 2] = Default::default();
        let within = self.rng.between(1, ids.len() as u64 - 1);
        let mut shuffled = ids;
        self.rng.shuffle(&mut shuffled);
        for (place, id) in (0u64..).zip(shuffled) {
            sides[usize::from(place >= within)].insert(Party::Replica(id));
        }
        for client in (0..self.clients.honest).map(Party::Client) {
            sides[self.rng.index(2)].insert(client);
        }
        let abrupt = self.rng.one_in(2);
        let names: Vec<String> = sides[0].iter().map(ToString::to_string).collect();
        let how = if abrupt { "closed" } else { "silent" };
        let what = format!("{} apart, {how}", names.join(" "));
        Strike::new(what, vec![Ill::Split { sides, abrupt }])
    }

    /// Whom a hostile client harms.
    fn target(&mut self, mischief: Mischief) -> Option<Target> {
        let place = Mischief::ALL.iter().position(|other| *other == mischief)?;
        let number = self.clients.honest + place;
        let tally = self.tallies.entry(mischief).or_default();
        Some(Target {
            cluster: Cluster::from(&self.fleet.file_for(Party::Client(number))),
            guest: self.fleet.guest(number).ok()?,
            tally: Arc::clone(tally),
            rng: self.rng.fork(),
        })
    }

    /// Ends a fault. Where replicas have to come back first, it is over when they are.
    pub(super) async fn end(&mut self, index: usize) -> Result<(), Violation> {
        let (kind, who) = (self.running[index].kind, self.running[index].who);
        match (kind, who) {
            (Kind::KillOne, Some(who)) => {
                self.running[index].act = Act::Over;
                return self.fleet.spawn(who);
            }
            (Kind::KillAll | Kind::Restart, _) => {
                self.running[index].act = Act::Over;
                return Ok(());
            }
            (Kind::Freeze, Some(who)) => {
                self.fleet.signal(who, Signal::CONT);
                self.down.remove(&who);
            }
            (Kind::Namespace, Some(who)) => {
                self.cut_off(who, false).await?;
                // The kernel asks again for what was lost ever more rarely.
                let lasted = Duration::from_secs_f64(
                    self.now() - self.events[self.running[index].event].begin,
                );
                self.lingering.push((Instant::now() + lasted, Ill::Dropped(who)));
            }
            _ => {}
        }
        let running = self.running.remove(index);
        if let Act::Attack(attack) = running.act {
            attack.end().await;
        }
        if matches!(kind, Kind::SlowDisk | Kind::SlowDisks) {
            self.slow_disks()?;
        }
        if matches!(kind, Kind::Clock | Kind::Clocks) {
            if self.fleet.ids().any(|id| self.fleet.log(id).contains("CLOCK: ")) {
                self.saw(WRONG_CLOCK_TOLD);
            }
            self.set_clocks()?;
        }
        self.is_better();
        self.events[running.event].end = self.now();
        Ok(())
    }

    async fn cut_off(&mut self, who: ReplicaId, is_cut: bool) -> Result<(), Violation> {
        let Some(cell) = self.fleet.cells.get(usize::from(who.0)) else { return Ok(()) };
        cell.cut(is_cut).await.map_err(harness("iptables"))
    }

    /// Each clock is set as the last fault that runs has it. It is not known at what moment a process
    /// notices.
    fn set_clocks(&mut self) -> Result<(), Violation> {
        let Some(clocks) = self.means.clocks.clone() else { return Ok(()) };
        let ills = self.ills();
        let settings = self.fleet.ids().map(|id| (id, clock_setting(id, &ills)));
        let is_set = |id: &ReplicaId| self.clocks.get(id).copied().unwrap_or(Setting::RIGHT);
        let new: Vec<_> = settings.filter(|(id, setting)| is_set(id) != *setting).collect();
        let until = Instant::now() + READ_WITHIN;
        self.lingering.extend(new.iter().map(|(id, _)| (until, Ill::ClockInDoubt(*id))));
        self.is_worse();
        for (id, setting) in new {
            clocks.set(id, &setting).map_err(harness("a clock"))?;
            self.clocks.insert(id, setting);
        }
        Ok(())
    }

    /// Each disk is as slow as all that runs makes it.
    fn slow_disks(&self) -> Result<(), Violation> {
        let Some(slow) = &self.means.slow else { return Ok(()) };
        let ills = self.ills();
        for id in self.fleet.ids() {
            let delays = ills.iter().filter_map(|ill| match ill {
                Ill::SlowDisk { who, delay } if who.is_none_or(|who| who == id) => Some(*delay),
                _ => None,
            });
            slow.set(id, delays.max().unwrap_or_default()).map_err(harness("a slow disk"))?;
        }
        Ok(())
    }
}

fn rated(rate: u64) -> Link {
    Link { bytes_per_second: Some(rate), ..Link::default() }
}
