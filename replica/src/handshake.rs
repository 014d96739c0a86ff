//! How a connection proves who it is, and how a peer's settings are compared before it is let in.
//!
//! It knocks, in clear, so that whoever has no business here costs no more than that. What is wrong with a knock is
//! told in clear, too. Where the knock is good the connection is encrypted; then come challenge and hello. Until it has
//! proved who it is, it is one of those that [wait](crate::waiting).

use elea_net::{Connection, Key, SecureError};
use elea_protocol::id::ReplicaId;
use elea_protocol::message::{
    Challenge, Farewell, HelloBody, Knock, KnockBody, Origin, ToClient, ToReplica,
};
use elea_protocol::seal::Rejection;

use crate::counters::{Counter, frame_counter};
use crate::frames::{self, FrameError, Reader, Writer};
use crate::limits::{HELLO_FRAME_MAX, TERMS_FRAME_MAX};
use crate::shell::Shell;
use crate::waiting::Turn;

/// Why a connection is not let in: how it is counted and what it is told.
pub(crate) type Refused = (Counter, Option<Farewell>);

const GONE: Refused = (Counter::HandshakeAborted, None);

/// Reads who dials. What is said next is encrypted if this replica's connections are, or the knock was not good.
pub(crate) async fn knock(
    shell: &Shell,
    turn: &mut Turn,
    connection: &mut Connection,
) -> Result<Knocked, Refused> {
    let said = frames::read_first(connection, HELLO_FRAME_MAX).await.map_err(unreadable)?;
    let ToReplica::Knock(knock) = said else {
        return Err((Counter::HelloMalformed, Some(Farewell::Misbehaviour)));
    };
    let KnockBody { versions, origin, transport, .. } = open_knock(shell, knock)?;
    let Some(version) = shell.wire.common(versions) else {
        // The challenge that it hears before says which ones are spoken here.
        return Err((Counter::OtherVersion, Some(Farewell::NotAdmitted)));
    };
    if transport != shell.transport() {
        let word = Farewell::OtherTransport(shell.transport());
        return Err((Counter::OtherTransport, Some(word)));
    }
    if matches!(origin, Origin::Replica(_)) || !shell.membership.is_open() {
        turn.knock(origin);
    }
    if matches!(origin, Origin::Client(_)) {
        elea_net::bear_a_slow_line(connection.socket());
    }
    Ok(Knocked { origin, version })
}

/// Who has knocked, and which version of frames can be spoken with it.
pub(crate) struct Knocked {
    pub(crate) origin: Origin,
    version: u32,
}

/// Who a connection is of, as far as that is known before the hello.
pub(crate) struct Known {
    /// Who has knocked.
    pub(crate) knocked: Origin,
    /// Which version of frames is spoken.
    pub(crate) version: u32,
    /// The key that was proved, where the connection is encrypted.
    pub(crate) proved: Option<Key>,
    /// What the hello has to sign.
    pub(crate) nonce: [u8; 32],
}

/// Encrypts the connection, where that is the way here.
pub(crate) async fn secure(
    shell: &Shell,
    knocked: Knocked,
    connection: Connection,
) -> Result<(Connection, Known), Counter> {
    let Knocked { origin: knocked, version } = knocked;
    let Some(identity) = &shell.identity else {
        return Ok((connection, Known { knocked, version, proved: None, nonce: rand::random() }));
    };
    let failed = |error: SecureError| {
        tracing::debug!(%knocked, %error, "cannot encrypt");
        match error {
            SecureError::Io(_) => Counter::HandshakeAborted,
            _ => Counter::TlsFailed,
        }
    };
    let (connection, key) = identity.accept(connection).await.map_err(failed)?;
    let nonce = connection.binding().ok().flatten().ok_or(Counter::TlsFailed)?;
    // The knock may be one that somebody has heard and says again.
    let version = connection.protocol().and_then(|protocol| shell.wire.named(protocol));
    let version = version.ok_or(Counter::TlsFailed)?;
    Ok((connection, Known { knocked, version, proved: Some(key), nonce }))
}

/// Says where whoever dials has come.
pub(crate) async fn challenge(
    shell: &Shell,
    nonce: [u8; 32],
    writer: &mut Writer,
) -> Result<(), Refused> {
    let (genesis, replica) = (*shell.membership.genesis(), shell.me);
    let challenge = Challenge { versions: shell.wire, genesis, replica, nonce };
    frames::write(writer, &ToClient::Challenge(challenge)).await.map_err(|_| GONE)
}

/// Checks the answer to the challenge, and gives back what that says.
pub(crate) async fn hello(
    shell: &Shell,
    known: &Known,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<HelloBody, Refused> {
    challenge(shell, known.nonce, writer).await?;
    let ToReplica::Hello(hello) = read(reader).await? else {
        return Err((Counter::HelloMalformed, Some(Farewell::Misbehaviour)));
    };
    let hello = shell.membership.open_hello(hello, shell.me, &known.nonce).map_err(refused)?;
    let origin = hello.body.origin;
    if origin != known.knocked {
        return Err((Counter::HelloMalformed, Some(Farewell::Misbehaviour)));
    }
    if hello.body.version != known.version {
        // Somebody on the way has changed what one of the two said.
        return Err((Counter::OtherVersion, Some(Farewell::NotAdmitted)));
    }
    let is_own = origin == Origin::Replica(shell.me);
    if is_own || known.proved.is_some_and(|key| !is_key_of(shell, key, origin)) {
        return Err((Counter::HelloUnknownSigner, Some(Farewell::NotAdmitted)));
    }
    if let Origin::Replica(peer) = origin {
        compare_terms(shell, peer, reader, writer).await?;
    }
    tracing::debug!(%origin, version = known.version, "let in");
    Ok(hello.body)
}

fn is_key_of(shell: &Shell, key: Key, origin: Origin) -> bool {
    match origin {
        Origin::Replica(id) => shell.membership.replica_key(id).is_some_and(|own| own.0 == key),
        Origin::Client(client) => client.0 == key,
    }
}

/// Tells a peer on which terms it may come in, and hears its own.
async fn compare_terms(
    shell: &Shell,
    peer: ReplicaId,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<(), Refused> {
    let own = ToClient::Terms(shell.agreement.own().clone());
    frames::write(writer, &own).await.map_err(|_| GONE)?;
    reader.decoder_mut().set_max_frame_length(TERMS_FRAME_MAX);
    match read(reader).await? {
        ToReplica::Terms(theirs) if theirs.check().is_ok() => {
            let agreed = shell.agreement.compare(peer, &theirs);
            let refused = || (Counter::SettingsDiffer, Some(Farewell::SettingsDiffer));
            agreed.then_some(()).ok_or_else(refused)
        }
        _ => Err((Counter::HelloMalformed, Some(Farewell::Misbehaviour))),
    }
}

async fn read(reader: &mut Reader) -> Result<ToReplica, Refused> {
    frames::read_to_replica(reader).await.map(|(said, _)| said).map_err(unreadable)
}

fn unreadable(error: FrameError) -> Refused {
    match error {
        FrameError::Closed | FrameError::Io(_) => GONE,
        error => (frame_counter(&error), Some(Farewell::Misbehaviour)),
    }
}

fn open_knock(shell: &Shell, knock: Knock) -> Result<KnockBody, Refused> {
    let opened = shell.membership.open_knock(knock, shell.me);
    opened.map(|knock| knock.body).map_err(refused)
}

fn refused(rejection: Rejection) -> Refused {
    let counter = match rejection {
        Rejection::BadSignature => Counter::HelloBadSignature,
        Rejection::UnknownSigner | Rejection::WeakKey => Counter::HelloUnknownSigner,
        Rejection::Malformed(_) => Counter::HelloMalformed,
    };
    (counter, Some(Farewell::NotAdmitted))
}
