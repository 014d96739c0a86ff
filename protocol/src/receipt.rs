//! Portable proofs of a reply.
//!
//! A receipt is a reply with enough replicas' votes that it cannot be a lie. Anybody who has the
//! cluster file can check it, offline, years later.

use serde::{Deserialize, Serialize};

use crate::id::{Digest, ReplicaId};
use crate::membership::Membership;
use crate::message::{Reply, ReplyKind, ReplyVote, SignedReply};
use crate::quorum::Strength;
use crate::seal::Rejection;

/// A reply and the votes for it, in the order of the voters' ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The cluster: a receipt of another one is told from a forged one.
    pub genesis: Digest,
    /// What is proved.
    pub reply: Reply,
    /// Who said so, each with a signature.
    pub votes: Vec<ReplyVote>,
}

/// What a valid receipt shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proven {
    /// A correct replica executed it: it is never lost.
    Executed,
    /// It is final: every later history has it in this place with these results.
    Final,
}

/// Why a receipt proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReceipt {
    /// It is about another cluster.
    #[error("the receipt is of another cluster (genesis {0})")]
    OtherCluster(Digest),
    /// One vote does not hold.
    #[error("the vote of {0}: {1}")]
    BadVote(ReplicaId, Rejection),
    /// A replica's vote stands there twice, or votes are out of order.
    #[error("the votes are not in the order of their replicas, each once")]
    Unordered,
    /// All votes hold, but they are too few.
    #[error("{0} votes are too few")]
    TooFew(usize),
}

impl Receipt {
    /// Checks every vote. All of them must hold, also where fewer would do: a receipt in which
    /// anything was changed is not accepted.
    ///
    /// ```
    /// # use elea_protocol::receipt::Proven;
    /// # fn example(receipt: elea_protocol::receipt::Receipt, membership: &elea_protocol::membership::Membership) -> Result<(), Box<dyn std::error::Error>> {
    /// match receipt.verify(membership)? {
    ///     Proven::Final => println!("final: every later history has it in this place"),
    ///     Proven::Executed => println!("executed, and never lost; its place may change"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What does not hold.
    pub fn verify(&self, membership: &Membership) -> Result<Proven, BadReceipt> {
        if self.genesis != *membership.genesis() {
            return Err(BadReceipt::OtherCluster(self.genesis));
        }
        if !self.votes.is_sorted_by(|a, b| a.by < b.by) {
            return Err(BadReceipt::Unordered);
        }
        for vote in &self.votes {
            let signed = SignedReply { reply: self.reply.clone(), vote: vote.clone() };
            membership
                .open_reply(signed)
                .map_err(|rejection| BadReceipt::BadVote(vote.by, rejection))?;
        }
        // A few committed votes show no finality, but what any correct replica says of its own
        // history: a client in a small part of a split network may never get more.
        let size = membership.size();
        let count = self.votes.len();
        match self.reply.kind {
            ReplyKind::Committed if size.suffices(count, Strength::Strong) => Ok(Proven::Final),
            _ if size.suffices(count, Strength::Weak) => Ok(Proven::Executed),
            _ => Err(BadReceipt::TooFew(count)),
        }
    }
}
