//! What runs replicas.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use elea_processes::environment;
use elea_processes::replica::ADMIN_ADDRESS;
use elea_protocol::message::Transport;

use super::duration::duration;
use super::looking::PAGE_ADDRESS;
use super::transport::transport;

/// `elea demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// Serve a page for browsers beside it, here, and give time to look: it begins when the page is opened
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = PAGE_ADDRESS)]
    pub web: Option<String>,
}

/// `elea up`
#[derive(Debug, Args)]
pub struct Up {
    /// A directory that `elea init` made
    pub dir: PathBuf,
    /// Serve a page for browsers beside them, here, that shows how they are: as `elea top --web` does
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = PAGE_ADDRESS)]
    pub web: Option<String>,
    /// How connections are protected; the replicas and all who speak to them have to say the same
    #[arg(long, env = environment::TRANSPORT, value_parser = transport(), default_value = "encrypted")]
    pub transport: Transport,
}

/// `elea replica`
#[derive(Debug, Args)]
pub struct Replica {
    /// A file that says what this command line does not, of this replica alone; see docs/operations.md
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The cluster file
    #[arg(long, env = environment::CLUSTER, value_name = "FILE")]
    pub cluster: Option<PathBuf>,
    /// The replica's key file; it says which replica this is
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Accept a key file that its group may read, if this user is in the group
    #[arg(long, env = environment::GROUP_KEY, value_parser = FalseyValueParser::new())]
    pub group_key: bool,
    /// Where the replica keeps its data; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Listen here instead of at the address in the cluster file
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// How connections are protected; the replicas and all who speak to them have to say the same
    #[arg(long, env = environment::TRANSPORT, value_parser = transport())]
    pub transport: Option<Transport>,
    /// How long to wait between one look at everything on the disk and the next, for example 1h
    /// (the default)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub scrub_pause: Option<Duration>,
    /// How much of the disk to read in a second for that, at most, in MiB; 8 if not given
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub scrub_rate: Option<u64>,
    /// Write nothing while less than this is free on the disk, in MiB; 256 if not given
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(0..=1 << 20))]
    pub disk_reserve: Option<u64>,
    /// Serve metrics, health and the log's level here, for whoever runs the replica; at 127.0.0.1:7180 if no address is
    /// given
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = ADMIN_ADDRESS)]
    pub admin: Option<String>,
    /// The file that notes that this key was used, where the key's own folder cannot be written to; it has to outlive the
    /// data
    #[arg(long, value_name = "FILE")]
    pub mark: Option<PathBuf>,
    /// Stop when stdin is closed, so that the replica does not outlive whoever started it
    #[arg(long)]
    pub attached: bool,
}
