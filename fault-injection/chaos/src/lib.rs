//! Faults on real processes.
//!
//! The simulator shows that the cores keep their promises; this shows that the program does. Real
//! replicas run on real sockets and disks, with a [proxy] between every two of them and
//! between clients and replicas. The network is broken, processes are killed and stopped, disks fill
//! up, rot and are slow, clients are [hostile], and meanwhile
//!
//! - the [taps](tap) hear every word, also what is [encrypted](between), and the [recorder] remembers it across
//!   restarts, and finds the replica that contradicts itself;
//! - the [clients](workload) write what can be told from everything else, and the
//!   [ledger] finds what was acknowledged and lost, or done twice;
//! - the [registers] go through the simulator's linearizability checker;
//! - the [judge of service](service) knows which clients are owed answers, and whether they had them;
//! - in the end all replicas must [agree](verify::agreement).
//!
//! But for that last judge, which allows seconds, nothing here judges by the machine's speed. What is chosen at random follows from a seed, but when
//! it meets the processes does not: a seed names a schedule, and not a run.

pub mod between;
pub mod bulky;
pub mod cell;
pub mod chart;
pub mod clock;
pub mod condition;
pub mod contest;
pub mod disk;
pub mod failover;
pub mod faults;
pub mod fleet;
pub mod greedy;
pub mod hangover;
pub mod havoc;
pub mod hostile;
pub mod kill_all;
pub mod large;
pub mod ledger;
pub mod line;
pub mod lookout;
pub mod meter;
pub mod network;
pub mod proxy;
mod pump;
pub mod raw;
pub mod recorder;
pub mod registers;
pub mod report;
pub mod run;
pub mod schedule;
pub mod seals;
pub mod service;
pub mod shared;
pub mod slow_sync;
pub mod steady;
pub mod tap;
pub mod verify;
pub mod voice;
pub mod workload;
