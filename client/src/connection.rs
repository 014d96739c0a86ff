//! One replica's connection: dialled, proved, used, lost, dialled again.
//!
//! A replica may be hostile. It can send frames that are too large, bytes that mean nothing,
//! signatures that do not hold, no end of messages, or nothing, and never read. Each of these ends
//! the connection, or slows this connection down and no other.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use elea_net::{Expecting, ReadHalf, SILENCE, SecureError, WriteHalf, bear_a_slow_line};
use elea_protocol::codec::{self, FRAME_MAX};
use elea_protocol::id::{ClientId, SessionId};
use elea_protocol::membership::Membership;
use elea_protocol::message::{
    Challenge, Farewell, HelloBody, KnockBody, Origin, ToClient, ToReplica, Transport, WireVersions,
};
use elea_protocol::seal::{Rejection, VerifiedRoots, sign_hello, sign_knock};
use elea_protocol::signature::{PublicKey, Signer};
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tokio_util::codec::{
    Framed, FramedRead, FramedWrite, LengthDelimitedCodec, LengthDelimitedCodecError,
};
use tokio_util::sync::CancellationToken;

use crate::audience::Audience;
use crate::error::ReplicaNote;
use crate::link::{INBOUND_MAX, Inbound, Link, Question, Said};

/// How long each step of the way to a replica may take: to be reached, and to let us in.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// A replica that takes not one byte for so long is dialled anew. A request may take as long as the line
/// needs for it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A connection that stood so long was a good one: the next pause is the shortest again.
const GOOD_WHILE: Duration = Duration::from_secs(2);

/// What a connection task is made of.
pub(crate) struct Connection {
    pub link: Arc<Link>,
    pub membership: Arc<Membership>,
    pub signer: Arc<dyn Signer>,
    /// `None` where connections are plain.
    pub expecting: Option<Expecting>,
    /// The same for all who share the sessions of this key, and for nobody else.
    pub instance: u64,
    pub audience: Arc<Audience>,
    /// Cancelled when no client is left.
    pub end: CancellationToken,
}

/// Whom something is for.
enum Whom {
    /// The client that uses this session.
    Session(SessionId),
    /// All of them; each knows what it has asked for.
    All,
}

#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("cannot be reached: {0}")]
    Dial(io::Error),
    #[error("did not answer in time")]
    Silent,
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    #[error("closed the connection")]
    Closed,
    #[error("does not read what is sent to it")]
    NotReading,
    #[error("turned this client away: {0}")]
    Farewell(Farewell),
    #[error("{0} (said without encryption, by it or by somebody on the way)")]
    InClear(Box<Lost>),
    #[error(
        "has another key than the cluster file says, {0:?}: check the address, and who is on the way"
    )]
    OtherKey(PublicKey),
    #[error("cannot be spoken to in private: {0}")]
    NotPrivate(String),
    #[error("belongs to another cluster: check the cluster file and the address")]
    OtherCluster,
    #[error("is another replica than the cluster file says ({0}): check the address")]
    OtherReplica(elea_protocol::id::ReplicaId),
    #[error("speaks version {0} of the protocol, this client {own}", own = WireVersions::OWN)]
    OtherVersion(WireVersions),
    #[error("misbehaves: {0}")]
    Misbehaves(&'static str),
    #[error("misbehaves: {0}")]
    Rejected(#[from] Rejection),
    #[error("misbehaves: {0}")]
    Malformed(#[from] codec::CodecError),
    /// No address of it leads there.
    #[error("{0}")]
    NoWay(String),
    /// The client is gone.
    #[error("the client was closed")]
    Over,
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::Dial(error),
        }
    }
}

type Wire = Framed<elea_net::Connection, LengthDelimitedCodec>;

/// A connection on which nothing was said yet but the knock.
struct Opened {
    wire: Wire,
    /// What the hello has to sign.
    nonce: [u8; 32],
    /// Which version of frames is spoken.
    version: u32,
    /// Whether the challenge was read. Where the connection is encrypted, it is not waited for.
    is_challenged: bool,
}

fn frames() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(FRAME_MAX).new_codec()
}

impl Connection {
    /// Keeps the connection up for as long as there are clients.
    pub async fn run(self) {
        let mut pause = FIRST_PAUSE;
        let permits = Arc::new(Semaphore::new(INBOUND_MAX));
        loop {
            let start = Instant::now();
            let Err(lost) = self.live(&permits).await;
            if matches!(lost, Lost::Over) {
                return;
            }
            tracing::debug!(replica = %self.link.id, address = self.link.dialler.address(), %lost, "lost");
            self.link.set_note(ReplicaNote::Failed(lost.to_string()));
            if start.elapsed() >= GOOD_WHILE {
                pause = FIRST_PAUSE;
            }
            // Spread out, so that clients of a replica that restarts do not come all at once.
            let jittered = pause.mul_f64(rand::random_range(0.5..1.5));
            tokio::select! {
                () = sleep(jittered) => {}
                () = self.end.cancelled() => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn live(&self, permits: &Arc<Semaphore>) -> Result<std::convert::Infallible, Lost> {
        let (open, greet) = (|socket| self.dial(socket), |opened| self.greet(opened));
        let framed = tokio::select! {
            dialled = self.link.dialler.dial(GREETING_TIMEOUT, open, greet) => {
                dialled.map_err(|failed| Lost::NoWay(failed.to_string()))?
            }
            () = self.end.cancelled() => return Err(Lost::Over),
        };
        self.link.set_note(ReplicaNote::Connected);
        let parts = framed.into_parts();
        let (read, write) = parts.io.split();
        let mut reader = FramedRead::new(read, frames());
        // What came behind the greeting in the same packet.
        *reader.read_buffer_mut() = parts.read_buf;
        tokio::select! {
            ended = self.read(reader, permits) => ended,
            ended = self.write(FramedWrite::new(write, frames())) => ended,
            () = self.link.silent_for(SILENCE) => Err(Lost::Silent),
            () = self.end.cancelled() => Err(Lost::Over),
        }
    }

    /// Finds out who is there.
    async fn dial(&self, socket: TcpStream) -> Result<Opened, Lost> {
        let connection = elea_net::Connection::new(socket, WRITE_TIMEOUT).map_err(Lost::Broken)?;
        bear_a_slow_line(connection.socket());
        // At once: a replica that is flooded with connections keeps this one.
        let transport = match self.expecting {
            Some(_) => Transport::Encrypted,
            None => Transport::Plain,
        };
        let body = KnockBody {
            versions: WireVersions::OWN,
            origin: self.origin(),
            to: self.link.id,
            transport,
        };
        let knock = sign_knock(&*self.signer, self.membership.genesis(), body);
        let mut wire = Framed::new(connection, frames());
        wire.send(codec::encode(&ToReplica::Knock(knock))?).await.map_err(Lost::Broken)?;
        let Some(expecting) = &self.expecting else {
            let (Challenge { nonce, .. }, version) = self.read_challenge(&mut wire).await?;
            return Ok(Opened { wire, nonce, version, is_challenged: true });
        };
        let connection = match expecting.encrypt(wire.into_inner()).await {
            Ok(connection) => connection,
            Err(SecureError::NotTls(connection)) => return Err(self.in_clear(*connection).await),
            Err(SecureError::OtherKey(key)) => {
                let key = PublicKey(key);
                let other = self.membership.replica_with_key(&key);
                return Err(other.map_or(Lost::OtherKey(key), Lost::OtherReplica));
            }
            Err(SecureError::Io(error)) if is_end(&error) => return Err(Lost::Closed),
            Err(SecureError::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(Lost::Silent);
            }
            Err(SecureError::Io(error)) => return Err(Lost::Broken(error)),
            Err(error) => return Err(Lost::NotPrivate(error.to_string())),
        };
        let nonce = connection.binding().map_err(Lost::Broken)?;
        let nonce = nonce.ok_or_else(|| Lost::NotPrivate("it does not encrypt".to_owned()))?;
        let version = connection.protocol().and_then(|spoken| WireVersions::OWN.named(spoken));
        let version = version.ok_or_else(|| {
            Lost::NotPrivate("it speaks no version that is spoken here".to_owned())
        })?;
        let wire = Framed::new(connection, frames());
        Ok(Opened { wire, nonce, version, is_challenged: false })
    }

    /// Where it was to be encrypted and is not: what is said there, which anybody on the way may have said.
    async fn in_clear(&self, connection: elea_net::Connection) -> Lost {
        let mut wire = Framed::new(connection, frames());
        let said = match self.read_challenge(&mut wire).await {
            Ok(_) => next(&mut wire).await.err(),
            Err(why) => Some(why),
        };
        match said {
            Some(
                why @ (Lost::Farewell(_)
                | Lost::OtherVersion(_)
                | Lost::OtherCluster
                | Lost::OtherReplica(_)),
            ) => Lost::InClear(Box::new(why)),
            _ => Lost::NotPrivate("it does not encrypt".to_owned()),
        }
    }

    /// Where it is, and which version of frames both speak.
    async fn read_challenge(&self, wire: &mut Wire) -> Result<(Challenge, u32), Lost> {
        let ToClient::Challenge(challenge) = next(wire).await? else {
            return Err(Lost::Misbehaves("no challenge"));
        };
        let version = WireVersions::OWN
            .common(challenge.versions)
            .ok_or(Lost::OtherVersion(challenge.versions))?;
        if challenge.genesis != *self.membership.genesis() {
            return Err(Lost::OtherCluster);
        }
        if challenge.replica != self.link.id {
            return Err(Lost::OtherReplica(challenge.replica));
        }
        Ok((challenge, version))
    }

    fn origin(&self) -> Origin {
        Origin::Client(ClientId::from(self.signer.public_key()))
    }

    /// Says who we are.
    async fn greet(&self, opened: Opened) -> Result<Wire, Lost> {
        let Opened { mut wire, nonce, version, is_challenged } = opened;
        let (origin, to, instance) = (self.origin(), self.link.id, self.instance);
        let body = HelloBody { origin, to, nonce, instance, own_nonce: [0; 32], version };
        let hello = sign_hello(&*self.signer, self.membership.genesis(), body);
        let frame = codec::encode(&ToReplica::Hello(hello))?;
        wire.send(frame).await.map_err(Lost::Broken)?;
        if !is_challenged {
            self.read_challenge(&mut wire).await?;
        }
        match next(&mut wire).await? {
            ToClient::Welcome => Ok(wire),
            _ => Err(Lost::Misbehaves("no welcome")),
        }
    }

    async fn write(
        &self,
        mut to: FramedWrite<WriteHalf, LengthDelimitedCodec>,
    ) -> Result<std::convert::Infallible, Lost> {
        self.link.begin();
        let broken = |error: io::Error| match error.kind() {
            io::ErrorKind::TimedOut => Lost::NotReading,
            _ => Lost::Broken(error),
        };
        loop {
            let first = self.link.pop().await;
            let all = async {
                to.feed(first).await?;
                // Whatever waits goes out in one system call, as far as it fits.
                for _ in 0..64 {
                    let Some(frame) = self.link.try_pop() else { break };
                    to.feed(frame).await?;
                }
                SinkExt::<Bytes>::flush(&mut to).await
            };
            all.await.map_err(broken)?;
            self.link.written();
        }
    }

    async fn read(
        &self,
        mut reader: FramedRead<ReadHalf, LengthDelimitedCodec>,
        permits: &Arc<Semaphore>,
    ) -> Result<std::convert::Infallible, Lost> {
        let mut roots = VerifiedRoots::default();
        loop {
            let message = next(&mut reader).await?;
            self.link.heard();
            let opened = self.open(message, &mut roots)?;
            if opened.is_empty() {
                continue;
            }
            let permit = Arc::clone(permits).acquire_owned().await.map_err(|_| Lost::Over)?;
            let permit = Some(Arc::new(permit));
            for (whom, said) in opened {
                let inbound = Inbound { from: self.link.id, said, permit: permit.clone() };
                match whom {
                    Whom::Session(session) => self.audience.tell(session, inbound),
                    Whom::All => self.audience.tell_all(&inbound),
                }
            }
        }
    }

    /// Checks what anybody waits for, and answers whom it is for; nobody, where nobody waits.
    fn open(
        &self,
        message: ToClient,
        roots: &mut VerifiedRoots,
    ) -> Result<Vec<(Whom, Said)>, Lost> {
        let me = self.link.id;
        let others = Lost::Misbehaves("it speaks for another replica");
        Ok(match message {
            ToClient::Challenge(_)
            | ToClient::Terms(_)
            | ToClient::Welcome
            | ToClient::Greeting(_)
            | ToClient::Peer(_)
            | ToClient::Part(_) => {
                return Err(Lost::Misbehaves("a greeting out of place"));
            }
            ToClient::Farewell(farewell) => return Err(Lost::Farewell(farewell)),
            ToClient::Replies(replies) => {
                let mut of_sessions = BTreeMap::<SessionId, Vec<_>>::new();
                for signed in replies {
                    let name = signed.reply.name;
                    if !self.audience.wants(&name, signed.reply.kind) {
                        continue;
                    }
                    if signed.vote.by != me {
                        return Err(others);
                    }
                    let verified = self.membership.open_reply_cached(signed, roots)?;
                    of_sessions.entry(name.session).or_default().push(verified);
                }
                let said = |(session, replies)| (Whom::Session(session), Said::Replies(replies));
                of_sessions.into_iter().map(said).collect()
            }
            ToClient::QueryReplies(replies) => {
                let mut of_sessions = BTreeMap::<SessionId, Vec<_>>::new();
                for signed in replies {
                    let session = signed.reply.session;
                    if !self.link.expects(Question::Query) || !self.audience.listens(session) {
                        continue;
                    }
                    if signed.vote.by != me {
                        return Err(others);
                    }
                    let verified = self.membership.open_reply_cached(signed, roots)?;
                    of_sessions.entry(session).or_default().push(verified);
                }
                let said =
                    |(session, replies)| (Whom::Session(session), Said::QueryReplies(replies));
                of_sessions.into_iter().map(said).collect()
            }
            ToClient::NoQueryReply(session, query, why) if self.link.expects(Question::Query) => {
                vec![(Whom::Session(session), Said::NoQueryReply(session, query, why))]
            }
            ToClient::NoQueryReply(..) => Vec::new(),
            ToClient::Refusal(refusal) => {
                let name = refusal.body.name;
                if !self.audience.holds(&name) {
                    return Ok(Vec::new());
                }
                if refusal.by != me {
                    return Err(others);
                }
                let refusal = Said::Refusal(self.membership.open(refusal)?);
                vec![(Whom::Session(name.session), refusal)]
            }
            ToClient::Busy(name) if self.audience.holds(&name) => {
                vec![(Whom::Session(name.session), Said::Busy(name))]
            }
            ToClient::Busy(_) => Vec::new(),
            ToClient::Session(_) if !self.link.expects(Question::Session) => Vec::new(),
            ToClient::Status(status) if !self.link.expects(Question::Status(status.body.nonce)) => {
                Vec::new()
            }
            ToClient::Evidence(_) if !self.link.expects(Question::Evidence) => Vec::new(),
            ToClient::State(_) if !self.link.expects(Question::State) => Vec::new(),
            ToClient::State(head) => {
                let open = |head: Box<_>| self.membership.open_state_head(*head).map(Box::new);
                vec![(Whom::All, Said::State(head.map(open).transpose()?))]
            }
            ToClient::Piece { .. } if !self.link.expects(Question::Piece) => Vec::new(),
            ToClient::Piece { at, index, lent } => {
                vec![(Whom::All, Said::Piece { at, index, lent })]
            }
            ToClient::Session(report) if report.by != me => return Err(others),
            ToClient::Session(report) => {
                let whom = Whom::Session(report.body.session);
                vec![(whom, Said::Session(self.membership.open(report)?))]
            }
            ToClient::Status(status) if status.by != me => return Err(others),
            ToClient::Status(status) => {
                vec![(Whom::All, Said::Status(Box::new(self.membership.open(*status)?)))]
            }
            // A replica keeps one proof a culprit. More would be work that nobody asked for.
            ToClient::Evidence(all)
                if all.len() > usize::from(self.membership.size().replicas()) =>
            {
                return Err(Lost::Misbehaves("it has more proofs than there are replicas"));
            }
            ToClient::Evidence(all) => {
                let open = |evidence| self.membership.open_evidence(evidence);
                let all = all.into_iter().map(open).collect::<Result<_, _>>()?;
                vec![(Whom::All, Said::Evidence(all))]
            }
        })
    }
}

/// Whether the other end has closed without a word, which in TLS is an error.
fn is_end(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
}

/// The next message. A farewell is one wherever it comes.
async fn next<S>(stream: &mut S) -> Result<ToClient, Lost>
where
    S: futures::Stream<Item = io::Result<bytes::BytesMut>> + Unpin,
{
    let frame = stream.next().await.ok_or(Lost::Closed)?.map_err(|error| {
        let is_of_frames = |why: &(dyn std::error::Error + Send + Sync + 'static)| {
            why.is::<LengthDelimitedCodecError>()
        };
        match error.get_ref() {
            Some(why) if is_of_frames(why) => Lost::Misbehaves("a frame too large"),
            _ if is_end(&error) => Lost::Closed,
            _ => Lost::Broken(error),
        }
    })?;
    match codec::decode(&frame)? {
        ToClient::Farewell(farewell) => Err(Lost::Farewell(farewell)),
        message => Ok(message),
    }
}
