//! Connections of nobody: silent ones and ones that come and go, by the hundred. Whoever has a key is
//! let in beside them, however far away it is.

use elea_protocol::id::ReplicaId;
use elea_protocol::message::{Level, Origin, ReplyKind, ToClient, ToReplica};
use elea_protocol::seal::sign_hello;
use elea_protocol::signature::SecretKey;
use elea_replica::{Counter, Limits};
use tokio::net::TcpStream;

use crate::support::{Client, Cluster, Wire, client_id, client_key, hello_body, test};

/// Far fewer than the strangers.
const PLACES: usize = 8;
const STRANGERS: usize = 300;

fn few() -> Limits {
    Limits { handshakes: PLACES, ..Limits::default() }
}

/// Knocks, and answers the challenge only after so many strangers have come that were all taken in.
async fn answers_late(cluster: &Cluster, origin: Origin, key: &SecretKey) -> Wire {
    let genesis = cluster.membership.genesis();
    let mut wire = Wire::silent(cluster.address(0)).await;
    wire.knock(0, genesis, origin, key).await;
    let challenge = wire.challenge().await;
    let mut strangers = Vec::new();
    for number in 0..STRANGERS {
        // Every other one goes at once.
        let mut stranger = Wire::silent(cluster.address(0)).await;
        stranger.send(&ToReplica::AskStatus(1)).await;
        stranger.challenge().await;
        if number % 2 == 0 {
            strangers.push(stranger);
        }
    }
    let (to, nonce) = (challenge.replica, challenge.nonce);
    let body = hello_body(origin, to, nonce);
    wire.send(&ToReplica::Hello(sign_hello(key, genesis, body))).await;
    wire
}

#[test]
fn whoever_knocks_is_let_in_beside_any_number_of_strangers() {
    test(async {
        let mut cluster = Cluster::new();
        let node = cluster.start_with(0, few()).await.expect("it starts");
        let client = (Origin::Client(client_id(1)), client_key(1));
        let peer = (Origin::Replica(ReplicaId(2)), SecretKey::from_bytes(&[3; 32]));
        for (origin, key) in [client, peer] {
            let mut wire = answers_late(&cluster, origin, &key).await;
            let word = wire.next().await;
            let is_in = matches!(word, Some(ToClient::Welcome | ToClient::Terms(_)));
            assert!(is_in, "{origin:?}: {word:?}");
        }
        assert!(node.counters().get(Counter::HandshakeEvicted) > 0);
        let (origin, key) = (Origin::Client(client_id(1)), client_key(1));
        let genesis = cluster.membership.genesis();
        let mut wire = Wire::silent(cluster.address(0)).await;
        wire.knock(1, genesis, origin, &key).await;
        assert!(wire.farewell().await.is_some(), "a knock at another replica is none here");
    });
}

#[test]
fn a_thousand_silent_strangers_keep_neither_peers_nor_clients_from_each_other() {
    test(async {
        let mut cluster = Cluster::new();
        let mut nodes = Vec::new();
        for id in 0..3 {
            nodes.push(cluster.start_with(id, few()).await.expect("it starts"));
        }
        let mut strangers = Vec::new();
        for id in 0..3 {
            for _ in 0..STRANGERS {
                strangers.push(TcpStream::connect(cluster.address(id)).await.expect("it listens"));
            }
        }
        // It has to link with the others, and they with it.
        nodes.push(cluster.start_with(3, few()).await.expect("it starts"));
        nodes[3].ready().await.expect("it finds its peers");
        let churn = {
            let address = cluster.address(1).to_owned();
            tokio::spawn(async move {
                loop {
                    drop(TcpStream::connect(&address).await);
                }
            })
        };
        let mut client = Client::connect(&cluster, 0, &[0, 1, 2, 3]).await;
        for _ in 0..5 {
            let number = client.send(Level::Strong, &[1]).await;
            client.answers(number..=number, ReplyKind::Committed).await;
        }
        churn.abort();
        for node in nodes {
            node.stop().await.expect("nothing failed");
        }
    });
}
