//! The admin listener: metrics, health and the log's level of one replica, for whoever runs it.
//!
//! It is HTTP without keys and TLS, so it belongs on the loopback address, or on a network that only operators reach.
//! Whoever reaches it can read what is in here and set how much is logged, which may slow the replica down.
//!
//! | request | answer |
//! |---|---|
//! | `GET /metrics` | OpenMetrics text; without a core that answers, what needs none |
//! | `GET /livez` | 200 where the core answered within [`PATIENCE`], or the replica still reads its disk |
//! | `GET /readyz` | 200 where strong requests can be served as far as this replica sees; with `?weak`, where weak ones can |
//! | `GET /status` | what `elea status --json` shows of this replica |
//! | `GET /log`, `PUT /log` | what is logged: a list of `module=level` |
//!
//! What keeps it from working says so in one line, with status 503.

mod health;
mod metrics;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::header::{CONTENT_TYPE, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use elea_protocol::id::ReplicaId;
use elea_protocol::message::Transport;
use elea_protocol::quorum::Strength;
use elea_replica::{Report, Watcher};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

use crate::commands::status::replica_json;
use crate::http::{self, ACCEPT_PAUSE};
use crate::log::Log;

/// How long the core may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// So many connections are served at a time. For one more the oldest is closed: whoever holds them keeps nobody out.
const CONNECTIONS: usize = 64;

/// A connection is closed after this, whatever it is at.
const CONNECTION_TIME: Duration = Duration::from_secs(15);

/// What was seen so lately is told again: looking costs the core something, and anybody may ask.
const FRESH: Duration = Duration::from_millis(250);

/// The longest list of levels.
const LOG_BYTES: usize = 4096;

/// What is told of.
pub struct Admin {
    /// The replica that runs now; `None` while it starts, or starts again.
    pub replica: watch::Receiver<Option<Watcher>>,
    pub id: ReplicaId,
    /// Where it is reached by others.
    pub address: String,
    /// The cluster.
    pub genesis: String,
    /// How its connections are protected.
    pub transport: Transport,
    /// On whose disk there should be room.
    pub data: PathBuf,
    pub log: Log,
}

/// The same while it is served.
struct Served {
    admin: Admin,
    /// What was seen last, and when.
    seen: Mutex<Option<(Instant, Report)>>,
    /// One asks the disk at a time: one that does not answer keeps no more than one thread.
    disk: Arc<Mutex<()>>,
}

/// Begins to listen.
pub async fn listen(address: &str) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let at = listener.local_addr()?;
    Ok((listener, at))
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, admin: Admin) -> Infallible {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/log", get(show_log).put(set_log))
        .layer(DefaultBodyLimit::max(LOG_BYTES))
        .with_state(Arc::new(Served { admin, seen: Mutex::default(), disk: Arc::default() }));
    let mut connections = VecDeque::<AbortHandle>::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = timeout(CONNECTION_TIME, http::answer(stream, router.clone()));
                connections.retain(|connection| !connection.is_finished());
                connections.push_back(tokio::spawn(connection).abort_handle());
                if connections.len() > CONNECTIONS {
                    connections.pop_front().inspect(AbortHandle::abort);
                }
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

impl Served {
    fn watcher(&self) -> Option<Watcher> {
        self.admin.replica.borrow().clone()
    }

    /// The replica as it is now, or a moment ago, or why nothing can be said of it.
    async fn look(&self) -> Result<(Watcher, Report), Response> {
        let Some(watcher) = self.watcher() else { return Err(no("the replica is starting")) };
        let look = async {
            let mut seen = self.seen.lock().await;
            if let Some((_, report)) = seen.as_ref().filter(|(since, _)| since.elapsed() < FRESH) {
                return Some(report.clone());
            }
            let report = watcher.report().await?;
            *seen = Some((Instant::now(), report.clone()));
            Some(report)
        };
        match timeout(PATIENCE, look).await {
            Ok(Some(report)) => Ok((watcher, report)),
            Ok(None) => Err(no("the replica has stopped")),
            Err(_) => {
                Err(no(&format!("the core did not answer within {} seconds", PATIENCE.as_secs())))
            }
        }
    }
}

fn no(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}

fn yes() -> Response {
    "ok\n".into_response()
}

async fn metrics(State(served): State<Arc<Served>>) -> Response {
    // What needs no core is told without one.
    let (watcher, report) = (served.watcher(), served.look().await.ok().map(|(_, report)| report));
    let text = async {
        let turn = Arc::clone(&served.disk).lock_owned().await;
        let served = Arc::clone(&served);
        // The disk may take its time to say how much room it has.
        let text = spawn_blocking(move || {
            let _turn = turn;
            metrics::text(&served.admin, watcher.as_ref(), report.as_ref())
        });
        text.await.ok()
    };
    match timeout(PATIENCE, text).await {
        Ok(Some(text)) => ([(CONTENT_TYPE, metrics::CONTENT)], text).into_response(),
        Ok(None) | Err(_) => no("the system does not say how its disk is"),
    }
}

async fn livez(State(served): State<Arc<Served>>) -> Response {
    match served.watcher() {
        // It may have much to read from its disk.
        None => yes(),
        Some(_) => served.look().await.map_or_else(|response| response, |_| yes()),
    }
}

async fn readyz(State(served): State<Arc<Served>>, RawQuery(query): RawQuery) -> Response {
    let strength = match query.as_deref() {
        None | Some("" | "strong") => Strength::Strong,
        Some("weak") => Strength::Weak,
        Some(_) => {
            let word = "ask for /readyz, or for /readyz?weak\n";
            return (StatusCode::BAD_REQUEST, word).into_response();
        }
    };
    let (watcher, report) = match served.look().await {
        Ok(seen) => seen,
        Err(response) => return response,
    };
    let hindrances =
        health::hindrances(&report.status, watcher.connected(), watcher.size(), strength);
    if hindrances.is_empty() { yes() } else { no(&hindrances.join("; ")) }
}

async fn status(State(served): State<Arc<Served>>) -> Response {
    match served.look().await {
        Ok((_, report)) => {
            let Admin { id, address, .. } = &served.admin;
            let json = replica_json(*id, address, &report.status);
            ([(CONTENT_TYPE, "application/json")], format!("{json}\n")).into_response()
        }
        Err(response) => response,
    }
}

async fn show_log(State(served): State<Arc<Served>>) -> String {
    format!("{}\n", served.admin.log.levels())
}

async fn set_log(State(served): State<Arc<Served>>, headers: HeaderMap, body: Bytes) -> Response {
    if headers.contains_key(ORIGIN) {
        let word = "no page of a browser sets what is logged\n";
        return (StatusCode::FORBIDDEN, word).into_response();
    }
    let levels = String::from_utf8_lossy(&body);
    match served.admin.log.set_levels(levels.trim()) {
        Ok(()) => {
            tracing::info!(levels = levels.trim(), "what is logged was set");
            yes()
        }
        Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests;
