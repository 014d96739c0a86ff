//! `elea demo`: the whole of it in under a minute, with real processes, disks and sockets on this
//! machine.
//!
//! | file | what is in it |
//! |---|---|
//! | `town` | the cluster: its processes, and a network that can be split |
//! | `market` | the split, the sales on both sides, the merge, the receipts |

mod market;
mod town;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use elea_kv::{Answer, Counted, Get, Incr, Operation, Outcome as Step, Put};
use elea_processes::liar::Liar;
use elea_protocol::evidence::Evidence;
use elea_protocol::id::{ReplicaId, Slot};
use elea_protocol::quorum::Strength;
use futures::FutureExt as _;
use futures::future::pending;
use tokio::time::sleep;

use self::town::{Town, agreed, furthest, until};
use crate::cli;
use crate::cluster::{Cluster, Reply, Wait};
use crate::commands::evidence;
use crate::commands::top::{self, Page};
use crate::failure::{Failure, Outcome};
use crate::output::line;
use crate::stopping::Stopping;

/// Generous for a busy machine; answers mostly come within milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long is waited for replicas of which some are known not to answer.
const SHORT: Duration = Duration::from_millis(1500);

/// How long each part can be looked at, where there is a page.
const PAUSE: Duration = Duration::from_secs(4);

/// The liar votes for a slot so far above the head: one that is not decided before it is heard.
const FAR: u64 = 64;

/// Shows everything, or stops at Ctrl-C. The processes end with this one in any case.
pub async fn run(args: &cli::Demo) -> Outcome {
    let mut stopping = Stopping::listen()?;
    tokio::select! {
        biased;
        () = stopping.wait() => Err(Failure::unavailable("the demo was stopped")),
        outcome = tour(args.web.as_deref()) => outcome,
    }
}

async fn tour(web: Option<&str>) -> Outcome {
    let begin = Instant::now();
    let folder = tempfile::Builder::new()
        .prefix("elea-demo-")
        .tempdir()
        .map_err(|error| Failure::usage(format!("no temporary folder can be made ({error})")))?;
    line("Elea replicates a key-value store among parties that do not trust each other.");
    title(1, "Four replicas, each a process with a disk of its own");
    let town = Town::start(folder.path()).await?;
    let cluster = town.client().await?;
    let (page, pause) = match web {
        Some(address) => (page(&town, address).await?.left_future(), PAUSE),
        None => (pending().right_future(), Duration::ZERO),
    };
    let mut demo = Demo { town, cluster, pause };
    let outcome = tokio::select! {
        outcome = demo.show() => outcome,
        never = page => match never {},
    };
    let failures = demo.town.end().await;
    outcome?;
    failures.into_iter().next().map_or(Ok(()), Err)?;
    line(&format!(
        "\nSeen in {:.1} s: a primary killed, a liar caught, a network split and healed with \
         nothing lost\nand nothing sold twice in the end, and receipts that nobody can forge. All \
         processes are stopped\nand their files are gone. Go on with `elea init town && elea up \
         town`.",
        begin.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// Opens a page of it, and waits until somebody looks.
async fn page(
    town: &Town,
    address: &str,
) -> Result<impl Future<Output = Infallible> + use<>, Failure> {
    let page = Page::open(address).await?;
    say(&format!("It begins when this page is opened: {}", page.url()));
    page.wait_for_viewer().await;
    Ok(top::beside(page, town.client().await?, town.file.clone()))
}

fn title(number: u8, text: &str) {
    line(&format!("\n{number}. {text}"));
}

fn say(text: &str) {
    line(&format!("   {text}"));
}

/// An operation and what came of it, in two columns.
fn tell(what: &str, came: &str) {
    say(&format!("{what:<26} {came}"));
}

struct Demo {
    town: Town,
    cluster: Cluster,
    /// Between the parts, so that what happens can be seen on a page.
    pause: Duration,
}

impl Demo {
    async fn show(&mut self) -> Outcome {
        let size = self.town.file.membership.size();
        for replica in &self.town.replicas {
            let address = self.town.address(replica.id());
            say(&format!("{} at {address}, process {}", replica.id(), replica.pid().unwrap_or(0)));
        }
        say(&format!(
            "One of them may lie or break. A weak answer needs {} that agree, a strong one {}.",
            size.quorum(Strength::Weak),
            size.quorum(Strength::Strong)
        ));
        self.requests().await?;
        sleep(self.pause).await;
        self.crash().await?;
        sleep(self.pause).await;
        self.lie().await?;
        sleep(self.pause).await;
        market::show(&mut self.town, &self.cluster, self.pause).await?;
        sleep(self.pause).await;
        Ok(())
    }

    async fn requests(&self) -> Outcome {
        title(2, "Weak and strong requests");
        let reply = self.ask(Put::new("greeting", "hello"), Wait::Strong).await?;
        tell("strong put greeting hello", &format!("final in slot {}{}", reply.slot, took(&reply)));
        for (wait, by, what) in [
            (Wait::Strong, 10, "strong incr visitors 10"),
            (Wait::Weak, 1, "weak   incr visitors"),
            (Wait::Final, 1, "final  incr visitors"),
        ] {
            let reply = self.ask(Incr::new("visitors", by), wait).await?;
            tell(what, &format!("-> {}{}", number(&reply)?, took(&reply)));
        }
        say("A weak answer comes sooner; it is never lost, but its place may still change.");
        Ok(())
    }

    async fn crash(&mut self) -> Outcome {
        title(3, "The primary is killed: another one takes over");
        agreed(&self.cluster).await?;
        let before = furthest(&self.cluster).await?;
        say(&format!("view {} has the primary {}", before.view.0, before.primary));
        self.town.kill(before.primary).await?;
        self.count("strong incr visitors").await?;
        let after = furthest(&self.cluster).await?;
        if after.view <= before.view {
            return Err(broken("strong requests went on without a primary"));
        }
        say(&format!("view {} has the primary {}", after.view.0, after.primary));
        self.count("strong incr visitors").await?;
        self.town.restart(before.primary).await?;
        let head = agreed(&self.cluster).await?;
        say(&format!("{} is back, has read its disk and caught up to slot {head}", before.primary));
        Ok(())
    }

    async fn lie(&mut self) -> Outcome {
        title(4, "A replica lies: its own signatures convict it");
        let status = furthest(&self.cluster).await?;
        let mut others = self.town.members().filter(|id| *id != status.primary);
        let (Some(culprit), Some(victim)) = (others.next(), others.next()) else {
            return Err(broken("a cluster of four has fewer than three backups"));
        };
        self.town.stop(culprit).await?;
        say(&format!("The operator of {culprit} runs another program with its key:"));
        let slot = Slot(status.head.slot.0 + FAR);
        let key = self.town.key_of(culprit)?;
        let membership = self.town.file.membership.clone();
        let liar = Liar { membership: &membership, id: culprit, key: &key };
        liar.vote_twice((victim, self.town.address(victim)), status.view, slot)
            .await
            .map_err(|error| broken(&format!("{victim} did not listen to {culprit} ({error})")))?;
        say(&format!(
            "it signs two votes for slot {slot} that contradict each other, for {victim}"
        ));
        self.count("strong incr visitors").await?;
        let honest = self.town.replicas.len();
        let (proof, holders) = until("the honest replicas hold the proof", async || {
            let said = self.cluster.evidence(SHORT).await;
            let held: Vec<_> = self
                .town
                .members()
                .zip(&said)
                .filter_map(|(id, said)| Some((id, said.as_ref().ok()?.first()?.clone())))
                .collect();
            let (_, proof) = held.first()?.clone();
            let holders: Vec<_> = held.iter().map(|(id, _)| *id).collect();
            (holders.len() == honest).then_some((proof, holders))
        })
        .await?;
        self.convict(&proof, culprit)?;
        tell("elea evidence", &format!("{culprit}: {}, in {}", proof.kind(), proof.view()));
        say(&format!(
            "held by {}; it proves itself to anybody who has the cluster file",
            evidence::names(&holders)
        ));
        self.town.restart(culprit).await?;
        let head = agreed(&self.cluster).await?;
        say(&format!("The honest program is back at {culprit} and has caught up to slot {head}."));
        Ok(())
    }

    /// Checks a proof as anybody could, offline.
    fn convict(&self, proof: &Evidence, culprit: ReplicaId) -> Outcome {
        match self.town.file.membership.open_evidence(proof.clone()) {
            Ok(proof) if proof.culprit() == culprit => Ok(()),
            Ok(_) => Err(broken("an honest replica was convicted")),
            Err(why) => Err(broken(&format!("a proof proves nothing ({why})"))),
        }
    }

    async fn count(&self, what: &str) -> Outcome {
        let reply = self.ask(Incr::new("visitors", 1), Wait::Strong).await?;
        tell(what, &format!("-> {}{}", number(&reply)?, took(&reply)));
        Ok(())
    }

    async fn ask(&self, operation: impl Into<Operation>, wait: Wait) -> Result<Reply, Failure> {
        self.cluster.ask(operation.into(), wait, PATIENCE).await
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

async fn read(cluster: &Cluster, key: &'static str) -> Result<(String, Reply), Failure> {
    let reply = cluster.ask(Get::new(key).into(), Wait::Strong, PATIENCE).await?;
    match &reply.answer {
        Answer::Step(Step::Get(Some(found))) => {
            Ok((String::from_utf8_lossy(&found.value).into_owned(), reply))
        }
        _ => Err(broken("a read was not answered with a value")),
    }
}
