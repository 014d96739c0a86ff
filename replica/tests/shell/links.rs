//! Links between replicas: both ways over one connection, who is believed to be a peer, and keys in
//! two places.

use elea_protocol::codec;
use elea_protocol::id::{Digest, ReplicaId, Slot, View};
use elea_protocol::message::{
    Challenge, Commit, Farewell, Fetch, Greeting, Level, Message, NodeStatus, Origin, Part, Parts,
    Pieces, Requests, Terms, ToClient, ToReplica, Wanted, WireVersions,
};
use elea_protocol::seal::sign;
use elea_protocol::tuning::Rules;
use elea_replica::{Counter, Limits, Node};
use futures::{SinkExt, StreamExt};
use tokio::net::TcpListener;
use tokio_util::codec::LengthDelimitedCodec;

use crate::support::{
    Client, Cluster, Wire, assert_serves, client_id, client_key, request, test, wait_for,
};

fn counted(status: &NodeStatus, name: &str) -> u64 {
    status.counters.iter().find(|(known, _)| known == name).map_or(0, |(_, count)| *count)
}

/// A vote of a view that nobody has entered: it is counted, and nothing comes of it.
fn vote(cluster: &Cluster, by: u8) -> Message {
    let vote = Commit { view: View(9), slot: Slot(1), hash: Digest([1; 32]) };
    let genesis = cluster.membership.genesis();
    Message::Commit(sign(cluster.key(by), genesis, ReplicaId(by), vote).into_inner())
}

#[test]
fn a_peer_that_cannot_be_dialled_is_spoken_to_over_the_connection_that_it_dialled() {
    test(async {
        let mut cluster = Cluster::new();
        let node = cluster.start(0).await;
        // Nobody accepts at the address of r1: whoever dials it waits for a challenge in vain.
        let mut peer = Wire::peer(&cluster, 0, 1).await;
        for _ in 0..3 {
            let Some(ToClient::Peer(message)) = peer.next().await else { panic!("no message") };
            cluster.membership.open_message(message).expect("a sound one");
        }
        // Of two such connections the newer one is used.
        let mut newer = Wire::peer(&cluster, 0, 1).await;
        assert_eq!(peer.farewell().await, Some(Farewell::TooManyConnections));
        assert!(matches!(newer.next().await, Some(ToClient::Peer(_))));
        assert_eq!(node.counters().get(Counter::LinksUp), 0);
        assert!(node.counters().get(Counter::LinksBack) >= 2);
        node.stop().await.expect("a clean stop");
    });
}

/// Plays r1 at its address, once: greets whoever dials as `by`, and says something as r1.
async fn play(cluster: &Cluster, listener: &TcpListener, by: u8) {
    let (stream, _) = listener.accept().await.expect("somebody dials");
    let mut wire = LengthDelimitedCodec::builder().new_framed(stream);
    let genesis = *cluster.membership.genesis();
    let replica = ReplicaId(1);
    let challenge = Challenge { versions: WireVersions::OWN, genesis, replica, nonce: [3; 32] };
    let words = |message: &ToClient| codec::encode(message).expect("small");
    assert!(wire.next().await.is_some_and(|frame| frame.is_ok()), "it knocks");
    wire.send(words(&ToClient::Challenge(challenge))).await.expect("it listens");
    let hello = loop {
        let frame = wire.next().await.expect("an answer").expect("a frame");
        if let Ok(ToReplica::Hello(hello)) = codec::decode(&frame) {
            break hello;
        }
    };
    let terms = Terms::of(&Rules::default(), []);
    wire.send(words(&ToClient::Terms(terms))).await.expect("it listens");
    while let Some(Ok(frame)) = wire.next().await {
        if matches!(codec::decode(&frame), Ok(ToReplica::Terms(_))) {
            break;
        }
    }
    let greeting = Greeting { to: ReplicaId(0), nonce: hello.body.own_nonce };
    let signed = sign(cluster.key(by), &genesis, ReplicaId(1), greeting).into_inner();
    // It may close at any moment.
    let _ = wire.send(words(&ToClient::Greeting(signed))).await;
    let _ = wire.send(words(&ToClient::Peer(vote(cluster, 1)))).await;
    while wire.next().await.is_some_and(|frame| frame.is_ok()) {}
}

#[test]
fn who_listens_at_a_peers_address_has_to_prove_that_it_is_the_peer() {
    test(async {
        let mut cluster = Cluster::new();
        let listener = cluster.listener(1);
        listener.set_nonblocking(true).expect("a socket");
        let listener = TcpListener::from_std(listener).expect("a socket");
        let node = cluster.start(0).await;
        // A stranger with another key, and then, for the next dial, the peer itself.
        play(&cluster, &listener, 2).await;
        assert_eq!(node.counters().get(Counter::LinksUp), 0);
        let playing = play(&cluster, &listener, 1);
        let heard = wait_for(&cluster, 0, |status| counted(status, "future_view") > 0);
        tokio::select! {
            () = playing => panic!("the peer was not believed"),
            heard = heard => assert_eq!(counted(&heard, "future_view"), 1),
        }
        assert_eq!(node.counters().get(Counter::LinksUp), 1);
        node.stop().await.expect("a clean stop");
    });
}

#[test]
fn two_processes_with_one_replicas_key_are_noticed_and_both_are_told() {
    test(async {
        let mut cluster = Cluster::new();
        let node = cluster.start(0).await;
        let mut wires: Vec<Wire> = Vec::new();
        for (n, instance) in (1..).zip([1, 2, 1, 2]) {
            let mut wire = Wire::peer_as(&cluster, 0, 1, instance).await;
            if let Some(mut before) = wires.pop() {
                let word =
                    if n <= 3 { Farewell::TooManyConnections } else { Farewell::SecondProcess };
                assert_eq!(before.farewell().await, Some(word), "connection {n}");
            }
            wire.send(&ToReplica::Peer(vote(&cluster, 1))).await;
            let heard = |status: &NodeStatus| counted(status, "future_view") == n;
            let status = wait_for(&cluster, 0, heard).await;
            let told = if n < 3 { Vec::new() } else { vec![Origin::Replica(ReplicaId(1))] };
            assert_eq!(status.doubled, told, "connection {n}");
            wires.push(wire);
        }
        node.stop().await.expect("a clean stop");
    });
}

#[test]
fn a_clients_key_on_two_hosts_is_noticed_and_nobody_is_turned_away() {
    test(async {
        let mut cluster = Cluster::new();
        let node = cluster.start_with(0, Limits::default()).await.expect("it starts");
        let genesis = *cluster.membership.genesis();
        let (origin, key) = (Origin::Client(client_id(1)), client_key(1));
        let mut hosts = Vec::new();
        for instance in [1, 2] {
            let place = (cluster.address(0), 0);
            let mut wire = Wire::say_hello_as(place, &genesis, origin, &key, instance).await;
            assert_eq!(wire.next().await, Some(ToClient::Welcome));
            hosts.push(wire);
        }
        assert_eq!(hosts[0].status(1).await.doubled, []);
        assert_eq!(hosts[1].status(2).await.doubled, []);
        assert_eq!(hosts[0].status(3).await.doubled, [origin]);
        assert_eq!(hosts[1].status(4).await.doubled, [origin]);
        assert_eq!(node.counters().get(Counter::ClientsAdmitted), 2);
        node.stop().await.expect("a clean stop");
    });
}

/// All but r1, ready to order and to vote.
async fn start_others(cluster: &mut Cluster) -> Vec<Node> {
    let mut nodes = Vec::new();
    for id in [0, 2, 3] {
        nodes.push(cluster.start(id).await);
    }
    for node in &nodes {
        node.ready().await.expect("it runs");
    }
    nodes
}

async fn stop(nodes: Vec<Node>) {
    for node in nodes {
        node.stop().await.expect("a clean stop");
    }
}

/// What r1 asks for.
fn fetch(cluster: &Cluster, stamp: u64, wanted: Wanted) -> ToReplica {
    let genesis = cluster.membership.genesis();
    let fetch =
        sign(cluster.key(1), genesis, ReplicaId(1), Fetch { wanted, room: u32::MAX, stamp });
    ToReplica::Peer(Message::Fetch(fetch.into_inner()))
}

#[test]
fn what_is_small_goes_between_the_pieces_of_what_is_large() {
    test(async {
        let mut cluster = Cluster::new();
        let nodes = start_others(&mut cluster).await;
        let mut client = Client::connect(&cluster, 0, &[0, 2, 3]).await;
        let large = vec![1; 1_900_000];
        for _ in 0..2 {
            client.send(Level::Weak, &large).await;
        }
        wait_for(&cluster, 0, |status| status.head.slot >= Slot(2)).await;
        let mut peer = Wire::peer(&cluster, 0, 1).await;
        // Before its first word the connection may not be in use yet, and answers would go nowhere.
        assert!(matches!(peer.next().await, Some(ToClient::Peer(_))));
        peer.send(&fetch(&cluster, 1, Wanted::Slots { from: Slot(1) })).await;
        peer.send(&fetch(&cluster, 2, Wanted::Clients)).await;
        // An old one shows that those before it were answered. Until then nothing is read here.
        peer.send(&fetch(&cluster, 1, Wanted::Clients)).await;
        wait_for(&cluster, 0, |status| counted(status, "stale_stamp") >= 1).await;
        let mut parts = Parts::default();
        let mut list_came = false;
        loop {
            match peer.next().await.expect("it goes on") {
                ToClient::Part(part) => match parts.push(&part).expect("a good piece") {
                    Some((Message::Slots(slots), _)) => {
                        assert_eq!(slots.entries.len(), 2);
                        break;
                    }
                    whole => assert_eq!(whole, None),
                },
                ToClient::Peer(Message::Clients(_)) => list_came = true,
                ToClient::Peer(message) => assert!(!matches!(message, Message::Slots(_))),
                other => panic!("{other:?}"),
            }
        }
        assert!(list_came, "it stood behind what is large");
        stop(nodes).await;
    });
}

#[test]
fn a_vote_between_the_pieces_of_what_is_large_does_not_wait_for_it() {
    test(async {
        let mut cluster = Cluster::new();
        let nodes = start_others(&mut cluster).await;
        let passed_on = request(&cluster, 1, 1, Level::Weak, &vec![1; 1_900_000]);
        let message = Message::Requests(Requests(vec![passed_on]));
        let mut pieces: Vec<Part> =
            Pieces::from(codec::encode(&message).expect("it fits a frame")).collect();
        let last = pieces.pop().expect("many pieces");
        let mut peer = Wire::peer(&cluster, 0, 1).await;
        for part in pieces {
            peer.send(&ToReplica::Part(part)).await;
        }
        peer.send(&ToReplica::Peer(vote(&cluster, 1))).await;
        let status = wait_for(&cluster, 0, |status| counted(status, "future_view") == 1).await;
        assert_eq!(status.head.slot, Slot(0));
        peer.send(&ToReplica::Part(last.clone())).await;
        wait_for(&cluster, 0, |status| status.head.slot == Slot(1)).await;
        // The end of a message that never began.
        peer.send(&ToReplica::Part(last)).await;
        assert_eq!(peer.farewell().await, Some(Farewell::Misbehaviour));
        let counters = nodes[0].counters();
        assert_eq!(counters.get(Counter::FrameMalformed), 1, "{counters:?}");
        assert_serves(&cluster, 0).await;
        stop(nodes).await;
    });
}
