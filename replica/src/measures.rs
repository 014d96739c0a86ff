//! How long things take, for whoever watches the replica.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use elea_protocol::id::RequestName;
use elea_protocol::message::{ReplyKind, ToClient};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Seconds, from a tenth of a millisecond on.
const SECONDS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// How many records.
const RECORDS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Of so many requests that wait for an answer it is known since when, at most. Each has one place, by its name; one
/// whose place is taken is not measured.
const PLACES: u64 = 1024;

/// A request that was not answered for so long is answered elsewhere, or was refused: its place is free.
const ANSWERED: Duration = Duration::from_secs(60);

/// What an answer promises.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// A request, and when it reached the core.
type Asked = (RequestName, Instant);

/// Its place.
fn place(name: &RequestName) -> usize {
    let mixed = name.session.0.wrapping_mul(31).wrapping_add(name.number.0);
    // Less than the places, of which there are few.
    (mixed % PLACES) as usize
}

/// How long things take, since the start of the replica.
#[derive(Debug)]
pub struct Measures {
    sync: Histogram,
    records: Histogram,
    answers: Family<Kind, Histogram, fn() -> Histogram>,
    busy: Counter<f64, AtomicU64>,
    asked: Mutex<Vec<Option<Asked>>>,
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// What an answer promises, as the metrics say it.
fn kind(kind: ReplyKind) -> Kind {
    let kind = match kind {
        ReplyKind::Speculative => "speculative",
        ReplyKind::Committed => "committed",
    };
    Kind { kind }
}

impl Default for Measures {
    fn default() -> Self {
        let answers = Family::<Kind, Histogram, fn() -> Histogram>::new_with_constructor(seconds);
        // Whoever watches sees both from the start, and not from the first answer on.
        for every in [ReplyKind::Speculative, ReplyKind::Committed] {
            drop(answers.get_or_create(&kind(every)));
        }
        Self {
            sync: seconds(),
            records: Histogram::new(RECORDS),
            answers,
            busy: Counter::default(),
            asked: Mutex::new(vec![None; PLACES as usize]),
        }
    }
}

impl Measures {
    /// Makes them known under the names in `docs/operations.md`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "sync",
            "How long the disk took for a group of records",
            Unit::Seconds,
            self.sync.clone(),
        );
        registry.register("sync_records", "Records in such a group", self.records.clone());
        registry.register_with_unit(
            "answer",
            "From when a request reached the core until it was answered, as far as this replica answers it",
            Unit::Seconds,
            self.answers.clone(),
        );
        registry.register_with_unit(
            "core_busy",
            "Time in which the core had something to do",
            Unit::Seconds,
            self.busy.clone(),
        );
    }

    fn asked(&self) -> MutexGuard<'_, Vec<Option<Asked>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A group of so many records took so long to be on disk.
    pub(crate) fn synced(&self, records: usize, took: Duration) {
        self.sync.observe(took.as_secs_f64());
        self.records.observe(records as f64);
    }

    /// The core was at work for so long.
    pub(crate) fn worked(&self, took: Duration) {
        self.busy.inc_by(took.as_secs_f64());
    }

    /// A client's request reaches the core.
    pub(crate) fn asks(&self, name: RequestName) {
        if let Some(place) = self.asked().get_mut(place(&name)) {
            // Asked again, it waits since it was asked first.
            let is_free = place.is_none_or(|(_, since)| since.elapsed() >= ANSWERED);
            if is_free {
                *place = Some((name, Instant::now()));
            }
        }
    }

    /// Something is sent to a client.
    pub(crate) fn answers(&self, message: &ToClient) {
        let ToClient::Replies(replies) = message else { return };
        let mut asked = self.asked();
        for reply in replies.iter().map(|voted| &voted.reply) {
            // What says later that a weak one is final is not measured.
            let Some(place) = asked.get_mut(place(&reply.name)) else { continue };
            if let Some((_, since)) = place.take_if(|(name, _)| *name == reply.name) {
                let took = since.elapsed().as_secs_f64();
                self.answers.get_or_create(&kind(reply.kind)).observe(took);
            }
        }
    }
}
