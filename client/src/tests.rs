//! The whole client against played replicas on this machine.

mod fake;

use std::time::Duration;

use bytes::Bytes;
use elea_protocol::application::Undecodable;
use elea_protocol::client::Timing;
use elea_protocol::receipt::Proven;
use fake::{Manner, World, client_key};

use super::*;
use crate::sessions::SessionFile;

const HONEST: [Manner; 4] = [Manner::Honest; 4];

#[derive(Debug)]
struct Say(&'static str);

impl Command for Say {
    type Output = String;

    fn encode(&self) -> Bytes {
        Bytes::from_static(self.0.as_bytes())
    }

    fn decode(&self, result: &Bytes) -> Result<String, Undecodable> {
        String::from_utf8(result.to_vec()).map_err(|_| Undecodable)
    }
}

/// The same, of something that changes nothing.
#[derive(Debug)]
struct Look(&'static str);

impl Command for Look {
    type Output = String;

    fn encode(&self) -> Bytes {
        Say(self.0).encode()
    }

    fn only_reads(&self) -> bool {
        true
    }

    fn decode(&self, result: &Bytes) -> Result<String, Undecodable> {
        Say(self.0).decode(result)
    }
}

/// The replicas here hear everything that is said.
fn plain() -> Options {
    Options { transport: Transport::Plain, ..Options::default() }
}

/// A command with this key file.
async fn open(world: &World, key_file: &Path) -> Client {
    let sessions = SessionFile::beside(key_file, world.membership.genesis()).expect("opened");
    let options = Options { sessions: Some(Arc::new(sessions)), ..plain() };
    Client::with_options(&world.cluster(), client_key(), options).await.expect("opened")
}

async fn connect(world: &World) -> Client {
    let options = Options {
        // Long enough for a busy machine: only what is to fail waits so long.
        timeout: Duration::from_secs(20),
        timing: Timing { first_retry_ms: 200, max_retry_ms: 1000, stall_ms: 2000 },
        ..plain()
    };
    Client::with_options(&world.cluster(), client_key(), options).await.expect("a sound cluster")
}

#[tokio::test]
async fn weak_final_and_strong_commands_are_answered_with_receipts_that_verify() {
    let world = World::start(&HONEST).await;
    world.history.lock().expect("no panic").commits = true;
    let client = connect(&world).await;
    let weak = client.weak(Say("this")).await.expect("answered");
    assert_eq!(weak.result, "did this");
    assert!(weak.receipt.verify(&world.membership).is_ok());
    let done = weak.finality().await.expect("final");
    assert!(done.is_same());
    assert_eq!(done.receipt().verify(&world.membership), Ok(Proven::Final));
    let strong = client.strong(Say("that")).await.expect("answered");
    assert_eq!(strong.result, "did that");
    assert_eq!(strong.receipt.verify(&world.membership), Ok(Proven::Final));
    let watched = client.weak_final(Say("more")).await.expect("answered");
    assert!(watched.finality().await.expect("final").is_same());
    client.close().await;
}

#[tokio::test]
async fn a_merge_is_reported_with_the_new_result() {
    let world = World::start(&HONEST).await;
    {
        let mut history = world.history.lock().expect("no panic");
        (history.commits, history.merges) = (true, true);
    }
    let client = connect(&world).await;
    let operations = vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")];
    let mut executed = client.execute(Level::Weak, true, operations).await.expect("answered");
    let (finality, last) = executed.finality().await.expect("asked for").expect("final");
    if executed.answer.results[0] == "did a" {
        let results = vec![Bytes::from_static(b"redid a"), Bytes::from_static(b"redid b")];
        assert_eq!(finality, Finality::Reordered { results });
    } else {
        // All of a strong quorum's committed replies came before two speculative ones matched.
        assert_eq!(finality, Finality::Same);
    }
    assert!(last.slot > Slot(1));
    assert!(executed.finality().await.is_none(), "told once");
}

#[tokio::test]
async fn one_bad_replica_of_any_kind_does_no_harm() {
    for manner in [
        Manner::Mute,
        Manner::Liar,
        Manner::Elsewhere,
        Manner::Garbage,
        Manner::Oversized,
        Manner::Flood,
        Manner::Forger,
        Manner::Fickle,
    ] {
        let mut manners = HONEST;
        manners[1] = manner;
        let world = World::start(&manners).await;
        let client = connect(&world).await;
        for _ in 0..10 {
            let strong = client.strong(Say("it")).await;
            assert_eq!(strong.unwrap_or_else(|e| panic!("{manner:?}: {e}")).result, "did it");
            let weak = client.weak(Say("it")).await;
            assert_eq!(weak.unwrap_or_else(|e| panic!("{manner:?}: {e}")).result, "did it");
            for level in [Level::Weak, Level::Strong] {
                let read = client.read(level, Look("it")).await;
                let read = read.unwrap_or_else(|e| panic!("{manner:?}: {e}"));
                let expected = if read.ordered.is_some() { "did it" } else { "saw it" };
                assert_eq!(read.result, expected, "{manner:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_changes_nothing_is_read_without_being_ordered() {
    let world = World::start(&HONEST).await;
    let client = connect(&world).await;
    for level in [Level::Weak, Level::Strong] {
        let read = client.read(level, Look("this")).await.expect("answered");
        assert_eq!((read.result.as_str(), read.ordered), ("saw this", None));
    }
    assert_eq!(world.history.lock().expect("no panic").operations, 0);
    let changed = client.read(Level::Strong, Say("that")).await.expect("answered");
    assert_eq!((changed.result.as_str(), changed.ordered.is_some()), ("did that", true));
    client.close().await;
}

#[tokio::test]
async fn what_nobody_says_without_it_is_ordered() {
    let world = World::start(&HONEST).await;
    world.history.lock().expect("no panic").all_to_be_ordered = true;
    let client = connect(&world).await;
    for level in [Level::Weak, Level::Strong] {
        let read = client.read(level, Look("it")).await.expect("answered");
        let receipt = read.ordered.expect("it was ordered").receipt;
        assert_eq!(read.result, "did it");
        assert!(receipt.verify(&world.membership).is_ok());
    }
    assert_eq!(world.history.lock().expect("no panic").operations, 2);
    client.close().await;
}

#[tokio::test]
async fn a_read_after_a_past_asks_for_what_was_seen_until_it_is_there() {
    let world = World::start(&HONEST).await;
    let client = connect(&world).await;
    let mut past = Past::new();
    past.wrote(&client.weak(Say("this")).await.expect("answered").receipt).expect("there is room");
    world.history.lock().expect("no panic").behind = 9;
    let read = client.read_after(&mut past, Level::Weak, Look("this")).await.expect("in the end");
    assert_eq!((read.result.as_str(), read.ordered), ("saw this", None));
    // What was read stands for what was written before it, and for the next reader.
    let mut handed_on: Past = past.to_string().parse().expect("a past");
    client.read_after(&mut handed_on, Level::Strong, Look("this")).await.expect("answered");
    let pasts = world.history.lock().expect("no panic").pasts.clone();
    let names = |past: &elea_protocol::message::Past| (past.read().len(), past.written().len());
    assert_eq!(pasts.first().map(names), Some((0, 1)));
    assert_eq!(pasts.last().map(names), Some((1, 0)));
    // With a past of writes reads leave no trace.
    let mut writes = Past::of_writes();
    writes.wrote(&client.strong(Say("that")).await.expect("answered").receipt).expect("room");
    let before = writes.clone();
    client.read_after(&mut writes, Level::Weak, Look("that")).await.expect("answered");
    client.read_after(&mut writes, Level::Weak, Look("that")).await.expect("answered");
    let last = world.history.lock().expect("no panic").pasts.last().map(names);
    assert_eq!(last, Some((0, 1)));
    assert_eq!(writes, before);
    client.close().await;
}

#[tokio::test]
async fn a_read_after_a_past_that_nobody_has_says_so_and_one_of_another_cluster_is_not_asked() {
    let world = World::start(&HONEST).await;
    let client = connect(&world).await;
    let mut past = Past::new();
    client.read_after(&mut past, Level::Weak, Look("it")).await.expect("answered");
    let before = past.clone();
    world.history.lock().expect("no panic").behind = u64::MAX;
    let hasty = client.with_timeout(Duration::from_secs(1));
    let error = hasty.read_after(&mut past, Level::Weak, Look("it")).await;
    let error = error.expect_err("nobody has it");
    assert_eq!((error.kind(), error.name()), (ErrorKind::Unavailable, "behind"));
    assert_eq!(error.outcome(), Outcome::NotExecuted);
    assert!(error.to_string().contains("does not have all of it yet"), "{error}");
    assert_eq!(past, before);
    let elsewhere = World::start(&HONEST).await;
    let other = connect(&elsewhere).await;
    let error = other.read_after(&mut past, Level::Weak, Look("it")).await;
    assert_eq!(error.expect_err("another cluster").kind(), ErrorKind::Configuration);
    assert!(elsewhere.history.lock().expect("no panic").pasts.is_empty());
    let error = client.read_after(&mut past, Level::Weak, Say("it")).await;
    assert!(matches!(error, Err(Error::OutOfBounds)), "it may change something");
}

#[tokio::test]
async fn replicas_that_close_the_connection_are_dialled_again() {
    let world = World::start(&[Manner::Fickle; 4]).await;
    let client = connect(&world).await;
    for _ in 0..3 {
        assert_eq!(client.strong(Say("it")).await.expect("in the end").result, "did it");
    }
    assert_eq!(world.history.lock().expect("no panic").operations, 3, "each once");
}

#[tokio::test]
async fn the_error_tells_what_each_replica_did() {
    let world =
        World::start(&[Manner::Honest, Manner::Mute, Manner::Elsewhere, Manner::Mute]).await;
    let client = connect(&world).await;
    // Known before the wait is over, however slow the machine is.
    while !client.replicas().iter().any(|(_, _, note)| matches!(note, ReplicaNote::Failed(_))) {
        tokio::task::yield_now().await;
    }
    let error = client.with_timeout(Duration::from_millis(400)).strong(Say("it")).await;
    let error = error.expect_err("too few answer");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("of 3 replicas needed"), "{text}");
    assert!(text.contains("belongs to another cluster"), "{text}");
    assert!(text.contains("did not answer"), "{text}");
    assert!(text.contains(&world.addresses[2].to_string()), "{text}");
    let Error::NotEnoughReplicas(shortfall) = &error else { panic!("{error:?}") };
    assert_eq!(shortfall.progress.needed, 3);
}

#[tokio::test]
async fn a_cluster_that_cannot_be_reached_leaves_no_doubt_about_what_to_do() {
    let world = World::start(&HONEST).await;
    let mut cluster = world.cluster();
    cluster.addresses.pop();
    let error = Client::connect(&cluster, client_key()).await.expect_err("one address short");
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert_eq!(error.outcome(), Outcome::NotExecuted);
}

#[tokio::test]
async fn operations_that_wait_together_share_signatures_and_each_gets_its_own_result() {
    let world = World::start(&HONEST).await;
    let client = connect(&world).await;
    let texts: Vec<&'static str> =
        (0..500).map(|n| &*Box::leak(format!("{n}").into_boxed_str())).collect();
    let client = &client;
    let all = texts.iter().map(|text| async move {
        let weak = client.weak(Say(text)).await.expect("answered");
        assert_eq!(weak.result, format!("did {text}"));
    });
    futures::future::join_all(all).await;
    let history = world.history.lock().expect("no panic");
    assert_eq!(history.operations, 500);
    assert!(history.requests < 250, "{} requests", history.requests);
}

#[tokio::test]
async fn a_dropped_future_leaves_nothing_stuck() {
    let world = World::start(&HONEST).await;
    let client = connect(&world).await;
    let mut taken = world.taken.clone();
    for _ in 0..300 {
        // More than the window holds, each given up as soon as a replica has it.
        tokio::select! {
            biased;
            _ = client.strong(Say("left")) => {}
            changed = taken.changed() => changed.expect("replicas live"),
        }
    }
    assert_eq!(client.strong(Say("last")).await.expect("answered").result, "did last");
}

#[tokio::test]
async fn every_replica_is_asked_how_it_is() {
    let mut manners = HONEST;
    manners[2] = Manner::Elsewhere;
    let world = World::start(&manners).await;
    let client = connect(&world).await;
    let status = client.status().await;
    let fine: Vec<_> = status.iter().map(|(id, status)| (id.0, status.is_ok())).collect();
    assert_eq!(fine, [(0, true), (1, true), (2, false), (3, true)]);
    let reason = status[2].1.as_ref().expect_err("of another cluster");
    assert!(reason.contains("another cluster"), "{reason}");
}

#[tokio::test]
async fn what_another_process_with_the_same_key_asked_does_not_use_up_the_own_question() {
    let mut manners = HONEST;
    manners[1] = Manner::Shared;
    let world = World::start(&manners).await;
    let client = connect(&world).await;
    for _ in 0..3 {
        let status = client.status().await;
        assert!(status.iter().all(|(_, status)| status.is_ok()), "{status:?}");
    }
}

#[tokio::test]
async fn proofs_are_checked_and_whoever_shows_a_false_one_is_not_heard() {
    let mut manners = HONEST;
    manners[1] = Manner::Forger;
    let world = World::start(&manners).await;
    let client = connect(&world).await;
    for (id, shown) in client.evidence().await {
        match shown {
            Ok(proofs) => {
                assert_eq!(proofs.len(), 1);
                assert_eq!((proofs[0].culprit().0, proofs[0].view().0), (3, 0));
            }
            Err(why) => assert!(id.0 == 1 && why.contains("does not verify"), "{id}: {why}"),
        }
    }
}

#[tokio::test]
async fn commands_with_one_key_file_one_after_another_share_a_session() {
    let world = World::start(&HONEST).await;
    let folder = tempfile::tempdir().expect("a folder");
    let key_file = folder.path().join("client-0.key");
    for round in 0..6 {
        let client = open(&world, &key_file).await;
        client.weak(Say("once")).await.expect("answered");
        if round == 2 {
            // As if killed: the runtime ends without a word in a real process; here the lease is
            // simply kept by a client that goes on living.
            std::mem::forget(client);
        } else {
            client.close().await;
        }
    }
    let history = world.history.lock().expect("no panic");
    assert_eq!(history.operations, 6);
    assert_eq!(history.sessions.len(), 2, "one for the one that was kept, one for all others");
    let file = SessionFile::beside(&key_file, world.membership.genesis()).expect("opened");
    assert_eq!(file.known().expect("read"), 2);
}

#[tokio::test]
async fn a_session_that_has_left_is_not_used_and_new_ones_lie_where_the_cluster_says() {
    let world = World::start(&HONEST).await;
    let folder = tempfile::tempdir().expect("a folder");
    let key_file = folder.path().join("client-0.key");
    for generation in [3, 3, 9] {
        {
            let mut history = world.history.lock().expect("no panic");
            history.generation = generation;
            if generation == 9 {
                history.left = history.sessions.clone();
            }
        }
        let client = open(&world, &key_file).await;
        client.strong(Say("it")).await.expect("answered");
        client.close().await;
    }
    let history = world.history.lock().expect("no panic");
    let generations: Vec<_> = history.sessions.iter().map(|id| id.generation()).collect();
    assert_eq!(generations, [3, 9]);
}

#[tokio::test]
async fn a_copy_of_a_session_file_uses_no_number_twice() {
    let world = World::start(&HONEST).await;
    let folder = tempfile::tempdir().expect("a folder");
    let key_file = folder.path().join("client-0.key");
    let once = async || {
        let client = open(&world, &key_file).await;
        client.strong(Say("it")).await.expect("answered");
        client.close().await;
    };
    once().await;
    let state = folder.path().join("client-0.key.sessions");
    let copy = std::fs::read(&state).expect("written");
    for _ in 0..3 {
        once().await;
        std::fs::write(&state, &copy).expect("put back");
    }
    let history = world.history.lock().expect("no panic");
    assert_eq!((history.operations, history.sessions.len()), (4, 3));
}

#[tokio::test]
async fn one_liar_cannot_send_clients_to_the_last_generation() {
    let mut manners = HONEST;
    manners[1] = Manner::Liar;
    let world = World::start(&manners).await;
    let client = connect(&world).await;
    client.strong(Say("it")).await.expect("answered");
    let history = world.history.lock().expect("no panic");
    assert!(history.sessions.iter().all(|id| id.generation() == 0), "{:?}", history.sessions);
}

#[tokio::test]
async fn where_a_place_is_read_only_nothing_is_kept_and_a_named_place_must_be_writable() {
    let world = World::start(&HONEST).await;
    let error = |kind| {
        let path = "place".into();
        sessions::SessionError::Io { path, error: std::io::Error::from(kind) }
    };
    assert!(error(std::io::ErrorKind::PermissionDenied).is_read_only());
    assert!(error(std::io::ErrorKind::ReadOnlyFilesystem).is_read_only());
    assert!(!error(std::io::ErrorKind::NotFound).is_read_only());
    // A place that nobody may write, whoever runs the test.
    let key_file = Path::new("/proc/self/client-0.key");
    let file = SessionFile::beside(key_file, world.membership.genesis());
    assert!(file.is_err());
}

#[tokio::test]
async fn clients_of_one_process_and_key_share_connections_and_each_hears_its_own_answers() {
    let world = World::start(&HONEST).await;
    let connections = || world.history.lock().expect("no panic").connections;
    let clients = [connect(&world).await, connect(&world).await, connect(&world).await];
    for client in &clients {
        let (this, that) = tokio::join!(client.strong(Say("this")), client.weak(Say("that")));
        assert_eq!(this.expect("answered").result, "did this");
        assert_eq!(that.expect("answered").result, "did that");
        assert_eq!(client.status().await.len(), 4);
    }
    assert!(connections() <= 4, "one to each replica: {}", connections());
    let sessions = world.history.lock().expect("no panic").sessions.len();
    assert!(sessions >= 3, "each client has one of its own");

    // They last as long as one client does.
    let [first, second, last] = clients;
    first.close().await;
    drop(second);
    assert_eq!(last.strong(Say("more")).await.expect("answered").result, "did more");
    assert!(connections() <= 4);

    let options = Options { own_connections: true, ..plain() };
    let apart = Client::with_options(&world.cluster(), client_key(), options).await;
    let apart = apart.expect("a sound cluster");
    assert_eq!(apart.strong(Say("more")).await.expect("answered").result, "did more");
    assert!(connections() >= 7, "a quorum of others: {}", connections());
}
