//! The way to one peer: a connection that this replica dials and keeps alive.
//!
//! It carries what this replica says; what the peer says comes over the peer's own link.
//!
//! There are two to each peer, of the same kind: one for what is small and waited for, one for what is
//! large ([`Lane`]). On one connection a vote would stand behind megabytes that somebody has fetched: in
//! the queue, in the system's buffers on both sides, and at the receiver, who has to stop reading when it has no room for more.
//! Frames cut small would help against the first of these only. Two connections are two flows, of which
//! neither can hold up the other, and between which the network shares a line fairly by itself. While the
//! peer is away, or when it reads too slowly, messages are dropped and counted: old ones would tell
//! it nothing, and what it lacks it asks for.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use elea_net::{Dialler, Failed};
use elea_protocol::codec::{self, CodecError, FRAME_MAX};
use elea_protocol::id::ReplicaId;
use elea_protocol::message::{
    Challenge, HelloBody, KnockBody, Origin, ToClient, ToReplica, WIRE_VERSION,
};
use elea_protocol::replica::Setup;
use elea_protocol::seal::{sign_hello, sign_knock};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::counters::{Counter, Counters};
use crate::frames::{self, FrameError, Reader, Writer};
use crate::limits::Limits;
use crate::weight::Lane;

/// So many messages are taken from the queue at a time.
const GROUP: usize = 256;

/// A message on its way to one or more peers. Whoever writes it first encodes it for all.
pub(crate) struct Parcel {
    message: ToReplica,
    frame: OnceLock<Result<Bytes, CodecError>>,
    weight: usize,
}

impl Parcel {
    pub(crate) fn new(message: ToReplica, weight: usize) -> Self {
        Self { message, frame: OnceLock::new(), weight }
    }

    fn frame(&self) -> Result<Bytes, CodecError> {
        self.frame.get_or_init(|| codec::encode(&self.message)).clone()
    }
}

struct State {
    up: AtomicBool,
    bytes: AtomicUsize,
}

/// The sender's end of a link.
pub(crate) struct Link {
    queue: mpsc::Sender<Arc<Parcel>>,
    state: Arc<State>,
    bytes_max: usize,
    counters: Arc<Counters>,
}

impl Link {
    /// Queues a message, or drops it where the peer is away or the queue is full.
    pub(crate) fn send(&self, parcel: &Arc<Parcel>) {
        if !self.state.up.load(Ordering::Relaxed) {
            self.counters.count(Counter::SendNotConnected);
            return;
        }
        let queued = self.state.bytes.fetch_add(parcel.weight, Ordering::Relaxed);
        let has_room = queued + parcel.weight <= self.bytes_max;
        if !has_room || self.queue.try_send(Arc::clone(parcel)).is_err() {
            self.state.bytes.fetch_sub(parcel.weight, Ordering::Relaxed);
            self.counters.count(Counter::SendQueueFull);
        }
    }
}

/// The task's end of a link.
pub(crate) struct LinkTask {
    pub(crate) setup: Setup,
    pub(crate) peer: ReplicaId,
    dialler: Dialler,
    pub(crate) limits: Limits,
    pub(crate) counters: Arc<Counters>,
    lane: Lane,
    /// How many links are up, of those for what is small.
    pub(crate) up: watch::Sender<usize>,
    pub(crate) stopping: CancellationToken,
    queue: mpsc::Receiver<Arc<Parcel>>,
    state: Arc<State>,
}

/// Why a link is down.
#[derive(Debug, thiserror::Error)]
enum Down {
    #[error("the peer did not answer in time")]
    Timeout,
    #[error(transparent)]
    Io(std::io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    NotThePeer(String),
    #[error("the peer turned us away: {0}")]
    Farewell(elea_protocol::message::Farewell),
    #[error("the peer did not read in time")]
    TooSlow,
    #[error("the replica stops")]
    Stopping,
}

impl From<std::io::Error> for Down {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Io(error),
        }
    }
}

/// A link and the task that keeps it.
#[expect(clippy::too_many_arguments, reason = "each is a part of the task")]
pub(crate) fn link(
    setup: Setup,
    peer: ReplicaId,
    lane: Lane,
    address: String,
    limits: Limits,
    counters: Arc<Counters>,
    up: watch::Sender<usize>,
    stopping: CancellationToken,
) -> (Link, LinkTask) {
    let (sender, queue) = mpsc::channel(limits.sends_queued);
    let state = Arc::new(State { up: AtomicBool::new(false), bytes: AtomicUsize::new(0) });
    let link = Link {
        queue: sender,
        state: Arc::clone(&state),
        bytes_max: limits.send_bytes_queued,
        counters: Arc::clone(&counters),
    };
    let dialler = Dialler::new(address);
    (link, LinkTask { setup, peer, dialler, limits, counters, lane, up, stopping, queue, state })
}

impl LinkTask {
    /// Keeps the link up until the replica stops.
    pub(crate) async fn run(mut self) {
        let (least, most) = (self.limits.redial_min_ms, self.limits.redial_max_ms);
        let mut wait = least;
        loop {
            let stopping = self.stopping.clone();
            let dialled = tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                dialled = self.dial() => dialled,
            };
            match dialled {
                Ok((reader, writer)) => {
                    let since = Instant::now();
                    let why = self.carry(reader, writer).await;
                    if matches!(why, Down::Stopping) {
                        return;
                    }
                    tracing::info!(peer = %self.peer, %why, "link down");
                    // A link that breaks as soon as it is up is not dialled in a tight loop.
                    if since.elapsed() >= Duration::from_millis(most) {
                        wait = least;
                    }
                }
                Err(why) => self.cannot_link(&why),
            }
            // Replicas that lost each other together need not come back in step.
            let jitter = rand::random_range(wait / 2..=wait);
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return,
                () = sleep(Duration::from_millis(jitter)) => {}
            }
            wait = (wait * 2).min(most);
        }
    }

    fn cannot_link(&self, why: &Failed<Down>) {
        let (peer, address) = (self.peer, self.dialler.address());
        self.counters.count(Counter::DialFailed);
        let is_answered =
            |(_, why): &(_, Down)| matches!(why, Down::NotThePeer(_) | Down::Farewell(_));
        // Somebody answers there, and not as it should be: that does not pass by itself.
        if why.0.iter().any(is_answered) {
            tracing::warn!(%peer, %address, %why, "cannot link");
        } else {
            tracing::debug!(%peer, %address, %why, "cannot link");
        }
    }

    /// Dials and proves who we are.
    async fn dial(&self) -> Result<(Reader, Writer), Failed<Down>> {
        let patience = Duration::from_millis(self.limits.handshake_timeout_ms);
        let open = |stream| self.open_challenge(stream);
        let greet = |(reader, writer, challenge)| self.greet(reader, writer, challenge);
        self.dialler.dial(patience, open, greet).await
    }

    /// Finds out who is there.
    async fn open_challenge(&self, stream: TcpStream) -> Result<(Reader, Writer, Challenge), Down> {
        let patience = Duration::from_millis(self.limits.write_timeout_ms);
        let (mut reader, mut writer) = frames::split(stream, FRAME_MAX, patience)?;
        let genesis = self.setup.membership.genesis();
        // At once: a peer that is flooded with connections keeps this one.
        let body = KnockBody { origin: self.origin(), to: self.peer };
        let knock = sign_knock(&*self.setup.signer, genesis, body);
        frames::write(&mut writer, &ToReplica::Knock(knock)).await?;
        let not_the_peer = |what: String| Err(Down::NotThePeer(what));
        let challenge = match frames::read_to_client(&mut reader).await? {
            ToClient::Challenge(challenge) => challenge,
            ToClient::Farewell(word) => return Err(Down::Farewell(word)),
            _ => return not_the_peer("whoever listens there sent no challenge".to_owned()),
        };
        if challenge.version != WIRE_VERSION {
            return not_the_peer(format!(
                "it speaks version {} of the protocol, this replica {WIRE_VERSION}",
                challenge.version
            ));
        }
        if challenge.genesis != *self.setup.membership.genesis() {
            return not_the_peer(format!("it belongs to cluster {}", challenge.genesis));
        }
        if challenge.replica != self.peer {
            return not_the_peer(format!("{} listens there", challenge.replica));
        }
        Ok((reader, writer, challenge))
    }

    fn origin(&self) -> Origin {
        match self.lane {
            Lane::Control => Origin::Replica(self.setup.id),
            Lane::Bulk => Origin::Bulk(self.setup.id),
        }
    }

    fn count_up(&self, change: impl FnOnce(&mut usize)) {
        if self.lane == Lane::Control {
            self.up.send_modify(change);
        }
    }

    /// Says who we are.
    async fn greet(
        &self,
        mut reader: Reader,
        mut writer: Writer,
        challenge: Challenge,
    ) -> Result<(Reader, Writer), Down> {
        let body = HelloBody { origin: self.origin(), to: self.peer, nonce: challenge.nonce };
        let hello = sign_hello(&*self.setup.signer, self.setup.membership.genesis(), body);
        frames::write(&mut writer, &ToReplica::Hello(hello)).await?;
        match frames::read_to_client(&mut reader).await? {
            ToClient::Welcome => Ok((reader, writer)),
            ToClient::Farewell(word) => Err(Down::Farewell(word)),
            _ => Err(Down::NotThePeer("it did not answer the hello".to_owned())),
        }
    }

    /// Carries messages until the connection breaks or the replica stops.
    async fn carry(&mut self, reader: Reader, writer: Writer) -> Down {
        self.empty();
        self.state.up.store(true, Ordering::Relaxed);
        self.count_up(|up| *up += 1);
        self.counters.count(Counter::LinksUp);
        tracing::info!(peer = %self.peer, address = self.dialler.address(), "link up");
        let why = self.pump(reader, writer).await.err().unwrap_or(Down::Stopping);
        self.state.up.store(false, Ordering::Relaxed);
        self.count_up(|up| *up -= 1);
        self.empty();
        why
    }

    async fn pump(&mut self, mut reader: Reader, mut writer: Writer) -> Result<(), Down> {
        let mut group = Vec::new();
        loop {
            tokio::select! {
                // The peer says nothing here but why it closes.
                read = frames::read_to_client(&mut reader) => {
                    return Err(match read? {
                        ToClient::Farewell(word) => Down::Farewell(word),
                        _ => Down::NotThePeer("it spoke out of turn".to_owned()),
                    });
                }
                taken = self.queue.recv_many(&mut group, GROUP) => {
                    if taken == 0 {
                        return Ok(());
                    }
                }
                () = self.stopping.cancelled() => {
                    // What was released before the stop is still sent.
                    while let Ok(parcel) = self.queue.try_recv() {
                        group.push(parcel);
                    }
                    return self.write(&mut writer, &mut group).await;
                }
            }
            self.write(&mut writer, &mut group).await?;
        }
    }

    async fn write(&self, writer: &mut Writer, group: &mut Vec<Arc<Parcel>>) -> Result<(), Down> {
        let patience = Duration::from_millis(self.limits.write_timeout_ms);
        let too_slow = || {
            let why = format_args!("{} did not read in time", self.peer);
            self.counters.warn(Counter::PeerTooSlow, why);
            Down::TooSlow
        };
        let taken: usize = group.iter().map(|parcel| parcel.weight).sum();
        self.state.bytes.fetch_sub(taken, Ordering::Relaxed);
        for parcel in group.drain(..) {
            match parcel.frame() {
                Ok(frame) => timeout(patience, frames::feed(writer, frame))
                    .await
                    .map_err(|_| too_slow())??,
                Err(error) => self.counters.warn(Counter::SendTooLarge, error),
            }
        }
        timeout(patience, frames::flush(writer)).await.map_err(|_| too_slow())??;
        Ok(())
    }

    /// Throws away what was meant for a connection that is no more.
    fn empty(&mut self) {
        while let Ok(parcel) = self.queue.try_recv() {
            self.state.bytes.fetch_sub(parcel.weight, Ordering::Relaxed);
            self.counters.count(Counter::SendNotConnected);
        }
    }
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parcel").field("weight", &self.weight).finish_non_exhaustive()
    }
}
