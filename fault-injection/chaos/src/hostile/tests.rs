//! Hostile clients against something that greets them as a replica does, and listens.

use std::time::Duration;

use elea_protocol::codec;
use elea_protocol::membership::Membership;
use elea_protocol::message::{Challenge, ToClient, WIRE_VERSION};
use elea_protocol::seal::{Ed25519, Signer as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::*;
use crate::raw;

/// Connections, and bytes behind the greeting.
type Seen = Arc<watch::Sender<(u64, u64)>>;

async fn say(stream: &mut TcpStream, word: &ToClient) -> std::io::Result<()> {
    let body = codec::encode(word).expect("encodes");
    stream.write_u32(u32::try_from(body.len()).expect("short")).await?;
    stream.write_all(&body).await
}

/// Greets whoever comes, and answers nothing.
async fn serve(mut stream: TcpStream, challenge: Challenge, seen: Seen) -> std::io::Result<()> {
    seen.send_modify(|(connections, _)| *connections += 1);
    say(&mut stream, &ToClient::Challenge(challenge)).await?;
    if let Ok(hello) = raw::body(&mut stream).await {
        seen.send_modify(|(_, bytes)| *bytes += hello.len() as u64);
        say(&mut stream, &ToClient::Welcome).await?;
    }
    let mut buffer = [0; 1 << 14];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        seen.send_modify(|(_, bytes)| *bytes += read as u64);
    }
    Ok(())
}

/// Four of those.
async fn stage() -> (Target, Seen) {
    let key = |number: u8| SecretKey::from_bytes(&[number; 32]);
    let keys = (1..=4).map(|number| key(number).public_key()).collect();
    let membership = Membership::new("stage", 1, keys, None, Arc::new(Ed25519::default()));
    let membership = Arc::new(membership.expect("a cluster"));
    let seen: Seen = Arc::new(watch::channel((0, 0)).0);
    let mut at = Vec::new();
    for replica in membership.size().members() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        at.push(listener.local_addr().expect("bound"));
        let (seen, genesis) = (Arc::clone(&seen), *membership.genesis());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let nonce = rand::random();
                let challenge = Challenge { version: WIRE_VERSION, genesis, replica, nonce };
                tokio::spawn(serve(stream, challenge, Arc::clone(&seen)));
            }
        });
    }
    let addresses = at.iter().map(ToString::to_string).collect();
    let target = Target {
        cluster: Cluster::new(membership, addresses),
        at: Arc::new(move |id| at.get(usize::from(id.0)).copied()),
        key: Arc::new(key(9)),
        tally: Arc::default(),
        rng: Rng::new(1),
    };
    (target, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_client_does_something_and_ends_when_told() {
    for mischief in Mischief::ALL {
        let (target, seen) = stage().await;
        let tally = Arc::clone(&target.tally);
        let attack = Attack::begin(mischief, target);
        let mut watched = seen.subscribe();
        // Some hold connections and say nothing.
        let is_seen = |(connections, bytes): &(u64, u64)| {
            let is_much = match mischief {
                Mischief::Silent => *connections >= 500,
                Mischief::Bulk => *bytes >= 2 << 20,
                Mischief::Churn | Mischief::OneShot => *connections >= 5,
                _ => *bytes >= 500,
            };
            is_much && tally.acted() > 0
        };
        let waited = timeout(Duration::from_secs(60), watched.wait_for(is_seen)).await;
        assert!(waited.is_ok(), "{}: {:?}", mischief.word(), *seen.borrow());
        attack.end().await;
        assert_eq!(tally.counts()["acted"], tally.acted());
    }
}
