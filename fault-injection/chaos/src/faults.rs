//! The kinds of faults, and a deck that deals them.

use elea_fault_injection::rng::Rng;

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
    /// Little passes in a second.
    Bandwidth,
    /// Connections are reset.
    Reset,
    /// The kernel drops the packets of one replica.
    Namespace,
    /// One replica dies.
    KillOne,
    /// All die.
    KillAll,
    /// One replica stands still for a while, and does not know it.
    Freeze,
    /// The disk of one replica is full.
    DiskFull,
    /// A bit turns in what one replica stored.
    BitFlip,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Partition,
        Self::OneWay,
        Self::Delay,
        Self::Jitter,
        Self::Bandwidth,
        Self::Reset,
        Self::Namespace,
        Self::KillOne,
        Self::KillAll,
        Self::Freeze,
        Self::DiskFull,
        Self::BitFlip,
    ];

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
            Self::Namespace => "packets dropped",
            Self::KillOne => "kill one",
            Self::KillAll => "kill all",
            Self::Freeze => "freeze",
            Self::DiskFull => "disk full",
            Self::BitFlip => "bit flip",
        }
    }

    /// Whether it happens to replicas, and not to the network between them. One such fault at a
    /// time is enough: of those that touch disks there must not be more than `f`.
    #[must_use]
    pub fn is_of_replicas(self) -> bool {
        match self {
            Self::Partition
            | Self::OneWay
            | Self::Delay
            | Self::Jitter
            | Self::Bandwidth
            | Self::Reset
            | Self::Namespace => false,
            Self::KillOne | Self::KillAll | Self::Freeze | Self::DiskFull | Self::BitFlip => true,
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deck_deals_all_before_it_repeats_any() {
        let mut deck = Deck::new(Kind::ALL.to_vec());
        let mut rng = Rng::new(5);
        for _ in 0..3 {
            let mut dealt: Vec<_> = Kind::ALL.iter().filter_map(|_| deck.deal(&mut rng)).collect();
            dealt.sort_unstable();
            assert_eq!(dealt, Kind::ALL);
        }
        assert_eq!(Deck::new(Vec::new()).deal(&mut rng), None);
    }
}
