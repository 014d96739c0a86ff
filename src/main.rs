//! `elea`: the command line.

mod admin;
mod children;
mod cli;
mod cluster;
mod commands;
#[cfg(test)]
mod documents;
mod failure;
mod files;
mod http;
mod log;
mod notify;
mod output;
mod settings;
mod stopping;
#[cfg(test)]
mod structure;
mod txn_syntax;

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::main()
}
