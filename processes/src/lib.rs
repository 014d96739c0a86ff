//! A cluster as processes of this machine: what `elea up`, `elea demo`, the tests, chaos and the comparison
//! with etcd have in common.
//!
//! It is no part of the fault injection because `elea demo` is part of the program that users get, while the
//! fault injection knows neither sockets nor clocks.

pub mod liar;
pub mod proxy;
