//! The view for browsers: one page, which is sent how the cluster is as long as somebody looks at it.
//!
//! | request | answer |
//! |---|---|
//! | `GET /`, `/top.css`, `/top.js` | the page |
//! | `GET /events` | server-sent events, each a [`Picture`] as JSON |
//!
//! It has no keys and no cookies, and nothing can be changed by it. It must not be read by pages of others that the same
//! browser shows: a name of theirs may be made to mean this address, so only names that are this machine's are answered,
//! and streams are for this page alone. All viewers share one look at the cluster.

mod guard;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::stream::{self, Stream, StreamExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use self::guard::Hosts;
use super::picture::Picture;
use super::watch::Watch;
use crate::failure::Failure;
use crate::http::{self, ACCEPT_PAUSE};

/// So many look at a time.
const VIEWERS: usize = 16;

/// So many connections are open; more wait.
const CONNECTIONS: usize = 64;

const INDEX: &[u8] = include_bytes!("web/index.html");
const STYLE: &[u8] = include_bytes!("web/top.css");
const SCRIPT: &[u8] = include_bytes!("web/top.js");

/// What the browser may do with it.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (HeaderName::from_static("x-content-type-options"), "nosniff"),
    (HeaderName::from_static("referrer-policy"), "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cache-control"), "no-store"),
];

/// A place for the page, before it is served.
pub struct Page {
    listener: TcpListener,
    at: SocketAddr,
    served: Arc<Served>,
}

/// What all connections share.
struct Served {
    hosts: Hosts,
    /// How the cluster is; nothing at first.
    picture: watch::Sender<Option<Arc<str>>>,
    /// A viewer has come.
    viewer: Notify,
    /// For viewers.
    places: Arc<Semaphore>,
    /// For connections.
    room: Arc<Semaphore>,
}

impl Page {
    /// Begins to listen.
    pub async fn open(address: &str) -> Result<Self, Failure> {
        let cannot = |error| {
            Failure::usage(format!(
                "no page can be served at {address} ({error}): name another address, for example 127.0.0.1:0"
            ))
        };
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        let at = listener.local_addr().map_err(cannot)?;
        let served = Arc::new(Served {
            hosts: Hosts::of(address, at),
            picture: watch::Sender::new(None),
            viewer: Notify::new(),
            places: Arc::new(Semaphore::new(VIEWERS)),
            room: Arc::new(Semaphore::new(CONNECTIONS)),
        });
        Ok(Self { listener, at, served })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}/", self.at)
    }

    /// Serves what needs no cluster until somebody looks.
    pub async fn wait_for_viewer(&self) {
        tokio::select! {
            () = self.served.somebody_looks() => {}
            never = accept(&self.listener, &self.served) => match never {},
        }
    }

    /// Serves it.
    pub async fn serve(self, watch: Watch, every: Duration) -> Infallible {
        let Self { listener, served, .. } = self;
        tokio::select! {
            never = keep_looking(&served, watch, every) => never,
            never = accept(&listener, &served) => never,
        }
    }
}

impl Served {
    async fn somebody_looks(&self) {
        while self.picture.receiver_count() == 0 {
            self.viewer.notified().await;
        }
    }
}

/// Asks the cluster as long as somebody looks.
async fn keep_looking(served: &Served, mut watch: Watch, every: Duration) -> Infallible {
    loop {
        served.somebody_looks().await;
        let picture: Picture = watch.look().await;
        let text = serde_json::to_string(&picture).expect("what is shown has names for keys");
        served.picture.send_replace(Some(text.into()));
        sleep(every).await;
    }
}

async fn accept(listener: &TcpListener, served: &Arc<Served>) -> Infallible {
    let router = router(served);
    loop {
        let place = Arc::clone(&served.room).acquire_owned().await.expect("it is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    let _place = place;
                    let _ = http::answer(stream, router).await;
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

fn router(served: &Arc<Served>) -> Router {
    Router::new()
        .route("/", get(|| async { file("text/html; charset=utf-8", INDEX) }))
        .route("/top.css", get(|| async { file("text/css; charset=utf-8", STYLE) }))
        .route("/top.js", get(|| async { file("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/events", get(events))
        .layer(from_fn_with_state(Arc::clone(served), guarded))
        .layer(map_response(with_headers))
        .with_state(Arc::clone(served))
}

fn file(kind: &'static str, bytes: &'static [u8]) -> Response {
    ([(CONTENT_TYPE, kind)], bytes).into_response()
}

async fn with_headers(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn guarded(
    State(served): State<Arc<Served>>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    match served.hosts.refusal(&request) {
        Some((status, why)) => (status, why).into_response(),
        None => next.run(request).await,
    }
}

async fn events(State(served): State<Arc<Served>>) -> Response {
    let Ok(place) = Arc::clone(&served.places).try_acquire_owned() else {
        let why = format!("{VIEWERS} look already: close a page first\n");
        return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    };
    let pictures = pictures(served.picture.subscribe(), place);
    served.viewer.notify_one();
    Sse::new(pictures).keep_alive(KeepAlive::default()).into_response()
}

/// Each picture, or only the newest for who is slow.
fn pictures(
    from: watch::Receiver<Option<Arc<str>>>,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let next = |(mut from, place): (watch::Receiver<Option<Arc<str>>>, OwnedSemaphorePermit)| async move {
        from.changed().await.ok()?;
        let text = from.borrow_and_update().clone();
        Some((text, (from, place)))
    };
    stream::unfold((from, place), next)
        .filter_map(|text| async move { Some(Ok(Event::default().data(&*text?))) })
}

#[cfg(test)]
mod tests;
