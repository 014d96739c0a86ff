//! The shell over real sockets and real files: replicas of a counter on this machine.
//!
//! One binary, so that it is linked once. No test sleeps to wait for something, and none uses a
//! fixed port.

mod cluster;
mod hostile;
mod links;
mod strangers;
mod support;
mod transport;
