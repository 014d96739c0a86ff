//! A process that was started here: it is watched, and ended by its own id, never by a name.

use std::fs::File;
use std::io;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

/// What a process prints, line by line.
pub type Said = Lines<BufReader<ChildStdout>>;

/// See the [module](self). Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Kept out of `child`, which closes it when it is waited for, and so would end an attached replica.
    _stdin: Option<ChildStdin>,
}

impl Process {
    /// Starts it, with stderr in this file.
    ///
    /// # Errors
    /// The system does not start it.
    pub fn start(mut command: Command, log: File) -> io::Result<Self> {
        command.stderr(log);
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
        Ok(Self { _stdin: child.stdin.take(), child })
    }

    /// What it prints, if its stdout is a pipe, for the one who asks first.
    pub fn said(&mut self) -> Option<Said> {
        self.child.stdout.take().map(|stdout| BufReader::new(stdout).lines())
    }

    /// Its process id, until it has been waited for.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, which: Signal) {
        if let Some(pid) = self.pid() {
            signal(pid, which);
        }
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// The system does not know it any more.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks it to stop and waits for its end; `None` if it took longer than this, and was killed.
    pub async fn stop(&mut self, within: Duration) -> Option<io::Result<ExitStatus>> {
        self.signal(Signal::TERM);
        let ended = timeout(within, self.ended()).await.ok();
        if ended.is_none() {
            self.kill().await;
        }
        ended
    }

    /// Ends it at once, as a crash would.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        // It fails only where the process has already been waited for.
        let _ = self.ended().await;
    }
}

/// Sends a signal to a process of ours that nobody has waited for yet, so that its number is no other's.
pub fn signal(pid: u32, which: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It fails only where the process has ended.
        let _ = kill_process(pid, which);
    }
}
