//! The command line: what can be said, with an example for each command.
//!
//! The names, options and exit codes are a contract; `docs/operations.md` describes them.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Shared state for clusters whose members do not trust each other and whose network splits.
#[derive(Debug, Parser)]
#[command(
    name = "elea",
    version,
    arg_required_else_help = true,
    after_help = "Start with `elea demo`, or with a cluster of your own:\n  \
        elea init town --replicas 4 && elea up town &\n  \
        export ELEA_CLUSTER=town/cluster.toml ELEA_KEY=town/client-0.key\n  \
        elea put greeting hello && elea get greeting\n\n\
        Exit codes: 0 done; 1 the operation said no (key absent, compare failed); 2 usage or\n\
        configuration; 3 not enough replicas answered in time; 4 proof of misbehaviour, or a receipt\n\
        or backup that does not verify."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A tour on this machine, under a minute, without any set-up
    Demo(Demo),
    /// Write the files of a new cluster: cluster.toml and the keys
    #[command(
        after_help = "Example: elea init town --replicas 7 --clients 2 --base-port 7200\nWith --from \
        BACKUP the new cluster begins with the state of that backup; then run\n`elea restore` for each replica \
        before its first start."
    )]
    Init(Init),
    /// Run all replicas of a directory as processes until Ctrl-C
    #[command(
        after_help = "Example: elea up town\nEach replica logs to DIR/replica-N.log and keeps \
        its data in DIR/replica-N.data.\nA replica that dies is not started again: that is yours to \
        see."
    )]
    Up(Up),
    /// Run one replica
    #[command(after_help = "Example: elea replica --cluster town/cluster.toml --key \
        town/replica-0.key --data /var/lib/elea\nPrints `listening ADDRESS` and, once it \
        has reached enough others\nfor strong requests, `ready`. SIGTERM stops it cleanly; kill -9 \
        loses nothing.\nLogs go to stderr; ELEA_LOG chooses how much, as in ELEA_LOG=debug.")]
    Replica(Replica),
    /// Write the certified state of a stopped replica to a file
    #[command(
        after_help = "Example: elea backup --cluster town/cluster.toml --data town/replica-3.data \
        --out town.backup\nThe others go on meanwhile, and the replica catches up when it is started \
        again. What it\nheard of after the last checkpoint is not in the file; the line says up to \
        which slot it goes."
    )]
    Backup(Backup),
    /// Make the data folder of a replica of a new cluster that begins with a backup
    #[command(
        after_help = "Example: elea init new --from town.backup && for n in 0 1 2 3; do\n  elea \
        restore --from town.backup --cluster new/cluster.toml \\\n    --key new/replica-$n.key \
        --data new/replica-$n.data\ndone && elea up new\nNothing is written from a backup that does \
        not verify: exit code 4."
    )]
    Restore(Restore),
    /// Read a key
    #[command(
        after_help = "Example: x=$(elea get greeting)\nPrints the value and a newline; exit \
        code 1 if the key is absent."
    )]
    Get(OneKey),
    /// Write a key
    #[command(after_help = "Example: elea put greeting hello --weak\nPrints nothing. VALUE `-` \
        reads stdin.")]
    Put(KeyValue),
    /// Remove a key
    #[command(
        after_help = "Example: elea delete greeting\nPrints nothing; exit code 1 if the key \
        was absent."
    )]
    Delete(OneKey),
    /// Write a key if it holds what is expected
    #[command(after_help = "Examples: elea cas lock free taken\n          elea cas lock --absent \
        taken\nPrints nothing; exit code 1 if the key held something else.")]
    Cas(Cas),
    /// Add to a number; made to merge
    #[command(after_help = "Example: elea incr stock -1 --weak\nPrints the new number. An absent \
        key counts as 0.")]
    Incr(Incr),
    /// Append to a value; made to merge
    #[command(
        after_help = "Example: elea append log \"one line\"\nPrints the new length in bytes."
    )]
    Append(KeyValue),
    /// Put a member into a set; made to merge
    #[command(after_help = "Example: elea add guests ada\nPrints nothing, also if it was in the \
        set already.")]
    Add(Member),
    /// Take a member out of a set; made to merge
    #[command(
        after_help = "Example: elea remove guests ada\nPrints nothing, also if it was not in \
        the set."
    )]
    Remove(Member),
    /// List the members of a set
    #[command(after_help = "Example: elea members guests\nPrints one member a line.")]
    Members(OneKey),
    /// List keys and values in the order of the keys
    #[command(after_help = "Example: elea scan --prefix user/ --limit 20\nPrints KEY, a tab and \
        VALUE a line, page after page; with --json one object a page. Each page is one request, so keys that\n\
        change meanwhile may be shown as they were or as they are. Where --limit cuts it short, stderr says\n\
        where to go on. With --receipt it ends after the page that the receipt is of.")]
    Scan(Scan),
    /// Compare, then do one list of operations or another, all at once
    #[command(
        after_help = "Example: elea txn --compare 'stock >= 1' --then 'incr stock -1' --else \
        'get stock'\n\n\
        Comparisons: KEY = VALUE (also !=, <, >), KEY >= NUMBER (also <=), KEY exists, KEY absent,\n\
        KEY @ SLOT.INDEX (was last written there). Numbers compare as numbers. All must hold.\n\
        Operations: get KEY, put KEY VALUE, delete KEY, incr KEY [BY], append KEY VALUE,\n\
        add KEY MEMBER, remove KEY MEMBER, members KEY, cas KEY EXPECTED NEW.\n\
        Quotes hold a word together: put greeting \"hello there\\n\"; \\xNN is any byte.\n\n\
        Prints one line for each operation done; exit code 1 if a comparison failed."
    )]
    Txn(Txn),
    /// Show how the replicas are, one row each
    #[command(after_help = "Example: elea status --json | jq .replicas")]
    Status(Status),
    /// Put load on the cluster and report throughput and latency
    #[command(
        after_help = "Example: elea bench --clients 4 --pipeline 32 --seconds 10 --level weak\n\
        Counts only answers that a quorum of replicas signed. Writes keys `bench/…`."
    )]
    Bench(Bench),
    /// Check receipts
    Receipt(ReceiptCommand),
    /// List the proofs of misbehaviour that replicas hold; exit code 4 if there are any
    #[command(
        after_help = "Example: elea evidence || echo 'somebody lies'\nPrints one line for each \
        thing that is proven: who, what, in which view, and which replicas hold\nthe proof. \
        Proofs are checked here, with the cluster file: no replica can slander another."
    )]
    Evidence(Status),
}

/// `elea demo`
#[derive(Debug, Args)]
pub struct Demo {}

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
    /// The host in the replicas' addresses
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// The port of replica 0; the others follow
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
    /// The cluster file
    #[arg(long, env = "ELEA_CLUSTER", value_name = "FILE")]
    pub cluster: PathBuf,
    /// The data folder of a replica that is not running
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Where to write the backup; not overwritten if it is there
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `elea restore`
#[derive(Debug, Args)]
pub struct Restore {
    /// The backup
    #[arg(long, value_name = "BACKUP")]
    pub from: PathBuf,
    /// The cluster file of the new cluster
    #[arg(long, env = "ELEA_CLUSTER", value_name = "FILE")]
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

/// `elea up`
#[derive(Debug, Args)]
pub struct Up {
    /// A directory that `elea init` made
    pub dir: PathBuf,
}

/// `elea replica`
#[derive(Debug, Args)]
pub struct Replica {
    /// The cluster file
    #[arg(long, env = "ELEA_CLUSTER", value_name = "FILE")]
    pub cluster: PathBuf,
    /// The replica's key file; it says which replica this is
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Where the replica keeps its data; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Listen here instead of at the address in the cluster file
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
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
    /// Stop when stdin is closed, so that the replica does not outlive whoever started it
    #[arg(long)]
    pub attached: bool,
}

/// Which cluster, as whom, and for how long.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection")]
pub struct Access {
    /// The cluster file
    #[arg(long, env = "ELEA_CLUSTER", value_name = "FILE")]
    pub cluster: Option<PathBuf>,
    /// The client's key file
    #[arg(long = "key", env = "ELEA_KEY", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// The file that commands with one key share their sessions by, or `none`; beside the key where
    /// it is not named, and none where that place is read-only
    #[arg(long, env = "ELEA_SESSIONS", value_name = "FILE")]
    pub sessions: Option<PathBuf>,
    /// Accept a key file that a group of this user's may read, as mounted secrets have it
    #[arg(long, env = "ELEA_GROUP_KEY", value_parser = FalseyValueParser::new())]
    pub group_key: bool,
    /// How long to wait for enough replicas, for example 500ms, 5s or 1m
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub timeout: Duration,
    /// Print JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

/// How a request is made and its answer shown.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Request")]
pub struct Asking {
    /// Answer when f + 1 replicas agree: never lost, but its place may still change
    #[arg(long, conflicts_with_all = ["strong", "final_"])]
    pub weak: bool,
    /// Answer when it is final and linearizable (the default)
    #[arg(long, conflicts_with = "final_")]
    pub strong: bool,
    /// Ask weakly, then wait for the final result
    #[arg(long = "final")]
    pub final_: bool,
    /// Save the receipt of the answer in this file
    #[arg(long, value_name = "FILE")]
    pub receipt: Option<PathBuf>,
    /// Keys and values on the command line are base64, and so are those printed
    #[arg(long)]
    pub base64: bool,
    /// Print exactly the value's bytes, without a newline
    #[arg(long, conflicts_with_all = ["json", "base64"])]
    pub raw: bool,
    #[command(flatten)]
    pub access: Access,
}

/// A key alone.
#[derive(Debug, Args)]
pub struct OneKey {
    #[arg(value_name = "KEY", allow_negative_numbers = true)]
    pub name: String,
    #[command(flatten)]
    pub asking: Asking,
}

/// A key and a value.
#[derive(Debug, Args)]
pub struct KeyValue {
    #[arg(value_name = "KEY", allow_negative_numbers = true)]
    pub name: String,
    /// The value; `-` reads it from stdin
    #[arg(value_name = "VALUE", allow_negative_numbers = true)]
    pub value: String,
    #[command(flatten)]
    pub asking: Asking,
}

/// A set and a member.
#[derive(Debug, Args)]
pub struct Member {
    #[arg(value_name = "KEY", allow_negative_numbers = true)]
    pub name: String,
    /// The member; `-` reads it from stdin
    #[arg(value_name = "MEMBER", allow_negative_numbers = true)]
    pub member: String,
    #[command(flatten)]
    pub asking: Asking,
}

/// `elea cas`
#[derive(Debug, Args)]
pub struct Cas {
    #[arg(value_name = "KEY", allow_negative_numbers = true)]
    pub name: String,
    /// EXPECTED and NEW; with --absent NEW alone. `-` reads NEW from stdin
    #[arg(value_name = "VALUES", num_args = 1..=2, required = true, allow_negative_numbers = true)]
    pub values: Vec<String>,
    /// Expect that the key is absent
    #[arg(long)]
    pub absent: bool,
    #[command(flatten)]
    pub asking: Asking,
}

/// `elea incr`
#[derive(Debug, Args)]
pub struct Incr {
    #[arg(value_name = "KEY", allow_negative_numbers = true)]
    pub name: String,
    /// What to add; may be negative
    #[arg(value_name = "BY", default_value_t = 1, allow_negative_numbers = true)]
    pub by: i64,
    #[command(flatten)]
    pub asking: Asking,
}

/// `elea scan`
#[derive(Debug, Args)]
pub struct Scan {
    /// Only keys that begin so
    #[arg(long, default_value = "", hide_default_value = true, conflicts_with = "to")]
    pub prefix: String,
    /// Only keys from this one on
    #[arg(long)]
    pub from: Option<String>,
    /// Only keys before this one
    #[arg(long)]
    pub to: Option<String>,
    /// At most so many; all, if not given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    #[command(flatten)]
    pub asking: Asking,
}

/// `elea txn`
#[derive(Debug, Args)]
pub struct Txn {
    /// What must hold; may be given several times
    #[arg(long, value_name = "COMPARISON", allow_hyphen_values = true)]
    pub compare: Vec<String>,
    /// What to do if everything holds; may be given several times
    #[arg(long = "then", value_name = "OPERATION")]
    pub then: Vec<String>,
    /// What to do otherwise; may be given several times
    #[arg(long = "else", value_name = "OPERATION")]
    pub otherwise: Vec<String>,
    #[command(flatten)]
    pub asking: Asking,
}

/// `elea status`, `elea evidence`
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    pub access: Access,
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
    #[arg(long, env = "ELEA_CLUSTER", value_name = "FILE")]
    pub cluster: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Reads `500ms`, `5s`, `1.5s`, `2m`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let help = || format!("`{text}` is no duration: write for example 500ms, 5s or 1m");
    let split = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| help())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(help()),
    };
    if !(0.001..=86_400.0).contains(&seconds) {
        return Err(format!("`{text}` is out of range: 1ms to 24h"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, millis) in
            [("500ms", 500), ("5s", 5000), ("5", 5000), ("1.5s", 1500), ("2m", 120_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-1s", "0", "1d", "1.2.3s", "99999h", "NaN", "1e3", "5 s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn negative_numbers_are_values_and_levels_exclude_each_other() {
        let parse = |words: &[&str]| Cli::try_parse_from(words);
        assert!(parse(&["elea", "incr", "stock", "-1", "--weak"]).is_ok());
        assert!(parse(&["elea", "put", "k", "-5"]).is_ok());
        assert!(parse(&["elea", "put", "k", "-"]).is_ok());
        assert!(parse(&["elea", "get", "k", "--weak", "--final"]).is_err());
        assert!(parse(&["elea", "get", "k", "--weak", "--strong"]).is_err());
    }
}
