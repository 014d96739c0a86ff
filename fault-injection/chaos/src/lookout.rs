//! What all replicas say of themselves, twice a second, in a file: for whoever looks for the cause of
//! something. Whoever asks reaches every replica that runs, whatever is wrong between others.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use elea_fault_injection::violation::Violation;
use elea_processes::frames::{frame, message};
use elea_protocol::id::ReplicaId;
use elea_protocol::message::{NodeStatus, ToClient, ToReplica};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::fleet::{Fleet, harness};
use crate::raw::Guest;
use crate::shared::Shared;

/// Between two questions.
const EVERY: Duration = Duration::from_millis(500);

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

const HEAD: &str = "seconds,replica,answered_ms,view,primary,campaign,head,lock,stable,pending,sessions,disk,notes";

/// Begins to look. It ends when what comes back is dropped.
///
/// # Errors
/// The file cannot be written.
pub fn begin(
    fleet: &Fleet,
    client: usize,
    shared: &Arc<Shared>,
    file: &Path,
) -> Result<JoinSet<()>, Violation> {
    let mut file = File::create(file).map_err(harness("status.csv"))?;
    writeln!(file, "{HEAD}").map_err(harness("status.csv"))?;
    let (file, guest) = (Arc::new(Mutex::new(file)), fleet.guest(client)?);
    let mut all = JoinSet::new();
    for id in fleet.ids() {
        let look =
            Look { id, guest: guest.clone(), shared: Arc::clone(shared), file: Arc::clone(&file) };
        all.spawn(look.run());
    }
    Ok(all)
}

struct Look {
    id: ReplicaId,
    guest: Guest,
    shared: Arc<Shared>,
    file: Arc<Mutex<File>>,
}

impl Look {
    async fn run(self) {
        loop {
            // It does not answer: it is down, or should be.
            if let Err(why) = self.ask().await {
                self.write(&format!(",,,,,,,,,,{}", why.to_string().replace(',', ";")));
            }
            sleep(EVERY).await;
        }
    }

    async fn ask(&self) -> io::Result<()> {
        let mut connection = self.guest.greeted(self.id).await?;
        loop {
            let begin = Instant::now();
            let asked = async {
                connection.write_all(&frame(&ToReplica::AskStatus(0))?).await?;
                connection.flush().await?;
                loop {
                    if let ToClient::Status(status) = message(&mut connection).await? {
                        return Ok::<_, io::Error>(status);
                    }
                }
            };
            let status = timeout(PATIENCE, asked).await??;
            self.write(&line(begin.elapsed(), &status.body));
            sleep(EVERY).await;
        }
    }

    fn write(&self, line: &str) {
        let seconds = self.shared.meter.elapsed().as_secs_f64();
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // It is only for people.
        let _ = writeln!(file, "{seconds:.1},{},{line}", self.id);
    }
}

fn line(took: Duration, status: &NodeStatus) -> String {
    let mut notes = Vec::new();
    if status.quarantined {
        notes.push(String::from("quarantined"));
    }
    if let Some(transfer) = &status.transfer {
        notes.push(format!("{transfer:?}"));
    }
    if !status.divergent.is_empty() {
        let names: Vec<String> = status.divergent.iter().map(ToString::to_string).collect();
        notes.push(format!("diverges from {}", names.join(" ")));
    }
    let lock =
        status.lock.map_or_else(String::new, |(view, at)| format!("{}/{}", view.0, at.slot.0));
    format!(
        "{},{},{},{},{},{lock},{},{},{},{:?},{}",
        took.as_millis(),
        status.view.0,
        status.primary,
        status.campaign.map_or_else(String::new, |view| view.0.to_string()),
        status.head.slot.0,
        status.stable.0,
        status.pending,
        status.sessions,
        status.disk,
        notes.join("; ")
    )
    .replace('\n', " ")
}
