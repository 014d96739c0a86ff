//! The shell around the protocol's core: everything that waits, sleeps or can fail.
//!
//! The core never waits for disk or network. It has a thread of its own, which sees to its deadlines and to what piles
//! up; whoever brings an event while nobody is at it hands it over without waking that thread (`core_thread`). One thread
//! owns the store and pays for one fsync per group of records, holding back whatever rests on them
//! (`store_thread`). One thread reads what is stored again and again (`scrub`). Sockets live on the caller's tokio runtime: its worker threads read,
//! decode and verify, so that nothing unverified reaches the core, and encode, so that the core
//! does not have to.
//!
//! ```text
//!  peers ──► listener ─► verify ─► inbox ─► core ─┬─► peer links ──► peers
//!  clients ─┘               (bounded lanes)  ▲    └─► client writers ─► clients
//!                                            │    │        ▲ released once synced
//!                                     Synced └── store ◄───┘ Append, held sends
//! ```
//!
//! Every queue in the drawing is bounded. A flooding client is told `Busy`, a flooding peer is made
//! to wait by TCP, and what finds no room on its way out is dropped and counted: the protocol repairs
//! lost messages, and the shell never blocks one party for another.

mod back;
pub mod backup;
mod certified;
mod checking;
mod client_connection;
mod clients;
mod clock;
mod config;
mod core_thread;
mod counters;
mod descriptors;
#[cfg(test)]
mod dice;
mod doubles;
mod first_start;
mod frames;
mod handshake;
mod inbox;
mod limits;
mod listener;
mod measures;
mod node;
mod outbound;
mod peer_connection;
mod peer_link;
mod recent;
mod scrub;
mod shell;
mod store;
mod store_thread;
mod terms;
mod verified_cache;
mod waiting;
mod watcher;
mod weight;

pub use config::{Config, Durability, RunError, Transport};
pub use counters::{Counter, Counters};
pub use limits::{BadLimit, Limits};
pub use measures::Measures;
pub use node::{Node, run};
pub use store::{Store, StoreError};
pub use watcher::{Report, Watcher};
