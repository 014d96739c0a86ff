//! Clusters of real processes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use elea_chaos::clock::{Clocks, Setting};
use elea_chaos::slow_sync::SlowSync;
use elea_client::files::load_cluster;
use elea_processes::folder::Folder;
use elea_processes::replica::{ADMIN, Place, READY};
use elea_processes::{environment, ports, process};
use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::id::ReplicaId;
use rustix::process::Signal;
use serde_json::Value as Json;
use tempfile::TempDir;

/// How long anything may take before a test gives it up. Machines that run tests are busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// So many lines of each log are shown where a test fails.
const LAST_LINES: usize = 40;

/// Where in a town's folder that is which makes its disks slow.
const DISKS: &str = "slow-sync";

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Answer {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The one JSON object on stdout.
    #[track_caller]
    pub fn json(&self) -> Json {
        assert_eq!(self.out.lines().count(), 1, "one object a line: {self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A failure: this exit code, and one sentence on stderr that holds all of these.
    #[track_caller]
    pub fn fails(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.err.lines().count(), 1, "one sentence: {self:?}");
        assert!(self.err.starts_with("elea: "), "{self:?}");
        for part in says {
            assert!(self.err.contains(part), "it should say {part:?}: {self:?}");
        }
    }

    #[track_caller]
    pub fn succeeds(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

/// The program under test, in an environment of its own.
pub fn elea() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_elea"));
    environment::clear(&mut command);
    command
}

/// The same, for a process that may have no more files open than this.
fn elea_with_open_files(most: u32) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {most}; exec \"$@\""), "sh"]);
    command.arg(env!("CARGO_BIN_EXE_elea"));
    environment::clear(&mut command);
    command
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Answer {
    Answer::of(&command.stdin(Stdio::null()).output().expect("the program runs"))
}

/// Waits until something that can be seen is so.
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    in_time(look).unwrap_or_else(|| panic!("never came to pass: {what}"))
}

/// The same; `None` where it does not come to pass.
pub fn in_time<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A process that does not outlive its owner.
pub struct Process {
    child: Child,
    log: PathBuf,
    /// What it said up to where that was waited for.
    said: Vec<String>,
}

impl Process {
    /// Starts it with stderr in a file, for the message of a test that fails.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let stderr = fs::File::create(log).expect("a log file");
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn();
        Self { child: child.expect("the program starts"), log: log.to_owned(), said: Vec::new() }
    }

    /// The first line on stdout that begins so; `None` if the process ends without saying it.
    #[track_caller]
    pub fn says(&mut self, begin: &'static str) -> Option<String> {
        let stdout = self.child.stdout.take().expect("stdout is read once");
        let (send, lines) = mpsc::channel();
        // A thread, since reading a pipe cannot be given a deadline. It ends with the process.
        std::thread::spawn(move || {
            let mut said = Vec::new();
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let is_it = line.starts_with(begin);
                said.push(line);
                if is_it {
                    break;
                }
            }
            // The test may have failed meanwhile.
            let _ = send.send(said);
        });
        let said = lines.recv_timeout(PATIENCE);
        self.said = said.unwrap_or_else(|_| panic!("never said {begin:?}: {}", self.log()));
        self.said.last().filter(|line| line.starts_with(begin)).cloned()
    }

    /// Where its admin listener is, once it has said so.
    #[track_caller]
    pub fn admin(&self) -> &str {
        let place = self.said.iter().find_map(|line| line.strip_prefix(ADMIN));
        place.expect("it says where its admin listener is").trim_start()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn signal(&self, signal: Signal) {
        process::signal(self.child.id(), signal);
    }

    /// Waits for its end; answers with the exit code.
    #[track_caller]
    pub fn ended(&mut self) -> Option<i32> {
        until("the process ends", || self.child.try_wait().expect("it is our child")).code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail where it has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cluster whose replicas are processes of the test.
pub struct Town {
    dir: TempDir,
    /// More words for every `elea replica`.
    words: &'static [&'static str],
    /// How many files each may have open, where that is not what it is for the test.
    open_files: Option<u32>,
    replicas: Vec<Option<Process>>,
}

impl Town {
    /// Starts so many replicas and waits until all are ready.
    pub fn new(count: u8) -> Self {
        Self::prepared(count, |_| {})
    }

    /// The same, with something done to the files before the start. It is done again where the
    /// start has to be.
    pub fn prepared(count: u8, prepare: impl FnMut(&Self)) -> Self {
        Self::made(count, &[], prepare)
    }

    /// The same, with more words for `elea init`.
    pub fn made(count: u8, words: &[&str], prepare: impl FnMut(&Self)) -> Self {
        Self::founded(count, words, &[], None, prepare)
    }

    /// The same as [`Self::new`], each with so many files open at most.
    pub fn with_open_files(count: u8, open_files: u32) -> Self {
        Self::founded(count, &[], &[], Some(open_files), |_| {})
    }

    /// The same as [`Self::new`], with more words for every `elea replica`.
    pub fn run_with(count: u8, words: &'static [&'static str]) -> Self {
        Self::founded(count, &[], words, None, |_| {})
    }

    /// The same, with something done to the files before the start.
    pub fn run_prepared(
        count: u8,
        words: &'static [&'static str],
        prepare: impl FnMut(&Self),
    ) -> Self {
        Self::founded(count, &[], words, None, prepare)
    }

    fn founded(
        count: u8,
        init: &[&str],
        words: &'static [&'static str],
        open_files: Option<u32>,
        mut prepare: impl FnMut(&Self),
    ) -> Self {
        for _ in 0..10 {
            let dir = init_with(count, init);
            let replicas = (0..count).map(|_| None).collect();
            let mut town = Self { dir, words, open_files, replicas };
            prepare(&town);
            for id in 0..count {
                town.spawn(id);
            }
            if (0..count).all(|id| town.is_ready(id)) {
                return town;
            }
            let logs: Vec<_> = town.replicas.iter().flatten().map(Process::log).collect();
            assert!(logs.iter().any(|log| log.contains("in use")), "cannot start: {logs:#?}");
        }
        panic!("no free ports");
    }

    /// The same as [`Self::new`], with clocks that can be set, and are set so. `None` where they cannot.
    pub fn with_clocks(count: u8, setting: Setting) -> Option<Self> {
        let can = Clocks::kept_in(Path::new("")).is_some();
        let set = |town: &Self| (0..count).for_each(|id| town.set_clock(id, setting));
        can.then(|| Self::prepared(count, set))
    }

    fn clocks(&self) -> Option<Clocks> {
        Clocks::kept_in(self.dir.path())
    }

    /// Sets the clock of a replica.
    pub fn set_clock(&self, id: u8, setting: Setting) {
        let clocks = self.clocks().expect("clocks can be set");
        clocks.set(ReplicaId(id), &setting).expect("a file can be written");
    }

    /// The same as [`Self::new`], with disks that can be slow. `None` where they cannot.
    pub fn with_slow_disks(count: u8) -> Option<Self> {
        // Where it cannot be built there is nothing to load.
        let town = Self::prepared(count, |town| drop(SlowSync::build(town.path(DISKS))));
        town.disks().is_some().then_some(town)
    }

    /// How slow the disks are.
    pub fn disks(&self) -> Option<SlowSync> {
        SlowSync::built_in(self.path(DISKS))
    }

    /// Starts a replica and does not wait until it is ready.
    pub fn launch(&mut self, id: u8) {
        self.spawn(id);
    }

    fn spawn(&mut self, id: u8) {
        let folder = self.folder();
        let place = Place { cluster: self.cluster_of(id), ..folder.place(ReplicaId(id)) };
        let mut command = place.command(self.open_files.map_or_else(elea, elea_with_open_files));
        if let Some(clocks) = self.clocks().filter(|clocks| clocks.file(ReplicaId(id)).exists()) {
            command.envs(clocks.environment(ReplicaId(id)));
        }
        if let Some(disks) = self.disks() {
            command.envs(disks.environment(ReplicaId(id)));
        }
        let process = Process::start(command.args(self.words), &folder.log(ReplicaId(id)));
        self.replicas[usize::from(id)] = Some(process);
    }

    /// A replica's own cluster file, where it has one.
    fn cluster_of(&self, id: u8) -> PathBuf {
        let own = self.folder().cluster_of(ReplicaId(id));
        if own.exists() { own } else { self.folder().cluster() }
    }

    /// The cluster file that all have.
    pub fn file(&self) -> ClusterFile {
        load_cluster(self.folder().cluster()).expect("sound")
    }

    fn is_ready(&mut self, id: u8) -> bool {
        self.replica(id).says(READY).is_some()
    }

    pub fn replica(&mut self, id: u8) -> &mut Process {
        self.replicas[usize::from(id)].as_mut().expect("it runs")
    }

    /// Ends a replica as a crash would.
    pub fn kill(&mut self, id: u8) {
        drop(self.replicas[usize::from(id)].take());
    }

    /// Starts these again on their own disks, at the same time, and waits until they are ready.
    #[track_caller]
    pub fn restart(&mut self, ids: &[u8]) {
        ids.iter().for_each(|id| self.spawn(*id));
        for id in ids {
            assert!(self.is_ready(*id), "r{id} did not start: {}", self.replica(*id).log());
        }
    }

    /// The files of this cluster.
    pub fn folder(&self) -> Folder {
        Folder::at(self.dir.path())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command with this cluster and its client.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = elea();
        command.args(words);
        command.env(environment::CLUSTER, self.folder().cluster());
        command.env(environment::KEY, self.folder().client_key(0));
        command
    }

    /// Runs a command with a generous time limit.
    pub fn elea(&self, words: &[&str]) -> Answer {
        run(&mut self.command(words))
    }

    /// The same with `--timeout`, for what should succeed on a busy machine too.
    pub fn patient(&self, words: &[&str]) -> Answer {
        run(self.command(words).args(["--timeout", "60s"]))
    }

    /// Runs a command with this on its stdin, and answers with the bytes of its stdout.
    pub fn piped(&self, words: &[&str], input: &[u8]) -> Vec<u8> {
        let mut command = self.command(words);
        command.args(["--timeout", "60s"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        child.stdin.take().expect("piped").write_all(input).expect("it reads stdin");
        let mut out = Vec::new();
        child.stdout.take().expect("piped").read_to_end(&mut out).expect("it writes");
        assert!(child.wait().expect("our child").success(), "{words:?}");
        out
    }

    /// What `elea status --json` says of the replicas.
    pub fn status(&self) -> Vec<Json> {
        let status = self.patient(&["status", "--json"]).succeeds().json();
        status["replicas"].as_array().expect("a list").clone()
    }

    /// Waits until all replicas have the same history and the same state.
    #[track_caller]
    pub fn agrees(&self) -> Json {
        until("all replicas have one history and one state", || {
            let replicas = self.status();
            let place = |replica: &Json| (replica["head"].clone(), replica["state"].clone());
            let first = place(replicas.first()?);
            let all = replicas.iter().all(|r| r["reachable"] == true && place(r) == first);
            all.then(|| replicas[0].clone())
        })
    }
}

impl Drop for Town {
    /// Of a test that fails, what its replicas logged last.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (id, replica) in self.replicas.iter().enumerate() {
                let log = replica.as_ref().map_or_else(String::new, Process::log);
                let lines: Vec<_> = log.lines().collect();
                let last = lines.len().saturating_sub(LAST_LINES);
                eprintln!("-- r{id}\n{}", lines[last..].join("\n"));
            }
        }
    }
}

/// A directory with the files of a cluster.
pub fn init(replicas: u8) -> TempDir {
    init_with(replicas, &[])
}

fn init_with(replicas: u8, more: &[&str]) -> TempDir {
    let dir = tempfile::Builder::new().prefix("elea-test-").tempdir().expect("a folder");
    let port = ports::free(replicas.into()).expect("free ports").start.to_string();
    let count = replicas.to_string();
    let words = ["--replicas", &count, "--base-port", &port, "--clients", "2"];
    run(elea().arg("init").arg(dir.path()).args(words).args(more)).succeeds();
    dir
}
