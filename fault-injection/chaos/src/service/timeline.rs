//! Who was connected when, by the faults that the harness made.

use std::collections::HashMap;
use std::time::Duration;

use elea_protocol::id::ReplicaId;

use crate::clock::Setting;
use crate::condition::{self, Ill, Treatment};
use crate::line::Link;
use crate::tap::{Party, Wire};

/// How slow something is at most. The default is not slow at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slowness {
    /// One way through the network.
    pub delay: Duration,
    /// One sync.
    pub sync: Duration,
    /// The time that a byte takes, in nanoseconds.
    pub byte_nanos: u64,
}

impl Slowness {
    fn of_link(link: Link) -> Self {
        Self {
            delay: link.delay + link.jitter,
            sync: Duration::ZERO,
            byte_nanos: link.bytes_per_second.map_or(0, |rate| 1_000_000_000 / rate.max(1)),
        }
    }

    /// As slow as the slower of both, in each respect.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            delay: self.delay.max(other.delay),
            sync: self.sync.max(other.sync),
            byte_nanos: self.byte_nanos.max(other.byte_nanos),
        }
    }

    /// How long an answer may take for it, and how long it takes for everybody to get used to it.
    ///
    /// A strong answer takes five times through the network and three syncs, each of which may have to
    /// wait for the one before it. That is allowed twice over, since the first attempt may be lost to
    /// a change of view. A line is to carry all bytes thrice, and as much as waits in its buffers.
    #[must_use]
    pub fn allowance(self, bytes: u64) -> Duration {
        let trips = 10 * self.delay + 12 * self.sync;
        let carried = (3 * bytes + BUFFERED).saturating_mul(self.byte_nanos);
        trips + Duration::from_nanos(carried)
    }
}

/// What may wait in the buffers of a slow line, in bytes.
const BUFFERED: u64 = 128 << 10;

/// A line that carries less in a second than this counts as none, for a replica: it could not keep
/// up with what the others are told.
const REPLICA_LINE: u64 = 1 << 20;

/// The same for a client.
const CLIENT_LINE: u64 = 16 << 10;

/// How a replica's clock is set; `None` while that is not known.
fn clock_of(id: ReplicaId, ills: &[Ill]) -> Option<Setting> {
    let is_known = !ills.contains(&Ill::ClockInDoubt(id));
    is_known.then(|| condition::clock_setting(id, ills))
}

/// `None`: not connected.
type Edge = Option<Slowness>;

fn worse(one: Edge, other: Edge) -> Edge {
    one.zip(other).map(|(one, other)| one.max(other))
}

/// Who is connected with whom at a time, or all the time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sight {
    /// Each replica by itself: `None` if it does not serve.
    replicas: Vec<Edge>,
    /// Each pair of replicas, both ways and in both directions. Those whose clocks disagree are not
    /// connected.
    pairs: Vec<Vec<Edge>>,
    /// Each client with each replica.
    clients: Vec<Vec<Edge>>,
}

impl Sight {
    fn new(replicas: u8, clients: usize, ills: &[Ill]) -> Self {
        let ids = || (0..replicas).map(ReplicaId);
        let way = |wire: Wire, least: u64| -> Edge {
            let Treatment { there, back, .. } = Treatment::of(wire, ills);
            let rates = [there.bytes_per_second, back.bytes_per_second];
            let is_fast = rates.into_iter().flatten().all(|rate| rate >= least);
            let slowness = Slowness::of_link(there).max(Slowness::of_link(back));
            (Treatment::of(wire, ills).is_open() && is_fast).then_some(slowness)
        };
        // Who goes by another time counts as cut off: those that agree are to do without it.
        let clock = |id: ReplicaId| clock_of(id, ills);
        let agree = |a: ReplicaId, b: ReplicaId| {
            clock(a).zip(clock(b)).is_some_and(|(one, other)| one.agrees_with(&other))
        };
        let pair = |a: ReplicaId, b: ReplicaId| {
            if a != b && !agree(a, b) {
                return None;
            }
            let one = way(Wire { from: Party::Replica(a), to: b }, REPLICA_LINE);
            worse(one, way(Wire { from: Party::Replica(b), to: a }, REPLICA_LINE))
        };
        let replica = |id: ReplicaId| {
            let mut own = Some(Slowness::default());
            for ill in ills {
                own = match ill {
                    Ill::Down(who) if *who == id => None,
                    Ill::SlowDisk { who, delay } if who.is_none_or(|who| who == id) => {
                        worse(own, Some(Slowness { sync: *delay, ..Slowness::default() }))
                    }
                    _ => own,
                };
            }
            own
        };
        let client = |number| {
            let wire = |to| Wire { from: Party::Client(number), to };
            ids().map(|to| way(wire(to), CLIENT_LINE)).collect()
        };
        Self {
            replicas: ids().map(replica).collect(),
            pairs: ids().map(|a| ids().map(|b| pair(a, b)).collect()).collect(),
            clients: (0..clients).map(client).collect(),
        }
    }

    fn worse(&self, other: &Self) -> Self {
        let row = |one: &[Edge], other: &[Edge]| -> Vec<Edge> {
            one.iter().zip(other).map(|(one, other)| worse(*one, *other)).collect()
        };
        let rows = |one: &[Vec<Edge>], other: &[Vec<Edge>]| -> Vec<Vec<Edge>> {
            one.iter().zip(other).map(|(one, other)| row(one, other)).collect()
        };
        Self {
            replicas: row(&self.replicas, &other.replicas),
            pairs: rows(&self.pairs, &other.pairs),
            clients: rows(&self.clients, &other.clients),
        }
    }

    /// How slow so many replicas are that all reach each other and the client: those that are
    /// fastest. Where it overlooks some, less is owed.
    fn component(&self, client: usize, count: usize) -> Edge {
        let own = |id: usize| worse(self.replicas[id], self.clients.get(client)?[id]);
        let mut members: Vec<usize> =
            (0..self.replicas.len()).filter(|id| own(*id).is_some()).collect();
        let others = |members: &[usize], id: usize| -> Vec<usize> {
            members.iter().copied().filter(|other| *other != id).collect()
        };
        loop {
            let cost = |id: &usize| {
                let edges = others(&members, *id);
                let edges = edges.iter().map(|other| self.pairs[*id][*other]);
                let (mut missing, mut slow) = (0u32, Duration::ZERO);
                for edge in edges.chain([own(*id)]) {
                    match edge {
                        Some(edge) => slow += edge.allowance(BUFFERED),
                        None => missing += 1,
                    }
                }
                (missing, slow)
            };
            let worst = members.iter().copied().max_by_key(cost)?;
            if cost(&worst).0 == 0 && members.len() <= count {
                break;
            }
            members = others(&members, worst);
        }
        if members.len() < count {
            return None;
        }
        let pairs = members.iter().flat_map(|a| others(&members, *a).into_iter().map(|b| (*a, b)));
        let pairs = pairs.map(|(a, b)| self.pairs[a][b]);
        members.iter().map(|id| own(*id)).chain(pairs).fold(Some(Slowness::default()), worse)
    }
}

/// What was broken when. Times are microseconds since the clients began.
#[derive(Debug)]
pub struct Timeline {
    replicas: u8,
    clients: usize,
    sights: Vec<(u64, Sight)>,
    end: Option<u64>,
}

impl Timeline {
    /// Of these parties; everything is whole.
    #[must_use]
    pub fn new(replicas: u8, clients: usize) -> Self {
        let whole = Sight::new(replicas, clients, &[]);
        Self { replicas, clients, sights: vec![(0, whole)], end: None }
    }

    /// From now on this is wrong, and nothing else. To be told *before* anything gets worse, and
    /// *after* it got better.
    pub fn is_now(&mut self, now: u64, ills: &[Ill]) {
        let sight = Sight::new(self.replicas, self.clients, ills);
        if self.sights.last().is_none_or(|(_, last)| *last != sight) {
            self.sights.push((now, sight));
        }
    }

    /// Nothing is known of what comes later.
    pub fn ends(&mut self, now: u64) {
        self.end = Some(now);
    }

    /// Which entries a span of time touches; `None` if it is not wholly known.
    fn touched(&self, from: i64, to: u64) -> Option<(usize, usize)> {
        let from = u64::try_from(from).ok()?;
        if self.end.is_some_and(|end| to > end) {
            return None;
        }
        let after = |time: u64| self.sights.partition_point(|(begin, _)| *begin <= time);
        Some((after(from) - 1, after(to) - 1))
    }
}

/// Looks at a [`Timeline`], and remembers what it saw.
pub struct Look<'a> {
    timeline: &'a Timeline,
    seen: HashMap<(usize, usize, usize, usize), Edge>,
}

impl<'a> Look<'a> {
    /// At this one.
    #[must_use]
    pub fn at(timeline: &'a Timeline) -> Self {
        Self { timeline, seen: HashMap::new() }
    }

    /// How slow the same `count` replicas were at most, which all served and reached each other and
    /// this client during the whole of this time. `None` if there were none.
    pub fn connected(&mut self, client: usize, count: usize, from: i64, to: u64) -> Edge {
        let (first, last) = self.timeline.touched(from, to)?;
        *self.seen.entry((client, count, first, last)).or_insert_with(|| {
            let mut sights = self.timeline.sights[first..=last].iter().map(|(_, sight)| sight);
            let whole = sights.next()?.clone();
            sights.fold(whole, |all, next| all.worse(next)).component(client, count)
        })
    }
}
