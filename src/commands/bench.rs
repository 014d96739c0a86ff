//! `elea bench`: real requests, counted when a quorum has signed the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use elea_kv::{Answer, Put};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::task::JoinSet;

use crate::cli::{self, BenchLevel};
use crate::cluster::{Cluster, Wait};
use crate::commands;
use crate::failure::{Failure, Outcome};
use crate::output;

/// Latencies are kept in microseconds, to three digits, up to a minute.
const LATENCY_MAX_US: u64 = 60_000_000;

struct Shared {
    answered: AtomicU64,
    over: AtomicBool,
}

/// What one task saw.
struct Seen {
    latencies: Histogram<u64>,
    failed: u64,
    example: Option<Failure>,
}

impl Seen {
    fn new() -> Self {
        let latencies =
            Histogram::new_with_max(LATENCY_MAX_US, 3).expect("three digits up to a minute");
        Self { latencies, failed: 0, example: None }
    }
}

/// Runs the load and reports.
pub async fn run(args: &cli::Bench) -> Outcome {
    let access = &args.access;
    let file = commands::cluster(access.cluster.as_deref())?;
    let mut clients = Vec::new();
    for _ in 0..args.clients {
        clients.push(commands::connect_apart(&file, access, args.own_connections).await?);
    }
    let wait = match args.level {
        BenchLevel::Weak => Wait::Weak,
        BenchLevel::Strong => Wait::Strong,
        BenchLevel::Final => Wait::Final,
    };
    // Connections and the first session are no part of what is measured.
    let first = clients.iter().map(|client| client.ask(put(0, 0, 1, 1), wait, access.timeout));
    futures::future::try_join_all(first).await?;

    let shared = Arc::new(Shared { answered: AtomicU64::new(0), over: AtomicBool::new(false) });
    let mut tasks = JoinSet::new();
    let begin = Instant::now();
    for (client, cluster) in (0..).zip(&clients) {
        let next = Arc::new(AtomicU64::new(0));
        for _ in 0..args.pipeline {
            let (cluster, shared, next) = (cluster.clone(), Arc::clone(&shared), Arc::clone(&next));
            let (keys, size, timeout) = (args.keys, args.value_size, access.timeout);
            tasks.spawn(async move {
                let mut seen = Seen::new();
                while !shared.over.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let operation = put(client, number, keys, size);
                    let begin = Instant::now();
                    match cluster.ask(operation, wait, timeout).await {
                        Ok(reply) if matches!(reply.answer, Answer::Step(_)) => {
                            let micros = u64::try_from(begin.elapsed().as_micros());
                            seen.latencies.saturating_record(micros.unwrap_or(u64::MAX));
                            shared.answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(reply) => {
                            seen.failed += 1;
                            seen.example = output::refusal(&reply.answer).map(Failure::refused);
                        }
                        Err(failure) => {
                            seen.failed += 1;
                            seen.example = Some(failure);
                        }
                    }
                }
                seen
            });
        }
    }
    progress(args, &shared, begin).await;
    let counted = shared.answered.load(Ordering::Relaxed);
    let elapsed = begin.elapsed();
    shared.over.store(true, Ordering::Relaxed);

    let mut all = Seen::new();
    while let Some(seen) = tasks.join_next().await {
        let seen = seen.map_err(|e| Failure::usage(format!("a task of the bench ended: {e}")))?;
        all.latencies.add(&seen.latencies).expect("all histograms have the same bounds");
        all.failed += seen.failed;
        all.example = all.example.or(seen.example);
    }
    futures::future::join_all(clients.into_iter().map(Cluster::close)).await;
    report(args, &all, counted, elapsed);
    match all.example {
        Some(failure) if counted == 0 => Err(failure),
        Some(failure) => {
            eprintln!("elea: {} requests failed, for example: {failure}", all.failed);
            Ok(())
        }
        None => Ok(()),
    }
}

fn put(client: u64, number: u64, keys: u64, size: u32) -> elea_kv::Operation {
    let key = format!("bench/{client}/{}", number % keys);
    // The number comes first, so that two writes of a key differ.
    let mut value = number.to_le_bytes().to_vec();
    value.resize(usize::try_from(size).unwrap_or(usize::MAX), b'.');
    Put::new(key, Bytes::from(value)).into()
}

async fn progress(args: &cli::Bench, shared: &Shared, begin: Instant) {
    let whole = Duration::from_secs(args.seconds);
    // It draws on stderr, and only where that is a terminal.
    let bar = ProgressBar::new(args.seconds * 10);
    let style = ProgressStyle::with_template("{bar:40} {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let mut last = (begin, 0);
    while begin.elapsed() < whole {
        tick.tick().await;
        let (now, answered) = (Instant::now(), shared.answered.load(Ordering::Relaxed));
        let done = u64::try_from(begin.elapsed().as_millis() / 100).unwrap_or(u64::MAX);
        bar.set_position(done);
        if now.duration_since(last.0) >= Duration::from_secs(1) {
            let rate = per_second(answered - last.1, now.duration_since(last.0));
            bar.set_message(format!("{rate:.0} requests/s"));
            last = (now, answered);
        }
    }
    bar.finish_and_clear();
}

#[allow(clippy::cast_precision_loss, reason = "a rate is for people to read")]
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}

fn report(args: &cli::Bench, all: &Seen, counted: u64, elapsed: Duration) {
    let rate = per_second(counted, elapsed);
    let latencies = &all.latencies;
    let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)]
        .map(|(name, quantile)| (name, latencies.value_at_quantile(quantile)));
    if args.access.json {
        let mut latency: serde_json::Map<_, _> =
            quantiles.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        latency.insert("mean".into(), latencies.mean().round().into());
        latency.insert("max".into(), latencies.max().into());
        let object = json!({
            "level": format!("{:?}", args.level).to_lowercase(),
            "clients": args.clients,
            "pipeline": args.pipeline,
            "value_size": args.value_size,
            "keys": args.keys,
            "seconds": elapsed.as_secs_f64(),
            "answered": counted,
            "failed": all.failed,
            "requests_per_second": rate,
            "latency_us": latency,
        });
        output::line(&object.to_string());
        return;
    }
    let shown: Vec<_> = quantiles
        .iter()
        .map(|(name, value)| format!("{name} {}", millis(*value)))
        .chain([format!("max {}", millis(latencies.max()))])
        .collect();
    output::line(&format!(
        "{rate:.0} requests/s: {counted} verified answers in {:.1} s, {} failed\nlatency  {}",
        elapsed.as_secs_f64(),
        all.failed,
        shown.join("  ")
    ));
}

fn millis(micros: u64) -> String {
    format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
}
