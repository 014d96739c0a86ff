//! `elea-fuzz TARGET FILE...` feeds files to a target, without a fuzzer; `elea-fuzz seeds` writes the seeds of all
//! targets into their corpora.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else { return usage() };
    if name == "seeds" {
        for target in elea_fuzz::TARGETS {
            if let Err(error) = target.sow() {
                eprintln!("{}: {error}", target.corpus().display());
                return ExitCode::FAILURE;
            }
        }
        return ExitCode::SUCCESS;
    }
    let Some(target) = elea_fuzz::named(&name) else { return usage() };
    for path in arguments {
        match std::fs::read(&path) {
            Ok(bytes) => (target.run)(&bytes),
            Err(error) => {
                eprintln!("{path}: {error}");
                return ExitCode::FAILURE;
            }
        }
        println!("{path}: borne");
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    let names: Vec<_> = elea_fuzz::TARGETS.iter().map(|target| target.name).collect();
    eprintln!("usage: elea-fuzz seeds | TARGET FILE...; targets: {}", names.join(", "));
    ExitCode::FAILURE
}
