//! The command line as users meet it: real processes, real sockets, real disks, and `kill -9`.
//!
//! Nothing here sleeps to let something happen: it waits for what can be seen, with a deadline.
//! Ports are free ones and are chosen anew where somebody else was faster. Every process is ended
//! by its own id, also where a test fails.

#[path = "process/addresses.rs"]
mod addresses;
#[path = "process/backup.rs"]
mod backup;
#[path = "process/clocks.rs"]
mod clocks;
#[path = "process/configuration.rs"]
mod configuration;
#[path = "process/data.rs"]
mod data;
#[path = "process/disk.rs"]
mod disk;
#[path = "process/fairness.rs"]
mod fairness;
#[path = "process/faults.rs"]
mod faults;
#[path = "process/harness.rs"]
mod harness;
#[path = "process/kill_all.rs"]
mod kill_all;
#[path = "../src/liar.rs"]
mod liar;
#[path = "process/links.rs"]
mod links;
#[path = "process/memoryless.rs"]
mod memoryless;
#[path = "process/one_shot.rs"]
mod one_shot;
#[path = "process/partition.rs"]
mod partition;
#[path = "../src/proxy.rs"]
mod proxy;
#[path = "process/receipts.rs"]
mod receipts;
#[path = "process/settings.rs"]
mod settings;
#[path = "process/slow_disk.rs"]
mod slow_disk;
#[path = "process/slow_line.rs"]
mod slow_line;
#[path = "process/standing.rs"]
mod standing;
#[path = "process/strangers.rs"]
mod strangers;
