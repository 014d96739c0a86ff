//! One direction of one connection: hears, delays, slows down, holds.

use std::io;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use elea_fault_injection::rng::Rng;
use elea_protocol::codec;
use elea_protocol::message::{Message, ToReplica};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::proxy::{Link, State};
use crate::tap::{Tap, next_frame};

/// So much is read at a time.
const CHUNK: usize = 16 << 10;

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
pub async fn carry(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, speaker: Speaker) {
    let (queue, chunks) = mpsc::channel(CHUNKS);
    let (state, is_dialler) = (speaker.state.clone(), speaker.is_dialler);
    tokio::join!(listen(from, speaker, queue), deliver(to, chunks, state, is_dialler));
}

/// Hears everything until the speaker ends, or until nobody takes it any more. A speaker that died
/// is heard to its end: what it wrote was said.
async fn listen(from: &mut OwnedReadHalf, mut speaker: Speaker, queue: mpsc::Sender<OnItsWay>) {
    let _listening = Listening::new(&speaker.listening, usize::from(!speaker.is_dialler));
    // Not the world's generator: when bytes arrive depends on the machine anyway.
    let mut rng = Rng::new(rand::random());
    let mut last = Instant::now();
    let (is_dialler, deaths) = (speaker.is_dialler, speaker.deaths);
    let mut watched = speaker.state.clone();
    let mut is_dead = false;
    let spoils = speaker.link(&speaker.state.borrow()).spoils_states;
    let mut spoiler = spoils.then(Spoiler::default);
    while let Ok(Some(chunk)) = read(from).await {
        speaker.tap.hear(&chunk).await;
        let chunk = spoiler.as_mut().map_or_else(|| chunk.clone(), |spoiler| spoiler.pass(&chunk));
        if is_dead {
            continue;
        }
        let link = speaker.link(&speaker.state.borrow());
        let jitter = u64::try_from(link.jitter.as_micros()).unwrap_or(u64::MAX);
        let due = Instant::now() + link.delay + Duration::from_micros(rng.between(0, jitter));
        // What was sent first arrives first.
        last = last.max(due);
        tokio::select! {
            sent = queue.send((last, chunk)) => if sent.is_err() { break },
            _ = watched.wait_for(|state| Speaker::deaths_in(is_dialler, state) != deaths) => {
                is_dead = true;
            }
        }
    }
}

/// Makes a liar of whoever speaks: turns a bit in every piece of a state.
#[derive(Default)]
struct Spoiler(BytesMut);

impl Spoiler {
    /// What is passed on of what came so far: whole frames.
    fn pass(&mut self, chunk: &[u8]) -> Bytes {
        self.0.extend_from_slice(chunk);
        let mut passed = BytesMut::new();
        while let Ok(Some(frame)) = next_frame(&mut self.0) {
            let frame = spoilt(&frame).unwrap_or(frame);
            passed.put_u32(u32::try_from(frame.len()).unwrap_or_default());
            passed.extend_from_slice(&frame);
        }
        passed.freeze()
    }
}

/// The frame with a turned bit, if it is a piece of a state.
fn spoilt(frame: &Bytes) -> Option<Bytes> {
    let Ok(ToReplica::Peer(Message::State(mut chunk))) = codec::decode(frame) else { return None };
    let mut bytes = chunk.bytes.to_vec();
    let middle = bytes.len() / 2;
    *bytes.get_mut(middle)? ^= 1;
    chunk.bytes = bytes.into();
    codec::encode(&ToReplica::Peer(Message::State(chunk))).ok()
}

async fn read(from: &mut OwnedReadHalf) -> io::Result<Option<Bytes>> {
    let mut buffer = BytesMut::with_capacity(CHUNK);
    let read = from.read_buf(&mut buffer).await?;
    Ok((read > 0).then(|| buffer.freeze()))
}

/// Writes what is due, unless it is held; then tells the end, if the speaker ended.
async fn deliver(
    to: &mut OwnedWriteHalf,
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
        let Ok(rate) = state
            .wait_for(|state| !link(state).is_held)
            .await
            .map(|state| link(&state).bytes_per_second)
        else {
            return;
        };
        if let Some(rate) = rate {
            let micros = (chunk.len() as u64).saturating_mul(1_000_000) / rate.max(1);
            let healed = state.wait_for(|state| link(state).bytes_per_second.is_none());
            tokio::select! {
                () = sleep(Duration::from_micros(micros)) => {}
                _ = healed => {}
            }
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
