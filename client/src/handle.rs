//! What users hold: the client and the answers it gives.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use elea_protocol::application::{Command as Operation, Undecodable};
use elea_protocol::client::{
    Answer, Ask, Finality, Follow, Progress, Seen, Submission, Ticket, Timing,
};
use elea_protocol::evidence::Evidence;
use elea_protocol::id::{ClientId, Digest, ReplicaId, SessionId, Slot, View};
use elea_protocol::message::{Lent, Level, NodeStatus, Position, StateHead, Transport};
use elea_protocol::receipt::Receipt;
use elea_protocol::signature::{SecretKey, Signer};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::Cluster;
use crate::error::{Error, ReplicaNote, Shortfall};
use crate::lines::{Ends, Lines};
use crate::link::{Link, Links};
use crate::owner::{Answers, Command, FinalWord, Given, Owner, Parts, Waiter, Work};
use crate::sessions::{SessionFile, Sessions};

/// Submissions of one client that wait for an answer; more wait for their turn.
const WAITING_MAX: usize = 1 << 14;

/// Why nothing came from a replica.
fn not_heard(link: &Link) -> String {
    match link.note() {
        ReplicaNote::Failed(reason) => reason,
        ReplicaNote::Connecting => "not connected in time".into(),
        ReplicaNote::Connected => "did not answer in time".into(),
    }
}

/// After so long a replica that has not answered is asked again how it is.
const ASKED_AGAIN: Duration = Duration::from_millis(500);

/// How a client behaves; the defaults suit most.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long to wait for an answer: 5 s.
    pub timeout: Duration,
    /// When to send again what is not answered: after half a second at first, and at most every eight.
    pub timing: Timing,
    /// How many requests may be on their way before further submissions are gathered to be signed
    /// together, as long as they can be, which submissions of two levels cannot: 2.
    pub pipeline: usize,
    /// The state file that processes with the same key share. `None`, as by default: nothing is kept between
    /// them.
    pub sessions: Option<Arc<SessionFile>>,
    /// Whether the client has connections of its own. Otherwise those of one process that have the same key, the
    /// same sessions and the same addresses share one connection to each replica: what they ask for at one time
    /// leaves together, and what a replica signs once for all of them is checked once. Of its own they cost each
    /// replica a file descriptor and a place among its connections, and use more than one of its threads.
    pub own_connections: bool,
    /// How connections are protected: encrypted. It has to be what the replicas are set to.
    pub transport: Transport,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            timing: Timing::default(),
            pipeline: 2,
            sessions: None,
            own_connections: false,
            transport: Transport::Encrypted,
        }
    }
}

/// A client of one cluster, with one key. Cheap to clone. All clones share its sessions, and so their order; clients that
/// were connected apart share no more than [connections](Options::own_connections).
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    timeout: Duration,
}

#[derive(Debug)]
struct Shared {
    commands: mpsc::UnboundedSender<Command>,
    links: Links,
    genesis: Digest,
    room: Arc<Semaphore>,
    next_ticket: AtomicU64,
}

/// What was executed, untyped.
#[derive(Debug)]
pub struct Executed {
    /// The answer.
    pub answer: Answer,
    following: Option<Following>,
}

/// A weak answer that may be followed until it is final. Dropped, it is no longer followed.
#[derive(Debug)]
pub struct Following {
    final_word: oneshot::Receiver<FinalWord>,
    guard: Guard,
    client: Client,
    asked: bool,
}

/// `f + 1` replicas executed it: it is never lost, but its place, and so its result, may still
/// change.
#[derive(Debug)]
pub struct Weak<C: Operation> {
    /// What came out.
    pub result: C::Output,
    /// The slot, and the position in it, in which it was executed.
    pub version: (Slot, u32),
    /// The proof; see [`Answer`].
    pub receipt: Arc<Receipt>,
    command: C,
    following: Option<Following>,
}

/// It is final, and ordered with respect to all other strong operations.
#[derive(Debug)]
pub struct Strong<C: Operation> {
    /// What came out.
    pub result: C::Output,
    /// The slot, and the position in it, in which it was executed.
    pub version: (Slot, u32),
    /// The proof; see [`Answer`].
    pub receipt: Arc<Receipt>,
}

/// What an operation that changes nothing came to.
#[derive(Debug)]
pub struct Read<C: Operation> {
    /// What came out.
    pub result: C::Output,
    /// A slot after which it was so. Of a strong read it is final.
    pub slot: Slot,
    /// The view in which the replicas said so.
    pub view: View,
    /// What [`weak`](Client::weak) or [`strong`](Client::strong) would have answered, where it had to be ordered. Else
    /// there is no proof that could be shown to others.
    pub ordered: Option<Answer>,
}

/// How a weak operation ended up.
#[derive(Debug)]
pub enum Done<C: Operation> {
    /// As it was answered.
    Same {
        /// The proof that it is final.
        receipt: Arc<Receipt>,
    },
    /// A merge moved it to another place, where it was executed anew.
    Reordered {
        /// What came out there; equal to the first result where only the place changed.
        result: C::Output,
        /// That place.
        version: (Slot, u32),
        /// The proof that it is final.
        receipt: Arc<Receipt>,
    },
}

impl<C: Operation> Done<C> {
    /// Whether the weak answer stands.
    #[must_use]
    pub fn is_same(&self) -> bool {
        matches!(self, Self::Same { .. })
    }

    /// The final proof.
    #[must_use]
    pub fn receipt(&self) -> &Arc<Receipt> {
        match self {
            Self::Same { receipt } | Self::Reordered { receipt, .. } => receipt,
        }
    }
}

/// Lets the owner know when nobody waits any more.
#[derive(Debug)]
struct Guard {
    ticket: Ticket,
    shared: Arc<Shared>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.shared.commands.send(Command::Cancel(self.ticket));
    }
}

impl Client {
    /// Connects to a cluster. Nothing is kept when the process ends, and the next one takes a new session; other
    /// processes may use the key at the same time. For a key that many processes of a host use see
    /// [`Client::open`].
    ///
    /// It does not wait for any replica: operations do.
    ///
    /// ```no_run
    /// # use elea_client::{Client, Cluster, load_key};
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let cluster = Cluster::load("cluster.toml")?;
    /// let client = Client::connect(&cluster, load_key("client-0.key")?).await?;
    /// # drop(client);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The cluster or the key cannot be used.
    pub async fn connect(cluster: &Cluster, key: SecretKey) -> Result<Self, Error> {
        Self::with_options(cluster, key, Options::default()).await
    }

    /// Connects with a key whose sessions the processes of this host share by a state file beside the
    /// key file; see [`sessions`](crate::sessions). Where that place may not be written nothing is
    /// kept, as with [`Client::connect`].
    ///
    /// ```no_run
    /// # use elea_client::{Client, Cluster, load_key};
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let cluster = Cluster::load("cluster.toml")?;
    /// let key = "client-0.key";
    /// let client = Client::open(&cluster, load_key(key)?, key).await?;
    /// # drop(client);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The cluster, the key or the state file cannot be used.
    pub async fn open(
        cluster: &Cluster,
        key: SecretKey,
        key_file: impl AsRef<Path>,
    ) -> Result<Self, Error> {
        let sessions = match SessionFile::beside(key_file.as_ref(), cluster.membership.genesis()) {
            Err(error) if error.is_read_only() => None,
            file => Some(Arc::new(file?)),
        };
        let options = Options { sessions, ..Options::default() };
        Self::with_options(cluster, key, options).await
    }

    /// Connects with more say.
    ///
    /// ```no_run
    /// # use {elea_client::{Client, Cluster, Options, load_key}, std::time::Duration};
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let cluster = Cluster::load("cluster.toml")?;
    /// let options = Options { timeout: Duration::from_secs(30), ..Options::default() };
    /// let client = Client::with_options(&cluster, load_key("client-0.key")?, options).await?;
    /// # drop(client);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The cluster, the key or the state file cannot be used.
    pub async fn with_options(
        cluster: &Cluster,
        key: SecretKey,
        options: Options,
    ) -> Result<Self, Error> {
        let membership = &cluster.membership;
        let replicas = usize::from(membership.size().replicas());
        if cluster.addresses.len() != replicas {
            return Err(Error::Configuration(format!(
                "the cluster has {replicas} replicas, but {} addresses are given",
                cluster.addresses.len()
            )));
        }
        let id = ClientId::from(key.public_key());
        if !membership.admits(&id) {
            return Err(Error::Configuration(format!(
                "the cluster `{}` does not list the client key {id}: add it to the cluster file \
                 of every replica, or use a key that is listed",
                membership.name()
            )));
        }
        let sessions = match options.sessions {
            Some(file) => Sessions::File(file),
            None => Sessions::in_memory(*membership.genesis(), id),
        };
        let instance =
            sessions.instance().map_err(|error| Error::Configuration(error.to_string()))?;
        let signer: Arc<dyn Signer> = Arc::new(key);
        let (addresses, transport) = (&cluster.addresses, options.transport);
        let ends = Ends { membership, addresses, signer: &signer, transport, instance };
        let lines = if options.own_connections { Lines::new(&ends) } else { Lines::shared(&ends) };
        let (seat, from_replicas) = lines.join();
        let links = Arc::clone(&lines.links);
        let (signed, from_signing) = mpsc::unbounded_channel();
        let owner = Owner::start(Parts {
            membership: Arc::clone(membership),
            client: id,
            sessions,
            lines,
            signed,
            seat,
            timing: options.timing,
            window: cluster.rules.session_window,
            pipeline: options.pipeline,
        })
        .await?;
        let (commands, from_handles) = mpsc::unbounded_channel();
        tokio::spawn(owner.run(from_handles, from_replicas, from_signing));
        let shared = Arc::new(Shared {
            commands,
            links,
            genesis: *membership.genesis(),
            room: Arc::new(Semaphore::new(WAITING_MAX)),
            next_ticket: AtomicU64::new(1),
        });
        Ok(Self { shared, timeout: options.timeout })
    }

    /// The same client with another patience.
    ///
    /// ```no_run
    /// # use {elea_client::{Client, Command}, std::time::Duration};
    /// # async fn example(client: Client, upload: impl Command) -> Result<(), Box<dyn std::error::Error>> {
    /// client.with_timeout(Duration::from_secs(120)).strong(upload).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { shared: Arc::clone(&self.shared), timeout }
    }

    /// Which cluster it is a client of.
    pub(crate) fn genesis(&self) -> Digest {
        self.shared.genesis
    }

    /// How long operations wait for an answer.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Executes a command weakly: available wherever `f + 1` correct replicas are.
    ///
    /// ```no_run
    /// # use elea_client::Command;
    /// # async fn example(client: elea_client::Client, put: impl Command) -> Result<(), Box<dyn std::error::Error>> {
    /// let answer = client.weak(put).await?;
    /// println!("executed in slot {}", answer.version.0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NotEnoughReplicas`](Error::NotEnoughReplicas) where no `f + 1` replicas agreed within the [timeout](Options::timeout),
    /// [`Refused`](Error::Refused) where they agree that it cannot be done, [`ResultForgotten`](Error::ResultForgotten) where it
    /// was done and its large result is gone, [`QueueFull`](Error::QueueFull) and [`OutOfBounds`](Error::OutOfBounds) where it was not
    /// sent, [`Undecodable`](Error::Undecodable) where the cluster runs another application. [`Error::outcome`] says whether it may
    /// have been executed. That the application said no is no error but a result.
    pub async fn weak<C: Operation>(&self, command: C) -> Result<Weak<C>, Error> {
        self.weakly(command, Follow::MayAsk).await
    }

    /// Executes a command weakly and asks replicas at once to say when it is final, which is
    /// faster than to [ask](Weak::finality) later, but costs them a round of votes.
    ///
    /// ```no_run
    /// # use elea_client::{Command, Done};
    /// # async fn example(client: elea_client::Client, decrement: impl Command) -> Result<(), Box<dyn std::error::Error>> {
    /// let sold = client.weak_final(decrement).await?;
    /// match sold.finality().await? {
    ///     Done::Same { .. } => println!("sold"),
    ///     Done::Reordered { .. } => println!("another part of the network sold it first: look at the result"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`weak`](Client::weak).
    pub async fn weak_final<C: Operation>(&self, command: C) -> Result<Weak<C>, Error> {
        self.weakly(command, Follow::Yes).await
    }

    async fn weakly<C: Operation>(&self, command: C, follow: Follow) -> Result<Weak<C>, Error> {
        let executed = self.submit_one(Level::Weak, follow, &command).await?;
        Ok(Weak {
            result: decode(&command, &executed.answer.results)?,
            version: (executed.answer.slot, executed.answer.index),
            receipt: executed.answer.receipt,
            command,
            following: executed.following,
        })
    }

    /// Executes a command strongly: linearizable, and final when answered. It takes a strong
    /// quorum of replicas.
    ///
    /// ```no_run
    /// # use elea_client::{Command, Outcome};
    /// # async fn example(client: elea_client::Client, lock: impl Command) -> Result<(), Box<dyn std::error::Error>> {
    /// match client.strong(lock).await {
    ///     Ok(answer) => println!("final in slot {}", answer.version.0),
    ///     // Whether it is safe to ask again under another name.
    ///     Err(error) => match error.outcome() {
    ///         Outcome::NotExecuted => println!("nothing was done: {error}"),
    ///         Outcome::Executed | Outcome::Unknown => println!("look before you ask again: {error}"),
    ///     },
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`weak`](Client::weak), but that `2f + 1` replicas have to agree.
    pub async fn strong<C: Operation>(&self, command: C) -> Result<Strong<C>, Error> {
        let executed = self.submit_one(Level::Strong, Follow::No, &command).await?;
        Ok(Strong {
            result: decode(&command, &executed.answer.results)?,
            version: (executed.answer.slot, executed.answer.index),
            receipt: executed.answer.receipt,
        })
    }

    /// Finds out what a command that [changes nothing](Operation::only_reads) comes to, without having it ordered, signed
    /// or written: a few times cheaper than [`weak`](Client::weak) or [`strong`](Client::strong), with no receipt.
    ///
    /// A strong read is linearizable with all strong operations; it may miss a weak write of others that was answered. A
    /// weak one is answered wherever `f + 1` correct replicas are. Clones of one client read what they wrote, and do not
    /// go back in time, as long as no histories are merged; what others wrote weakly may be missed for a moment.
    ///
    /// Where replicas cannot agree without it, and where the command reads much or may change something, it is ordered
    /// like any other.
    ///
    /// ```no_run
    /// # use elea_client::{Command, Level};
    /// # async fn example(client: elea_client::Client, get: impl Command) -> Result<(), Box<dyn std::error::Error>> {
    /// let read = client.read(Level::Strong, get).await?;
    /// println!("so it is after slot {}", read.slot);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`weak`](Client::weak) or [`strong`](Client::strong).
    pub async fn read<C: Operation>(&self, level: Level, command: C) -> Result<Read<C>, Error> {
        if !command.only_reads() {
            let executed = self.submit_one(level, Follow::No, &command).await?;
            return Read::ordered(&command, executed.answer);
        }
        let (operations, nonce) = (vec![command.encode()], rand::random());
        let alone = command.is_bulk();
        let past = None;
        let work = |ticket| Work::Ask(Ask { ticket, level, operations, past, nonce, alone });
        match self.work(Follow::No, work).await?.0 {
            Given::Answer(answer) => Read::ordered(&command, answer),
            Given::Seen(Seen { results, view, slot, at: _ }) => {
                Ok(Read { result: decode(&command, &results)?, slot, view, ordered: None })
            }
            Given::NotSeen(_) => unreachable!("nothing has to be included"),
        }
    }

    /// Executes operations, in this order, side by side in one request. With `want_final` a weak
    /// answer may be [followed](Executed::finality) until it is final.
    ///
    /// ```no_run
    /// # use elea_client::{Command, Level};
    /// # async fn example(client: elea_client::Client, one: impl Command, other: impl Command) -> Result<(), Box<dyn std::error::Error>> {
    /// let operations = vec![one.encode(), other.encode()];
    /// let executed = client.execute(Level::Strong, false, operations).await?;
    /// let [first, _second] = &executed.answer.results[..] else { return Err("two results".into()) };
    /// let result = one.decode(first)?;
    /// # drop(result);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`weak`](Client::weak) or [`strong`](Client::strong); [`OutOfBounds`](Error::OutOfBounds) for no operation, more than
    /// 1024 of them, or more than 2 MiB together.
    pub async fn execute(
        &self,
        level: Level,
        want_final: bool,
        operations: Vec<Bytes>,
    ) -> Result<Executed, Error> {
        let follow = if want_final && level == Level::Weak { Follow::Yes } else { Follow::No };
        self.submit(level, follow, operations, false).await
    }

    async fn submit_one<C: Operation>(
        &self,
        level: Level,
        follow: Follow,
        command: &C,
    ) -> Result<Executed, Error> {
        self.submit(level, follow, vec![command.encode()], command.is_bulk()).await
    }

    async fn submit(
        &self,
        level: Level,
        follow: Follow,
        operations: Vec<Bytes>,
        alone: bool,
    ) -> Result<Executed, Error> {
        let submission =
            |ticket| Work::Submit(Submission { ticket, level, follow, operations, alone });
        let (given, following) = self.work(follow, submission).await?;
        match given {
            Given::Answer(answer) => Ok(Executed { answer, following }),
            Given::Seen(_) | Given::NotSeen(_) => unreachable!("what is submitted is ordered"),
        }
    }

    /// Has something done, and waits for what comes of it.
    async fn work(
        &self,
        follow: Follow,
        work: impl FnOnce(Ticket) -> Work,
    ) -> Result<(Given, Option<Following>), Error> {
        self.work_until(Instant::now() + self.timeout, follow, work).await
    }

    /// The same, with a patience of its own.
    pub(crate) async fn work_until(
        &self,
        deadline: Instant,
        follow: Follow,
        work: impl FnOnce(Ticket) -> Work,
    ) -> Result<(Given, Option<Following>), Error> {
        let start = Instant::now();
        let room = Arc::clone(&self.shared.room).acquire_owned();
        let permit = match timeout_at(deadline, room).await {
            Ok(permit) => permit.map_err(|_| Error::Closed)?,
            Err(_) => return Err(Error::QueueFull),
        };
        let ticket = Ticket(self.shared.next_ticket.fetch_add(1, Ordering::Relaxed));
        let (to_answer, answer) = oneshot::channel();
        let (to_final, final_word) = oneshot::channel();
        let waiter = Waiter {
            answer: Some(to_answer),
            finality: (follow != Follow::No).then_some(to_final),
            permit: Some(permit),
        };
        self.send(Command::Do(work(ticket), waiter))?;
        // From here on a dropped future is noticed.
        let guard = Guard { ticket, shared: Arc::clone(&self.shared) };
        let given = match timeout_at(deadline, answer).await {
            Ok(given) => given.map_err(|_| Error::Closed)??,
            Err(_) => return Err(self.shortfall(ticket, start).await),
        };
        let asked = follow == Follow::Yes;
        let following = (follow != Follow::No).then(|| Following {
            final_word,
            guard,
            client: self.clone(),
            asked,
        });
        Ok((given, following))
    }

    fn send(&self, command: Command) -> Result<(), Error> {
        self.shared.commands.send(command).map_err(|_| Error::Closed)
    }

    async fn shortfall(&self, ticket: Ticket, start: Instant) -> Error {
        let (to, progress) = oneshot::channel();
        if self.send(Command::Explain(ticket, to)).is_err() {
            return Error::Closed;
        }
        let progress: Progress = progress.await.unwrap_or_default();
        let replicas = self
            .shared
            .links
            .iter()
            .map(|link| (link.id, link.dialler.address().to_owned(), link.note()));
        Error::NotEnoughReplicas(Box::new(Shortfall {
            waited: start.elapsed(),
            progress,
            replicas: replicas.collect(),
        }))
    }

    /// Asks every replica how it is, and checks that the answer is its own. What it says of itself
    /// is believed as far as the replica is.
    ///
    /// ```no_run
    /// # async fn example(client: elea_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// for (replica, said) in client.status().await {
    ///     match said {
    ///         Ok(status) => println!("{replica} is in view {}", status.view),
    ///         Err(why) => println!("{replica} does not answer: {why}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn status(&self) -> Vec<(ReplicaId, Result<NodeStatus, String>)> {
        let nonce = rand::random();
        self.ask_all(|answers| Command::Status { nonce, answers }).await
    }

    /// Asks every replica which proofs of misbehaviour it holds. Each proof was checked and stands
    /// for itself, whoever showed it; that a replica shows none proves nothing.
    ///
    /// ```no_run
    /// # async fn example(client: elea_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// for (_, proofs) in client.evidence().await {
    ///     for proof in proofs.unwrap_or_default() {
    ///         println!("{} is convicted: {}", proof.culprit(), proof.kind());
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn evidence(&self) -> Vec<(ReplicaId, Result<Vec<Evidence>, String>)> {
        self.ask_all(Command::Evidence).await
    }

    /// Asks every replica which certified state it can give a copy of, for a backup: the newest stable one. What
    /// comes was checked: a strong quorum certified it, so it holds what was final up to its slot, whoever shows it. `None`
    /// where a replica has none yet, or does not trust its own.
    ///
    /// The pieces of it are [asked for](Self::piece) one by one.
    pub async fn states(&self) -> Vec<(ReplicaId, Result<Option<StateHead>, String>)> {
        self.ask_all(Command::State).await
    }

    /// Asks one replica for a piece of the application's state after a stable checkpoint. It is *not* checked: that
    /// can only who knows the application, by [`Restore::accept`](elea_protocol::application::Restore::accept) with
    /// the digest in the certified [`StateHead`]. A replica keeps a state for as long as somebody asks for its pieces at least
    /// every 30 s, for one client at a time.
    ///
    /// # Errors
    /// The replica has not answered within the [timeout](Options::timeout), with what is known of its connection.
    pub async fn piece(&self, from: ReplicaId, at: Position, index: u32) -> Result<Lent, String> {
        let (answers, mut from_replica) = mpsc::unbounded_channel();
        let end = Instant::now() + self.timeout;
        loop {
            // A replica answers one such question of a connection at a time, and drops others.
            let question = Command::Piece { from, at, index, answers: answers.clone() };
            let gone = || "the client was closed".to_owned();
            self.send(question).map_err(|_| gone())?;
            let again = end.min(Instant::now() + ASKED_AGAIN);
            match timeout_at(again, from_replica.recv()).await {
                Ok(Some((_, lent))) => return Ok(lent),
                Ok(None) => return Err(gone()),
                Err(_) if Instant::now() >= end => {
                    let link = self.shared.links.iter().find(|link| link.id == from);
                    return Err(link.map_or_else(gone, |link| not_heard(link)));
                }
                Err(_) => {}
            }
        }
    }

    async fn ask_all<T>(
        &self,
        question: impl Fn(Answers<T>) -> Command,
    ) -> Vec<(ReplicaId, Result<T, String>)> {
        let mut heard = std::collections::BTreeMap::new();
        let (answers, mut from_replicas) = mpsc::unbounded_channel();
        let start = Instant::now();
        let links = &self.shared.links;
        let mut asked = None;
        while heard.len() < links.len() && start.elapsed() < self.timeout {
            // A replica answers one such question of a connection at a time, and drops others.
            if asked.is_none_or(|at: Instant| at.elapsed() >= ASKED_AGAIN) {
                asked = Some(Instant::now());
                if self.send(question(answers.clone())).is_err() {
                    break;
                }
            }
            // Those that cannot be reached are not waited for, once the others have answered.
            let nap = Duration::from_millis(25);
            match timeout(nap, from_replicas.recv()).await {
                Ok(Some((from, said))) => {
                    heard.insert(from, said);
                }
                Ok(None) => break,
                Err(_) => {
                    let failed = |link: &Arc<Link>| matches!(link.note(), ReplicaNote::Failed(_));
                    if links.iter().all(|link| heard.contains_key(&link.id) || failed(link)) {
                        break;
                    }
                }
            }
        }
        links
            .iter()
            .map(|link| {
                let said = heard.remove(&link.id).ok_or_else(|| not_heard(link));
                (link.id, said)
            })
            .collect()
    }

    /// What is known of the connection to each replica.
    #[must_use]
    pub fn replicas(&self) -> Vec<(ReplicaId, String, ReplicaNote)> {
        let links = self.shared.links.iter();
        links.map(|link| (link.id, link.dialler.address().to_owned(), link.note())).collect()
    }

    /// Waits, as long as the timeout, for what was sent to be executed, and gives the sessions
    /// back, so that other processes can go on in them. All clones are closed. A client that is dropped instead
    /// does the same behind the caller's back, if its runtime goes on for long enough.
    ///
    /// ```no_run
    /// # async fn example(client: elea_client::Client) {
    /// client.close().await;
    /// # }
    /// ```
    pub async fn close(self) {
        let (done, closed) = oneshot::channel();
        let deadline = Instant::now() + self.timeout;
        if self.send(Command::Close { deadline, done }).is_ok() {
            let _ = closed.await;
        }
    }
}

impl<C: Operation> Read<C> {
    fn ordered(command: &C, answer: Answer) -> Result<Self, Error> {
        let result = decode(command, &answer.results)?;
        Ok(Self { result, slot: answer.slot, view: answer.view, ordered: Some(answer) })
    }
}

impl Executed {
    /// Waits, as long as the client's timeout, until the answer is final. `None` where that was
    /// not asked for, and after it was told. After an error it may be called again.
    ///
    /// ```no_run
    /// # use elea_client::{Client, Finality, Level};
    /// # async fn example(client: Client, operations: Vec<elea_client::Bytes>) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut executed = client.execute(Level::Weak, true, operations).await?;
    /// if let Some(last) = executed.finality().await {
    ///     let (finality, answer) = last?;
    ///     println!("slot {}, as it was: {}", answer.slot, finality == Finality::Same);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Too few replicas confirm it in time: it may become final later.
    pub async fn finality(&mut self) -> Option<Result<(Finality, Answer), Error>> {
        let word = self.following.as_mut()?.wait().await;
        if !matches!(word, Err(Error::NotEnoughReplicas(_))) {
            self.following = None;
        }
        Some(word)
    }
}

impl Following {
    async fn wait(&mut self) -> FinalWord {
        let start = Instant::now();
        if !self.asked {
            self.asked = true;
            self.client.send(Command::WantFinal(self.guard.ticket))?;
        }
        match timeout(self.client.timeout, &mut self.final_word).await {
            Ok(word) => word.map_err(|_| Error::Closed)?,
            Err(_) => Err(self.client.shortfall(self.guard.ticket, start).await),
        }
    }
}

impl<C: Operation> Weak<C> {
    /// Waits, as long as the client's timeout, until the operation is final.
    ///
    /// ```no_run
    /// # async fn example(weak: elea_client::Weak<impl elea_client::Command>) -> Result<(), Box<dyn std::error::Error>> {
    /// let done = weak.finality().await?;
    /// println!("its place is final: slot {}", done.receipt().reply.slot);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Too few replicas confirm it in time: it may become final later, and is not lost.
    pub async fn finality(mut self) -> Result<Done<C>, Error> {
        let Some(following) = self.following.as_mut() else { return Err(Error::Closed) };
        let (finality, answer) = following.wait().await?;
        Ok(match finality {
            Finality::Same => Done::Same { receipt: answer.receipt },
            Finality::Reordered { results } => Done::Reordered {
                result: decode(&self.command, &results)?,
                version: (answer.slot, answer.index),
                receipt: answer.receipt,
            },
        })
    }

    /// The session and number under which it was executed, for logs.
    #[must_use]
    pub fn name(&self) -> (SessionId, u64) {
        let name = self.receipt.reply.name;
        (name.session, name.number.0)
    }
}

pub(crate) fn decode<C: Operation>(command: &C, results: &[Bytes]) -> Result<C::Output, Error> {
    match results {
        [result] => Ok(command.decode(result)?),
        _ => Err(Undecodable.into()),
    }
}
