//! What is asked of a cluster that serves: the books, and that all replicas agree.

use std::time::{Duration, Instant};

use elea_client::{Client, Command, Error, Outcome};
use elea_fault_injection::violation::{Violation, demand};
use elea_kv::{Get, Members, Refused};
use elea_protocol::message::{NodeStatus, Position};

use crate::fleet::PATIENCE;
use crate::ledger::{Contents, Found, Kind, Ledger, Owed};
use crate::recorder::Recorder;
use crate::shared::Shared;

/// A pause between two questions of how replicas are.
const LOOK: Duration = Duration::from_millis(50);

/// Reads strongly, as often as it takes.
async fn read<C, T>(client: &Client, shared: &Shared, command: C) -> Result<T, Violation>
where
    C: Command<Output = Result<T, Refused>> + Clone,
{
    let begin = Instant::now();
    loop {
        match client.strong(command.clone()).await {
            Ok(strong) => {
                shared.is_final(&strong.receipt);
                let refused = |why| Violation::new("refused", format!("a read: {why}"));
                return strong.result.map_err(refused);
            }
            Err(Error::NotEnoughReplicas(_) | Error::ResultForgotten | Error::QueueFull)
                if begin.elapsed() < PATIENCE => {}
            Err(error) if error.outcome() == Outcome::Unknown && begin.elapsed() < PATIENCE => {}
            Err(error) => return Err(Violation::new("liveness", format!("a read: {error}"))),
        }
    }
}

async fn contents(client: &Client, shared: &Shared, owed: &Owed) -> Result<Contents, Violation> {
    let key = owed.name.key();
    if owed.name.0 == Kind::Set {
        let list = read(client, shared, Members::new(key)).await?;
        let text = |member: &bytes::Bytes| String::from_utf8_lossy(member).into_owned();
        return Ok(Contents::Entries(list.members.iter().map(text).collect()));
    }
    let found = read(client, shared, Get::new(key.clone())).await?;
    let text =
        found.map_or(String::new(), |found| String::from_utf8_lossy(&found.value).into_owned());
    if owed.name.0 == Kind::Log {
        return Ok(Contents::Entries(text.split_whitespace().map(str::to_owned).collect()));
    }
    let sum = if text.is_empty() { Ok(0) } else { text.parse() };
    let strange = |_| Violation::new("unasked", format!("{key} holds {text:?} and no number"));
    sum.map(Contents::Sum).map_err(strange)
}

/// Reads these books, several at a time, and holds them against what is owed. Answers with how
/// many were read, and how many weak writes are still awaited.
///
/// # Errors
/// As [`Ledger::look`], and `liveness` where the cluster does not answer.
pub async fn books(
    client: &Client,
    shared: &Shared,
    owed: &[Owed],
    is_last: bool,
) -> Result<(usize, usize), Violation> {
    let ledger: &Ledger = &shared.ledger;
    let mut awaited = 0;
    for some in owed.chunks(64) {
        let looks = some.iter().map(|owed| async move {
            let found = contents(client, shared, owed).await?;
            ledger.look(owed, &found, is_last)
        });
        for found in futures::future::join_all(looks).await {
            if let Found::Awaited(missing) = found? {
                awaited += missing;
            }
        }
    }
    Ok((owed.len(), awaited))
}

/// Asks all replicas how they are, for the recorder to hear it.
pub async fn ask_around(client: &Client) {
    client.with_timeout(Duration::from_secs(2)).status().await;
}

/// Waits until all replicas have one history and one state, and hold no proof against anybody.
///
/// # Errors
/// `agreement`: they never do. `honest`: one of them accuses another.
pub async fn agreement(client: &Client) -> Result<NodeStatus, Violation> {
    let begin = Instant::now();
    let client = client.with_timeout(Duration::from_secs(2));
    loop {
        let all = client.status().await;
        let good: Vec<_> = all.iter().filter_map(|(_, said)| said.as_ref().ok()).collect();
        for status in &good {
            demand(status.evidence == 0, "honest", || {
                String::from("a replica holds a proof that another one misbehaved")
            })?;
        }
        if let Some(first) = good.first() {
            let same =
                |status: &&NodeStatus| (status.head, status.state) == (first.head, first.state);
            if good.len() == all.len() && good.iter().all(same) {
                return Ok((**first).clone());
            }
        }
        if begin.elapsed() > PATIENCE {
            let places: Vec<String> = all
                .iter()
                .map(|(id, said)| match said {
                    Ok(status) => format!(
                        "{id} is at {} in {} with state {}",
                        status.head.slot, status.view, status.state
                    ),
                    Err(why) => format!("{id}: {why}"),
                })
                .collect();
            return Err(Violation::new("agreement", places.join("; ")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Holds every final answer against the history that all replicas agree on. Answers with how many
/// were compared.
///
/// # Errors
/// I2: one lies on another history.
pub async fn finals(
    recorder: &Recorder,
    shared: &Shared,
    end: Position,
) -> Result<usize, Violation> {
    let history = recorder.history(end).await?;
    shared.ledger.lies_on(|slot| history.get(&slot).copied())
}
