//! A new cluster from a backup of an old one.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use elea_client::load_key;
use elea_net::{Connection, Identity};
use elea_processes::caller::call;
use elea_processes::folder::Folder;
use elea_processes::frames;
use elea_processes::replica::Place;
use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::codec;
use elea_protocol::id::ReplicaId;
use elea_protocol::message::{
    Challenge, Lent, Origin, ToClient, ToReplica, Transport, WireVersions,
};
use elea_protocol::signature::{SecretKey, Signer as _};
use rustix::process::Signal;
use serde_json::Value as Json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::harness::{Answer, Process, Town, elea, run, until};

const KEYS: usize = 2000;

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

fn backup(town: &Town, id: u8, out: &Path) -> Answer {
    let data = town.folder().data(ReplicaId(id));
    run(&mut town.command(&["backup", "--data", text(&data), "--out", text(out), "--json"]))
}

fn restore(dir: &Path, id: u8, from: &Path) -> Answer {
    let Place { cluster, key, data } = Folder::at(dir).place(ReplicaId(id));
    let mut command = elea();
    command.args(["restore", "--from", text(from), "--key", text(&key), "--data", text(&data)]);
    run(command.arg("--cluster").arg(cluster))
}

/// All keys with what they hold and when they were written.
fn contents(town: &Town) -> Vec<Json> {
    let shown = town.patient(&["scan", "--prefix", "key/", "--json"]).succeeds();
    assert_eq!(shown.err, "");
    let page = |line: &str| serde_json::from_str::<Json>(line).expect("an object a line");
    let pages: Vec<Json> = shown.out.lines().map(page).collect();
    assert!(pages.len() > 1 && pages.last().is_some_and(|page| page["result"]["next"].is_null()));
    pages
        .iter()
        .flat_map(|page| page["result"]["items"].as_array().expect("a list").clone())
        .collect()
}

/// A scan of more than a page that has a limit, and then the rest.
fn is_cut_short_and_says_so(town: &Town) {
    let limit = KEYS - 10;
    let words = ["scan", "--prefix", "key/", "--limit", &limit.to_string()];
    let cut = town.patient(&words).succeeds();
    assert_eq!(cut.out.lines().count(), limit);
    let next = format!("key/{limit:05}");
    assert!(cut.err.contains("there is more") && cut.err.contains(&next), "{}", cut.err);
    let rest = town.patient(&["scan", "--prefix", "key/", "--from", &next]).succeeds();
    assert_eq!((rest.out.lines().count(), rest.err.as_str()), (10, ""));
    assert!(rest.out.starts_with(&next));
}

/// Writes many keys, so that the state has several chunks.
fn fill(town: &Town) {
    let value = "v".repeat(400);
    for first in (0..KEYS).step_by(100) {
        let steps: Vec<_> =
            (first..first + 100).map(|n| format!("put key/{n:05} {n}-{value}")).collect();
        let mut words = vec!["txn"];
        steps.iter().for_each(|step| words.extend(["--then", step.as_str()]));
        town.patient(&words).succeeds();
    }
    town.patient(&["incr", "number", "7"]).succeeds();
    town.patient(&["add", "set", "ada"]).succeeds();
}

/// What has the checkpoints come every few slots, and scans take several pages.
fn often(settle: bool) -> impl FnMut(&Town) {
    move |town| {
        let file = town.path("cluster.toml");
        let text = fs::read_to_string(&file).expect("there");
        let bytes = if settle { 0 } else { 1 << 30 };
        let tuning = format!("[tuning]\ncheckpoint_interval = 4\nsettle_bytes = {bytes}\n");
        let pages = "[application]\npage_items = 300\n";
        fs::write(&file, format!("{text}\n{tuning}{pages}")).expect("ours");
    }
}

/// Writes until what was written before is part of a stable checkpoint of all.
fn becomes_stable(town: &Town) {
    let head = town.agrees()["head"]["slot"].as_u64().expect("a number");
    until("what was written is stable", || {
        town.patient(&["incr", "after"]).succeeds();
        let stable = |replica: &Json| replica["stable"].as_u64();
        town.status().iter().all(|replica| stable(replica) >= Some(head)).then_some(())
    });
}

#[test]
fn a_new_cluster_begins_with_a_backup_and_goes_on() {
    for settle in [true, false] {
        begins_with_a_backup_and_goes_on(settle);
    }
}

fn begins_with_a_backup_and_goes_on(settle: bool) {
    let mut old = Town::prepared(4, often(settle));
    let out = old.path("town.backup");
    backup(&old, 3, &out).fails(2, &["in use by another process"]);
    fill(&old);
    becomes_stable(&old);
    let before = contents(&old);
    assert_eq!(before.len(), KEYS);
    is_cut_short_and_says_so(&old);

    // The others go on while one is stopped.
    old.replica(3).signal(Signal::TERM);
    assert_eq!(old.replica(3).ended(), Some(0));
    old.kill(3);
    let made = backup(&old, 3, &out).succeeds().json();
    assert!(made["chunks"].as_u64() > Some(1), "{made}");
    backup(&old, 3, &out).fails(2, &["not overwritten"]);
    let nowhere = old.path("nowhere.backup");
    backup(&old, 9, &nowhere).fails(2, &["there is no replica's data"]);
    assert!(!nowhere.exists() && !old.path("replica-9.data").exists());
    old.patient(&["incr", "after"]).succeeds();
    old.restart(&[3]);
    old.agrees();

    // Nothing of a cluster goes back to its own backup, nor to one that it was not made with.
    let dir = out.parent().expect("a folder");
    restore(dir, 3, &out).fails(2, &["of this very cluster"]);

    let mut new = Town::made(4, &["--from", text(&out)], |new| {
        let dir = new.folder().path().to_owned();
        let before_restore = run(&mut new.folder().place(ReplicaId(0)).command(elea()));
        before_restore.fails(2, &["begins with the state of a backup", "elea restore"]);
        assert!(!dir.join("replica-0.key.started").exists());
        spoiled_copies_are_refused(&dir, &out);
        for id in 0..4 {
            restore(&dir, id, &out).succeeds();
        }
        restore(&dir, 0, &out).fails(2, &["not overwritten"]);
    });
    assert_eq!(new.file().tuning, old.file().tuning);
    assert_ne!(new.file().membership.genesis(), old.file().membership.genesis());

    assert_eq!(contents(&new), before);
    assert_eq!(new.patient(&["incr", "number"]).succeeds().out, "8\n");
    assert_eq!(new.patient(&["members", "set"]).succeeds().out, "ada\n");
    let state = new.agrees()["state"].clone();
    (0..4).for_each(|id| new.kill(id));
    new.restart(&[0, 1, 2, 3]);
    assert_eq!(new.agrees()["state"], state);
    assert_eq!(contents(&new), before);

    // Its own checkpoints take the place of what it began with, and it can be backed up as well.
    becomes_stable(&new);
    assert_eq!(new.patient(&["incr", "number"]).succeeds().out, "9\n");
    (0..4).for_each(|id| new.kill(id));
    backup(&new, 1, &new.path("second.backup")).succeeds();
    new.restart(&[0, 1, 2, 3]);
    assert_eq!(new.patient(&["get", "number"]).succeeds().out, "9\n");
    assert_eq!(contents(&new), before);

    // Who loses its disk begins with the backup again, and observes.
    new.kill(2);
    fs::remove_dir_all(new.path("replica-2.data")).expect("it is there");
    let dir = new.folder().path().to_owned();
    restore(&dir, 2, &out).succeeds();
    new.restart(&[2]);
    new.agrees();
    assert_eq!(new.status()[2]["standing"], "observer");
}

/// Every byte matters, and what is refused leaves nothing behind.
fn spoiled_copies_are_refused(dir: &Path, out: &Path) {
    let bytes = fs::read(out).expect("written");
    let spoiled = dir.join("spoiled.backup");
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&spoiled, bytes).expect("ours");
        let answer = restore(dir, 0, &spoiled);
        assert_eq!(answer.code, 4, "{what}: {answer:?}");
        answer.fails(4, &["does not verify"]);
        assert!(!dir.join("replica-0.data").exists(), "{what}");
    };
    let step = bytes.len() / 40;
    let places = (0..bytes.len()).step_by(step).chain([0, 14, 15, 17, bytes.len() - 1]);
    for place in places {
        let mut changed = bytes.clone();
        changed[place] ^= 1 << (place % 8);
        refused(&changed, &format!("byte {place} flipped"));
    }
    for end in [0, 5, 16, bytes.len() / 2, bytes.len() - 32, bytes.len() - 1] {
        refused(&bytes[..end], &format!("cut at {end}"));
    }
    refused(&[&bytes[..], b"x"].concat(), "longer");
    // A part that would be larger than memory is not asked for.
    refused(&[b"elea-backup-1\n", &[255; 64][..]].concat(), "an absurd length");
    fs::remove_file(&spoiled).expect("ours");
}

/// A backup of what runs.
fn live(town: &Town, out: &Path, more: &[&str]) -> Answer {
    let words = [&["backup", "--json", "--out", text(out)][..], more].concat();
    town.patient(&words)
}

/// Holds the key of a replica that is down, and answers in its place: it shows whatever is certified, and every piece of it
/// that it gives has a bit turned.
struct Forger {
    /// Its answers are spoilt ones of this replica.
    honest: (ReplicaId, String),
    id: ReplicaId,
    key: SecretKey,
    client: SecretKey,
    file: ClusterFile,
}

impl Forger {
    async fn serve(self, listener: TcpListener, forged: Arc<AtomicUsize>) {
        let this = Arc::new(self);
        while let Ok((socket, _)) = listener.accept().await {
            let (this, forged) = (Arc::clone(&this), Arc::clone(&forged));
            tokio::spawn(async move { this.answer(socket, &forged).await });
        }
    }

    async fn answer(&self, socket: TcpStream, forged: &AtomicUsize) -> io::Result<()> {
        let membership = &self.file.membership;
        let mut near = Connection::new(socket, Duration::from_secs(60))?;
        frames::body(&mut near).await?;
        let key = SecretKey::from_bytes(&self.key.to_bytes());
        let public = key.public_key().0;
        let prove = move |asked: &[u8]| key.sign_handshake(asked).map(|signed| signed.0);
        let identity = Identity::new(public, prove, &WireVersions::OWN.application_protocols());
        let (mut near, proved) = identity.accept(near).await.map_err(io::Error::other)?;
        if proved != self.client.public_key().0 {
            // Peers find that it is down.
            return Ok(());
        }
        let nonce = near.binding()?.ok_or(io::ErrorKind::Unsupported)?;
        let (genesis, versions) = (*membership.genesis(), WireVersions::OWN);
        say(
            &mut near,
            &ToClient::Challenge(Challenge { versions, genesis, replica: self.id, nonce }),
        )
        .await?;
        frames::body(&mut near).await?;
        say(&mut near, &ToClient::Welcome).await?;
        let origin = Origin::Client(self.client.public_key().into());
        let (honest, at) = &self.honest;
        let (to, transport) = ((*honest, at.as_str()), Transport::Encrypted);
        let mut far = call(membership, to, origin, &self.client, transport).await?;
        while !matches!(frames::message(&mut far).await?, ToClient::Welcome) {}
        loop {
            let question = frames::body(&mut near).await?;
            let asked = codec::decode::<ToReplica>(&question).map_err(io::Error::other)?;
            if !matches!(asked, ToReplica::AskState | ToReplica::AskPiece { .. }) {
                continue;
            }
            far.write_all(&frames::frame(&asked)?).await?;
            far.flush().await?;
            let mut answer = frames::message(&mut far).await?;
            while !matches!(answer, ToClient::State(_) | ToClient::Piece { .. }) {
                answer = frames::message(&mut far).await?;
            }
            if let ToClient::Piece { lent: Lent::Piece(piece), .. } = &mut answer {
                let mut spoilt = piece.to_vec();
                let middle = spoilt.len() / 2;
                spoilt[middle] ^= 1;
                *piece = spoilt.into();
                forged.fetch_add(1, Ordering::SeqCst);
            }
            say(&mut near, &answer).await?;
        }
    }
}

async fn say(to: &mut Connection, word: &ToClient) -> io::Result<()> {
    let body = codec::encode(word).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    to.write_all(&[&length.to_be_bytes()[..], &body].concat()).await?;
    to.flush().await
}

#[test]
fn a_running_cluster_is_backed_up_beside_a_liar_with_all_that_was_final() {
    let mut old = Town::prepared(4, often(true));
    fill(&old);
    // One replica lies, and there are three others.
    old.kill(3);
    let runtime = Runtime::new().expect("threads");
    let file = old.file();
    let forged = Arc::new(AtomicUsize::new(0));
    let forger = Forger {
        honest: (ReplicaId(1), file.addresses[1].clone()),
        id: ReplicaId(3),
        key: load_key(old.folder().replica_key(ReplicaId(3))).expect("ours"),
        client: load_key(old.folder().client_key(0)).expect("ours"),
        file: file.clone(),
    };
    let at = file.addresses[3].clone();
    let listener = runtime.block_on(TcpListener::bind(at)).expect("it was its own");
    runtime.spawn(forger.serve(listener, Arc::clone(&forged)));

    let last = old.patient(&["incr", "number", "--json"]).succeeds().json();
    let (before, out) = (contents(&old), old.path("live.backup"));
    // It goes on meanwhile.
    let writing = Process::start(
        old.command(&["bench", "--clients", "1", "--pipeline", "1", "--seconds", "3"])
            .args(["--timeout", "60s"]),
        &old.path("bench.log"),
    );
    let made = live(&old, &out, &["--sessions", "none"]);
    assert_eq!(made.code, 0, "{made:?}");
    assert!(made.err.contains("r3 gave a piece that is not of the certified state"), "{made:?}");
    drop(writing);
    let made = made.json();
    assert!(made["slot"].as_u64() >= last["slot"].as_u64(), "{made} {last}");
    assert!(made["chunks"].as_u64() > Some(1) && forged.load(Ordering::SeqCst) > 0, "{made}");
    live(&old, &out, &[]).fails(2, &["not overwritten"]);
    assert!(!old.path("live.backup.part").exists());

    let new = Town::made(4, &["--from", text(&out)], |new| {
        let dir = new.folder().path().to_owned();
        (0..4).for_each(|id| drop(restore(&dir, id, &out).succeeds()));
    });
    assert_eq!(contents(&new), before);
    assert_eq!(new.patient(&["incr", "number"]).succeeds().out, "9\n");
}

#[test]
fn a_backup_that_was_interrupted_goes_on_and_one_of_nobody_says_so() {
    let mut town = Town::prepared(4, often(true));
    fill(&town);
    becomes_stable(&town);
    let (out, part) = (town.path("live.backup"), town.path("live.backup.part"));
    // Slow enough to be stopped in the middle: what is there then was written piece by piece.
    let slow = ["backup", "--out", text(&out), "--rate", "1", "--timeout", "60s"];
    let size = || fs::metadata(&part).map_or(0, |data| data.len());
    let mut process = Process::start(&mut town.command(&slow), &town.path("backup.log"));
    until("some of it is there", || (size() > 100_000).then_some(()));
    process.signal(Signal::KILL);
    process.ended();
    let there = size();
    // It goes on meanwhile, and the state that was begun with is still given.
    let meanwhile = town.patient(&["incr", "number", "--json"]).succeeds().json();
    // What was cut off in the middle of a piece is fetched again.
    let bytes = fs::read(&part).expect("there");
    fs::write(&part, &bytes[..bytes.len() - 7]).expect("ours");
    let made = live(&town, &out, &[]).succeeds().json();
    assert!(made["bytes"].as_u64() > Some(there), "{made}");
    assert!(made["slot"].as_u64() < meanwhile["slot"].as_u64(), "it was begun anew: {made}");
    let examined = Town::made(4, &["--from", text(&out)], |new| {
        let dir = new.folder().path().to_owned();
        (0..4).for_each(|id| drop(restore(&dir, id, &out).succeeds()));
    });
    assert_eq!(contents(&examined), contents(&town));

    // Nothing of use was there: another cluster's, or nothing sound.
    fs::write(&part, &bytes[..20]).expect("ours");
    fs::remove_file(&out).expect("ours");
    live(&town, &out, &[]).succeeds();
    (1..4).for_each(|id| town.kill(id));
    let out = town.path("late.backup");
    let words = ["backup", "--out", text(&out), "--timeout", "1s"];
    town.elea(&words).fails(3, &["a strong request needs 3"]);
    assert!(!out.exists());
}

#[test]
fn where_nothing_is_certified_there_is_nothing_to_back_up() {
    let mut town = Town::new(4);
    town.kill(0);
    backup(&town, 0, &town.path("b")).fails(2, &["nothing to back up"]);
    assert!(!town.path("b").exists());
}

#[test]
fn a_backup_of_a_cluster_that_has_only_just_begun_has_all_that_is_final() {
    let mut town = Town::new(4);
    for n in ["1", "2", "3"] {
        town.patient(&["put", &format!("key/{n}"), n]).succeeds();
    }
    let head = town.agrees()["head"]["slot"].clone();
    town.replica(2).signal(Signal::TERM);
    assert_eq!(town.replica(2).ended(), Some(0));
    town.kill(2);
    let out = town.path("young.backup");
    let made = backup(&town, 2, &out).succeeds().json();
    assert_eq!((&made["slot"], &made["final"]), (&head, &head), "{made}");

    // One that is killed has it a moment later, and one that starts again has it still.
    town.restart(&[2]);
    town.patient(&["put", "key/4", "4"]).succeeds();
    let head = town.agrees()["head"]["slot"].clone();
    until("the head is stable", || {
        town.status().iter().all(|replica| replica["stable"] == head).then_some(())
    });
    town.kill(1);
    town.restart(&[1]);
    town.agrees();
    town.kill(1);
    let out = town.path("second.backup");
    let made = backup(&town, 1, &out).succeeds().json();
    assert_eq!(made["slot"], head, "{made}");

    let new = Town::made(4, &["--from", text(&out)], |new| {
        let dir = new.folder().path().to_owned();
        (0..4).for_each(|id| drop(restore(&dir, id, &out).succeeds()));
    });
    for n in ["1", "2", "3", "4"] {
        let found = new.patient(&["get", &format!("key/{n}")]).succeeds();
        assert_eq!(found.out, format!("{n}\n"));
    }
}
