//! Files and command lines that cannot work: each is answered with one sentence that says what to
//! do. And `init` and `up`, which make and run what can.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use elea_processes::folder::Folder;
use elea_processes::replica::Place;
use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::id::ReplicaId;
use rustix::process::Signal;

use crate::harness::{Process, Town, elea, init, run, until};

fn replica(dir: &Path) -> Command {
    let place = Folder::at(dir).place(ReplicaId(0));
    Place { data: dir.join("data"), ..place }.command(elea())
}

fn get(dir: &Path) -> Command {
    let mut command = elea();
    command.args(["get", "k", "--json"]).arg("--cluster").arg(dir.join("cluster.toml"));
    command.arg("--key").arg(dir.join("client-0.key"));
    command
}

fn addresses(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join("cluster.toml")).expect("there");
    ClusterFile::parse(&text).expect("sound").addresses
}

#[test]
fn key_files_that_cannot_be_used_are_refused() {
    let dir = init(4);
    let dir = dir.path();
    for key in ["replica-0.key", "client-0.key"] {
        let path = dir.join(key);
        let good = fs::read(&path).expect("there");
        let ask =
            || if key.starts_with("replica") { run(&mut replica(dir)) } else { run(&mut get(dir)) };
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("ours");
        ask().fails(2, &[key, "chmod 600"]);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        fs::write(&path, "elea-key-1 abc\n").expect("ours");
        ask().fails(2, &[key, "malformed"]);
        fs::remove_file(&path).expect("ours");
        let missing = ask();
        missing.fails(2, &[key, "there is no key file"]);
        if key.starts_with("client") {
            assert_eq!(missing.json()["error"]["kind"], "usage");
        }
        fs::write(&path, good).expect("ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
    }
    fs::copy(dir.join("client-0.key"), dir.join("replica-0.key")).expect("ours");
    run(&mut replica(dir)).fails(2, &["none of the replicas"]);
}

#[test]
fn cluster_files_that_cannot_work_are_refused_with_the_line() {
    let dir = init(4);
    let path = dir.path().join("cluster.toml");
    let text = fs::read_to_string(&path).expect("there");
    for (old, new, says) in [
        ("f = 1", "f = 2", "at least 7"),
        ("f = 1", "f = 1\nsize = 4", "unknown field"),
        ("f = 1", "f = ", ""),
        ("id = 2", "id = 9", "number them so"),
        ("address = \"127.0.0.1:", "address = \"", "host:port"),
    ] {
        fs::write(&path, text.replacen(old, new, 1)).expect("ours");
        let line = text.lines().position(|line| line.contains(old)).expect("there") + 1;
        let line = format!("line {}", line + new.matches('\n').count());
        run(&mut replica(dir.path())).fails(2, &["cluster.toml", &line, says]);
        run(&mut get(dir.path())).fails(2, &["cluster.toml", &line, says]);
    }
    fs::write(&path, format!("{text}\n[tuning]\ncommit_interval = 0\n")).expect("ours");
    let line = format!("line {}", text.lines().count() + 3);
    run(&mut get(dir.path())).fails(2, &[&line, "`commit_interval` must be 1 to 4096"]);
    fs::remove_file(&path).expect("ours");
    run(&mut get(dir.path())).fails(2, &["there is no cluster file", "elea init"]);
}

#[test]
fn files_of_two_operators_are_compared_and_what_matters_decides_the_exit_code() {
    let dir = init(4);
    let (ours, theirs) = (dir.path().join("cluster.toml"), dir.path().join("theirs.toml"));
    let text = fs::read_to_string(&ours).expect("there");
    let check = || run(elea().args(["config", "check"]).args([&ours, &theirs]));
    fs::write(&theirs, &text).expect("ours");
    let same = check().succeeds();
    assert!(
        same.out.contains("of which 1 may be faulty") && same.out.contains("say the same"),
        "{same:?}"
    );

    let with = |more: &str| fs::write(&theirs, format!("{text}{more}")).expect("ours");
    with("\n[tuning]\nstatus_interval_ms = 500\n");
    let own = check().succeeds();
    assert!(
        own.out.contains("may differ: status_interval_ms is 250 in the first and 500"),
        "{own:?}"
    );
    with("\n[tuning]\nmax_sessions = 7\n[application]\nvalue_bytes = 1024\n");
    let rules = check();
    rules.fails(1, &["do not speak to each other"]);
    assert!(
        rules.out.contains("must be equal: max_sessions is") && rules.out.contains("value_bytes"),
        "{rules:?}"
    );
    fs::write(
        &theirs,
        text.replace("[[client]]\nname = \"client-1\"", "[[client]]\nname = \"other\""),
    )
    .expect("ours");
    check().succeeds();

    let other = init(4);
    fs::copy(other.path().join("cluster.toml"), &theirs).expect("ours");
    let strangers = check();
    strangers.fails(1, &["different clusters"]);
    assert!(
        strangers.out.contains("another cluster: the public_key of replica 3 is"),
        "{strangers:?}"
    );
    assert!(strangers.out.contains("may differ: the client "), "{strangers:?}");
    let json = run(elea().args(["config", "check", "--json"]).args([&ours, &theirs]));
    let differences = json.out.lines().next().expect("a line");
    assert!(differences.contains("\"kind\":\"another cluster\""), "{json:?}");
    fs::write(&theirs, text.replacen("f = 1", "f = 2", 1)).expect("ours");
    check().fails(2, &["theirs.toml", "line", "at least 7"]);
}

#[test]
fn a_replica_runs_with_a_file_of_its_own_which_is_checked_and_read_again() {
    let dir = init(4);
    let path = |name: &str| dir.path().join(name);
    let own = path("replica.toml");
    let write = |more: &str| {
        let text = format!("cluster = \"cluster.toml\"\nkey = \"replica-0.key\"\n{more}");
        fs::write(&own, text).expect("ours");
    };
    let check = || run(elea().args(["config", "check"]).arg(&own));
    write("data = \"here\"\nadmin = \"127.0.0.1:0\"\nlog = \"warn\"\n[limits]\nconnections = 77\n");
    let sound = check().succeeds();
    assert!(sound.out.contains("r0 of"), "{sound:?}");
    for (more, says) in [
        ("dta = \"here\"\n", &["replica.toml, line 3", "dta"][..]),
        ("transport = \"none\"\n", &["replica.toml, line 3", "none"]),
        ("[limits]\nconnections = 0\n", &["replica.toml", "[limits]", "connections"]),
        ("\nlisten = 7\n", &["replica.toml, line 4"]),
    ] {
        write(more);
        check().fails(2, says);
        run(elea().args(["replica", "--config"]).arg(&own)).fails(2, says);
    }
    write("");
    run(elea().args(["replica", "--config"]).arg(&own)).fails(2, &["needs its data", "--data"]);

    // Where it keeps its data, and what is logged, come from there; SIGHUP changes the latter.
    let with =
        |log: &str| write(&format!("data = \"here\"\nlisten = \"127.0.0.1:0\"\nlog = \"{log}\"\n"));
    with("warn");
    let log = path("replica.log");
    let mut process = Process::start(elea().args(["replica", "--config"]).arg(&own), &log);
    process.says("listening").expect("it starts");
    assert!(path("here").exists());
    assert!(!process.log().contains("replica started"), "{}", process.log());
    let hang_up = |process: &Process, says: &str| {
        process.signal(Signal::HUP);
        until(says, || process.log().contains(says).then_some(()));
    };
    with("info");
    hang_up(&process, "the file was read again");
    write("data = \"there\"\nlog = \"info\"\n");
    hang_up(&process, "what it says of data, listen counts from the next start on");
    fs::write(&own, "nonsense").expect("ours");
    hang_up(&process, "nothing was changed");
    process.signal(Signal::TERM);
    assert_eq!(process.ended(), Some(0));
}

#[test]
fn command_lines_that_cannot_work_are_refused() {
    for (words, says) in [
        (&["get"][..], "KEY"),
        (&["get", "k"], "--cluster FILE or ELEA_CLUSTER"),
        (&["get", "k", "--weak", "--strong"], "cannot be used with"),
        (&["get", "k", "--timeout", "soon"], "no duration"),
        (&["put", "k", "?", "--base64"], "no base64"),
        (&["cas", "k", "v"], "EXPECTED NEW"),
        (&["txn", "--then", "fly k"], "is no operation"),
        (&["txn", "--compare", "k ~ v", "--then", "get k"], "is no comparison"),
        (&["txn"], "does nothing"),
        (&["frobnicate"], "unrecognized subcommand"),
    ] {
        run(elea().args(words)).fails(2, &[says]);
        let json = run(elea().args(words).arg("--json"));
        assert_eq!(json.code, 2, "{json:?}");
        assert_eq!(json.json()["error"]["kind"], "usage");
    }
    run(elea().args(["get", "--help"])).succeeds();
    for shell in ["bash", "zsh", "fish"] {
        let script = run(elea().args(["completions", shell])).succeeds();
        assert!(script.out.contains("elea") && script.out.contains("health"), "{shell}");
    }
    run(elea().arg("--version")).succeeds();
}

#[test]
fn up_starts_what_can_be_started_and_names_the_rest() {
    let dir = init(4);
    let dir = dir.path();
    let addresses = addresses(dir);
    let _taken = TcpListener::bind(&addresses[0]).expect("it was free a moment ago");
    run(&mut replica(dir)).fails(2, &[&addresses[0], "in use"]);
    let mut up = Process::start(elea().arg("up").arg(dir), &dir.join("up.log"));
    let ready = up.says("ready").unwrap_or_else(|| panic!("{}", up.log()));
    assert!(ready.contains("3 of 4 replicas"), "{ready}");
    assert!(up.log().contains("replica 0") && up.log().contains("in use"), "{}", up.log());
    let ask = |words: &[&str]| {
        let mut command = elea();
        command.args(words).arg("--cluster").arg(dir.join("cluster.toml"));
        run(command.arg("--key").arg(dir.join("client-0.key")).args(["--timeout", "60s"]))
    };
    ask(&["put", "k", "v"]).succeeds();
    up.signal(Signal::TERM);
    assert_eq!(up.ended(), Some(0), "{}", up.log());

    // Two are enough for weak answers, in a cluster that has met before.
    fs::write(dir.join("replica-1.key"), "spoilt").expect("ours");
    let mut up = Process::start(elea().arg("up").arg(dir), &dir.join("up.log"));
    let started = up.says("started").unwrap_or_else(|| panic!("{}", up.log()));
    assert!(started.contains("2 of 4 replicas") && started.contains("1 more"), "{started}");
    assert!(up.log().contains("replica 1") && up.log().contains("malformed"), "{}", up.log());
    assert_eq!(ask(&["get", "k", "--weak"]).succeeds().out, "v\n");
    up.signal(Signal::TERM);
    assert_eq!(up.ended(), Some(0), "{}", up.log());

    // One is not: it is stopped again, and all reasons are told.
    fs::write(dir.join("replica-2.key"), "spoilt").expect("ours");
    let up = run(elea().arg("up").arg(dir));
    up.fails(2, &["1 of 4 replicas can run", "takes 2", "replica 0", "replica 1", "replica 2"]);
    assert!(TcpStream::connect(&addresses[3]).is_err(), "r3 still answers");
}

/// All files and folders below a folder, itself included, with their modes.
fn modes(path: &Path) -> Vec<(std::path::PathBuf, bool, u32)> {
    let metadata = fs::symlink_metadata(path).expect("there");
    let mut all = vec![(path.to_owned(), metadata.is_dir(), metadata.permissions().mode() & 0o777)];
    if metadata.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            all.extend(modes(&entry.expect("readable").path()));
        }
    }
    all
}

/// A command under this mask of the shell.
fn under(mask: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask \"$0\"; exec \"$@\"", mask]).arg(command.get_program());
    shell.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

#[test]
fn what_is_kept_is_closed_to_others_whatever_the_mask() {
    for mask in ["000", "077"] {
        let dir = init(1);
        let dir = dir.path();
        let mut up = Process::start(&mut under(mask, elea().arg("up").arg(dir)), &dir.join("log"));
        assert!(up.says("ready").is_some(), "{}", up.log());
        let mut put = elea();
        put.args(["put", "k", "v", "--timeout", "60s", "--receipt"]).arg(dir.join("receipt"));
        put.arg("--cluster").arg(dir.join("cluster.toml"));
        put.arg("--key").arg(dir.join("client-0.key"));
        run(&mut under(mask, &put)).succeeds();
        up.signal(Signal::TERM);
        assert_eq!(up.ended(), Some(0), "{}", up.log());
        let mut backup = elea();
        backup.arg("backup").arg("--cluster").arg(dir.join("cluster.toml"));
        backup.arg("--data").arg(dir.join("replica-0.data")).arg("--out").arg(dir.join("backup"));
        run(&mut under(mask, &backup)).succeeds();
        for name in ["replica-0.data", "client-0.key.sessions", "receipt", "backup"] {
            for (path, is_folder, mode) in modes(&dir.join(name)) {
                let right = if is_folder { 0o700 } else { 0o600 };
                assert_eq!(mode, right, "mask {mask}, {}: {mode:o}", path.display());
            }
        }
        for (path, is_folder, mode) in modes(dir) {
            let is_open = ["cluster.toml", "log"].iter().any(|name| path.ends_with(name));
            assert!(is_open || is_folder || mode == 0o600, "mask {mask}, {}", path.display());
        }
        // A folder that stands open, as older versions made it, is closed at the next start.
        let data = dir.join("replica-0.data");
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).expect("ours");
        let mut up = Process::start(elea().arg("up").arg(dir), &dir.join("log"));
        assert!(up.says("ready").is_some(), "{}", up.log());
        assert_eq!(modes(&data)[0].2, 0o700);
    }
}

#[test]
fn logs_say_nothing_of_the_stores_insides_unless_they_are_asked() {
    let dir = init(1);
    let dir = dir.path();
    let mut up = Process::start(elea().arg("up").arg(dir), &dir.join("up.log"));
    assert!(up.says("ready").is_some(), "{}", up.log());
    drop(up);
    let log = fs::read_to_string(dir.join("replica-0.log")).expect("there");
    assert!(log.contains("elea_replica"), "{log}");
    for insides in ["fjall", "lsm_tree"] {
        assert!(!log.contains(insides), "{log}");
    }
}

#[test]
fn init_makes_what_up_runs_until_it_is_told_to_stop() {
    let dir = init(4);
    let dir = dir.path();
    for entry in fs::read_dir(dir).expect("there").map(|entry| entry.expect("readable")) {
        let mode = entry.metadata().expect("there").permissions().mode() & 0o777;
        let is_key = entry.path().extension().is_some_and(|extension| extension == "key");
        assert!(!is_key || mode == 0o600, "{}: {mode:o}", entry.path().display());
    }
    let before = fs::read(dir.join("cluster.toml")).expect("there");
    run(elea().arg("init").arg(dir)).fails(2, &["not overwritten"]);
    assert_eq!(fs::read(dir.join("cluster.toml")).expect("there"), before);
    run(elea().args(["init", "x", "--base-port", "65534"])).fails(2, &["--base-port"]);
    run(elea().arg("up").arg(dir.join("nothing"))).fails(2, &["there is no cluster file"]);

    let mut up = Process::start(elea().arg("up").arg(dir), &dir.join("up.log"));
    let ready = up.says("ready");
    assert!(ready.is_some_and(|line| line.contains("4 replicas")), "{}", up.log());
    let mut put = elea();
    put.args(["put", "k", "v", "--timeout", "60s"]).arg("--cluster").arg(dir.join("cluster.toml"));
    run(put.arg("--key").arg(dir.join("client-0.key"))).succeeds();
    up.signal(Signal::TERM);
    assert_eq!(up.ended(), Some(0), "{}", up.log());
    for address in addresses(dir) {
        assert!(TcpStream::connect(&address).is_err(), "{address} still answers");
    }

    // Where `up` itself is killed, its replicas do not stay behind.
    let mut up = Process::start(elea().arg("up").arg(dir), &dir.join("up.log"));
    assert!(up.says("ready").is_some(), "{}", up.log());
    drop(up);
    for address in addresses(dir) {
        until("the replicas stop", || TcpStream::connect(&address).is_err().then_some(()));
    }
}

#[test]
fn limits_of_the_application_that_cannot_be_are_refused() {
    let dir = init(4);
    let dir = dir.path();
    let path = dir.join("cluster.toml");
    let good = fs::read_to_string(&path).expect("there");
    for (table, word) in
        [("key_bytes = 0", "key_bytes"), ("key_bites = 9", "key_bites"), ("key_bytes = \"x\"", "")]
    {
        fs::write(&path, format!("{good}\n[application]\n{table}\n")).expect("ours");
        run(&mut replica(dir)).fails(2, &["table [application]", word]);
    }
}

#[test]
fn a_request_beyond_its_budget_is_refused_with_what_to_do_and_the_next_one_is_not() {
    let town = Town::prepared(4, |town| {
        let path = town.path("cluster.toml");
        let good = fs::read_to_string(&path).expect("there");
        let limits = "[application]\nrequest_steps = 3\nrequest_kept_bytes = 9000";
        fs::write(&path, format!("{good}\n{limits}\n")).expect("ours");
    });
    let txn = |steps: &[&str]| {
        let then = steps.iter().flat_map(|step| ["--then", step]);
        town.elea(&["txn"].into_iter().chain(then).collect::<Vec<_>>())
    };
    txn(&["put a 1"; 3]).succeeds();
    let advice = "ask for less at a time, in several requests";
    txn(&["put a 2"; 4]).fails(1, &["number of steps in the request would be 4", advice]);
    txn(&["append a 3"; 2]).fails(1, &["keeps in memory", "9000 is the most", advice]);
    assert_eq!(town.elea(&["get", "a", "--json"]).succeeds().json()["result"], "1");
}
