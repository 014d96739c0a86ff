//! A client that writes large values, and reads back what it wrote.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use elea_client::{Client, Level};
use elea_fault_injection::rng::Rng;
use elea_fault_injection::violation::Violation;
use elea_kv::{Get, Put};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::service::Pace;
use crate::shared::{Shared, rest, unanswered};

/// How large values are.
const LEAST: u64 = 100_000;
const MOST: u64 = 1_000_000;

/// Keys in use at a time.
const KEYS: u64 = 6;

/// Between two operations, about.
const PAUSE: Duration = Duration::from_millis(600);

/// How long an answer is waited for: the line may be slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// Writes one value after the other until it is told to stop, weakly and strongly in turn. A strong
/// write is read back.
pub async fn run(client: Client, shared: Arc<Shared>, number: usize, mut rng: Rng) {
    let client = client.with_timeout(PATIENCE);
    // Where it is not known whether something was written, the key is not used again.
    let mut generation = 0;
    let mut count = 0u64;
    while !shared.is_over() {
        count += 1;
        let key = format!("bulky/{number}/{generation}/{}", count % KEYS);
        let size = rng.between(LEAST, MOST);
        let value = value(rng.next_u64(), size);
        let level = if count.is_multiple_of(2) { Level::Weak } else { Level::Strong };
        let asked = shared.asks(number, level, Pace::Eager, size);
        let put = Put::new(key.clone(), value.clone());
        let done = match level {
            Level::Weak => client.weak(put).await.map(|weak| weak.result),
            Level::Strong => client.strong(put).await.map(|strong| strong.result),
        };
        shared.has(asked, done.is_ok());
        match done {
            Ok(Ok(_)) if level == Level::Strong => {
                read(&client, &shared, number, &key, &value).await
            }
            Ok(Ok(_)) => {}
            Ok(Err(refused)) => shared.refused(&key, "a large value", &refused),
            Err(error) => {
                unanswered(&shared, level, &error);
                generation += 1;
            }
        }
        rest(PAUSE, &mut rng).await;
    }
}

/// Bytes that do not compress.
fn value(seed: u64, size: u64) -> Bytes {
    let mut value = vec![0; usize::try_from(size).unwrap_or_default()];
    StdRng::seed_from_u64(seed).fill_bytes(&mut value);
    Bytes::from(value)
}

async fn read(client: &Client, shared: &Shared, number: usize, key: &str, value: &Bytes) {
    let asked = shared.asks(number, Level::Strong, Pace::Eager, value.len() as u64);
    let found = client.strong(Get::new(key.to_owned())).await.map(|strong| strong.result);
    shared.has(asked, found.is_ok());
    match found {
        Ok(Ok(Some(found))) if found.value == *value => {}
        Ok(Ok(found)) => {
            let length = found.map(|found| found.value.len());
            let what = format!("{key} holds {length:?} bytes that nobody wrote last");
            shared.complain(Violation::new("lost", what));
        }
        Ok(Err(refused)) => shared.refused(key, "a read", &refused),
        Err(error) => unanswered(shared, Level::Strong, &error),
    }
}
