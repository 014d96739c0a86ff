//! `elea up`: all replicas of a directory as processes of this machine.

use elea_protocol::quorum::Strength;
use futures::FutureExt;
use tokio::signal::unix::{SignalKind, signal};

use crate::children::{Place, Process, start_all, stop_all};
use crate::cli::Up;
use crate::failure::{Failure, Outcome};
use crate::files;
use crate::output;

/// Runs until Ctrl-C or SIGTERM. A replica that dies meanwhile is told of and not started again.
pub async fn run(args: &Up) -> Outcome {
    let file = files::load_cluster(&args.dir.join("cluster.toml"))?;
    let size = file.membership.size();
    // Before the first child: a signal from now on is one to stop by.
    let mut stopping = Stopping::listen()?;
    let places = size.members().map(|id| (id, Place::of(&args.dir, id)));
    let mut processes = tokio::select! {
        biased;
        () = stopping.wait() => return Ok(()),
        started = start_all(places) => started?,
    };
    output::line(&format!(
        "ready: {} replicas of `{}` at {}; a weak answer needs {}, a strong one {}; Ctrl-C stops \
         them",
        size.replicas(),
        file.membership.name(),
        file.addresses.join(", "),
        size.quorum(Strength::Weak),
        size.quorum(Strength::Strong),
    ));
    loop {
        let death = tokio::select! {
            biased;
            () = stopping.wait() => None,
            death = first_death(&mut processes) => Some(death),
        };
        let Some((index, failure)) = death else { break };
        eprintln!("elea: {failure}");
        processes.remove(index);
        if processes.is_empty() {
            return Err(Failure::unavailable("no replica runs any more"));
        }
    }
    let failures = stop_all(processes).await;
    failures.into_iter().next().map_or(Ok(()), Err)
}

async fn first_death(processes: &mut [Process]) -> (usize, Failure) {
    let deaths = processes.iter_mut().map(|process| process.died().boxed());
    let (failure, index, _) = futures::future::select_all(deaths).await;
    (index, failure)
}

/// Ctrl-C and SIGTERM.
pub struct Stopping {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stopping {
    /// From now on the signals no longer end this process by themselves.
    pub fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|e| Failure::usage(format!("signals cannot be caught ({e})")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// The next of them.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
