//! How a way treats what passes.

use std::net::SocketAddr;
use std::time::Duration;

/// How one direction of a way treats what passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Nothing passes, and nobody is told: what is written waits until this ends.
    pub is_held: bool,
    /// How long everything takes.
    pub delay: Duration,
    /// So much longer it may take, at random; nothing overtakes anything, as TCP has it.
    pub jitter: Duration,
    /// How much passes in a second; `None`: as much as the machine can.
    pub bytes_per_second: Option<u64>,
    /// Whether pieces of states that pass are spoilt, as a lying replica would: on connections that
    /// begin from now on.
    pub spoils_states: bool,
    /// Whether bits turn now and then in what is encrypted, as somebody on the way can have them.
    pub turns_bits: bool,
}

/// What a way is told to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    /// Connections are closed, and new ones are held.
    pub is_cut: bool,
    /// How often all connections were reset. One does not outlive a reset that came before its
    /// task could look.
    pub resets: u64,
    /// From the dialler to the replica.
    pub there: Link,
    /// And back.
    pub back: Link,
    /// Where the replica listens, while it runs.
    pub target: Option<SocketAddr>,
    /// How often the dialler died.
    pub diallers_dead: u64,
    /// How often the replica died.
    pub replicas_dead: u64,
}
