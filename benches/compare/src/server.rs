//! A member of a cluster as a process.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use crate::Outcome;
use crate::machine;

/// How long a member may take to stop.
const STOP: Duration = Duration::from_secs(10);

/// A running member; dropped, it is killed.
#[derive(Debug)]
pub struct Server {
    child: Child,
    // A replica of Elea ends with it.
    _stdin: Option<ChildStdin>,
    handle: Handle,
}

/// What can be done with a member from anywhere, as long as its process has not been waited for.
#[derive(Clone, Debug)]
pub struct Handle(Option<Pid>);

/// Ports that nobody listens at just now; the system gives none of them out twice.
pub fn free_ports(count: usize) -> Outcome<Vec<u16>> {
    let all: Result<Vec<TcpListener>, _> =
        (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect();
    Ok(all?.iter().map(|one| Ok(one.local_addr()?.port())).collect::<std::io::Result<_>>()?)
}

impl Server {
    /// Starts a member that says what it has to say into this file.
    pub fn start(command: &mut Command, log: &Path) -> Outcome<Self> {
        let log = File::create(log)?;
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let mut child =
            command.spawn().map_err(|error| format!("{program} cannot be started: {error}"))?;
        let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        Ok(Self { _stdin: child.stdin.take(), child, handle: Handle(pid) })
    }

    /// What anybody may do with it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Asks it to stop, and kills it where it does not.
    pub async fn stop(mut self) {
        self.handle.signal(Signal::TERM);
        if timeout(STOP, self.child.wait()).await.is_err() {
            // It fails only where it has ended meanwhile.
            let _ = self.child.kill().await;
        }
    }
}

impl Handle {
    /// Has it stand still.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// CPU time that it has used.
    pub fn cpu(&self) -> Duration {
        self.0.map(|pid| machine::cpu_of(pid.as_raw_nonzero().get())).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // It fails only where the process has ended, and then nothing is to be done.
            let _ = kill_process(pid, signal);
        }
    }
}
