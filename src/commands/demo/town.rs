//! The demo's cluster: four processes, and a network between them that can be split.

use std::path::Path;
use std::time::{Duration, Instant};

use elea_client::Options;
use elea_processes::folder::Folder;
use elea_processes::ports;
use elea_processes::proxy::Proxy;
use elea_processes::replica::Place;
use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::id::ReplicaId;
use elea_protocol::message::{NodeStatus, Transport};
use elea_protocol::signature::SecretKey;
use tokio::time::sleep;

use super::{PATIENCE, SHORT, broken, say};
use crate::children::{Replica, start_all, stop_all};
use crate::cluster::Cluster;
use crate::commands::init::{self, Plan};
use crate::failure::{Failure, Outcome};
use crate::files::{self, Readers};

const REPLICAS: u8 = 4;

/// How often is looked whether something has come about.
const GLANCE: Duration = Duration::from_millis(20);

/// The halves of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// r0 and r1.
    North,
    /// r2 and r3.
    South,
}

impl Side {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::North => "north",
            Self::South => "south",
        }
    }

    fn of(id: ReplicaId) -> Self {
        if id.0 < REPLICAS / 2 { Self::North } else { Self::South }
    }
}

/// Four replicas and the ways between them.
pub struct Town {
    folder: Folder,
    /// With the addresses at which the replicas listen.
    pub file: ClusterFile,
    /// Those that run.
    pub replicas: Vec<Replica>,
    ways: Vec<Way>,
}

/// From a replica or a client to a replica.
struct Way {
    crosses: bool,
    proxy: Proxy,
}

impl Town {
    /// Makes a cluster and starts it. The ports are free when they are chosen; if somebody else
    /// takes one before the replica does, everything is done again with others.
    pub async fn start(folder: &Path) -> Result<Self, Failure> {
        const ATTEMPTS: usize = 5;
        let mut last = None;
        for attempt in 0..ATTEMPTS {
            let folder = Folder::at(folder.join(format!("attempt-{attempt}")));
            let plan = Plan {
                name: "demo".into(),
                addresses: free_addresses()?,
                clients: 3,
                origin: None,
            };
            let file = init::write(&folder, &plan)?;
            let mut town = Self { folder, file, replicas: Vec::new(), ways: Vec::new() };
            let mut places = Vec::new();
            for id in town.members() {
                town.open_ways(id).await?;
                places.push((id, town.place(id), town.folder.log(id)));
            }
            match start_all(places).await {
                Ok(replicas) => return Ok(Self { replicas, ..town }),
                Err(failure) if failure.message.contains("in use") => last = Some(failure),
                Err(failure) => return Err(failure),
            }
        }
        Err(last.unwrap_or_else(|| Failure::usage("no free ports were found")))
    }

    /// All replicas, whether they run or not.
    pub fn members(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        self.file.membership.size().members()
    }

    /// Gives a replica a cluster file in which the others are where its ways to them begin. Such
    /// files are still of one cluster: addresses are no part of its identity.
    async fn open_ways(&mut self, id: ReplicaId) -> Outcome {
        let mut addresses = Vec::new();
        for to in self.members() {
            if to == id {
                addresses.push(self.address(id).to_owned());
            } else {
                addresses.push(self.open_way(Side::of(id), to).await?);
            }
        }
        let text = ClusterFile { addresses, ..self.file.clone() }.to_text();
        files::write_new(&self.place(id).cluster, &text, 0o644)
    }

    async fn open_way(&mut self, from: Side, to: ReplicaId) -> Result<String, Failure> {
        let proxy = Proxy::open(self.address(to).to_owned())
            .await
            .map_err(|error| Failure::usage(format!("a port could not be opened ({error})")))?;
        let address = proxy.address().to_string();
        self.ways.push(Way { crosses: from != Side::of(to), proxy });
        Ok(address)
    }

    fn place(&self, id: ReplicaId) -> Place {
        Place { cluster: self.folder.cluster_of(id), ..self.folder.place(id) }
    }

    /// Where the cluster's files are.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Where a replica listens.
    pub fn address(&self, id: ReplicaId) -> &str {
        &self.file.addresses[usize::from(id.0)]
    }

    /// The key file that the demo made for a replica.
    pub fn key_of(&self, id: ReplicaId) -> Result<SecretKey, Failure> {
        files::load_key(&self.folder.replica_key(id), Readers::Owner)
    }

    /// A client that reaches all replicas, whatever happens to the network.
    pub async fn client(&self) -> Result<Cluster, Failure> {
        self.connect(&self.file, 0).await
    }

    /// A client that lives on one side.
    pub async fn client_in(&mut self, side: Side) -> Result<Cluster, Failure> {
        let mut addresses = Vec::new();
        for to in self.members() {
            addresses.push(self.open_way(side, to).await?);
        }
        let file = ClusterFile { addresses, ..self.file.clone() };
        self.connect(&file, if side == Side::North { 1 } else { 2 }).await
    }

    async fn connect(&self, file: &ClusterFile, key: usize) -> Result<Cluster, Failure> {
        let path = self.folder.client_key(key);
        Cluster::open(file, files::load_key(&path, Readers::Owner)?, Options::default()).await
    }

    /// Splits the network in two halves.
    pub fn split(&self) {
        self.ways.iter().filter(|way| way.crosses).for_each(|way| way.proxy.cut());
    }

    /// Makes it whole again.
    pub fn heal(&self) {
        self.ways.iter().for_each(|way| way.proxy.heal());
    }

    fn take(&mut self, id: ReplicaId) -> Result<Replica, Failure> {
        let at = self.replicas.iter().position(|replica| replica.id() == id);
        at.map(|at| self.replicas.remove(at))
            .ok_or_else(|| broken("a replica that should run does not"))
    }

    /// Ends a replica as a crash would.
    pub async fn kill(&mut self, id: ReplicaId) -> Outcome {
        let mut replica = self.take(id)?;
        say(&format!("kill -9 {} ({id})", replica.pid().unwrap_or(0)));
        replica.kill().await;
        Ok(())
    }

    /// Has a replica stop in good order.
    pub async fn stop(&mut self, id: ReplicaId) -> Outcome {
        self.take(id)?.stop().await
    }

    /// Starts a replica again on its own disk.
    pub async fn restart(&mut self, id: ReplicaId) -> Outcome {
        let mut replica =
            Replica::spawn(id, &self.place(id), Transport::Encrypted, self.folder.log(id))?;
        let ready = replica.ready().await;
        self.replicas.push(replica);
        ready
    }

    /// Stops everything.
    pub async fn end(&mut self) -> Vec<Failure> {
        stop_all(std::mem::take(&mut self.replicas)).await
    }
}

/// Looks again and again until something is so.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> Result<T, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(broken(&format!("it did not come about that {what}")));
        }
        sleep(GLANCE).await;
    }
}

/// What one of the replicas that can be reached says, the one that has come furthest.
pub async fn furthest(cluster: &Cluster) -> Result<NodeStatus, Failure> {
    until("a replica says how it is", async || {
        let said = cluster.statuses(SHORT).await;
        said.into_iter().flatten().max_by_key(|status| (status.view, status.head.slot))
    })
    .await
}

/// The end of the history that all replicas have, with equal states.
pub async fn agreed(cluster: &Cluster) -> Result<u64, Failure> {
    until("all four have the same history and the same state", async || {
        let said = cluster.statuses(SHORT).await;
        let all: Option<Vec<_>> = said
            .iter()
            .map(|said| Some((said.as_ref().ok()?.head, said.as_ref().ok()?.state)))
            .collect();
        let all = all?;
        let first = all.first()?;
        all.iter().all(|other| other == first).then_some(first.0.slot.0)
    })
    .await
}

fn free_addresses() -> Result<Vec<String>, Failure> {
    let free = ports::free(REPLICAS.into());
    let free = free.ok_or_else(|| Failure::usage("no free ports were found on 127.0.0.1"))?;
    Ok(free.map(|port| format!("127.0.0.1:{port}")).collect())
}
