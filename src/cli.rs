//! The command line: what can be said, with an example for each command.
//!
//! The names, options and exit codes are a contract; `docs/operations.md` describes them.

mod access;
mod data;
mod duration;
mod files;
mod looking;
mod running;
mod transport;

use clap::{Parser, Subcommand};

pub use self::access::Access;
pub use self::data::{Asking, Cas, Incr, KeyValue, Member, OneKey, Scan, Txn};
pub use self::files::{
    Backup, Completions, ConfigAction, ConfigCheck, ConfigCommand, Init, KeyAction, KeyCommand,
    KeyFile, KeyShow, ReceiptAction, ReceiptCommand, Restore, Verify,
};
pub use self::looking::{Bench, BenchLevel, Health, Status, Top};
pub use self::running::{Demo, Replica, Up};

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
    /// Write the certified state of the cluster to a file
    #[command(
        after_help = "Example: elea backup --out town.backup\nIt asks the running replicas, and believes none of them: \
        everything that they give is checked\nagainst what a strong quorum certified. Whatever was final when it began is in \
        the file.\n\nWith --data town/replica-3.data it reads the folder of a replica that was stopped, and asks \
        nobody.\nWhat that one heard of after the last checkpoint is not in the file; the line says up to which\nslot it goes."
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
    /// Watch the replicas: their histories, and what happens to them
    #[command(
        after_help = "Examples: elea top\n          elea top --web\n          elea top --once --width 120\nWhat it shows \
        is what the replicas say, signed, to this machine; proofs are checked here. q quits. With --json it\nprints an object \
        for each look. With --web it prints the page's address, and asks the replicas while somebody looks."
    )]
    Top(Top),
    /// Ask one replica's admin listener whether the replica is well
    #[command(
        after_help = "Example: elea health --ready\nPrints nothing and exits with 0 if it is well; says why not, and \
        exits with 3, if it is not.\nIt is for the machine that the replica runs on, with `elea replica --admin`."
    )]
    Health(Health),
    /// Put load on the cluster and report throughput and latency
    #[command(
        after_help = "Example: elea bench --clients 4 --pipeline 32 --seconds 10 --level weak\n\
        Counts only answers that a quorum of replicas signed. Writes keys `bench/…`."
    )]
    Bench(Bench),
    /// Check receipts
    Receipt(ReceiptCommand),
    /// Check cluster files
    Config(ConfigCommand),
    /// Make keys, and print what a cluster file says of them
    Key(KeyCommand),
    /// Print what completes these commands in a shell
    #[command(after_help = "Example: elea completions bash > /etc/bash_completion.d/elea")]
    Completions(Completions),
    /// List the proofs of misbehaviour that replicas hold; exit code 4 if there are any
    #[command(
        after_help = "Example: elea evidence || echo 'somebody lies'\nPrints one line for each \
        thing that is proven: who, what, in which view, and which replicas hold\nthe proof. \
        Proofs are checked here, with the cluster file: no replica can slander another."
    )]
    Evidence(Status),
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
    fn negative_numbers_are_values_and_levels_exclude_each_other() {
        let parse = |words: &[&str]| Cli::try_parse_from(words);
        assert!(parse(&["elea", "incr", "stock", "-1", "--weak"]).is_ok());
        assert!(parse(&["elea", "put", "k", "-5"]).is_ok());
        assert!(parse(&["elea", "put", "k", "-"]).is_ok());
        assert!(parse(&["elea", "get", "k", "--weak", "--final"]).is_err());
        assert!(parse(&["elea", "get", "k", "--weak", "--strong"]).is_err());
    }
}
