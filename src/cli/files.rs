//! What is done with files alone, without asking any replica.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::Shell;
use elea_processes::environment;

use super::access::Access;

/// `elea init`
#[derive(Debug, Args)]
pub struct Init {
    /// Where to write; made if it is not there
    pub dir: PathBuf,
    /// How many replicas; a third of them, rounded down, may be faulty
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=31))]
    pub replicas: u8,
    /// How many client keys
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub clients: u16,
    /// The host in the replicas' addresses; `{n}` in it stands for the replica's number, and then all have one port
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// The port of replica 0; the others follow, but for those with hosts of their own
    #[arg(long, default_value_t = 7100, value_parser = clap::value_parser!(u16).range(1..))]
    pub base_port: u16,
    /// The cluster's name [default: the directory's name]
    #[arg(long)]
    pub name: Option<String>,
    /// Begin with the state of this backup, and with the settings of the cluster that it is of
    #[arg(long, value_name = "BACKUP")]
    pub from: Option<PathBuf>,
    /// Refuse the backup if it is not of the cluster in this file
    #[arg(long, value_name = "FILE", requires = "from")]
    pub from_cluster: Option<PathBuf>,
}

/// `elea backup`
#[derive(Debug, Args)]
pub struct Backup {
    /// The data folder of a replica that is not running, to back up from there; without it the running replicas are
    /// asked
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where to write the backup; not overwritten if it is there. What came when it is interrupted lies beside it, in
    /// FILE.part, and the same command goes on with that
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// How much to fetch from running replicas in a second, at most, in MiB
    #[arg(long, value_name = "MIB", default_value = "16", conflicts_with = "data",
        value_parser = clap::value_parser!(u32).range(1..=1 << 10))]
    pub rate: u32,
    #[command(flatten)]
    pub access: Access,
}

/// `elea restore`
#[derive(Debug, Args)]
pub struct Restore {
    /// The backup
    #[arg(long, value_name = "BACKUP")]
    pub from: PathBuf,
    /// The cluster file of the new cluster
    #[arg(long, env = environment::CLUSTER, value_name = "FILE")]
    pub cluster: PathBuf,
    /// The replica's key file; it says which replica this is
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Where the replica will keep its data; it must hold none yet
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `elea completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: Shell,
}

/// `elea config`
#[derive(Debug, Args)]
pub struct ConfigCommand {
    #[command(subcommand)]
    pub action: ConfigAction,
}

/// What can be done with a cluster file.
#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Say what is wrong with a cluster file, and in what another one differs
    #[command(
        after_help = "Example: elea config check town/cluster.toml theirs.toml\nWith two files it says what makes \
        them files of different clusters, what must be\nequal for replicas to speak to each other (exit code 1), and \
        what each may have\nas it likes. A file that cannot be used is refused with its line: exit code 2."
    )]
    Check(ConfigCheck),
}

/// `elea config check`
#[derive(Debug, Args)]
pub struct ConfigCheck {
    /// The cluster file, or a replica's own file
    pub file: PathBuf,
    /// Another operator's
    pub other: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `elea key`
#[derive(Debug, Args)]
pub struct KeyCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: KeyAction,
}

/// What can be done with a key.
#[derive(Debug, Subcommand)]
pub enum KeyAction {
    /// Make a key, and print what a cluster file says of it
    #[command(
        after_help = "Example: elea key new emil.key --name emil > emil.toml\nThe file stays where it was made. What is \
        printed is public: operators add it to\ntheir cluster files. A file that is there is not overwritten."
    )]
    New(KeyFile),
    /// Print what a cluster file says of a key
    #[command(after_help = "Example: elea key show replica.key --replica 2 --address r2.town:7100")]
    Show(KeyShow),
}

/// `elea key new`, and what both take.
#[derive(Debug, Args)]
pub struct KeyFile {
    /// The key file
    pub file: PathBuf,
    /// What people call the client
    #[arg(long)]
    pub name: Option<String>,
    /// It is the key of the replica with this number
    #[arg(long, value_name = "ID", requires = "address", conflicts_with = "name")]
    pub replica: Option<u8>,
    /// What the others dial that replica by, HOST:PORT
    #[arg(long, requires = "replica")]
    pub address: Option<String>,
}

/// `elea key show`
#[derive(Debug, Args)]
pub struct KeyShow {
    #[command(flatten)]
    pub file: KeyFile,
    /// The key file may be read by its group
    #[arg(long)]
    pub group_key: bool,
}

/// `elea receipt`
#[derive(Debug, Args)]
pub struct ReceiptCommand {
    #[command(subcommand)]
    pub action: ReceiptAction,
}

/// What can be done with a receipt.
#[derive(Debug, Subcommand)]
pub enum ReceiptAction {
    /// Check a receipt against the cluster file, offline
    #[command(
        after_help = "Example: elea receipt verify sale.receipt --cluster town/cluster.toml\n\
        Prints what is proven; exit code 4 if the receipt proves nothing, be it by one bit."
    )]
    Verify(Verify),
}

/// `elea receipt verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// The receipt, as --receipt saved it
    pub file: PathBuf,
    /// The cluster file
    #[arg(long, env = environment::CLUSTER, value_name = "FILE")]
    pub cluster: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
