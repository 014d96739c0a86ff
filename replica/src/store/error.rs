//! Why a store cannot be used.

use std::path::PathBuf;

use elea_protocol::id::{Digest, ReplicaId};

use super::FORMAT;

/// Why the store cannot be used. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be made, read or written.
    #[error(
        "the data folder {path} cannot be used ({reason}): check that it is a folder, that there is room, and that this user may write there"
    )]
    Unusable {
        /// Which.
        path: PathBuf,
        /// As the system says.
        reason: String,
    },
    /// Another process has it open.
    #[error(
        "the data folder {path} is in use by another process: stop that one first, or give this replica a folder of its own"
    )]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// It holds no data at all.
    #[error(
        "there is no replica's data in {path}: name the folder that `elea replica` was given with --data"
    )]
    Absent {
        /// Which.
        path: PathBuf,
    },
    /// It holds data already.
    #[error(
        "the data folder {path} holds a replica's data already and is not overwritten: name a new folder"
    )]
    Present {
        /// Which.
        path: PathBuf,
    },
    /// It holds data of another cluster.
    #[error(
        "the data folder {path} belongs to another cluster (genesis {found}, not {expected}): name this cluster's folder, or an empty one for a new replica"
    )]
    OtherCluster {
        /// Which.
        path: PathBuf,
        /// The genesis digest stored.
        found: Digest,
        /// The one in the cluster file.
        expected: Digest,
    },
    /// It holds data of another replica of this cluster.
    #[error(
        "the data folder {path} belongs to replica {found}, not to {expected}: each replica needs the folder it started with"
    )]
    OtherReplica {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        found: ReplicaId,
        /// Whose it should be.
        expected: ReplicaId,
    },
    /// A newer version wrote it.
    #[error(
        "the data folder {path} was written by a newer version (format {found}, this one knows up to {FORMAT}): start the replica with that version"
    )]
    NewerFormat {
        /// Which.
        path: PathBuf,
        /// The format stored.
        found: u32,
    },
    /// An older version wrote it.
    #[error(
        "the data folder {path} was written by an older version (format {found}, this one needs {FORMAT}) and cannot be converted: start the replica with the version that wrote it, or begin a new cluster with empty folders"
    )]
    OlderFormat {
        /// Which.
        path: PathBuf,
        /// The format stored.
        found: u32,
    },
    /// What is stored is not what was written.
    #[error(
        "the store in {path} is damaged ({what}): keep the folder for inspection and replace the replica, since with an older copy it could contradict what it said"
    )]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The application's rows are not what was written. They have been given up: with the next
    /// start they are fetched from the others.
    #[error(
        "the application's rows in {path} are damaged ({what}): start the replica again, and it fetches them from the others"
    )]
    RowsDamaged {
        /// Where.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// Records could not be written. The replica stops, before it says anything that rests on them.
    #[error(
        "the store in {path} could not be written ({reason}): check the disk and its free space, then start the replica again"
    )]
    WriteFailed {
        /// Where.
        path: PathBuf,
        /// As the system says.
        reason: String,
    },
}
