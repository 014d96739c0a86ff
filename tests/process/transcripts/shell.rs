//! A shell in a folder of its own, which ends with everything that was started from it.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use elea_chaos::clock;
use elea_processes::environment;
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::ports::Ports;
use crate::harness::PATIENCE;

/// What the shell says when a command has ended, with its exit code.
const END: &str = "--- ended with";

/// See the [module](self). It is one shell for all commands, so that variables and what runs in the background stay.
pub struct Shell {
    /// Ports of its own.
    pub ports: Ports,
    dir: TempDir,
    child: Child,
    lines: Receiver<String>,
}

impl Shell {
    pub fn open() -> Self {
        let dir = tempfile::Builder::new().prefix("elea-test-").tempdir().expect("a folder");
        let folder = dir.path().join("here");
        fs::create_dir(&folder).expect("ours");
        let (output, input) = io::pipe().expect("a pipe");
        let mut command = Command::new("sh");
        environment::clear(&mut command);
        let program = Path::new(env!("CARGO_BIN_EXE_elea")).parent().expect("a folder");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", program.display()));
        command.env("HOME", dir.path()).env("LC_ALL", "C.UTF-8").env("COLUMNS", "200");
        if let Some(library) = clock::library() {
            command.env("LIBFAKETIME", library);
        }
        // A group of its own, by which everything is ended that it started.
        command.current_dir(folder).process_group(0).stdin(Stdio::piped());
        command.stdout(input.try_clone().expect("a pipe")).stderr(input);
        let child = command.spawn().expect("a shell");
        let (send, lines) = mpsc::channel();
        // A thread, since reading a pipe cannot be given a deadline. It ends with all who write to it.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Self { ports: Ports::choose(), dir, child, lines }
    }

    /// Where commands are run.
    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("here")
    }

    /// Runs a command; answers with the lines it said, and one for an exit code that is not 0.
    pub fn run(&mut self, command: &str) -> Vec<String> {
        let step = self.dir.path().join("step.sh");
        fs::write(&step, self.ports.on_machine(command) + "\n").expect("ours");
        let step = step.display();
        // What reads its input must not read the commands that follow.
        let words = format!(". {step} </dev/null; printf '\\n{END} %d\\n' $?\n");
        let stdin = self.child.stdin.as_mut().expect("piped");
        stdin.write_all(words.as_bytes()).expect("the shell runs");
        let mut said = Vec::new();
        let code = loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("`{command}` did not end: {said:?}"));
            if let Some(code) = line.strip_prefix(END) {
                break code.trim().to_owned();
            }
            said.push(self.ports.on_page(&line).trim_end().to_owned());
        };
        // The last line end is the shell's.
        if said.last().is_some_and(String::is_empty) {
            said.pop();
        }
        if code != "0" {
            said.push(format!("(exit code {code})"));
        }
        said
    }

    /// What lies in files named `log`.
    pub fn logs(&self) -> String {
        let logs = Command::new("sh")
            .args(["-c", "for log in $(find . -name 'log' -o -name '*.log'); do echo \"$log\"; tail -n 20 \"$log\"; done"])
            .current_dir(self.folder())
            .output();
        logs.map(|logs| String::from_utf8_lossy(&logs.stdout).into_owned()).unwrap_or_default()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // It fails only where all of them have ended.
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
        let _ = self.child.wait();
    }
}
