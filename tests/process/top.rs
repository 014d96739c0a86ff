//! What a person sees of a cluster, in a browser and in a terminal.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use elea_processes::proxy::Proxy;
use rustix::process::Signal;
use serde_json::{Value as Json, json};

use crate::browser::Browser;
use crate::harness::{PATIENCE, Process, Town, elea, init, run, until};
use crate::network::{Network, at};

/// Where pictures of the page are written to, if anywhere.
const PICTURES: &str = "ELEA_PICTURES";

/// What a page says, in its own elements.
const SHOWN: &str = "(() => {
    const all = (selector) => [...document.querySelectorAll(selector)];
    const root = document.documentElement?.dataset ?? {};
    const of = (name) => all('tr[data-replica]').map((row) => row.dataset[name] ?? null);
    return {
        histories: Number(root.histories), merges: Number(root.merges), tolerance: Number(root.tolerance),
        of: of('history'), heads: of('head').map(Number), hashes: of('hash'),
        kinds: all('#log [data-kind]').map((line) => line.dataset.kind).filter((kind) => kind === 'split' || kind === 'merge'),
        lanes: all('#lanes g[data-lane]').length, own: all('#lanes rect.own').length,
        text: document.getElementById('histories')?.textContent ?? '',
    };
})()";

/// What a page is sent.
fn sent(url: &str) -> Receiver<Json> {
    let host = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(host).expect("it listens");
    write!(stream, "GET /events HTTP/1.1\r\nhost: {host}\r\n\r\n").expect("it reads");
    let (send, pictures) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let Some(picture) = line.strip_prefix("data: ") else { continue };
            if send.send(serde_json::from_str(picture).expect("JSON")).is_err() {
                return;
            }
        }
    });
    pictures
}

/// A page as a browser shows it, or what it is sent where there is no browser.
enum Page {
    Shown(Browser),
    Sent(Receiver<Json>),
}

impl Page {
    fn open(url: &str, folder: &Path) -> Self {
        if let Some(browser) = Browser::open(url, folder) {
            return Self::Shown(browser);
        }
        eprintln!(
            "no Chromium is installed: what the page is sent is looked at, and not what it shows"
        );
        Self::Sent(sent(url))
    }

    fn shown(&self) -> Json {
        let pictures = match self {
            Self::Shown(browser) => return browser.value_of(SHOWN),
            Self::Sent(pictures) => pictures,
        };
        let picture = pictures.recv_timeout(PATIENCE).expect("it is sent another one");
        let replicas = || picture["replicas"].as_array().into_iter().flatten();
        let of = |name: &str| {
            replicas().map(|replica| replica["said"][name].clone()).collect::<Vec<_>>()
        };
        let parted = replicas().filter(|replica| !replica["said"]["shared"].is_null()).count();
        let lines =
            picture["log"].as_array().into_iter().flatten().rev().map(|line| line["kind"].clone());
        json!({
            "histories": picture["histories"], "merges": picture["merges"], "tolerance": picture["tolerance"],
            "of": of("history"), "heads": of("head"), "hashes": of("hash"),
            "kinds": lines.filter(|kind| kind == "split" || kind == "merge").collect::<Vec<_>>(),
            "lanes": replicas().count(), "own": parted, "text": picture["histories"].to_string(),
        })
    }

    /// Waits until it shows so many histories and merges.
    #[track_caller]
    fn comes_to_show(&self, histories: u64, merges: u64) -> Json {
        until(&format!("the page shows {histories} histories and {merges} merges"), || {
            let shown = self.shown();
            let is_so = shown["histories"] == histories && shown["merges"] == merges;
            let all_are_there = shown["heads"].as_array().is_some_and(|heads| heads.len() == 4);
            (is_so && all_are_there).then_some(shown)
        })
    }

    fn photograph(&self, name: &str) {
        if let (Self::Shown(browser), Some(folder)) = (self, env::var_os(PICTURES)) {
            browser.photograph(&Path::new(&folder).join(name));
        }
    }
}

#[test]
fn a_page_shows_one_history_then_two_and_one_again_with_the_merge() {
    let mut network = None;
    let town = Town::prepared(4, |town| network = Some(Network::new(town)));
    let network = network.expect("prepared");
    for n in 0..20 {
        town.patient(&["put", &format!("key{n}"), "value"]).succeeds();
    }
    town.agrees();
    for side in ["north", "south"] {
        at(&town, side, &["get", "key0", "--timeout", "60s"]).succeeds();
    }
    let words = ["top", "--web", "127.0.0.1:0", "--every", "250ms"];
    let mut top = Process::start(&mut town.command(&words), &town.path("top.log"));
    let said = top.says("page").expect("it says where the page is");
    let page = Page::open(said.trim_start_matches("page").trim(), &town.path(""));

    let before = page.comes_to_show(1, 0);
    assert_eq!(before["of"], json!(["A", "A", "A", "A"]), "{before}");
    assert_eq!((&before["text"], &before["lanes"]), (&json!("1"), &json!(4)), "{before}");
    assert_eq!((&before["own"], &before["kinds"]), (&json!(0), &json!([])), "{before}");
    assert_eq!(before["tolerance"], 1, "{before}");
    page.photograph("top-before.png");

    network.crossing.iter().for_each(Proxy::cut);
    for n in 0..12 {
        for side in ["north", "south"].into_iter().filter(|side| *side == "south" || n < 8) {
            at(&town, side, &["incr", "stock", "-1", "--weak", "--timeout", "60s"]).succeeds();
        }
    }
    let during = page.comes_to_show(2, 0);
    let of: Vec<&str> =
        during["of"].as_array().expect("a list").iter().filter_map(Json::as_str).collect();
    assert!(of[0] == of[1] && of[2] == of[3] && of[0] != of[2], "{during}");
    assert_eq!((&during["text"], &during["kinds"]), (&json!("2"), &json!(["split"])), "{during}");
    // Each lane has a part that is of its side alone, and no strong quorum has one history.
    assert_eq!((&during["own"], &during["tolerance"]), (&json!(4), &json!(-1)), "{during}");
    page.photograph("top-split.png");

    network.crossing.iter().for_each(Proxy::heal);
    let after = page.comes_to_show(1, 1);
    assert_eq!(after["kinds"], json!(["merge", "split"]), "the newest first: {after}");
    assert_eq!((&after["text"], &after["own"]), (&json!("1"), &json!(0)), "{after}");
    let end = town.agrees();
    let quiet = until("the page shows the end of it", || {
        let shown = page.shown();
        let heads = shown["heads"].as_array()?;
        heads.iter().all(|head| *head == end["head"]["slot"]).then_some(shown)
    });
    assert_eq!(
        (&quiet["histories"], &quiet["merges"], &quiet["tolerance"]),
        (&json!(1), &json!(1), &json!(1))
    );
    page.photograph("top-after.png");

    top.signal(Signal::TERM);
    assert_eq!(top.ended(), Some(0));
}

#[test]
fn a_frame_is_printed_once_and_a_terminal_is_as_it_was_before() {
    let mut town = Town::new(4);
    town.patient(&["put", "key", "value"]).succeeds();
    town.agrees();
    town.kill(3);
    let frame = town.elea(&["top", "--once", "--width", "90"]).succeeds();
    for part in [
        "4 replicas, of which 1 may lie",
        "histories 1",
        "none more may fail",
        "r3      does not answer: ",
    ] {
        assert!(frame.out.contains(part), "{part}: {frame:?}");
    }
    assert!(frame.out.lines().all(|line| line.chars().count() <= 90), "{frame:?}");
    let seen = town.elea(&["top", "--once", "--json"]).succeeds().json();
    assert_eq!(
        (&seen["histories"], seen["replicas"].as_array().map(Vec::len)),
        (&json!(1), Some(4))
    );
    town.elea(&["top"]).fails(2, &["no terminal", "--once"]);
    town.elea(&["top", "--web", "nowhere"]).fails(2, &["no page can be served at nowhere"]);

    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("script (util-linux) is not installed: no terminal is drawn on");
        return;
    }
    // A terminal of its own, in which somebody presses q once there is something to see.
    let words = format!("stty rows 24 cols 90; exec {} top", env!("CARGO_BIN_EXE_elea"));
    let mut command = town.command(&[]);
    let environment: Vec<_> = command
        .get_envs()
        .map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned)))
        .collect();
    command = Command::new("script");
    for (name, value) in environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.args(["-qec", &words, "/dev/null"]).env("TERM", "xterm-256color");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let (mut keys, mut shown) = (child.stdin.take().expect("piped"), Vec::new());
    while !String::from_utf8_lossy(&shown).contains("q quits") {
        let read = out.read_until(b't', &mut shown).expect("it is drawn");
        assert!(read > 0, "it ended: {}", String::from_utf8_lossy(&shown));
    }
    keys.write_all(b"q").expect("keys are read");
    while out.read_until(b't', &mut shown).expect("it is drawn") > 0 {}
    let status = until("it ends", || child.try_wait().expect("our child"));
    assert!(status.success(), "{status}");
    let shown = String::from_utf8_lossy(&shown);
    let (enter, leave) = ("\u{1b}[?1049h", "\u{1b}[?1049l");
    let order = (shown.find(enter), shown.rfind(leave));
    assert!(matches!(order, (Some(enter), Some(leave)) if enter < leave), "{shown:?}");
}

#[test]
fn a_cluster_of_one_machine_has_its_page_beside_it() {
    let dir = init(4);
    let mut command = elea();
    command.arg("up").arg(dir.path()).args(["--web", "127.0.0.1:0"]);
    let mut up = Process::start(&mut command, &dir.path().join("up.log"));
    let said = up.says("page").expect("it says where the page is");
    let page = Page::Sent(sent(said.trim_start_matches("page").trim()));
    let shown = page.comes_to_show(1, 0);
    assert_eq!(shown["of"], json!(["A", "A", "A", "A"]));
    up.signal(Signal::TERM);
    assert_eq!(up.ended(), Some(0));
    run(elea().args(["top", "--once"])).fails(2, &["which cluster"]);
}
