//! Writing that gives up on who stands still, not on who is slow.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Sleep, sleep};

/// A writer that fails when for so long not one byte could be written. How long it takes until all
/// are is nobody's fault: a line may be slow.
#[derive(Debug)]
pub struct Patient<W> {
    inner: W,
    patience: Duration,
    /// Runs while nothing moves.
    stands_still: Option<Pin<Box<Sleep>>>,
}

impl<W> Patient<W> {
    /// Writes to `inner`.
    pub fn new(inner: W, patience: Duration) -> Self {
        Self { inner, patience, stands_still: None }
    }

    /// What it writes to.
    #[must_use]
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// Passes on what a write came to, and gives up when it has come to nothing for too long.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stands_still = None;
            return outcome;
        }
        let patience = self.patience;
        let timer = self.stands_still.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(timer.as_mut().poll(context));
        self.stands_still = None;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Patient<TcpStream> {
    /// The two ends of the socket; the one that is written is as patient.
    pub(crate) fn split(self) -> (OwnedReadHalf, Patient<OwnedWriteHalf>) {
        let (read, write) = self.inner.into_split();
        (read, Patient::new(write, self.patience))
    }
}

impl<W: AsyncRead + Unpin> AsyncRead for Patient<W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, into)
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Patient<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watch(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(context, bytes);
        self.watch(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(context);
        self.watch(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_shutdown(context);
        self.watch(context, outcome)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn who_reads_slowly_is_waited_for_and_who_does_not_read_is_not() {
        let (near, mut far) = duplex(10);
        let mut writer = Patient::new(near, Duration::from_secs(1));
        let reading = tokio::spawn(async move {
            for _ in 0..30 {
                sleep(Duration::from_millis(60)).await;
                far.read_u8().await.expect("there is more");
            }
            far
        });
        let begin = Instant::now();
        writer.write_all(&[7; 40]).await.expect("a byte now and then is enough");
        assert!(
            begin.elapsed() > Duration::from_secs(1),
            "it took longer than one may stand still"
        );
        let _far = reading.await.expect("it read all that it wanted");
        let error = writer.write_all(&[7]).await.expect_err("nobody reads any more");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
