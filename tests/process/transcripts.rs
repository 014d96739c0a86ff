//! The transcripts of the documents are so: each command is run as it is written, on real replicas, and has to say what
//! the page says. How a page is marked for that is in CONTRIBUTING.md.
//!
//! `REWRITE=1` writes what commands say into the pages; what stood there with `…` stays where it still holds.

mod page;
mod pattern;
mod ports;
mod shell;

use std::fs;
use std::path::PathBuf;

use elea_chaos::clock;
use elea_client::files::load_cluster;
use elea_client::load_key;
use elea_processes::liar::Liar;
use elea_protocol::id::{Slot, View};
use elea_protocol::signature::Signer as _;
use serde_json::Value as Json;
use tokio::runtime::Runtime;

use self::page::{Page, Step, Transcript};
use self::shell::Shell;
use crate::harness::in_time;

/// The pages that are replayed, each by a test of its own.
const PAGES: [&str; 2] = ["docs/consistency.md", "docs/procedures.md"];

/// How often a transcript begins anew where somebody else took a port of it.
const ATTEMPTS: usize = 5;

/// A slot that no transcript gets to.
const FAR: u64 = 500;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn what_each_level_promises_looks_as_the_page_shows() {
    replay(PAGES[0]);
}

#[test]
fn the_procedures_do_what_the_page_shows() {
    replay(PAGES[1]);
}

#[test]
fn every_page_with_a_transcript_is_replayed() {
    let entries = fs::read_dir(root().join("docs")).expect("a folder");
    let docs = entries.map(|entry| entry.expect("an entry").path());
    for path in docs.chain(["README.md", "client/README.md"].map(|name| root().join(name))) {
        let is_page = path.extension().is_some_and(|extension| extension == "md");
        let text = if is_page { fs::read_to_string(&path).expect("text") } else { String::new() };
        let is_replayed = PAGES.iter().any(|page| path == root().join(page));
        let page = Page::parse(&text).unwrap_or_else(|wrong| panic!("{}: {wrong}", path.display()));
        assert!(is_replayed || !page.replays(), "{}: no test replays it", path.display());
    }
}

/// Replays all transcripts of a page, and writes it anew where that is wanted.
#[track_caller]
fn replay(name: &str) {
    let path = root().join(name);
    let text = fs::read_to_string(&path).expect("it is there");
    let page = Page::parse(&text).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
    assert!(page.replays(), "{name} has transcripts");
    let rewrite = std::env::var_os("REWRITE").is_some();
    let mut said = Vec::new();
    for transcript in &page.transcripts {
        if transcript.needs_clocks && clock::library().is_none() {
            eprintln!("{name}, transcript `{}`: libfaketime is not installed", transcript.name);
            said.extend(transcript.steps.iter().map(|step| step.said.clone()));
            continue;
        }
        said.extend(
            attempts(transcript, rewrite).unwrap_or_else(|wrong| panic!("{name}, {wrong}")),
        );
    }
    if rewrite {
        fs::write(&path, page.with(&said)).expect("written");
    }
}

fn attempts(transcript: &Transcript, rewrite: bool) -> Result<Vec<Vec<String>>, String> {
    let mut last = Err(String::new());
    for _ in 0..ATTEMPTS {
        last = once(transcript, rewrite);
        if !last.as_ref().is_err_and(|wrong| wrong.contains("in use")) {
            break;
        }
    }
    last
}

/// Runs all steps in a folder of their own; answers with what each said.
fn once(transcript: &Transcript, rewrite: bool) -> Result<Vec<Vec<String>>, String> {
    let mut shell = Shell::open();
    let mut said = Vec::new();
    for step in &transcript.steps {
        let lines = done(&mut shell, step);
        if !rewrite && !pattern::holds(&step.said, &lines) {
            return Err(format!(
                "line {}, transcript `{}`:\n$ {}\n{}\nis what the page says; it said\n{}\n-- logs\n{}",
                step.line,
                transcript.name,
                step.command,
                step.said.join("\n"),
                lines.join("\n"),
                shell.logs(),
            ));
        }
        said.push(pattern::rewritten(&step.said, lines));
    }
    Ok(said)
}

/// Does a step, again and again where the page says `# until`.
fn done(shell: &mut Shell, step: &Step) -> Vec<String> {
    if let Some(words) = step.command.strip_prefix("lie ") {
        lie(shell, words);
        return Vec::new();
    }
    let mut lines = Vec::new();
    in_time(|| {
        lines = shell.run(&step.command);
        let is_done = !step.command.contains("# until") || pattern::holds(&step.said, &lines);
        is_done.then_some(())
    });
    lines
}

/// `CLUSTER KEY TO`: whoever has that replica's key votes twice for one slot, before the replica `TO`.
fn lie(shell: &mut Shell, words: &str) {
    let status = shell.run("elea status --json").concat();
    let status: Json = serde_json::from_str(&status).expect("an object");
    let views = status["replicas"].as_array().expect("a list").iter();
    let view = views.filter_map(|replica| replica["view"].as_u64()).max().expect("one answers");
    let folder = shell.folder();
    let words: Vec<&str> = words.split_whitespace().collect();
    let [cluster, key, to] = words[..] else { panic!("lie CLUSTER KEY TO, and not {words:?}") };
    let file = load_cluster(folder.join(cluster)).expect("sound");
    let key = load_key(folder.join(key)).expect("a key file");
    let members = || file.membership.size().members();
    let own = key.public_key();
    let id = members().find(|id| file.membership.replica_key(*id) == Some(&own));
    let to = members().find(|id| id.to_string() == to).expect("a replica");
    let liar = Liar { membership: &file.membership, id: id.expect("a replica's key"), key: &key };
    let address = file.addresses[usize::from(to.0)].as_str();
    let runtime = Runtime::new().expect("threads");
    runtime.block_on(liar.vote_twice((to, address), View(view), Slot(FAR))).expect("it listens");
}
