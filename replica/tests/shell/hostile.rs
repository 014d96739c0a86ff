//! Everything a stranger, a client or a peer can send that it should not. Each ends with the
//! counted reason, and with the replica serving somebody else.

use bytes::Bytes;
use elea_protocol::codec::{self, FRAME_MAX};
use elea_protocol::evidence::Evidence;
use elea_protocol::id::{Digest, ReplicaId, Slot, View};
use elea_protocol::merkle::Path;
use elea_protocol::message::{
    Commit, Farewell, HelloBody, Level, Message, Origin, SignedRequest, ToClient, ToReplica,
};
use elea_protocol::seal::{sign, sign_hello};
use elea_protocol::signature::{SecretKey, Signature, Signed, Signer};
use elea_replica::{Counter, Limits, Node};
use futures::SinkExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use crate::support::{
    Cluster, Wire, assert_serves, client_id, client_key, hello_body, request, test, wait_for,
};

async fn alone(limits: Limits) -> (Cluster, Node) {
    let mut cluster = Cluster::new();
    let node = cluster.start_with(0, limits).await.expect("it starts");
    (cluster, node)
}

/// The connection is closed with this word, the reason is counted once, and others are served.
async fn assert_closed(
    cluster: &Cluster,
    node: &Node,
    wire: &mut Wire,
    word: Farewell,
    counter: Counter,
) {
    assert_eq!(wire.farewell().await, Some(word), "{}", counter.name());
    assert_eq!(node.counters().get(counter), 1, "{}: {:?}", counter.name(), node.counters());
    assert_serves(cluster, 0).await;
}

#[test]
fn a_knock_that_proves_nothing_is_turned_away() {
    test(async {
        let stranger = SecretKey::from_bytes(&[77; 32]);
        let other_cluster = Digest([5; 32]);
        let ann = Origin::Client(client_id(0));
        let unknown = Origin::Client(stranger.public_key().into());
        let cases = [
            (
                "another cluster",
                Some(other_cluster),
                ann,
                client_key(0),
                Counter::HelloBadSignature,
            ),
            ("another's key", None, ann, client_key(1), Counter::HelloBadSignature),
            ("a stranger", None, unknown, stranger, Counter::HelloUnknownSigner),
            (
                "no such replica",
                None,
                Origin::Replica(ReplicaId(4)),
                client_key(0),
                Counter::HelloUnknownSigner,
            ),
            (
                "a client as a replica",
                None,
                Origin::Replica(ReplicaId(1)),
                client_key(0),
                Counter::HelloBadSignature,
            ),
            (
                "the replica itself",
                None,
                Origin::Replica(ReplicaId(0)),
                SecretKey::from_bytes(&[1; 32]),
                Counter::HelloUnknownSigner,
            ),
        ];
        for (what, genesis, origin, key, counter) in cases {
            let (cluster, node) = alone(Limits::default()).await;
            let genesis = genesis.unwrap_or(*cluster.membership.genesis());
            let mut wire = Wire::say_hello((cluster.address(0), 0), &genesis, origin, &key).await;
            assert_closed(&cluster, &node, &mut wire, Farewell::NotAdmitted, counter).await;
            println!("{what}: turned away");
        }
    });
}

#[test]
fn a_hello_for_another_replica_or_an_older_connection_is_turned_away() {
    test(async {
        for (to, flip) in [(1, 0), (0, 1)] {
            let (cluster, node) = alone(Limits::default()).await;
            let (mut wire, challenge) = Wire::connect(&cluster, 0).await;
            let mut nonce = challenge.nonce;
            nonce[31] ^= flip;
            let origin = Origin::Client(client_id(0));
            let body = hello_body(origin, ReplicaId(to), nonce);
            let hello = sign_hello(&client_key(0), cluster.membership.genesis(), body);
            wire.send(&ToReplica::Hello(hello)).await;
            let word = Farewell::NotAdmitted;
            assert_closed(&cluster, &node, &mut wire, word, Counter::HelloMalformed).await;
        }
    });
}

#[test]
fn bytes_that_are_no_message_close_the_connection() {
    let frame = |bytes: &[u8]| {
        let length = u32::try_from(bytes.len()).expect("small");
        [&length.to_be_bytes()[..], bytes].concat()
    };
    let question = codec::encode(&ToReplica::AskStatus(1)).expect("small");
    let trailing = frame(&[&question[..], &[0]].concat());
    let announced = |length: usize| u32::try_from(length).expect("small").to_be_bytes().to_vec();
    // An operation that says it has 2^64 - 1 bytes.
    let mut absurd = codec::encode(&ToReplica::AskStatus(1)).expect("small").to_vec();
    // The tag of a request.
    absurd[0] = 3;
    absurd.extend_from_slice(&[0xff; 200]);
    let cases = [
        ("garbage", frame(&[0xa5; 300]), false, Counter::FrameMalformed),
        ("an absurd length within", frame(&absurd), false, Counter::FrameMalformed),
        ("an empty frame", frame(&[]), false, Counter::FrameMalformed),
        ("trailing bytes", trailing, false, Counter::FrameTrailing),
        ("too large for a client", announced(FRAME_MAX), false, Counter::FrameTooLarge),
        ("an absurd frame", vec![0xff; 4], false, Counter::FrameTooLarge),
        ("a truncated frame", frame(&question)[..7].to_vec(), true, Counter::FrameTruncated),
        ("a truncated length", vec![0, 0], true, Counter::FrameTruncated),
    ];
    test(async move {
        for (what, bytes, ends, counter) in cases {
            println!("{what}");
            let (cluster, node) = alone(Limits::default()).await;
            let mut wire = Wire::client(&cluster, 0, 0).await;
            wire.send_raw(&bytes).await;
            if ends {
                wire.frames.get_mut().shutdown().await.expect("a socket");
            }
            assert_closed(&cluster, &node, &mut wire, Farewell::Misbehaviour, counter).await;
        }
    });
}

#[test]
fn before_it_is_let_in_a_connection_may_send_a_knock_and_a_hello_and_nothing_else() {
    test(async {
        let (word, genesis) =
            (Farewell::Misbehaviour, |cluster: &Cluster| *cluster.membership.genesis());
        for knocks in [false, true] {
            let (cluster, node) = alone(Limits::default()).await;
            let connected = async || {
                let mut wire = Wire::silent(cluster.address(0)).await;
                if knocks {
                    wire.challenged(&cluster, 0).await;
                }
                wire
            };
            let mut wire = connected().await;
            wire.send_raw(&1025u32.to_be_bytes()).await;
            assert_closed(&cluster, &node, &mut wire, word, Counter::FrameTooLarge).await;
            let mut wire = connected().await;
            wire.send(&ToReplica::AskStatus(1)).await;
            assert_closed(&cluster, &node, &mut wire, word, Counter::HelloMalformed).await;
        }
        // A knock of one and the hello of another.
        let (cluster, node) = alone(Limits::default()).await;
        let (mut wire, challenge) = Wire::connect(&cluster, 0).await;
        let origin = Origin::Client(client_id(1));
        let (to, nonce) = (ReplicaId(0), challenge.nonce);
        let body = hello_body(origin, to, nonce);
        let hello = sign_hello(&client_key(1), &genesis(&cluster), body);
        wire.send(&ToReplica::Hello(hello)).await;
        assert_closed(&cluster, &node, &mut wire, word, Counter::HelloMalformed).await;
    });
}

#[test]
fn a_hello_that_somebody_else_has_signed_is_turned_away() {
    test(async {
        let (cluster, node) = alone(Limits::default()).await;
        let (mut wire, challenge) = Wire::connect(&cluster, 0).await;
        let origin = Origin::Client(client_id(0));
        let (to, nonce) = (ReplicaId(0), challenge.nonce);
        let body = hello_body(origin, to, nonce);
        let hello = sign_hello(&client_key(1), cluster.membership.genesis(), body);
        wire.send(&ToReplica::Hello(hello)).await;
        let (word, counter) = (Farewell::NotAdmitted, Counter::HelloBadSignature);
        assert_closed(&cluster, &node, &mut wire, word, counter).await;
    });
}

#[test]
fn a_hello_in_another_version_than_was_agreed_on_is_not_admitted() {
    test(async {
        let (cluster, node) = alone(Limits::default()).await;
        let (mut wire, challenge) = Wire::connect(&cluster, 0).await;
        let body = hello_body(Origin::Client(client_id(0)), ReplicaId(0), challenge.nonce);
        let body = HelloBody { version: body.version + 1, ..body };
        let hello = sign_hello(&client_key(0), cluster.membership.genesis(), body);
        wire.send(&ToReplica::Hello(hello)).await;
        let (word, counter) = (Farewell::NotAdmitted, Counter::OtherVersion);
        assert_closed(&cluster, &node, &mut wire, word, counter).await;
    });
}

#[test]
fn what_does_not_belong_on_a_connection_closes_it() {
    test(async {
        let (cluster, node) = alone(Limits::default()).await;
        let genesis = *cluster.membership.genesis();
        let vote = Commit { view: View(0), slot: Slot(1), hash: Digest([0; 32]) };
        let vote = sign(cluster.key(1), &genesis, ReplicaId(1), vote).into_inner();
        let vote = ToReplica::Peer(Message::Commit(vote));
        let good = request(&cluster, 0, 1, Level::Weak, b"1");
        let signature = Signature([3; 64]);
        let forged = SignedRequest::from_parts(good.body().clone(), signature, Path::lone()).into();
        let mut empty = good.body().clone();
        empty.operations.clear();
        let empty = SignedRequest::sign(&client_key(0), &genesis, empty);
        let cases = [
            ("a vote from a client", vote, Counter::MessageMisplaced),
            (
                "another's request",
                ToReplica::Request(request(&cluster, 1, 1, Level::Weak, b"1")),
                Counter::RequestForeign,
            ),
            ("a forged request", ToReplica::Request(forged), Counter::MessageBadSignature),
            ("an empty request", ToReplica::Request(empty), Counter::MessageMalformed),
        ];
        for (what, message, counter) in cases {
            println!("{what}");
            let mut wire = Wire::client(&cluster, 0, 0).await;
            wire.send(&message).await;
            assert_closed(&cluster, &node, &mut wire, Farewell::Misbehaviour, counter).await;
        }
    });
}

#[test]
fn a_peer_that_lies_or_speaks_as_a_client_loses_its_connection() {
    test(async {
        let (cluster, node) = alone(Limits::default()).await;
        let body = Commit { view: View(0), slot: Slot(1), hash: Digest([0; 32]) };
        let (by, signature) = (ReplicaId(2), Signature([1; 64]));
        let forged = ToReplica::Peer(Message::Commit(Signed { body, by, signature }));
        let of_client = ToReplica::Request(request(&cluster, 0, 1, Level::Weak, b"1"));
        let cases =
            [(forged, Counter::MessageBadSignature), (of_client, Counter::MessageMisplaced)];
        for (message, counter) in cases {
            let mut wire = Wire::peer(&cluster, 0, 1).await;
            wire.send(&message).await;
            assert_closed(&cluster, &node, &mut wire, Farewell::Misbehaviour, counter).await;
        }
    });
}

#[test]
fn a_peer_that_dials_anew_replaces_its_older_connection() {
    test(async {
        let (cluster, node) = alone(Limits::default()).await;
        let mut old = Wire::peer(&cluster, 0, 1).await;
        let _new = Wire::peer(&cluster, 0, 1).await;
        assert_eq!(old.farewell().await, Some(Farewell::TooManyConnections));
        assert_eq!(node.counters().get(Counter::PeerReplaced), 1);
    });
}

#[test]
fn a_thousand_connections_of_one_client_are_a_few() {
    test(async {
        let limits = Limits { connections_per_client: 20, ..Limits::default() };
        let (cluster, node) = alone(limits).await;
        let (genesis, key) = (*cluster.membership.genesis(), client_key(0));
        let origin = Origin::Client(client_id(0));
        let mut open = Vec::new();
        let mut turned_away = 0;
        for _ in 0..1000 {
            let mut wire = Wire::say_hello((cluster.address(0), 0), &genesis, origin, &key).await;
            match wire.next().await {
                Some(ToClient::Welcome) => open.push(wire),
                Some(ToClient::Farewell(Farewell::TooManyConnections)) => turned_away += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((open.len(), turned_away), (20, 980));
        assert_eq!(node.counters().get(Counter::ClientConnectionsFull), 980);
        assert_serves(&cluster, 0).await;
        assert_eq!(open[0].status(1).await.nonce, 1, "the first ones still work");
    });
}

#[test]
fn peers_get_in_where_clients_fill_all_places() {
    test(async {
        let limits = Limits { connections: 2, ..Limits::default() };
        let (cluster, node) = alone(limits).await;
        let _ann = Wire::client(&cluster, 0, 0).await;
        let _bob = Wire::client(&cluster, 0, 1).await;
        let (genesis, key) = (*cluster.membership.genesis(), client_key(2));
        let origin = Origin::Client(client_id(2));
        let mut third = Wire::say_hello((cluster.address(0), 0), &genesis, origin, &key).await;
        assert_eq!(third.farewell().await, Some(Farewell::TooManyConnections));
        assert_eq!(node.counters().get(Counter::ConnectionsFull), 1);
        let _peer = Wire::peer(&cluster, 0, 3).await;
    });
}

#[test]
fn connections_that_never_say_who_they_are_keep_nobody_out() {
    test(async {
        let limits = Limits { handshakes: 4, handshake_timeout_ms: 400, ..Limits::default() };
        let (cluster, node) = alone(limits).await;
        let mut slow = Vec::new();
        for _ in 0..4 {
            let mut wire = Wire::silent(cluster.address(0)).await;
            // The beginning of a knock, and no more.
            wire.send_raw(&[0, 0, 0, 150, 0, 0]).await;
            slow.push(wire);
        }
        assert_serves(&cluster, 0).await;
        let mut words = Vec::new();
        for wire in &mut slow {
            words.push(wire.farewell().await);
        }
        // Which of them was the oldest is for the system to say.
        words.sort();
        let timed_out = Some(Farewell::NotAdmitted);
        assert_eq!(words, [None, timed_out, timed_out, timed_out]);
        assert_eq!(node.counters().get(Counter::HandshakeEvicted), 1);
        assert_eq!(node.counters().get(Counter::HandshakeTimeout), 3);
        assert_serves(&cluster, 0).await;
    });
}

#[test]
fn a_client_that_never_reads_loses_its_connection_and_nobody_else_waits() {
    test(async {
        let limits = Limits {
            write_timeout_ms: 300,
            answers_queued: 64,
            questions_per_second: 1 << 20,
            ..Limits::default()
        };
        let (cluster, node) = alone(limits).await;
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a socket");
        let address = cluster.address(0).parse().expect("an address");
        let stream = socket.connect(address).await.expect("somebody listens");
        let mut deaf = Wire::over(stream);
        let challenge = deaf.challenged(&cluster, 0).await;
        let body = hello_body(Origin::Client(client_id(0)), ReplicaId(0), challenge.nonce);
        let hello = sign_hello(&client_key(0), cluster.membership.genesis(), body);
        deaf.send(&ToReplica::Hello(hello)).await;
        let mut other = Wire::client(&cluster, 0, 1).await;
        let questions: Vec<Bytes> =
            (0..64).map(|n| codec::encode(&ToReplica::AskStatus(n)).expect("small")).collect();
        let mut nonce = 0;
        'connected: loop {
            for question in &questions {
                if deaf.frames.feed(question.clone()).await.is_err() {
                    break 'connected;
                }
            }
            if SinkExt::<Bytes>::flush(&mut deaf.frames).await.is_err() {
                break;
            }
            nonce += 1;
            assert_eq!(other.status(nonce).await.nonce, nonce);
        }
        assert_eq!(node.counters().get(Counter::ClientTooSlow), 1, "{:?}", node.counters());
        assert!(node.counters().get(Counter::AnswerDropped) > 0);
        assert_serves(&cluster, 0).await;
    });
}

#[test]
fn whoever_contradicts_itself_is_convicted_for_good_and_everybody_may_ask_for_the_proof() {
    test(async {
        let (mut cluster, node) = alone(Limits::default()).await;
        assert_eq!(Wire::client(&cluster, 0, 0).await.evidence().await, []);
        let mut peer = Wire::peer(&cluster, 0, 2).await;
        for hash in [Digest([1; 32]), Digest([2; 32])] {
            let vote = Commit { view: View(0), slot: Slot(1), hash };
            let genesis = cluster.membership.genesis();
            let vote = sign(cluster.key(2), genesis, ReplicaId(2), vote).into_inner();
            peer.send(&ToReplica::Peer(Message::Commit(vote))).await;
        }
        wait_for(&cluster, 0, |status| status.evidence > 0).await;
        let evidence = Wire::client(&cluster, 0, 0).await.evidence().await;
        assert!(matches!(&evidence[..], [Evidence::Commits(one, _)] if one.by == ReplicaId(2)));
        assert_eq!(node.counters().get(Counter::Accusations), 1);
        drop(peer);
        node.stop().await.expect("a clean stop");
        let node = cluster.start(0).await;
        assert_eq!(Wire::client(&cluster, 0, 0).await.evidence().await, evidence);
        node.stop().await.expect("a clean stop");
    });
}
