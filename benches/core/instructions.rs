//! Instructions of each path, counted: the same on a busy machine as on an idle one.
//!
//! Valgrind counts those of a whole process, so each path is run twice, once with more operations, and the difference
//! is divided. What valgrind shows to programs is a processor without the instructions for hashes, whatever it
//! runs on, and one with those for vectors only where the machine has them: without AVX2 signatures take another way, so
//! nothing is compared there. Counts do not say how fast what they count is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Command, ExitCode};

use super::paths::{PATHS, Path};

/// How this program is asked to run one path so many times.
pub const ONCE: &str = "--repeat";

/// What is compared with: a count and a name in each line.
const KNOWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");

/// By so much may a count differ from the known one, in percent.
const TOLERANCE: f64 = 10.0;

/// So many operations are run first, which may find everything cold, and so many more are counted.
const COLD: u64 = 4;
const COUNTED: u64 = 48;

/// Runs one path.
pub fn repeat(name: &str, times: &str) {
    let path = PATHS.iter().find(|path| path.name == name).expect("a path of this name");
    let mut operation = (path.start)();
    (0..times.parse::<u64>().expect("a number")).for_each(|_| operation());
}

/// Whether this machine takes the ways that are known.
fn is_comparable() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has_vectors = std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    let has_vectors = false;
    has_vectors
}

/// Compares all paths with what is known of them. With `REWRITE=1` it notes what they are now instead.
pub fn compare() -> ExitCode {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("valgrind is not installed: instructions are not counted");
        return ExitCode::SUCCESS;
    }
    if !is_comparable() {
        println!("this processor has no AVX2: instructions are not compared");
        return ExitCode::SUCCESS;
    }
    let counted: Vec<(&str, u64)> = PATHS.iter().map(|path| (path.name, count(path))).collect();
    if std::env::var_os("REWRITE").is_some() {
        let mut text = String::new();
        for (name, count) in counted {
            writeln!(text, "{count:>9} {name}").expect("a string takes everything");
        }
        std::fs::write(KNOWN, text).expect("the file can be written");
        return ExitCode::SUCCESS;
    }
    let text = std::fs::read_to_string(KNOWN).expect("the file is in the repository");
    let mut known: BTreeMap<&str, u64> = text.lines().map(entry).collect();
    let mut all_good = true;
    for (name, count) in counted {
        let Some(before) = known.remove(name) else {
            println!("{count:>9}   not known   {name}");
            all_good = false;
            continue;
        };
        let ratio = count as f64 / before as f64;
        let is_good = (ratio - 1.0).abs() * 100.0 <= TOLERANCE;
        all_good &= is_good;
        println!("{count:>9}  {ratio:.3} of known {}  {name}", if is_good { " " } else { "!" });
    }
    known.keys().for_each(|name| println!("{name}: is not counted any more"));
    if all_good && known.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!(
        "what is marked differs by more than {TOLERANCE} %: where that is meant, note it with \
         `REWRITE=1 cargo bench --bench core -- --instructions`"
    );
    ExitCode::FAILURE
}

fn entry(line: &str) -> (&str, u64) {
    let (count, name) = line.trim_start().split_once(' ').expect("a count and a name");
    (name, count.parse().expect("a number"))
}

/// The instructions of one operation.
fn count(path: &Path) -> u64 {
    (run(path, COLD + COUNTED) - run(path, COLD)) / COUNTED
}

/// Those of a process that does so many.
fn run(path: &Path, times: u64) -> u64 {
    let program = std::env::current_exe().expect("this program is a file");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([ONCE, path.name, &times.to_string()])
        .output()
        .expect("valgrind runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} under valgrind: {said}", path.name);
    let words = said.lines().find_map(|line| line.split_once("Collected : "));
    let (_, count) = words.unwrap_or_else(|| panic!("valgrind counted nothing: {said}"));
    count.trim().parse().expect("a number")
}
