//! Mutants: a rule broken on purpose, in a copy of the source, and whether the simulator notices.
//!
//! Shipped code has no switch that breaks a rule. A mutant is a patch instead: it is applied to a
//! copy of the source, the simulator is built against the copy, and a few seeds are run, which must
//! end in a violation; or a scripted scenario, which must not go as its page says. Seeds find what
//! nobody thought of; but where a rule matters only if many things come together, a scenario shows
//! it at once and a thousand seeds may not. Most patches break the protocol; some break the
//! simulator's own driver and disk, as a shell or a store could be broken. Mutants are files in
//! `fault-injection/mutants/`, so that adding one takes no code. A patch that no longer fits is a
//! failure, never a skip.
//!
//! To build takes far longer than to hunt. So mutants that do not touch the same places share one
//! copy, in which every patch is a choice: `if mutant::on(7) { what is wrong } else { what is right }`.
//! Which of them is on, the hunted program learns from its environment.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::subject::JournalWorld;
use crate::violation::Violation;
use crate::{campaign, run, script};

/// A rule to break and who must notice.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    /// As it is called; the name of its file.
    #[serde(skip)]
    pub name: String,
    /// The rule it breaks, in words.
    pub breaks: String,
    /// What to patch.
    pub patch: Vec<Patch>,
    /// The scenario that must not print any more what its page says, in `tests/traces`. Then no
    /// seeds are run.
    pub trace: Option<String>,
    /// The rules by whose names a seed may catch it.
    #[serde(default)]
    pub caught_by: Vec<String>,
    /// In which campaign.
    #[serde(default = "usual_campaign")]
    pub campaign: String,
    /// The first seed to try.
    #[serde(default)]
    pub from: u64,
    /// How many seeds to try at most.
    #[serde(default)]
    pub seeds: u64,
}

fn usual_campaign() -> String {
    "safety".into()
}

/// One replacement in one file: of a whole expression, or of whole statements that bind no names
/// for what follows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// The file, from the root of the repository.
    pub file: String,
    /// What stands there, exactly once. Where a part of it is marked with `⟦` and `⟧`, only that
    /// part is replaced, and the rest is there to find it.
    pub find: String,
    /// What to put in its place.
    pub replace: String,
}

impl Patch {
    /// What comes before the place, what is in it, and what comes after it.
    fn parts(&self) -> (&str, &str, &str) {
        let marked = || {
            let (before, rest) = self.find.split_once('⟦')?;
            let (place, after) = rest.split_once('⟧')?;
            Some((before, place, after))
        };
        marked().unwrap_or(("", &self.find, ""))
    }

    /// Where in the file the place is.
    fn fit(&self, text: &str) -> Result<Range<usize>, Escape> {
        let (before, place, after) = self.parts();
        let whole = [before, place, after].concat();
        let places: Vec<usize> = text.match_indices(&whole).map(|(at, _)| at).collect();
        let [at] = places[..] else {
            let (file, find, times) = (self.file.clone(), self.find.clone(), places.len());
            return Err(Escape::DoesNotFit { file, find, times });
        };
        let start = at + before.len();
        Ok(start..start + place.len())
    }
}

/// Why a mutant was not caught.
#[derive(Debug, thiserror::Error)]
pub enum Escape {
    /// A mutant's file is not what it should be.
    #[error("{0}: {1}")]
    BadFile(PathBuf, String),
    /// The source changed and the patch does not fit any more.
    #[error("the patch does not fit: {find:?} is {times} times in {file}, not once")]
    DoesNotFit {
        /// The file.
        file: String,
        /// What was looked for.
        find: String,
        /// How often it was found.
        times: usize,
    },
    /// The copy could not be made.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// The mutated source does not compile.
    #[error("the mutated source does not compile:\n{0}")]
    DoesNotCompile(String),
    /// As the mutants that are built together with it.
    #[error("not built")]
    NotBuilt,
    /// The simulator did not notice.
    #[error("NOT CAUGHT in {0} seeds")]
    NotCaught(u64),
    /// The scenario goes on as before.
    #[error("NOT CAUGHT by {0}")]
    SameTrace(String),
    /// The scenario is another one without the mutant, too.
    #[error("fails without the mutant, too: {0}")]
    BadTrace(String),
    /// It did not come to an end.
    #[error("NOT CAUGHT: no end after {} s", HUNT_MAX.as_secs())]
    NoEnd,
    /// It noticed something else.
    #[error("caught by {found} in seed {seed}, but only {expected:?} was expected: {what}")]
    WrongRule {
        /// The rule that was broken.
        found: String,
        /// Those that should have been.
        expected: Vec<String>,
        /// The seed.
        seed: u64,
        /// What it said.
        what: String,
    },
    /// The rule is broken without the mutant, too.
    #[error("seed {0} fails without the mutant, too: {1}")]
    AlreadyBroken(u64, Violation),
    /// The simulator's answer could not be read.
    #[error("the simulator failed without an answer: {0}")]
    NoAnswer(String),
}

/// How a mutant was caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caught {
    /// By a seed.
    Seed {
        /// The rule that it broke.
        rule: String,
        /// In which seed.
        seed: u64,
        /// How many seeds were run until then.
        tried: u64,
        /// What the checker said.
        what: String,
    },
    /// By a scenario.
    Trace {
        /// Which, by its path in `tests/traces`.
        page: String,
        /// Where and what it printed instead.
        difference: String,
    },
}

impl fmt::Display for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seed { rule, seed, tried, what } => {
                write!(f, "caught by {rule} in seed {seed} after {tried} seeds: {what}")
            }
            Self::Trace { page, difference } => {
                write!(f, "caught by {page}\n{difference}")
            }
        }
    }
}

/// The root of the repository.
fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// All mutants, by name.
///
/// # Errors
/// A file cannot be read or is not a mutant.
pub fn all() -> Result<Vec<Mutant>, Escape> {
    let folder = root().join("fault-injection/mutants");
    let io = |error| Escape::Io(folder.clone(), error);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .map_err(io)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(io)?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let text =
                fs::read_to_string(&file).map_err(|error| Escape::Io(file.clone(), error))?;
            let mut mutant: Mutant = toml::from_str(&text)
                .map_err(|error| Escape::BadFile(file.clone(), error.to_string()))?;
            mutant.name = file
                .file_stem()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            Ok(mutant)
        })
        .collect()
}

/// Hunts the mutants of these names, or all of them, and prints what came of each: a line at a time,
/// and at last a table. Answers whether all were caught.
#[must_use]
pub fn run(names: &[String]) -> bool {
    let mut mutants = match all() {
        Ok(all) => all,
        Err(error) => {
            eprintln!("{error}");
            return false;
        }
    };
    let unknown: Vec<_> =
        names.iter().filter(|name| mutants.iter().all(|mutant| mutant.name != **name)).collect();
    for name in &unknown {
        eprintln!("there is no mutant `{name}`; `list` shows them all");
    }
    mutants.retain(|mutant| names.is_empty() || names.contains(&mutant.name));
    let mut table = vec![["mutant", "caught by", "seed", "tried", "s"].map(str::to_owned)];
    let mut escaped = Vec::new();
    hunt_all(&mutants, |mutant, took, result| {
        let took = format!("{:.1}", took.as_secs_f64());
        let name = mutant.name.clone();
        let row = match &result {
            Ok(caught) => {
                println!("{name}: {caught}");
                match caught {
                    Caught::Seed { rule, seed, tried, .. } => {
                        let by = format!("{rule} ({})", mutant.campaign);
                        [name, by, seed.to_string(), tried.to_string(), took]
                    }
                    Caught::Trace { page, .. } => {
                        [name, page.clone(), "-".into(), "-".into(), took]
                    }
                }
            }
            Err(error) => {
                eprintln!("{name}: {error}");
                escaped.push(name.clone());
                [name, "ESCAPED".into(), "-".into(), "-".into(), took]
            }
        };
        table.push(row);
    });
    print!("{}", aligned(&table));
    println!("{} of {} mutants caught", mutants.len() - escaped.len(), mutants.len());
    for name in &escaped {
        println!("NOT CAUGHT: {name}");
    }
    escaped.is_empty() && unknown.is_empty()
}

fn aligned(table: &[[String; 5]]) -> String {
    let mut widths = [0; 5];
    for row in table {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let [name, rule, seed, tried, took] = widths;
    table.iter().fold(String::new(), |text, [a, b, c, d, e]| {
        text + &format!("{a:<name$}  {b:<rule$}  {c:>seed$}  {d:>tried$}  {e:>took$}\n")
    })
}

/// Builds mutants, as few times as can be, and hunts one after the other. `report` is told of each,
/// with how long the hunt took.
fn hunt_all(mutants: &[Mutant], mut report: impl FnMut(&Mutant, Duration, Result<Caught, Escape>)) {
    let mut hunted = vec![false; mutants.len()];
    let mut tell = |index: usize, took, result| {
        hunted[index] = true;
        report(&mutants[index], took, result);
    };
    let (rounds, unfit) = rounds(mutants);
    for (index, error) in unfit {
        tell(index, Duration::ZERO, Err(error));
    }
    for round in rounds {
        let since = Instant::now();
        match build(mutants, &round) {
            Ok(binary) => {
                eprintln!(
                    "built {} mutants in {} s",
                    round.members.len(),
                    since.elapsed().as_secs()
                );
                for number in round.members {
                    let since = Instant::now();
                    let result = hunt_in(&binary, &mutants[number], number);
                    tell(number, since.elapsed(), result);
                }
            }
            Err(error) => {
                eprintln!("{error}");
                for number in round.members {
                    tell(number, since.elapsed(), Err(Escape::NotBuilt));
                }
            }
        }
    }
}

/// The places of one file, each with what may stand there instead: for which mutant, and what.
type Places = BTreeMap<(usize, usize), Vec<(usize, String)>>;

/// Mutants that are built together, by their numbers, and the places they patch, by file.
#[derive(Debug, Default)]
struct Round {
    members: Vec<usize>,
    files: BTreeMap<String, Places>,
}

impl Round {
    /// Two mutants may choose what stands in one place, but not in two that overlap.
    fn has_room(&self, file: &str, place: &Range<usize>) -> bool {
        let places = self.files.get(file).into_iter().flatten();
        places.into_iter().all(|((start, end), _)| {
            (*start, *end) == (place.start, place.end) || *end <= place.start || *start >= place.end
        })
    }
}

/// Puts mutants into as few rounds as it is easily done, and those whose patches do not fit aside.
fn rounds(mutants: &[Mutant]) -> (Vec<Round>, Vec<(usize, Escape)>) {
    let mut rounds: Vec<Round> = Vec::new();
    let mut unfit = Vec::new();
    for (number, mutant) in mutants.iter().enumerate() {
        let places: Result<Vec<Range<usize>>, Escape> = mutant
            .patch
            .iter()
            .map(|patch| {
                let file = root().join(&patch.file);
                let text = fs::read_to_string(&file).map_err(|error| Escape::Io(file, error))?;
                patch.fit(&text)
            })
            .collect();
        let places = match places {
            Ok(places) => places,
            Err(error) => {
                unfit.push((number, error));
                continue;
            }
        };
        let patches = || mutant.patch.iter().zip(&places);
        let room = |round: &Round| patches().all(|(patch, at)| round.has_room(&patch.file, at));
        let at = rounds.iter().position(room).unwrap_or_else(|| {
            rounds.push(Round::default());
            rounds.len() - 1
        });
        let round = &mut rounds[at];
        round.members.push(number);
        for (patch, place) in patches() {
            let places = round.files.entry(patch.file.clone()).or_default();
            let choices = places.entry((place.start, place.end)).or_default();
            choices.push((number, patch.replace.clone()));
        }
    }
    (rounds, unfit)
}

/// A file in which each of its places is a choice.
fn with_choices(file: &str, text: &str, places: &Places, mutants: &[Mutant]) -> String {
    let home = if file.starts_with("protocol/") { "crate" } else { "elea_protocol" };
    let mut mutated = String::with_capacity(text.len() * 2);
    let mut done = 0;
    for ((start, end), choices) in places {
        let right = &text[*start..*end];
        // Statements, or a block at the end of a function, stand for themselves; an expression may
        // be a part of a larger one.
        let is_whole = right.trim_end().ends_with([';', '}']);
        let (open, close) = if is_whole { ("", "") } else { ("(", ")") };
        mutated.push_str(&text[done..*start]);
        mutated.push_str(open);
        for (number, wrong) in choices {
            let name = &mutants[*number].name;
            mutated.push_str(&format!(
                "if {home}::mutant::on({number}) {{ /* {name} */\n{wrong}\n}} else "
            ));
        }
        mutated.push_str(&format!("{{\n{right}\n}}{close}"));
        done = *end;
    }
    mutated.push_str(&text[done..]);
    mutated
}

/// What the copy has and the source has not.
const SWITCH: &str = "
/// Which rule is broken on purpose.
pub mod mutant {
    /// Whether it is this one.
    #[must_use]
    pub fn on(number: usize) -> bool {
        static ON: std::sync::OnceLock<Option<usize>> = std::sync::OnceLock::new();
        let chosen = || std::env::var(\"ELEA_MUTANT\").ok()?.parse().ok();
        *ON.get_or_init(chosen) == Some(number)
    }
}
";

/// Where copies are made and built: beside what is built here, and with artifacts of their own.
fn target() -> PathBuf {
    let common = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    common.unwrap_or_else(|| root().join("target")).join("mutants")
}

fn build(mutants: &[Mutant], round: &Round) -> Result<PathBuf, Escape> {
    let target = target();
    let copy = target.join("source");
    copy_workspace(&copy, |file, text| {
        let mutated =
            round.files.get(file).map(|places| with_choices(file, &text, places, mutants));
        let text = mutated.unwrap_or(text);
        match file {
            "protocol/src/lib.rs" => format!("#![allow(warnings)]\n{text}{SWITCH}"),
            _ => text,
        }
    })?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = Command::new(cargo)
        .current_dir(&copy)
        .env("CARGO_TARGET_DIR", &target)
        .args(["build", "--release", "--offline", "-p", "elea-fault-injection"])
        .output()
        .map_err(|error| Escape::Io(copy.clone(), error))?;
    if !build.status.success() {
        let said = String::from_utf8_lossy(&build.stderr);
        let from = said.find("error").unwrap_or_default();
        return Err(Escape::DoesNotCompile(said[from..].to_owned()));
    }
    Ok(target.join("release/elea-fault-injection"))
}

/// The longest hunt: a mutant may well run in circles.
const HUNT_MAX: Duration = Duration::from_secs(900);

fn hunt_in(binary: &Path, mutant: &Mutant, number: usize) -> Result<Caught, Escape> {
    match &mutant.trace {
        Some(page) => trace_in(binary, page, number),
        None => seeds_in(binary, mutant, number),
    }
}

/// Runs a scenario: with the mutant it must be another one, and without it the one on the page.
fn trace_in(binary: &Path, page: &str, number: usize) -> Result<Caught, Escape> {
    let io = |error| Escape::Io(binary.to_owned(), error);
    let path = root().join("tests/traces").join(page);
    if let Err(difference) = script::check_pages(&path) {
        return Err(Escape::BadTrace(difference));
    }
    let answer = target().join("answer.txt");
    let mut child = Command::new(binary)
        .arg("trace")
        .arg(&path)
        .env("ELEA_MUTANT", number.to_string())
        .env_remove("REWRITE")
        .stdout(Stdio::from(fs::File::create(&answer).map_err(io)?))
        .stderr(Stdio::null())
        .spawn()
        .map_err(io)?;
    let ended = ends_in_time(&mut child).map_err(io)?.ok_or(Escape::NoEnd)?;
    if ended.success() {
        return Err(Escape::SameTrace(page.to_owned()));
    }
    let difference = fs::read_to_string(&answer).map_err(io)?;
    if difference.is_empty() {
        return Err(Escape::NoAnswer(format!("{page} was not run: {ended}")));
    }
    Ok(Caught::Trace { page: page.to_owned(), difference })
}

fn seeds_in(binary: &Path, mutant: &Mutant, number: usize) -> Result<Caught, Escape> {
    let io = |error| Escape::Io(binary.to_owned(), error);
    let answer = target().join("answer.json");
    let (seeds, from) = (mutant.seeds.to_string(), mutant.from.to_string());
    let mut child = Command::new(binary)
        .args(["campaign", &mutant.campaign, "--stop-early", "--partial", "--json"])
        .args(["--seeds", &seeds, "--from", &from])
        .env("ELEA_MUTANT", number.to_string())
        .stdout(Stdio::from(fs::File::create(&answer).map_err(io)?))
        .stderr(Stdio::null())
        .spawn()
        .map_err(io)?;
    ends_in_time(&mut child).map_err(io)?.ok_or(Escape::NoEnd)?;
    judge(mutant, &fs::read_to_string(&answer).map_err(io)?)
}

/// How it ended; `None` where it had to be ended.
fn ends_in_time(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let until = Instant::now() + HUNT_MAX;
    loop {
        if let Some(ended) = child.try_wait()? {
            return Ok(Some(ended));
        }
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn judge(mutant: &Mutant, answer: &str) -> Result<Caught, Escape> {
    let result: serde_json::Value =
        serde_json::from_str(answer).map_err(|error| Escape::NoAnswer(error.to_string()))?;
    let failures = result["failures"].as_array().cloned().unwrap_or_default();
    let Some(first) = failures.first() else { return Err(Escape::NotCaught(mutant.seeds)) };
    let word = |name: &str| first["violation"][name].as_str().unwrap_or_default().to_owned();
    let (rule, what) = (word("rule"), word("what"));
    let seed = first["seed"].as_u64().unwrap_or_default();
    // This very program is the source as it is: the seed must be a good one in it.
    let campaign = campaign::named(&mutant.campaign)
        .ok_or_else(|| Escape::NoAnswer(format!("no campaign `{}`", mutant.campaign)))?;
    if let Some(violation) = run::plan::<JournalWorld>((campaign.plan)(seed), false).violation {
        return Err(Escape::AlreadyBroken(seed, violation));
    }
    if !mutant.caught_by.contains(&rule) {
        let expected = mutant.caught_by.clone();
        return Err(Escape::WrongRule { found: rule, expected, seed, what });
    }
    let tried = result["seeds"].as_u64().unwrap_or_default();
    Ok(Caught::Seed { rule, seed, tried, what })
}

/// Copies what the simulator is built from, as a workspace of its own, changed by `change`, which
/// is given a file's path and text. Files that stay the same keep their time, so that only what
/// mutants touch is built anew.
fn copy_workspace(copy: &Path, change: impl Fn(&str, String) -> String) -> Result<(), Escape> {
    let root = root();
    for folder in MEMBERS {
        copy_folder(&root.join(folder), &copy.join(folder), folder, &change)?;
    }
    let manifest = root.join("Cargo.toml");
    let text =
        fs::read_to_string(&manifest).map_err(|error| Escape::Io(manifest.clone(), error))?;
    let mut parsed: toml::Table =
        toml::from_str(&text).map_err(|error| Escape::BadFile(manifest, error.to_string()))?;
    parsed.retain(|section, _| section == "workspace");
    if let Some(toml::Value::Table(workspace)) = parsed.get_mut("workspace") {
        let members = MEMBERS.iter().map(|member| toml::Value::from(*member)).collect();
        workspace.insert("members".into(), toml::Value::Array(members));
    }
    parsed.insert("profile".into(), toml::Value::Table(quick_profile()));
    write_if_changed(&copy.join("Cargo.toml"), parsed.to_string().as_bytes())?;
    for file in ["Cargo.lock", "rust-toolchain.toml"] {
        let from = root.join(file);
        let to = copy.join(file);
        // Cargo drops from the copy's lock what the copy does not need: leave it at that.
        if file != "Cargo.lock" || !to.exists() {
            let bytes = fs::read(&from).map_err(|error| Escape::Io(from, error))?;
            write_if_changed(&to, &bytes)?;
        }
    }
    Ok(())
}

/// Built in a moment and fast enough for some seeds; what others wrote is built once.
fn quick_profile() -> toml::Table {
    let text = "[release]\nopt-level = 1\ndebug = false\nincremental = true\n\
                overflow-checks = true\n[release.package.\"*\"]\nopt-level = 3\n";
    toml::from_str(text).expect("a sound profile")
}

/// What the simulator is built from.
const MEMBERS: &[&str] = &["protocol", "fault-injection"];

fn copy_folder(
    from: &Path,
    to: &Path,
    path: &str,
    change: &impl Fn(&str, String) -> String,
) -> Result<(), Escape> {
    let io = |error| Escape::Io(from.to_owned(), error);
    fs::create_dir_all(to).map_err(|error| Escape::Io(to.to_owned(), error))?;
    let mut names = Vec::new();
    for entry in fs::read_dir(from).map_err(io)? {
        let entry = entry.map_err(io)?;
        let target = to.join(entry.file_name());
        let path = format!("{path}/{}", entry.file_name().to_string_lossy());
        names.push(entry.file_name());
        if entry.file_type().map_err(io)?.is_dir() {
            copy_folder(&entry.path(), &target, &path, change)?;
        } else {
            let bytes = fs::read(entry.path()).map_err(io)?;
            let bytes = match String::from_utf8(bytes) {
                Ok(text) => change(&path, text).into_bytes(),
                Err(error) => error.into_bytes(),
            };
            write_if_changed(&target, &bytes)?;
        }
    }
    for entry in fs::read_dir(to).map_err(io)? {
        let entry = entry.map_err(io)?;
        if !names.contains(&entry.file_name()) {
            let path = entry.path();
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|error| Escape::Io(path, error))?;
        }
    }
    Ok(())
}

fn write_if_changed(file: &Path, bytes: &[u8]) -> Result<(), Escape> {
    if fs::read(file).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    fs::write(file, bytes).map_err(|error| Escape::Io(file.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patch_fits_the_source_as_it_is() {
        for mutant in all().expect("the mutants' files are sound") {
            assert!(campaign::named(&mutant.campaign).is_some(), "{}", mutant.name);
            let is_hunted = match &mutant.trace {
                Some(page) => root().join("tests/traces").join(page).exists(),
                None => mutant.seeds > 0 && !mutant.caught_by.is_empty(),
            };
            assert!(is_hunted, "{}: no seeds and no page", mutant.name);
            for patch in &mutant.patch {
                let text = fs::read_to_string(root().join(&patch.file)).expect("the file exists");
                let fit = patch.fit(&text);
                assert!(fit.is_ok(), "{}: {}", mutant.name, fit.expect_err("just looked"));
            }
        }
    }

    fn mutant(name: &str, find: &str, replace: &str) -> Mutant {
        let (find, replace) = (find.to_owned(), replace.to_owned());
        Mutant {
            name: name.to_owned(),
            breaks: String::new(),
            trace: None,
            patch: vec![Patch { file: "protocol/src/quorum.rs".into(), find, replace }],
            caught_by: Vec::new(),
            campaign: usual_campaign(),
            from: 0,
            seeds: 1,
        }
    }

    #[test]
    fn mutants_of_one_place_are_built_together_and_those_that_overlap_are_not() {
        let find = "count >= self.quorum(⟦strength⟧)";
        let mutants = [
            mutant("one", find, "Strength::Weak"),
            mutant("two", find, "Strength::Strong"),
            mutant("three", "count >= self.quorum(strength)", "true"),
            mutant("four", "count <= nothing", "true"),
        ];
        let (rounds, unfit) = rounds(&mutants);
        let members: Vec<_> = rounds.iter().map(|round| round.members.clone()).collect();
        assert_eq!(members, [vec![0, 1], vec![2]]);
        assert!(matches!(unfit[..], [(3, Escape::DoesNotFit { times: 0, .. })]));
        let (file, places) = rounds[0].files.first_key_value().expect("one file");
        let text = fs::read_to_string(root().join(file)).expect("the file exists");
        let mutated = with_choices(file, &text, places, &mutants);
        let chosen: String = mutated.split_whitespace().collect();
        assert!(chosen.contains(
            "count>=self.quorum((ifcrate::mutant::on(0){/*one*/Strength::Weak}\
             elseifcrate::mutant::on(1){/*two*/Strength::Strong}else{strength}))"
        ));
    }
}
