//! Villains that leave out.

use elea_protocol::message::Message;
use elea_protocol::replica::{Action, Target};

use super::notes::Pace;
use super::{Deed, Lair, Villain};
use crate::network::Party;
use elea_protocol::id::ReplicaId;

/// Hears everything, works, and says nothing to anybody.
#[derive(Default)]
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

/// Lets an action of the core reach those replicas only whom `reaches` lets through.
fn narrow(lair: &Lair, action: Action, reaches: impl Fn(Party) -> bool, deeds: &mut Vec<Deed>) {
    let Action::Send { to, message, after } = action else {
        return deeds.push(Deed::Act(action));
    };
    for party in lair.meant(to).into_iter().filter(|party| reaches(*party)) {
        let Party::Replica(id) = party else { continue };
        let (to, message) = (Target::One(ReplicaId(id)), message.clone());
        deeds.push(Deed::Act(Action::Send { to, message, after }));
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
        narrow(lair, action, |party| party != shunned, deeds);
    }
}

/// Behaves, except that only a random part of the others hears from it; now and then another one.
///
/// It attacks what rests on everybody hearing the same: orders, votes and view changes reach one
/// and not the other, and nobody can tell it from a bad network.
#[derive(Default)]
pub struct SelectiveSender {
    chosen: Vec<Party>,
    pace: Pace,
}

impl Villain for SelectiveSender {
    fn name(&self) -> &'static str {
        "selective-sender"
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        if self.pace.is_due(lair, 50, 500) {
            self.chosen = lair.some();
        }
        narrow(lair, action, |party| self.chosen.contains(&party), deeds);
    }
}

/// Says everything but its votes: it counts as alive, and never helps to commit.
///
/// It attacks the suspicion for strong requests (F13 in schedules.md): nobody can tell it from a
/// correct replica that is stuck, and views must not change for ever because of it.
#[derive(Default)]
pub struct VoteWithholder;

impl Villain for VoteWithholder {
    fn name(&self) -> &'static str {
        "vote-withholder"
    }

    fn does(&mut self, _lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        if !matches!(
            action,
            Action::Send { message: Message::Commit(_) | Message::Checkpoint(_), .. }
        ) {
            deeds.push(Deed::Act(action));
        }
    }
}
