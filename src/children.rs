//! Replicas as child processes: started from this very binary, watched until they are ready, and
//! stopped by their own process id, never by a name.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use elea_processes::process::{Process, Said};
use elea_processes::replica::{LISTENING, Place, READY, attach};
use elea_protocol::id::ReplicaId;
use elea_protocol::message::Transport;
use tokio::time::timeout;

use crate::failure::Failure;

/// How long a replica may take to start; it may have much to read from its disk.
const START_WAIT: Duration = Duration::from_secs(60);

/// How long a replica may take to drain before it is killed.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// A running replica. Dropping it kills it: no way out of a command leaves one behind.
#[derive(Debug)]
pub struct Replica {
    id: ReplicaId,
    process: Process,
    /// What it says; `None` once that was read to where it is ready.
    said: Option<Said>,
    log: PathBuf,
    /// Where this run's words begin in the log, which earlier runs may have written to.
    log_start: u64,
}

impl Replica {
    /// Starts a replica without waiting for it.
    pub fn spawn(
        id: ReplicaId,
        place: &Place,
        transport: Transport,
        log: PathBuf,
    ) -> Result<Self, Failure> {
        let failed = |what: &str, error: std::io::Error| {
            Failure::usage(format!("replica {} cannot be started: {what} ({error})", id.0))
        };
        let program = std::env::current_exe().map_err(|error| failed("no program", error))?;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|error| failed(&format!("its log {}", log.display()), error))?;
        let log_start = file.metadata().map(|metadata| metadata.len()).unwrap_or_default();
        let mut command = place.command(Command::new(program));
        command.args(["--transport", transport.name()]);
        // Ctrl-C goes to the whole group of the terminal. The replicas must be stopped by
        // their parent, which waits for them, and not each on its own.
        attach(&mut command).stdout(Stdio::piped()).process_group(0);
        let mut process =
            Process::start(command, file).map_err(|error| failed("the process", error))?;
        Ok(Self { id, said: process.said(), process, log, log_start })
    }

    /// Which replica it is.
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Waits until it says that it has started; it may still be alone.
    pub async fn started(&mut self) -> Result<(), Failure> {
        self.says(LISTENING).await
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&mut self) -> Result<(), Failure> {
        self.says(READY).await?;
        self.said = None;
        Ok(())
    }

    /// Waits for a line that begins so.
    async fn says(&mut self, word: &str) -> Result<(), Failure> {
        let Some(lines) = &mut self.said else { return Ok(()) };
        let said = timeout(START_WAIT, async {
            while let Ok(Some(line)) = lines.next_line().await {
                if line.starts_with(word) {
                    return true;
                }
            }
            false
        });
        match said.await {
            Ok(true) => Ok(()),
            Ok(false) => {
                // It closed its stdout: it is about to end and has said why.
                let status =
                    timeout(STOP_WAIT, self.process.ended()).await.ok().and_then(Result::ok);
                Err(self.death(status))
            }
            Err(_) => Err(Failure::unavailable(format!(
                "replica {} did not say `{word}` within {} seconds: see {}",
                self.id.0,
                START_WAIT.as_secs(),
                self.log.display()
            ))),
        }
    }

    /// Waits until it ends by itself, which it should not.
    pub async fn died(&mut self) -> Failure {
        let status = self.process.ended().await.ok();
        self.death(status)
    }

    /// Asks it to drain and stop, waits, and kills it if it does not.
    pub async fn stop(&mut self) -> Result<(), Failure> {
        match self.process.stop(STOP_WAIT).await {
            Some(Ok(status)) if status.success() => Ok(()),
            Some(status) => Err(self.death(status.ok())),
            None => Err(Failure::unavailable(format!(
                "replica {} did not stop within {} seconds and was killed: nothing is lost, see {}",
                self.id.0,
                STOP_WAIT.as_secs(),
                self.log.display()
            ))),
        }
    }

    /// Ends it at once, as a crash would.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    fn death(&self, status: Option<ExitStatus>) -> Failure {
        let how = status.map_or_else(|| String::from("stopped"), |status| status.to_string());
        let why = last_line(&self.log, self.log_start)
            .unwrap_or_else(|| format!("it said nothing, see {}", self.log.display()));
        Failure::usage(format!("replica {} ended ({how}): {why}", self.id.0))
    }
}

/// The sentence by which a replica ended; the last line it wrote, where there is none.
fn last_line(log: &Path, from: u64) -> Option<String> {
    const TAIL: u64 = 8192;
    let mut file = File::open(log).ok()?;
    let end = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(from.max(end.saturating_sub(TAIL)))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().find_map(|line| line.strip_prefix("elea: "));
    line.or_else(|| text.lines().rev().map(str::trim).find(|line| !line.is_empty()))
        .map(str::to_owned)
}

/// Stops all of them, at the same time, and tells of those that did not stop as they should.
pub async fn stop_all(replicas: Vec<Replica>) -> Vec<Failure> {
    let stops = replicas.into_iter().map(|mut replica| async move { replica.stop().await.err() });
    futures::future::join_all(stops).await.into_iter().flatten().collect()
}

/// Starts these replicas, each at its place and with its log, at the same time and waits until all are ready.
/// If one is not, the others are stopped again.
pub async fn start_all(
    places: impl IntoIterator<Item = (ReplicaId, Place, PathBuf)>,
) -> Result<Vec<Replica>, Failure> {
    let mut replicas = Vec::new();
    for (id, place, log) in places {
        match Replica::spawn(id, &place, Transport::Encrypted, log) {
            Ok(replica) => replicas.push(replica),
            Err(failure) => {
                stop_all(replicas).await;
                return Err(failure);
            }
        }
    }
    let ready = futures::future::try_join_all(replicas.iter_mut().map(Replica::ready)).await;
    match ready {
        Ok(_) => Ok(replicas),
        Err(failure) => {
            stop_all(replicas).await;
            Err(failure)
        }
    }
}
