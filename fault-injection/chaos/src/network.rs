//! All ways of a cluster, and what breaks them.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use elea_protocol::id::ReplicaId;

use crate::proxy::{Link, State, Way};
use crate::tap::{Hears, Party, Wire};

/// See the [module](self).
pub struct Network {
    replicas: u8,
    ways: Vec<Way>,
}

impl Network {
    /// Opens a way from every replica to every other one, and from every client to all. `at` says
    /// at which address of this machine a dialler finds its ways.
    ///
    /// # Errors
    /// The system gives no ports.
    pub async fn open(
        replicas: u8,
        clients: usize,
        hears: &Hears,
        at: impl Fn(Party) -> IpAddr,
    ) -> io::Result<Self> {
        let diallers = (0..replicas).map(|id| Party::Replica(ReplicaId(id)));
        let diallers = diallers.chain((0..clients).map(Party::Client));
        let mut ways = Vec::new();
        for from in diallers {
            for to in (0..replicas).map(ReplicaId) {
                if from != Party::Replica(to) {
                    ways.push(Way::open(Wire { from, to }, at(from), hears.clone()).await?);
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

    /// Everything passes at once again.
    pub fn heal(&self) {
        self.ways.iter().for_each(Way::heal);
    }

    /// Splits the parties: what crosses from one side to the other is lost. With `abrupt`
    /// connections are closed, so that both ends know; otherwise they fall silent.
    pub fn split(&self, side: &BTreeSet<Party>, abrupt: bool) {
        let crosses = |way: &&Way| {
            side.contains(&way.wire.from) != side.contains(&Party::Replica(way.wire.to))
        };
        for way in self.ways.iter().filter(crosses) {
            if abrupt {
                way.cut();
            } else {
                way.set(|state| {
                    state.there.is_held = true;
                    state.back.is_held = true;
                });
            }
        }
    }

    /// Nothing that this replica says to anybody arrives, or nothing that anybody says to it.
    pub fn deafen(&self, id: ReplicaId, is_mute: bool) {
        let change = |way: &Way, is_dialler: bool| {
            way.set(|state: &mut State| {
                let link = if is_dialler == is_mute { &mut state.there } else { &mut state.back };
                link.is_held = true;
            });
        };
        self.of(id).for_each(|way| change(way, true));
        self.towards(id).for_each(|way| change(way, false));
    }

    /// Changes both directions of the ways that are chosen.
    pub fn worsen(&self, mut chosen: impl FnMut(Wire) -> bool, change: impl Fn(&mut Link)) {
        for way in self.ways.iter().filter(|way| chosen(way.wire)) {
            way.set(|state| {
                change(&mut state.there);
                change(&mut state.back);
            });
        }
    }

    /// Resets the connections of the ways that are chosen.
    pub fn reset(&self, mut chosen: impl FnMut(Wire) -> bool) {
        self.ways.iter().filter(|way| chosen(way.wire)).for_each(Way::reset);
    }
}
