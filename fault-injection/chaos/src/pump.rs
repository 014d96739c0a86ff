//! One direction of one connection: hears, delays, slows down, holds.

use std::io;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use elea_fault_injection::rng::Rng;
use elea_protocol::codec;
use elea_protocol::message::{Message, Parts, ToReplica};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

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

/// Whose words a direction carries.
pub struct Speaker {
    /// Whether it is the dialler, or the replica that was dialled.
    pub is_dialler: bool,
    /// How often it had died when the connection began.
    pub deaths: u64,
    /// What the way is told.
    pub state: watch::Receiver<State>,
    /// How many are listening to either.
    pub listening: watch::Sender<[usize; 2]>,
    /// Who hears it.
    pub tap: Tap,
}

impl Speaker {
    fn link(&self, state: &State) -> Link {
        if self.is_dialler { state.there } else { state.back }
    }

    fn deaths_in(is_dialler: bool, state: &State) -> u64 {
        if is_dialler { state.diallers_dead } else { state.replicas_dead }
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

/// Carries what is read from one socket to the other until either ends.
pub async fn carry<R, W>(from: &mut R, to: &mut W, speaker: Speaker)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (queue, chunks) = mpsc::channel(CHUNKS);
    let (state, is_dialler) = (speaker.state.clone(), speaker.is_dialler);
    tokio::join!(listen(from, speaker, queue), deliver(to, chunks, state, is_dialler));
}

/// Hears everything until the speaker ends, or until nobody takes it any more. A speaker that died
/// is heard to its end, and at once: what it wrote was said.
async fn listen<R: AsyncRead + Unpin>(
    from: &mut R,
    mut speaker: Speaker,
    queue: mpsc::Sender<OnItsWay>,
) {
    let _listening = Listening::new(&speaker.listening, usize::from(!speaker.is_dialler));
    // Not the world's generator: when bytes arrive depends on the machine anyway.
    let mut rng = Rng::new(rand::random());
    let mut last = Instant::now();
    let mut pace = Pace { free: last };
    let (is_dialler, deaths) = (speaker.is_dialler, speaker.deaths);
    let mut watched = speaker.state.clone();
    let mut is_dead = false;
    let first = *speaker.state.borrow();
    let mut spoiler = speaker.link(&first).spoils_states.then(Spoiler::default);
    loop {
        let rate = speaker.link(&speaker.state.borrow()).bytes_per_second.filter(|_| !is_dead);
        let Ok(Some(chunk)) = read(from, piece(rate)).await else { break };
        speaker.tap.hear(&chunk).await;
        let length = chunk.len();
        let chunk = spoiler.as_mut().map_or_else(|| chunk.clone(), |spoiler| spoiler.pass(&chunk));
        if is_dead {
            continue;
        }
        let passed = async {
            let link = |state: &State| if is_dialler { state.there } else { state.back };
            pace.wait(&mut speaker.state, link, length).await;
            let link = speaker.link(&speaker.state.borrow());
            let jitter = u64::try_from(link.jitter.as_micros()).unwrap_or(u64::MAX);
            let due = Instant::now() + link.delay + Duration::from_micros(rng.between(0, jitter));
            // What was sent first arrives first.
            last = last.max(due);
            queue.send((last, chunk)).await
        };
        tokio::select! {
            sent = passed => if sent.is_err() { break },
            _ = watched.wait_for(|state| Speaker::deaths_in(is_dialler, state) != deaths) => {
                is_dead = true;
            }
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

async fn read<R: AsyncRead + Unpin>(from: &mut R, most: usize) -> io::Result<Option<Bytes>> {
    let mut buffer = BytesMut::with_capacity(most);
    let read = from.take(most as u64).read_buf(&mut buffer).await?;
    Ok((read > 0).then(|| buffer.freeze()))
}

/// Writes what is due, unless it is held; then tells the end, if the speaker ended.
async fn deliver<W: AsyncWrite + Unpin>(
    to: &mut W,
    mut chunks: mpsc::Receiver<OnItsWay>,
    mut state: watch::Receiver<State>,
    is_dialler: bool,
) {
    let link = |state: &State| if is_dialler { state.there } else { state.back };
    while let Some((due, chunk)) = chunks.recv().await {
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
        let speaker = Speaker {
            is_dialler: true,
            deaths: 0,
            state: state.subscribe(),
            listening: watch::channel([0; 2]).0,
            tap: Tap::new(wire, true, Recorder::deaf().hears()),
        };
        let (mut near, mut from) = duplex(1 << 10);
        let (mut to, mut far) = duplex(1 << 10);
        let carrier = tokio::spawn(async move { carry(&mut from, &mut to, speaker).await });
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
        writer.await.expect("written");
        carrier.await.expect("carried");
    }
}
