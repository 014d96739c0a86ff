//! Replicas as processes: their files, their starts, their ends.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use elea_client::files::{FileError, load_cluster, load_key};
use elea_fault_injection::violation::{Violation, demand};
use elea_processes::environment;
use elea_processes::folder::Folder;
use elea_processes::process::{Process, Said};
use elea_processes::replica::{LISTENING, Place, READY, attach};
use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::id::{Digest, ReplicaId};
use elea_protocol::membership::Membership;
use elea_protocol::message::Transport;
use elea_protocol::signature::SecretKey;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::cell::Cell;
use crate::network::Network;
use crate::raw::Guest;
use crate::recorder::Recorder;
use crate::seals::Ends;
use crate::tap::{Party, Wire};

/// How long anything may take before it counts as never: far longer than any machine needs.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// How often it is looked whether something has come to pass.
const LOOK: Duration = Duration::from_millis(50);

/// Stores settle far more often than they would by themselves: more of what happens to them then
/// happens while a state takes the place of slots, and a start has few slots to execute.
const SETTLE_BYTES: u64 = 1 << 20;

/// What one cluster is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program under test.
    pub elea: PathBuf,
    /// How many replicas.
    pub replicas: u8,
    /// How many clients, each of which has ways and a key of its own.
    pub clients: usize,
    /// How many more, with the numbers after them, that the recorder does not hear.
    pub strangers: usize,
    /// Whether some of those are hostile.
    pub has_hostile: bool,
    /// Whether replicas live in network namespaces of their own.
    pub in_namespaces: bool,
    /// How all speak to each other.
    pub transport: Transport,
    /// Whether it is about much data: then nothing is recorded, and stores settle as they do by
    /// default.
    pub is_large: bool,
}

impl Plan {
    /// So many replicas of this program and so many clients, and nothing else.
    #[must_use]
    pub fn simple(elea: &Path, replicas: u8, clients: usize, transport: Transport) -> Self {
        Self {
            elea: elea.to_owned(),
            replicas,
            clients,
            strangers: 0,
            has_hostile: false,
            in_namespaces: false,
            transport,
            is_large: false,
        }
    }
}

/// One replica.
struct Replica {
    process: Option<Process>,
    /// Reads what it prints, until it ends.
    reader: Option<JoinHandle<()>>,
    progress: watch::Sender<Progress>,
    data: PathBuf,
    starts: u32,
    /// What its process finds in its environment, from its next start on.
    environment: BTreeMap<String, OsString>,
}

/// How far a start came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Starting,
    Ready,
    Ended,
}

/// How a start ended.
#[derive(Debug)]
pub enum Start {
    /// It serves.
    Ready,
    /// It ended with this exit code, having said this.
    Refused(Option<i32>, String),
}

/// A cluster of processes, with the network between them and the recorder at all wires.
pub struct Fleet {
    // What is dropped first comes first: processes before what they live in.
    replicas: Vec<Replica>,
    elea: PathBuf,
    is_large: bool,
    libraries: Vec<PathBuf>,
    /// How all speak to each other.
    pub transport: Transport,
    /// The cluster, as all know it.
    pub file: ClusterFile,
    /// The ways between all.
    pub network: Arc<Network>,
    /// Who hears everything.
    pub recorder: Recorder,
    /// Where the replicas live, if apart.
    pub cells: Vec<Cell>,
    folder: Folder,
    dir: TempDir,
}

/// Something other than a broken promise went wrong.
pub fn harness(what: &str) -> impl FnOnce(std::io::Error) -> Violation + '_ {
    move |error| Violation::new("harness", format!("{what}: {error}"))
}

/// A cluster file or a key is of no use.
pub fn unusable(error: FileError) -> Violation {
    Violation::new("harness", error.to_string())
}

impl Fleet {
    /// Makes the files of a cluster and the network, and starts nothing yet.
    ///
    /// # Errors
    /// The files or the ports cannot be had.
    pub async fn new(plan: &Plan) -> Result<Self, Violation> {
        let dir = tempfile::Builder::new().prefix("elea-chaos-").tempdir();
        let dir = dir.map_err(harness("no temporary folder"))?;
        let folder = Folder::at(dir.path());
        let mut init = tokio::process::Command::new(&plan.elea);
        init.arg("init").arg(dir.path()).args(["--replicas", &plan.replicas.to_string()]);
        let clients = plan.clients + plan.strangers;
        init.args(["--clients", &clients.to_string(), "--name", "chaos"]);
        let made = init.stdin(Stdio::null()).output().await.map_err(harness("elea init"))?;
        if !made.status.success() {
            let why = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(Violation::new("harness", format!("elea init: {why}")));
        }
        let mut file = load_cluster(folder.cluster()).map_err(unusable)?;
        if !plan.is_large {
            file.tuning.settle_bytes = SETTLE_BYTES;
        }
        let cells = match plan.in_namespaces {
            true => Cell::make(plan.replicas).await.map_err(harness("network namespaces"))?,
            false => Vec::new(),
        };
        let recorder = match plan.is_large {
            true => Recorder::deaf(),
            false => Recorder::start(&file.membership, plan.has_hostile),
        };
        let at = |party: Party| match party {
            Party::Replica(id) => cells.get(usize::from(id.0)).map_or(LOCAL, Cell::outside),
            Party::Client(_) => LOCAL,
        };
        let deaf = Recorder::deaf();
        let hears = |party: Party| match party {
            Party::Client(number) if number >= plan.clients => deaf.hears(),
            _ => recorder.hears(),
        };
        let keys = match plan.transport {
            Transport::Encrypted => Some(Keys::load(&folder, &file.membership, clients)?),
            Transport::Plain => None,
        };
        let ends = |wire: Wire| keys.as_ref().map(|keys| keys.ends(wire));
        let network = Network::open(plan.replicas, clients, hears, at, ends).await;
        let network = network.map_err(harness("no ports"))?;
        let replica = |id: u8| Replica {
            process: None,
            reader: None,
            progress: watch::channel(Progress::Ended).0,
            data: dir.path().join(format!("data-{id}")),
            starts: 0,
            environment: BTreeMap::new(),
        };
        let fleet = Self {
            elea: plan.elea.clone(),
            is_large: plan.is_large,
            libraries: Vec::new(),
            replicas: (0..plan.replicas).map(replica).collect(),
            transport: plan.transport,
            file,
            network: Arc::new(network),
            recorder,
            cells,
            folder,
            dir,
        };
        for id in fleet.ids() {
            let own = fleet.file_for(Party::Replica(id)).to_text();
            fs::write(fleet.folder.cluster_of(id), own).map_err(harness("a cluster file"))?;
        }
        Ok(fleet)
    }

    /// The same with all replicas running.
    ///
    /// # Errors
    /// As [`Self::new`], or one does not start.
    pub async fn started(plan: &Plan) -> Result<Self, Violation> {
        let mut fleet = Self::new(plan).await?;
        let ids: Vec<ReplicaId> = fleet.ids().collect();
        fleet.start(&ids).await?;
        Ok(fleet)
    }

    /// All replicas.
    pub fn ids(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        self.file.membership.size().members().collect::<Vec<_>>().into_iter()
    }

    /// The cluster as a party sees it: the others behind its own ways.
    #[must_use]
    pub fn file_for(&self, party: Party) -> ClusterFile {
        ClusterFile { addresses: self.network.addresses(party), ..self.file.clone() }
    }

    /// A client's key.
    ///
    /// # Errors
    /// There is none with this number.
    pub fn client_key(&self, number: usize) -> Result<SecretKey, Violation> {
        load_key(self.folder.client_key(number)).map_err(unusable)
    }

    /// The holder of a client's key, who goes straight to the replicas.
    ///
    /// # Errors
    /// There is none with this number.
    pub fn guest(&self, number: usize) -> Result<Guest, Violation> {
        let network = Arc::clone(&self.network);
        Ok(Guest {
            at: Arc::new(move |id| network.target(id)),
            membership: Arc::new(self.file.membership.clone()),
            transport: self.transport,
            key: Arc::new(self.client_key(number)?),
        })
    }

    /// A file of the cluster.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Leaves the folder with all logs and stores behind, for whoever looks for the cause of
    /// something. Answers with where it is.
    pub fn keep(&mut self) -> &Path {
        self.dir.disable_cleanup(true);
        self.dir.path()
    }

    /// A replica's data folder.
    #[must_use]
    pub fn data(&self, id: ReplicaId) -> &Path {
        &self.replicas[usize::from(id.0)].data
    }

    /// Has a replica's data elsewhere from its first start on.
    pub fn put_data(&mut self, id: ReplicaId, data: PathBuf) {
        self.replicas[usize::from(id.0)].data = data;
    }

    /// Has all replicas load a library, from their next start on.
    pub fn preload(&mut self, library: PathBuf) {
        self.libraries.push(library);
    }

    /// Puts something into the environment of a replica's process, from its next start on.
    pub fn set_variable(&mut self, id: ReplicaId, name: &str, value: impl Into<OsString>) {
        self.replicas[usize::from(id.0)].environment.insert(name.to_owned(), value.into());
    }

    fn log_path(&self, id: ReplicaId, start: u32) -> PathBuf {
        self.path(&format!("replica-{}.{start}.log", id.0))
    }

    /// What a replica said on stderr since its last start.
    #[must_use]
    pub fn log(&self, id: ReplicaId) -> String {
        let start = self.replicas[usize::from(id.0)].starts;
        fs::read_to_string(self.log_path(id, start)).unwrap_or_default()
    }

    /// Waits until a replica has said this on stderr since its last start, or something else is so,
    /// or its process has ended.
    ///
    /// # Errors
    /// `restart`: nothing of that.
    pub async fn said(
        &self,
        id: ReplicaId,
        what: &str,
        or: impl Fn() -> bool,
    ) -> Result<(), Violation> {
        let begin = Instant::now();
        while !self.log(id).contains(what) && !or() && !self.has_ended(id) {
            demand(begin.elapsed() < PATIENCE, "restart", || {
                format!("{id} never said {what:?}: {}", self.log_end(id))
            })?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// The last lines of that.
    #[must_use]
    pub fn log_end(&self, id: ReplicaId) -> String {
        let log = self.log(id);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// Starts a replica on its disk. Whether it serves is for [`Fleet::ready`] to tell.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn(&mut self, id: ReplicaId) -> Result<(), Violation> {
        let start = self.replicas[usize::from(id.0)].starts + 1;
        let log = fs::File::create(self.log_path(id, start)).map_err(harness("a log"))?;
        let mut process = Process::start(self.command(id), log).map_err(harness("elea replica"))?;
        if start > 1 {
            // An old log is of no use once a start after it went well.
            let _ = fs::remove_file(self.log_path(id, start.saturating_sub(3)));
        }
        let replica = &mut self.replicas[usize::from(id.0)];
        replica.starts = start;
        replica.progress = watch::channel(Progress::Starting).0;
        replica.reader = process.said().map(|said| {
            let (network, progress) = (Arc::clone(&self.network), replica.progress.clone());
            tokio::spawn(follow(id, said, network, progress))
        });
        replica.process = Some(process);
        Ok(())
    }

    /// What a replica is started by.
    fn command(&self, id: ReplicaId) -> Command {
        let cell = self.cells.get(usize::from(id.0));
        let program =
            cell.map_or_else(|| Command::new(&self.elea), |cell| cell.command(&self.elea));
        let cluster = self.folder.cluster_of(id);
        let place = Place { cluster, data: self.data(id).to_owned(), ..self.folder.place(id) };
        let mut command = place.command(program);
        let listen = std::net::SocketAddr::from((cell.map_or(LOCAL, Cell::inside), 0));
        command.arg("--listen").arg(listen.to_string());
        command.arg("--transport").arg(self.transport.name());
        if !self.is_large {
            // Little is stored, and what is wrong with it should be found within a window.
            command.args(["--scrub-pause", "500ms"]);
        }
        // No replica outlives this process, however that ends.
        attach(&mut command).stdout(Stdio::piped());
        environment::clear(&mut command).envs(&self.replicas[usize::from(id.0)].environment);
        if !self.libraries.is_empty() {
            let all: Vec<_> = self.libraries.iter().map(|path| path.as_os_str()).collect();
            command.env("LD_PRELOAD", all.join(OsStr::new(":")));
        }
        command
    }

    /// Waits until a replica that was started serves, or has ended. It says that it is ready once it
    /// reaches enough others.
    ///
    /// # Errors
    /// `restart`: it does neither.
    pub async fn ready(&mut self, id: ReplicaId) -> Result<Start, Violation> {
        let mut progress = self.replicas[usize::from(id.0)].progress.subscribe();
        let started = progress.wait_for(|progress| *progress != Progress::Starting);
        let started = timeout(PATIENCE, started).await.map(|last| last.map(|last| *last));
        match started {
            Ok(Ok(Progress::Ready)) => Ok(Start::Ready),
            Ok(_) => {
                let code = self.ended(id).await?.code();
                Ok(Start::Refused(code, self.log_end(id)))
            }
            Err(_) => {
                let what = format!("{id} neither serves nor ends: {}", self.log_end(id));
                Err(Violation::new("restart", what))
            }
        }
    }

    /// Starts replicas at the same time, and waits until all serve.
    ///
    /// # Errors
    /// `restart`: one does not.
    pub async fn start(&mut self, ids: &[ReplicaId]) -> Result<(), Violation> {
        ids.iter().try_for_each(|id| self.spawn(*id))?;
        self.serve(ids).await
    }

    /// Waits until replicas that were started all serve.
    ///
    /// # Errors
    /// `restart`: one does not.
    pub async fn serve(&mut self, ids: &[ReplicaId]) -> Result<(), Violation> {
        for id in ids {
            if let Start::Refused(code, log) = self.ready(*id).await? {
                let what = format!("{id} did not come back (exit code {code:?}): {log}");
                return Err(Violation::new("restart", what));
            }
        }
        Ok(())
    }

    /// How much memory a replica has, in bytes, if it runs and the system says so.
    #[must_use]
    pub fn memory(&self, id: ReplicaId) -> Option<u64> {
        self.memory_line(id, "VmRSS:")
    }

    /// The most that it had since its start.
    #[must_use]
    pub fn memory_peak(&self, id: ReplicaId) -> Option<u64> {
        self.memory_line(id, "VmHWM:")
    }

    fn memory_line(&self, id: ReplicaId, name: &str) -> Option<u64> {
        let pid = self.replicas[usize::from(id.0)].process.as_ref()?.pid()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
    }

    /// Sends a signal.
    pub fn signal(&self, id: ReplicaId, signal: Signal) {
        if let Some(process) = &self.replicas[usize::from(id.0)].process {
            process.signal(signal);
        }
    }

    /// Whether a process of this replica runs.
    #[must_use]
    pub fn runs(&self, id: ReplicaId) -> bool {
        self.replicas[usize::from(id.0)].process.is_some()
    }

    /// Whether a replica has said since its last start that it serves, and has not ended.
    #[must_use]
    pub fn is_ready(&self, id: ReplicaId) -> bool {
        *self.replicas[usize::from(id.0)].progress.borrow() == Progress::Ready
    }

    /// Whether its process has ended by itself since it was started.
    #[must_use]
    pub fn has_ended(&self, id: ReplicaId) -> bool {
        *self.replicas[usize::from(id.0)].progress.borrow() == Progress::Ended
    }

    /// Waits for the end of a process; then everything that it said has been heard.
    ///
    /// # Errors
    /// `restart`: it does not end.
    pub async fn ended(&mut self, id: ReplicaId) -> Result<ExitStatus, Violation> {
        let never = || Violation::new("restart", format!("{id} does not end"));
        let mut progress = self.replicas[usize::from(id.0)].progress.subscribe();
        let ended = timeout(PATIENCE, progress.wait_for(|last| *last == Progress::Ended)).await;
        ended.map(drop).map_err(|_| never())?;
        let mut process = self.replicas[usize::from(id.0)].process.take().ok_or_else(never)?;
        let ended = timeout(PATIENCE, process.ended()).await;
        let status = ended.map_err(|_| never())?.map_err(harness("a process"))?;
        if let Some(reader) = self.replicas[usize::from(id.0)].reader.take() {
            // It ends with the process, and then no longer tells the network of an address.
            let _ = reader.await;
        }
        self.network.died(id).await;
        self.recorder.restarted(id).await;
        Ok(status)
    }

    /// Ends replicas at the same moment, as a power cut would.
    ///
    /// # Errors
    /// `restart`: one does not end.
    pub async fn kill(&mut self, ids: &[ReplicaId]) -> Result<(), Violation> {
        let running: Vec<_> = ids.iter().copied().filter(|id| self.runs(*id)).collect();
        for id in &running {
            // The last words of a process, and its end, are heard through the network. A reset that is
            // dropped is never sent again, and what was connected would wait for it for ever.
            if let Some(cell) = self.cells.get(usize::from(id.0)) {
                cell.cut(false).await.map_err(harness("iptables"))?;
            }
        }
        running.iter().for_each(|id| self.signal(*id, Signal::KILL));
        for id in running {
            self.ended(id).await?;
        }
        Ok(())
    }
}

/// The keys of everybody, for the ways.
struct Keys {
    genesis: Digest,
    replicas: Vec<Arc<SecretKey>>,
    clients: Vec<Arc<SecretKey>>,
}

impl Keys {
    fn load(folder: &Folder, membership: &Membership, clients: usize) -> Result<Self, Violation> {
        let load = |path| load_key(path).map(Arc::new).map_err(unusable);
        let replicas = membership.size().members().map(|id| load(folder.replica_key(id)));
        Ok(Self {
            replicas: replicas.collect::<Result<_, _>>()?,
            clients: (0..clients)
                .map(|number| load(folder.client_key(number)))
                .collect::<Result<_, _>>()?,
            genesis: *membership.genesis(),
        })
    }

    fn ends(&self, wire: Wire) -> Ends {
        let of = |id: ReplicaId| &self.replicas[usize::from(id.0)];
        let dialler = match wire.from {
            Party::Replica(id) => of(id),
            Party::Client(number) => &self.clients[number],
        };
        Ends::new(self.genesis, dialler, of(wire.to))
    }
}

/// Reads what a replica prints, lets the network know where it listens, and tells how far it is.
async fn follow(
    id: ReplicaId,
    mut said: Said,
    network: Arc<Network>,
    progress: watch::Sender<Progress>,
) {
    while let Ok(Some(line)) = said.next_line().await {
        let at = line.strip_prefix(LISTENING).and_then(|at| at.trim_start().parse().ok());
        if let Some(address) = at {
            network.listens(id, address);
        }
        if line.starts_with(READY) {
            progress.send_replace(Progress::Ready);
        }
    }
    progress.send_replace(Progress::Ended);
}

const LOCAL: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
