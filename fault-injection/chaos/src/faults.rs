//! The kinds of faults, and a deck that deals them.

use elea_fault_injection::rng::Rng;

use crate::hostile::Mischief;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The parties are split in two.
    Partition,
    /// One replica is not heard, or hears nothing.
    OneWay,
    /// Everything takes longer.
    Delay,
    /// Everything takes longer by different times.
    Jitter,
    /// Next to nothing passes at one replica.
    Bandwidth,
    /// Connections are reset.
    Reset,
    /// Somebody on the way turns bits at one replica.
    Turned,
    /// The kernel drops the packets of one replica.
    Namespace,
    /// One client is behind a slow line.
    SlowClient,
    /// One replica is.
    SlowReplica,
    /// The disk of one replica is slow.
    SlowDisk,
    /// All disks are.
    SlowDisks,
    /// The wall clock of one replica is wrong.
    Clock,
    /// Those of half of them are, or of all, by the same.
    Clocks,
    /// One replica dies.
    KillOne,
    /// All die.
    KillAll,
    /// One replica stands still for a while, and does not know it.
    Freeze,
    /// All are stopped and started, one after the other.
    Restart,
    /// The disk of one replica is full.
    DiskFull,
    /// A bit turns in what one replica stored.
    BitFlip,
    /// A client does what it can.
    Hostile(Mischief),
}

/// What a fault is about, and so how long it lasts and what it may meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The network between parties: short, and any number at a time.
    Network,
    /// Something is slow, or otherwise not as it should be, for long.
    Lasting,
    /// Processes end or stand still, disks fail: not more than two at a time, and of those that
    /// touch disks not more than `f`.
    Replicas,
    /// Clients: any number at a time.
    Clients,
}

impl Kind {
    /// All that happen to the cluster; those of hostile clients come on top.
    const OF_THE_CLUSTER: [Self; 20] = [
        Self::Partition,
        Self::OneWay,
        Self::Delay,
        Self::Jitter,
        Self::Bandwidth,
        Self::Reset,
        Self::Turned,
        Self::Namespace,
        Self::SlowClient,
        Self::SlowReplica,
        Self::SlowDisk,
        Self::SlowDisks,
        Self::Clock,
        Self::Clocks,
        Self::KillOne,
        Self::KillAll,
        Self::Freeze,
        Self::Restart,
        Self::DiskFull,
        Self::BitFlip,
    ];

    /// All of them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let hostile = Mischief::ALL.into_iter().map(Self::Hostile);
        Self::OF_THE_CLUSTER.into_iter().chain(hostile).collect()
    }

    /// Its name in reports.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::OneWay => "one-way loss",
            Self::Delay => "delay",
            Self::Jitter => "jitter",
            Self::Bandwidth => "bandwidth",
            Self::Reset => "reset",
            Self::Turned => "turned bits",
            Self::Namespace => "packets dropped",
            Self::SlowClient => "slow line, client",
            Self::SlowReplica => "slow line, replica",
            Self::SlowDisk => "slow disk",
            Self::SlowDisks => "slow disks",
            Self::Clock => "wrong clock",
            Self::Clocks => "wrong clocks",
            Self::KillOne => "kill one",
            Self::KillAll => "kill all",
            Self::Freeze => "freeze",
            Self::Restart => "rolling restart",
            Self::DiskFull => "disk full",
            Self::BitFlip => "bit flip",
            Self::Hostile(mischief) => mischief.word(),
        }
    }

    /// What it is about.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Self::Partition
            | Self::OneWay
            | Self::Delay
            | Self::Jitter
            | Self::Bandwidth
            | Self::Reset
            | Self::Turned
            | Self::Namespace => Class::Network,
            Self::SlowClient
            | Self::SlowReplica
            | Self::SlowDisk
            | Self::SlowDisks
            | Self::Clock
            | Self::Clocks => Class::Lasting,
            Self::KillOne
            | Self::KillAll
            | Self::Freeze
            | Self::Restart
            | Self::DiskFull
            | Self::BitFlip => Class::Replicas,
            Self::Hostile(_) => Class::Clients,
        }
    }

    /// Whether it befalls all replicas, so that nothing else may befall one of them meanwhile.
    #[must_use]
    pub fn is_of_all(self) -> bool {
        matches!(self, Self::KillAll | Self::Restart)
    }

    /// Whether a replica's disk is not what it should be afterwards, until somebody mends it. Not
    /// more than `f` may be so at a time.
    #[must_use]
    pub fn is_of_disks(self) -> bool {
        matches!(self, Self::DiskFull | Self::BitFlip)
    }
}

/// Deals every kind once before any of them comes again.
#[derive(Clone, Debug)]
pub struct Deck {
    all: Vec<Kind>,
    left: Vec<Kind>,
}

impl Deck {
    /// Of these kinds.
    #[must_use]
    pub fn new(all: Vec<Kind>) -> Self {
        Self { all, left: Vec::new() }
    }

    /// The next one; `None` of an empty deck.
    pub fn deal(&mut self, rng: &mut Rng) -> Option<Kind> {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
        }
        (!self.left.is_empty()).then(|| self.left.swap_remove(rng.index(self.left.len())))
    }

    /// Puts one back that could not have its turn.
    pub fn put_back(&mut self, kind: Kind) {
        self.left.push(kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deck_deals_all_before_it_repeats_any() {
        let all = Kind::all();
        let mut deck = Deck::new(all.clone());
        let mut rng = Rng::new(5);
        for _ in 0..3 {
            let mut dealt: Vec<_> = all.iter().filter_map(|_| deck.deal(&mut rng)).collect();
            dealt.sort_unstable();
            assert_eq!(dealt, all);
        }
        assert_eq!(Deck::new(Vec::new()).deal(&mut rng), None);
    }
}
