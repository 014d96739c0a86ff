//! Connections without a client library, which would not let one misbehave.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use elea_net::Connection;
use elea_processes::caller::call;
use elea_processes::frames::message;
use elea_protocol::id::{ClientId, ReplicaId};
use elea_protocol::membership::Membership;
use elea_protocol::message::{Origin, ToClient, Transport};
use elea_protocol::signature::{SecretKey, Signer as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a step of a connection may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where a replica listens at present.
pub type Where = Arc<dyn Fn(ReplicaId) -> Option<SocketAddr> + Send + Sync>;

fn found(at: &Where, id: ReplicaId) -> io::Result<SocketAddr> {
    at(id).ok_or_else(|| io::Error::other("it is down"))
}

/// A connection on which nothing was said yet.
///
/// # Errors
/// The replica is down, or does not take it.
pub async fn dial(at: &Where, id: ReplicaId) -> io::Result<TcpStream> {
    let stream = timeout(PATIENCE, TcpStream::connect(found(at, id)?)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Whoever has a client's key.
#[derive(Clone)]
pub struct Guest {
    /// Where its replicas are.
    pub at: Where,
    /// The cluster.
    pub membership: Arc<Membership>,
    /// How it speaks to them.
    pub transport: Transport,
    /// An admitted key.
    pub key: Arc<SecretKey>,
}

impl Guest {
    /// A connection that has shown its key and was welcomed.
    ///
    /// # Errors
    /// It was turned away, or not answered in time.
    pub async fn greeted(&self, id: ReplicaId) -> io::Result<Connection> {
        let origin = Origin::Client(ClientId::from(self.key.public_key()));
        let address = found(&self.at, id)?.to_string();
        let (membership, to) = (&*self.membership, (id, address.as_str()));
        let greet = async {
            let mut connection = call(membership, to, origin, &self.key, self.transport).await?;
            match message(&mut connection).await? {
                ToClient::Welcome => Ok(connection),
                _ => Err(io::Error::other("no welcome")),
            }
        };
        timeout(PATIENCE, greet).await?
    }
}
