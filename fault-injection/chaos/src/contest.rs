//! Clients that read and write the same keys, for the linearizability checker.

use std::sync::Arc;
use std::time::Duration;

use elea_client::{Client, Command, Error, Level};
use elea_fault_injection::rng::Rng;
use elea_kv::{Append, Cas, Found, Get, Incr, Put, Refused, Swap};

use crate::registers::{Lease, Record};
use crate::service::Pace;
use crate::shared::{Shared, finality, rest, unanswered};

/// One operation, in both languages.
enum Ask {
    Get(Get),
    Put(Put),
    Append(Append),
    Incr(Incr),
    Cas(Cas),
}

/// What is known of an operation afterwards.
struct Outcome {
    result: Option<String>,
    place: (u64, u32),
}

/// Does one operation after the other until it is told to stop.
pub async fn run(client: Client, shared: Arc<Shared>, id: u32, pause: Duration, mut rng: Rng) {
    // The value that was seen last, so that some swaps succeed.
    let mut seen = String::from("-");
    while !shared.is_over() {
        let lease = shared.registers.lease(rng.index(crate::registers::KEYS));
        let fresh = rng.between(1, 1_000_000).to_string();
        let (ask, operation) = choose(&lease, &mut rng, &seen, &fresh);
        let level = if rng.between(0, 9) == 0 { Level::Weak } else { Level::Strong };
        // It waits until a weak answer is final, so it asks for what a strong quorum can give.
        let of_client = usize::try_from(id).unwrap_or(usize::MAX);
        let begun = shared.asks(of_client, Level::Strong, Pace::Eager, 0);
        let outcome = match ask {
            Ask::Get(get) => ask_for(&client, &shared, level, get, |found| Some(text(found))).await,
            Ask::Put(put) => ask_for(&client, &shared, level, put, |_| None).await,
            Ask::Append(append) => {
                let length = |done: elea_kv::Appended| Some(done.length.to_string());
                ask_for(&client, &shared, level, append, length).await
            }
            Ask::Incr(incr) => {
                let sum = |done: elea_kv::Counted| Some(done.value.to_string());
                ask_for(&client, &shared, level, incr, sum).await
            }
            Ask::Cas(cas) => {
                let old = cas.expected.clone().unwrap_or_default();
                let found = |swap| match swap {
                    Swap::Done(_) => Some(String::from_utf8_lossy(&old).into_owned()),
                    Swap::Mismatch(found) => Some(text(found)),
                };
                ask_for(&client, &shared, level, cas, found).await
            }
        };
        let asked = begun.at;
        let answered = outcome.is_ok().then(|| shared.meter.micros());
        shared.has(begun, outcome.is_ok());
        if let Err(error) = &outcome {
            unanswered(&shared, level, error);
        }
        let outcome = outcome.ok();
        if let Some(Outcome { result: Some(result), .. }) = &outcome {
            seen.clone_from(result);
        }
        let record = Record {
            client: id,
            asked,
            answered,
            operation,
            is_strong: level == Level::Strong || outcome.is_some(),
            place: outcome.as_ref().map(|outcome| outcome.place),
            result: outcome.and_then(|outcome| outcome.result),
        };
        if let Some(records) = shared.registers.give_back(&lease, record) {
            let judge = Arc::clone(&shared);
            let judged = tokio::task::spawn_blocking(move || judge.registers.judge(&records));
            if let Ok(Err(violation)) = judged.await {
                shared.complain(violation);
            }
        }
        rest(pause, &mut rng).await;
    }
}

/// The operation, and what it is called in the journal's words.
fn choose(lease: &Lease, rng: &mut Rng, seen: &str, fresh: &str) -> (Ask, String) {
    let Lease { key, is_number } = lease;
    let name = key.clone();
    match rng.between(0, 9) {
        0..4 => (Ask::Get(Get::new(name)), format!("get {key}")),
        4..6 => (Ask::Put(Put::new(name, fresh.to_owned())), format!("put {key} {fresh}")),
        6..8 => {
            let cas = Cas::new(name, seen.to_owned(), fresh.to_owned());
            (Ask::Cas(cas), format!("cas {key} {seen} {fresh}"))
        }
        _ if *is_number => (Ask::Incr(Incr::new(name, 7)), format!("incr {key} 7")),
        _ => (Ask::Append(Append::new(name, ".x")), format!("append {key} .x")),
    }
}

fn text(found: Option<Found>) -> String {
    found.map_or("-".into(), |found| String::from_utf8_lossy(&found.value).into_owned())
}

/// Asks, and waits until the answer is final.
async fn ask_for<C, T>(
    client: &Client,
    shared: &Shared,
    level: Level,
    command: C,
    words: impl FnOnce(T) -> Option<String>,
) -> Result<Outcome, Error>
where
    C: Command<Output = Result<T, Refused>> + Clone,
    T: Clone,
{
    let (result, place, receipt) = match level {
        Level::Strong => {
            let strong = client.strong(command).await?;
            let (slot, index) = strong.version;
            (strong.result, (slot.0, index), strong.receipt)
        }
        Level::Weak => finality(client.weak_final(command).await?).await?,
    };
    shared.is_final(&receipt);
    // The journal's word for what it does not do.
    let result = result.map_or(Some("?".into()), words);
    Ok(Outcome { result, place })
}
