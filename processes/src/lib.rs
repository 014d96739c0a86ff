//! A cluster as processes of this machine: what `elea up`, `elea demo`, the tests, chaos and the comparison
//! with etcd have in common.
//!
//! - A [folder] has the files that `elea init` made, and a [replica] is started with some of them.
//! - A [process] is what was started. Tests that block start it by themselves.
//! - A [proxy] is a way between two parties that can be cut. What [takes connections](acceptor) for it does so
//!   for the ways of chaos, too, which can do much more.
//! - A [liar] plays a replica whose key it has: it [calls](caller) another, and says its [frames] itself.
//!
//! It is no part of the fault injection because `elea demo` is part of the program that users get, while the
//! fault injection knows neither sockets nor clocks.

pub mod acceptor;
pub mod caller;
pub mod environment;
pub mod folder;
pub mod frames;
pub mod liar;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod replica;
