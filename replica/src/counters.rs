//! What was dropped, refused or lost, by reason.
//!
//! Nothing is thrown away in silence: each reason has a counter, and a log line at most once a
//! second, so that an attacker cannot fill the disk with complaints about them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use elea_protocol::codec::CodecError;
use elea_protocol::seal::Rejection;

use crate::frames::FrameError;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A reason, or something else worth counting.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Counter {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Counter {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in status reports and metrics.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it counts.
            #[must_use]
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

counters! {
    /// Connections that proved who they are, of clients.
    ClientsAdmitted = "clients_admitted",
    /// Connections that proved who they are, of peers.
    PeersAdmitted = "peers_admitted",
    /// No connection could be accepted, since there were no descriptors or no memory.
    AcceptPaused = "accept_paused",
    /// No hello came in time.
    HandshakeTimeout = "handshake_timeout",
    /// An unproved connection had to make room for a newer one.
    HandshakeEvicted = "handshake_evicted",
    /// The connection closed before its hello.
    HandshakeAborted = "handshake_aborted",
    /// Something else than a hello, or a hello for another connection.
    HelloMalformed = "hello_malformed",
    /// The hello's signature does not verify: a wrong key, or another cluster.
    HelloBadSignature = "hello_bad_signature",
    /// The hello names nobody this cluster knows, or a weak key.
    HelloUnknownSigner = "hello_unknown_signer",
    /// Whoever dialled speaks another version of the protocol.
    OtherVersion = "other_version",
    /// Whoever dialled wanted the connection to be protected otherwise than it is here.
    OtherTransport = "other_transport",
    /// A connection could not be encrypted: the other end did not prove its key, or somebody in between was at it.
    TlsFailed = "tls_failed",
    /// A peer has other settings, and what comes of operations would differ.
    SettingsDiffer = "settings_differ",
    /// As many client connections are open as there may be.
    ConnectionsFull = "connections_full",
    /// A connection of the client with the most had to make room for one of a client with fewer.
    ClientEvicted = "client_evicted",
    /// One client has as many connections open as it may have.
    ClientConnectionsFull = "client_connections_full",
    /// A key is in use in two places at once.
    KeyUsedTwice = "key_used_twice",
    /// A peer dialled anew and its older connection was closed.
    PeerReplaced = "peer_replaced",
    /// A connection ended within a frame.
    FrameTruncated = "frame_truncated",
    /// A frame was announced that is larger than its sender may send.
    FrameTooLarge = "frame_too_large",
    /// A frame does not decode.
    FrameMalformed = "frame_malformed",
    /// A frame decodes, but something follows.
    FrameTrailing = "frame_trailing",
    /// A message that does not belong on its connection: a peer's from a client, say.
    MessageMisplaced = "message_misplaced",
    /// A client sent what another client signed.
    RequestForeign = "request_foreign",
    /// A signature in a message does not verify.
    MessageBadSignature = "message_bad_signature",
    /// A message is signed by somebody this replica does not know.
    MessageUnknownSigner = "message_unknown_signer",
    /// A message breaks a bound of its kind.
    MessageMalformed = "message_malformed",
    /// A client did not read in time and lost its connection.
    ClientTooSlow = "client_too_slow",
    /// A peer did not read in time and lost its connection.
    PeerTooSlow = "peer_too_slow",
    /// Something large of a peer found no room before the core.
    PeerBulkDropped = "peer_bulk_dropped",
    /// A request was answered with `Busy`.
    RequestBusy = "request_busy",
    /// A question of a client found no room.
    QuestionBusy = "question_busy",
    /// An answer found no room in its connection's queue.
    AnswerDropped = "answer_dropped",
    /// An answer had no connection to go to.
    AnswerUnclaimed = "answer_unclaimed",
    /// A message to a peer found no room in its queue.
    SendQueueFull = "send_queue_full",
    /// An answer to a peer was dropped, since more had come behind it than the line takes in a while.
    SendOutdated = "send_outdated",
    /// A message to a peer was dropped, since the peer is not connected.
    SendNotConnected = "send_not_connected",
    /// A message was too large for a frame.
    SendTooLarge = "send_too_large",
    /// A peer could not be dialled, or turned us away.
    DialFailed = "dial_failed",
    /// A link to a peer came up.
    LinksUp = "links_up",
    /// A peer that cannot be dialled is talked to over the connection that it dialled.
    LinksBack = "links_back",
    /// Signatures checked.
    SignaturesChecked = "signatures_checked",
    /// Checks of signatures, each of one or of several together.
    SignatureChecks = "signature_checks",
    /// Signatures that had been checked before, or came several times at once.
    SignaturesKnown = "signatures_known",
    /// Votes for slots that were certified without them.
    VotesNotNeeded = "votes_not_needed",
    /// Groups of records written with one fsync.
    StoreCommits = "store_commits",
    /// Records in them.
    StoreRecords = "store_records",
    /// Such groups that are in the store's tables, too: see `docs/adr/0002-store.md`.
    StoreTaken = "store_taken",
    /// Waits for room on the disk.
    DiskFull = "disk_full",
    /// Tables of the store found to be what was written.
    TablesChecked = "tables_checked",
    /// Parts of the store of which a table was found not to be what was written.
    TablesDamaged = "tables_damaged",
    /// Proofs of misbehaviour found.
    Accusations = "accusations",
}

/// All counters of one replica.
pub struct Counters {
    started: Instant,
    counts: Vec<AtomicU64>,
    /// When each was last complained about, in ms after `started`, plus 1.
    warned: Vec<AtomicU64>,
}

impl Default for Counters {
    fn default() -> Self {
        let zeros = || Counter::ALL.iter().map(|_| AtomicU64::new(0)).collect();
        Self { started: Instant::now(), counts: zeros(), warned: zeros() }
    }
}

impl Counters {
    /// Counts one.
    pub(crate) fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts many.
    pub(crate) fn add(&self, counter: Counter, many: u64) {
        self.counts[counter as usize].fetch_add(many, Ordering::Relaxed);
    }

    /// Counts one and logs it, at most once a second for each reason.
    pub(crate) fn warn(&self, counter: Counter, detail: impl fmt::Display) {
        self.count(counter);
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        let warned = &self.warned[counter as usize];
        let last = warned.load(Ordering::Relaxed);
        if (last == 0 || now - last.min(now) >= 1000)
            && warned.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            let total = self.get(counter);
            tracing::warn!(reason = counter.name(), total, "{detail}");
        }
    }

    /// How often it was counted.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.counts[counter as usize].load(Ordering::Relaxed)
    }

    /// All that are not zero, by name.
    #[must_use]
    pub fn all(&self) -> Vec<(String, u64)> {
        let counts = Counter::ALL.iter().map(|counter| (*counter, self.get(*counter)));
        counts.filter(|(_, n)| *n > 0).map(|(c, n)| (c.name().to_owned(), n)).collect()
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.all()).finish()
    }
}

/// How a frame that cannot be read is counted.
pub(crate) fn frame_counter(error: &FrameError) -> Counter {
    match error {
        FrameError::TooLarge => Counter::FrameTooLarge,
        FrameError::Malformed(CodecError::Trailing(_)) => Counter::FrameTrailing,
        FrameError::Malformed(_) => Counter::FrameMalformed,
        FrameError::Truncated | FrameError::Closed | FrameError::Io(_) => Counter::FrameTruncated,
    }
}

/// How a message that does not verify is counted.
pub(crate) fn rejection_counter(rejection: Rejection) -> Counter {
    match rejection {
        Rejection::BadSignature => Counter::MessageBadSignature,
        Rejection::UnknownSigner | Rejection::WeakKey => Counter::MessageUnknownSigner,
        Rejection::Malformed(_) => Counter::MessageMalformed,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_counts_land_where_they_belong() {
        let names: BTreeSet<_> = Counter::ALL.iter().map(|counter| counter.name()).collect();
        assert_eq!(names.len(), Counter::ALL.len());
        let counters = Counters::default();
        counters.add(Counter::Accusations, 2);
        counters.warn(Counter::ClientsAdmitted, "once");
        assert_eq!(
            counters.all(),
            [("clients_admitted".to_owned(), 1), ("accusations".to_owned(), 2)]
        );
    }
}
