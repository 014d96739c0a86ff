//! `elea up`: all replicas of a directory as processes of this machine.

use std::convert::Infallible;
use std::pin::pin;

use elea_client::Options;
use elea_processes::folder::Folder;
use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::message::Transport;
use elea_protocol::quorum::Strength;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use crate::children::{Replica, stop_all};
use crate::cli::Up;
use crate::cluster::Cluster;
use crate::commands::top;
use crate::failure::{Failure, Kind, Outcome};
use crate::files::{self, Readers};
use crate::output;
use crate::stopping::Stopping;

/// Runs until Ctrl-C or SIGTERM. A replica that does not start, or dies meanwhile, is told of and not
/// started again; the others serve without it, as they would in any other place.
pub async fn run(args: &Up) -> Outcome {
    let folder = Folder::at(&args.dir);
    let file = files::load_cluster(&folder.cluster())?;
    // Before the first child: a signal from now on is one to stop by.
    let mut stopping = Stopping::listen()?;
    let started = tokio::select! {
        biased;
        () = stopping.wait() => return Ok(()),
        started = start(&folder, &file, args.transport) => started?,
    };
    output::line(&started.describe(&file));
    let mut replicas = started.replicas;
    let mut page = pin!(page(args, folder, file));
    loop {
        let death = tokio::select! {
            biased;
            () = stopping.wait() => None,
            death = first_death(&mut replicas) => Some(death),
            never = &mut page => match never {},
        };
        let Some((index, failure)) = death else { break };
        eprintln!("elea: {failure}");
        replicas.remove(index);
        if replicas.is_empty() {
            return Err(Failure::unavailable("no replica runs any more"));
        }
    }
    let failures = stop_all(replicas).await;
    failures.into_iter().next().map_or(Ok(()), Err)
}

/// Serves the page, if one is wanted. Where that cannot be, the replicas run all the same.
async fn page(args: &Up, folder: Folder, file: ClusterFile) -> Infallible {
    if let Some(address) = &args.web
        && let Err(failure) = show(address, &folder, file, args.transport).await
    {
        eprintln!("elea: {failure}");
    }
    std::future::pending().await
}

async fn show(
    address: &str,
    folder: &Folder,
    file: ClusterFile,
    transport: Transport,
) -> Result<Infallible, Failure> {
    let key = files::load_key(&folder.client_key(0), Readers::Owner)?;
    let options = Options { transport, ..Options::default() };
    let cluster = Cluster::open(&file, key, options).await?;
    let page = top::Page::open(address).await?;
    output::line(&format!("page {}", page.url()));
    Ok(top::beside(page, cluster, file).await)
}

/// What could be started.
struct Started {
    replicas: Vec<Replica>,
    /// Whether each of them has met enough others.
    are_ready: bool,
}

/// Starts whatever can be started, and says what cannot. It fails where too few are left for any
/// request.
async fn start(
    folder: &Folder,
    file: &ClusterFile,
    transport: Transport,
) -> Result<Started, Failure> {
    let size = file.membership.size();
    let (mut replicas, mut failures) = (Vec::new(), Vec::new());
    for id in size.members() {
        match Replica::spawn(id, &folder.place(id), transport, folder.log(id)) {
            Ok(replica) => replicas.push(replica),
            Err(failure) => failures.push(failure),
        }
    }
    let said = futures::future::join_all(replicas.iter_mut().map(Replica::started)).await;
    failures.extend(keep_running(&mut replicas, said).await);
    let mut are_ready = false;
    // With fewer nobody says that it is ready, and with a dead one among them perhaps, too.
    while size.suffices(replicas.len(), Strength::Strong) && !are_ready {
        let running = replicas.len();
        let ready = replicas.iter_mut().map(Replica::ready);
        let said = all_or_first_failure(ready).await;
        let failed = keep_running(&mut replicas, said).await;
        are_ready = failed.is_empty();
        failures.extend(failed);
        if running == replicas.len() {
            break;
        }
    }
    if !size.suffices(replicas.len(), Strength::Weak) {
        let left = replicas.len();
        stop_all(replicas).await;
        let why: Vec<_> = failures.iter().map(ToString::to_string).collect();
        return Err(Failure::usage(format!(
            "{left} of {} replicas can run, and it takes {} for anything to be answered: {}",
            size.replicas(),
            size.quorum(Strength::Weak),
            why.join("; ")
        )));
    }
    failures.iter().for_each(|failure| eprintln!("elea: {failure}"));
    Ok(Started { replicas, are_ready })
}

/// Waits until all are done, or one fails; those that are not done then count as if they were.
async fn all_or_first_failure(
    all: impl Iterator<Item = impl Future<Output = Result<(), Failure>>>,
) -> Vec<Result<(), Failure>> {
    let mut results = Vec::new();
    let mut waiting = FuturesUnordered::new();
    for (index, one) in all.enumerate() {
        results.push(Ok(()));
        waiting.push(async move { (index, one.await) });
    }
    while let Some((index, result)) = waiting.next().await {
        let has_failed = result.is_err();
        results[index] = result;
        if has_failed {
            break;
        }
    }
    results
}

/// Ends those that failed, and keeps the others, and those that only take long.
async fn keep_running(replicas: &mut Vec<Replica>, said: Vec<Result<(), Failure>>) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (mut replica, said) in std::mem::take(replicas).into_iter().zip(said) {
        match said {
            Ok(()) => replicas.push(replica),
            Err(failure) => {
                match failure.kind {
                    Kind::Unavailable => replicas.push(replica),
                    _ => replica.kill().await,
                }
                failures.push(failure);
            }
        }
    }
    failures
}

impl Started {
    /// One line that says who runs, and what for.
    fn describe(&self, file: &ClusterFile) -> String {
        let size = file.membership.size();
        let running: Vec<_> = self.replicas.iter().map(Replica::id).collect();
        let count = match running.len() == usize::from(size.replicas()) {
            true => size.replicas().to_string(),
            false => format!("{} of {}", running.len(), size.replicas()),
        };
        let word = if self.are_ready { "ready" } else { "started" };
        let addresses = running.iter().filter_map(|id| file.addresses.get(usize::from(id.0)));
        let addresses: Vec<_> = addresses.map(String::as_str).collect();
        let strong = size.quorum(Strength::Strong);
        let lack = match strong.saturating_sub(running.len()) {
            0 => String::new(),
            lack => format!(
                "; for strong answers, and for the first start of a cluster, {lack} more must run"
            ),
        };
        format!(
            "{word}: {count} replicas of `{}` at {}; a weak answer needs {}, a strong one {strong}{lack}; \
             Ctrl-C stops them",
            file.membership.name(),
            addresses.join(", "),
            size.quorum(Strength::Weak),
        )
    }
}

async fn first_death(replicas: &mut [Replica]) -> (usize, Failure) {
    let deaths = replicas.iter_mut().map(|replica| replica.died().boxed());
    let (failure, index, _) = futures::future::select_all(deaths).await;
    (index, failure)
}
