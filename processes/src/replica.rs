//! How a replica is started, and what it says then.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// How the line on stdout begins by which a replica says where it listens.
pub const LISTENING: &str = "listening";

/// The line on stdout by which a replica says that it has reached enough others for strong requests.
pub const READY: &str = "ready";

/// How the line on stdout begins by which a replica says where its admin listener is.
pub const ADMIN: &str = "admin";

/// Where a replica's admin listener is, if no address is given.
pub const ADMIN_ADDRESS: &str = "127.0.0.1:7180";

/// The files of one replica.
#[derive(Clone, Debug)]
pub struct Place {
    /// The cluster file.
    pub cluster: PathBuf,
    /// The key file.
    pub key: PathBuf,
    /// The data directory.
    pub data: PathBuf,
}

impl Place {
    /// The command that runs the replica. `program` is `elea`, or runs the words that follow it.
    #[must_use]
    pub fn command(&self, mut program: Command) -> Command {
        program.arg("replica").arg("--cluster").arg(&self.cluster);
        program.arg("--key").arg(&self.key).arg("--data").arg(&self.data);
        program
    }
}

/// Ties a replica to this process: it stops when its stdin is closed, however this process ends.
pub fn attach(replica: &mut Command) -> &mut Command {
    replica.arg("--attached").stdin(Stdio::piped())
}
