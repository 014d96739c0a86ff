//! How long clients wait for an answer after their primary was killed, and after it was not.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use elea_client::{Client, Strong, Weak};
use elea_fault_injection::violation::{Violation, demand};
use elea_kv::Put;
use elea_protocol::message::Transport;
use serde_json::{Value as Json, json};

use crate::fleet::{Fleet, Plan, harness};
use crate::verify;
use crate::workload;

/// How long the cluster serves in peace before a primary is killed, so that it knows how fast it is.
const PEACE: Duration = Duration::from_secs(5);

/// Between two writes in that time.
const PAUSE: Duration = Duration::from_millis(20);

/// What to do.
#[derive(Clone, Debug)]
pub struct Order {
    /// The program under test.
    pub elea: PathBuf,
    /// How all speak to each other.
    pub transport: Transport,
    /// How many primaries are killed.
    pub rounds: u32,
    /// How many replicas.
    pub replicas: u8,
}

/// Kills one primary after the other. Answers how long the next weak and the next strong write took.
///
/// # Errors
/// A write is never answered, or a replica does not come back.
pub async fn run(order: &Order) -> Result<Json, Violation> {
    let plan = Plan::simple(&order.elea, order.replicas, 1, order.transport);
    let mut fleet = Fleet::started(&plan).await?;
    let client = workload::client(&fleet, 0).await?.with_timeout(Duration::from_secs(30));
    let (mut weak, mut strong, mut usual) = (Vec::new(), Vec::new(), Vec::new());
    let mut views = 0;
    for _ in 0..order.rounds {
        peace(&client, &mut usual).await?;
        let status = verify::agreement(&client).await?;
        fleet.kill(&[status.primary]).await?;
        let begin = Instant::now();
        let answers =
            tokio::join!(async { put_weakly(&client).await.map(|()| begin.elapsed()) }, async {
                put(&client).await.map(|()| begin.elapsed())
            },);
        weak.push(answers.0?);
        strong.push(answers.1?);
        fleet.start(&[status.primary]).await?;
        views = verify::agreement(&client).await?.view.0;
    }
    let for_nothing = views.saturating_sub(u64::from(order.rounds));
    demand(views >= u64::from(order.rounds), "failover", || {
        format!("{} primaries were killed, and the view is {views}", order.rounds)
    })?;
    Ok(json!({
        "verdict": "sound",
        "transport": order.transport.name(),
        "replicas": order.replicas,
        "rounds": order.rounds,
        "usual_strong_ms": summary(&mut usual),
        "weak_ms": summary(&mut weak),
        "strong_ms": summary(&mut strong),
        "views_for_nothing": for_nothing,
    }))
}

async fn peace(client: &Client, usual: &mut Vec<Duration>) -> Result<(), Violation> {
    let begin = Instant::now();
    while begin.elapsed() < PEACE {
        let asked = Instant::now();
        put(client).await?;
        usual.push(asked.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn put(client: &Client) -> Result<(), Violation> {
    let Strong { .. } = client.strong(Put::new("strong", "v")).await.map_err(unanswered)?;
    Ok(())
}

async fn put_weakly(client: &Client) -> Result<(), Violation> {
    let Weak { .. } = client.weak(Put::new("weak", "v")).await.map_err(unanswered)?;
    Ok(())
}

fn unanswered(error: elea_client::Error) -> Violation {
    harness("a write")(std::io::Error::other(error))
}

/// The median and the extremes, in ms.
fn summary(times: &mut [Duration]) -> Json {
    times.sort_unstable();
    let millis = |time: Option<&Duration>| time.map(|time| time.as_secs_f64() * 1000.0);
    json!({
        "least": millis(times.first()),
        "median": millis(times.get(times.len() / 2)),
        "most": millis(times.last()),
    })
}
