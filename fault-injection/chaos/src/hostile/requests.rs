//! Hostile clients whose requests are in order, but large, dear or many.

use std::time::Duration;

use bytes::Bytes;
use elea_client::{Client, Command as _, Level};
use elea_kv::{Add, Append, Delete, Put, Txn};
use futures::future::join_all;
use futures::{StreamExt as _, stream};
use tokio::time::sleep;

use super::Target;

/// After something that failed.
const PAUSE: Duration = Duration::from_millis(50);

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Requests at once, and the bytes of one of the two values of each.
const BULK: u64 = 128;
const HALF: usize = 973 << 10;

/// So many keys of a kind, so that what is stored does not grow for ever.
const KEYS: u64 = 4;

/// Sends 128 requests of 1.9 MiB at once, waits for what comes of them, and does so again.
pub(super) async fn bulk(target: &Target) {
    let Some(client) = target.client(PATIENCE, usize::try_from(BULK).unwrap_or(1)).await else {
        return;
    };
    let value = Bytes::from(vec![b'b'; HALF]);
    loop {
        let requests = (0..BULK).map(|number| {
            let put = |half| {
                let key = format!("hostile/bulk/{}/{half}", number % KEYS);
                Put::new(key, value.clone()).encode()
            };
            target.tally.acts(1);
            client.execute(Level::Weak, false, vec![put(0), put(1)])
        });
        for done in join_all(requests).await {
            target.tally.ended(done.is_ok());
        }
        sleep(PAUSE).await;
    }
}

/// Does what a script does that runs a command and keeps nothing, four of them at a time.
pub(super) async fn one_shot(target: &Target) {
    let scripts = (0..4).map(|script| async move {
        for count in 0u64.. {
            target.tally.acts(1);
            let put = Put::new(format!("hostile/one-shot/{script}"), count.to_string());
            let done = match target.client(PATIENCE, 1).await {
                Some(client) if count.is_multiple_of(2) => client.weak(put).await.is_ok(),
                Some(client) => client.strong(put).await.is_ok(),
                None => false,
            };
            target.tally.ended(done);
            if !done {
                sleep(PAUSE).await;
            }
        }
    });
    join_all(scripts).await;
}

/// Adds 512 members at a time to a set that is nearly as large as any may be.
pub(super) async fn big_set(target: &Target) {
    let Some(client) = target.client(PATIENCE, 4).await else { return };
    for count in 0u64.. {
        let key = format!("hostile/set/{}", count % KEYS);
        let _ = client.execute(Level::Weak, false, vec![Delete::new(key.clone()).encode()]).await;
        // A member counts as 46 bytes, and a set may have 1 MiB of them.
        for members in (0..22_000u32).collect::<Vec<_>>().chunks(512) {
            let add = |member: &u32| Add::new(key.clone(), format!("{member:030}")).encode();
            ask(target, &client, members.iter().map(add).collect()).await;
        }
    }
}

/// Appends a hundred times to a large value in one transaction, eight of them at a time.
pub(super) async fn long_txn(target: &Target) {
    let Some(client) = target.client(PATIENCE, 8).await else { return };
    for count in 0u64.. {
        let key = format!("hostile/txn/{}", count % KEYS);
        let put = Put::new(key.clone(), vec![b't'; HALF]);
        ask(target, &client, vec![put.encode()]).await;
        let append = |txn: Txn, _| txn.then(Append::new(key.clone(), "+"));
        let txn = (0..100).fold(Txn::new(), append).encode();
        let txns = (0..64).map(|_| ask(target, &client, vec![txn.clone()]));
        stream::iter(txns).buffer_unordered(8).collect::<()>().await;
    }
}

/// One request, whatever comes of it.
async fn ask(target: &Target, client: &Client, operations: Vec<Bytes>) {
    target.tally.acts(1);
    let done = client.execute(Level::Weak, false, operations).await;
    target.tally.ended(done.is_ok());
    if done.is_err() {
        sleep(PAUSE).await;
    }
}
