//! The cluster as commands see it: the client library with our words for what goes wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use elea_client::{
    Answer as Answered, Client, Command as _, Error, ErrorKind, Executed, Finality, Options, Past,
    Read, ReplicaNote, Shortfall,
};
use elea_kv::{Answer, Operation};
use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::evidence::Evidence;
use elea_protocol::id::{Digest, ReplicaId, Slot, View};
use elea_protocol::message::{Lent, Level, NodeStatus, Position, StateHead};
use elea_protocol::receipt::{Proven, Receipt};
use elea_protocol::signature::SecretKey;

use crate::failure::Failure;

/// How long giving back the session may take after a failure: what was sent is not waited for
/// again.
const FAREWELL: Duration = Duration::from_millis(100);

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// f + 1 replicas agree.
    Weak,
    /// It is final and linearizable.
    Strong,
    /// Weak, then final.
    Final,
}

impl Wait {
    /// The word in JSON and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Weak => "weak",
            Self::Strong => "strong",
            Self::Final => "final",
        }
    }
}

/// A verified answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// What came out.
    pub answer: Answer,
    /// What was waited for.
    pub wait: Wait,
    /// The view of the replicas that answered.
    pub view: View,
    /// Where the request stands.
    pub slot: Slot,
    /// The history up to there; `None` where it did not have to be ordered.
    pub hash: Option<Digest>,
    /// Whether that can still change.
    pub is_final: bool,
    /// Whether it changed between the weak answer and the final one.
    pub reordered: bool,
    /// The proof, likewise.
    pub receipt: Option<Arc<Receipt>>,
    /// From sending to the answer.
    pub latency: Duration,
}

/// A weak answer whose end can be waited for.
#[derive(Debug)]
pub struct Promise {
    /// As it was given.
    pub reply: Reply,
    executed: Executed,
    operation: Operation,
    begin: Instant,
    replicas: usize,
}

impl Promise {
    /// Waits, as long as the request could, until the answer is final.
    pub async fn finality(mut self) -> Result<Reply, Failure> {
        let Some(last) = self.executed.finality().await else { return Ok(self.reply) };
        let (finality, answer) = last.map_err(|e| failed(&e, self.replicas, Wait::Final))?;
        let reordered = matches!(finality, Finality::Reordered { .. });
        let reply = reply(&self.operation, answer, Wait::Final, self.begin)?;
        Ok(Reply { reordered, ..reply })
    }
}

/// A client, in a session of its own. Commands that share a session file use sessions
/// again that others gave back.
#[derive(Clone, Debug)]
pub struct Cluster {
    client: Client,
    replicas: usize,
}

impl Cluster {
    /// Begins to connect; requests wait until that is done.
    pub async fn open(
        file: &ClusterFile,
        key: SecretKey,
        options: Options,
    ) -> Result<Self, Failure> {
        let client = Client::with_options(&file.into(), key, options).await;
        let client = client.map_err(|error| other(&error))?;
        Ok(Self { client, replicas: file.addresses.len() })
    }

    /// Reads strongly what changes nothing, without having it ordered if that can be. Everything else is executed: a
    /// weak read that is not ordered need not see what another process wrote weakly a moment before.
    pub async fn read(
        &self,
        operation: Operation,
        wait: Wait,
        timeout: Duration,
    ) -> Result<Reply, Failure> {
        if wait != Wait::Strong || !operation.only_reads() {
            return self.ask(operation, wait, timeout).await;
        }
        let begin = Instant::now();
        let client = self.client.with_timeout(timeout);
        let read = client.read(Level::Strong, operation.clone()).await;
        let Read { result, slot, view, ordered } = match read {
            Ok(read) => read,
            Err(Error::Undecodable(_)) => return Err(unreadable()),
            Err(error) => return Err(failed(&error, self.replicas, wait)),
        };
        if let Some(answered) = ordered {
            return reply(&operation, answered, wait, begin);
        }
        Ok(seen(Read { result, slot, view, ordered: None }, wait, begin))
    }

    /// Reads what changes nothing from a history that includes a past, and notes in it what is seen.
    pub async fn read_after(
        &self,
        past: &mut Past,
        operation: Operation,
        wait: Wait,
        timeout: Duration,
    ) -> Result<Reply, Failure> {
        let begin = Instant::now();
        let level = match wait {
            Wait::Weak => Level::Weak,
            // What is read strongly is final.
            Wait::Strong | Wait::Final => Level::Strong,
        };
        let client = self.client.with_timeout(timeout);
        let read = client.read_after(past, level, operation).await;
        let read = read.map_err(|error| failed(&error, self.replicas, wait))?;
        Ok(seen(read, wait, begin))
    }

    /// Has one operation executed.
    pub async fn ask(
        &self,
        operation: Operation,
        wait: Wait,
        timeout: Duration,
    ) -> Result<Reply, Failure> {
        match wait {
            Wait::Strong => {
                let begin = Instant::now();
                let executed = self.execute(&operation, wait, timeout).await?;
                reply(&operation, executed.answer, wait, begin)
            }
            Wait::Weak | Wait::Final => {
                let promise = self.promise(operation, wait, timeout).await?;
                if wait == Wait::Final { promise.finality().await } else { Ok(promise.reply) }
            }
        }
    }

    /// Has one operation executed weakly. Unless only the weak answer is wanted, replicas are asked
    /// to tell when it is final.
    pub async fn promise(
        &self,
        operation: Operation,
        wait: Wait,
        timeout: Duration,
    ) -> Result<Promise, Failure> {
        let begin = Instant::now();
        let executed = self.execute(&operation, wait, timeout).await?;
        let reply = reply(&operation, executed.answer.clone(), Wait::Weak, begin)?;
        Ok(Promise { reply, executed, operation, begin, replicas: self.replicas })
    }

    async fn execute(
        &self,
        operation: &Operation,
        wait: Wait,
        timeout: Duration,
    ) -> Result<Executed, Failure> {
        let level = match wait {
            Wait::Weak | Wait::Final => Level::Weak,
            Wait::Strong => Level::Strong,
        };
        self.client
            .with_timeout(timeout)
            .execute(level, wait == Wait::Final, vec![operation.encode()])
            .await
            .map_err(|error| failed(&error, self.replicas, wait))
    }

    /// Asks every replica how it is, in the order of their ids.
    pub async fn statuses(&self, timeout: Duration) -> Vec<Result<NodeStatus, String>> {
        let all = self.client.with_timeout(timeout).status().await;
        all.into_iter().map(|(_, said)| said.map_err(|reason| plain(&reason))).collect()
    }

    /// Asks every replica, in the order of their ids, which proofs of misbehaviour it holds. All
    /// of them have been checked.
    pub async fn evidence(&self, timeout: Duration) -> Vec<Result<Vec<Evidence>, String>> {
        let all = self.client.with_timeout(timeout).evidence().await;
        all.into_iter().map(|(_, said)| said.map_err(|reason| plain(&reason))).collect()
    }

    /// Asks every replica, in the order of their ids, which certified state it can give. All of them have been
    /// checked.
    pub async fn states(&self, timeout: Duration) -> Vec<Result<Option<StateHead>, String>> {
        let all = self.client.with_timeout(timeout).states().await;
        all.into_iter().map(|(_, said)| said.map_err(|reason| plain(&reason))).collect()
    }

    /// Asks one replica for a piece of a state, which is not checked.
    pub async fn piece(
        &self,
        from: ReplicaId,
        at: Position,
        index: u32,
        timeout: Duration,
    ) -> Result<Lent, String> {
        let client = self.client.with_timeout(timeout);
        client.piece(from, at, index).await.map_err(|reason| plain(&reason))
    }

    /// Gives the session back.
    pub async fn close(self) {
        self.client.with_timeout(FAREWELL).close().await;
    }
}

/// What the replicas agree on, in our words.
fn reply(
    operation: &Operation,
    answered: Answered,
    wait: Wait,
    begin: Instant,
) -> Result<Reply, Failure> {
    let decoded = answered.results.first().map(|result| operation.decode(result));
    let Some(Ok(answer)) = decoded else {
        return Err(unreadable());
    };
    Ok(Reply {
        answer,
        wait,
        view: answered.view,
        slot: answered.slot,
        hash: Some(answered.hash),
        is_final: answered.proven == Proven::Final,
        reordered: false,
        receipt: Some(answered.receipt),
        latency: begin.elapsed(),
    })
}

/// What was read without a slot.
fn seen(read: Read<Operation>, wait: Wait, begin: Instant) -> Reply {
    Reply {
        answer: read.result,
        wait,
        view: read.view,
        slot: read.slot,
        hash: None,
        is_final: wait != Wait::Weak,
        reordered: false,
        receipt: None,
        latency: begin.elapsed(),
    }
}

fn unreadable() -> Failure {
    Failure::usage(
        "the replicas agree on a result that this program cannot read: use the version of \
         elea that the cluster runs",
    )
}

fn failed(error: &Error, replicas: usize, wait: Wait) -> Failure {
    match error {
        Error::NotEnoughReplicas(shortfall) => {
            Failure::unavailable(lacking(shortfall, replicas, wait))
        }
        error => other(error),
    }
}

fn other(error: &Error) -> Failure {
    match error.kind() {
        ErrorKind::Configuration => Failure::usage(error.to_string()),
        ErrorKind::Unavailable => Failure::unavailable(error.to_string()),
    }
}

/// What is missing, in one sentence: how many are there, how many it takes, and who is not there
/// and why.
fn lacking(shortfall: &Shortfall, replicas: usize, wait: Wait) -> String {
    let Shortfall { waited, progress, replicas: notes } = shortfall;
    let reached = notes.iter().filter(|(.., note)| *note == ReplicaNote::Connected).count();
    let mut text = format!(
        "{reached} of {replicas} replicas could be reached within {:.1} s and {} agreed",
        waited.as_secs_f64(),
        progress.matching
    );
    if progress.needed > 0 {
        text += match (progress.is_answered, wait) {
            (true, _) => "; to be final an answer needs ",
            (false, Wait::Strong) => "; a strong request needs ",
            (false, Wait::Weak | Wait::Final) => "; a weak request needs ",
        };
        text += &progress.needed.to_string();
    }
    let missing = notes.iter().filter_map(|(id, _, note)| {
        let reason = match note {
            ReplicaNote::Failed(reason) => plain(reason),
            ReplicaNote::Connecting => String::from("not connected yet"),
            ReplicaNote::Connected => match progress.refused.get(id) {
                Some(reason) => format!("refused, {reason}"),
                None if progress.busy.contains(id) => String::from("had no room"),
                // With too few of them there it is no fault of theirs.
                None if reached < progress.needed || progress.answered.contains(id) => return None,
                None => String::from("did not answer"),
            },
        };
        Some((*id, reason))
    });
    let missing = by_reason(missing);
    if !missing.is_empty() {
        text += &format!("; {missing}");
    }
    text += match (progress.number, progress.is_answered) {
        (None, _) => "; the request was not sent",
        (_, true) => "; it was executed and is not lost",
        (_, false) => "; it was sent and may still be executed",
    };
    text
}

/// Replicas with what is the matter with them, those with one reason together: `r2, r3: refused`.
pub fn by_reason(replicas: impl IntoIterator<Item = (ReplicaId, String)>) -> String {
    let mut reasons = BTreeMap::<String, Vec<String>>::new();
    for (id, reason) in replicas {
        reasons.entry(reason).or_default().push(id.to_string());
    }
    let all: Vec<_> =
        reasons.iter().map(|(reason, ids)| format!("{}: {reason}", ids.join(", "))).collect();
    all.join("; ")
}

/// Without the numbers that the operating system adds.
fn plain(reason: &str) -> String {
    let mut parts = reason.split(" (os error ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, rest| text + rest.split_once(')').map_or("", |(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use elea_client::Progress;
    use elea_protocol::id::RequestNumber;

    use super::*;

    #[test]
    fn what_is_missing_is_said_in_one_sentence() {
        let refused = || ReplicaNote::Failed("cannot be reached: refused (os error 111)".into());
        let note = |id, note| (ReplicaId(id), String::from("host:1"), note);
        let mut shortfall = Shortfall {
            waited: Duration::from_millis(1500),
            progress: Progress {
                number: Some(RequestNumber(1)),
                matching: 0,
                needed: 3,
                ..Progress::default()
            },
            replicas: vec![
                note(0, ReplicaNote::Connected),
                note(1, ReplicaNote::Connected),
                note(2, refused()),
                note(3, refused()),
            ],
        };
        assert_eq!(
            lacking(&shortfall, 4, Wait::Strong),
            "2 of 4 replicas could be reached within 1.5 s and 0 agreed; a strong request needs 3; \
             r2, r3: cannot be reached: refused; it was sent and may still be executed"
        );
        shortfall.progress.is_answered = true;
        assert!(lacking(&shortfall, 4, Wait::Final).contains("to be final an answer needs 3"));
        shortfall.replicas[2].2 = ReplicaNote::Connected;
        let text = lacking(&shortfall, 4, Wait::Strong);
        assert!(text.contains("r0, r1, r2: did not answer"), "{text}");
    }
}
