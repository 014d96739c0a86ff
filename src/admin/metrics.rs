//! The metrics of a replica, made anew each time they are asked for.
//!
//! Names and units are those of OpenMetrics: `_seconds` and `_bytes` are seconds and bytes, `_total` counts since the
//! start. No label takes more values than there are replicas. Everything that a replica counts is here under its own
//! name (`docs/internals/counters.md`), with `elea_` before and `_total` behind it.

use std::sync::atomic::AtomicU64;

use elea_protocol::id::ReplicaId;
use elea_protocol::message::{DiskHealth, NodeStatus, Standing, WireVersions};
use elea_protocol::replica::Counters;
use elea_replica::{Counter, Report, Watcher};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use rustix::fs::statvfs;

use super::{Admin, health};

/// What is answered.
pub const CONTENT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = [(&'static str, String); 1];

/// A value for each value of a label.
fn by<N>(
    label: &'static str,
    values: impl IntoIterator<Item = (String, N)>,
) -> Family<Labels, Gauge<f64, AtomicU64>>
where
    N: Into<f64>,
{
    let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
    for (name, value) in values {
        family.get_or_create(&[(label, name)]).set(value.into());
    }
    family
}

/// One of several words, which is 1 while the others are 0.
fn word<T: Copy + PartialEq>(
    label: &'static str,
    all: &[(T, &str)],
    now: T,
) -> Family<Labels, Gauge<f64, AtomicU64>> {
    by(label, all.iter().map(|(value, name)| ((*name).to_owned(), u8::from(*value == now))))
}

/// No figure here comes near what a float cannot hold exactly.
fn float(number: u64) -> f64 {
    number as f64
}

fn seconds(micros: u64) -> f64 {
    float(micros) / 1e6
}

/// All of them as text. Where the replica is not running, or its core does not answer, what is known without them.
pub fn text(admin: &Admin, watcher: Option<&Watcher>, report: Option<&Report>) -> String {
    let mut registry = Registry::with_prefix("elea");
    about(&mut registry, admin, watcher);
    let starts = u64::from(watcher.is_none());
    gauge(&mut registry, "starting", "1 while the replica reads its disk", starts);
    let answers = u64::from(report.is_some());
    gauge(&mut registry, "core_answers", "1 where the core answered in time", answers);
    machine(&mut registry, admin);
    if let Some(watcher) = watcher {
        watcher.measures().register(&mut registry);
        for counter in Counter::ALL {
            let count = ConstCounter::new(watcher.counters().get(*counter));
            registry.register(counter.name(), counter.description(), count);
        }
    }
    if let (Some(watcher), Some(report)) = (watcher, report) {
        standing(&mut registry, admin, watcher, report);
        positions(&mut registry, report);
        others(&mut registry, &report.status);
        counters_of_core(&mut registry, &report.status);
    }
    let mut text = String::new();
    encode(&mut text, &registry).expect("a string takes everything");
    text
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    registry.register(name, help, ConstGauge::new(float(value)));
}

fn about(registry: &mut Registry, admin: &Admin, watcher: Option<&Watcher>) {
    let program = [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("wire", WireVersions::OWN.to_string()),
    ];
    registry.register(
        "build",
        "The program, and the version of the protocol it speaks",
        Info::new(program),
    );
    let name = watcher.map_or_else(String::new, |watcher| watcher.cluster().to_owned());
    let cluster = [
        ("cluster", name),
        ("genesis", admin.genesis.clone()),
        ("replica", admin.id.0.to_string()),
        ("transport", admin.transport.to_string()),
    ];
    let help = "Which replica of which cluster, and how its connections are protected";
    registry.register("cluster", help, Info::new(cluster));
}

fn standing(registry: &mut Registry, admin: &Admin, watcher: &Watcher, report: &Report) {
    let status = &report.status;
    let standings =
        [(Standing::Voter, "voter"), (Standing::New, "new"), (Standing::Observer, "observer")];
    registry.register("standing", "What it may do", word("standing", &standings, status.standing));
    let quarantined = u64::from(status.quarantined);
    gauge(registry, "quarantined", "1 while it doubts its own state", quarantined);
    let disk = match status.disk {
        DiskHealth::Sound => "sound",
        DiskHealth::Full => "full",
        DiskHealth::Damaged(_) => "damaged",
    };
    let disks = ["sound", "full", "damaged"].map(|name| (name, name));
    registry.register("disk_state", "How its disk is", word("state", &disks, disk));
    let (connected, size) = (watcher.connected(), watcher.size());
    let number = u64::try_from(connected).unwrap_or(u64::MAX);
    let help = "Replicas it is in touch with, itself among them";
    gauge(registry, "replicas_connected", help, number);
    gauge(registry, "replicas", "Replicas of the cluster", u64::from(size.replicas()));
    registry.register(
        "failure_tolerance",
        "How many more connected voters may be lost before strong requests are no longer answered, if all others vote",
        ConstGauge::new(health::tolerance(status.standing, connected, size)),
    );
    gauge(registry, "view", "The view it has entered", status.view.0);
    let is_primary = u64::from(status.primary == admin.id);
    gauge(registry, "is_primary", "1 at the primary of that view", is_primary);
    let campaign = status.campaign.map_or(0, |view| view.0);
    gauge(registry, "campaign", "The higher view that it asks for; 0 for none", campaign);
    gauge(registry, "evidence", "Proofs of misbehaviour that it holds", status.evidence);
    let divergent = status.divergent.len() as u64;
    gauge(registry, "divergent_replicas", "Replicas whose history contradicts its own", divergent);
    let doubled = status.doubled.len() as u64;
    gauge(registry, "keys_in_two_places", "Keys that it hears in two places at once", doubled);
    let strangers = status.disagreements.len() as u64;
    gauge(
        registry,
        "replicas_with_other_settings",
        "Replicas it does not speak to for their settings",
        strangers,
    );
    let lists = status.other_lists.len() as u64;
    gauge(registry, "replicas_with_other_clients", "Replicas with another list of clients", lists);
}

fn positions(registry: &mut Registry, report: &Report) {
    let status = &report.status;
    let lock = status.lock.map_or(0, |(_, at)| at.slot.0);
    let slots = [
        ("head", status.head.slot.0),
        ("lock", lock),
        ("stable", status.stable.0),
        ("settled", report.settled.0),
    ];
    let slots = slots.map(|(name, slot)| (name.to_owned(), float(slot)));
    registry.register("slot", "How far it has come", by("position", slots));
    let most = report.speculative_slots_max;
    let help = "What they may come to before no more requests are taken";
    gauge(registry, "speculative_max_slots", help, most);
    gauge(
        registry,
        "speculative_slots",
        "Slots that may still be undone",
        report.speculative_slots,
    );
    let (bytes, most) = (report.speculative_bytes, report.speculative_bytes_max);
    registry.register_with_unit(
        "speculative",
        "About what those slots take in memory",
        Unit::Bytes,
        ConstGauge::new(float(bytes)),
    );
    registry.register_with_unit(
        "speculative_max",
        "What they may come to before no more requests are taken",
        Unit::Bytes,
        ConstGauge::new(float(most)),
    );
    gauge(registry, "pending_requests", "Requests that wait to be ordered", status.pending);
    gauge(registry, "sessions", "Sessions of all clients", status.sessions);
    let pieces = status.transfer.map_or(0, |transfer| transfer.pieces);
    let of = status.transfer.and_then(|transfer| transfer.of).unwrap_or_default();
    let transfer = [("here", pieces), ("all", of)];
    let transfer = transfer.map(|(name, count)| (name.to_owned(), float(count)));
    let help = "Pieces of the state that it fetches; 0 while it fetches none";
    registry.register("transfer_pieces", help, by("pieces", transfer));
}

fn others(registry: &mut Registry, status: &NodeStatus) {
    let ahead = |(id, ms): &(ReplicaId, i64)| (id.0.to_string(), *ms as f64 / 1e3);
    registry.register_with_unit(
        "clock_ahead",
        "How far a replica's clock is ahead of the one that replicas can agree on",
        Unit::Seconds,
        by("replica", status.clocks.iter().map(ahead)),
    );
    registry.register_with_unit(
        "clock_tolerance",
        "How far a clock may be off",
        Unit::Seconds,
        ConstGauge::new(float(status.clock_tolerance_ms) / 1e3),
    );
    let others = || status.pace.others.iter();
    let trips =
        others().filter_map(|other| Some((other.of.0.to_string(), seconds(other.round_trip?))));
    let help = "The round trip to another replica";
    registry.register_with_unit("round_trip", help, Unit::Seconds, by("replica", trips));
    registry.register_with_unit(
        "patience",
        "How long it would wait for a request to be ordered before it suspects the primary",
        Unit::Seconds,
        ConstGauge::new(float(status.pace.patience) / 1e3),
    );
    let refused = status.refused.iter().map(|(by, pieces)| (by.0.to_string(), float(*pieces)));
    let help = "Pieces of states that a replica sent and that were not the certified ones";
    registry.register("pieces_refused", help, by("replica", refused));
}

fn machine(registry: &mut Registry, admin: &Admin) {
    // Where the system does not say, there is no figure.
    if let Ok(disk) = statvfs(&admin.data) {
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let help = "Room on the disk of its data";
        registry.register_with_unit("disk_free", help, Unit::Bytes, ConstGauge::new(float(free)));
    }
    if let Some(resident) = resident_bytes() {
        let help = "Memory that the process has";
        registry.register_with_unit(
            "resident",
            help,
            Unit::Bytes,
            ConstGauge::new(float(resident)),
        );
    }
}

/// What the system says of this process.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

fn counters_of_core(registry: &mut Registry, status: &NodeStatus) {
    let of_core = |name: &str| {
        let told = status.counters.iter().find(|(told, _)| told == name);
        told.map_or(0, |(_, count)| *count)
    };
    for (name, help) in Counters::described() {
        registry.register(name, help, ConstCounter::new(of_core(name)));
    }
}
