//! A client of ours dials something that lets it in as a replica does, by a way that has the keys of both.

use std::net::Ipv4Addr;
use std::time::Duration;

use elea_net::Connection;
use elea_processes::caller::{call, identity};
use elea_processes::frames::{body, frame, message};
use elea_protocol::codec;
use elea_protocol::id::ReplicaId;
use elea_protocol::membership::Membership;
use elea_protocol::message::{Challenge, Origin, ToClient, ToReplica, Transport, WireVersions};
use elea_protocol::signature::{Ed25519, SecretKey, Signer as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::line::Link;
use crate::tap::Party;

const REPLICA: ReplicaId = ReplicaId(2);

/// How long somebody waits for one who reads nothing.
const PATIENCE: Duration = Duration::from_secs(60);

fn key(number: u8) -> SecretKey {
    SecretKey::from_bytes(&[number; 32])
}

fn client() -> SecretKey {
    key(9)
}

fn membership() -> Membership {
    let keys = (0..4).map(|number| key(number).public_key()).collect();
    Membership::new("between", 1, keys, None, Arc::new(Ed25519::default())).expect("a cluster")
}

async fn say(connection: &mut Connection, word: &ToClient) {
    let body = codec::encode(word).expect("encodes");
    connection.write_u32(u32::try_from(body.len()).expect("short")).await.expect("it is read");
    connection.write_all(&body).await.expect("it is read");
    connection.flush().await.expect("it is read");
}

/// Lets one client in, and answers with what it says then, and how that ends.
async fn host(listener: TcpListener) -> (Vec<ToReplica>, io::Result<usize>) {
    let (membership, (socket, _)) = (membership(), listener.accept().await.expect("it is dialled"));
    let mut connection = Connection::new(socket, PATIENCE).expect("a socket");
    let knock = codec::decode(&body(&mut connection).await.expect("a frame")).expect("a message");
    let ToReplica::Knock(knock) = knock else { panic!("{knock:?}") };
    membership.open_knock(knock, REPLICA).expect("signed");
    let accepted = identity(&key(REPLICA.0)).accept(connection).await;
    let (mut connection, proved) = accepted.expect("it encrypts");
    assert_eq!(proved, client().public_key().0);
    let nonce = connection.binding().expect("shaken").expect("encrypted");
    let (versions, genesis, replica) = (WireVersions::OWN, *membership.genesis(), REPLICA);
    let challenge = Challenge { versions, genesis, replica, nonce };
    say(&mut connection, &ToClient::Challenge(challenge)).await;
    let hello = codec::decode(&body(&mut connection).await.expect("a frame")).expect("a message");
    let ToReplica::Hello(hello) = hello else { panic!("{hello:?}") };
    membership.open_hello(hello, REPLICA, &nonce).expect("of this connection");
    say(&mut connection, &ToClient::Welcome).await;
    let mut said = Vec::new();
    while let Ok(body) = body(&mut connection).await {
        said.push(codec::decode(&body).expect("a message"));
    }
    (said, connection.read(&mut [0]).await)
}

struct Stage {
    way: Way,
    connection: Connection,
    heard: mpsc::Receiver<Heard>,
    host: tokio::task::JoinHandle<(Vec<ToReplica>, io::Result<usize>)>,
}

/// A client that was welcomed.
async fn stage() -> Stage {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let (membership, target) = (membership(), listener.local_addr().expect("bound"));
    let (hears, heard) = mpsc::channel(1 << 16);
    let wire = Wire { from: Party::Client(0), to: REPLICA };
    let ends = Ends::new(*membership.genesis(), &Arc::new(client()), &key(REPLICA.0));
    let way = Way::open(wire, Ipv4Addr::LOCALHOST.into(), hears, Some(ends)).await.expect("a port");
    way.set(|state| state.target = Some(target));
    let host = tokio::spawn(host(listener));
    let (to, origin) = (way.address().to_string(), Origin::Client(client().public_key().into()));
    let to = (REPLICA, to.as_str());
    let called = call(&membership, to, origin, &client(), Transport::Encrypted).await;
    let mut connection = called.expect("it is let in");
    assert!(matches!(message(&mut connection).await, Ok(ToClient::Welcome)));
    Stage { way, connection, heard, host }
}

/// What was heard of the dialler, and of the replica.
fn words(mut heard: mpsc::Receiver<Heard>) -> (Vec<ToReplica>, Vec<ToClient>) {
    let (mut there, mut back) = (Vec::new(), Vec::new());
    while let Ok(next) = heard.try_recv() {
        let Heard::Frame { by_dialler, frame, .. } = next else { panic!("{next:?}") };
        match by_dialler {
            true => there.push(codec::decode(&frame).expect("a message")),
            false => back.push(codec::decode(&frame).expect("a message")),
        }
    }
    (there, back)
}

#[tokio::test]
async fn what_is_encrypted_is_heard_and_ends_as_its_speaker_ends_it() {
    for is_announced in [true, false] {
        let Stage { way, mut connection, heard, host } = stage().await;
        // More than fits a record.
        let asked: Vec<u8> = (0..10_000)
            .flat_map(|nonce| frame(&ToReplica::AskStatus(nonce)).expect("short"))
            .collect();
        connection.write_all(&asked).await.expect("it is read");
        connection.flush().await.expect("it is read");
        if is_announced {
            connection.shutdown().await.expect("it is read");
        }
        drop(connection);
        let (said, end) = host.await.expect("it ends");
        let all: Vec<_> = (0..10_000).map(ToReplica::AskStatus).collect();
        assert_eq!(said, all);
        match is_announced {
            true => assert_eq!(end.expect("an end"), 0),
            false => assert_eq!(end.expect_err("no end").kind(), io::ErrorKind::UnexpectedEof),
        }
        way.dialler_died().await;
        way.replica_died().await;
        let (there, back) = words(heard);
        assert!(
            matches!(there[..2], [ToReplica::Knock(_), ToReplica::Hello(_)]),
            "{:?}",
            &there[..2]
        );
        assert_eq!(there[2..], all);
        assert!(matches!(back[..], [ToClient::Challenge(_), ToClient::Welcome]), "{back:?}");
    }
}

#[tokio::test]
async fn a_bit_that_turns_on_the_way_breaks_the_connection_and_is_nobodys_word() {
    let Stage { way, mut connection, heard, host } = stage().await;
    way.set(|state| state.there = Link { turns_bits: true, ..Link::default() });
    let mut asked = 0;
    // Whoever reads what was changed leaves.
    while connection.write_all(&frame(&ToReplica::AskStatus(asked)).expect("short")).await.is_ok()
        && connection.flush().await.is_ok()
    {
        asked += 1;
        tokio::task::yield_now().await;
    }
    let (said, end) = host.await.expect("it ends");
    assert!(end.is_err() && way.turned() > 0, "{end:?}");
    drop(connection);
    way.dialler_died().await;
    let (there, _) = words(heard);
    // The last one may have been said before the writer noticed.
    let all: Vec<_> = (0..=asked).map(ToReplica::AskStatus).collect();
    assert!(all.starts_with(&there[2..]), "everything was heard as it was said");
    assert!(there[2..].starts_with(&said), "and nothing else arrived");
}
