//! What a replica is started with, and why it may not start or not go on.

use std::path::PathBuf;

pub use elea_protocol::cluster_file::Durability;
pub use elea_protocol::message::{Transport, WireVersions};
use elea_protocol::replica::Setup;

use crate::limits::{BadLimit, Limits};
use crate::store::StoreError;

/// Everything a replica needs to know, beside its application.
#[derive(Clone)]
pub struct Config {
    /// Who it is, of which cluster, with which key and tuning.
    pub setup: Setup,
    /// Where each replica listens, by id; its own included.
    pub addresses: Vec<String>,
    /// Where to listen; port 0 takes a free one.
    pub listen: String,
    /// How its connections are protected, those that it dials and those that it accepts.
    pub transport: Transport,
    /// The folder that holds its store.
    pub data: PathBuf,
    /// A small file that outlives the folder, best beside the key: by it a replica that has lost its
    /// folder knows so at once. Without it the replica asks its peers.
    pub mark: Option<PathBuf>,
    /// When a record counts as durable.
    pub durability: Durability,
    /// How much it takes.
    pub limits: Limits,
    /// Which versions of frames it speaks: [`WireVersions::OWN`], unless an update is rehearsed.
    pub wire: WireVersions,
}

/// Why a replica could not start, or stopped without being told to. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The cluster has more or fewer replicas than addresses.
    #[error("{addresses} addresses are given for {replicas} replicas: give one for each, by id")]
    Addresses {
        /// How many addresses.
        addresses: usize,
        /// How many replicas.
        replicas: usize,
    },
    /// The setup's id is not one of the cluster's.
    #[error("{0} is not a replica of this cluster: use a key that the cluster file lists")]
    NotAMember(String),
    /// The setup's key is not the one the cluster knows.
    #[error(
        "the key is not that of {0} in the cluster file: use that replica's key file, or correct the cluster file"
    )]
    WrongKey(String),
    /// The key signs digests alone.
    #[error(
        "the key cannot prove itself in a TLS handshake: use one that can, or set the transport to plain"
    )]
    KeyCannotEncrypt,
    /// A limit cannot work.
    #[error(transparent)]
    Limit(#[from] BadLimit),
    /// Somebody else listens there.
    #[error(
        "{address} is in use by another process: stop that one, or choose another address to listen on"
    )]
    AddressInUse {
        /// The address.
        address: String,
    },
    /// One cannot listen there.
    #[error(
        "cannot listen on {address} ({reason}): choose an address of this machine as host:port"
    )]
    CannotListen {
        /// The address.
        address: String,
        /// As the system says.
        reason: String,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store's records contradict each other.
    #[error(
        "what {data} holds contradicts itself ({what}): keep the folder for inspection and replace the replica"
    )]
    Contradiction {
        /// The data folder.
        data: PathBuf,
        /// What was found.
        what: String,
    },
    /// The data folder holds what another version of the program has to execute.
    #[error("{data}: {what}", data = data.display())]
    Edition {
        /// The data folder.
        data: PathBuf,
        /// Which slot, and of which edition.
        what: String,
    },
    /// The cluster begins with a backup's state, and the folder does not have it.
    #[error(
        "this cluster begins with the state of a backup, and the data folder {0} does not hold it: run `elea restore` with that backup first"
    )]
    NotRestored(PathBuf),
    /// The file that tells of the first start cannot be used.
    #[error(
        "{path}, which tells whether this key was used before, cannot be read or written ({reason}): check its permissions and those of its folder; remove it only if this key never ran with another data folder"
    )]
    Mark {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The system gave no thread.
    #[error("no thread could be started ({0}): raise the limit on processes for this user")]
    Thread(String),
    /// The core found itself in a state that cannot be, or the application panicked, and it stopped
    /// before it could say anything wrong.
    #[error("the replica stopped on an internal error ({0}): restart it, and please report this")]
    Panicked(String),
    /// The disk did not answer while the replica was stopping.
    #[error("the store does not finish writing: check the disk; what was answered before is safe")]
    StopTimeout,
}
