//! What a run has shown, for machines.

use std::collections::BTreeMap;
use std::sync::Arc;

use elea_client::Level;
use elea_protocol::message::Transport;
use serde_json::{Value as Json, json};

use crate::faults::Kind;
use crate::hostile::{Mischief, Tally};
use crate::recorder::Record;
use crate::service::{Service, Terms};
use crate::shared::Shared;

/// A fault and when it was, in seconds since the clients began.
#[derive(Clone, Debug)]
pub struct Event {
    /// Of which kind.
    pub kind: Kind,
    /// What exactly.
    pub what: String,
    /// When it began.
    pub begin: f64,
    /// When it was over, and everything was whole again.
    pub end: f64,
}

/// Everything a report says.
pub struct Facts<'a> {
    /// The seed.
    pub seed: u64,
    /// What `elea --version` says.
    pub version: &'a str,
    /// How many replicas.
    pub replicas: u8,
    /// How all spoke to each other.
    pub transport: Transport,
    /// How many bits turned on the way.
    pub bits_turned: u64,
    /// The kinds that were to happen.
    pub enabled: &'a [Kind],
    /// Those that were not, with the reason.
    pub left_out: &'a [(&'static str, String)],
    /// What happened.
    pub events: &'a [Event],
    /// What came of faults, by name.
    pub seen: &'a BTreeMap<String, u64>,
    /// How long after each window the first strong answer came, in milliseconds.
    pub recoveries: &'a [u64],
    /// What the wires showed.
    pub record: &'a Record,
    /// What clients saw.
    pub shared: &'a Shared,
    /// What was asked in the end, by name.
    pub in_the_end: BTreeMap<&'static str, u64>,
    /// Whether clients were served when they were owed it.
    pub service: &'a Service,
    /// What was demanded.
    pub terms: Terms,
    /// What hostile clients did.
    pub hostile: &'a BTreeMap<Mischief, Arc<Tally>>,
    /// What is wrong, if anything is.
    pub verdict: Result<(), String>,
}

/// How often each kind that was to happen did.
#[must_use]
pub fn counts(enabled: &[Kind], events: &[Event]) -> BTreeMap<&'static str, u64> {
    let count = |kind: &Kind| events.iter().filter(|event| event.kind == *kind).count() as u64;
    enabled.iter().map(|kind| (kind.word(), count(kind))).collect()
}

impl Facts<'_> {
    /// The report.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let event = |event: &Event| {
            json!({
                "kind": event.kind.word(),
                "what": event.what,
                "begin": rounded(event.begin),
                "end": rounded(event.end),
            })
        };
        let hostile = self.hostile.iter().map(|(kind, tally)| (kind.word(), tally.counts()));
        let left_out: BTreeMap<_, _> = self.left_out.iter().cloned().collect();
        let tally = self.shared.registers.tally();
        let [weak, strong] = self.shared.ledger.acknowledged();
        json!({
            "verdict": if self.verdict.is_ok() { "sound" } else { "broken" },
            "why": self.verdict.as_ref().err(),
            "seed": self.seed,
            "elea": self.version,
            "replicas": self.replicas,
            "transport": self.transport.name(),
            "faults": counts(self.enabled, self.events),
            "left_out": left_out,
            "came_of_faults": self.seen,
            "bits_turned": self.bits_turned,
            "hostile_clients": hostile.collect::<BTreeMap<_, _>>(),
            "service": self.service.to_json(&self.terms),
            "events": self.events.iter().map(event).collect::<Vec<_>>(),
            "weak": self.shared.meter.summary(Level::Weak),
            "strong": self.shared.meter.summary(Level::Strong),
            "answered_per_second": self.shared.meter.seconds(),
            "recovered_after_ms": self.recoveries,
            "writes_acknowledged": { "weak": weak, "strong": strong },
            "registers": {
                "linearizable": tally.linearizable,
                "undecided": tally.undecided,
                "operations": tally.operations,
            },
            "heard": self.record.counts,
            "counted_by_replicas": self.record.counted,
            "restarts": self.record.restarts,
            "violations": self.record.violations,
            "in_the_end": self.in_the_end,
        })
    }
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
