//! Which fault happens when: rounds in which several overlap, all of it from a seed.
//!
//! A *short* round is rough: faults of the network and of replicas come and go, several at a time,
//! while clients may be hostile and disks or lines slow. A *long* one leaves processes and the
//! network alone, so that what lasts has time to show: a slow disk, a slow line, hostile clients.

use std::time::Duration;

use elea_fault_injection::rng::Rng;

use crate::faults::{Class, Deck, Kind};

/// A fault and when it is to be, from the beginning of its round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Of which kind.
    pub kind: Kind,
    /// When it begins.
    pub from: Duration,
    /// When it ends.
    pub to: Duration,
}

/// Some faults, and a quiet time before them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// Nothing happens for so long.
    pub quiet: Duration,
    /// And then the faults have so long.
    pub length: Duration,
    /// In the order in which they begin.
    pub faults: Vec<Planned>,
}

/// What deals rounds.
#[derive(Debug)]
pub struct Schedule {
    rng: Rng,
    network: Deck,
    lasting: Deck,
    replicas: Deck,
    clients: Deck,
    rounds: u64,
    /// How long a rolling restart takes.
    restart: Duration,
}

/// What one replica of a rolling restart has, until the next one has its turn.
const RESTART: Duration = Duration::from_secs(8);

fn millis(rng: &mut Rng, low: u64, high: u64) -> Duration {
    Duration::from_millis(rng.between(low, high))
}

impl Schedule {
    /// Of these kinds, for so many replicas.
    #[must_use]
    pub fn new(enabled: &[Kind], replicas: u8, rng: Rng) -> Self {
        let deck = |class| {
            Deck::new(enabled.iter().copied().filter(|kind| kind.class() == class).collect())
        };
        Self {
            network: deck(Class::Network),
            lasting: deck(Class::Lasting),
            replicas: deck(Class::Replicas),
            clients: deck(Class::Clients),
            rounds: 0,
            restart: RESTART * u32::from(replicas),
            rng,
        }
    }

    /// The next round.
    pub fn next_round(&mut self) -> Round {
        self.rounds += 1;
        // The fourth, the eighth...
        let mut round = if self.rounds.is_multiple_of(4) { self.long() } else { self.short() };
        round.faults.sort_by_key(|planned| planned.from);
        round
    }

    fn short(&mut self) -> Round {
        let rng = &mut self.rng;
        let mut round = Round {
            quiet: millis(rng, 3_000, 8_000),
            length: millis(rng, 16_000, 26_000),
            faults: Vec::new(),
        };
        // Every third leaves the network alone, every third one processes.
        let rough = rng.between(0, 2);
        let networks = if rough == 0 { 0 } else { rng.between(1, 3) };
        let replicas = if rough == 1 { 0 } else { rng.between(1, 2) };
        let (lasting, clients) = (rng.between(0, 1), rng.between(1, 2));
        for _ in 0..networks {
            let kind = self.network.deal(&mut self.rng);
            self.put(&mut round, kind, (3_000, 9_000));
        }
        self.of_replicas(&mut round, replicas);
        for _ in 0..lasting {
            let kind = self.lasting.deal(&mut self.rng);
            self.put(&mut round, kind, (14_000, 26_000));
        }
        for _ in 0..clients {
            let kind = self.clients.deal(&mut self.rng);
            self.put(&mut round, kind, (5_000, 12_000));
        }
        round
    }

    fn long(&mut self) -> Round {
        let rng = &mut self.rng;
        let mut round = Round {
            quiet: millis(rng, 6_000, 10_000),
            length: millis(rng, 40_000, 70_000),
            faults: Vec::new(),
        };
        let (lasting, clients) = (rng.between(1, 2), rng.between(2, 4));
        for _ in 0..lasting {
            let kind = self.lasting.deal(&mut self.rng);
            self.put(&mut round, kind, (38_000, 70_000));
        }
        for _ in 0..clients {
            let kind = self.clients.deal(&mut self.rng);
            self.put(&mut round, kind, (10_000, 25_000));
        }
        round
    }

    /// Puts a fault somewhere into a round, unless one of its kind is there already.
    fn put(&mut self, round: &mut Round, kind: Option<Kind>, (least, most): (u64, u64)) {
        let Some(kind) = kind.filter(|kind| round.faults.iter().all(|other| other.kind != *kind))
        else {
            return;
        };
        let lasts = millis(&mut self.rng, least, most).min(round.length);
        let spare = u64::try_from((round.length - lasts).as_millis()).unwrap_or(0);
        let from = millis(&mut self.rng, 0, spare);
        round.faults.push(Planned { kind, from, to: from + lasts });
    }

    /// So many faults of replicas, as far as they may meet.
    fn of_replicas(&mut self, round: &mut Round, count: u64) {
        let mut chosen: Vec<Kind> = Vec::new();
        for _ in 0..count {
            let Some(kind) = self.replicas.deal(&mut self.rng) else { return };
            let meets = |other: &Kind| {
                other.is_of_all() || kind.is_of_all() || (other.is_of_disks() && kind.is_of_disks())
            };
            if chosen.iter().any(meets) {
                self.replicas.put_back(kind);
                continue;
            }
            chosen.push(kind);
            if kind == Kind::Restart {
                // Each has its turn, and time to serve before the next one has.
                round.length = round.length.max(self.restart);
                let (from, to) = (Duration::ZERO, round.length);
                round.faults.push(Planned { kind, from, to });
            } else {
                self.put(round, Some(kind), (3_000, 9_000));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(seed: u64) -> Vec<Round> {
        let mut schedule = Schedule::new(&Kind::all(), 4, Rng::new(seed));
        (0..60).map(|_| schedule.next_round()).collect()
    }

    #[test]
    fn a_seed_names_a_schedule() {
        assert_eq!(rounds(3), rounds(3));
        assert_ne!(rounds(3), rounds(4));
    }

    #[test]
    fn half_an_hour_has_every_kind_and_faults_that_overlap() {
        for seed in 0..20 {
            let rounds = rounds(seed);
            let length: Duration = rounds.iter().map(|round| round.quiet + round.length).sum();
            assert!(length < Duration::from_secs(2_400), "{length:?}");
            let faults = || rounds.iter().flat_map(|round| &round.faults);
            for kind in Kind::all() {
                assert!(faults().any(|planned| planned.kind == kind), "{}", kind.word());
            }
            let overlap =
                |round: &&Round| round.faults.windows(2).any(|pair| pair[1].from < pair[0].to);
            assert!(rounds.iter().filter(overlap).count() > 30);
        }
    }

    #[test]
    fn what_may_not_meet_does_not_and_all_is_over_with_the_round() {
        for round in (0..20).flat_map(rounds) {
            assert!(round.faults.iter().all(|planned| planned.to <= round.length));
            let of_replicas = || round.faults.iter().map(|planned| planned.kind);
            let of_replicas = || of_replicas().filter(|kind| kind.class() == Class::Replicas);
            assert!(of_replicas().count() <= 2);
            assert!(of_replicas().filter(|kind| kind.is_of_disks()).count() <= 1);
            assert!(of_replicas().count() <= 1 || !of_replicas().any(Kind::is_of_all));
        }
    }
}
