//! How a cluster is, and how fast.

use std::time::Duration;

use clap::{Args, ValueEnum};
use elea_processes::environment;
use elea_processes::replica::ADMIN_ADDRESS;

use super::access::Access;
use super::duration::duration;

/// Where the page for browsers is, if no address is given.
pub const PAGE_ADDRESS: &str = "127.0.0.1:7181";

/// `elea status`, `elea evidence`
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    pub access: Access,
}

/// `elea top`
#[derive(Debug, Args)]
pub struct Top {
    /// Serve the same as a page for browsers, here; it has no keys, so it belongs on the loopback address
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = PAGE_ADDRESS, conflicts_with = "once")]
    pub web: Option<String>,
    /// Print one frame as text, and end
    #[arg(long)]
    pub once: bool,
    /// How wide that is
    #[arg(long, value_name = "COLUMNS", default_value_t = 100, value_parser = clap::value_parser!(u16).range(40..=1000), requires = "once")]
    pub width: u16,
    /// How long to wait between two looks
    #[arg(long, default_value = "500ms", value_parser = duration)]
    pub every: Duration,
    #[command(flatten)]
    pub access: Access,
}

/// `elea health`
#[derive(Debug, Args)]
pub struct Health {
    /// Where the replica's admin listener is
    #[arg(long, env = environment::ADMIN, value_name = "ADDRESS", default_value = ADMIN_ADDRESS)]
    pub admin: String,
    /// Ask whether strong requests can be served, as far as the replica sees, and not only whether it lives
    #[arg(long)]
    pub ready: bool,
    /// Ask whether weak requests can be served
    #[arg(long, requires = "ready")]
    pub weak: bool,
}

/// `elea bench`
#[derive(Debug, Args)]
pub struct Bench {
    /// How many clients, each with a session of its own
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub clients: u16,
    /// Have each client connect by itself, as if it was a process of its own; otherwise all share one connection
    /// to each replica
    #[arg(long)]
    pub own_connections: bool,
    /// For how long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// What each request waits for
    #[arg(long, value_enum, default_value_t = BenchLevel::Strong)]
    pub level: BenchLevel,
    /// Bytes of each value written
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub value_size: u32,
    /// To how many keys each client writes, in turn
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub keys: u64,
    /// How many requests each client has under way
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub pipeline: u16,
    #[command(flatten)]
    pub access: Access,
}

/// The levels of `elea bench`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchLevel {
    /// f + 1 replicas agree
    Weak,
    /// Final and linearizable
    Strong,
    /// Weak, then final
    Final,
}
