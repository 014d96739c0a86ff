//! Connections without a client library, which would not let one misbehave.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use elea_processes::frames::{frame, message};
use elea_protocol::id::{ClientId, Digest, ReplicaId};
use elea_protocol::message::{
    HelloBody, KnockBody, Origin, ToClient, ToReplica, Transport, WireVersions,
};
use elea_protocol::seal::{sign_hello, sign_knock};
use elea_protocol::signature::{SecretKey, Signer as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a step of a connection may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where a replica listens at present.
pub type Where = Arc<dyn Fn(ReplicaId) -> Option<SocketAddr> + Send + Sync>;

/// A connection on which nothing was said yet.
///
/// # Errors
/// The replica is down, or does not take it.
pub async fn dial(at: &Where, id: ReplicaId) -> io::Result<TcpStream> {
    let at = at(id).ok_or_else(|| io::Error::other("it is down"))?;
    let stream = timeout(PATIENCE, TcpStream::connect(at)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection that has shown its key and was welcomed.
///
/// # Errors
/// It was turned away, or not answered in time.
pub async fn greeted(
    at: &Where,
    genesis: &Digest,
    key: &SecretKey,
    id: ReplicaId,
) -> io::Result<TcpStream> {
    let mut stream = dial(at, id).await?;
    let greet = async {
        let origin = Origin::Client(ClientId::from(key.public_key()));
        let body =
            KnockBody { versions: WireVersions::OWN, origin, to: id, transport: Transport::Plain };
        stream.write_all(&frame(&ToReplica::Knock(sign_knock(key, genesis, body)))?).await?;
        let ToClient::Challenge(challenge) = message(&mut stream).await? else {
            return Err(io::Error::other("no challenge"));
        };
        let (to, nonce) = (id, challenge.nonce);
        let body = HelloBody {
            origin,
            to,
            nonce,
            instance: 1,
            own_nonce: [0; 32],
            version: WireVersions::OWN.newest,
        };
        let hello = sign_hello(key, genesis, body);
        stream.write_all(&frame(&ToReplica::Hello(hello))?).await?;
        match message(&mut stream).await? {
            ToClient::Welcome => Ok(()),
            _ => Err(io::Error::other("no welcome")),
        }
    };
    timeout(PATIENCE, greet).await??;
    Ok(stream)
}
