//! Carries one connection, each direction by itself: hears, delays, slows down, turns bits, holds.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use elea_fault_injection::rng::Rng;
use elea_protocol::codec;
use elea_protocol::message::{Message, Parts, ToReplica};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::between::{self, Ends, Opened, Seals};
use crate::line::{Link, State};
use crate::tap::{Tap, next_frame};

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
    fn died(&self) -> impl Future<Output = ()> + use<> {
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
    fn link(&self) -> Link {
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

/// Where a connection comes from and goes to: what is read and what is written of each end.
pub struct Sockets<R, W> {
    /// The dialler's.
    pub near: (R, W),
    /// The replica's.
    pub far: (R, W),
}

/// Carries a connection until both ends have ended: the dialler's words there, the replica's back. With `ends` what is
/// encrypted is opened.
pub async fn carry<R, W>(
    sockets: &mut Sockets<R, W>,
    [there, back]: [Speaker; 2],
    ends: Option<&Ends>,
    turned: &Arc<AtomicU64>,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let ((mut there, to_far), (mut back, to_near)) =
        (Voice::new(there, turned), Voice::new(back, turned));
    let Sockets { near: (near, near_write), far: (far, far_write) } = sockets;
    let talk = async {
        let [sealed_there, sealed_back] = match ends {
            None => [None, None],
            Some(ends) => {
                let died = futures::future::select(
                    Box::pin(there.speaker.died()),
                    Box::pin(back.speaker.died()),
                );
                let met = between::meet(ends, (near, &mut there), (far, &mut back));
                let met = tokio::select! {
                    met = met => met,
                    // It has said nothing yet that anybody could hold against it.
                    _ = died => return,
                };
                let Ok(seals) = met else { return };
                seals.map(Some)
            }
        };
        tokio::join!(listen(near, there, sealed_there), listen(far, back, sealed_back));
    };
    tokio::join!(talk, to_far.to(far_write), to_near.to(near_write));
}

/// Hears everything until the speaker ends, or until nobody takes it any more. A speaker that died
/// is heard to its end, and at once: what it wrote was said.
async fn listen<R: AsyncRead + Unpin>(from: &mut R, voice: Voice, mut seals: Option<Seals>) {
    let Voice { mut speaker, mut line } = voice;
    let mut died = Box::pin(speaker.died());
    let mut is_dead = false;
    let mut spoiler = line.link().spoils_states.then(Spoiler::default);
    loop {
        let Opened { words, end } = match seals.as_mut().and_then(Seals::early) {
            Some(words) => Opened { words, end: None },
            None => {
                let rate = line.link().bytes_per_second.filter(|_| !is_dead);
                let Ok(Some(chunk)) = read(from, piece(rate)).await else { break };
                match &seals {
                    Some(seals) => seals.open(&chunk),
                    None => Opened { words: chunk, end: None },
                }
            }
        };
        speaker.tap.hear(&words).await;
        if is_dead {
            continue;
        }
        let words = spoiler.as_mut().map_or_else(|| words.clone(), |spoiler| spoiler.pass(&words));
        let chunk = match &seals {
            Some(seals) => seals.seal(&words, end),
            None => Ok(words),
        };
        let Ok(chunk) = chunk else { break };
        tokio::select! {
            sent = line.send(chunk) => if sent.is_err() { break },
            () = &mut died => is_dead = true,
        }
        if end.is_some() {
            break;
        }
    }
}

/// How much is read at a time.
fn piece(rate: Option<u64>) -> usize {
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

/// Makes a liar of whoever speaks: turns a bit in every piece of a state.
#[derive(Default)]
struct Spoiler {
    came: BytesMut,
    /// Of a message in pieces.
    parts: Parts,
}

impl Spoiler {
    /// What is passed on of what came so far: whole frames.
    fn pass(&mut self, chunk: &[u8]) -> Bytes {
        self.came.extend_from_slice(chunk);
        let mut passed = BytesMut::new();
        while let Ok(Some(frame)) = next_frame(&mut self.came) {
            let Some(frame) = self.spoilt(frame) else { continue };
            passed.put_u32(u32::try_from(frame.len()).unwrap_or_default());
            passed.extend_from_slice(&frame);
        }
        passed.freeze()
    }

    /// The frame with a turned bit, if it is a piece of a state; of a message in pieces all at the last one.
    fn spoilt(&mut self, frame: Bytes) -> Option<Bytes> {
        let message = match codec::decode(&frame) {
            Ok(ToReplica::Peer(message)) => message,
            Ok(ToReplica::Part(part)) => self.parts.push(&part).ok()??.0,
            _ => return Some(frame),
        };
        codec::encode(&ToReplica::Peer(with_a_turned_bit(message))).ok()
    }
}

fn with_a_turned_bit(message: Message) -> Message {
    let Message::State(mut chunk) = message else { return message };
    let mut bytes = chunk.bytes.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    chunk.bytes = bytes.into();
    Message::State(chunk)
}

/// What comes next, however slow the line is that it goes on by. `None` at the end.
pub async fn read_chunk<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Option<Bytes>> {
    read(from, CHUNK).await
}

async fn read<R: AsyncRead + Unpin>(from: &mut R, most: usize) -> io::Result<Option<Bytes>> {
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
    async fn to<W: AsyncWrite + Unpin>(mut self, to: &mut W) {
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
    use elea_protocol::id::ReplicaId;
    use tokio::io::duplex;

    use super::*;
    use crate::recorder::Recorder;
    use crate::tap::{Party, Wire};

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

    #[tokio::test]
    async fn a_line_that_is_slow_no_more_carries_the_rest_at_once() {
        let there = Link { bytes_per_second: Some(1), ..Link::default() };
        let state = watch::channel(State { there, ..State::default() }).0;
        let wire = Wire { from: Party::Client(0), to: ReplicaId(0) };
        let (listening, state_told) = (watch::channel([0; 2]).0, state.subscribe());
        let speaker = |is_dialler| {
            let tap = Tap::new(wire, is_dialler, Recorder::deaf().hears());
            Speaker::new(is_dialler, &state_told, &listening, tap)
        };
        let speakers = [speaker(true), speaker(false)];
        let (mut near, from) = duplex(1 << 10);
        let (to, mut far) = duplex(1 << 10);
        let carrier = tokio::spawn(async move {
            let mut sockets = Sockets { near: tokio::io::split(from), far: tokio::io::split(to) };
            carry(&mut sockets, speakers, None, &Arc::default()).await;
        });
        // The first piece would take minutes, and all of it days.
        near.write_all(&[7; 512]).await.expect("taken");
        state.send_modify(|state| state.there = Link::default());
        let writer = tokio::spawn(async move {
            near.write_all(&[7; 99_488]).await.expect("taken");
            near.shutdown().await.expect("closed");
        });
        let mut arrived = Vec::new();
        far.read_to_end(&mut arrived).await.expect("carried");
        assert_eq!(arrived.len(), 100_000);
        drop(far);
        writer.await.expect("written");
        carrier.await.expect("carried");
    }
}
