//! Ports for replicas of this machine.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use rand::RngExt as _;

/// Where they are looked for: below those that the system gives to outgoing connections, so that none of them is
/// taken while a replica is down.
const ALL: Range<u16> = 10_000..32_000;

/// How often another row of ports is tried.
const ATTEMPTS: usize = 1000;

/// So many ports in a row on which nobody listens just now.
#[must_use]
pub fn free(count: u16) -> Option<Range<u16>> {
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    (0..ATTEMPTS).find_map(|_| {
        let first = rand::rng().random_range(ALL.start..ALL.end - count);
        let row = first..first + count;
        row.clone().all(is_free).then_some(row)
    })
}
