//! What lies where in a folder that `elea init` made.

use std::path::{Path, PathBuf};

use elea_protocol::id::ReplicaId;

use crate::replica::Place;

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The one with this path.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The cluster file.
    #[must_use]
    pub fn cluster(&self) -> PathBuf {
        self.0.join("cluster.toml")
    }

    /// A cluster file for one replica alone. `elea init` makes none: it is for whoever puts something between
    /// the replicas, and so has each of them find the others elsewhere. It is still of the same cluster, for
    /// addresses are no part of its identity.
    #[must_use]
    pub fn cluster_of(&self, id: ReplicaId) -> PathBuf {
        self.0.join(format!("cluster-of-{}.toml", id.0))
    }

    /// A replica's key file.
    #[must_use]
    pub fn replica_key(&self, id: ReplicaId) -> PathBuf {
        self.0.join(format!("replica-{}.key", id.0))
    }

    /// A client's key file.
    #[must_use]
    pub fn client_key(&self, number: usize) -> PathBuf {
        self.0.join(format!("client-{number}.key"))
    }

    /// Where a replica keeps its data, if it keeps them here.
    #[must_use]
    pub fn data(&self, id: ReplicaId) -> PathBuf {
        self.0.join(format!("replica-{}.data", id.0))
    }

    /// And where it logs.
    #[must_use]
    pub fn log(&self, id: ReplicaId) -> PathBuf {
        self.0.join(format!("replica-{}.log", id.0))
    }

    /// What a replica is started with that keeps everything here.
    #[must_use]
    pub fn place(&self, id: ReplicaId) -> Place {
        Place { cluster: self.cluster(), key: self.replica_key(id), data: self.data(id) }
    }
}
