//! How much of everything a replica takes: every queue, connection and wait has a bound here.

use elea_protocol::codec::FRAME_MAX;
use elea_protocol::message::{OPERATIONS_MAX, REQUEST_BYTES_MAX, SETTING_BYTES_MAX, TERMS_MAX};
use serde::{Deserialize, Serialize};

/// The largest frame of somebody who has not yet proved who they are.
pub(crate) const HELLO_FRAME_MAX: usize = 1024;

/// The largest frame that a peer may send before its terms are compared: as many settings as there may be.
pub(crate) const TERMS_FRAME_MAX: usize = TERMS_MAX * 2 * (SETTING_BYTES_MAX + 16) + 64;

/// The largest frame of a client: a request of the largest size with all around it.
pub(crate) const CLIENT_FRAME_MAX: usize =
    REQUEST_BYTES_MAX + 16 * OPERATIONS_MAX + HELLO_FRAME_MAX;

/// What a queued message takes beside the bytes of its frame. It also keeps a flood of the smallest
/// messages from being a flood of allocations.
pub(crate) const OVERHEAD: usize = 512;

/// Bounds on connections, queues and waits. The defaults suit a replica with some gigabytes of
/// memory; each replica may choose its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections of all clients together. Peers do not count: clients cannot lock them out.
    pub connections: usize,
    /// Connections of one client.
    pub connections_per_client: usize,
    /// Connections that have not yet proved who they are. The oldest makes room for the newest, so
    /// that holding them open does not keep others out.
    pub handshakes: usize,
    /// How long such a connection may take, in ms. Also how long a dialled peer may take.
    pub handshake_timeout_ms: u64,
    /// After so long without one byte that a receiver took its connection is dropped, in ms. A line that
    /// is slow, but moves, is none.
    pub write_timeout_ms: u64,
    /// Messages that wait to be written to one client connection.
    pub answers_queued: usize,
    /// The same in bytes.
    pub answer_bytes_queued: usize,
    /// Sessions that a connection is answered for, the ones it used last; fewer where there are many connections, but
    /// at least 64.
    pub sessions_per_connection: usize,
    /// Messages that wait to be written to one peer.
    pub sends_queued: usize,
    /// The same in bytes.
    pub send_bytes_queued: usize,
    /// Bytes of one peer's messages that wait for the core, of what is small and of what is large each.
    pub peer_intake_bytes: usize,
    /// Bytes of all clients' requests that wait for the core.
    pub client_intake_bytes: usize,
    /// The same of one client. It may also have no more than is left for all others.
    pub intake_bytes_per_client: usize,
    /// Bytes of answers that wait to be written to all clients together. One may have no more of them
    /// than is left for all others.
    pub all_answer_bytes_queued: usize,
    /// Questions of one client that are answered a second, about itself and the replica. It may have
    /// saved up as many as five seconds bring.
    pub questions_per_second: u32,
    /// Bytes of records and held-back messages that wait for the disk. Beyond it the core takes in
    /// nothing new until the disk has caught up.
    pub store_backlog_bytes: usize,
    /// How much of the disk is left free, in bytes. With less, the replica writes nothing, and so
    /// says nothing that counts, until there is room again.
    pub disk_reserve_bytes: u64,
    /// How fast the store is read to see whether it is what was written, in bytes a second.
    pub scrub_bytes_per_second: u64,
    /// The wait between one such look at everything and the next, in ms.
    pub scrub_pause_ms: u64,
    /// The first wait before a lost peer is dialled again, in ms; it doubles with each failure...
    pub redial_min_ms: u64,
    /// ...up to this, in ms.
    pub redial_max_ms: u64,
    /// Signatures remembered as good, so that one that comes again is not checked again.
    pub verified_signatures: usize,
    /// How long each step of a stop may take before it is given up, in ms.
    pub stop_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2048,
            connections_per_client: 2048,
            handshakes: 256,
            handshake_timeout_ms: 3_000,
            write_timeout_ms: 10_000,
            answers_queued: 4096,
            answer_bytes_queued: 32 << 20,
            sessions_per_connection: 1024,
            sends_queued: 8192,
            send_bytes_queued: 64 << 20,
            peer_intake_bytes: 16 << 20,
            client_intake_bytes: 64 << 20,
            intake_bytes_per_client: 16 << 20,
            all_answer_bytes_queued: 256 << 20,
            questions_per_second: 200,
            store_backlog_bytes: 64 << 20,
            disk_reserve_bytes: 256 << 20,
            scrub_bytes_per_second: 8 << 20,
            scrub_pause_ms: 3_600_000,
            redial_min_ms: 20,
            redial_max_ms: 1_000,
            verified_signatures: 1 << 16,
            stop_timeout_ms: 5_000,
        }
    }
}

/// A limit under which the replica cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit `{name}` must be {least} to {most}, not {is}: change it in the configuration")]
pub struct BadLimit {
    /// The setting.
    pub name: &'static str,
    /// The least it may be.
    pub least: u64,
    /// The most it may be.
    pub most: u64,
    /// What it is.
    pub is: u64,
}

/// Sessions that all connections together are answered for, at about 150 bytes each, as long as each has its least.
const SESSIONS_OF_ALL: usize = 1 << 17;

/// So many sessions a connection is answered for at least.
const SESSIONS_LEAST: usize = 64;

impl Limits {
    /// How many sessions a connection is answered for where there are so many connections. Without that one client
    /// with many connections could have more remembered than there is memory for.
    pub(crate) fn sessions_of_each(&self, connections: usize) -> usize {
        let share = SESSIONS_OF_ALL / connections.max(1);
        share.max(SESSIONS_LEAST).min(self.sessions_per_connection)
    }

    /// Checks every limit.
    ///
    /// # Errors
    /// The first one that cannot work.
    pub fn check(&self) -> Result<(), BadLimit> {
        const HOUR: u64 = 3_600_000;
        const COUNT: u64 = 1 << 24;
        // Semaphores count bytes in 32 bits a time.
        const BYTES: u64 = 1 << 31;
        let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        // A queue that cannot take the largest message would wait for room for ever.
        let frame = wide(FRAME_MAX + OVERHEAD);
        let request = wide(CLIENT_FRAME_MAX + OVERHEAD);
        let rows = [
            ("connections", wide(self.connections), 1, COUNT),
            ("connections_per_client", wide(self.connections_per_client), 1, COUNT),
            ("handshakes", wide(self.handshakes), 1, COUNT),
            ("handshake_timeout_ms", self.handshake_timeout_ms, 1, HOUR),
            ("write_timeout_ms", self.write_timeout_ms, 1, HOUR),
            ("answers_queued", wide(self.answers_queued), 1, COUNT),
            ("answer_bytes_queued", wide(self.answer_bytes_queued), frame, BYTES),
            ("sessions_per_connection", wide(self.sessions_per_connection), 1, 1 << 12),
            ("sends_queued", wide(self.sends_queued), 1, COUNT),
            ("send_bytes_queued", wide(self.send_bytes_queued), frame, BYTES),
            ("peer_intake_bytes", wide(self.peer_intake_bytes), frame, BYTES),
            ("client_intake_bytes", wide(self.client_intake_bytes), request, BYTES),
            ("intake_bytes_per_client", wide(self.intake_bytes_per_client), request, BYTES),
            ("all_answer_bytes_queued", wide(self.all_answer_bytes_queued), frame, 1 << 40),
            ("questions_per_second", self.questions_per_second.into(), 1, COUNT),
            ("store_backlog_bytes", wide(self.store_backlog_bytes), 1 << 16, BYTES),
            ("disk_reserve_bytes", self.disk_reserve_bytes, 0, 1 << 40),
            ("scrub_bytes_per_second", self.scrub_bytes_per_second, 1 << 10, 1 << 40),
            ("scrub_pause_ms", self.scrub_pause_ms, 1, 24 * 365 * HOUR),
            ("redial_min_ms", self.redial_min_ms, 1, HOUR),
            ("redial_max_ms", self.redial_max_ms, self.redial_min_ms, HOUR),
            ("verified_signatures", wide(self.verified_signatures), 1, COUNT),
            ("stop_timeout_ms", self.stop_timeout_ms, 1, HOUR),
        ];
        match rows.into_iter().find(|(_, is, least, most)| !(least..=most).contains(&is)) {
            None => Ok(()),
            Some((name, is, least, most)) => Err(BadLimit { name, least, most, is }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound_and_a_queue_too_small_for_a_frame_is_refused() {
        assert_eq!(Limits::default().check(), Ok(()));
        for (bytes, sound) in [(FRAME_MAX + OVERHEAD - 1, false), (FRAME_MAX + OVERHEAD, true)] {
            let limits = Limits { peer_intake_bytes: bytes, ..Limits::default() };
            assert_eq!(limits.check().is_ok(), sound, "{bytes}");
        }
    }
}
