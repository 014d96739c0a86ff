//! A connection of HTTP, as the admin listener and the page for browsers serve it: one request, whose head is short and
//! comes soon.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;

/// When no connection can be accepted, it helps to wait until some are closed.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A request's head must be here after this.
const HEAD_TIME: Duration = Duration::from_secs(5);

/// The longest head of a request.
pub const HEAD_BYTES: usize = 16 << 10;

/// Answers the request that comes.
pub async fn answer(stream: TcpStream, router: Router) -> hyper::Result<()> {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
}
