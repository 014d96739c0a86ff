//! A connection to a replica of whoever has a key, without a client library or a replica, which would not let one
//! misbehave: knocked, encrypted or not, and with the hello said. What comes of that is still to be read.

use std::io;
use std::time::Duration;

use elea_net::{Connection, Identity};
use elea_protocol::id::ReplicaId;
use elea_protocol::membership::Membership;
use elea_protocol::message::{
    Challenge, HelloBody, KnockBody, Origin, ToClient, ToReplica, Transport, WireVersions,
};
use elea_protocol::seal::{sign_hello, sign_knock};
use elea_protocol::signature::{SecretKey, Signer as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::frames::{frame, message};

/// How long it waits for somebody who reads nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Dials replica `to`, says who it is, and has heard the challenge.
///
/// # Errors
/// The connection fails, or somebody else listens there.
pub async fn call(
    membership: &Membership,
    (to, address): (ReplicaId, &str),
    origin: Origin,
    key: &SecretKey,
    transport: Transport,
) -> io::Result<Connection> {
    let (genesis, versions) = (membership.genesis(), WireVersions::OWN);
    let mut connection = Connection::new(TcpStream::connect(address).await?, PATIENCE)?;
    let knock = sign_knock(key, genesis, KnockBody { versions, origin, to, transport });
    connection.write_all(&frame(&ToReplica::Knock(knock))?).await?;
    let (mut connection, nonce, version) = match transport {
        Transport::Encrypted => {
            let expected = membership.replica_key(to).ok_or(io::ErrorKind::NotFound)?.0;
            let expecting = identity(key).expecting(expected);
            let connection = expecting.encrypt(connection).await.map_err(io::Error::other)?;
            let nonce = connection.binding()?.ok_or(io::ErrorKind::Unsupported)?;
            let version = connection.protocol().and_then(|spoken| versions.named(spoken));
            (connection, nonce, version)
        }
        Transport::Plain => {
            let challenge = challenge(&mut connection).await?;
            (connection, challenge.nonce, versions.common(challenge.versions))
        }
    };
    let version = version.ok_or(io::ErrorKind::Unsupported)?;
    // It does not ask a replica to prove who it is where TLS has not.
    let body = HelloBody { origin, to, nonce, instance: 1, own_nonce: [0; 32], version };
    let hello = sign_hello(key, genesis, body);
    connection.write_all(&frame(&ToReplica::Hello(hello))?).await?;
    connection.flush().await?;
    if transport == Transport::Encrypted {
        challenge(&mut connection).await?;
    }
    Ok(connection)
}

async fn challenge(connection: &mut Connection) -> io::Result<Challenge> {
    match message(connection).await? {
        ToClient::Challenge(challenge) => Ok(challenge),
        _ => Err(io::Error::other("no challenge came")),
    }
}

/// What this key is on encrypted connections.
#[must_use]
pub fn identity(key: &SecretKey) -> Identity {
    let (public, key) = (key.public_key().0, SecretKey::from_bytes(&key.to_bytes()));
    let prove = move |transcript: &[u8]| key.sign_handshake(transcript).map(|signed| signed.0);
    Identity::new(public, prove, &WireVersions::OWN.application_protocols())
}
