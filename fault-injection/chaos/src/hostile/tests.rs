//! Hostile clients against something that greets them as a replica does, and listens.

use std::time::Duration;

use elea_net::Connection;
use elea_processes::caller::identity;
use elea_processes::frames;
use elea_protocol::codec;
use elea_protocol::id::{Digest, ReplicaId, RequestNumber, SessionId};
use elea_protocol::membership::Membership;
use elea_protocol::message::{
    Challenge, SessionReport, ToClient, ToReplica, Transport, WireVersions,
};
use elea_protocol::seal::sign;
use elea_protocol::signature::{Ed25519, Signer as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::*;

/// Connections, and bytes behind the greeting.
type Seen = Arc<watch::Sender<(u64, u64)>>;

async fn say(connection: &mut Connection, word: &ToClient) -> std::io::Result<()> {
    let body = codec::encode(word).expect("encodes");
    connection.write_u32(u32::try_from(body.len()).expect("short")).await?;
    connection.write_all(&body).await?;
    connection.flush().await
}

/// One of those who listen.
struct Host {
    id: ReplicaId,
    key: SecretKey,
    genesis: Digest,
    transport: Transport,
    seen: Seen,
}

impl Host {
    /// What it knows of a session: nothing, so that it may be used.
    fn report(&self, session: SessionId) -> ToClient {
        let body = SessionReport {
            client: guest().public_key().into(),
            session,
            executed_through: RequestNumber(0),
            has_left: false,
            opening: SessionId::first_of(1),
        };
        ToClient::Session(sign(&self.key, &self.genesis, self.id, body).into_inner())
    }

    /// Greets whoever comes, says what it knows of sessions, and answers nothing else.
    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut connection = Connection::new(stream, Duration::from_secs(60))?;
        self.seen.send_modify(|(connections, _)| *connections += 1);
        let (genesis, replica, nonce) = (self.genesis, self.id, rand::random());
        let challenge = Challenge { versions: WireVersions::OWN, genesis, replica, nonce };
        while let Ok(body) = frames::body(&mut connection).await {
            self.seen.send_modify(|(_, bytes)| *bytes += body.len() as u64);
            match codec::decode(&body) {
                Ok(ToReplica::Knock(_)) => {
                    if self.transport == Transport::Encrypted {
                        let accepted = identity(&self.key).accept(connection).await;
                        connection = accepted.map_err(std::io::Error::other)?.0;
                    }
                    say(&mut connection, &ToClient::Challenge(challenge)).await?;
                }
                Ok(ToReplica::Hello(_)) => say(&mut connection, &ToClient::Welcome).await?,
                Ok(ToReplica::AskSession(session)) => {
                    say(&mut connection, &self.report(session)).await?;
                }
                Ok(_) | Err(_) => {}
            }
        }
        // What has no length that could be right.
        let mut buffer = [0; 1 << 14];
        while let Ok(read @ 1..) = connection.read(&mut buffer).await {
            self.seen.send_modify(|(_, bytes)| *bytes += read as u64);
        }
        Ok(())
    }
}

fn key(number: u8) -> SecretKey {
    SecretKey::from_bytes(&[number; 32])
}

/// The key of the hostile client.
fn guest() -> SecretKey {
    key(9)
}

/// Four of those.
async fn stage(transport: Transport) -> (Target, Seen) {
    let keys = (1..=4).map(|number| key(number).public_key()).collect();
    let membership = Membership::new("stage", 1, keys, None, Arc::new(Ed25519::default()));
    let membership = Arc::new(membership.expect("a cluster"));
    let seen: Seen = Arc::new(watch::channel((0, 0)).0);
    let mut at = Vec::new();
    for replica in membership.size().members() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        at.push(listener.local_addr().expect("bound"));
        let (seen, genesis) = (Arc::clone(&seen), *membership.genesis());
        let key = key(replica.0 + 1);
        let host = Arc::new(Host { id: replica, key, genesis, transport, seen });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let host = Arc::clone(&host);
                tokio::spawn(async move { host.serve(stream).await });
            }
        });
    }
    let addresses = at.iter().map(ToString::to_string).collect();
    let target = Target {
        guest: Guest {
            at: Arc::new(move |id| at.get(usize::from(id.0)).copied()),
            membership: Arc::clone(&membership),
            transport,
            key: Arc::new(guest()),
        },
        cluster: Cluster::new(membership, addresses),
        tally: Arc::default(),
        rng: Rng::new(1),
    };
    (target, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_client_does_something_and_ends_when_told() {
    let both = |mischief| [(mischief, Transport::Encrypted), (mischief, Transport::Plain)];
    for (mischief, transport) in Mischief::ALL.into_iter().flat_map(both) {
        let (target, seen) = stage(transport).await;
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
        assert!(waited.is_ok(), "{}, {transport}: {:?}", mischief.word(), *seen.borrow());
        attack.end().await;
        assert_eq!(tally.counts()["acted"], tally.acted());
    }
}
