//! What the documents say of the code is so: what they name exists, and what has to be named is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use elea_kv::KeyValueStore;
use elea_protocol::application::Application as _;
use elea_protocol::replica::Counters;
use elea_protocol::tuning::Tuning;
use elea_replica::Counter;

use crate::cli::Cli;

/// Files with one of these endings, of the whole tree.
fn files(endings: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR"))];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
            let (path, name) = (entry.path(), entry.file_name().into_string().expect("a name"));
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push((path.clone(), fs::read_to_string(path).expect("text")));
            }
        }
    }
    assert!(found.len() > 5, "the tree is there");
    found
}

fn document(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("it is there")
}

/// What stands between backticks, but for blocks of code.
fn quoted(text: &str) -> BTreeSet<&str> {
    let lines = text.lines().filter(|line| !line.starts_with("```"));
    lines.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// The sections of the specification, as it numbers them: `7`, `7.3`, and `5.2.3` for an item of a list.
fn sections(protocol: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut within = String::new();
    for line in protocol.lines() {
        let number = |text: &str| {
            let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
            text[..end].trim_end_matches('.').to_owned()
        };
        let heading = line.strip_prefix("## ").or_else(|| line.strip_prefix("**")).map(number);
        let item = Some(number(line)).filter(|item| line.starts_with(&format!("{item}. ")));
        if let Some(heading) = heading.filter(|heading| !heading.is_empty()) {
            within.clone_from(&heading);
            found.insert(heading);
        } else if let Some(item) = item.filter(|item| !item.is_empty()) {
            found.insert(format!("{within}.{item}"));
        }
    }
    found
}

/// The numbers that follow these words.
fn references<'a>(text: &'a str, words: &str) -> impl Iterator<Item = String> + use<'a> {
    let rest: Vec<&str> = text.split(words).skip(1).collect();
    rest.into_iter().filter_map(|rest| {
        let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
        let number = rest[..end].trim_end_matches('.');
        (!number.is_empty()).then(|| number.to_owned())
    })
}

#[test]
fn every_section_of_the_specification_that_is_cited_exists() {
    let protocol = document("docs/protocol.md");
    let sections = sections(&protocol);
    assert!(["2", "2.10", "5.2.6", "8.2", "10"].iter().all(|known| sections.contains(*known)));
    let mut cited = 0;
    for (path, text) in files(&[".rs", ".toml", ".md", ".txt"]) {
        for number in references(&text, "protocol.md, section ") {
            cited += 1;
            assert!(sections.contains(&number), "{}: there is no section {number}", path.display());
        }
    }
    assert!(cited > 50, "{cited}");
    // The specification cites itself by the bare number.
    for number in references(&protocol, "(").filter(|number| number.contains('.')) {
        assert!(sections.contains(&number), "docs/protocol.md: there is no section {number}");
    }
}

/// The anchors that a page has for its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    headings
        .map(|heading| heading.trim_start_matches('#').trim().to_lowercase())
        .map(|heading| heading.chars().filter(kept).collect::<String>().replace(' ', "-"))
        .collect()
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    for (path, text) in files(&[".md"]) {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
            let target = target.0;
            if target.contains("://") || target.contains(' ') {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let folder = path.parent().expect("a file lies in a folder");
            let to = if file.is_empty() { path.clone() } else { folder.join(file) };
            let is_there = if anchor.is_empty() {
                to.exists()
            } else {
                fs::read_to_string(&to).is_ok_and(|text| anchors(&text).contains(anchor))
            };
            assert!(is_there, "{}: nothing is at {target}", path.display());
        }
    }
}

#[test]
fn every_mutant_is_in_the_table() {
    let testing = document("docs/testing.md");
    let named = quoted(&testing);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fault-injection/mutants");
    let mutants: BTreeSet<String> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .filter_map(|name| name.strip_suffix(".toml").map(str::to_owned))
        .collect();
    assert!(mutants.len() > 50, "{mutants:?}");
    let missing: Vec<_> = mutants.iter().filter(|name| !named.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "docs/testing.md does not name {missing:?}");
    let traces = |name: &&&str| name.contains('/') && !name.contains(['.', ' ', '*', '<', '$']);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    for trace in named.iter().filter(traces).filter(|name| !name.ends_with('/')) {
        let is_trace = folder.join(format!("{trace}.txt")).exists();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(is_trace || root.join(trace).exists(), "docs/testing.md: there is no {trace}");
    }
}

#[test]
fn every_setting_is_named_with_its_default() {
    let operations = document("docs/operations.md");
    let page =
        operations.split("\n## Settings\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let page = page.expect("a page about settings").replace('\n', " ");
    let tuning = serde_json::to_value(Tuning::default()).expect("numbers");
    let mut settings = tuning.as_object().expect("a table").clone();
    for (_, inner) in settings.clone().iter().filter(|(_, value)| value.is_object()) {
        settings.extend(inner.as_object().expect("a table").clone());
    }
    for (name, value) in KeyValueStore::new().settings() {
        if let Ok(number) = value.parse::<u64>() {
            settings.insert(name, number.into());
        }
    }
    assert!(settings.contains_key("value_bytes") && settings.contains_key("pipeline_slots"));
    for (name, value) in settings.iter().filter(|(_, value)| value.is_number()) {
        let value = value.as_u64().expect("a whole number");
        let kib = value % 1024 == 0;
        let ways = [
            value.to_string(),
            if kib { format!("{} KiB", value >> 10) } else { String::new() },
            if value % (1 << 20) == 0 { format!("{} MiB", value >> 20) } else { String::new() },
        ];
        let is_named = ways.iter().filter(|way| !way.is_empty()).any(|way| {
            [" | ", " ("].iter().any(|between| {
                let words = format!("`{name}`{between}{way}");
                page.match_indices(&words).any(|(at, found)| {
                    page[at + found.len()..].chars().next().is_none_or(|c| !c.is_ascii_digit())
                })
            })
        });
        assert!(is_named, "docs/operations.md: {name} = {value}");
    }
}

#[test]
fn every_counter_that_is_explained_is_counted() {
    let operations = document("docs/operations.md");
    let known: BTreeSet<&str> = Counters::default()
        .iter()
        .map(|(name, _)| name)
        .chain(Counter::ALL.iter().map(|counter| counter.name()))
        .collect();
    let table = operations.split("| counter | says |\n|---|---|\n").nth(1).expect("a table");
    let rows: Vec<&str> = table.lines().take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 20);
    for row in rows {
        let names = row.split('|').nth(1).expect("a column");
        for name in quoted(names) {
            assert!(known.contains(name), "docs/operations.md: nothing counts {name}");
        }
    }
}

#[test]
fn every_counter_is_on_its_page() {
    const PAGE: &str = "docs/internals/counters.md";
    let mut page = String::from(
        "# Counters\n\nAll that `elea status --json` counts, as the sources say it. What an operator should look at is in\n\
         [operations](../operations.md#what-to-look-at).\n",
    );
    let of_shell = Counter::ALL.iter().map(|counter| (counter.name(), counter.description()));
    let lists: [(&str, Vec<(&str, &str)>); 2] =
        [("The core", Counters::described().collect()), ("The shell", of_shell.collect())];
    for (title, all) in lists {
        assert!(all.len() > 40, "{title}");
        page += &format!("\n## {title}\n\n| counter | counts |\n|---|---|\n");
        for (name, words) in all {
            // A link of rustdoc leads nowhere here.
            page +=
                &format!("| `{name}` | {} |\n", words.replace(['[', ']'], "").replace('|', "or"));
        }
    }
    if std::env::var_os("REWRITE").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
        fs::write(path, page).expect("written");
        return;
    }
    assert!(document(PAGE) == page, "{PAGE} is old: run this with REWRITE=1");
}

/// Manual pages of all commands, as `man` shows them: what the command line says, generated with `REWRITE=1`.
#[test]
fn every_command_has_its_manual_page() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/man");
    let made = tempfile::tempdir().expect("a folder");
    clap_mangen::generate_to(Cli::command(), made.path()).expect("pages can be made");
    let names = |folder: &Path| -> BTreeSet<_> {
        let entries = fs::read_dir(folder).expect("a folder");
        entries.map(|entry| entry.expect("an entry").file_name()).collect()
    };
    let pages = names(made.path());
    assert!(pages.len() > 20, "{pages:?}");
    if std::env::var_os("REWRITE").is_some() {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("ours");
        for page in &pages {
            fs::copy(made.path().join(page), folder.join(page)).expect("ours");
        }
    }
    assert_eq!(names(&folder), pages, "deploy/man is old: run this with REWRITE=1");
    for page in &pages {
        let text = |folder: &Path| fs::read(folder.join(page)).expect("it is there");
        let is_so = text(&folder) == text(made.path());
        assert!(is_so, "deploy/man/{} is old: run this with REWRITE=1", page.display());
    }
}

#[test]
fn the_program_in_the_readme_of_the_client_is_the_one_that_is_run() {
    let readme = document("client/README.md");
    let (_, program) = readme.split_once("```rust,no_run\n").expect("it has one");
    let (program, _) = program.split_once("```").expect("it ends");
    let run = document("examples/src/bin/greeting.rs");
    let (_, run) = run.split_once("\n\n").expect("a header comes first");
    assert_eq!(program, run);
}
