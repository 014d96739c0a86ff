//! A speaker on a connection, and the line by which its words go on: late, slowly, with bits turned, or not at all.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use elea_fault_injection::rng::Rng;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::line::{Link, State};
use crate::tap::Tap;

/// So much is read at a time.
const CHUNK: usize = 16 << 10;

/// On a slow line so much is read at a time as passes in this part of a second: what is slow should
/// still be steady.
const PIECES_PER_SECOND: u64 = 20;

/// And at least so many bytes.
const PIECE: usize = 256;

/// So many chunks are on their way at a time; then the speaker has to wait, as with TCP's window.
const CHUNKS: usize = 64;

/// Of how many chunks a bit turns in one, where bits turn.
const TURNED: u64 = 100;

/// Whose words a direction carries. As long as it lives, the words are listened for.
pub struct Speaker {
    /// Whether it is the dialler, or the replica that was dialled.
    is_dialler: bool,
    /// How often it had died when the connection began.
    deaths: u64,
    /// What the way is told.
    state: watch::Receiver<State>,
    /// Who hears it.
    pub tap: Tap,
    _listening: Listening,
}

impl Speaker {
    /// The dialler, or the replica, as the way is told at the beginning of a connection; `listening` counts those who
    /// listen to either.
    #[must_use]
    pub fn new(
        is_dialler: bool,
        state: &watch::Receiver<State>,
        listening: &watch::Sender<[usize; 2]>,
        tap: Tap,
    ) -> Self {
        Self {
            is_dialler,
            deaths: Self::deaths_in(is_dialler, &state.borrow()),
            state: state.clone(),
            tap,
            _listening: Listening::new(listening, usize::from(!is_dialler)),
        }
    }

    fn deaths_in(is_dialler: bool, state: &State) -> u64 {
        if is_dialler { state.diallers_dead } else { state.replicas_dead }
    }

    /// Returns when it has died.
    pub fn died(&self) -> impl Future<Output = ()> + use<> {
        let (mut state, is_dialler, deaths) = (self.state.clone(), self.is_dialler, self.deaths);
        async move {
            // Where nobody can tell any more it is over, too.
            let _ = state.wait_for(|state| Self::deaths_in(is_dialler, state) != deaths).await;
        }
    }
}

/// Counts a listener for as long as it lives.
struct Listening(watch::Sender<[usize; 2]>, usize);

impl Listening {
    fn new(count: &watch::Sender<[usize; 2]>, speaker: usize) -> Self {
        count.send_modify(|count| count[speaker] += 1);
        Self(count.clone(), speaker)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.send_modify(|count| count[self.1] -= 1);
    }
}

/// A chunk and when it may arrive.
type OnItsWay = (Instant, Bytes);

/// What carries a speaker's words as well or badly as the way is told to.
pub struct Line {
    is_dialler: bool,
    state: watch::Receiver<State>,
    pace: Pace,
    /// Not the world's generator: when bytes arrive depends on the machine anyway.
    rng: Rng,
    last: Instant,
    queue: mpsc::Sender<OnItsWay>,
    /// Whether what passes is encrypted, so that nobody has said what arrives with a bit turned.
    pub is_sealed: bool,
    /// Counts the bits that turned.
    turned: Arc<AtomicU64>,
}

impl Line {
    /// How the way is told to treat what passes.
    #[must_use]
    pub fn link(&self) -> Link {
        link(self.is_dialler, &self.state.borrow())
    }

    /// Sends a chunk, as fast as the line takes it.
    ///
    /// # Errors
    /// Nobody takes it any more.
    pub async fn send(&mut self, mut chunk: Bytes) -> io::Result<()> {
        while !chunk.is_empty() {
            let rate = self.link().bytes_per_second;
            let most = rate.map_or(chunk.len(), |_| piece(rate).min(chunk.len()));
            let mut piece = chunk.split_to(most);
            let is_dialler = self.is_dialler;
            self.pace.wait(&mut self.state, |state| link(is_dialler, state), piece.len()).await;
            let link = self.link();
            if link.turns_bits && self.is_sealed && self.rng.one_in(TURNED) {
                piece = self.with_a_turned_bit(&piece);
            }
            let jitter = u64::try_from(link.jitter.as_micros()).unwrap_or(u64::MAX);
            let jitter = Duration::from_micros(self.rng.between(0, jitter));
            // What was sent first arrives first.
            self.last = self.last.max(Instant::now() + link.delay + jitter);
            let sent = self.queue.send((self.last, piece)).await;
            sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        Ok(())
    }

    fn with_a_turned_bit(&mut self, piece: &[u8]) -> Bytes {
        let mut piece = piece.to_vec();
        let (place, bit) = (self.rng.index(piece.len()), self.rng.between(0, 7));
        piece[place] ^= 1 << bit;
        self.turned.fetch_add(1, Ordering::Relaxed);
        piece.into()
    }
}

fn link(is_dialler: bool, state: &State) -> Link {
    if is_dialler { state.there } else { state.back }
}

/// Who speaks, and the line by which that goes on.
pub struct Voice {
    /// Who speaks.
    pub speaker: Speaker,
    /// How it goes on.
    pub line: Line,
}

impl Voice {
    /// Nothing was said yet. Answers also with what is to be delivered of it.
    #[must_use]
    pub fn new(speaker: Speaker, turned: &Arc<AtomicU64>) -> (Self, Delivery) {
        let (queue, chunks) = mpsc::channel(CHUNKS);
        let (state, is_dialler, now) = (speaker.state.clone(), speaker.is_dialler, Instant::now());
        let delivery = Delivery { chunks, state: state.clone(), is_dialler };
        let line = Line {
            is_dialler,
            state,
            pace: Pace { free: now },
            rng: Rng::new(rand::random()),
            last: now,
            queue,
            is_sealed: false,
            turned: Arc::clone(turned),
        };
        (Self { speaker, line }, delivery)
    }
}

/// How much is read at a time of what goes on at this rate.
#[must_use]
pub fn piece(rate: Option<u64>) -> usize {
    let piece = rate.map(|rate| usize::try_from(rate / PIECES_PER_SECOND).unwrap_or(CHUNK));
    piece.map_or(CHUNK, |piece| piece.clamp(PIECE, CHUNK))
}

/// Lets no more pass than a line carries.
#[derive(Debug)]
struct Pace {
    /// When the line has carried everything that came so far.
    free: Instant,
}

impl Pace {
    /// When a line of this rate has carried so many bytes more that came now.
    fn carries(&mut self, now: Instant, rate: u64, bytes: usize) -> Instant {
        let nanos = (bytes as u64).saturating_mul(1_000_000_000) / rate.max(1);
        self.free = self.free.max(now) + Duration::from_nanos(nanos);
        self.free
    }

    /// Waits until it has, or is another line. Nothing is read meanwhile, so the speaker has to wait
    /// as well.
    async fn wait(
        &mut self,
        state: &mut watch::Receiver<State>,
        link: impl Fn(&State) -> Link,
        bytes: usize,
    ) {
        let Some(rate) = link(&state.borrow()).bytes_per_second else { return };
        let free = self.carries(Instant::now(), rate, bytes);
        tokio::select! {
            () = sleep_until(free) => {}
            _ = state.wait_for(|state| link(state).bytes_per_second != Some(rate)) => {
                self.free = Instant::now();
            }
        }
    }
}

/// What comes next, however slow the line is that it goes on by. `None` at the end.
///
/// # Errors
/// The connection broke.
pub async fn read_chunk<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Option<Bytes>> {
    read(from, CHUNK).await
}

/// What comes next, and not more than so much. `None` at the end.
///
/// # Errors
/// The connection broke.
pub async fn read<R: AsyncRead + Unpin>(from: &mut R, most: usize) -> io::Result<Option<Bytes>> {
    let mut buffer = BytesMut::with_capacity(most);
    let read = from.take(most as u64).read_buf(&mut buffer).await?;
    Ok((read > 0).then(|| buffer.freeze()))
}

/// What is on its way to somebody.
pub struct Delivery {
    chunks: mpsc::Receiver<OnItsWay>,
    state: watch::Receiver<State>,
    is_dialler: bool,
}

impl Delivery {
    /// Writes what is due, unless it is held; then tells the end, if the speaker ended.
    pub async fn to<W: AsyncWrite + Unpin>(mut self, to: &mut W) {
        let link = |state: &State| link(self.is_dialler, state);
        let mut state = self.state;
        while let Some((due, chunk)) = self.chunks.recv().await {
            // A way that was healed delivers at once: what is on its way no longer waits.
            tokio::select! {
                () = sleep_until(due) => {}
                _ = state.wait_for(|state| is_quick(link(state))) => {}
            }
            if state.wait_for(|state| !link(state).is_held).await.is_err() {
                return;
            }
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // An end is told later than everything before it, and not while the way is held.
        if state.wait_for(|state| !link(state).is_held).await.is_ok() {
            let _ = to.shutdown().await;
        }
    }
}

fn is_quick(link: Link) -> bool {
    link.delay.is_zero() && link.jitter.is_zero()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_carries_what_it_carries_in_a_second_and_does_so_steadily() {
        for rate in [8_000, 32_000, 125_000, 5_000_000] {
            let begin = Instant::now();
            let (mut pace, mut now) = (Pace { free: begin }, begin);
            let mut carried = 0u64;
            while now < begin + Duration::from_secs(10) {
                let read = piece(Some(rate));
                let passed = pace.carries(now, rate, read);
                // More than a hundredth of a second beyond what is asked for is not steady.
                assert!(passed - now <= Duration::from_millis(60), "{rate}");
                (now, carried) = (passed, carried + read as u64);
            }
            assert!(carried >= 10 * rate && carried <= 10 * rate + CHUNK as u64, "{carried}");
        }
    }

    #[test]
    fn a_line_that_was_idle_has_not_saved_anything_up() {
        let begin = Instant::now();
        let mut pace = Pace { free: begin };
        let later = begin + Duration::from_secs(60);
        let second = Duration::from_secs(1);
        assert_eq!(pace.carries(later, 1_000, 1_000), later + second);
        assert_eq!(pace.carries(later, 1_000, 1_000), later + 2 * second);
    }
}
