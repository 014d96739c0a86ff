//! How the descriptors that a process may have are divided, so that they never run out.
//!
//! Whoever runs out of them first is not whoever took the most: it may be the store, which then can
//! neither read nor write, and stops for good in the middle of it. So the number of connections follows
//! from the limit that is found at the start, and what the store needs comes first.
//!
//! ```text
//!  limit = own + peers + tables kept open + tables being merged + strangers and clients that knocked + clients
//! ```

use rustix::process::{Resource, getrlimit};

use crate::limits::Limits;
use crate::waiting::PEER_PLACES;

/// The standard streams, the runtime, the socket that listens, journals, folders and locks.
const OWN: usize = 24;

/// For each peer: a link there and one from there, and those that are about to take their place.
const PER_PEER: usize = 2 + PEER_PLACES;

/// Tables that the store keeps open to read from them.
const TABLES_MAX: usize = 128;

/// With less than this for each part there is hardly a service.
const LEAST: usize = 8;

/// The limit of this process.
fn limit() -> usize {
    // A number that does not fit, or none, is as good as any large one.
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// How many tables the store may keep open.
pub(crate) fn tables_kept_open() -> usize {
    tables(limit())
}

fn tables(limit: usize) -> usize {
    (limit / 8).clamp(LEAST, TABLES_MAX)
}

/// Who may have how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptors {
    /// Connections of strangers, and as many of clients that knocked and did not yet prove who they are.
    pub(crate) handshakes: usize,
    /// Connections of clients.
    pub(crate) clients: usize,
}

impl Descriptors {
    /// Divides the descriptors that this process may have.
    pub(crate) fn of_process(peers: usize, limits: &Limits) -> Self {
        let limit = limit();
        let divided = Self::divide(limit, peers, limits);
        let Self { handshakes, clients } = divided;
        if clients < limits.connections {
            tracing::warn!(
                limit,
                clients,
                handshakes,
                "the limit on open files allows fewer client connections than `connections` says: \
                 raise it (`ulimit -n`, LimitNOFILE=)"
            );
        }
        tracing::debug!(limit, handshakes, clients, "descriptors are divided");
        divided
    }

    fn divide(limit: usize, peers: usize, limits: &Limits) -> Self {
        // As many again are open while tables are merged.
        let taken = OWN + PER_PEER * peers + 2 * tables(limit);
        let connections = limit.saturating_sub(taken);
        let handshakes = (connections / 8).max(LEAST / 2).min(limits.handshakes);
        let clients = connections.saturating_sub(2 * handshakes).max(LEAST);
        Self { handshakes, clients: clients.min(limits.connections) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_given_out_than_there_are_and_what_is_plenty_is_bounded_by_the_limits() {
        let limits = Limits::default();
        for limit in [96, 128, 256, 1024, 4096, 1 << 20, usize::MAX] {
            for peers in [3, 6, 9] {
                let divided = Descriptors::divide(limit, peers, &limits);
                let Descriptors { handshakes, clients } = divided;
                let taken = OWN + PER_PEER * peers + 2 * tables(limit);
                let is_tiny = limit < taken + 2 * LEAST;
                let sum = taken + 2 * handshakes + clients;
                assert!(is_tiny || sum <= limit, "{limit}: {divided:?}");
                assert!(handshakes <= limits.handshakes && clients <= limits.connections);
                assert!(handshakes >= LEAST / 2 && clients >= LEAST);
            }
        }
        let all = Descriptors::divide(1 << 20, 3, &limits);
        assert_eq!((all.handshakes, all.clients), (256, 2048));
        let few = Limits { connections: 3, handshakes: 2, ..limits };
        let divided = Descriptors::divide(1024, 3, &few);
        assert_eq!((divided.handshakes, divided.clients), (2, 3));
    }
}
