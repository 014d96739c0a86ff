//! Who takes part, and how each has its turn.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::Outcome;
use crate::elea::{self, Elea};
use crate::etcd::{self, Etcd};
use crate::how::How;
use crate::load::{self, Driver, Seen, Step, Task};
use crate::server::Server;
use crate::shape::Shape;

/// One of the two, and how its clients are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contestant {
    /// etcd with a connection for each client, spread over the members.
    Etcd(How),
    /// etcd with one connection to each member, over which clients share.
    EtcdShared(How),
    /// Elea with clients of one process, which share a connection to each replica.
    Elea(How),
    /// Elea with connections for each client.
    EleaApart(How),
}

impl Contestant {
    /// Who takes part in a shape.
    pub fn of(shape: Shape) -> Vec<Self> {
        use Contestant::{Elea, EleaApart, Etcd, EtcdShared};
        match shape {
            Shape::One => vec![Etcd(How::Strong), Elea(How::Strong), Elea(How::Weak)],
            Shape::Gets64 => vec![
                Etcd(How::Strong),
                Etcd(How::Weak),
                EtcdShared(How::Strong),
                EtcdShared(How::Weak),
                Elea(How::Strong),
                Elea(How::Weak),
            ],
            Shape::Library256 => {
                vec![Etcd(How::Strong), EtcdShared(How::Strong), Elea(How::Strong), Elea(How::Weak)]
            }
            Shape::Kib1 | Shape::Kib16 | Shape::Heal => {
                vec![EtcdShared(How::Strong), Elea(How::Strong), Elea(How::Weak)]
            }
            Shape::Clients64 | Shape::Clients1000 => vec![
                Etcd(How::Strong),
                EtcdShared(How::Strong),
                Elea(How::Strong),
                Elea(How::Weak),
                EleaApart(How::Strong),
                EleaApart(How::Weak),
            ],
        }
    }

    /// Its name in reports. It tells two of one shape apart.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd(How::Strong) => "etcd",
            Self::Etcd(How::Weak) => "etcd, serializable",
            Self::EtcdShared(How::Strong) => "etcd, shared connections",
            Self::EtcdShared(How::Weak) => "etcd, serializable, shared connections",
            Self::Elea(How::Strong) => "Elea, strong",
            Self::Elea(How::Weak) => "Elea, weak",
            Self::EleaApart(How::Strong) => "Elea, strong, own connections",
            Self::EleaApart(How::Weak) => "Elea, weak, own connections",
        }
    }

    /// Whether it is the measure.
    pub fn is_etcd(self) -> bool {
        matches!(self, Self::Etcd(_) | Self::EtcdShared(_))
    }

    fn how(self) -> How {
        match self {
            Self::Etcd(how) | Self::EtcdShared(how) | Self::Elea(how) | Self::EleaApart(how) => how,
        }
    }

    /// Which of etcd's answers this one is compared with: a write with a write, a read with a read that promises
    /// as much. A weak read of Elea promises less than a serializable one of etcd in a partition, and more
    /// in that no single member can make it up.
    pub fn measure(self, shape: Shape) -> How {
        if shape == Shape::Gets64 { self.how() } else { How::Strong }
    }
}

/// What one turn came to.
#[derive(Debug)]
pub struct Turn {
    /// What the clients saw.
    pub seen: Seen,
    /// For how long.
    pub lasting: Duration,
    /// CPU time of all members.
    pub servers: Duration,
    /// CPU time of this process, in which the clients are.
    pub driver: Duration,
}

impl Turn {
    /// Answers in a second.
    #[allow(clippy::cast_precision_loss, reason = "a rate is for people to read")]
    pub fn rate(&self) -> f64 {
        self.seen.answered() as f64 / self.lasting.as_secs_f64()
    }
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p50 = Duration::from_micros(self.seen.latency(0.5));
        write!(f, "{:.0}/s, p50 {:.2} ms", self.rate(), p50.as_secs_f64() * 1e3)?;
        match &self.seen.example {
            Some(example) => write!(f, ", {} failed: {example}", self.seen.failed),
            None => Ok(()),
        }
    }
}

/// Both clusters, running.
pub struct Arena {
    etcd: Etcd,
    elea: Elea,
    // What is dropped last: the folder, after the processes in it.
    _dir: TempDir,
}

/// Before anything is measured.
const WARM_UP: Duration = Duration::from_millis(1000);

/// How many keys each loop writes and reads, in turn.
const KEYS: u64 = 100;

impl Arena {
    /// Starts both.
    pub async fn open(elea: &Path, etcd: &Path, replicas: u8) -> Outcome<Self> {
        let dir = tempfile::Builder::new().prefix("elea-compare-").tempdir()?;
        let etcd = Etcd::start(etcd, &dir.path().join("etcd")).await?;
        let elea = Elea::start(elea, &dir.path().join("elea"), replicas).await?;
        Ok(Self { etcd, elea, _dir: dir })
    }

    /// How many members each has.
    pub fn members(&self) -> (usize, usize) {
        (self.etcd.servers.len(), self.elea.servers.len())
    }

    /// Gives a contestant its turn.
    pub async fn turn(
        &self,
        shape: Shape,
        contestant: Contestant,
        lasting: Duration,
    ) -> Outcome<Turn> {
        let count = shape.loops();
        let drivers = match contestant {
            Contestant::Etcd(how) => load::drivers(self.etcd.clients(count, how).await?),
            Contestant::EtcdShared(how) => load::drivers(self.etcd.sharing(count, how).await?),
            Contestant::Elea(how) if shape == Shape::Library256 => {
                load::drivers(self.elea.sharing(count, how).await?)
            }
            Contestant::Elea(how) => load::drivers(self.elea.clients(count, how, false).await?),
            Contestant::EleaApart(how) => load::drivers(self.elea.clients(count, how, true).await?),
        };
        let servers = if contestant.is_etcd() { &self.etcd.servers } else { &self.elea.servers };
        let task = Task {
            prefix: shape.word(),
            keys: KEYS,
            value: shape.value(),
            reads: shape == Shape::Gets64,
        };
        if task.reads {
            load::fill(&drivers, &task).await?;
        }
        let turn = if shape == Shape::Heal {
            // Of neither of them a member on whom everything waits.
            let idle = if contestant.is_etcd() {
                self.etcd.follower().await?
            } else {
                self.elea.backup().await?
            };
            measure_heal(servers, idle, &drivers, task, lasting).await
        } else {
            measure(servers, &drivers, task, lasting).await
        };
        for driver in drivers {
            driver.close().await;
        }
        turn
    }

    /// Ends both.
    pub async fn close(self) {
        for server in self.etcd.servers.into_iter().chain(self.elea.servers) {
            server.stop().await;
        }
    }
}

async fn measure(
    servers: &[Server],
    drivers: &[Driver],
    task: Task,
    lasting: Duration,
) -> Outcome<Turn> {
    let meter = Arc::new(Meter::new(servers));
    let steps = vec![Step::silent(WARM_UP), meter.step(lasting)];
    let mut seen = load::run(drivers, task, steps).await?;
    turn(&meter, seen.pop(), lasting)
}

/// A member stands still for as long as is measured then; after it, all of them are there.
async fn measure_heal(
    servers: &[Server],
    idle: usize,
    drivers: &[Driver],
    task: Task,
    lasting: Duration,
) -> Outcome<Turn> {
    let meter = Arc::new(Meter::new(servers));
    let server = servers.get(idle).ok_or("no such member")?.handle();
    let frozen = server.clone();
    let away = Step { begins: Some(Box::new(move || frozen.freeze())), lasts: lasting };
    let again = Arc::clone(&meter);
    let back = Step {
        begins: Some(Box::new(move || {
            server.go_on();
            again.begin();
        })),
        lasts: lasting,
    };
    let mut seen = load::run(drivers, task, vec![Step::silent(WARM_UP), away, back]).await?;
    turn(&meter, seen.pop(), lasting)
}

fn turn(meter: &Meter, seen: Option<Seen>, lasting: Duration) -> Outcome<Turn> {
    let (servers, driver) = meter.so_far();
    Ok(Turn { seen: seen.ok_or("nothing was measured")?, lasting, servers, driver })
}

/// CPU time since some moment.
struct Meter {
    handles: Vec<crate::server::Handle>,
    begin: std::sync::Mutex<(Duration, Duration)>,
}

impl Meter {
    fn new(servers: &[Server]) -> Self {
        let handles = servers.iter().map(Server::handle).collect();
        Self { handles, begin: std::sync::Mutex::default() }
    }

    fn step(self: &Arc<Self>, lasts: Duration) -> Step {
        let meter = Arc::clone(self);
        Step { begins: Some(Box::new(move || meter.begin())), lasts }
    }

    fn now(&self) -> (Duration, Duration) {
        let all = self.handles.iter().map(|handle| handle.cpu()).sum();
        (all, crate::machine::cpu_of_this_process())
    }

    fn begin(&self) {
        *self.begin.lock().expect("nobody panics with it") = self.now();
    }

    fn so_far(&self) -> (Duration, Duration) {
        let (servers, driver) = self.now();
        let begin = self.begin.lock().expect("nobody panics with it");
        (servers.saturating_sub(begin.0), driver.saturating_sub(begin.1))
    }
}

/// What each of the two does for an answer, for the report.
pub fn does() -> [(&'static str, &'static str); 2] {
    [("etcd", etcd::DOES), ("Elea", elea::DOES)]
}
