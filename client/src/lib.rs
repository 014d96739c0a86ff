//! The asynchronous client library of Elea.
//!
//! ```no_run
//! # use elea_client::{Client, Cluster, Command, load_key};
//! # async fn example(put: impl Command, incr: impl Command) -> Result<(), Box<dyn std::error::Error>> {
//! let (cluster, key) = (Cluster::load("cluster.toml")?, load_key("client-0.key")?);
//! let client = Client::connect(&cluster, key).await?;
//! let weak = client.weak(put).await?; // f + 1 replicas agree: never lost
//! println!("version {:?}", weak.version);
//! let done = weak.finality().await?; // and now its place is final, too
//! println!("the same: {}", done.is_same());
//! let strong = client.strong(incr).await?; // final at once
//! # let _ = strong;
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] is cheap to clone and may be used from many tasks at once; operations of one level
//! that wait at the same time are signed together. Dropping a future gives up the answer and nothing
//! else: an operation that was sent is executed all the same.
//!
//! One task owns a client's sessions ([`elea_protocol::client`] decides, this crate carries out), and one
//! task for each replica keeps a connection up, for all clients of the process that have one key. Which sessions are used, and what the files beside
//! a key are for, is told in [`sessions`].

mod audience;
mod connection;
mod error;
pub mod files;
mod handle;
mod lines;
mod link;
mod live;
mod owner;
mod past;
pub mod sessions;
mod signing;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

pub use bytes::Bytes;
pub use elea_protocol::application::{Command, Undecodable};
pub use elea_protocol::client::{Answer, Finality, Outcome, Progress, Timing};
pub use elea_protocol::cluster_file::{BadClusterFile, ClusterFile, Durability, ListedClient};
pub use elea_protocol::evidence::Evidence;
pub use elea_protocol::id::{
    ClientId, Digest, ReplicaId, RequestName, RequestNumber, SessionId, Slot, View,
};
pub use elea_protocol::membership::Membership;
pub use elea_protocol::message::{
    Disagreement, DiskHealth, Lent, Level, MismatchReport, NodeStatus, Origin, OtherList, Pace,
    Position, RefusalReason, Reply, ReplyKind, ReplyVote, Standing, StateHead, Transferring,
    Transport,
};
pub use elea_protocol::quorum::ClusterSize;
pub use elea_protocol::receipt::{BadReceipt, Proven, Receipt};
pub use elea_protocol::seal::Rejection;
pub use elea_protocol::signature::{PublicKey, SecretKey};
pub use elea_protocol::tuning::{Rules, Tuning};
pub use error::{Behind, Error, ErrorKind, PastError, ReplicaNote, Shortfall};
pub use files::{FileError, FileProblem, load_key};
pub use handle::{Client, Done, Executed, Following, Options, Read, Strong, Weak};
pub use past::{BadPast, Past};

/// Who a client talks to, and where they are.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The members.
    pub membership: Arc<Membership>,
    /// `host:port` of each, in the order of their ids.
    pub addresses: Vec<String>,
    /// What all its replicas have in common; a client uses the `session_window`.
    pub rules: Rules,
}

impl Cluster {
    /// The cluster of a cluster file.
    ///
    /// ```no_run
    /// # use elea_client::Cluster;
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let cluster = Cluster::load("cluster.toml")?;
    /// println!("{} of {} replicas may lie", cluster.membership.size().faulty(), cluster.addresses.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// There is no such file, or it is no cluster file: the error names the line.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, FileError> {
        Ok((&files::load_cluster(path)?).into())
    }

    /// A cluster with default rules.
    ///
    /// ```
    /// # use {elea_client::{Cluster, Membership}, std::sync::Arc};
    /// # fn example(membership: Membership) -> Cluster {
    /// let addresses = (0..4).map(|n| format!("node-{n}.example:7100")).collect();
    /// Cluster::new(Arc::new(membership), addresses)
    /// # }
    /// ```
    #[must_use]
    pub fn new(membership: Arc<Membership>, addresses: Vec<String>) -> Self {
        Self { membership, addresses, rules: Default::default() }
    }
}

impl From<&ClusterFile> for Cluster {
    fn from(file: &ClusterFile) -> Self {
        Self {
            membership: Arc::new(file.membership.clone()),
            addresses: file.addresses.clone(),
            rules: file.tuning.rules,
        }
    }
}
