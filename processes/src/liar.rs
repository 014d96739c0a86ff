//! A replica that lies, for `elea demo` and the tests: whoever holds a replica's key file can play it.
//!
//! It speaks the ordinary protocol between replicas: it dials one, answers the challenge with the
//! key, and says what it likes. Nothing in a correct replica can be talked into this.

use std::io;

use elea_protocol::id::{Digest, ReplicaId, Slot, View};
use elea_protocol::membership::Membership;
use elea_protocol::message::{Commit, HelloBody, Message, Origin, ToClient, ToReplica};
use elea_protocol::seal::{sign, sign_hello};
use elea_protocol::signature::SecretKey;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

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

    async fn dial(&self, (to, address): (ReplicaId, &str)) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address).await?;
        let ToClient::Challenge(challenge) = message(&mut stream).await? else {
            return Err(io::Error::other("no challenge came"));
        };
        let origin = Origin::Replica(self.id);
        let nonce = challenge.nonce;
        let body = HelloBody { origin, to, nonce, instance: 1, own_nonce: [0; 32] };
        let hello = sign_hello(self.key, self.membership.genesis(), body);
        stream.write_all(&frame(&ToReplica::Hello(hello))?).await?;
        let ToClient::Terms(terms) = message(&mut stream).await? else {
            return Err(io::Error::other("the hello was not welcome"));
        };
        stream.write_all(&frame(&ToReplica::Terms(terms))?).await?;
        match message(&mut stream).await? {
            ToClient::Greeting(_) => Ok(stream),
            _ => Err(io::Error::other("the hello was not welcome")),
        }
    }
}
