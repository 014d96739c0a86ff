//! What a liar says whom no core restrains.
//!
//! Where twins are not enough: a liar holds its key and signs. Whatever a correct replica votes
//! for, it votes for too, in any view, at any slot, for every side; to whoever asks for a view, it
//! answers with a view change that has forgotten every lock. All of it is under way at once, and
//! the exploration chooses what arrives where, and what is withheld.

use elea_protocol::id::{Digest, ReplicaId, Slot};
use elea_protocol::message::{Campaign, Message, Position, Suspect, ViewChange};
use elea_protocol::seal::sign;
use elea_protocol::signature::Signer;

/// What the liar makes of what a correct replica said.
pub fn echo(
    signer: &dyn Signer,
    genesis: &Digest,
    liar: ReplicaId,
    message: &Message,
) -> Option<Message> {
    Some(match message {
        Message::Commit(vote) => {
            Message::Commit(sign(signer, genesis, liar, vote.body).into_inner())
        }
        Message::Checkpoint(vote) => {
            Message::Checkpoint(sign(signer, genesis, liar, vote.body).into_inner())
        }
        Message::Suspect(suspect) => {
            // As a primary it would be believed.
            let body = Suspect::resign(suspect.body.view);
            Message::Suspect(sign(signer, genesis, liar, body).into_inner())
        }
        Message::Campaign(campaign) => {
            let body = ViewChange {
                view: campaign.change.body.view,
                campaign: campaign.change.body.campaign,
                entered: campaign.change.body.entered,
                lock: None,
                stable: Slot::GENESIS,
                head: Position { slot: Slot::GENESIS, hash: *genesis },
                stamp: campaign.change.body.stamp,
            };
            Message::Campaign(Box::new(Campaign {
                change: sign(signer, genesis, liar, body).into_inner(),
                suspects: campaign.suspects.clone(),
                proof: campaign.proof.clone(),
                others: Vec::new(),
            }))
        }
        _ => return None,
    })
}
