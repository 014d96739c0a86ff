//! Villains that leave out.

use elea_protocol::replica::{Action, Target};

use super::{Deed, Lair, Villain};
use crate::network::Party;
use elea_protocol::id::ReplicaId;

/// Hears everything, works, and says nothing to anybody.
pub struct Mute;

impl Villain for Mute {
    fn name(&self) -> &'static str {
        "mute"
    }

    fn does(&mut self, _lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        if matches!(action, Action::Append { .. }) {
            deeds.push(Deed::Act(action));
        }
    }
}

/// Behaves, except that one of the others never hears from it.
#[derive(Default)]
pub struct Shunner {
    shunned: Option<Party>,
}

impl Villain for Shunner {
    fn name(&self) -> &'static str {
        "shunner"
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        let shunned = *self.shunned.get_or_insert_with(|| lair.somebody());
        let Action::Send { to, message, after } = action else {
            return deeds.push(Deed::Act(action));
        };
        for other in lair.others() {
            let Party::Replica(id) = other else { continue };
            let id = ReplicaId(id);
            let meant = match to {
                Target::Others => true,
                Target::One(one) => one == id,
            };
            if meant && other != shunned {
                let message = message.clone();
                deeds.push(Deed::Act(Action::Send { to: Target::One(id), message, after }));
            }
        }
    }
}
