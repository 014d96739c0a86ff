//! The commands, and what several of them need.

pub mod backup;
pub mod bench;
pub mod config;
pub mod data;
pub mod demo;
pub mod evidence;
pub mod health;
pub mod init;
pub mod key;
pub mod receipt;
pub mod replica;
pub mod status;
pub mod top;
pub mod up;

use std::num::NonZero;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};
use clap_complete::Shell;
use elea_client::Options;
use elea_client::sessions::SessionFile;
use elea_protocol::cluster_file::ClusterFile;
use tokio::runtime::Runtime;

use crate::cli::{Access, Cli, Command};
use crate::cluster::Cluster;
use crate::failure::{Failure, Kind, Outcome};
use crate::files;

/// Reads the command line, runs the command, and tells how it went.
pub fn main() -> ExitCode {
    // Known before the command line is understood, so that a program that asked for JSON gets it
    // for its own mistakes, too.
    let json = std::env::args_os().any(|word| word == "--json");
    let outcome = match Cli::try_parse() {
        Ok(cli) => run(cli.command),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                // A closed stdout is nobody's mistake.
                let _ = error.print();
                Ok(())
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                let _ = error.print();
                return ExitCode::from(Kind::Usage.code());
            }
            _ => Err(Failure::usage(sentence(&error))),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(json);
            ExitCode::from(failure.kind.code())
        }
    }
}

/// clap's paragraph as one sentence; `--help` has the rest.
fn sentence(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let parts: Vec<_> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect();
    let text = parts.join(" ");
    format!("{}; see --help", text.strip_prefix("error: ").unwrap_or(&text))
}

fn run(command: Command) -> Outcome {
    // The folder of a new cluster is its owner's to open to others; its keys are closed by themselves.
    if !matches!(command, Command::Init(_)) {
        files::keep_private();
    }
    if let Some((operation, asking)) = data::operation(&command) {
        return on_one_thread(data::run(operation, asking));
    }
    match command {
        Command::Demo(args) => on_one_thread(demo::run(&args)),
        Command::Init(args) => init::run(&args),
        Command::Up(args) => on_one_thread(up::run(&args)),
        Command::Replica(args) => on_all_threads(replica::run(&args)),
        Command::Backup(args) => on_one_thread(backup::backup(&args)),
        Command::Restore(args) => backup::restore(&args),
        Command::Scan(args) => on_one_thread(data::scan(&args)),
        Command::Status(args) => on_one_thread(status::run(&args)),
        Command::Top(args) => on_one_thread(top::run(&args)),
        Command::Health(args) => on_one_thread(health::run(&args)),
        Command::Evidence(args) => on_one_thread(evidence::run(&args)),
        Command::Bench(args) => on_all_threads(bench::run(&args)),
        Command::Receipt(args) => receipt::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Key(args) => key::run(&args),
        Command::Completions(args) => completions(args.shell),
        _ => unreachable!("every other command is an operation on data"),
    }
}

/// Writes what completes the commands in a shell to stdout.
fn completions(shell: Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "elea", &mut script);
    crate::output::bytes(&script);
    Ok(())
}

/// Runs a command that mostly waits. One-shot commands are to be cheap: a second thread would cost
/// more than it does.
fn on_one_thread(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| Failure::usage(format!("the system gives no event loop ({error})")))?;
    finish(runtime, command)
}

/// Runs a command that has work for every core. One core is left to threads that it has beside these: with as many
/// of these as cores, whatever comes wakes one more than there is work for. On two cores, which four replicas
/// shared, one client waited a fifth longer for each answer.
fn on_all_threads(command: impl Future<Output = Outcome>) -> Outcome {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.saturating_sub(1).max(1))
        .enable_all()
        .build();
    let runtime = runtime
        .map_err(|error| Failure::usage(format!("the system gives no threads ({error})")))?;
    finish(runtime, command)
}

/// What a command has begun and nobody waits for may take so long to end.
const AFTERWARDS: Duration = Duration::from_millis(250);

/// A question to a name service that does not answer cannot be interrupted: without a bound the program would end many
/// seconds after its command.
fn finish(runtime: Runtime, command: impl Future<Output = Outcome>) -> Outcome {
    let outcome = runtime.block_on(command);
    runtime.shutdown_timeout(AFTERWARDS);
    outcome
}

/// The cluster file that was named, or a word on how to name one.
pub fn cluster(path: Option<&Path>) -> Result<ClusterFile, Failure> {
    let path = path.ok_or_else(|| {
        Failure::usage("which cluster? Name its file with --cluster FILE or ELEA_CLUSTER")
    })?;
    files::load_cluster(path)
}

/// A client of the cluster, with the key and the session file that were named.
pub async fn connect(file: &ClusterFile, access: &Access) -> Result<Cluster, Failure> {
    connect_apart(file, access, false).await
}

/// The same, with connections of its own if that is wanted.
pub async fn connect_apart(
    file: &ClusterFile,
    access: &Access,
    own_connections: bool,
) -> Result<Cluster, Failure> {
    let path = access
        .key_file
        .as_deref()
        .ok_or_else(|| Failure::usage("which key? Name its file with --key FILE or ELEA_KEY"))?;
    let key = files::load_key(path, files::readers(path, access.group_key))?;
    let genesis = file.membership.genesis();
    let sessions = match access.sessions.as_deref() {
        Some(none) if none == Path::new("none") => None,
        Some(named) => Some(SessionFile::at(named.to_owned(), genesis)),
        None => match SessionFile::beside(path, genesis) {
            Err(error) if error.is_read_only() => None,
            beside => Some(beside),
        },
    };
    let sessions = sessions.transpose().map_err(|error| Failure::usage(error.to_string()))?;
    let sessions = sessions.map(Arc::new);
    let transport = access.transport;
    let options = Options { sessions, own_connections, transport, ..Options::default() };
    Cluster::open(file, key, options).await
}
