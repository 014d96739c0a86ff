//! A connection to a replica of whoever has a key, without a client library or a replica, which would not let one
//! misbehave: knocked, encrypted, and with the hello said. What comes of it is still to be read.

use std::io;
use std::time::Duration;

use elea_net::{Connection, Identity};
use elea_protocol::id::ReplicaId;
use elea_protocol::membership::Membership;
use elea_protocol::message::{HelloBody, KnockBody, Origin, ToReplica, Transport, WireVersions};
use elea_protocol::seal::{sign_hello, sign_knock};
use elea_protocol::signature::{SecretKey, Signer as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::frames::frame;

/// How long it waits for somebody who reads nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Dials replica `to`, and says who it is.
///
/// # Errors
/// The connection fails, or somebody else listens there.
pub async fn call(
    membership: &Membership,
    (to, address): (ReplicaId, &str),
    origin: Origin,
    key: &SecretKey,
) -> io::Result<Connection> {
    let expected = membership.replica_key(to).ok_or(io::ErrorKind::NotFound)?.0;
    let genesis = membership.genesis();
    let mut connection = Connection::new(TcpStream::connect(address).await?, PATIENCE)?;
    let body =
        KnockBody { versions: WireVersions::OWN, origin, to, transport: Transport::Encrypted };
    let knock = sign_knock(key, genesis, body);
    connection.write_all(&frame(&ToReplica::Knock(knock))?).await?;
    let expecting = identity(key).expecting(expected);
    let mut connection = expecting.encrypt(connection).await.map_err(io::Error::other)?;
    let nonce = connection.binding()?.ok_or(io::ErrorKind::Unsupported)?;
    let body = HelloBody {
        origin,
        to,
        nonce,
        instance: 1,
        own_nonce: [0; 32],
        version: WireVersions::OWN.newest,
    };
    let hello = sign_hello(key, genesis, body);
    connection.write_all(&frame(&ToReplica::Hello(hello))?).await?;
    connection.flush().await?;
    Ok(connection)
}

fn identity(key: &SecretKey) -> Identity {
    let (public, key) = (key.public_key().0, SecretKey::from_bytes(&key.to_bytes()));
    let prove = move |transcript: &[u8]| key.sign_handshake(transcript).map(|signed| signed.0);
    Identity::new(public, prove, &WireVersions::OWN.application_protocols())
}
