//! All ways of a cluster, and what breaks them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use elea_protocol::id::ReplicaId;

use crate::condition::{Ill, Treatment};
use crate::proxy::Way;
use crate::seals::Ends;
use crate::tap::{Hears, Party, Wire};

/// See the [module](self).
pub struct Network {
    replicas: u8,
    ways: Vec<Way>,
}

impl Network {
    /// Opens a way from every replica to every other one, and from every client to all. `hears` says
    /// who hears a dialler, `at` at which address of this machine it finds its ways, `ends` how what is encrypted on a
    /// way is opened.
    ///
    /// # Errors
    /// The system gives no ports.
    pub async fn open(
        replicas: u8,
        clients: usize,
        hears: impl Fn(Party) -> Hears,
        at: impl Fn(Party) -> IpAddr,
        ends: impl Fn(Wire) -> Option<Ends>,
    ) -> io::Result<Self> {
        let diallers = (0..replicas).map(|id| Party::Replica(ReplicaId(id)));
        let diallers = diallers.chain((0..clients).map(Party::Client));
        let mut ways = Vec::new();
        for from in diallers {
            for to in (0..replicas).map(ReplicaId) {
                if from != Party::Replica(to) {
                    let wire = Wire { from, to };
                    ways.push(Way::open(wire, at(from), hears(from), ends(wire)).await?);
                }
            }
        }
        Ok(Self { replicas, ways })
    }

    /// All of the ways.
    #[must_use]
    pub fn ways(&self) -> &[Way] {
        &self.ways
    }

    /// What a party's cluster file says of where the replicas are. Its own address, which nobody
    /// dials, is one that nobody listens at.
    #[must_use]
    pub fn addresses(&self, from: Party) -> Vec<String> {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        (0..self.replicas)
            .map(|to| {
                let wire = Wire { from, to: ReplicaId(to) };
                let way = self.ways.iter().find(|way| way.wire == wire);
                way.map_or(nowhere, Way::address).to_string()
            })
            .collect()
    }

    fn towards(&self, id: ReplicaId) -> impl Iterator<Item = &Way> {
        self.ways.iter().filter(move |way| way.wire.to == id)
    }

    /// Where a replica listens itself, while it runs.
    #[must_use]
    pub fn target(&self, id: ReplicaId) -> Option<SocketAddr> {
        self.towards(id).find_map(Way::target)
    }

    fn of(&self, id: ReplicaId) -> impl Iterator<Item = &Way> {
        self.ways.iter().filter(move |way| way.wire.from == Party::Replica(id))
    }

    /// A replica listens here now.
    pub fn listens(&self, id: ReplicaId, at: SocketAddr) {
        self.towards(id).for_each(|way| way.set(|state| state.target = Some(at)));
    }

    /// A replica is dead. Returns when everything it ever said was heard.
    pub async fn died(&self, id: ReplicaId) {
        let silent = self.towards(id).map(Way::replica_died);
        let mute = self.of(id).map(Way::dialler_died);
        futures::future::join(futures::future::join_all(silent), futures::future::join_all(mute))
            .await;
    }

    /// All of this is wrong from now on, and nothing else. What no longer is passes at once.
    pub fn suffers(&self, ills: &[Ill]) {
        for way in &self.ways {
            way.treat(Treatment::of(way.wire, ills));
        }
    }

    /// How many bits turned on the way.
    #[must_use]
    pub fn turned(&self) -> u64 {
        self.ways.iter().map(Way::turned).sum()
    }

    /// Resets the connections of the ways that are chosen.
    pub fn reset(&self, mut chosen: impl FnMut(Wire) -> bool) {
        self.ways.iter().filter(|way| chosen(way.wire)).for_each(Way::reset);
    }
}
