//! What is asked of the store.

use std::path::PathBuf;

use clap::Args;

use super::access::Access;

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
    /// Answer from what includes all that was seen with this file before, and note in it what is seen now; it is
    /// made where there is none, and is for one command at a time
    #[arg(long, value_name = "FILE", conflicts_with = "receipt")]
    pub past: Option<PathBuf>,
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
