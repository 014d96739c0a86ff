//! How long answers take a second after something was wrong, and how long they took before.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use elea_client::Client;
use elea_fault_injection::violation::Violation;
use elea_kv::Put;
use elea_protocol::id::ReplicaId;
use elea_protocol::message::Transport;
use serde_json::{Value as Json, json};

use crate::condition::Ill;
use crate::fleet::{Fleet, Plan, harness};
use crate::line::Link;
use crate::tap::Party;
use crate::verify;
use crate::workload;

/// What is compared: the median of the answers that came in this time, before and after.
const MEASURED: Duration = Duration::from_secs(3);

/// How long something is wrong.
const WRONG: Duration = Duration::from_secs(10);

/// How long after that answers may still take longer.
const RECOVERED: Duration = Duration::from_secs(1);

/// Between two writes.
const PAUSE: Duration = Duration::from_millis(5);

/// Bytes of the values that fill slow lines, and so many bytes a second pass on them.
const BULKY: usize = 60_000;
const SLOW_LINE: u64 = 125_000;

/// The time through the network where it is slow, there and as long back.
const FAR: Duration = Duration::from_millis(150);

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// The replicas are in two parts, and neither is strong.
    Split,
    /// Everything takes long.
    Far,
    /// One replica is behind a line that does not carry what the others are told.
    SlowLine,
    /// The primary is killed, and comes back.
    Killed,
    /// All of them, together.
    Storm,
}

const TROUBLES: [(Trouble, &str); 5] = [
    (Trouble::Split, "split"),
    (Trouble::Far, "far"),
    (Trouble::SlowLine, "slow line"),
    (Trouble::Killed, "killed"),
    (Trouble::Storm, "storm"),
];

/// What to do.
#[derive(Clone, Debug)]
pub struct Order {
    /// The program under test.
    pub elea: PathBuf,
    /// How all speak to each other.
    pub transport: Transport,
    /// How often each thing goes wrong.
    pub rounds: u32,
}

/// Lets one thing after the other go wrong, four replicas under a little load, and ends it. Answers by how
/// much longer strong answers take a second later, as medians.
///
/// # Errors
/// A replica does not start, or writes are not answered in peace.
pub async fn run(order: &Order) -> Result<Json, Violation> {
    let plan = Plan::simple(&order.elea, 4, 2, order.transport);
    let mut fleet = Fleet::started(&plan).await?;
    let patient = Duration::from_secs(60);
    let client = workload::client(&fleet, 0).await?.with_timeout(patient);
    let other = workload::client(&fleet, 1).await?.with_timeout(patient);
    measure(&client).await?;
    let mut told = serde_json::Map::new();
    for (trouble, name) in TROUBLES {
        let mut ratios = Vec::new();
        for _ in 0..order.rounds {
            let before = measure(&client).await?;
            let (_, gone) =
                tokio::join!(load(&client, &other), go_wrong(&mut fleet, &client, trouble));
            gone?;
            // The load goes on, as it would.
            let healed = Instant::now();
            while healed.elapsed() < RECOVERED {
                let _ = put(&client).await;
                tokio::time::sleep(PAUSE).await;
            }
            let after = measure(&client).await?;
            ratios.push(after.as_secs_f64() / before.as_secs_f64());
            verify::agreement(&client).await?;
        }
        ratios.sort_unstable_by(f64::total_cmp);
        let median = ratios.get(ratios.len() / 2).copied();
        told.insert(name.to_owned(), json!({ "median": median, "all": ratios }));
    }
    Ok(json!({
        "verdict": "sound",
        "transport": order.transport.name(),
        "rounds": order.rounds,
        "after_to_before": told,
    }))
}

/// Lets something go wrong for a while.
async fn go_wrong(fleet: &mut Fleet, client: &Client, trouble: Trouble) -> Result<(), Violation> {
    let is = |one: Trouble| trouble == one || trouble == Trouble::Storm;
    let mut ills = Vec::new();
    if is(Trouble::Split) {
        let side = |ids: [u8; 2], number| -> BTreeSet<Party> {
            let replicas = ids.into_iter().map(|id| Party::Replica(ReplicaId(id)));
            replicas.chain([Party::Client(number)]).collect()
        };
        ills.push(Ill::Split { sides: [side([0, 1], 0), side([2, 3], 1)], abrupt: false });
    }
    if is(Trouble::Far) {
        ills.push(Ill::Slow { who: None, link: Link { delay: FAR, ..Link::default() } });
    }
    if is(Trouble::SlowLine) {
        let link = Link { bytes_per_second: Some(SLOW_LINE), ..Link::default() };
        ills.push(Ill::Slow { who: Some(Party::Replica(ReplicaId(3))), link });
    }
    let killed = match is(Trouble::Killed) {
        true => Some(verify::agreement(client).await?.primary),
        false => None,
    };
    fleet.network.suffers(&ills);
    if let Some(killed) = killed {
        fleet.kill(&[killed]).await?;
    }
    tokio::time::sleep(WRONG).await;
    fleet.network.suffers(&[]);
    if let Some(killed) = killed {
        fleet.start(&[killed]).await?;
    }
    Ok(())
}

/// Weak and strong writes, large ones among them, as long as something is wrong. Whether they are answered
/// is not asked here.
async fn load(client: &Client, other: &Client) {
    let begin = Instant::now();
    let brief = |client: &Client| client.clone().with_timeout(Duration::from_secs(2));
    let (one, two) = (brief(client), brief(other));
    while begin.elapsed() < WRONG {
        let large = Put::new("large", "v".repeat(BULKY));
        let _ = tokio::join!(one.weak(Put::new("one", "v")), two.weak(large), put(&one));
        tokio::time::sleep(PAUSE).await;
    }
}

/// The median of strong answers.
async fn measure(client: &Client) -> Result<Duration, Violation> {
    let begin = Instant::now();
    let mut took = Vec::new();
    while begin.elapsed() < MEASURED {
        let asked = Instant::now();
        put(client).await?;
        took.push(asked.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    took.sort_unstable();
    Ok(took[took.len() / 2])
}

async fn put(client: &Client) -> Result<(), Violation> {
    let done = client.strong(Put::new("small", "v")).await.map(drop);
    done.map_err(|error| harness("a write")(std::io::Error::other(error)))
}
