//! What is broken at a time, as the harness itself broke it.
//!
//! A fault is a list of [`Ill`]s while it lasts. All of them together say how each way of the
//! [network](crate::network) treats what passes, and they are what the [judge of
//! service](crate::service) goes by: so what is done and what is believed to be done is one thing.

use std::collections::BTreeSet;
use std::time::Duration;

use elea_protocol::id::ReplicaId;

use crate::clock::Setting;
use crate::line::Link;
use crate::tap::{Party, Wire};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ill {
    /// A replica does not serve: it is dead, starts, stands still, cannot write, or is not what its
    /// rules ask of it in another way. The network treats it as before.
    Down(ReplicaId),
    /// What crosses from one of these parts to the other is lost. Who is in neither is not
    /// concerned. With `abrupt` connections are closed, so that both ends know; otherwise they fall
    /// silent.
    Split {
        /// The parts.
        sides: [BTreeSet<Party>; 2],
        /// Whether both ends are told.
        abrupt: bool,
    },
    /// Nothing that this replica says arrives.
    Mute(ReplicaId),
    /// Nothing that anybody says to this replica arrives.
    Deaf(ReplicaId),
    /// Something else than the proxies loses what this replica says and hears.
    Dropped(ReplicaId),
    /// Connections are reset again and again.
    Resets,
    /// Somebody on the way turns bits in what this replica says and hears.
    Turned(ReplicaId),
    /// What passes at a party, or everywhere, is late by up to so much, or passes slowly.
    Slow {
        /// Whose ways.
        who: Option<Party>,
        /// How they treat what passes.
        link: Link,
    },
    /// The wall clock of a replica is set so.
    Clock {
        /// The replica whose clock or disk it is.
        who: ReplicaId,
        /// How it is set from now on.
        setting: Setting,
    },
    /// The wall clock of a replica was set just now, and whether it already goes by that is not
    /// known.
    ClockInDoubt(ReplicaId),
    /// Each sync takes so much longer, at one replica or at all.
    SlowDisk {
        /// The replica whose clock or disk it is.
        who: Option<ReplicaId>,
        /// By how much.
        delay: Duration,
    },
}

/// How a replica's clock is set, by the last of these that says so.
#[must_use]
pub fn clock_setting(id: ReplicaId, ills: &[Ill]) -> Setting {
    let last = ills.iter().rev().find_map(|ill| match ill {
        Ill::Clock { who, setting } if *who == id => Some(*setting),
        _ => None,
    });
    last.unwrap_or(Setting::RIGHT)
}

/// How a way treats what passes, when all that is wrong is taken together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Treatment {
    /// Connections are closed, and new ones are held.
    pub is_cut: bool,
    /// Something else breaks it.
    pub is_broken: bool,
    /// From the dialler to the replica.
    pub there: Link,
    /// And back.
    pub back: Link,
}

impl Treatment {
    /// Whether words pass in both directions.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !(self.is_cut || self.is_broken || self.there.is_held || self.back.is_held)
    }

    /// Of a way, while all of this is wrong.
    #[must_use]
    pub fn of(wire: Wire, ills: &[Ill]) -> Self {
        let mut treatment = Self::default();
        ills.iter().for_each(|ill| treatment.suffers(wire, ill));
        treatment
    }

    fn suffers(&mut self, wire: Wire, ill: &Ill) {
        let (from, to) = (wire.from, Party::Replica(wire.to));
        match ill {
            Ill::Down(_) | Ill::SlowDisk { .. } | Ill::Clock { .. } | Ill::ClockInDoubt(_) => {}
            Ill::Split { sides: [one, other], abrupt } => {
                let crosses =
                    |a: &BTreeSet<Party>, b: &BTreeSet<Party>| a.contains(&from) && b.contains(&to);
                if crosses(one, other) || crosses(other, one) {
                    self.is_cut |= *abrupt;
                    self.there.is_held |= !*abrupt;
                    self.back.is_held |= !*abrupt;
                }
            }
            Ill::Mute(id) | Ill::Deaf(id) => {
                let is_mute = matches!(ill, Ill::Mute(_));
                if from == Party::Replica(*id) {
                    let link = if is_mute { &mut self.there } else { &mut self.back };
                    link.is_held = true;
                }
                if wire.to == *id {
                    let link = if is_mute { &mut self.back } else { &mut self.there };
                    link.is_held = true;
                }
            }
            Ill::Dropped(id) => {
                self.is_broken |= from == Party::Replica(*id) || wire.to == *id;
            }
            Ill::Resets => self.is_broken = true,
            Ill::Turned(id) => {
                if from == Party::Replica(*id) || wire.to == *id {
                    self.is_broken = true;
                    self.there.turns_bits = true;
                    self.back.turns_bits = true;
                }
            }
            Ill::Slow { who, link } => {
                if who.is_none_or(|who| who == from || who == to) {
                    self.there = both(self.there, *link);
                    self.back = both(self.back, *link);
                }
            }
        }
    }
}

/// A link that suffers from both.
fn both(one: Link, other: Link) -> Link {
    let rates = [one.bytes_per_second, other.bytes_per_second];
    Link {
        is_held: one.is_held || other.is_held,
        delay: one.delay + other.delay,
        jitter: one.jitter + other.jitter,
        bytes_per_second: rates.into_iter().flatten().min(),
        spoils_states: one.spoils_states || other.spoils_states,
        turns_bits: one.turns_bits || other.turns_bits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(from: u8, to: u8) -> Wire {
        Wire { from: Party::Replica(ReplicaId(from)), to: ReplicaId(to) }
    }

    fn client(from: usize, to: u8) -> Wire {
        Wire { from: Party::Client(from), to: ReplicaId(to) }
    }

    #[test]
    fn a_split_concerns_what_crosses_and_nobody_else() {
        let side = |parties: &[Party]| parties.iter().copied().collect::<BTreeSet<_>>();
        let replica = |id| Party::Replica(ReplicaId(id));
        let sides = [side(&[replica(0), Party::Client(0)]), side(&[replica(1), replica(2)])];
        for abrupt in [true, false] {
            let ills = [Ill::Split { sides: sides.clone(), abrupt }];
            let is_open = |wire| Treatment::of(wire, &ills).is_open();
            assert!(!is_open(wire(0, 1)) && !is_open(wire(2, 0)) && !is_open(client(0, 1)));
            assert!(is_open(wire(1, 2)) && is_open(client(0, 0)) && is_open(client(7, 0)));
        }
    }

    #[test]
    fn who_is_mute_hears_and_who_is_deaf_is_heard() {
        let of = |wire, ill: &Ill| {
            let treatment = Treatment::of(wire, std::slice::from_ref(ill));
            (treatment.there.is_held, treatment.back.is_held)
        };
        let (mute, deaf) = (Ill::Mute(ReplicaId(1)), Ill::Deaf(ReplicaId(1)));
        assert_eq!([of(wire(1, 0), &mute), of(wire(0, 1), &mute)], [(true, false), (false, true)]);
        assert_eq!([of(wire(1, 0), &deaf), of(wire(0, 1), &deaf)], [(false, true), (true, false)]);
        assert_eq!(of(wire(0, 2), &mute), (false, false));
    }

    #[test]
    fn what_is_slow_twice_is_slower() {
        let slow = |millis, rate| Link {
            delay: Duration::from_millis(millis),
            bytes_per_second: Some(rate),
            ..Link::default()
        };
        let ills = [
            Ill::Slow { who: None, link: slow(20, 9_000) },
            Ill::Slow { who: Some(Party::Client(0)), link: slow(5, 4_000) },
        ];
        assert_eq!(Treatment::of(client(0, 3), &ills).there, slow(25, 4_000));
        assert_eq!(Treatment::of(client(1, 3), &ills).back, slow(20, 9_000));
    }
}
