//! A primary whose orders are signed, on the chain, and against the rules.

use elea_protocol::id::{Digest, ReplicaId, WallTime};
use elea_protocol::message::{Message, Order, OrderHeader};
use elea_protocol::replica::{Action, Target};
use elea_protocol::signature::Signed;

use super::{Deed, Lair, Villain};
use crate::restate;

/// To some replicas it sends, instead of its core's order, one that breaks a rule for a slot: a
/// request twice, a request of an earlier slot again, time that runs backwards, or years ahead, an edition that was left
/// behind, or one that no program, or not everybody's, executes.
#[derive(Default)]
pub struct RuleBreaker {
    /// The head that its core's last order made, and that order.
    before: Option<Signed<Order>>,
}

impl RuleBreaker {
    fn broken(&self, lair: &mut Lair, order: &Signed<Order>) -> Signed<Order> {
        let genesis = *lair.membership.genesis();
        let before = self.before.as_ref().map(|before| &before.body);
        let mut choices = order.body.choices;
        let mut requests: Vec<Digest> = order.body.requests.clone();
        match (lair.rng.between(0, 5), before) {
            (0, Some(earlier)) => requests.extend(&earlier.requests),
            (1, Some(earlier)) => {
                choices.time = WallTime(earlier.choices.time.0.saturating_sub(1));
            }
            (2, _) => choices.time = WallTime(u64::MAX),
            (3, _) => choices.edition.application += u16::from(lair.rng.bytes::<1>()[0] % 3),
            (4, _) => choices.edition.protocol = 0,
            _ => requests.extend_from_within(..1),
        }
        let batch = restate::choices_and_requests(&choices, &requests);
        let hash = restate::link(&before.map_or(genesis, |before| before.header.hash), &batch);
        let header = OrderHeader { hash, batch, ..order.body.header };
        lair.sign(Order { header, choices, requests })
    }
}

impl Villain for RuleBreaker {
    fn name(&self) -> &'static str {
        "rule-breaker"
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        let Action::Send { to: Target::Others, message: Message::Order(order), after } = action
        else {
            return deeds.push(Deed::Act(action));
        };
        let me = lair.id;
        let members: Vec<ReplicaId> = lair.membership.size().members().collect();
        for id in members.into_iter().filter(|id| *id != me) {
            let message = if lair.rng.one_in(4) {
                Message::Order(self.broken(lair, &order))
            } else {
                Message::Order(order.clone())
            };
            deeds.push(Deed::Act(Action::Send { to: Target::One(id), message, after }));
        }
        self.before = Some(order);
    }
}
