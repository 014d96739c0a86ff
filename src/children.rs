//! Replicas as child processes: started from this very binary, watched until they are ready, and
//! stopped by their own process id, never by a name.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use elea_protocol::id::ReplicaId;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::failure::Failure;

/// The line on stdout by which a replica says that it takes requests.
pub const READY: &str = "ready";

/// How the line begins by which it says where it listens.
pub const STARTED: &str = "listening";

/// How long a replica may take to start; it may have much to read from its disk.
const START_WAIT: Duration = Duration::from_secs(60);

/// How long a replica may take to drain before it is killed.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// The files of one replica under a directory that `elea init` made.
#[derive(Clone, Debug)]
pub struct Place {
    /// The cluster file.
    pub cluster: PathBuf,
    /// The key file.
    pub key: PathBuf,
    /// The data directory.
    pub data: PathBuf,
    /// Where stderr goes.
    pub log: PathBuf,
}

impl Place {
    /// The places of replica `id` in `dir`.
    pub fn of(dir: &Path, id: ReplicaId) -> Self {
        Self {
            cluster: dir.join("cluster.toml"),
            key: dir.join(format!("replica-{}.key", id.0)),
            data: dir.join(format!("replica-{}.data", id.0)),
            log: dir.join(format!("replica-{}.log", id.0)),
        }
    }
}

/// A running replica. Dropping it kills it: no way out of a command leaves one behind.
#[derive(Debug)]
pub struct Process {
    id: ReplicaId,
    child: Child,
    /// Kept out of `child`, which closes it when it is waited for, and so would end the replica.
    _stdin: Option<ChildStdin>,
    /// What it says; `None` once that was read to where it is ready.
    lines: Option<Lines<BufReader<ChildStdout>>>,
    log: PathBuf,
    /// Where this run's words begin in the log, which earlier runs may have written to.
    log_start: u64,
}

impl Process {
    /// Starts a replica without waiting for it.
    pub fn spawn(id: ReplicaId, place: &Place) -> Result<Self, Failure> {
        let failed = |what: &str, error: std::io::Error| {
            Failure::usage(format!("replica {} cannot be started: {what} ({error})", id.0))
        };
        let program = std::env::current_exe().map_err(|error| failed("no program", error))?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&place.log)
            .map_err(|error| failed(&format!("its log {}", place.log.display()), error))?;
        let log_start = log.metadata().map(|metadata| metadata.len()).unwrap_or_default();
        let mut child = Command::new(program)
            .arg("replica")
            .arg("--cluster")
            .arg(&place.cluster)
            .arg("--key")
            .arg(&place.key)
            .arg("--data")
            .arg(&place.data)
            // Its stdin stays open as long as this process lives: it stops when we are killed.
            .arg("--attached")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C goes to the whole group of the terminal. The replicas must be stopped by
            // their parent, which waits for them, and not each on its own.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed("the process", error))?;
        let _stdin = child.stdin.take();
        let lines = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        Ok(Self { id, child, _stdin, lines, log: place.log.clone(), log_start })
    }

    /// Which replica it is.
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it says that it has started; it may still be alone.
    pub async fn started(&mut self) -> Result<(), Failure> {
        self.says(STARTED).await
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&mut self) -> Result<(), Failure> {
        self.says(READY).await?;
        self.lines = None;
        Ok(())
    }

    /// Waits for a line that begins so.
    async fn says(&mut self, word: &str) -> Result<(), Failure> {
        let Some(lines) = &mut self.lines else { return Ok(()) };
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
                let status = timeout(STOP_WAIT, self.child.wait()).await.ok().and_then(Result::ok);
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
        let status = self.child.wait().await.ok();
        self.death(status)
    }

    /// Asks it to drain and stop, waits, and kills it if it does not.
    pub async fn stop(&mut self) -> Result<(), Failure> {
        self.signal(Signal::TERM);
        match timeout(STOP_WAIT, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(status) => Err(self.death(status.ok())),
            Err(_) => {
                self.kill().await;
                Err(Failure::unavailable(format!(
                    "replica {} did not stop within {} seconds and was killed: nothing is lost, \
                     see {}",
                    self.id.0,
                    STOP_WAIT.as_secs(),
                    self.log.display()
                )))
            }
        }
    }

    /// Ends it at once, as a crash would.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        // It fails only where the process has already been waited for.
        let _ = self.child.wait().await;
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            // It fails only where the process has ended meanwhile; it has not been waited for, so
            // the number cannot be another's.
            let _ = kill_process(pid, signal);
        }
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
pub async fn stop_all(processes: Vec<Process>) -> Vec<Failure> {
    let stops = processes.into_iter().map(|mut process| async move { process.stop().await.err() });
    futures::future::join_all(stops).await.into_iter().flatten().collect()
}

/// Starts these replicas at the same time and waits until all are ready. If one is not, the others
/// are stopped again.
pub async fn start_all(
    places: impl IntoIterator<Item = (ReplicaId, Place)>,
) -> Result<Vec<Process>, Failure> {
    let mut processes = Vec::new();
    for (id, place) in places {
        match Process::spawn(id, &place) {
            Ok(process) => processes.push(process),
            Err(failure) => {
                stop_all(processes).await;
                return Err(failure);
            }
        }
    }
    let ready = futures::future::try_join_all(processes.iter_mut().map(Process::ready)).await;
    match ready {
        Ok(_) => Ok(processes),
        Err(failure) => {
            stop_all(processes).await;
            Err(failure)
        }
    }
}
