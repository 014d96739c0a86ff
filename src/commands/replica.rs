//! `elea replica`: one replica of the key-value store.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use elea_kv::{KeyValueStore, Limits as StoreLimits};
use elea_processes::replica::{ADMIN, LISTENING, READY};
use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::edition::Editions;
use elea_protocol::id::ReplicaId;
use elea_protocol::message::{Standing, Transport, WireVersions};
use elea_protocol::replica::Setup;
use elea_protocol::signature::{SecretKey, Signer as _};
use elea_replica::{Config, Node, RunError, StoreError, Watcher};
use futures::FutureExt as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use crate::admin::{self, Admin};
use crate::cli::Replica;
use crate::failure::{Failure, Outcome};
use crate::files;
use crate::log::Log;
use crate::notify::Notify;
use crate::output;
use crate::settings::{Local, Settings};
use crate::stopping::Stopping;

/// The line on stdout by which a replica says that it may not vote.
const OBSERVER: &str = "observer: this replica took part before and its data folder was lost; it \
                        follows, serves its peers and never votes (see docs/operations.md)";

/// How often, and after which pause, a replica that starts again in this process waits for the one
/// before to let go of the folder.
const IN_USE_TRIES: u32 = 100;
const IN_USE_PAUSE: Duration = Duration::from_millis(100);

/// How long a replica that the system had nothing more for waits before it starts again.
const SHORTAGE_PAUSE: Duration = Duration::from_secs(1);

/// A replica that ran for so long did start.
const STARTED: Duration = Duration::from_secs(1);

/// How often a store that failed without saying why is opened anew, until a replica ran for so long.
const INTERRUPTED_TRIES: u32 = 10;
const GOOD_WHILE: Duration = Duration::from_secs(60);

/// Runs until SIGTERM, Ctrl-C, or something that it cannot go on with.
pub async fn run(args: &Replica) -> Outcome {
    let stopping = Stopping::listen()?;
    let local = args.config.as_deref().map(Local::load).transpose()?.unwrap_or_default();
    let log = Log::start(local.log())?;
    let settings = Settings::of(args, local.clone())?;
    let file = files::load_cluster(&settings.cluster)?;
    let key = files::load_key(&settings.key, files::readers(&settings.key, settings.group_key))?;
    let id = owner(&file, &settings.cluster, &key, &settings.key)?;
    let mut store = application(&file, &settings.cluster)?;
    raise_open_files();
    tokio::spawn(read_again(args.config.clone(), local, log.clone(), signal(SignalKind::hangup())));
    if settings.transport == Transport::Plain {
        tracing::warn!(
            "connections are not encrypted: whoever is on the way reads everything that is said"
        );
    }
    let mut config = config(&settings, &file, key, id);
    let (watched, replica) = watch::channel(None);
    if let Some(address) = &settings.admin {
        administer(address, admin(&config, replica, log)).await?;
    }
    let notify = Arc::new(Notify::from_environment());
    let (telling, told) = (Arc::clone(&notify), watched.subscribe());
    tokio::spawn(async move { telling.keep_telling(told).await });
    // It may come while a replica that failed is being stopped, and then holds for the next one.
    let told_to_stop = told_to_stop(stopping, args.attached.then(stdin_closed)).shared();
    let (mut patience, mut again, mut has_served) = (0, INTERRUPTED_TRIES, false);
    loop {
        let start = Instant::now();
        let served = serve(config.clone(), store, told_to_stop.clone(), (&watched, &notify)).await;
        watched.send_replace(None);
        has_served |= start.elapsed() >= STARTED;
        if start.elapsed() >= GOOD_WHILE {
            again = INTERRUPTED_TRIES;
        }
        match served {
            // It has given them up, and goes on with those of the others.
            Err(RunError::Store(error @ StoreError::RowsDamaged { .. })) => {
                eprintln!("elea: {error}; this is that start");
                patience = IN_USE_TRIES;
            }
            // It passes by itself, and nothing is lost meanwhile.
            Err(RunError::Store(error @ StoreError::Exhausted { .. })) if has_served => {
                eprintln!("elea: {error}; it is tried again");
                tokio::time::sleep(SHORTAGE_PAUSE).await;
                patience = IN_USE_TRIES;
            }
            Err(RunError::Store(error @ StoreError::Interrupted { .. })) if again > 0 => {
                eprintln!("elea: {error}; this is that start");
                tokio::time::sleep(SHORTAGE_PAUSE).await;
                again -= 1;
                patience = IN_USE_TRIES;
            }
            // A thread of the one before may still be waiting for the disk.
            Err(RunError::Store(StoreError::InUse { .. })) if patience > 0 => {
                tokio::time::sleep(IN_USE_PAUSE).await;
                patience -= 1;
            }
            served => return served.map_err(failure),
        }
        config.setup.seed = rand::random();
        store = application(&file, &settings.cluster)?;
    }
}

/// Reads the replica's own file again whenever it is told to by SIGHUP, and makes use of what can change while it runs.
async fn read_again(
    path: Option<PathBuf>,
    started_with: Local,
    log: Log,
    hangups: std::io::Result<Signal>,
) {
    // Without the signal nothing is read again.
    let Ok(mut hangups) = hangups else { return };
    while hangups.recv().await.is_some() {
        let Some(path) = &path else {
            tracing::info!(
                "SIGHUP: there is no file to read again, since none was named with --config"
            );
            continue;
        };
        match Local::load(path) {
            Ok(local) => {
                if let Err(error) = log.use_levels(local.log()) {
                    tracing::warn!(%error, "SIGHUP: what is logged stays as it is");
                }
                let fixed = local.fixed_differences(&started_with).join(", ");
                match fixed.is_empty() {
                    true => tracing::info!("SIGHUP: the file was read again"),
                    false => tracing::warn!(
                        "SIGHUP: the file was read again; what it says of {fixed} counts from the next start on"
                    ),
                }
            }
            Err(failure) => tracing::warn!("SIGHUP: nothing was changed: {failure}"),
        }
    }
}

/// Has the admin listener served from now on, and says where.
async fn administer(address: &str, admin: Admin) -> Outcome {
    let (listener, at) = admin::listen(address).await.map_err(|error| {
        Failure::usage(format!(
            "cannot listen for the operator on {address} ({error}): choose another address of this machine for `--admin`"
        ))
    })?;
    if !at.ip().is_loopback() {
        tracing::warn!(
            address = %at,
            "whoever reaches the admin listener can read how this replica is, and set how much is logged"
        );
    }
    output::line(&format!("{ADMIN} {at}"));
    tokio::spawn(admin::serve(listener, admin));
    Ok(())
}

fn admin(config: &Config, replica: watch::Receiver<Option<Watcher>>, log: Log) -> Admin {
    let Setup { id, membership, .. } = &config.setup;
    let address = config.addresses.get(usize::from(id.0)).cloned();
    Admin {
        replica,
        id: *id,
        address: address.unwrap_or_default(),
        genesis: membership.genesis().to_string(),
        transport: config.transport,
        data: config.data.clone(),
        log,
    }
}

/// Waits until it is told to stop or, where it is attached, whoever started it is gone.
async fn told_to_stop(mut stopping: Stopping, attached: Option<oneshot::Receiver<()>>) {
    let orphaned = async {
        match attached {
            // The thread answers or the whole process is gone.
            Some(closed) => drop(closed.await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = stopping.wait() => {}
        () = orphaned => {}
    }
}

/// What it runs with.
fn config(settings: &Settings, file: &ClusterFile, key: SecretKey, id: ReplicaId) -> Config {
    let listen = settings.listen.clone().or_else(|| file.addresses.get(usize::from(id.0)).cloned());
    Config {
        setup: Setup {
            id,
            membership: Arc::new(file.membership.clone()),
            signer: Arc::new(key),
            tuning: file.tuning,
            editions: Editions::with(elea_kv::EDITIONS),
            seed: rand::random(),
        },
        addresses: file.addresses.clone(),
        listen: listen.unwrap_or_default(),
        transport: settings.transport,
        data: settings.data.clone(),
        mark: Some(settings.mark.clone().unwrap_or_else(|| mark_of(&settings.key))),
        durability: file.durability,
        limits: settings.limits,
        wire: WireVersions::OWN,
    }
}

/// Runs the replica until it is told to stop, or fails.
async fn serve(
    config: Config,
    store: KeyValueStore,
    told_to_stop: impl Future,
    (watched, notify): (&watch::Sender<Option<Watcher>>, &Notify),
) -> Result<(), RunError> {
    let node = Node::start(config, store).await?;
    watched.send_replace(Some(node.watcher()));
    output::line(&format!("{LISTENING} {}", node.local_address()));
    notify.serves();
    let serving = async {
        if node.ready().await.is_ok() {
            if node.standing() == Standing::Observer {
                output::line(OBSERVER);
            }
            output::line(READY);
        }
        // Stopping tells the reason once more, and as the result.
        node.failed().await;
    };
    tokio::select! {
        biased;
        _ = told_to_stop => notify.ends(),
        () = serving => {}
    }
    node.stop().await
}

/// Lets the process have as many files open as it may: by default it is hardly more than the
/// connections that it takes.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where that is refused it works as it is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Which replica of the cluster a key is of.
pub fn owner(
    file: &ClusterFile,
    path: &Path,
    key: &SecretKey,
    key_path: &Path,
) -> Result<ReplicaId, Failure> {
    file.membership.replica_with_key(&key.public_key()).ok_or_else(|| {
        Failure::usage(format!(
            "the key {} is of none of the replicas in {}: name a replica-N.key of this cluster",
            key_path.display(),
            path.display()
        ))
    })
}

/// An empty store with the limits in the cluster file.
pub fn application(file: &ClusterFile, path: &Path) -> Result<KeyValueStore, Failure> {
    let bad_limits =
        |why: String| Failure::usage(format!("{}, table [application]: {why}", path.display()));
    let limits = file
        .application
        .clone()
        .try_into::<StoreLimits>()
        .map_err(|bad| bad_limits(bad.message().to_owned()))?;
    KeyValueStore::with_limits(limits).map_err(|bad| bad_limits(bad.to_string()))
}

/// Where a key's first start is noted: beside it, since it must outlive the data folder.
fn mark_of(key: &Path) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push(".started");
    name.into()
}

fn failure(error: RunError) -> Failure {
    Failure::usage(error.to_string())
}

/// Ends when stdin does. A thread of its own: nothing else can wait for stdin.
fn stdin_closed() -> oneshot::Receiver<()> {
    let (closed, wait) = oneshot::channel();
    std::thread::spawn(move || {
        let mut ignored = [0; 256];
        while std::io::stdin().read(&mut ignored).is_ok_and(|read| read > 0) {}
        // Nobody listens any more when the replica is stopping already.
        let _ = closed.send(());
    });
    wait
}
