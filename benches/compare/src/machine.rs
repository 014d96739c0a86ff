//! What this machine is, and what processes use of it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::param::clock_ticks_per_second;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value as Json, json};

use crate::Outcome;

/// Lets this process, and what it starts, have as many files open as it may.
pub fn raise_open_files() -> Outcome<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// The machine and the programs, for the report.
pub fn describe(elea: &Path, etcd: &Path) -> Json {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let commit = said(Command::new("git").args(["rev-parse", "--short", "HEAD"]));
    json!({
        "processor": model.map(|(_, model)| model),
        "cores": cpus,
        "kernel": kernel.trim(),
        "commit": commit,
        "elea": said(Command::new(elea).arg("--version")),
        "etcd": said(Command::new(etcd).arg("--version")),
    })
}

/// The first line that a program says, if it says something.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(ToOwned::to_owned)
}

/// CPU time that a process has used; none where the system does not say.
pub fn cpu_of(pid: u32) -> Duration {
    used(&format!("/proc/{pid}/stat")).unwrap_or_default()
}

/// That of this process.
pub fn cpu_of_this_process() -> Duration {
    used("/proc/self/stat").unwrap_or_default()
}

fn used(path: &str) -> Option<Duration> {
    let text = fs::read_to_string(path).ok()?;
    // The second field is a name in brackets, which may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    // `utime` and `stime`, the 14th and the 15th, in ticks.
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / clock_ticks_per_second().max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_uses_time() {
        let before = cpu_of_this_process();
        while cpu_of_this_process() <= before {
            std::hint::black_box((0..100_000u64).sum::<u64>());
        }
        assert_eq!(cpu_of(u32::MAX), Duration::ZERO);
    }
}
