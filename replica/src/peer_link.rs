//! The way to one peer: a connection that this replica dials and keeps alive.
//!
//! It carries what this replica says; what the peer says comes over the peer's own link. A peer that
//! cannot be dialled, since it sits behind a translator of addresses or its address is wrong, may have
//! dialled us: then its connection carries both ways, for as long as there is no other.
//!
//! What is small and waited for has a queue of its own ([`Lane`]) and goes first, and what is large goes in
//! pieces, so that a vote stands behind one piece at most, and behind what the system holds that is not sent
//! yet, of which it takes little ([`elea_net::prepare`]). The peer reads on whatever its core does with what is
//! large. So neither lane can fill the other.
//!
//! While the peer is away, or when it reads too slowly, messages are dropped and counted: old ones would
//! tell it nothing, and what it lacks it asks for.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use elea_net::{Connection, Dialler, Expecting, Failed, SecureError};
use elea_protocol::codec::{self, CodecError, FRAME_MAX};
use elea_protocol::id::ReplicaId;
use elea_protocol::message::{
    Challenge, Farewell, Greeting, HelloBody, KnockBody, Message, Origin, Part, Parts, Pieces,
    ToClient, ToReplica,
};
use elea_protocol::seal::{sign_hello, sign_knock};
use elea_protocol::signature::PublicKey;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::back::Back;
use crate::checking::{Checking, check_later, take_in};
use crate::counters::{Counter, Counters};
use crate::frames::{self, FrameError, Reader, Writer};
use crate::shell::Shell;
use crate::weight::{self, Lane};

/// So many messages are taken from the queue at a time.
const GROUP: usize = 256;

/// The most bytes that wait in the queue for what is large. Whoever asked asks again after a moment: what has
/// stood here for longer would come twice, and keep the next ones waiting. On a slow line it is no more
/// than the line takes in [`BULK_TIME`], or little.
const BULK_BYTES: usize = 16 << 20;
const BULK_BYTES_MIN: usize = 256 << 10;
const BULK_TIME: Duration = Duration::from_secs(4);

/// A message on its way to one or more peers. Whoever writes it first encodes it for all.
pub(crate) struct Parcel {
    message: Message,
    lane: Lane,
    /// A frame for connections that this replica dialled, for those that the peer dialled, and the
    /// message's own encoding, to be cut.
    frame: OnceLock<Result<Bytes, CodecError>>,
    back: OnceLock<Result<Bytes, CodecError>>,
    whole: OnceLock<Result<Bytes, CodecError>>,
    weight: usize,
}

impl Parcel {
    pub(crate) fn new(message: Message) -> Self {
        let (lane, weight) = (Lane::of(&message), weight::message(&message));
        let (frame, back, whole) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { message, lane, frame, back, whole, weight }
    }

    fn frame(&self, over: Over) -> Result<Bytes, CodecError> {
        let message = || self.message.clone();
        let encoded = match over {
            Over::Theirs => self.back.get_or_init(|| codec::encode(&ToClient::Peer(message()))),
            Over::Ours => self.frame.get_or_init(|| codec::encode(&ToReplica::Peer(message()))),
        };
        encoded.clone()
    }

    fn whole(&self) -> Result<Bytes, CodecError> {
        self.whole.get_or_init(|| codec::encode(&self.message)).clone()
    }
}

/// The frame of a piece.
fn piece(part: Part, over: Over) -> Result<Bytes, CodecError> {
    match over {
        Over::Theirs => codec::encode(&ToClient::Part(part)),
        Over::Ours => codec::encode(&ToReplica::Part(part)),
    }
}

/// How fast a line took the large messages that were written lately. What the system's buffers take at once counts as well,
/// so it is an upper bound, and near the truth where much is written.
#[derive(Debug, Default)]
struct Speed {
    bytes: f64,
    seconds: f64,
}

impl Speed {
    /// What was before counts for less by so much with each write.
    const KEPT: f64 = 0.875;

    fn note(&mut self, bytes: usize, took: Duration) {
        self.bytes = self.bytes * Self::KEPT + bytes as f64;
        self.seconds = self.seconds * Self::KEPT + took.as_secs_f64();
    }

    /// How much it is worth to have waiting.
    fn bulk_bytes(&self) -> usize {
        if self.bytes == 0.0 {
            return BULK_BYTES;
        }
        let in_time = self.bytes / self.seconds.max(f64::MIN_POSITIVE) * BULK_TIME.as_secs_f64();
        // A conversion of floats is cut off at the ends.
        (in_time as usize).clamp(BULK_BYTES_MIN, BULK_BYTES)
    }
}

/// Whose connection something goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// One that this replica dialled.
    Ours,
    /// One that the peer dialled.
    Theirs,
}

/// Whether a link is up, and the bytes that wait in each of its queues.
struct State {
    up: AtomicBool,
    control: AtomicUsize,
    bulk: AtomicUsize,
}

impl State {
    fn bytes(&self, lane: Lane) -> &AtomicUsize {
        match lane {
            Lane::Control => &self.control,
            Lane::Bulk => &self.bulk,
        }
    }
}

/// The sender's end of a link.
pub(crate) struct Link {
    control: mpsc::Sender<Arc<Parcel>>,
    bulk: mpsc::Sender<Arc<Parcel>>,
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
        let bytes = self.state.bytes(parcel.lane);
        let queue = match parcel.lane {
            Lane::Control => &self.control,
            Lane::Bulk => &self.bulk,
        };
        let queued = bytes.fetch_add(parcel.weight, Ordering::Relaxed);
        let most = match parcel.lane {
            Lane::Control => self.bytes_max,
            Lane::Bulk => self.bytes_max.min(BULK_BYTES),
        };
        let has_room = queued + parcel.weight <= most;
        if !has_room || queue.try_send(Arc::clone(parcel)).is_err() {
            bytes.fetch_sub(parcel.weight, Ordering::Relaxed);
            self.counters.count(Counter::SendQueueFull);
        }
    }
}

/// The task's end of a link.
pub(crate) struct LinkTask {
    shell: Arc<Shell>,
    peer: ReplicaId,
    dialling: Arc<Dialling>,
    /// The connection that the peer dialled last.
    back: watch::Receiver<Option<Back>>,
    /// How many links are up.
    up: watch::Sender<usize>,
    /// Whether this one is.
    is_up: bool,
    stopping: CancellationToken,
    control: mpsc::Receiver<Arc<Parcel>>,
    bulk: mpsc::Receiver<Arc<Parcel>>,
    state: Arc<State>,
    speed: Speed,
}

/// What it takes to dial a peer.
struct Dialling {
    shell: Arc<Shell>,
    peer: ReplicaId,
    dialler: Dialler,
    /// `None` where connections are plain.
    expecting: Option<Expecting>,
}

/// A connection to the peer that nothing was said on yet but the knock.
struct Opened {
    reader: Reader,
    writer: Writer,
    /// What the hello has to sign.
    nonce: [u8; 32],
    /// Which version of frames is spoken.
    version: u32,
    /// Whether the challenge was read. Where the connection is encrypted, it is not waited for.
    is_challenged: bool,
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
    Farewell(Farewell),
    #[error("{0} (said without encryption, by it or by somebody on the way)")]
    InClear(Box<Down>),
    #[error("its settings are not the ones here")]
    SettingsDiffer,
    #[error("the peer did not read in time")]
    TooSlow,
    #[error("the peer closed the connection that it had dialled")]
    Gone,
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
pub(crate) fn link(
    shell: &Arc<Shell>,
    peer: ReplicaId,
    address: String,
    back: watch::Receiver<Option<Back>>,
    up: watch::Sender<usize>,
    stopping: CancellationToken,
) -> (Link, LinkTask) {
    let (to_control, control) = mpsc::channel(shell.limits.sends_queued);
    let (to_bulk, bulk) = mpsc::channel(shell.limits.sends_queued);
    let state = Arc::new(State {
        up: AtomicBool::new(false),
        control: AtomicUsize::new(0),
        bulk: AtomicUsize::new(0),
    });
    let link = Link {
        control: to_control,
        bulk: to_bulk,
        state: Arc::clone(&state),
        bytes_max: shell.limits.send_bytes_queued,
        counters: Arc::clone(&shell.counters),
    };
    let (shell, dialler) = (Arc::clone(shell), Dialler::new(address));
    let expecting = shell.identity.as_ref().map(|identity| {
        let key = shell.membership.replica_key(peer).expect("a peer is a member");
        identity.expecting(key.0)
    });
    let dialling = Arc::new(Dialling { shell: Arc::clone(&shell), peer, dialler, expecting });
    let (is_up, speed) = (false, Speed::default());
    let task =
        LinkTask { shell, peer, dialling, back, up, is_up, stopping, control, bulk, state, speed };
    (link, task)
}

/// A connection on which the peer has let us in, and the next pause should it break soon, in ms.
type Dialled = (Reader, Writer, u64);

impl Dialling {
    /// Dials until it succeeds, after a pause of about `wait` ms, 0 for none.
    async fn until_up(self: Arc<Self>, mut wait: u64) -> Dialled {
        let (least, most) = (self.shell.limits.redial_min_ms, self.shell.limits.redial_max_ms);
        let mut attempt = 0u32;
        loop {
            if wait > 0 {
                // Replicas that lost each other together need not come back in step.
                sleep(Duration::from_millis(rand::random_range(wait / 2..=wait))).await;
            }
            wait = (wait * 2).clamp(least, most);
            match self.dial(attempt).await {
                Ok((reader, writer)) => return (reader, writer, wait),
                Err(why) => {
                    attempt = attempt.wrapping_add(1);
                    self.cannot_link(&why);
                }
            }
        }
    }

    fn cannot_link(&self, why: &Failed<Down>) {
        let (peer, address) = (self.peer, self.dialler.address());
        self.shell.counters.count(Counter::DialFailed);
        let is_answered = |(_, why): &(_, Down)| {
            matches!(why, Down::NotThePeer(_) | Down::Farewell(_) | Down::InClear(_))
        };
        // Somebody answers there, and not as it should be: that does not pass by itself.
        if why.0.iter().any(is_answered) {
            tracing::warn!(%peer, %address, %why, "cannot link");
        } else {
            tracing::debug!(%peer, %address, %why, "cannot link");
        }
    }

    /// Dials and proves who we are. Two of three attempts are short: where what is sent is lost, the system
    /// asks again ever more rarely, and a network that has healed should be found at once. On the third one
    /// a long way has its time.
    async fn dial(&self, attempt: u32) -> Result<(Reader, Writer), Failed<Down>> {
        let longest = self.shell.handshake_timeout();
        let patience = if attempt.is_multiple_of(3) { longest } else { longest / 4 };
        self.dialler.dial(patience, |socket| self.open(socket), |opened| self.greet(opened)).await
    }

    /// Finds out who is there.
    async fn open(&self, socket: TcpStream) -> Result<Opened, Down> {
        let Shell { me, membership, signer, .. } = &*self.shell;
        let mut connection = Connection::new(socket, self.shell.write_timeout())?;
        // At once: a peer that is flooded with connections keeps this one.
        let transport = self.shell.transport();
        let body = KnockBody {
            versions: self.shell.wire,
            origin: Origin::Replica(*me),
            to: self.peer,
            transport,
        };
        let knock = sign_knock(&**signer, membership.genesis(), body);
        frames::write_first(&mut connection, &ToReplica::Knock(knock)).await?;
        let Some(expecting) = &self.expecting else {
            let (mut reader, writer) = frames::split(connection, FRAME_MAX);
            let (Challenge { nonce, .. }, version) = self.read_challenge(&mut reader).await?;
            return Ok(Opened { reader, writer, nonce, version, is_challenged: true });
        };
        let connection = match expecting.encrypt(connection).await {
            Ok(connection) => connection,
            Err(SecureError::NotTls(connection)) => return Err(self.in_clear(*connection).await),
            Err(SecureError::OtherKey(key)) => {
                return Err(Down::NotThePeer(match membership.replica_with_key(&PublicKey(key)) {
                    Some(other) => format!("{other} listens there"),
                    None => "whoever listens there has a key that no replica of this cluster has"
                        .to_owned(),
                }));
            }
            Err(SecureError::Io(error)) => return Err(error.into()),
            Err(error) => return Err(Down::NotThePeer(error.to_string())),
        };
        let nonce = connection
            .binding()?
            .ok_or_else(|| Down::NotThePeer("it is not encrypted".to_owned()))?;
        let version = connection.protocol().and_then(|protocol| self.shell.wire.named(protocol));
        let version = version.ok_or_else(|| {
            Down::NotThePeer("it speaks no version that is spoken here".to_owned())
        })?;
        let (reader, writer) = frames::split(connection, FRAME_MAX);
        Ok(Opened { reader, writer, nonce, version, is_challenged: false })
    }

    /// Where it was to be encrypted and is not: what is said there, which anybody on the way may have said.
    async fn in_clear(&self, connection: Connection) -> Down {
        let (mut reader, _writer) = frames::split(connection, FRAME_MAX);
        if let Err(why) = self.read_challenge(&mut reader).await {
            return Down::InClear(Box::new(why));
        }
        match frames::read_to_client(&mut reader).await {
            Ok((ToClient::Farewell(word), _)) => Down::InClear(Box::new(Down::Farewell(word))),
            _ => Down::NotThePeer("it does not encrypt".to_owned()),
        }
    }

    /// Where it is, and which version of frames both speak.
    async fn read_challenge(&self, reader: &mut Reader) -> Result<(Challenge, u32), Down> {
        let not_the_peer = |what: String| Err(Down::NotThePeer(what));
        let challenge = match frames::read_to_client(reader).await?.0 {
            ToClient::Challenge(challenge) => challenge,
            ToClient::Farewell(word) => return Err(Down::Farewell(word)),
            _ => return not_the_peer("whoever listens there sent no challenge".to_owned()),
        };
        let (own, theirs) = (self.shell.wire, challenge.versions);
        let Some(version) = own.common(theirs) else {
            self.shell.agreement.note_versions(self.peer, own, theirs);
            return not_the_peer(format!(
                "it speaks version {theirs} of the protocol, this replica {own}"
            ));
        };
        if challenge.genesis != *self.shell.membership.genesis() {
            return not_the_peer(format!("it belongs to cluster {}", challenge.genesis));
        }
        if challenge.replica != self.peer {
            return not_the_peer(format!("{} listens there", challenge.replica));
        }
        Ok((challenge, version))
    }

    /// Says who we are, and has the peer prove who it is.
    async fn greet(&self, opened: Opened) -> Result<(Reader, Writer), Down> {
        let Opened { mut reader, mut writer, nonce, version, is_challenged } = opened;
        let Shell { me, instance, membership, signer, .. } = &*self.shell;
        let (origin, own_nonce) = (Origin::Replica(*me), rand::random());
        let (to, instance) = (self.peer, *instance);
        let body = HelloBody { origin, to, nonce, instance, own_nonce, version };
        let hello = sign_hello(&**signer, membership.genesis(), body);
        frames::write(&mut writer, &ToReplica::Hello(hello)).await?;
        if !is_challenged {
            self.read_challenge(&mut reader).await?;
        }
        let theirs = match frames::read_to_client(&mut reader).await?.0 {
            ToClient::Terms(theirs) if theirs.check().is_ok() => theirs,
            ToClient::Farewell(word) => return Err(Down::Farewell(word)),
            _ => return Err(Down::NotThePeer("it did not say on which terms".to_owned())),
        };
        // Also where they differ: it shall know why.
        let agreement = &self.shell.agreement;
        frames::write(&mut writer, &ToReplica::Terms(agreement.own().clone())).await?;
        if !agreement.compare(self.peer, &theirs) {
            return Err(Down::SettingsDiffer);
        }
        let greeting = match frames::read_to_client(&mut reader).await?.0 {
            ToClient::Greeting(greeting) => greeting,
            ToClient::Farewell(word) => return Err(Down::Farewell(word)),
            _ => return Err(Down::NotThePeer("it did not answer the hello".to_owned())),
        };
        let is_right = greeting.by == self.peer
            && greeting.body == Greeting { to: *me, nonce: own_nonce }
            && membership.open(greeting).is_ok();
        match is_right {
            true => Ok((reader, writer)),
            false => Err(Down::NotThePeer("it did not prove who it is".to_owned())),
        }
    }
}

/// Waits for a connection that the peer dialled.
async fn dialled_by_peer(back: &mut watch::Receiver<Option<Back>>) -> Back {
    loop {
        let newest = back.borrow_and_update().clone();
        if let Some(back) = newest.filter(|back| !back.gone.is_cancelled()) {
            return back;
        }
        if back.changed().await.is_err() {
            // The replica is being stopped.
            std::future::pending::<()>().await;
        }
    }
}

/// Takes in what a peer says on a connection that this replica dialled.
async fn hear(shell: &Shell, peer: ReplicaId, mut reader: Reader) -> Down {
    let (checking, bulk) = mpsc::unbounded_channel();
    tokio::select! {
        why = read(shell, peer, &mut reader, &checking) => why,
        _ = check_later(shell, peer, bulk) => does_not_verify(),
    }
}

async fn read(shell: &Shell, peer: ReplicaId, reader: &mut Reader, checking: &Checking) -> Down {
    let mut parts = Parts::default();
    loop {
        let (message, bytes) = match frames::read_to_client(reader).await {
            Ok((ToClient::Peer(message), bytes)) => (message, bytes),
            Ok((ToClient::Part(part), _)) => match parts.push(&part) {
                Ok(Some(whole)) => whole,
                Ok(None) => continue,
                Err(error) => return Down::Frame(error.into()),
            },
            Ok((ToClient::Farewell(word), _)) => return Down::Farewell(word),
            Ok(_) => return Down::NotThePeer("it spoke out of turn".to_owned()),
            Err(error) => return error.into(),
        };
        match take_in(shell, peer, checking, message, bytes).await {
            Ok(()) => {}
            // What was decided is still sent.
            Err(Farewell::Stopping) => std::future::pending().await,
            Err(_) => return does_not_verify(),
        }
    }
}

fn does_not_verify() -> Down {
    Down::NotThePeer("it sent what does not verify".to_owned())
}

/// Waits until there is something to cut, in `rest`. May be dropped and called again without losing anything.
async fn has_rest(
    bulk: &mut mpsc::Receiver<Arc<Parcel>>,
    state: &State,
    shell: &Shell,
    speed: &Speed,
    rest: &mut Pieces,
) {
    while rest.is_empty() {
        match bulk.recv().await {
            Some(parcel) => *rest = unpacked(&parcel, state, shell, speed),
            // The other queue says that the replica stops.
            None => std::future::pending().await,
        }
    }
}

/// What is to be cut of a parcel that was taken from its queue: nothing, where so much has come behind it that it has
/// stood there for too long.
fn unpacked(parcel: &Parcel, state: &State, shell: &Shell, speed: &Speed) -> Pieces {
    let queued = state.bytes(Lane::Bulk).fetch_sub(parcel.weight, Ordering::Relaxed);
    if queued - parcel.weight > speed.bulk_bytes() {
        shell.counters.count(Counter::SendOutdated);
        return Pieces::default();
    }
    parcel.whole().map_or_else(
        |error| {
            shell.counters.warn(Counter::SendTooLarge, error);
            Pieces::default()
        },
        Pieces::from,
    )
}

impl LinkTask {
    /// Keeps the link up until the replica stops.
    pub(crate) async fn run(mut self) {
        let (stopping, dialling) = (self.stopping.clone(), Arc::clone(&self.dialling));
        let mut own = Box::pin(Arc::clone(&dialling).until_up(0));
        loop {
            let (reader, writer, wait) = tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                dialled = &mut own => dialled,
                back = dialled_by_peer(&mut self.back) => {
                    // For as long as there is no connection of our own.
                    tokio::select! {
                        biased;
                        dialled = &mut own => dialled,
                        why = self.carry_back(&back) => {
                            if self.went_down(&why) {
                                return;
                            }
                            continue;
                        }
                    }
                }
            };
            let since = Instant::now();
            let why = self.carry(reader, writer).await;
            if self.went_down(&why) {
                return;
            }
            // A link that breaks as soon as it is up is not dialled in a tight loop.
            let is_good = since.elapsed() >= Duration::from_millis(self.shell.limits.redial_max_ms);
            let wait = if is_good { self.shell.limits.redial_min_ms } else { wait };
            own.set(Arc::clone(&dialling).until_up(wait));
        }
    }

    /// Carries messages until the connection breaks or the replica stops.
    async fn carry(&mut self, reader: Reader, mut writer: Writer) -> Down {
        self.shell.counters.count(Counter::LinksUp);
        tracing::info!(peer = %self.peer, address = self.dialling.dialler.address(), "link up");
        self.goes_up();
        let (shell, peer) = (Arc::clone(&self.shell), self.peer);
        tokio::select! {
            why = hear(&shell, peer, reader) => why,
            pumped = self.pump(&mut writer, Over::Ours) => pumped.err().unwrap_or(Down::Stopping),
        }
    }

    /// The same over a connection that the peer dialled. What it says there is heard elsewhere.
    async fn carry_back(&mut self, back: &Back) -> Down {
        let mut writer = back.writer.lock().await;
        self.shell.counters.count(Counter::LinksBack);
        tracing::info!(peer = %self.peer, "link up over the connection that the peer dialled");
        self.goes_up();
        let why = tokio::select! {
            biased;
            () = back.gone.cancelled() => Down::Gone,
            pumped = self.pump(&mut writer, Over::Theirs) => {
                pumped.err().unwrap_or(Down::Stopping)
            }
        };
        // Where the replica stops, the peer is still told so over this connection.
        if !matches!(why, Down::Stopping) {
            back.gone.cancel();
        }
        why
    }

    fn goes_up(&mut self) {
        if !self.is_up {
            self.is_up = true;
            self.empty();
            self.state.up.store(true, Ordering::Relaxed);
            self.up.send_modify(|up| *up += 1);
        }
    }

    /// Notes that the link is down; answers whether it is for good.
    fn went_down(&mut self, why: &Down) -> bool {
        if self.is_up {
            self.is_up = false;
            self.state.up.store(false, Ordering::Relaxed);
            self.up.send_modify(|up| *up -= 1);
            self.empty();
        }
        match why {
            Down::Stopping => return true,
            Down::Farewell(Farewell::SecondProcess) => {
                self.shell.doubles.told_of(Origin::Replica(self.shell.me));
            }
            _ => {}
        }
        tracing::info!(peer = %self.peer, %why, "link down");
        false
    }

    async fn pump(&mut self, writer: &mut Writer, over: Over) -> Result<(), Down> {
        let mut group = Vec::new();
        // What is left of a message that goes in pieces. Another connection gets another message.
        let mut rest = Pieces::default();
        loop {
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => {
                    // What was released before the stop is still sent.
                    while let Ok(parcel) = self.control.try_recv() {
                        group.push(parcel);
                    }
                    self.write(writer, over, &mut group, &mut rest).await?;
                    while self.is_cutting(&mut rest) {
                        self.write(writer, over, &mut group, &mut rest).await?;
                    }
                    return Ok(());
                }
                taken = self.control.recv_many(&mut group, GROUP) => {
                    if taken == 0 {
                        return Ok(());
                    }
                }
                () = has_rest(&mut self.bulk, &self.state, &self.shell, &self.speed, &mut rest) => {}
            }
            // One piece also where there is always something else.
            self.is_cutting(&mut rest);
            self.write(writer, over, &mut group, &mut rest).await?;
        }
    }

    /// Takes the next message to cut, where none is being cut; answers whether there is one.
    fn is_cutting(&mut self, rest: &mut Pieces) -> bool {
        while rest.is_empty()
            && let Ok(parcel) = self.bulk.try_recv()
        {
            *rest = unpacked(&parcel, &self.state, &self.shell, &self.speed);
        }
        !rest.is_empty()
    }

    /// Writes a group of messages, and one piece.
    async fn write(
        &mut self,
        writer: &mut Writer,
        over: Over,
        group: &mut Vec<Arc<Parcel>>,
        rest: &mut Pieces,
    ) -> Result<(), Down> {
        let (shell, peer) = (&self.shell, self.peer);
        let down = |error: std::io::Error| {
            if error.kind() != std::io::ErrorKind::TimedOut {
                return Down::Io(error);
            }
            let why = format_args!("{peer} did not read in time");
            shell.counters.warn(Counter::PeerTooSlow, why);
            Down::TooSlow
        };
        let (since, mut bytes) = (Instant::now(), 0);
        let taken: usize = group.iter().map(|parcel| parcel.weight).sum();
        self.state.bytes(Lane::Control).fetch_sub(taken, Ordering::Relaxed);
        let next = rest.next().map(|part| piece(part, over));
        let is_large = next.is_some();
        let small = group.drain(..).map(|parcel| (parcel.frame(over), false));
        for (frame, is_piece) in small.chain(next.map(|frame| (frame, true))) {
            match frame {
                Ok(frame) => {
                    if is_piece {
                        // What is encrypted together can be read together only: no vote waits for the piece behind it.
                        frames::flush(writer).await.map_err(down)?;
                    }
                    bytes += frame.len();
                    frames::feed(writer, frame).await.map_err(down)?;
                }
                Err(error) => shell.counters.warn(Counter::SendTooLarge, error),
            }
        }
        frames::flush(writer).await.map_err(down)?;
        // A few votes that were late for whatever reason say nothing of the line.
        if is_large {
            self.speed.note(bytes, since.elapsed());
        }
        Ok(())
    }

    /// Throws away what was meant for a connection that is no more.
    fn empty(&mut self) {
        for queue in [&mut self.control, &mut self.bulk] {
            while let Ok(parcel) = queue.try_recv() {
                self.state.bytes(parcel.lane).fetch_sub(parcel.weight, Ordering::Relaxed);
                self.shell.counters.count(Counter::SendNotConnected);
            }
        }
    }
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parcel").field("weight", &self.weight).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_waits_on_a_line_than_it_takes_in_a_while() {
        let mut speed = Speed::default();
        assert_eq!(speed.bulk_bytes(), BULK_BYTES, "nothing was written yet");
        for _ in 0..20 {
            speed.note(64 << 10, Duration::from_micros(100));
        }
        assert_eq!(speed.bulk_bytes(), BULK_BYTES);
        // 125 kB/s: it is known after a few writes.
        for _ in 0..4 {
            speed.note(64 << 10, Duration::from_millis(524));
        }
        assert!(speed.bulk_bytes() < 2 << 20, "{}", speed.bulk_bytes());
        for _ in 0..20 {
            speed.note(64 << 10, Duration::from_millis(524));
        }
        let near = 490_000..530_000;
        assert!(near.contains(&speed.bulk_bytes()), "{}", speed.bulk_bytes());
        for _ in 0..40 {
            speed.note(1000, Duration::from_millis(500));
        }
        assert_eq!(speed.bulk_bytes(), BULK_BYTES_MIN);
        for _ in 0..60 {
            speed.note(64 << 10, Duration::from_micros(100));
        }
        assert_eq!(speed.bulk_bytes(), BULK_BYTES, "and when it is fast again");
    }
}
