//! Which cluster is spoken to, and as whom.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use elea_processes::environment;
use elea_protocol::message::Transport;

use super::duration::duration;
use super::transport::transport;

/// Which cluster, as whom, and for how long.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection")]
pub struct Access {
    /// The cluster file
    #[arg(long, env = environment::CLUSTER, value_name = "FILE")]
    pub cluster: Option<PathBuf>,
    /// The client's key file
    #[arg(long = "key", env = environment::KEY, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// The file that commands with one key share their sessions by, or `none`; beside the key where
    /// it is not named, and none where that place is read-only
    #[arg(long, env = environment::SESSIONS, value_name = "FILE")]
    pub sessions: Option<PathBuf>,
    /// Accept a key file that a group of this user's may read, as mounted secrets have it
    #[arg(long, env = environment::GROUP_KEY, value_parser = FalseyValueParser::new())]
    pub group_key: bool,
    /// How connections are protected; the replicas and all who speak to them have to say the same
    #[arg(long, env = environment::TRANSPORT, value_parser = transport(), default_value = "encrypted")]
    pub transport: Transport,
    /// How long to wait for enough replicas, for example 500ms, 5s or 1m
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub timeout: Duration,
    /// Print JSON, one object a line
    #[arg(long)]
    pub json: bool,
}
