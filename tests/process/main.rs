//! The command line as users meet it: real processes, real sockets, real disks, and `kill -9`.
//!
//! Nothing here sleeps to let something happen: it waits for what can be seen, with a deadline.
//! Ports are free ones and are chosen anew where somebody else was faster. Every process is ended
//! by its own id, also where a test fails.

mod addresses;
mod admin;
mod backup;
mod browser;
mod clocks;
mod configuration;
mod data;
mod disk;
mod fairness;
mod faults;
mod harness;
mod kill_all;
mod links;
mod memoryless;
mod network;
mod one_shot;
mod partition;
mod receipts;
mod restarts;
mod settings;
mod slow_disk;
mod slow_line;
mod standing;
mod strangers;
mod top;
mod transcripts;
mod transport;
