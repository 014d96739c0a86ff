//! A replica that lies, for `elea demo` and the tests: whoever holds a replica's key file can play it.
//!
//! It speaks the ordinary protocol between replicas: it dials one, proves that it has the
//! key, and says what it likes. Nothing in a correct replica can be talked into this.

use std::io;

use elea_net::Connection;
use elea_protocol::id::{Digest, ReplicaId, Slot, View};
use elea_protocol::membership::Membership;
use elea_protocol::message::{Commit, Message, Origin, ToClient, ToReplica, Transport};
use elea_protocol::seal::sign;
use elea_protocol::signature::SecretKey;
use tokio::io::AsyncWriteExt as _;

use crate::caller::call;
use crate::frames::{frame, message};

/// Whom it plays.
pub struct Liar<'a> {
    /// The cluster.
    pub membership: &'a Membership,
    /// The replica.
    pub id: ReplicaId,
    /// Its key.
    pub key: &'a SecretKey,
}

impl Liar<'_> {
    /// Signs two votes for one slot, each for a history that the other one contradicts, and sends
    /// both to a replica.
    ///
    /// # Errors
    /// The connection fails, or the replica turns it away.
    pub async fn vote_twice(
        &self,
        to: (ReplicaId, &str),
        view: View,
        slot: Slot,
    ) -> io::Result<()> {
        let mut stream = self.dial(to).await?;
        for hash in [Digest([1; 32]), Digest([2; 32])] {
            let vote = Commit { view, slot, hash };
            let vote = sign(self.key, self.membership.genesis(), self.id, vote).into_inner();
            stream.write_all(&frame(&ToReplica::Peer(Message::Commit(vote)))?).await?;
        }
        stream.shutdown().await
    }

    async fn dial(&self, to: (ReplicaId, &str)) -> io::Result<Connection> {
        let origin = Origin::Replica(self.id);
        let transport = Transport::Encrypted;
        let mut connection = call(self.membership, to, origin, self.key, transport).await?;
        let ToClient::Terms(terms) = message(&mut connection).await? else {
            return Err(io::Error::other("the hello was not welcome"));
        };
        connection.write_all(&frame(&ToReplica::Terms(terms))?).await?;
        connection.flush().await?;
        match message(&mut connection).await? {
            ToClient::Greeting(_) => Ok(connection),
            _ => Err(io::Error::other("the hello was not welcome")),
        }
    }
}
