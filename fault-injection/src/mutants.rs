//! Mutants: a rule broken on purpose, in a copy of the source, and whether the simulator notices.
//!
//! Shipped code has no switch that breaks a rule. A mutant is a patch instead: it is applied to a
//! copy of the protocol's source, the simulator is built against the copy, and a few seeds are run,
//! which must end in a violation. Mutants are files in `fault-injection/mutants/`, so that adding
//! one takes no code. A patch that no longer fits is a failure, never a skip.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::run;
use crate::subject::JournalWorld;
use crate::violation::Violation;

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
    /// The rules by whose names it may be caught.
    pub caught_by: Vec<String>,
    /// The first seed to try.
    #[serde(default)]
    pub from: u64,
    /// How many seeds to try at most.
    pub seeds: u64,
}

/// One replacement in one file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// The file, from the root of the repository.
    pub file: String,
    /// What stands there, exactly once.
    pub find: String,
    /// What to put in its place.
    pub replace: String,
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
    #[error("the mutant does not compile:\n{0}")]
    DoesNotCompile(String),
    /// The simulator did not notice.
    #[error("NOT CAUGHT in {0} seeds")]
    NotCaught(u64),
    /// It noticed something else.
    #[error("caught by {found}, but only {expected:?} was expected: {what}")]
    WrongRule {
        /// The rule that was broken.
        found: String,
        /// Those that should have been.
        expected: Vec<String>,
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

/// Builds a mutant and hunts it. Answers how it was caught.
///
/// # Errors
/// It was not, or could not be built.
pub fn hunt(mutant: &Mutant) -> Result<String, Escape> {
    let target = root().join("target/mutants");
    let copy = target.join("source");
    copy_workspace(&copy)?;
    for patch in &mutant.patch {
        apply(&copy, patch)?;
    }
    let build = cargo(&copy, &target)
        .args(["build", "--release", "--offline", "-p", "elea-fault-injection"])
        .output()
        .map_err(|error| Escape::Io(copy.clone(), error))?;
    if !build.status.success() {
        return Err(Escape::DoesNotCompile(String::from_utf8_lossy(&build.stderr).into_owned()));
    }
    let binary = target.join("release/elea-fault-injection");
    let (seeds, from) = (mutant.seeds.to_string(), mutant.from.to_string());
    let output = Command::new(&binary)
        .args(["campaign", "--stop-early", "--partial", "--json"])
        .args(["--seeds", &seeds, "--from", &from])
        .output()
        .map_err(|error| Escape::Io(binary, error))?;
    judge(mutant, &String::from_utf8_lossy(&output.stdout))
}

fn judge(mutant: &Mutant, answer: &str) -> Result<String, Escape> {
    let result: serde_json::Value =
        serde_json::from_str(answer).map_err(|error| Escape::NoAnswer(error.to_string()))?;
    let failures = result["failures"].as_array().cloned().unwrap_or_default();
    let Some(first) = failures.first() else { return Err(Escape::NotCaught(mutant.seeds)) };
    let word = |name: &str| first["violation"][name].as_str().unwrap_or_default().to_owned();
    let (found, what) = (word("rule"), word("what"));
    let seed = first["seed"].as_u64().unwrap_or_default();
    // This very program is the source as it is: the seed must be a good one in it.
    if let Some(violation) = run::seed::<JournalWorld>(seed, false).violation {
        return Err(Escape::AlreadyBroken(seed, violation));
    }
    if !mutant.caught_by.contains(&found) {
        return Err(Escape::WrongRule { found, expected: mutant.caught_by.clone(), what });
    }
    Ok(format!("caught by {found} in seed {seed}: {what}"))
}

fn cargo(directory: &Path, target: &Path) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(directory).env("CARGO_TARGET_DIR", target);
    command
}

fn apply(copy: &Path, patch: &Patch) -> Result<(), Escape> {
    let file = copy.join(&patch.file);
    let text = fs::read_to_string(&file).map_err(|error| Escape::Io(file.clone(), error))?;
    let times = text.matches(&patch.find).count();
    if times != 1 {
        let (file, find) = (patch.file.clone(), patch.find.clone());
        return Err(Escape::DoesNotFit { file, find, times });
    }
    let mutated = text.replacen(&patch.find, &patch.replace, 1);
    fs::write(&file, mutated).map_err(|error| Escape::Io(file, error))
}

/// Copies what the simulator is built from, as a workspace of its own. Files that did not change
/// keep their time, so that only what a mutant touches is built anew.
fn copy_workspace(copy: &Path) -> Result<(), Escape> {
    let root = root();
    for folder in MEMBERS {
        copy_folder(&root.join(folder), &copy.join(folder))?;
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

/// Built in a moment and fast enough for a few seeds; what others wrote is built once.
fn quick_profile() -> toml::Table {
    let text = "[release]\nopt-level = 1\ndebug = false\nincremental = true\n\
                overflow-checks = true\n[release.package.\"*\"]\nopt-level = 3\n";
    toml::from_str(text).expect("a sound profile")
}

/// What the simulator is built from.
const MEMBERS: &[&str] = &["protocol", "fault-injection"];

fn copy_folder(from: &Path, to: &Path) -> Result<(), Escape> {
    let io = |error| Escape::Io(from.to_owned(), error);
    fs::create_dir_all(to).map_err(|error| Escape::Io(to.to_owned(), error))?;
    let mut names = Vec::new();
    for entry in fs::read_dir(from).map_err(io)? {
        let entry = entry.map_err(io)?;
        let target = to.join(entry.file_name());
        names.push(entry.file_name());
        if entry.file_type().map_err(io)?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            let bytes = fs::read(entry.path()).map_err(io)?;
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
            for patch in &mutant.patch {
                let text = fs::read_to_string(root().join(&patch.file)).expect("the file exists");
                assert_eq!(text.matches(&patch.find).count(), 1, "{}: {}", mutant.name, patch.file);
            }
        }
    }
}
