//! A running replica: puts the threads, the tasks and the queues between them together, and takes
//! them apart again in the order that loses nothing.

use std::any::Any;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use elea_net::Listening;
use elea_protocol::application::Application;
use elea_protocol::id::ReplicaId;
use elea_protocol::membership::Membership;
use elea_protocol::message::{Standing, Terms};
use elea_protocol::quorum::Strength;
use elea_protocol::replica::{Replica, Setup, StartError};
use elea_protocol::signature::can_prove_itself;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Config, Durability, RunError, Transport};
use crate::core_thread::{Core, Router};
use crate::counters::{Counter, Counters};
use crate::descriptors::Descriptors;
use crate::first_start;
use crate::inbox::{Inbox, Word};
use crate::listener;
use crate::measures::Measures;
use crate::outbound::Outbound;
use crate::peer_link::{Link, LinkTask, link};
use crate::scrub::Scrub;
use crate::shell::Shell;
use crate::store::{Files, Store};
use crate::store_thread::{LogThenTables, StoreQueue, store_queue};
use crate::terms::Agreement;
use crate::verified_cache::VerifiedCache;
use crate::watcher::{Look, Watcher};

/// How long a stop waits for another replica to lead.
const HAND_ON_WAIT: Duration = Duration::from_secs(2);

/// How long a stop waits for the state of the head to be certified.
const STABLE_WAIT: Duration = Duration::from_secs(1);

/// So many times as long as for any other step of a stop the store is waited for while it writes nothing.
const STORE_STEPS: u32 = 6;

/// Runs a replica until `shutdown` comes or it cannot go on.
///
/// # Errors
/// Why it could not start, or had to stop.
pub async fn run<A: Application + 'static>(
    config: Config,
    application: A,
    shutdown: impl Future,
) -> Result<(), RunError> {
    let node = Node::start(config, application).await?;
    tokio::select! {
        biased;
        _ = node.failed() => {}
        _ = shutdown => {}
    }
    node.stop().await
}

/// A running replica. Dropping it stops it without ceremony; see [`Node::stop`].
pub struct Node {
    local_address: SocketAddr,
    shell: Arc<Shell>,
    /// Ends the links to peers, after everything else that speaks through them.
    links_end: CancellationToken,
    failure: watch::Receiver<Option<RunError>>,
    links_up: watch::Receiver<usize>,
    standing: watch::Receiver<Standing>,
    all_stable: watch::Receiver<bool>,
    has_left: watch::Receiver<bool>,
    look: Arc<Look>,
    measures: Arc<Measures>,
    turn: Arc<Mutex<()>>,
    core: Worker,
    store: Worker,
    /// Takes what the store's log has into its tables.
    tables: Worker,
    scrub: Worker,
    /// Dropped to end it.
    scrub_end: Option<mpsc::Sender<Infallible>>,
    listener: JoinHandle<()>,
    links: JoinSet<()>,
}

impl Node {
    /// Starts a replica that listens where the configuration says. It must be called on a tokio
    /// runtime, on which the replica's connections live from then on.
    ///
    /// # Errors
    /// What stands in the way.
    pub async fn start<A: Application + 'static>(
        config: Config,
        application: A,
    ) -> Result<Self, RunError> {
        let address = config.listen.clone();
        let listener = Listening::bind(&address).await;
        Self::begin(config, application, listener.map_err(|error| cannot_listen(address, &error))?)
            .await
    }

    /// [`Node::start`] on a socket that is bound already: whoever starts several replicas can so
    /// know all their addresses before the first one runs. [`Config::listen`] is not looked at.
    ///
    /// # Errors
    /// As there.
    pub async fn start_on<A: Application + 'static>(
        config: Config,
        application: A,
        listener: std::net::TcpListener,
    ) -> Result<Self, RunError> {
        let address = config.listen.clone();
        let listener =
            listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
        let listener = listener.map_err(|error| cannot_listen(address, &error))?;
        Self::begin(config, application, listener.into()).await
    }

    async fn begin<A: Application + 'static>(
        mut config: Config,
        application: A,
        listener: Listening,
    ) -> Result<Self, RunError> {
        check(&config)?;
        let local_address =
            listener.local_addr().map_err(|error| cannot_listen(config.listen.clone(), &error))?;
        let counters = Arc::<Counters>::default();
        config.setup.membership = Arc::new(with_memory(&config, &counters));
        let Config {
            setup, addresses, transport, data, mark, durability, wire, mut limits, ..
        } = config;
        let descriptors = Descriptors::of_process(addresses.len() - 1, &limits);
        limits.connections = descriptors.clients;
        limits.handshakes = descriptors.handshakes;
        let me = setup.id;
        let clock = Clock::start();
        let terms = Terms::of(&setup.tuning.rules, application.settings());
        let agreement = Arc::new(Agreement::new(terms));

        let at = Where { data, mark, durability, reserve: limits.disk_reserve_bytes };
        let (store, replica) = recover(setup.clone(), application, at, clock).await?;

        let shell = Arc::new(Shell::new(
            &setup,
            (transport, wire),
            limits,
            &counters,
            agreement,
            store.files(),
        ));
        let (links_end, (up, links_up)) = (CancellationToken::new(), watch::channel(0));
        let (links, tasks) = ways(&shell, &setup, addresses, &up, &links_end);
        let measures = Arc::<Measures>::default();
        let clients = Arc::clone(&shell.clients);
        let outbound = Arc::new(Outbound { links, clients, measures: Arc::clone(&measures) });
        let files = store.files();
        let (raise, failure) = watch::channel(None);
        let failed = Failure { raise, inbox: Arc::clone(&shell.inbox) };
        let (queue, store, tables) = write(&shell, &outbound, store, &failed)?;
        let (scrub, scrub_end) = scrub(&shell, files, failed.clone())?;
        let inbox = Arc::clone(&shell.inbox);
        let (tell, standing) = watch::channel(replica.standing());
        let (tell_stable, all_stable) = watch::channel(replica.is_all_stable());
        let (tell_left, has_left) = watch::channel(false);
        let router = Router {
            store: queue,
            outbound,
            counters,
            certified: Arc::clone(&shell.certified),
            measures: Arc::clone(&measures),
            standing: tell,
            all_stable: tell_stable,
            has_left: tell_left,
        };
        let raise = failed.raise.clone();
        let raised = raise.clone();
        let panicked =
            move |panic: Box<dyn Any + Send>| note(&raised, RunError::Panicked(text(&*panic)));
        let core = Core::new(replica, router, clock, limits.store_backlog_bytes, &inbox, panicked);
        let running = Arc::clone(&core);
        let (looking, waiting) = (Arc::clone(&core), Arc::clone(&inbox));
        let look: Arc<Look> = Arc::new(move |driver| {
            let looked = catch_unwind(AssertUnwindSafe(|| looking.look(&waiting, driver)));
            looked.unwrap_or_else(|panic| {
                waiting.close();
                note(&raise, RunError::Panicked(text(&*panic)));
                None
            })
        });
        let core = Worker::spawn(format!("{me}-core"), failed, move || {
            running.run(&inbox);
            Ok(())
        })
        .inspect_err(|_| core.end())?;
        let listener = tokio::spawn(listener::listen(Arc::clone(&shell), listener));
        let links = tasks.into_iter().map(LinkTask::run).collect();
        tracing::info!(replica = %me, address = %local_address, "replica started");
        Ok(Self {
            local_address,
            shell,
            links_end,
            failure,
            links_up,
            standing,
            all_stable,
            has_left,
            look,
            measures,
            turn: Arc::default(),
            core,
            store,
            tables,
            scrub,
            scrub_end: Some(scrub_end),
            listener,
            links,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// What it has counted since its start.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.shell.counters)
    }

    /// What it may do, as far as that is known.
    #[must_use]
    pub fn standing(&self) -> Standing {
        *self.standing.borrow()
    }

    /// Looks at it from now on.
    #[must_use]
    pub fn watcher(&self) -> Watcher {
        Watcher {
            shell: Arc::clone(&self.shell),
            look: Arc::clone(&self.look),
            links_up: self.links_up.clone(),
            measures: Arc::clone(&self.measures),
            turn: Arc::clone(&self.turn),
        }
    }

    /// Waits until it has reached so many peers that, with them, it is a strong quorum, and knows
    /// whether it votes. On any start but the first it serves clients before that, as far as it can.
    ///
    /// # Errors
    /// It had to stop.
    pub async fn ready(&self) -> Result<(), RunError> {
        let size = self.shell.membership.size();
        let mut links_up = self.links_up.clone();
        let enough = |up: &usize| size.suffices(*up + 1, Strength::Strong);
        let mut standing = self.standing.clone();
        let knows = async move {
            // The senders are gone only when the node is being stopped.
            let _ = links_up.wait_for(enough).await;
            let _ = standing.wait_for(|standing| *standing != Standing::New).await;
        };
        tokio::select! {
            biased;
            error = self.failed() => Err(error),
            () = knows => Ok(()),
        }
    }

    /// Waits until it cannot go on. It has fallen silent by then, but still has to be stopped.
    pub async fn failed(&self) -> RunError {
        let mut failure = self.failure.clone();
        // Both threads may end without a failure: then it will never fail any more.
        let Ok(error) = failure.wait_for(Option::is_some).await.map(|error| error.clone()) else {
            return std::future::pending().await;
        };
        error.unwrap_or_else(|| RunError::Panicked("unknown".to_owned()))
    }

    /// Stops it: hands on the view that it leads, waits a moment for the state of a quiet head to be certified, so that a backup has
    /// all that is final, takes nothing more in, writes what has been decided, sends what rests on it,
    /// says farewell.
    ///
    /// # Errors
    /// It had failed before, or its disk does not answer.
    pub async fn stop(mut self) -> Result<(), RunError> {
        let step = Duration::from_millis(self.shell.limits.stop_timeout_ms);
        let me = self.shell.me;
        tracing::info!(replica = %me, "stopping");
        self.hand_on().await;
        self.wait_until_stable().await;
        self.shell.no_more.cancel();
        self.shell.inbox.close();
        self.scrub_end = None;
        let quiet = self.core.ended(step).await
            && self.written(step).await
            && self.tables.ended(step * STORE_STEPS).await
            && self.scrub.ended(step).await;
        // Now nothing new can be said, and what was said is in the connections' queues.
        self.shell.stopping.cancel();
        if timeout(step, &mut self.listener).await.is_err() {
            self.listener.abort();
        }
        self.links_end.cancel();
        if timeout(step, async { while self.links.join_next().await.is_some() {} }).await.is_err() {
            self.links.abort_all();
        }
        let failure = self.failure.borrow().clone();
        tracing::info!(replica = %me, "stopped");
        match failure {
            Some(error) => Err(error),
            None if !quiet => Err(RunError::StopTimeout),
            None => Ok(()),
        }
    }
}

impl Node {
    /// Waits until the store has written what was queued, for as long as it writes anything: a disk may be
    /// slow. One group may have to wait for a dozen syncs of the store's own.
    async fn written(&mut self, step: Duration) -> bool {
        // It may wait until the tables have taken more.
        let moved = [Counter::StoreCommits, Counter::StoreTaken];
        let groups = |node: &Self| moved.map(|counter| node.shell.counters.get(counter));
        loop {
            let before = groups(self);
            if self.store.ended(step * STORE_STEPS).await {
                return true;
            }
            if groups(self) == before {
                return false;
            }
        }
    }

    /// Has another one lead, where this replica does and enough others are there for that. Otherwise all who use the
    /// cluster would wait until its silence is noticed.
    async fn hand_on(&self) {
        let enough = self.shell.membership.size().suffices(*self.links_up.borrow(), Strength::Weak);
        if enough && self.failure.borrow().is_none() {
            self.shell.inbox.leave();
            let mut has_left = self.has_left.clone();
            let _ = timeout(HAND_ON_WAIT, has_left.wait_for(|has_left| *has_left)).await;
        }
    }

    /// Waits until all that is final is in a stable state, if that is to be expected.
    async fn wait_until_stable(&self) {
        let enough =
            self.shell.membership.size().suffices(*self.links_up.borrow() + 1, Strength::Strong);
        let is_at_work = self.failure.borrow().is_none() && self.standing() == Standing::Voter;
        if enough && is_at_work {
            let mut all_stable = self.all_stable.clone();
            // On a cluster that is not quiet it does not come, and is not needed to go on.
            let _ = timeout(STABLE_WAIT, all_stable.wait_for(|all_stable| *all_stable)).await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shell.no_more.cancel();
        self.shell.inbox.close();
        self.shell.stopping.cancel();
        self.links_end.cancel();
    }
}

fn check(config: &Config) -> Result<(), RunError> {
    let Config { setup, addresses, transport, limits, .. } = config;
    limits.check()?;
    if *transport == Transport::Encrypted && !can_prove_itself(&*setup.signer) {
        return Err(RunError::KeyCannotEncrypt);
    }
    let replicas = usize::from(setup.membership.size().replicas());
    if addresses.len() != replicas {
        return Err(RunError::Addresses { addresses: addresses.len(), replicas });
    }
    match setup.membership.replica_key(setup.id) {
        None => Err(RunError::NotAMember(setup.id.to_string())),
        Some(key) if *key != setup.signer.public_key() => {
            Err(RunError::WrongKey(setup.id.to_string()))
        }
        Some(_) => Ok(()),
    }
}

/// Where a replica's data are, and how they are kept.
struct Where {
    data: PathBuf,
    /// The file beside the key that a first start leaves.
    mark: Option<PathBuf>,
    durability: Durability,
    /// Bytes of the disk that are left free.
    reserve: u64,
}

/// Opens the store, and starts the core from what is in it.
async fn recover<A: Application + 'static>(
    setup: Setup,
    application: A,
    at: Where,
    clock: Clock,
) -> Result<(Store, Replica<A>), RunError> {
    let recovery = spawn_blocking(move || {
        let (me, genesis) = (setup.id, *setup.membership.genesis());
        let Where { data, mark, durability, reserve } = at;
        // Before anything is made: a folder and a word beside the key would only be in the way.
        let is_founded = setup.membership.initial_state().is_none() || Store::is_in(&data)?;
        if !is_founded {
            return Err(RunError::NotRestored(data));
        }
        let (mut store, mut recovered) = Store::open(&data, &genesis, me, durability)?;
        store.keep_free(reserve);
        first_start::find_out(&mut store, &mut recovered, me, &genesis, mark.as_deref())?;
        let slots = store.history();
        match Replica::start(setup, application, recovered, slots, clock.now()) {
            Ok(replica) => Ok((store, replica)),
            Err(StartError::Unreadable(error)) => Err(RunError::Store(error)),
            Err(error @ StartError::Edition { .. }) => {
                Err(RunError::Edition { data, what: error.to_string() })
            }
            Err(StartError::NoInitialState) => Err(RunError::NotRestored(data)),
            Err(error @ StartError::Damaged(..)) => {
                Err(RunError::Contradiction { data, what: error.to_string() })
            }
        }
    });
    recovery.await.map_err(|error| RunError::Panicked(format!("during the start: {error}")))?
}

/// The ways to the other replicas, by id, and what runs them.
fn ways(
    shell: &Arc<Shell>,
    setup: &Setup,
    addresses: Vec<String>,
    up: &watch::Sender<usize>,
    end: &CancellationToken,
) -> (Vec<Option<Link>>, Vec<LinkTask>) {
    let mut tasks = Vec::new();
    let links = others(setup, addresses).map(|other| {
        let (peer, address) = other?;
        let back = shell.backs.get(usize::from(peer.0))?.subscribe();
        let (link, task) = link(shell, peer, address, back, up.clone(), end.clone());
        tasks.push(task);
        Some(link)
    });
    (links.collect(), tasks)
}

/// The threads that write, the log and behind it the tables, and the queue before them.
fn write(
    shell: &Shell,
    outbound: &Arc<Outbound>,
    store: Store,
    failed: &Failure,
) -> Result<(StoreQueue, Worker, Worker), RunError> {
    let (me, counters) = (shell.me, &shell.counters);
    let held_max = 2 * shell.limits.store_backlog_bytes;
    let (writer, tables, apply_work) = store.into_parts();
    let disk = LogThenTables { writer, tables, measures: Arc::clone(&outbound.measures) };
    let (queue, store_work) = store_queue(disk, Arc::clone(counters), held_max);
    let (release, inbox) = (Arc::clone(outbound), Arc::clone(&shell.inbox));
    let log = Worker::spawn(format!("{me}-store"), failed.clone(), move || {
        let tell = |word| inbox.disk_says(word);
        Ok(store_work.run(|outgoing| release.send(outgoing), tell, || inbox.attend())?)
    })?;
    let (inbox, counted) = (Arc::clone(&shell.inbox), Arc::clone(counters));
    let tables = Worker::spawn(format!("{me}-tables"), failed.clone(), move || {
        Ok(apply_work.run(|groups, rows| {
            counted.add(Counter::StoreTaken, groups);
            if !rows.is_empty() {
                inbox.disk_says(Word::Rows(rows));
                inbox.look();
            }
        })?)
    })?;
    Ok((queue, log, tables))
}

/// Starts to read what is stored again and again; dropping the sender ends it.
fn scrub(
    shell: &Shell,
    files: Files,
    failed: Failure,
) -> Result<(Worker, mpsc::Sender<Infallible>), RunError> {
    let work = Scrub {
        files,
        counters: Arc::clone(&shell.counters),
        bytes_per_second: shell.limits.scrub_bytes_per_second,
        pause: Duration::from_millis(shell.limits.scrub_pause_ms),
    };
    let (end, stop) = mpsc::channel();
    let inbox = Arc::clone(&shell.inbox);
    let worker = Worker::spawn(format!("{}-scrub", shell.me), failed, move || {
        work.run(&stop, |why| inbox.unreadable(why));
        Ok(())
    })?;
    Ok((worker, end))
}

fn with_memory(config: &Config, counters: &Arc<Counters>) -> Membership {
    let (capacity, counters) = (config.limits.verified_signatures, Arc::clone(counters));
    let wrap = |scheme| -> Arc<dyn elea_protocol::signature::Scheme> {
        Arc::new(VerifiedCache::new(scheme, capacity, counters))
    };
    config.setup.membership.with_scheme(wrap)
}

/// All replicas with their addresses, by id; `None` at the own.
fn others(
    setup: &Setup,
    addresses: Vec<String>,
) -> impl Iterator<Item = Option<(ReplicaId, String)>> {
    let me = setup.id;
    let all = setup.membership.size().members().zip(addresses).collect::<Vec<_>>();
    all.into_iter().map(move |(id, address)| (id != me).then_some((id, address)))
}

fn cannot_listen(address: String, error: &io::Error) -> RunError {
    match error.kind() {
        io::ErrorKind::AddrInUse => RunError::AddressInUse { address },
        _ => RunError::CannotListen { address, reason: error.to_string() },
    }
}

/// Where threads report why the replica cannot go on. The first word counts.
#[derive(Clone)]
struct Failure {
    raise: watch::Sender<Option<RunError>>,
    inbox: Arc<Inbox>,
}

impl Failure {
    fn raise(&self, error: RunError) {
        self.inbox.close();
        note(&self.raise, error);
    }
}

fn note(raise: &watch::Sender<Option<RunError>>, error: RunError) {
    tracing::error!(%error, "the replica cannot go on");
    raise.send_if_modified(|first| {
        let is_first = first.is_none();
        first.get_or_insert(error);
        is_first
    });
}

/// A thread of the replica's own.
struct Worker {
    /// Closed when the thread has ended.
    alive: oneshot::Receiver<()>,
}

impl Worker {
    fn spawn(
        name: String,
        failure: Failure,
        work: impl FnOnce() -> Result<(), RunError> + Send + 'static,
    ) -> Result<Self, RunError> {
        let (end, alive) = oneshot::channel();
        let body = move || {
            // The work has been dropped when this ends, with all the queues and files it had.
            match catch_unwind(AssertUnwindSafe(work)) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failure.raise(error),
                Err(panic) => failure.raise(RunError::Panicked(text(&*panic))),
            }
            drop(end);
        };
        match std::thread::Builder::new().name(name).spawn(body) {
            Ok(_) => Ok(Self { alive }),
            Err(error) => Err(RunError::Thread(error.to_string())),
        }
    }

    /// Whether the thread ends within this time.
    async fn ended(&mut self, patience: Duration) -> bool {
        timeout(patience, &mut self.alive).await.is_ok()
    }
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without words".to_owned())
}
