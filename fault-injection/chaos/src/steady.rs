//! A client that asks at a steady pace, whatever becomes of what it asked for.
//!
//! Whoever waits for an answer before asking for the next thing asks for little while nothing is
//! answered, and so hardly notices a long outage. This one asks all the time.

use std::sync::Arc;
use std::time::Duration;

use elea_client::{Client, Level};
use elea_kv::Incr;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::ledger::{Kind, Name};
use crate::service::Pace;
use crate::shared::{BOOK, Shared, unanswered};

/// Its books are told from those of others by this.
const WRITERS: usize = 1 << 20;

/// Counts upwards in a book of its own until it is told to stop; then waits for what is still open.
pub async fn run(
    client: Client,
    shared: Arc<Shared>,
    number: usize,
    level: Level,
    every: Duration,
) {
    let writer = WRITERS + number * 2 + usize::from(level == Level::Strong);
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut open = JoinSet::new();
    for count in 0.. {
        tick.tick().await;
        if shared.is_over() {
            break;
        }
        let name = Name(Kind::Sum, writer, count / BOOK);
        open.spawn(ask(client.clone(), Arc::clone(&shared), number, level, name, count));
        while open.try_join_next().is_some() {}
    }
    while open.join_next().await.is_some() {}
}

async fn ask(
    client: Client,
    shared: Arc<Shared>,
    number: usize,
    level: Level,
    name: Name,
    count: u64,
) {
    let entry = format!("{number}.{count}");
    shared.ledger.attempt(name, &entry);
    let asked = shared.asks(number, level, Pace::Steady, 0);
    let incr = Incr::new(name.key(), 1);
    let result = match level {
        Level::Weak => client.weak(incr).await.map(|weak| weak.result),
        Level::Strong => client.strong(incr).await.map(|strong| {
            shared.is_final(&strong.receipt);
            strong.result
        }),
    };
    shared.has(asked, result.is_ok());
    match result {
        Ok(Ok(_)) => shared.ledger.acknowledge(name, &entry, level),
        Ok(Err(refused)) => shared.refused(&name.key(), &entry, &refused),
        Err(error) => unanswered(&shared, level, &error),
    }
}
