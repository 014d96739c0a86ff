//! `elea demo`: a tour of what works, with real processes and real disks on this machine.
//!
//! It shows what is there today. A killed primary, a lying replica and a partition that heals
//! belong in here as soon as the replica can handle them.

use std::path::Path;
use std::time::{Duration, Instant};

use elea_kv::{Answer, Counted, Get, Incr, Operation, Outcome as Step, Put};
use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::id::ReplicaId;
use elea_protocol::quorum::Strength;
use rand::RngExt as _;

use crate::children::{Place, Process, start_all, stop_all};
use crate::cluster::{Cluster, Reply, Wait};
use crate::commands::init::{self, Plan};
use crate::commands::receipt;
use crate::commands::up::Stopping;
use crate::failure::{Failure, Kind, Outcome};
use crate::files;
use crate::output::line;

const REPLICAS: u8 = 4;

/// Generous for a busy machine; answers mostly come within milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the strong request that cannot succeed is given.
const SHORT: Duration = Duration::from_secs(2);

/// Shows everything, or stops at Ctrl-C. The processes end with this one in any case.
pub async fn run() -> Outcome {
    let mut stopping = Stopping::listen()?;
    tokio::select! {
        biased;
        () = stopping.wait() => Err(Failure::unavailable("the demo was stopped")),
        outcome = tour() => outcome,
    }
}

async fn tour() -> Outcome {
    let begin = Instant::now();
    let folder = tempfile::Builder::new()
        .prefix("elea-demo-")
        .tempdir()
        .map_err(|error| Failure::usage(format!("no temporary folder can be made ({error})")))?;
    line("Elea replicates a key-value store among parties that do not trust each other.");
    title(1, "Four replicas, each a process with a disk of its own");
    let (file, processes) = start(folder.path()).await?;
    let mut demo = Demo::new(folder.path(), file, processes).await?;
    let outcome = demo.show().await;
    let failures = stop_all(std::mem::take(&mut demo.processes)).await;
    outcome?;
    failures.into_iter().next().map_or(Ok(()), Err)?;
    line(&format!(
        "\nSeen in {:.1} s: weak and strong requests, two crashes, recovery from disk, and receipts \
         that\nnobody can forge. All processes are stopped and their files are gone.\n\
         Go on with `elea init town && elea up town`.",
        begin.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn title(number: u8, text: &str) {
    line(&format!("\n{number}. {text}"));
}

fn say(text: &str) {
    line(&format!("   {text}"));
}

/// Makes a cluster and starts it. The ports are free when they are chosen; if somebody else takes
/// one before the replica does, everything is done again with others.
async fn start(folder: &Path) -> Result<(ClusterFile, Vec<Process>), Failure> {
    const ATTEMPTS: usize = 5;
    let mut last = None;
    for attempt in 0..ATTEMPTS {
        let dir = folder.join(format!("attempt-{attempt}"));
        let addresses = free_addresses(REPLICAS)?;
        let plan = Plan { name: String::from("demo"), addresses, clients: 1 };
        let file = init::write(&dir, &plan)?;
        let places = file.membership.size().members().map(|id| (id, Place::of(&dir, id)));
        match start_all(places).await {
            Ok(processes) => return Ok((file, processes)),
            Err(failure) if failure.message.contains("in use") => last = Some(failure),
            Err(failure) => return Err(failure),
        }
    }
    Err(last.unwrap_or_else(|| Failure::usage("no free ports were found")))
}

/// Ports that nobody listens on. They lie below those that the system gives to outgoing
/// connections, so that none of them is taken while a replica is down.
fn free_addresses(count: u8) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    let mut held = Vec::new();
    for _ in 0..1000 {
        if found.len() == usize::from(count) {
            return Ok(found);
        }
        let address = format!("127.0.0.1:{}", rand::rng().random_range(10_000..32_000_u16));
        // Held until all are found, so that none is found twice.
        if let Ok(listener) = std::net::TcpListener::bind(&address) {
            held.push(listener);
            found.push(address);
        }
    }
    Err(Failure::usage("no free ports were found on 127.0.0.1"))
}

struct Demo {
    dir: std::path::PathBuf,
    file: ClusterFile,
    processes: Vec<Process>,
    cluster: Cluster,
}

impl Demo {
    async fn new(
        folder: &Path,
        file: ClusterFile,
        processes: Vec<Process>,
    ) -> Result<Self, Failure> {
        let dir = processes
            .first()
            .map_or_else(|| folder.to_path_buf(), |process| process.dir().to_path_buf());
        let path = dir.join("client-0.key");
        let cluster = Cluster::open(&file, files::load_key(&path)?, &path).await?;
        Ok(Self { dir, file, processes, cluster })
    }

    async fn show(&mut self) -> Outcome {
        let size = self.file.membership.size();
        for process in &self.processes {
            let address = &self.file.addresses[usize::from(process.id().0)];
            say(&format!("{} at {address}, process {}", process.id(), process.pid().unwrap_or(0)));
        }
        say(&format!(
            "One of them may lie or break. A weak answer needs {} that agree, a strong one {}.",
            size.quorum(Strength::Weak),
            size.quorum(Strength::Strong)
        ));

        title(2, "Strong and weak requests");
        let reply = self.ask(Put::new("greeting", "hello"), Wait::Strong).await?;
        say(&format!("strong put greeting hello   final in slot {}{}", reply.slot, took(&reply)));
        let reply = self.ask(Incr::new("stock", 10), Wait::Strong).await?;
        say(&format!("strong incr stock 10        -> {}{}", number(&reply)?, took(&reply)));
        let reply = self.ask(Incr::new("stock", -1), Wait::Weak).await?;
        say(&format!("weak   incr stock -1        -> {}{}", number(&reply)?, took(&reply)));
        say("A weak answer comes sooner; it is never lost, but its place may still change.");
        let reply = self.ask(Incr::new("stock", -1), Wait::Final).await?;
        say(&format!("final  incr stock -1        -> {}{}", number(&reply)?, took(&reply)));

        title(3, "One replica is killed: everything goes on");
        let (first, second) = self.backups().await?;
        self.kill(first).await;
        let reply = self.ask(Incr::new("stock", -1), Wait::Weak).await?;
        say(&format!("weak   incr stock -1        -> {}{}", number(&reply)?, took(&reply)));
        let reply = self.ask(Incr::new("stock", -1), Wait::Strong).await?;
        say(&format!("strong incr stock -1        -> {}{}", number(&reply)?, took(&reply)));

        title(4, "Two are down: more than the cluster is made for, yet weak requests go on");
        self.kill(second).await;
        let sold = self.ask(Incr::new("stock", -1), Wait::Weak).await?;
        say(&format!("weak   incr stock -1        -> {}{}", number(&sold)?, took(&sold)));
        match self.cluster.ask(Get::new("stock").into(), Wait::Strong, SHORT).await {
            Err(failure) if failure.kind == Kind::Unavailable => {
                say(&format!("strong get stock            refused: {failure}"));
            }
            Err(failure) => return Err(failure),
            Ok(_) => return Err(broken("two of four replicas gave a strong answer")),
        }

        title(5, "Both come back, read their disks, and catch up");
        self.restart(first).await?;
        self.restart(second).await?;
        let reply = self.ask(Get::new("stock"), Wait::Strong).await?;
        let stock = text(&reply)?;
        if stock != number(&sold)?.to_string() {
            return Err(broken("a weak sale was lost"));
        }
        say(&format!("strong get stock            -> {stock}: nothing was lost"));
        let head = self.agreed().await?;
        say(&format!("all four have the same history up to slot {head}, and the same state"));

        title(6, "A receipt: proof for anybody who has the cluster file, offline");
        self.receipt(&reply)
    }

    fn receipt(&self, reply: &Reply) -> Outcome {
        let path = self.dir.join("stock.receipt");
        receipt::save(&path, &reply.receipt)?;
        let mut bytes = std::fs::read(&path)
            .map_err(|error| Failure::usage(format!("the receipt cannot be read ({error})")))?;
        let membership = &self.file.membership;
        let (checked, _) = receipt::check(&bytes, membership).map_err(Failure::misbehaviour)?;
        let voters: Vec<_> = checked.votes.iter().map(|vote| vote.by.to_string()).collect();
        say(&format!("{} bytes, signed by {}: valid", bytes.len(), voters.join(", ")));
        let bit = rand::rng().random_range(0..bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        match receipt::check(&bytes, membership) {
            Ok(_) => Err(broken("a forged receipt was accepted")),
            Err(why) => {
                say(&format!("with bit {bit} flipped: worthless ({why})"));
                Ok(())
            }
        }
    }

    async fn ask(&self, operation: impl Into<Operation>, wait: Wait) -> Result<Reply, Failure> {
        self.cluster.ask(operation.into(), wait, PATIENCE).await
    }

    /// Two replicas that are not the primary.
    async fn backups(&self) -> Result<(ReplicaId, ReplicaId), Failure> {
        let said = self.cluster.statuses(PATIENCE).await;
        let primary = said.iter().flatten().next().map(|status| status.primary);
        let mut others =
            self.processes.iter().rev().map(Process::id).filter(|id| Some(*id) != primary);
        others.next().zip(others.next()).ok_or_else(|| broken("there are too few replicas"))
    }

    async fn kill(&mut self, id: ReplicaId) {
        if let Some(at) = self.processes.iter().position(|process| process.id() == id) {
            let mut process = self.processes.remove(at);
            say(&format!("kill -9 {} ({id})", process.pid().unwrap_or(0)));
            process.kill().await;
        }
    }

    async fn restart(&mut self, id: ReplicaId) -> Outcome {
        let mut process = Process::spawn(id, &Place::of(&self.dir, id))?;
        let ready = process.ready().await;
        self.processes.push(process);
        ready?;
        say(&format!("{id} is back"));
        Ok(())
    }

    /// The head that all replicas have reached, with equal states.
    async fn agreed(&self) -> Result<u64, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.cluster.statuses(SHORT).await;
            let heads: Vec<_> =
                said.iter().flatten().map(|status| (status.head, status.state)).collect();
            if let Some((head, _)) = heads.first()
                && heads.len() == usize::from(REPLICAS)
                && heads.iter().all(|other| Some(other) == heads.first())
            {
                return Ok(head.slot.0);
            }
            if Instant::now() > deadline {
                return Err(broken("the replicas did not come to one history"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What the demo shows did not happen: that is a bug of ours, or somebody's attack.
fn broken(what: &str) -> Failure {
    Failure::misbehaviour(format!("{what}: this must not happen, please report it"))
}

fn took(reply: &Reply) -> String {
    format!("   ({:.1} ms)", reply.latency.as_secs_f64() * 1000.0)
}

fn number(reply: &Reply) -> Result<i64, Failure> {
    match &reply.answer {
        Answer::Step(Step::Incr(Counted { value, .. })) => Ok(*value),
        _ => Err(broken("an increment was not answered with a number")),
    }
}

fn text(reply: &Reply) -> Result<String, Failure> {
    match &reply.answer {
        Answer::Step(Step::Get(Some(found))) => Ok(String::from_utf8_lossy(&found.value).into()),
        _ => Err(broken("a read was not answered with a value")),
    }
}
