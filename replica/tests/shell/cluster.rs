//! Replicas together: requests, restarts, failures and clear words about what is wrong.

use elea_protocol::edition::Editions;
use elea_protocol::message::{Farewell, Level, NodeStatus, ReplyKind, Standing, WireVersions};
use elea_protocol::replica::Setup;
use elea_replica::{Config, Counter, Limits, Node, RunError, StoreError};

use crate::support::{Adder, Client, Cluster, Wire, test, wait_for};

/// What the replica has counted under this name.
fn counted(status: &NodeStatus, name: &str) -> u64 {
    status.counters.iter().find(|(known, _)| known == name).map_or(0, |(_, count)| *count)
}

async fn stop(nodes: Vec<Node>) {
    for node in nodes {
        node.stop().await.expect("a clean stop");
    }
}

#[test]
fn four_replicas_answer_strong_and_weak_requests_and_remember_them_after_a_restart() {
    test(async {
        let mut cluster = Cluster::new();
        let nodes = cluster.start_all().await;
        for node in &nodes {
            node.ready().await.expect("it runs");
        }
        let mut client = Client::connect(&cluster, 0, &[0, 1, 2, 3]).await;
        for _ in 0..20 {
            client.send(Level::Strong, &[1]).await;
        }
        let sums = client.answers(1..=20, ReplyKind::Committed).await;
        assert_eq!(sums.values().max(), Some(&20));
        let mut other = Client::connect(&cluster, 1, &[0, 1, 2, 3]).await;
        other.send(Level::Weak, &[5]).await;
        assert_eq!(other.answers(1..=1, ReplyKind::Speculative).await[&1], 25);
        assert!(nodes[0].counters().get(Counter::StoreCommits) > 0);
        drop((client, other));
        stop(nodes).await;

        let nodes = cluster.start_all().await;
        let mut third = Client::connect(&cluster, 2, &[0, 1, 2, 3]).await;
        third.send(Level::Strong, &[10]).await;
        assert_eq!(third.answers(1..=1, ReplyKind::Committed).await[&1], 35);
        drop(third);
        stop(nodes).await;
    });
}

#[test]
fn three_go_on_without_the_fourth_and_it_catches_up_when_it_comes_back() {
    test(async {
        let mut cluster = Cluster::new();
        let mut nodes = Vec::new();
        for id in 0..3 {
            nodes.push(cluster.start(id).await);
        }
        for node in &nodes {
            node.ready().await.expect("it runs");
        }
        let mut client = Client::connect(&cluster, 0, &[0, 1, 2]).await;
        for _ in 0..30 {
            client.send(Level::Strong, &[2]).await;
        }
        client.answers(1..=30, ReplyKind::Committed).await;
        drop(client);
        nodes.push(cluster.start(3).await);
        let head = Wire::client(&cluster, 0, 0).await.status(1).await.head;
        let late = wait_for(&cluster, 3, |status| status.head.slot >= head.slot).await;
        assert_eq!(late.head, head);
        assert_eq!(counted(&late, "state_transfers"), 0, "the others had the slots in memory");
        // It is late, and nobody knows it in another life.
        wait_for(&cluster, 3, |status| status.standing == Standing::Voter).await;
        stop(nodes).await;
    });
}

#[test]
fn one_that_was_away_longer_than_the_others_remember_fetches_the_state_and_starts_from_it() {
    test(async {
        let mut cluster = Cluster::new();
        cluster.tuning.rules.checkpoint_interval = 4;
        cluster.tuning.retained_slots = 1;
        cluster.tuning.batch_requests = 1;
        // Or what is above the state would be in another one as soon as nothing follows.
        cluster.tuning.checkpoint_delay_ms = 3_600_000;
        // Slots of its own, which the state then replaces on its disk.
        let mut nodes = cluster.start_all().await;
        for node in &nodes {
            node.ready().await.expect("it runs");
        }
        let mut client = Client::connect(&cluster, 0, &[0, 1, 2, 3]).await;
        for _ in 0..3 {
            client.send(Level::Strong, &[1]).await;
        }
        client.answers(1..=3, ReplyKind::Committed).await;
        wait_for(&cluster, 3, |status| status.head.slot.0 >= 3).await;
        nodes.pop().expect("the fourth").stop().await.expect("a clean stop");

        for _ in 0..40 {
            client.send(Level::Strong, &[1]).await;
        }
        client.answers(4..=43, ReplyKind::Committed).await;
        drop(client);
        for id in 0..3 {
            wait_for(&cluster, id, |status| status.stable.0 >= 40).await;
        }
        let head = Wire::client(&cluster, 0, 0).await.status(1).await.head;
        nodes.push(cluster.start(3).await);
        let late = wait_for(&cluster, 3, |status| status.head.slot >= head.slot).await;
        assert_eq!(late.head, head);
        assert_eq!(counted(&late, "state_transfers"), 1);

        // From the state and the slots above it, which are all that is on its disk.
        nodes.pop().expect("the fourth").stop().await.expect("a clean stop");
        let alone = cluster.start(3).await;
        let again = Wire::client(&cluster, 3, 0).await.status(1).await;
        assert_eq!((again.head, again.state), (late.head, late.state));
        assert_eq!(counted(&again, "state_transfers"), 0);
        nodes.push(alone);
        // Now nothing is certified without it.
        nodes.remove(2).stop().await.expect("a clean stop");
        let mut client = Client::connect(&cluster, 1, &[0, 1, 3]).await;
        client.send(Level::Strong, &[7]).await;
        assert_eq!(client.answers(1..=1, ReplyKind::Committed).await[&1], 50);
        drop(client);
        stop(nodes).await;
    });
}

/// Each program is replaced by one that speaks one version of frames more, and executes one edition more.
#[test]
fn replicas_are_updated_one_after_the_other_while_they_serve() {
    test(async {
        let mut cluster = Cluster::new();
        let mut nodes = cluster.start_all().await;
        for node in &nodes {
            node.ready().await.expect("it runs");
        }
        cluster.wire.newest += 1;
        cluster.editions = Editions::with(1..=2);
        for id in 0..4 {
            // Those before it are new, and those behind it old.
            let node = nodes.remove(0);
            node.stop().await.expect("a clean stop");
            nodes.push(cluster.start(id).await);
            let mut client = Client::connect(&cluster, id, &[0, 1, 2, 3]).await;
            client.send(Level::Strong, &[1]).await;
            let sums = client.answers(1..=1, ReplyKind::Committed).await;
            assert_eq!(sums[&1], u64::from(id) + 1);
            let head = Wire::client(&cluster, 0, 7).await.status(1).await.head;
            let caught_up = |status: &NodeStatus| status.head.slot >= head.slot;
            let status = wait_for(&cluster, id, caught_up).await;
            assert!(status.disagreements.is_empty(), "{:?}", status.disagreements);
            assert!(id == 3 || status.edition.application == 1, "not before all can");
        }
        // When all are known to execute it.
        let mut client = Client::connect(&cluster, 4, &[0, 1, 2, 3]).await;
        for number in 1.. {
            client.send(Level::Strong, &[1]).await;
            client.answers(number..=number, ReplyKind::Committed).await;
            if Wire::client(&cluster, 0, 7).await.status(1).await.edition.application == 2 {
                break;
            }
        }
        drop(client);
        stop(nodes).await;

        // Who is put back to the old program cannot execute what there is now.
        cluster.editions = Editions::with(1..=1);
        let error = cluster.start_with(0, Limits::default()).await.err();
        assert!(matches!(error, Some(RunError::Edition { .. })), "{error:?}");
        cluster.editions = Editions::with(1..=2);
        cluster.start(0).await.stop().await.expect("nothing is spoilt");
    });
}

#[test]
fn who_has_no_version_of_frames_in_common_says_so() {
    test(async {
        let mut cluster = Cluster::new();
        let old = cluster.start(0).await;
        let newer = WireVersions::OWN.newest + 1;
        cluster.wire = WireVersions { lowest: newer, newest: newer };
        let new = cluster.start(1).await;
        let differs = |status: &NodeStatus| !status.disagreements.is_empty();
        let status = wait_for(&cluster, 0, differs).await;
        let told = status.disagreements[0].settings[0].to_string();
        assert!(told.contains(&format!("wire_version = {newer} there")), "{told}");
        stop(vec![old, new]).await;
    });
}

#[test]
fn a_stop_says_farewell_and_the_address_is_free_again() {
    test(async {
        let mut cluster = Cluster::new();
        let node = cluster.start(0).await;
        let mut client = Wire::client(&cluster, 0, 0).await;
        let mut peer = Wire::peer(&cluster, 0, 1).await;
        node.stop().await.expect("a clean stop");
        assert_eq!(client.farewell().await, Some(Farewell::Stopping));
        assert_eq!(peer.farewell().await, Some(Farewell::Stopping));
        cluster.start(0).await.stop().await.expect("a clean stop");
    });
}

#[test]
fn run_ends_when_it_is_told_to() {
    test(async {
        let cluster = Cluster::new();
        let config = Config { listen: "127.0.0.1:0".to_owned(), ..cluster.config(0) };
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(elea_replica::run(config, Adder::default(), told));
        drop(tell);
        assert_eq!(running.await.expect("no panic"), Ok(()));
    });
}

#[test]
fn an_application_that_panics_stops_its_replica_with_a_word() {
    test(async {
        let mut cluster = Cluster::new();
        let nodes = cluster.start_all().await;
        for node in &nodes {
            node.ready().await.expect("it runs");
        }
        let mut client = Client::connect(&cluster, 0, &[0, 1, 2, 3]).await;
        client.send(Level::Weak, b"panic").await;
        assert!(matches!(nodes[0].failed().await, RunError::Panicked(_)));
        for node in nodes {
            // Backups may be stopped before they execute it.
            let stopped = node.stop().await;
            assert!(matches!(stopped, Ok(()) | Err(RunError::Panicked(_))), "{stopped:?}");
        }
    });
}

#[test]
fn what_cannot_start_says_why() {
    test(async {
        let mut cluster = Cluster::new();
        let node = cluster.start(0).await;
        let refused = |config| async { Node::start(config, Adder::default()).await.err() };
        let config = || Config { listen: "127.0.0.1:0".to_owned(), ..cluster.config(0) };

        let error = refused(cluster.config(0)).await.expect("its address is taken");
        assert!(matches!(error, RunError::AddressInUse { .. }), "{error}");
        let error = refused(config()).await.expect("its folder is in use");
        assert!(matches!(error, RunError::Store(StoreError::InUse { .. })), "{error}");
        let error = refused(Config { listen: "nowhere".to_owned(), ..config() }).await;
        assert!(matches!(error, Some(RunError::CannotListen { .. })));
        let error = refused(Config { addresses: vec![], ..config() }).await;
        assert_eq!(error, Some(RunError::Addresses { addresses: 0, replicas: 4 }));
        let limits = Limits { handshakes: 0, ..Limits::default() };
        let error = refused(Config { limits, ..config() }).await;
        assert!(matches!(error, Some(RunError::Limit(_))));
        let setup = Setup { signer: cluster.config(1).setup.signer, ..config().setup };
        let error = refused(Config { setup, ..config() }).await;
        assert!(matches!(error, Some(RunError::WrongKey(_))));
        node.stop().await.expect("a clean stop");

        let data = cluster.config(0).data;
        let error = refused(Config { data, listen: config().listen, ..cluster.config(1) }).await;
        let other = matches!(error, Some(RunError::Store(StoreError::OtherReplica { .. })));
        assert!(other, "{error:?}");
    });
}
