//! Carries one connection, each direction by itself: hears, delays, slows down, turns bits, holds.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::{BufMut as _, Bytes, BytesMut};
use elea_protocol::codec;
use elea_protocol::message::{Message, Parts, ToReplica};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::between::meet;
use crate::seals::{Ends, Opened, Seals};
use crate::tap::next_frame;
use crate::voice::{Speaker, Voice, piece, read};

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
                let met = meet(ends, (near, &mut there), (far, &mut back));
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

#[cfg(test)]
mod tests {
    use elea_protocol::id::ReplicaId;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::sync::watch;

    use super::*;
    use crate::line::{Link, State};
    use crate::recorder::Recorder;
    use crate::tap::{Party, Tap, Wire};

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
