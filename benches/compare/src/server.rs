//! A member of a cluster as a process.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use elea_processes::ports;
use elea_processes::process::{Process, signal};
use rustix::process::Signal;

use crate::Outcome;
use crate::machine;

/// How long a member may take to stop.
const STOP: Duration = Duration::from_secs(10);

/// A running member; dropped, it is killed.
#[derive(Debug)]
pub struct Server {
    process: Process,
}

/// What can be done with a member from anywhere, as long as its process has not been waited for.
#[derive(Clone, Debug)]
pub struct Handle(Option<u32>);

/// Ports that nobody listens at just now.
pub fn free_ports(count: usize) -> Outcome<Vec<u16>> {
    Ok(ports::free(u16::try_from(count)?).ok_or("no free ports")?.collect())
}

impl Server {
    /// Starts a member that says what it has to say into this file.
    pub fn start(mut command: Command, log: &Path) -> Outcome<Self> {
        let log = File::create(log)?;
        command.stdout(log.try_clone()?);
        let program = command.get_program().to_string_lossy().into_owned();
        let process = Process::start(command, log)
            .map_err(|error| format!("{program} cannot be started: {error}"))?;
        Ok(Self { process })
    }

    /// What anybody may do with it.
    pub fn handle(&self) -> Handle {
        Handle(self.process.pid())
    }

    /// Asks it to stop, and kills it where it does not.
    pub async fn stop(mut self) {
        // How it ends is of no interest any more.
        let _ = self.process.stop(STOP).await;
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
        self.0.map(machine::cpu_of).unwrap_or_default()
    }

    fn signal(&self, which: Signal) {
        if let Some(pid) = self.0 {
            signal(pid, which);
        }
    }
}
