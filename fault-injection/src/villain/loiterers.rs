//! Replicas that are slow, or say that they are.

use std::collections::VecDeque;

use elea_protocol::id::Instant;
use elea_protocol::message::{Echo, Message, Position, Pulse, Status};
use elea_protocol::replica::{Action, Target};

use super::{Deed, Lair, Villain, tell};

/// How late a limper is with all that it says, in ms.
const LATE: u64 = 200;

/// Says everything late, orders and what would tell of them, but never that it is slow.
///
/// It attacks patience: something is ordered all the time, and clients wait.
#[derive(Default)]
pub struct Limper(VecDeque<(Instant, Target, Message)>);

impl Villain for Limper {
    fn name(&self) -> &'static str {
        "limper"
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        match action {
            Action::Send { to, message, .. } if !matches!(message, Message::Pulse(_)) => {
                self.0.push_back((lair.now.instant.after_ms(LATE), to, message));
            }
            other => deeds.push(Deed::Act(other)),
        }
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        while let Some((at, to, message)) = self.0.pop_front_if(|(at, ..)| *at <= lair.now.instant)
        {
            let _ = at;
            tell(&lair.meant(to), message, deeds);
        }
    }

    fn wakes(&self) -> Option<Instant> {
        self.0.front().map(|(at, ..)| *at)
    }
}

/// Gives history a slot at a time, and takes half as long again with each as with the last one, until that is far too long.
/// It has no more to give, as it says.
///
/// It attacks whoever is behind: each slot is of use, so there seems to be no reason to ask somebody else.
#[derive(Default)]
pub struct Trickler {
    /// Where it began, and is still, as it says.
    head: Option<Position>,
    waiting: VecDeque<(Instant, Target, Message)>,
    delay: u64,
}

/// So long the trickler takes at first, in ms. After more than the second it begins again.
const DRIP: u64 = 20;
const DRIP_MAX: u64 = 10_000;

impl Villain for Trickler {
    fn name(&self) -> &'static str {
        "trickler"
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        let (to, message) = match action {
            Action::Send { to, message: Message::Slots(mut slots), .. } => {
                slots.entries.truncate(1);
                slots.certificate = None;
                (to, Message::Slots(slots))
            }
            Action::Send { to, message: Message::Branch(mut branch), .. } => {
                branch.slots.truncate(1);
                branch.stable = None;
                (to, Message::Branch(branch))
            }
            Action::Send { to, message: Message::Status(status), .. } => {
                let head = *self.head.get_or_insert(status.body.head);
                let status = lair.sign(Status { head, ..status.body });
                return tell(&lair.meant(to), Message::Status(status), deeds);
            }
            other => return deeds.push(Deed::Act(other)),
        };
        self.delay = if self.delay > DRIP_MAX { DRIP } else { (self.delay * 3 / 2).max(DRIP) };
        self.waiting.push_back((lair.now.instant.after_ms(self.delay), to, message));
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        let now = lair.now.instant;
        while let Some((_, to, message)) = self.waiting.pop_front_if(|(at, ..)| *at <= now) {
            tell(&lair.meant(to), message, deeds);
        }
    }

    fn wakes(&self) -> Option<Instant> {
        self.waiting.front().map(|(at, ..)| *at)
    }
}

/// Says that its disk takes for ever, or no time at all, and echoes what nobody sent, or at once, or
/// not at all.
///
/// It attacks what others expect of each other: waits that never end, or that are always too short.
#[derive(Default)]
pub struct FalsePulse {
    /// How it lies, once it has chosen.
    kind: Option<Lie>,
}

#[derive(Clone, Copy)]
enum Lie {
    /// It is slower than anybody.
    Slow,
    /// It is faster than anybody.
    Fast,
    /// Now this, now that.
    Fickle,
}

impl Villain for FalsePulse {
    fn name(&self) -> &'static str {
        "false-pulse"
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        let Action::Send { to, message: Message::Pulse(pulse), .. } = action else {
            return deeds.push(Deed::Act(action));
        };
        let lies = [Lie::Slow, Lie::Fast, Lie::Fickle];
        let lie = *self.kind.get_or_insert_with(|| *lair.rng.pick(&lies));
        for party in lair.meant(to) {
            let Pulse { stamp, echoes, .. } = pulse.body.clone();
            let (sync, kind) = match lie {
                Lie::Slow => (3_600_000_000, 1),
                Lie::Fast => (1, 0),
                Lie::Fickle => {
                    let sync = *lair.rng.pick(&[0, 1, 1_000_000, 3_600_000_000, u64::MAX]);
                    (sync, lair.rng.between(0, 3))
                }
            };
            let echo = |echo: Echo| match kind {
                0 => Echo { held: u64::MAX, ..echo },
                1 => Echo { held: 0, ..echo },
                2 => Echo { stamp: echo.stamp.wrapping_add(1), ..echo },
                _ => Echo { stamp: u64::MAX, ..echo },
            };
            let echoes = echoes.into_iter().map(echo).collect();
            let pulse = lair.sign(Pulse { stamp, sync, echoes });
            tell(&[party], Message::Pulse(pulse), deeds);
        }
    }
}
