//! A replica that says another thing of its program to each of the others.

use elea_protocol::edition::Edition;
use elea_protocol::message::{Message, Status};
use elea_protocol::replica::{Action, Target};

use super::{Deed, Lair, Villain};

/// What is said of programs that is not so: too little or too much, of one number or of both.
pub const LIES: [Edition; 6] = [
    Edition { protocol: 0, application: 0 },
    Edition { protocol: 1, application: 1 },
    Edition { protocol: 1, application: 2 },
    Edition { protocol: 0, application: 2 },
    Edition { protocol: 2, application: 1 },
    Edition { protocol: u16::MAX, application: u16::MAX },
];

/// Tells each of the others something else of what it executes and of what it knows all to execute, and stays with
/// that for long.
///
/// It attacks the going over to newer editions: who is told what decides who goes over, and who follows.
#[derive(Default)]
pub struct TwoFaced {
    /// What it tells the first of the others, by its place among the lies.
    shift: usize,
}

impl Villain for TwoFaced {
    fn name(&self) -> &'static str {
        "two-faced"
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        let Action::Send { to: Target::Others, message: Message::Status(status), after } = action
        else {
            return deeds.push(Deed::Act(action));
        };
        if lair.rng.one_in(16) {
            self.shift = lair.rng.index(LIES.len());
        }
        let others = lair.membership.size().members().filter(|id| *id != lair.id);
        for (place, id) in others.enumerate() {
            let lie = |step: usize| LIES[(self.shift + step * place) % LIES.len()];
            let (newest_edition, common_edition) = (lie(1), lie(2));
            let status = lair.sign(Status { newest_edition, common_edition, ..status.body });
            let (to, message) = (Target::One(id), Message::Status(status));
            deeds.push(Deed::Act(Action::Send { to, message, after }));
        }
    }
}
