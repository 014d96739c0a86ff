//! A primary with two histories.

use elea_protocol::id::Digest;
use elea_protocol::message::{Message, Order, OrderHeader};
use elea_protocol::replica::{Action, Target};
use elea_protocol::seal::Signed;

use super::{Deed, Lair, Villain};
use crate::network::Party;
use crate::restate;

/// Signs two orders for each slot from some slot on: its core's own for the lower half of the
/// cluster, and one with another seed for the upper half. Now and then it lets one replica see
/// both, which is how it is caught.
#[derive(Default)]
pub struct Equivocator {
    /// The head of the history that the upper half sees.
    fork: Option<Digest>,
    previous: Option<Digest>,
}

impl Equivocator {
    fn twin(&mut self, lair: &mut Lair, order: &Signed<Order>) -> Signed<Order> {
        let genesis = *lair.membership.genesis();
        let before = self.fork.or(self.previous).unwrap_or(genesis);
        let mut choices = order.body.choices;
        choices.seed = lair.rng.bytes();
        let requests = order.body.requests.clone();
        let batch = restate::choices_and_requests(&choices, &requests);
        let hash = restate::link(&before, &batch);
        self.fork = Some(hash);
        let header = OrderHeader { hash, batch, ..order.body.header };
        lair.sign(Order { header, choices, requests })
    }
}

impl Villain for Equivocator {
    fn name(&self) -> &'static str {
        "equivocator"
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        let Action::Send { to: Target::Others, message: Message::Order(order), after } = action
        else {
            return deeds.push(Deed::Act(action));
        };
        if self.fork.is_none() && order.body.header.slot.0 < 2 {
            self.previous = Some(order.body.header.hash);
            return deeds.push(Deed::Act(Action::Send {
                to: Target::Others,
                message: Message::Order(order),
                after,
            }));
        }
        let twin = self.twin(lair, &order);
        self.previous = Some(order.body.header.hash);
        let others = lair.others();
        for (position, to) in others.iter().enumerate() {
            let upper = position >= others.len() / 2;
            let Party::Replica(id) = *to else { continue };
            let both = lair.rng.one_in(4);
            if upper || both {
                deeds.push(Deed::message(*to, Message::Order(twin.clone())));
            }
            if !upper || both {
                deeds.push(Deed::Act(Action::Send {
                    to: Target::One(elea_protocol::id::ReplicaId(id)),
                    message: Message::Order(order.clone()),
                    after,
                }));
            }
        }
    }
}
