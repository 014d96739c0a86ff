//! The way back over a connection that a peer dialled.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::frames::Writer;

/// A connection that a peer dialled and that may be written to.
#[derive(Clone)]
pub(crate) struct Back {
    pub(crate) writer: Arc<Mutex<Writer>>,
    /// It is of no use any more. Whoever finds that says so here.
    pub(crate) gone: CancellationToken,
}

impl Back {
    pub(crate) fn new(writer: Writer) -> Self {
        Self { writer: Arc::new(Mutex::new(writer)), gone: CancellationToken::new() }
    }
}
